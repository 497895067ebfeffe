"""One training run as it stands."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from lcsearch.curves import Curve, Floats
from lcsearch.errors import InvalidValue
from lcsearch.schedule import Schedule

_Steps = TypeVar("_Steps", float, Floats)


class Status(enum.Enum):
    """Where a trial is in its life."""

    RUNNING = "running"
    PAUSED = "paused"
    COMPLETE = "complete"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def finished(self) -> bool:
        """True for the states a trial never leaves."""
        return self in (Status.COMPLETE, Status.STOPPED, Status.FAILED)


def uid_sort_key(uid: str) -> tuple[int, str]:
    """Order of uids: numbers as numbers, "9" before "10"; so are Ray's ids, which are of one length.

    >>> sorted(["10", "9", "a_02", "a_01"], key=uid_sort_key)
    ['9', '10', 'a_01', 'a_02']
    """
    return len(uid), uid


@dataclass(frozen=True, eq=False)
class Trial:
    """One training run as it stands.

    Attributes:
        uid: unique in its study; the trial number as text in Optuna, the trial id in Ray Tune.
        curve: what it reported so far.
        params: its configuration, name -> value.
        status: see `Status`.
        schedule: the learning rate it plans to follow, when known.
        cost: compute spent so far, in any unit that is the same for the whole study; None when not measured.
        stop_records: past decisions about this trial, kept in the framework's own storage (see stopping/risk.py).
        feasible: False for one that has ended outside its study's constraints: it may be compared with, and is never
            what must be beaten.
        returned: what the framework ranks the trial by, where that need not be on its curve; None when not known.
    """

    uid: str
    curve: Curve = field(default_factory=Curve)
    params: Mapping[str, Any] = field(default_factory=dict)
    status: Status = Status.RUNNING
    schedule: Schedule | None = None
    cost: float | None = None
    stop_records: Mapping[str, Any] = field(default_factory=dict)
    feasible: bool = True
    returned: float | None = None

    def __post_init__(self) -> None:
        if not self.uid:
            raise InvalidValue("a non-empty uid", self.uid, "Trial.uid")
        if self.cost is not None and not self.cost >= 0:
            raise InvalidValue("a cost >= 0 or None", self.cost, "Trial.cost")

    @property
    def counts(self) -> bool:
        """Whether it may be a study's result once it is complete: it is feasible, and what it returned, if that is
        known, is a number, whatever was reported on the way."""
        return self.feasible and (self.returned is None or math.isfinite(self.returned))

    def cut(self, step: float) -> Trial:
        """This trial as it stood at `step`; only the curve is cut."""
        curve = self.curve.cut(step)
        return self if curve is self.curve else replace(self, curve=curve)


def steps_trained(steps: Sequence[float], horizon: float, *, complete: bool) -> float:
    """Steps that a trial has trained by its reports at `steps`, rising; 0 without one.

    `range(n)` reports step 0 after the first unit of work; epochs from 1 report 1. Reports may come every few steps: a
    COMPLETE trial trained to the horizon where it owed no report any more, the gap between its last two being wider
    than what was left.
    """
    if not len(steps):
        return 0
    gap = steps[-1] - steps[-2] if len(steps) > 1 else 1
    owed_none = complete and steps[-1] + gap > horizon - (steps[0] == 0)
    return max(trained_by(steps[-1], steps[0]), horizon if owed_none else 0)


def trained_by(step: _Steps, first: float) -> _Steps:
    """Steps trained up to the report at `step`, one or an array, of a trial whose first report was at step `first`."""
    return step + (first == 0)
