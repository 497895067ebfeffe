"""State: pickled at every moment, carried by the callback, and unchanged verdicts for unchanged histories."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from kit.doubles import NormalAroundBest
from kit.tune_runner import EARLIEST, Runner, book_of, copy_of, decay, of_run, run_of, scheduler
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler

from lcsearch.errors import InvalidValue
from lcsearch.goal import Goal
from lcsearch.schedulers.ray_tune import CurveScheduler, StateCallback
from lcsearch.study import Status

MAX_T = 12
Event = tuple[int, int, float]


def events(seed: int = 0, trials: int = 9, at_once: int = 3) -> list[Event]:
    """(trial, step, value) of a run with `at_once` trials side by side, some of them bad, one of them NaN."""
    rng = np.random.default_rng(seed)
    made: list[Event] = []
    for first in range(0, trials, at_once):
        group = range(first, first + at_once)
        limits = {i: rng.uniform(0.0, 0.3) if i < 4 or rng.random() < 0.3 else rng.uniform(3.0, 6.0) for i in group}
        for step in range(1, MAX_T + 1):
            made += [(i, step, np.nan if i == 7 and step > 2 else limits[i] + 0.7**step) for i in group]
    return made


def play(runner: Runner, of: list[Event]) -> Runner:
    """Events one after the other, each look judged and carried out before the next; ended trials report nothing."""
    known = {trial.trial_id: trial for trial in runner.trials}
    for i, step, value in of:
        trial = known.get(f"t{i}") or runner.start(f"t{i}")
        known[trial.trial_id] = trial
        if trial.status == Trial.RUNNING:
            runner.report(trial, step, value)
            assert of_run(runner).session.wait(10)
            runner.step()
    return runner


def outcome(runner: Runner) -> dict[str, tuple[str, int, str]]:
    """Trial -> how it ended, after how many reports, for which reason."""
    entries = book_of(of_run(runner)).entries.items()
    return {uid: (entry.status.name, len(entry.reports), entry.line) for uid, entry in entries}


def short() -> CurveScheduler:
    return scheduler(max_t=MAX_T, n_startup_trials=3)


def test_the_played_run_has_stops_of_both_kinds() -> None:
    told = outcome(play(Runner(short()), events()))
    ends = [end for end, _, _ in told.values()]
    assert (ends.count("STOPPED"), ends.count("COMPLETE")) == (5, 4)
    assert sum("diverged" in line for _, _, line in told.values()) == 1


def test_a_copy_taken_after_any_event_goes_on_with_the_same_verdicts() -> None:
    made = events()
    expected = outcome(play(Runner(short()), made))
    runner = Runner(short())
    for i, event in enumerate(made):
        play(runner, [event])
        of: CurveScheduler = copy_of(of_run(runner))
        assert outcome(play(runner.fork(of), made[i + 1 :])) == expected, f"after event {i}"
    assert outcome(runner) == expected


def test_a_state_given_to_a_fresh_scheduler_after_any_event_changes_no_verdict() -> None:
    made = events(1)
    expected = outcome(play(Runner(short()), made))
    runner = Runner(short())
    for i, event in enumerate(made):
        play(runner, [event])
        fresh = short()
        StateCallback(fresh).set_state(StateCallback(of_run(runner)).get_state())
        twin = runner.fork(fresh)
        for trial in twin.trials:
            fresh.on_trial_add(twin, trial)  # type: ignore[arg-type]  # a restored run adds every trial again
        assert outcome(play(twin, made[i + 1 :])) == expected, f"after event {i}"
        assert not fresh.session.failed_open


def test_a_copy_amid_a_look_has_it_at_the_next_report() -> None:
    begun, go = threading.Event(), threading.Event()

    class Busy(NormalAroundBest):
        def forecast(self, snapshot: Any, queries: Any) -> Any:
            begun.set()
            assert go.wait(10)
            return super().forecast(snapshot, queries)

        def __reduce__(self) -> Any:
            return NormalAroundBest, ()

    runner = run_of(scheduler(forecasters=[Busy()]))
    runner.late = True
    trial = runner.start("x")
    for step in range(1, EARLIEST + 1):
        runner.report(trial, step, decay(5.0)[step - 1])
    assert begun.wait(10)
    busy = copy_of(of_run(runner))
    go.set()
    assert of_run(runner).session.wait(10)
    judged = copy_of(of_run(runner))
    runner.step()
    for copy in (busy, judged):
        twin = run_of().fork(copy)
        twin.step()
        assert twin.feed(twin.start("x"), decay(5.0)[EARLIEST - 1 :], EARLIEST) == EARLIEST + 1
    assert trial.status == Trial.TERMINATED


@pytest.mark.parametrize("fields", [{}, {"forecasters": None}, {"forecasters": ["parametric", "rank-gap"]}])
def test_a_new_scheduler_is_pickled_with_its_callback(fields: dict[str, Any]) -> None:
    """As Tune does when a `Tuner` is made: both sides hold one scheduler."""
    of = scheduler(**fields)
    copy, callback = copy_of((of, StateCallback(of)))
    assert callback.scheduler is copy
    assert copy.session.policy == of.session.policy
    assert copy.snapshot().goal == of.snapshot().goal == Goal("loss", "minimize", 50.0)
    assert copy._time_attr == "training_iteration"  # noqa: SLF001


def test_a_copy_begins_with_clean_counts_and_its_own_log(tmp_path: Any) -> None:
    runner = run_of(scheduler(decision_log=tmp_path / "log"))
    runner.feed(runner.start("x"), decay(5.0))
    of: CurveScheduler = copy_of(of_run(runner))
    assert of.session.tally() == ([], [])
    assert of.explain("x") == of_run(runner).explain("x")
    assert of.stopped() == of_run(runner).stopped()
    twin = runner.fork(of)
    twin.feed(twin.start("y"), decay(5.0))
    assert of_run(runner).session.wait(10)
    assert of.session.wait(10)
    assert len(list((tmp_path / "log").iterdir())) == 2


def test_a_saved_state_does_not_change_with_the_run() -> None:
    runner = run_of()
    callback = StateCallback(of_run(runner))
    state = callback.get_state()
    before = bytes(state["scheduler"])
    runner.feed(runner.start("later"), decay(5.0))
    assert state["scheduler"] == before
    of = scheduler()
    StateCallback(of).set_state(state)
    assert list(book_of(of).entries) == [f"good{i}" for i in range(6)]
    twin = runner.fork(of)
    assert twin.feed(twin.start("again"), decay(5.0)) == EARLIEST
    assert list(book_of(of_run(runner)).entries)[-1] == "later"  # two schedulers, two books


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_a_state_of_another_version_is_refused(version: Any) -> None:
    of = scheduler()
    with pytest.raises(InvalidValue) as error:
        of.set_state({**of.get_state(), "version": version})
    assert str(error.value) == f"CurveScheduler.set_state: expected a state of version 1, got {version!r}."
    with pytest.raises(InvalidValue, match="expected a state of version 1"):
        of.set_state({})


@pytest.mark.parametrize("other", [FIFOScheduler, AsyncHyperBandScheduler])
def test_the_callback_wants_a_curve_scheduler(other: Any) -> None:
    with pytest.raises(InvalidValue) as error:
        StateCallback(other())
    assert str(error.value) == f"StateCallback(scheduler=): expected a CurveScheduler, got '{other.__name__}'."


def test_a_run_restored_without_a_state_says_so_and_goes_on() -> None:
    runner = run_of()
    runner.feed(runner.start("bad"), decay(5.0))
    of = scheduler()
    twin = runner.fork(of)
    for trial in twin.trials:
        of.on_trial_add(twin, trial)  # type: ignore[arg-type]
    assert of.session.failed_open == {"restoring a trial that had ended": 7}
    assert book_of(of).entries == {}
    assert twin.feed(twin.start("new"), decay(5.0)) == 50


def test_a_restored_run_goes_on_where_it_was() -> None:
    """A trial that ran at the kill comes back PENDING and repeats the steps after its checkpoint."""
    runner = run_of()
    trial = runner.start("x")
    runner.feed(trial, decay(5.0, EARLIEST - 1))
    of = scheduler()
    StateCallback(of).set_state(StateCallback(of_run(runner)).get_state())
    twin = runner.fork(of)
    again = next(one for one in twin.trials if one.trial_id == "x")
    again.status = Trial.PENDING
    for one in twin.trials:
        of.on_trial_add(twin, one)  # type: ignore[arg-type]
    assert book_of(of).entries["x"].status is Status.RUNNING
    assert twin.step() is again
    assert twin.feed(again, decay(5.0)[3:], 4) == EARLIEST
    assert of.stopped().keys() == {"x"}


# One scheduler, several runs


def next_run(of: CurveScheduler, metric: str | None = None, mode: str | None = None) -> Runner:
    """As Tune begins one, with trials that count from zero in every runner."""
    assert of.set_search_properties(metric, mode)
    return Runner(of)


@pytest.mark.parametrize("named", [True, False], ids=["metric-of-the-scheduler", "metric-of-the-run"])
def test_another_run_with_the_same_scheduler_is_another_book(named: bool) -> None:
    """The second run's losses are a hundred times larger: its first ones run to their end all the same."""
    told = (None, None) if named else ("loss", "min")
    of = scheduler() if named else scheduler(metric=None, mode=None)
    next_run(of, *told)
    first = run_of(of)
    first.feed(first.start("bad"), decay(5.0))
    live = first.start("live")
    first.feed(live, decay(5.0, EARLIEST), turn=False)  # the run's time is up: no hook tells of its end
    second = next_run(of, *told)
    assert list(of.stopped()) == ["bad"]  # until something begins, people ask for what has been
    trials = [second.start(f"n{i}") for i in range(12)]
    for step in range(1, 51):
        for i, trial in enumerate(trials[:6]):
            second.report(trial, step, 100 * decay(0.1 * (i + 1))[step - 1])
        second.step()
    assert {book_of(of).entries[trial.trial_id].status for trial in trials[:6]} == {Status.COMPLETE}
    assert second.feed(trials[6], [100 * value for value in decay(5.0)]) == EARLIEST
    assert list(of.stopped()) == ["n6"]
    assert list(book_of(of).entries) == [f"n{i}" for i in range(12)]
    assert not of.session.unfetched
    assert not of.session.failed_open


def test_a_run_that_goes_on_with_the_same_scheduler_keeps_its_book() -> None:
    """`tune.run(resume=True, scheduler=the_same)`: its first trial is known."""
    runner = run_of(scheduler())
    of = of_run(runner)
    runner.feed(runner.start("x"), decay(5.0, 4))
    twin = next_run(of)
    twin.trials = runner.trials
    for trial in twin.trials:
        trial.status = Trial.PENDING if trial.status == Trial.RUNNING else trial.status
        of.on_trial_add(twin, trial)  # type: ignore[arg-type]
    assert len(book_of(of).entries) == 7
    twin.step()
    assert twin.feed(twin.trials[-1], decay(5.0)[4:], 5) == EARLIEST


def test_a_restored_state_is_kept_though_the_first_trial_is_newer() -> None:
    runner = run_of(scheduler())
    state = StateCallback(of_run(runner)).get_state()
    of = scheduler()
    twin = next_run(of)
    StateCallback(of).set_state(state)
    newer = twin.start("newer")
    assert twin.feed(newer, decay(5.0)) == EARLIEST


def test_a_scheduler_pickled_after_a_run_knows_nothing_of_it_in_another() -> None:
    """What `Tuner.restore` finds when the second `Tuner` was made after the first one's `fit()`."""
    of: CurveScheduler = copy_of(of_run(run_of(scheduler())))
    twin = next_run(of)
    assert twin.feed(twin.start("new"), decay(500.0)) == 50
    assert list(book_of(of).entries) == ["new"]
