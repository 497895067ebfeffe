"""Translation: what a study comes to as a snapshot, read at once or bit by bit."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.builders import props
from kit.studies import decay, finished, pruner, storage, storage_of, study_of
from optuna.trial import TrialState, create_trial

from lcsearch.curves import Curve
from lcsearch.data.readers import read
from lcsearch.schedulers.optuna._record import ANEW, DEAD, MARK, THAW, Record
from lcsearch.schedulers.optuna._snapshot import UNKNOWN, Reader, as_trial, snapshot_of, standing
from lcsearch.stopping.risk import StopRecord
from lcsearch.study import FinishedTrials, Status


def content(bank: FinishedTrials) -> Any:
    """What a bank says, whatever the order in which its trials came."""
    rows = sorted((t.uid, t.status.name, *t.curve.key) for t in bank)
    return bank.goal, rows, np.sort(bank.judged).tolist(), sorted(map(str, bank.at(2, best=True).tolist())), bank.end


class Copying(optuna.Study):
    """Of a storage that hands out copies."""

    def get_trials(self, *args: Any, **fields: Any) -> Any:
        return copy.deepcopy(super().get_trials(*args, **fields))


@props
@given(st.integers(0, 10**6), st.sampled_from([20, "auto"]), st.booleans())
def test_reading_bit_by_bit_is_reading_at_once(seed: int, max_steps: int | Literal["auto"], copies: bool) -> None:
    rng = np.random.default_rng(seed)
    study = optuna.create_study(pruner=optuna.pruners.NopPruner())
    if copies:
        study = Copying(study.study_name, storage_of(study))
    reader = Reader(max_steps, "best")
    running: list[optuna.Trial] = []
    for _ in range(rng.integers(1, 25)):
        kind = rng.integers(4)
        if kind == 0 or not running:
            running.append(study.ask())
        elif kind == 1:
            trial = running[rng.integers(len(running))]
            step = int(rng.integers(0, 12))
            if step not in study.trials[trial.number].intermediate_values:
                trial.report(float(rng.choice([1.0, 2.0, math.nan, math.inf])), step)
        else:
            trial = running.pop(rng.integers(len(running)))
            state = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL][rng.integers(3)]
            study.tell(trial, 1.0 if state == TrialState.COMPLETE else None, state)
        if rng.random() < 0.6:
            reader.read(study)
    bank, unfinished, *_ = reader.read(study)
    fresh, same, *_ = Reader(max_steps, "best").read(study)
    assert content(bank) == content(fresh)
    assert [t.number for t in unfinished] == [t.number for t in same] == sorted(t.number for t in running)
    if bank is not None:
        assert len(bank) == len(study.trials) - len(running)


class Impostor:
    """Another study under the same key, as when a storage takes the place of one that was freed."""

    study_name, _study_id, _storage, direction = "s", 0, None, optuna.study.StudyDirection.MINIMIZE

    def __init__(self) -> None:
        self.trials: list[optuna.trial.FrozenTrial] = []

    def get_trials(self, deepcopy: bool) -> list[optuna.trial.FrozenTrial]:
        return list(self.trials)


def numbered(*values: float) -> list[optuna.trial.FrozenTrial]:
    found = []
    for number, value in enumerate(values):
        found.append(finished([value]))
        found[-1].number = number
    return found


@pytest.mark.parametrize("n", [0, 1, 2, 3])
@pytest.mark.parametrize("max_steps", [50, "auto"])
def test_another_study_under_the_same_key_is_read_anew(n: int, max_steps: int | Literal["auto"]) -> None:
    reader, study = Reader(max_steps, "best"), Impostor()
    study.trials = [*numbered(1.0, 2.0), create_trial(state=TrialState.RUNNING)]
    reader.read(study)  # type: ignore[arg-type]
    study.trials = numbered(7.0, 8.0, 9.0)[:n]
    bank, unfinished, *_ = reader.read(study)  # type: ignore[arg-type]
    assert unfinished == []
    assert [t.curve.values.tolist() for t in bank] == [[7.0], [8.0], [9.0]][:n]
    assert bank.goal.horizon == (50 if max_steps == 50 else UNKNOWN)  # nobody went beyond step 0


def test_finished_trials_are_translated_once() -> None:
    study = study_of()
    reader = Reader(50, "best")
    first, *_ = reader.read(study)
    study.add_trial(finished(decay(0.3)))
    second, *_ = reader.read(study)
    assert [a is b for a, b in zip(first, second, strict=False)] == [True] * 6
    third, *_ = reader.read(study)
    assert third is second


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (TrialState.RUNNING, Status.RUNNING),
        (TrialState.WAITING, Status.PAUSED),
        (TrialState.COMPLETE, Status.STOPPED),  # it returned a value where a look had come to a stop
        (TrialState.PRUNED, Status.STOPPED),
        (TrialState.FAIL, Status.FAILED),
    ],
)
def test_a_frozen_trial_as_a_trial(state: TrialState, status: Status) -> None:
    mark = StopRecord(2.0, "BELOW", 0.01, "why")
    frozen = create_trial(
        state=state,
        value=1.0 if state == TrialState.COMPLETE else None,
        params={"x": 3},
        distributions={"x": optuna.distributions.IntDistribution(0, 9)},
        intermediate_values={2: 0.5, 0: math.nan, 1: 0.7},
        system_attrs={"lcsearch:mark": mark.to_json()},
        user_attrs={"lcsearch:schedule": {"shape": "linear", "peak": 1, "horizon": 5}},
    )
    trial = as_trial(frozen)
    assert (trial.uid, trial.status, trial.params) == (str(frozen.number), status, {"x": 3})
    assert trial.curve.steps.tolist() == [1, 2]
    assert trial.curve.event_steps.tolist() == [0]
    assert trial.schedule is not None
    obeyed = state == TrialState.COMPLETE
    told = "trial -1 obeyed by returning a value, so Optuna counts it as COMPLETE\nwhy"
    assert trial.stop_records == {"stop": replace(mark, text=told) if obeyed else mark}


def test_waiting_trials_are_not_live_and_the_current_one_is_there_once() -> None:
    study = study_of()
    running, current = study.ask(), study.ask()
    study.enqueue_trial({})
    current.report(1.0, 0)
    reading = Reader(50, "best").read(study)
    own = as_trial(study.trials[current.number])
    snapshot = snapshot_of(study, reading, own)
    assert sorted(t.uid for t in snapshot.live) == [str(running.number), str(current.number)]
    assert own in snapshot.live  # as its own process sees it, not as the storage had it a moment ago
    assert sorted(t.uid for t in snapshot_of(study, reading).live) == ["6", "7"]


def test_direction_and_judgement_reach_the_goal() -> None:
    for direction in ("minimize", "maximize"):
        study = optuna.create_study(direction=direction, pruner=pruner())
        bank, *_ = Reader(7, "final").read(study)
        assert (bank.goal.direction, bank.goal.judged, bank.goal.horizon) == (direction, "final", 7.0)


def test_auto_follows_the_longest_complete_trial() -> None:
    study = optuna.create_study()
    reader = Reader("auto", "best")
    ends = []
    for values, state in (
        (decay(1, 30), TrialState.PRUNED),
        ([1.0], TrialState.COMPLETE),
        (decay(1, 10), TrialState.COMPLETE),
        (decay(1, 8), TrialState.COMPLETE),
        (decay(1, 20), TrialState.COMPLETE),
        ([], TrialState.COMPLETE),
    ):
        study.add_trial(finished(values, state))
        bank, *_ = reader.read(study)
        ends.append(bank.goal.horizon)
        assert len(bank) == len(study.trials)
    assert ends == [UNKNOWN, UNKNOWN, 9, 9, 19, 19]


def test_a_stopped_trial_stands_until_the_one_that_goes_on_with_it_has_ended(tmp_path: Path) -> None:
    study = optuna.create_study(storage=f"sqlite:///{tmp_path / 'study.db'}", study_name="s")
    study.add_trial(create_trial(value=0.5, intermediate_values={0: 0.9, 1: 0.8, 2: 0.7}))
    study.add_trial(create_trial(state=TrialState.PRUNED, intermediate_values={0: 0.9, 1: 0.88}))
    how: dict[str, Any] = {THAW: {"stopped": 1, "step": 1, "p": 0.01, "now": 0.02}}
    state = TrialState.RUNNING
    study.add_trial(create_trial(state=state, intermediate_values={0: 0.9, 1: 0.88}, system_attrs=how))
    found = read(tmp_path / "study.db", standing=standing)
    assert [(run.uid, run.status) for run in found.task.runs] == [("0", Status.COMPLETE), ("1", Status.STOPPED)]
    assert found.left_out == ("1 trial still running or waiting: left out.",)
    study.tell(2, 0.2)
    assert [run.uid for run in read(tmp_path / "study.db", standing=standing).task.runs] == ["0", "2"]


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_a_reader_of_the_storage_has_the_trials_that_the_pruner_has(kind: str, tmp_path: Path) -> None:
    """Attempts that died and what became of them, stops obeyed by returning, trials that were thawed."""
    with storage(kind, tmp_path) as on:
        study = optuna.create_study(storage=on, study_name="s")

        done, nothing = TrialState.COMPLETE, dict[str, Any]()

        def add(values: dict[int, float], state: TrialState = done, system: Mapping[str, Any] = nothing) -> None:
            value = 0.5 if state is TrialState.COMPLETE else None
            more: dict[str, Any] = {"system_attrs": dict(system), "user_attrs": {"mine": "{"}}
            study.add_trial(create_trial(state=state, value=value, intermediate_values=values, **more))

        add({0: 0.9, 1: 0.8, 2: 0.7})
        add({0: 0.9, 1: 0.5}, TrialState.FAIL)
        add({0: 0.9, 1: 0.5, 2: 0.4}, done, {"retry_history": [1]})  # goes on with it
        add({0: 0.9, 1: 0.1}, TrialState.FAIL)
        add({0: 0.9, 1: 0.1, 2: 0.6}, done, {"retry_history": [3], ANEW: 1})  # is begun anew
        add({0: 0.9, 1: 0.8, 2: 0.01}, TrialState.PRUNED, {DEAD: {"steps": [[2, 2]], "of": 5}})
        curve = Curve.of({0: 0.9, 1: 0.85})
        stop = Record.of(StopRecord(1.0, "BELOW", 0.01, "why"), 6, curve)
        add({0: 0.9, 1: 0.85}, done, {MARK: stop.to_json()})  # obeyed by returning
        add({0: 0.9, 1: 0.88}, TrialState.PRUNED)
        add({0: 0.9, 1: 0.88, 2: 0.2}, done, {THAW: {"stopped": 7, "step": 1, "p": 0.01, "now": 0.02}})
        expected = {t.uid: (t.curve.digest, t.status) for t in Reader("auto", "best").read(study).bank}
    found = read(tmp_path / ("study.db" if kind == "sqlite" else "journal.log"), standing=standing)
    assert {run.uid: (run.curve.digest, run.status) for run in found.task.runs} == expected
    assert sorted(expected) == ["0", "2", "3", "4", "5", "6", "8"]
    assert expected["6"][1] is Status.STOPPED
    assert found.left_out == (
        "2 trials that others go on with: left out, for those have their reports.",
        "2 trials began anew after an attempt that died: what that one reported is left out.",
    )
