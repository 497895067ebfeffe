"""`study.pruner.report(study)`: in numbers, and as it is printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from kit.doubles import Dead, NormalAroundBest
from kit.studies import SHORTEST, decay, finished, first_stop, pruner, stop_one, study_of
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from lcsearch.schedulers.optuna import CurvePruner, StudyReport
from lcsearch.session.study_report import COUNTED
from lcsearch.stopping.decision import risk_told


def report(study: optuna.Study) -> StudyReport:
    assert isinstance(study.pruner, CurvePruner)
    return study.pruner.report(study)


def test_it_prints_in_a_few_lines() -> None:
    study = study_of(pruner(forecasters=[NormalAroundBest(2.0)], threshold=0.5))
    stop_one(study)
    stop_one(study)
    found = report(study)
    assert found.risk is not None
    assert found.risk == pytest.approx(sum(stop.p_now for stop in found.stops))
    done = SHORTEST + 1
    assert str(found).splitlines() == [
        "trials: 6 complete, 2 stopped",
        f"steps: {300 + 2 * done} spent, about {2 * (50 - done)} saved (22 % of 400), {COUNTED}",
        f"risk that some stop lost the winner: {risk_told(found.risk, found.independent)}",
        "in this process: 0 looks failed open (the trial went on), 0 held between looks (look_growth)",
    ]
    assert repr(found).startswith(f"StudyReport(risk={found.risk!r}, stops=(Stop(trial=6, ")


def test_steps_from_one_trials_of_others_and_those_that_run() -> None:
    study = study_of(n=0)
    for i in range(5):
        study.add_trial(finished(dict(enumerate(decay(0.1 * (i + 1)), 1))))
    study.add_trial(finished({1: 2.0, 2: 2.0}, TrialState.PRUNED))
    study.add_trial(finished({1: 2.0}, TrialState.FAIL))
    study.ask().report(3.0, 1)
    found = report(study)
    assert (found.complete, found.spent, found.saved) == (5, 5 * 50 + 2 + 1 + 1, 0)
    assert str(found).splitlines()[:3] == [
        "trials: 5 complete, 0 stopped, 1 stopped by others, 1 failed",
        "steps: 254 spent, 0 saved",
        "risk that some stop lost the winner: 0 % (no trial is stopped by P(beat))",
    ]


def test_a_complete_trial_that_owed_no_report_trained_to_the_horizon() -> None:
    study = study_of(n=0)
    study.add_trial(finished({4: 2.0, 8: 1.0, 48: 0.5}))
    study.add_trial(finished({20: 2.0, 40: 1.0}, TrialState.PRUNED))
    assert report(study).spent == 50 + 40


def test_steps_are_whole_numbers() -> None:
    """Between two lengths lies half a step: 'about 326.5 saved'."""
    study = study_of(pruner(n_startup_trials=4), n=0)
    for length in (30, 36, 43, 50):
        study.add_trial(finished(decay(0.1, length)))
    stop_one(study)
    found = report(study)
    assert [stop.step for stop in found.stops] == [SHORTEST]
    assert (
        str(found)
        .splitlines()[-3]
        .startswith(f"steps: {30 + 36 + 43 + 50 + SHORTEST + 1} spent, about {39 - SHORTEST} saved")
    )

    found = StudyReport(0.0, (), 0, spent=1234567.0, saved=765433.0)
    assert str(found).splitlines()[1] == "steps: 1234567 spent, about 765433 saved (38 % of 2000000), " + COUNTED
    found = StudyReport(0.0, (), 0, spent=1.25, saved=120.625)  # seconds
    assert str(found).splitlines()[1] == "steps: 1.25 spent, about 121 saved (99 % of 122), " + COUNTED


def test_before_anything_has_ended() -> None:
    found = report(optuna.create_study(pruner=CurvePruner(forecasters=[NormalAroundBest()])))
    assert str(found).splitlines() == [
        "trials: 0 complete, 0 stopped",
        "steps: 0 spent, 0 saved",
        "risk that some stop lost the winner: not known yet",
        "in this process: 0 looks failed open (the trial went on), 0 held between looks (look_growth)",
    ]


def test_looks_that_came_to_nothing_are_told() -> None:
    study = study_of(pruner(forecasters=[Dead()], look_growth=1.5))
    trial = study.ask()
    assert first_stop(trial, decay(5.0, SHORTEST + 1)) is None
    told = ": 1 look failed open (the trial went on: forecast 1), "
    assert str(report(study)).endswith(f"{told}0 held between looks (look_growth)")
    trial.report(5.0, SHORTEST + 1)
    assert not trial.should_prune()
    assert str(report(study)).endswith(f"{told}1 held between looks (look_growth)")


def test_no_certificate_speaks_of_stops_that_others_forecast() -> None:
    """A process that asks the network called stops certified which stand-ins had made, where torch did not import."""
    assert CurvePruner(max_steps=50).report(study_of()).certificate
    study = study_of()
    stop_one(study)
    found = CurvePruner(max_steps=50).report(study)
    assert (found.certificate, found.calibration.state) == ("", "uncalibrated")
    assert "certifi" not in str(found) + CurvePruner(max_steps=50).explain(6, study)


def look_at(study: optuna.Study, n: int) -> None:
    """Looks at n trials, at which nobody forecasts anything."""
    study.add_trials([finished(dict(enumerate(decay(0.1 * i)))) for i in range(1, 7)])
    for trial in (study.ask() for _ in range(n)):
        assert first_stop(trial, decay(5.0)) is None


def test_looks_are_counted_of_the_study_that_is_asked_about() -> None:
    """One pruner for three studies of one name, in as many storages; one is never asked whether to stop."""
    one = pruner(forecasters=Dead())
    first, second, third = (optuna.create_study(study_name="same", pruner=one) for _ in range(3))
    look_at(first, 1)
    look_at(second, 2)
    look_at(third, 0)
    third.ask().report(1.0, 1)
    failed = report(first).failed_open
    assert failed > 0
    assert (report(second).failed_open, report(third).failed_open) == (2 * failed, 0)
    told = [one.why_not(study).splitlines() for study in (first, second, third)]
    assert told[0][-2:] != told[1][-2:]
    assert any("nobody asked whether they should stop" in line for line in told[2])
    assert not any("nobody asked" in line for line in (*told[0], *told[1]))


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_looks_of_every_handle_of_a_study_are_counted_together(kind: str, tmp_path: Path) -> None:
    def storage() -> Any:
        if kind == "sqlite":
            return f"sqlite:///{tmp_path / 'study.db'}"
        return JournalStorage(JournalFileBackend(str(tmp_path / "study.log")))

    one = pruner(forecasters=Dead())
    study = optuna.create_study(study_name="one", storage=storage(), pruner=one)
    look_at(study, 1)
    again = optuna.load_study(study_name="one", storage=storage(), pruner=one)
    assert report(again).failed_open == report(study).failed_open > 0
    assert one.why_not(again) == one.why_not(study)
