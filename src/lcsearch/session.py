"""The imperative shell: asks forecasters for opinions, judges, writes the log. No clock decides which looks are made.

`check` decides a look at once (Optuna, simulators); `submit` and `poll` decide it on a thread (Ray, whose loop must not
wait). Both go the same way: gates, opinions, judgement.
"""

from __future__ import annotations

import atexit
import logging
import math
import os
import socket
import threading
import time
import weakref
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from lcsearch.decide.decision import Decision, Receipt
from lcsearch.decide.verdict import Reason, Verdict
from lcsearch.decision_log import DecisionLog, Sink
from lcsearch.engine.ask import Ask, Event, Hold, ask, held_decision
from lcsearch.engine.axis import ENOUGH
from lcsearch.engine.judge import Judgement, fallen, judge, revoked
from lcsearch.engine.notices import notices
from lcsearch.engine.policy import Policy
from lcsearch.errors import InvalidValue, is_finite_number
from lcsearch.forecast.contract import Absent, Forecaster, Forecasts, Opinion
from lcsearch.host.registry import forecasters
from lcsearch.study import Bank, Snapshot

_log = logging.getLogger("lcsearch")

DEADLINE_S = 30.0
"""A forecast takes milliseconds; what takes so long on the busiest machine is stuck."""
LOADING_S = 120.0
"""Importing torch and reading weights takes a second or two, on a busy machine many."""
REMEMBERED = 2000
"""Latest decisions kept in memory, one a trial."""
IDLE_S = 2.0
"""The thread of submitted looks ends when it had nothing to do for so long."""
OUTGROWN = 1.5
"""What was named once is told again when it has become so many times larger."""
_STORING = "record of a stop"
_LOOKS = (
    "_thread",
    "_waiting",
    "_busy",
    "_stale",
    "_stuck",
    "_loaded",
    "_done",
    "_threaded",
    "_outbox",
    "_writing",
    "_under_way",
)


class _Waiting(NamedTuple):
    """A submitted look that no forecaster has seen yet."""

    snapshot: Snapshot
    event: Event
    question: Ask
    start: float


class _Done(NamedTuple):
    """A submitted look that is judged, and not yet handed out."""

    judgement: Judgement
    latency: float
    errors: dict[str, str]

    @property
    def stops(self) -> bool:
        """Did it come to a stop?"""
        return self.judgement.decision.verdict is Verdict.STOP


def _words(error: BaseException) -> str:
    """The error in words, even one that cannot be printed."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # somebody's __str__ is broken: no reason to end a trial
        return type(error).__name__


def _write_all(session: weakref.ref[Session]) -> None:
    """At the interpreter's end, which does not wait for the thread."""
    if (known := session()) is not None:
        known._write_all()


class Session:
    """Checks looks, one process's worth of state: counters, latencies, the latest decision of each trial.

    None of it changes what is decided, but for an answer that comes after the deadline, which is counted and told.

    Args:
        policy: the knobs.
        forecasters: who is asked; a stop needs all of them.
        sink: takes a receipt for every look that reached a forecaster or a rule; None keeps none.
        deadline: seconds after which an answer counts as late; the work itself is not interrupted.
        clock: monotonic seconds.
        wall: seconds since the epoch.
    """

    def __init__(
        self,
        policy: Policy,
        forecasters: Sequence[Forecaster],
        sink: Sink | None = None,
        *,
        deadline: float = DEADLINE_S,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        names = [forecaster.name for forecaster in forecasters]
        if not names or len(set(names)) != len(names):
            raise InvalidValue("at least one forecaster, no name twice", names, "forecasters")
        if not deadline > 0:
            raise InvalidValue("a number of seconds > 0", deadline, "deadline")
        self.policy, self.forecasters, self.sink = policy, tuple(forecasters), sink
        self._deadline = deadline
        self._clock, self._wall = clock, wall
        self.forecast_seconds = 0.0
        self.reasons: Counter[Reason] = Counter()
        self.failed_open: Counter[str] = Counter()
        # by study (what tells it apart, see Snapshot.key) and trial
        self.latest: OrderedDict[tuple[Hashable, str], Decision] = OrderedDict()
        self.lowest: dict[tuple[Hashable, str], tuple[Decision, int]] = {}  # lowest P(beat), and of how many
        self._told: dict[str, float] = {}  # the number that was named
        self._noticed: dict[Hashable, tuple[int, float]] = {}  # COMPLETE trials, and where they ended
        self._begin()

    def _begin(self) -> None:
        """What belongs to one process and is never pickled: lock, thread, and the looks under way."""
        self._lock = threading.Lock()
        self._news = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._waiting: OrderedDict[str, _Waiting] = OrderedDict()
        self._busy: str | None = None
        self._stale = self._stuck = self._loaded = False
        self._done: OrderedDict[str, _Done] = OrderedDict()
        self._threaded = self._writing = False
        self._outbox: deque[Receipt] = deque()  # what the thread is to write; a disk may be slow
        self._under_way = (os.getpid(), 0, 0.0)  # forecasts, and until when their time is counted

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        # A monotonic clock means nothing in another process; a look under way is repeated at the trial's next report.
        for name in ("_lock", "_news", *_LOOKS):
            del state[name]
        state["forecast_seconds"] = 0.0
        # Counts are of one process, and what it remembers may be much.
        state.update(reasons=Counter(), failed_open=Counter(), latest=OrderedDict(), lowest={}, _told={}, _noticed={})
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({"lowest": {}} | state | {"_told": {}, "_noticed": {}})  # earlier versions' differ
        self._begin()

    def held(self, reason: Reason) -> None:
        """Count a look that a gate held before a snapshot was made."""
        with self._lock:
            self.reasons[reason] += 1

    def notice(self, study: Hashable, bank: Bank, snapshot: Callable[[], Snapshot]) -> None:
        """Tell what finished trials say about how the study was set up, once each, and again when a number that was
        named is outgrown by half; looks anew when they have doubled, or one has gone so much further.

        Args:
            study: what a process remembers it by.
            bank: its finished trials.
            snapshot: the study as it stands; asked for only then.
        """
        n = bank.n_complete
        with self._lock:
            last, end = self._noticed.get(study, (0, 0.0))
            if n < ENOUGH or (last <= n < 2 * last and bank.end < OUTGROWN * end):
                return
            self._noticed[study] = n, bank.end
        with np.errstate(all="ignore"):
            for notice in notices(snapshot()):
                self._tell(f"{study}: {notice.key}", notice.text, notice.number)

    def check(
        self, snapshot: Snapshot, event: Event, commit: Callable[[Judgement], Judgement] | None = None
    ) -> Judgement:
        """Decide one look. Thread-safe; forecasts run outside the lock.

        Args:
            snapshot: the study as it stands.
            event: the look.
            commit: takes a stop, records it where other looks will find it, and says what came of that: what protects
                a trial may have changed while forecasts were made. Where it raises, the trial goes on.
        """
        with np.errstate(all="ignore"):  # whoever hunts NaN with np.seterr(all="raise") means his own code
            return self._check(snapshot, event, commit)

    def _check(self, snapshot: Snapshot, event: Event, commit: Callable[[Judgement], Judgement] | None) -> Judgement:
        start = self._clock()
        question = ask(self.policy, snapshot, event)
        errors: dict[str, str] = {}
        judgement = self._decide(snapshot, event, question, errors)
        if commit is not None and judgement.decision.verdict is Verdict.STOP:
            try:
                judgement = commit(judgement)
            except Exception as error:  # a stop that leaves no mark could not be explained, nor counted in the risk
                self._tell(
                    f"{_STORING}:{type(error).__name__}", f"{_STORING} failed, the trial goes on: {_words(error)}"
                )
                judgement = revoked(judgement, Reason.UNRECORDED)
        self._keep(judgement.decision, self._clock() - start, errors, snapshot.key)
        return judgement

    def _decide(self, snapshot: Snapshot, event: Event, question: Ask | Hold, errors: dict[str, str]) -> Judgement:
        if isinstance(question, Hold):
            return Judgement(held_decision(snapshot, event, question))
        opinions = {} if question.diverged else self._opinions(snapshot, question, errors)
        return judge(self.policy, snapshot, question, opinions)

    def submit(self, snapshot: Snapshot, event: Event) -> None:
        """Begin a look and return at once; :meth:`poll` hands out what came of it. Thread-safe.

        Gates are passed here, forecasts are made on a thread of this session, one trial after the other. At most one
        look of a trial waits: a newer one takes its place. None is begun while a stop of the trial is to be fetched.
        """
        if not self._threaded:
            self._threaded = True
            atexit.register(_write_all, weakref.ref(self))  # once: the thread comes and goes
        with np.errstate(all="ignore"):
            start = self._clock()
            question = ask(self.policy, snapshot, event)
            uid = event.trial.uid
            if isinstance(question, Ask) and not question.diverged:
                look = _Waiting(snapshot, event, question, start)
                with self._lock:
                    stopped = uid in self._done and self._done[uid].stops
                    old = look if stopped else self._waiting.get(uid)
                    if not stopped:
                        self._waiting[uid] = look  # in the old one's place
                        self._wake()
                if old is not None:
                    self._overtaken(old)
                return
            judgement = self._decide(snapshot, event, question, {})
            if isinstance(question, Hold):
                self._keep(judgement.decision, self._clock() - start, {})
                return
            self.withdraw(uid)
            with self._lock:
                self._done[uid] = _Done(judgement, self._clock() - start, {})

    def _wake(self) -> None:
        """See to it that the thread works; needs the lock."""
        if self._thread is None or not self._thread.is_alive():  # a fork leaves threads behind
            self._busy = None
            self._thread = threading.Thread(target=self._work, name="lcsearch looks", daemon=True)
            self._thread.start()
        self._news.notify_all()

    def _work(self) -> None:
        """The thread: judge what waits, end when nothing has come for a while."""
        while True:
            self._write_all()
            with self._lock:
                self._news.notify_all()
                if not self._waiting and not self._outbox:
                    self._news.wait(IDLE_S)
                if self._outbox:
                    continue
                if not self._waiting:
                    self._thread = None
                    return
                uid, look = self._waiting.popitem(last=False)
                self._busy, self._stale = uid, False
            begun = self._clock()
            done, overtaken = None, None
            errors: dict[str, str] = {}
            try:
                with np.errstate(all="ignore"):
                    judgement = self._decide(look.snapshot, look.event, look.question, errors)
                done = _Done(judgement, self._clock() - look.start, errors)
            except BaseException as error:  # neither a bug of ours nor a panic of a library may end the thread
                self.failed("look", error)
            with self._lock:
                lost = done
                if done is not None and not self._stale:
                    lost = self._done.pop(uid, None)  # an earlier one that nobody has fetched
                    self._done[uid] = done
                    overtaken = self._waiting.pop(uid, None) if done.stops else None  # a stop needs no further look
            if lost is not None:
                self._drop(lost)
            if overtaken is not None:
                self._overtaken(overtaken)
            with self._lock:
                self._busy = None
                self._stuck = self._stuck and self._clock() - begun > self._deadline
                self._news.notify_all()

    def _overtaken(self, look: _Waiting) -> None:
        """Record a look that no forecaster was asked about."""
        hold = Hold(Reason.OVERTAKEN, standing=look.question.standing, incumbent=look.question.incumbent)
        self._keep(held_decision(look.snapshot, look.event, hold), self._clock() - look.start, {})

    def _drop(self, done: _Done, reason: Reason = Reason.OVERTAKEN) -> None:
        """Record a look that was judged and will not be carried out."""
        decision = replace(done.judgement.decision, verdict=Verdict.CONTINUE, reason=reason)
        self._keep(decision, done.latency, done.errors)

    def withdraw(self, uid: str) -> None:
        """Take back what the looks of a trial have under way: it has ended."""
        with self._lock:
            waiting, done = self._waiting.pop(uid, None), self._done.pop(uid, None)
            self._stale = self._stale or self._busy == uid
        if waiting is not None:
            self._overtaken(waiting)
        if done is not None:
            self._drop(done)

    def poll(
        self, present: Callable[[], Snapshot], ready: Callable[[str], bool] = lambda uid: True
    ) -> Iterator[Judgement]:
        """Judgements of submitted looks, oldest first, each handed out once, as far as they go without waiting.

        A stop is handed out when it stands on the study as it is then, see :func:`~lcsearch.engine.judge.fallen`, and
        counts as carried out; whoever carries it out stores its mark before he asks for the next.

        Args:
            present: the study as it stands, with the marks of all stops that were handed out.
            ready: whether a stop of this trial could be carried out now; those of others wait.
        """
        while self._done:
            with self._lock:
                uids = (uid for uid, done in self._done.items() if not done.stops or ready(uid))
                uid = next(uids, None)
                if uid is None:
                    return
                done = self._done.pop(uid)
            if done.stops:
                snapshot = present()
                trial = next((trial for trial in snapshot.live if trial.uid == uid), None)
                with np.errstate(all="ignore"):
                    gone = trial is None or fallen(self.policy, snapshot, trial, done.judgement)
                if gone:
                    self._drop(done, gone if isinstance(gone, Reason) else Reason.OVERTAKEN)
                    continue
            self._keep(done.judgement.decision, done.latency, done.errors)
            yield done.judgement

    def settle(self, uid: str) -> bool:
        """Wait until the look of a trial that was submitted is judged, so that a stop comes at the report it is due at,
        however busy the machine is; False when the deadline passed first. Loading a model is waited for apart, longer.

        Then nobody waits again until the forecaster that is stuck has answered in time; its looks are acted on when
        they come, and counted as late.
        """

        def settled() -> bool:
            return uid not in self._waiting and self._busy != uid

        with self._lock:
            if self._stuck:
                return settled()
            self._news.wait_for(lambda: settled() or self._loaded, LOADING_S)
            done = self._news.wait_for(settled, self._deadline)
            self._stuck = not done
        if not done:
            self.failed("waiting for a forecast", TimeoutError(f"no answer within {self._deadline:g} s"))
        return done

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until every submitted look is judged and written; False when `timeout` seconds did not suffice."""

        def idle() -> bool:
            return not self._waiting and self._busy is None and not self._outbox and not self._writing

        with self._lock:
            return self._news.wait_for(idle, timeout)

    def _opinions(self, snapshot: Snapshot, question: Ask, errors: dict[str, str]) -> dict[str, list[Opinion]]:
        """Every forecaster's answers; one that raises is DEAD, one that takes too long LATE."""
        heard: dict[str, list[Opinion]] = {}
        answers: list[Opinion]
        n = len(question.queries)
        for forecaster in self._ready():
            name, start = forecaster.name, self._clock()
            try:
                with self._forecasting():
                    forecasts = forecaster.forecast(snapshot, question.queries)
                if not isinstance(forecasts, Forecasts):
                    raise InvalidValue("Forecasts", type(forecasts).__name__, f"{name}.forecast")
                if len(forecasts) != n:
                    raise InvalidValue(f"{n} forecasts", len(forecasts), f"{name}.forecast")
                answers = [forecasts.opinion(i) for i in range(n)]
            except Exception as error:  # whatever a model does, the study goes on
                errors[name] = _words(error)
                answers = [Absent.DEAD] * n
            took = self._clock() - start
            if took > self._deadline:
                errors.setdefault(name, f"took {took:.3g} s, deadline {self._deadline:g} s")
                answers = [Absent.LATE] * n
            heard[name] = answers
            if name in errors:
                self._tell(name, f"forecaster {name!r} gave no opinion, trials go on: {errors[name]}")
        return heard

    @contextmanager
    def _forecasting(self) -> Iterator[None]:
        """Count the time as that of forecasts; what several threads spend in here together, once.

        One of them works, the others wait for it: for a forecaster's lock, or for Python's.
        """
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def _count(self, more: int) -> None:
        with self._lock:
            now, pid = self._clock(), os.getpid()
            before, n, since = self._under_way
            if before != pid:  # a fork leaves threads behind
                n = 0
            if n > 0:
                self.forecast_seconds += now - since
            self._under_way = (pid, max(n + more, 0), now)

    def _ready(self) -> tuple[Forecaster, ...]:
        """Who is asked. One that must load a model does so first: that is no forecast, neither late nor overhead.

        Where it cannot be loaded and has stand-ins, they take its place for good. Without any it is asked all the same,
        and raises.
        """
        for forecaster in self.forecasters:
            try:
                getattr(forecaster, "prepare", int)()
            except Exception as error:  # whatever a model does, the study goes on
                others = [f for f in self.forecasters if f is not forecaster]
                known = {f.name for f in others}
                new = [f for f in getattr(forecaster, "stand_ins", ()) if f.name not in known]
                if new:
                    self.forecasters = (*others, *new)
                    who = " and ".join(f.name for f in self.forecasters)
                    self._tell(
                        forecaster.name, f"forecasts are made by {who}, without {forecaster.name!r}: {_words(error)}"
                    )
        with self._lock:
            self._loaded = True
            self._news.notify_all()
        return self.forecasters

    def _tell(self, key: str, message: str, number: float = math.nan) -> None:
        """Warn once a key, in the log and not by a warning that a filter may turn into an exception; again where the
        number that was named is outgrown."""
        with self._lock:
            new = key not in self._told or number >= OUTGROWN * self._told[key]
            if new:
                self._told[key] = number
        if new:
            _log.warning("lcsearch: %s", message)

    def failed(self, what: str, error: BaseException) -> None:
        """Count a failure of lcsearch itself or of the storage; the trial goes on."""
        with self._lock:
            self.failed_open[what] += 1
        self._tell(f"{what}:{type(error).__name__}", f"{what} failed, the trial goes on: {_words(error)}")

    def _keep(self, decision: Decision, latency: float, errors: dict[str, str], study: Hashable = None) -> None:
        with self._lock:
            self.reasons[decision.reason] += 1
            key = (study or decision.study, decision.trial)
            before = self.latest.get(key)
            if before is None or decision.reason is not Reason.SPACED:  # what was said last says more
                self.latest[key] = decision
                self.latest.move_to_end(key)
            if decision.now is not None and decision.now.p is not None:
                lowest, n = self.lowest.get(key, (decision, 0))
                nearer = lowest.now is None or lowest.now.p is None or decision.now.p < lowest.now.p
                self.lowest[key] = (decision if nearer else lowest, n + 1)
            if len(self.latest) > REMEMBERED:
                self.lowest.pop(self.latest.popitem(last=False)[0], None)
            if decision.reason.fails_open:
                late = any(
                    why == Absent.LATE.name for look in (decision.now, decision.before) if look for _, why in look.heard
                )
                what = "late opinion" if late else "opinion"  # the one thing that hangs on a clock has its own name
                self.failed_open[what if decision.reason is Reason.ABSENT else _STORING] += 1
        # Of looks in a row that were overtaken the first is written: thousands say no more.
        unjudged = decision.now is None and decision.reason is Reason.OVERTAKEN
        repeated = unjudged and before is not None and before.reason is decision.reason
        judged = decision.now is not None or decision.reason is Reason.DIVERGED
        if self.sink is None or repeated or not (unjudged or judged):
            return
        try:
            models = {forecaster.name: forecaster.version for forecaster in self.forecasters}
            receipt = Receipt(decision, self._wall(), latency, socket.gethostname(), os.getpid(), models, errors)
        except Exception as error:  # a version that cannot be read
            self.failed("decision log", error)
            return
        if self._threaded:
            with self._lock:
                self._outbox.append(receipt)
                self._wake()
        else:
            self._write(receipt)

    def _write(self, receipt: Receipt) -> None:
        try:
            if self.sink is not None:
                self.sink.write(receipt)
        except Exception as error:  # a full disk must not fail a trial
            self.failed("decision log", error)

    def _write_all(self) -> None:
        """Write what waits to be written."""
        while True:
            with self._lock:
                self._writing = bool(self._outbox)
                if not self._outbox:
                    return
                receipt = self._outbox.popleft()
            self._write(receipt)

    def tally(self) -> tuple[list[tuple[Reason, int]], list[tuple[str, int]]]:
        """Looks of this process by what held or decided them, and failures by what failed; most frequent first."""
        with self._lock:
            return self.reasons.most_common(), self.failed_open.most_common()


def session_of(
    policy: Policy,
    opinions: Sequence[Forecaster | str] | Forecaster | str | None,
    decision_log: str | os.PathLike[str] | None,
    max_overhead: float | None,
) -> Session:
    """A session from what adapters are given; see their arguments of these names.

    Raises:
        InvalidValue: `max_overhead` is not above 0, or `opinions` names no forecaster.
    """
    if max_overhead == math.inf:
        policy = replace(policy, look_growth=1)
    elif max_overhead is not None and not (is_finite_number(max_overhead) and max_overhead > 0):
        raise InvalidValue("a number > 0", max_overhead, "max_overhead")
    sink = None if decision_log is None else DecisionLog(decision_log)
    return Session(policy, forecasters(opinions), sink)
