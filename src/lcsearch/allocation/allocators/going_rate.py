"""GoingRateAsha: successive halving whose promotions must pay better than a new configuration does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar, NamedTuple

from lcsearch.allocation.arms import Price, start_new, steps_done
from lcsearch.allocation.contract import Abilities, Allocation, Key, Move, Slots
from lcsearch.allocation.gain import mean_gains
from lcsearch.allocation.rungs import Ladder, best_seen, checked_rungs, counted, loss_so_far, rungs_of, served
from lcsearch.errors import InvalidValue, is_finite_number
from lcsearch.forecast.contract import Answers, Query, judged_kind
from lcsearch.study import Snapshot, Trial

_CHECKS = (math.sqrt(2.0), 2.0)
"""Where a trial is asked on its way to a rung, from the second one up: times the rung below."""


class _Worth(NamedTuple):
    """Whether to go on with a trial, and why, in words."""

    goes_on: bool
    why: str


@dataclass(frozen=True)
class GoingRateAsha:
    """ASHA's promotions by value; but to go on must be *worth* it, by the forecast.

    In a search among random configurations the t-th unit of compute brings a new record with probability 1/t: records
    come at that rate. So going on with a trial must pay better than beginning another one. It is worth it when

    - the trial holds the best value of all, or
    - no forecaster says anything of it, or
    - P(it beats the best value seen, by the horizon) >= `kappa` * (steps it has to go) / (steps spent so far), with
      what a resume costs among the steps to go.

    It is asked at a promotion, and on the way from the second rung up at sqrt(2) and 2 times the rung below (13 and 18
    between 9 and 27). A trial that is not worth it is cut: it stays in the ranks and is not resumed. For the first
    `startup` of the budget this is plain ASHA, and wherever nobody forecasts or nothing new may be begun.

    Ranks are by value, so one row is forecast for each check. Measured on tasks that the network had not seen, over
    ASHA's regret (1 to 20 runs' worth of compute): .94 [.84, 1.01] while only complete trials were context of a
    forecast, 1.22 [.83, 1.80] since all begun ones are: P(beat) after a first report is too low then.

    Attributes:
        first: the lowest rung, as a share of the horizon, in (0, 1].
        eta: reduction factor, >= 2.
        kappa: how much better than the going rate, >= 0; 0 is plain ASHA.
        startup: share of the total budget that is spent first, in [0, 1]; without a budget, of 20 full trials'. It is
            one full trial's at least, for the rate is a probability.
    """

    first: float = 0.02
    eta: float = 3.0
    kappa: float = 1.0
    startup: float = 0.06

    name: ClassVar[str] = "going-rate"

    def __post_init__(self) -> None:
        checked_rungs(self.first, self.eta, "GoingRateAsha")
        if not (is_finite_number(self.kappa) and self.kappa >= 0):
            raise InvalidValue("a finite number >= 0", self.kappa, "GoingRateAsha.kappa")
        if not (is_finite_number(self.startup) and 0 <= self.startup <= 1):
            raise InvalidValue("a share in [0, 1]", self.startup, "GoingRateAsha.startup")

    def init(self) -> Any:
        """The rung to which each trial was promoted that is on its way there: uid -> step."""
        return {"to": {}}

    def questions(self, state: Any, snapshot: Snapshot, slots: Slots) -> tuple[Query, ...]:
        """The judged value of every trial that may go on; none in the startup."""
        if not self._asks(snapshot, slots):
            return ()
        kind = judged_kind(snapshot.goal)
        found = self._candidates(self._ladder(snapshot), state)
        trials = {trial.uid: trial for trial in snapshot.live}
        return tuple(Query(trials[move.uid], kind, snapshot.horizon) for move in found if move.uid is not None)

    def allocate(
        self, state: Any, snapshot: Snapshot, forecasts: Answers, abilities: Abilities, slots: Slots, key: Key
    ) -> Allocation:
        """Trials on their way that are worth it, promotions that are, trials below the first rung, new ones."""
        n_new = min(slots.free, slots.n_new_allowed)
        if not abilities.pause:
            return Allocation(state, start_new(n_new, snapshot.goal.horizon))
        ladder = self._ladder(snapshot)
        candidates = self._candidates(ladder, state)
        worth = self._worth(snapshot, slots, candidates, forecasts)
        on, cut = [], []
        for move in candidates:
            assert move.uid is not None
            said = worth[move.uid]
            if said.goes_on:
                on.append(move._replace(why=f"{move.why}; {said.why}" if said.why else move.why))
            else:
                cut.append((move.uid, said.why))
        fresh = start_new(n_new, ladder.rungs[0])
        moves, stops, waits = served(
            snapshot,
            slots,
            chain(on, ladder.first_steps(), fresh),
            ladder.waits,
            ladder.line,
            ladder.best,
            cut=tuple(cut),
        )
        return Allocation({"to": self._promoted(state, snapshot, ladder, moves)}, moves, stops, waits)

    def _ladder(self, snapshot: Snapshot) -> Ladder:
        return Ladder(snapshot, rungs_of(snapshot.goal.horizon, self.first, self.eta), self.eta)

    def _asks(self, snapshot: Snapshot, slots: Slots) -> bool:
        """Is the startup over, and may another one be begun?"""
        total = slots.account.total if slots.account.total is not None else 20 * snapshot.goal.horizon
        least = max(self.startup * total, snapshot.goal.horizon)  # before, the rate may be above 1
        return self.kappa > 0 and slots.n_new_allowed > 0 and slots.account.spent > least

    def _candidates(self, ladder: Ladder, state: Any) -> list[Move]:
        """Who may go on, each to where it is asked again: first those that were promoted already."""
        to: Mapping[str, float] = state["to"]
        standing, on_way = dict(ladder.standing), []
        for trial in ladder.paused:
            rung = to.get(trial.uid, -math.inf)
            if trial.curve.last_step < rung:
                k = standing.pop(trial.uid)
                on_way.append(Move(trial.uid, self._next(ladder, k, trial, rung), k + 2.0, f"on to step {rung:g}"))
        at = {trial.uid: trial for trial in ladder.paused}
        promoted = [
            move._replace(pause_at=self._next(ladder, standing[move.uid], at[move.uid], move.pause_at))
            for move in ladder.promotable(standing)
            if move.uid is not None
        ]
        return [*sorted(on_way, key=lambda move: -move.score), *promoted]

    def checks(self, rungs: tuple[float, ...], k: int) -> list[float]:
        """The steps at which a trial is asked again on its way from rung k on, rising."""
        return [counted(rungs[k] * factor, self.first, rungs[-1]) for factor in _CHECKS] if k >= 1 else []

    def _next(self, ladder: Ladder, k: int, trial: Trial, rung: float) -> float:
        """The next check on a trial's way from rung k to `rung`."""
        return next((step for step in self.checks(ladder.rungs, k) if steps_done(trial) < step < rung), rung)

    def _worth(self, snapshot: Snapshot, slots: Slots, candidates: list[Move], forecasts: Answers) -> dict[str, _Worth]:
        """What is said for each candidate, in their order as `questions` gave them."""
        uids = [move.uid for move in candidates if move.uid is not None]
        if not self._asks(snapshot, slots) or not forecasts:
            return dict.fromkeys(uids, _Worth(True, ""))
        trials, price = {trial.uid: trial for trial in snapshot.live}, Price(snapshot, slots)
        best = best_seen(snapshot)
        chances = mean_gains(forecasts, len(uids), best, "p_beat").tolist()
        found = {}
        for uid, p in zip(uids, chances, strict=True):
            to_go = (snapshot.goal.horizon - steps_done(trials[uid])) * price.step(uid) + price.resume(uid)
            need = self.kappa * to_go / slots.account.spent
            if loss_so_far(trials[uid], snapshot) <= best:
                found[uid] = _Worth(True, "it holds the best value")
            elif not math.isfinite(p):
                found[uid] = _Worth(True, "no forecast of it")
            else:
                said = f"P(it beats the best seen) {p:.1%}, the going rate is {need:.1%}"
                found[uid] = _Worth(p >= need, said if p >= need else f"not worth going on: {said}")
        return found

    def _promoted(self, state: Any, snapshot: Snapshot, ladder: Ladder, moves: tuple[Move, ...]) -> dict[str, float]:
        """Which trials are on their way to which rung after `moves`; those that have ended or arrived are left out."""
        to: dict[str, float] = dict(state["to"])
        for move in moves:
            if move.uid is not None and max(to.get(move.uid, 0.0), ladder.rungs[0]) < move.pause_at:
                to[move.uid] = next(rung for rung in ladder.rungs if rung >= move.pause_at)
        done = {trial.uid: steps_done(trial) for trial in snapshot.live}
        return {uid: step for uid, step in sorted(to.items()) if done.get(uid, math.inf) < step}
