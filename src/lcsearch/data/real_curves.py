"""Curves of tables of one length each, to compare the prior's with: a matrix a task."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lcsearch.curves import Floats
from lcsearch.data.caveats import Caveats
from lcsearch.data.tables import Table, is_table, sources
from lcsearch.data.task import Task
from lcsearch.errors import FileProblem


def tables(folder: Path, caveats: Caveats | None = None) -> list[Table]:
    """The table that lies there, or those in its folders, by name.

    Args:
        caveats: what is to be minded of them, over what their meta.json says.

    Raises:
        EnvironmentProblem: there is no such folder.
        FileProblem: no table lies there.
    """
    if is_table(folder):
        return [Table(folder, caveats or {})]
    found = [Table(folder / name, caveats or {}) for name in sources(folder)]
    if not found:
        raise FileProblem(f"{folder}: expected a table of curves, or a folder of tables, got none.")
    return found


def matrix(task: Task, most: int = 256) -> tuple[Floats, Floats] | None:
    """(S,) steps and (C, S) losses of the runs that report at the most common steps; None for fewer than 8.

    Args:
        task: runs of any length.
        most: runs at most, evenly taken.
    """
    groups: dict[bytes, list[tuple[Floats, Floats]]] = {}
    for run in task.runs:
        steps, values = run.curve.reports()
        groups.setdefault(np.asarray(steps, np.float64).tobytes(), []).append((steps, values))
    usual = max(groups.values(), key=len)
    if len(usual) < 8 or usual[0][0].size < 4:
        return None
    usual = usual[:: -(-len(usual) // most)]
    return np.asarray(usual[0][0], np.float64), task.goal.sign * np.array([values for _, values in usual])


def matrices(table: Table) -> Iterator[tuple[str, Floats, Floats]]:
    """Task, steps and losses, of every task of a table that has enough runs of one length."""
    for name in table.tasks:
        task = table.task(name)
        found = None if task is None else matrix(task)
        if found is not None:
            yield name, *found
