"""What a step costs is the median time between a trial's reports, and what stops saved is counted by it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from sweep.kit import Remembering, write_toy
from sweep.views.test_live import FILE, trial

from lcsearch.sweep import run as launcher
from lcsearch.sweep.monitor.progress import Progress, collect
from lcsearch.sweep.monitor.state import SweepState
from lcsearch.sweep.store.budget import TOOK
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.store.pace import Pace, Pacer, pace_in, usual

STEP_S = 0.05
SLOW_TO_START = f"""\
import time

def train(ctx):
    time.sleep(1.5)
    for epoch in range(1, ctx.max_steps + 1):
        time.sleep({STEP_S})
        with open(ctx.checkpoint_dir / "at", "a") as at:
            print(time.monotonic(), file=at)
        ctx.report(ctx.number + 1 / epoch, epoch)
"""


def made(*trials: tuple[TrialState, int, dict[str, Any] | None]) -> Progress:
    """Of trials that have a state, a last step of 10, and what was stored of their pace."""
    frozen = []
    for number, (state, last, took) in enumerate(trials):
        attrs = {} if took is None else {TOOK: {"since": None, "seconds": 100.0, **took}}
        frozen.append(trial(number, state, {e: float(number) for e in range(1, last + 1)}, **attrs))
    return collect(frozen, FILE.target, 9, FILE.space)


def slowest(run: Path) -> float:
    """The longest step that a trial took, by what it wrote down itself: a busy machine makes steps longer."""
    known = [[float(line) for line in file.read_text().splitlines()] for file in run.glob("checkpoints/*/at")]
    return max(later - earlier for at in known for earlier, later in pairwise(at))


def test_start_up_is_no_part_of_what_was_saved(tmp_path: Path) -> None:
    """Issue: .15 s a step and 89 steps saved were claimed as 21 s."""
    path = write_toy(tmp_path, SLOW_TO_START, trials=8, max_steps=8, pruner="median")
    progress = launcher.run(path, folder=tmp_path / "run", view=Remembering()).progress
    assert progress.saved > 0
    assert progress.seconds_saved is not None
    # by seconds over steps it would be 1.5 s and more for a trial of one step
    assert STEP_S * progress.saved <= progress.seconds_saved < (slowest(tmp_path / "run") + STEP_S) * progress.saved
    assert all(row.pace is not None for row in progress.of("complete"))


def test_of_a_program_too_whatever_holds_its_reports_up(tmp_path: Path) -> None:
    """It does not wait for looks: its lines are timed when they come."""
    path = write_toy(tmp_path, trials=8, max_steps=8, pruner="median")
    (tmp_path / "program.py").write_text(
        "import os, sys, time\n"
        "at = open(os.environ['LCSEARCH_CHECKPOINT_DIR'] + '/at', 'a', buffering=1)\n"
        "time.sleep(1.0)\n"
        "for epoch in range(1, 9):\n"
        f"    time.sleep({STEP_S})\n"
        "    print(time.monotonic(), file=at)\n"
        "    print(f'epoch={epoch} loss={float(sys.argv[1]) + 1 / epoch}', flush=True)\n"
    )
    path.write_text(path.read_text().replace('{python: "toy:train"}', '{command: [python, program.py, "{number}"]}'))
    progress = launcher.run(path, folder=tmp_path / "run", view=Remembering()).progress
    assert progress.saved > 0
    assert progress.seconds_saved is not None
    longest = slowest(tmp_path / "run") + STEP_S
    assert 0.5 * STEP_S * progress.saved <= progress.seconds_saved < longest * progress.saved


def test_each_trial_by_its_own_pace_where_it_has_one() -> None:
    progress = made(
        (TrialState.COMPLETE, 10, {"pace": 3.0, "gaps": 9}),
        (TrialState.PRUNED, 4, {"pace": 2.0, "gaps": 3}),
        (TrialState.PRUNED, 2, {"pace": 50.0, "gaps": 1}),  # too few gaps: the middle of 2, 3 and 4
        (TrialState.COMPLETE, 10, {"pace": 4.0, "gaps": 9}),
        (TrialState.PRUNED, 1, None),
    )
    assert [row.saved for row in progress.rows] == [0, 6, 8, 0, 9]
    assert progress.seconds_saved == 6 * 2.0 + 8 * 3.0 + 9 * 3.0


def test_without_a_pace_nothing_is_claimed() -> None:
    """An earlier lcsearch kept no times of reports."""
    progress = made((TrialState.COMPLETE, 10, None), (TrialState.PRUNED, 4, {}))
    assert (progress.saved, progress.seconds_saved) == (6, None)
    assert made((TrialState.COMPLETE, 10, None)).seconds_saved == 0.0


def test_a_pacer_counts_steps_between_reports() -> None:
    pacer = Pacer()
    assert pacer.told() == {}
    for step, at in ((10, 100.0), (20, 120.0), (30, 170.0), (30, 171.0), (20, 172.0), (40, 192.0)):
        pacer.came(step, at)
    pacer.pause()
    pacer.came(50, 5.0)
    pacer.came(51, 6.0)
    assert pacer.told() == {"pace": 1.5, "gaps": 4}  # of 2, 5, 1 and 1 s a step


@pytest.mark.parametrize("stored", [None, 3, {}, {"pace": "x", "gaps": 2}, {"pace": float("nan"), "gaps": 2}])
def test_what_is_no_pace(stored: object) -> None:
    assert pace_in(stored) is None


def test_the_usual_pace() -> None:
    assert usual([]) is None
    assert usual([None, Pace(3.0, 1)]) == 3.0
    assert usual([None, Pace(3.0, 1), Pace(1.0, 3), Pace(2.0, 5)]) == 1.5


def test_saved_is_counted_to_where_trials_end_by_themselves() -> None:
    """Issue: 60 trials of 50 steps with max_steps=1000 were said to have saved 47 252 steps."""
    goal = replace(FILE.target, horizon=1000.0)
    curves = [(TrialState.COMPLETE, n) for n in (50, 50, 60)] + [(TrialState.PRUNED, n) for n in (10, 55, 60)]
    frozen = [
        trial(number, state, dict.fromkeys(range(1, last + 1), 1.0 + number))
        for number, (state, last) in enumerate([*curves, (TrialState.RUNNING, 20)])
    ]
    progress = collect(frozen, goal, 9, FILE.space)
    assert [row.saved for row in progress.rows] == [0, 0, 0, 43, 5, 0, 0]
    state = SweepState(FILE.model_copy(update={"max_steps": 1000}), RunFolder(Path()), progress)
    assert (progress.spent, progress.saved, state.unpruned) == (305, 48, 305 + 48 + 33)
    assert [progress.left(n, 1000) for n in (0, 20, 60)] == [53, 33, 0]


def test_before_a_trial_has_ended_by_itself_nothing_was_saved() -> None:
    progress = made((TrialState.PRUNED, 4, None), (TrialState.RUNNING, 5, None))
    assert (progress.saved, progress.left(5, 10)) == (0, 5.0)


def test_a_trial_that_owed_no_report_was_as_long_as_the_horizon() -> None:
    """Reports at 0, 5 and so on up to 5 of 10 steps, or `range(10)`: what is saved counts to 10."""
    curves = [(TrialState.COMPLETE, range(10)), (TrialState.COMPLETE, range(0, 10, 2)), (TrialState.PRUNED, range(3))]
    frozen = [trial(n, state, dict.fromkeys(steps, 1.0)) for n, (state, steps) in enumerate(curves)]
    rows = collect(frozen, FILE.target, 9, FILE.space).rows
    assert [(row.spent, row.saved) for row in rows] == [(10, 0), (10, 0), (3, 7)]
