"""What a step costs: the median time between a trial's own reports.

The way to the first report (start-up, imports, data) is no part of it, and one slow step among many (the first look
loads a model) does not move a median.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from lcsearch.allocation.paces import rounded

ENOUGH = 3
"""Gaps between reports from which on a trial has a pace of its own."""


class Pace(NamedTuple):
    """Median seconds of a step, and how many gaps between two reports it is the median of."""

    seconds: float
    gaps: int


class Pacer:
    """Notes when the reports of one trial come in one process."""

    def __init__(self) -> None:
        self._last: tuple[int, float] | None = None
        self._gaps: list[float] = []  # seconds of a step

    def came(self, step: int, at: float) -> None:
        """A report of `step` came at `at`, in seconds of a clock that only goes forward."""
        if self._last is not None and step > self._last[0]:
            self._gaps.append((at - self._last[1]) / (step - self._last[0]))
        self._last = step, at

    def pause(self) -> None:
        """What comes next is another process's: no gap lies between."""
        self._last = None

    def told(self) -> dict[str, float]:
        """What is stored with the trial, see :func:`pace_in`; nothing before there is a gap."""
        return {"pace": statistics.median(self._gaps), "gaps": len(self._gaps)} if self._gaps else {}


def pace_in(stored: object) -> Pace | None:
    """The pace that was stored; None where there is none: an earlier lcsearch kept no times of reports."""
    if not isinstance(stored, Mapping):
        return None
    try:
        found = Pace(float(stored["pace"]), int(stored["gaps"]))
    except (KeyError, TypeError, ValueError):
        return None
    return found if math.isfinite(found.seconds) and found.seconds >= 0 and found.gaps > 0 else None


def settled(paces: Iterable[Pace | None]) -> float | None:
    """The usual pace, :func:`~lcsearch.allocation.paces.rounded`, once it can be built on: one trial has a pace of its
    own, or `ENOUGH` of them have some; None before.
    """
    known = [pace for pace in paces if pace is not None]
    found = usual(known)
    enough = len(known) >= ENOUGH or any(pace.gaps >= ENOUGH for pace in known)
    return rounded(found) if enough and found is not None else None


def usual(paces: Iterable[Pace | None]) -> float | None:
    """Seconds of a step in the middle trial, of those with a pace of their own if there are any; None without one."""
    known = [pace for pace in paces if pace is not None]
    known = [pace for pace in known if pace.gaps >= ENOUGH] or known
    return statistics.median(pace.seconds for pace in known) if known else None
