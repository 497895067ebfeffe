"""The outlook drawn: curves with fans of forecasts, intervals of configurations not begun. Agg, no pyplot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lcsearch.curves import Floats
from lcsearch.extras import need_sweep
from lcsearch.outlook.facts import Fan, Outlook, Prospect
from lcsearch.outlook.standing import Standing

need_sweep("lcsearch.outlook.plots")

from matplotlib.axes import Axes  # noqa: E402  # after the check
from matplotlib.figure import Figure  # noqa: E402  # likewise

CANDIDATES = 40
"""Configurations that are drawn: the most promising ones."""
_COLOURS = ("#0072b2", "#e08a00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999", "#000000")  # Okabe and Ito


def outlook(found: Outlook, standing: Standing, shown: Sequence[Prospect], fans: Mapping[str, Fan]) -> Figure:
    """Curves so far and what is forecast of them; beside it the configurations that have a forecast.

    Args:
        found: the facts.
        standing: how a value and a step are called.
        shown: the trials to draw.
        fans: uid -> its fan, for those that have one.
    """
    new = [one for one in found.unseen if one.forecast is not None][:CANDIDATES]
    columns = 2 if found.unseen else 1
    figure = Figure(figsize=(7.5 + 4.5 * (columns - 1), 4.8), dpi=120, layout="constrained")
    panels = figure.subplots(1, columns, squeeze=False, sharey=True, width_ratios=[5, 3][:columns]).ravel().tolist()
    marked = [*_curves(panels[0], found, shown, fans), *(_intervals(panels[1], found, new) if found.unseen else [])]
    for axes in panels:
        if found.target is not None:
            axes.axhline(found.target, color="0.3", lw=0.8, ls=":", label="to beat")
        axes.grid(alpha=0.3)
    title = "begun trials: reports to come (fans), judged value (bars), 80 %"
    panels[0].set(xlabel=standing.step, ylabel=standing.metric, title=title)
    if shown:
        panels[0].legend(fontsize=7, ncols=2)
    _limit(panels[0], [*marked, *([] if found.target is None else [found.target])])
    return figure


def _curves(axes: Axes, found: Outlook, shown: Sequence[Prospect], fans: Mapping[str, Fan]) -> list[float]:
    """Each trial's curve, its fan, and its judged value where it ends; returns the values that must be in sight."""
    marked: list[float] = []
    for i, one in enumerate(shown):
        curve, colour = one.trial.curve, _COLOURS[i % len(_COLOURS)]
        good = np.abs(curve.values) < 1e100
        steps, values = curve.steps[good], curve.values[good]
        axes.plot(steps, values, color=colour, lw=1.3, marker="." if steps.size < 4 else None, label=_name(one))
        marked += values[-1:].tolist()
        fan = fans.get(one.trial.uid)
        if fan is not None:
            x, *lines = (
                _from(first, line)
                for first, line in zip(
                    (steps, values, values, values), (fan.steps, fan.low, fan.median, fan.high), strict=True
                )
            )
            axes.fill_between(x, lines[0], lines[2], color=colour, alpha=0.15, lw=0)
            axes.plot(x, lines[1], color=colour, lw=1.0, ls="--")
            marked += [float(line[-1]) for line in lines]
        if one.forecast is not None:
            said = one.forecast
            bars = [[said.median - said.low], [said.high - said.median]]
            axes.errorbar([one.end], [said.median], bars, color=colour, fmt="o", ms=4, lw=1.0, capsize=2)
            marked += [said.low, said.median, said.high]
    return marked


def _from(own: Floats, line: Floats) -> Floats:
    """A line of a fan that begins at the last report."""
    return np.concatenate([own[-1:], line])


def _intervals(axes: Axes, found: Outlook, new: Sequence[Prospect]) -> list[float]:
    """The intervals of configurations, the most promising on the left; returns the values that must be in sight."""
    n = len(found.unseen)
    if not new:
        axes.set(title=f"{n} not begun: no forecast", xticks=[])
        return []
    said = [one.forecast for one in new if one.forecast is not None]
    median = np.array([one.median for one in said])
    bars = np.array([[one.median - one.low for one in said], [one.high - one.median for one in said]])
    axes.errorbar(np.arange(len(said)), median, bars, fmt="o", ms=3, lw=0.9, color=_COLOURS[0])
    some = f"{len(new)} of {n}" if len(new) < n else str(n)
    axes.set(title=f"{some} not begun", xlabel="configuration, the most promising first", xticks=[])
    return [one.median for one in said]


def _name(one: Prospect) -> str:
    return f"trial {one.trial.uid}, {one.state}"


def _limit(axes: Axes, marked: Sequence[float]) -> None:
    """First reports and wide tails may be many times the rest: what is marked stays in sight, and not much more."""
    values = np.array([value for value in marked if np.isfinite(value) and abs(value) < 1e100])
    if not values.size:
        return
    low, high = np.quantile(values, [0.03, 0.97])
    margin = 0.25 * (high - low) or 0.1 * abs(high) or 1.0
    axes.set_ylim(low - margin, high + margin)
