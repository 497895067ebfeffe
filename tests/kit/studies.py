"""Small Optuna studies with known curves."""

from __future__ import annotations

import socket
import subprocess
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from kit.doubles import NormalAroundBest
from lcsearch.schedulers.optuna import CurvePruner
from lcsearch.stopping.policy import Policy

optuna.logging.set_verbosity(optuna.logging.ERROR)


STORAGES = ("memory", "sqlite", "journal", "grpc")

SHORTEST = Policy().min_observations - 1
"""The earliest step at which a trial that reports at 0, 1, 2, ... can be stopped; CurvePruner has no knob for it."""


def written(storage: RDBStorage, path: Path) -> Path:
    """What a storage in memory holds as a SQLite file, and its end: one commit instead of hundreds."""
    connection = storage.engine.raw_connection()
    connection.cursor().execute("VACUUM INTO ?", (str(path),))
    connection.close()
    storage.remove_session()
    storage.engine.dispose()
    return path


def _hurry(connection: Any, _: Any) -> None:
    """These files need not outlive a power cut."""
    connection.execute("PRAGMA synchronous = OFF")


@contextmanager
def storage(kind: str, folder: Path) -> Iterator[BaseStorage]:
    """A storage of that kind in the folder; a second one of the same folder sees the same studies."""
    if kind == "memory":
        yield InMemoryStorage()
    elif kind == "journal":
        yield JournalStorage(JournalFileBackend(str(folder / "journal.log")))
    else:
        made = RDBStorage(f"sqlite:///{folder / 'study.db'}")
        made.engine.dispose()
        sqlalchemy.event.listen(made.engine, "connect", _hurry)
        try:
            yield made
        finally:
            made.engine.dispose()


SERVER = """
import sys, warnings
warnings.simplefilter("ignore")  # optuna calls its gRPC server experimental
import optuna
storage = optuna.storages.RDBStorage("sqlite:///" + sys.argv[1])
optuna.storages.run_grpc_proxy_server(storage, host="127.0.0.1", port=int(sys.argv[2]))
"""


@contextmanager
def grpc_proxy(folder: Path) -> Iterator[BaseStorage]:
    """A real server process on loopback, sqlite behind it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(folder / "grpc.sqlite3"), str(port)])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            proxy = optuna.storages.GrpcStorageProxy(host="127.0.0.1", port=port)
        proxy.wait_server_ready(timeout=300)
        yield proxy
        proxy.close()
    finally:
        server.kill()
        server.wait()


def storage_of(study: Study) -> BaseStorage:
    """Where a study is kept; Optuna has no public way to it."""
    return study._storage  # noqa: SLF001


def id_of(trial: Trial | FrozenTrial) -> int:
    """What a trial is called by its storage; Optuna has no public way to it."""
    return trial._trial_id  # noqa: SLF001


def pruner(**fields: Any) -> CurvePruner:
    """A CurvePruner of trials of 50 steps that asks the plain fake forecaster at every report, once five have ended."""
    known = {"max_steps": 50, "n_startup_trials": 5, "look_growth": 1, "forecasters": [NormalAroundBest()]}
    return CurvePruner(**{**known, **fields})


def decay(limit: float, n: int = 50, rate: float = 0.8) -> list[float]:
    return [limit + rate**i for i in range(n)]


def finished(
    values: Iterable[float] | Mapping[int, float],
    state: TrialState = TrialState.COMPLETE,
    attrs: Mapping[str, Any] | None = None,
) -> FrozenTrial:
    curve = dict(values) if isinstance(values, Mapping) else dict(enumerate(values))
    last = list(curve.values())[-1] if curve else 1.0
    value = last if state == TrialState.COMPLETE else None
    return create_trial(state=state, value=value, intermediate_values=curve, user_attrs=dict(attrs or {}))


def study_of(
    of: CurvePruner | None = None, n: int = 6, *, sign: float = 1.0, on: BaseStorage | None = None, **fields: Any
) -> optuna.Study:
    """A study with `n` COMPLETE trials that decay to 0.1, 0.2, ... (mirrored when sign is -1)."""
    study = optuna.create_study(
        direction="minimize" if sign > 0 else "maximize", pruner=of or pruner(), storage=on, **fields
    )
    for i in range(n):
        study.add_trial(finished(sign * v for v in decay(0.1 * (i + 1))))
    return study


def first_stop(trial: Trial, values: Iterable[float]) -> int | None:
    """Report until should_prune says so: that step, or None."""
    for step, value in enumerate(values):
        trial.report(value, step)
        answer = trial.should_prune()
        assert type(answer) is bool
        if answer:
            return step
    return None


def stop_one(study: optuna.Study, values: Iterable[float] | None = None) -> int:
    """Run one hopeless trial into its stop and tell the study; its number."""
    trial = study.ask()
    assert first_stop(trial, values or decay(5.0)) is not None
    study.tell(trial, state=TrialState.PRUNED)
    return trial.number
