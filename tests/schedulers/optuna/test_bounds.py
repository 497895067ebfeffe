"""Metrics whose bounds the user names."""

from __future__ import annotations

import pickle

import optuna
import pytest
from kit.studies import finished, pruner

from lcsearch.schedulers.optuna import CurvePruner


def rise(top: float) -> list[float]:
    return [top - 0.5 * 0.8**step for step in range(50)]


def studied(of: CurvePruner) -> optuna.Study:
    study = optuna.create_study(direction="maximize", pruner=of)
    for top in (0.999, 0.9, 0.8, 0.7, 0.6):
        study.add_trial(finished(rise(top)))
    return study


def test_no_accuracy_is_asked_to_be_more_than_all(caplog: pytest.LogCaptureFixture) -> None:
    """'To beat it counts from 1.00053'; what is asked of a trial is the same where the pruner was pickled."""
    for bounds, said in (((0, 1), "to beat it counts from 1\n"), (None, "to beat it counts from 1.0")):
        of = pruner(bounds=bounds)
        study = studied(of)
        trial = study.ask()
        for step in range(20):
            trial.report(0.1 + step / 1000, step)
            trial.should_prune()
        told = of.explain(trial.number, study)
        assert said in told
        other = pickle.loads(pickle.dumps(of))
        assert isinstance(other, CurvePruner)
        assert said in other.explain(trial.number, study)
    assert not [record for record in caplog.records if "bounds" in record.message]


def test_values_beyond_the_bounds_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    of = pruner(bounds=(0, 0.9))
    study = studied(of)
    for _ in range(2):
        trial = study.ask()
        for step in range(20):
            trial.report(0.1 + step / 1000, step)
            trial.should_prune()
    assert sum("beyond the high one of bounds, which is 0.9" in record.message for record in caplog.records) == 1
    assert "to beat it counts from 1.0" in of.explain(trial.number, study)
    assert "beyond the high one of bounds" in of.why_not(study)
