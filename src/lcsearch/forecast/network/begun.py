"""Who queries are compared with, of all trials that have begun, and what these say of a study's losses. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lcsearch.curves import Floats
from lcsearch.goal import Goal
from lcsearch.study import Snapshot, Status, Trial, judged_loss, robust_range

CONTEXT = 128
"""Trials that a query is compared with, at most."""
FEW = 5
"""Complete trials below which all that have begun tell what the study is like."""
_ODD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: Fibonacci hashing, Knuth, vol. 3, 6.4


def alongside(snapshot: Snapshot) -> tuple[Trial, ...]:
    """The live trials that are context as the finished ones are: all that have a finite report while some are paused,
    as in an allocated search, or fewer than `FEW` are complete (`CONTEXT` of them at most, see `_choose_live`); none
    where the finished ones say enough. Asked of what it gives it gives the same: a host is sent no other live trial."""
    live = snapshot.live
    if snapshot.bank.n_complete >= FEW and not any(t.status is Status.PAUSED and len(t.curve) for t in live):
        return ()
    some = tuple(trial for trial in live if len(trial.curve))
    if len(some) <= CONTEXT:
        return some
    room = CONTEXT - min(len(snapshot.bank), CONTEXT // 4)
    return tuple(some[i] for i in _choose_live(some, snapshot.goal, room))


def _choose_live(some: Sequence[Trial], goal: Goal, most: int) -> NDArray[np.intp]:
    """Rows of live trials that become context, in their order.

    An eighth are those that have come furthest, paused ones first and the best of as far ones: they say how curves go
    on. The two best are there to be beaten. All others are spread over the rest and say what the study is like: on half
    a (rungs of 300 begun trials, 9 tasks) Spearman of unseen and begun trials was .65 and .63 where half were the best
    ones, .68 and .66 like this; of neighbours in configuration each query would need a context of its own.
    """
    losses = _so_far(some, goal)
    runs = np.array([trial.status is not Status.PAUSED for trial in some], np.bool_)
    ends = np.array([trial.curve.last_step for trial in some])
    taken = np.zeros(losses.size, np.bool_)
    taken[np.argsort(losses, kind="stable")[:2]] = True
    taken[np.lexsort((losses, -ends, runs))[: most // 8]] = True
    return np.flatnonzero(_spread(losses, taken, most))


def _so_far(trials: Sequence[Trial], goal: Goal) -> Floats:
    return np.array([judged_loss(trial.curve, goal)[0] for trial in trials])


@dataclass(frozen=True, eq=False)
class Begun:
    """The context trials of a study, and what they say of its losses.

    Attributes:
        live: :func:`alongside`.
        trials: C, in the order of the bank, live ones behind.
        so_far: (C,) judged loss as it stands.
        complete: (C,) bool.
        best: what there is to beat: the loss of the best feasible complete trial; without one, of the two best feasible
            ones that have begun and did not fail, with their uids, for no trial has itself to beat.
        spread: robust range of the complete ones' judged losses; where these give none, of `live` and finished ones;
            where some wait, the geometric mean of both, if the latter is wider: in an allocated search only those get
            to the end that were best on the way, and lie as near to each other as no others do.
    """

    live: tuple[Trial, ...]
    trials: tuple[Trial, ...]
    so_far: Floats
    complete: NDArray[np.bool_]
    best: tuple[tuple[float, str | None], ...]
    spread: float

    @classmethod
    def of(cls, snapshot: Snapshot, live: tuple[Trial, ...]) -> Begun:
        """Choose them, from all that have begun."""
        bank, goal = snapshot.bank, snapshot.goal
        so_far, complete = bank.judged, bank.complete
        if live:
            so_far = np.concatenate([so_far, _so_far(live, goal)])
            complete = np.concatenate([complete, np.zeros(len(live), np.bool_)])
        everyone = (*bank, *live)
        rows = choose(so_far, complete)
        if bank.best_complete is not None:
            best: tuple[tuple[float, str | None], ...] = ((bank.best_complete[0], None),)
        else:
            counts = np.array([t.feasible and t.status is not Status.FAILED for t in everyone], np.bool_)
            at = np.where(counts, so_far, np.inf)
            two = np.argsort(at, kind="stable")[:2]
            best = tuple((float(at[i]), everyone[i].uid) for i in two if math.isfinite(at[i]))
        spread, widest = snapshot.robust_range, robust_range(so_far)
        if not spread:
            spread = widest
        elif widest > spread and any(trial.status is Status.PAUSED for trial in live):
            spread = math.sqrt(spread) * math.sqrt(widest)
        return cls(live, tuple(everyone[i] for i in rows), so_far[rows], complete[rows], best, spread)

    def target(self, uid: str | None = None) -> float:
        """The loss that this trial, or any, is to beat; NaN for none."""
        return next((loss for loss, other in self.best if other is None or other != uid), math.nan)


def choose(so_far: Floats, complete: NDArray[np.bool_], most: int = CONTEXT) -> NDArray[np.intp]:
    """Rows of the begun trials that become context, in their order; costs O(trials).

    All that have a finite report; where they are too many the best half (of the COMPLETE ones first), and others spread
    over the whole rest by a key of their losses alone. So it is the same set whatever the order in which trials
    finished or were first seen, and one more trial changes few of them.
    """
    rows = np.flatnonzero(np.isfinite(so_far))
    if rows.size <= most:
        return rows
    losses, done = so_far[rows], complete[rows]
    taken = np.zeros(rows.size, np.bool_)
    for some in (np.flatnonzero(done), np.flatnonzero(~done)):
        taken[_lowest(losses, some, most // 2 - int(taken.sum()))] = True
    return rows[_spread(losses, taken, most)]


def _spread(losses: Floats, taken: NDArray[np.bool_], most: int) -> NDArray[np.bool_]:
    """Take others until there are `most`, in place: by a key of their losses, whatever order they came in."""
    rest = np.flatnonzero(~taken)
    with np.errstate(over="ignore"):
        key = (losses[rest].view(np.uint64) ^ (losses[rest].view(np.uint64) >> np.uint64(29))) * _ODD
    taken[_lowest(key.astype(np.float64), None, most - int(taken.sum()), at=rest)] = True
    return taken


def _lowest(x: Floats, among: NDArray[np.intp] | None, n: int, at: NDArray[np.intp] | None = None) -> NDArray[np.intp]:
    """Indices of the n lowest of x[among] (or those that `at` gives for all of x); of equal ones the first."""
    some = x if among is None else x[among]
    index = among if at is None else at
    assert index is not None
    if some.size <= n:
        return index
    if n <= 0:
        return index[:0]
    edge = np.partition(some, n - 1)[n - 1]
    below = index[some < edge]
    return np.concatenate([below, index[some == edge][: n - below.size]])
