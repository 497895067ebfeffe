from __future__ import annotations

import base64
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.builders import props

from lcsearch.data.readers import Read, read
from lcsearch.data.readers._events import LONGEST, Scalar, masked_crc, scalars
from lcsearch.errors import FileProblem, InvalidValue
from lcsearch.study import Status

# What torch.utils.tensorboard (torch 2.13, tensorboard 2.21) wrote: add_scalar of val/loss and lr at steps 0..4, wall
# time 1000 + 2 step; a histogram and a text; at step 5 a val/loss of NaN. Zlib, then base64.
TORCH = (
    "eNrzYICAf5M85nLe21chVn3glqMUb1JRYmaenmtZal6JlVGQHpdOSWpecX5RUn5iUYpecWlubmJRpV55UWZJapFeKkhVfFpmTmo8RGSLT7m5"
    "DNTcEwenynKCWQ79DlqCXPxcHGWJOfo5+cXFogwMDfa3PM+VikHV+ifu00Co5ebi5GLKKRI9e+aMrXlWv50cVNXNO0JGEFUB/Q4CjBhmMtiH"
    "96k0SkBVL673VkJWjWyqiVXrbExTE4DqmNBMXb1qlZ1K0TNOTFMhqpFNPV8WcRzT1AKgOmZM/9vpRBttwjQVohrZ1I07d+dimtoAVMeCZurZ"
    "Mz52ZV9OPMM0FaIa2VQPux1VBVB1UzTXnuW0vwJJAVqpXMlc7OWpmekZJcVaEYIQJRwOkhCGgIMihCHhoAlh6DgYwSyEAQeYWiscMgwONf3P"
    "BayhHCnlNTGccleh9htw6XEJ5uWXpOqXpFaUxEOTnBM/B7sQixATB6MTa0ZqTk6+FwcXGxcLSMmCc3JemAE0AehlVoxgP1B/53jhGQCdnrAM"
)
# What tensorboard.summary.Writer (2.21) wrote, scalars as tensors: val/loss 0.5 - 0.1 step at 0..3, wall time
# 2000 + 3 step.
TENSOR = (
    "eNrzYICAf5M85nKeelohVn3glqMUb1JRYmaenmtZal6JlVGQHpdOSWpecX5RUn5iUYpecWlubmJRpV55UWZJapFeKkhVfFpmTmo8RGTrMo1s"
    "I6i5KpJhbzjBLIf5DlrqXKpcHGWJOfo5+cXFTlwcjEIMWixAOXsvXi5OLvbi5MScxKJiBcZT23v9TKAmxBmLx0BM8JnvIMCI3YyzZ87YoZlR"
    "8m9KLKYZEUAzmLCbMWvmTHQz3LPUEzHNSAGawYzLHT7oZoSF1BkDACvvWRc="
)


def field(number: int, kind: int, payload: bytes) -> bytes:
    return varint(number << 3 | kind) + (varint(len(payload)) if kind == 2 else b"") + payload


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def event(wall: float, step: int, *values: bytes) -> bytes:
    summary = b"".join(field(1, 2, value) for value in values)
    body = field(1, 1, struct.pack("<d", wall)) + (field(2, 0, varint(step)) if step else b"")
    return body + (field(5, 2, summary) if values else field(3, 2, b"brain.Event:2"))


def simple(tag: str, value: float) -> bytes:
    return field(1, 2, tag.encode()) + field(2, 5, struct.pack("<f", value))


def tensor(tag: str, *fields: bytes) -> bytes:
    return field(1, 2, tag.encode()) + field(8, 2, b"".join(fields))


def record(payload: bytes) -> bytes:
    head = struct.pack("<Q", len(payload))
    return head + struct.pack("<I", masked_crc(head)) + payload + struct.pack("<I", masked_crc(payload))


def file(folder: Path, *payloads: bytes, name: str = "events.out.tfevents.1.host") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"".join(record(payload) for payload in payloads))
    return folder / name


def curve(folder: Path, values: dict[int, float], tag: str = "loss", start: float = 100.0, **kw: str) -> Path:
    return file(folder, event(start, 0), *(event(start + s, s, simple(tag, v)) for s, v in values.items()), **kw)


def losses(root: Path, metric: str | None = None, **wish: Any) -> Read:
    return read(root, metric=metric, direction="minimize", **wish)


def test_known_checksums() -> None:
    # CRC-32C of "123456789" is 0xe3069283, of 32 zero bytes 0x8a9136aa (RFC 3720, B.4).
    def unmasked(data: bytes) -> int:
        rotated = (masked_crc(data) - 0xA282EAD8) & 0xFFFFFFFF
        return (rotated >> 17 | rotated << 15) & 0xFFFFFFFF

    assert unmasked(b"123456789") == 0xE3069283
    assert unmasked(bytes(32)) == 0x8A9136AA


def test_what_torch_wrote(tmp_path: Path) -> None:
    (tmp_path / "events.out.tfevents.1.vm.0").write_bytes(zlib.decompress(base64.b64decode(TORCH)))
    found = losses(tmp_path, "val/loss")
    (run,) = found.task.runs
    assert run.uid == tmp_path.name
    assert run.curve.values == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4, 1 / 5], rel=1e-6)
    assert run.curve.event_steps.tolist() == [5]
    assert run.clock.tolist() == [0, 2, 4, 6, 8, 10]
    assert (found.task.unit, found.task.goal.horizon, run.status) == ("seconds", 5, Status.COMPLETE)
    assert losses(tmp_path, "lr").task.runs[0].curve.values == pytest.approx([0.1] * 5)


def test_what_tensorboard_wrote_as_tensors(tmp_path: Path) -> None:
    (tmp_path / "events.out.tfevents.1.vm.1").write_bytes(zlib.decompress(base64.b64decode(TENSOR)))
    found = losses(tmp_path)  # the only tag
    assert found.task.goal.metric == "val/loss"
    assert found.task.runs[0].curve.values == pytest.approx([0.5, 0.4, 0.3, 0.2])
    assert found.task.runs[0].clock.tolist() == [0, 3, 6, 9]


def test_what_tensorboardx_writes(tmp_path: Path) -> None:
    tensorboardX = pytest.importorskip("tensorboardX")
    for name in ("a", "b/c"):
        writer = tensorboardX.SummaryWriter(str(tmp_path / name))
        for step in range(1, 4):
            writer.add_scalar("loss", 1 / step, step)
        writer.close()
    found = losses(tmp_path)
    assert [run.uid for run in found.task.runs] == ["a", "b/c"]
    for run in found.task.runs:
        assert run.steps == [1, 2, 3]
        assert run.curve.values == pytest.approx([1, 1 / 2, 1 / 3])
        assert run.clock[0] >= 0


@pytest.mark.parametrize(
    "value",
    [
        simple("x", 0.75),
        tensor("x", field(1, 0, b"\x01"), field(5, 2, struct.pack("<f", 0.75))),  # packed float_val
        tensor("x", field(1, 0, b"\x01"), field(5, 5, struct.pack("<f", 0.75))),  # not packed
        tensor("x", field(1, 0, b"\x02"), field(6, 2, struct.pack("<d", 0.75))),  # double_val
        tensor("x", field(1, 0, b"\x13"), field(13, 2, varint(0x3A00))),  # half_val
        tensor("x", field(1, 0, b"\x01"), field(2, 2, b""), field(4, 2, struct.pack("<f", 0.75))),  # tensor_content
        tensor("x", field(1, 0, b"\x02"), field(4, 2, struct.pack("<d", 0.75))),
        field(7, 2, b"node") + simple("x", 0.75) + field(9, 2, b"\x0a\x09\x0a\x07scalars"),  # with metadata
    ],
)
def test_every_form_of_a_scalar(tmp_path: Path, value: bytes) -> None:
    path = file(tmp_path, event(5.0, 0), event(7.0, 300, value))
    assert list(scalars(path))[1:] == [Scalar(7.0, 300, "x", 0.75)]


@pytest.mark.parametrize(
    "value",
    [
        field(1, 2, b"x") + field(4, 2, b"an image"),
        field(1, 2, b"x") + field(5, 2, b""),
        tensor("x", field(1, 0, b"\x07"), field(8, 2, b"a text")),
        tensor("x", field(1, 0, b"\x01"), field(5, 2, struct.pack("<ff", 1, 2))),  # a vector
        simple("", 1.0),
    ],
)
def test_what_is_no_scalar_is_passed_over(tmp_path: Path, value: bytes) -> None:
    path = file(tmp_path, event(5.0, 0), event(7.0, 3, value, simple("y", 1.0)))
    assert list(scalars(path))[1:] == [Scalar(7.0, 3, "y", 1.0)]


def test_long_records_are_passed_over(tmp_path: Path) -> None:
    image = field(1, 2, b"x") + field(4, 2, bytes(LONGEST))
    path = file(tmp_path, event(5.0, 0), event(6.0, 1, image), event(7.0, 2, simple("x", 1.0)))
    assert [row.step for row in scalars(path)][1:] == [2]


ROW = st.tuples(
    st.floats(0, 1e10), st.integers(-(2**63), 2**63 - 1), st.text(min_size=1), st.floats(width=32, allow_nan=False)
)


@props
@given(rows=st.lists(ROW))
def test_whatever_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[float, int, str, float]]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    path = file(folder, event(1.0, 0), *(event(w, s & 2**64 - 1, simple(tag, v)) for w, s, tag, v in rows))
    assert list(scalars(path))[1:] == [Scalar(*row) for row in rows]


def test_a_torn_last_record_was_never_written(tmp_path: Path) -> None:
    path = curve(tmp_path, {1: 0.5, 2: 0.25, 3: 0.125})
    whole = path.read_bytes()
    size = len(record(event(103, 3, simple("loss", 0.125))))
    for cut in range(1, size + 1):
        path.write_bytes(whole[:-cut])
        assert losses(tmp_path).task.runs[0].steps == [1, 2]


def test_a_damaged_record_is_an_error(tmp_path: Path) -> None:
    path = curve(tmp_path, {1: 0.5, 2: 0.25})
    whole = path.read_bytes()
    first = len(record(event(100, 0)))
    for at, what in ((first, "its length"), (first + 20, "its data")):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(FileProblem) as caught:
            losses(tmp_path)
        said = f"expected an event record at byte {first}, got a wrong checksum of {what}."
        assert str(caught.value) == f"{path}: {said}"


@pytest.mark.parametrize("payload", [b"\x0b", b"\x2a\x7f", b"\x80", b"\xff" * 11, b"\x09\x00"])
def test_a_record_that_is_no_event(tmp_path: Path, payload: bytes) -> None:
    path = file(tmp_path, event(1.0, 0), payload)
    with pytest.raises(FileProblem, match=r"expected a TensorBoard event at byte \d+, got "):
        list(scalars(path))


def test_tags(tmp_path: Path) -> None:
    file(tmp_path / "a", event(1.0, 0), *(event(s, s, simple("val/loss", 1.0), simple("lr", 0.1)) for s in (1, 2)))
    with pytest.raises(InvalidValue) as caught:
        losses(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: metric: expected one of the tags lr, val/loss, got None. Name the one to replay."
    )
    with pytest.raises(InvalidValue) as caught:
        losses(tmp_path, "valloss")
    assert str(caught.value) == (
        f"{tmp_path}: metric: expected one of the tags lr, val/loss, got 'valloss'. Perhaps 'val/loss' is meant."
    )


def test_no_scalars(tmp_path: Path) -> None:
    file(tmp_path / "a", event(1.0, 0))
    with pytest.raises(FileProblem) as caught:
        losses(tmp_path)
    assert str(caught.value) == f"{tmp_path}: expected event files with scalars, got none."


def test_direction_is_needed(tmp_path: Path) -> None:
    curve(tmp_path, {1: 1.0})
    with pytest.raises(InvalidValue) as caught:
        read(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: direction: expected 'minimize' or 'maximize' (the file does not say which way is better), "
        "got None. Give direction= (--direction), and metric= (--metric) where there are several."
    )


def test_a_restart_supersedes_what_came_after_its_step(tmp_path: Path) -> None:
    """Steps 0..4, killed; resumed from step 3 an hour later in a second file."""
    curve(tmp_path / "a", {0: 5, 1: 4, 2: 3, 3: 99, 4: 98}, name="events.out.tfevents.100.host")
    resumed = [event(4000 + s, s, simple("loss", 5 - s)) for s in (3, 4, 5)]
    file(tmp_path / "a", event(4002, 0), *resumed, name="events.out.tfevents.4000.host")
    found = losses(tmp_path)
    (run,) = found.task.runs
    assert run.curve.values.tolist() == [5, 4, 3, 2, 1, 0]
    # Four seconds of work in the first file, then one until step 3 was there again; the hour between costs nothing.
    assert run.clock.tolist() == [0, 1, 2, 5, 6, 7]
    assert found.left_out[0] == "1 run went back to an earlier step: the abandoned reports are dropped."


def test_a_step_reported_twice_counts_as_it_was_last(tmp_path: Path) -> None:
    values = [(0, 5.0), (1, 4.0), (1, 3.0), (2, 2.0)]
    file(tmp_path, event(0.0, 0), *(event(i, s, simple("loss", v)) for i, (s, v) in enumerate(values)))
    run = losses(tmp_path).task.runs[0]
    assert (run.steps, run.curve.values.tolist(), run.clock.tolist()) == ([0, 1, 2], [5, 3, 2], [0, 2, 3])


def test_a_clock_that_is_set_back_stands_still(tmp_path: Path) -> None:
    walls = [100, 110, 105, 120]
    file(tmp_path, event(90.0, 0), *(event(w, i, simple("loss", 1.0)) for i, w in enumerate(walls)))
    assert losses(tmp_path).task.runs[0].clock.tolist() == [10, 20, 20, 30]


def test_how_runs_ended_is_guessed_and_said(tmp_path: Path) -> None:
    curve(tmp_path / "whole", dict.fromkeys(range(10), 1.0))
    curve(tmp_path / "short", dict.fromkeys(range(4), 1.0))
    curve(tmp_path / "broke", {0: 1.0, 1: math.nan, 2: math.nan})
    curve(tmp_path / "other", {0: 1.0}, tag="accuracy")
    found = losses(tmp_path, "loss")
    assert {run.uid: run.status for run in found.task.runs} == {
        "whole": Status.COMPLETE,
        "short": Status.STOPPED,
        "broke": Status.FAILED,
    }
    assert found.left_out == (
        "1 run without the tag 'loss': left out.",
        "Nothing says how 3 trials ended: taken as complete at step 9, and 2 that ended before as stopped or failed.",
    )
    assert found.source == f"TensorBoard runs in {tmp_path}, tag 'loss'"
    assert found.task.name == tmp_path.name


def test_one_event_file_by_itself(tmp_path: Path) -> None:
    path = curve(tmp_path, {1: 1.0, 2: 0.5})
    assert losses(path).task.runs[0].steps == [1, 2]


def test_nothing_is_written(tmp_path: Path) -> None:
    path = curve(tmp_path, {1: 1.0, 2: 0.5})
    before = path.read_bytes(), path.stat().st_mtime_ns
    losses(tmp_path)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert list(tmp_path.iterdir()) == [path]


def test_values_are_single_precision(tmp_path: Path) -> None:
    curve(tmp_path, {1: 0.1, 2: math.inf})
    run = losses(tmp_path).task.runs[0]
    assert run.curve.values.tolist() == [float(np.float32(0.1))]
    assert run.curve.event_values.tolist() == [math.inf]


# Folders that are no trials


def keras(root: Path, run: str, best: float) -> None:
    """Keras' TensorBoard callback: train/ and validation/, the same tags in both, lower ones in training."""
    for part, add in (("train", 0.0), ("validation", 0.5)):
        curve(root / run / part, {e: best + add + 1 / (e + 1) for e in range(4)}, tag="epoch_loss")


def test_fifteen_trainings_of_keras_are_fifteen_trials(tmp_path: Path) -> None:
    for i in range(15):
        keras(tmp_path, f"run{i:02d}", 0.1 * i)
    found = losses(tmp_path)
    assert [run.uid for run in found.task.runs] == [f"run{i:02d}" for i in range(15)]
    assert found.task.goal.metric == "validation/epoch_loss"
    assert float(found.task.judged.min()) == pytest.approx(0.75)
    assert found.left_out[:2] == (
        "validation/epoch_loss is read; --metric train/epoch_loss reads the other.",
        "Folders train, validation are parts of the trial around them, no trials.",
    )
    assert float(losses(tmp_path, "train/epoch_loss").task.judged.min()) == pytest.approx(0.25)
    assert losses(tmp_path, "epoch_loss").task.goal.metric == "validation/epoch_loss"
    assert [run.uid for run in losses(tmp_path / "run03").task.runs] == ["run03"]  # the folder of one training


def test_the_evaluation_beside_a_training(tmp_path: Path) -> None:
    curve(tmp_path / "a", {1: 1.0, 2: 0.5})
    curve(tmp_path / "a" / "eval", {1: 1.5, 2: 1.0})
    assert losses(tmp_path, "loss").task.runs[0].values == [1.0, 0.5]
    assert losses(tmp_path, "eval/loss").task.runs[0].values == [1.5, 1.0]


def test_children_of_add_scalars_and_add_hparams_by_tensorboardx(tmp_path: Path) -> None:
    tensorboardX = pytest.importorskip("tensorboardX")
    for name in ("one", "two"):
        writer = tensorboardX.SummaryWriter(str(tmp_path / name))
        for step in range(4):
            writer.add_scalar("lr", 0.1, step)
            writer.add_scalars("loss", {"train": 1 / (step + 1), "val": 2 / (step + 1)}, step)
        writer.add_hparams({"lr": 0.1}, {"lr": 0.1, "hparam/loss": 0.5})
        writer.close()
    found = losses(tmp_path, "loss/val")
    assert [run.uid for run in found.task.runs] == ["one", "two"]
    assert found.task.runs[0].values == pytest.approx([2, 1, 2 / 3, 1 / 2])
    assert found.left_out[:2] == (
        "4 folders of add_scalars: curves of the trial around them, no trials.",
        "2 folders of add_hparams, with one report each: no trials.",
    )
    assert [run.uid for run in losses(tmp_path, "lr").task.runs] == ["one", "two"]


def test_children_of_add_scalars_as_torch_names_them(tmp_path: Path) -> None:
    """torch.utils.tensorboard: TAG_NAME below the writer's own folder, which has its own file."""
    file(tmp_path / "a", event(1.0, 0))
    for name, top in (("train", 1.0), ("val", 2.0)):
        curve(tmp_path / "a" / f"my_loss_{name}", {s: top / s for s in (1, 2, 3)}, tag="my/loss")
    assert [(r.uid, r.values[0]) for r in losses(tmp_path, "my/loss/val").task.runs] == [("a", 2.0)]
    curve(tmp_path / "loss_b", {1: 1.0, 2: 0.5})  # a run of that name, below no other run: a trial
    assert [run.uid for run in losses(tmp_path, "loss").task.runs] == ["loss_b"]


def test_steps_in_place_of_event_times(tmp_path: Path) -> None:
    curve(tmp_path / "a", {1: 1.0, 5: 0.5}, start=1e9)
    timed, counted = losses(tmp_path), losses(tmp_path, steps=True)
    assert (timed.task.unit, timed.task.runs[0].clock.tolist()) == ("seconds", [1, 5])
    assert (counted.task.unit, counted.task.runs[0].clock.tolist()) == ("steps", [1, 5])
