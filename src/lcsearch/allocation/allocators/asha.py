"""AshaPromotion: asynchronous successive halving. Li et al. 2020, "A System for Massively Parallel Hyperparameter
Tuning", Algorithm 2."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar, NamedTuple

from lcsearch.allocation.arms import StatelessAllocator, paused_trials, start_new
from lcsearch.allocation.contract import Abilities, Allocation, Key, Move, Slots
from lcsearch.errors import InvalidValue, is_finite_number
from lcsearch.forecast.contract import Answers
from lcsearch.goal import Goal
from lcsearch.study import Snapshot, Status, Trial, uid_sort_key


class _Member(NamedTuple):
    """A trial in a rung; tuples sort as the rung ranks: by loss, then by uid."""

    loss: float
    place: tuple[int, str]
    uid: str


@dataclass(frozen=True)
class AshaPromotion(StatelessAllocator):
    """Promote the best of the highest rung that has one to promote, else begin a new configuration. Asks nobody.

    Rungs are the steps min_steps * eta^k below the horizon, and the horizon. A trial pauses at each. In rung k are all
    trials that got there, with the loss of their first report at or after it (the best so far where the best is
    judged); `floor(n / eta)` of its n may be promoted. The rule has no memory: that a trial was promoted is seen
    from where it stands.

    A trial outside the best 1/eta waits for its rung to grow, for ever if need be: that is the method. When no rung can
    grow any more (nothing new may be begun, nothing runs), those that wait are given up in `stops`; but where no trial
    is COMPLETE by then, the best of the highest rung goes on first, so that a small study has a result.

    Attributes:
        min_steps: the lowest rung, > 0.
        eta: reduction factor, >= 2.
    """

    min_steps: float = 1.0
    eta: float = 3.0

    name: ClassVar[str] = "asha"

    def __post_init__(self) -> None:
        if not (is_finite_number(self.min_steps) and self.min_steps > 0):
            raise InvalidValue("a finite number > 0", self.min_steps, "AshaPromotion.min_steps")
        if not (is_finite_number(self.eta) and self.eta >= 2):
            raise InvalidValue("a finite number >= 2", self.eta, "AshaPromotion.eta")

    def rungs(self, horizon: float) -> list[float]:
        """The steps at which trials pause, rising; the last one is the horizon.

        >>> AshaPromotion(min_steps=1, eta=3).rungs(50)
        [1.0, 3.0, 9.0, 27.0, 50.0]
        """
        steps, step = [], float(self.min_steps)
        while step < horizon:
            steps.append(step)
            step *= self.eta
        return [*steps, float(horizon)]

    def allocate(
        self, state: Any, snapshot: Snapshot, forecasts: Answers, abilities: Abilities, slots: Slots, key: Key
    ) -> Allocation:
        """Promotions from the highest rung down, trials that never got to the lowest one, new configurations."""
        goal = snapshot.goal
        if not abilities.pause:
            return Allocation(state, start_new(min(slots.free, slots.n_new_allowed), goal.horizon))
        rungs, paused = self.rungs(goal.horizon), paused_trials(snapshot)
        standing = {trial.uid: bisect_right(rungs, trial.curve.last_step) - 1 for trial in paused}
        moves = list(self._promotions(snapshot, rungs, standing))
        moves += [Move(uid, rungs[0], why=f"on to step {rungs[0]:g}") for uid, k in standing.items() if k < 0]
        moves += start_new(min(slots.free - len(moves), slots.n_new_allowed), rungs[0])
        if moves or slots.n_new_allowed or not paused or any(trial.status is Status.RUNNING for trial in snapshot.live):
            return Allocation(state, tuple(moves[: slots.free]))
        if snapshot.bank.n_complete:
            return Allocation(state, (), tuple((uid, "its rung is closed") for uid in standing))
        k = max(standing.values())
        best = min(_member(trial, goal, rungs[k]) for trial in paused if standing[trial.uid] == k)
        return Allocation(state, (Move(best.uid, rungs[k + 1], k + 1.0, f"best of all at step {rungs[k]:g}"),))

    def _promotions(self, snapshot: Snapshot, rungs: list[float], standing: dict[str, int]) -> Iterator[Move]:
        """Moves of trials that may be promoted, best first; `standing` is the rung a PAUSED trial stands in."""
        everyone = list(chain(snapshot.bank, snapshot.live))
        for k in reversed(range(len(rungs) - 1)):
            if k not in standing.values():
                continue
            rung = sorted(_member(trial, snapshot.goal, rungs[k]) for trial in everyone if _reached(trial, rungs[k]))
            for rank, (_, _, uid) in enumerate(rung[: int(len(rung) / self.eta)], start=1):
                if standing.get(uid) == k:
                    yield Move(uid, rungs[k + 1], k + 1.0, f"rank {rank} of {len(rung)} at step {rungs[k]:g}")


def _reached(trial: Trial, rung: float) -> bool:
    """True when the trial got to the rung; a COMPLETE one got to all of them, wherever its last report stands."""
    return trial.curve.last_step >= rung or trial.status is Status.COMPLETE


def _member(trial: Trial, goal: Goal, rung: float) -> _Member:
    """A trial that reached the rung, with its loss there; a report that is not finite ranks last."""
    steps, losses = trial.curve.standings(goal.sign, goal.judged == "best")
    loss = losses[min(bisect_left(steps, rung), len(steps) - 1)] if steps else math.inf
    return _Member(loss, uid_sort_key(trial.uid), trial.uid)
