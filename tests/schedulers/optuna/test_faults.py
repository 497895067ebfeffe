"""Nothing that goes wrong in the pruner, the forecaster or the storage reaches the study."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from kit.doubles import Dead, Mute, NormalAroundBest, Returns, chances
from kit.studies import SHORTEST, decay, finished, first_stop, pruner, stop_one, storage, storage_of, study_of
from optuna.trial import TrialState, create_trial

from lcsearch.forecast.contract import Forecasts
from lcsearch.schedulers.optuna import CurvePruner


def with_attrs(state: TrialState = TrialState.PRUNED, *, mark: Any = None, schedule: Any = None) -> Any:
    return create_trial(
        state=state,
        value=1.0 if state == TrialState.COMPLETE else None,
        intermediate_values=dict(enumerate(decay(0.5))),
        system_attrs={} if mark is None else {"lcsearch:mark": mark},
        user_attrs={} if schedule is None else {"lcsearch:schedule": schedule},
    )


def failures(study: optuna.Study) -> dict[str, int]:
    assert isinstance(study.pruner, CurvePruner)
    return dict(study.pruner.session.failed_open)


@pytest.mark.parametrize(
    "forecaster",
    [
        Dead(),
        Dead(Mute()),
        Dead(MemoryError()),
        Returns(None),
        Returns([0.0, 0.0]),
        Returns(chances([0.0])),
        Returns(
            Forecasts(np.array([[-1e9, 1e9]] * 2), np.full((2, 2), -3.0), np.zeros((2, 2)), 1.0, (None, None), "liar")
        ),
        Returns(Forecasts(np.full((2, 2), np.nan), np.zeros((2, 2)), np.zeros((2, 2)), 1.0, (None, None), "")),
    ],
)
def test_a_faulty_forecaster_stops_nothing(forecaster: Any) -> None:
    study = study_of(pruner(forecasters=[forecaster]))
    assert first_stop(study.ask(), decay(5.0, 20)) is None
    assert failures(study) == {"forecast": 20 - SHORTEST}


def test_a_fault_in_optimize_fails_no_trial() -> None:
    study = study_of(pruner(forecasters=[Dead()]))

    def objective(trial: optuna.Trial) -> float:
        return 5.0 if first_stop(trial, decay(5.0)) is None else 0.0

    study.optimize(objective, n_trials=3)
    assert [t.state for t in study.trials[6:]] == [TrialState.COMPLETE] * 3


@pytest.mark.parametrize("error", [OSError("database is locked"), KeyError(3), Mute(), RecursionError()])
def test_a_storage_that_cannot_be_read(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    study = study_of()
    of = study.pruner

    class Unreadable(optuna.Study):
        def get_trials(self, *args: Any, **fields: Any) -> Any:
            raise error

    trial = study.ask()
    broken = Unreadable(study.study_name, storage_of(study), study.sampler, of)
    trial.report(1.0, 0)
    trial.report(1.0, 1)
    frozen = study.get_trials(deepcopy=False)[-1]
    with caplog.at_level(logging.WARNING, "lcsearch"):
        assert of.prune(broken, frozen) is False
        assert of.prune(broken, frozen) is False
    assert failures(study) == {"pruner": 2}
    assert len(caplog.records) == 1
    assert caplog.records[0].getMessage().startswith("lcsearch: pruner failed, the trial goes on: ")


def test_a_stop_that_cannot_be_recorded_is_no_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = study_of()

    def refuse(*_: Any) -> None:
        raise OSError("read-only")

    monkeypatch.setattr(storage_of(study), "set_trial_system_attr", refuse)
    trial = study.ask()
    assert first_stop(trial, decay(5.0, SHORTEST + 3)) is None
    assert failures(study) == {"record of a stop": 3}


@pytest.mark.parametrize(
    "mark",
    [
        "",
        "x",
        "[1, 2]",
        "[" * 1900,
        5,
        None,
        {"step": 1},
        json.dumps({"step": 1, "reason": "BELOW", "p": 1, "losses": []}),
        json.dumps({"step": 1, "reason": "BELOW", "p": 0.1, "text": "t", "losses": [math.nan] * 14}),
        "ü" * 500,
    ],
)
def test_a_corrupt_mark_says_only_whose_the_stop_was(mark: Any) -> None:
    study = study_of()
    study.add_trial(with_attrs(mark=mark))
    assert first_stop(study.ask(), decay(5.0)) == SHORTEST
    assert failures(study) == {}
    assert isinstance(study.pruner, CurvePruner)
    assert study.pruner.report(study).stops == ()
    told = "but not by lcsearch" if mark is None else "by lcsearch, but the record of why cannot be read any more"
    assert told in study.pruner.explain(6, study)


@pytest.mark.parametrize(
    "schedule",
    [
        "nonsense",
        "[" * 100_000,
        5,
        [1, 2],
        {"shape": "cosine"},
        {"shape": "spiral", "peak": 0.1, "horizon": 50},
        {"shape": "cosine", "peak": "0.1", "horizon": 50},
        {"shape": "cosine", "peak": 10**400, "horizon": 50},
        '{"shape": "cosine", "peak": 0.1, "horizon": null}',
        json.dumps({"shape": ["cosine"], "peak": 0.1, "horizon": 50}),
        {"shape": "cosine", "peak": 0.1, "horizon": 50, "colour": "red"},
    ],
)
def test_a_corrupt_schedule_is_no_schedule(schedule: Any) -> None:
    study = study_of()
    study.add_trial(with_attrs(TrialState.COMPLETE, schedule=schedule))
    trial = study.ask()
    trial.set_user_attr("lcsearch:schedule", schedule)
    assert first_stop(trial, decay(5.0)) == SHORTEST
    assert failures(study) == {}


def test_a_good_schedule_reaches_the_forecaster() -> None:
    from lcsearch.schedule import Schedule

    seen: list[Any] = []

    class Curious(NormalAroundBest):
        def forecast(self, snapshot: Any, queries: Any) -> Forecasts:
            seen.extend(q.trial.schedule for q in queries)
            seen.extend(t.schedule for t in snapshot.bank)
            return super().forecast(snapshot, queries)

    study = study_of(pruner(forecasters=[Curious()]))
    fields = {"shape": "cosine", "peak": 0.1, "horizon": 50, "warmup": 0.1}
    study.add_trial(with_attrs(TrialState.COMPLETE, schedule=json.dumps(fields)))
    trial = study.ask()
    trial.set_user_attr("lcsearch:schedule", fields)
    first_stop(trial, decay(5.0, SHORTEST + 2))
    expected = Schedule("cosine", 0.1, 50, 0.1)
    assert seen[:2] == [expected] * 2
    assert expected in seen[2:]


def test_a_sqlite_file_that_turns_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with storage("sqlite", tmp_path) as on:
        study = study_of(on=on)
        trial = study.ask()
        for step in range(SHORTEST + 1):
            trial.report(5.0 - 0.1 * step, step)

        def refuse(*_: Any) -> None:
            raise optuna.exceptions.StorageInternalError("attempt to write a readonly database")

        # Root may write a read-only file, so the error is made by hand.
        monkeypatch.setattr(storage_of(study), "set_trial_system_attr", refuse)
        assert trial.should_prune() is False
        assert failures(study) == {"record of a stop": 1}


def test_a_decision_log_that_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    study = study_of(pruner(decision_log=tmp_path / "file" / "log"))
    with caplog.at_level(logging.WARNING, "lcsearch"):
        stop_one(study)
        stop_one(study)
    assert failures(study) == {"decision log": 2}
    assert len(caplog.records) == 1


def test_marks_of_huge_studies_and_odd_curves_do_no_harm() -> None:
    study = study_of()
    study.add_trial(finished({}))
    study.add_trial(finished({}, TrialState.PRUNED))
    study.add_trial(finished({10**15: 1.0}))
    study.add_trial(finished([1e308, -1e308] * 3))
    assert first_stop(study.ask(), [1e308 - 1e300 * i for i in range(SHORTEST + 2)]) is not None
    first_stop(study.ask(), [*[-1e308, 1e308] * SHORTEST, 0.0])
    assert failures(study) == {}
