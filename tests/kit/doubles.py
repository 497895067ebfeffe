"""Forecasters that fail on purpose: slow, dead, NaN, lying, silent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from lcsearch.forecast.contract import Absent, Forecaster, Forecasts, Query
from lcsearch.study import Snapshot


@dataclass
class Scripted:
    """Says `p` to every 'does it beat the incumbent?', and counts its calls: a forecaster with a known answer.

    The forecast is uniform on a stretch around the incumbent, placed so that P(beat) is exactly `p`.
    """

    p: float = 0.5
    name: str = "scripted"
    version: str = "1"
    calls: int = field(default=0, compare=False)
    asked: list[tuple[str, float]] = field(default_factory=list, compare=False)

    def probability(self, query: Query) -> float:
        """What to say to this query."""
        return self.p

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        """Uniform on [incumbent - p, incumbent + 1 - p] in loss units."""
        self.calls += 1
        self.asked += [(query.trial.uid, query.step) for query in queries]
        sign = snapshot.goal.sign
        at = sign * snapshot.incumbent.value if snapshot.incumbent is not None else 0.0
        p = np.array([self.probability(query) for query in queries])
        knots = np.stack([at - p, np.full(p.shape, at), at + 1.0 - p], 1)
        levels = np.stack([0.0 * p, p, 0.0 * p + 1.0], 1)
        return Forecasts.of(knots, levels, np.zeros((len(queries), 2)), sign=sign, source=f"{self.name}/{self.version}")


@dataclass
class Liar(Scripted):
    """Sure that nothing will ever win: P(beat) = 0 for all. The guard and the gates must hold without it."""

    p: float = 0.0
    name: str = "liar"


@dataclass
class Random(Scripted):
    """P(beat) drawn from a key of the question, the same in every process."""

    name: str = "random"
    seed: int = 0

    def probability(self, query: Query) -> float:
        """Uniform on [0, 1), from the seed, the trial and the length of its curve."""
        key = [self.seed, len(query.trial.curve), *query.trial.uid.encode()]
        return float(np.random.default_rng(key).random())


@dataclass
class Dead:
    """Raises."""

    error: Exception = field(default_factory=lambda: RuntimeError("the forecaster is dead"))
    name: str = "dead"
    version: str = "1"
    calls: int = 0

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        """Raise `error`."""
        self.calls += 1
        raise self.error


@dataclass
class NotANumber:
    """Rows of NaN that claim to be answers: built past the check of `Forecasts.of`."""

    name: str = "nan"
    version: str = "1"

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        """NaN knots with no reason given."""
        blank = np.full((len(queries), 3), np.nan)
        return Forecasts(blank, blank, blank[:, :2], snapshot.goal.sign, (None,) * len(queries), "nan/1")


@dataclass
class Silent:
    """Always absent, for one reason."""

    reason: Absent = Absent.UNSUPPORTED
    name: str = "silent"
    version: str = "1"

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        """`reason` for every query."""
        return Forecasts.none([self.reason] * len(queries), sign=snapshot.goal.sign, source="silent/1")


@dataclass
class Short:
    """Answers one query fewer than asked."""

    inner: Forecaster
    name: str = "short"
    version: str = "1"

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        """All but the last."""
        return self.inner.forecast(snapshot, queries[:-1])


@dataclass
class Slow:
    """Another forecaster behind a wait. `sleep` is given, so that a test's clock can do the waiting."""

    inner: Forecaster
    seconds: float
    sleep: Callable[[float], object]
    name: str = "slow"
    version: str = "1"

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        """Wait, then ask `inner`."""
        self.sleep(self.seconds)
        return self.inner.forecast(snapshot, queries)
