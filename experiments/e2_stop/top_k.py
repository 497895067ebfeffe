"""One epoch each, then the best K to their end: Egele et al. 2023, "Is One Epoch All You Need For Multi-Fidelity
Hyperparameter Optimization?". The one rule of E2 that resumes: the K go on where they stand, at no cost.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lcsearch.data.task import Task
from lcsearch.replay.score import Trace, scale_of


@dataclass(frozen=True)
class TopK:
    """Attributes:
    k: runs that are trained to their end, >= 1.
    """

    k: int

    def kept(self, task: Task, rows: Sequence[int]) -> list[int]:
        """The best K of these runs by their first report, the best first; equal ones in the order of `rows`."""
        return sorted(rows, key=lambda row: _first(task, row))[: self.k]

    def spent(self, task: Task, rows: Sequence[int]) -> float:
        """What that costs, in the task's unit."""
        kept = {*self.kept(task, rows)}
        return sum(task.runs[row].cost if row in kept else float(task.runs[row].clock[0]) for row in rows)

    def lost(self, task: Task, rows: Sequence[int], top: int) -> int:
        """How many of the `top` best ended after one report, before they had their judged value."""
        known = sorted((row for row in rows if task.complete[row]), key=lambda row: float(task.judged[row]))
        kept = {*self.kept(task, rows)}
        return sum(row not in kept and bool(task.judged[row] < self._shown(task, row)) for row in known[:top])

    def wrong(self, task: Task, rows: Sequence[int]) -> int:
        """How many of those that ended after one report would have beaten the best of those that went on."""
        kept = {*self.kept(task, rows)}
        best = min((float(task.judged[row]) for row in kept if task.complete[row]), default=-math.inf)
        left = (row for row in rows if row not in kept and task.complete[row])
        return sum(bool(task.judged[row] < min(best, self._shown(task, row))) for row in left)

    def trace(self, task: Task, rows: Sequence[int], budget: float) -> Trace:
        """(cost, regret) at every improvement of a search that begins as many runs as leave the K their whole length.

        Args:
            task: the runs.
            rows: in the order in which they are begun.
            budget: that may be spent, in the task's unit; costs are in that unit.
        """
        begun: list[int] = []
        ranked: list[tuple[float, int, float]] = []  # first loss, place, cost of all that follows
        firsts = 0.0
        for row in rows:
            first = float(task.runs[row].clock[0])
            firsts += first
            insort(ranked, (_first(task, row), len(begun), task.runs[row].cost - first))
            if firsts + sum(rest for _, _, rest in ranked[: self.k]) > budget * (1 + 1e-12):
                break
            begun.append(row)
        shown = [(row, 0) for row in begun]
        shown += [(row, at) for row in self.kept(task, begun) for at in range(1, len(task.runs[row].steps))]
        best, scale, cost, low = float(task.judged[task.complete].min()), scale_of(task), 0.0, math.inf
        found: list[tuple[float, float]] = []
        for row, at in shown:
            run = task.runs[row]
            cost += float(run.clock[at]) - (float(run.clock[at - 1]) if at else 0.0)
            if task.goal.judged == "best":
                loss = task.goal.sign * float(run.values[at])
            else:
                loss = float(task.judged[row]) if at == len(run.steps) - 1 and task.complete[row] else math.inf
            if math.isfinite(loss) and loss < low:
                low = loss
                found.append((cost, max(loss - best, 0.0) / scale))
        return found

    def row(self, task: Task, order: Sequence[int], trials: int, runs: int) -> dict[str, Any]:
        """What E2 keeps of one order: the first `trials` of it, and a search with the budget of so many whole runs."""
        rows, unit = order[:trials], task.runs[order[0]].cost
        return {
            "trace": [(round(c / unit, 6), round(r, 9)) for c, r in self.trace(task, order, runs * unit)],
            "spent": self.spent(task, rows) / sum(task.runs[row].cost for row in rows),
            "lost_1": self.lost(task, rows, 1),
            "lost_5": self.lost(task, rows, 5),
            "stops": len(rows) - min(self.k, len(rows)),
            "wrong": self.wrong(task, rows),
            "looks": len(rows),
        }

    def _shown(self, task: Task, row: int) -> float:
        """Judged loss of the first report alone; +inf where the final value is judged."""
        return _first(task, row) if task.goal.judged == "best" else math.inf


def _first(task: Task, row: int) -> float:
    """Loss of the first report; +inf for one that is no number."""
    loss = task.goal.sign * float(task.runs[row].values[0])
    return loss if math.isfinite(loss) else math.inf
