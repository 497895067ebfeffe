"""Ways to a host that need no socket, one that works and one that does as it is told; and what was said by one."""

from __future__ import annotations

import asyncio
import os
import pickle
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lcsearch.forecast.contract import Forecaster, Forecasts, Query
from lcsearch.host import wire
from lcsearch.host.in_process import Pretrained
from lcsearch.host.service import Host, Many
from lcsearch.host.wire import Reply
from lcsearch.study import Snapshot


class Running:
    """A host in a thread's event loop; a context manager. Also a link to it."""

    where = "direct"

    def __init__(self, model: Many | None = None, **limits: int) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.host: Host = self.run(self._made(Pretrained() if model is None else model, limits))
        self.sent: list[bytes] = []

    async def _made(self, model: Many, limits: dict[str, int]) -> Host:
        host = Host(model, **limits)
        await host.start()
        return host

    def run(self, what: Any, seconds: float = 60.0) -> Any:
        """What a coroutine gives, on the host's loop."""
        return asyncio.run_coroutine_threadsafe(what, self.loop).result(seconds)

    def send(self, body: bytes, seconds: float) -> Reply:
        """As of a link."""
        self.sent.append(body)
        reply: Reply = self.run(self.host.answer(body), seconds)
        return reply

    def about(self, seconds: float) -> Mapping[str, Any]:
        """As of a link."""
        return dict(self.host.about())

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self.host.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(60)
        self.loop.close()


class Scripted:
    """A link that asks `script` what to do: it gets the body and gives a reply, or raises."""

    where = "scripted"

    def __init__(self, model: str, script: Callable[[bytes], Reply]) -> None:
        self.model, self.script = model, script
        self.bodies: list[bytes] = []
        self.looks = 0

    def send(self, body: bytes, seconds: float) -> Reply:
        """As of a link."""
        self.bodies.append(body)
        return self.script(body)

    def about(self, seconds: float) -> Mapping[str, Any]:
        """As of a link."""
        self.looks += 1
        if self.model == "":
            self.script(b"")
        return {"model": self.model}


class Counting:
    """A model whose forecasts are points at the trial's last value; it tells what came in each pass, and may be held.

    Attributes:
        passes: uids asked about, of every pass.
        gate: passes wait for it.
    """

    name, version = "network", "counting-1"

    def __init__(self) -> None:
        self.passes: list[list[str]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def prepare(self) -> None:
        """Nothing to load."""

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        """Points."""
        return self.forecast_many([(snapshot, queries)])[0]

    def forecast_many(self, asks: Sequence[tuple[Snapshot, Sequence[Query]]]) -> list[Forecasts]:
        """Points; a trial whose uid says so cannot be forecast."""
        self.entered.set()
        assert self.gate.wait(60)
        uids = [query.trial.uid for _, queries in asks for query in queries]
        self.passes.append(uids)
        if any("poison" in uid for uid in uids):
            raise RuntimeError("poisoned")
        return [_points(snapshot, queries) for snapshot, queries in asks]


def _points(snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
    import numpy as np

    knots = np.array([[q.trial.curve.values[-1], len(snapshot.bank)] for q in queries], float).reshape(-1, 2)
    knots.sort(axis=1)
    levels = np.tile([0.0, 1.0], (len(queries), 1))
    return Forecasts.of(knots, levels, np.zeros((len(queries), 2)), sign=snapshot.goal.sign, source="counting")


OK_STATUSES = {wire.OK, wire.MALFORMED, wire.UNKNOWN_TRIALS, wire.OTHER_MODEL, wire.TOO_LARGE, wire.BUSY, wire.LATE}
"""How a host may answer whatever it is sent."""


class Recorded:
    """A forecaster that keeps every question and its answer, in a file of each process.

    Args:
        inner: who answers.
        folder: where the files are.
    """

    def __init__(self, inner: Forecaster, folder: Path) -> None:
        self._inner, self._folder = inner, folder
        self.name, self.version = inner.name, inner.version

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        """What `inner` says."""
        said = self._inner.forecast(snapshot, queries)
        with (self._folder / f"{os.getpid()}.answers").open("ab") as file:
            pickle.dump((snapshot, queries, said), file)
        return said


def recorded(folder: Path) -> dict[str, list[tuple[Snapshot, Sequence[Query], Forecasts]]]:
    """Process id -> what it asked, and what was said."""
    found: dict[str, list[tuple[Snapshot, Sequence[Query], Forecasts]]] = {}
    for path in folder.glob("*.answers"):
        with path.open("rb") as file:
            while file.peek(1):
                found.setdefault(path.stem, []).append(pickle.load(file))
    return found
