"""`lcsearch prior`: studies drawn from the network's prior beside real ones, in numbers and in a plot."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lcsearch.curves import Floats
from lcsearch.data.caveats import caveats_in
from lcsearch.data.real_curves import matrices, tables
from lcsearch.errors import InvalidValue
from lcsearch.files import write_plot
from lcsearch.forecast.network.studies import Studies
from lcsearch.forecast.prior import draw
from lcsearch.forecast.prior.statistics import statistics, table

Named = tuple[str, Floats, Floats]
"""A title, steps (S,), losses (C, S)."""

COLUMNS, PANELS, CURVES = 6, 18, 24
_BATCHES, _STUDIES, _TRIALS = 8, 40, 60


def show(
    data: Path | None = None, plot: Path | None = None, *, caveats: Path | None = None, seed: int = 0
) -> Iterator[str]:
    """Draw from the prior and compare; yields paragraphs as they are ready.

    Args:
        data: a table of curves or a folder of tables, see :mod:`~lcsearch.data.tables`; None: the prior alone.
        caveats: a file of what is to be minded of tables, see :mod:`~lcsearch.data.caveats`.
        plot: where a PNG of drawn (and real) curves goes; None: nowhere.
        seed: of the draws.

    Raises:
        LcsearchError: no table lies there, a table or the file of caveats is broken, or the plot cannot be written.
    """
    if plot is not None and plot.suffix.lower() != ".png":
        raise InvalidValue("a file that ends in .png", str(plot), "--plot")
    minded = None if caveats is None else caveats_in(caveats)
    found = [] if data is None else tables(data, minded)
    generator = torch.Generator().manual_seed(seed)
    drawn = list(chain.from_iterable(studies(_batch(generator), b) for b in range(_BATCHES)))
    columns = {"prior": [statistics(steps, losses) for _, steps, losses in drawn]}
    real = []
    for one in found:
        tasks = list(matrices(one))
        if not tasks:
            yield f"left out {one.name}: no task has 8 runs that report at the same 4 steps or more"
            continue
        columns[one.name] = [statistics(steps, losses) for _, steps, losses in tasks]
        real.append([(f"{one.name}: {name}", steps, losses) for name, steps, losses in tasks])
    yield "median over tasks (10 % .. 90 % of the tasks); shares of a task's range, or of its trials\n\n" + table(
        columns
    )
    if plot is None:
        return
    # One task of every source, then the next of every source.
    turns = [task for turn in zip_longest(*real) for task in turn if task is not None]
    figure = draw_panels(drawn[:: max(len(drawn) // PANELS, 1)][:PANELS], turns[:PANELS])
    write_plot(figure, plot)
    yield f"wrote {plot}"


def _batch(generator: torch.Generator) -> Studies:
    return draw(_STUDIES, generator, trials=(_TRIALS, _TRIALS))


def studies(batch: Studies, number: int = 0) -> Iterator[Named]:
    """The studies of a batch as matrices without padding; `number` is the batch's, for the titles."""
    for b, length in enumerate(batch.length.tolist()):
        losses = batch.loss[b, batch.present[b], :length].double().numpy()
        yield f"batch {number}, study {b}", batch.steps[b, :length].double().numpy(), losses


def draw_panels(drawn: list[Named], real: list[Named]) -> Figure:
    """A panel a study: drawn ones above, real ones below."""
    several = "study" if len(drawn) == 1 else "studies"
    parts = [(drawn, "viridis", f"Drawn from the prior, {len(drawn)} made-up {several}: {_LEGEND}")]
    if real:
        text = f"Real curves, {len(real)} task{'s' * (len(real) != 1)}: {_LEGEND}"
        parts.append((real, "plasma", f"{text}; of a metric to be maximized, the negative"))
    rows = [-(-len(some) // COLUMNS) for some, _, _ in parts]
    figure = Figure(figsize=(2.7 * COLUMNS, 2.1 * sum(rows) + 0.7 * len(parts)), dpi=110, layout="constrained")
    below = figure.subfigures(len(parts), 1, squeeze=False, height_ratios=[2.1 * n + 0.7 for n in rows], hspace=0.03)
    for part, n, (some, colours, title) in zip(below.ravel().tolist(), rows, parts, strict=True):
        part.suptitle(title, x=0.01, ha="left", fontsize=11)
        part.supxlabel("step, in the study's own units", fontsize=9)
        part.supylabel("loss, lower is better", fontsize=9)
        panels: list[Axes] = part.subplots(n, COLUMNS, squeeze=False).ravel().tolist()
        for axes, named in zip_longest(panels, some):
            if named is None:
                axes.set_axis_off()
            else:
                _panel(axes, named, colours)
    return figure


_LEGEND = f"up to {CURVES} trials of each; dark ends best, bright ends worst; blow-ups leave the panel"


def _panel(axes: Axes, named: Named, colours: str) -> None:
    """Some curves of a study, coloured by the rank of their last value; blow-ups leave the panel."""
    title, steps, losses = named
    some = losses[:: -(-len(losses) // CURVES)]
    some = np.where(np.abs(some) < 1e30, some, np.nan)
    order = np.argsort(np.nan_to_num(some[:, -1], nan=np.inf), kind="stable")
    for rank, row in enumerate(order.tolist()):
        axes.plot(steps, some[row], lw=0.8, color=_colour(colours, rank / max(len(order) - 1, 1)))
    if np.isfinite(some).any():
        low, usual, high = np.nanquantile(some, (0.0, 0.75, 0.97))
        if usual > low:
            high = min(high, low + 4 * (usual - low))
        if 0 < low < high / 50:
            axes.set_yscale("log")
            axes.set_ylim(low / 1.2, high * 1.2)
        else:
            margin = 0.06 * (high - low) or 1.0
            axes.set_ylim(low - margin, high + margin)
    axes.set_title(title[:34], fontsize=8)
    axes.tick_params(labelsize=6)


def _colour(name: str, share: float) -> tuple[float, float, float, float]:
    from matplotlib import colormaps

    red, green, blue, alpha = colormaps[name](0.9 * share)
    return red, green, blue, alpha
