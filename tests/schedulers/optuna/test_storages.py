"""CurvePruner on every storage: what is read, how often, and what is left behind."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from kit.doubles import NormalAroundBest
from kit.studies import (
    SHORTEST,
    decay,
    finished,
    first_stop,
    grpc_proxy,
    pruner,
    stop_one,
    storage,
    storage_of,
    study_of,
)
from optuna.trial import TrialState

from lcsearch.schedulers.optuna import CurvePruner
from lcsearch.schedulers.optuna._attempts import StoredReports
from lcsearch.schedulers.optuna._storage import adopt, report_again


@pytest.fixture(params=["memory", "sqlite", "journal", "grpc"])
def on(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[optuna.storages.BaseStorage]:
    if request.param == "grpc":
        with grpc_proxy(tmp_path) as made:
            yield made
        return
    with storage(request.param, tmp_path) as made:
        yield made


class Counting(optuna.Study):
    """Counts get_trials."""

    calls = 0

    def get_trials(self, *args: Any, **fields: Any) -> Any:
        self.calls += 1
        assert fields.get("deepcopy") is False
        return super().get_trials(*args, **fields)


def counting(study: optuna.Study) -> Counting:
    return Counting(study.study_name, storage_of(study), study.sampler, study.pruner)


def test_a_stop_and_its_reason(on: optuna.storages.BaseStorage) -> None:
    study = study_of(on=on)
    number = stop_one(study)
    frozen = study.trials[number]
    assert frozen.state == TrialState.PRUNED
    reason = frozen.user_attrs["lcsearch:reason"]
    assert reason.startswith(f"step {SHORTEST}: P(beat) ")
    assert "of trial 0, rank 7 of 7 at this step" in reason
    mark = json.loads(frozen.system_attrs["lcsearch:mark"])
    assert (mark["step"], mark["reason"]) == (SHORTEST, "BELOW")
    assert len(frozen.system_attrs["lcsearch:mark"]) < 2046


def test_the_same_history_gets_the_same_stop_on_every_storage(on: optuna.storages.BaseStorage) -> None:
    study = study_of(pruner(forecasters=[NormalAroundBest(0.5)], threshold=0.2), on=on)
    stops = []
    for limit in (0.9, 0.35, 0.75, 2.0, 0.2, 0.45):
        trial = study.ask()
        stop = first_stop(trial, decay(limit))
        stops.append(stop)
        study.tell(trial, *([limit] if stop is None else [None, TrialState.PRUNED]))
    assert stops == EXPECTED_STOPS


EXPECTED_STOPS = [SHORTEST, 8, SHORTEST, SHORTEST, None, 8]


def test_marks_are_read_by_another_pruner(on: optuna.storages.BaseStorage) -> None:
    study = study_of(pruner(forecasters=[NormalAroundBest(2.0)], threshold=0.5), on=on)
    numbers = [stop_one(study), stop_one(study)]
    assert isinstance(study.pruner, CurvePruner)
    again = optuna.load_study(study_name=study.study_name, storage=on, pruner=pruner())
    other = again.pruner
    assert isinstance(other, CurvePruner)
    assert other.explain(numbers[0], again) == study.pruner.explain(numbers[0], study)
    ours, theirs = study.pruner.report(study), other.report(again)
    assert ours == theirs
    assert [stop.trial for stop in theirs.stops] == numbers
    assert theirs.risk is not None
    assert 0.0 < theirs.risk < 1.0


def test_the_risk_shrinks_when_the_incumbent_improves(on: optuna.storages.BaseStorage) -> None:
    study = study_of(pruner(forecasters=[NormalAroundBest(2.0)], threshold=0.5), on=on)
    stop_one(study)
    assert isinstance(study.pruner, CurvePruner)
    before = study.pruner.report(study).risk
    study.add_trial(finished(decay(-0.5)))
    after = study.pruner.report(study).risk
    assert before is not None
    assert after is not None
    assert 0.0 < after < before


def test_at_most_one_read_a_look_and_none_while_a_cheap_gate_holds(on: optuna.storages.BaseStorage) -> None:
    of = pruner(n_warmup_steps=4, interval_steps=3)
    study = counting(study_of(of, on=on))
    trial = study.ask()
    study.calls = 0
    reads = []
    for step, value in enumerate(decay(0.15)):
        trial.report(value, step)
        before = study.calls
        trial.should_prune()
        reads.append(study.calls - before)
    # Warm-up until 4, then one look an interval: 4, 7, 10, ...
    assert reads == [int(step >= 4 and (step - 4) % 3 == 0) for step in range(50)]
    assert counting(study_of(pruner(max_steps=1), on=on)).ask().should_prune() is False


def test_a_stop_costs_one_read_too(on: optuna.storages.BaseStorage) -> None:
    study = counting(study_of(on=on))
    trial = study.ask()
    study.calls = 0
    assert first_stop(trial, decay(5.0)) == SHORTEST
    assert study.calls == SHORTEST + 1


def test_threads_share_one_pruner(on: optuna.storages.BaseStorage) -> None:
    study = optuna.create_study(
        storage=on, pruner=pruner(max_steps=12, n_startup_trials=4), sampler=optuna.samplers.RandomSampler(seed=1)
    )

    def objective(trial: optuna.Trial) -> float:
        limit = trial.suggest_float("limit", 0.0, 3.0)
        for step, value in enumerate(decay(limit, 12)):
            trial.report(value, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return value

    study.optimize(objective, n_trials=16, n_jobs=4)
    states = [t.state for t in study.trials]
    assert len(states) == 16
    assert set(states) == {TrialState.COMPLETE, TrialState.PRUNED}
    of = study.pruner
    assert isinstance(of, CurvePruner)
    report = of.report(study)
    assert len(report.stops) == states.count(TrialState.PRUNED)
    assert report.failed_open == 0


CHILD = """
import json, sys
import optuna
from lcsearch.schedulers.optuna import CurvePruner
optuna.logging.set_verbosity(optuna.logging.ERROR)
sys.path.insert(0, sys.argv[3])
from kit.studies import pruner, storage
from pathlib import Path
with storage(sys.argv[1], Path(sys.argv[2])) as on:
    study = optuna.load_study(study_name="s", storage=on, pruner=pruner())
    report = study.pruner.report(study)
    print(json.dumps([study.pruner.explain(6, study), report.risk, [s.reason for s in report.stops],
                      study.pruner.why_not(study)]))
"""


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_another_process_reads_why(kind: str, tmp_path: Path) -> None:
    with storage(kind, tmp_path) as on:
        study = study_of(on=on, study_name="s")
        of = study.pruner
        assert isinstance(of, CurvePruner)
        assert stop_one(study) == 6
        tests = str(Path(__file__).resolve().parents[2])
        done = subprocess.run(
            [sys.executable, "-c", CHILD, kind, str(tmp_path), tests],
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )
        text, risk, stops, why_not = json.loads(done.stdout)
        assert text == of.explain(6, study)
        assert risk == of.report(study).risk
        assert stops == [study.trials[6].user_attrs["lcsearch:reason"]]
        assert "0 looks in this process; those of another one are counted there" in why_not
        assert "1 stop of whichever process stand with the study's trials: 1 BELOW" in why_not


@pytest.mark.parametrize("how", ["pickle", "cloudpickle", "deepcopy"])
def test_a_pruner_travels(how: str) -> None:
    import copy

    study = study_of(pruner(threshold=0.07, n_warmup_steps=SHORTEST + 2))
    of = study.pruner
    assert isinstance(of, CurvePruner)
    assert first_stop(study.ask(), decay(5.0)) == SHORTEST + 2
    if how == "cloudpickle":
        of_bytes = pytest.importorskip("cloudpickle").dumps(of)
        twin = pickle.loads(of_bytes)
    else:
        twin = pickle.loads(pickle.dumps(of)) if how == "pickle" else copy.deepcopy(of)
    assert twin.session.policy == of.session.policy
    study.pruner = twin
    assert first_stop(study.ask(), decay(5.0)) == SHORTEST + 2
    assert first_stop(study.ask(), decay(0.01, rate=0.5)) is None


def test_many_threads_look_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    of = pruner()
    monkeypatch.setattr("lcsearch.schedulers.optuna._pruner.write_stop", lambda *_: None)  # trials made by hand
    study = study_of(of)
    frozen = [
        optuna.trial.create_trial(state=TrialState.RUNNING, intermediate_values=dict(enumerate(decay(5.0, n))))
        for n in range(1, 30)
    ]
    for i, trial in enumerate(frozen):
        trial.number = 100 + i
    answers: dict[int, list[bool]] = {i: [] for i in range(4)}

    def look(i: int) -> None:
        answers[i] = [of.prune(study, trial) for trial in frozen]

    threads = [threading.Thread(target=look, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(map(tuple, answers.values())) == {(False,) * SHORTEST + (True,) * (29 - SHORTEST)}


class Sees(optuna.pruners.NopPruner):
    """Keeps what it is shown of a trial."""

    seen: dict[int, float] | None = None

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        self.seen = dict(trial.intermediate_values)
        return False


def test_a_trial_that_begins_anew_is_stopped_whatever_its_dead_attempt_had_reached(
    on: optuna.storages.BaseStorage,
) -> None:
    """Each look at a step that it repeated saw the dead value, so that what had once led was never stopped."""
    study = study_of(on=on)
    dead = study.ask()
    for step, value in enumerate(decay(0.001, 30)):
        dead.report(value, step)
    trial = adopt(study, dead.number)
    stored = StoredReports(trial, study.trials[dead.number], trial.report)
    for step, value in enumerate(decay(5.0)):
        stored.report(value, step)
        if trial.should_prune():
            break
    assert step == SHORTEST


def test_a_report_that_is_replaced_is_another_for_everybody(on: optuna.storages.BaseStorage) -> None:
    """Which `Trial.report` ignores, so that a trial begun anew keeps what its dead attempt reported."""
    study = study_of(on=on)
    trial = study.ask()
    trial.report(9.0, 1)
    trial.report(8.0, 2)
    report_again(trial, 1, 0.5)
    assert study.trials[-1].intermediate_values == {1: 0.5, 2: 8.0}
    study.pruner = Sees()
    trial.should_prune()
    assert study.pruner.seen == {1: 0.5, 2: 8.0}
    study.tell(trial, 0.5)
    again = optuna.load_study(study_name=study.study_name, storage=on)
    assert again.trials[-1].intermediate_values == {1: 0.5, 2: 8.0}
