"""`lcsearch calibration`: forecasts of a run, and what became of their trials. Only the plot is written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lcsearch.errors import InvalidValue
from lcsearch.files import write_plot
from lcsearch.sweep.monitor.open_run import read_state
from lcsearch.sweep.store.folder import RunFolder


def show(folder: RunFolder, plot: Path | None = None) -> Iterator[str]:
    """Yields lines; `plot` is where the reliability diagram goes, a PNG.

    Raises:
        FileProblem: `folder` holds no run.
        InvalidValue: the plot has another ending.
        EnvironmentProblem: it cannot be written.
    """
    if plot is not None and plot.suffix.lower() != ".png":
        raise InvalidValue("a file that ends in .png", str(plot), "--plot")
    _, state = read_state(folder)
    yield from state.calibration.lines
    yield from (f"! {text}" for text in state.damage)  # looks that are lost count in no bin
    if plot is None:
        return
    from lcsearch.sweep.report.figures import reliability

    figure = reliability(state.calibration)
    if figure is None:
        yield "no plot: no trial with a forecast has ended"
        return
    write_plot(figure, plot)
    yield f"wrote {plot}"
