"""log.jsonl of a pretraining run: one JSON object a line, only ever appended to."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

from lcsearch.files import loads


class Log:
    """Appends lines that carry `step` and `kind`; a line that is there already is not written twice.

    A resumed run repeats the steps since its checkpoint: it makes the same figures, which stand in the file already.
    What a kill left of a last line is cut off.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last = {entry["kind"]: int(entry["step"]) for entry in read(path)}
        _cut_torn_line(path)

    def write(self, kind: str, step: int, figures: dict[str, Any]) -> None:
        """Append, unless a line of this kind stands there for this step or a later one."""
        if step <= self._last.get(kind, -1):
            return
        self._last[kind] = step
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, "step": step, **{k: _plain(v) for k, v in figures.items()}}) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """Its lines; a torn last one is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]  # what follows the last \n is torn
    found = []
    for line in lines:
        with suppress(ValueError):  # a machine that lost its power may have left anything
            found.append(loads(line))
    return [
        entry for entry in found if isinstance(entry, dict) and isinstance(entry.get("step"), int) and "kind" in entry
    ]


def _cut_torn_line(path: Path) -> None:
    if path.exists():
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with path.open("r+b") as file:
                file.truncate(whole)


def _plain(value: Any) -> Any:
    """Numbers that JSON has no word for as text."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
