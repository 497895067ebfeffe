"""Bounded: any allocator within bounds: how short and how long a turn may be, and how many trials may wait."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from lcsearch.allocation.arms import Around, affordable, next_pause, steps_done
from lcsearch.allocation.contract import Abilities, Allocation, Allocator, Key, Slots
from lcsearch.errors import InvalidValue, is_finite_number
from lcsearch.forecast.contract import Answers
from lcsearch.study import Snapshot, Status, Trial, uid_sort_key


@dataclass(frozen=True)
class Bounded(Around):
    """What `allocator` wants, but no turn shorter than `min_slice`, while the budget pays for it, none longer than
    `max_slice`, and no more than `max_paused` trials that wait.

    With `max_slice` a trial is preempted: it is asked about again on the way to where its turn would end, and where the
    allocator has a better arm for the slot by then it waits there. Who is still the best goes on where it stands.

    Where more would wait once the moves are made, the allocator's lowest ranks are cut; trials that it has no rank for
    are ranked by their best value, behind those that it has.

    Attributes:
        allocator: who is held to that.
        max_paused: trials, >= 1; None: any number.
        min_slice: steps, >= 0; the horizon ends a turn all the same.
        max_slice: steps, > 0 and no less than `min_slice`; None: as long as the allocator has it.
    """

    allocator: Allocator
    max_paused: int | None = None
    min_slice: float = 0.0
    max_slice: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.allocator, Allocator):
            raise InvalidValue("an Allocator", self.allocator, "Bounded.allocator")
        if not (self.max_paused is None or (isinstance(self.max_paused, int) and self.max_paused >= 1)):
            raise InvalidValue("an integer >= 1 or None", self.max_paused, "max_paused")
        if not (is_finite_number(self.min_slice) and self.min_slice >= 0):
            raise InvalidValue("a finite number of steps >= 0", self.min_slice, "min_slice")
        least = self.min_slice
        if not (
            self.max_slice is None or (is_finite_number(self.max_slice) and self.max_slice >= least and self.max_slice)
        ):
            expected = f"a finite number of steps {f'>= min_slice={least:g}' if least else '> 0'}, or None"
            raise InvalidValue(expected, self.max_slice, "max_slice")

    def allocate(
        self, state: Any, snapshot: Snapshot, forecasts: Answers, abilities: Abilities, slots: Slots, key: Key
    ) -> Allocation:
        """The allocator's moves, each as long as it may be; its cuts, and those that the bound makes."""
        made = super().allocate(state, snapshot, forecasts, abilities, slots, key)
        done, horizon = {trial.uid: steps_done(trial) for trial in snapshot.live}, snapshot.goal.horizon
        begins = [done.get(move.uid or "", 0.0) for move in made.moves]
        moves = tuple(
            move._replace(pause_at=min(max(move.pause_at, at + self.min_slice), horizon))
            for move, at in zip(made.moves, begins, strict=True)
        )
        if len(affordable(moves, snapshot, slots)) < len(moves):
            moves = made.moves  # what is left pays for shorter turns only
        if abilities.pause and self.max_slice is not None:
            # who is sent to the end by what is left of a budget is not halted: others would spend it meanwhile
            whole = slots.account.total is not None
            ends = (next_pause(at, self.max_slice, horizon) for at in begins)
            moves = tuple(
                m if whole and m.pause_at >= horizon else m._replace(pause_at=min(m.pause_at, end))
                for m, end in zip(moves, ends, strict=True)
            )
        stops = made.stops + self._beyond(made, snapshot)
        cut = {uid for uid, _ in stops}
        return made._replace(moves=moves, stops=stops, waits=tuple(wait for wait in made.waits if wait.uid not in cut))

    def _beyond(self, made: Allocation, snapshot: Snapshot) -> tuple[tuple[str, str], ...]:
        """The trials too many, the lowest rank last, with the reason."""
        if self.max_paused is None:
            return ()
        gone = {move.uid for move in made.moves} | {uid for uid, _ in made.stops}
        waiting = [t for t in snapshot.live if t.status is Status.PAUSED and t.uid not in gone]
        places, sign = {wait.uid: at for at, wait in enumerate(made.waits)}, snapshot.goal.sign

        def place(trial: Trial) -> tuple[float, float, tuple[int, str]]:
            best = trial.curve.at(trial.curve.last_step, sign, best=True)
            return places.get(trial.uid, math.inf), best, uid_sort_key(trial.uid)

        n = len(waiting)
        why = f"{n} trials would wait, {self.max_paused} may (max_paused), and its rank is the lowest"
        return tuple((trial.uid, why) for trial in sorted(waiting, key=place)[self.max_paused :])
