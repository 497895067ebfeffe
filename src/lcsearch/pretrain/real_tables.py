"""Tables of curves as training data for the network: tasks with common steps, losses, scaled configurations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lcsearch.data.caveats import Caveats
from lcsearch.data.tables import Table, sources
from lcsearch.data.task import Run, Task
from lcsearch.pretrain.card import Origin
from lcsearch.pretrain.real import FEWEST_REPORTS, FEWEST_RUNS, Floats, Ints, RealTask

MOST_CATEGORIES = 64
WIDE = 30.0
"""A positive parameter whose largest value is so many times its smallest was searched on a logarithm."""

Half = Literal["a", "b"]


def read(data: Path, half: Half | None = None, caveats: Caveats | None = None) -> tuple[list[RealTask], list[Origin]]:
    """All tables under `data`.

    Args:
        half: "a" or "b": every other task of each source, in the order of their names, from the first or the second;
            None for all. Half a trains, half b is scored.
        caveats: what is to be minded of tables, over what their meta.json says.

    Raises:
        EnvironmentProblem: there is no such folder.
        FileProblem: a table cannot be read.
    """
    found: list[RealTask] = []
    origins = []
    for name in sources(data):
        table = Table(data / name, caveats or {})
        names = half_of(table.tasks, half)
        made = [real for task in names if (read := table.task(task)) for real in of_task(read, table)]
        found += made
        used = tuple(task for task in names if any(real.name.partition("#")[0] == task for real in made))
        if used:
            source, licence = (str(table.meta.get(key, "unknown")) for key in ("source", "licence"))
            origins.append(Origin(table.name, source, licence, used, sum(len(real.length) for real in made)))
    return found, origins


def half_of(tasks: Iterable[str], half: Half | None) -> list[str]:
    """The names of that half of a source's tasks, sorted; all of them for None."""
    return sorted(tasks)[{"a": 0, "b": 1, None: 0}[half] :: 1 if half is None else 2]


def of_task(task: Task, table: Table) -> Iterator[RealTask]:
    """The task in groups of runs that report at the same steps; runs of a group too small for a study are left out."""
    for k, (steps, runs) in enumerate(_groups(task.runs)):
        losses = np.full((len(runs), steps.size), np.nan)
        length = np.zeros(len(runs), np.int64)
        for i, run in enumerate(runs):
            found = task.goal.sign * run.curve.reports()[1]
            losses[i, : found.size], length[i] = found, found.size
        if np.sort(length)[-FEWEST_RUNS] >= FEWEST_REPORTS and np.isfinite(losses).any():
            params, kinds = scaled([run.params for run in runs], logarithmic(table))
            yield RealTask(f"{task.name}#{k}" if k else task.name, table.name, steps, losses, length, params, kinds)


def _groups(runs: Sequence[Run]) -> list[tuple[Floats, list[Run]]]:
    """Runs whose steps are the first of one common row of steps; groups of fewer than `FEWEST_RUNS` are left out."""
    rows: dict[bytes, tuple[Floats, list[Run]]] = {}
    for run in runs:
        steps = run.curve.reports()[0]
        rows.setdefault(steps.tobytes(), (steps, []))[1].append(run)
    grids: list[tuple[Floats, list[Run]]] = []
    for steps, members in sorted(rows.values(), key=lambda row: (-row[0].size, -len(row[1]))):
        fitting = [grid for grid in grids if np.array_equal(grid[0][: steps.size], steps)]
        if fitting:
            max(fitting, key=lambda grid: len(grid[1]))[1].extend(members)
        else:
            grids.append((steps, list(members)))
    return [(steps, members) for steps, members in grids if len(members) >= FEWEST_RUNS and steps[0] >= 0]


def logarithmic(table: Table) -> Mapping[str, bool]:
    """Which parameters were searched on a logarithm, where meta.json says so."""
    said = table.meta.get("hp", ())
    return {hp["name"]: bool(hp["log"]) for hp in said if isinstance(hp, Mapping) and {"name", "log"} <= set(hp)}


def scaled(configs: Sequence[Mapping[str, Any]], logs: Mapping[str, bool]) -> tuple[Floats, Ints]:
    """(R, D) and (D,) as in `Studies`; what does not vary, and text of no few kinds, is left out."""
    names = list(dict.fromkeys(name for config in configs for name in config))
    columns, kinds = [], []
    for name in names:
        values = [config.get(name) for config in configs]
        known = [value for value in values if value is not None]
        numeric = all(isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) for v in known)
        if len(set(map(str, known))) < 2 and len(known) == len(values):
            continue
        if numeric:
            columns.append(_numbers(values, logs.get(name)))
            kinds.append(1)
        else:
            words = sorted({str(value) for value in known})
            if len(words) <= MOST_CATEGORIES:
                index = {word: float(i) for i, word in enumerate(words)}
                columns.append(np.array([math.nan if v is None else index[str(v)] for v in values]))
                kinds.append(2)
    if not columns:
        return np.zeros((len(configs), 0)), np.zeros(0, np.int64)
    return np.stack(columns, axis=1), np.array(kinds, np.int64)


def _numbers(values: Sequence[Any], logarithmic: bool | None) -> Floats:
    """Scaled to [0, 1] over their range."""
    column = np.array([math.nan if value is None else float(value) for value in values])
    low, high = np.nanmin(column), np.nanmax(column)
    if low > 0 and (logarithmic or (logarithmic is None and high > WIDE * low)):
        column = np.log(column)
        low, high = np.nanmin(column), np.nanmax(column)
    return np.asarray((column - low) / (high - low)) if high > low else np.where(np.isnan(column), np.nan, 0.5)
