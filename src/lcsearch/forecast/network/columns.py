"""Configurations as columns of numbers: what differs among finished trials, scaled as the network knows it.

Values may be of any type; one that cannot be read is like one that is not there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lcsearch.curves import Floats

MOST = 32
"""Parameters that are read, at most."""
_ADDRESS = re.compile(r" at 0x[0-9A-Fa-f]+")

Plain = Mapping[Hashable, float | str]


def plain(params: Mapping[Any, Any]) -> dict[Hashable, float | str]:
    """Every value as a float (NaN where it is infinite or too large for one) or as a category's word."""
    return {name: _plain(value) for name, value in params.items()}


def _plain(value: Any) -> float | str:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            return math.nan
        return number if math.isfinite(number) else math.nan
    try:
        return _ADDRESS.sub("", repr(value))  # where an object lies in memory is no part of the configuration
    except Exception:  # a user's own class may do anything
        return type(value).__qualname__


@dataclass(frozen=True)
class Column:
    """One parameter.

    Attributes:
        name: of the parameter.
        words: a category's words and their numbers; None for a number.
        log: whether a number is scaled after a logarithm.
        low, high: of a number, among the finished trials.
    """

    name: Hashable
    words: Mapping[str, int] | None = None
    log: bool = False
    low: float = 0.0
    high: float = 1.0

    def encode(self, values: Sequence[float | str]) -> Floats:
        """(N,) as in :class:`~lcsearch.forecast.network.studies.Studies`; NaN where there is none."""
        words = self.words
        if words is not None:  # a number among words is a word too; NaN stands for what is absent
            found = [words.get(str(v), len(words)) if v == v else math.nan for v in values]
            return np.array(found, np.float64)
        if str in set(map(type, values)):
            values = [math.nan if isinstance(v, str) else v for v in values]
        x = np.array(values, np.float64)
        low, high = self.low, self.high
        if self.log:
            with np.errstate(invalid="ignore"):
                x = np.log(np.where(x > 0, x, np.where(np.isnan(x), x, low)))
            low, high = math.log(low), math.log(high)
        # in halves: a range may be too large for a float
        with np.errstate(all="ignore"):  # or too small
            share: Floats = (0.5 * x - 0.5 * low) / (0.5 * high - 0.5 * low)
        return np.clip(share, -0.25, 1.25)


@dataclass(frozen=True)
class Columns:
    """The parameters that differ among the finished trials, by name."""

    columns: tuple[Column, ...]

    @classmethod
    def of(cls, trials: Sequence[Plain]) -> Columns:
        """Find them: numbers where every value is one, else categories."""
        names = {name: None for trial in trials for name in trial}
        found: list[Column] = []
        for name in sorted(names, key=str):
            values = {trial.get(name, math.nan) for trial in trials}
            if str in set(map(type, values)):
                words = sorted({str(v) for v in values if v == v})
                if len(words) > 1:
                    found.append(Column(name, {word: i for i, word in enumerate(words)}))
                continue
            numbers = np.fromiter(values, np.float64, len(values))  # no word among them
            numbers = numbers[numbers == numbers]
            if numbers.size and (low := float(numbers.min())) < (high := float(numbers.max())):
                found.append(Column(name, None, low > 0 and high / low > 30, low, high))
        return cls(tuple(found[:MOST]))

    @property
    def kinds(self) -> list[int]:
        """1 for a number, 2 for a category."""
        return [1 if column.words is None else 2 for column in self.columns]

    def encode(self, trials: Sequence[Plain]) -> Floats:
        """(N, D); NaN where a trial has no such parameter."""
        out = np.empty((len(trials), len(self.columns)))
        for k, column in enumerate(self.columns):
            out[:, k] = column.encode([trial.get(column.name, math.nan) for trial in trials])
        return out
