"""`lcsearch forecast`: read a study, ask the forecaster, say what it thinks, draw it. Only the plot is written."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lcsearch.errors import InvalidValue
from lcsearch.files import write_plot
from lcsearch.host.registry import Named, resolve_forecasters
from lcsearch.outlook import text
from lcsearch.outlook.candidates import Known, from_csv, from_space
from lcsearch.outlook.facts import Outlook, begun, fan, look_ahead
from lcsearch.outlook.standing import Standing, read_standing
from lcsearch.session.panel import DEADLINE_S, Panel
from lcsearch.study import Trial
from lcsearch.sweep.store.studies import quiet_optuna
from lcsearch.terminal import say

DRAWN = 8
"""Trials that are drawn, unless somebody says otherwise."""


def show(
    where: str,
    wish: Mapping[str, Any] | None = None,
    *,
    forecasters: Named = None,
    host: str | None = None,
    candidates: Path | None = None,
    space: Path | None = None,
    n: int = 64,
    seed: int = 0,
    top: int | None = None,
    plot: Path | None = None,
    as_json: bool = False,
) -> Iterator[str]:
    """What is thought of a study; yields paragraphs, with `as_json` lines.

    Args:
        where: see :func:`~lcsearch.outlook.standing.read_standing`.
        wish: its further arguments.
        forecasters: who is asked; None: whom the run's file names, else the default ones.
        host: who holds the network; None: what the run's file says where that is a URL, else "auto".
        candidates: CSV file of configurations that are not begun.
        space: YAML file from whose `space:` `n` of them are drawn with `seed`, in its place.
        top: how many trials and configurations are told, and trials drawn; None: all, and DRAWN.
        plot: where a PNG goes; None: nowhere.

    Raises:
        LcsearchError: an argument, the study, or a file is not as needed.
    """
    if candidates is not None and space is not None:
        raise InvalidValue("--candidates or --space", "both", "forecast", "leave one out")
    if top is not None and top < 1:
        raise InvalidValue("a number >= 1", top, "--top")
    if plot is not None and plot.suffix.lower() != ".png":
        raise InvalidValue("a file that ends in .png", str(plot), "--plot")
    quiet_optuna()
    standing = read_standing(where, **(wish or {}))
    new, notes = _unseen(standing, candidates, space, n, seed)
    said: dict[str, str] = {}

    def warn(key: str, message: str) -> None:
        said.setdefault(key, message)

    asked = resolve_forecasters(forecasters or standing.forecasters, host or standing.host)
    panel = Panel(asked, DEADLINE_S, warn)
    found = look_ahead(standing.snapshot, panel, new)
    warnings = tuple(dict.fromkeys([*standing.notes, *notes, *said.values()]))
    if as_json:
        for line in warnings:
            say(f"! {line}", sys.stderr)
        yield from text.objects(found, top)
    else:
        yield "\n".join([*text.head(found, standing), *(f"! {line}" for line in warnings)])
        yield "\n" + "\n".join(text.table(found, standing, top))
        if found.unseen:
            yield "\n" + "\n".join(text.unseen(found, top))
    if plot is not None:
        draw(found, standing, panel, plot, DRAWN if top is None else top)
        if not as_json:
            yield f"\nwrote {plot}"


def _unseen(
    standing: Standing, candidates: Path | None, space: Path | None, n: int, seed: int
) -> tuple[Sequence[Trial], list[str]]:
    """The configurations to ask about, and what must be said of them."""
    if candidates is None and space is None:
        return (), []
    known = Known.of(standing.snapshot, standing.source)
    if candidates is not None:
        return from_csv(candidates, known, standing.schedule), []
    assert space is not None
    configs = [trial.params for trial, _ in begun(standing.snapshot)]
    found, left = from_space(space, known, configs, n, seed, standing.schedule)
    return found, [left] if left else []


def draw(found: Outlook, standing: Standing, panel: Panel, path: Path, most: int) -> None:
    """Write the plot of the `most` promising trials.

    Raises:
        EnvironmentProblem: matplotlib is missing, or the file cannot be written.
    """
    from lcsearch.outlook import plots

    shown = found.trials[:most]
    made = {one.trial.uid: fan(standing.snapshot, panel, one) for one in shown}
    figure = plots.outlook(found, standing, shown, {uid: one for uid, one in made.items() if one is not None})
    write_plot(figure, path)
