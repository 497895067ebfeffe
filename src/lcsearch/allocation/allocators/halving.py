"""SuccessiveHalving: a fixed set of configurations, the best of which go on from rung to rung.

Jamieson and Talwalkar 2016, "Non-stochastic Best Arm Identification and Hyperparameter Optimization".
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar

from lcsearch.allocation.arms import StatelessAllocator, runs, start_new
from lcsearch.allocation.contract import Abilities, Allocation, Key, Move, Slots, Wait
from lcsearch.allocation.rungs import Ladder, checked_rungs, reached, rungs_of, served
from lcsearch.errors import InvalidValue
from lcsearch.forecast.contract import Answers
from lcsearch.study import Snapshot, Status, uid_sort_key


@dataclass(frozen=True)
class SuccessiveHalving(StatelessAllocator):
    """The first `n_arms` configurations all go to the first rung; when all are there, the best 1/eta of them go on to
    the next, and the others are cut; and so on to the horizon. Asks nobody.

    A rung waits for its last trial, so slots may stand free meanwhile. A trial that fails or is stopped on its way is
    not waited for. At least one goes on from every rung. Where it is time that lets nothing new begin, nobody is cut
    and the set stays as large as it was: what the best leave goes to the others.

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

    def cost(self, n: int, rungs: tuple[float, ...], turn: float = 0.0) -> float:
        """Steps that n configurations take in all; `turn`: what it costs to pause a trial and to go on with it."""
        sizes = self.sizes(n, len(rungs))
        widths = (b - a for a, b in zip((0.0, *rungs), rungs, strict=False))
        return math.fsum(size * width for size, width in zip(sizes, widths, strict=True)) + turn * sum(sizes[1:])

    def init(self) -> Any:
        """How many configurations the set has, once a budget has said so."""
        return {"n": None}

    def allocate(
        self, state: Any, snapshot: Snapshot, forecasts: Answers, abilities: Abilities, slots: Slots, key: Key
    ) -> Allocation:
        """The set's next trials; cuts when a rung is full."""
        horizon = snapshot.goal.horizon
        if not abilities.pause:
            return Allocation(state, start_new(min(slots.free, slots.n_new_allowed), horizon))
        rungs = rungs_of(horizon, self.first, self.eta)
        begun = sorted(chain(snapshot.bank, snapshot.live), key=lambda trial: uid_sort_key(trial.uid))
        n = state["n"] or self._n(rungs, len(begun), slots)
        if not slots.closing:
            state = {"n": n if slots.account.total is not None else None}
        group, missing = begun[:n], max(min(n - len(begun), slots.n_new_allowed), 0)
        ladder = Ladder(snapshot, rungs, self.eta)
        moves: list[Move] = []
        inside = {trial.uid for trial in group}
        cut = [(trial.uid, "it is not of the set") for trial in ladder.paused if trial.uid not in inside]
        for k, size in enumerate(self.sizes(n, len(rungs))):
            if k:
                # one that failed or was stopped leaves its place to the next best
                able = {trial.uid for trial in group if trial.status not in (Status.FAILED, Status.STOPPED)}
                there = (member.uid for member in ladder.members(k - 1) if member.uid in able)
                better = {uid: rank for rank, uid in enumerate(there, start=1)}
                why = f"of {len(able)} at step {rungs[k - 1]:g}: the best {size} go on"
                cut += [
                    (trial.uid, f"rank {better[trial.uid]} {why}")
                    for trial in group
                    if trial.uid in ladder.standing and better.get(trial.uid, 0) > size
                ]
                group = [trial for trial in group if better.get(trial.uid, size + 1) <= size]
            on_way = [trial for trial in group if not reached(trial, rungs[k])]
            moves += [Move(t.uid, rungs[k], k, self._why(rungs, k)) for t in on_way if t.uid in ladder.standing]
            if k == 0:
                moves += start_new(min(missing, slots.free), rungs[0])
            if (k == 0 and missing) or any(not trial.status.finished for trial in on_way):
                break
        gone = () if slots.closing else tuple(cut)
        chosen, stops, waits = served(
            snapshot, slots, iter(moves), lambda uid: self._waits(ladder, uid), ladder.line, ladder.best, cut=gone
        )
        return Allocation(state, chosen, stops, waits)

    def _n(self, rungs: tuple[float, ...], begun: int, slots: Slots) -> int:
        """How many configurations the set has."""
        most = begun + slots.n_new_allowed
        if self.n_arms is not None:
            return min(self.n_arms, most) if most else self.n_arms
        total, least = slots.account.total, max(begun, 1)
        if total is None or most <= least:
            return max(most, 1)
        # a larger set costs no less: the largest that `total` pays for, found by halving the interval
        turn = slots.account.checkpoint + slots.account.resume
        return least + bisect_right(range(least + 1, most + 1), total, key=lambda n: self.cost(n, rungs, turn))

    @staticmethod
    def _why(rungs: tuple[float, ...], k: int) -> str:
        return f"on to step {rungs[k]:g}" if k == 0 else f"of the best at step {rungs[k - 1]:g}"

    @staticmethod
    def _waits(ladder: Ladder, uid: str) -> Wait:
        found = ladder.waits(uid)
        return found._replace(needs="all others to get there" if runs(ladder.snapshot) else "a free slot")
