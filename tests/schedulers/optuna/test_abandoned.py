"""Trials that killed processes left RUNNING take no part in ranks; told from the study alone."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import Any

import optuna
import pytest
from kit.studies import decay, finished, first_stop, id_of, pruner, stop_one, study_of
from optuna.trial import TrialState

from lcsearch.schedulers.optuna import CurvePruner


def ghosts(study: optuna.Study, n: int) -> None:
    """RUNNING for ever, each further than the one before, and good."""
    for i in range(n):
        trial = study.ask()
        for step, value in enumerate(decay(0.01, 1 + i % 40)):
            trial.report(value, step)


def of_study(study: optuna.Study) -> CurvePruner:
    assert isinstance(study.pruner, CurvePruner)
    return study.pruner


def test_sixty_ghosts_beside_forty_trials() -> None:
    study = optuna.create_study(pruner=pruner())
    ghosts(study, 60)
    for i in range(40):
        trial = study.ask()
        stopped = first_stop(trial, decay(0.1 + 0.02 * (i % 20), rate=0.5)) is not None
        study.tell(trial, *((None, TrialState.PRUNED) if stopped else (0.1,)))
    of = of_study(study)
    last = stop_one(study)
    done = sum(t.state.is_finished() for t in study.trials)
    assert f" of {done} at this step" in of.explain(last)
    text = of.why_not(study)
    assert len(text.splitlines()) < 12
    assert "60 running, but abandoned as far as can be told, and left out of ranks: 0, 1, 2, " in text
    assert " and 50 more" in text
    assert of.report(study).abandoned == 60
    assert "running, but abandoned: 60" in str(of.report(study))
    assert of.explain(3).splitlines()[-1] == (
        "it is running, but abandoned as far as can be told: it counts in no ranks until it reports again"
    )
    for _ in range(2):  # in another process, and in a copy
        other = pruner()
        assert len(other.why_not(study).splitlines()) < 12
        copy = optuna.create_study(pruner=other)
        copy.add_trials(study.trials)
        study = copy


@pytest.mark.parametrize(("workers", "slower"), [(1, 1), (8, 1), (8, 3), (2, 3)])
def test_trials_that_are_trained_are_not_abandoned(workers: int, slower: int) -> None:
    """Every worker trains; trials of one of them take `slower` times as long a step."""
    study = study_of()
    of = of_study(study)
    under_way: list[Any] = []
    for tick in itertools.count():
        while len(under_way) < workers:
            pace = slower if not any(entry[2] > 1 for entry in under_way) else 1
            under_way.append([study.ask(), 0, pace])
        for entry in list(under_way):
            trial, step, pace = entry
            if tick % pace:
                continue
            trial.report(decay(0.5, rate=0.5)[step], step)
            entry[1] += 1
            if entry[1] == 50:
                study.tell(trial, 0.5)
                under_way.remove(entry)
        if tick % 10 == 0:
            assert of.snapshot(study).abandoned == ()
        if tick == 300:
            break


def test_an_abandoned_trial_that_is_resumed_is_looked_at_as_ever() -> None:
    study = study_of()
    of = of_study(study)
    trial = study.ask()
    for step, value in enumerate(decay(5.0, 5)):
        trial.report(value, step)
    for _ in range(12):
        study.add_trial(finished(decay(0.3)))
    assert [t.uid for t in of.snapshot(study).abandoned] == ["6"]
    trial.report(decay(5.0)[5], 5)
    assert trial.should_prune()
    assert of.report(study).risk is not None
    study.tell(trial, state=TrialState.PRUNED)
    assert [stop.trial for stop in of.report(study).stops] == [6]


@pytest.mark.filterwarnings("ignore:Heartbeat of storage:UserWarning")
def test_a_missed_heartbeat_is_told_and_decides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        on = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'study.db'}", heartbeat_interval=60)
    try:
        study = study_of(on=on)
        study.ask()
        of = of_study(study)
        assert "abandoned" not in of.why_not(study)
        monkeypatch.setattr(on, "_get_stale_trial_ids", lambda study_id: [id_of(study.trials[6])])
        assert "1 running, but abandoned as far as can be told, and left out of ranks: 6" in of.why_not(study)
        assert of.snapshot(study).abandoned == ()
    finally:
        on.engine.dispose()
