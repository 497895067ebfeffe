"""The cheap forecasters that every model must beat: last value, nearest curves, least-squares power law.

What is reported is certain; "latent" is answered as "value"; "best_by" is the better of the value's distribution and
the best so far. A curve without finite reports, or that ends in others, has no answer.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr

from lcsearch.curves import Floats
from lcsearch.forecast.contract import Absent, Forecasts, Query
from lcsearch.study import Snapshot

Law = tuple[Floats, Floats, tuple[float, float]]
"""Knots, levels, tails of one distribution, in losses."""
NARROWEST = 1e-9
"""A width below this share of the value is lost in the floats there."""


class Cheap(ABC):
    """What is known is answered here; what differs is the distribution of a later value."""

    name = ""
    version = "1"

    @abstractmethod
    def later(self, snapshot: Snapshot, query: Query) -> Law | None:
        """The value at a step that is still to come; None for no forecast."""

    def laters(self, snapshot: Snapshot, queries: Sequence[Query]) -> list[Law | None]:
        """The same of many queries."""
        return [self.later(snapshot, query) for query in queries]

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        """One row a query. Absent: NONFINITE as above, UNSUPPORTED where there is too little to go by."""
        known = [self._known(snapshot, query) for query in queries]
        unknown = [
            query._replace(trial=query.trial.cut(float(query.trial.curve.steps[-1])))  # reports that are no value aside
            for query, law in zip(queries, known, strict=True)
            if law is None
        ]
        said = iter(self.laters(snapshot, unknown))
        laws = [
            self._judged(snapshot, query, next(said)) if law is None else law
            for query, law in zip(queries, known, strict=True)
        ]
        width = max((law[0].size for law in laws if not isinstance(law, Absent)), default=2)
        knots, levels = np.full((len(laws), width), np.nan), np.full((len(laws), width), np.nan)
        tails = np.full((len(laws), 2), np.nan)
        for i, law in enumerate(laws):
            if not isinstance(law, Absent):
                pad = (0, width - law[0].size)
                knots[i], levels[i] = np.pad(law[0], pad, mode="edge"), np.pad(law[1], pad, mode="edge")
                tails[i] = law[2]
        sign, source = snapshot.goal.sign, f"{self.name}/{self.version}"
        made = Forecasts.of(knots, levels, tails, sign=sign, source=source)
        absent = tuple(law if isinstance(law, Absent) else b for law, b in zip(laws, made.absent, strict=True))
        return Forecasts(knots, levels, tails, sign, absent, source)

    def _known(self, snapshot: Snapshot, query: Query) -> Law | Absent | None:
        """The answer to what is reported, or to what nobody can answer; None where `later` is asked."""
        curve, best = query.trial.curve, query.kind == "best_by"
        if not len(curve) or not math.isfinite(query.step):
            return Absent.NONFINITE
        if query.step > curve.last_step:
            return None
        known = snapshot.goal.sign * curve.cut(query.step).values
        if not known.size:
            return Absent.NONFINITE
        sure = float(known.min() if best else known[-1])
        return np.array([sure, sure]), np.array([0.0, 1.0]), (0.0, 0.0)

    def _judged(self, snapshot: Snapshot, query: Query, law: Law | None) -> Law | Absent:
        """A best-by is the better of the law and the best so far."""
        if law is None:
            return Absent.UNSUPPORTED
        best = float((snapshot.goal.sign * query.trial.curve.values).min())
        return capped(law, best) if query.kind == "best_by" else law


def capped(law: Law, best: float) -> Law:
    """Of the smaller of a value and `best`."""
    knots, levels, (lower, _) = law
    if knots[0] > best:  # the tail alone reaches below it
        first = levels[0] * math.exp((best - knots[0]) / lower) if lower > 0 else 0.0
        return np.array([best, best]), np.array([first, 1.0]), (lower, 0.0)
    inside = knots < best
    at = float(np.interp(best, knots, levels)) if best <= knots[-1] else float(levels[-1])
    return np.append(knots[inside], [best, best]), np.append(levels[inside], [at, 1.0]), (lower, 0.0)


class LastValue(Cheap):
    """Laplace around the last value; the scale has the median of |later - now| of the finished trials."""

    name = "last-value"

    def later(self, snapshot: Snapshot, query: Query) -> Law | None:
        """One knot with half of the mass on either side."""
        bank, now = snapshot.bank, query.trial.curve.last_step
        with np.errstate(invalid="ignore"):  # both may be infinite
            gains = bank.at(now, best=False) - bank.at(query.step, best=False)
        gains = np.abs(gains[np.isfinite(gains) & bank.complete])
        if not gains.size:
            return None
        last = snapshot.goal.sign * float(query.trial.curve.values[-1])
        scale = max(float(np.median(gains)) / math.log(2.0), NARROWEST * abs(last))
        return np.array([last]), np.array([0.5]), (scale, scale)


class NearestCurves(Cheap):
    """What the k finished trials nearest in all reports so far still gained, from the trial's own last (best) value.

    Distance: mean |difference|, each at most ten times the median one. 1 / (k + 1) of the mass lies outside.
    """

    name = "nearest"
    k = 5

    def later(self, snapshot: Snapshot, query: Query) -> Law | None:
        """Sorted values at mid-levels."""
        bank, curve, best = snapshot.bank, query.trial.curve, query.kind == "best_by"
        mine = snapshot.goal.sign * curve.values
        kept = np.unique(np.linspace(0, mine.size - 1, min(mine.size, 64)).round().astype(np.intp))
        there = np.stack([bank.at(float(curve.steps[i]), best=False) for i in kept], 1)
        now, then = bank.at(curve.last_step, best=best), bank.at(query.step, best=best)
        use = bank.complete & np.isfinite(now) & np.isfinite(then)
        if use.sum() < 2:
            return None
        away = np.abs(there[use] - mine[kept])  # NaN where it had not reported yet: as far as can be
        limit = 10.0 * float(np.nanmedian(away))
        distance = np.nan_to_num(np.minimum(away, limit), nan=limit).mean(1)
        gains = now[use] - then[use]
        near = np.lexsort((gains, distance))[: self.k]  # ties by gain: the bank's order means nothing
        y = np.sort((mine.min() if best else mine[-1]) - gains[near])
        outside = 1.0 / (y.size + 1.0)
        levels = 0.5 * outside + (1.0 - outside) * (np.arange(y.size) + 0.5) / y.size
        scale = max(float(np.median(np.abs(y - np.median(y)))) / math.log(2.0), NARROWEST * float(np.abs(y).max()))
        return y, levels, (scale, scale)


class PowerLaw(Cheap):
    """c + a t^-b by least squares, a >= 0, t = 1, 2, ... reports; normal, with the error of c and a at the best b."""

    name = "power-law"
    exponents = np.geomspace(0.05, 5.0, 60)
    z = np.linspace(-4.0, 4.0, 33)

    def later(self, snapshot: Snapshot, query: Query) -> Law | None:
        """Needs four reports."""
        steps, values = query.trial.curve.steps, snapshot.goal.sign * query.trial.curve.values
        n = values.size
        if n < 4:
            return None
        loc, unit = float(values[-1]), float(np.ptp(values)) or 1.0
        y = (values - loc) / unit
        gap = float(steps[1] - steps[0])
        t, end = (steps - steps[0]) / gap + 1.0, (query.step - steps[0]) / gap + 1.0
        f, g = t ** -self.exponents[:, None], end**-self.exponents
        middle = f.mean(1)
        around = f - middle[:, None]
        sum_f = (around**2).sum(1)
        a = np.maximum((around * (y - y.mean())).sum(1) / sum_f, 0.0)
        rss = ((y - y.mean() - a[:, None] * around) ** 2).sum(1)
        b = int(np.argmin(rss))
        centre = loc + unit * (y.mean() + a[b] * (g[b] - middle[b]))
        variance = rss[b] / max(n - 3, 1) * (1.0 + 1.0 / n + (g[b] - middle[b]) ** 2 / sum_f[b])
        sd = max(unit * math.sqrt(variance), NARROWEST * abs(centre))
        return centre + sd * self.z, np.asarray(ndtr(self.z)), (0.24 * sd, 0.24 * sd)


CHEAP = {made.name: made for made in (LastValue, NearestCurves, PowerLaw)}
