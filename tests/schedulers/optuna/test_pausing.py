"""Pausing, claiming and beginning trials on every storage, and CurvePruner beside paused trials."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from kit.studies import decay, first_stop, pruner, storage, study_of
from optuna.storages import BaseStorage
from optuna.trial import TrialState, create_trial

from lcsearch.allocation.contract import Prices
from lcsearch.schedulers.optuna import CurvePruner, as_trial
from lcsearch.schedulers.optuna._record import n_pauses, paid_by
from lcsearch.schedulers.optuna._storage import allocation_of, begin, claim, pause, store_allocation
from lcsearch.study import Status


def paused(study: optuna.Study, values: list[float]) -> int:
    """A trial that reported `values` and was paused: its number."""
    trial = begin(study)
    trial.suggest_float("x", 0, 1)
    for step, value in enumerate(values):
        trial.report(value, step)
    pause(study, trial)
    return trial.number


def test_a_paused_trial_keeps_what_it_had_and_goes_on(everywhere: BaseStorage) -> None:
    study = optuna.create_study(storage=everywhere)
    number = paused(study, [3.0, 2.0])
    (frozen,) = study.trials
    assert (frozen.state, frozen.intermediate_values) == (TrialState.WAITING, {0: 3.0, 1: 2.0})
    assert frozen.system_attrs["lcsearch:paused"] == {"pause": 1, "step": 1, "of": number}
    assert as_trial(frozen).status is Status.PAUSED
    trial = claim(study, number)
    assert trial is not None
    assert trial.suggest_float("x", 0, 1) == frozen.params["x"]
    assert claim(study, number) is None
    trial.report(1.0, 2)
    pause(study, trial)
    assert study.trials[0].system_attrs["lcsearch:paused"] == {"pause": 2, "step": 2, "of": number}
    trial = claim(study, number)
    assert trial is not None
    study.tell(trial, 1.0)
    assert claim(study, number) is None  # it has ended
    assert study.best_trial.intermediate_values == {0: 3.0, 1: 2.0, 2: 1.0}


@pytest.mark.parametrize("stored", ["many", [1], -3, 10**400, 1.5, None])
def test_a_count_that_somebody_has_damaged_is_none(stored: Any) -> None:
    study = optuna.create_study()
    number = paused(study, [3.0, 2.0])
    attrs = {"lcsearch:paused": {"pause": stored}, "lcsearch:pause_at": {"at": 3, "of": number, "resumes": stored}}
    study.add_trial(create_trial(state=TrialState.WAITING, system_attrs=attrs))
    whole, damaged = study.trials
    prices = Prices(2.0, 3.0)
    assert (n_pauses(whole), paid_by(whole, prices)) == (1, 2.0)
    assert (n_pauses(damaged), paid_by(damaged, prices)) == (0, 0.0)


def test_new_trials_are_what_the_user_enqueued_and_never_a_paused_one(everywhere: BaseStorage) -> None:
    study = optuna.create_study(storage=everywhere)
    number = paused(study, [1.0])
    study.enqueue_trial({"x": 0.25})
    trials = [begin(study) for _ in range(3)]
    assert [trial.number for trial in trials] == [1, 2, 3]
    assert trials[0].suggest_float("x", 0, 1) == 0.25
    assert study.trials[number].state == TrialState.WAITING
    assert begin(study, {"x": 0.75}).suggest_float("x", 0, 1) == 0.75


def test_a_copy_of_a_paused_trial_is_one_to_be_begun(everywhere: BaseStorage) -> None:
    study = optuna.create_study(storage=everywhere)
    number = paused(study, [1.0])
    original = study.trials[number]
    study.add_trial(create_trial(state=TrialState.WAITING, system_attrs=original.system_attrs))
    assert begin(study).number == 1
    again = claim(study, 0)
    assert again is not None


def test_the_allocator_s_state_is_the_study_s(everywhere: BaseStorage) -> None:
    study = optuna.create_study(storage=everywhere)
    assert allocation_of(study) is None
    store_allocation(study, {"n": 3, "state": {"last": None, "cells": [1.5, "a"]}})
    again = optuna.load_study(study_name=study.study_name, storage=everywhere)
    assert allocation_of(again) == {"n": 3, "state": {"last": None, "cells": [1.5, "a"]}}


def rush(make: Callable[[], BaseStorage], name: str, rounds: int, barrier: Any, put: Callable[[Any], None]) -> None:
    """Claim every paused trial at the same moment as others do, and pause those won for the next round."""
    study = optuna.load_study(study_name=name, storage=make())
    won = []
    for turn in range(rounds):
        barrier.wait()
        trial = claim(study, 0)
        won.append((turn, trial is not None))
        barrier.wait()
        if trial is not None:
            pause(study, trial)
    put(won)


def open_sqlite(path: str) -> BaseStorage:
    return optuna.storages.RDBStorage(f"sqlite:///{path}", skip_compatibility_check=True, skip_table_creation=True)


def open_journal(path: str) -> BaseStorage:
    return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(path))


class Open:
    """Opens a storage in another process."""

    def __init__(self, kind: str, path: str) -> None:
        self.kind, self.path = kind, path

    def __call__(self) -> BaseStorage:
        return (open_sqlite if self.kind == "sqlite" else open_journal)(self.path)


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_of_processes_that_claim_at_once_one_wins(kind: str, tmp_path: Path) -> None:
    """Without the care of `claim` both win: on sqlite in most rounds, on a journal where one had it before."""
    rounds, context = 60, multiprocessing.get_context("spawn")
    with storage(kind, tmp_path) as made:
        study = optuna.create_study(storage=made, study_name="rush")
        paused(study, [1.0])
        path = tmp_path / ("study.db" if kind == "sqlite" else "journal.log")
        barrier, queue = context.Barrier(2), context.Queue()
        arguments = Open(kind, str(path)), "rush", rounds, barrier, queue.put
        others = [context.Process(target=rush, args=arguments) for _ in range(2)]
        for other in others:
            other.start()
        found = [queue.get(timeout=300) for _ in others]
        for other in others:
            other.join(timeout=300)
    wins = [sum(won for _, won in turn) for turn in zip(*found, strict=True)]
    assert wins == [1] * rounds


def test_of_threads_that_claim_at_once_one_wins(everywhere: BaseStorage) -> None:
    if isinstance(everywhere, optuna.storages.GrpcStorageProxy):
        pytest.skip("its server claims as Optuna does: see `claim`")
    rounds = 20
    study = optuna.create_study(storage=everywhere, study_name="rush")
    paused(study, [1.0])
    barrier, found = threading.Barrier(2), list[Any]()
    others = [
        threading.Thread(target=rush, args=(lambda: everywhere, "rush", rounds, barrier, found.append))
        for _ in range(2)
    ]
    for other in others:
        other.start()
    for other in others:
        other.join(timeout=300)
    wins = [sum(won for _, won in turn) for turn in zip(*found, strict=True)]
    assert wins == [1] * rounds


def snapshot_of(study: optuna.Study) -> Any:
    assert isinstance(study.pruner, CurvePruner)
    return study.pruner.snapshot(study)


def test_a_paused_trial_is_compared_with(everywhere: BaseStorage) -> None:
    study = study_of(on=everywhere)
    number = paused(study, decay(0.05, 20))
    study.enqueue_trial({})
    (live,) = snapshot_of(study).live
    assert (live.uid, live.status) == (str(number), Status.PAUSED)
    assert snapshot_of(study).concurrent_losses(10, "99") == [decay(0.05)[10]]
    assert isinstance(study.pruner, CurvePruner)
    assert str(number) in study.pruner.why_not(study)
    assert study.pruner.explain(number, study)
    assert study.pruner.report(study).abandoned == 0


def test_a_look_is_the_same_whether_others_run_or_pause() -> None:
    """What has been reported counts, not who reports next."""
    stops = []
    for pauses in (True, False):
        study = study_of(pruner())
        for limit in (0.3, 0.2):
            trial = begin(study)
            for step, value in enumerate(decay(limit, 30)):
                trial.report(value, step)
            if pauses:
                pause(study, trial)
        stops.append(first_stop(begin(study), decay(5.0)))
    assert stops[0] == stops[1] is not None


def test_neither_a_paused_trial_nor_one_that_goes_on_is_taken_for_abandoned() -> None:
    study = study_of(n=0)
    early = [paused(study, decay(0.5, 3)) for _ in range(3)]
    late = begin(study)
    late.report(0.5, 0)
    for i in range(40):
        trial = begin(study)
        for step, value in enumerate(decay(0.1 + i, 50)):
            trial.report(value, step)
        study.tell(trial, 0.1 + i)
    assert claim(study, early[0]) is not None
    snapshot = snapshot_of(study)
    assert {trial.uid for trial in snapshot.live} == {str(number) for number in early}
    assert {trial.uid for trial in snapshot.abandoned} == {str(late.number)}  # one that was never paused stands still


@pytest.mark.parametrize("sampler", [optuna.samplers.TPESampler, optuna.samplers.GPSampler])
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_samplers_are_not_misled_by_paused_trials(sampler: Any) -> None:
    if sampler is optuna.samplers.GPSampler:
        pytest.importorskip("torch")
    proposals = []
    for n_paused in (0, 4):
        study = optuna.create_study(sampler=sampler(seed=3, n_startup_trials=2))
        for i in range(6):
            study.add_trial(
                create_trial(
                    params={"x": i / 10, "y": i / 7},
                    distributions=dict.fromkeys("xy", optuna.distributions.FloatDistribution(0, 1)),
                    value=(i - 3) ** 2,
                )
            )
        for i in range(n_paused):
            trial = begin(study, {"x": i / 5, "y": 0.9})
            trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
            trial.report(-10.0, 3)
            pause(study, trial)
        study.sampler = sampler(seed=3, n_startup_trials=2)
        trial = begin(study)
        proposals.append([trial.suggest_float(name, 0, 1) for name in "xy"])
        assert study.best_value == 0
    assert proposals[0] == proposals[1]
