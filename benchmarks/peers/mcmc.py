"""The reference of the field: MCMC over the prior that LC-PFN was trained on.

Domhan et al. (2015) extrapolate curves by an ensemble sampler over a weighted sum of parametric families; LC-PFN
(Adriaensen et al. 2023) is measured against it on its own prior. That prior, of a metric in [0, 1] that rises with
x = 1, 2, ..., m (the horizon):

    f(x) = w1 (c1 - a1 x^-alpha) + w2 (c2 - a2 / ln(x + 1)) + w3 (a - (a - b) exp(-k x^d)),    y = f + N(0, sigma^2)

    c1 ~ U(0, 1.25), a1 ~ U(-.6, .6), ln alpha ~ N(0, 2^2)                        pow3
    c2 ~ U(0, 1), a2 ~ U(-.5, .5)                                                 ilog2
    a ~ U(0, 1), b ~ U(0, 2), ln k ~ N(-2, 1), ln d ~ N(0, .5^2)                  janoschek
    w1, w2, w3 ~ U(0, 1), not normalised; ln sigma ~ N(-4, 1)

kept only where f(m) > f(1) and 0 <= f <= 1. No product setting names this forecaster: it is slow, and here to be
compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray
from stretch import stretch

from lcsearch.curves import Curve, Floats
from lcsearch.errors import InvalidValue
from lcsearch.forecast.contract import Absent, Forecasts, Query
from lcsearch.forecast.parametric.batches import Batch, batched
from lcsearch.forecast.parametric.mixture import TIMES, cells, future, read_off
from lcsearch.goal import Goal
from lcsearch.study import Snapshot

DIMENSIONS = 13
"""c1, a1, ln alpha, c2, a2, a, b, ln k, ln d, w1, w2, w3, ln sigma."""
LONGEST = 128
"""Reports of a curve that are read, at most; a longer one is thinned evenly from its end."""
_LOW = np.array([0.0, -0.6, -np.inf, 0.0, -0.5, 0.0, 0.0, -np.inf, -np.inf, 0.0, 0.0, 0.0, -np.inf])
_HIGH = np.array([1.25, 0.6, np.inf, 1.0, 0.5, 1.0, 2.0, np.inf, np.inf, 1.0, 1.0, 1.0, np.inf])
_NORMAL = np.array([2, 7, 8, 12])  # the others are uniform
_MEAN, _SD = np.array([0.0, -2.0, 0.0, -4.0]), np.array([2.0, 1.0, 0.5, 1.0])
#: A posterior noise two prior sds above the prior's: it is not noise, the curve has left the families.
_OFF_LAW = -4.0 + 2.0
#: Where 0 <= f <= 1 is checked, as powers of m: f is smooth in ln x.
_CHECKED = np.linspace(0.0, 1.0, 16)
#: Values that the best loss known and the curve's own worst one get where the metric's range is not given.
_BEST, _WORST = 0.8, 0.05
_CANDIDATES = 48  # prior draws a walker that starts are picked from
_CHUNK = 16  # curves at a time: what a sweep touches stays in the processor's cache


def draw(n: int, rng: np.random.Generator) -> Floats:
    """(n, DIMENSIONS) from the prior, before any are refused."""
    p = np.empty((n, DIMENSIONS))
    boxed = np.isfinite(_LOW)
    p[:, boxed] = _LOW[boxed] + (_HIGH - _LOW)[boxed] * rng.random((n, int(boxed.sum())))
    p[:, _NORMAL] = _MEAN + _SD * rng.standard_normal((n, _NORMAL.size))
    return p


def values(p: Floats, x: Floats) -> Floats:
    """f at times x.

    Args:
        p: (..., DIMENSIONS).
        x: times >= 1, (..., T) with as many axes as `p`.
    """
    c1, a1, alpha, c2, a2, a, b, k, d, w1, w2, w3, _ = np.moveaxis(p, -1, 0)[..., None]
    log_x = np.log(x)
    with np.errstate(over="ignore", invalid="ignore"):
        f = w1 * (c1 - a1 * np.exp(-np.exp(alpha) * log_x))
        f += w2 * (c2 - a2 / np.log1p(x))
        f += w3 * (a - (a - b) * np.exp(-np.exp(k + np.exp(d) * log_x)))
    out: Floats = f
    return out


def checked(m: Floats) -> Floats:
    """(..., 16) times from 1 to m (...) where f must lie in [0, 1]."""
    out: Floats = np.maximum(m, 1.0)[..., None] ** _CHECKED
    return out


def allowed(f: Floats) -> NDArray[np.bool_]:
    """(...) whether f (..., 16) at :func:`checked` times keeps the prior's conditions."""
    with np.errstate(invalid="ignore"):
        out: NDArray[np.bool_] = (f[..., -1] > f[..., 0]) & (f.min(-1) >= 0.0) & (f.max(-1) <= 1.0)
    return out


@dataclass(frozen=True, eq=False)
class _Scaled:
    """C curves of one padded width N: times x (C, N) counted in reports, values y (C, N) = (zero - loss) / scale."""

    x: Floats
    y: Floats
    mask: Floats
    m: Floats  # (C,) the horizon's time
    base: Floats  # (C,) in steps: one report before the first
    spacing: Floats  # (C,) steps a report, usually
    last: Floats
    zero: Floats
    scale: Floats  # (C,) NaN where nothing gives the curve one

    def time(self, rows: NDArray[np.intp], steps: Floats) -> Floats:
        """Times of steps (Q, T) of the curves `rows` (Q,), not before the prior's first."""
        return np.maximum((steps - self.base[rows, None]) / self.spacing[rows, None], 1.0)

    def log_posterior(self, p: Floats, rows: slice = slice(None)) -> Floats:
        """(C, M) of points (C, M, DIMENSIONS), up to a constant a curve."""
        x, y, mask = self.x[rows, None], self.y[rows, None], self.mask[rows, None]
        f = values(p, np.concatenate([x, checked(self.m[rows, None])], -1))
        n = x.shape[-1]
        log_sigma = p[..., -1]
        with np.errstate(over="ignore", invalid="ignore"):
            misfit = (mask * (y - f[..., :n]) ** 2).sum(-1) * np.exp(-2.0 * log_sigma)
            log = -0.5 * (((p[..., _NORMAL] - _MEAN) / _SD) ** 2).sum(-1)
            log -= 0.5 * misfit + mask.sum(-1) * log_sigma
        inside = ((p >= _LOW) & (p <= _HIGH)).all(-1) & allowed(f[..., n:])
        return np.where(inside & np.isfinite(log), log, -np.inf)

    def key(self, i: int) -> np.random.Generator:
        """Randomness from the content of curve i; rounded, so that the metric's unit does not matter."""
        content = np.concatenate([self.x[i], self.y[i], self.m[i : i + 1]])
        digest = blake2b((np.round(content, 6) + 0.0).tobytes(), digest_size=16).digest()
        return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


@dataclass(frozen=True)
class EnsembleMCMC:
    """Posterior draws of LC-PFN's prior given each curve, read off as a mixture of their normals.

    Time counts reports (the first is 1, the horizon m). Values are scaled to [0, 1]: by `bounds` if they are given,
    else such that the best loss known (the curve's own or the incumbent's) is .8 and the curve's worst, or what lies
    the study's spread above that best, .05; blow-ups are clipped ten scales beyond the median first.

    Walkers start at those of many prior draws that fit the curve best. The walk is seeded by the curve's content. The
    posterior is a hard one (about 8 % of proposals are accepted): log-likelihood a coming report of 40 curves from the
    prior, seen up to 10/20/40/80 of 100 reports, is 1.34/1.74/2.02/2.21 with 60 walkers and 900 steps,
    1.48/1.93/2.17/2.36 as it comes, 1.56/2.02/2.24/2.41 with four times the steps (standard error .15, mostly common).

    Attributes:
        walkers: even, at least twice the 13 dimensions.
        steps: sweeps, burn-in included.
        burn_in: sweeps that are thrown away.
        draws: of the posterior that an answer is read from, about.
        bounds: the metric's lowest and highest possible value, in its own units; None: see above.
    """

    walkers: int = 100
    steps: int = 4000
    burn_in: int = 2000
    draws: int = 400
    bounds: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.walkers % 2 or self.walkers < 2 * DIMENSIONS:
            raise InvalidValue(f"an even number >= {2 * DIMENSIONS}", self.walkers, "EnsembleMCMC.walkers")
        if not 0 <= self.burn_in < self.steps:
            raise InvalidValue(f"0 <= burn_in < steps ({self.steps})", self.burn_in, "EnsembleMCMC.burn_in")
        if self.draws < 1:
            raise InvalidValue("at least one draw", self.draws, "EnsembleMCMC.draws")
        if self.bounds is not None and not self.bounds[0] < self.bounds[1]:
            raise InvalidValue("(lowest, highest)", self.bounds, "EnsembleMCMC.bounds")

    @property
    def name(self) -> str:
        """ "mcmc"."""
        return "mcmc"

    @property
    def version(self) -> str:
        """Changes whenever the same question may get another answer."""
        bounds = "" if self.bounds is None else f"-{self.bounds[0]:g}..{self.bounds[1]:g}"
        return f"1-{self.walkers}-{self.steps}-{self.burn_in}-{self.draws}{bounds}"

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        """One row a query.

        Absent rows: NONFINITE when the curve has no finite observation; UNSUPPORTED when nothing gives it a scale, no
        prior draw is near it, or only a noise far above the prior's explains it.
        """
        sign, source = snapshot.goal.sign, f"{self.name}/{self.version}"
        absent, batches = batched(queries, _width, _CHUNK)
        parts = [(batch.rows, *self._answer(snapshot, queries, batch)) for batch in batches]
        width = max((part[1].shape[1] for part in parts), default=2)
        knots, levels = np.full((len(queries), width), np.nan), np.full((len(queries), width), np.nan)
        tails = np.full((len(queries), 2), np.nan)
        for rows, k, p, t, off in parts:
            knots[rows], levels[rows], tails[rows] = k, p, t
            for i in rows[off]:
                absent[i], knots[i], levels[i], tails[i] = Absent.UNSUPPORTED, np.nan, np.nan, np.nan
        return Forecasts.of(knots, levels, tails, sign=sign, source=source, absent=absent)

    def posterior(self, snapshot: Snapshot, curves: Sequence[Curve]) -> tuple[Floats, Floats]:
        """(C, S, DIMENSIONS) draws for curves of one padded width, NaN where there are none; (C,) acceptance."""
        return self._sample(_scale(curves, snapshot, self.bounds))

    def _sample(self, seen: _Scaled) -> tuple[Floats, Floats]:
        c = seen.m.size
        n_kept = min(-(-self.draws // self.walkers), self.steps - self.burn_in)
        kept = np.full((c, n_kept * self.walkers, DIMENSIONS), np.nan)
        share = np.full(c, np.nan)
        start = np.full((c, self.walkers, DIMENSIONS), np.nan)
        keys = [seen.key(i) for i in range(c)]
        for i in np.flatnonzero(np.isfinite(seen.scale)):
            some = draw(_CANDIDATES * self.walkers, keys[i])
            log = seen.log_posterior(some[None], slice(i, i + 1))[0]
            best = np.argsort(-log, kind="stable")[: self.walkers]
            if np.isfinite(log[best[-1]]):
                start[i] = some[best]
        rows = np.flatnonzero(np.isfinite(start[:, 0, 0]))
        if rows.size:
            # sweeps kept: evenly over those after the burn-in, the last one among them
            keep = self.steps - 1 - np.arange(n_kept)[::-1] * ((self.steps - self.burn_in) // n_kept)
            some_seen = _Scaled(**{name: column[rows] for name, column in vars(seen).items()})
            found, share[rows] = stretch(
                some_seen.log_posterior, start[rows], [keys[i] for i in rows], self.steps, keep.tolist()
            )
            kept[rows] = found.reshape(rows.size, -1, DIMENSIONS)
        return kept, share

    def _answer(
        self, snapshot: Snapshot, queries: Sequence[Query], batch: Batch
    ) -> tuple[Floats, Floats, Floats, NDArray[np.bool_]]:
        """Knots, levels and tails of a batch of the queries, and which of them are off law."""
        which, queries = batch.which, [queries[i] for i in batch.rows]
        seen = _scale(batch.curves, snapshot, self.bounds)
        draws, _ = self._sample(seen)
        sigma = draws[..., -1]
        off = ~np.isfinite(sigma[:, 0]) | (np.median(sigma, axis=1) > _OFF_LAW)
        sign = snapshot.goal.sign
        steps = np.array([q.step for q in queries])
        best, known = np.array([_reported(q, sign) for q in queries]).T
        times, counts, n_future = future(seen.last[which], steps, seen.spacing[which])
        single = np.array([q.kind != "best_by" for q in queries])
        times = np.where(single[:, None], steps[:, None], times)
        counts = np.where(single[:, None], np.arange(TIMES) == TIMES - 1, counts)
        # Rows without draws go through as zeros and are dropped by `off`.
        p = np.nan_to_num(draws, nan=0.0)[which]
        zero, scale = np.nan_to_num(seen.zero)[which], np.nan_to_num(seen.scale, nan=1.0)[which]
        m = -values(p, seen.time(which, times)[:, None])
        latent = np.array([q.kind == "latent" for q in queries])
        noise = np.where(latent[:, None], 1e-9, np.exp(p[..., -1]))
        q, s, t = m.shape
        where, mass = cells(m.reshape(q * s, 1, t), noise.ravel(), np.repeat(counts, s, axis=0))
        low = np.where(off[which], np.inf, (best - zero) / scale)
        knots, levels, tails = read_off(where.reshape(q, -1), mass.reshape(q, -1) / s, low)
        knots, tails = zero[:, None] + scale[:, None] * knots, scale[:, None] * tails
        capped = np.isfinite(best)
        knots = np.where(capped[:, None], np.minimum(knots, best[:, None]), knots)
        knots[:, -2:] = np.where(capped[:, None], best[:, None], knots[:, -2:])
        # What is already reported is certain: a best-by without reports to come, a value at a reported step.
        over = (n_future == 0) | (steps <= [q.trial.curve.last_step for q in queries])
        sure = np.where(single, known, np.where(over, best, np.nan))
        settled = np.isfinite(sure)
        knots[settled], levels[settled], tails[settled] = sure[settled, None], 0.0, 0.0
        levels[settled, -1] = 1.0
        return knots, levels, tails, off[which] & ~settled


def _width(curve: Curve) -> int:
    """Columns a curve is padded to, by its own length only: the same bits alone and in a batch."""
    return min(-(-len(curve) // 16) * 16, LONGEST)


def _reported(query: Query, sign: float) -> tuple[float, float]:
    """(best loss reported by the query's step if best-by, else inf; loss at a step that is over if value, else NaN)."""
    curve = query.trial.curve
    n = int(np.searchsorted(curve.steps, query.step, side="right"))
    best = float((sign * curve.values[:n]).min()) if n and query.kind == "best_by" else np.inf
    over = n and query.kind == "value" and query.step <= curve.last_step
    return best, float(sign * curve.values[n - 1]) if over else np.nan


def _scale(curves: Sequence[Curve], snapshot: Snapshot, bounds: tuple[float, float] | None) -> _Scaled:
    """Curves of one width in the prior's units; see :class:`EnsembleMCMC`."""
    c, width = len(curves), _width(curves[0])
    goal, horizon = snapshot.goal, snapshot.horizon
    x, y, mask = np.ones((c, width)), np.zeros((c, width)), np.zeros((c, width))
    m, base, spacing, last = np.empty(c), np.empty(c), np.empty(c), np.empty(c)
    zero, scale = np.full(c, np.nan), np.full(c, np.nan)
    leader = snapshot.bank.best_complete
    for i, curve in enumerate(curves):
        steps, loss = curve.steps, goal.sign * curve.values
        first = float(steps[0])
        lone = first if first > 0 else max(0.02 * horizon, 1e-300)
        spacing[i] = np.median(np.diff(steps)) if steps.size > 1 else lone
        base[i], last[i] = first - spacing[i], steps[-1]
        m[i] = max((max(horizon, last[i]) - base[i]) / spacing[i], 2.0)
        stride = -(-steps.size // LONGEST)
        pick = np.arange(steps.size - 1, -1, -stride)[::-1]
        steps, loss = steps[pick], loss[pick]
        n = steps.size
        if bounds is not None:
            zero[i], scale[i] = _given(bounds, goal)
        else:
            loss, zero[i], scale[i] = _by_rule(loss, snapshot.robust_range, None if leader is None else leader[0])
        if np.isfinite(scale[i]):
            with np.errstate(over="ignore"):
                y[i, :n] = (zero[i] - loss) / scale[i]
        x[i, :n] = np.maximum((steps - base[i]) / spacing[i], 1.0)
        mask[i, :n] = 1.0
    return _Scaled(x, y, mask, m, base, spacing, last, zero, scale)


def _given(bounds: tuple[float, float], goal: Goal) -> tuple[float, float]:
    """(loss of value 0, loss units of value 1)."""
    return max(goal.sign * bounds[0], goal.sign * bounds[1]), bounds[1] - bounds[0]


def _by_rule(loss: Floats, spread: float, incumbent: float | None) -> tuple[Floats, float, float]:
    """Losses without blow-ups, the loss of value 0 and the loss units of value 1 (NaN: nothing gives a scale)."""
    with np.errstate(over="ignore", invalid="ignore"):
        middle = np.median(loss)
        usual = max(spread, 3.0 * float(np.median(np.abs(loss - middle))))
        usual = usual if usual > 0 else float(np.ptp(loss))
        loss = np.clip(loss, middle - 10.0 * usual, middle + 10.0 * usual)
        best = float(loss.min()) if incumbent is None else min(float(loss.min()), incumbent)
        worst = max(float(loss.max()), best + spread)
        scale = (worst - best) / (_BEST - _WORST)
        zero = best + _BEST * scale
    good = np.isfinite(scale) and np.isfinite(zero) and scale > 1e-12 * max(abs(best), abs(worst)) and scale > 0
    return (loss, zero, scale) if good else (loss, np.nan, np.nan)
