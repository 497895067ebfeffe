"""What would a policy have done on a study that was run already: saved, lost, and where two policies disagree.

The best run of the study is a fact, so whether a policy would have stopped it in one order of the trials is a fact as
well. How likely that is, is counted over random orders. Runs that somebody stopped when the study was run are censored:
their curves end early, nobody knows how they would have gone on, and none of them counts as lost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lcsearch.data.task import Run, Task
from lcsearch.errors import InvalidValue
from lcsearch.replay.history import History, RunOutcome
from lcsearch.replay.policies import PolicySpec, Shared
from lcsearch.replay.simulator import World, simulate_all

THRESHOLDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
ROUND = 5
"""Random orders that are searched side by side at first; then so many more that there are twice as many."""

Progress = Callable[[int, int, int, int], None]
"""Told (trials ended, trials in all, random orders before, and after) of the orders that are searched now."""


@dataclass(frozen=True)
class Point:
    """One policy over all orders.

    Attributes:
        name: the policy.
        threshold: of a policy that has one.
        saved: share of the study's cost saved, one an order.
        stopped: orders in which the study's best run was stopped before its best value, :meth:`History.lost`.
        lost: those of them in which nothing as good was found, :meth:`History.missed`.
    """

    name: str
    threshold: float | None
    saved: tuple[float, ...]
    stopped: int
    lost: int

    @property
    def orders(self) -> int:
        """How many."""
        return len(self.saved)


@dataclass(frozen=True)
class Replay:
    """A study replayed.

    Attributes:
        task: its runs.
        played: each policy with the search in the order the study ran.
        points: each policy over random orders, its threshold as it was set.
        frontiers: for policies that have a threshold, the points of all THRESHOLDS and its own, rising.
    """

    task: Task
    played: tuple[tuple[PolicySpec, History], ...]
    points: tuple[Point, ...]
    frontiers: tuple[tuple[Point, ...], ...]

    @cached_property
    def best(self) -> Run | None:
        """The best of the complete runs, the earlier one of two; None when none has a finite value."""
        rows = [row for row in range(len(self.task)) if self.task.complete[row] and self.task.judged[row] < math.inf]
        row = min(rows, key=lambda row: float(self.task.judged[row]), default=None)
        return None if row is None else self.task.runs[row]


def replay(
    task: Task, entrants: Sequence[PolicySpec], *, orders: int = 20, workers: int = 1, progress: Progress | None = None
) -> Replay:
    """Run every policy over the study, in its own order and in random ones.

    Args:
        task: the study.
        entrants: policies, no name twice.
        orders: random orders of the trials, >= 1.
        workers: trials at once.
        progress: told now and then.

    Raises:
        InvalidValue: a name that occurs twice, no policy, or less than one order.
    """
    *_, last = rounds(task, entrants, orders=orders, workers=workers, progress=progress)
    return last


def rounds(
    task: Task, entrants: Sequence[PolicySpec], *, orders: int = 20, workers: int = 1, progress: Progress | None = None
) -> Iterator[Replay]:
    """As :func:`replay`, and says what there is so far: after ROUND orders, twice as many, and so on.

    What is said of a number of orders does not depend on how many follow.
    """
    names = [entrant.name for entrant in entrants]
    if not names or len(set(names)) != len(names):
        raise InvalidValue("at least one policy, none twice", names, "policies")
    if orders < 1:
        raise InvalidValue("a number >= 1", orders, "orders")
    own = {(entrant.name, _threshold(entrant)): entrant for entrant in entrants}
    lines = [
        [(entrant.name, threshold) for threshold in sorted({*THRESHOLDS, entrant.policy.threshold})]
        for entrant in entrants
        if entrant.policy is not None and entrant.kind != "oracle"
    ]
    by_name = {entrant.name: entrant for entrant in entrants}
    searched = own | {(n, t): by_name[n].at(t) for line in lines for n, t in line if (n, t) not in own}
    saved: dict[tuple[str, float | None], list[float]] = {key: [] for key in searched}
    stopped, lost = dict.fromkeys(searched, 0), dict.fromkeys(searched, 0)
    played: tuple[tuple[PolicySpec, History], ...] = ()
    shared = Shared()
    end = 0
    while end < orders:
        begin, end = end, min(2 * end or ROUND, orders)
        wanted = [] if played else [(entrant, list(range(len(task)))) for entrant in entrants]
        wanted += [(entrant, task.order(seed)) for seed in range(begin, end) for entrant in searched.values()]

        def told(done: int, total: int = len(wanted) * len(task), begin: int = begin, end: int = end) -> None:
            if progress is not None:
                progress(done, total, begin, end)

        searches = [(order, entrant.make(task, shared)) for entrant, order in wanted]
        histories = simulate_all(task, searches, World(workers=workers), told)
        if not played:
            played, histories = tuple(zip(entrants, histories, strict=False)), histories[len(entrants) :]
        for i, history in enumerate(histories):
            key = list(searched)[i % len(searched)]
            saved[key].append(1.0 - history.spent / history.full_cost if history.full_cost else 0.0)
            stopped[key] += bool(history.lost())
            lost[key] += history.missed()
        points = {key: Point(*key, tuple(saved[key]), stopped[key], lost[key]) for key in searched}
        frontiers = tuple(tuple(points[key] for key in line) for line in lines)
        yield Replay(task, played, tuple(points[key] for key in own), frontiers)


def _threshold(entrant: PolicySpec) -> float | None:
    return None if entrant.policy is None else entrant.policy.threshold


@dataclass(frozen=True)
class Difference:
    """A trial that two policies stop at different steps, or only one of them.

    Attributes:
        uid: the trial.
        lives: what became of it under one and the other.
        rank: see :func:`ranks`; None for one that was stopped, failed, or never reported a finite value.
    """

    uid: str
    lives: tuple[RunOutcome, RunOutcome]
    rank: int | None

    @property
    def alone(self) -> bool:
        """One policy alone stops it."""
        return (self.lives[0].stop is None) is not (self.lives[1].stop is None)


def ranks(task: Task) -> dict[int, int]:
    """Row of a complete run with a finite value -> its place, 1 is best; of equal ones the earlier comes first."""
    rows = np.argsort(task.judged, kind="stable").tolist()
    return {
        row: rank for rank, row in enumerate((r for r in rows if task.complete[r] and task.judged[r] < math.inf), 1)
    }


def differences(one: History, other: History) -> list[Difference]:
    """Trials with a known end first; of these and of the others, those stopped by one policy alone; best ones first."""
    places = ranks(one.task)
    lives = {life.uid: life for life in other.lives}
    found = [
        Difference(life.uid, (life, twin), places.get(life.row))
        for life in one.lives
        if (twin := lives.get(life.uid)) is not None and (life.status, life.shown) != (twin.status, twin.shown)
    ]
    return sorted(found, key=lambda d: (d.rank is None, not d.alone, d.rank or 0))
