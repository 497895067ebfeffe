"""What a host of the model answers, beside LitServe and Ray Serve with the same model in the same run.

    python benchmarks/host.py                       # ten minutes; prints tables
    python benchmarks/host.py --quick --json host.json

Clients send one look each, which is two queries (the curve to here, and to the report before), wait for the answer and
send the next: 1, 16, 64 and 512 of them, all from one process with one event loop, which shares the machine with the
server. The study has 100 finished trials of 50 reports and four parameters, which the server has been told before the
clock starts; every client asks about a running trial of its own.

Rows: `lcsearch serve`; LitServe and Ray Serve's `@serve.batch`, each around the same network, the same bodies and the
same store of finished trials, with batches of 128 looks at most that wait 1 ms for others (`pip install litserve
'ray[serve]'`; one that is not installed is left out, and said). Then what a look costs over one in process, and the
memory (PSS) of 16 workers that hold the network each, and of 16 that ask a host, the host included.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from lcsearch import Curve, FinishedTrials, Goal, Query, Snapshot, Status, Trial
from lcsearch.forecast.contract import Forecaster
from lcsearch.host import wire
from lcsearch.host.hosted import Hosted
from lcsearch.host.in_process import Pretrained
from lcsearch.host.link import PATH, HttpLink

STEPS, DONE, CLIENTS, WORKERS = 50, 100, (1, 16, 64, 512), 16

Look = tuple[Snapshot, list[Query]]


@dataclass(frozen=True)
class Row:
    """What a server did under so many clients: forecasts a second, and milliseconds that a look took."""

    server: str
    clients: int
    forecasts_per_s: float
    p50_ms: float
    p99_ms: float
    failed: int


def looks(n: int) -> list[Look]:
    """One of each of n running trials of one study."""
    rng = np.random.default_rng(0)
    steps = np.arange(1.0, STEPS + 1)

    def trial(uid: int, reports: int, status: Status) -> Trial:
        floor, gain, power = rng.uniform((0.1, 0.5, 0.3), (0.5, 1.5, 1.2))
        values = floor + gain * steps**-power + 0.005 * rng.standard_normal(STEPS)
        params = {name: float(rng.random()) for name in ("lr", "decay", "momentum")} | {"act": str(rng.integers(3))}
        return Trial(str(uid), Curve.of(steps[:reports], values[:reports]), params, status)

    goal = Goal("loss", "minimize", float(STEPS))
    bank = FinishedTrials(goal).extend(trial(i, STEPS, Status.COMPLETE) for i in range(DONE))
    live = tuple(trial(DONE + i, int(rng.integers(6, 40)), Status.RUNNING) for i in range(n))
    snapshot = Snapshot("bench", goal, bank, live)
    return [(snapshot, [Query(t, "best_by", STEPS), Query(t.cut(t.curve.steps[-2]), "best_by", STEPS)]) for t in live]


def bodies(asks: Sequence[Look], model: str, *, whole: bool) -> list[bytes]:
    """Requests as the client packs them; `whole`: with all finished trials."""
    made = []
    for snapshot, queries in asks:
        first = wire.first_digest(snapshot.study, snapshot.goal)
        told = [wire.travelling(trial, 1.0, snapshot.study) for trial in snapshot.bank]
        bank = wire.digests(first, told)[-1]
        own = tuple(query._replace(trial=wire.travelling(query.trial, 1.0, snapshot.study)) for query in queries)
        ahead = max(trial.curve.last_step for trial in snapshot.live)
        base, trials = (first, tuple(told)) if whole else (bank, ())
        request = wire.Request(model, snapshot.study, float(STEPS), "best", ahead, base, bank, trials, own, 60.0)
        made.append(wire.pack(request))
    return made


# The load: a client writes a request and waits for the answer, again and again.


async def client(address: tuple[str, int], message: bytes, until: float, took: list[float]) -> int:
    """How many of its looks were not answered; those that were leave their seconds in `took`."""
    reader, writer = await asyncio.open_connection(*address)
    failed = 0
    try:
        while (began := time.perf_counter()) < until:
            writer.write(message)
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(length)
            if b" 200 " in head[:15]:
                took.append(time.perf_counter() - began)
            else:
                failed += 1
    finally:
        writer.close()
    return failed


async def told(address: tuple[str, int], message: bytes) -> None:
    """Wait until a server has answered this message; it may not listen yet, though its model is loaded."""
    for _ in range(100):
        try:
            took: list[float] = []
            if not await client(address, message, time.perf_counter() + 0.001, took) and took:
                return
        except (OSError, asyncio.IncompleteReadError):
            await asyncio.sleep(0.2)
    raise SystemExit("expected a server that answers, got none")


def message(address: tuple[str, int], path: str, body: bytes) -> bytes:
    """A request as it goes over the line."""
    kind = "json" if body.startswith(b"{") else "octet-stream"
    head = f"POST {path} HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\nContent-Type: application/{kind}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def load(server: str, address: tuple[str, int], messages: Sequence[bytes], n: int, seconds: float) -> Row:
    """n clients for so many seconds, after a second that does not count."""
    for part in (1.0, seconds):
        took: list[float] = []
        began = time.perf_counter()
        jobs = [client(address, messages[i % len(messages)], began + part, took) for i in range(n)]
        failed = sum(await asyncio.gather(*jobs))
        spent = time.perf_counter() - began
    p50, p99 = (float(np.quantile(took or [np.nan], q)) * 1e3 for q in (0.5, 0.99))
    return Row(server, n, 2 * len(took) / spent, p50, p99, failed)


# The servers, each in a process of its own.


@contextmanager
def started(command: Sequence[str], ready: Path) -> Iterator[int]:
    """A server's port, once it has written it to the file `ready`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True, env=environment)
        try:
            end = time.monotonic() + 180
            while not ready.exists():
                if process.poll() is not None or time.monotonic() > end:
                    said.seek(0)
                    raise SystemExit(f"{command[1]}: expected a server, got:\n{said.read().decode()[-3000:]}")
                time.sleep(0.1)
            yield int(json.loads(ready.read_text())["url"].rpartition(":")[2])
        finally:
            with_children = process.pid
            for number in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(with_children, number)
                    process.wait(20)
                    break
                except (subprocess.TimeoutExpired, ProcessLookupError):
                    continue


def serving(name: str, ready: Path) -> list[str]:
    """The command that begins a server."""
    if name == "lcsearch":
        return [sys.executable, "-m", "lcsearch", "serve", "--listen", "127.0.0.1:0", "--ready-file", str(ready)]
    return [sys.executable, str(Path(__file__).parent / "peers" / f"{name}_host.py"), str(ready)]


# What a look costs, and what workers weigh.


def over_in_process(port: int, n: int) -> dict[str, float]:
    """Milliseconds of a look, in process and by the host, taking turns."""
    local = Pretrained()
    clients: dict[str, Forecaster] = {"in process": local, "host": Hosted(local, HttpLink(f"http://127.0.0.1:{port}"))}
    took: dict[str, list[float]] = {name: [] for name in clients}
    asks = looks(64)
    for i in range(n + 5):
        for name, one in clients.items():
            began = time.perf_counter()
            one.forecast(*asks[i % len(asks)])
            if i >= 5:
                took[name].append(1e3 * (time.perf_counter() - began))
    found = {f"{name} {label}": float(np.quantile(x, q)) for name, x in took.items() for label, q in _QUANTILES}
    return found | {"added p50": float(np.median(np.subtract(took["host"], took["in process"])))}


_QUANTILES = (("p50", 0.5), ("p99", 0.99))


def pss(pids: Sequence[int]) -> float:
    """MB, shared pages in equal parts."""
    texts = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids]
    return sum(int(line.split()[1]) for text in texts for line in text.splitlines() if line.startswith("Pss:")) / 1024


def worker(host: str) -> None:
    """Look once, say so, and wait."""
    from lcsearch.host.registry import resolve_forecasters

    (one,) = resolve_forecasters(None, host)
    one.forecast(*looks(1)[0])
    print("ready", flush=True)
    sys.stdin.read()


def weight(host: str, also: Sequence[int] = ()) -> float:
    """MB of the workers together, after a look, and of `also`."""
    command = [sys.executable, __file__, "--worker", host]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    processes = [subprocess.Popen(command, **pipes) for _ in range(WORKERS)]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
        return pss([process.pid for process in processes] + list(also))
    finally:
        for process in processes:
            process.communicate()


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two seconds a row, of 1 and 64 clients")
    parser.add_argument("--json", type=Path, help="where the figures are stored")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker)
        return
    peers = {"lcsearch": "uvicorn", "litserve": "litserve", "rayserve": "ray.serve"}
    there = [name for name, module in peers.items() if _is_there(module)]
    for name in peers.keys() - set(there):
        print(f"{name} is not installed: left out")
    model, asks = Pretrained().version, looks(max(CLIENTS))
    short, (whole,) = bodies(asks, model, whole=False), bodies(asks[:1], model, whole=True)
    rows, cost, memory = [], {}, {}
    print(f"{'server':10} {'clients':>7} {'forecasts/s':>11} {'p50 ms':>8} {'p99 ms':>8} {'failed':>6}")
    for name in there:
        with tempfile.TemporaryDirectory() as at, started(serving(name, Path(at, "ready")), Path(at, "ready")) as port:
            address, path = ("127.0.0.1", port), {"lcsearch": PATH, "litserve": "/predict"}.get(name, "/")

            def body(raw: bytes, name: str = name) -> bytes:
                return json.dumps({"body": base64.b64encode(raw).decode()}).encode() if name == "litserve" else raw

            asyncio.run(told(address, message(address, path, body(whole))))
            messages = [message(address, path, body(raw)) for raw in short]
            for n in (1, 64) if options.quick else CLIENTS:
                row = asyncio.run(load(name, address, messages, n, 2.0 if options.quick else 15.0))
                rows.append(row)
                print(f"{name:10} {n:7} {row.forecasts_per_s:11.0f} {row.p50_ms:8.1f} {row.p99_ms:8.1f} {row.failed:6}")
            if name == "lcsearch":
                cost = over_in_process(port, 50 if options.quick else 300)
                pid = int(json.loads(Path(at, "ready").read_text())["pid"])
                memory = {"with a host": weight(f"http://127.0.0.1:{port}", [pid]), "without": weight("local")}
    print("\na look, ms: " + ", ".join(f"{name} {value:.1f}" for name, value in cost.items()))
    print(f"{WORKERS} workers, MB: " + ", ".join(f"{name} {value:.0f}" for name, value in memory.items()))
    if options.json:
        found = {"rows": [asdict(row) for row in rows], "look_ms": cost, "workers_mb": memory}
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ImportError:
        return False


if __name__ == "__main__":
    main()
