"""AsyncHyperband: ASHA in brackets, each with a lowest rung of its own.

Li et al. 2018, "Hyperband", for the brackets; Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning",
section 3.2, for running them asynchronously.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar

from lcsearch.allocation.arms import StatelessAllocator, start_new
from lcsearch.allocation.contract import Abilities, Allocation, Key, Move, Slots, Wait
from lcsearch.allocation.rungs import Ladder, checked_rungs, rungs_of, served
from lcsearch.errors import InvalidValue
from lcsearch.forecast.contract import Answers
from lcsearch.study import Snapshot, uid_sort_key


@dataclass(frozen=True)
class AsyncHyperband(StatelessAllocator):
    """A configuration belongs to a bracket; bracket b's lowest rung is the b-th, and only its own trials count there.

    So a slow starter has, in the later brackets, longer until it is compared. Brackets get about the same compute: the
    i-th trial that is begun goes to the bracket that has used least so far, when one of its trials is counted with
    rungs[b] * (1 + (number of rungs above) * (1 - 1/eta)) steps, which is what ASHA spends on it in the mean. A
    trial stays in its bracket: the state says which, for uids need not sort as the trials were begun.

    Attributes:
        first: the lowest rung of the first bracket, as a share of the horizon, in (0, 1].
        eta: reduction factor, >= 2.
        n_brackets: >= 1; None: one for each rung, the last of which runs its trials to the end.
    """

    first: float = 0.02
    eta: float = 3.0
    n_brackets: int | None = None

    name: ClassVar[str] = "hyperband"

    def __post_init__(self) -> None:
        checked_rungs(self.first, self.eta, "AsyncHyperband")
        if self.n_brackets is not None and not (isinstance(self.n_brackets, int) and self.n_brackets >= 1):
            raise InvalidValue("an integer >= 1 or None", self.n_brackets, "AsyncHyperband.n_brackets")

    def init(self) -> Any:
        """The bracket of each trial, uid -> bracket, and those of the moves whose trial has not been seen yet."""
        return {"of": {}, "coming": []}

    def brackets(self, rungs: tuple[float, ...], n: int) -> list[int]:
        """The brackets of the first n trials that are begun.

        >>> AsyncHyperband().brackets((1.0, 3.0, 9.0), 8)
        [0, 1, 2, 0, 0, 1, 0, 2]
        """
        used = [0.0] * len(self._prices(rungs))
        return [self._next(rungs, used) for _ in range(n)]

    def _next(self, rungs: tuple[float, ...], used: list[float], left: float = math.inf) -> int:
        """The bracket of the next trial, booked in `used`: of those whose first rung what is left pays for, if any."""
        prices = self._prices(rungs)
        paid = [b for b in range(len(prices)) if rungs[b] <= left] or range(len(prices))
        b = min(paid, key=lambda b: (used[b], b))
        used[b] += prices[b]
        return b

    def _prices(self, rungs: tuple[float, ...]) -> list[float]:
        n = len(rungs) if self.n_brackets is None else min(self.n_brackets, len(rungs))
        return [rungs[b] * (1 + (len(rungs) - 1 - b) * (1 - 1 / self.eta)) for b in range(n)]

    def allocate(
        self, state: Any, snapshot: Snapshot, forecasts: Answers, abilities: Abilities, slots: Slots, key: Key
    ) -> Allocation:
        """Promotions in all brackets, the furthest ones first, then trials below their first rung, then new ones."""
        horizon, n_new = snapshot.goal.horizon, min(slots.free, slots.n_new_allowed)
        if not abilities.pause:
            return Allocation(state, start_new(n_new, horizon))
        rungs = rungs_of(horizon, self.first, self.eta)
        of, coming = dict(state["of"]), list(state["coming"])
        used = [0.0] * len(self._prices(rungs))
        for bracket in (*of.values(), *coming):
            used[bracket] += self._prices(rungs)[bracket]
        seen = (trial.uid for trial in chain(snapshot.bank, snapshot.live) if trial.uid not in of)
        for uid in sorted(seen, key=uid_sort_key):
            of[uid] = coming.pop(0) if coming else self._next(rungs, used)
        brackets = [self._next(rungs, used, slots.account.left) for _ in range(n_new)]
        ladders = {
            b: Ladder(snapshot, rungs[b:], self.eta, {uid for uid, its in of.items() if its == b})
            for b in sorted(set(of.values()))
        }
        promoted = [
            move._replace(score=move.score + b, why=f"{move.why} in bracket {b}")
            for b, ladder in ladders.items()
            for move in ladder.promotable(ladder.standing)
        ]
        promoted.sort(key=lambda move: (-move.score, uid_sort_key(move.uid or "")))
        firsts = chain.from_iterable(ladder.first_steps() for ladder in ladders.values())
        fresh = [Move(None, rungs[b], why=f"a new configuration in bracket {b}") for b in brackets]
        best = [(move.score + b, move) for b, ladder in ladders.items() if (move := ladder.best) is not None]

        def waits(uid: str) -> Wait:
            found = ladders[of[uid]].waits(uid)
            return found._replace(by=f"{found.by} in bracket {of[uid]}")

        last = max(best, key=lambda one: one[0])[1] if best else None
        chosen, stops, left = served(
            snapshot,
            slots,
            chain(promoted, firsts, fresh),
            waits,
            lambda uid: ladders[of[uid]].line(uid),
            last,
        )
        coming += [rungs.index(move.pause_at) for move in chosen if move.uid is None]
        return Allocation({"of": of, "coming": coming}, chosen, stops, left)
