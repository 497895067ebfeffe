"""The plots of a replay: the frontier, and the curves on which two policies disagree. Agg, no pyplot."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lcsearch.decide.decision import percent
from lcsearch.replay.history import History, Life
from lcsearch.replay.task import Task
from lcsearch.replay.whatif import Replay, differences
from lcsearch.study import Status

PANELS, COLUMNS = 12, 4
_COLOURS = ("#0072b2", "#e08a00", "#009e73", "#cc79a7", "#56b4e9", "#999999")  # Okabe and Ito


def frontier(found: Replay, path: Path) -> None:
    """Compute saved against the share of orders in which the best was stopped, thresholds along a line."""
    figure = Figure(figsize=(7.5, 5.0), dpi=130, layout="constrained")
    axes = figure.subplots()
    for colour, line in zip(_COLOURS, found.frontiers, strict=False):
        x, y = [100 * p.lost / p.orders for p in line], [100 * statistics.mean(p.saved) for p in line]
        axes.plot(x, y, "-o", color=colour, ms=4, label=line[0].name)
        for point, where in zip(line, zip(x, y, strict=True), strict=True):
            label = percent(point.threshold or 0.0)
            axes.annotate(label, where, xytext=(5, -9), textcoords="offset points", fontsize=7, color=colour)
    for point in found.points:
        if not any(point in line for line in found.frontiers):
            where = (100 * point.lost / point.orders, 100 * statistics.mean(point.saved))
            axes.plot(*where, "*" if point.name.startswith("oracle") else "s", color="0.4", ms=7)
            axes.annotate(point.name, where, xytext=(5, 4), textcoords="offset points", fontsize=8)
    n = found.points[0].orders
    axes.set(
        xlabel=f"orders in which the best trial was stopped, % of {n}",
        ylabel="compute saved, %",
        title=f"{found.task.name}: {len(found.task)} trials in random orders",
    )
    axes.margins(0.1)
    axes.set_xlim(left=-3)
    axes.grid(alpha=0.3)
    if found.frontiers:
        axes.legend(fontsize=8, title="threshold along the line", title_fontsize=7)
    figure.savefig(path)


def disagreement(found: Replay, path: Path) -> bool:
    """A panel for each trial that the first two policies treat differently, best ones first; False when none is."""
    (one, first), (other, second) = found.played[:2]
    apart = differences(first, second)[:PANELS]
    if not apart:
        return False
    rows = math.ceil(len(apart) / COLUMNS)
    figure = Figure(figsize=(11, 2.6 * rows + 0.6), dpi=130, layout="constrained")
    panels: Sequence[Axes] = figure.subplots(rows, COLUMNS, squeeze=False).ravel().tolist()
    for axes, difference in zip(panels, apart, strict=False):
        _panel(axes, found.task, difference.lives, (one.name, other.name), (first, second))
        place = "censored" if difference.rank is None else f"rank {difference.rank}"
        axes.set_title(f"trial {difference.uid}, {place}", fontsize=9)
    for axes in panels[len(apart) :]:
        axes.set_axis_off()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8)
    figure.savefig(path)
    return True


def _panel(
    axes: Axes, task: Task, lives: tuple[Life, Life], names: tuple[str, str], histories: tuple[History, History]
) -> None:
    """One trial's curve, where each policy stops it, and what was to be beaten there."""
    run = task.runs[lives[0].row]
    steps, values = np.asarray(run.steps), np.asarray(run.values)
    good = np.isfinite(values) & (np.abs(values) < 1e100)
    axes.plot(steps[good], values[good], color="0.3", lw=1.2, label=task.goal.metric)
    bounds = list(values[good])
    for life, name, colour, marker in zip(lives, names, _COLOURS, ("v", "^"), strict=False):
        label = f"{name} stops it"
        if life.stop is None or life.status is not Status.STOPPED:
            axes.plot([], [], marker, color=colour, label=label)
            continue
        value = run.values[life.shown - 1]
        axes.plot([life.step], [value], marker, color=colour, ms=8, label=label)
        if life.stop.incumbent is not None:
            axes.axhline(life.stop.incumbent.value, color=colour, lw=0.8, ls=":")
            bounds.append(life.stop.incumbent.value)
    if bounds:
        low, high = np.quantile(bounds, [0.0, 0.95] if task.goal.sign > 0 else [0.05, 1.0])
        margin = 0.08 * (high - low) or 1.0
        axes.set_ylim(low - margin, high + margin)
    axes.tick_params(labelsize=7)
