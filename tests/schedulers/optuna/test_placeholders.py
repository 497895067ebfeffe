"""A metric that is not reported every step: validation every fifth epoch, NaN in between."""

from __future__ import annotations

import math

import numpy as np
import optuna
import pytest
from kit.studies import decay, pruner

from lcsearch.goal import Judged
from lcsearch.schedulers.optuna import REASON, CurvePruner, decision_of
from lcsearch.stopping.verdict import Reason

BROKEN = 45
"""A trial whose metric is NaN from step 20 on."""


def run(of: CurvePruner, every: int = 5, n: int = 60) -> optuna.Study:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), pruner=of)

    def objective(trial: optuna.Trial) -> float:
        values = decay(trial.suggest_float("limit", 0.1, 1.0), rate=trial.suggest_float("rate", 0.8, 0.95))
        for step, value in enumerate(values):
            broken = trial.number == BROKEN and step >= 20
            trial.report(value if step % every == every - 1 and not broken else math.nan, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return values[-1]

    study.optimize(objective, n_trials=n)
    return study


@pytest.mark.parametrize("judged", ["best", "final"])
def test_a_metric_with_placeholders(judged: Judged) -> None:
    """59 of 60 were stopped as diverged (judged by the final value: nothing but those was ever stopped)."""
    of = pruner(judged=judged, forecasters=["parametric", "rank-gap"], max_overhead=math.inf)
    study = run(of)
    stops = {t.number: t for t in study.trials if t.state.name == "PRUNED"}
    assert [n for n, t in stops.items() if "diverged" in t.user_attrs[REASON]] == [BROKEN]
    assert stops[BROKEN].last_step == 34, "three values were due, at 24, 29 and 34"
    assert len(stops) >= 15
    assert all(t.last_step in range(4, 50, 5) for n, t in stops.items() if n != BROKEN), "looks are cast at values"
    held, failed = of.session.tally()
    assert failed == []
    assert dict(held)[Reason.NO_VALUE] > 200


@pytest.mark.parametrize("seed", [0, 1])
def test_values_that_are_missing_at_random_are_no_divergence(seed: int) -> None:
    """A quarter of the validations NaN: 18 of 240 healthy trials were stopped as diverged."""
    study = optuna.create_study(pruner=pruner(forecasters="parametric"))
    for number in range(30):
        rng, trial = np.random.default_rng([seed, number]), study.ask()
        values = rng.uniform(0.1, 1.0) + rng.uniform(0.8, 0.95) ** np.arange(40) + 0.005 * rng.standard_normal(40)
        for step, value in enumerate(np.where(rng.uniform(size=40) < 0.25, math.nan, values)):
            trial.report(value, step)
            if trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, float(values.min()))
    reasons = [str(decision.reason) for t in study.trials if (decision := decision_of(t)) is not None]
    assert len(reasons) > 5
    assert str(Reason.DIVERGED) not in reasons


def test_a_report_that_is_no_value_was_trained() -> None:
    study = run(pruner(forecasters=["rank-gap"]), n=3)
    assert isinstance(study.pruner, CurvePruner)
    report = study.pruner.report(study)
    assert (report.complete, report.spent) == (3, 3 * 50)


def test_a_look_at_no_value_says_so() -> None:
    of = pruner(forecasters=["rank-gap"])
    study = run(of, n=12)
    trial = study.ask()
    for step, value in enumerate(decay(0.5)[:32]):
        trial.report(value if step % 5 == 4 else math.nan, step)
        trial.should_prune()
    text = of.why_not(study)
    assert "NO_VALUE: step 31: nan was reported here" in text
