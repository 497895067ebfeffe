"""Figures of many replayed searches: anytime regret, speed-up, what was lost.

Orders of one task are averaged first; tasks are the unit of every error bar (curves recur between orders).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lcsearch.curves import Floats
from lcsearch.data.task import Task
from lcsearch.replay.history import History


def scale_of(task: Task) -> float:
    """What a regret is divided by to compare tasks: the table's median judged loss less its best; > 0.

    Of complete runs. The worst run may be anything (1e34), so the median stands for the far end.
    """
    losses = task.judged[task.complete]
    losses = losses[np.isfinite(losses)]
    scale = float(np.median(losses) - losses.min()) if losses.size else 0.0
    return scale if scale > 0 else 1.0


Trace = Sequence[tuple[float, float]]
"""(cost, regret) at every improvement; plain numbers, so that they can be stored."""


def trace_of(history: History, unit: float = 1.0) -> list[tuple[float, float]]:
    """Cost over `unit`, and best loss so far less the table's best over :func:`scale_of`, at every improvement."""
    best = float(history.task.judged[history.task.complete].min())
    scale = scale_of(history.task)
    return [(cost / unit, max(loss - best, 0.0) / scale) for _, cost, loss in history.trace]


def regrets(trace: Trace, grid: Floats) -> Floats:
    """(B,) regret where each cost of `grid` (B,) had been spent; +inf before the first value."""
    costs = np.array([cost for cost, _ in trace])
    found = np.array([math.inf, *(regret for _, regret in trace)])
    out: Floats = found[np.searchsorted(costs, grid, side="right")]
    return out


def speed_up(method: Floats, none: Floats, grid: Floats) -> tuple[float, bool]:
    """Cost at which no stopping has the regret it ends with, over the cost at which the method has it or less.

    LC-PFN (Adriaensen et al. 2023), section 4.3. Regrets are means over the orders; the search ends at the last cost.

    Args:
        method, none: (orders, B) regrets at each cost.
        grid: (B,) the costs, rising.

    Returns:
        The speed-up and True; or, for a method that never gets there (censored), the largest it could have, and False.
    """
    target = float(none.mean(0)[-1]) * (1 + 1e-12)
    start = grid[np.flatnonzero(none.mean(0) <= target)[0]]
    there = np.flatnonzero(method.mean(0) <= target)
    return float(start / (grid[there[0]] if there.size else grid[-1])), bool(there.size)


def geometric(values: Sequence[float]) -> float:
    """Geometric mean; NaN of nothing."""
    return float(np.exp(np.mean(np.log(values)))) if len(values) else math.nan
