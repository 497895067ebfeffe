"""What the growing decision log says: the latest P(beat) of every trial, failed-open looks, latencies."""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lcsearch import files
from lcsearch.allocation.receipt import AllocationReceipt
from lcsearch.session.decision_log import entry_of, lines_missing

KEPT = 20
"""The latest allocations of which the receipts are kept."""


@dataclass
class DecisionLogTail:
    """Reads what was appended since the last call; a torn last line is left for the next.

    Attributes:
        folder: the decision log.
        failed_open: "forecaster REASON" -> looks at which it gave no forecast, so that the trial went on.
        latencies: seconds of every look that reached a forecaster, shortest first after a reading.
        left_out: the places (`FILE:LINE`, or `FILE`) that could not be read.
        missing: file -> lines that are missing before its last one.
        torn: files whose last line has no end, as of the last reading.
        stops: trials (their numbers, as text) of which a look came to a stop.
        allocations: receipts of the latest allocations, in their order; a receipt names all trials, so only a few are
            kept.
        n_turns: moves of all allocations.
        heard: told of every allocation that is read.
    """

    folder: Path
    failed_open: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    missing: dict[Path, int] = field(default_factory=dict)
    torn: set[Path] = field(default_factory=set)
    stops: set[str] = field(default_factory=set)
    allocations: list[AllocationReceipt] = field(default_factory=list)
    n_turns: int = 0
    heard: Callable[[AllocationReceipt], None] = lambda receipt: None
    _read: dict[Path, tuple[int, int]] = field(default_factory=dict)  # file -> bytes, lines
    _latest: dict[int, tuple[float, float]] = field(default_factory=dict)

    def latest(self) -> dict[int, tuple[float, float]]:
        """trial number -> (step, P(beat)) at its latest look that reached a forecaster."""
        for path in sorted(self.folder.glob("*.jsonl")):
            begin, number = self._read.get(path, (0, 0))
            self.torn.discard(path)
            last = b""
            try:
                for end, line in files.lines(path, begin):
                    if not line.endswith(b"\n"):
                        self.torn.add(path)
                        break
                    number += 1
                    if not self._take(line) and line.strip():
                        self.left_out.append(f"{path}:{number}")
                    self._read[path], last = (end, number), line
                if missing := lines_missing(last, number):
                    self.missing[path] = missing
            except OSError:
                if str(path) not in self.left_out:
                    self.left_out.append(str(path))
        self.latencies.sort()  # a pass over what is sorted but for its end
        return self._latest

    @property
    def count(self) -> int:
        """Looks that reached a forecaster."""
        return len(self.latencies)

    def latency(self) -> tuple[float, float] | None:
        """(p50, p99) of a look in seconds, as of the last reading; None before the first look."""
        if not self.latencies:
            return None
        low, high = quantiles(self.latencies, (0.5, 0.99))
        return low, high

    def _take(self, line: bytes) -> bool:
        """Take in one line; False: it is no record."""
        entry = entry_of(line)
        if entry is None:
            return False
        record = entry[1]
        if isinstance(record, AllocationReceipt):
            self.n_turns += len(record.moves)
            insort(self.allocations, record, key=lambda one: one.number)
            del self.allocations[:-KEPT]
            self.heard(record)
            return True
        if record.get("verdict") == "STOP":
            self.stops.add(str(record["trial"]))
        now: dict[str, Any] | None = record.get("now")
        if now is None:
            return True  # a look held by a gate has no P(beat)
        if record.get("latency") is not None:
            self.latencies.append(float(record["latency"]))
        if record.get("reason") == "ABSENT":
            said = {**(record.get("before") or {}).get("heard", {}), **now.get("heard", {})}
            self.failed_open.update(f"{who} {why}" for who, why in said.items() if isinstance(why, str))
        p, step, uid = now.get("p"), float(now["step"]), str(record["trial"])
        if p is not None and uid.isdecimal() and step >= self._latest.get(int(uid), (-1.0, 0.0))[0]:
            self._latest[int(uid)] = (step, float(p))
        return True


def quantiles(values: Sequence[float], levels: Iterable[float]) -> list[float]:
    """The value at each level, none interpolated."""
    ordered = sorted(values)
    return [ordered[min(int(level * len(ordered)), len(ordered) - 1)] for level in levels]
