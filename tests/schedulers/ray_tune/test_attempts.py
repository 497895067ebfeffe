"""A trial that is tried again: what a dead attempt reported counts as far as the next one goes on from it."""

from __future__ import annotations

import math
from typing import Any

import pytest
from kit.tune_runner import EARLIEST, Runner, book_of, copy_of, decay, of_run, run_of, scheduler
from ray.tune.experiment import Trial

from lcsearch.schedulers.ray_tune import CurveScheduler, StateCallback
from lcsearch.study import Incumbent, Status
from lcsearch.study.moment import BEGAN_ANEW


def reports(of: CurveScheduler, uid: str) -> dict[float, float]:
    steps, values = of.get_state()["book"].trial(uid).curve.reports()
    return dict(zip(steps.tolist(), values.tolist(), strict=True))


def died(values: list[float], **fields: Any) -> tuple[Runner, Trial]:
    """A run with six complete trials and `x`, whose first attempt reported `values` and whose second one runs."""
    runner = run_of(scheduler(**fields))
    trial = runner.start("x")
    for step, value in enumerate(values, 1):
        runner.report(trial, step, value)
    runner.fail(trial, retry=True)
    trial.status = Trial.RUNNING
    return runner, trial


def test_a_retry_from_scratch_begins_a_new_curve() -> None:
    """Its first attempt reported 0.001 once and died: nobody has to beat that for the rest of the run."""
    runner, trial = died([0.001])
    curve = decay(0.05, rate=0.5)
    assert runner.feed(trial, curve) == 50
    assert reports(of_run(runner), "x") == dict(enumerate(curve, 1))
    assert of_run(runner).snapshot().incumbent == Incumbent(min(curve), "x", 1 + curve.index(min(curve)))
    assert BEGAN_ANEW in book_of(of_run(runner)).trial("x").stop_records
    assert BEGAN_ANEW not in book_of(of_run(runner)).trial("good0").stop_records


def test_one_that_was_good_in_its_dead_attempt_only_is_looked_at_like_any_other() -> None:
    runner, trial = died(decay(0.01, 40, rate=0.5))
    assert runner.feed(trial, decay(5.0)) == EARLIEST
    assert reports(of_run(runner), "x") == dict(enumerate(decay(5.0, EARLIEST), 1))
    assert f"step {EARLIEST}: P(beat)" in of_run(runner).stopped()["x"]


def test_a_retry_from_a_checkpoint_goes_on() -> None:
    runner, trial = died(decay(0.05, 7, rate=0.5))
    runner.feed(trial, [0.3] * 5, 5)
    assert list(reports(of_run(runner), "x").values()) == [*decay(0.05, 4, rate=0.5), *[0.3] * 5]
    runner.fail(trial, retry=True)
    trial.status = Trial.RUNNING
    runner.feed(trial, [0.2] * 2, 10)  # it had saved at its last step
    assert list(reports(of_run(runner), "x").values()) == [*decay(0.05, 4, rate=0.5), *[0.3] * 5, *[0.2] * 2]


@pytest.mark.parametrize("first", [1, 4])
def test_an_attempt_that_repeats_a_dead_one_to_the_letter_leaves_no_trace(first: int) -> None:
    """It decides as one that did not die: what was looked at once is not looked at again."""
    values = [*decay(0.05, 6, rate=0.5), math.nan, 0.2]
    runner, trial = died(values)
    before = of_run(runner).session.reasons.total()
    runner.feed(trial, values[first - 1 :], first)
    assert of_run(runner).session.reasons.total() == before
    runner.feed(trial, [0.1], 9)
    assert of_run(runner).session.reasons.total() == before + 1
    assert repr(list(reports(of_run(runner), "x").values())) == repr([*values, 0.1])


def test_what_differs_replaces_all_that_came_after() -> None:
    runner, trial = died([0.5, 0.5, 0.001, 0.5])
    runner.feed(trial, [0.5, 0.5, 0.4])
    assert reports(of_run(runner), "x") == {1: 0.5, 2: 0.5, 3: 0.4}


@pytest.mark.parametrize("fails", [True, False])
def test_an_attempt_that_ends_amid_what_it_repeats(fails: bool) -> None:
    runner, trial = died([0.5, 0.5, 0.001, 0.5])
    runner.feed(trial, [0.5, 0.5])
    if fails:
        runner.fail(trial)
    else:
        runner.end(trial)
    assert reports(of_run(runner), "x") == {1: 0.5, 2: 0.5}


def test_an_attempt_that_finds_all_done() -> None:
    """It begins from the checkpoint of the last step and returns."""
    runner = run_of()
    trial = runner.start("x", restore_path="/somewhere")
    runner.feed(trial, [0.5, 0.4])
    runner.fail(trial, retry=True)
    trial.status = Trial.RUNNING
    runner.end(trial)
    assert reports(of_run(runner), "x") == {1: 0.5, 2: 0.4}
    assert book_of(of_run(runner)).entries["x"].status is Status.COMPLETE


@pytest.mark.parametrize("fails", [True, False])
@pytest.mark.parametrize("values", [[0.001], [0.5, 0.001, 0.4]])
def test_an_attempt_from_scratch_that_never_reports_has_no_curve(values: list[float], fails: bool) -> None:
    """Nothing that the dead one reported is there to be reached again; Tune hands its last result out once more."""
    runner, trial = died(values)
    if fails:
        runner.fail(trial)
    else:
        runner.end(trial)
    assert reports(of_run(runner), "x") == {}
    incumbent = of_run(runner).snapshot().incumbent
    assert incumbent is not None
    assert incumbent.uid == "good0"
    later: CurveScheduler = copy_of(of_run(runner))
    assert reports(later, "x") == {}


def test_what_the_dead_attempt_reported_stands_until_the_next_one_reports() -> None:
    runner, trial = died(decay(0.05, 7, rate=0.5))
    runner.result(trial, {"training_iteration": 1})  # no metric yet
    assert len(reports(of_run(runner), "x")) == 7
    runner.report(trial, 2, 9.0)
    assert list(reports(of_run(runner), "x")) == [1, 2]
    runner.fail(trial)
    assert (len(reports(of_run(runner), "x")), book_of(of_run(runner)).entries["x"].status) == (2, Status.FAILED)


def test_within_one_attempt_the_first_report_of_a_step_counts() -> None:
    runner, trial = died([0.5] * 7)
    for step, value in ((1, 0.4), (2, 0.3), (1, 9.0), (2, 9.0)):
        runner.report(trial, step, value)
    assert reports(of_run(runner), "x") == {1: 0.4, 2: 0.3}


def test_an_attempt_that_ends_early_is_judged_by_itself() -> None:
    runner, trial = died([0.001] * 30)
    runner.feed(trial, [0.5, 0.4])
    runner.end(trial)
    assert reports(of_run(runner), "x") == {1: 0.5, 2: 0.4}
    incumbent = of_run(runner).snapshot().incumbent
    assert incumbent is not None
    assert incumbent.uid == "good0"


@pytest.mark.parametrize("kept", [True, False])
def test_seconds_count_anew_where_nothing_was_saved(kept: bool) -> None:
    """The second attempt's first report comes a little later than the first one's: still it is another curve."""
    of = scheduler(time_attr="time_total_s", max_t=500.0)
    runner = Runner(of)
    trial = runner.start("x", restore_path="/somewhere" if kept else None)
    runner.result(trial, {"time_total_s": 1.1, "loss": 0.001})
    runner.fail(trial, retry=True)
    trial.status = Trial.RUNNING
    runner.result(trial, {"time_total_s": 1.3, "loss": 0.5})
    runner.result(trial, {"time_total_s": 2.3, "loss": 0.4})
    assert reports(of, "x") == {**({1.1: 0.001} if kept else {}), 1.3: 0.5, 2.3: 0.4}


@pytest.mark.parametrize(
    ("first", "ends", "again"), [(1, 12, 7), (5, 12, 3), (8, 12, 0), (1, 4, 7), (None, 0, 7)], ids=str
)
@pytest.mark.parametrize("same", [True, False])
def test_what_a_dead_attempt_has_trained_counts_as_spent(first: int | None, ends: int, again: int, same: bool) -> None:
    """Steps that two attempts have trained stand once on the curve, and were trained twice."""
    values = decay(0.05, 12, rate=0.5)
    runner, trial = died(values[:7])
    before = of_run(runner).report().spent - 7
    if first is not None:
        later = values if same else [value / 2 for value in values]
        runner.feed(trial, later[first - 1 : ends], first)
    runner.end(trial)
    assert of_run(runner).report().spent - before == ends + again
    assert copy_of(of_run(runner)).report().spent - before == ends + again


def test_seconds_of_a_dead_attempt_count_as_spent() -> None:
    runner = Runner(scheduler(time_attr="time_total_s", max_t=500.0))
    trial = runner.start("x")
    runner.result(trial, {"time_total_s": 5.0, "loss": 0.5})
    runner.fail(trial, retry=True)
    trial.status = Trial.RUNNING
    runner.result(trial, {"time_total_s": 1.5, "loss": 0.5})
    assert of_run(runner).report().spent == 6.5


def test_a_restored_run_replaces_what_it_reports_again() -> None:
    runner = run_of()
    trial = runner.start("x")
    runner.feed(trial, decay(0.05, 9, rate=0.5))
    of = scheduler()
    StateCallback(of).set_state(StateCallback(of_run(runner)).get_state())
    twin = runner.fork(of)
    again = next(one for one in twin.trials if one.trial_id == "x")
    again.status = Trial.PENDING
    for one in twin.trials:
        of.on_trial_add(twin, one)  # type: ignore[arg-type]
    later: CurveScheduler = copy_of(of)  # and the state saved before its first report
    for it in (of, later):
        third = twin.fork(it)
        again = next(one for one in third.trials if one.trial_id == "x")
        again.status = Trial.RUNNING
        third.feed(again, [0.3, 0.3], 7)
        assert list(reports(it, "x").values()) == [*decay(0.05, 6, rate=0.5), 0.3, 0.3]
