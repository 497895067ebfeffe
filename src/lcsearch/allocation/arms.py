"""What the allocators share: which trials wait, in which order, and how far a turn takes one."""

from __future__ import annotations

from typing import Any

from lcsearch.allocation.contract import Move, Slots
from lcsearch.forecast.contract import Query
from lcsearch.study import Snapshot, Status, Trial, uid_sort_key


class StatelessAllocator:
    """The half of an allocator that keeps no state and needs no forecasts."""

    def init(self) -> Any:
        """There is none."""
        return None

    def questions(self, state: Any, snapshot: Snapshot, slots: Slots) -> tuple[Query, ...]:
        """None."""
        return ()


def paused_trials(snapshot: Snapshot) -> list[Trial]:
    """PAUSED trials that have not reported the goal's horizon, in order of their uids.

    The goal's and not the snapshot's: one that has reported `range(50)` to its end may still have to return.
    """
    horizon = snapshot.goal.horizon
    paused = (trial for trial in snapshot.live if trial.status is Status.PAUSED and trial.curve.last_step < horizon)
    return sorted(paused, key=lambda trial: uid_sort_key(trial.uid))


def steps_done(trial: Trial) -> float:
    """Steps behind a trial, >= 0."""
    return max(trial.curve.last_step, 0.0)


def next_pause(done: float, quantum: float, horizon: float) -> float:
    """Where a turn of `quantum` steps ends, at most at the horizon; at the horizon, too, when floats are too coarse."""
    until = min(done + quantum, horizon)
    return until if until > done else horizon


def start_new(n: int, until: float, *, score: float = 0.0, why: str = "a new configuration") -> tuple[Move, ...]:
    """`n` new configurations, each to run to `until`."""
    return (Move(None, until, score, why),) * max(n, 0)
