"""Figures of many replayed searches: anytime regret, speed-up, what was lost.

Orders of one task are averaged first; tasks are the unit of every error bar (curves recur between orders).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lcsearch.curves import Floats
from lcsearch.replay.history import History
from lcsearch.replay.task import Task


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


def speed_up(method: Sequence[Trace], none: Sequence[Trace], grid: Floats) -> float | None:
    """Cost at which no stopping has the regret it ends with, over the cost at which the method has it or less.

    LC-PFN (Adriaensen et al. 2023), section 4.3. Regrets are means over the orders, one trace each; the search ends at
    the last cost of `grid`.

    Returns:
        None when the method never gets there (censored).
    """
    curves = [np.mean([regrets(trace, grid) for trace in traces], axis=0) for traces in (none, method)]
    target = curves[0][-1] * (1 + 1e-12)
    costs = [grid[there[0]] if (there := np.flatnonzero(mean <= target)).size else None for mean in curves]
    return None if costs[1] is None else float(costs[0] / costs[1])


def geometric(values: Sequence[float]) -> float:
    """Geometric mean; NaN of nothing."""
    return float(np.exp(np.mean(np.log(values)))) if len(values) else math.nan
