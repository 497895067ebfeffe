"""What every allocator takes and gives: free slots in, moves out; its state is an argument and a result."""

from __future__ import annotations

import math
from collections.abc import Mapping
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


class Prices(NamedTuple):
    """What pausing costs beside training, as the user states it: no clock has a say in who goes on.

    Attributes:
        checkpoint: of pausing a trial, in steps of the goal's axis, >= 0.
        resume: of going on with a paused one, in steps, >= 0.
    """

    checkpoint: float = 0.0
    resume: float = 0.0

    def of(self, checkpoints: int, resumes: int) -> float:
        """What so many of them cost, in steps."""
        return checkpoints * self.checkpoint + resumes * self.resume


FREE = Prices()


class Time(NamedTuple):
    """What is left of a limit in time or money, and what a step of each trial takes: measured, so a receipt keeps it.

    Attributes:
        left: seconds for which one trial may still be trained, >= 0.
        usual: seconds of a step of the trial in the middle, > 0, taken of every new configuration.
        paces: uid -> seconds of a step, > 0; `usual` of trials that are not named.
    """

    left: float
    usual: float
    paces: Mapping[str, float]

    def pace(self, uid: str | None) -> float:
        """Seconds of a step of an arm; None is a new configuration."""
        return self.usual if uid is None else self.paces.get(uid, self.usual)


class Account(NamedTuple):
    """What a study may spend and has spent, in steps of the goal's axis, over all its trials.

    With `time` all of it is in steps of the usual trial: a step of one that takes twice as long counts as two.

    Attributes:
        total: what may be spent in all, > 0; None: no limit.
        spent: steps trained so far, >= 0: the study's age.
        checkpoint: price of pausing a trial, in steps, >= 0.
        resume: price of going on with a paused one, in steps, >= 0.
        promised: what the trials that run now have still to go until they pause or end, in steps, >= 0, with the
            checkpoints they will pause with, and that of one that stands `here`, see `arms.promised`.
        paid: for checkpoints and resumes so far, in steps, >= 0, beside `spent`. A trial that goes on where it stands
            pays neither; one that leaves its worker pays for its checkpoint, also where it is cut there.
        time: where seconds or money leave less than steps do; None: a step is a step.
    """

    total: float | None = None
    spent: float = 0.0
    checkpoint: float = 0.0
    resume: float = 0.0
    promised: float = 0.0
    paid: float = 0.0
    time: Time | None = None

    def step(self, uid: str | None) -> float:
        """What a step of an arm costs, > 0; None is a new configuration."""
        return 1.0 if self.time is None else self.time.pace(uid) / self.time.usual

    @property
    def left(self) -> float:
        """What may still be given away, >= 0; math.inf without a limit."""
        return math.inf if self.total is None else max(self.total - self.spent - self.paid - self.promised, 0.0)


class Slots(NamedTuple):
    """Where compute is free now, and what it costs.

    Attributes:
        free: workers without a trial, >= 1.
        n_new_allowed: configurations that may still be begun, >= 0; 0 means that there will be none.
        account: what there is to spend.
        here: the PAUSED trial whose turn is over at this moment, and whose worker is among the free ones: it goes on
            without a checkpoint and a resume. None: there is none.
        closing: new configurations are not begun for they would come too late to their end, see
            :func:`lcsearch.allocation.in_reach.in_reach`: whoever still gets there has the slots.
    """

    free: int
    n_new_allowed: int
    account: Account = Account()
    here: str | None = None
    closing: bool = False


class Resources(NamedTuple):
    """What a trial trains on.

    Attributes:
        cpus: cores, >= 0.
        gpus: devices, >= 0; a share of one is a fraction.
    """

    cpus: float
    gpus: float = 0.0


class Move(NamedTuple):
    """Give a slot to an arm.

    Attributes:
        uid: a PAUSED trial to go on with; None: begin a new configuration.
        pause_at: the step at which the arm is to be asked about again, beyond its last one and at most the goal's
            horizon: it pauses at its first report there or later, and at the horizon runs to its end.
        score: gain per unit of cost, or whatever the allocator ranked by; higher is better.
        why: in a few words, for people.
        propensity: the probability with which this slot went to this arm, in (0, 1]: 1 where nothing was drawn.
        proposal: the parameters of a new configuration, name -> value; None: the sampler's choice.
        resources: what it trains on from now; None: as before, or as the framework has it.
    """

    uid: str | None
    pause_at: float
    score: float = 0.0
    why: str = ""
    propensity: float = 1.0
    proposal: Mapping[str, Any] | None = None
    resources: Resources | None = None


class Wait(NamedTuple):
    """A PAUSED trial that got no slot, and what it waits for.

    Attributes:
        uid: the trial.
        rank: its place among those it is compared with, from 1.
        of: how many they are, itself included.
        by: what they are ranked by: "value at step 9".
        needs: what would give it a slot, in words.
    """

    uid: str
    rank: int
    of: int
    by: str
    needs: str

    def __str__(self) -> str:
        return f"waits: rank {self.rank} of {self.of} by {self.by}, needs {self.needs}"


class Allocation(NamedTuple):
    """What an allocator came to.

    Attributes:
        state: to be handed back at the next call.
        moves: at most one a free slot, no arm twice; fewer leave slots idle until the next event.
        stops: PAUSED trials that are cut, with the reason in words: they are never resumed, end as stopped, and their
            reports still count in every comparison.
        waits: the other PAUSED trials, the nearest to a slot first, but the leader before all: where there is no room
            for them all, the last ones are given up.
    """

    state: Any
    moves: tuple[Move, ...]
    stops: tuple[tuple[str, str], ...] = ()
    waits: tuple[Wait, ...] = ()


@runtime_checkable
class Allocator(Protocol):
    """An allocator that picks arms. Pure: the same state, snapshot, forecasts, slots and key give the same moves.

    States are plain values (numbers, text, lists, dictionaries), so that they can be stored as JSON.
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
        this. Where nothing runs and an arm is there that what is left pays for, at least one is moved or cut: no study
        hangs.
        """
        ...
