"""Every decision of a log made again, from the log and from what the study's trials reported; the first that comes out
otherwise ends it.

A look is decided again by the code that decided it: gates, the same forecasters, the judge. What cannot be made again
is counted by why, and never taken for right: receipts of earlier versions, models that are not at hand, forecasts that
were late or failed, allocators of one's own.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from lcsearch.allocation.allocators.run_to_end import RunToEnd
from lcsearch.allocation.contract import Allocation
from lcsearch.allocation.judge import judge as allocated
from lcsearch.allocation.named import KINDS, allocator
from lcsearch.allocation.receipt import ALLOCATED, AllocationReceipt
from lcsearch.errors import InvalidValue, LcsearchError
from lcsearch.forecast.contract import Absent, Answer, Forecaster
from lcsearch.session.decision_log import left_out_words, lines_gone, read_entries
from lcsearch.session.panel import Panel
from lcsearch.session.tolerance import Differs, agrees, compare
from lcsearch.session.verified import Mismatch, Verified
from lcsearch.stopping.decision import Decision
from lcsearch.stopping.gates import Ask, Event, ask
from lcsearch.stopping.judge import Judgement, judge, settled
from lcsearch.stopping.risk import StopRecord
from lcsearch.stopping.seen import Seen
from lcsearch.stopping.verdict import Reason, Verdict
from lcsearch.study import Snapshot, Trial
from lcsearch.study.moment import BEGAN_ANEW, digest_of
from lcsearch.study.stood import Stood

_OF_CLOCKS = (Absent.LATE.name, Absent.FAILED.name, "DEAD")
_OLD = "written by an earlier lcsearch, whose receipts do not say what was seen"
_ANEW = "that knew a trial which has begun anew since: what the attempt that died had reported is gone"
_STUDY, _DIGEST = "the study", "the digest of the study's curves as they were then"
_LATER = "stops that were taken back, or weighed again, on a later state of the study; their forecasts were made again"


class _Entry(NamedTuple):
    """One line of the log."""

    record: Mapping[str, Any]
    receipt: AllocationReceipt | None


class _CannotBe(Exception):
    """This decision cannot be made again, as its text says."""


def verify(
    log: str | os.PathLike[str],
    trials: Mapping[str, Trial],
    at_hand: Callable[[str], Forecaster | None],
    *,
    study: str | None = None,
    elsewhere: Collection[str] = (),
) -> Verified:
    """Make the decisions of a log again, in the order in which they were written, up to the first mismatch.

    Args:
        log: the folder.
        trials: uid -> trial as it stands now or later, with the stop record that its study keeps.
        at_hand: a forecaster by its name; None: there is none.
        study: decisions of another name are counted and passed over; None: all are of this study.
        elsewhere: trials whose stops stand in another log.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    left_out: list[str] = []
    entries = [_Entry(*entry) for entry in read_entries(log, left_out)]
    notes = [left_out_words(left_out)] if left_out else []
    again = _Again(entries, trials, at_hand)
    counted: Counter[bool] = Counter()
    missing: Counter[str] = Counter()
    found: Mismatch | None = None
    with np.errstate(all="ignore"):
        for at, (record, receipt) in enumerate(entries):
            if study is not None and record.get("study") not in (None, study):
                missing[f"of study {record['study']!r}, which is another"] += 1
                continue
            try:
                why = again.look(at) if receipt is None else again.allocation(receipt, record)
                counted[receipt is None] += 1
                missing.update([why] if why else [])
            except _CannotBe as cannot:
                missing[str(cannot)] += 1
            except Differs as differs:
                if differs.args[0] in (_STUDY, _DIGEST) and again.only_began_anew(at):
                    missing[_ANEW] += 1
                    continue
                where = f"allocation {receipt.number}" if receipt is not None else _where(record)
                found = Mismatch(where, *differs.args)
                break
        else:
            found = again.stored()
    if found is not None:
        return Verified(counted[True], counted[False], dict(missing), found, notes=tuple(notes))
    unsaid = [uid for uid in again.unsaid() if uid not in elsewhere]
    gone, unread = lines_gone(log), len(left_out)
    whole = not gone and not unread
    unlogged = {uid: step for uid in unsaid if whole and (step := _stopped_at(trials[uid])) is not None}
    return Verified(
        counted[True],
        counted[False],
        dict(missing),
        missing=tuple(uid for uid in unsaid if uid not in unlogged),
        unlogged=unlogged,
        cut=tuple(uid for uid in again.uncut() if uid not in elsewhere),
        gone=gone,
        unread=unread,
        notes=tuple(notes),
    )


class _Again:
    """Makes decisions again; forecasters are loaded once, and stops whose records later looks need are remembered."""

    def __init__(
        self, entries: Sequence[_Entry], trials: Mapping[str, Trial], at_hand: Callable[[str], Forecaster | None]
    ) -> None:
        self._entries, self._trials, self._at_hand = entries, trials, at_hand
        self._panels: dict[tuple[tuple[str, str], ...], Panel] = {}
        self._forecasters: dict[str, Forecaster | None] = {}
        self._judged: dict[int, tuple[Seen, Judgement] | None] = {}
        self._stops: dict[str, list[int]] = {}
        for at, (record, receipt) in enumerate(entries):
            if receipt is None and record.get("verdict") == Verdict.STOP.name:
                self._stops.setdefault(str(record["trial"]), []).append(at)

    def look(self, at: int) -> str:
        """Hold a look to its record; says what of it could not be, "" when all of it was."""
        record = self._entries[at].record
        if record.get("reason") == Reason.SUPERSEDED.name and record.get("now") is None:
            raise _CannotBe("overtaken by a newer look before they were judged, so nothing was decided")
        seen, judgement = self._judgement(at)
        # Only what the study as it was then says of these is known; the record decides what was weighed.
        records = self._records(seen, at, but=str(record["trial"]))
        unknown = len(records) < len([uid for uid in seen.moment.recorded if uid != str(record["trial"])])
        snapshot = _then(seen, record, self._trials, records)
        trial = snapshot_trial(snapshot, record, self._trials)
        judged = judgement._replace(decision=replace(judgement.decision, risk=None, independent=None))
        made = settled(seen.policy, snapshot, trial, judged).decision
        recorded = _decided(record)
        if recorded.propensity is not None and judgement.record is not None and judgement.record.target is None:
            raise _CannotBe("looks against rivals that an earlier lcsearch left to audits")
        why = ""
        if recorded.verdict is not Verdict.STOP and judgement.decision.verdict is Verdict.STOP:
            later = recorded.reason is not made.reason and recorded.reason not in (Reason.BELOW, Reason.AUDITED)
            if later and _is_a_gate(recorded.reason):
                made, why = replace(made, verdict=recorded.verdict, reason=recorded.reason), _LATER
        if seen.policy.risk is not None and made.risk != recorded.risk:
            kept: dict[str, Any] = {"risk": recorded.risk, "independent": recorded.independent}
            made, why = replace(made, verdict=recorded.verdict, reason=recorded.reason, **kept), _LATER
        if unknown:
            made = replace(made, risk=recorded.risk, independent=recorded.independent)
            why = why or "risks that hang on stops which cannot be made again; the rest of them was"
        compare(recorded.to_record(), made.to_record())
        return why

    def only_began_anew(self, at: int) -> bool:
        """Is all that this decision knew as it was, but trials that have begun anew since?

        Of their dead attempts nothing is left. They were running then: what it knew of them is their curves' digests.
        """
        record, receipt = self._entries[at]
        if receipt is None:
            then = Seen.from_record(record["saw"]).moment
        elif receipt.goal is not None:
            then = receipt.moment(receipt.goal)
        else:
            return False
        anew = {uid for uid in then.live if uid in self._trials and BEGAN_ANEW in self._trials[uid].stop_records}
        gone = {uid: then.live[uid] for uid in anew if _is_gone(then.live[uid], self._trials[uid])}
        rest = replace(then, live={**then.live, **{uid: Stood(stood.status, 0) for uid, stood in gone.items()}})
        try:
            found = digest_of(rest.again("", self._trials), {uid: stood.digest for uid, stood in gone.items()})
        except InvalidValue:
            return False
        return bool(gone) and found == then.digest

    def stored(self) -> Mismatch | None:
        """A stop whose record in the study is another than the one that comes out; None: there is none."""
        for uid, (*_, at) in self._stops.items():
            known = self._trials[uid].stop_records.get("stop") if uid in self._trials else None
            done = self._judged.get(at)
            if not isinstance(known, StopRecord) or done is None or done[1].record is None:
                continue
            if known.step != done[1].decision.step:
                continue  # of another attempt at the trial, or of a later look
            made, kept = done[1].record.to_record(), known.to_record()
            for name in ("reason", "p", "losses", "target"):
                try:
                    compare({name: kept[name]}, {name: made[name]}, "record")
                except Differs as differs:
                    return Mismatch(f"the study's record of the stop of trial {uid}", *differs.args)
        return None

    def unsaid(self) -> list[str]:
        """Trials with a stop in the study of which the log says nothing."""
        known = (uid for uid, trial in self._trials.items() if "stop" in trial.stop_records)
        return [uid for uid in known if uid not in self._stops]

    def uncut(self) -> list[str]:
        """Trials that an allocator cut by the study, in no allocation of the log."""
        cut = {uid for _, receipt in self._entries if receipt is not None for uid, _ in receipt.stops}
        known = (uid for uid, trial in self._trials.items() if ALLOCATED in trial.stop_records)
        return [uid for uid in known if uid not in cut]

    def allocation(self, receipt: AllocationReceipt, record: Mapping[str, Any]) -> str:
        """Hold an allocation to its receipt."""
        if receipt.goal is None:
            raise _CannotBe(f"allocations {_OLD}")
        if receipt.allocator not in KINDS:
            raise _CannotBe(f"allocations by {receipt.allocator!r}, which is no allocator of lcsearch")
        try:
            by = allocator(receipt.allocator, **receipt.knobs)
            asked = receipt.asked(by, receipt.goal, self._trials)
        except (LcsearchError, TypeError) as error:
            raise Differs(_STUDY, "what the receipt says of it", str(error)) from error
        if receipt.digest and (found := digest_of(asked.snapshot)) != receipt.digest:
            raise Differs(_DIGEST, receipt.digest, found)
        if receipt.failed:
            made: Allocation = allocated(replace(asked, allocator=RunToEnd(), queries=()), {})
        elif not asked.queries:
            made = allocated(asked, {})
        elif record.get("errors"):
            raise _CannotBe("allocations at which a forecaster failed or was late")
        else:
            panel = self._panel(record.get("models") or {})
            made = allocated(asked, panel.ask([(asked.snapshot, asked.queries)])[0].answers)
        again = AllocationReceipt.of(asked, made, receipt.failed)
        for name in ("moves", "stops", "against", "n_waiting"):
            compare({name: receipt.to_record()[name]}, {name: again.to_record()[name]})
        return ""

    def _judgement(self, at: int) -> tuple[Seen, Judgement]:
        """What a look's forecasts came to, before the other stops are weighed; made once."""
        if at not in self._judged:
            self._judged[at] = None
            self._judged[at] = self._judge(self._entries[at].record)
        done = self._judged[at]
        if done is None:  # it was asked for by another look
            done = self._judged[at] = self._judge(self._entries[at].record)
        return done

    def _judge(self, record: Mapping[str, Any]) -> tuple[Seen, Judgement]:
        if "saw" not in record:
            raise _CannotBe(f"looks {_OLD}")
        try:
            seen = Seen.from_record(record["saw"])
        except LcsearchError:
            raise _CannotBe("looks whose receipts hold knobs that this lcsearch does not know") from None
        snapshot = _then(seen, record, self._trials, {})
        if seen.moment.digest and (found := digest_of(snapshot)) != seen.moment.digest:
            raise Differs(_DIGEST, seen.moment.digest, found)
        trial = snapshot_trial(snapshot, record, self._trials)
        recorded = _decided(record)
        free = replace(seen.policy, risk=None, audit=0.0)
        question = ask(free, snapshot, Event(trial, recorded.step))
        if not isinstance(question, Ask):
            raise Differs("reason", recorded.reason.name, question.reason.name)
        if question.diverged:
            return seen, judge(free, snapshot, question, {})
        _known_without_forecasts(recorded, question, snapshot)
        panel = self._panel(record.get("models") or {})
        answers = dict(panel.ask([(snapshot, question.queries)])[0].answers)
        half = question.n_ends
        for look, where in ((recorded.now, 0), (recorded.before, half)):
            for name, said in () if look is None else look.heard:
                if said in _OF_CLOCKS and name in answers:  # what a clock decided is taken as it was
                    absent: list[Answer] = [Absent[str(said)]] * half
                    answers[name] = [*answers[name][:where], *absent, *answers[name][where + half :]]
        return seen, judge(free, snapshot, question, answers)

    def _records(self, seen: Seen, at: int, but: str) -> dict[str, StopRecord]:
        """The records of stops that stood then: made again, else as the study keeps them.

        A trial may come to a stop more than once, and be taken back in between: the last one before the look stood.
        """
        found = {}
        for uid in seen.moment.recorded:
            made = None
            if uid != but and uid in self._stops:
                stops = self._stops[uid]  # clocks of several machines may differ: the first, where none is before
                try:
                    made = self._judgement(max((i for i in stops if i < at), default=stops[0]))[1].record
                except (_CannotBe, Differs):  # told at its own place
                    made = None
            if made is None and uid in self._trials and uid != but:
                kept = self._trials[uid].stop_records.get("stop")
                made = kept if isinstance(kept, StopRecord) else None
            if made is not None:
                found[uid] = made
        return found

    def _panel(self, models: Mapping[str, str]) -> Panel:
        """Those that were asked then.

        Raises:
            _CannotBe: one of them is not at hand, or of another version.
        """
        key = tuple(models.items())
        if key not in self._panels:
            asked = []
            for name, version in key:
                if name not in self._forecasters:
                    self._forecasters[name] = self._at_hand(name)
                one = self._forecasters[name]
                if one is None or one.version != version:
                    raise _CannotBe(f"by {name} {version}, which is not at hand")
                asked.append(one)
            if not asked:
                raise _CannotBe("whose receipts name no model")
            self._panels[key] = Panel(asked, math.inf, lambda key, text: None)
        return self._panels[key]


def _is_gone(stood: Stood, trial: Trial) -> bool:
    """Is the curve that a trial had then no part of what it has now?"""
    try:
        return bool(stood.digest) and stood.again(trial).curve.digest != stood.digest
    except InvalidValue:
        return True


def _then(
    seen: Seen, record: Mapping[str, Any], trials: Mapping[str, Trial], records: Mapping[str, StopRecord]
) -> Snapshot:
    try:
        return seen.moment.again(str(record.get("study", "")), trials, records)
    except InvalidValue as error:
        raise Differs(_STUDY, "what the receipt says of it", str(error)) from error


def snapshot_trial(snapshot: Snapshot, record: Mapping[str, Any], trials: Mapping[str, Trial]) -> Trial:
    """The trial that a look was at, as it stood."""
    uid = str(record["trial"])
    found = next((trial for trial in snapshot.live if trial.uid == uid), None)
    if found is None:
        if uid not in trials:
            raise Differs(_STUDY, f"trial {uid}", "no such trial")
        found = trials[uid].cut(float(record["step"]))
    return found


def _stopped_at(trial: Trial) -> float | None:
    """The step of a stop by the study's own record of it; None where that does not hold together, or is of another
    curve.
    """
    record = trial.stop_records.get("stop")
    decision = record.decision if isinstance(record, StopRecord) else None
    if record is None or decision is None or decision.verdict is not Verdict.STOP:
        return None
    p = None if decision.now is None else decision.now.p
    same = (record.step, record.reason) == (decision.step, decision.reason.name) and agrees(record.p, p, forecast=True)
    return record.step if same and decision.seen == trial.cut(record.step).curve.digest else None


def _decided(record: Mapping[str, Any]) -> Decision:
    try:
        return Decision.from_record(record)
    except InvalidValue:
        raise _CannotBe("looks whose records are damaged") from None


def _known_without_forecasts(recorded: Decision, question: Ask, snapshot: Snapshot) -> None:
    """Hold to the record what needs no forecaster: also where the model is not at hand."""
    for what, kept, found in (
        ("seen", recorded.seen, question.event.trial.curve.digest),
        ("incumbent", recorded.incumbent, question.incumbent),
        ("standing", recorded.standing, question.standing),
        ("target", recorded.target, None if math.isnan(question.target) else snapshot.goal.sign * question.target),
    ):
        if kept != found:
            raise Differs(what, kept, found)


def _is_a_gate(reason: Reason) -> bool:
    rules = (Reason.ABSENT, Reason.ABOVE, Reason.ABOVE_BEFORE, Reason.BELOW, Reason.BOUND, Reason.DIVERGED)
    return reason not in rules


def _where(record: Mapping[str, Any]) -> str:
    return f"trial {record['trial']}, step {float(record['step']):g}"
