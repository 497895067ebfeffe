"""RunToEnd: what is begun runs to the horizon. The world of a plain pruner, and the fallback that cannot fail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lcsearch.allocation.arms import StatelessAllocator, paused_trials, start_new
from lcsearch.allocation.contract import Abilities, Allocation, Key, Move, Slots, Wait
from lcsearch.forecast.contract import Answers
from lcsearch.study import Snapshot


@dataclass(frozen=True)
class RunToEnd(StatelessAllocator):
    """Begin new configurations in order, each to run to the horizon; it pauses nothing and asks nobody.

    PAUSED trials, which another allocator left, go on first, the oldest first, so that a study can fall back on this
    one at any moment. Nothing starves: every trial that is begun gets to the horizon without waiting for a later one.
    """

    name: ClassVar[str] = "run-to-end"

    def allocate(
        self, state: Any, snapshot: Snapshot, forecasts: Answers, abilities: Abilities, slots: Slots, key: Key
    ) -> Allocation:
        """PAUSED trials, then new configurations."""
        horizon = snapshot.goal.horizon
        paused = paused_trials(snapshot) if abilities.pause else []
        moves = tuple(Move(trial.uid, horizon, why="to the end") for trial in paused[: slots.free])
        queue = paused[slots.free :]
        waits = tuple(Wait(trial.uid, i, len(queue), "age", "a free slot") for i, trial in enumerate(queue, start=1))
        fresh = start_new(min(slots.free - len(moves), slots.n_new_allowed), horizon)
        return Allocation(state, moves + fresh, (), waits)
