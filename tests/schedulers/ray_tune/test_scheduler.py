"""What Tune expects of a scheduler, and what CurveScheduler promises beyond: results, ends, stops."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from kit.tune_runner import EARLIEST, Runner, book_of, decay, of_run, run_of, scheduler
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler

from lcsearch.schedulers.ray_tune import CurveScheduler
from lcsearch.study import Status

NAN, INF = math.nan, math.inf


def reasons(runner: Runner) -> set[str]:
    return {reason.name for reason in of_run(runner).session.reasons}


def status(runner: Runner, trial: Trial) -> Status:
    return book_of(of_run(runner)).entries[trial.trial_id].status


def reports(runner: Runner, trial: Trial) -> dict[float, float]:
    return book_of(of_run(runner)).entries[trial.trial_id].reports


# Metric, mode, time


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("judged", ["best", "final"])
def test_a_hopeless_trial_is_stopped_in_both_directions(sign: float, judged: Any) -> None:
    runner = run_of(scheduler(mode="min" if sign > 0 else "max", judged=judged), sign=sign)
    assert runner.feed(runner.start(), [sign * v for v in decay(5.0)]) == EARLIEST
    good = runner.start()
    assert runner.feed(good, [sign * v for v in decay(0.01, rate=0.5)]) == 50
    assert status(runner, good) is Status.COMPLETE
    assert list(of_run(runner).stopped()) == ["t6"]


def test_another_metric_and_time_in_nested_results() -> None:
    runner = Runner(scheduler(metric="val/score", mode="max", time_attr="at/samples", max_t=5000))
    trials = [runner.start() for _ in range(6)]
    bad = runner.start()
    for i in range(50):
        for trial in trials:
            runner.result(trial, {"val": {"score": i}, "at": {"samples": 100 * (i + 1)}, "training_iteration": 7})
    assert {trial.status for trial in trials} == {Trial.TERMINATED}
    for i in range(EARLIEST):
        assert bad.status == Trial.RUNNING
        runner.result(bad, {"val/score": -9.0 + i, "at": {"samples": 100 * (i + 1)}})
        assert of_run(runner).session.wait(10)
    runner.step()
    assert bad.status == Trial.TERMINATED
    assert reports(runner, bad) == {100.0 * (i + 1): -9.0 + i for i in range(EARLIEST)}


def test_metric_and_mode_come_from_one_place() -> None:
    of = CurveScheduler()
    assert of.set_search_properties("loss", "min")
    assert (of.metric, of.snapshot().goal.direction) == ("loss", "minimize")
    assert not of.set_search_properties("loss", None)
    assert not of.set_search_properties(None, "min")
    assert of.set_search_properties(None, None)
    assert not CurveScheduler(metric="loss").set_search_properties("loss", "min")
    assert not CurveScheduler(mode="min").set_search_properties("loss", "min")
    assert CurveScheduler(mode="min").set_search_properties("loss", None)
    alone = CurveScheduler(mode="min")
    assert alone.set_search_properties(None, None)
    assert alone.metric == "_metric"


def test_the_goal_follows_what_tune_says() -> None:
    of = scheduler(metric=None, mode=None)
    assert of.risk_now() is None
    assert of.set_search_properties("accuracy", "max")
    goal = of.snapshot().goal
    assert (goal.metric, goal.direction, goal.horizon) == ("accuracy", "maximize", 50)


@pytest.mark.parametrize(
    ("metric", "mode"), [(None, None), ("loss", None), (None, "min"), ("loss", "minimize")], ids=str
)
def test_a_run_without_metric_or_mode_cannot_begin(metric: Any, mode: Any) -> None:
    of = CurveScheduler()
    if mode == "minimize":
        of.set_search_properties(metric, mode)
    else:
        of = CurveScheduler(metric=metric, mode=mode)
    with pytest.raises(ValueError, match="without a valid `metric`") as error:
        Runner(of).add()
    assert str(error.value) == (
        f"CurveScheduler has been instantiated without a valid `metric` ({metric}) or `mode` ({mode}) parameter. "
        "Either pass these parameters when instantiating the scheduler, or pass them as parameters to "
        "`tune.TuneConfig()`"
    )


@pytest.mark.parametrize("result", [{}, {"loss": 1.0}, {"training_iteration": 99}, {"loss": 1.0, "training": 99}])
def test_a_result_without_metric_or_time_is_passed_over_as_by_asha(result: dict[str, Any]) -> None:
    runner = run_of()
    trial = runner.start()
    assert runner.result(trial, result) == "CONTINUE"
    assert reports(runner, trial) == {}
    assert not of_run(runner).session.failed_open
    asha = Runner(AsyncHyperBandScheduler("training_iteration", "loss", "min", 50, 50))
    assert asha.result(asha.start(), result) == "CONTINUE"


def kind(value: object) -> str:
    """A name for a case that is the same in every process."""
    return type(value).__name__


class Unreadable:
    def __float__(self) -> float:
        raise RuntimeError("no number")


@pytest.mark.parametrize(
    "value", [None, "low", [0.1], 1 + 1j, 10**400, Unreadable(), np.zeros(2), torch.zeros(2), object()], ids=kind
)
@pytest.mark.parametrize("key", ["loss", "training_iteration"])
def test_what_is_no_number_is_counted_and_passed_over(key: str, value: Any) -> None:
    runner = run_of()
    trial = runner.start()
    assert runner.result(trial, {"training_iteration": 1, "loss": 0.5, key: value}) == "CONTINUE"
    assert reports(runner, trial) == {}
    runner.report(trial, 2, 0.5)
    assert reports(runner, trial) == {2: 0.5}
    runner.result(trial, {"training_iteration": 3, "loss": 0.5, key: value, "done": True})
    assert status(runner, trial) is Status.COMPLETE
    assert of_run(runner).session.failed_open == {"reading a result": 2}


@pytest.mark.parametrize("value", [np.float32(0.5), np.array(0.5), torch.tensor(0.5), Fraction(1, 2), "0.5"], ids=kind)
def test_whatever_float_reads_is_a_number(value: Any) -> None:
    runner = run_of()
    trial = runner.start()
    runner.report(trial, 1, value)
    assert reports(runner, trial) == {1: 0.5}


@pytest.mark.parametrize("step", [NAN, INF, -INF])
def test_a_time_that_is_not_finite_is_passed_over(step: float) -> None:
    runner = run_of()
    trial = runner.start()
    assert runner.report(trial, step, 0.5) == "CONTINUE"
    assert reports(runner, trial) == {}


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_non_finite_metrics_stop_a_trial_at_the_third_or_at_the_sixth_where_there_was_no_value_yet(bad: float) -> None:
    runner = run_of()
    assert runner.feed(runner.start("a"), [9.0, 9.0, *[bad] * 9], turn=False) == 5
    assert runner.feed(runner.start("b"), [bad] * 9) == 6
    assert runner.feed(runner.start("c"), [0.01, bad, bad, 0.01, bad, bad, 0.01]) is None
    assert of_run(runner).stopped() == {
        "a": f"step 5: diverged, the last 3 reports were not finite (latest {bad})",
        "b": f"step 6: diverged, the last 6 reports were not finite (latest {bad})",
    }
    early = Runner(scheduler())
    assert early.feed(early.start(), [bad] * 60) == 50  # nothing has finished: no telling a late metric from a bad one


@pytest.mark.parametrize("grace", [0, 1, EARLIEST, EARLIEST + 1, 20, 49, 50])
def test_the_earliest_stop_is_at_the_end_of_the_grace_period(grace: int) -> None:
    runner = run_of(scheduler(grace_period=grace))
    trial = runner.start()
    assert runner.feed(trial, decay(5.0)) == max(grace, EARLIEST)
    assert status(runner, trial) is (Status.STOPPED if grace < 50 else Status.COMPLETE)


# The end


@pytest.mark.parametrize("steps", [range(1, 60), [10, 49, 50], [3, 49.5, 50.5], [1, 80], [50], [1000], [7, 49, 49]])
def test_max_t_as_asha_has_it(steps: Any) -> None:
    said: list[list[tuple[float, str]]] = []
    for of in (scheduler(grace_period=50), AsyncHyperBandScheduler("training_iteration", "loss", "min", 50, 50)):
        runner = Runner(of)
        trial = runner.start()
        said.append([])
        for step in steps:
            if trial.status == Trial.RUNNING:
                said[-1].append((step, runner.report(trial, step, 0.5)))
    assert said[0] == said[1]
    assert (said[0][-1][1] == "STOP") == (max(steps) >= 50)


def test_time_jumps_past_max_t() -> None:
    runner = run_of()
    trial = runner.start()
    assert runner.feed(trial, decay(5.0, EARLIEST - 1)) is None
    assert runner.report(trial, 80, 5.0) == "STOP"
    assert status(runner, trial) is Status.COMPLETE
    assert "HORIZON" in reasons(runner)
    assert of_run(runner).stopped() == {}


def test_time_runs_backwards() -> None:
    """A replay after a restore: the first report of a step counts, and no look is cast at a step that was seen."""
    runner = run_of()
    trial = runner.start()
    runner.feed(trial, decay(5.0, EARLIEST - 1))
    before = dict(reports(runner, trial)), of_run(runner).session.reasons.total()
    assert runner.feed(trial, [0.0] * (EARLIEST - 1)) is None
    assert (reports(runner, trial), of_run(runner).session.reasons.total()) == before
    assert runner.feed(trial, [5.0], EARLIEST) == EARLIEST
    gap = runner.start()
    for step in (2, 4, 1, 3):
        runner.report(gap, step, 1.0)
    assert list(book_of(of_run(runner)).trial(gap.trial_id).curve.steps) == [1, 2, 3, 4]


def test_a_final_result_told_twice() -> None:
    runner = run_of()
    trial = runner.start()
    runner.feed(trial, decay(0.05, 10))
    runner.end(trial)
    assert (trial.status, status(runner, trial)) == (Trial.TERMINATED, Status.COMPLETE)
    assert len(reports(runner, trial)) == 10
    of_run(runner).on_trial_complete(runner, trial, {"training_iteration": 11, "loss": 0.0})  # type: ignore[arg-type]
    assert status(runner, trial) is Status.COMPLETE
    assert not of_run(runner).session.failed_open


def test_an_end_without_a_result() -> None:
    runner = run_of()
    trial = runner.start()
    runner.stop_trial(trial)
    assert (status(runner, trial), reports(runner, trial)) == (Status.COMPLETE, {})
    assert runner.feed(runner.start(), decay(5.0)) == EARLIEST
    assert not of_run(runner).session.failed_open


def test_the_last_point_of_a_class_is_seen_at_its_end_only() -> None:
    runner = run_of()
    trial = runner.start("class")
    runner.feed(trial, decay(0.05, 10))
    runner.result(trial, {"training_iteration": 11, "loss": 0.001, "done": True})
    assert reports(runner, trial)[11] == 0.001
    incumbent = of_run(runner).snapshot().incumbent
    assert incumbent is not None
    assert (incumbent.value, incumbent.uid, incumbent.step) == (0.001, "class", 11)
    bare = runner.start("bare")
    runner.feed(bare, decay(0.5, 3))
    runner.result(bare, {"training_iteration": 4, "done": True})  # the last result of a class may hold no metric
    assert (status(runner, bare), len(reports(runner, bare))) == (Status.COMPLETE, 3)


def test_an_error_and_another_try() -> None:
    runner = run_of()
    trial = runner.start("x")
    runner.feed(trial, decay(5.0, 4))
    runner.fail(trial, retry=True)
    assert status(runner, trial) is Status.RUNNING
    assert runner.step() is trial
    assert runner.feed(trial, [5.0] * 20, 3) == EARLIEST
    assert [one.uid for one in of_run(runner).snapshot().bank][-1] == "x"


def test_an_error_for_good() -> None:
    runner = run_of()
    trial = runner.start()
    runner.feed(trial, decay(0.001, 20))
    runner.fail(trial)
    snapshot = of_run(runner).snapshot()
    assert status(runner, trial) is Status.FAILED
    assert (len(snapshot.bank), snapshot.bank.n_complete, snapshot.live) == (7, 6, ())
    assert snapshot.incumbent is not None
    assert snapshot.incumbent.uid == "good0"


def test_a_trial_that_fails_after_its_stop_is_no_stop() -> None:
    runner = run_of()
    trial = runner.start()
    runner.feed(trial, decay(5.0, EARLIEST), turn=False)
    runner.save(trial)
    assert runner.report(trial, EARLIEST + 1, 5.0) == "STOP"
    runner.fail(trial, retry=True)
    assert (of_run(runner).stopped(), status(runner, trial)) == ({}, Status.RUNNING)
    trial.status = Trial.RUNNING
    trial.temporary_state.saving_to = None
    runner.end(trial)
    assert status(runner, trial) is Status.COMPLETE


@pytest.mark.parametrize("before", [Trial.PENDING, Trial.PAUSED])
def test_a_trial_is_removed_before_it_runs_or_while_it_is_paused(before: str) -> None:
    runner = run_of()
    trial = runner.start()
    if before == Trial.PAUSED:
        runner.feed(trial, decay(5.0, EARLIEST), turn=False)  # a verdict that nobody will fetch
    trial.status = before
    runner.slots = 0
    assert runner.feed(runner.start(), decay(5.0)) == EARLIEST
    assert trial.status == before  # a stop of a trial that does not run waits
    runner.stop_trial(trial)
    assert status(runner, trial) is Status.STOPPED
    assert trial.trial_id not in of_run(runner).stopped()
    assert not of_run(runner).session.unfetched
    assert "was stopped, but not by lcsearch" in of_run(runner).explain(trial.trial_id)


def test_trials_that_nobody_added_and_results_after_the_end() -> None:
    of = scheduler()
    controller: Any = None  # nothing here may need one
    unknown = [Trial("mock", trial_id=f"u{i}", stub=True) for i in range(4)]
    assert of.on_trial_result(controller, unknown[0], {"training_iteration": 1, "loss": 1.0}) == "CONTINUE"
    of.on_trial_complete(controller, unknown[1], {"training_iteration": 1, "loss": 1.0})
    of.on_trial_error(controller, unknown[2])
    of.on_trial_remove(controller, unknown[3])
    states = [entry.status.name for entry in book_of(of).entries.values()]
    assert states == ["RUNNING", "COMPLETE", "FAILED", "STOPPED"]
    late = {"training_iteration": 2, "loss": 0.0}
    assert [of.on_trial_result(controller, trial, late) for trial in unknown[1:]] == ["CONTINUE"] * 3
    for trial in unknown[1:]:
        of.on_trial_error(controller, trial)
        of.on_trial_remove(controller, trial)
    assert [entry.status.name for entry in book_of(of).entries.values()] == states
    assert not of.session.failed_open


def test_without_a_controller() -> None:
    """Upstream's tests hand None to every hook but `choose_trial_to_run`."""
    of = scheduler(n_startup_trials=0)
    controller: Any = None
    good, bad = (Trial("mock", trial_id=uid, stub=True) for uid in ("good", "bad"))
    for trial in (good, bad):
        of.on_trial_add(controller, trial)
    for step, said in (*((step, "CONTINUE") for step in range(1, 7)), (50, "STOP")):
        assert of.on_trial_result(controller, good, {"training_iteration": step, "loss": 1.0}) == said
    of.on_trial_complete(controller, good, {"training_iteration": 50, "loss": 1.0})
    for step, said in (*((step, "CONTINUE") for step in range(1, 6)), (6, "STOP")):
        assert of.on_trial_result(controller, bad, {"training_iteration": step, "loss": NAN}) == said


def test_bounds_are_the_goals() -> None:
    """The state says nothing of them: they are the scheduler's, as `judged` is."""
    assert scheduler(mode="max", bounds=(0, 1)).snapshot().goal.bounds == (0.0, 1.0)
    assert scheduler(mode="max").snapshot().goal.bounds is None
