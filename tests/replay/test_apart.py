"""Processes that search: the same replay, an end when nobody waits, and none lost when one is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator

import pytest

from lcsearch.data.synthetic import synthetic_task
from lcsearch.replay import whatif
from lcsearch.replay.policies import policy_spec
from lcsearch.replay.whatif import Replay, replay, rounds

TASK = synthetic_task("crossing", 16, 3, n_steps=14)
POLICIES = [policy_spec(text) for text in ("curve:forecasters=rank-gap", "median")]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whatif, "LONG_S", 0.0)


def children() -> list[multiprocessing.process.BaseProcess]:
    return [child for child in multiprocessing.active_children() if child.name.startswith("SpawnProcess")]


def apart(told: list[tuple[int, ...]]) -> Iterator[Replay]:
    return rounds(TASK, POLICIES, orders=12, processes=2, progress=lambda *of: told.append(of))


def test_processes_change_nothing_and_end() -> None:
    told: list[tuple[int, ...]] = []
    *_, found = apart(told)
    alone = replay(TASK, POLICIES, orders=12)
    assert found.points == alone.points
    assert found.frontiers == alone.frontiers
    assert [history.lives for _, history in found.played] == [history.lives for _, history in alone.played]
    assert told
    assert not children()


def test_they_end_when_nobody_waits() -> None:
    searched = apart([])
    assert [next(searched).points[0].orders, next(searched).points[0].orders] == [5, 10]
    assert len(children()) == 2
    searched.close()  # type: ignore[attr-defined]  # a generator
    assert not children()


def test_where_one_is_killed_the_round_is_searched_here() -> None:
    searched = apart([])
    next(searched)
    next(searched)
    os.kill(children()[0].pid or 0, signal.SIGKILL)
    *_, found = searched
    assert found.points == replay(TASK, POLICIES, orders=12).points
