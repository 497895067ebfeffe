"""Forecasters whose answers are known beforehand, some of them faulty, and a clock and sinks to go with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lcsearch.forecast.contract import Absent, Forecasts, Query
from lcsearch.stopping.decision import Receipt
from lcsearch.study import Snapshot

FAR = 1e9


class NormalAroundBest:
    """Normal around the best loss so far, of standard deviation `sd`: plain, deterministic, easily worked out."""

    name, version = "fake", "1"

    def __init__(self, sd: float = 0.05) -> None:
        self.sd = sd

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        from scipy.special import ndtri

        levels = np.linspace(0.001, 0.999, 41)
        centre = np.full(len(queries), np.nan)
        for i, query in enumerate(queries):
            if len(query.trial.curve):
                centre[i] = (snapshot.goal.sign * query.trial.curve.values).min()
        knots = centre[:, None] + self.sd * ndtri(levels)
        tails = np.full((len(queries), 2), 0.3 * self.sd)
        return Forecasts.of(
            knots, np.broadcast_to(levels, knots.shape), tails, sign=snapshot.goal.sign, source=self.name
        )


def chances(p: Sequence[float], sign: float = 1.0) -> Forecasts:
    """Row i beats whatever lies within FAR with probability p[i], and loses to it otherwise."""
    rows = np.array(p, np.float64)
    knots = np.tile([-FAR, -FAR, FAR, FAR], (rows.size, 1))
    levels = np.stack([np.zeros_like(rows), rows, rows, np.ones_like(rows)], axis=1)
    return Forecasts.of(knots, levels, np.zeros((rows.size, 2)), sign=sign, source="scripted")


class Scripted:
    """Says (p now, p at the previous look); an Absent instead of a number is that reason."""

    version = "1"

    def __init__(self, *p: float | Absent, name: str = "scripted") -> None:
        self.p, self.name, self.calls = p, name, 0

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        self.calls += 1
        numbers = [0.5 if isinstance(p, Absent) else p for p in self.p]
        told = chances(numbers, snapshot.goal.sign)
        absent = tuple(p if isinstance(p, Absent) else None for p in self.p)
        return Forecasts(told.knots, told.levels, told.tails, told.sign, absent, self.name)


class Dead:
    """Raises."""

    name, version = "dead", "1"

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error or RuntimeError("CUDA error: device lost")

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        raise self.error


class Mute(Exception):
    """An error that cannot even be printed."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class Late:
    """Would stop everything, but takes `seconds` on the fake clock."""

    name, version = "late", "1"

    def __init__(self, clock: Clock, seconds: float) -> None:
        self.clock, self.seconds = clock, seconds

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        self.clock.now += self.seconds
        return chances([0.0] * len(queries), snapshot.goal.sign)


class Returns:
    """Returns the same thing whatever is asked."""

    name, version = "returns", "1"

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Any:
        return self.answer


class Clock:
    """Stands still until it is told otherwise."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Kept:
    """A sink in memory."""

    def __init__(self) -> None:
        self.receipts: list[Receipt] = []

    def write(self, receipt: Receipt) -> None:
        self.receipts.append(receipt)


class FullDisk:
    """A sink that raises."""

    def write(self, receipt: Receipt) -> None:
        raise OSError(28, "No space left on device")


def scripted(answers: Mapping[str, Sequence[float | Absent]], sign: float = 1.0) -> dict[str, list[Forecasts | Absent]]:
    """Opinions for `judge`: forecaster -> (now, before)."""
    return {name: [p if isinstance(p, Absent) else chances([p], sign) for p in ps] for name, ps in answers.items()}
