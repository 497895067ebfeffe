"""FollowTheForecast: a rule that follows forecasts, on a leash, and ASHA where the leash ends.

After paging with predictions (Antoniadis et al. 2023, "Paging with Succinct Predictions"): follow the advice while what
it has cost is small beside what the rule without advice does, else that rule.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar

from lcsearch.allocation.allocators.asha import AshaPromotion
from lcsearch.allocation.allocators.mfpi import RandomHorizonPi
from lcsearch.allocation.allocators.pandora import PandoraIndex
from lcsearch.allocation.allocators.top_two import TopTwoThompson
from lcsearch.allocation.allocators.uncertain import FundTheUncertain
from lcsearch.allocation.arms import Price
from lcsearch.allocation.contract import Abilities, Allocation, Key, Move, Slots
from lcsearch.allocation.curriculum import Curriculum
from lcsearch.allocation.rungs import Ladder, loss_so_far
from lcsearch.errors import InvalidValue, is_finite_number
from lcsearch.forecast.contract import Answers, Query
from lcsearch.study import Snapshot, Status, Trial

RULES: dict[str, type[Curriculum]] = {
    rule.name: rule for rule in (PandoraIndex, RandomHorizonPi, TopTwoThompson, FundTheUncertain)
}
"""Name -> what may be followed."""


@dataclass(frozen=True)
class FollowTheForecast:
    """`rule`'s moves, as long as those that did not pay cost no more than `excess` of all other compute; else ASHA's.

    A move that ASHA would not make is a *departure*: a trial outside the best 1 / `eta` of its rung, or a new
    configuration before one that ASHA would promote. Its cost stands against the rule; that of a trial is taken off
    again when it comes back from that turn among the best 1 / `eta` of the rung it got to, or with the best value: then
    ranks by value say that it was right. So whatever is forecast, at least 1 / (1 + `excess`) of the compute, but for
    the turns under way, goes where ASHA has it: with `excess` 1/4, what ASHA does with 80 % of the budget. That bounds
    compute, not regret; experiments/e3_freeze_thaw has the regret under flipped forecasts.

    Attributes:
        first: the lowest rung, as a share of the horizon, in (0, 1].
        eta: reduction factor, >= 2.
        excess: see above, >= 0; 0 is ASHA.
        rule: who is followed: "pandora", "mfpi", "top-two" or "uncertain".
        n_asked: trials that are forecast at most for one allocation, >= 1.
    """

    first: float = 0.02
    eta: float = 3.0
    excess: float = 0.25
    rule: str = "pandora"
    n_asked: int = 16

    name: ClassVar[str] = "robust"

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise InvalidValue(f"one of {', '.join(RULES)}", self.rule, "FollowTheForecast.rule")
        if not (is_finite_number(self.excess) and self.excess >= 0):
            raise InvalidValue("a finite number >= 0", self.excess, "FollowTheForecast.excess")
        RULES[self.rule](self.first, self.eta, n_asked=self.n_asked)

    @property
    def _follows(self) -> Curriculum:
        return RULES[self.rule](self.first, self.eta, n_asked=self.n_asked)

    def init(self) -> Any:
        """The rule's; departures under way, uid -> cost; and what those cost that did not pay, in steps."""
        return {"rule": self._follows.init(), "open": {}, "lost": 0.0}

    def questions(self, state: Any, snapshot: Snapshot, slots: Slots) -> tuple[Query, ...]:
        """The rule's."""
        return self._follows.questions(state["rule"], snapshot, slots) if self.excess else ()

    def allocate(
        self, state: Any, snapshot: Snapshot, forecasts: Answers, abilities: Abilities, slots: Slots, key: Key
    ) -> Allocation:
        """The rule's moves while the leash holds them, else ASHA's."""
        asha = AshaPromotion(self.first, self.eta).allocate(None, snapshot, {}, abilities, slots, key)
        if not abilities.pause or not self.excess:
            return asha._replace(state=state)
        ladder, price = self._follows.ladder(snapshot), Price(snapshot, slots)
        state = self._settled(state, ladder)
        made = self._follows.allocate(state["rule"], snapshot, forecasts, abilities, slots, key)
        left = Counter(move.uid for move in asha.moves)
        left.update(move.uid for move in ladder.promotable(ladder.standing) if not left[move.uid])
        departs: list[Move] = []
        for move in made.moves:
            left[move.uid] -= 1
            if left[move.uid] < 0:
                departs.append(move)
        against = state["lost"] + math.fsum(state["open"].values())
        costs = {move.uid: price.of(move) for move in departs if move.uid is not None}
        lost = math.fsum(price.of(move) for move in departs if move.uid is None)
        after = against + lost + math.fsum(costs.values())
        if departs and after > self.excess * max(slots.account.spent - against, 0.0):
            why = f"; the forecast's rule has {against:g} of {slots.account.spent:g} steps against it"
            moves = tuple(move._replace(why=move.why + why) for move in asha.moves)
            return asha._replace(state={**state, "rule": made.state}, moves=moves)
        open_now = {**state["open"], **costs}
        return made._replace(state={"rule": made.state, "open": open_now, "lost": state["lost"] + lost})

    def _settled(self, state: Any, ladder: Ladder) -> dict[str, Any]:
        """The state with the departures that are over: taken off where they have paid, else lost."""
        snapshot, still, lost = ladder.snapshot, dict[str, float](), [state["lost"]]
        trials = {trial.uid: trial for trial in chain(snapshot.bank, snapshot.live)}
        best = ladder.losses[0] if ladder.losses.size else math.inf
        for uid, cost in state["open"].items():
            trial = trials.get(uid)
            if trial is not None and trial.status is Status.RUNNING:
                still[uid] = cost
            elif trial is None or not self._paid(trial, ladder, best):
                lost.append(cost)
        return {**state, "open": still, "lost": math.fsum(lost)}

    def _paid(self, trial: Trial, ladder: Ladder, best: float) -> bool:
        if trial.status in (Status.FAILED, Status.STOPPED):
            return False
        k = bisect_right(ladder.rungs, trial.curve.last_step) - 1
        members = ladder.members(max(k, 0))
        first = members[: int(len(members) / self.eta)]
        return loss_so_far(trial, ladder.snapshot) <= best or trial.uid in {one.uid for one in first}
