"""Trials that end before `max_t`: loops that are shorter, `RunConfig(stop=...)`, patience inside the trial."""

from __future__ import annotations

import numpy as np
import pytest
from kit.tune_runner import EARLIEST, Runner, book_of, decay, of_run, restored, scheduler
from ray.tune.experiment import Trial

from lcsearch.schedulers.ray_tune import StateCallback
from lcsearch.study import Status


def loop(runner: Runner, trial: Trial, curve: list[float], by: str) -> None:
    """Report `curve`; the trial's end is its own (a function, a class), or a stopper's of the user."""
    *before, last = curve
    if runner.feed(trial, before) is None:
        if by == "function":
            assert runner.feed(trial, [last], len(curve)) is None
            runner.end(trial)
        else:  # Tune tells the scheduler of such a last result at the end only
            runner.result(trial, {"training_iteration": len(curve), "loss": last, "done": True})


@pytest.mark.parametrize("by", ["function", "class-or-stopper"])
def test_loops_shorter_than_max_t(by: str) -> None:
    runner = Runner(scheduler(max_t=1000))
    trials = [runner.start() for _ in range(7)]
    for i, trial in enumerate(trials[:5]):
        loop(runner, trial, decay(0.1 * (i + 1)), by)
    for trial in trials[5:]:
        loop(runner, trial, decay(5.0), by)
    of = of_run(runner)
    known = [book_of(of).trial(trial.trial_id) for trial in trials]
    assert [one.status for one in known] == [Status.COMPLETE] * 5 + [Status.STOPPED] * 2
    for i, one in enumerate(known[:5]):
        assert one.curve.reports()[1].tolist() == decay(0.1 * (i + 1))
    assert "  forecast by step 100: " in of.explain("t6")  # as long again: of five trials none says they all end there
    found = of.report()
    assert (found.complete, found.spent, found.saved) == (5, 250 + 2 * EARLIEST, 2 * (50 - EARLIEST))


def test_what_was_saved_counts_to_where_trials_of_many_lengths_end() -> None:
    """Patience ends the first trials anywhere between 40 and 500 steps, none of them near max_t."""
    lengths = np.random.default_rng(0).integers(40, 500, 12).tolist()
    runner = Runner(scheduler(max_t=1000, n_startup_trials=len(lengths)))
    for i, length in enumerate(lengths):
        loop(runner, runner.start(), decay(0.1 + 0.01 * i, length), "function")
    assert runner.feed(runner.start("bad"), decay(5.0, 500)) == EARLIEST
    found = of_run(runner).report()
    assert [stop.trial for stop in found.stops] == ["bad"]
    assert (found.spent, found.saved) == (sum(lengths) + EARLIEST, round(np.mean(lengths)) - EARLIEST)


def test_an_end_between_two_saves_is_complete_where_others_end() -> None:
    """Tune's state knows of the end, ours does not: a trial as long as the finished ones was not stopped."""
    runner = Runner(scheduler(max_t=1000))
    for i in range(3):
        loop(runner, runner.start(f"good{i}"), decay(0.1 * (i + 1)), "function")
    whole, half = runner.start("whole"), runner.start("half")
    runner.feed(whole, decay(0.5, 20))
    runner.feed(half, decay(0.5, 20))
    state = StateCallback(of_run(runner)).get_state()
    runner.feed(whole, decay(0.5)[20:], 21)
    runner.end(whole)
    runner.feed(half, decay(0.5, 25)[20:], 21)
    runner.end(half)
    of, _ = restored(runner, state, max_t=1000)
    ends = {uid: book_of(of).entries[uid].status for uid in ("whole", "half")}
    assert ends == {"whole": Status.COMPLETE, "half": Status.STOPPED}
