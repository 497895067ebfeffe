"""What every allocator takes and gives: free slots in, moves out; its state is an argument and a result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

from lcsearch.forecast.contract import Answers, Query
from lcsearch.study import Snapshot

Key = tuple[int, ...]
"""Seed of one allocation, (study seed, number of the allocation): np.random.default_rng(key)."""


@dataclass(frozen=True)
class Abilities:
    """What the framework can do with a trial.

    Attributes:
        pause: checkpoint it and go on later. Without it every trial that is begun runs to its end or its stop.
    """

    pause: bool = False


class Slots(NamedTuple):
    """Where compute is free now.

    Attributes:
        free: workers without a trial, >= 1.
        n_new_allowed: configurations that may still be begun, >= 0; 0 means that there will be none.
    """

    free: int
    n_new_allowed: int


class Move(NamedTuple):
    """Give a slot to an arm.

    Attributes:
        uid: a PAUSED trial to go on with; None: begin a new configuration.
        pause_at: the step at which the arm is to be asked about again, beyond its last one and at most the goal's
            horizon: it pauses at its first report there or later, and at the horizon runs to its end.
        score: gain per unit of cost, or whatever the allocator ranked by; higher is better.
        why: in a few words, for people.
    """

    uid: str | None
    pause_at: float
    score: float = 0.0
    why: str = ""


class Allocation(NamedTuple):
    """What an allocator came to.

    Attributes:
        state: to be handed back at the next call.
        moves: at most one a free slot, no arm twice; fewer leave slots idle until the next event.
        stops: PAUSED trials that will never be moved again, with the reason in words; they may be forgotten.
    """

    state: Any
    moves: tuple[Move, ...]
    stops: tuple[tuple[str, str], ...] = ()


@runtime_checkable
class Allocator(Protocol):
    """An allocator that picks arms. Pure: the same state, snapshot, forecasts, slots and key give the same moves.

    States are plain values (numbers, text, tuples, dictionaries), so that they can be stored as JSON.
    """

    @property
    def name(self) -> str:
        """Short, stable: "uniform"."""
        ...

    def init(self) -> Any:
        """The state before the first allocation."""
        ...

    def questions(self, state: Any, snapshot: Snapshot, slots: Slots) -> tuple[Query, ...]:
        """What must be forecast for the next allocation; none for allocators that ask nobody."""
        ...

    def allocate(
        self, state: Any, snapshot: Snapshot, forecasts: Answers, abilities: Abilities, slots: Slots, key: Key
    ) -> Allocation:
        """Pick arms for the free slots among PAUSED trials of the snapshot and new configurations.

        The moves are carried out before the next call: a trial begun is `live` by then. An absent forecast is no reason
        to fail: the allocator falls back on what it knows without it. Without the ability to pause there are new
        configurations only, each to the horizon. :func:`lcsearch.allocation.judge.check` holds an allocator to all
        this.
        """
        ...
