"""Trials of other lengths than `max_steps` says, or of lengths that nobody knows before."""

from __future__ import annotations

import math

import numpy as np
import optuna
import pytest
from kit.studies import pruner
from optuna.trial import TrialState

from lcsearch.schedulers.optuna import CurvePruner, StudyReport


def run(of: CurvePruner, curves: list[list[float]]) -> optuna.Study:
    """Every curve to its end or its stop."""
    study = optuna.create_study(pruner=of)
    for values in curves:
        trial = study.ask()
        for step, value in enumerate(values):
            trial.report(value, step)
            if trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                break
        else:
            study.tell(trial, min(values))
    return study


def report_on(study: optuna.Study) -> StudyReport:
    assert isinstance(study.pruner, CurvePruner)
    return study.pruner.report(study)


def stopped(study: optuna.Study) -> list[int]:
    return [trial.number for trial in study.trials if trial.state is TrialState.PRUNED]


def power_laws(n: int, length: int, seed: int = 0) -> list[list[float]]:
    rng = np.random.default_rng(seed)
    limits, noise = rng.uniform(0.1, 1.0, n), 0.003 * rng.standard_normal((n, length))
    return [
        (limit + (1 + np.arange(length)) ** -0.7 + more).tolist() for limit, more in zip(limits, noise, strict=True)
    ]


def test_a_horizon_twenty_times_too_far(caplog: pytest.LogCaptureFixture) -> None:
    """60 trials of 50 steps with max_steps=1000: 47 252 steps were told as saved, of 3000 that there were to train."""
    curves = power_laws(60, 50)
    far, near = (run(pruner(max_steps=n, forecasters="parametric"), curves) for n in (1000, 50))
    best = min(range(60), key=lambda number: min(curves[number]))
    assert stopped(far)
    assert best not in stopped(far)
    report = report_on(far)
    assert report.spent + report.saved == 3000
    assert abs(report.spent - report_on(near).spent) < 0.05 * 3000
    (notice,) = report.notices
    assert "reached max_steps (max_t), which is 1000: they ended by step 49 (all of them)" in notice
    assert str(report).startswith(f"! {notice}")
    assert isinstance(far.pruner, CurvePruner)
    assert far.pruner.why_not(far).startswith(notice)
    assert sum("reached max_steps" in record.message for record in caplog.records) == 1


def test_what_is_saved_counts_to_where_trials_trained_and_not_to_their_last_reports() -> None:
    """A report every seventh step of 100: trials end at 100, and their last report is of step 98."""
    study = optuna.create_study(pruner=CurvePruner(max_steps=100, forecasters="parametric"))
    for values in power_laws(20, 14):
        trial = study.ask()
        for at, value in enumerate(values, 1):
            trial.report(value, 7 * at)
            if trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                break
        else:
            study.tell(trial, min(values))
    report = report_on(study)
    assert report.stops
    assert report.spent + report.saved == 2000


def test_a_horizon_ten_times_too_near() -> None:
    """Slow starters win at step 99; judged by step 10 they were stopped in three of three sweeps."""
    fast = [[0.5 + 0.01 * k + 0.5 * 0.5**step for step in range(100)] for k in range(12)]
    slow = [[1.0 - 0.009 * step + 0.001 * k for step in range(100)] for k in range(12)]
    curves = [values for pair in zip(fast, slow, strict=True) for values in pair]
    study = run(pruner(max_steps=10, forecasters="network"), curves)
    best = min(range(24), key=lambda number: min(curves[number]))
    assert best not in stopped(study)
    assert study.best_trial.number == best
    (notice,) = report_on(study).notices
    assert notice.startswith("trials go on to step 99, far beyond max_steps (max_t), which is 10")
    assert "Set it to 100" in notice


def test_a_horizon_that_is_outgrown_is_told_again(caplog: pytest.LogCaptureFixture) -> None:
    """'Set it to 100' after five trials of 100 steps, and never again when a sixth went on to 300."""
    lengths = [100] * 5 + [300] + [310] * 2
    curves = [[1.0 / (number + 1) + 0.9**step for step in range(n)] for number, n in enumerate(lengths)]
    run(pruner(max_steps=50, threshold=0.0), curves)
    told = [record.message for record in caplog.records if "beyond max_steps" in record.message]
    first, again = told
    assert "Set it to 100" in first
    assert "Set it to 300" in again


def patient(seed: int, number: int, patience: int = 20) -> list[float]:
    """A trial that ends itself when its best is `patience` steps old, as boosters do: 40 to 500 steps."""
    rng = np.random.default_rng([seed, number])
    limit, rate = rng.uniform(0.1, 1.0), np.exp(rng.uniform(np.log(0.004), np.log(0.15)))
    step = np.arange(500)
    values = limit + rng.uniform(0.5, 2.0) * np.exp(-rate * step) + 0.004 * rng.standard_normal(500)
    values += 1e-3 * np.maximum(0.0, step - 3.0 / rate)  # overfitting
    best, since = math.inf, 0
    for at, value in enumerate(values):
        best, since = (value, 0) if value < best - 1e-4 else (best, since + 1)
        if since == patience:
            return values[: at + 1].tolist()  # type: ignore[no-any-return]
    return values.tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("max_steps", [500, 5000])
def test_trials_that_end_themselves(max_steps: int) -> None:
    """A booster's `num_boost_round` says nothing of its length: 20 256 steps 'saved' where 6975 were."""
    curves = [patient(2, number) for number in range(40)]
    lengths = [len(values) for values in curves]
    assert min(lengths) < 60
    assert max(lengths) > 300
    study = run(CurvePruner(max_steps=max_steps), curves)
    report = report_on(study)
    was_saved = sum(lengths[number] - 1 - (study.trials[number].last_step or 0) for number in stopped(study))
    assert was_saved > 0.4 * sum(lengths)
    assert 0.45 * was_saved < report.saved < 1.2 * was_saved  # by the median of the ends, 0.38 of it
    assert min(range(40), key=lambda number: min(curves[number])) not in stopped(study)
