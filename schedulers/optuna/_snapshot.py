"""From an Optuna study to a snapshot: translation only."""

from __future__ import annotations

import contextlib
import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from optuna.study import StudyDirection
from optuna.trial import TrialState

from lcsearch.curves import Curve
from lcsearch.decide.risk import Mark
from lcsearch.errors import InvalidValue
from lcsearch.goal import Direction, Goal, Judged
from lcsearch.schedule import Schedule
from lcsearch.schedulers.optuna._storage import study_key
from lcsearch.study import Bank, Snapshot, Status, Trial

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

MARK = "lcsearch:mark"
REASON = "lcsearch:reason"
SCHEDULE = "lcsearch:schedule"
CACHED_STUDIES = 8

_STATUS = {
    TrialState.RUNNING: Status.RUNNING,
    TrialState.WAITING: Status.PAUSED,
    TrialState.COMPLETE: Status.COMPLETE,
    TrialState.PRUNED: Status.STOPPED,
    TrialState.FAIL: Status.FAILED,
}


def as_trial(frozen: FrozenTrial) -> Trial:
    """A FrozenTrial as a trial. Attributes that lcsearch cannot read are left out: they are the user's own."""
    marks: dict[str, Any] = {}
    text = frozen.system_attrs.get(MARK)
    if isinstance(text, str):
        with contextlib.suppress(InvalidValue):
            marks["stop"] = Mark.from_json(text)
    return Trial(
        str(frozen.number),
        Curve.of(frozen.intermediate_values),
        frozen.params,
        _STATUS[frozen.state],
        _schedule(frozen.user_attrs.get(SCHEDULE)),
        marks=marks,
    )


def _schedule(stored: Any) -> Schedule | None:
    """The planned schedule from the user attribute `lcsearch:schedule`: Schedule's fields, as JSON or a mapping."""
    try:
        fields = json.loads(stored) if isinstance(stored, str) else stored
        return Schedule(**fields) if isinstance(fields, dict) else None
    except (TypeError, ValueError):
        return None


class Banks:
    """The bank of every study seen lately, extended by the trials that finished since the last look."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[Any, ...], tuple[Bank, dict[int, FrozenTrial]]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]  # banks are a memo: the next look builds them again

    def bank(self, key: tuple[Any, ...], goal: Goal, finished: Sequence[FrozenTrial]) -> Bank:
        """The bank of `finished`, built from the last one when that holds none but these very trials.

        Storages hand out the same object for a finished trial every time; another object under a known number means
        another study (or a storage that copies), and then all is built anew.
        """
        with self._lock:
            bank, known = self._known.pop((*key, goal), (Bank(goal), {}))
            new = [trial for trial in finished if known.get(trial.number) is not trial]
            if len(known) + len(new) != len(finished):
                bank, known, new = Bank(goal), {}, list(finished)
            bank = bank.extend(map(as_trial, new))
            known.update((trial.number, trial) for trial in new)
            self._known[(*key, goal)] = bank, known
            while len(self._known) > CACHED_STUDIES:
                self._known.popitem(last=False)
            return bank


def goal_of(
    study: Study, max_steps: int | Literal["auto"], judged: Judged, finished: Sequence[FrozenTrial]
) -> Goal | None:
    """The goal; None when `max_steps` is "auto" and no COMPLETE trial shows where trials end."""
    direction: Direction = "maximize" if study.direction == StudyDirection.MAXIMIZE else "minimize"
    horizon: float = 0.0
    if max_steps == "auto":
        # Ends at step 49 when the loop is range(50): that is the horizon, whatever the user calls it.
        ends = (t.last_step for t in finished if t.state == TrialState.COMPLETE)
        horizon = float(max((end for end in ends if end is not None), default=0))
    else:
        horizon = float(max_steps)
    return Goal("value", direction, horizon, judged) if horizon > 0 else None


def snapshot_of(
    study: Study,
    current: FrozenTrial | None,
    trials: Sequence[FrozenTrial],
    banks: Banks,
    max_steps: int | Literal["auto"],
    judged: Judged,
) -> Snapshot | None:
    """The study as it stands, `current` as its own process sees it; None while the horizon is not known."""
    finished = [t for t in trials if t.state.is_finished()]
    goal = goal_of(study, max_steps, judged, finished)
    if goal is None:
        return None
    number = -1 if current is None else current.number
    live = [as_trial(t) for t in trials if t.state == TrialState.RUNNING and t.number != number]
    if current is not None and not current.state.is_finished():
        live.append(as_trial(current))
    return Snapshot(study.study_name, goal, banks.bank(study_key(study), goal, finished), tuple(live))
