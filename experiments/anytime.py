"""The best value that a search knew while it went on: kept small, read at any step, drawn over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Improvements = Sequence[Sequence[float]]
"""(steps spent by all trials, best value so far), of each report that beat all before it."""


def improvements(values: Iterable[float]) -> list[tuple[int, float]]:
    """(steps spent by all trials, best value so far), where a report beat all before it; lower is better."""
    found: list[tuple[int, float]] = []
    for spent, value in enumerate(values, 1):
        if np.isfinite(value) and (not found or value < found[-1][1]):
            found.append((spent, value))
    return found


def best_at(best_so_far: Improvements, grid: np.ndarray) -> np.ndarray:
    """The best value a search knew after each number of steps, (G,); inf before its first, the last one held beyond."""
    spent, best = np.array(best_so_far, float).reshape(-1, 2).T
    return np.concatenate(([np.inf], best))[np.searchsorted(spent, grid, side="right")]


def draw_line(ax: Axes, searches: Sequence[Improvements], ends: Iterable[int], label: str, **look: Any) -> None:
    """Median over searches, the band from the best to the worst of them.

    The line ends where the last of the searches did; one that is over keeps its value.

    Args:
        ax: where.
        searches: one a seed.
        ends: the steps that each has spent.
        label: in the legend, with the number of searches.
        look: of the line, its colour among them.
    """
    grid = np.arange(int(max(found[0][0] for found in searches)), max(ends) + 1)
    best = np.stack([best_at(found, grid) for found in searches])
    ax.plot(grid, np.median(best, axis=0), label=f"{label}, {len(searches)} seeds", drawstyle="steps-post", **look)
    ax.plot(grid[-1], np.median(best[:, -1]), "o", color=look["color"], ms=5)
    ax.fill_between(grid, best.min(axis=0), best.max(axis=0), step="post", color=look["color"], alpha=0.08, lw=0)
