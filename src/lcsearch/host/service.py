"""The host of the model: bodies in, bodies out, whatever carries them.

Requests of many studies wait in a bounded queue, studies take turns, and they are worked on in passes: what came while
one ran makes up the next, so that batches grow with the load and a lone request waits for nobody.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from lcsearch import __version__
from lcsearch.errors import InvalidValue, in_words
from lcsearch.forecast.contract import Forecaster, Forecasts, Query
from lcsearch.host import wire
from lcsearch.host.wire import Refused, Reply, Request
from lcsearch.study import FinishedTrials, Snapshot, Trial
from lcsearch.terminal import tame

MOST_PENDING = 1024
"""Requests that may wait; one more is told that the host is busy."""
MOST_KEPT = 256 * 2**20
"""Bytes of finished trials that are kept, about; those that were not asked about for longest go first."""
HUNG_S = 60.0
"""A pass that takes so long hangs."""
PASS = wire.MOST_QUERIES
"""Queries of one pass of the network, at most: what bounds its memory and how long others wait."""
_LARGE = 64 * 2**10  # bodies from this size on are read beside the loop, which others are waiting for
_BANKS = 64  # of one study that are kept, its workers may see trials end at different moments
_POINT, _TRIAL, _PARAM = 40, 1000, 150  # bytes, about: of a report in every column, of a trial, of each parameter

_log = logging.getLogger("lcsearch")


class Many(Forecaster, Protocol):
    """A forecaster that answers many studies in one pass."""

    def prepare(self) -> None:
        """Load what it needs."""
        ...

    def forecast_many(self, asks: Sequence[tuple[Snapshot, Sequence[Query]]]) -> Sequence[Forecasts]:
        """An answer to each."""
        ...


@dataclass
class _Chain:
    """Banks that share their columns, each made of the one before it."""

    banks: OrderedDict[str, FinishedTrials] = field(default_factory=OrderedDict)
    size: int = 0


class KeptTrials:
    """Finished trials of many studies, by their digests, within a bound on memory.

    Args:
        most: bytes, about.

    Attributes:
        bytes: about how large they are.
    """

    def __init__(self, most: int = MOST_KEPT) -> None:
        self._most = most
        self._chains: OrderedDict[int, _Chain] = OrderedDict()  # the first was not asked about for longest
        self._chain_of: dict[str, int] = {}
        self._made = self.bytes = 0

    def __len__(self) -> int:
        return len(self._chains)

    def find(self, request: Request) -> FinishedTrials:
        """All finished trials of the request's study; what came along is kept.

        Raises:
            Refused: what they are to be added to is not here, they do not add up to what was said, or they are too many
                for what may be kept.
        """
        found = self._get(request.bank)
        if found is not None:
            return found
        first = wire.first_digest(request.study, request.goal)
        base = FinishedTrials(request.goal) if request.base == first else self._get(request.base)
        if base is None or base.goal != request.goal:
            raise Refused(wire.UNKNOWN_TRIALS, f"finished trials {request.base} are not here: send all of them")
        made = [request.base, *wire.digests(request.base, request.trials)][-1]
        if made != request.bank:
            raise Refused(wire.UNKNOWN_TRIALS, f"expected finished trials {request.bank}, got {made}: send all of them")
        bank = base.extend(request.trials)
        self._keep(request, bank, self._chain_of.get(request.base) if bank.extends(base) else None)
        return bank

    def _keep(self, request: Request, bank: FinishedTrials, at: int | None) -> None:
        if at is None:
            self._made += 1
            at = self._made
            size = _TRIAL + sum(map(_size, bank))
        else:
            size = self._chains[at].size + sum(map(_size, request.trials))
        if size > self._most:
            raise Refused(wire.TOO_LARGE, f"expected finished trials of at most {self._most} bytes, got about {size}")
        chain = self._chains.setdefault(at, _Chain())
        chain.banks[request.bank] = bank
        self.bytes += size - chain.size
        chain.size = size
        self._chain_of[request.bank] = at
        if len(chain.banks) > _BANKS:  # no worker of a study is so far behind the others
            del self._chain_of[chain.banks.popitem(last=False)[0]]
        while self.bytes > self._most:
            gone = self._chains.popitem(last=False)[1]
            self.bytes -= gone.size
            for digest in gone.banks:
                del self._chain_of[digest]

    def _get(self, digest: str) -> FinishedTrials | None:
        at = self._chain_of.get(digest)
        if at is None:
            return None
        self._chains.move_to_end(at)
        return self._chains[at].banks[digest]


def _size(trial: Trial) -> int:
    words = sum(len(name) + (len(value) if isinstance(value, str) else 0) for name, value in trial.params.items())
    return _TRIAL + _POINT * trial.curve.n_reports + _PARAM * len(trial.params) + words + len(trial.uid)


@dataclass
class _Waiting:
    """A request that is to be answered."""

    snapshot: Snapshot
    queries: tuple[Query, ...]
    until: float
    answer: asyncio.Future[Forecasts]


@dataclass
class Counts:
    """What a host has done, for its metrics."""

    replies: Counter[int] = field(default_factory=Counter)
    passes: int = 0
    queries: int = 0
    seconds: float = 0.0


class Host:
    """Answers requests with a model; one event loop owns it.

    Args:
        model: the forecaster.
        most_pending, most_kept: see MOST_PENDING and MOST_KEPT.
        most_bytes: of a body.
    """

    def __init__(
        self,
        model: Many,
        *,
        most_pending: int = MOST_PENDING,
        most_kept: int = MOST_KEPT,
        most_bytes: int = wire.MOST_BYTES,
    ) -> None:
        self.model, self.most_bytes, self._most = model, most_bytes, most_pending
        self._kept, self.counts = KeptTrials(most_kept), Counts()
        self._waiting: OrderedDict[str, deque[_Waiting]] = OrderedDict()  # by study; the first is next
        self._pending = 0
        self._came, self._reading = asyncio.Event(), asyncio.Lock()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="lcsearch model")
        self._began, self._pass_began = time.monotonic(), math.inf
        self._worker: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load the model and begin to work.

        Raises:
            EnvironmentProblem: it cannot be loaded.
        """
        await asyncio.get_running_loop().run_in_executor(self._pool, self.model.prepare)
        self._worker = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """End after the present pass; what still waits is told that the host is busy."""
        for one in (one for waiting in self._waiting.values() for one in waiting):
            if not one.answer.done():
                one.answer.set_exception(Refused(wire.BUSY, "the host is being shut down"))
        self._waiting.clear()
        self._pending, worker, self._worker = 0, self._worker, None
        self._came.set()
        if worker is not None:
            await worker
        self._pool.shutdown(wait=False)

    async def answer(self, body: bytes) -> Reply:
        """A request's answer, or why there is none. Never raises, but when it is cancelled."""
        try:
            reply = Reply(wire.OK, await self._answer(body))
        except Refused as refused:
            reply = Reply(refused.status, tame(str(refused)).encode(errors="replace"))
        except Exception as error:  # whatever a body does to us, others are waiting
            said = tame(in_words(error)[:500])
            _log.warning("lcsearch: the host could not answer a request: %s", said)
            reply = Reply(wire.FAILED, said.encode(errors="replace"))
        self.counts.replies[reply.status] += 1
        return reply

    async def _answer(self, body: bytes) -> bytes:
        if len(body) > self.most_bytes:
            raise Refused(wire.TOO_LARGE, f"expected a body of at most {self.most_bytes} bytes, got {len(body)}")
        if len(body) < _LARGE:
            request = wire.unpack(body)
        else:
            async with self._reading:  # one at a time: what JSON takes while it is read is a multiple of it
                request = await asyncio.to_thread(wire.unpack, body)
        if request.model != self.model.version:
            text = f"expected a request to {self.model.version}, the model of this host, got one to {request.model}"
            raise Refused(wire.OTHER_MODEL, text[:500])
        snapshot = request.snapshot(self._kept.find(request))
        if not request.queries:
            return wire.pack_answer(Forecasts.none([]), self.model.version, request.bank)
        if self._worker is None:
            raise Refused(wire.BUSY, "the model is being loaded")
        if self._pending >= self._most:
            raise Refused(wire.BUSY, f"{self._pending} requests are waiting")
        until = time.monotonic() + min(max(request.within, 0.0), 1e6)
        one = _Waiting(snapshot, request.queries, until, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(request.study, deque()).append(one)
        self._pending += 1
        self._came.set()
        return wire.pack_answer(await one.answer, self.model.version, request.bank)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._worker is not None:
            await self._came.wait()
            await asyncio.sleep(0)  # what came while a pass ran in this thread is read first
            batch = self._next()
            if not batch:
                self._came.clear()
                continue
            began = self._pass_began = time.monotonic()
            asks = [(one.snapshot, one.queries) for one in batch]
            if getattr(self.model, "device", "") == "cpu":  # a thread would fight with this one for the interpreter
                answers = self._pass(asks)
            else:  # a device may hang
                answers = await loop.run_in_executor(self._pool, self._pass, asks)
            self._pass_began = math.inf
            self.counts.passes += 1
            self.counts.queries += sum(len(one.queries) for one in batch)
            self.counts.seconds += time.monotonic() - began
            for one, answer in zip(batch, answers, strict=True):
                if one.answer.done():
                    continue
                if isinstance(answer, Forecasts):
                    one.answer.set_result(answer)
                else:
                    one.answer.set_exception(answer)

    def _next(self) -> list[_Waiting]:
        """The next pass: one of each study in turn, as long as there is room; what nobody waits for is left out."""
        batch: list[_Waiting] = []
        n, now = 0, time.monotonic()
        while self._waiting:
            study, waiting = next(iter(self._waiting.items()))
            one = waiting[0]
            gone = one.answer.done() or one.until < now
            if not gone and batch and n + len(one.queries) > PASS:
                break
            waiting.popleft()
            self._pending -= 1
            self._waiting.move_to_end(study)
            if not waiting:
                del self._waiting[study]
            if not gone:
                batch.append(one)
                n += len(one.queries)
            elif not one.answer.done():
                one.answer.set_exception(Refused(wire.LATE, "nobody waits for the answer any more"))
        return batch

    def _pass(self, asks: Sequence[tuple[Snapshot, Sequence[Query]]]) -> Sequence[Forecasts | Exception]:
        try:
            found = self.model.forecast_many(asks)
            if len(found) != len(asks):
                raise InvalidValue(f"{len(asks)} forecasts", len(found), f"{self.model.name}.forecast_many")
            return found
        except Exception as error:  # one that cannot be answered must not take the others with it
            if len(asks) == 1:
                return [error]
            return [self._pass([ask])[0] for ask in asks]

    @property
    def ready(self) -> bool:
        """Whether it answers: its model is loaded, and no pass hangs."""
        return self._worker is not None and time.monotonic() - self._pass_began < HUNG_S

    # What it tells about itself.

    def about(self) -> dict[str, object]:
        """Versions, and how it is doing."""
        return {
            "lcsearch": __version__,
            "wire": wire.WIRE,
            "name": self.model.name,
            "model": self.model.version,
            "device": getattr(self.model, "device", ""),
            "ready": self.ready,
            "pending": self._pending,
        }

    def metrics(self) -> str:
        """In the text format of Prometheus."""
        c = self.counts
        rows = [
            ("lcsearch_host_passes_total", "counter", "Passes of the network.", c.passes),
            ("lcsearch_host_queries_total", "counter", "Queries answered by the network.", c.queries),
            ("lcsearch_host_pass_seconds_total", "counter", "Seconds spent in passes.", round(c.seconds, 6)),
            ("lcsearch_host_pending", "gauge", "Requests that wait.", self._pending),
            ("lcsearch_host_studies_kept", "gauge", "Sets of finished trials kept.", len(self._kept)),
            ("lcsearch_host_kept_bytes", "gauge", "Their size, about.", self._kept.bytes),
            ("lcsearch_host_up_seconds", "gauge", "Since the host began.", round(time.monotonic() - self._began, 3)),
        ]
        lines = [f"# HELP {n} {text}\n# TYPE {n} {kind}\n{n} {value}" for n, kind, text, value in rows]
        name = "lcsearch_host_replies_total"
        lines.append(f"# HELP {name} Requests by how they were answered.\n# TYPE {name} counter")
        lines += [f'{name}{{status="{status}"}} {n}' for status, n in sorted(c.replies.items())]
        return "\n".join(lines) + "\n"
