"""What every forecaster takes and gives: queries, forecasts, and the reasons for saying nothing.

A distribution is a piecewise-linear CDF between knots with an exponential tail beyond either end. One form serves
all forecasters (a mixture read off at its quantiles, an empirical distribution with its atoms, a network's binned
head), and its CDF, quantiles, mean and samples are exact, none of them a Monte Carlo estimate.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lcsearch.curves import Floats
from lcsearch.errors import InvalidValue
from lcsearch.goal import Goal
from lcsearch.study import Snapshot, Trial

_FEW = 16  # places of one row that are read off one by one
Kind = Literal["value", "latent", "best_by"]


def judged_kind(goal: Goal) -> Kind:
    """What is asked about at the step where trials are judged."""
    return "best_by" if goal.judged == "best" else "value"


class Query(NamedTuple):
    """One question about one trial.

    Attributes:
        trial: the trial, its curve cut where the question is asked.
        kind: "value" (what will be reported at `step`), "latent" (the same without noise) or "best_by" (the best
            value reported up to and including `step`, what was already reported included).
        step: where, on the resource axis.
    """

    trial: Trial
    kind: Kind
    step: float


class Absent(enum.Enum):
    """Why a forecaster said nothing; the value is what to make of it. An absent forecast never stops a trial."""

    LATE = "No answer within the deadline: the trial goes on. Check the host's load, or raise the deadline."
    FAILED = "The forecaster failed: the trial goes on. The receipt holds the error."
    NONFINITE = "Nothing finite to forecast from: the trial goes on unless its reports stay non-finite."
    UNSUPPORTED = "The curve is unlike anything the forecaster knows: the trial goes on."
    # names of an earlier version, in logs and records that are still read
    DEAD = FAILED
    OFF_LAW = UNSUPPORTED

    @property
    def advice(self) -> str:
        """What it means for the user."""
        return str(self.value)


@dataclass(frozen=True, eq=False)
class Forecasts:
    """Q predictive distributions, one a query, or the reason for there being none.

    Kept in loss units (`sign * value`, lower is better), so that a mirrored study gives the same bits; every method
    speaks the metric's own units.

    Attributes:
        knots: (Q, K) losses, non-decreasing along a row; equal neighbours are an atom.
        levels: (Q, K) P(loss <= knot), non-decreasing along a row, in [0, 1]; at an atom the last level counts.
        tails: (Q, 2) scales >= 0 of the exponential tails: below the first knot lies mass levels[:, 0], above the
            last one mass 1 - levels[:, -1]. A scale of 0 puts that mass on the knot itself.
        sign: +1.0 when lower is better, -1.0 when higher is.
        absent: Q entries; where one is not None the row's numbers mean nothing (they are NaN).
        source: the forecaster's name and version.
    """

    knots: Floats
    levels: Floats
    tails: Floats
    sign: float
    absent: tuple[Absent | None, ...]
    source: str = ""

    def __post_init__(self) -> None:
        q = len(self.absent)
        if self.knots.ndim != 2 or self.knots.shape[0] != q or self.levels.shape != self.knots.shape:
            shapes = (self.knots.shape, self.levels.shape)
            raise InvalidValue(f"knots and levels of shape ({q}, K)", shapes, "Forecasts")
        if self.tails.shape != (q, 2):
            raise InvalidValue(f"tails of shape ({q}, 2)", self.tails.shape, "Forecasts.tails")

    @classmethod
    def of(
        cls,
        knots: Floats,
        levels: Floats,
        tails: Floats,
        *,
        sign: float,
        source: str,
        absent: Sequence[Absent | None] | None = None,
    ) -> Forecasts:
        """Check and wrap; a row that is not a distribution becomes absent (NONFINITE) instead of an answer.

        Args:
            absent: reasons that are known already; they stay.
        """
        levels = np.broadcast_to(levels, knots.shape)
        good = np.isfinite(knots).all(1) & np.isfinite(levels).all(1) & np.isfinite(tails).all(1)
        with np.errstate(invalid="ignore", over="ignore"):
            good &= (np.diff(knots, axis=1) >= 0).all(1) & (np.diff(levels, axis=1) >= 0).all(1)
            good &= np.isfinite(knots[:, -1] - knots[:, 0])  # beyond it every probability between them would be 0
            good &= (levels[:, 0] >= 0) & (levels[:, -1] <= 1) & (tails >= 0).all(1)
        known = absent if absent is not None else [None] * len(good)
        reasons = tuple(r or (None if ok else Absent.NONFINITE) for r, ok in zip(known, good, strict=True))
        return cls(knots, levels, tails, sign, reasons, source)

    @classmethod
    def none(cls, reasons: Sequence[Absent], *, sign: float = 1.0, source: str = "") -> Forecasts:
        """Q absent answers."""
        q = len(reasons)
        blank = np.full((q, 2), np.nan)
        return cls(blank, blank, blank, sign, tuple(reasons), source)

    def __len__(self) -> int:
        return len(self.absent)

    @classmethod
    def mixture(cls, parts: Sequence[Forecasts]) -> Forecasts:
        """One distribution from single-row ones of one study, in equal shares; exact at every knot of theirs.

        Between knots it is linear, as theirs are; a tail is the widest of theirs.
        """
        first = parts[0]
        if len(parts) == 1:
            return first
        knots = np.unique(np.concatenate([part.knots[0] for part in parts]))
        # an atom is a jump: the knot stands twice, with what lies strictly below it first
        sides = [
            np.mean([part._loss_cdf(knots[None], left=left)[0] for part in parts], axis=0)  # noqa: SLF001
            for left in (True, False)
        ]
        jumps = sides[1] > sides[0]
        knots = np.repeat(knots, 1 + jumps)
        levels = np.repeat(sides[1], 1 + jumps)
        levels[(np.cumsum(1 + jumps) - 2)[jumps]] = sides[0][jumps]
        levels = np.clip(np.maximum.accumulate(levels), 0.0, 1.0)
        tails = np.max([part.tails[0] for part in parts], axis=0)
        return cls(knots[None], levels[None], tails[None], first.sign, (None,), first.source)

    def row(self, index: int) -> Answer:
        """The answer to one query: a single-row Forecasts, or the reason for there being none."""
        reason = self.absent[index]
        if reason is not None:
            return reason
        index %= len(self)
        return self.rows(index, index + 1)

    def rows(self, first: int, last: int) -> Forecasts:
        """The answers to the queries from `first` up to, without, `last`."""
        some = slice(first, last)
        parts = self.knots[some], self.levels[some], self.tails[some]
        return Forecasts(*parts, self.sign, self.absent[some], self.source)

    def pick(self, rows: Sequence[int]) -> Forecasts:
        """The answers to some of the queries, in that order."""
        at = np.array(rows, np.intp)
        absent = tuple(self.absent[i] for i in rows)
        return Forecasts(self.knots[at], self.levels[at], self.tails[at], self.sign, absent, self.source)

    def _ends(self, i: NDArray[np.intp]) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
        """Knot and level at either end of segment (i - 1, i); i (Q, m)."""
        last = self.knots.shape[1] - 1
        lo, hi = np.maximum(i - 1, 0), np.minimum(i, last)
        if len(self) == 1:  # a look asks about one row: plain indexing is several times faster
            return (self.knots[:, lo[0]], self.levels[:, lo[0]]), (self.knots[:, hi[0]], self.levels[:, hi[0]])
        low = np.take_along_axis(self.knots, lo, 1), np.take_along_axis(self.levels, lo, 1)
        return low, (np.take_along_axis(self.knots, hi, 1), np.take_along_axis(self.levels, hi, 1))

    def _between(self, i: NDArray[np.intp], x: Floats, along: Floats, other: Floats) -> Floats | None:
        """`other` at the places (1, m) x `along`, where this is one row and all of them lie between its knots, as in
        most looks: tails do not matter, and few plain floats cost less than arrays; else None.
        """
        if len(self) > 1 or self.absent[0] is not None or i.size > _FEW:
            return None
        a, b, last = along[0], other[0], along.shape[1] - 1
        found = []
        for k, at in zip(i[0].tolist(), x[0].tolist(), strict=True):
            if not 0 < k <= last:
                return None
            low, high, there = a.item(k - 1), a.item(k), b.item(k - 1)
            found.append(there + (b.item(k) - there) * ((at - low) / (high - low) if high > low else 0.0))
        return np.array([found])

    def _loss_cdf(self, loss: Floats, *, left: bool) -> Floats:
        """P(L <= loss), or P(L < loss) when `left`; loss (Q,) or (Q, m) -> the same shape."""
        x = loss[:, None] if loss.ndim == 1 else loss
        i = _count(self.knots, x, left=left)  # knots at or below x; segment (i - 1, i)
        if (read := self._between(i, x, self.knots, self.levels)) is not None:
            return read[:, 0] if loss.ndim == 1 else read
        last = self.knots.shape[1] - 1
        (k0, p0), (k1, p1) = self._ends(i)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            inside = p0 + (p1 - p0) * np.where(k1 > k0, (x - k0) / (k1 - k0), 0.0)
            s = self.tails[:, :1]
            lower = p1 * np.where(s > 0, np.exp((x - k1) / np.where(s > 0, s, 1.0)), 0.0)
            s = self.tails[:, 1:]
            upper = 1.0 - (1.0 - p0) * np.where(s > 0, np.exp(-(x - k0) / np.where(s > 0, s, 1.0)), 0.0)
        out = np.where(i == 0, lower, np.where(i > last, upper, inside))
        out = np.where(np.isnan(self.knots[:, :1]) | np.isnan(x), np.nan, out)
        return out[:, 0] if loss.ndim == 1 else out

    def _per_row(self, x: ArrayLike, what: str) -> Floats:
        a = np.asarray(x, np.float64)
        if a.ndim == 0:
            a = a.repeat(len(self))
        if a.ndim > 2 or a.shape[0] != len(self):
            raise InvalidValue(f"a number, ({len(self)},) or ({len(self)}, m)", a.shape, what)
        return a

    def cdf(self, value: ArrayLike) -> Floats:
        """P(Y <= value), in the metric's units.

        Args:
            value: a number, (Q,) or (Q, m).

        Returns:
            (Q,) or (Q, m); NaN in absent rows.
        """
        y = self._per_row(value, "Forecasts.cdf(value)")
        if self.sign > 0:
            return self._loss_cdf(y, left=False)
        return 1.0 - self._loss_cdf(-y, left=True)

    def p_beat(self, value: ArrayLike) -> Floats:
        """P(strictly better than `value`): P(Y < value) when minimizing, P(Y > value) when maximizing.

        Args:
            value: a number, (Q,) or (Q, m), in the metric's units.

        Returns:
            (Q,) or (Q, m); NaN in absent rows.
        """
        return self._loss_cdf(self.sign * self._per_row(value, "Forecasts.p_beat(value)"), left=True)

    def quantile(self, p: ArrayLike) -> Floats:
        """The smallest y with cdf(y) >= p, in the metric's units (the largest y with P(Y >= y) >= 1 - p when
        maximizing, which differs only where the CDF is flat).

        Args:
            p: a level in [0, 1], (Q,) or (Q, m); 0 and 1 give the ends of the support, infinite with a tail.

        Returns:
            (Q,) or (Q, m); NaN in absent rows.
        """
        level = self._per_row(p, "Forecasts.quantile(p)")
        if not ((level >= 0) & (level <= 1)).all():
            raise InvalidValue("levels in [0, 1]", p, "Forecasts.quantile(p)")
        if self.sign > 0:
            return self._loss_quantile(level)
        return -self._loss_quantile(1.0 - level)

    def _loss_quantile(self, level: Floats) -> Floats:
        u = level[:, None] if level.ndim == 1 else level
        i = _count(self.levels, u, left=True)
        if (read := self._between(i, u, self.levels, self.knots)) is not None:
            return read[:, 0] if level.ndim == 1 else read
        last = self.knots.shape[1] - 1
        (k0, p0), (k1, p1) = self._ends(i)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            inside = k0 + (k1 - k0) * np.where(p1 > p0, (u - p0) / (p1 - p0), 0.0)
            s = self.tails[:, :1]
            lower = np.where((s > 0) & (p1 > 0), k1 + s * np.log(np.where(p1 > 0, u / p1, 1.0)), k1)
            s = self.tails[:, 1:]
            rest = 1.0 - p0
            upper = np.where((s > 0) & (rest > 0), k0 - s * np.log(np.where(rest > 0, (1.0 - u) / rest, 1.0)), k0)
        out = np.where(i == 0, lower, np.where(i > last, upper, inside))
        out = np.where(np.isnan(self.knots[:, :1]), np.nan, out)
        return out[:, 0] if level.ndim == 1 else out

    def mean(self) -> Floats:
        """(Q,) expectation, in the metric's units; NaN in absent rows."""
        mass = np.diff(self.levels, axis=1)
        mid = 0.5 * self.knots[:, 1:] + 0.5 * self.knots[:, :-1]
        low, high = self.levels[:, 0], 1.0 - self.levels[:, -1]
        total = (mass * mid).sum(1)
        total += low * (self.knots[:, 0] - self.tails[:, 0]) + high * (self.knots[:, -1] + self.tails[:, 1])
        return np.asarray(self.sign * total)

    def sample(self, n: int, rng: np.random.Generator) -> Floats:
        """(Q, n) independent draws by inversion, in the metric's units; NaN in absent rows."""
        return self.sign * self._loss_quantile(rng.random((len(self), n)))


def _count(rows: Floats, x: Floats, *, left: bool) -> NDArray[np.intp]:
    """(Q, K) rows that do not fall, (Q, m) -> (Q, m): how many of a row are below x, or at most x."""
    if len(rows) == 1:
        count: NDArray[np.intp] = rows[0].searchsorted(x, "left" if left else "right")
        return count
    below = rows[:, None, :] < x[:, :, None] if left else rows[:, None, :] <= x[:, :, None]
    return np.asarray(below.sum(2))


Answer = Forecasts | Absent
Answers = Mapping[str, Sequence[Answer]]
"""Forecaster name -> its answers, one for each question that it was asked."""


@runtime_checkable
class Forecaster(Protocol):
    """Anything that maps a snapshot and queries to forecasts.

    `name` and `version` go into receipts. Must be deterministic, must not touch global RNG, and must answer every
    query: with a distribution or with the reason for having none. A cache is a memo only, never meaning.
    """

    @property
    def name(self) -> str:
        """Short, stable: "parametric"."""
        ...

    @property
    def version(self) -> str:
        """Changes whenever the same question may get another answer."""
        ...

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        """One row a query, in the order of the queries."""
        ...


@runtime_checkable
class Loading(Protocol):
    """What a forecaster has beside that must load something, a model or a library, before it can answer."""

    @property
    def stand_ins(self) -> Sequence[Forecaster]:
        """Who takes its place where that fails; may be empty."""
        ...

    def prepare(self) -> None:
        """Load it, once; what was loaded costs nothing.

        Raises:
            Exception: it cannot be loaded.
        """
        ...


@runtime_checkable
class Batching(Protocol):
    """What a forecaster has beside that answers questions about several snapshots in one pass."""

    def forecast_each(self, asks: Sequence[tuple[Snapshot, Sequence[Query]]]) -> Sequence[Forecasts]:
        """What `forecast` says of each, in their order, within the forecaster's stated tolerance."""
        ...
