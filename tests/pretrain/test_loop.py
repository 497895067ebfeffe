"""The training loop: nothing is lost, and a resumed run is the run that was not interrupted."""

from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from kit import pretraining as toy
from torch import Tensor, nn

import lcsearch.errors
from lcsearch.errors import EnvironmentProblem, FileProblem, InvalidValue
from lcsearch.forecast.network.studies import Studies
from lcsearch.pretrain import checkpoint
from lcsearch.pretrain.folder import held
from lcsearch.pretrain.log import read
from lcsearch.pretrain.loop import PATIENCE, Diverged, device_of, rate_at

ROOT = Path(lcsearch.errors.__file__).parents[1]


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[k].numpy().tobytes() == other[k].numpy().tobytes() and one[k].dtype == other[k].dtype for k in one
    )


def test_it_begins_with_the_weights_it_is_given(tmp_path: Path) -> None:
    begun = toy.run(tmp_path / "a").weights
    name, *others = begun
    view = toy.Quiet()
    made = toy.run(tmp_path / "b", view, start={other: begun[other] for other in others}, learning_rate=1e-12).weights
    assert view.told[0] == f"start: 1 weights are not in it and begin at random ({name})"
    for other in others:
        torch.testing.assert_close(made[other], begun[other], rtol=0.0, atol=1e-6)
    with pytest.raises(InvalidValue, match=rf"start: {name}: expected a weight of shape .*, got \(7,\)"):
        toy.run(tmp_path / "c", start={name: torch.zeros(7)})
    with pytest.raises(InvalidValue, match="start: other: expected one of "):
        toy.run(tmp_path / "d", start={"other": torch.zeros(7)})


def test_it_learns_and_says_so(tmp_path: Path) -> None:
    view = toy.Quiet()
    outcome = toy.run(tmp_path / "a", view, steps=200)
    lines = [line for line in read(tmp_path / "a" / "log.jsonl") if line["kind"] == "step"]
    assert (outcome.step, outcome.done, outcome.interrupted, outcome.skipped) == (200, True, False, 0)
    assert [line["step"] for line in lines] == list(range(1, 201)) == view.steps
    assert lines[-1]["smooth.loss"] < 0.5 * lines[0]["loss"]
    assert outcome.smooth.keys() == {"loss", "error"}
    assert outcome.weights["one.weight"].dtype == torch.float32
    assert view.told == ["begin after 0", "end"]


def test_the_same_recipe_gives_the_same_bits(tmp_path: Path) -> None:
    one, other = toy.run(tmp_path / "a"), toy.run(tmp_path / "b")
    assert same(one.weights, other.weights)
    assert not same(one.weights, toy.run(tmp_path / "c", seed=1).weights)
    assert (tmp_path / "a" / "log.jsonl").read_bytes() == (tmp_path / "b" / "log.jsonl").read_bytes()


def test_the_global_generator_is_left_alone(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    toy.run(tmp_path / "a")
    assert torch.equal(torch.get_rng_state(), before)


def test_pieces_make_the_whole(tmp_path: Path) -> None:
    whole = toy.run(tmp_path / "whole")
    view = toy.Quiet()
    for step in range(1, 13):
        piece = toy.run(tmp_path / "pieces", view, minutes=0)
        assert (piece.step, piece.done) == (step, step == 12)
    assert same(piece.weights, whole.weights)
    assert view.steps == list(range(1, 13))
    assert (tmp_path / "whole/log.jsonl").read_bytes() == (tmp_path / "pieces/log.jsonl").read_bytes()
    again = toy.run(tmp_path / "pieces")
    assert again.done
    assert same(again.weights, whole.weights)


def lines_of(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


def test_a_kill_changes_nothing(tmp_path: Path) -> None:
    """SIGKILL at random moments; the run ends in the bits of one that was left alone."""
    steps, chance = 300, random.Random()
    command = [sys.executable, str(Path(toy.__file__)), str(tmp_path / "killed"), str(steps)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parents[1])])}
    kills = 0
    for _ in range(40):
        child = subprocess.Popen(command, env=environment)
        log = tmp_path / "killed" / "log.jsonl"
        until = lines_of(log) + chance.randint(1, 60)  # so many steps, however long they take
        while child.poll() is None and lines_of(log) < until and kills < 2:
            time.sleep(0.005)
        if kills < 2:
            child.kill()
            kills += child.wait() == -signal.SIGKILL
        elif child.wait() == 0:
            break
    assert kills == 2
    killed = toy.run(tmp_path / "killed", steps=steps)  # done: reads only
    assert killed.done
    assert same(killed.weights, toy.run(tmp_path / "alone", steps=steps).weights)
    steps_logged = [line["step"] for line in read(tmp_path / "killed" / "log.jsonl")]
    assert steps_logged == list(range(1, steps + 1))
    assert (tmp_path / "killed/log.jsonl").read_bytes() == (tmp_path / "alone/log.jsonl").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_end_it_saves(tmp_path: Path, number: signal.Signals) -> None:
    class Impatient(toy.Quiet):
        def step(self, step: int, loss: float, smooth: object) -> None:
            if step == 4:
                os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    outcome = toy.run(tmp_path / "a", Impatient())
    assert (outcome.interrupted, outcome.done) == (True, False)
    assert outcome.step in (4, 5)
    assert signal.getsignal(number) is before
    found = checkpoint.load(tmp_path / "a")
    assert found is not None
    assert found[1]["step"] == outcome.step
    assert same(toy.run(tmp_path / "a").weights, toy.run(tmp_path / "b").weights)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [0, 1])
def test_asked_to_end_before_the_first_checkpoint_is_due_it_saves(
    tmp_path: Path, number: signal.Signals, step: int
) -> None:
    class Impatient(toy.Quiet):
        def begin(self, *_: object) -> None:
            if step == 0:
                os.kill(os.getpid(), number)

        def step(self, at: int, loss: float, smooth: object) -> None:
            if at == step:
                os.kill(os.getpid(), number)

    outcome = toy.run(tmp_path / "a", Impatient())
    assert (outcome.interrupted, outcome.step) == (True, step)
    found = checkpoint.load(tmp_path / "a")
    assert found is not None
    assert found[1]["step"] == step
    assert same(toy.run(tmp_path / "a").weights, toy.run(tmp_path / "b").weights)


class Killed(toy.Quiet):
    """Ends the run at step 3, as a kill would: nothing more is written."""

    def step(self, step: int, loss: float, smooth: object) -> None:
        if step == 3:
            raise KeyboardInterrupt


def test_a_run_killed_before_its_first_checkpoint_says_that_it_begins_anew(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        toy.run(tmp_path / "a", Killed())
    view = toy.Quiet()
    outcome = toy.run(tmp_path / "a", view)
    assert view.told == [
        f"{tmp_path}/a: found a run of this recipe that had not come to a checkpoint; starting from step 0",
        "begin after 0",
        "end",
    ]
    assert same(outcome.weights, toy.run(tmp_path / "b").weights)
    assert (tmp_path / "a/log.jsonl").read_bytes() == (tmp_path / "b/log.jsonl").read_bytes()


def test_what_was_begun_with_another_recipe_is_not_taken_over_silently(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        toy.run(tmp_path / "a", Killed())
    with pytest.raises(FileProblem, match=r"learning_rate: 0\.01, now 0\.02"):
        toy.run(tmp_path / "a", learning_rate=0.02)
    (tmp_path / "a" / checkpoint.FILE).unlink()
    view = toy.Quiet()
    toy.run(tmp_path / "a", view)
    assert view.told[0] == f"{tmp_path}/a: found a log without a checkpoint; starting from step 0"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"digest": None}, "text as the header's digest, got None"),
        ({"step": "3"}, "a whole number as the header's step, got '3'"),
        ({"smooth": [1]}, "a mapping as the header's smooth, got [1]"),
        ({"seconds": True}, "a number as the header's seconds, got True"),
    ],
)
def test_a_checkpoint_whose_header_is_not_as_it_was_written(
    tmp_path: Path, changed: dict[str, object], said: str
) -> None:
    toy.run(tmp_path / "a")
    found = checkpoint.load(tmp_path / "a")
    assert found is not None
    checkpoint.save(tmp_path / "a", found[0], {**found[1], **changed})
    with pytest.raises(FileProblem) as caught:
        toy.run(tmp_path / "a")
    assert str(caught.value) == f"{tmp_path / 'a' / checkpoint.FILE}: expected {said}. Start over with --fresh."


def test_processes_that_draw_ahead_change_nothing(tmp_path: Path) -> None:
    assert same(toy.run(tmp_path / "a", workers=1).weights, toy.run(tmp_path / "b").weights)


def test_a_changed_recipe_is_refused(tmp_path: Path) -> None:
    toy.run(tmp_path / "a", minutes=0)
    with pytest.raises(FileProblem) as caught:
        toy.run(tmp_path / "a", learning_rate=0.02, size={**toy.RECIPE["size"], "bins": 4})
    assert str(caught.value) == (
        f"{tmp_path}/a: expected the recipe that this run was begun with, got a changed one:\n"
        "    learning_rate: 0.01, now 0.02\n"
        "    size.bins: 3, now 4\n"
        "Undo the change to go on, or start over with --fresh or another --folder."
    )
    assert toy.run(tmp_path / "a", log_every=5, checkpoint_seconds=1.0, evaluate_every=3).done


def test_fresh_keeps_the_earlier_run(tmp_path: Path) -> None:
    toy.run(tmp_path / "a")
    view = toy.Quiet()
    toy.run(tmp_path / "a", view, fresh=True, learning_rate=0.5, steps=2)
    assert view.told[0] == f"the earlier run was kept as {tmp_path}/a.old-1"
    assert (tmp_path / "a.old-1" / "log.jsonl").exists()
    assert view.steps == [1, 2]


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with held(tmp_path / "a"), pytest.raises(EnvironmentProblem) as caught:
        toy.run(tmp_path / "a")
    assert str(caught.value) == (
        f"{tmp_path}/a: expected nobody at work here, got a running `lcsearch pretrain`. "
        "Wait for it, or end it, then try again."
    )


def broken(network: nn.Module, studies: Studies, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
    loss, figures = toy.objective(network, studies, generator)
    return loss * math.nan, figures


def test_a_loss_that_stays_non_finite_is_given_up(tmp_path: Path) -> None:
    view = toy.Quiet()
    with pytest.raises(Diverged) as caught:
        toy.run(tmp_path / "a", view, objective=broken, steps=30)
    assert str(caught.value) == (
        "toy: expected a finite loss, got 20 steps in a row without one (the last is step 20). "
        "Lower learning_rate, or start from an earlier state with --fresh."
    )
    assert view.told[1] == "step 1: loss nan: skipped (1 so far)"
    assert len(view.steps) == PATIENCE


def test_a_single_non_finite_loss_is_skipped(tmp_path: Path) -> None:
    calls = []

    def now_and_then(
        network: nn.Module, studies: Studies, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        calls.append(1)
        loss, figures = toy.objective(network, studies, generator)
        if len(calls) % 2:  # finite, and its gradient is not
            return (loss - loss.detach()).sqrt(), figures
        return loss, figures

    outcome = toy.run(tmp_path / "a", objective=now_and_then, steps=50)
    assert outcome.done
    assert outcome.skipped == 25
    assert all(torch.isfinite(tensor).all() for tensor in outcome.weights.values())


def test_the_averaged_weights_are_evaluated(tmp_path: Path) -> None:
    seen = []

    def evaluate(network: nn.Module) -> dict[str, float]:
        assert not network.training
        seen.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        return {"score": float(len(seen))}

    view = toy.Quiet()
    outcome = toy.run(tmp_path / "a", view, evaluate=evaluate, evaluate_every=5)
    assert same(seen[-1], outcome.weights)
    assert outcome.scores == {"score": 3.0}
    assert [line["step"] for line in read(tmp_path / "a/log.jsonl") if line["kind"] == "scores"] == [5, 10, 12]
    assert "step 5: score 1" in view.told
    assert same(outcome.weights, toy.run(tmp_path / "b").weights)  # looking changes nothing


def test_the_learning_rate() -> None:
    wish = toy.recipe(steps=100, learning_rate=1.0, warmup=0.1)
    rates = [rate_at(wish, step) for step in range(1, 101)]
    assert rates[:10] == pytest.approx([0.1 * k for k in range(1, 11)])
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert 0 < rates[-1] < 1e-3
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rate_at(toy.recipe(warmup=0.0), 1) == 0.01


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem) as caught:
        device_of(toy.recipe(device="cuda"))
    assert str(caught.value) == (
        "toy: device: expected a CUDA device, got a machine without one that torch can use. "
        "Set `device: auto`, or install a torch for the GPU."
    )
