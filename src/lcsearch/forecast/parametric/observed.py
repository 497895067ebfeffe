"""Many curves as one padded batch, each in units of its own: what the parametric ensemble is fitted to.

Everything here is equivariant: an affine change of the metric (loss -> b loss + m, b > 0) shifts `loc` and stretches
`unit` and leaves the normalised values as they were. Rows never mix, and the width is fixed: a curve gives the same
bits alone and in a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lcsearch.curves import Curve, Floats
from lcsearch.goal import Goal

#: Points kept of a curve; longer ones are thinned to this many, see :func:`kept`.
WIDTH = 64
#: A blow-up is clipped this many scales above (or below) the curve's median.
CLIP = 10.0
#: Reports before a peak are left out when the rise is at least this share of the fall after it.
WARM_UP = 0.2
#: How much of the study's spread counts into the unit of a curve, and how much of its own whole range.
SPREAD_SHARE = 0.25
RANGE_SHARE = 0.05


@lru_cache(maxsize=512)
def kept(n: int) -> NDArray[np.intp]:
    """Indices kept of a curve of n points: all up to WIDTH; else the first, log-spaced ones, and the recent half."""
    if n <= WIDTH:
        return np.arange(n)
    recent = WIDTH // 2
    old = n - recent
    spaced = np.unique(np.round(np.geomspace(1.0, old, WIDTH)).astype(np.intp) - 1)
    while spaced.size > WIDTH - recent:  # drop every second of the densest end
        spaced = np.delete(spaced, slice(1, 2 * (spaced.size - (WIDTH - recent)), 2))
    return np.concatenate([spaced, np.arange(old, n)])


@dataclass(frozen=True, eq=False)
class Observed:
    """C curves, padded to N points.

    Attributes:
        u: (C, N) normalised time in (0, 1], the horizon at 1; 1 where padded.
        y: (C, N) normalised loss, (loss - loc) / unit, clipped; 0 where padded.
        mask: (C, N) 1.0 where observed.
        n: (C,) points used (after thinning and without a warm-up).
        loc: (C,) robust last loss: the median of the last three.
        unit: (C,) loss units that one normalised unit stands for, > 0; NaN where no scale is known.
        recent: (C,) range of the second half of the curve, smoothed, in normalised units.
        spread: (C,) the study's spread in normalised units; 0 when unknown.
        first, spacing: (C,) first step used and the median distance of reports, in steps.
        last: (C,) last finite step.
        length: (C,) steps from one spacing before the first report to the horizon.
        weight: (C, N) starting weights, small for isolated spikes.
    """

    u: Floats
    y: Floats
    mask: Floats
    n: NDArray[np.intp]
    loc: Floats
    unit: Floats
    recent: Floats
    spread: Floats
    first: Floats
    spacing: Floats
    last: Floats
    length: Floats
    weight: Floats

    def time(self, rows: NDArray[np.intp], steps: Floats) -> Floats:
        """Normalised time of steps: rows (Q,), steps (Q, T) -> (Q, T)."""
        base = (self.first - self.spacing)[rows, None]
        return (steps - base) / self.length[rows, None]


def width_of(curve: Curve) -> int:
    """How many columns a curve is padded to, by its own length only: few widths, so that batches stay large."""
    n = len(curve)
    return next((width for width in (16, 32, 52) if n <= width), WIDTH)


def observe(curves: Sequence[Curve], goal: Goal, horizon: float, spread: float) -> Observed:
    """Pad and normalise.

    Args:
        curves: C curves of one width, with at least one finite observation each.
        goal: for the direction.
        horizon: the step that becomes u = 1.
        spread: the study's robust range of judged losses, >= 0, in loss units.
    """
    c = len(curves)
    width = width_of(curves[0])
    steps, loss = np.full((c, width), np.nan), np.full((c, width), np.nan)
    n = np.empty(c, np.intp)
    spacing = np.empty(c)
    for i, curve in enumerate(curves):  # filling only: every computation below is batched
        index = kept(len(curve))
        n[i] = index.size
        s = curve.steps
        steps[i, : n[i]] = s if index.size == s.size else s[index]
        loss[i, : n[i]] = curve.values if index.size == s.size else curve.values[index]
        if s.size > WIDTH:
            spacing[i] = np.median(np.diff(s))
    loss *= goal.sign
    mask = (np.arange(width) < n[:, None]).astype(np.float64)
    smooth = _median3(loss, n)
    rows = np.arange(c)
    rise = _warm_up(smooth, n)
    if rise.any():
        at = np.arange(width) + rise[:, None]
        beyond = at >= n[:, None]
        at = np.minimum(at, width - 1)
        steps, loss, smooth = (np.where(beyond, np.nan, np.take_along_axis(x, at, 1)) for x in (steps, loss, smooth))
        n = n - rise
        mask = (np.arange(width) < n[:, None]).astype(np.float64)
    first, last = steps[:, 0], steps[rows, n - 1]
    few = np.array([len(curve) <= WIDTH for curve in curves], np.bool_)
    gaps = masked_median(np.diff(steps, axis=1), np.maximum(n - 1, 0))
    lone = np.where(first > 0, first, 0.02 * max(horizon, 1e-300))
    spacing = np.where(n == 1, lone, np.where(few, gaps, spacing))
    base = first - spacing
    length = np.maximum(np.maximum(horizon, last) - base, spacing)
    u = np.where(mask > 0, (steps - base[:, None]) / length[:, None], 1.0)

    middle = masked_median(loss, n)
    away = masked_median(np.abs(loss - middle[:, None]), n)
    scale = np.maximum(spread, 3.0 * away)
    full = _range(smooth, mask, n, 0)
    limit = CLIP * np.where(scale > 0, scale, np.where(full > 0, full, 0.0))[:, None]
    loss = np.clip(loss, middle[:, None] - limit, middle[:, None] + limit)
    smooth = np.clip(smooth, middle[:, None] - limit, middle[:, None] + limit)
    full = _range(smooth, mask, n, 0)
    recent = _range(smooth, mask, n, np.maximum(n - 1, 0) // 2)
    unit = np.hypot(np.hypot(recent, SPREAD_SHARE * spread), RANGE_SHARE * full)  # hypot: ranges near 1e300 occur
    loc = smooth[rows, n - 1]
    usable = np.isfinite(unit) & (unit > 1e-12 * np.abs(loc)) & (unit > 0)
    unit = np.where(usable, unit, np.nan)
    safe = np.where(usable, unit, 1.0)[:, None]
    y = np.where(mask > 0, (loss - loc[:, None]) / safe, 0.0)
    spike = np.where(mask > 0, (loss - smooth) / safe, 0.0)
    step = masked_median(np.abs(np.diff(np.where(mask > 0, y, np.nan), axis=1)), np.maximum(n - 1, 0))
    weight = mask / (1.0 + (spike / (4.0 * np.nan_to_num(step)[:, None] + 0.02)) ** 2)
    flat = safe[:, 0]
    return Observed(
        u, y, mask, n, loc, unit, recent / flat, np.full(c, spread) / flat, first, spacing, last, length, weight
    )


def masked_median(x: Floats, n: NDArray[np.intp]) -> Floats:
    """(C,) median of the first n of each row; NaN where n is 0. What stands beyond n must be NaN (it sorts last)."""
    ordered = np.sort(x, axis=1)
    rows = np.arange(n.size)
    low, high = np.maximum(n - 1, 0) // 2, np.minimum(n // 2, x.shape[1] - 1)
    with np.errstate(over="ignore"):
        middle = 0.5 * ordered[rows, low] + 0.5 * ordered[rows, high]
    out: Floats = np.where(n > 0, middle, np.nan)
    return out


def _median3(loss: Floats, n: NDArray[np.intp]) -> Floats:
    """Running median of three; the last point takes the median of the last three, the first stays."""
    out = loss.copy()
    a, b, c = loss[:, :-2], loss[:, 1:-1], loss[:, 2:]
    middle = np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))
    out[:, 1:-1] = np.where(np.isnan(c), b, middle)
    rows = np.flatnonzero(n >= 3)
    out[rows, n[rows] - 1] = middle[rows, n[rows] - 3]
    return out


def _warm_up(smooth: Floats, n: NDArray[np.intp]) -> NDArray[np.intp]:
    """(C,) reports before the peak of a curve that first rises, then falls: they belong to no law of decay.

    Counted when the peak stands in the first half and the rise makes up a fifth of the fall after it.
    """
    rows = np.arange(n.size)
    known = np.where(np.isnan(smooth), -np.inf, smooth)
    peak = smooth.shape[1] - 1 - np.argmax(known[:, ::-1], axis=1)
    with np.errstate(over="ignore"):
        rise, fall = smooth[rows, peak] - smooth[:, 0], smooth[rows, peak] - smooth[rows, n - 1]
    return np.where((peak <= n // 2) & (rise > WARM_UP * fall) & (rise > 0) & (fall > 0), peak, 0)


def _range(smooth: Floats, mask: Floats, n: NDArray[np.intp], start: NDArray[np.intp] | int) -> Floats:
    """(C,) largest less smallest of smoothed values from index `start` on."""
    from_start = np.arange(mask.shape[1]) >= np.broadcast_to(np.asarray(start), n.shape)[:, None]
    use = (mask > 0) & from_start
    high = np.where(use, smooth, -np.inf).max(1)
    low = np.where(use, smooth, np.inf).min(1)
    with np.errstate(over="ignore"):
        out: Floats = high - low
    return out
