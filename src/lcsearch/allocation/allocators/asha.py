"""AshaPromotion: asynchronous successive halving. Li et al. 2020, "A System for Massively Parallel Hyperparameter
Tuning", Algorithm 2."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar

from lcsearch.allocation.arms import StatelessAllocator, start_new
from lcsearch.allocation.contract import Abilities, Allocation, Key, Slots
from lcsearch.allocation.rungs import Ladder, checked_rungs, rungs_of, served
from lcsearch.forecast.contract import Answers
from lcsearch.study import Snapshot


@dataclass(frozen=True)
class AshaPromotion(StatelessAllocator):
    """Promote the best of the highest rung that has one to promote, else begin a new configuration. Asks nobody.

    A trial pauses at each rung; `floor(n / eta)` of the n that got there may be promoted. One outside the best 1/eta
    waits for its rung to grow, for ever if need be: that is the method. The rule has no memory. What happens when the
    budget ends or no rung can grow: :func:`lcsearch.allocation.rungs.served`.

    Attributes:
        first: the lowest rung, as a share of the horizon, in (0, 1].
        eta: reduction factor, >= 2.
    """

    first: float = 0.02
    eta: float = 3.0

    name: ClassVar[str] = "asha"

    def __post_init__(self) -> None:
        checked_rungs(self.first, self.eta, "AshaPromotion")

    def allocate(
        self, state: Any, snapshot: Snapshot, forecasts: Answers, abilities: Abilities, slots: Slots, key: Key
    ) -> Allocation:
        """Promotions from the highest rung down, trials that never got to the lowest one, new configurations."""
        horizon, n_new = snapshot.goal.horizon, min(slots.free, slots.n_new_allowed)
        if not abilities.pause:
            return Allocation(state, start_new(n_new, horizon))
        ladder = Ladder(snapshot, rungs_of(horizon, self.first, self.eta), self.eta)
        moves = chain(ladder.promotable(ladder.standing), ladder.first_steps(), start_new(n_new, ladder.rungs[0]))
        return Allocation(state, *served(snapshot, slots, moves, ladder.waits, ladder.line, ladder.best))
