"""SuccessiveHalving: a fixed set of configurations, the best of which go on from rung to rung.

Jamieson and Talwalkar 2016, "Non-stochastic Best Arm Identification and Hyperparameter Optimization".
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar

from lcsearch.allocation.arms import StatelessAllocator, runs, start_new
from lcsearch.allocation.contract import Abilities, Allocation, Key, Move, Slots, Wait
from lcsearch.allocation.rungs import Ladder, checked_rungs, reached, rungs_of, served
from lcsearch.errors import InvalidValue
from lcsearch.forecast.contract import Answers
from lcsearch.study import Snapshot, Trial, uid_sort_key


@dataclass(frozen=True)
class SuccessiveHalving(StatelessAllocator):
    """The first `n_arms` configurations all go to the first rung; when all are there, the best 1/eta of them go on to
    the next, and the others are cut; and so on to the horizon. Asks nobody.

    A rung waits for its last trial, so slots may stand free meanwhile. A trial that fails or is stopped on its way is
    not waited for. At least one goes on from every rung.

    Attributes:
        n_arms: >= 1; None: as many as may be begun, or, with a budget, as many of them as it pays for.
        first: the lowest rung, as a share of the horizon, in (0, 1].
        eta: reduction factor, >= 2.
    """

    n_arms: int | None = None
    first: float = 0.02
    eta: float = 3.0

    name: ClassVar[str] = "halving"

    def __post_init__(self) -> None:
        checked_rungs(self.first, self.eta, "SuccessiveHalving")
        if self.n_arms is not None and not (isinstance(self.n_arms, int) and self.n_arms >= 1):
            raise InvalidValue("an integer >= 1 or None", self.n_arms, "SuccessiveHalving.n_arms")

    def sizes(self, n: int, n_rungs: int) -> list[int]:
        """How many of n configurations go to each rung.

        >>> SuccessiveHalving().sizes(10, 4)
        [10, 3, 1, 1]
        """
        return [max(int(n / self.eta**k), 1) for k in range(n_rungs)]

    def cost(self, n: int, rungs: tuple[float, ...]) -> float:
        """Steps that n configurations take in all."""
        widths = (b - a for a, b in zip((0.0, *rungs), rungs, strict=False))
        return math.fsum(size * width for size, width in zip(self.sizes(n, len(rungs)), widths, strict=True))

    def allocate(
        self, state: Any, snapshot: Snapshot, forecasts: Answers, abilities: Abilities, slots: Slots, key: Key
    ) -> Allocation:
        """The set's next trials; cuts when a rung is full."""
        horizon = snapshot.goal.horizon
        if not abilities.pause:
            return Allocation(state, start_new(min(slots.free, slots.n_new_allowed), horizon))
        rungs = rungs_of(horizon, self.first, self.eta)
        begun = sorted(chain(snapshot.bank, snapshot.live), key=lambda trial: uid_sort_key(trial.uid))
        n = self._n(rungs, len(begun), slots)
        group, missing = begun[:n], max(min(n - len(begun), slots.n_new_allowed), 0)
        ladder = Ladder(snapshot, rungs, self.eta)
        moves: list[Move] = []
        cut: list[tuple[str, str]] = [(t.uid, "it is not of the set") for t in ladder.paused if t not in group]
        for k, size in enumerate(self.sizes(n, len(rungs))):
            if k:
                better = {one.uid: i for i, one in enumerate(_ranked(ladder, k - 1, group), start=1)}
                going = [trial for trial in group if better.get(trial.uid, size + 1) <= size]
                why = f"of {len(group)} at step {rungs[k - 1]:g}: the best {size} go on"
                cut += [
                    (trial.uid, f"rank {better[trial.uid]} {why}")
                    for trial in group
                    if trial.uid in ladder.standing and trial not in going
                ]
                group = going
            on_way = [trial for trial in group if not reached(trial, rungs[k])]
            moves += [Move(t.uid, rungs[k], k, self._why(rungs, k)) for t in on_way if t.uid in ladder.standing]
            if k == 0:
                moves += start_new(min(missing, slots.free), rungs[0])
            if (k == 0 and missing) or any(not trial.status.finished for trial in on_way):
                break
        chosen, stops, waits = served(
            snapshot, slots, iter(moves), lambda uid: self._waits(ladder, uid), ladder.best, cut=tuple(cut)
        )
        return Allocation(state, chosen, stops, waits)

    def _n(self, rungs: tuple[float, ...], begun: int, slots: Slots) -> int:
        """How many configurations the set has; the same while the study goes on."""
        most = begun + slots.n_new_allowed
        if self.n_arms is not None:
            return min(self.n_arms, most) if most else self.n_arms
        total, least = slots.account.total, max(begun, 1)
        if total is None or most <= least:
            return max(most, 1)
        # a larger set costs no less: the largest that `total` pays for, found by halving the interval
        return least + bisect_right(range(least + 1, most + 1), total, key=lambda n: self.cost(n, rungs))

    @staticmethod
    def _why(rungs: tuple[float, ...], k: int) -> str:
        return f"on to step {rungs[k]:g}" if k == 0 else f"of the best at step {rungs[k - 1]:g}"

    @staticmethod
    def _waits(ladder: Ladder, uid: str) -> Wait:
        found = ladder.waits(uid)
        return found._replace(needs="all others to get there" if runs(ladder.snapshot) else "a free slot")


def _ranked(ladder: Ladder, k: int, group: list[Trial]) -> Iterator[Any]:
    """The group's trials that got to rung k, best first."""
    uids = {trial.uid for trial in group}
    return (member for member in ladder.members(k) if member.uid in uids)
