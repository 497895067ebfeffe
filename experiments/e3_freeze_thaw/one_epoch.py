"""One epoch each, then the best K to their end: Egele et al. 2023, "Is One Epoch All You Need For Multi-Fidelity
Hyperparameter Optimization?". Half of the budget is spent on first reports.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lcsearch.allocation.arms import StatelessAllocator, affordable, paused_trials, start_new
from lcsearch.allocation.contract import Abilities, Allocation, Key, Move, Slots
from lcsearch.allocation.rungs import loss_so_far
from lcsearch.forecast.contract import Answers
from lcsearch.study import Snapshot, uid_sort_key


@dataclass(frozen=True)
class OneEpoch(StatelessAllocator):
    """Attributes:
    first: one report, as a share of the horizon.
    share: of the total budget that goes into first reports.
    """

    first: float = 0.02
    share: float = 0.5

    name: ClassVar[str] = "one-epoch"

    def allocate(
        self, state: Any, snapshot: Snapshot, forecasts: Answers, abilities: Abilities, slots: Slots, key: Key
    ) -> Allocation:
        horizon = snapshot.goal.horizon
        first = self.first * horizon
        total = slots.account.total if slots.account.total is not None else 20 * horizon
        n_new = round(self.share * total / (first + slots.account.checkpoint)) - len(snapshot.bank) - len(snapshot.live)
        moves = list(start_new(min(slots.free, slots.n_new_allowed, n_new), first))
        if n_new <= 0 or not slots.n_new_allowed:
            ranked = sorted(paused_trials(snapshot), key=lambda t: (loss_so_far(t, snapshot), uid_sort_key(t.uid)))
            moves = [Move(trial.uid, horizon, why="the best after one report") for trial in ranked]
        return Allocation(state, tuple(affordable(moves, snapshot, slots)))
