"""What would a policy have done on a study that was run already: saved, lost, and where two policies disagree.

The best run of the study is a fact, so whether a policy would have stopped it in one order of the trials is a fact as
well. How likely that is, is counted over random orders. Runs that somebody stopped when the study was run are censored:
their curves end early, nobody knows how they would have gone on, and none of them counts as lost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from lcsearch.data.task import Run, Task
from lcsearch.errors import InvalidValue
from lcsearch.replay.history import History, RunOutcome
from lcsearch.replay.policies import PolicySpec, Shared
from lcsearch.replay.processes import Do, Pieces
from lcsearch.replay.simulator import World, simulate_all
from lcsearch.session import Session

THRESHOLDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
ROUND = 5
"""Random orders that are searched side by side: so many at first, then so many more that there are twice as many."""
SWEPT = 10
"""Random orders in which a policy is searched at thresholds other than its own, at most: they show where the line runs,
and each of them takes as long as the policy itself."""

Progress = Callable[[int, int, int], None]
"""Told (trials ended, trials in all, random orders) of all searches up to the end of the round that is under way."""


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
        frontiers: for policies that have a threshold, the points of all THRESHOLDS and its own, rising; the others over
            the first SWEPT orders only.
    """

    task: Task
    played: tuple[tuple[PolicySpec, History], ...]
    points: tuple[Point, ...]
    frontiers: tuple[tuple[Point, ...], ...]

    def searches(self, orders: int) -> int:
        """How many it takes in so many random orders."""
        return _searches(orders, len(self.points), sum(len(line) - 1 for line in self.frontiers))

    @property
    def fewest(self) -> int:
        """Random orders of the points that have fewest: those of other thresholds than a policy's own."""
        return min(point.orders for line in (self.points, *self.frontiers) for point in line)

    @cached_property
    def best(self) -> Run | None:
        """The best of the complete runs, the earlier one of two; None when none has a finite value."""
        rows = [row for row in range(len(self.task)) if self.task.complete[row] and self.task.judged[row] < math.inf]
        row = min(rows, key=lambda row: float(self.task.judged[row]), default=None)
        return None if row is None else self.task.runs[row]


def replay(
    task: Task,
    entrants: Sequence[PolicySpec],
    *,
    orders: int = 20,
    workers: int = 1,
    progress: Progress | None = None,
    processes: int = 1,
) -> Replay:
    """Run every policy over the study, in its own order and in random ones.

    Args:
        task: the study.
        entrants: policies, no name twice.
        orders: random orders of the trials, >= 1.
        workers: trials at once.
        progress: told now and then.
        processes: that search at most, this one among them; the result is the same. Above 1 a script that calls this
            guards its first lines with `if __name__ == "__main__":`.

    Raises:
        InvalidValue: a name that occurs twice, no policy, less than one order or process.
    """
    *_, last = rounds(task, entrants, orders=orders, workers=workers, progress=progress, processes=processes)
    return last


def rounds(
    task: Task,
    entrants: Sequence[PolicySpec],
    *,
    orders: int = 20,
    workers: int = 1,
    progress: Progress | None = None,
    processes: int = 1,
) -> Generator[Replay, None, None]:
    """As :func:`replay`, and says what there is so far: after ROUND orders, twice as many, and so on.

    What is said of a number of orders does not depend on how many follow.
    """
    names = [entrant.name for entrant in entrants]
    if not names or len(set(names)) != len(names):
        raise InvalidValue("at least one policy, none twice", names, "policies")
    for name, value in (("orders", orders), ("processes", processes)):
        if value < 1:
            raise InvalidValue("a number >= 1", value, name)
    searches = _Searches.of(task, entrants, orders, workers)
    saved: dict[_Key, list[float]] = {key: [] for key in searches.searched}
    stopped, lost = dict.fromkeys(saved, 0), dict.fromkeys(saved, 0)
    with closing(Pieces(searches, math.ceil(orders / ROUND), processes)) as pieces:
        known = end = 0
        while end < orders:
            end = min(2 * end or ROUND, orders)

            def told(done: int, end: int = end) -> None:
                if progress is not None:
                    progress(done, searches.trials(end), end)

            found = pieces.up_to(math.ceil(end / ROUND), told)
            for _, scores in found[known:]:
                for key, score in scores:
                    saved[key].append(score.saved)
                    stopped[key] += score.stopped
                    lost[key] += score.lost
            known = len(found)
            points = {key: Point(*key, tuple(saved[key]), stopped[key], lost[key]) for key in saved}
            frontiers = tuple(tuple(points[key] for key in line) for line in searches.lines)
            played = tuple(zip(entrants, found[0][0], strict=True))
            yield Replay(task, played, tuple(points[key] for key in searches.own), frontiers)


_Key = tuple[str, float | None]


class _Score(NamedTuple):
    """One policy in one order, see :class:`Point`."""

    saved: float
    stopped: bool
    lost: bool


_Found = tuple[tuple[History, ...], tuple[tuple[_Key, _Score], ...]]
"""Of a piece: every policy in the order the study ran, of the first piece only; policies in random orders."""


@dataclass(frozen=True)
class _Searches:
    """The searches of a replay, in pieces of ROUND random orders that are searched side by side.

    Attributes:
        task: the study.
        entrants: the policies.
        searched: policies by their name and threshold.
        own: keys of the policies as they were set.
        lines: keys of each policy that has a threshold, rising.
        orders: random orders in all.
        workers: trials at once.
    """

    task: Task
    entrants: tuple[PolicySpec, ...]
    searched: dict[_Key, PolicySpec]
    own: tuple[_Key, ...]
    lines: tuple[tuple[_Key, ...], ...]
    orders: int
    workers: int

    @classmethod
    def of(cls, task: Task, entrants: Sequence[PolicySpec], orders: int, workers: int) -> _Searches:
        """Every policy as it is set, those that have a threshold at all THRESHOLDS, too."""
        searched = {(entrant.name, _threshold(entrant)): entrant for entrant in entrants}
        own, lines = tuple(searched), []
        for entrant in entrants:
            if entrant.policy is None or entrant.kind == "oracle":
                continue
            lines.append(tuple((entrant.name, t) for t in sorted({*THRESHOLDS, entrant.policy.threshold})))
            searched |= {(n, t): entrant.at(t) for n, t in lines[-1] if (n, t) not in searched}
        return cls(task, tuple(entrants), searched, own, tuple(lines), orders, workers)

    def trials(self, orders: int) -> int:
        """Of all searches in so many random orders."""
        searches = _searches(orders, len(self.own), len(self.searched) - len(self.own))
        return len(self.task) * (searches + (len(self.entrants) if orders else 0))

    def among(self, seed: int) -> list[_Key]:
        """Keys of what is searched in a random order."""
        return [key for key in self.searched if seed < SWEPT or key in self.own]

    def begin(self, beside: bool) -> Do[_Found]:
        """See :class:`~lcsearch.replay.processes.Work`."""
        shared = Shared()

        def piece(number: int, told: Callable[[int], None]) -> _Found:
            shared.forget()  # batches, and so the last bits of a forecast, do not depend on the pieces before
            first = number * ROUND
            seeds = range(first, min(first + ROUND, self.orders))
            played = [] if number else list(self.entrants)
            wanted = [(entrant, list(range(len(self.task)))) for entrant in played]
            keys = [(seed, key) for seed in seeds for key in self.among(seed)]
            wanted += [(self.searched[key], self.task.order(seed)) for seed, key in keys]
            made = [(order, entrant.make(self.task, shared)) for entrant, order in wanted]
            histories = simulate_all(self.task, made, World(workers=self.workers), told)
            if beside and any(isinstance(one, Session) and one.tally()[1] for _, one in made):
                raise RuntimeError("a forecast failed: the first process makes it, or says why it fails there, too")
            scores = map(_score, histories[len(played) :])
            return tuple(histories[: len(played)]), tuple(zip((key for _, key in keys), scores, strict=True))

        return piece


def _searches(orders: int, own: int, others: int) -> int:
    """Searches in so many random orders, of so many policies as they are set and at so many other thresholds."""
    return orders * own + min(orders, SWEPT) * others


def _score(history: History) -> _Score:
    saved = 1.0 - history.spent / history.full_cost if history.full_cost else 0.0
    return _Score(saved, bool(history.lost()), history.missed())


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
