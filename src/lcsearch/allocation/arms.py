"""What the allocators share: which trials wait, in which order, how far a turn takes one, and what it may cost."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import chain
from typing import Any

from lcsearch.allocation.contract import Account, Move, Slots
from lcsearch.errors import InvalidValue, is_finite_number
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


def checked_share(value: Any, where: str) -> None:
    """Hold a share of the horizon to (0, 1].

    Raises:
        InvalidValue: it is none.
    """
    if not (is_finite_number(value) and 0 < value <= 1):
        raise InvalidValue("a share of the horizon in (0, 1]", value, where)


def paused_trials(snapshot: Snapshot) -> list[Trial]:
    """PAUSED trials that have not reported the goal's horizon, in order of their uids.

    The goal's and not the snapshot's: one that has reported `range(50)` to its end may still have to return.
    """
    horizon = snapshot.goal.horizon
    paused = (trial for trial in snapshot.live if trial.status is Status.PAUSED and trial.curve.last_step < horizon)
    return sorted(paused, key=lambda trial: uid_sort_key(trial.uid))


def runs(snapshot: Snapshot) -> bool:
    """Does any trial train now?"""
    return any(trial.status is Status.RUNNING for trial in snapshot.live)


def steps_done(trial: Trial) -> float:
    """Steps behind a trial, >= 0."""
    return max(trial.curve.last_step, 0.0)


def account(snapshot: Snapshot, total: float | None = None, checkpoint: float = 0.0, resume: float = 0.0) -> Account:
    """What a study has spent, by its trials' last steps, beside what it may spend; the prices as they are given."""
    spent = math.fsum(steps_done(trial) for trial in chain(snapshot.bank, snapshot.live))
    return Account(total, spent, checkpoint, resume)


def next_pause(done: float, quantum: float, horizon: float) -> float:
    """Where a turn of `quantum` steps ends, at most at the horizon; at the horizon, too, when floats are too coarse."""
    until = min(done + quantum, horizon)
    return until if until > done else horizon


def start_new(n: int, until: float, *, score: float = 0.0, why: str = "a new configuration") -> tuple[Move, ...]:
    """`n` new configurations, each to run to `until`."""
    return (Move(None, until, score, why),) * max(n, 0)


def affordable(moves: Iterable[Move], snapshot: Snapshot, slots: Slots) -> list[Move]:
    """The first of `moves`, one a free slot, that what is left of the budget pays for together."""
    at = {trial.uid: steps_done(trial) for trial in snapshot.live}
    left, found = slots.account.left, list[Move]()
    for move in moves:
        cost = cost_of(move, at, slots.account)
        if len(found) < slots.free and cost <= left:
            left -= cost
            found.append(move)
    return found


def cost_of(move: Move, at: dict[str, float], account: Account) -> float:
    """Steps a move takes, with what it costs to go on with a paused trial; `at` is where each stands."""
    return move.pause_at if move.uid is None else move.pause_at - at[move.uid] + account.resume
