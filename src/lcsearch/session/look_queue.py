"""Looks that are judged on a thread, for frameworks whose loop must not wait, and receipts that it writes."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from lcsearch.stopping.decision import Receipt
from lcsearch.stopping.gates import Ask, Event
from lcsearch.stopping.judge import Judgement
from lcsearch.stopping.verdict import Verdict
from lcsearch.study import Snapshot

IDLE_S = 2.0
"""The thread ends when it had nothing to do for so long."""


class Look(NamedTuple):
    """A submitted look that no forecaster has seen yet."""

    snapshot: Snapshot
    event: Event
    question: Ask
    start: float


class Judged(NamedTuple):
    """A submitted look that is judged, and not yet handed out; `snapshot` is what it was judged on."""

    judgement: Judgement
    latency: float
    errors: dict[str, str]
    snapshot: Snapshot | None = None

    @property
    def stops(self) -> bool:
        """Did it come to a stop?"""
        return self.judgement.decision.verdict is Verdict.STOP


class Judge(Protocol):
    """Who judges the looks of a queue and takes what comes of them; called by the queue's thread among others."""

    def judge_all(self, looks: Sequence[Look]) -> list[Judged]:
        """Judge looks together, in their order."""
        ...

    def drop(self, look: Look | Judged) -> None:
        """Take note of a look that a later one, or the trial's end, has overtaken."""
        ...

    def write(self, receipt: Receipt) -> None:
        """Write a receipt; never raises."""
        ...

    def failed(self, what: str, error: BaseException) -> None:
        """Count a failure."""
        ...


def _write_all(queue: weakref.ref[LookQueue]) -> None:
    """At the interpreter's end, which does not wait for the thread."""
    if (known := queue()) is not None:
        known.write_all()


class LookQueue:
    """At most one look of a trial waits; all that wait are judged together. Thread-safe, never pickled.

    Args:
        judge: who judges, and hears of what was dropped. Nothing of his is called under the queue's lock.
    """

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._lock = threading.Lock()
        self._news = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._waiting: OrderedDict[str, Look] = OrderedDict()
        self._busy: frozenset[str] = frozenset()
        self._stale: set[str] = set()  # of the busy ones
        self._done: OrderedDict[str, Judged] = OrderedDict()
        self._outbox: deque[Receipt] = deque()  # a disk may be slow
        self._writing = False
        atexit.register(_write_all, weakref.ref(self))  # once: the thread comes and goes

    @property
    def thread(self) -> threading.Thread | None:
        """The thread, while there is one."""
        return self._thread

    @property
    def unfetched(self) -> list[str]:
        """The trials whose looks are judged and not handed out yet, oldest first."""
        with self._lock:
            return list(self._done)

    def put(self, look: Look) -> None:
        """Let a look wait, in the place of the trial's older one; not while a stop of the trial is to be fetched."""
        uid = look.event.trial.uid
        with self._lock:
            stopped = uid in self._done and self._done[uid].stops
            old = look if stopped else self._waiting.get(uid)
            if not stopped:
                self._waiting[uid] = look
                self._wake()
        if old is not None:
            self._judge.drop(old)

    def put_judged(self, uid: str, judged: Judged) -> None:
        """A look that needed no forecast is judged: it takes the place of all others of the trial."""
        self.withdraw(uid)
        with self._lock:
            self._done[uid] = judged

    def withdraw(self, uid: str) -> None:
        """Take back what the looks of a trial have under way: it has ended."""
        with self._lock:
            waiting, done = self._waiting.pop(uid, None), self._done.pop(uid, None)
            if uid in self._busy:
                self._stale.add(uid)
        for look in (waiting, done):
            if look is not None:
                self._judge.drop(look)

    def next_judged(self, ready: Callable[[str], bool]) -> tuple[str, Judged] | None:
        """The oldest that is judged, out of the queue; stops only of trials that are `ready` for one. None: no more."""
        with self._lock:
            for uid, judged in self._done.items():
                if not judged.stops or ready(uid):
                    del self._done[uid]
                    return uid, judged
        return None

    def settle(self, uid: str, timeout: float | None) -> bool:
        """Wait until the trial's look is judged; False when `timeout` seconds did not suffice."""
        with self._lock:
            return self._news.wait_for(lambda: uid not in self._waiting and uid not in self._busy, timeout)

    def wait(self, timeout: float | None) -> bool:
        """Wait until every look is judged and every receipt written; False when `timeout` seconds did not suffice."""

        def idle() -> bool:
            return not (self._waiting or self._busy or self._outbox or self._writing)

        with self._lock:
            return self._news.wait_for(idle, timeout)

    def write_later(self, receipt: Receipt) -> None:
        """Have the thread write a receipt."""
        with self._lock:
            self._outbox.append(receipt)
            self._wake()

    def write_all(self) -> None:
        """Write what waits to be written."""
        while True:
            with self._lock:
                self._writing = bool(self._outbox)
                if not self._outbox:
                    return
                receipt = self._outbox.popleft()
            self._judge.write(receipt)

    def _wake(self) -> None:
        """See to it that the thread works; needs the lock."""
        if self._thread is None or not self._thread.is_alive():  # a fork leaves threads behind
            self._busy = frozenset()
            self._thread = threading.Thread(target=self._work, name="lcsearch looks", daemon=True)
            self._thread.start()
        self._news.notify_all()

    def _work(self) -> None:
        """The thread: judge what waits, end when nothing has come for a while."""
        while True:
            self.write_all()
            with self._lock:
                self._news.notify_all()
                if not self._waiting and not self._outbox:
                    self._news.wait(IDLE_S)
                if self._outbox:
                    continue
                if not self._waiting:
                    self._thread = None
                    return
                looks = dict(self._waiting)
                self._waiting.clear()
                self._busy, self._stale = frozenset(looks), set()
            judged: list[Judged] = []
            try:
                judged = self._judge.judge_all(list(looks.values()))
            except BaseException as error:  # neither a bug of ours nor a panic of a library may end the thread
                self._judge.failed("look", error)
            for look in self._take_in(dict(zip(looks, judged, strict=False))):
                self._judge.drop(look)
            with self._lock:
                self._busy = frozenset()
                self._news.notify_all()

    def _take_in(self, judged: dict[str, Judged]) -> list[Look | Judged]:
        """Let those that are judged wait to be handed out; returns what they have made idle."""
        lost: list[Look | Judged] = []
        with self._lock:
            for uid, one in judged.items():
                if uid in self._stale:
                    lost.append(one)
                    continue
                if uid in self._done:  # an earlier one that nobody has fetched
                    lost.append(self._done.pop(uid))
                self._done[uid] = one
                if one.stops and uid in self._waiting:  # a stop needs no further look
                    lost.append(self._waiting.pop(uid))
        return lost
