"""A search over a table as a peer sees it: workers, reports one at a time, a clock in reports, the same accounts and
the same traces as our simulator's. Standard library and numpy only.
"""

from __future__ import annotations

import argparse
import heapq
import math
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from searches import PARTS, RUNS, Piece, Table, Where, row_of, tables

TOLD = 0.95
"""Peers are told values no worse than this quantile of the table's, and this one for a report that is not finite: their
surrogates were not made for losses of 1e34. Which reports are better than which changes among the worst 5 % only.
"""


class Scheduler(Protocol):
    """What a peer's runner translates."""

    def next(self) -> tuple[int, int]:
        """(trial, row of the table): a trial seen before goes on, another one begins."""

    def report(self, trial: int, step: int, loss: float) -> bool:
        """Tell a report, the first is step 1; whether the trial goes on. One that does not is paused."""


def search(table: Table, scheduler: Scheduler, where: Where) -> tuple[list[tuple[float, float]], int, int]:
    """Trace, configurations begun, and reports shown. Costs are in whole runs' worth."""
    told, length = told_losses(table), table.losses.shape[1]
    budget, spent, low, shown = RUNS * length, 0.0, math.inf, 0
    at: dict[int, list[int]] = {}  # trial -> [row, reports shown]
    trace: list[tuple[float, float]] = []
    heap: list[tuple[float, int, int]] = []
    events, free, now = 0, [0.0] * where.workers, 0.0

    def push(start: float, trial: int) -> None:
        nonlocal spent, events
        if spent + 1 <= budget:
            spent += 1
            heapq.heappush(heap, (start + 1, events, trial))
            events += 1

    def fill(here: int | None = None) -> None:
        """Hand free workers out; `here` has paused just now: going on at once it is neither saved nor read."""
        nonlocal spent
        while free and spent < budget:
            start = max(heapq.heappop(free), now)
            trial, row = scheduler.next()
            paid = where.price * ((here is not None and trial != here) + (trial in at and trial != here))
            here, spent, start = None, spent + paid, start + paid
            if at.setdefault(trial, [row, 0])[1] < length:
                push(start, trial)
            else:
                heapq.heappush(free, start)

    fill()
    while heap:
        now, _, trial = heapq.heappop(heap)
        row, done = at[trial]
        at[trial][1] = done + 1
        shown += 1
        loss = float(table.losses[row, done])
        if math.isfinite(loss) and loss < low:
            low = loss
            trace.append((spent / length, loss))
        goes_on = scheduler.report(trial, done + 1, float(told[row, done]))
        if goes_on and done + 1 < length:
            push(now, trial)
            continue
        heapq.heappush(free, now)
        fill(trial if done + 1 < length else None)
    return trace, len(at), shown


def told_losses(table: Table) -> Any:
    """(R, S) what peers are told, see `TOLD`."""
    most = float(np.quantile(table.losses[np.isfinite(table.losses)], TOLD))
    return np.where(np.isfinite(table.losses), np.minimum(table.losses, most), most)


class Space:
    """The configurations of a table, as names and values; a configuration that is none of them is the nearest one."""

    def __init__(self, table: Table) -> None:
        kinds = [int(kind) for kind in table.kinds]
        self.names = [f"{'c' if kind == 2 else 'x'}{i}" for i, kind in enumerate(kinds)]
        filled = np.where(np.isnan(table.params), np.where(table.kinds == 2, -1.0, 0.5), table.params)
        self.at, self.categorical = filled, np.array([kind == 2 for kind in kinds])
        self.words = {
            name: [str(int(v)) for v in sorted(set(filled[:, i]))]
            for i, name in enumerate(self.names)
            if self.categorical[i]
        }
        self.configs = [
            {n: str(int(v)) if n in self.words else float(v) for n, v in zip(self.names, row, strict=True)}
            for row in filled
        ]
        self._rows = {tuple(c.values()): i for i, c in reversed(list(enumerate(self.configs)))}

    def row(self, config: Mapping[str, Any]) -> int:
        """The row of a configuration."""
        key = tuple(config[name] for name in self.names)
        if key in self._rows:
            return self._rows[key]
        point = np.array([float(v) for v in key])
        apart = np.where(self.categorical, self.at != point, self.at - point)
        return int(np.argmin((apart.astype(float) ** 2).sum(1)))


def run(make: Callable[[str, Table, int], Scheduler], policies: tuple[str, ...], by: str) -> None:
    """The command line of a peer's runner."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="+", choices=policies, default=list(policies), metavar="POLICY")
    parser.add_argument("--sources", nargs="+", metavar="SOURCE")
    parser.add_argument("--tasks", type=int, help="only the first so many tasks of each source")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--price", type=int, default=0)
    parser.add_argument("--minutes", type=float, help="begin no search after so many")
    parser.add_argument("--parts", type=Path, default=PARTS)
    args = parser.parse_args()
    where, begun, among = Where(args.workers, args.price), time.monotonic(), dict[str, int]()
    members = []
    for table in tables(args.parts / "tables"):
        among[table.source] = among.get(table.source, 0) + 1
        if table.source in (args.sources or [table.source]) and among[table.source] <= (args.tasks or 999):
            members.append(table)
    todo = [(seed, name, table) for seed in range(args.seeds) for name in args.only for table in members]
    for n, (seed, name, table) in enumerate(todo, start=1):
        piece = Piece(where, name, table.source, args.parts)
        if piece.has(table.name, seed):
            continue
        if args.minutes is not None and time.monotonic() - begun > 60 * args.minutes:
            print(f"{args.minutes:g} minutes are over; the same command goes on", flush=True)
            return
        start = time.process_time()
        trace, configs, shown = search(table, make(name, table, seed), where)
        took = time.process_time() - start
        piece.add(table.name, row_of(seed, trace, configs, shown, took, by))
        left = (time.monotonic() - begun) / n * (len(todo) - n) / 60
        print(f"{where} {name} seed {seed} {table.name}: {took:.1f} s; about {left:.0f} min to go", flush=True)
