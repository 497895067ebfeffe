"""Bodies that no client would send: random bytes, and good ones with something wrong in them, by a seed."""

from __future__ import annotations

import json
import math
import re
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from typing import Any

import numpy as np
from safetensors.numpy import load

from kit.endpoints import Served, question
from lcsearch.curves import Curve
from lcsearch.errors import InvalidValue
from lcsearch.forecast.contract import Query
from lcsearch.goal import Goal
from lcsearch.host import wire
from lcsearch.host.link import HttpLink
from lcsearch.schedule import Schedule
from lcsearch.study import FinishedTrials, Snapshot, Status, Trial

FLOATS = (
    *(math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, -1.0, 1e308, -1e308, 5e-324, 1e-300, 1e30, 2.0**53, 1e15),
    *(np.nextafter(1.0, 2.0), 0.1, 3.0, 40.0),
)
INTS = (0, 1, -1, 2, 3, 7, 40, 255, 2**31, -(2**31), 2**62, 2**63 - 1, -(2**63))
DEEP: Any = []
for _ in range(200):
    DEEP = [DEEP, {"a": DEEP}] if len(str(DEEP)) < 2000 else [DEEP]
WORDS = ("", "x", "\ud800", "\x00\x1b[2J\n", "a" * 5000, "NaN", "running", "complete", "final", "value")
ODD: tuple[Any, ...] = (
    *(None, True, False, [], {}, [[]], {"": None}, [1, 2, 3], {"a": {"b": []}}, 10**400, -(10**30), 2**64, DEEP),
    *(*WORDS, *INTS, *FLOATS),
)
PIECES = (b"", b"\x00", b"\xff" * 8, b"{}", b"[" * 50, b'{"a":', b"\x80\x04.", b"NaN", b"1e999", b"9" * 30)


TYPES = {"float64": "F64", "float32": "F32", "int64": "I64", "int32": "I32", "uint8": "U8", "bool": "BOOL"}


def saved(arrays: dict[str, Any]) -> bytes:
    """A body in safetensors' format; its own writer has another order every time."""
    header, parts, at = {}, [], 0
    for name in sorted(arrays):
        parts.append(np.ascontiguousarray(arrays[name]).tobytes())
        end = at + len(parts[-1])
        shape = list(arrays[name].shape)
        header[name] = {"dtype": TYPES[str(arrays[name].dtype)], "shape": shape, "data_offsets": [at, end]}
        at = end
    return with_header(header, b"".join(parts))


def with_header(header: Any, rest: bytes) -> bytes:
    """A body of these parts, filled up as the format wants it."""
    text = json.dumps(header).encode(errors="replace")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + rest


class Fuzz:
    """An endless row of bodies; the same for the same seed.

    Args:
        model: the version of the weights that good bodies ask.
    """

    def __init__(self, seed: int, model: str) -> None:
        self.rng, self.model = np.random.default_rng(seed), model

    def __iter__(self) -> Iterator[bytes]:
        kinds = (self.noise, self.torn, self.reordered, self.retold, self.renumbered, self.strange, self.strange)
        while True:
            yield kinds[int(self.rng.integers(len(kinds)))]()

    def pick(self, some: Any) -> Any:
        """One of them."""
        return some[int(self.rng.integers(len(some)))]

    def noise(self) -> bytes:
        """Bytes, some behind a length as the format has it."""
        made = self.rng.bytes(int(self.rng.integers(0, 600)))
        size = self.pick((0, 1, 2, len(made), 2**31, 2**63, 2**64 - 1))
        front: bytes = self.pick((b"", size.to_bytes(8, "little")))
        return front + bytes(self.pick((made, self.pick(PIECES), b"{}" + made)))

    def torn(self) -> bytes:
        """A good body with bytes changed, gone or added."""
        made = bytearray(self.good())
        for _ in range(int(self.rng.integers(1, 4))):
            at = int(self.rng.integers(len(made) + 1)) if self.rng.random() < 0.5 else int(self.rng.integers(60))
            n = int(self.rng.integers(1, 9))
            match int(self.rng.integers(4)):
                case 0:
                    made[at : at + n] = self.rng.bytes(n)
                case 1:
                    del made[at : at + int(self.rng.integers(1, 400))]
                case 2:
                    made[at:at] = self.pick(PIECES)
                case _:
                    del made[at:]
        return bytes(made)

    def reordered(self) -> bytes:
        """A good body whose header is another: names, types, shapes, places."""
        made = self.good()
        size = int.from_bytes(made[:8], "little")
        header = json.loads(made[8 : 8 + size])
        name = self.pick(list(header))
        entry = header[name]
        match int(self.rng.integers(7)):
            case 0:
                entry["dtype"] = self.pick(("F64", "F32", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "C64", "X", 3, None))
            case 1:
                entry["shape"] = [self.pick((*INTS, 1e3, None, "2", 10**40)) for _ in range(int(self.rng.integers(5)))]
            case 2:
                entry["data_offsets"] = [self.pick((*INTS, 1e3, None, 10**40)) for _ in range(self.pick((1, 2, 2)))]
            case 3:
                del header[name]
            case 4:
                header[self.pick(("head", "which", "more", "", "__metadata__"))] = header.pop(name)
            case 5:
                header[name] = self.pick(ODD)
            case _:
                header["__metadata__"] = self.pick(({"a": "b"}, {"a": 1}, [], "x", {"a": "b" * 10_000}))
        return with_header(header, made[8 + size :])

    def retold(self) -> bytes:
        """A good body with something else in its JSON."""
        arrays = load(self.good())
        names = ("head", "finished.facts", "asked.facts")
        name = self.pick([name for name in names if name in arrays])
        told = json.loads(arrays[name].tobytes())
        for _ in range(int(self.rng.integers(1, 3))):
            told = self.changed(told)
        text = json.dumps(told).encode()
        if self.rng.random() < 0.1:
            text = self.pick((text[:-1], text + b"]", b"[" * 100_000, b"9" * 5000, text.replace(b"1.0", b"1e999")))
        arrays[name] = np.frombuffer(text, np.uint8)
        return self.named_anew(arrays)

    def changed(self, told: Any) -> Any:
        """With one value, somewhere in it, replaced, dropped or doubled."""
        if not isinstance(told, (list, dict)) or not told or self.rng.random() < 0.15:
            return deepcopy(self.pick(ODD))  # they are changed in turn
        key = self.pick(list(told) if isinstance(told, dict) else range(len(told)))
        if isinstance(told, dict) and self.rng.random() < 0.1:
            told[self.pick(("more", "", "\ud800", "k" * 300))] = deepcopy(self.pick(ODD))
        elif self.rng.random() < 0.1:
            del told[key]
        else:
            told[key] = self.changed(told[key])
        return told

    def renumbered(self) -> bytes:
        """A good body with other numbers, types or shapes in its arrays."""
        arrays = {name: array.copy() for name, array in load(self.good()).items()}
        for _ in range(int(self.rng.integers(1, 4))):
            name = self.pick([name for name in sorted(arrays) if arrays[name].dtype != np.uint8])
            array = arrays[name]
            match int(self.rng.integers(6)):
                case 0 | 1 | 2 if array.size:
                    numbers = INTS if array.dtype == np.int64 else FLOATS
                    with suppress(ValueError, OverflowError), np.errstate(all="ignore"):  # of a type that has no such
                        array.flat[int(self.rng.integers(array.size))] = self.pick(numbers)
                case 3:
                    with np.errstate(all="ignore"):
                        arrays[name] = array.astype(self.pick((np.float32, np.int32, np.float64, np.int64, np.bool_)))
                case 4:
                    arrays[name] = array.reshape(-1)[: int(self.rng.integers(array.size + 1))]
                case _:
                    arrays[name] = np.concatenate([array, array], axis=-1)
        return self.named_anew(arrays)

    def named_anew(self, arrays: dict[str, Any]) -> bytes:
        """Mostly with the digest of the finished trials as they are now, so that they are taken."""
        try:
            head = json.loads(arrays["head"].tobytes())
            finished = wire._unpack_trials(arrays, "finished")  # noqa: SLF001  # as the host will
            goal = Goal("loss", "minimize", head["horizon"], head["judged"])
            head["base"] = wire.first_digest(head["study"], goal)
            head["bank"] = [head["base"], *wire.digests(head["base"], finished)][-1]
            if self.rng.random() < 0.9:
                arrays["head"] = np.frombuffer(json.dumps(head).encode(), np.uint8)
        except (InvalidValue, KeyError, TypeError, ValueError, RecursionError, AttributeError):
            pass
        return saved(arrays)

    def strange(self) -> bytes:
        """A good body of a study that nobody has: it must be answered, if only by absent forecasts."""
        rng = self.rng
        horizon = self.pick((1.0, 3.5, 40.0, 40.0, 1e-300, 1e308))
        goal = Goal("loss", self.pick(("minimize", "maximize")), horizon, self.pick(("best", "final")))
        ends = (Status.COMPLETE, Status.COMPLETE, Status.STOPPED, Status.FAILED)
        done = [self.trial(f"d{i}", self.pick(ends)) for i in range(int(rng.integers(8)))]
        live = tuple(self.trial(f"l{i}", Status.RUNNING) for i in range(int(rng.integers(1, 4))))
        snapshot = Snapshot(self.pick(("", "s", "\ud800", "s" * 500)), goal, FinishedTrials(goal).extend(done), live)
        steps = (*FLOATS, goal.horizon, 10.0, 20.0)
        queries = [Query(trial, self.pick(wire.KINDS), self.pick(steps)) for trial in live for _ in range(2)]
        return saved(load(question(snapshot, queries, self.model, self.pick((60.0, 60.0, 60.0, 0.0, -1.0)))))

    def trial(self, uid: str, status: Status) -> Trial:
        """One with an odd curve, odd parameters and an odd plan."""
        rng = self.rng
        n = int(self.pick((0, 1, 2, 3, 10, 30)))
        sizes, shifts = (1.0, 1.0, 0.0, 1e-300, 1e30, 1e308), (0.0, 0.0, 1e8, -1e308)
        with np.errstate(all="ignore"):
            values = rng.standard_normal(n) * self.pick(sizes) + self.pick(shifts)
            steps = np.cumsum(rng.uniform(0.5, 2.0, n)) * self.pick((1.0, 1.0, 1e-3, 1e-300, 1e300))
            steps += self.pick((0.0, 0.0, -1e15, 1e6))
        if n and rng.random() < 0.3:
            values[int(rng.integers(n))] = self.pick(FLOATS)
        words = (*FLOATS, *INTS, "a", "", "\ud800", True, None, 10**400)
        params = {self.pick(("lr", "b", "", "\ud800")): self.pick(words) for _ in range(int(rng.integers(4)))}
        plan = None
        if rng.random() < 0.3:
            shape = self.pick(("constant", "linear", "cosine", "wsd", "step"))
            peak, horizon = self.pick((1.0, 5e-324, 1e308)), self.pick((40.0, 5e-324, 1e308))
            plan = Schedule(shape, peak, horizon, self.pick((0.0, 0.5)))
        return Trial(uid, Curve.of(steps, values), params, status, plan, feasible=bool(rng.random() < 0.9))

    def good(self) -> bytes:
        """A body that is fine."""
        rng, goal = self.rng, Goal("loss", "minimize", 40.0)
        t = np.arange(1.0, 41.0)

        def trial(uid: str, n: int, status: Status) -> Trial:
            curve = Curve.of(t[:n], rng.uniform(0.1, 0.5) + t[:n] ** -rng.uniform(0.3, 1.0))
            params = {"lr": float(rng.uniform(1e-4, 1e-1)), "opt": self.pick(("adam", "sgd"))}
            plan = Schedule("cosine", 0.1, 40.0) if rng.random() < 0.3 else None
            return Trial(uid, curve, params, status, plan)

        done = [trial(f"d{i}", 40, Status.COMPLETE) for i in range(int(rng.integers(7)))]
        live = tuple(trial(f"l{i}", int(rng.integers(1, 40)), Status.RUNNING) for i in range(2))
        snapshot = Snapshot(f"s{int(rng.integers(20))}", goal, FinishedTrials(goal).extend(done), live)
        queries = [Query(one, kind, 40.0) for one in live for kind in wire.KINDS]
        return saved(load(question(snapshot, queries, self.model)))


METHODS = ("POST", "GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT", "NONSENSE", "", "post")
PATHS = (
    "/v1/forecast",
    "/version",
    "/health",
    "/metrics",
    "/",
    "",
    "*",
    "//",
    "/../etc/passwd",
    "/%00",
    "/v1/forecast/",
)
HEADERS = (
    *(b"Content-Length: -1", b"Content-Length: 1e3", b"Content-Length: 99999999999999999999", b"Content-Length: 5"),
    *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip", b"Expect: 100-continue", b"Upgrade: websocket"),
    *(b"Connection: upgrade", b"Authorization: Bearer \xff", b"X: " + b"x" * 3000, b": y", b"no colon", b"\x00: \x00"),
    *(b"Content-Type: application/json", b"Host: \xff", b"Host: a\r\nHost: b", b" folded", b"Cookie: a=b"),
)


def raw(rng: np.random.Generator, body: bytes) -> bytes:
    """A request that is none, or hardly one."""

    def pick(some: Any) -> Any:
        return some[int(rng.integers(len(some)))]

    path = pick(PATHS) if rng.random() < 0.8 else "/" + rng.bytes(8).decode("latin-1")
    version = pick(("HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/9.9", "SIP/2.0", ""))
    head = [f"{pick(METHODS)} {path} {version}".encode("latin-1"), b"Host: a"]
    head += [pick(HEADERS) for _ in range(int(rng.integers(4)))]
    if rng.random() < 0.3:
        head.append(b"Content-Length: %d" % len(body))
    made = b"\r\n".join([*head, b"", body])
    return made[: int(rng.integers(len(made) + 1))] if rng.random() < 0.3 else made


ANSWERS = {200, 400, 401, 404, 405, 408, 409, 412, 413, 503, 504}
"""What an endpoint may answer to whatever it is sent."""


def statuses(said: bytes) -> list[int]:
    """Of the answers in what came over a connection."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", said)]


def fuzz(served: Served, n: int, seed: int, model: str) -> Counter[int]:
    """Send so many requests, a tenth of them no HTTP; how they were answered.

    Raises:
        AssertionError: one was answered as none may be, or the endpoint died.
    """
    counts: Counter[int] = Counter()
    bodies = iter(Fuzz(seed, model))
    rng = np.random.default_rng([seed, 1])
    link = HttpLink(served.url)
    for i in range(n):
        body = next(bodies)
        if i % 10:
            reply = link.send(body, 60.0)
            said, found = reply.body if reply.status != 200 else b"", [reply.status]
        else:
            said = b""
            connection = socket.create_connection(("127.0.0.1", served.port), timeout=60)
            with connection, suppress(ConnectionError):
                connection.sendall(raw(rng, body[:2000]))
                connection.shutdown(socket.SHUT_WR)  # as much of an answer as there is; the rest is not waited for
                while part := connection.recv(1 << 16):
                    said += part
            found = statuses(said)
        counts.update(found)
        assert set(found) <= ANSWERS, (seed, i, found, said[:500])
        assert b"Traceback" not in said, (seed, i, said)
    link.close()
    assert served.process.poll() is None
    return counts
