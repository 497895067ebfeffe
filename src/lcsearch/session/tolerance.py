"""Whether a decision made again is the recorded one: word for word, its numbers as near as machines agree on them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

TOLERANCE = 1e-3
"""Relative: numbers that stem from forecasts may differ by this from machine to machine; a P by 1e-6 more."""

_FORECAST = re.compile(r"(now|before)\.(p|interval|heard)\b|risk|independent|moves|against|record")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


class Differs(Exception):
    """What came out otherwise."""

    def __init__(self, field: str, recorded: object, found: object) -> None:
        self.args = field, recorded, found


def compare(recorded: Mapping[str, Any], found: Mapping[str, Any], inside: str = "") -> None:
    """Hold plain values to each other.

    Raises:
        Differs: one is another.
    """
    known, again = dict(_flat(recorded, inside)), dict(_flat(found, inside))
    for place, kept in known.items():
        if not agrees(kept, made := again.get(place), _FORECAST.search(place) is not None):
            raise Differs(place, kept, made)
    for place, made in again.items():
        if place not in known:
            raise Differs(place, None, made)


def _flat(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, one in value.items():
            yield from _flat(one, f"{place}.{name}" if place else str(name))
    elif isinstance(value, list | tuple):
        for i, one in enumerate(value):
            yield from _flat(one, f"{place}[{i}]")
    else:
        yield place, value


def agrees(one: Any, other: Any, forecast: bool) -> bool:
    """Is one value the other, within :data:`TOLERANCE` where it stems from a forecast?"""
    if one == other:
        return True
    if isinstance(one, bool) or isinstance(other, bool):
        return False
    if isinstance(one, int | float) and isinstance(other, int | float):
        near = (TOLERANCE, 1e-6) if forecast else (1e-9, 0.0)
        return math.isclose(one, other, rel_tol=near[0], abs_tol=near[1]) or (one != one and other != other)
    if isinstance(one, str) and isinstance(other, str) and forecast:
        pairs = list(zip(_NUMBER.findall(one), _NUMBER.findall(other), strict=False))
        return _NUMBER.sub("#", one) == _NUMBER.sub("#", other) and all(
            math.isclose(float(a), float(b), rel_tol=0.02) for a, b in pairs
        )
    return False
