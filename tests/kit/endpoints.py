"""Endpoints of a host: in a thread of this process, with any model, and `lcsearch serve` as a process of its own."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np

import lcsearch.errors
from kit.networks import network
from lcsearch.forecast.contract import Query
from lcsearch.host import wire
from lcsearch.host.link import PATH
from lcsearch.host.service import Host, Many
from lcsearch.host.serving import Address, run, server_of
from lcsearch.host.wire import Request
from lcsearch.study import Snapshot
from lcsearch.weights import store

SOURCE = Path(lcsearch.errors.__file__).parents[1]
LOADING_S = 300.0  # torch on a busy machine


def weight_file(folder: Path, seed: int = 0) -> Path:
    """A small network's."""
    path = folder / f"small{seed}.safetensors"
    made = network(seed=seed)
    store.save(path, made.state_dict(), size=made.describe_size(), recipe="test", seed=seed, step=1)
    return path


@dataclass
class Serving:
    """A host that answers in a thread."""

    url: str
    host: Host
    end: Callable[[], None]


@contextmanager
def served(model: Many, *, token: str = "", drain: int = 10, wait: bool = True, **limits: Any) -> Iterator[Serving]:
    """A host of `model`, on a port of its own, and unless told otherwise ready; `limits` are the host's."""
    ready = threading.Event()
    found: list[Serving] = []
    failed: list[BaseException] = []
    listening = Address("127.0.0.1", 0).bound()

    async def main() -> None:
        host = Host(model, **limits)
        server = server_of(host, token, drain=drain)

        def end() -> None:
            server.should_exit = True

        found.append(Serving(f"http://127.0.0.1:{listening.getsockname()[1]}", host, end))
        if not wait:
            ready.set()
        await run(server, listening, host, ready.set)

    def work() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            failed.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert ready.wait(LOADING_S)
        assert not failed, failed
        yield found[0]
    finally:
        found[0].end()
        thread.join(60)
        listening.close()
        assert not failed, failed
        assert not thread.is_alive()


@dataclass
class Served:
    """`lcsearch serve` in a process of its own."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def port(self) -> int:
        port = urlsplit(self.url).port
        assert port is not None
        return port

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def rss(self) -> int:
        """Bytes."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Its exit code."""
        self.send(number)
        return self.process.wait(LOADING_S)


@contextmanager
def command(
    folder: Path, *options: str, listen: str = "127.0.0.1:0", env: Mapping[str, str] | None = None, wrapper: str = ""
) -> Iterator[Served]:
    """`lcsearch serve OPTIONS`, once it is ready; killed at the end.

    Args:
        wrapper: Python code to run first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ready, log = folder / "ready.json", folder / "log"
    ready.unlink(missing_ok=True)
    start = f"{wrapper}\nfrom lcsearch.__main__ import main\nmain()"
    words = [sys.executable, "-W", "error", "-c", start, "serve", "--listen", listen, "--ready-file", str(ready)]
    path = os.pathsep.join([str(SOURCE), str(Path(__file__).parents[1])])
    around = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **(env or {})}
    with log.open("ab") as to:
        process = subprocess.Popen([*words, *options], stdout=to, stderr=to, env=around)
    try:
        until = time.monotonic() + LOADING_S
        while not ready.exists():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.02)
        yield Served(json.loads(ready.read_text())["url"], process, log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        process.wait()


class Answer(NamedTuple):
    status: int
    body: bytes
    headers: Mapping[str, str]


def fetch(
    url: str, path: str = PATH, body: bytes | None = None, method: str = "", token: str = "", **headers: str
) -> Answer:
    """One request on a connection of its own."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    try:
        shown = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            shown["Authorization"] = f"Bearer {token}"
        connection.request(method or ("GET" if body is None else "POST"), path, body, shown)
        response = connection.getresponse()
        return Answer(response.status, response.read(), {k.lower(): v for k, v in response.getheaders()})
    finally:
        connection.close()


def question(snapshot: Snapshot, queries: Sequence[Query], model: str, within: float = 60.0) -> bytes:
    """A request's body, with all finished trials."""
    goal, sign = snapshot.goal, snapshot.goal.sign
    base = wire.first_digest(snapshot.study, goal)
    done = tuple(wire.travelling(trial, sign, snapshot.study) for trial in snapshot.bank)
    asked = {id(q.trial): wire.travelling(q.trial, sign, snapshot.study) for q in queries}
    own = tuple(Query(asked[id(q.trial)], q.kind, float(q.step)) for q in queries)
    ahead = max((trial.curve.last_step for trial in snapshot.live), default=-np.inf)
    bank = [base, *wire.digests(base, done)][-1]
    return wire.pack(
        Request(model, snapshot.study, float(goal.horizon), goal.judged, ahead, base, bank, done, own, within)
    )
