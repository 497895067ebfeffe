"""From Laplace posteriors to predictive distributions: draws, future reports, quantiles.

A fixed set of S quasi-random normal vectors (an additive recurrence, no RNG) is shared out to the families by their
weights and pushed through the Laplace posteriors. Draw j of a curve then has the losses m_t at future times t and

    P(min over future reports > y | j) = prod_t (1 - Phi((y - m_t) / s))^(k_t),

k_t the number of reports that quadrature time t stands for. One future time with k = 1 is the predictive of that
report, s -> 0 the latent one: all three kinds of query are one computation. The distribution of every draw is cut
into cells of that law; draws and cells together are one weighted sample, read off at LEVELS.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, ndtri

from lcsearch.curves import Floats

#: Draws a curve, and the dimensions of one: five parameters and the drift away from the family.
DRAWS = 128
DIMENSIONS = 6
#: Quadrature times of a best-by query.
TIMES = 8
#: Edges of the cells of one draw's noise, in units of its sd around its lowest latent loss.
EDGES = np.array([-4.5, -3.5, -2.8, -2.2, -1.6, -1.0, -0.4, 0.2, 0.8, 1.4, 2.2, 3.2])
CENTRES = 0.5 * (EDGES[1:] + EDGES[:-1])
#: log P(a report whose latent loss lies i / _PER_SD sd above the lowest one is above edge r), tabulated.
_PER_SD = 200
_LOG_SURVIVAL = log_ndtr(np.arange(12 * _PER_SD + 1)[:, None] / _PER_SD - EDGES[1:-1])
#: Levels of the knots: dense in the lower tail, where stops are decided.
_LOW = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 3.5e-3, 5e-3, 7.5e-3, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.045, 0.05)
_HIGH = (0.75, 0.8, 0.85, 0.9, 0.94, 0.97, 0.985, 0.995, 0.999)
LEVELS = np.concatenate([_LOW, np.arange(0.06, 0.2, 0.02), np.arange(0.2, 0.72, 0.05), _HIGH])


def _normals(n: int, dimensions: int) -> Floats:
    """(n, d) quasi-random standard normals: ndtri of the Kronecker sequence of the generalised golden ratio."""
    phi = 2.0
    for _ in range(40):
        phi = (1.0 + phi) ** (1.0 / (dimensions + 1.0))
    alpha = phi ** -np.arange(1.0, dimensions + 1.0)
    z: Floats = ndtri((0.5 + np.arange(1, n + 1)[:, None] * alpha) % 1.0)
    z = (z - z.mean(0)) / z.std(0)
    z.setflags(write=False)
    return z


NORMALS = _normals(DRAWS, DIMENSIONS)


def share_out(weights: Floats, order: NDArray[np.intp]) -> NDArray[np.intp]:
    """(C, S) which family each draw belongs to: systematic sampling of weights (C, F), shuffled by `order` (S,)."""
    cumulative = np.cumsum(weights, axis=1)
    cumulative[:, -1] = 1.0
    at = (order + 0.5) / DRAWS
    member: NDArray[np.intp] = (cumulative[:, None, :] < at[None, :, None]).sum(2)
    return member


def future(last: Floats, step: Floats, spacing: Floats) -> tuple[Floats, Floats, Floats]:
    """Report times still to come.

    Args:
        last: (Q,) last step reported.
        step: (Q,) the last step asked about.
        spacing: (Q,) usual distance of reports.

    Returns:
        times (Q, T) in steps, each the middle of an equal share of the coming reports but the last, which is `step`
        itself; counts (Q, T) of reports they stand for (0: unused; the last always counts); n (Q,) reports to come.
    """
    n = np.maximum(np.round((step - last) / spacing), 1.0) * (step > last)
    rest = np.maximum(n - 1.0, 0.0)[:, None]
    parts = np.minimum(rest, TIMES - 1.0)
    i = np.arange(TIMES - 1.0)
    used = i < parts
    each = rest / np.maximum(parts, 1.0)
    middle = i * each + 0.5 * (each + 1.0)
    counts = np.concatenate([np.where(used, each, 0.0), np.ones((n.size, 1))], 1)
    k = np.concatenate([np.where(used, middle, n[:, None]), n[:, None]], 1)
    times = last[:, None] + (step - last)[:, None] * k / np.maximum(n, 1.0)[:, None]
    return np.where(n[:, None] > 0, times, step[:, None]), counts, n


def cells(m: Floats, s: Floats, counts: Floats) -> tuple[Floats, Floats]:
    """Every draw's distribution of the minimum, cut into cells.

    Args:
        m: (Q, S, T) latent losses.
        s: (Q,) noise sd.
        counts: (Q, T) how often each time counts.

    Returns:
        where (Q, S, R) and mass (Q, S, R), which sums to 1 over S and R.
    """
    unused = (counts == 0)[:, None, :]
    low = np.where(unused, np.inf, m).min(2)
    gap = np.where(unused, 0.0, (m - low[..., None]) / s[:, None, None])
    gap = np.nan_to_num(gap)  # a row that is not finite stays so in `low`, and spoils no other
    step = np.minimum(gap * _PER_SD + 0.5, len(_LOG_SURVIVAL) - 1.0).astype(np.intp)
    survival = np.exp(np.matmul(counts[:, None, None, :], _LOG_SURVIVAL[step])[..., 0, :])
    one = np.ones((*survival.shape[:2], 1))
    mass = np.concatenate([one, survival], 2) - np.concatenate([survival, 0.0 * one], 2)
    return low[..., None] + s[:, None, None] * CENTRES, mass / m.shape[1]


def read_off(where: Floats, mass: Floats, best: Floats) -> tuple[Floats, Floats, Floats]:
    """Knots, levels and tails of a weighted sample, with an atom at the best so far.

    Args:
        where, mass: (Q, M) sample and weights, which sum to 1 in each row.
        best: (Q,) best loss so far; +inf where it does not bound the answer.

    Returns:
        knots (Q, K), levels (Q, K) and tails (Q, 2) as Forecasts takes them.
    """
    q, size = where.shape
    order = np.argsort(where, axis=1, kind="stable")
    x = np.take_along_axis(where, order, 1)
    w = np.take_along_axis(mass, order, 1)
    level = np.cumsum(w, axis=1)
    level = (level - 0.5 * w) / level[:, -1:]
    # One search for all rows: levels of row i are lifted by 2 i, so rows never overlap.
    lift = 2.0 * np.arange(q)[:, None]
    at = np.searchsorted((level + lift).ravel(), (LEVELS + lift).ravel()).reshape(q, -1)
    high = np.clip(at - size * np.arange(q)[:, None], 1, size - 1)
    x0, x1 = np.take_along_axis(x, high - 1, 1), np.take_along_axis(x, high, 1)
    p0, p1 = np.take_along_axis(level, high - 1, 1), np.take_along_axis(level, high, 1)
    knots = x0 + (x1 - x0) * np.clip((LEVELS - p0) / np.maximum(p1 - p0, 1e-300), 0.0, 1.0)
    knots = np.maximum.accumulate(knots, axis=1)
    bounded = np.isfinite(best)
    cap = np.where(bounded, best, knots[:, -1])[:, None]
    # P(a later report is below the best so far), from the same piecewise-linear CDF.
    above = knots >= cap
    i = np.clip(above.argmax(1), 1, LEVELS.size - 1)
    rows = np.arange(q)
    k0, k1 = knots[rows, i - 1], knots[rows, i]
    share = np.clip((cap[:, 0] - k0) / np.where(k1 > k0, k1 - k0, 1.0), 0.0, 1.0)
    beats = LEVELS[i - 1] + (LEVELS[i] - LEVELS[i - 1]) * share
    beats = np.where(above.any(1), beats, LEVELS[-1])
    lower = (knots[:, 1] - knots[:, 0]) / np.log(LEVELS[1] / LEVELS[0])
    first = above[:, 0]
    beats = np.where(
        first,
        LEVELS[0] * np.exp(np.minimum(-(knots[:, 0] - cap[:, 0]) / np.where(lower > 0, lower, 1e-300), 0.0)),
        beats,
    )
    beats = np.where(bounded, beats, LEVELS[-1])[:, None]
    levels = np.where(above, beats, LEVELS)
    knots = np.concatenate([np.minimum(knots, cap), cap, cap], 1)
    end = np.where(bounded, 1.0, LEVELS[-1])[:, None]
    levels = np.concatenate([levels, np.broadcast_to(beats, (q, 1)), end], 1)
    upper = (knots[:, -3] - knots[:, -4]) / np.log((1.0 - LEVELS[-2]) / (1.0 - LEVELS[-1]))
    tails = np.stack([lower, np.where(bounded, 0.0, upper)], 1)
    return knots, levels, tails
