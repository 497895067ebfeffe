"""The figures of a report: each drawn twice, on light and on dark paper, as PNG bytes.

No pyplot: figures are plain objects, drawn by Agg, under matplotlib's defaults whatever the user's matplotlibrc says.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import matplotlib
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from lcsearch.curves import Curve, Floats
from lcsearch.stopping.decision import exactly, percent
from lcsearch.stopping.risk import LEVELS
from lcsearch.study import judged_loss
from lcsearch.sweep.views.phrases import FEW, strict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lcsearch.stopping.calibration import Calibration
    from lcsearch.sweep.monitor.progress import Best
    from lcsearch.sweep.report.collect import Report, Stop

STATES = ("complete", "stopped", "failed", "running")
_WIDTH, _DPI = 9.6, 130
_POINTS = 300  # a curve is drawn from at most this many
_PANELS, _COLUMNS = 12, 4  # fans of their own
_BARS = 80  # stopped trials side by side
_DRAWN = 1e100  # values beyond are cut off in any case, and differences between them may overflow
_P_FLOOR = 1e-4  # lower P(beat) are drawn here


@dataclass(frozen=True)
class Theme:
    """Colours on one kind of paper; the states' are apart for colour-blind eyes too (Okabe and Ito)."""

    paper: str
    ink: str
    faint: str
    best: str
    state: dict[str, str]


LIGHT = Theme(
    "#ffffff", "#1f2328", "#d0d7de", "#000000",
    {"complete": "#0072b2", "stopped": "#e08a00", "failed": "#c8322b", "running": "#009e73"},
)  # fmt: skip
DARK = Theme(
    "#161b22", "#e6edf3", "#3d444d", "#ffffff",
    {"complete": "#56b4e9", "stopped": "#e69f00", "failed": "#ff6b61", "running": "#2fd3a2"},
)  # fmt: skip


class Picture(NamedTuple):
    """One figure: its file's name without .png, what it shows in words, and its two drawings."""

    name: str
    alt: str
    light: bytes
    dark: bytes


class Scale(NamedTuple):
    """The axis of the metric: its limits, and whether it is logarithmic."""

    low: float
    high: float
    log: bool

    def clip(self, values: Iterable[float]) -> Floats:
        """Values moved just beyond the limits at most: neither Agg nor a logarithm takes them all."""
        span = self.high - self.low
        low = self.low / 2 if self.log else self.low - span
        high = self.high * 2 if self.log else self.high + span
        clipped: Floats = np.clip(np.asarray(values, dtype=float), low, high)
        return clipped

    def put(self, axes: Axes) -> None:
        """Set up the y axis."""
        if self.log:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_locator(NullLocator())  # its ticks cost seconds where there are many panels
            if self.high / self.low < 300:
                axes.set_yticks([t for t in _round_numbers(self.low, self.high) if self.low <= t <= self.high])
        axes.set_ylim(self.low, self.high)


def _round_numbers(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [m * 10.0**d for d in decades for m in (1, 2, 5)]


def scale_of(report: Report) -> Scale | None:
    """Limits that show the good end whole and cut off what diverged; None without a finite value.

    Logarithmic when all values are positive and those not cut off span more than a factor of twenty.
    """
    values = [report.finite(row)[1] for row in report.progress.rows]
    losses = report.goal.sign * np.concatenate([np.zeros(0), *values])
    losses = losses[np.abs(losses) < _DRAWN]
    if not losses.size:
        return None
    sign = report.goal.sign
    best, worst = float(losses.min()), float(np.quantile(losses, 0.98))
    middle = float(np.quantile(losses, 0.75))
    if worst - middle > 4 * (middle - best) > 0:
        worst = middle + 4 * (middle - best)
    low, high = sorted((sign * best, sign * worst))
    if min(sign * losses.min(), sign * losses.max()) > 0 and high / low > 20:
        return Scale(low / 1.25, high * 1.25, True)
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return Scale(low - margin, high + margin, False)


def draw(report: Report) -> list[Picture]:
    """Every figure there is something to show in, in the page's order."""
    makers: list[tuple[str, str, Callable[[Report, Theme], Figure | None]]] = [
        ("curves", "Learning curves of all trials by fate, the incumbent highlighted", curves),
        ("best", "Best value reached over the steps spent", best),
        ("fans", "Forecasts at the stop of the trials most likely to have beaten the incumbent", fans),
        ("stops", "Forecast judged value of every stopped trial against the incumbent", stops),
        ("p_beat", "P(beat) over steps of every trial that was looked at", p_beat),
        ("calibration", "Share of ended trials that beat their target, by P(beat) of their looks", calibration),
        ("importances", "Share of each parameter in the variance between trials", bars),
        ("timeline", "What each worker trained over time", timeline),
    ]
    pictures = []
    for name, alt, make in makers:
        light, dark = _png(make, report, LIGHT), _png(make, report, DARK)
        if light is not None and dark is not None:
            pictures.append(Picture(name, alt, light, dark))
    return pictures


def _png(make: Callable[[Report, Theme], Figure | None], report: Report, theme: Theme) -> bytes | None:
    with matplotlib.rc_context(), warnings.catch_warnings():
        # a parameter may be named in letters that the font lacks: boxes are drawn, and nothing is said
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_look(theme))
        figure = make(report, theme)
        if figure is None:
            return None
        out = io.BytesIO()
        figure.savefig(out, format="png", metadata={"Software": None})
        return out.getvalue()


def _look(theme: Theme) -> Any:  # matplotlib's versions differ in how they type it
    ink = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color")
    return {
        "figure.dpi": _DPI, "figure.facecolor": theme.paper, "savefig.facecolor": theme.paper,
        "axes.facecolor": theme.paper, "axes.edgecolor": theme.faint, "grid.color": theme.faint, "grid.alpha": 0.5,
        "axes.grid": True, "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False,
        "font.size": 9, "axes.titlesize": 9, "axes.titlelocation": "left", "legend.frameon": False,
        "legend.fontsize": 8.5, "text.parse_math": True,
        **dict.fromkeys(ink, theme.ink),
    }  # fmt: skip


def plain(text: object, most: int = 40) -> str:
    """A user's text for a figure: no mathematics in it, one line, not too long."""
    line = " ".join(str(text).split())
    return (line if len(line) <= most else line[: most - 1] + "…").replace("$", r"\$")


def _figure(height: float) -> Figure:
    return Figure(figsize=(_WIDTH, height), layout="constrained")


def _state(state: str) -> str:
    return {"waiting": "running", "paused": "running", "thawed": "stopped"}.get(state, state)


def _thin(steps: Floats, values: Floats) -> tuple[Floats, Floats]:
    if steps.size <= _POINTS:
        return steps, values
    keep = np.unique(np.linspace(0, steps.size - 1, _POINTS).astype(int))
    return steps[keep], values[keep]


def curves(report: Report, theme: Theme) -> Figure | None:
    """Every curve, coloured by what became of its trial."""
    scale = scale_of(report)
    if scale is None:
        return None
    figure = _figure(4.6)
    axes = figure.subplots()
    best, incumbent = report.progress.best, report.progress.incumbent
    lines: dict[str, list[Floats]] = {state: [] for state in STATES}
    for row in report.progress.rows:
        steps, values = _thin(*report.finite(row))
        if steps.size:
            lines[_state(row.state)].append(np.column_stack([steps, scale.clip(values)]))
    n = sum(map(len, lines.values()))
    alpha = max(0.12, min(0.8, 12 / n**0.8)) if n > 20 else 0.85
    handles = []
    for order, state in enumerate(("stopped", "complete", "failed", "running"), start=2):
        if lines[state]:
            colour = theme.state[state]
            axes.add_collection(
                LineCollection(lines[state], colors=colour, alpha=max(alpha, 0.3), linewidths=1.0, zorder=order),
                autolim=False,
            )
            ends = np.array([line[-1] for line in lines[state]])
            if state in ("stopped", "failed"):
                axes.scatter(ends[:, 0], ends[:, 1], s=10, color=colour, marker="x", linewidths=1, zorder=order)
            elif state == "complete" and all(len(line) == 1 for line in lines[state]):
                axes.scatter(ends[:, 0], ends[:, 1], s=8, color=colour, zorder=order)
            handles.append(Line2D([], [], color=colour, label=f"{state} ({len(lines[state])})"))
    leaders: dict[str, tuple[Best | None, Literal["-", "--"]]] = {"incumbent": (incumbent, "-")}
    if best != incumbent:  # what no complete trial reached
        leaders = {"best": (best, "-"), "incumbent": (incumbent, "--")}
    for name, (leader, dashes) in leaders.items():
        if leader is None:
            continue
        steps, values = _thin(*report.finite(report.progress.numbered[leader.number]))
        axes.plot(steps, scale.clip(values), color=theme.best, linewidth=2, linestyle=dashes, zorder=8)
        axes.plot([leader.step], scale.clip([leader.value]), "o", color=theme.best, markersize=5, zorder=9)
        handles.append(Line2D([], [], color=theme.best, linewidth=2, linestyle=dashes, marker="o", markersize=5,
                              label=f"{name}: trial {leader.number}"))  # fmt: skip
    scale.put(axes)
    axes.set_xlim(0, report.goal.horizon * 1.015)
    axes.set_xlabel(plain(report.sweep.step))
    axes.set_ylabel(plain(report.sweep.metric))
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))
    return figure


def best(report: Report, theme: Theme) -> Figure | None:
    """Best value over steps spent, and where an unpruned study would have ended."""
    path, scale = report.best_path, scale_of(report)
    if not path or scale is None:
        return None
    spent, unpruned = report.progress.spent, report.state.unpruned
    figure = _figure(3.2)
    axes = figure.subplots()
    cost, values = np.array(path).T
    # what diverged before the first good trial would press the rest flat: as far as the curves are shown
    values = scale.clip(values)
    axes.step(cost, values, where="post", color=theme.state["complete"], linewidth=1.8)
    axes.plot(cost[:-1], values[:-1], "o", color=theme.state["complete"], markersize=4)
    axes.axvline(spent, color=theme.ink, linewidth=1)
    if unpruned > spent:
        axes.axvline(unpruned, color=theme.state["stopped"], linewidth=1.4, linestyle="--")
        axes.axvspan(spent, unpruned, color=theme.state["stopped"], alpha=0.08, linewidth=0)
    top = axes.get_xaxis_transform()
    side = "right" if spent > 0.2 * unpruned else "left"
    axes.text(spent, 1.02, f"{spent} spent ", transform=top, ha=side, va="bottom", fontsize=8.5)
    if unpruned > 1.05 * spent:
        axes.text(unpruned, 1.02, f"unpruned: {unpruned}", transform=top, ha="right", va="bottom",
                  fontsize=8.5, color=theme.state["stopped"])  # fmt: skip
    if scale.log and values.max() / values.min() > 5:
        Scale(values.min() / 1.25, values.max() * 1.25, True).put(axes)
    axes.set_xlim(0, max(unpruned, spent, 1) * 1.01)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_xlabel(f"{plain(report.sweep.step)}s trained, all trials together")
    axes.set_ylabel(f"best {plain(report.sweep.metric)}")
    return figure


def likely(stopped: Sequence[Stop], most: int) -> list[Stop]:
    """The stops most likely to have been wrong, as things stand today, in order of trial number."""
    known = [stop for stop in stopped if stop.forecast]
    known.sort(key=lambda stop: (-(stop.p_today if stop.p_today is not None else stop.p or 0.0), stop.number))
    return sorted(known[:most], key=lambda stop: stop.number)


def _levels(stop: Stop) -> dict[float, float]:
    return dict(zip(LEVELS, stop.forecast, strict=True))


def fans(report: Report, theme: Theme) -> Figure | None:
    """Small multiples: the curve up to the stop, and the forecast from there to the horizon."""
    chosen, scale = likely(report.stops, _PANELS), scale_of(report)
    if not chosen or scale is None:
        return None
    columns = min(_COLUMNS, len(chosen))
    n_rows = math.ceil(len(chosen) / columns)
    height = 0.5 + 1.85 * n_rows
    figure = Figure(figsize=(_WIDTH, height))  # twelve panels: working out a layout takes seconds
    figure.subplots_adjust(0.075, 0.5 / height, 0.99, 1 - 0.25 / height, 0.08, 0.22)
    grid = figure.subplots(n_rows, columns, squeeze=False, sharex=True, sharey=True)
    colour, horizon, best = theme.state["stopped"], report.goal.horizon, report.progress.incumbent
    for stop, axes in zip(chosen, grid.flat, strict=False):
        steps, values = _thin(*report.finite(report.progress.numbered[stop.number]))
        axes.plot(steps, scale.clip(values), color=theme.ink, linewidth=1.2)
        levels = _levels(stop)
        start = _reached(report, stop)
        ends = [stop.step, horizon]
        for low, high, alpha in ((0.05, 0.95, 0.22), (0.2, 0.8, 0.38)):
            axes.fill_between(ends, scale.clip([start, levels[low]]), scale.clip([start, levels[high]]), color=colour,
                              alpha=alpha, linewidth=0)  # fmt: skip
        axes.plot(ends, scale.clip([start, levels[0.5]]), color=colour, linewidth=1.4)
        recent = [look for look in report.looks.get(stop.number, ()) if look.interval is not None][-3:]
        for look in recent:
            low, mid, high = scale.clip(look.interval or ())
            axes.plot([look.step, look.step], [low, high], color=colour, linewidth=0.9)
            axes.plot([look.step], [mid], "_", color=colour, markersize=5)
        if best is not None:
            axes.axhline(float(scale.clip([best.value])[0]), color=theme.best, linewidth=0.9, linestyle=":")
        shown = f", P {percent(stop.p_today)}" if stop.p_today is not None else ""
        axes.set_title(f"trial {stop.number}{shown}", pad=3, fontsize=8.5)
    for axes in grid.flat[len(chosen) :]:
        axes.set_visible(False)
    first = grid.flat[0]
    scale.put(first)
    first.set_xlim(0, horizon * 1.02)
    first.xaxis.set_major_locator(MaxNLocator(3, integer=True, prune="upper"))  # the next panel begins with its 0
    figure.supxlabel(plain(report.sweep.step), fontsize=9, y=0.04 / height)
    figure.supylabel(plain(report.sweep.metric), fontsize=9, x=0.004)
    return figure


def _reached(report: Report, stop: Stop) -> float:
    """Where a forecast of the judged value begins: the best value so far, or the last one; NaN for none."""
    loss, _ = judged_loss(Curve.of(report.progress.numbered[stop.number].values), report.goal)
    return report.goal.sign * loss if math.isfinite(loss) else math.nan


def stops(report: Report, theme: Theme) -> Figure | None:
    """One bar a stopped trial: the quantiles of its forecast, and what it had reached."""
    chosen, scale = likely(report.stops, _BARS), scale_of(report)
    if not chosen or scale is None:
        return None
    figure = _figure(3.4)
    axes = figure.subplots()
    colour, best = theme.state["stopped"], report.progress.incumbent
    at = np.arange(len(chosen))
    levels = [_levels(stop) for stop in chosen]
    for low, high, width in ((0.05, 0.95, 1.2), (0.2, 0.8, 4.5)):
        axes.vlines(at, scale.clip([v[low] for v in levels]), scale.clip([v[high] for v in levels]), color=colour,
                    linewidth=width, alpha=0.8)  # fmt: skip
    axes.scatter(at, scale.clip([v[0.5] for v in levels]), marker="_", color=theme.ink, s=30, zorder=4)
    reached = [_reached(report, stop) for stop in chosen]
    axes.scatter(at, scale.clip(reached), marker="x", color=theme.ink, s=14, linewidths=0.9, zorder=4)
    handles = [
        Line2D([], [], color=colour, linewidth=1.2, label="5-95 %"),
        Line2D([], [], color=colour, linewidth=4.5, label="20-80 %"),
        Line2D([], [], color=theme.ink, linestyle="", marker="_", label="median"),
        Line2D([], [], color=theme.ink, linestyle="", marker="x", markersize=4, label="reached when stopped"),
    ]
    if best is not None:
        axes.axhline(float(scale.clip([best.value])[0]), color=theme.best, linewidth=1, linestyle=":")
        handles.append(Line2D([], [], color=theme.best, linewidth=1, linestyle=":", label="incumbent"))
    scale.put(axes)
    axes.set_xlim(-0.7, len(chosen) - 0.3)
    axes.set_xticks(at, [str(stop.number) for stop in chosen], fontsize=8 if len(chosen) <= 40 else 6.5,
                    rotation=0 if len(chosen) <= 40 else 90)  # fmt: skip
    axes.grid(axis="x", visible=False)
    axes.set_xlabel("stopped trial")
    axes.set_ylabel(f"{plain(report.sweep.metric)}, judged")
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))
    return figure


def p_beat(report: Report, theme: Theme) -> Figure | None:
    """P(beat) at every look, one line a trial."""
    figure = _figure(3.8)
    axes = figure.subplots()
    seen: dict[str, int] = {}
    rows = report.progress.numbered
    n = len(report.looks)
    alpha = max(0.25, min(0.9, 15 / n**0.8)) if n > 20 else 0.9
    for number, looks in report.looks.items():
        points = [(look.step, max(look.p, _P_FLOOR)) for look in looks if look.p is not None]
        if not points or number not in rows:
            continue
        state = _state(rows[number].state)
        seen[state] = seen.get(state, 0) + 1
        steps, p = np.array(points).T
        colour = theme.state[state]
        axes.plot(steps, p, color=colour, linewidth=1, alpha=alpha, marker=".", markersize=3.5, zorder=3)
        if state == "stopped":
            axes.plot(steps[-1:], p[-1:], "x", color=colour, markersize=4.5, zorder=4)
    if not seen:
        return None
    handles = [Line2D([], [], color=theme.state[s], marker=".", label=f"{s} ({seen[s]})") for s in STATES if s in seen]
    threshold = getattr(report.sweep.pruner, "threshold", None)
    if threshold is not None:
        end, rises = report.goal.horizon * 1.015, _grown(report)
        low = strict(threshold)
        line = [(0, low), (end, low)]
        if rises is not None:
            line[1:] = [(rises, low), (rises, threshold), (end, threshold)]
        label = f"threshold ({exactly(low)} below {FEW} observations)"
        axes.plot(*np.array(line).T, color=theme.ink, linewidth=1, linestyle="--")
        handles.append(Line2D([], [], color=theme.ink, linewidth=1, linestyle="--", label=label))
    axes.set_yscale("log")
    axes.set_ylim(_P_FLOOR * 0.75, 1.3)
    axes.set_yticks([1e-4, 1e-3, 1e-2, 1e-1, 1], ["≤ 0.01 %", "0.1 %", "1 %", "10 %", "100 %"])
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(0, report.goal.horizon * 1.015)
    axes.set_xlabel(plain(report.sweep.step))
    axes.set_ylabel("P(beat)")
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))
    return figure


def calibration(report: Report, theme: Theme) -> Figure | None:
    """The reliability diagram of P(beat)."""
    return reliability(report.state.calibration, theme)


def reliability(found: Calibration, theme: Theme = LIGHT) -> Figure | None:
    """Share of trials that beat their target over the mean of their forecasts; None where no trial has ended."""
    if not found.bins:
        return None
    figure = _figure(3.8)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=theme.faint, linewidth=1)
    for one in found.bins:
        axes.plot([one.forecast] * 2, one.band, color=theme.state["complete"], linewidth=1.5)
        axes.plot([one.forecast], [one.n_beat / one.n], "o", color=theme.state["complete"], markersize=5)
        axes.annotate(
            f"{one.n_beat} of {one.n}", (one.forecast, one.band[1]), color=theme.ink, ha="center", va="bottom"
        )
    axes.set_xlim(-0.04, 1.04)
    axes.set_ylim(-0.02, 1.12)
    axes.set_xlabel("P(beat) at a look")
    axes.set_ylabel("trials that beat the target of then")
    return figure


def _grown(report: Report) -> float | None:
    """Where a curve has observations enough for the full threshold: half a report before, in the middle trial; None
    when none has come so far.
    """
    curves = [report.finite(row)[0] for row in report.progress.rows]
    at = [float(steps[FEW - 2 : FEW].mean()) for steps in curves if steps.size >= FEW]
    return float(np.median(at)) if at else None


def bars(report: Report, theme: Theme) -> Figure | None:
    """Importances, largest on top."""
    shares = report.importances.shares[:20]
    if not shares:
        return None
    figure = _figure(0.7 + 0.26 * len(shares))
    axes = figure.subplots()
    at = np.arange(len(shares))[::-1]
    sizes = [share for _, share in shares]
    axes.barh(at, sizes, color=theme.state["complete"], height=0.7)
    for y, share in zip(at, sizes, strict=True):
        axes.text(share, y, f" {share:.0%}", va="center", fontsize=8.5)
    axes.set_yticks(at, [plain(name, 30) for name, _ in shares])
    axes.set_xlim(0, max(sizes) * 1.1 or 1)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    axes.grid(axis="y", visible=False)
    return figure


def timeline(report: Report, theme: Theme) -> Figure | None:
    """One lane a worker, one bar a trial."""
    axis = report.axis
    if axis is None or axis.end <= 0:
        return None
    bars = [
        (row, *axis.span(row.began, row.ended)) for row in report.progress.rows if row.slot is not None and row.began
    ]
    if not bars:
        return None
    total = axis.end
    unit, per = ("s", 1.0) if total < 300 else ("min", 60.0) if total < 3 * 3600 else ("h", 3600.0)
    slots = sorted({row.slot for row, _, _ in bars if row.slot is not None})
    figure = _figure(0.8 + 0.34 * min(len(slots), 24))
    axes = figure.subplots()
    seen = set()
    for state in STATES:
        for lane, slot in enumerate(slots):
            mine = [bar for bar in bars if bar[0].slot == slot and _state(bar[0].state) == state]
            if not mine:
                continue
            seen.add(state)
            spans = [(begin / per, (end - begin) / per) for _, begin, end in mine]
            axes.broken_barh(spans, (lane - 0.38, 0.76), facecolors=theme.state[state], edgecolors=theme.paper,
                             linewidth=0.6 if len(bars) < 300 else 0.1)  # fmt: skip
    for row, begin, end in bars:
        if end - begin > 0.025 * total:
            axes.text((begin + end) / 2 / per, slots.index(row.slot or 0), str(row.number), ha="center", va="center",
                      fontsize=7, color=theme.paper)  # fmt: skip
    for at in axis.breaks:
        axes.axvline(at / per, color=theme.ink, linewidth=0.9, linestyle=":")
    axes.set_ylim(len(slots) - 0.5, -0.5)
    axes.set_xlim(0, total / per)
    axes.set_yticks(range(len(slots)), [f"worker {slot}" for slot in slots])
    axes.set_xlabel(f"wall clock, {unit}" if axis.counted else f"{unit} since the first trial began")
    axes.grid(axis="y", visible=False)
    handles: list[Patch | Line2D] = [Patch(color=theme.state[state], label=state) for state in STATES if state in seen]
    if axis.breaks:
        handles.append(Line2D([], [], color=theme.ink, linewidth=0.9, linestyle=":", label="a new launch"))
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))
    return figure
