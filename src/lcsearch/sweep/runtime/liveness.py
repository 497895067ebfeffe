"""A worker's pulse: a small file that says that its process lives, and when its trial reported last.

A thread of the worker writes it every second. What counts as a stall is worked out by the launcher from the trial's
own pace; a thread that falls silent (the process is stopped, or a library holds the interpreter in one long call) is
told with it, and ends nothing by itself: a long epoch is no death.
"""

from __future__ import annotations

import json
import os
import statistics
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from lcsearch import files
from lcsearch.errors import is_finite_number
from lcsearch.files import loads

FLOOR_S = 60.0
"""No trial is called stalled before it has been silent for this long,"""
FACTOR = 20.0
"""nor before this many of its usual gaps between two reports;"""
FIRST_S = 600.0
"""and before its first report, which may have to wait for data or a compiler, not before this."""

LATE_S = 2.0
"""A pulse is this old at most, of a process that answers."""

_EVERY_S = 1.0
_PACE = 3  # gaps that make a pace
_REMEMBERED = 64


@dataclass(frozen=True)
class Heartbeat:
    """What a worker's pulse said; times are of the machine's monotonic clock, which all its processes share.

    Attributes:
        pid: the worker.
        trial: the trial it trains; None between trials.
        at: when this was written.
        since: when the trial reported last, or was begun here if it has not yet.
        reports: reports of the trial in this process, replayed steps included.
        gap: median seconds between them; None before there are a few.
    """

    pid: int
    trial: int | None
    at: float
    since: float
    reports: int
    gap: float | None


class HeartbeatWriter:
    """Writes the file; `begin`, `reported` and `end` only note the time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._trial: int | None = None
        self._since, self._reports = time.monotonic(), 0
        self._gaps: deque[float] = deque(maxlen=_REMEMBERED)
        threading.Thread(target=self._go_on, name="pulse", daemon=True).start()

    def begin(self, trial: int) -> None:
        """A trial is begun, or goes on."""
        self._gaps.clear()
        self._since, self._reports, self._trial = time.monotonic(), 0, trial

    def reported(self) -> None:
        """The trial has reported."""
        now = time.monotonic()
        if self._reports:
            self._gaps.append(now - self._since)
        self._since, self._reports = now, self._reports + 1

    def end(self) -> None:
        """The trial has ended."""
        self._trial = None

    def heartbeat(self) -> Heartbeat:
        """What the file says."""
        gaps = list(self._gaps)
        gap = statistics.median(gaps) if len(gaps) >= _PACE else None
        return Heartbeat(os.getpid(), self._trial, time.monotonic(), self._since, self._reports, gap)

    def _go_on(self) -> None:
        temporary = self._path.with_suffix(".tmp")
        while True:
            with suppress(OSError, RuntimeError):  # a full disk, a deque that grew meanwhile: at the next beat
                with files.create(temporary) as file:
                    file.write(json.dumps(asdict(self.heartbeat())).encode())
                temporary.replace(self._path)
            time.sleep(_EVERY_S)


def read(path: Path) -> Heartbeat | None:
    """The last pulse; None when there is none, or one that cannot be read."""
    try:
        vital = Heartbeat(**loads(files.read(path, 1 << 16)))
    except (OSError, ValueError, TypeError):
        return None
    needed, other = (vital.pid, vital.at, vital.since, vital.reports), (vital.trial, vital.gap)
    fine = all(map(is_finite_number, needed)) and all(n is None or is_finite_number(n) for n in other)
    return vital if fine else None


def patience(vital: Heartbeat, others: Sequence[float]) -> float:
    """Seconds of silence after which the trial of `vital` is called stalled; `others` are gaps of other trials."""
    pace = vital.gap if vital.gap is not None else statistics.median(others) if others else None
    if vital.reports == 0 or pace is None:
        return max(FIRST_S, FACTOR * (pace or 0.0))
    return max(FLOOR_S, FACTOR * pace)
