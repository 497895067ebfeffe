"""RunToEnd: what is begun runs to the horizon. The world of a plain pruner, and the fallback that cannot fail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lcsearch.allocation.arms import AsksNobody, begin, waiting
from lcsearch.allocation.contract import Abilities, Allocation, Key, Move, Opinions, Slots
from lcsearch.study import Snapshot


@dataclass(frozen=True)
class RunToEnd(AsksNobody):
    """Begin new configurations in order, each to run to the horizon; it pauses nothing and asks nobody.

    PAUSED trials, which another policy left, go on first, the oldest first, so that a study can fall back on this one
    at any moment. Nothing starves: every trial that is begun gets to the horizon without waiting for a later one.
    """

    name: ClassVar[str] = "run-to-end"

    def allocate(
        self, state: Any, snapshot: Snapshot, opinions: Opinions, abilities: Abilities, slots: Slots, key: Key
    ) -> Allocation:
        """PAUSED trials, then new configurations."""
        horizon = snapshot.goal.horizon
        paused = waiting(snapshot)[: slots.free] if abilities.pause else []
        moves = tuple(Move(trial.uid, horizon, why="to the end") for trial in paused)
        return Allocation(state, moves + begin(min(slots.free - len(moves), slots.fresh), horizon))
