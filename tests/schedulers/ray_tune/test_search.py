"""PrunedSearch: what Optuna's study holds after a run with stops. Warnings are errors here: none about double steps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import optuna
import pytest
from kit.doubles import Knows
from kit.tune_runner import EARLIEST, Runner, book_of, copy_of, decay, of_run, run_of, scheduler, searched_study
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import BasicVariantGenerator, ConcurrencyLimiter, Repeater, Searcher, SearchGenerator
from ray.tune.search.optuna import OptunaSearch

from lcsearch.errors import InvalidValue
from lcsearch.schedulers.optuna import ForecastSampler
from lcsearch.schedulers.ray_tune import CurveScheduler, PrunedSearch
from lcsearch.study import Status

optuna.logging.set_verbosity(optuna.logging.ERROR)


def inner(**fields: Any) -> OptunaSearch:
    sampler = optuna.samplers.RandomSampler(seed=0)
    space = {"x": FloatDistribution(0, 1)}
    return OptunaSearch(**{"space": space, "metric": "loss", "mode": "min", "sampler": sampler, **fields})


def searched(limit: int | None = None, *, around: bool = False, **fields: Any) -> Runner:
    """A run with six complete trials that the searcher knows nothing of; `around`: PrunedSearch is outermost."""
    runner = run_of()
    if around:
        assert limit is not None
        runner.searcher = PrunedSearch(ConcurrencyLimiter(inner(**fields), limit), of_run(runner))
        return runner
    searcher = PrunedSearch(inner(**fields), of_run(runner))
    runner.searcher = searcher if limit is None else ConcurrencyLimiter(searcher, limit)
    return runner


class HyperNothing(Searcher):
    pass


def suggested(runner: Runner) -> Trial:
    trial = runner.suggest()
    assert trial is not None
    trial.status = Trial.RUNNING
    return trial


def told(runner: Runner) -> list[FrozenTrial]:
    """The trials of the study."""
    searcher: Any = runner.searcher
    while hasattr(searcher, "searcher"):
        searcher = searcher.searcher
    trials: list[FrozenTrial] = searched_study(searcher).trials
    return trials


@pytest.mark.parametrize("turn", [True, False])
def test_a_stopped_trial_is_pruned_with_its_curve(turn: bool) -> None:
    runner = searched()
    curve = decay(5.0)
    step = runner.feed(suggested(runner), curve, turn=turn)
    assert step == (EARLIEST if turn else EARLIEST + 1)
    (frozen,) = told(runner)
    assert frozen.state == TrialState.PRUNED
    assert frozen.intermediate_values == dict(enumerate(curve[:step], 1))
    assert frozen.value == curve[step - 1]  # as Optuna has it, and no less than what the sampler may learn from


def test_plain_optuna_search_takes_a_stop_for_complete() -> None:
    """Why there is a PrunedSearch at all."""
    runner = run_of()
    runner.searcher = inner()
    runner.feed(suggested(runner), decay(5.0))
    assert [frozen.state for frozen in told(runner)] == [TrialState.COMPLETE]


def test_a_diverged_trial_is_pruned() -> None:
    runner = searched()
    runner.feed(suggested(runner), [9.0, *[math.nan] * 9])
    (frozen,) = told(runner)
    assert (frozen.state, sorted(frozen.intermediate_values)) == (TrialState.PRUNED, [1, 2, 3, 4])


def test_a_trial_that_came_to_max_t_is_complete_with_its_curve() -> None:
    runner = searched()
    curve = decay(0.01, rate=0.5)
    assert runner.feed(suggested(runner), curve) == 50
    (frozen,) = told(runner)
    assert (frozen.state, frozen.value) == (TrialState.COMPLETE, curve[-1])
    assert frozen.intermediate_values == dict(enumerate(curve, 1))


def test_a_function_that_returns_and_a_class_that_is_done() -> None:
    runner = searched()
    trial = suggested(runner)
    runner.feed(trial, decay(0.05, 9))
    runner.end(trial)
    of_class = suggested(runner)
    runner.feed(of_class, decay(0.05, 9))
    runner.result(of_class, {"training_iteration": 10, "loss": 0.05, "done": True})
    lengths = [(frozen.state, frozen.value, len(frozen.intermediate_values)) for frozen in told(runner)]
    assert lengths == [(TrialState.COMPLETE, decay(0.05, 9)[-1], 9), (TrialState.COMPLETE, 0.05, 10)]


def test_a_class_whose_last_result_has_no_metric() -> None:
    runner = searched()
    trial = suggested(runner)
    runner.feed(trial, decay(0.05, 9))
    runner.result(trial, {"training_iteration": 10, "done": True})
    (frozen,) = told(runner)
    assert frozen.intermediate_values == dict(enumerate(decay(0.05, 9), 1))
    assert (frozen.state, frozen.value) == (TrialState.COMPLETE, decay(0.05, 9)[-1])  # the last one it had
    silent = suggested(runner)
    runner.result(silent, {"training_iteration": 1, "done": True})
    assert told(runner)[1].state == TrialState.PRUNED  # OptunaSearch's own word for an end without a value


def test_results_that_lack_the_metric_or_the_iteration_now_and_then() -> None:
    """With `TUNE_DISABLE_STRICT_METRIC_CHECKING=1`; OptunaSearch alone ends the run by a KeyError."""
    runner = searched()
    trial = suggested(runner)
    for step in range(1, 9):
        runner.result(
            trial, {"training_iteration": step, "epoch": step} | ({"loss": 0.5 / step} if step % 4 == 0 else {})
        )
    for odd in ({"loss": 0.1}, {"training_iteration": None, "loss": 0.1}, {"training_iteration": -1, "loss": 0.1}, {}):
        runner.result(trial, odd)
    for value in (None, "low", [0.1]):
        runner.result(trial, {"training_iteration": 9, "loss": value})
    runner.end(trial)
    (frozen,) = told(runner)
    assert (frozen.state, frozen.value) == (TrialState.COMPLETE, 0.0625)
    assert frozen.intermediate_values == {4: 0.125, 8: 0.0625}


def test_a_trial_that_ends_with_nan_has_failed() -> None:
    """As Optuna's own loop has it; OptunaSearch alone leaves it RUNNING for ever."""
    runner = searched()
    trial = suggested(runner)
    runner.feed(trial, [0.5, math.nan])
    runner.end(trial)
    assert [frozen.state for frozen in told(runner)] == [TrialState.FAIL]


def test_a_failed_trial_fails_and_a_removed_one_is_pruned() -> None:
    runner = searched()
    trial = suggested(runner)
    runner.feed(trial, decay(0.05, 9))
    runner.fail(trial)
    removed = suggested(runner)
    removed.status = Trial.PENDING
    runner.stop_trial(removed)
    assert [frozen.state for frozen in told(runner)] == [TrialState.FAIL, TrialState.PRUNED]
    assert len(told(runner)[0].intermediate_values) == 9


def test_steps_replayed_after_an_error_are_reported_once() -> None:
    runner = searched()
    trial = suggested(runner)
    curve = decay(0.01, 12, rate=0.5)
    runner.feed(trial, curve[:7])
    runner.fail(trial, retry=True)
    trial.status = Trial.RUNNING
    runner.feed(trial, curve[4:], 5)
    runner.end(trial)
    (frozen,) = told(runner)
    assert (frozen.state, frozen.intermediate_values) == (TrialState.COMPLETE, dict(enumerate(curve, 1)))


def test_another_attempt_s_steps_take_the_place_of_a_dead_one_s() -> None:
    runner = searched()
    trial = suggested(runner)
    runner.feed(trial, [0.001, 0.001])
    runner.fail(trial, retry=True)
    trial.status = Trial.RUNNING
    step = runner.feed(trial, decay(5.0))
    (frozen,) = told(runner)
    assert (frozen.state, frozen.value) == (TrialState.PRUNED, decay(5.0)[EARLIEST - 1])
    assert (step, frozen.intermediate_values) == (EARLIEST, dict(enumerate(decay(5.0, EARLIEST), 1)))


@pytest.mark.parametrize("restored", [False, True])
def test_a_stopped_trial_is_worth_nothing_of_what_only_a_dead_attempt_had_reached(restored: bool) -> None:
    """A sampler takes a pruned trial at its last step, which was the dead one's."""
    runner = searched()
    trial = suggested(runner)
    runner.feed(trial, [0.001] * 20)
    runner.fail(trial, retry=True)
    trial.status = Trial.RUNNING
    runner.report(trial, 1, decay(5.0)[0])
    if restored:
        searcher: Any = runner.searcher
        searcher.set_state(searcher.get_state())
    assert runner.feed(trial, decay(5.0)[1:], 2) == EARLIEST
    (frozen,) = told(runner)
    last = decay(5.0)[EARLIEST - 1]
    assert frozen.intermediate_values == {
        **dict.fromkeys(range(1, 21), last),
        **dict(enumerate(decay(5.0, EARLIEST), 1)),
    }
    assert (frozen.state, frozen.value) == (TrialState.PRUNED, last)


@pytest.mark.parametrize("around", [False, True])
def test_with_a_concurrency_limiter(around: bool) -> None:
    runner = searched(limit=2, around=around)
    first, second = suggested(runner), suggested(runner)
    assert runner.suggest() is None
    assert runner.feed(first, decay(5.0)) == EARLIEST
    third = suggested(runner)
    assert runner.suggest() is None
    runner.feed(second, decay(0.01, rate=0.5))
    runner.fail(third)
    suggested(runner)
    states = [frozen.state for frozen in told(runner)]
    assert states == [TrialState.PRUNED, TrialState.COMPLETE, TrialState.FAIL, TrialState.RUNNING]


def test_a_space_defined_by_run() -> None:
    def space(trial: optuna.Trial) -> dict[str, Any]:
        trial.suggest_float("lr", 1e-4, 1e-1, log=True)
        return {"layers": 3}

    runner = searched(space=space)
    trial = suggested(runner)
    assert trial.config.keys() == {"lr", "layers"}
    assert runner.feed(trial, decay(5.0)) == EARLIEST
    (frozen,) = told(runner)
    assert (frozen.state, frozen.params) == (TrialState.PRUNED, {"lr": trial.config["lr"]})
    assert book_of(of_run(runner)).entries[trial.trial_id].params == trial.config


def test_metric_and_space_from_tune() -> None:
    of = CurveScheduler(max_t=50)
    plain = OptunaSearch(sampler=optuna.samplers.RandomSampler(seed=0))
    searcher = PrunedSearch(plain, of)
    assert searcher.set_search_properties("loss", "min", {"x": tune.uniform(0, 1)})
    assert (searcher.metric, searcher.mode) == ("loss", "min")
    assert not searcher.set_search_properties("loss", "min", {"x": tune.uniform(0, 1)})
    config = searcher.suggest("a")
    assert config is not None
    assert 0 <= config["x"] <= 1


def test_several_metrics_have_no_curve() -> None:
    runner = run_of()
    runner.searcher = PrunedSearch(inner(metric=["loss", "size"], mode=["min", "min"]), of_run(runner))
    trial = suggested(runner)
    for step in range(1, EARLIEST + 1):
        runner.result(trial, {"training_iteration": step, "loss": decay(5.0)[step - 1], "size": 1.0})
        assert of_run(runner).session.wait(10)
        runner.step()
    other = suggested(runner)
    runner.result(other, {"training_iteration": 1, "loss": 5.0, "size": 1.0})
    runner.end(other)
    assert [frozen.state for frozen in told(runner)] == [TrialState.PRUNED, TrialState.COMPLETE]
    assert told(runner)[1].values == [5.0, 1.0]


def test_saved_and_restored_by_its_file(tmp_path: Path) -> None:
    runner = searched()
    runner.feed(suggested(runner), decay(5.0))
    running = suggested(runner)
    runner.feed(running, decay(0.01, 9, rate=0.5))
    searcher = runner.searcher
    assert isinstance(searcher, PrunedSearch)
    searcher.save(str(tmp_path / "searcher.pkl"))
    again = PrunedSearch(inner(), of_run(runner))
    again.restore(str(tmp_path / "searcher.pkl"))
    again.set_state(searcher.get_state())
    runner.searcher = again
    runner.feed(running, decay(0.01, rate=0.5)[9:], 10)
    assert [frozen.state for frozen in told(runner)] == [TrialState.PRUNED, TrialState.COMPLETE]
    assert len(told(runner)[1].intermediate_values) == 50


@pytest.mark.parametrize(("limit", "around"), [(None, False), (2, False), (2, True)])
def test_saved_and_restored_as_tune_does(limit: int | None, around: bool, tmp_path: Path) -> None:
    runner = searched(limit, around=around)
    runner.feed(suggested(runner), decay(5.0))
    running = suggested(runner)
    runner.feed(running, decay(0.01, 9, rate=0.5))
    assert runner.searcher is not None
    SearchGenerator(runner.searcher).save_to_dir(str(tmp_path), "session")
    fresh: Any = searched(limit, around=around).searcher
    (fresh.searcher if limit and not around else fresh)._scheduler = of_run(runner)  # noqa: SLF001
    again = SearchGenerator(fresh)
    again.restore_from_dir(str(tmp_path))
    runner.searcher = again.searcher
    runner.feed(running, decay(0.01, rate=0.5)[5:], 6)  # the steps after its checkpoint are repeated
    runner.feed(suggested(runner), decay(5.0))
    states = [frozen.state for frozen in told(runner)]
    assert states == [TrialState.PRUNED, TrialState.COMPLETE, TrialState.PRUNED]
    assert len(told(runner)[1].intermediate_values) == 50


def test_pickled_with_its_scheduler() -> None:
    runner = searched()
    runner.feed(suggested(runner), decay(5.0))
    of, searcher = copy_of((of_run(runner), runner.searcher))
    assert isinstance(searcher, PrunedSearch)
    assert searcher._scheduler is of  # noqa: SLF001
    twin = runner.fork(of)
    twin.searcher = searcher
    twin.feed(suggested(twin), decay(5.0))
    assert [frozen.state for frozen in told(twin)] == [TrialState.PRUNED] * 2


@pytest.mark.parametrize(
    "searcher",
    [None, BasicVariantGenerator(), "optuna", ConcurrencyLimiter(HyperNothing(), 2)],
    ids=lambda s: type(s).__name__,
)
def test_other_searchers_are_refused(searcher: Any) -> None:
    with pytest.raises(InvalidValue) as error:
        PrunedSearch(searcher, scheduler())
    got = "HyperNothing" if isinstance(searcher, ConcurrencyLimiter) else type(searcher).__name__
    assert str(error.value) == (
        f"PrunedSearch(searcher=): expected an OptunaSearch, or a ConcurrencyLimiter around one, got '{got}'."
    )


@pytest.mark.parametrize("limited", [False, True])
def test_a_repeater_is_refused(limited: bool) -> None:
    repeater: Any = Repeater(inner(), 3)
    with pytest.raises(InvalidValue) as error:
        PrunedSearch(ConcurrencyLimiter(repeater, 2) if limited else repeater, scheduler())
    assert str(error.value) == (
        "PrunedSearch(searcher=): expected an OptunaSearch, or a ConcurrencyLimiter around one, got 'Repeater'. "
        "Repeat inside one trial and report the mean: Repeater averages last values, and a stopped repeat's is that of "
        "an early step."
    )


def test_a_repeater_around_it_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    """It cannot be seen at construction: it hands on one mean for each group, without a step."""
    runner = run_of()
    runner.searcher = Repeater(PrunedSearch(inner(), of_run(runner)), 2)
    with caplog.at_level("WARNING", "lcsearch"):
        for curves in ((0.05, 0.01), (5.0, 0.01), (0.01, 0.01)):
            for limit in curves:
                trial = suggested(runner)
                runner.feed(trial, decay(limit, rate=0.5))
                if trial.status == Trial.RUNNING:
                    runner.end(trial)
    assert [frozen.state for frozen in told(runner)] == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.COMPLETE]
    assert [record.getMessage() for record in caplog.records] == [
        "lcsearch: a Repeater around PrunedSearch gives Optuna the mean of last values, and a stopped repeat's is that "
        "of an early step; repeat inside one trial and report the mean"
    ]


def test_other_schedulers_are_refused() -> None:
    with pytest.raises(InvalidValue) as error:
        PrunedSearch(inner(), FIFOScheduler())  # type: ignore[arg-type, no-untyped-call]
    assert str(error.value) == "PrunedSearch(scheduler=): expected a CurveScheduler, got 'FIFOScheduler'."


def test_a_forecast_sampler_chooses_by_the_run_as_the_scheduler_sees_it() -> None:
    knows = Knows()
    runner = run_of(scheduler(forecasters=[knows]))
    sampler = ForecastSampler(sampler_share=0, n_startup_trials=4, seed=0)
    runner.searcher = PrunedSearch(inner(sampler=sampler), of_run(runner))
    begun = []
    for n in range(8):
        begun.append(suggested(runner))
        runner.feed(begun[-1], [1.0 - 0.01 * n])
    assert all(abs(trial.config["x"] - 0.3) < 0.05 for trial in begun[2:])
    assert Status.RUNNING in knows.seen
    kept = copy_of(of_run(runner))
    for one in (of_run(runner), kept):
        assert "it was begun as the one of 256 candidates that is forecast to gain most" in one.explain(
            begun[-1].trial_id
        )


def test_a_forecast_sampler_must_earn_its_choices_here_too() -> None:
    """Every forecast is wrong: as in Optuna, nearly all trials are left to the sampler, and that is told."""
    runner = run_of(scheduler(forecasters=[Knows()]))
    sampler = ForecastSampler(sampler_share=0.25, n_startup_trials=8, seed=0)
    runner.searcher = PrunedSearch(inner(sampler=sampler), of_run(runner))
    begun = []
    for _ in range(40):
        begun.append(suggested(runner))
        runner.feed(begun[-1], [2.0 - abs(begun[-1].config["x"] - 0.3)])
    told = [of_run(runner).explain(trial.trial_id) for trial in begun]
    assert sum("it was begun as the one of 256 candidates" in text for text in told) < 16
    doubt = "it was begun as the sampler's own, as 90% of all are, while what forecasts choose is better than it in "
    assert sum(doubt in text for text in told) > 12
