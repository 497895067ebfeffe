"""Forecasters with known answers, forecasters that fail on purpose (slow, dead, NaN, lying, silent), and a clock and
sinks to go with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lcsearch.forecast.contract import Absent, Forecaster, Forecasts, Query
from lcsearch.stopping.decision import Receipt
from lcsearch.study import Snapshot, Status

FAR = 1e9


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

    error: BaseException = field(default_factory=lambda: RuntimeError("CUDA error: device lost"))
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


class Knows:
    """Knows what every configuration will reach, to within .01: how far its parameter `name` is from `at`."""

    name, version = "knows", "1"

    def __init__(self, at: float = 0.3, parameter: str = "x") -> None:
        self.at, self.parameter = at, parameter
        self.asked = 0  # trials without a report
        self.seen: list[Status] = []  # of the trials that lived at the latest call

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        """Even on that distance, give or take .01, in loss units."""
        self.asked += sum(not len(query.trial.curve) for query in queries)
        self.seen = [trial.status for trial in snapshot.live]
        ends = np.array([abs(query.trial.params[self.parameter] - self.at) for query in queries])
        knots = np.stack([ends - 0.01, ends + 0.01], 1)
        levels = np.tile([0.0, 1.0], (len(queries), 1))
        return Forecasts.of(knots, levels, 0 * knots, sign=snapshot.goal.sign, source="knows/1")


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


class Rows:
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
    """Answers for `judge`: forecaster -> (now, before)."""
    return {name: [p if isinstance(p, Absent) else chances([p], sign) for p in ps] for name, ps in answers.items()}
