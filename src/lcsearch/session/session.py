"""The imperative shell: passes looks through gates, panel and judge, counts, writes the log. No clock decides which
looks are made.

`check` decides a look at once (Optuna, simulators); `submit` and `poll` decide it on a thread (Ray, whose loop must not
wait). Both go the same way: gates, forecasts, judgement.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lcsearch.allocation.ask import AllocationAsk
from lcsearch.allocation.contract import Abilities, Allocation, Allocator, Key, Slots
from lcsearch.errors import InvalidValue, in_words, is_finite_number
from lcsearch.forecast.contract import Absent, Forecaster
from lcsearch.host.registry import Named, renamed, resolve_forecasters
from lcsearch.proposal import OWN, Proposal, Proposer
from lcsearch.session import audit_file
from lcsearch.session.allocations import Allocated, Allocations
from lcsearch.session.decision_log import DecisionLog, Sink, read_log
from lcsearch.session.look_queue import Judged, Look, LookQueue
from lcsearch.session.panel import DEADLINE_S, Panel
from lcsearch.session.tally import Tallies
from lcsearch.stopping.audit import PROMISED, Audits, audits_of, tracked
from lcsearch.stopping.axis import ENOUGH, odd_axis
from lcsearch.stopping.calibration import Calibration, Outcome, outcomes_of
from lcsearch.stopping.decision import Decision, Receipt
from lcsearch.stopping.gates import Ask, Event, GateHold, ask, early_gates, held_decision
from lcsearch.stopping.judge import Judgement, judge, revoked, stop_invalidated_by, with_threshold
from lcsearch.stopping.notices import AXIS, FEW, Notice, notices
from lcsearch.stopping.policy import Policy
from lcsearch.stopping.risk import StopRecord
from lcsearch.stopping.seen import Seen
from lcsearch.stopping.verdict import Reason, Verdict
from lcsearch.study import FinishedTrials, Snapshot, Trial
from lcsearch.weights.certificate import certificate_for, quoted

_log = logging.getLogger("lcsearch")

REMEMBERED = 2000
"""Latest decisions kept in memory, one a trial."""
OUTGROWN = 1.5
"""What was named once is told again when it has become so many times larger."""
_STORING = "record of a stop"
PROPOSING = "proposing a configuration"
"""What is counted as failed where a configuration was left to the sampler."""


class Present(NamedTuple):
    """A study as an adapter has read it for a look.

    Attributes:
        key: what a process remembers the study by.
        bank: its finished trials.
        snapshot: makes the whole of it; called only when needed.
    """

    key: Hashable
    bank: FinishedTrials
    snapshot: Callable[[], Snapshot]


class Session:
    """Checks looks, one process's worth of state: counters, latencies, the latest decision of each trial.

    None of it changes what is decided, but for an answer that does not come before the deadline, which is counted and
    told.

    Args:
        policy: the knobs.
        forecasters: who is asked; a stop needs all of them.
        sink: takes a receipt for every look that reached a forecaster or a rule; None keeps none. A decision log takes
            one for every allocation that moved or cut a trial, too.
        deadline: seconds that an answer is waited for; math.inf calls forecasters on the calling thread.
        clock: monotonic seconds.
        wall: seconds since the epoch.

    Attributes:
        panel: who is asked, and how.
        latest: the latest decision of each trial, by (key of the study, uid).
        keeps_audits: False: audits are read, and none is added to their file.
        lowest: the decision with the lowest P(beat), and of how many, likewise.
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
        self.policy, self.sink = policy, sink
        self.panel = Panel(forecasters, deadline, self.warn_once)
        self._clock, self._wall = clock, wall
        self._begin()

    def _begin(self) -> None:
        """What belongs to one process and is never pickled: counts, memories, locks, and the looks under way."""
        self._lock = threading.Lock()
        self._queue: LookQueue | None = None
        self._told: dict[str, float] = {}  # the number that was named
        self.keeps_audits = True
        self.forget()

    def forget(self) -> None:
        """Another study takes the place of those that were judged, perhaps under the name of one: forget what was
        counted and remembered of them.
        """
        self.latest: OrderedDict[tuple[Hashable, str], Decision] = OrderedDict()
        self.lowest: dict[tuple[Hashable, str], tuple[Decision, int]] = {}
        self._noticed: dict[Hashable, tuple[int, float]] = {}  # COMPLETE trials, and where they ended
        self._tallies = Tallies()
        self._allocations = Allocations(self.failed)
        self._calibrations: dict[Hashable, tuple[int, Calibration]] = {}  # and of how many that ended
        self._odd: dict[Hashable, str] = {}  # what was seen of a study's steps while trials ran

    def __getstate__(self) -> dict[str, Any]:
        # A look under way is repeated at the trial's next report.
        return {name: self.__dict__[name] for name in ("policy", "sink", "panel", "_clock", "_wall")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "panel" not in state:  # of an earlier version, in a Tune run that is restored
            Session.__init__(self, state["policy"], state["forecasters"], state["sink"])
            return
        self.__dict__.update(state)
        self._begin()

    @property
    def certificate(self) -> str:
        """What the certificate of the weights says of sweeps decided so, or why it says nothing; "" without one."""
        return quoted(self._versions(), self.policy)

    @property
    def certified(self) -> bool:
        """Whether the certificate of the weights speaks of sweeps decided so."""
        return certificate_for(self._versions(), self.policy) is not None

    def certificate_of(self, trials: Iterable[Trial]) -> str:
        """The certificate; "" where others forecast the stops of these trials, as stand-ins do where the model could
        not be loaded.
        """
        mine = {forecaster.name for forecaster in self.panel.forecasters}
        stops = (trial.stop_records.get("stop") for trial in trials)
        made = (stop.decision.now for stop in stops if isinstance(stop, StopRecord) and stop.decision is not None)
        alone = all(who in mine for look in made if look is not None for who, _ in look.heard)
        return self.certificate if alone else ""

    def _versions(self) -> Mapping[str, str]:
        try:
            return self.panel.versions()
        except Exception:  # one that cannot be read
            return {}

    def prepare(self) -> None:
        """Load what the forecasters need, so that no look has to wait for it. A failure is told as at a look."""
        self.panel.load()

    def aside(self) -> Session:
        """One for looks at every report that leave no trace in counters and logs; what was told is not told again."""
        other = Session(replace(self.policy, look_growth=1), self.panel.forecasters)
        other.panel = self.panel
        return other

    # Looks that are decided at once.

    def gate(
        self,
        reports: Mapping[Any, float],
        step: float | None,
        present: Callable[[], Present],
        whose: Hashable = None,
    ) -> GateHold | None:
        """The gates that need no snapshot, before one is made; counts what holds, and says what the study's finished
        trials tell of how it was set up.

        Args:
            reports: step -> value, all reports of the trial.
            step: the one that is looked at; None before the first.
            present: reads the study; called once the trial's own gates have let the look pass.
            whose: the study in :meth:`tally`.

        Returns:
            What holds the look; None when it is to be checked.
        """

        def n_complete() -> int:
            study = present()
            self._notice(study)
            return study.bank.n_complete

        hold = early_gates(self.policy, reports, step, n_complete)
        if hold is not None:
            self._tallies.count(hold.reason, whose)
        return hold

    def _notice(self, study: Present) -> None:
        """Tell each notice once, and again when the number it named is outgrown; looks for them anew with each of the
        first finished trials, and then when they have doubled, or one has gone so much further.
        """
        n, end = study.bank.n_complete, study.bank.end
        with self._lock:
            last, before = self._noticed.get(study.key, (0, 0.0))
            due = last + 1 if last < ENOUGH else 2 * last
            if n < FEW or (last <= n < due and end < OUTGROWN * before):
                return
            self._noticed[study.key] = n, end
        with np.errstate(all="ignore"):
            for notice in self.notices(study.snapshot()):
                self.warn_once(f"{study.key}: {notice.key}", notice.text, notice.number)

    def notices(self, snapshot: Snapshot) -> tuple[Notice, ...]:
        """What trials say about how the study was set up. What only live ones show of its steps is kept: they end."""
        axis = odd_axis(snapshot)
        if axis is not None and odd_axis(replace(snapshot, live=())) is None:
            self._odd[snapshot.key] = axis
        return notices(snapshot, self._odd.get(snapshot.key))

    def tell_axis(self, snapshot: Snapshot, text: str) -> None:
        """Say once that a study's steps are no axis, as an adapter has seen it while a trial ran, and keep it for
        :meth:`notices`."""
        if self._odd.setdefault(snapshot.key, text) == text:
            self.warn_once(f"{snapshot.token}: {AXIS}", text)

    def check(
        self,
        snapshot: Snapshot,
        event: Event,
        commit: Callable[[Judgement], Judgement] | None = None,
        whose: Hashable = None,
    ) -> Judgement:
        """Decide one look. Thread-safe; forecasts run outside the lock.

        Args:
            snapshot: the study as it stands.
            event: the look.
            commit: takes a stop, records it where other looks will find it, and says what came of that: what protects
                a trial may have changed while forecasts were made. Where it raises, the trial goes on.
            whose: the study in :meth:`tally`.
        """
        with np.errstate(all="ignore"):  # whoever hunts NaN with np.seterr(all="raise") means their own code
            start = self._clock()
            ((judgement, errors),) = self._decide([(snapshot, event, ask(self.policy, snapshot, event))])
            if commit is not None and judgement.decision.verdict is Verdict.STOP:
                try:
                    judgement = commit(judgement)
                except Exception as error:  # a stop without a record could not be explained, nor counted in the risk
                    text = f"{_STORING} failed, the trial goes on: {in_words(error)}"
                    self.warn_once(f"{_STORING}:{type(error).__name__}", text)
                    judgement = revoked(judgement, Reason.UNRECORDED)
            self._record(judgement.decision, self._clock() - start, errors, snapshot.key, snapshot, whose)
        return judgement

    def _decide(
        self, looks: Sequence[tuple[Snapshot, Event, Ask | GateHold]]
    ) -> list[tuple[Judgement, dict[str, str]]]:
        """Judge looks together: the forecasters are asked about all of them at once."""
        asked = [(snapshot, q.queries) for snapshot, _, q in looks if isinstance(q, Ask) and not q.diverged]
        heard = iter(self.panel.ask(asked) if asked else ())
        found: list[tuple[Judgement, dict[str, str]]] = []
        for snapshot, event, question in looks:
            if isinstance(question, GateHold):
                found.append((Judgement(held_decision(snapshot, event, question)), {}))
            elif question.diverged:
                found.append((judge(self.policy, snapshot, question, {}), {}))
            else:
                answers, errors = next(heard)
                found.append((judge(self.policy, snapshot, question, answers), errors))
        return found

    # Looks that are decided on a thread.

    def submit(self, snapshot: Snapshot, event: Event) -> None:
        """Begin a look and return at once; `poll` hands out what came of it. Thread-safe.

        Gates are passed here, forecasts are made on a thread of this session, of all looks that wait at once. At most
        one look of a trial waits: a newer one takes its place. None is begun while a stop of the trial is to be
        fetched.
        """
        with self._lock:
            queue = self._queue = self._queue or LookQueue(self)
        with np.errstate(all="ignore"):
            start = self._clock()
            question = ask(self.policy, snapshot, event)
            if isinstance(question, Ask) and not question.diverged:
                queue.put(Look(snapshot, event, question, start))
                return
            ((judgement, _),) = self._decide([(snapshot, event, question)])
            if isinstance(question, GateHold):
                self._record(judgement.decision, self._clock() - start, {})
            else:
                queue.put_judged(event.trial.uid, Judged(judgement, self._clock() - start, {}, snapshot))

    def judge_all(self, looks: Sequence[Look]) -> list[Judged]:
        """For the queue: judge looks together."""
        with np.errstate(all="ignore"):
            decided = self._decide([look[:3] for look in looks])
            now = self._clock()
        pairs = zip(looks, decided, strict=True)
        return [Judged(judgement, now - look.start, errors, look.snapshot) for look, (judgement, errors) in pairs]

    def drop(self, look: Look | Judged, reason: Reason = Reason.SUPERSEDED) -> None:
        """For the queue: record a look that will not be carried out."""
        if isinstance(look, Judged):
            decision = replace(look.judgement.decision, verdict=Verdict.CONTINUE, reason=reason)
            self._record(decision, look.latency, look.errors, snapshot=look.snapshot)
        else:  # no forecaster was asked
            hold = GateHold(reason, standing=look.question.standing, incumbent=look.question.incumbent)
            self._record(held_decision(look.snapshot, look.event, hold), self._clock() - look.start, {})

    def withdraw(self, uid: str) -> None:
        """Take back what the looks of a trial have under way: it has ended."""
        if self._queue is not None:
            self._queue.withdraw(uid)

    def poll(
        self, present: Callable[[], Snapshot], ready: Callable[[str], bool] = lambda uid: True
    ) -> Iterator[Judgement]:
        """Judgements of submitted looks, oldest first, each handed out once, as far as they go without waiting.

        A stop is handed out when it stands on the study as it is then, see
        `lcsearch.stopping.judge.stop_invalidated_by`, and counts as carried out; whoever carries it out stores its
        record before they ask for the next.

        Args:
            present: the study as it stands, with the records of all stops that were handed out.
            ready: whether a stop of this trial could be carried out now; those of others wait.
        """
        while self._queue is not None and (found := self._queue.next_judged(ready)) is not None:
            uid, done = found
            if done.stops:
                snapshot = present()
                trial = next((trial for trial in snapshot.live if trial.uid == uid), None)
                with np.errstate(all="ignore"):
                    gone = trial is None or stop_invalidated_by(self.policy, snapshot, trial, done.judgement)
                if gone:
                    self.drop(done, gone if isinstance(gone, Reason) else Reason.SUPERSEDED)
                    continue
            self._record(done.judgement.decision, done.latency, done.errors, snapshot=done.snapshot)
            yield done.judgement

    def settle(self, uid: str) -> bool:
        """Wait until the look of a trial that was submitted is judged, so that a stop comes at the report it is due at,
        however busy the machine is. A forecaster that is stuck is waited for once, until the deadline; loading a model
        longer. False when nothing came of it all the same.
        """
        patience = self.panel.longest
        if self._queue is None or self._queue.settle(uid, None if math.isinf(patience) else patience):
            return True
        self.failed("waiting for a forecast", TimeoutError(f"no answer within {patience:g} s"))
        return False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until every submitted look is judged and written; False when `timeout` seconds did not suffice."""
        return self._queue is None or self._queue.wait(timeout)

    @property
    def unfetched(self) -> list[str]:
        """The trials whose looks are judged and not handed out yet, oldest first."""
        return [] if self._queue is None else self._queue.unfetched

    @property
    def thread(self) -> threading.Thread | None:
        """The thread that judges submitted looks, while there is one."""
        return None if self._queue is None else self._queue.thread

    # Free slots.

    def ask_for_slots(
        self, allocator: Allocator, state: Any, snapshot: Snapshot, abilities: Abilities, slots: Slots, key: Key
    ) -> AllocationAsk:
        """The questions of an allocation, for :meth:`allocate`; whatever the allocator raises is counted.

        A state that it cannot use, as that of another version, is begun anew; where that is no help the slots go to
        :class:`~lcsearch.allocation.allocators.run_to_end.RunToEnd`, and the state stays what it was.

        Raises:
            InvalidValue: slots that cannot be.
        """
        return self._allocations.ask(allocator, state, snapshot, abilities, slots, key)

    def allocate(self, asked: AllocationAsk) -> Allocation:
        """Where free slots go: the forecasters are asked, and the allocator judges.

        An allocator that fails, or breaks its contract, is counted. One that raised begins anew, as its state may be
        what it cannot use; else its slots go to :class:`~lcsearch.allocation.allocators.run_to_end.RunToEnd`, and its
        state stays what it was. A receipt of it is kept, and written where moves or cuts came of it.
        """
        start = self._clock()
        made, receipt, errors = self._allocations.make(asked, self.panel)
        if receipt is not None and (made.moves or made.stops) and isinstance(self.sink, DecisionLog):
            try:
                when = {"time": self._wall(), "latency": self._clock() - start, "models": self.panel.versions()}
                whose = {"host": socket.gethostname(), "pid": os.getpid(), "errors": errors}
                self.sink.append({**receipt.to_record(), **when, **whose})
            except Exception as error:  # a full disk must not end a study
                self.failed("decision log", error)
        return made

    def allocations(self, snapshot: Snapshot) -> Allocated:
        """The latest allocations of this process in a study: in none but it, though others may have its name."""
        return self._allocations.latest(snapshot)

    # New configurations.

    def propose(
        self,
        proposer: Proposer,
        snapshot: Snapshot,
        candidates: Sequence[Mapping[str, Any]],
        key: Key,
        paces: Sequence[float] | None = None,
    ) -> Proposal:
        """Which of the candidates a new trial gets; the first, which is the sampler's own, whatever fails.

        Args:
            proposer: who ranks them.
            snapshot: the study.
            candidates: configurations, name -> value, at least one.
            key: seed of this proposal, (study seed, number of the new trial).
            paces: what a step of each candidate costs; None: the same.
        """
        try:
            with np.errstate(all="ignore"):
                answers = self.panel.ask([(snapshot, proposer.questions(snapshot, candidates))])[0].answers
                return proposer.choose(snapshot, candidates, answers, key, paces)
        except Exception as error:  # a trial begins all the same
            self.unproposed(error)
            return Proposal(0, f"{OWN}: proposing one failed")

    # What is counted, told and written.

    def warn_once(self, key: str, message: str, number: float = math.nan) -> None:
        """Warn once a key, in the log and not by a warning that a filter may turn into an exception; again where the
        number that the message names is outgrown.
        """
        with self._lock:
            new = key not in self._told or number >= OUTGROWN * self._told[key]
            if new:
                self._told[key] = number
        if new:
            _log.warning("lcsearch: %s", message)

    tell = warn_once  # the name by which pickles of an earlier version call it

    @property
    def log_folder(self) -> Path | None:
        """Where its decision log is; None where it keeps none in files."""
        found: Path | None = getattr(self.sink, "folder", None)
        return found

    def calibration(self, snapshot: Snapshot) -> Calibration:
        """How P(beat) fared in a study, by the decision log, which is read again when a trial has ended, and by the
        certificate of the weights."""
        folder, n = self.log_folder, len(snapshot.bank)
        with self._lock:
            known = self._calibrations.get(snapshot.key)
        if known is not None and known[0] == n:
            return known[1]
        looks: list[Outcome] = []
        if folder is not None:
            with suppress(OSError):
                mine = (one for one in read_log(folder) if one.get("study") in (None, snapshot.study))
                looks = outcomes_of(mine, snapshot.bank, snapshot.goal)
        found = Calibration.of(looks, self.certificate_of(snapshot.bank) if self.certified else "")
        with self._lock:
            self._calibrations[snapshot.key] = n, found
        return found

    def state_of(self, snapshot: Snapshot | None) -> str:
        """What P(beat) is called in a study, as far as :meth:`calibration` has been worked out there."""
        with self._lock:
            known = None if snapshot is None else self._calibrations.get(snapshot.key)
        return (Calibration() if known is None else known[1]).state

    def audits(self, snapshot: Snapshot) -> Audits:
        """The audits of a study, beside those of earlier ones; those that have ended are added to their file, but by
        commands that only read.
        """
        promised = self.policy.max_wrong_stop or PROMISED
        found, where = audits_of(snapshot, promised), audit_file.place()
        if where is None or not (found.n or self.policy.audit):
            return found
        try:
            wrong = audit_file.keep(where, found.ended) if found.ended and self.keeps_audits else ""
            earlier, unread = audit_file.load(where)
        except OSError as error:
            self.failed("keeping audits", error)
            return found
        if wrong or unread:
            self.warn_once("audits", wrong or unread)
        return replace(found, earlier=earlier)

    def count_disobeyed(self, whose: Hashable = None) -> None:
        """A trial reported on after a look that had come to a stop."""
        self._tallies.count_disobeyed(whose)

    def failed(self, what: str, error: BaseException, then: str = "the trial goes on") -> None:
        """Count a failure of lcsearch itself or of the storage, after which a trial goes on or begins all the same."""
        self._tallies.count_failed(what)
        self.warn_once(f"{what}:{type(error).__name__}", f"{what} failed, {then}: {in_words(error)}")

    def unproposed(self, error: BaseException) -> None:
        """Count a configuration that was left to the sampler, for proposing one failed."""
        self.failed(PROPOSING, error, "the sampler's own configuration is begun")

    def _record(
        self,
        decision: Decision,
        latency: float,
        errors: dict[str, str],
        study: Hashable = None,
        snapshot: Snapshot | None = None,
        whose: Hashable = None,
    ) -> None:
        self._tallies.count(decision.reason, whose)
        if decision.reason.fails_open:
            late = any(
                why == Absent.LATE.name for look in (decision.now, decision.before) if look for _, why in look.heard
            )
            what = "late forecast" if late else "forecast"  # the one thing that hangs on a clock has its own name
            self._tallies.count_failed(what if decision.reason is Reason.ABSENT else _STORING, whose)
        with self._lock:
            before = self._remember((study or decision.study, decision.trial), decision)
        # Of looks in a row that were overtaken the first is written: thousands say no more.
        unjudged = decision.now is None and decision.reason is Reason.SUPERSEDED
        repeated = unjudged and before is not None and before.reason is decision.reason
        judged = decision.now is not None or decision.reason is Reason.DIVERGED
        if self.sink is None or repeated or not (unjudged or judged):
            return
        try:
            versions = self.panel.versions()
            saw = None if snapshot is None else Seen.of(with_threshold(self.policy, snapshot), snapshot)
            maker = socket.gethostname(), os.getpid()
            receipt = Receipt(decision, self._wall(), latency, *maker, versions, errors, saw)
        except Exception as error:  # a version that cannot be read
            self.failed("decision log", error)
            return
        if self._queue is not None:
            self._queue.write_later(receipt)
        else:
            self.write(receipt)

    def _remember(self, key: tuple[Hashable, str], decision: Decision) -> Decision | None:
        """Keep what is asked about later; returns the trial's latest decision before. Needs the lock."""
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
        return before

    def write(self, receipt: Receipt) -> None:
        """Write a receipt; a full disk must not fail a trial."""
        try:
            if self.sink is not None:
                self.sink.write(receipt)
        except Exception as error:
            self.failed("decision log", error)

    def tally(self, whose: Hashable = None) -> tuple[list[tuple[Reason, int]], list[tuple[str, int]]]:
        """Looks of this process by what held or decided them, and failures by what failed; most frequent first.

        Args:
            whose: the study whose looks are counted; None: all. Failures beside looks (a full disk) are no study's, and
                count for each.
        """
        found = self._tallies.of(whose)
        return found.reasons.most_common(), found.failed.most_common()

    def n_disobeyed(self, whose: Hashable = None) -> int:
        """Looks of this process that came to a stop after which the trial reported on, of the study or of all."""
        return self._tallies.of(whose).disobeyed

    @property
    def reasons(self) -> Counter[Reason]:
        """Looks of this process by what held or decided them."""
        return self._tallies.of(None).reasons

    @property
    def failed_open(self) -> Counter[str]:
        """Failures in this process after which a trial went on, by what failed."""
        return self._tallies.of(None).failed


def make_session(
    policy: Policy,
    forecasters: Named,
    decision_log: str | os.PathLike[str] | None,
    max_overhead: float | None,
    opinions: Named = None,
    host: str = "auto",
) -> Session:
    """A session from what adapters are given; see their arguments of these names.

    Raises:
        InvalidValue: `decision_log` is no path, `max_overhead` is not above 0, `forecasters` names no forecaster, or
            was given under both its names, or `host` is none.
    """
    if max_overhead == math.inf:
        policy = replace(policy, look_growth=1)
    elif max_overhead is not None and not (is_finite_number(max_overhead) and max_overhead > 0):
        raise InvalidValue("a number > 0", max_overhead, "max_overhead")
    if decision_log is not None and not isinstance(decision_log, str | os.PathLike):
        raise InvalidValue("a folder's path, or None", decision_log, "decision_log")
    sink = None if decision_log is None else DecisionLog(decision_log)
    where, damage, promised = audit_file.place(), "", policy.max_wrong_stop
    if promised is not None and where is not None:
        earlier, damage = audit_file.load(where)
        start = tracked(policy.threshold, promised, [one.wrong for one in earlier], most=policy.threshold)
        policy = replace(policy, threshold_from=start)
    session = Session(policy, resolve_forecasters(renamed(forecasters, opinions), host), sink)
    if damage:
        session.warn_once("audits", damage)
    return session
