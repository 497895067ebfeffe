"""The latest P(beat) of every trial, read from the growing decision log."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class LookTail:
    """Reads what was appended since the last call; a torn last line is left for the next."""

    folder: Path
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
            number, step, p = int(record["trial"]), float(record["now"]["step"]), record["now"]["p"]
        except (ValueError, KeyError, TypeError):
            return  # a look held by a gate has no P(beat)
        if p is not None and step >= self._latest.get(number, (-1.0, 0.0))[0]:
            self._latest[number] = (step, float(p))
