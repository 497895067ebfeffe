"""From an Optuna study to a snapshot: translation only."""

from __future__ import annotations

import json
import math
import sys
import threading
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from optuna.study import StudyDirection
from optuna.trial import TrialState

from lcsearch.allocation.receipt import ALLOCATED
from lcsearch.goal import Bounds, Direction, Goal, Judged
from lcsearch.schedule import Schedule
from lcsearch.schedulers.optuna._record import (
    Record,
    audit_of,
    began_anew,
    begun_as,
    curve_of,
    cut_kind,
    cut_of,
    ever_paused,
    is_paused,
    is_unread,
    supersedes,
    thawed_of,
)
from lcsearch.schedulers.optuna._retries import goes_on_with
from lcsearch.schedulers.optuna._storage import study_key
from lcsearch.stopping.abandoned import abandoned
from lcsearch.stopping.gates import THAWED
from lcsearch.stopping.risk import UNREADABLE
from lcsearch.study import FinishedTrials, Snapshot, Status, Trial
from lcsearch.study.moment import BEGAN_ANEW

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

SCHEDULE = "lcsearch:schedule"
"""The user attribute in which a trial's planned learning rate may stand: Schedule's fields, as JSON or a mapping."""
CACHED_STUDIES = 8
UNKNOWN = sys.float_info.max
"""The horizon while "auto" has no COMPLETE trial to take it from."""

_STATUS = {
    TrialState.RUNNING: Status.RUNNING,
    TrialState.WAITING: Status.PAUSED,
    TrialState.COMPLETE: Status.COMPLETE,
    TrialState.PRUNED: Status.STOPPED,
    TrialState.FAIL: Status.FAILED,
}


def as_trial(frozen: FrozenTrial) -> Trial:
    """A FrozenTrial as a trial. Attributes that lcsearch cannot read are left out: they are the user's own.

    A stop that stands is the record "stop", and its trial STOPPED even where Optuna has it as COMPLETE; one that the
    trial did not obey is the record "ignored", one that was audited "audit". Why one that was paused was ended is the
    record "cut", with ALLOCATED where an allocator did; why a trial has its configuration is "begun", of which stopped
    trial it is the thawed one "thawed". That of a stop whose record somebody damaged is "unreadable".
    """
    records: dict[str, Any] = {}
    curve, status = curve_of(frozen), _STATUS[frozen.state]
    record = Record.read(frozen)
    if record is not None and record.belongs(frozen):
        if record.stands(frozen, curve):
            records["stop"] = record.told(frozen)
            status = Status.STOPPED if status is Status.COMPLETE else status
        else:
            records["ignored"] = record.stop
    elif is_unread(frozen):
        records[UNREADABLE] = True
    if (audited := audit_of(frozen)) is not None:
        records["audit"] = audited
    why = cut_of(frozen) if status is Status.STOPPED else None
    if why is not None and "stop" not in records:
        records["cut"] = why
        if cut_kind(frozen) == "cut":
            records[ALLOCATED] = True
    if (chosen := begun_as(frozen)) is not None:
        records["begun"] = chosen
    if (thawed := thawed_of(frozen)) is not None:
        records[THAWED] = str(thawed)
    if began_anew(frozen):
        records[BEGAN_ANEW] = True
    return Trial(
        str(frozen.number),
        curve,
        frozen.params,
        status,
        _schedule(frozen.user_attrs.get(SCHEDULE)),
        stop_records=records,
        feasible=not frozen.state.is_finished() or all(value <= 0 for value in frozen.constraints.values()),
        returned=frozen.value if frozen.state == TrialState.COMPLETE and len(frozen.values or ()) == 1 else None,
    )


def _schedule(stored: Any) -> Schedule | None:
    """The planned schedule from the user attribute `lcsearch:schedule`: Schedule's fields, as JSON or a mapping."""
    try:
        fields = json.loads(stored) if isinstance(stored, str) else stored
        return Schedule(**fields) if isinstance(fields, dict) else None
    except (TypeError, ValueError, RecursionError):
        return None


@dataclass
class _Known:
    """What is kept of one study: a memo, never meaning.

    Attributes:
        bank: the finished trials below, in the order in which they were first seen.
        settled: the longest run of finished trials at the head of the study's list.
        later: finished trials after it, by number.
        superseded: numbers of stopped and failed trials that others go on with: those have their curves, and the bank
            is without them.
        for_good: of these the ones that settled trials go on with.
    """

    bank: FinishedTrials
    settled: list[FrozenTrial] = field(default_factory=list)
    later: dict[int, FrozenTrial] = field(default_factory=dict)
    superseded: frozenset[int] = frozenset()
    for_good: frozenset[int] = frozenset()

    @property
    def everyone(self) -> list[FrozenTrial]:
        """All finished trials that are known."""
        return [*self.settled, *self.later.values()]

    def standing(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        """Those of `trials` that no other one goes on with."""
        return [t for t in trials if t.number not in self.superseded] if self.superseded else trials


class _Tokens:
    """What tells a study from another one of its name, for all readers that have this in common."""

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[Any, ...], tuple[object, list[FrozenTrial]]] = OrderedDict()

    def of(
        self, key: tuple[Any, ...], trials: list[FrozenTrial], settled: list[FrozenTrial], *, another: bool
    ) -> object:
        """The study's token; a new one where it is `another` than before, as a reader or its settled trials tell."""
        token, head = self._seen.pop(key, (object(), []))
        if another or (head is not settled and trials[: len(head)] != head):
            token, head = object(), []
        self._seen[key] = token, max(head, settled, key=len)
        while len(self._seen) > CACHED_STUDIES:
            self._seen.popitem(last=False)
        return token


class Reading(NamedTuple):
    """One reading of a study.

    Attributes:
        bank: its finished trials.
        unfinished: all others, as Optuna has them.
        token: see :class:`~lcsearch.study.Snapshot`.
        trials: all of them, by number.
    """

    bank: FinishedTrials
    unfinished: list[FrozenTrial]
    token: object
    trials: Sequence[FrozenTrial] = ()


class Reader:
    """Reads studies with one `get_trials` each time, translating every finished trial once.

    Storages hand out the same object for a finished trial every time, so identity tells what is known. A storage that
    copies costs a comparison of contents; another study under the same key is read anew.
    """

    def __init__(
        self,
        max_steps: int | Literal["auto"],
        judged: Judged,
        bounds: Bounds | None = None,
        tokens: _Tokens | None = None,
    ) -> None:
        self._max_steps: int | Literal["auto"] = max_steps
        self.bounds = bounds
        self.judged: Judged = judged
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[Any, ...], _Known] = OrderedDict()
        self._tokens = _Tokens() if tokens is None else tokens

    def until(self, max_steps: int) -> Reader:
        """One that judges trials at `max_steps`, and by whose snapshots a process knows studies as by this one's."""
        return self if max_steps == self._max_steps else Reader(max_steps, self.judged, self.bounds, self._tokens)

    def __reduce__(self) -> tuple[type[Reader], tuple[Any, ...]]:
        return type(self), (self._max_steps, self.judged, self.bounds)

    def read(self, study: Study) -> Reading:
        """The study as it stands."""
        trials = study.get_trials(deepcopy=False)
        key = (*study_key(study), study.direction)
        with self._lock:
            known = before = self._known.pop(key, None)
            # List equality compares identities first, in C: a thousand settled trials cost ten microseconds.
            if known is None or trials[: len(known.settled)] != known.settled:
                known = self._anew(study)
            fresh, unfinished = _sort(known, trials)
            if fresh is None:
                known = self._anew(study)
                fresh, unfinished = _sort(known, trials)
            later = trials[len(known.settled) :]
            superseded = known.for_good.union(n for t in later if (n := _stands_for(t, trials)) is not None)
            if superseded != known.superseded:
                known.superseded, known.bank = superseded, self._bank(known.bank.goal.direction, known.everyone)
                known.bank = known.bank.extend(map(as_trial, known.standing(known.everyone)))
            if fresh:
                self._learn(known, trials, fresh)
            self._known[key] = known
            another = before is not None and known is not before
            token = self._tokens.of(key, trials, known.settled, another=another)
            while len(self._known) > CACHED_STUDIES:
                self._known.popitem(last=False)
            return Reading(known.bank, unfinished, token, trials)

    def _anew(self, study: Study) -> _Known:
        direction: Direction = "maximize" if study.direction == StudyDirection.MAXIMIZE else "minimize"
        return _Known(self._bank(direction, ()))

    def _bank(self, direction: Direction, complete: Sequence[FrozenTrial]) -> FinishedTrials:
        """An empty bank. "auto" takes the horizon from COMPLETE trials: they end at step 49 when the loop is range(50),
        and that is the horizon, whatever the user calls it. Before one has ended nothing can be stopped but a diverged
        trial, and any horizon will do.
        """
        horizon = float(self._max_steps) if self._max_steps != "auto" else float(_end(complete) or UNKNOWN)
        return FinishedTrials(Goal("value", direction, horizon, self.judged, self.bounds))

    def _learn(self, known: _Known, trials: list[FrozenTrial], fresh: list[FrozenTrial]) -> None:
        """Take in newly finished trials."""
        known.later.update((trial.number, trial) for trial in fresh)
        head = len(known.settled)
        while head < len(trials) and known.later.pop(trials[head].number, None) is not None:
            known.settled.append(trials[head])
            if (n := _stands_for(trials[head], trials)) is not None:
                known.for_good |= {n}
            head += 1
        everyone = known.everyone
        end = known.bank.goal.horizon
        if self._max_steps == "auto" and (end == UNKNOWN or _end(fresh) > end):
            known.bank, fresh = self._bank(known.bank.goal.direction, everyone), everyone
        known.bank = known.bank.extend(map(as_trial, known.standing(fresh)))


def standing(trials: Sequence[FrozenTrial]) -> list[Trial]:
    """The trials that no other one has gone on with to its end, as a reader of the study has them.

    Args:
        trials: all of a study, by number.
    """
    gone = {n for t in trials if t.state.is_finished() and (n := _stands_for(t, trials)) is not None}
    return [as_trial(t) for t in trials if t.number not in gone]


def _stands_for(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> int | None:
    """The number of the trial that has ended and whose training this one goes on with; None: none."""
    number = supersedes(trial)
    return goes_on_with(trial, trials) if number is None else number


def _end(trials: Sequence[FrozenTrial]) -> int:
    """The largest last step of the COMPLETE ones; 0 without any."""
    return max((t.last_step or 0 for t in trials if t.state == TrialState.COMPLETE), default=0)


def _sort(known: _Known, trials: list[FrozenTrial]) -> tuple[list[FrozenTrial] | None, list[FrozenTrial]]:
    """(newly finished, unfinished) trials after the settled ones; (None, []) when a known trial is gone."""
    fresh, unfinished, seen = [], [], 0
    for trial in trials[len(known.settled) :]:
        if known.later.get(trial.number) is trial:
            seen += 1
        elif trial.state.is_finished():
            fresh.append(trial)
        else:
            unfinished.append(trial)
    return (fresh if seen == len(known.later) else None), unfinished


def snapshot_of(study: Study, reading: Reading, current: Trial | None = None, silent: Collection[int] = ()) -> Snapshot:
    """The study as it stands.

    Args:
        study: the study.
        reading: what was read of it.
        current: the trial under a look, as its own process sees it.
        silent: numbers of trials that are known to be trained no more.
    """
    uid = "" if current is None else current.uid
    running = [t for t in reading.unfinished if t.state == TrialState.RUNNING and str(t.number) != uid]
    others = [as_trial(t) for t in running]
    # The pace since a trial began says nothing of one that was paused on its way.
    steady = [trial for trial, t in zip(others, running, strict=True) if not ever_paused(t)]
    left = abandoned(reading.bank, steady, current) | {str(n) for n in silent}
    live = [] if current is None else [current]
    live += [as_trial(t) for t in reading.unfinished if is_paused(t) and str(t.number) != uid]
    return Snapshot(
        study.study_name,
        reading.bank.goal,
        reading.bank,
        (*live, *(trial for trial in others if trial.uid not in left)),
        token=reading.token,
        abandoned=tuple(trial for trial in others if trial.uid in left),
    )


def ended_before(study: Study, frozen: FrozenTrial) -> set[str]:
    """Uids of the trials that had ended when a finished one did."""

    def end(trial: FrozenTrial) -> tuple[float, int]:
        return (trial.datetime_complete.timestamp() if trial.datetime_complete else math.inf), trial.number

    return {str(t.number) for t in study.get_trials(deepcopy=False) if t.state.is_finished() and end(t) < end(frozen)}
