"""Which lines of a program are reports: `epoch=3 val_loss=0.52`, `Epoch 3: val_loss: 0.52`, JSON, or a pattern."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

Report = tuple[int, float]  # step and value

# "0,52" and "1,200" are numbers to whoever wrote them, and neither 0 nor 1
_STEP = r"(-?\d+(?:\.0*)?)(?!\w|\.\d|,\d{3}(?!\d))"
_VALUE = r"((?i:[-+]?(?:(?:\d+\.\d*|\.\d+)(?:e[-+]?\d+)?|\d+(?:e[-+]?\d+)?(?!,\d|\.|e)|inf(?:inity)?|nan)))(?!\w|\.\d)"
_DRAWN = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")  # colours and the like, ECMA-48's control sequences


def reader(step: str, metric: str, pattern: str | None = None) -> Callable[[str], Report | None]:
    """What makes a report of a line, or None of one that is none.

    Args:
        step, metric: the sweep file's names of them.
        pattern: in their place, a regular expression with the groups `step` and `value`.
    """
    return _by_names(step, metric) if pattern is None else _by_pattern(pattern)


def expected(step: str, metric: str, pattern: str | None) -> str:
    """What such lines look like."""
    if pattern is not None:
        return f"lines that match objective.pattern {pattern!r}"
    return f"lines like {step}=1 {metric}=0.5 (as the file's step and metric name them, or of an objective.pattern)"


def _by_names(step: str, metric: str) -> Callable[[str], Report | None]:
    """A line that holds both, step and value. JSON is taken apart: what stands in its texts is no report."""

    def of(name: str, between: str, number: str) -> re.Pattern[str]:
        # the name whole ("loss" is not the end of "val/loss"), perhaps in quotes, as Python's dicts have it
        return re.compile(rf"(?<![\w./-]){name}[\"']?{between}[\"']?{number}")

    own, metric_ = re.escape(step), re.escape(metric)
    # the first that is found counts: what is written as usual, before what people read
    steps = [of(own, r"\s*[=:]\s*", _STEP), of(f"(?i:{own})", r"(?:\s*[=:#]\s*|\s+#?|(?=[\[(]))[\[(]?\s*", _STEP)]
    values = [of(metric_, r"\s*[=:]\s*", _VALUE), of(metric_, r"\s+", _VALUE)]

    def read(line: str) -> Report | None:
        line = _DRAWN.sub("", line)
        if line.lstrip().startswith("{"):
            with suppress(ValueError, RecursionError):
                return _of_json(json.loads(line), step, metric)
        at, value = (next(filter(None, (p.search(line) for p in known)), None) for known in (steps, values))
        if at is not None and value is not None:
            with suppress(ValueError):  # Python reads no number of thousands of digits
                return int(at[1].partition(".")[0]), float(value[1])
        return None

    return read


def _by_pattern(pattern: str) -> Callable[[str], Report | None]:
    """A line that has the step alone counts for the next one that has a value alone, as where they stand on two."""
    known = re.compile(pattern)
    last: int | None = None

    def read(line: str) -> Report | None:
        nonlocal last
        found = known.search(_DRAWN.sub("", line))
        if found is None:
            return None
        with suppress(ValueError, OverflowError):
            if found["step"] is not None:
                last = _whole(float(found["step"]))
            if found["value"] is not None and last is not None:
                step, last = last, None
                return step, float(found["value"])
        return None

    return read


def _of_json(said: Any, step: str, metric: str) -> Report | None:
    """Step and value of an object, of those within it where it has none itself; `null` is no value."""
    at, value = _find(said, step), _find(said, metric)
    with suppress(ValueError, TypeError, OverflowError):
        if not isinstance(at, bool) and not isinstance(value, bool):
            return _whole(float(at)), float(value)
    return None


def _find(said: Any, name: str) -> Any:
    level = [said]
    while level:
        objects = [entry for entry in level if isinstance(entry, Mapping)]
        for entry in objects:
            if name in entry:
                return entry[name]
        level = [value for entry in objects for value in entry.values()]
    return None


def _whole(number: float) -> int:
    whole = int(number)
    if whole != number:
        raise ValueError("not whole")
    return whole
