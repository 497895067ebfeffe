"""A forecaster whose model is held by a host: the client of all three forms."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lcsearch.errors import InvalidValue
from lcsearch.forecast.contract import Absent, Forecaster, Forecasts, Query
from lcsearch.host import wire
from lcsearch.host.in_process import Pretrained
from lcsearch.host.link import HostLate, HostTrouble, Link
from lcsearch.host.wire import Request
from lcsearch.study import FinishedTrials, Snapshot, Trial
from lcsearch.terminal import tame

DEADLINE_S = 5.0
"""Seconds that a host's answer is waited for; it takes milliseconds."""
IN_A_ROW = 3
"""So many requests without an answer, and forecasts are made in this process until the host is there again."""
AGAIN_S = 1.0
"""How often it is looked for then."""
_LOOK_S = 0.5  # a host that is there tells about itself at once
_STUDIES = 8  # whose finished trials are remembered to be at the host
_BUSY_S = 0.02

_log = logging.getLogger("lcsearch")


@dataclass(frozen=True)
class _Sent:
    """What a host knows of a study: its finished trials, and the digests of the first n of them, n from 0 on."""

    bank: FinishedTrials
    digests: list[str]
    known: int


class Hosted:
    """The network, held by a host, asked from this process. Thread-safe; a copy may be sent to another process.

    A request without an answer (late, refused, no host, nonsense) leaves an absent forecast, which stops no trial.
    After IN_A_ROW of them `local` answers, the same weights in this process, until the host is there again; so it does
    at once where the host holds other weights. Verdicts are the same whoever answers, within the forecaster's stated
    tolerance.

    Args:
        local: the weights that must answer, in this process.
        link: the way to the host.
        deadline: seconds that an answer is waited for.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        local: Pretrained,
        link: Link,
        deadline: float = DEADLINE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not (deadline > 0 and math.isfinite(deadline)):
            raise InvalidValue("a finite number of seconds > 0", deadline, "deadline")
        self.local, self.link, self.deadline, self._clock = local, link, deadline, clock
        self.name = local.name
        self._begin()

    def _begin(self) -> None:
        self._lock, self._pid = threading.Lock(), os.getpid()
        self._sent: OrderedDict[Hashable, _Sent] = OrderedDict()
        self._failed = 0  # in a row
        self._look_at = -math.inf  # when the host is to be looked for again
        self.unanswered = 0

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in ("local", "link", "deadline", "_clock", "name")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    @property
    def version(self) -> str:
        """Of the weights, the host's and the local ones."""
        return self.local.version

    @property
    def stand_ins(self) -> Sequence[Forecaster]:
        """As of the local one."""
        return self.local.stand_ins

    def prepare(self) -> None:
        """Look for the host. Where there is none the local weights are loaded, so that no look waits for them.

        Raises:
            EnvironmentProblem: there is none, and they cannot be loaded either.
        """
        if self._away():
            self.local.prepare()

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        """One row a query."""
        return self.forecast_each([(snapshot, queries)])[0]

    def forecast_each(self, asks: Sequence[tuple[Snapshot, Sequence[Query]]]) -> list[Forecasts]:
        """What `forecast` says of each; what is asked about one and the same study goes in one request."""
        if self._away():
            return self.local.forecast_each(asks)
        end = self._clock() + self.deadline
        groups: dict[tuple[int, float], list[int]] = {}
        for i, (snapshot, _) in enumerate(asks):
            groups.setdefault((id(snapshot.bank), _ahead(snapshot)), []).append(i)
        found: list[Forecasts] = [Forecasts.none([])] * len(asks)
        try:
            for rows in groups.values():
                queries = [query for i in rows for query in asks[i][1]]
                some = [queries[i : i + wire.MOST_QUERIES] for i in range(0, len(queries), wire.MOST_QUERIES)]
                whole, at = _joined([self._ask(asks[rows[0]][0], part, end) for part in some or [[]]]), 0
                for i in rows:
                    n = len(asks[i][1])
                    found[i] = _rows(whole, at, at + n)
                    at += n
        except HostTrouble as trouble:
            self._count(trouble)
            if isinstance(trouble, _OtherModel):
                return self.local.forecast_each(asks)
            if isinstance(trouble, HostLate):
                sign = asks[0][0].goal.sign
                return [Forecasts.none([Absent.LATE] * len(q), sign=sign, source=self._source) for _, q in asks]
            raise
        self._failed = 0
        return found

    @property
    def _source(self) -> str:
        return f"{self.name}/{self.version}"

    def _away(self) -> bool:
        """Whether the local weights answer; the host is looked for at first, and while it is away now and then."""
        if self._pid != os.getpid():  # a forked child begins anew: locks and connections were its parent's
            self._begin()
        with self._lock:
            now, away = self._clock(), self._failed >= IN_A_ROW
            if now < self._look_at:
                return away
            self._look_at = now + AGAIN_S if away else math.inf
        try:
            model = self.link.about(min(_LOOK_S, self.deadline) if away else self.deadline).get("model")
            if model != self.version:
                raise _OtherModel(f"{self.link.where} holds {str(model)[:80]!r}, and {self.version!r} is asked for")
        except HostTrouble as trouble:
            self._count(trouble, IN_A_ROW)
            return True
        if away:
            _log.warning("lcsearch: %s answers again", self.link.where)
        self._failed = 0
        return False

    def _count(self, trouble: HostTrouble, n: int = 1) -> None:
        with self._lock:
            was = self._failed
            self._failed += IN_A_ROW if isinstance(trouble, _OtherModel) else n
            self.unanswered += 1
            if self._failed >= IN_A_ROW:
                self._look_at = self._clock() + AGAIN_S
        if was < IN_A_ROW <= self._failed:
            _log.warning("lcsearch: forecasts are made in this process until the host answers again: %s", trouble)

    def _ask(self, snapshot: Snapshot, queries: Sequence[Query], end: float) -> Forecasts:
        """One request's answer; finished trials that the host does not know are sent again, all of them."""
        sign, study = snapshot.goal.sign, snapshot.study
        asked: dict[int, Trial] = {}
        for query in queries:
            if id(query.trial) not in asked:
                asked[id(query.trial)] = wire.travelling(query.trial, sign, study)
        own = tuple(Query(asked[id(query.trial)], query.kind, float(query.step)) for query in queries)
        sent = self._of(snapshot)
        known, again = sent.known, False
        while True:
            rest = [wire.travelling(snapshot.bank[i], sign, study) for i in range(known, len(snapshot.bank))]
            trials = wire.some(rest)
            then = known + len(trials)
            last = then == len(snapshot.bank)
            request = Request(
                self.version,
                study,
                float(snapshot.goal.horizon),
                snapshot.goal.judged,
                _ahead(snapshot),
                sent.digests[known],
                sent.digests[then],
                tuple(trials),
                own if last else (),
                end - self._clock(),
            )
            reply = self._send(wire.pack(request), end)
            if reply.status == wire.OK and last:
                self._keep(snapshot, replace(sent, known=then))
                try:
                    return wire.unpack_answer(reply.body, len(queries), sign, self.version)
                except InvalidValue as error:
                    raise HostTrouble(f"{self.link.where}: {error}") from None
            if reply.status == wire.OK:
                known = then
            elif reply.status == wire.UNKNOWN_TRIALS and not again:
                known, again = 0, True
            else:
                said = tame(reply.body[:300].decode(errors="replace"))
                kind = {wire.OTHER_MODEL: _OtherModel, wire.LATE: HostLate}.get(reply.status, HostTrouble)
                raise kind(f"{self.link.where} answers {reply.status}: {said}")

    def _send(self, body: bytes, end: float) -> wire.Reply:
        """The host's reply; a busy host is asked again as long as there is time."""
        pause = _BUSY_S
        while True:
            left = end - self._clock()
            if left <= 0:
                raise HostLate(f"{self.link.where} is busy")
            reply = self.link.send(body, left)
            if reply.status != wire.BUSY:
                return reply
            time.sleep(min(pause, max(end - self._clock(), 0)))
            pause *= 2

    def _of(self, snapshot: Snapshot) -> _Sent:
        """What is known of the study's finished trials, with the digest of every part of them."""
        bank, goal = snapshot.bank, snapshot.goal
        with self._lock:
            kept = self._sent.get(snapshot.key)
        if kept is None or not (bank.extends(kept.bank) or kept.bank.extends(bank)):
            kept = _Sent(bank, [wire.first_digest(snapshot.study, goal)], 0)
        n = len(kept.digests) - 1
        if n < len(bank):
            new = (wire.travelling(bank[i], goal.sign, snapshot.study) for i in range(n, len(bank)))
            kept = _Sent(bank, kept.digests + wire.digests(kept.digests[-1], new), kept.known)
            self._keep(snapshot, kept)
        elif n > len(bank):  # a view of an earlier moment
            kept = _Sent(bank, kept.digests[: len(bank) + 1], min(kept.known, len(bank)))
        return kept

    def _keep(self, snapshot: Snapshot, sent: _Sent) -> None:
        with self._lock:
            kept = self._sent.get(snapshot.key)
            if kept is None or not kept.bank.extends(sent.bank) or len(kept.digests) == len(sent.digests):
                self._sent[snapshot.key] = sent  # else another thread was faster, with more of them
            self._sent.move_to_end(snapshot.key)
            if len(self._sent) > _STUDIES:
                self._sent.popitem(last=False)


class _OtherModel(HostTrouble):
    """The host holds other weights."""


def _ahead(snapshot: Snapshot) -> float:
    return max((trial.curve.last_step for trial in snapshot.live), default=-math.inf)


def _joined(parts: Sequence[Forecasts]) -> Forecasts:
    if len(parts) == 1:
        return parts[0]
    knots, levels, tails = (np.concatenate([getattr(p, name) for p in parts]) for name in ("knots", "levels", "tails"))
    absent = tuple(reason for part in parts for reason in part.absent)
    return replace(parts[0], knots=knots, levels=levels, tails=tails, absent=absent)


def _rows(whole: Forecasts, start: int, stop: int) -> Forecasts:
    at = slice(start, stop)
    return replace(
        whole, knots=whole.knots[at], levels=whole.levels[at], tails=whole.tails[at], absent=whole.absent[at]
    )
