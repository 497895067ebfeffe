"""When and how a stop is carried out, and that a run never hangs."""

from __future__ import annotations

import math
import threading
from typing import Any

import pytest
from kit.doubles import Rows
from kit.tune_runner import EARLIEST, Runner, book_of, decay, of_run, run_of, scheduler
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler

from lcsearch.schedulers.ray_tune import CurveScheduler
from lcsearch.stopping.verdict import Reason
from lcsearch.study import Status

NAN = math.nan


def looked_at(runner: Runner, uid: str = "bad") -> Trial:
    """A running trial whose look came to a STOP that nobody has fetched yet."""
    trial = runner.start(uid)
    assert runner.feed(trial, decay(5.0, EARLIEST), turn=False) is None
    assert of_run(runner).session.unfetched[-1] == uid
    return trial


def test_a_stop_in_the_next_turn_of_the_loop() -> None:
    runner = run_of()
    trial = looked_at(runner)
    runner.step()
    assert trial.status == Trial.TERMINATED
    assert list(of_run(runner).stopped()) == ["bad"]
    assert book_of(of_run(runner)).entries["bad"].status is Status.STOPPED


def test_a_stop_at_the_next_result() -> None:
    runner = run_of()
    trial = looked_at(runner)
    assert runner.report(trial, EARLIEST + 1, 5.0) == "STOP"
    assert trial.status == Trial.TERMINATED
    assert list(of_run(runner).stopped()) == ["bad"]
    assert len(book_of(of_run(runner)).entries["bad"].reports) == EARLIEST + 1


def test_a_stop_at_a_result_that_says_nothing() -> None:
    runner = run_of()
    assert runner.result(looked_at(runner), {"other": 1.0}) == "STOP"


def test_nothing_waits_for_a_forecast() -> None:
    """The forecaster is asked and does not answer: results and turns of the loop go on, and the trial too."""
    begun, go = threading.Event(), threading.Event()

    class Busy(Rows):
        def forecast(self, snapshot: Any, queries: Any) -> Any:
            begun.set()
            assert go.wait(10)
            return super().forecast(snapshot, queries)

    runner = run_of(scheduler(forecasters=[Busy(0.0, 0.0)]))
    runner.late = True
    trial = runner.start()
    for step in range(1, 12):
        assert runner.report(trial, step, 5.0 + 0.7**step) == "CONTINUE"
        runner.step()
    assert begun.wait(10)
    go.set()
    assert of_run(runner).session.wait(10)
    runner.step()
    assert trial.status == Trial.TERMINATED


def test_max_t_and_an_end_come_before_a_waiting_stop() -> None:
    runner = run_of()
    trial = looked_at(runner)
    assert runner.report(trial, 50, 5.0) == "STOP"
    other = looked_at(runner, "other")
    runner.end(other)
    entries = book_of(of_run(runner)).entries
    assert entries["bad"].status is entries["other"].status is Status.COMPLETE
    assert of_run(runner).stopped() == {}
    assert not of_run(runner).session.unfetched


def test_choosing_is_idempotent() -> None:
    runner = run_of()
    running, pending, paused = runner.start("running"), runner.add("pending"), runner.add("paused", Trial.PAUSED)
    trial = looked_at(runner)
    of, before = of_run(runner), None
    for _ in range(50):
        assert of.choose_trial_to_run(runner) is pending  # type: ignore[arg-type]
        now = (trial.status, running.status, of.debug_string(), of.why_not(), dict(of.stopped()))
        assert before in (None, now)
        before = now
    assert trial.status == Trial.TERMINATED
    pending.status = Trial.RUNNING
    assert {of.choose_trial_to_run(runner) for _ in range(9)} == {paused}  # type: ignore[arg-type]
    paused.status = Trial.RUNNING
    assert {of.choose_trial_to_run(runner) for _ in range(9)} == {None}  # type: ignore[arg-type]


def test_choosing_is_fifo() -> None:
    for of in (scheduler(), FIFOScheduler()):  # type: ignore[no-untyped-call]
        runner = Runner(of, slots=2)
        for i, status in enumerate([Trial.PAUSED, Trial.PENDING, Trial.PENDING, Trial.RUNNING, Trial.TERMINATED]):
            runner.add(str(i), status)
        assert [str(chosen and chosen.trial_id) for chosen in (runner.step(), runner.step())] == ["1", "2"]


def test_a_stop_waits_while_the_trial_saves() -> None:
    runner = run_of()
    trial = looked_at(runner)
    other = looked_at(runner, "other")
    runner.save(trial)
    for _ in range(3):
        runner.step()
    assert (trial.status, other.status) == (Trial.RUNNING, Trial.TERMINATED)
    assert list(of_run(runner).stopped()) == ["other"]
    runner.saved(trial)
    assert trial.status == Trial.RUNNING
    runner.step()
    assert trial.status == Trial.TERMINATED
    third = looked_at(runner, "third")
    runner.save(third)
    assert runner.report(third, EARLIEST + 1, 5.0) == "STOP"
    assert third.status == Trial.RUNNING
    runner.saved(third)
    assert third.status == Trial.TERMINATED
    assert len(of_run(runner).stopped()) == 3


def test_a_trial_that_leads_is_not_stopped_by_an_older_look() -> None:
    runner = run_of()
    trial = looked_at(runner)
    assert runner.report(trial, EARLIEST + 1, 0.01) == "CONTINUE"
    runner.step()
    assert trial.status == Trial.RUNNING
    assert of_run(runner).session.reasons[Reason.INCUMBENT] == 2  # this look, and what the older one came to
    assert of_run(runner).stopped() == {}


@pytest.mark.parametrize("turn", [True, False])
def test_a_trial_at_its_end_is_not_stopped_by_an_older_look(turn: bool) -> None:
    """Also where trials end by themselves, as in a sweep, and do something after their last report."""
    runner = run_of()
    of_run(runner)._stops_at_max_t = False  # noqa: SLF001
    trial = looked_at(runner)
    assert runner.report(trial, 50, 0.01) == "CONTINUE"
    if turn:
        runner.step()
    assert trial.status == Trial.RUNNING
    runner.end(trial)
    assert of_run(runner).stopped() == {}
    assert book_of(of_run(runner)).entries[trial.trial_id].status is Status.COMPLETE


def test_a_trial_that_leads_between_two_looks_is_not_stopped() -> None:
    runner = run_of(scheduler(interval_steps=EARLIEST - 1))
    trial = looked_at(runner)
    assert runner.report(trial, EARLIEST + 1, 0.01) == "CONTINUE"
    runner.step()
    assert trial.status == Trial.RUNNING
    assert of_run(runner).stopped() == {}


def test_one_that_went_on_after_its_stop_failed_is_looked_at_again() -> None:
    runner = run_of()
    trial = looked_at(runner)
    runner.fail(trial, retry=True)
    assert not of_run(runner).session.unfetched
    runner.step()
    assert trial.status == Trial.RUNNING
    assert runner.feed(trial, decay(5.0)) == EARLIEST + 1  # steps seen before are not looked at again


@pytest.mark.parametrize("bad", [5.0, NAN, math.inf, None, "?"])
@pytest.mark.parametrize("slots", [1, 3])
def test_a_run_of_bad_trials_ends(bad: Any, slots: int) -> None:
    """Every trial ends, none is left waiting, whatever they report."""
    runner = Runner(scheduler(max_t=12, n_startup_trials=3), slots=slots)
    waiting = [runner.add() for _ in range(9)]
    steps = dict.fromkeys([trial.trial_id for trial in waiting], 0)
    for _ in range(200):
        runner.step()
        for trial in [one for one in waiting if one.status == Trial.RUNNING]:
            steps[trial.trial_id] += 1
            runner.report(trial, steps[trial.trial_id], bad)
            if steps[trial.trial_id] == 12 and trial.status == Trial.RUNNING:
                runner.end(trial)  # its function is over
        assert of_run(runner).session.wait(10)
    assert {trial.status for trial in waiting} == {Trial.TERMINATED}
    assert of_run(runner).choose_trial_to_run(runner) is None  # type: ignore[arg-type]
    assert all(entry.status.finished for entry in book_of(of_run(runner)).entries.values())
    assert len(of_run(runner).snapshot().bank) == 9


def test_startup_trials_run_to_their_end_whatever_happens() -> None:
    runner = run_of(n=4)
    assert runner.feed(runner.start(), decay(5.0)) == 50
    assert runner.feed(runner.start(), decay(5.0)) == EARLIEST


def test_all_forecasters_must_agree_and_a_risk_limit_ends_the_stops() -> None:
    sure, unsure = Rows(0.0, 0.0, name="sure"), Rows(0.9, 0.9, name="unsure")
    runner = run_of(scheduler(forecasters=[sure, unsure]))
    assert runner.feed(runner.start(), decay(5.0, 49)) is None
    runner = run_of(scheduler(forecasters=[Rows(0.03, 0.03)], risk=0.05))
    assert runner.feed(runner.start("one"), decay(5.0)) == 9  # the previous look had its eight observations too
    assert runner.feed(runner.start("two"), decay(5.0, 49)) is None
    risk = of_run(runner).risk_now()
    assert risk is not None
    assert 0.03 <= risk <= 0.05


def test_looks_are_interval_steps_apart() -> None:
    of = scheduler(interval_steps=10, grace_period=3)
    runner = run_of(of)
    assert runner.feed(runner.start(), decay(5.0)) == 13


def test_buffered_results_are_not_supported() -> None:
    assert CurveScheduler().supports_buffered_results is False
    assert isinstance(CurveScheduler(), FIFOScheduler)
