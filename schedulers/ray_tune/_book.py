"""What a Tune run has reported so far, kept by trial id: from results to a snapshot. No Ray in here."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lcsearch.allocation.receipt import ALLOCATED
from lcsearch.curves import Curve
from lcsearch.goal import Goal
from lcsearch.schedule import Schedule
from lcsearch.stopping.gates import THAWED
from lcsearch.stopping.risk import StopRecord
from lcsearch.study import FinishedTrials, Snapshot, Status, Trial, steps_trained
from lcsearch.study.moment import BEGAN_ANEW

RUN_ENDED = "the run ended while it waited"
"""Why a paused trial has ended that no allocator cut."""


@dataclass
class Entry:
    """One trial.

    Attributes:
        params: its configuration.
        schedule: its planned learning rate, when known.
        reports: step -> value; within one attempt the first report of a step counts.
        status: as the run has it.
        stop: the record of the decision that stopped it.
        line: that decision in one line.
        last: the largest step reported; -inf before the first.
        repeated: the last step that another attempt (after an error or a restore) has reported as a dead one had;
            -inf before its first report, None when no attempt repeats another one.
        audit: the record of a stop that was not carried out, but audited.
        thawed: how it came to go on with a stopped trial, in words; nothing stops it then.
        given_up: why an allocator ended it while it waited.
        scratch: this attempt has no checkpoint of a dead one to go on from.
        anew: reports of a dead attempt were dropped.
        redone: steps that a dead attempt had trained and the next one did not go on from: no curve has them twice.
    """

    params: Mapping[str, Any] = field(default_factory=dict)
    schedule: Schedule | None = None
    reports: dict[float, float] = field(default_factory=dict)
    status: Status = Status.RUNNING
    stop: StopRecord | None = None
    line: str = ""
    last: float = -math.inf
    repeated: float | None = None
    scratch: bool = False
    given_up: str = ""
    audit: StopRecord | None = None
    thawed: str = ""
    anew: bool = False
    redone: float = 0.0

    @property
    def was_cut(self) -> bool:
        """Has an allocator ended it for good, after its first report?"""
        return bool(self.given_up and self.reports) and self.stop is None

    @property
    def never_begun(self) -> bool:
        """Has an allocator ended it before its first report?"""
        return bool(self.given_up) and not self.reports

    def to_record(self) -> dict[str, Any]:
        """Plain values, beside whatever the user's parameters are."""
        return {
            "params": dict(self.params),
            "schedule": None if self.schedule is None else asdict(self.schedule),
            "reports": dict(self.reports),
            "status": self.status.name,
            "stop": None if self.stop is None else self.stop.to_record(),
            "line": self.line,
            "last": self.last,
            "repeated": self.repeated,
            "scratch": self.scratch,
            "given_up": self.given_up,
            "audit": None if self.audit is None else self.audit.to_record(),
            "thawed": self.thawed,
            "anew": self.anew,
            "redone": self.redone,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Entry:
        """Read :meth:`to_record` back."""
        schedule, stop, audit = record["schedule"], record["stop"], record.get("audit")
        return cls(
            **{
                **record,
                "schedule": None if schedule is None else Schedule(**schedule),
                "status": Status[record["status"]],
                "stop": None if stop is None else StopRecord.from_record(stop),
                "audit": None if audit is None else StopRecord.from_record(audit),
            }
        )

    def repeats(self, step: float, value: float) -> bool:
        """Does an attempt only say again what a dead one did? Where it does not, nothing from that step on ever was."""
        if self.repeated is None:
            return False
        if self.repeated == -math.inf:
            self.begin(step)
        if step > self.repeated:  # within one attempt the first report of a step counts
            if not _same(self.reports.get(step), value):
                self.cut([s for s in self.reports if s < step])
                return False
            self.repeated = step if step < self.last else None
        return True

    def echoed(self, step: float, value: float) -> bool:
        """Is it the last report of a dead attempt, which Tune hands out again when this one ended without any?"""
        silent = self.scratch and self.repeated == -math.inf
        return silent and step == self.last and _same(self.reports.get(step), value)

    def begin(self, first: float) -> None:
        """Another attempt begins with a report at `first`: what a dead one had trained from there on is redone."""
        steps = sorted(self.reports)
        kept = [step for step in steps if step < first]
        self.redone += steps_trained(steps, 0.0, complete=False) - steps_trained(kept, 0.0, complete=False)

    def cut(self, steps: Collection[float]) -> None:
        """Keep the reports of `steps` only; nothing is repeated from now on."""
        self.anew = self.anew or len(steps) < len(self.reports)
        self.reports = {step: self.reports[step] for step in steps}
        self.last, self.repeated = max(self.reports, default=-math.inf), None


def _same(known: float | None, value: float) -> bool:
    return known is not None and (known == value or (math.isnan(known) and math.isnan(value)))


class Book:
    """All trials of a run. Pickles as plain values; the bank is worked out again where it is unpickled."""

    def __init__(self, study: str) -> None:
        self.study = study
        self.entries: dict[str, Entry] = {}
        self._ended: list[str] = []
        self._forget()

    def _forget(self) -> None:
        """Drop what is only remembered: trials as values (of live ones None before a report), the bank of the first of
        `_ended`, and which values are of yesterday.
        """
        self._live: dict[str, Trial | None] = {u: None for u, e in self.entries.items() if not e.status.finished}
        self._changed = set(self._live)
        self._bank: FinishedTrials | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.to_record()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.study, self._ended = state["study"], list(state["_ended"])
        self.entries = {  # an earlier lcsearch pickled the entries themselves
            uid: entry if isinstance(entry, Entry) else Entry.from_record(entry)
            for uid, entry in state["entries"].items()
        }
        self._forget()

    def to_record(self) -> dict[str, Any]:
        """Plain values, beside whatever users' parameters are."""
        entries = {uid: entry.to_record() for uid, entry in self.entries.items()}
        return {"study": self.study, "entries": entries, "_ended": list(self._ended)}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Book:
        """Read :meth:`to_record` back."""
        book = cls(record["study"])
        book.__setstate__(record)
        return book

    def enter(
        self,
        uid: str,
        params: Mapping[str, Any],
        schedule: Schedule | None,
        *,
        scratch: bool = False,
        afresh: bool = False,
    ) -> Entry:
        """The trial's entry, RUNNING from now on: a new trial, or another attempt at one after an error or a restore.

        Its first report that is another than a dead one's says where it goes on from those; `afresh`: from none. When
        it ends without any it has gone on from all of them, but for one that began from `scratch`.
        """
        entry = self.entries.get(uid)
        if entry is None:
            entry = self.entries[uid] = Entry(params, schedule)
            self._live[uid] = None
            return entry
        entry.repeated, entry.scratch = -math.inf, scratch
        if afresh:
            entry.begin(-math.inf)
            entry.cut(())
            self._live[uid] = None
            self._changed.add(uid)
        if entry.status.finished or entry.line:  # or a stop was under way when the state was saved
            entry.status, entry.stop, entry.line = Status.RUNNING, None, ""
            self._changed.add(uid)
            if uid in self._ended:
                at = self._ended.index(uid)
                del self._ended[at]
                if self._bank is not None and at < len(self._bank):
                    self._bank = None  # it is append-only
        self._live.setdefault(uid, None)
        return entry

    def take(self, trial: Trial, line: str = "") -> None:
        """Take in a trial that somebody else has kept, with all it reported."""
        reports = dict(zip(*(column.tolist() for column in trial.curve.reports()), strict=True))
        entry = Entry(trial.params, trial.schedule, reports, last=trial.curve.last_step)
        entry.audit, entry.thawed = trial.stop_records.get("audit"), trial.stop_records.get(THAWED, "")
        entry.anew = BEGAN_ANEW in trial.stop_records
        self.entries[trial.uid] = entry
        self._live[trial.uid] = None
        self._changed.add(trial.uid)
        if trial.status.finished:
            entry.stop, entry.line = trial.stop_records.get("stop"), line
            self.end(trial.uid, trial.status)

    def report(self, uid: str, step: float, value: float) -> bool:
        """Take in one report; True when it is the trial's last step so far, which a look may be cast at."""
        entry = self.entries[uid]
        if entry.repeats(step, value):
            return False
        latest = step > entry.last
        entry.last = max(step, entry.last)
        if step not in entry.reports:
            entry.reports[step] = value
            self._changed.add(uid)
        return latest

    def stop(self, uid: str, record: StopRecord | None, line: str) -> None:
        """The trial is about to be stopped by a decision of ours."""
        self.entries[uid].stop, self.entries[uid].line = record, line
        self._changed.add(uid)

    def audit(self, uid: str, record: StopRecord) -> None:
        """The trial goes on although a decision of ours would have stopped it; the first one counts."""
        if self.entries[uid].audit is None:
            self.entries[uid].audit = record
            self._changed.add(uid)

    def turn(self, uid: str, status: Status) -> None:
        """The trial is PAUSED, or goes on."""
        self.entries[uid].status = status
        self._changed.add(uid)

    def give_up(self, uid: str, why: str) -> None:
        """The trial is ended while it waits."""
        self.entries[uid].given_up = why
        self._changed.add(uid)
        self.end(uid, Status.STOPPED)

    def end(self, uid: str, status: Status) -> None:
        """The trial has ended (what comes after its first end is passed over). It is taken into the bank at the next
        look, as Tune may bring a failed one back at once.
        """
        entry = self.entries[uid]
        if entry.status.finished:
            return
        waits = entry.status is Status.PAUSED and entry.repeated == -math.inf  # that attempt has not begun
        if entry.repeated is not None and not waits and (entry.scratch or math.isfinite(entry.repeated)):
            # it ended where a dead attempt went on
            if entry.repeated == -math.inf:
                entry.begin(entry.repeated)
            entry.cut([step for step in entry.reports if step <= entry.repeated])
            self._changed.add(uid)
        self._ended.append(uid)
        entry.status = status
        self._live.pop(uid, None)

    def ended_before(self, uid: str) -> set[str]:
        """Uids of the trials that had ended when this one did; all that have, while it runs."""
        return set(self._ended[: self._ended.index(uid)] if uid in self._ended else self._ended)

    def trial(self, uid: str) -> Trial:
        """The trial as it stands."""
        known = None if uid in self._changed else self._live.get(uid)
        if known is None:
            entry = self.entries[uid]
            records: dict[str, Any] = {} if entry.stop is None else {"stop": entry.stop}
            if entry.audit is not None:
                records["audit"] = entry.audit
            if entry.thawed:
                records[THAWED] = entry.thawed
            if entry.anew:
                records[BEGAN_ANEW] = True
            if entry.given_up and entry.stop is None:
                records["cut"] = entry.given_up
                if entry.given_up != RUN_ENDED:
                    records[ALLOCATED] = True
            known = Trial(
                uid, Curve.of(entry.reports), entry.params, entry.status, entry.schedule, stop_records=records
            )
            if uid in self._live and entry.reports:
                self._live[uid] = known
            self._changed.discard(uid)
        return known

    def bank(self, goal: Goal) -> FinishedTrials:
        """The finished trials, in the order in which they ended."""
        if self._bank is None or self._bank.goal != goal:
            self._bank = FinishedTrials(goal)
        if len(self._bank) < len(self._ended):
            self._bank = self._bank.extend([self.trial(uid) for uid in self._ended[len(self._bank) :]])
        return self._bank

    def snapshot(self, goal: Goal) -> Snapshot:
        """The run as it stands."""
        for uid in [*self._changed]:
            self.trial(uid)
        return Snapshot(self.study, goal, self.bank(goal), tuple(filter(None, self._live.values())))

    @property
    def live(self) -> list[str]:
        """Uids of the trials that have not ended, in the order in which they came."""
        return list(self._live)

    def begun(self, goal: Goal, turns: Collection[str]) -> Snapshot:
        """The run as an allocator sees it: live are the trials that have had a turn, those without a report, too."""
        live = tuple(self.trial(uid) for uid in self._live if uid in turns)
        return Snapshot(self.study, goal, self.bank(goal), live)
