"""Scores of predictive distributions, exact for the CDFs of `Forecasts`: linear between knots, exponential tails.

Distributions are scored in units of their task's range: u = (loss - best) / width, see `Unit`. What is worse than CAP
is all the same, and what is better than -CAP: blow-ups go to 1e34, forecasts of what falls from there to -1e7, and a
mean must outlive both. CRPS is that of u clipped to [-CAP, CAP], so it stays proper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import beta

from lcsearch.curves import Floats
from lcsearch.forecast.contract import Forecasts
from lcsearch.goal import Goal
from lcsearch.study import FinishedTrials, Status, Trial

SCORES = 1
"""Raise it when a score comes to mean something else: what is kept is asked again then."""
CAP = 2.0
WINDOW = 1e-4
"""A density is the mass of a window this wide (in ranges) around the value, over its width: atoms have one too."""
LEAST = 1e-12
"""No mass counts as less: a log-likelihood is at least ln(1e-12 / 1e-4) = -18.4 and at most ln(1e4) = 9.2."""
CLIP = 1e-4
"""P(beat) is clipped to [CLIP, 1 - CLIP]."""
INTERVALS = (0.5, 0.8, 0.95)
BINS = 10
LOW = (0.05, 0.1)
DRAWS = 2000


@dataclass(frozen=True)
class Unit:
    """A task's range: from its best final loss, as wide as `FinishedTrials.robust_range` (twice best to median, at
    most eight times best to lower quartile), for the median blow-up says nothing of the differences that matter."""

    best: float
    width: float

    @classmethod
    def of(cls, finals: Sequence[Trial], goal: Goal) -> Unit:
        """Of COMPLETE trials; without a spread the whole range, and without that none (NaN)."""
        assert all(trial.status is Status.COMPLETE for trial in finals)
        bank = FinishedTrials(goal).extend(finals)
        width = bank.robust_range or float(np.ptp(bank.judged)) or math.nan
        return cls(float(bank.judged.min()), width)

    def scaled(self, forecasts: Forecasts) -> Forecasts:
        """The same distributions in task-range units, lower is better."""
        assert forecasts.sign > 0
        knots, tails = (forecasts.knots - self.best) / self.width, forecasts.tails / self.width
        return Forecasts(knots, forecasts.levels, tails, 1.0, forecasts.absent, forecasts.source)


def crps(f: Forecasts, y: Floats, cap: float = CAP) -> Floats:
    """(Q,) integral of (F(x) - [y <= x])^2 over x from -cap to cap: the CRPS of clip(Y, -cap, cap). NaN: absent."""
    y = np.clip(y, -cap, cap)
    k, p = f.knots, f.levels
    first, last = np.minimum(k[:, 0], cap), np.maximum(k[:, -1], -cap)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
        below = p[:, 0] * _left(k[:, 0] - first, f.tails[:, 0])
        above = (1.0 - p[:, -1]) * _left(last - k[:, -1], f.tails[:, 1])
        total = _tail(below, f.tails[:, 0], np.maximum(first - y, 0.0), np.maximum(first + cap, 0.0))
        total += _tail(above, f.tails[:, 1], np.maximum(y - last, 0.0), np.maximum(cap - last, 0.0))
        a, b = k[:, :-1], k[:, 1:]
        slope = np.where(b > a, np.diff(p, axis=1) / (b - a), 0.0)
        lo, hi = np.clip(a, -cap, cap), np.clip(b, -cap, cap)
        at = np.clip(y[:, None], lo, hi)
        at_lo, at_y, at_hi = (p[:, :-1] + slope * (x - a) for x in (lo, at, hi))
        total += ((at - lo) * _square(at_lo, at_y) + (hi - at) * _square(1.0 - at_y, 1.0 - at_hi)).sum(1)
    return np.where(np.isnan(k[:, 0]), np.nan, total)


def _left(distance: Floats, scale: Floats) -> Floats:
    """Share of a tail's mass farther out than a distance."""
    return np.where(distance > 0, np.where(scale > 0, np.exp(-distance / scale), 0.0), 1.0)


def _square(a: Floats, b: Floats) -> Floats:
    """Mean of the square of what goes from a to b in a straight line."""
    return np.asarray((a * a + a * b + b * b) / 3.0)


def _tail(mass: Floats, scale: Floats, d: Floats, until: Floats) -> Floats:
    """Integral over the distance x in [0, until] from a knot of (1 - G)^2 where x < d, else of G^2.

    G = mass e^(-x / scale) is the mass farther out than x.
    """
    safe = np.where(scale > 0, scale, 1.0)
    near, all_of = -np.expm1(-d / safe), -np.expm1(-2.0 * until / safe)
    with_tail = d - 2.0 * mass * scale * near + 0.5 * mass**2 * scale * all_of
    return np.where(scale > 0, with_tail, d)


def log_likelihood(f: Forecasts, y: Floats, cap: float = CAP) -> Floats:
    """(Q,) ln of the density at y, see WINDOW and LEAST; of the mass at or beyond `cap` where y is there."""
    half = 0.5 * WINDOW
    inside = (f.cdf(y + half) - f.p_beat(y - half)) / WINDOW
    beyond = 1.0 - f.p_beat(np.full(len(f), cap))
    found = np.where(y < cap, np.maximum(inside, LEAST / WINDOW), np.maximum(beyond, LEAST))
    with np.errstate(invalid="ignore"):
        return np.where(np.isnan(inside), np.nan, np.log(found))


def value_scores(forecasts: Forecasts, y: Floats, unit: Unit) -> Floats:
    """(Q, 6): inside the central 50, 80, 95 % interval; CRPS; log-likelihood; squared error of the median (clipped to
    [-CAP, CAP] ranges)."""
    f, u = unit.scaled(forecasts), (y - unit.best) / unit.width
    sides = [0.5 + side * width / 2 for width in INTERVALS for side in (-1.0, 1.0)]
    q = f.quantile(np.tile([0.5, *sides], (len(f), 1)))
    inside = [np.where(np.isnan(q[:, 0]), np.nan, (q[:, i] <= u) & (u <= q[:, i + 1])) for i in (1, 3, 5)]
    square = (np.clip(q[:, 0], -CAP, CAP) - np.clip(u, -CAP, CAP)) ** 2
    found = np.column_stack([*inside, crps(f, u), log_likelihood(f, u), square])
    return found if math.isfinite(unit.width) else np.full_like(found, np.nan)


def auc(p: Floats, won: Floats) -> float:
    """P(a winner's P is above a loser's), ties by halves; NaN without both."""
    losers, winners = np.sort(p[won == 0]), p[won == 1]
    if not (losers.size and winners.size):
        return math.nan
    below = 0.5 * (np.searchsorted(losers, winners) + np.searchsorted(losers, winners, side="right"))
    return float(below.mean() / losers.size)


def reliability(p: Floats, won: Floats) -> Floats:
    """(BINS, 3) of equal-width bins: count, sum of P, winners."""
    which = np.minimum((p * BINS).astype(int), BINS - 1)
    return np.stack([np.bincount(which, w, BINS) for w in (np.ones_like(p), p, won)], 1)


def upper(hits: float, n: float) -> float:
    """One-sided 95 % bound of a rate, Clopper and Pearson (1934)."""
    return 1.0 if hits >= n else float(beta.ppf(0.95, hits + 1, n - hits))


def clustered(hits: Floats, n: Floats) -> float:
    """One-sided 95 % bound of sum(hits) / sum(n) over tasks (T,).

    The larger of a bootstrap that draws whole tasks (curves of a task share their incumbents) and the exact bound: the
    bootstrap alone would make a proof of zero hits, or of three tasks.
    """
    if not n.sum():
        return math.nan
    drawn = np.random.default_rng(0).integers(n.size, size=(DRAWS, n.size))
    again, of = hits[drawn].sum(1), n[drawn].sum(1)
    return max(float(np.quantile(again[of > 0] / of[of > 0], 0.95)), upper(float(hits.sum()), float(n.sum())))


def losses(p: Floats, won: Floats) -> tuple[Floats, Floats]:
    """Log-loss and Brier score of every row."""
    p = np.clip(p, CLIP, 1 - CLIP)
    return -(won * np.log(p) + (1 - won) * np.log(1 - p)), (p - won) ** 2


def beat_figures(rows: Sequence[Floats], nothing: float) -> dict[str, Any]:
    """P(beat) of one source: of each task rows (p, beaten).

    Absent rows (NaN) are left out, but for `by_task`: there they count as `nothing`, for what is paired must be paired.
    """
    known = [task[np.isfinite(task[:, 0])] for task in rows]
    both = np.concatenate(known)
    p, won = np.clip(both[:, 0], CLIP, 1 - CLIP), both[:, 1]
    each = [losses(np.where(np.isnan(task[:, 0]), nothing, task[:, 0]), task[:, 1]) for task in rows]
    loss, brier = losses(p, won)
    bins = reliability(p, won)
    low = {}
    for level in LOW:
        hits = np.array([task[task[:, 0] < level, 1].sum() for task in known])
        n = np.array([(task[:, 0] < level).sum() for task in known], np.float64)
        rate = float(hits.sum() / n.sum()) if n.sum() else math.nan
        low[f"{level:g}"] = {"rate": rate, "upper": clustered(hits, n), "hits": int(hits.sum()), "n": int(n.sum())}
    return {
        "n": sum(len(task) for task in rows),
        "absent": 1.0 - len(both) / max(sum(len(task) for task in rows), 1),
        "log_loss": mean(loss),
        "ece": float(np.abs(bins[:, 2] - bins[:, 1]).sum() / p.size) if p.size else math.nan,
        "auc": auc(p, won),
        "brier": mean(brier),
        "beaten": mean(won),
        "low": low,
        "bins": bins.tolist(),
        "by_task": {"log_loss": [mean(a) for a, _ in each], "brier": [mean(b) for _, b in each]},
    }


def value_figures(rows: Sequence[Floats]) -> dict[str, Any]:
    """The final value of one source: of each task the rows of `value_scores`."""
    known = [task[np.isfinite(task[:, 3])] for task in rows]
    both = np.concatenate(known)
    return {
        "coverage": {f"{width:g}": mean(both[:, i]) for i, width in enumerate(INTERVALS)},
        "crps": mean(both[:, 3]),
        "ll_mean": mean(both[:, 4]),
        "ll_median": float(np.median(both[:, 4])) if len(both) else math.nan,
        "mse": mean(both[:, 5]),
        "by_task": {name: [mean(t[:, i]) for t in known] for name, i in (("crps", 3), ("ll_mean", 4), ("mse", 5))},
    }


def mean(x: Floats) -> float:
    """Mean; NaN of nothing, without a warning."""
    return float(x.mean()) if x.size else math.nan


def paired(a: Sequence[float | None], b: Sequence[float | None]) -> tuple[float, float, int]:
    """Mean of a - b over the tasks both have, its standard error (NaN for one task), and how many."""
    both = [x - y for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    gaps = np.array([gap for gap in both if math.isfinite(gap)])
    error = float(gaps.std(ddof=1) / math.sqrt(gaps.size)) if gaps.size > 1 else math.nan
    return mean(gaps), error, gaps.size
