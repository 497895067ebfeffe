"""What a study's stops came to, read from the marks in its storage."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from lcsearch.engine.ask import target_of
from lcsearch.engine.judge import risk_now
from lcsearch.engine.policy import Policy
from lcsearch.study import Snapshot, Status


@dataclass(frozen=True)
class Stop:
    """One stopped trial.

    Attributes:
        trial: its number.
        step: where it was stopped.
        p: P(beat) then; None for a divergence.
        reason: one line.
        p_now: P(it would have beaten the present incumbent), by its stored forecast; NaN without an incumbent.
    """

    trial: int
    step: float
    p: float | None
    reason: str
    p_now: float = math.nan


@dataclass(frozen=True)
class StudyReport:
    """A study's stops.

    Attributes:
        risk: P(some stopped trial would have beaten the present incumbent); None without an incumbent.
        stops: in order of trial number.
        failed_open: looks of this process where nothing could be said and the trial went on, by what failed.
    """

    risk: float | None
    stops: tuple[Stop, ...]
    failed_open: int


def report_of(policy: Policy, snapshot: Snapshot, reasons: Mapping[int, str], failed_open: int) -> StudyReport:
    """From a snapshot; `reasons` are the one-line reasons by trial number."""
    stops, target = [], target_of(policy, snapshot)
    for trial in snapshot.bank:
        mark = trial.marks.get("stop")
        if trial.status is Status.STOPPED and mark is not None:
            number = int(trial.uid)
            stops.append(Stop(number, mark.step, mark.p, reasons.get(number, mark.reason), mark.p_beat(target)))
    risk = risk_now(policy, snapshot)
    return StudyReport(risk, tuple(sorted(stops, key=lambda stop: stop.trial)), failed_open)
