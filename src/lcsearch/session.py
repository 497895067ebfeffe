"""The imperative shell: asks forecasters for opinions, judges, keeps the overhead bounded, writes the log."""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lcsearch.decide.decision import Decision, Receipt
from lcsearch.decide.verdict import Reason
from lcsearch.decision_log import Sink
from lcsearch.engine.ask import Ask, Event, Hold, ask, held_decision
from lcsearch.engine.judge import Judgement, judge
from lcsearch.engine.policy import Policy
from lcsearch.errors import InvalidValue
from lcsearch.forecast.contract import Absent, Forecaster, Forecasts, Opinion
from lcsearch.study import Snapshot

_log = logging.getLogger("lcsearch")

REMEMBERED = 2000
"""Latest decisions kept in memory, one a trial."""
REPLAY_S = 5e-4
"""Mean seconds between looks, forecasts left out, below which no training can be going on."""


def _words(error: BaseException) -> str:
    """The error in words, even one that cannot be printed."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # somebody's __str__ is broken: no reason to end a trial
        return type(error).__name__


class Session:
    """Checks looks, one process's worth of state: counters, latencies, the latest decision of each trial.

    None of it changes what is decided, but for the throttle, and a throttled look is recorded as a hold.

    Args:
        policy: the knobs.
        forecasters: who is asked; a stop needs all of them.
        sink: takes a receipt for every look that reached a forecaster or a rule; None keeps none.
        deadline: seconds after which an answer counts as late; the work itself is not interrupted.
        overhead: forecasts may take this share of the time since the first look; math.inf: no throttle.
        allowance: seconds of forecasts before the share applies, so that short studies are not starved.
        clock: monotonic seconds.
        wall: seconds since the epoch.
    """

    def __init__(
        self,
        policy: Policy,
        forecasters: Sequence[Forecaster],
        sink: Sink | None = None,
        *,
        deadline: float = 5.0,
        overhead: float = 0.01,
        allowance: float = 3.0,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        names = [forecaster.name for forecaster in forecasters]
        if not names or len(set(names)) != len(names):
            raise InvalidValue("at least one forecaster, no name twice", names, "forecasters")
        if not deadline > 0 or not overhead > 0 or not allowance >= 0:
            raise InvalidValue("deadline > 0, overhead > 0, allowance >= 0", (deadline, overhead, allowance), "Session")
        self.policy, self.forecasters, self.sink = policy, tuple(forecasters), sink
        self._deadline, self._overhead, self._allowance = deadline, overhead, allowance
        self._clock, self._wall = clock, wall
        self._lock = threading.Lock()
        self._started: float | None = None
        self.forecast_seconds = 0.0
        self.reasons: Counter[Reason] = Counter()
        self.failed_open: Counter[str] = Counter()
        self.latest: OrderedDict[tuple[str, str], Decision] = OrderedDict()
        self._told: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        # A lock cannot be pickled; a monotonic clock means nothing in another process.
        del state["_lock"]
        state["_started"] = None
        state["forecast_seconds"] = 0.0
        # Counts are of one process, and what it remembers may be much.
        state.update(reasons=Counter(), failed_open=Counter(), latest=OrderedDict(), _told=set())
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def held(self, reason: Reason) -> None:
        """Count a look that a gate held before a snapshot was made."""
        with self._lock:
            self.reasons[reason] += 1
            if self._started is None:
                self._started = self._clock()

    def check(self, snapshot: Snapshot, event: Event) -> Judgement:
        """Decide one look. Thread-safe; forecasts run outside the lock."""
        with np.errstate(all="ignore"):  # whoever hunts NaN with np.seterr(all="raise") means his own code
            return self._check(snapshot, event)

    def _check(self, snapshot: Snapshot, event: Event) -> Judgement:
        start = self._clock()
        question = ask(self.policy, snapshot, event)
        errors: dict[str, str] = {}
        if isinstance(question, Ask) and not question.diverged and self._throttled(start):
            question = Hold(Reason.THROTTLED, standing=question.standing, incumbent=question.incumbent)
        if isinstance(question, Hold):
            judgement = Judgement(held_decision(snapshot, event, question))
        else:
            opinions = {} if question.diverged else self._opinions(snapshot, question, errors)
            judgement = judge(self.policy, snapshot, question, opinions)
        self._keep(judgement.decision, start, errors)
        return judgement

    def _throttled(self, now: float) -> bool:
        with self._lock:
            if self._started is None:
                self._started = now
            elapsed = now - self._started
            # Hardly any time between looks: stored curves are replayed, nothing is trained that could be slowed down.
            if elapsed - self.forecast_seconds < REPLAY_S * self.reasons.total():
                return False
            return self.forecast_seconds > self._allowance + self._overhead * elapsed

    def _opinions(self, snapshot: Snapshot, question: Ask, errors: dict[str, str]) -> dict[str, list[Opinion]]:
        """Every forecaster's answers; one that raises is DEAD, one that takes too long LATE."""
        heard: dict[str, list[Opinion]] = {}
        answers: list[Opinion]
        n = len(question.queries)
        for forecaster in self.forecasters:
            name, start = forecaster.name, self._clock()
            try:
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
            with self._lock:
                self.forecast_seconds += took
            heard[name] = answers
            if name in errors:
                self._tell(name, f"forecaster {name!r} gave no opinion, trials go on: {errors[name]}")
        return heard

    def _tell(self, key: str, message: str) -> None:
        """Warn once a key, in the log and not by a warning that a filter may turn into an exception."""
        with self._lock:
            new = key not in self._told
            self._told.add(key)
        if new:
            _log.warning("lcsearch: %s", message)

    def failed(self, what: str, error: BaseException) -> None:
        """Count a failure of lcsearch itself or of the storage; the trial goes on."""
        with self._lock:
            self.failed_open[what] += 1
        self._tell(f"{what}:{type(error).__name__}", f"{what} failed, the trial goes on: {_words(error)}")

    def _keep(self, decision: Decision, start: float, errors: dict[str, str]) -> None:
        with self._lock:
            self.reasons[decision.reason] += 1
            key = (decision.study, decision.trial)
            self.latest[key] = decision
            self.latest.move_to_end(key)
            if len(self.latest) > REMEMBERED:
                self.latest.popitem(last=False)
            if decision.reason.fails_open:
                self.failed_open["opinion"] += 1
        worth_keeping = decision.now is not None or decision.reason in (Reason.DIVERGED, Reason.THROTTLED)
        if self.sink is None or not worth_keeping:
            return
        latency = self._clock() - start
        try:
            models = {forecaster.name: forecaster.version for forecaster in self.forecasters}
            receipt = Receipt(decision, self._wall(), latency, socket.gethostname(), os.getpid(), models, errors)
            self.sink.write(receipt)
        except Exception as error:  # a full disk must not fail a trial
            self.failed("decision log", error)

    def tally(self) -> tuple[list[tuple[Reason, int]], list[tuple[str, int]]]:
        """Looks of this process by what held or decided them, and failures by what failed; most frequent first."""
        with self._lock:
            return self.reasons.most_common(), self.failed_open.most_common()

    @property
    def overhead_share(self) -> float:
        """Forecast seconds over seconds since the first look; NaN before it."""
        if self._started is None:
            return math.nan
        return self.forecast_seconds / max(self._clock() - self._started, 1e-9)
