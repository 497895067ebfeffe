"""A storage of every kind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import optuna
import pytest
from kit.studies import grpc_proxy, storage
from optuna.storages import BaseStorage
from sweep import postgres

no_server = postgres.missing()
KINDS = [
    *("memory", "sqlite", "journal", "grpc"),
    pytest.param("postgres", marks=pytest.mark.skipif(no_server is not None, reason=no_server or "")),
]


@pytest.fixture(scope="session")
def server() -> Iterator[postgres.Server]:
    with postgres.server() as running:
        yield running


@pytest.fixture(params=KINDS)
def everywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BaseStorage]:
    with ExitStack() as stack:
        if request.param == "grpc":
            yield stack.enter_context(grpc_proxy(tmp_path))
        elif request.param == "postgres":
            url = request.getfixturevalue("server").new_database("postgresql+psycopg")
            made = optuna.storages.RDBStorage(url)
            stack.callback(made.engine.dispose)
            yield made
        else:
            yield stack.enter_context(storage(request.param, tmp_path))
