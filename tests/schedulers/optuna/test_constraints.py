"""What must be beaten is what the study calls best: feasible, and by what trials return."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from kit.studies import SHORTEST, decay, first_stop, pruner, stop_one, study_of
from optuna.trial import FrozenTrial, TrialState, create_trial

from lcsearch.schedulers.optuna import CurvePruner


def of_study(study: optuna.Study) -> CurvePruner:
    assert isinstance(study.pruner, CurvePruner)
    return study.pruner


def outside(values: list[float], key: str = "constraints") -> FrozenTrial:
    """A COMPLETE trial that breaks a constraint."""
    broken: Any = [0.0, 0.5] if key == "constraints" else 0.5
    return create_trial(value=values[-1], intermediate_values=dict(enumerate(values)), system_attrs={key: broken})


@pytest.mark.parametrize("key", ["constraints", "constraints:size"])
def test_an_infeasible_trial_is_not_what_must_be_beaten(key: str) -> None:
    study = study_of()
    of = of_study(study)
    for _ in range(4):
        study.add_trial(outside(decay(-5.0), key))
    assert study.best_trial.number == 0
    assert first_stop(study.ask(), decay(0.05, rate=0.5)) is None  # the best feasible one
    number = stop_one(study)
    assert "incumbent: 0.100018, trial 0 at step 49; to beat it counts from 0.0950178" in of.explain(number)
    assert of.report(study).complete == 10
    assert not of.report(study).notices


def test_a_study_without_a_feasible_trial_stops_nothing_and_says_why() -> None:
    study = optuna.create_study(pruner=pruner())
    for i in range(6):
        study.add_trial(outside(decay(0.1 * (i + 1))))
    assert first_stop(study.ask(), decay(5.0, SHORTEST + 3)) is None
    text = of_study(study).why_not(study)
    assert f"NO_INCUMBENT: step {SHORTEST + 2}: 6 trials have ended, none is feasible" in text
    assert text.startswith(
        "none of 6 trials that ran to their end is feasible, so there is nothing to beat and nothing is stopped. If "
        "one should count, look at their constraints, of which a value above 0 breaks one\n"
    )
    assert str(of_study(study).report(study)).startswith("! none of 6 trials that ran to their end is feasible, ")


def test_where_none_is_worth_anything_it_is_not_constraints_that_are_named() -> None:
    study = optuna.create_study(pruner=pruner())
    for i in range(6):
        ended = study.ask()
        for step, value in enumerate(decay(0.1 * (i + 1))):
            ended.report(value, step)
        study.tell(ended, float("inf"))
    assert first_stop(study.ask(), decay(5.0, SHORTEST + 3)) is None
    text = of_study(study).why_not(study)
    assert text.startswith(
        "none of 6 trials that ran to their end returned a finite value, so there is nothing to beat"
    )
    assert "6 trials have ended, none returned a finite value" in text


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning", "ignore:.constraints_func.:FutureWarning")
@pytest.mark.parametrize("how", ["constraints_func", "set_constraint"])
def test_the_best_feasible_trial_is_not_lost_to_an_infeasible_one(how: str) -> None:
    """As users do: the best metric lies where the constraint, x >= 0.4, is broken."""
    of_trial = (lambda trial: [0.4 - trial.params["x"]]) if how == "constraints_func" else None
    sampler = optuna.samplers.TPESampler(seed=1, constraints_func=of_trial, n_startup_trials=60)
    study = optuna.create_study(sampler=sampler, pruner=pruner(max_steps=20))
    for x in (0.01, 0.02, 0.03, 0.04, 0.05, 0.9, 0.06, 0.07, 0.7, 0.6, 0.5, 0.43, 0.9, 0.41):
        study.enqueue_trial({"x": x})

    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0.0, 1.0)
        if first_stop(trial, decay(x, 20, 0.3)) is not None:
            raise optuna.TrialPruned
        if how == "set_constraint":
            trial.set_constraint("size", 0.4 - x)
        return x + 0.3**19

    study.optimize(objective, n_trials=14)
    feasible = [t for t in study.trials if t.params["x"] >= 0.4]
    assert study.best_trial.params["x"] == min(t.params["x"] for t in feasible)
    assert any(t.state == TrialState.PRUNED for t in feasible)


def mismatched(n: int, values: Callable[[int], list[float]], returned: Callable[[int], float], **fields: Any) -> Any:
    study = optuna.create_study(pruner=pruner(**fields))
    for i in range(n):
        study.add_trial(create_trial(value=returned(i), intermediate_values=dict(enumerate(values(i)))))
    return study


def test_what_is_returned_is_not_what_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    study = mismatched(6, lambda i: decay(0.1 * (i + 1)), lambda i: 1.0 - 0.1 * i)
    of = of_study(study)
    text = (
        "the study's best is 0.5 of trial 5, and trials must beat 0.100018 of trial 0: 6 of 6 trials returned what "
        "their curves do not say, and mostly in the opposite order, so that the best ones are stopped first. Report "
        "what is returned"
    )
    with caplog.at_level(logging.WARNING, "lcsearch"):
        for _ in range(2):
            first_stop(study.ask(), decay(5.0))
    assert [r.getMessage() for r in caplog.records] == [f"lcsearch: {text}"]
    assert text in of.why_not(study)
    assert str(of.report(study)).splitlines()[0] == f"! {text}"


def test_two_trials_that_returned_something_else_are_enough(caplog: pytest.LogCaptureFixture) -> None:
    """It was told from the fifth on that ended, and with the best ones stopped first no fifth may end."""
    study = mismatched(2, lambda i: decay(0.1 * (i + 1)), lambda i: 1.0 - 0.1 * i, n_startup_trials=2)
    with caplog.at_level(logging.WARNING, "lcsearch"):
        first_stop(study.ask(), decay(5.0))
    (said,) = [r.getMessage() for r in caplog.records]
    assert "2 of 2 trials returned what their curves do not say. Report what is returned" in said


@pytest.mark.parametrize("n", [2, 3, 4])
def test_what_the_fifth_trial_proves_is_told_then(n: int, caplog: pytest.LogCaptureFixture) -> None:
    study = mismatched(n, lambda i: decay(0.1 * (i + 1), 20), lambda i: decay(0.1 * (i + 1), 20)[-1], max_steps=200)
    with caplog.at_level(logging.WARNING, "lcsearch"):
        first_stop(study.ask(), decay(5.0, 10))
        assert not caplog.records
        for _ in range(5 - n):
            values = decay(1.0, 20)
            study.add_trial(create_trial(value=values[-1], intermediate_values=dict(enumerate(values))))
        first_stop(study.ask(), decay(5.0, 10))
    (said,) = [r.getMessage() for r in caplog.records]
    assert "none of 5 trials that ended by themselves so far reached max_steps" in said


def test_what_is_returned_may_lie_in_nearly_the_same_order() -> None:
    study = mismatched(6, lambda i: decay(0.1 * (i + 1)), lambda i: 7.0 + i - 2.5 * (i == 1))
    first_stop(study.ask(), decay(5.0))
    assert of_study(study).why_not(study).splitlines()[0] == (
        "the study's best is 5.5 of trial 1, and trials must beat 0.100018 of trial 0: 6 of 6 trials returned what "
        "their curves do not say. Report what is returned"
    )


@pytest.mark.parametrize("judged", ["best", "final"])
@pytest.mark.parametrize("n", [2, 3, 6])
def test_what_is_returned_is_told_though_one_trial_leads_both_ways(n: int, judged: str) -> None:
    """Trials that would have ended ahead of it were stopped by what they are not compared by, and nobody said so."""

    def values(i: int) -> list[float]:
        return [1.0, 0.1 * (i + 1), 0.2 * (i + 1)]

    study = mismatched(
        n, values, lambda i: 0.2 * (i + 1) if judged == "best" else 0.1 * (i + 1), judged=judged, max_steps=2
    )
    (told,) = (text for text in of_study(study).report(study).notices if "ones are returned" in text)
    other = "final" if judged == "best" else "best"
    assert "of trial 0, and trials must beat " in told
    assert told.endswith(
        f"{judged} values are judged, and {other} ones are returned. Return the former, or judge the latter"
    )
    alike = mismatched(
        n, values, lambda i: 0.1 * (i + 1) if judged == "best" else 0.2 * (i + 1), judged=judged, max_steps=2
    )
    assert not any("returned" in text for text in of_study(alike).report(alike).notices)


def test_final_values_are_returned_and_best_ones_judged() -> None:
    def values(i: int) -> list[float]:
        return [1.0, 0.1 * (i + 1), 1.0 - 0.1 * i]

    study = mismatched(6, values, lambda i: 1.0 - 0.1 * i, max_steps=2)
    text = (
        "the study's best is 0.5 of trial 5, and trials must beat 0.1 of trial 0: best values are judged, and final "
        "ones are returned. Return the former, or judge the latter"
    )
    assert of_study(study).report(study).notices == (text,)
    study.pruner = pruner(max_steps=2, judged="final")
    assert of_study(study).report(study).notices == ()


@pytest.mark.parametrize("n", [4, 6])
def test_values_that_differ_but_agree_on_the_best_are_nobodys_business(n: int) -> None:
    study = mismatched(n, lambda i: decay(0.1 * (i + 1)), lambda i: 7.0 + i)
    assert of_study(study).report(study).notices == ()
