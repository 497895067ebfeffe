"""A forecaster whose model is held by a host: the client of all three forms."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from lcsearch.errors import InvalidValue, in_words
from lcsearch.forecast.contract import Absent, Forecaster, Forecasts, Query
from lcsearch.forecast.network.begun import alongside
from lcsearch.host import wire
from lcsearch.host.in_process import Pretrained
from lcsearch.host.link import HostLate, HostTrouble, Link
from lcsearch.host.wire import Request
from lcsearch.in_time import NotInTime, in_time
from lcsearch.study import FinishedTrials, Snapshot, Trial
from lcsearch.terminal import one_line

DEADLINE_S = 5.0
"""Seconds that a host's answer is waited for; it takes milliseconds."""
IN_A_ROW = 3
"""So many requests without an answer, and forecasts are made in this process until the host is there again."""
AGAIN_S, LONGEST_S = 1.0, 4.0
"""After so long it is asked again, on the side; each time in vain it is twice as long, LONGEST_S at most."""
_STUDIES = 8  # whose finished trials are remembered to be at the host
_BUSY_S = 0.02

_log = logging.getLogger("lcsearch")
T = TypeVar("T")


@dataclass(frozen=True)
class _Sent:
    """What a host knows of a study: its finished trials, and the digests of the first n of them, n from 0 on."""

    bank: FinishedTrials
    digests: list[str]
    known: int


def _on_the_side(call: Callable[[], None]) -> None:
    threading.Thread(target=call, name="lcsearch looks for its host", daemon=True).start()


class Hosted:
    """The network, held by a host, asked from this process. Thread-safe; a copy may be sent to another process.

    A request without an answer (late, refused, no host, nonsense) leaves an absent forecast, which stops no trial.
    After IN_A_ROW of them `local` answers, the same weights in this process, until the host has answered again; so it
    does at once where the host holds other weights, or cannot be asked such a thing. Verdicts are the same whoever
    answers, within the forecaster's stated tolerance.

    Args:
        local: the weights that must answer, in this process.
        link: the way to the host.
        deadline: seconds after which an answer is not waited for any more, whatever the link does.
        clock: monotonic seconds.
        aside: runs what no look waits for.
    """

    def __init__(
        self,
        local: Pretrained,
        link: Link,
        deadline: float = DEADLINE_S,
        clock: Callable[[], float] = time.monotonic,
        aside: Callable[[Callable[[], None]], None] = _on_the_side,
    ) -> None:
        if not (deadline > 0 and math.isfinite(deadline)):
            raise InvalidValue("a finite number of seconds > 0", deadline, "deadline")
        self.local, self.link, self.deadline, self._clock, self._aside = local, link, deadline, clock, aside
        self.name = local.name
        self._begin()

    def _begin(self) -> None:
        self._lock, self._pid = threading.Lock(), os.getpid()
        self._sent: OrderedDict[Hashable, _Sent] = OrderedDict()
        self._failed = 0  # in a row
        self._looked = False
        self._again_at, self._pause = math.inf, AGAIN_S  # when a host that is away is asked again; and after that
        self.unanswered = 0

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in ("local", "link", "deadline", "_clock", "_aside", "name")}

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
        self._look()

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        """One row a query."""
        return self.forecast_each([(snapshot, queries)])[0]

    def forecast_each(self, asks: Sequence[tuple[Snapshot, Sequence[Query]]]) -> list[Forecasts]:
        """What `forecast` says of each; what is asked about one and the same study goes in one request."""
        self._look()
        with self._lock:
            away, due = self._failed >= IN_A_ROW, self._clock() >= self._again_at
            if away and due:
                self._again_at = math.inf  # one is enough
        if away:
            if due:
                self._aside(lambda: self._again(asks))
            return self._here(asks, None)
        try:
            found = self._in_time(lambda: self._asked(asks))
        except HostTrouble as trouble:
            self._count(trouble)
            if isinstance(trouble, _Refused):
                return self._here(asks, trouble)
            if isinstance(trouble, HostLate):
                sign = asks[0][0].goal.sign
                return [Forecasts.none([Absent.LATE] * len(q), sign=sign, source=self._source) for _, q in asks]
            raise
        self._failed = 0
        return found

    def _here(self, asks: Sequence[tuple[Snapshot, Sequence[Query]]], trouble: HostTrouble | None) -> list[Forecasts]:
        """What the local weights say, once they are loaded: no look waits for that."""
        if self.local.loaded:
            return self.local.forecast_each(asks)
        raise trouble or HostTrouble(f"no answer from {self.link.where}, and the network is being loaded here")

    def _load(self) -> None:
        with suppress(Exception):  # it is raised anew where it is asked
            self.local.prepare()

    @property
    def _source(self) -> str:
        return f"network/{self.version}"  # as the local ones have it

    def _in_time(self, call: Callable[[], T]) -> T:
        """What the call gives; whatever it raises is a host's trouble."""
        try:
            return in_time(self.deadline, f"lcsearch asks {self.link.where}", call)
        except NotInTime:
            raise HostLate(f"no answer from {self.link.where} within {self.deadline:g} s") from None
        except HostTrouble:
            raise
        except Exception as error:  # what cannot be asked there can be asked here
            raise _Refused(f"{self.link.where} cannot be asked: {one_line(in_words(error)[:300])}") from None

    def _look(self) -> None:
        """See at first whether the host is there."""
        if self._pid != os.getpid():  # a forked child begins anew: locks and connections were its parent's
            self._begin()
        with self._lock:
            looked, self._looked = self._looked, True
        if not looked:
            try:
                self._in_time(self._check)
            except HostTrouble as trouble:
                self._count(trouble, IN_A_ROW)
                self.local.prepare()

    def _check(self) -> None:
        said = self.link.about(self.deadline)
        if (model := said.get("model")) != self.version:
            text = f"{self.link.where} holds {one_line(str(model)[:80])!r}, and {self.version!r} is asked for"
            raise _Refused(text)

    def _again(self, asks: Sequence[tuple[Snapshot, Sequence[Query]]]) -> None:
        """Ask a host that is away what it is to answer; no look waits for it."""
        try:
            self._in_time(self._check)
            self._in_time(lambda: self._asked(asks))
        except HostTrouble:
            with self._lock:
                self._pause = min(2 * self._pause, LONGEST_S)
                self._again_at = self._clock() + self._pause
            return
        with self._lock:
            self._failed, self._pause = 0, AGAIN_S
        _log.warning("lcsearch: %s answers again", self.link.where)

    def _count(self, trouble: HostTrouble, n: int = 1) -> None:
        with self._lock:
            was, first = self._failed, self.unanswered == 0
            self._failed += IN_A_ROW if isinstance(trouble, _Refused) else n
            self.unanswered += 1
            begins = was < IN_A_ROW <= self._failed
            if begins:
                self._again_at = self._clock() + self._pause
        if first and not self.local.loaded and n < IN_A_ROW:
            self._aside(self._load)
        if begins:
            _log.warning("lcsearch: forecasts are made in this process until the host answers again: %s", trouble)

    def _asked(self, asks: Sequence[tuple[Snapshot, Sequence[Query]]]) -> list[Forecasts]:
        end = self._clock() + self.deadline
        groups: dict[tuple[object, ...], list[int]] = {}
        for i, (snapshot, _) in enumerate(asks):
            groups.setdefault((id(snapshot.bank), _ahead(snapshot), *map(id, alongside(snapshot))), []).append(i)
        found: list[Forecasts] = [Forecasts.none([])] * len(asks)
        for rows in groups.values():
            queries = [query for i in rows for query in asks[i][1]]
            whole, at = _joined([self._ask(asks[rows[0]][0], part, end) for part in _parts(queries)]), 0
            for i in rows:
                n = len(asks[i][1])
                found[i] = whole.rows(at, at + n)
                at += n
        return found

    def _ask(self, snapshot: Snapshot, queries: Sequence[Query], end: float) -> Forecasts:
        """One request's answer; finished trials that the host does not know are sent again, all of them."""
        sign, study = snapshot.goal.sign, snapshot.study
        asked: dict[int, Trial] = {}
        for query in queries:
            if id(query.trial) not in asked:
                asked[id(query.trial)] = wire.travelling(query.trial, sign, study)
        own = tuple(Query(asked[id(query.trial)], query.kind, float(query.step)) for query in queries)
        live = tuple(wire.travelling(trial, sign, study) for trial in alongside(snapshot))
        sent = self._of(snapshot)
        known, again = sent.known, False
        rest = [wire.travelling(snapshot.bank[i], sign, study) for i in range(known, len(snapshot.bank))]
        while True:
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
                live if last else (),
            )
            reply = self._send(wire.pack(request), end)
            if reply.status == wire.OK:
                self._keep(snapshot, replace(sent, known=then))
                known, rest = then, rest[len(trials) :]
                if not last:
                    continue
                try:
                    said = reply.body, len(queries), sign, self.version, request.bank, self._source
                    return wire.unpack_answer(*said)
                except InvalidValue as error:
                    raise HostTrouble(f"{self.link.where}: {one_line(str(error))}") from None
            if reply.status == wire.UNKNOWN_TRIALS and not again:
                known, again = 0, True
                rest = [wire.travelling(trial, sign, study) for trial in snapshot.bank]
                continue
            why = one_line(reply.body[:300].decode(errors="replace"))
            raise _KINDS.get(reply.status, HostTrouble)(f"{self.link.where} answers {reply.status}: {why}")

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


class _Refused(HostTrouble):
    """The host holds other weights, or will never answer such a request: the next one is no better."""


_KINDS: dict[int, type[HostTrouble]] = {
    wire.LATE: HostLate,
    wire.OTHER_MODEL: _Refused,
    wire.MALFORMED: _Refused,
    wire.TOO_LARGE: _Refused,
}


def _parts(queries: Sequence[Query]) -> list[Sequence[Query]]:
    """What goes in one request each, by number and by bytes; one without a query where there is none."""
    parts: list[list[Query]] = [[]]
    size = 0
    for query in queries:
        size += (more := wire.size_of(query.trial))
        if parts[-1] and (len(parts[-1]) == wire.MOST_QUERIES or size > wire.MOST_SENT):
            parts.append([])
            size = more
        parts[-1].append(query)
    return list(parts)


def _ahead(snapshot: Snapshot) -> float:
    return max((trial.curve.last_step for trial in snapshot.live), default=-math.inf)


def _joined(parts: Sequence[Forecasts]) -> Forecasts:
    if len(parts) == 1:
        return parts[0]
    knots, levels, tails = (np.concatenate([getattr(p, name) for p in parts]) for name in ("knots", "levels", "tails"))
    absent = tuple(reason for part in parts for reason in part.absent)
    return replace(parts[0], knots=knots, levels=levels, tails=tails, absent=absent)
