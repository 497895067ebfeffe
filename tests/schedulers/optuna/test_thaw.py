"""Thaw: stopped trials that come back, from their checkpoints, under study.optimize."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from kit.doubles import NormalAroundBest, Scripted
from kit.studies import decay, finished, pruner, stop_one, storage, study_of
from optuna.trial import TrialState

from lcsearch.errors import InvalidValue
from lcsearch.forecast.contract import Forecasts, Query
from lcsearch.schedulers.optuna import CurvePruner, Thaw, resumed_from
from lcsearch.study import Snapshot


class ChangesItsMind:
    """Hopeless until so many trials have ended, hopeful after that."""

    name, version = "mind", "1"

    def __init__(self, after: int) -> None:
        self.after = after

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        return Scripted(0.5 if len(snapshot.bank) >= self.after else 0.001).forecast(snapshot, queries)


def stopped(after: int = 9, **fields: Any) -> tuple[optuna.Study, int]:
    """A study of six complete trials, and the number of the one that was stopped after them."""
    study = study_of(pruner(forecasters=[ChangesItsMind(after)], **fields))
    return study, stop_one(study, decay(5.0))


def test_a_stopped_trial_goes_on_when_its_chance_has_risen() -> None:
    study, number = stopped()
    pruner = study.pruner
    assert isinstance(pruner, CurvePruner)
    thaw = Thaw(pruner, growth=1)
    old = study.trials[number]
    thaw(study, old)
    assert len(study.trials) == 7  # not yet
    for _ in range(3):
        study.add_trial(finished(decay(0.3)))
        thaw(study, study.trials[-1])
    waiting = [t for t in study.trials if t.state == TrialState.WAITING]
    assert len(waiting) == 1
    (new,) = waiting
    assert (new.params, new.intermediate_values) == (old.params, old.intermediate_values)
    assert new.user_attrs["lcsearch:resumed_from"] == number == resumed_from(new)
    assert new.user_attrs["lcsearch:thawed"] == f"P(beat) 49.6% now, above 10.0%, where trial {number} was stopped"
    assert "lcsearch:reason" not in new.user_attrs
    assert study.trials[number].state == TrialState.PRUNED
    trial = study.ask()
    assert trial.number == new.number
    last = new.last_step or 0
    trial.report(1.0, last + 1)
    assert not trial.should_prune()
    study.tell(trial, 0.05)
    assert study.best_trial.number == new.number


def test_the_stopped_one_is_passed_over_from_then_on() -> None:
    study, number = stopped(after=7)
    pruner = study.pruner
    assert isinstance(pruner, CurvePruner)
    before = pruner.report(study)
    assert [stop.trial for stop in before.stops] == [number]
    study.add_trial(finished(decay(0.3)))
    Thaw(pruner, growth=1)(study, study.trials[-1])
    assert resumed_from(study.trials[-1]) == number
    assert pruner.report(study).stops == ()
    assert number not in {int(trial.uid) for trial in pruner.snapshot(study).bank}
    fresh = CurvePruner(max_steps=50, forecasters=[NormalAroundBest()])
    assert {trial.uid for trial in fresh.snapshot(study).bank} == {trial.uid for trial in pruner.snapshot(study).bank}


def test_a_trial_is_resumed_once() -> None:
    study, number = stopped(after=7)
    assert isinstance(study.pruner, CurvePruner)
    thaw = Thaw(study.pruner, growth=1)
    for _ in range(4):
        study.add_trial(finished(decay(0.3)))
        thaw(study, study.trials[-1])
    assert [resumed_from(t) for t in study.trials if resumed_from(t) is not None] == [number]


class Meanwhile(ChangesItsMind):
    """Another worker thaws while this one is forecast."""

    def __init__(self, other: Callable[[], None]) -> None:
        super().__init__(7)
        self.other = other

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        if len(snapshot.bank) >= self.after:
            self.other()
        return super().forecast(snapshot, queries)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_two_workers_at_once_resume_a_trial_once(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only one adds at a time, and looks again before it does."""
    free: list[bool] = []

    def add(self: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        if kind == "sqlite" and trial.state == TrialState.WAITING:
            with next(tmp_path.glob("*.checkpoints/.lock")).open() as file, contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                free.append(True)
        plain(self, trial)

    plain = optuna.Study.add_trial
    monkeypatch.setattr(optuna.Study, "add_trial", add)
    with contextlib.nullcontext() if kind == "memory" else storage(kind, tmp_path) as made:
        study = study_of(pruner(forecasters=[ChangesItsMind(7)]), on=made)
        number = stop_one(study, decay(5.0))
        study.add_trial(finished(decay(0.3)))
        other = Thaw(pruner(forecasters=[ChangesItsMind(7)]), growth=1)
        mine = Thaw(pruner(forecasters=[Meanwhile(lambda: other(study, study.trials[-1]))]), growth=1)
        mine(study, study.trials[-1])
        assert [resumed_from(t) for t in study.trials if t.state == TrialState.WAITING] == [number]
        assert free == []


def test_what_goes_wrong_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    study, _ = stopped(after=7)
    assert isinstance(study.pruner, CurvePruner)
    thaw = Thaw(study.pruner, growth=1)
    study.add_trial(finished(decay(0.3)))
    study.add_trial = None  # type: ignore[method-assign, assignment]
    thaw(study, study.trials[-1])
    assert "thawing a trial failed, the trial goes on" in caplog.text
    several = optuna.create_study(directions=["minimize", "minimize"])
    thaw(several, study.trials[-1])


def test_under_optimize_from_a_checkpoint(tmp_path: Path) -> None:
    """Stopped early, resumed later: no step is trained twice, and the curve is one."""
    trained: list[tuple[int, int]] = []

    def objective(trial: optuna.Trial) -> float:
        limit = trial.suggest_float("limit", 0, 1)
        before, first = resumed_from(trial), 0
        if before is not None:
            first = int((tmp_path / str(before)).read_text()) + 1
        for step in range(first, 30):
            trained.append((trial.number, step))
            (tmp_path / str(trial.number)).write_text(str(step))
            trial.report(limit + 0.8**step, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return limit + 0.8**29

    with storage("sqlite", tmp_path) as made:
        of = CurvePruner(max_steps=30, forecasters=[ChangesItsMind(12)], look_growth=1)
        study = optuna.create_study(storage=made, pruner=of, sampler=optuna.samplers.RandomSampler(seed=0))
        study.optimize(objective, n_trials=20, callbacks=[Thaw(of)])
        resumed = [trial for trial in study.trials if resumed_from(trial) is not None]
        assert resumed
        for trial in resumed:
            before = study.trials[resumed_from(trial) or 0]
            assert trial.params == before.params
            if trial.state == TrialState.COMPLETE:
                limit = trial.params["limit"]
                assert trial.intermediate_values == pytest.approx({s: limit + 0.8**s for s in range(30)})
                assert {s for number, s in trained if number == trial.number} == set(
                    range((before.last_step or 0) + 1, 30)
                )
        assert any(trial.state == TrialState.COMPLETE for trial in resumed)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"margin": 2}, "Thaw(margin=): expected a probability in [0, 1], got 2."),
        ({"most": 0}, "Thaw(most=): expected a whole number >= 1, got 0."),
        ({"growth": 0.5}, "Thaw(growth=): expected a number >= 1, got 0.5."),
    ],
)
def test_wrong_arguments(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidValue) as wrong:
        Thaw(pruner(), **fields)
    assert str(wrong.value) == text
