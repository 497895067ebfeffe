"""The plots of a replay: the frontier, and the curves on which two policies disagree. Agg, no pyplot."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from lcsearch.data.task import Task
from lcsearch.extras import need_sweep
from lcsearch.replay.history import History, RunOutcome
from lcsearch.replay.text import place_of
from lcsearch.replay.whatif import Point, Replay, differences
from lcsearch.stopping.decision import percent
from lcsearch.study import Status
from lcsearch.terminal import quoted

need_sweep("lcsearch.replay.plots")

from matplotlib.axes import Axes  # noqa: E402  # after the check
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.lines import Line2D  # noqa: E402

PANELS, COLUMNS = 12, 4
APART = 13.0
"""Pixels between two labels of one line, upwards; a label nearer to the one before it is left out."""
_COLOURS = ("#0072b2", "#e08a00", "#009e73", "#cc79a7", "#56b4e9", "#999999")  # Okabe and Ito
_MARKERS = "sDPXv^"


def frontier(found: Replay) -> Figure | None:
    """Compute saved against the share of orders in which the best was lost; None when nobody knows the best."""
    if found.best is None:
        return None
    figure = Figure(figsize=(8.0, 4.8), dpi=130, layout="constrained")
    axes = figure.subplots()
    own = {(point.name, point.threshold) for point in found.points}
    for i, line in enumerate(found.frontiers):
        colour = _COLOURS[i % len(_COLOURS)]
        axes.plot(*zip(*map(_where, line), strict=True), "-o", color=colour, ms=4, label=line[0].name)
        axes.plot(*_where(next(p for p in line if (p.name, p.threshold) in own)), "o", color=colour, ms=9)
    swept = {line[0].name for line in found.frontiers}
    others = [point for point in found.points if point.name not in swept]
    for i, point in enumerate(others):
        star = point.name.startswith("oracle")
        colour = _COLOURS[(i + len(swept)) % len(_COLOURS)]
        axes.plot(*_where(point), "*" if star else _MARKERS[i % len(_MARKERS)], color=colour, ms=8, label=point.name)
    n, fewer = found.points[0].orders, found.fewest
    of = f"{n}, at other thresholds of {fewer}" if fewer < n else str(n)
    axes.set(
        xlabel=f"orders in which the best was lost (nothing as good found), % of {of}",
        ylabel=f"{found.task.unit} saved, %",
        title=f"{quoted(found.task.name)}: {len(found.task)} trials in random orders",
    )
    points = [*found.points, *(point for line in found.frontiers for point in line)]
    x, y = zip(*map(_where, points), strict=True)
    # No narrower than a fifth of the orders and of the compute: noise is not to look like a frontier.
    axes.set_xlim(-2.0, max(20.0, 1.1 * max(x)))
    axes.set_ylim(max(min(y) - 10.0, -3.0), min(max(y) + 10.0, 103.0))
    axes.grid(alpha=0.3)
    for i, line in enumerate(found.frontiers):
        _label(axes, line, own, _COLOURS[i % len(_COLOURS)])
    title = "threshold along the line,\nlarge: the policy's own" if swept else None
    figure.legend(loc="outside right upper", fontsize=8, title=title, title_fontsize=7)
    return figure


def _where(point: Point) -> tuple[float, float]:
    return 100.0 * point.lost / point.orders, 100.0 * statistics.mean(point.saved)


def _label(axes: Axes, line: Sequence[Point], own: set[tuple[str, float | None]], colour: str) -> None:
    """Thresholds beside their points, the policy's own first, as far as there is room."""
    taken: list[tuple[float, float]] = []
    ends = (line[0], line[-1])
    for point in sorted(line, key=lambda p: ((p.name, p.threshold) not in own, p not in ends)):
        x, y = axes.transData.transform(_where(point))
        if all(abs(y - other[1]) > APART or abs(x - other[0]) > 3 * APART for other in taken):
            taken.append((x, y))
            text = percent(point.threshold or 0.0)
            axes.annotate(text, _where(point), xytext=(7, -3), textcoords="offset points", fontsize=7, color=colour)


def disagreement(found: Replay) -> Figure | None:
    """A panel for each trial that the first two policies treat differently, known ends first; None when none is."""
    if len(found.played) < 2:
        return None
    (one, first), (other, second) = found.played[:2]
    every = differences(first, second)
    apart = every[:PANELS]
    if not apart:
        return None
    rows, columns = math.ceil(len(apart) / COLUMNS), min(len(apart), COLUMNS)
    figure = Figure(figsize=(max(2.75 * columns, 6.5), 2.4 * rows + 0.9), dpi=110, layout="constrained")
    panels: Sequence[Axes] = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axes, difference in zip(panels, apart, strict=False):
        _panel(axes, found.task, difference.lives, (first, second))
        place = place_of(found.task, difference.lives[0].row)
        axes.set_title(f"trial {difference.uid}, {place}", fontsize=9)
    for axes in panels[len(apart) :]:
        axes.set_axis_off()
    for axes in panels[max(len(apart) - columns, 0) : len(apart)]:
        axes.set_xlabel("step", fontsize=7)
    keys = [Line2D([], [], **look) for look in _KEYS]
    words = [
        found.task.goal.metric,
        "censored, end unknown",
        f"{one.name} stops",
        f"{other.name} stops",
        "to beat then",
    ]
    figure.legend(keys, words, loc="outside lower center", ncols=len(words), fontsize=8)
    more = f", {len(apart)} of {len(every)} trials" if len(every) > len(apart) else ""
    figure.suptitle(f"{found.task.name}: where {one.name} and {other.name} disagree{more}", fontsize=10)
    return figure


_CURVE: dict[str, Any] = {"color": "0.3", "lw": 1.2}
_OPEN: dict[str, Any] = {**_CURVE, "ls": "--", "marker": "o", "markerfacecolor": "white", "ms": 5.0}
_STOPS = (("v", _COLOURS[0]), ("^", _COLOURS[1]))
_KEYS: tuple[dict[str, Any], ...] = (
    _CURVE,
    _OPEN,
    *({"marker": marker, "color": colour, "ms": 8, "ls": ""} for marker, colour in _STOPS),
    {"color": "0.3", "lw": 0.8, "ls": ":"},
)


def _panel(axes: Axes, task: Task, lives: tuple[RunOutcome, RunOutcome], histories: tuple[History, History]) -> None:
    """One trial's curve, where each policy stops it, and what was to be beaten there; censored ones end openly."""
    run = task.runs[lives[0].row]
    steps, values = np.asarray(run.steps), np.asarray(run.values)
    good = np.isfinite(values) & (np.abs(values) < 1e100)
    steps, values = steps[good], values[good]
    if run.status is Status.STOPPED:
        axes.plot(steps, values, markevery=[-1] if steps.size else [], **_OPEN)
    else:
        axes.plot(steps, values, **_CURVE)
    marked = []
    for life, history, (marker, colour) in zip(lives, histories, _STOPS, strict=True):
        if life.stop is None:
            continue
        value, to_beat = run.values[life.shown - 1], task.goal.sign * history.to_beat(life)
        if math.isfinite(value) and abs(value) < 1e100:
            axes.plot([life.step], [value], marker, color=colour, ms=8)
            marked.append(value)
        if math.isfinite(to_beat):
            axes.axhline(to_beat, color=colour, lw=0.8, ls=":")
            marked.append(to_beat)
    if values.size:
        # First reports may be many times the rest; what is marked stays in sight.
        bounds = [*np.quantile(values, [0.0, 0.95] if task.goal.sign > 0 else [0.05, 1.0]), *marked]
        margin = 0.1 * (max(bounds) - min(bounds)) or 1.0
        axes.set_ylim(min(bounds) - margin, max(bounds) + margin)
    axes.set_xlim(min(run.steps[0], 0.0) - 0.03 * task.goal.horizon, 1.03 * task.goal.horizon)
    axes.tick_params(labelsize=7)
