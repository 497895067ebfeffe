"""What the allocators share: which trials wait, in which order, how far a turn takes one, and what it may cost."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import chain
from typing import Any

from lcsearch.allocation.contract import FREE, Abilities, Account, Allocation, Allocator, Key, Move, Prices, Slots
from lcsearch.errors import InvalidValue, is_finite_number
from lcsearch.forecast.contract import Answers, Query
from lcsearch.study import Snapshot, Status, Trial, trained_by, uid_sort_key


class StatelessAllocator:
    """The half of an allocator that keeps no state and needs no forecasts."""

    def init(self) -> Any:
        """There is none."""
        return None

    def questions(self, state: Any, snapshot: Snapshot, slots: Slots) -> tuple[Query, ...]:
        """None."""
        return ()


class Around:
    """What an allocator that stands around another one leaves to it: all that it has no method of its own for.

    Attributes:
        allocator: the other one.
    """

    allocator: Allocator

    @property
    def name(self) -> str:
        """The allocator's."""
        return self.allocator.name

    def init(self) -> Any:
        """The allocator's."""
        return self.allocator.init()

    def questions(self, state: Any, snapshot: Snapshot, slots: Slots) -> tuple[Query, ...]:
        """The allocator's."""
        return self.allocator.questions(state, snapshot, slots)

    def allocate(
        self, state: Any, snapshot: Snapshot, forecasts: Answers, abilities: Abilities, slots: Slots, key: Key
    ) -> Allocation:
        """The allocator's."""
        return self.allocator.allocate(state, snapshot, forecasts, abilities, slots, key)


def checked_share(value: Any, where: str) -> None:
    """Hold a share of the horizon to (0, 1].

    Raises:
        InvalidValue: it is none.
    """
    if not (is_finite_number(value) and 0 < value <= 1):
        raise InvalidValue("a share of the horizon in (0, 1]", value, where)


def checked_prices(checkpoint: Any, resume: Any, where: str) -> Prices:
    """Prices as the user has stated them, in steps; `where` is who was told.

    Raises:
        InvalidValue: one is no finite number >= 0.
    """
    for name, price in (("checkpoint_cost", checkpoint), ("resume_cost", resume)):
        if not (is_finite_number(price) and price >= 0):
            raise InvalidValue("a number of steps >= 0", price, f"{where}({name}=)")
    return Prices(float(checkpoint), float(resume))


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
    """The last step of a trial, >= 0."""
    return max(trial.curve.last_step, 0.0)


def trained(trial: Trial, horizon: float) -> float:
    """Steps that a trial has trained, at most to the horizon: `range(n)` reports step 0 after the first of them."""
    first = trial.curve.first_step
    return min(max(trained_by(trial.curve.last_step, first), 0.0), horizon) if trial.curve.n_reports else 0.0


def account(snapshot: Snapshot, prices: Prices = FREE, paid: float = 0.0) -> Account:
    """What a study without a limit has spent, by its trials' reports; prices and what was paid are as given."""
    spent = math.fsum(trained(trial, snapshot.goal.horizon) for trial in chain(snapshot.bank, snapshot.live))
    return Account(None, spent, *prices, paid=paid)


def promised(turns: Iterable[tuple[float, float, float]], horizon: float, checkpoint: float, *, here: bool) -> float:
    """Steps that are as good as spent: what is left of the turns of running trials, the checkpoint of each that ends in
    a pause, and that of a trial which stands `here` at the end of its turn.

    Args:
        turns: of each running trial its last step, where its turn ends, and what a step of it costs.
    """
    return math.fsum(
        max(end - done, 0.0) * step + (checkpoint if end < horizon else 0.0) for done, end, step in turns
    ) + (checkpoint if here else 0.0)


def next_pause(done: float, quantum: float, horizon: float) -> float:
    """Where a turn of `quantum` steps ends, at most at the horizon; at the horizon, too, when floats are too coarse."""
    until = min(done + quantum, horizon)
    return until if until > done else horizon


def start_new(n: int, until: float, *, score: float = 0.0, why: str = "a new configuration") -> tuple[Move, ...]:
    """`n` new configurations, each to run to `until`."""
    return (Move(None, until, score, why),) * max(n, 0)


def affordable(moves: Iterable[Move], snapshot: Snapshot, slots: Slots) -> list[Move]:
    """The first of `moves`, one a free slot, that what is left of the budget pays for together."""
    price = Price(snapshot, slots)
    left, found = slots.account.left, list[Move]()
    for move in moves:
        cost = price.of(move)
        if len(found) < slots.free and cost <= left:
            left -= cost
            found.append(move)
    return found


class Price:
    """What moves cost, in steps, with checkpoints and resumes."""

    def __init__(self, snapshot: Snapshot, slots: Slots) -> None:
        self._horizon, self._account, self._here = snapshot.goal.horizon, slots.account, slots.here
        self._live = {trial.uid: trial for trial in snapshot.live}
        self._counts_from_0 = any(trial.curve.first_step == 0 for trial in chain(snapshot.bank, snapshot.live))

    def of(self, move: Move) -> float:
        """Steps from where the arm stands to where it pauses, and what it takes to get there and away."""
        if move.uid is None:
            done, zero = 0.0, self._counts_from_0
        else:
            trial = self._live[move.uid]
            zero = trial.curve.first_step == 0 if trial.curve.n_reports else self._counts_from_0
            done = trained(trial, self._horizon)
        checkpoint = self._account.checkpoint if move.pause_at < self._horizon else 0.0
        if move.uid is not None and move.uid == self._here:
            checkpoint -= self._account.checkpoint  # the one that it would leave with is promised already
        steps = max(min(move.pause_at + zero, self._horizon) - done, 0.0)
        return steps * self.step(move.uid) + checkpoint + self.resume(move.uid)

    def step(self, uid: str | None) -> float:
        """What a step of the arm costs: 1 where time is no limit."""
        return self._account.step(uid)

    def resume(self, uid: str | None) -> float:
        """Steps that it costs to have the arm train: none for a new one, and for one that goes on where it stands."""
        return 0.0 if uid is None or uid == self._here else self._account.resume
