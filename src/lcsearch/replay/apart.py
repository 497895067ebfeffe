"""Searches in processes of their own, for replays that take long: the same histories, sooner."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import replace
from typing import Any

from lcsearch.data.task import Task
from lcsearch.replay.history import History
from lcsearch.replay.policies import PolicySpec, Shared
from lcsearch.replay.simulator import World, simulate_all

POLL_S = 0.2
Wanted = tuple[PolicySpec, Sequence[int]]
"""A policy and an order of the runs."""


class _Stopped(Exception):
    """Nobody waits for the searches any more."""


class Apart:
    """Processes that search over one task; each makes its forecasters once and keeps what they answered.

    Args:
        task: the runs.
        processes: how many, >= 1.
    """

    def __init__(self, task: Task, processes: int) -> None:
        context = multiprocessing.get_context("spawn")  # a fork of a process that has used torch may hang
        self._task, self._processes = task, processes
        self._counts, self._stop = context.Array("q", processes), context.Event()
        self._pool = ProcessPoolExecutor(processes, context, _begin, (task, self._counts, self._stop))

    def search(self, wanted: Sequence[Wanted], workers: int, told: Callable[[int], None]) -> list[History]:
        """As :func:`~lcsearch.replay.simulator.simulate_all`; searches in one order stay together.

        Raises:
            concurrent.futures.BrokenExecutor: a process was killed.
        """
        orders = list(dict.fromkeys(tuple(order) for _, order in wanted))
        slot = {order: i % self._processes for i, order in enumerate(orders)}
        parts = [[i for i, (_, o) in enumerate(wanted) if slot[tuple(o)] == k] for k in range(self._processes)]
        self._counts[:] = [0] * self._processes
        futures = [
            self._pool.submit(_search, k, [wanted[i] for i in part], workers) for k, part in enumerate(parts) if part
        ]
        while wait(futures, POLL_S).not_done:
            told(sum(self._counts[:]))
        made = [history for future in futures for history in future.result()]
        found = dict(zip((i for part in parts for i in part), made, strict=True))
        return [replace(found[i], task=self._task) for i in range(len(wanted))]

    def close(self) -> None:
        """End the processes; what they search is left."""
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)


_own: dict[str, Any] = {}
"""A process' task, forecasters, count and flag."""


def _begin(task: Task, counts: Any, stop: Any) -> None:
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever asked is interrupted, and says so
    _own.update(task=task, shared=Shared(), counts=counts, stop=stop)


def _search(slot: int, wanted: Sequence[Wanted], workers: int) -> list[History]:
    def told(done: int) -> None:
        _own["counts"][slot] = done
        if _own["stop"].is_set():
            raise _Stopped

    searches = [(order, entrant.make(_own["task"], _own["shared"])) for entrant, order in wanted]
    return simulate_all(_own["task"], searches, World(workers=workers), told)
