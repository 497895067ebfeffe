"""A stop's record in the storage: whose it is, and whether it still stands.

Finished trials are immutable, so a stop is recorded while its trial runs, before anybody knows whether the trial will
obey. What was recorded and what became of the trial tell together whether it was a stop:

- a trial that reported on, or whose record was withdrawn, was not stopped by it;
- a retried trial inherits the record of the attempt that failed, which is not its own;
- a trial that ended where its record was written was stopped, PRUNED or COMPLETE: the objective may obey by returning;
- a finished trial that was copied to another number was stopped where it came from; one that goes on was not.
"""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from optuna.trial import TrialState

from lcsearch.allocation.contract import Prices
from lcsearch.curves import Curve
from lcsearch.errors import InvalidValue, is_finite_number
from lcsearch.proposal import chosen
from lcsearch.stopping import earlier
from lcsearch.stopping.decision import Decision, percent
from lcsearch.stopping.risk import StopRecord
from lcsearch.study import steps_trained

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial

MARK = "lcsearch:mark"
REASON = "lcsearch:reason"
"""The user attribute that tells people, in one line, why a trial was stopped; empty where it went on after all."""

AUDIT = "lcsearch:audit"
"""The system attribute of a trial whose stop was not carried out, see lcsearch.stopping.audit: as MARK."""

ANEW = "lcsearch:anew"
"""The last step that a retried trial inherited from the attempt that failed, where it began anew all the same."""

DEAD = "lcsearch:dead"
"""The system attribute of a trial of a sweep that began anew after its worker was killed, {"steps": [first, last] of
every run of steps that only the dead attempt has reported, "of": its number}: no storage removes a report."""

WENT_ON = "lcsearch:went_on"
"""The system attribute of a retried trial that goes on from where the failed attempt stood, {"after": the last step
that it inherited, "of": its number}: up to there that one trained it. With None for a step: it inherited nothing."""

PAUSED = "lcsearch:paused"
"""The system attribute of a trial that was paused: how often, at which step, and its number, for it may be copied. A
WAITING trial with it is paused; it stays when the trial goes on, for attributes cannot be removed."""

PAUSE_AT = "lcsearch:pause_at"
"""The system attribute that says until which step a trial's turn goes, {"at": step, "of": its number, "resumes": how
often it had been resumed when that turn began}."""

LEASE = "lcsearch:lease"
"""The system attribute that says which worker trains a trial, see _lease.py."""

CLAIMED = "lcsearch:claimed"
"""The system attribute that says which process was about to begin a trial or to go on with it; LEASE follows."""

CUT = "lcsearch:cut"
"""The system attribute of a trial that an allocator has cut, {"why", "of"}; a RUNNING one ends at its pause."""

LEFT, EVICTED = "left", "evicted"
"""What has ended a paused trial that no allocator cut: no turn was left for it, or no room for its checkpoint."""

BEGUN = "lcsearch:begun"
"""The system attribute that says why a trial has its configuration, a Proposal's fields, {"of": its number} and {"n":
candidates}; see _sampler.py."""

RESUMED_FROM = "lcsearch:resumed_from"
"""The user attribute of a trial that goes on with a stopped one: that one's number."""

THAW = "lcsearch:thaw"
"""The system attribute of a trial that is a stopped one trained on, for good: :class:`Thawed`'s fields."""

_OF, _GONE = "of", "withdrawn"
_MANY = 10**9  # pauses: no trial has had more


@dataclass(frozen=True)
class Record:
    """A stop as it was stored with a trial.

    Attributes:
        stop: what the stop left behind.
        number: the trial's number then; None in records of earlier versions, as the two below.
        last: its last step then.
        digest: of its curve up to that step.
        withdrawn: the trial was seen to go on.
    """

    stop: StopRecord
    number: int | None = None
    last: float | None = None
    digest: str | None = None
    withdrawn: bool = False

    @classmethod
    def of(cls, stop: StopRecord, number: int, curve: Curve) -> Record:
        """The record of a stop at the end of a curve."""
        return cls(stop, number, curve.last_step, curve.digest)

    @classmethod
    def read(cls, frozen: FrozenTrial) -> Record | None:
        """What is stored with a trial; None without a record that lcsearch can read."""
        return cls.parse(frozen.system_attrs.get(MARK))

    @classmethod
    def parse(cls, text: object) -> Record | None:
        """What :meth:`to_json` wrote; None for anything else."""
        return _parsed(text) if isinstance(text, str) else None

    def to_json(self) -> str:
        """As :meth:`read` reads it."""
        more: dict[str, Any] = {_OF: (self.number, self.last, self.digest)} if self.number is not None else {}
        return self.stop.to_json(**more, **({_GONE: True} if self.withdrawn else {}))

    def belongs(self, frozen: FrozenTrial) -> bool:
        """Is it a record of this trial, under whatever number, and not of an attempt that this one repeats?"""
        if self.number is None or self.number == frozen.number:
            return True
        return frozen.state.is_finished() and self.number not in retried(frozen)

    def stands(self, frozen: FrozenTrial, curve: Curve) -> bool:
        """Did the trial end, or does it stand, where the record was written?"""
        if self.withdrawn or not self.belongs(frozen):
            return False
        if self.digest is None:
            return frozen.state == TrialState.PRUNED or curve.last_step == self.stop.step
        return self.digest == curve.digest

    def told(self, frozen: FrozenTrial) -> StopRecord:
        """The stop, and in its text what people must know to read it beside this trial."""
        notes = []
        if self.number is not None and self.number != frozen.number:
            notes.append(f"trial {frozen.number} was trial {self.number} where it was stopped, and is called so below:")
        if frozen.state == TrialState.COMPLETE:
            notes.append(f"trial {frozen.number} obeyed by returning a value, so Optuna counts it as COMPLETE")
        return replace(self.stop, text="\n".join([*notes, self.stop.text])) if notes else self.stop


@lru_cache(maxsize=1 << 14)  # views read all records again and again
def _parsed(text: str) -> Record | None:
    with contextlib.suppress(InvalidValue):
        stop = StopRecord.from_json(text)
        more = json.loads(text)
        gone = bool(more.get(_GONE))
        try:
            number, last, digest = more[_OF]
            return Record(stop, int(number), float(last), str(digest), gone)
        except (KeyError, TypeError, ValueError, OverflowError):
            return Record(stop, withdrawn=gone)
    return None


class Thawed(NamedTuple):
    """How a trial came that is a stopped one trained on, to its end.

    Attributes:
        stopped: that one's number.
        step: where it was stopped.
        p: P(beat) then.
        now: P(beat) against the incumbent when it was thawed.
        anew: it begins at its start, for no checkpoint is left; else it has the reports up to `step`.
    """

    stopped: int
    step: float
    p: float
    now: float
    anew: bool = False

    def __str__(self) -> str:
        """ "trial 27, stopped at step 9 with P(beat) 4.9 %, thawed at 5.1 %, from its checkpoint"."""
        how = "anew, for no checkpoint was left" if self.anew else "from its checkpoint"
        was = f"trial {self.stopped}, stopped at step {self.step:g} with P(beat) {percent(self.p)}"
        return f"{was}, thawed at {percent(self.now)}, {how}"


def thawed_of(frozen: FrozenTrial) -> Thawed | None:
    """How a trial came that is a stopped one trained on; None for any other."""
    stored = frozen.system_attrs.get(THAW)
    try:
        found = Thawed(**stored) if isinstance(stored, dict) else None
    except TypeError:
        return None
    numbers = (found.stopped, found.step, found.p, found.now) if found is not None else ()
    fine = found is not None and all(map(is_finite_number, numbers)) and 0 <= found.stopped < frozen.number
    return found if fine else None


def supersedes(frozen: FrozenTrial) -> int | None:
    """The number of the stopped trial in whose place this one stands; None for any other.

    A thawed trial that has not begun, or that failed, stands in nobody's: the stop is as it was.
    """
    if (thawed := thawed_of(frozen)) is not None:
        return thawed.stopped if frozen.state in (TrialState.RUNNING, TrialState.COMPLETE) else None
    return resumed_from(frozen)


def steps_apart(trials: Sequence[FrozenTrial], horizon: float) -> float:
    """Steps of stopped trials in whose place others were begun anew: those do not have them on their curves."""
    numbered = {trial.number: trial for trial in trials}
    anew = {n for t in trials if (n := supersedes(t)) is not None and (how := thawed_of(t)) is not None and how.anew}
    steps = (sorted(numbered[n].intermediate_values) for n in anew if n in numbered)
    return float(sum(steps_trained(one, horizon, complete=False) for one in steps))


def audit_of(frozen: FrozenTrial) -> StopRecord | None:
    """The stop of a trial that was not carried out, but audited; None for any other."""
    record = Record.parse(frozen.system_attrs.get(AUDIT))
    return record.stop if record is not None and record.belongs(frozen) else None


def is_audited(frozen: FrozenTrial) -> bool:
    """Has a stop of the trial been audited?"""
    return audit_of(frozen) is not None


def decision_of(frozen: FrozenTrial) -> Decision | None:
    """The decision that stopped a trial; None where no record of one stands with it.

    Of a stop that an earlier lcsearch recorded it holds what the sentence told that was stored in its place.
    """
    record = Record.read(frozen)
    if record is not None and (record.withdrawn or not record.belongs(frozen)):
        return None
    if record is not None and record.stop.decision is not None:
        return record.stop.decision
    line = frozen.user_attrs.get(REASON)
    return earlier.decision_of(line, str(frozen.number)) if isinstance(line, str) else None


def is_unread(frozen: FrozenTrial) -> bool:
    """Did lcsearch stop the trial, and was the record of it damaged since?"""
    return frozen.state is TrialState.PRUNED and MARK in frozen.system_attrs and Record.read(frozen) is None


def curve_of(frozen: FrozenTrial) -> Curve:
    """What a trial has reported itself: not what a failed attempt did before it began anew."""
    after, values = frozen.system_attrs.get(ANEW), without_dead(frozen).intermediate_values
    return Curve.of({s: v for s, v in values.items() if s > after} if isinstance(after, int) else values)


def without_dead(frozen: FrozenTrial) -> FrozenTrial:
    """The trial without the reports of a dead attempt that it does not go on from, see DEAD."""
    stored = attribute_of(frozen, DEAD).get("steps")
    spans = [tuple(span) for span in stored if isinstance(span, list | tuple)] if isinstance(stored, list) else []
    spans = [span for span in spans if len(span) == 2 and all(isinstance(step, int) for step in span)]
    if not spans:
        return frozen
    alive, values = copy.copy(frozen), frozen.intermediate_values
    alive.intermediate_values = {s: v for s, v in values.items() if not any(a <= s <= b for a, b in spans)}
    return alive


def began_anew(frozen: FrozenTrial) -> bool:
    """Has the trial begun anew after an attempt that failed or died, whose reports its study had had as its own?"""
    return bool(attribute_of(frozen, DEAD)) or isinstance(frozen.system_attrs.get(ANEW), int)


def went_on(frozen: FrozenTrial) -> bool:
    """Was a retried trial seen to go on from where the failed attempt stood?"""
    return isinstance(attribute_of(frozen, WENT_ON).get("after"), int)


def inherited_nothing(frozen: FrozenTrial) -> bool:
    """Was a retried trial seen without reports of the failed attempt?"""
    return attribute_of(frozen, WENT_ON).get("after", 0) is None


def overtaken(frozen: FrozenTrial) -> bool:
    """Does a live trial carry a record, or the reason of one, that is not of a stop it is about to obey?"""
    record = Record.read(frozen)
    if record is None:
        return bool(frozen.user_attrs.get(REASON))
    return not record.withdrawn and not record.stands(frozen, curve_of(frozen))


def n_pauses(frozen: FrozenTrial) -> int:
    """How often the trial was paused; what it was copied from does not count."""
    return _count(attribute_of(frozen, PAUSED).get("pause"))


def _count(stored: Any) -> int:
    """What counts as one of what a storage holds; 0 for what somebody has damaged."""
    return stored if isinstance(stored, int) and 0 <= stored <= _MANY else 0


def paused_at_of(frozen: FrozenTrial) -> int | None:
    """The step at which the trial was paused last; None for one that never was."""
    step: Any = attribute_of(frozen, PAUSED).get("step")
    return step if isinstance(step, int) else None


def ever_paused(frozen: FrozenTrial) -> bool:
    """Was the trial paused at least once?"""
    return n_pauses(frozen) > 0


def pause_at_of(frozen: FrozenTrial) -> float | None:
    """Until which step the turn of a trial goes; None for one that no allocator has moved."""
    at: Any = attribute_of(frozen, PAUSE_AT).get("at")
    return float(at) if is_finite_number(at) else None


def paid_by(frozen: FrozenTrial, prices: Prices) -> float:
    """What a trial's pauses and resumes have cost, in steps. One that was cut when its turn was over had saved, too."""
    pauses, resumes = n_pauses(frozen), _count(attribute_of(frozen, PAUSE_AT).get("resumes"))
    return prices.of(pauses + (cut_of(frozen) is not None and resumes == pauses), resumes)


def cut_of(frozen: FrozenTrial) -> str | None:
    """Why an allocator has cut a trial; None where none has."""
    why = attribute_of(frozen, CUT).get("why")
    return why if isinstance(why, str) else None


def begun_as(frozen: FrozenTrial) -> str | None:
    """Why a trial has its configuration; None where nobody has chosen it."""
    why = attribute_of(frozen, BEGUN).get("why")
    return why if isinstance(why, str) else None


def chosen_by(frozen: FrozenTrial) -> bool | None:
    """Whether forecasts chose a trial's configuration, or the sampler alone did; None where neither did."""
    why, score = begun_as(frozen), attribute_of(frozen, BEGUN).get("score")
    return None if why is None else chosen(why, score if isinstance(score, float) else None)


def cut_kind(frozen: FrozenTrial) -> str:
    """What ended a trial for good while it was paused, see :func:`~lcsearch.schedulers.optuna._storage.end_cut`; ""
    where nothing did.
    """
    return "" if cut_of(frozen) is None else str(attribute_of(frozen, CUT).get("kind", "cut"))


def attribute_of(frozen: FrozenTrial, key: str) -> dict[str, Any]:
    """A stored mapping that is of this trial, and not of one that it is a copy of."""
    stored = frozen.system_attrs.get(key)
    return stored if isinstance(stored, dict) and stored.get("of") in (None, frozen.number) else {}


def is_paused(frozen: FrozenTrial) -> bool:
    """Is the trial paused, and not one that the user has enqueued?"""
    return frozen.state == TrialState.WAITING and ever_paused(frozen)


def resumed_from(trial: FrozenTrial | Trial) -> int | None:
    """The number of the stopped trial that this one goes on with, whose checkpoint it loads; None for any other.

    Its reports up to where that one was stopped are inherited: go on at the step after `last_step`.
    """
    number = trial.user_attrs.get(RESUMED_FROM)
    return number if isinstance(number, int) and number != trial.number else None


def retried(frozen: FrozenTrial) -> tuple[int, ...]:
    """Numbers of the failed attempts that a trial repeats, see `optuna.storages.RetryHeartbeatStaleTrialCallback`."""
    history = frozen.system_attrs.get("retry_history")
    return tuple(n for n in history if isinstance(n, int)) if isinstance(history, list | tuple) else ()
