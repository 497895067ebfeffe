"""The objective's side: reports, seeds, checkpoints, and loading a module."""

from __future__ import annotations

import json
import math
import os
import pickle
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lcsearch import checkpoint
from lcsearch.errors import FileProblem, InvalidValue
from lcsearch.goal import Goal
from lcsearch.sweep.objective.context import Context, Interrupted, Paused, Stopped, load_objective
from lcsearch.sweep.spec.seeds import derive_seed


class Double:
    """A trial that prunes at a given step."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.reports: list[tuple[int, float]] = []
        self.stop_at = stop_at

    def report(self, value: float, step: int) -> None:
        self.reports.append((step, value))

    def should_prune(self) -> bool:
        return self.stop_at is not None and self.reports[-1][0] >= self.stop_at


def context(folder: Path, double: Double | None = None, **more: Any) -> Context:
    goal = more.pop("goal", Goal("loss", "minimize", 10.0))
    known = {"params": {"lr": 0.1}, "number": 3, "seed": 0, "checkpoint_dir": folder, **more}
    return Context(double or Double(), goal=goal, **known)


def test_params_are_a_dict_of_the_trials_own(tmp_path: Path) -> None:
    """What is logged as JSON, or kept beside a model; whatever is done to it stays here."""
    given = {"lr": 0.1}
    ctx = context(tmp_path, params=given)
    assert json.loads(json.dumps(ctx.params)) == pickle.loads(pickle.dumps({"p": ctx.params}))["p"] == given
    assert ctx.params.pop("lr") == 0.1
    assert given == {"lr": 0.1}


def test_stopped_is_raised_again_when_swallowed(tmp_path: Path) -> None:
    double = Double(stop_at=2)
    ctx = context(tmp_path, double)
    ctx.report(1.0, 1)
    for _ in range(2):
        with pytest.raises(Stopped, match="stopped at step 2"):
            ctx.report(0.5, 2)
    assert double.reports == [(1, 1.0), (2, 0.5)]
    assert type(ctx.ended) is Stopped


def test_nothing_is_stopped_at_the_horizon(tmp_path: Path) -> None:
    ctx = context(tmp_path, Double(stop_at=10))
    ctx.report(1.0, 10)
    assert ctx.ended is None


def test_steps_of_an_earlier_life_are_no_new_reports_and_count_as_they_are_now(tmp_path: Path) -> None:
    double = Double()
    ctx = context(tmp_path, double, reported={1: 1.0, 2: 0.9, 3: math.nan, 4: 0.1, 5: 0.1, 6: 0.1})
    for value, step in ((1.0, 1), (0.9, 2), (math.nan, 3)):
        ctx.report(value, step)
    assert double.reports == []
    assert ctx.judged() == 0.1
    ctx.report(0.8, 4)
    assert ctx.judged() == 0.8
    ctx.report(0.1, 5)
    assert double.reports == [(4, 0.8), (5, 0.1)]
    ctx.returned(None)
    assert list(ctx.reported) == [1, 2, 3, 4, 5]
    assert ctx.noted == {"replayed": [5]}


def test_one_that_repeats_an_earlier_life_and_ends_before_it(tmp_path: Path) -> None:
    ctx = context(tmp_path, reported={1: 1.0, 2: 0.9, 3: 0.1})
    for value, step in ((1.0, 1), (0.9, 2)):
        ctx.report(value, step)
    ctx.returned(None)
    assert (dict(ctx.reported), ctx.judged()) == ({1: 1.0, 2: 0.9}, 0.9)


def test_who_goes_on_at_its_end_and_reports_nothing_changes_nothing(tmp_path: Path) -> None:
    ctx = context(tmp_path, double := Double(), reported={1: 1.0, 2: 0.9})
    ctx.returned(None)
    assert (ctx.judged(), double.reports) == (0.9, [])


def test_odd_reports_are_ignored_aloud(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    double = Double()
    ctx = context(tmp_path, double)
    ctx.report(1.0, 1)
    ctx.report(2.0, 1)
    ctx.report(1.0, 11)
    assert double.reports == [(1, 1.0)]
    assert capsys.readouterr().err.splitlines() == [
        "report at step 1 ignored: it was reported before",
        "report at step 11 ignored: max_steps is 10",
    ]


ORDER = " The value comes first, then the step."


@pytest.mark.parametrize(
    ("value", "step", "message"),
    [
        ("x", 1, "ctx.report(value=): expected a number, got \"'x' (str)\". A tensor needs .item()."),
        (1.0, 1.5, "ctx.report(step=): expected a whole number >= 0, got 1.5." + ORDER),
        (1.0, -1, "ctx.report(step=): expected a whole number >= 0, got -1." + ORDER),
        (1.0, None, "ctx.report(step=): expected a whole number >= 0, got None." + ORDER),
        (1.0, math.inf, "ctx.report(step=): expected a whole number >= 0, got inf." + ORDER),
        (1.0, math.nan, "ctx.report(step=): expected a whole number >= 0, got nan." + ORDER),
    ],
)
def test_wrong_reports(tmp_path: Path, value: Any, step: Any, message: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        context(tmp_path).report(value, step)
    assert str(caught.value) == message


def test_numbers_that_even_python_does_not_print_are_wrong_reports(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="expected a whole number >= 0, got 'one of more than 63 bits'"):
        context(tmp_path).report(1.0, 10**5000)
    with pytest.raises(InvalidValue, match="expected a number, got 'a whole number beyond every float'"):
        context(tmp_path).report(10**5000, 1)


def test_draining_ends_at_the_next_report_and_keeps_it(tmp_path: Path) -> None:
    double = Double()
    ctx = context(tmp_path, double, interrupted=lambda: bool(double.reports))
    with pytest.raises(Interrupted):
        ctx.report(1.0, 1)
    assert double.reports == [(1, 1.0)]


@pytest.mark.parametrize(
    ("direction", "judged", "values", "expected"),
    [
        ("minimize", "best", [3.0, 1.0, 2.0], 1.0),
        ("minimize", "final", [3.0, 1.0, 2.0], 2.0),
        ("maximize", "best", [3.0, 1.0, math.nan], 3.0),
        ("maximize", "final", [3.0, math.nan], -math.inf),
        ("minimize", "best", [math.nan], math.inf),
        ("minimize", "best", [], None),
    ],
)
def test_judged(tmp_path: Path, direction: Any, judged: Any, values: list[float], expected: float | None) -> None:
    ctx = context(tmp_path, goal=Goal("loss", direction, 10.0, judged))
    for step, value in enumerate(values):
        ctx.report(value, step)
    assert ctx.judged() == expected


def test_seeds_are_what_they_were() -> None:
    """Golden: a changed derivation would change every resumed sweep."""
    assert (derive_seed(0, 0), derive_seed(0, 1), derive_seed(1, 0)) == GOLDEN_SEEDS
    assert all(0 <= seed < 2**31 for seed in GOLDEN_SEEDS)


GOLDEN_SEEDS = (1179516747, 232390974, 1703830326)


def test_what_a_killed_save_has_left_is_removed(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    ctx = context(tmp_path)
    left, living = (tmp_path / f".checkpoint.safetensors.{pid}.tmp" for pid in (gone.pid, os.getppid()))
    for use in (ctx.load, lambda: ctx.save({}, 1)):
        left.touch()
        living.touch()
        use()
        assert not left.exists()
        assert living.exists()


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    ctx = context(tmp_path)
    assert ctx.load() is None
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "note": [1, None, (0.1, math.inf)]}
    ctx.save(state, 4)
    saved = ctx.load()
    assert saved is not None
    assert saved.step == 4
    assert saved.state["note"] == [1, None, (0.1, math.inf)]
    twin = torch.nn.Linear(3, 2)
    twin.load_state_dict(saved.state["model"])
    assert torch.equal(twin.weight, model.weight)
    again = torch.optim.AdamW(twin.parameters())
    again.load_state_dict(saved.state["optimizer"])
    assert again.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]
    assert torch.equal(again.state_dict()["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])
    assert [p.name for p in tmp_path.iterdir()] == [checkpoint.FILE]


def test_what_is_no_state_is_refused_and_the_old_checkpoint_stands(tmp_path: Path) -> None:
    ctx = context(tmp_path)
    ctx.save({"x": 1}, 1)
    with pytest.raises(InvalidValue, match=r"state.model: expected tensors, arrays, bytes, .* got 'Linear'"):
        ctx.save({"model": torch.nn.Linear(1, 1)}, 2)
    with pytest.raises(InvalidValue, match=r"state.seen: expected keys that are plain values, got \(1, 2\). Turn them"):
        ctx.save({"seen": {(1, 2): 3}}, 2)
    saved = ctx.load()
    assert saved is not None
    assert saved.step == 1


def test_a_file_that_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / checkpoint.FILE).write_bytes(b"garbage")
    with pytest.raises(FileProblem, match="Delete it to start over"):
        checkpoint.load(tmp_path)


def test_objectives_are_found_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "beside_a.py").write_text("from beside_b import train\n")
    (tmp_path / "beside_b.py").write_text("def train(ctx): return 5\n")
    assert load_objective("beside_a:train", tmp_path)(context(tmp_path)) == 5
    with pytest.raises(FileProblem, match="expected a function 'tarin', got None"):
        load_objective("beside_a:tarin", tmp_path)
    (tmp_path / "beside_c.py").write_text("1 / 0\n")
    with pytest.raises(FileProblem, match="expected a module that imports, got ZeroDivisionError: division by zero"):
        load_objective("beside_c:train", tmp_path)


def test_an_objective_in_a_package_may_import_relatively(tmp_path: Path) -> None:
    for package in ("pack_a", "pack_b/inner", "json"):  # whole, without __init__.py, named like an imported one
        (tmp_path / package).mkdir(parents=True)
        (tmp_path / package / "helper.py").write_text(f"answer = {package!r}\n")
        (tmp_path / package / "mod.py").write_text("from .helper import answer\ndef train(ctx): return answer\n")
    (tmp_path / "pack_a/__init__.py").touch()
    (tmp_path / "json/__init__.py").touch()
    for spec, said in (("pack_a.mod", "pack_a"), ("pack_b.inner.mod", "pack_b/inner"), ("json.mod", "json")):
        assert load_objective(f"{spec}:train", tmp_path)(context(tmp_path)) == said


def test_an_objective_takes_no_name_from_another_module(tmp_path: Path) -> None:
    (tmp_path / "statistics.py").write_text("def train(ctx): return 6\n")
    for _ in range(2):
        assert load_objective("statistics:train", tmp_path)(context(tmp_path)) == 6
    assert sys.modules["statistics"] is statistics
    # one whose name is free keeps it: a DataLoader started by "spawn" pickles what the module defines
    (tmp_path / "beside_free.py").write_text("def train(ctx): return 7\n")
    train = load_objective("beside_free:train", tmp_path)
    assert pickle.loads(pickle.dumps(train)) is train


# Turns.


def due(ctx: Context) -> bool:
    return ctx.checkpoint_due


def test_a_turn_is_over_at_the_first_report_at_its_step_or_later_and_save_pauses(tmp_path: Path) -> None:
    asked: list[int] = []
    ctx = context(tmp_path, pause_at=3.0, turn_over=lambda: asked.append(1))
    ctx.report(1.0, 2)
    assert not due(ctx)
    ctx.save({"epoch": 2}, 2)  # before the turn is over: no pause
    ctx.report(1.0, 4)
    assert due(ctx)
    assert due(ctx)
    with pytest.raises(Paused, match="paused at step 4"):
        ctx.save({"epoch": 4}, 4)
    assert asked == [1]  # once a report
    assert type(ctx.ended) is Paused
    with pytest.raises(Paused):  # swallowed: it is paused all the same
        ctx.report(1.0, 5)
    found = checkpoint.load(tmp_path)
    assert found is not None
    assert (found.step, found.state) == (4, {"epoch": 4})


def test_a_trial_that_gets_the_next_turn_goes_on_without_a_checkpoint(tmp_path: Path) -> None:
    ctx = context(tmp_path, pause_at=3.0, turn_over=lambda: 9.0)
    for step in (3, 4, 8):
        ctx.report(1.0, step)
        assert not due(ctx)
    assert checkpoint.load(tmp_path) is None


def test_files_that_are_saved_when_the_turn_is_over_are_whole(tmp_path: Path) -> None:
    ctx = context(tmp_path, pause_at=1.0)
    ctx.report(1.0, 1)
    with pytest.raises(Paused), ctx.saving(1) as folder:
        (folder / "model").write_text("weights")
    found = checkpoint.load(tmp_path)
    assert found is not None
    assert found.files is not None
    assert (found.files / "model").read_text() == "weights"


def test_a_block_that_raises_pauses_nothing(tmp_path: Path) -> None:
    ctx = context(tmp_path, pause_at=1.0)
    ctx.report(1.0, 1)
    with pytest.raises(OSError, match="full"), ctx.saving(1):
        raise OSError("full")
    assert ctx.ended is None


@pytest.mark.parametrize(("first", "last"), [(1, 10), (0, 9)])
def test_nothing_is_paused_at_the_horizon(tmp_path: Path, first: int, last: int) -> None:
    ctx = context(tmp_path, pause_at=9.0)
    for step in range(first, last + 1):
        ctx.report(1.0, step)
    assert not due(ctx)
    ctx.save({}, last)


def test_a_stop_goes_before_a_pause(tmp_path: Path) -> None:
    ctx = context(tmp_path, Double(stop_at=3), pause_at=3.0)
    with pytest.raises(Stopped, match="stopped at step 3"):
        ctx.report(1.0, 3)
    assert not due(ctx)
    ctx.save({}, 3)
    assert type(ctx.ended) is Stopped


def test_one_that_never_saves_runs_on_and_it_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ctx = context(tmp_path, pause_at=3.0, turn_over=lambda: pytest.fail("nobody asks for another trial"))
    for step in range(1, 11):
        ctx.report(1.0, step)
    assert ctx.noted == {"unsaved": [3]}
    assert capsys.readouterr().err == (
        "its turn was over at step 3, and it did not save: it runs on until it does. Call ctx.save(state, step) after "
        "ctx.report where ctx.checkpoint_due\n"
    )


def test_steps_replayed_after_a_kill_end_the_turn_again(tmp_path: Path) -> None:
    ctx = context(tmp_path, reported={1: 1.0, 2: 1.0, 3: 1.0}, pause_at=3.0)
    ctx.report(1.0, 2)
    assert not due(ctx)
    ctx.report(1.0, 3)
    assert due(ctx)


def test_without_turns_nothing_is_ever_due(tmp_path: Path) -> None:
    ctx = context(tmp_path)
    ctx.report(1.0, 3)
    assert not due(ctx)


def test_a_sweep_that_drains_lets_a_trial_save_first(tmp_path: Path) -> None:
    """One that pauses saves seldom, and would train again what it had since its last turn."""
    asked = list[bool]()
    of = context(tmp_path, interrupted=lambda: bool(asked), pause_at=9.0, turn_over=lambda: None)
    of.report(1.0, 1)
    asked.append(True)
    of.report(0.9, 2)
    assert of.checkpoint_due
    with pytest.raises(Interrupted, match="the sweep is draining; left at step 2"):
        of.save({}, 2)
    kept = of.load()
    assert kept is not None
    assert kept.step == 2


def test_one_that_does_not_save_leaves_at_its_next_report(tmp_path: Path) -> None:
    of = context(tmp_path, interrupted=lambda: True, pause_at=9.0, turn_over=lambda: None)
    of.report(1.0, 1)
    with pytest.raises(Interrupted):
        of.report(0.9, 2)
    assert list(of.reported) == [1]
