"""What an objective of any library keeps: arrays, bytes and files, whole with their step, found again after a kill."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sweep.kit import Remembering, held, write_toy
from sweep.objective.test_context import context

from lcsearch import checkpoint
from lcsearch.errors import EnvironmentProblem, FileProblem, InvalidValue
from lcsearch.sweep import run as launcher
from lcsearch.sweep.monitor.progress import Progress
from lcsearch.sweep.runtime import launch

ARRAYS = [
    np.arange(6.0).reshape(2, 3).T,
    np.array(["malignant", "benign"]),
    np.array([], np.float32),
    np.array(3, np.int8),
    np.array([True, False]),
    np.array([1 + 2j]),
    np.array([b"ab"]),
    np.array(["2026-01-01"], "datetime64[D]"),
    np.array([(1, 0.5)], [("n", "<i4"), ("x", "<f8")]),
    np.arange(3, dtype=">f4"),
]


def test_arrays_and_bytes_come_back_as_they_were(tmp_path: Path) -> None:
    ctx = context(tmp_path)
    state = {
        "arrays": ARRAYS,
        "raw": (b"\x00\xff", b"", bytearray(b"booster"), memoryview(b"seen")),
        "scalars": [np.float32(0.1), np.int64(7), np.bool_(True), np.float64(0.1)],
        "tensor": torch.ones(2, dtype=torch.bfloat16),
        "deep": {1: [{"coef_": np.ones(2)}]},
    }
    for more in (True, False):  # with tensors beside them, and without
        if not more:
            del state["tensor"]
        ctx.save(state, 4)
        saved = ctx.load()
        assert saved is not None
        assert (saved.step, saved.files) == (4, None)
        for found, array in zip(saved.state["arrays"], ARRAYS, strict=True):
            assert (found.dtype, found.shape) == (array.dtype, array.shape)
            np.testing.assert_array_equal(found, array)
        assert saved.state["raw"] == state["raw"]
        assert [type(raw) for raw in saved.state["raw"]] == [bytes, bytes, bytearray, bytes]  # as Booster takes them
        assert saved.state["scalars"] == state["scalars"]
        assert isinstance(saved.state["scalars"][0], np.float32)
        np.testing.assert_array_equal(saved.state["deep"][1][0]["coef_"], np.ones(2))


def test_no_pickle_is_written_or_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("pickled")

    for name in ("dumps", "loads", "Pickler", "Unpickler", "dump", "load"):
        monkeypatch.setattr(pickle, name, refuse)
    ctx = context(tmp_path)
    ctx.save({"arrays": ARRAYS, "raw": b"\x80\x04.", "tensor": torch.ones(1)}, 1)
    assert ctx.load() is not None


def test_torch_stays_out_of_an_objective_that_does_without(tmp_path: Path) -> None:
    program = (
        "import sys, numpy as np\nfrom pathlib import Path\nfrom lcsearch import checkpoint\n"
        "checkpoint.save(Path(sys.argv[1]), {'w': np.ones(3), 'raw': b'x'}, 2)\n"
        "print(checkpoint.load(Path(sys.argv[1])).state['w'].sum(), 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == "3.0 False\n"


OVERLAPPING = np.dtype({"names": ["a", "b"], "formats": ["<i4", "<i4"], "offsets": [0, 2], "itemsize": 8})


@pytest.mark.parametrize(
    ("value", "expected", "advice"),
    [
        (torch.ones(2).to_sparse(), "state.m: expected dense tensors, got", "Save what it consists of."),
        (
            torch.ones(2, dtype=torch.complex128),
            "state: expected tensors of a type that safetensors has, got 'torch.complex128'",
            "Convert it.",
        ),
        (
            np.zeros(1, OVERLAPPING),
            "state.m: expected arrays of a type that NumPy itself writes, got",
            "Convert it: array.astype(np.float32).",
        ),
    ],
)
def test_tensors_and_arrays_that_cannot_be_kept(tmp_path: Path, value: Any, expected: str, advice: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        context(tmp_path).save({"m": value}, 1)
    said = str(caught.value)
    assert said.startswith(expected)
    assert said.endswith(advice)


def test_state_that_holds_itself(tmp_path: Path) -> None:
    state: dict[str, Any] = {}
    state["me"] = state
    with pytest.raises(InvalidValue, match="got 'one nested too deep, perhaps in itself'"):
        context(tmp_path).save(state, 1)


@pytest.mark.parametrize("step", [-1, 1.5, "three", None])
def test_a_step_that_is_none(tmp_path: Path, step: Any) -> None:
    ctx = context(tmp_path)
    with pytest.raises(InvalidValue, match=r"ctx\.save\(step=\): expected a whole number >= 0, got"):
        ctx.save({}, step)
    with (
        pytest.raises(InvalidValue, match=r"ctx\.saving\(step=\): expected a whole number >= 0, got"),
        ctx.saving(step),
    ):
        pass


def test_a_checkpoint_of_an_earlier_and_of_a_later_lcsearch(tmp_path: Path) -> None:
    tree = '{"dict": [["w", {"tensor": "0"}], ["n", {"plain": 3}]]}'
    path = tmp_path / checkpoint.FILE
    save_file({"0": torch.ones(2)}, path, {"lcsearch": f'{{"version": 1, "step": 5, "tree": {tree}}}'})
    saved = checkpoint.load(tmp_path)
    assert saved is not None
    assert (saved.step, saved.state["n"], saved.state["w"].tolist(), saved.files) == (5, 3, [1, 1], None)
    save_file({}, path, {"lcsearch": '{"version": 3, "step": 5, "tree": {}}'})
    with pytest.raises(FileProblem) as caught:
        checkpoint.load(tmp_path)
    text = "expected a checkpoint of format 2 or earlier, got 3. Update lcsearch."
    assert str(caught.value) == f"{path}: {text}"


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ('{"version": 2, "tree": {"dict": []}}', "a whole number >= 0 as the header's step, got none"),
        ('{"version": 2, "step": "5", "tree": {"dict": []}}', "a whole number >= 0 as the header's step, got '5'"),
        ('{"version": 2, "step": true, "tree": {"dict": []}}', "a whole number >= 0 as the header's step, got True"),
        ('{"version": 2, "step": 5}', "a dict's nesting as the header's tree, got none"),
        ('{"version": 2, "step": 5, "tree": {"plain": 3}}', "a dict's nesting as the header's tree, got {'plain': 3}"),
        ('{"version": 2, "step": 5, "tree": {"dict": []}, "blobs": 3}', "a list of names as the header's blobs, got 3"),
        ('{"step": 5, "tree": {"dict": []}}', "a checkpoint that lcsearch wrote, got none"),
        ("[]", "a checkpoint that lcsearch wrote, got none"),
        (None, "a checkpoint that lcsearch wrote, got none"),
    ],
)
def test_a_header_that_is_not_as_it_was_written(tmp_path: Path, header: str | None, said: str) -> None:
    path = tmp_path / checkpoint.FILE
    save_file({}, path, None if header is None else {"lcsearch": header})
    with pytest.raises(FileProblem) as caught:
        checkpoint.load(tmp_path)
    assert str(caught.value) == f"{path}: expected {said}. Delete it to start over."
    if header is None:
        text = "expected a checkpoint that lcsearch wrote, got none. Delete it to start over."
        assert str(caught.value) == f"{path}: {text}"


def test_files_are_kept_with_step_and_state(tmp_path: Path) -> None:
    ctx = context(tmp_path)
    for step in (3, 4, 4):
        with ctx.saving(step, {"best": step}) as folder:
            assert list(folder.iterdir()) == []
            (folder / "sub").mkdir()
            (folder / "sub/model.bin").write_text(f"model {step}")
        saved = ctx.load()
        assert saved is not None
        assert (saved.step, saved.state) == (step, {"best": step})
        assert saved.files is not None
        assert (saved.files / "sub/model.bin").read_text() == f"model {step}"
        assert len(list(tmp_path.iterdir())) == 2  # nothing is left of the one before
    (tmp_path / "files-mine").mkdir()  # the objective's own
    ctx.save({}, 5)
    saved = ctx.load()
    assert saved is not None
    assert saved.files is None
    assert sorted(path.name for path in tmp_path.iterdir()) == [checkpoint.FILE, "files-mine"]


def test_a_block_that_raises_keeps_what_was_saved_before(tmp_path: Path) -> None:
    ctx = context(tmp_path)
    with ctx.saving(1) as first:
        (first / "model").write_text("1")
    with pytest.raises(ZeroDivisionError), ctx.saving(2) as second:
        (second / "model").write_text(str(1 / 0))
    saved = ctx.load()
    assert saved is not None
    assert (saved.step, saved.files) == (1, first)
    assert not second.exists()


HALF = """\
import os, signal, sys
from pathlib import Path
from lcsearch import checkpoint
folder = Path(sys.argv[1])
with checkpoint.saving(folder, {}, 1) as files:
    (files / "model").write_text("1")
real = Path.replace
def killed(self, target):
    if sys.argv[2] == "after":
        real(self, target)
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] != "within":
    Path.replace = killed
with checkpoint.saving(folder, {}, 2) as files:
    (files / "model").write_text("2")
    if sys.argv[2] == "within":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("moment", "step"), [("within", 1), ("before", 1), ("after", 2)])
def test_a_kill_leaves_the_old_files_or_the_new_never_a_part(tmp_path: Path, moment: str, step: int) -> None:
    done = subprocess.run([sys.executable, "-c", HALF, str(tmp_path), moment])
    assert done.returncode == -signal.SIGKILL
    saved = checkpoint.load(tmp_path)
    assert saved is not None
    assert saved.files is not None
    assert (saved.step, (saved.files / "model").read_text()) == (step, str(step))
    assert sorted(path.name for path in tmp_path.iterdir()) == [checkpoint.FILE, saved.files.name]


def test_a_folder_that_another_process_fills_is_left_alone(tmp_path: Path) -> None:
    theirs = tmp_path / f"files-7.{os.getppid()}.0"
    theirs.mkdir()
    ctx = context(tmp_path)
    with ctx.saving(1), ctx.saving(2):
        ctx.load()
    assert theirs.is_dir()


def test_files_that_are_gone_and_files_elsewhere(tmp_path: Path) -> None:
    ctx = context(tmp_path)
    with ctx.saving(1) as files:
        pass
    files.rmdir()
    with pytest.raises(FileProblem) as caught:
        ctx.load()
    text = "expected the files of checkpoint.safetensors, got none. Delete that to start over."
    assert str(caught.value) == f"{files}: {text}"
    checkpoint.save(tmp_path, {}, 1, files="../..")
    with pytest.raises(FileProblem, match=r"expected a checkpoint, got one whose files are in '\.\./\.\.'"):
        ctx.load()


def test_a_folder_that_cannot_be_written_is_no_fault_of_the_objective(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.write_text("no folder")
    ctx = context(place)
    with pytest.raises(EnvironmentProblem) as caught:
        ctx.save({}, 1)
    assert str(caught.value).startswith(f"{place}: expected a folder for checkpoints that can be written, got ")
    with pytest.raises(EnvironmentProblem), ctx.saving(1):
        pass


SCIKIT = """\
import os, time
import joblib, numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier

x, y = load_digits(return_X_y=True)

def train(ctx):
    model = SGDClassifier(random_state=ctx.seed, alpha=1e-4 + ctx.params["a"])
    start, saved = 1, ctx.load()
    if saved is not None:
        model, start = joblib.load(saved.files / "model.joblib"), saved.step + 1
        order = np.random.default_rng(0)
        order.bit_generator.state = saved.state["order"]
    else:
        order = np.random.default_rng(0)
    with open(ctx.checkpoint_dir / "lives", "a") as file:
        print(os.getpid(), start, file=file)
    for epoch in range(start, ctx.max_steps + 1):
        time.sleep(0.02)
        model.partial_fit(*(part[order.permutation(900)] for part in (x[:900], y[:900])), classes=range(10))
        ctx.report(1 - model.score(x[900:], y[900:]), epoch)
        with ctx.saving(epoch, {"order": order.bit_generator.state}) as folder:
            joblib.dump(model, folder / "model.joblib")
"""

ARRAYS_ONLY = SCIKIT.replace(
    'model, start = joblib.load(saved.files / "model.joblib"), saved.step + 1',
    """start = saved.step + 1
        model.partial_fit(x[:10], y[:10], classes=range(10))
        model.coef_, model.intercept_, model.t_ = (saved.state[name] for name in ("coef_", "intercept_", "t_"))""",
).replace(
    """with ctx.saving(epoch, {"order": order.bit_generator.state}) as folder:
            joblib.dump(model, folder / "model.joblib")""",
    """ctx.save({"order": order.bit_generator.state, "coef_": model.coef_, "intercept_": model.intercept_,
                  "t_": model.t_}, epoch)""",
)

XGBOOST = """\
import os, time
import xgboost
from sklearn.datasets import load_breast_cancer

x, y = load_breast_cancer(return_X_y=True)

def train(ctx):
    learn, test = xgboost.DMatrix(x[:300], y[:300]), xgboost.DMatrix(x[300:], y[300:])
    knobs = {"eta": 0.05 + ctx.params["a"] / 2, "max_depth": 2, "nthread": 1, "objective": "binary:logistic"}
    start, saved = 1, ctx.load()
    booster = xgboost.Booster(knobs, [learn, test])
    if saved is not None:
        booster.load_model(saved.state["booster"])
        booster.set_param(knobs)
        start = saved.step + 1
    with open(ctx.checkpoint_dir / "lives", "a") as file:
        print(os.getpid(), start, file=file)
    for epoch in range(start, ctx.max_steps + 1):
        time.sleep(0.02)
        booster.update(learn, epoch)
        ctx.report(float(booster.eval(test, iteration=epoch).rpartition(":")[2]), epoch)
        ctx.save({"booster": booster.save_raw()}, epoch)
"""

STEPS = 25


@pytest.mark.parametrize("objective", [SCIKIT, ARRAYS_ONLY, XGBOOST], ids=["files", "arrays", "raw bytes"])
def test_a_model_of_another_library_goes_on_after_its_worker_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objective: str
) -> None:
    """To the same curve as one that was never killed."""
    if "import xgboost" in objective:
        pytest.importorskip("xgboost")
    monkeypatch.setattr(launch, "_LOOK_S", 0.05)
    path, go = write_toy(tmp_path, held(objective), trials=1, max_steps=STEPS), tmp_path / "go"
    lives = tmp_path / "killed/checkpoints/trial-00000/lives"
    killed: list[int] = []

    def look(progress: Progress) -> None:
        if not killed and any(len(row.values) > 2 for row in progress.of("running")):
            killed.append(int(lives.read_text().split()[0]))
            os.kill(killed[0], signal.SIGKILL)
            go.touch()

    go.touch()
    whole = launcher.run(path, folder=tmp_path / "whole", view=Remembering())
    go.unlink()
    again = launcher.run(path, folder=tmp_path / "killed", view=Remembering(look))
    assert (whole.code, again.code) == (0, 0), [row.note for row in whole.progress.rows]
    (first,), (row,) = whole.progress.rows, again.progress.rows
    assert (row.state, row.retries) == ("complete", 1)
    _, (_, start) = (map(int, line.split()) for line in lives.read_text().splitlines())
    assert start > 2  # from its checkpoint
    assert row.values == first.values
