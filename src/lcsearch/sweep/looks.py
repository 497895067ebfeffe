"""What the growing decision log says: the latest P(beat) of every trial, failed-open looks, latencies."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class LookTail:
    """Reads what was appended since the last call; a torn last line is left for the next.

    Attributes:
        folder: the decision log.
        failed_open: "forecaster REASON" -> looks at which it gave no opinion, so that the trial went on.
        latencies: seconds of every look that reached a forecaster.
    """

    folder: Path
    failed_open: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    _read: dict[Path, int] = field(default_factory=dict)
    _latest: dict[int, tuple[float, float]] = field(default_factory=dict)

    def latest(self) -> dict[int, tuple[float, float]]:
        """trial number -> (step, P(beat)) at its latest look that reached a forecaster."""
        for path in self.folder.glob("*.jsonl"):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                fresh = file.read()
            whole = fresh[: fresh.rfind(b"\n") + 1]
            self._read[path] = self._read.get(path, 0) + len(whole)
            for line in whole.splitlines():
                self._take(line)
        return self._latest

    def _take(self, line: bytes) -> None:
        try:
            record: dict[str, Any] = json.loads(line)
            if "now" in record:
                self.latencies.append(float(record["latency"]))
            if record["reason"] == "ABSENT":
                said = {**record["before"]["heard"], **record["now"]["heard"]}
                self.failed_open.update(f"{who} {why}" for who, why in said.items() if isinstance(why, str))
            number, step, p = int(record["trial"]), float(record["now"]["step"]), record["now"]["p"]
        except (ValueError, KeyError, TypeError):
            return  # a look held by a gate has no P(beat)
        if p is not None and step >= self._latest.get(number, (-1.0, 0.0))[0]:
            self._latest[number] = (step, float(p))

    def line(self) -> str | None:
        """Looks, their latency and the failed-open ones in one line; None before the first look."""
        self.latest()
        if not self.latencies:
            return None
        low, high = (1e3 * q for q in quantiles(self.latencies, (0.5, 0.99)))
        text = f"looks: {len(self.latencies)} forecasts, {low:.0f} ms (p99 {high:.0f} ms)"
        if self.failed_open:
            said = ", ".join(f"{what} {n}" for what, n in self.failed_open.most_common())
            text += f"; no opinion, so the trial went on: {said}"
        return text


def quantiles(values: Sequence[float], levels: Iterable[float]) -> list[float]:
    """The value at each level, none interpolated."""
    ordered = sorted(values)
    return [ordered[min(int(level * len(ordered)), len(ordered) - 1)] for level in levels]
