"""What trials reported, read for the network: thinned, on a time of their own, in units of their own.

Time starts one spacing before the first report and ends, at 1, where trials are judged. A loss is centred on the
trial's first one and divided by a power of two about as large as the curve, so that dividing rounds nothing: what a
curve looked like early does not depend on how it goes on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lcsearch.curves import Floats
from lcsearch.forecast.network.features import Curves, token_grid
from lcsearch.schedule import Schedule
from lcsearch.study import Status, Trial

LONGEST = 512
"""Reports of a curve that are read, at most; a longer one is thinned evenly from its end."""
LARGEST = 1e30
"""Bound on the size of what becomes float32."""
_AREA = np.linspace(0.0, 1.0, 257)
_RECENT = 8
_ABOUT = 50.0  # reports a run makes when nothing tells


@dataclass(frozen=True, eq=False)
class Reports:
    """One trial's reports, thinned.

    Attributes:
        steps: (S,) raw, increasing.
        loss: (S,) raw; +inf for an event.
        best: (S,) best loss so far, thinned reports included; +inf before the first finite one.
        start, reach: time is (step - start) / reach.
        spacing: steps between reports, lately.
        total: about how many reports, thinned likewise, it makes up to the horizon.
        schedule: its plan.
        thinned: whether any report was left out.
    """

    steps: Floats
    loss: Floats
    best: Floats
    start: float
    reach: float
    spacing: float
    total: float
    schedule: Schedule | None
    thinned: bool

    @classmethod
    def of(cls, trial: Trial, sign: float, horizon: float, gap: float | None = None) -> Reports:
        """Read a trial that has a report.

        Args:
            trial: a COMPLETE one has made all its reports.
            sign: of the goal.
            horizon: the step at which trials are judged.
            gap: steps between reports in this study, for a trial that has made only one.
        """
        steps, loss = trial.curve.losses(sign)
        best = np.minimum.accumulate(loss)
        n = steps.size
        last = float(steps[-1])
        if n > 1:
            some = min(n - 1, _RECENT)
            first, spacing = float(steps[1] - steps[0]), float(last - steps[-1 - some]) / some
        else:
            first = spacing = gap or (last if last > 0 else horizon / _ABOUT)
        start = float(steps[0]) - first
        more = 0.0
        if trial.status is not Status.COMPLETE and horizon > last:
            more = _further(steps, (horizon - last) / spacing)
        total = n + more
        if n > LONGEST:
            stride = math.ceil(n / LONGEST)
            keep = slice((n - 1) % stride, None, stride)
            steps, loss, best, spacing = steps[keep], loss[keep], best[keep], stride * spacing
            total = steps.size + more / stride
        reach = max(horizon - start, first)
        return cls(steps, loss, best, start, reach, spacing, total, trial.schedule, n > LONGEST)


def _further(steps: Floats, gaps: float) -> float:
    """How many reports are still to come over so many of the present gaps: fewer where each gap is longer than the one
    before (data-set sizes grow in geometric progression; a clock that trembles does not)."""
    if steps.size < 4 or steps[-1] - steps[-2] <= 1.01 * (steps[1] - steps[0]):
        return gaps
    wide = np.diff(steps)
    if not (wide[1:] > wide[:-1]).all():
        return gaps
    growth = float(wide[-1] / wide[0]) ** (1.0 / (wide.size - 1))
    some = wide[-_RECENT:]
    gaps *= float(some.mean() / some[-1])
    return math.log1p(gaps * (growth - 1.0) / growth) / math.log(growth)


@lru_cache(maxsize=1024)
def _grid(n: int) -> NDArray[np.int64]:
    return np.array(token_grid(n))


def pad(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) sizes >= 1 of parts -> (N, largest) index into their concatenation; a part's last item fills its row."""
    stops = np.cumsum(sizes)
    index: NDArray[np.int64] = np.minimum(np.arange(sizes.max()) + (stops - sizes)[:, None], stops[:, None] - 1)
    return index


def as_tensor(x: Floats, device: str) -> Tensor:
    """float64 -> float32 of at most `LARGEST` in size; infinities and NaN stay."""
    x = np.where(np.isfinite(x), np.clip(x, -LARGEST, LARGEST), x)
    return torch.from_numpy(x.astype(np.float32)).to(device)


def standardize(loss: Floats, center: Floats | float, scale: Floats | float) -> Floats:
    """(loss - center) / scale, where what is finite stays so."""
    with np.errstate(over="ignore"):
        x = (loss - center) / scale
    return np.where(np.isfinite(loss), np.clip(x, -LARGEST, LARGEST), x)


@dataclass(frozen=True, eq=False)
class Batch:
    """N trials as tensors, each in its own units.

    Attributes:
        curves: (N, S).
        grid: (N, T) reports that are tokens.
        ends: (N,) place of each trial's last token.
        sizes: (N,) reports.
        center, scale: (N,) a loss is center + scale * y.
    """

    curves: Curves
    grid: Tensor
    ends: Tensor
    sizes: NDArray[np.int64]
    center: Floats
    scale: Floats

    @classmethod
    def of(cls, reports: Sequence[Reports], device: str, scale: Floats | float = 1.0) -> Batch:
        """Pad; `scale` is that of curves which are constant, one number or (N,)."""
        sizes = np.array([r.steps.size for r in reports])
        index = pad(sizes)
        loss = np.concatenate([r.loss for r in reports])[index]
        start = np.array([r.start for r in reports])[:, None]
        reach = np.array([r.reach for r in reports])[:, None]
        time = (np.concatenate([r.steps for r in reports])[index] - start) / reach
        center, own = own_units(loss, scale)
        rate, area = _plans(reports, index, device)
        curves = Curves.of(
            as_tensor(standardize(loss, center[:, None], own[:, None]), device),
            as_tensor(time, device),
            torch.ones((), device=device, dtype=torch.float32),
            as_tensor(np.array([[r.total] for r in reports]), device),
            rate,
            area,
        )
        if any(r.thinned for r in reports):
            best = standardize(np.concatenate([r.best for r in reports])[index], center[:, None], own[:, None])
            curves = replace(curves, best=torch.minimum(curves.best, as_tensor(best, device)))
        grids = [_grid(int(n)) for n in sizes]
        counts = np.array([g.size for g in grids])
        grid = torch.from_numpy(np.concatenate(grids)[pad(counts)]).to(device)
        return cls(curves, grid, torch.from_numpy(counts - 1).to(device), sizes, center, own)

    def pick(self, rows: Tensor) -> Batch:
        """Some of them, padded as all are."""
        at = rows.cpu().numpy()
        curves = self.curves.map(lambda x: x[rows] if x.dim() and len(x) == len(self.sizes) else x)
        return Batch(curves, self.grid[rows], self.ends[rows], self.sizes[at], self.center[at], self.scale[at])


def own_units(loss: Floats, scale: Floats | float) -> tuple[Floats, Floats]:
    """(N, S) losses with infinities -> (N,) first finite one; (N,) power of two about the typical distance from it.

    A typical distance, no range: one blow-up to 1e34 must not push everything else below what float32 can hold.
    """
    finite = np.isfinite(loss)
    rows = np.arange(loss.shape[0])
    center = loss[rows, finite.argmax(1)]
    with np.errstate(over="ignore", invalid="ignore"):
        away = np.abs(loss - center[:, None])
    away = np.sort(np.where((away > 0) & np.isfinite(away), away, np.inf), 1)
    n = np.isfinite(away).sum(1)
    typical = np.where(n > 0, away[rows, np.maximum(n - 1, 0) // 2], scale)
    return center, np.ldexp(1.0, np.frexp(typical)[1] - 1)


def _plans(reports: Sequence[Reports], index: NDArray[np.int64], device: str) -> tuple[Tensor, Tensor]:
    """Rate and area (N, S) of the planned schedules; NaN without one."""
    if all(r.schedule is None for r in reports):
        blank = torch.full((1, 1), math.nan, device=device, dtype=torch.float32).expand(index.shape)
        return blank, blank
    found = [planned(r.schedule, r.steps) for r in reports]
    rate, area = (np.concatenate([f[k] for f in found])[index] for k in (0, 1))
    return as_tensor(rate, device), as_tensor(area, device)


def planned(schedule: Schedule | None, steps: Floats) -> tuple[Floats, Floats]:
    """Learning rate as a share of its peak, and share of the schedule's area that is behind, at `steps`."""
    if schedule is None:
        blank = np.full(steps.shape, np.nan)
        return blank, blank
    schedule = replace(schedule, peak=1.0)  # peaks differ from trial to trial, shares of them hardly do
    return schedule.rate(steps), np.interp(steps / schedule.horizon, _AREA, _gone(schedule))


@lru_cache(maxsize=1024)
def _gone(schedule: Schedule) -> Floats:
    rates = schedule.rate(_AREA * schedule.horizon)
    gone = np.concatenate([[0.0], np.cumsum(0.5 * (rates[1:] + rates[:-1]))])
    return gone / max(float(gone[-1]), 1e-300)
