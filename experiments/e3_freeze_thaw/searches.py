"""What searches found, in pieces: one small JSON file a world, policy and source, and all of them in searches.json,
which is what stays. Standard library and numpy only, for the peers' runners, in environments of their own, write the
same pieces.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

HERE = Path(__file__).resolve().parent
PARTS = HERE / "parts"
KEPT = HERE / "searches.json"
"""World -> policy--source -> task -> searches; a machine without `parts/` goes on from there."""
ROUNDED = 1 + 1e-9
"""Costs are sums of floats: a budget counts as so much more."""
RUNS = 20
"""Budget, in whole runs' worth."""


class Where(NamedTuple):
    """What a search is run in: trials at once, and what a checkpoint and a resume cost, in reports each."""

    workers: int = 1
    price: int = 0

    def __str__(self) -> str:
        return f"w{self.workers}-p{self.price}"


WORLDS = tuple(Where(workers, price) for price in (0, 1) for workers in (1, 4, 16))


class Table(NamedTuple):
    """A task as the peers read it.

    Attributes:
        source, name: which.
        losses: (R, S), lower is better, NaN where nothing was reported; column t holds the (t + 1)-th report.
        params: (R, D), scaled to [0, 1]; categories as 0, 1, ..; NaN where a configuration has none.
        kinds: (D,) 1 for a number, 2 for a category.
    """

    source: str
    name: str
    losses: Any
    params: Any
    kinds: Any


def write_table(path: Path, table: Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **table._asdict())


def tables(folder: Path) -> Iterator[Table]:
    """All that were exported, by source and name."""
    for path in sorted(folder.glob("*.npz")):
        with np.load(path, allow_pickle=False) as found:
            arrays = {name: found[name] for name in Table._fields}
        yield Table(**{**arrays, "source": str(arrays["source"]), "name": str(arrays["name"])})


class Piece:
    """The searches of one policy on one source in one world; each is written as soon as it is done."""

    def __init__(self, where: Where, policy: str, source: str, root: Path | None = None) -> None:
        self.path = (root or PARTS) / str(where) / f"{policy}--{source}.json"
        self.tasks: dict[str, list[dict[str, Any]]] = {}
        if self.path.exists():
            self.tasks = json.loads(self.path.read_text())
        for task, rows in kept().get(str(where), {}).get(self.path.stem, {}).items():
            self.tasks[task] = merged(self.tasks.get(task, []), rows)

    def has(self, task: str, seed: int) -> bool:
        return any(row["seed"] == seed for row in self.tasks.get(task, ()))

    def add(self, task: str, row: dict[str, Any]) -> None:
        self.tasks[task] = merged(self.tasks.get(task, []), [row])
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_suffix(f".{os.getpid()}")
        new.write_text(json.dumps(self.tasks, separators=(",", ":")))
        os.replace(new, self.path)


def merged(rows: list[dict[str, Any]], more: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Searches of one task by seed; of the same seed those of `rows`."""
    known = {row["seed"] for row in rows}
    return sorted([*rows, *(row for row in more if row["seed"] not in known)], key=lambda row: row["seed"])


def kept() -> Mapping[str, Mapping[str, Mapping[str, list[dict[str, Any]]]]]:
    """What `KEPT` holds."""
    return _read(KEPT, KEPT.stat().st_mtime_ns) if KEPT.exists() else {}


@lru_cache(maxsize=1)
def _read(path: Path, changed: int) -> Any:
    return json.loads(path.read_text())


def keep(pieces: Mapping[Where, Sequence[Piece]], at: Sequence[float]) -> None:
    """Write all pieces of these worlds, a line each; of a trace what tells the best value at budgets `at`."""
    found: dict[str, dict[str, Any]] = {}
    for where, of in pieces.items():
        for piece in of:
            tasks = {name: [row | {"trace": thinned(row["trace"], at)} for row in v] for name, v in piece.tasks.items()}
            found.setdefault(str(where), {})[piece.path.stem] = tasks
    text = json.dumps(found, separators=(",", ":"), sort_keys=True)
    KEPT.write_text(text.replace('"w', '\n"w').replace('},"', '},\n"') + "\n")


def thinned(trace: Sequence[Sequence[float]], at: Sequence[float]) -> list[Sequence[float]]:
    """The points of a trace (cost, value) that are the last ones up to one of the budgets `at`."""
    last = np.searchsorted([cost for cost, _ in trace], np.array(at) * ROUNDED, side="right") - 1
    return [trace[i] for i in sorted({int(i) for i in last if i >= 0})]


def row_of(
    seed: int, trace: list[tuple[float, float]], begun: int, reports: int, seconds: float, by: str
) -> dict[str, Any]:
    """A search as it is kept.

    Args:
        seed: of the search.
        trace: (cost spent, in whole runs' worth; best loss so far) at every improvement.
        begun: configurations that were begun.
        reports: that were shown.
        seconds: of processor time for all of it, forecasts, surrogates and the table included.
        by: which code.
    """
    kept = [(round(cost, 6), float(f"{loss:.9g}")) for cost, loss in trace]
    return {"seed": seed, "trace": kept, "begun": begun, "reports": reports, "seconds": round(seconds, 3), "by": by}
