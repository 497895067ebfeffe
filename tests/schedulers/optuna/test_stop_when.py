"""StopWhen: when a study ends, and by which values."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from lcsearch.errors import InvalidValue
from lcsearch.schedulers.optuna import FreezeThaw, FreezeThawTrial, StopWhen


def study_of(values: list[float | None], **fields: Any) -> optuna.Study:
    """None: stopped, having reported 7 and then 9."""
    study = optuna.create_study(**fields)
    for value in values:
        trial = study.ask()
        if value is None:
            for step, at in enumerate((7.0, 9.0)):
                trial.report(at, step)
        study.tell(trial, value, state=TrialState.PRUNED if value is None else None)
    return study


def test_a_study_that_gains_nothing_any_more_ends() -> None:
    study = optuna.create_study()
    study.optimize(lambda trial: max(10.0 - trial.number, 4.0), n_trials=99, callbacks=[StopWhen(0.5, trials=3)])
    assert 9 <= len(study.trials) < 20
    assert study.best_value == 4.0


def test_one_that_gains_goes_on() -> None:
    study = optuna.create_study(direction="maximize")
    study.optimize(lambda trial: float(trial.number), n_trials=30, callbacks=[StopWhen(0.5, trials=3)])
    assert len(study.trials) == 30


@pytest.mark.parametrize(
    ("values", "direction", "gain"),
    [
        ([1.0, 9.0, 9.0, 9.0], "minimize", 2.0),
        ([-1.0, -9.0, -9.0, -9.0], "maximize", 2.0),
        ([5.0, None, 7.0, 7.0], "minimize", 0.5),  # the best report of the second is 7
        ([11.0, None, 9.0, 9.0], "maximize", 0.5),  # and 9 here
        ([8.0, 8.0, 8.0, 5.0], "minimize", 3.0),  # the last one brought as much
    ],
)
def test_what_one_more_gains(values: list[float | None], direction: str, gain: float) -> None:
    assert StopWhen(0.1, trials=1).gain_of_next(study_of(values, direction=direction)) == pytest.approx(gain)


def test_of_few_trials_and_of_several_objectives_nothing_is_known() -> None:
    assert StopWhen(0.1, trials=2).gain_of_next(study_of([1.0, 2.0, 3.0])) == math.inf
    study = optuna.create_study(directions=["minimize", "minimize"])
    study.optimize(lambda _: (1.0, 1.0), n_trials=9, callbacks=[StopWhen(0.1, trials=2)])
    assert (len(study.trials), StopWhen(0.1, trials=2).gain_of_next(study)) == (9, math.inf)


def test_an_infeasible_trial_is_not_the_best() -> None:
    def objective(trial: optuna.Trial) -> float:
        trial.set_constraint("memory", 1.0 if trial.number == 0 else 0.0)
        return (1.0, 2.0, 2.0, 2.0)[trial.number]

    study = optuna.create_study()
    study.optimize(objective, n_trials=4)
    assert StopWhen(0.1, trials=1).gain_of_next(study) == 0.0


def test_frozen_trials_are_cut_and_the_leader_ends(tmp_path: Path) -> None:
    def objective(trial: FreezeThawTrial) -> float:
        saved = trial.load()
        for step in range(0 if saved is None else saved.step + 1, 20):
            trial.report(1 / (1 + step), step)
            trial.save({"step": step}, step)
        return 0.05

    study = optuna.create_study()
    FreezeThaw(
        study, objective, max_steps=20, n_trials=40, artifact_store=tmp_path, stop_when=StopWhen(0.2, trials=3)
    ).run()
    states = [trial.state for trial in study.trials]
    assert 6 <= len(states) < 40
    assert states.count(TrialState.COMPLETE) >= 1
    assert set(states) == {TrialState.COMPLETE, TrialState.PRUNED}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"gain": 0.0}, r"StopWhen\(gain\): expected a number > 0, got 0\.0"),
        ({"gain": math.nan}, r"StopWhen\(gain\): expected a number > 0, got nan"),
        ({"gain": 1.0, "trials": 0}, r"StopWhen\(trials=\): expected a whole number >= 1, got 0"),
    ],
)
def test_arguments_that_cannot_be(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidValue, match=told):
        StopWhen(**arguments)
