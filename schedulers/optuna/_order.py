"""Trials whose reports come in no order: seen while they run, for storages keep reports by step."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping
from typing import NamedTuple

REMEMBERED = 1000


class _Span(NamedTuple):
    n: int
    low: int
    high: int


class Order:
    """What this process has seen of the reports of the trials that it runs."""

    def __init__(self) -> None:
        self._seen: OrderedDict[Hashable, _Span] = OrderedDict()

    def __reduce__(self) -> tuple[type[Order], tuple[()]]:
        return type(self), ()

    def broken(self, trial: Hashable, reports: Mapping[int, float]) -> tuple[int, int] | None:
        """The smallest and the largest step, where reports since the last look lie between those before; else None.

        A count down is none: its reports lie below all others (see :func:`~lcsearch.stopping.axis.odd_axis`).
        """
        now = _Span(len(reports), min(reports), max(reports))
        before = self._seen.pop(trial, now)
        self._seen[trial] = now
        while len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return (now.low, now.high) if now.n > before.n and now[1:] == before[1:] else None
