"""GreedyGain: the next unit of compute goes where the forecast promises most per step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, get_args

import numpy as np

from lcsearch.allocation.arms import Price, checked_share, next_pause, paused_trials, start_new, steps_done
from lcsearch.allocation.contract import Abilities, Allocation, Key, Move, Slots, Wait
from lcsearch.allocation.gain import Gain, gains, mean_gains, new_config_forecast
from lcsearch.errors import InvalidValue, is_finite_number
from lcsearch.forecast.contract import Answers, Query, judged_kind
from lcsearch.stopping.rules import has_diverged
from lcsearch.study import Snapshot, Trial, uid_sort_key


class _Arm(NamedTuple):
    """An arm and what it is ranked by.

    Attributes:
        uid: None for a new configuration.
        score: gain per step.
        known: False without a forecast.
        remaining: steps to the horizon.
        until: where its turn would end.
        why: in words.
    """

    uid: str | None
    score: float
    known: bool
    remaining: float
    until: float
    why: str

    @property
    def rank(self) -> tuple[float, bool, bool, float, tuple[int, str]]:
        """Sorts best first; among equals those without a forecast, then the nearest to the horizon, new ones last."""
        return -self.score, self.known, self.uid is None, self.remaining, uid_sort_key(self.uid or "")


@dataclass(frozen=True)
class GreedyGain:
    """Rank every paused trial and 'a new configuration' by gain per step still to go, and move the first ones.

    What it costs to resume a trial counts among its steps, but for the one that is asked about where it stands.

    - gain "improvement": E[(incumbent - Y_H)^+] / (steps to the horizon), Y_H the judged loss at the horizon.
    - gain "p_beat": P(Y_H beats the incumbent) / (steps to the horizon): what an arm that pays 1 when it beats the
      incumbent pays per step, on average. P(beat) after a block of steps minus before it (MRT's reward) sums to that
      outcome less the first P; of a calibrated forecast it is 0 on average, so it can be booked but not ranked by.
    - With several forecasters, the mean over those that answered.
    - A new configuration: the same gain of :func:`~lcsearch.allocation.gain.new_config_forecast` over the whole
      horizon.
    - An arm nobody has a forecast of ranks level with the best known one and before it: it goes on, as under a plain
      pruner. With a dead model this is :class:`~lcsearch.allocation.allocators.run_to_end.RunToEnd`, a quantum at a
      time.
    - An arm whose last `divergence_reports` are all non-finite, where COMPLETE trials have values, gains 0.
    - An arm that cannot reach the horizon within what is left of the budget gains 0.

    Until `n_startup_trials` are COMPLETE with a finite value nobody is asked and every arm is without a forecast.

    An arm of small gain may wait for ever when `explore` is 0; else each slot is given at random with probability
    `explore`, to every arm alike, so every arm is moved at last. With a budget that probability falls with what is
    left of it, to 0 at its end.

    Attributes:
        quantum: a turn, as a share of the horizon, in (0, 1].
        gain: see above.
        n_startup_trials: >= 2: what a new one may gain is read from the differences of finished ones.
        explore: share of slots given at random, in [0, 1]; 'a new configuration' is one arm.
        divergence_reports: see above, >= 1.
    """

    quantum: float = 0.1
    gain: Gain = "improvement"
    n_startup_trials: int = 2
    explore: float = 0.0
    divergence_reports: int = 3

    name: ClassVar[str] = "greedy"

    def __post_init__(self) -> None:
        checked_share(self.quantum, "GreedyGain.quantum")
        if self.gain not in get_args(Gain):
            raise InvalidValue("'improvement' or 'p_beat'", self.gain, "GreedyGain.gain")
        if not (is_finite_number(self.n_startup_trials) and self.n_startup_trials >= 2):
            raise InvalidValue("a number >= 2", self.n_startup_trials, "GreedyGain.n_startup_trials")
        if not (is_finite_number(self.explore) and 0.0 <= self.explore <= 1.0):
            raise InvalidValue("a number in [0, 1]", self.explore, "GreedyGain.explore")
        if not (is_finite_number(self.divergence_reports) and self.divergence_reports >= 1):
            raise InvalidValue("a number >= 1", self.divergence_reports, "GreedyGain.divergence_reports")

    def init(self) -> Any:
        """There is none."""
        return None

    def questions(self, state: Any, snapshot: Snapshot, slots: Slots) -> tuple[Query, ...]:
        """The judged value of every paused trial, in order of their uids; none in the startup."""
        if not self._started(snapshot):
            return ()
        kind = judged_kind(snapshot.goal)
        return tuple(Query(trial, kind, snapshot.horizon) for trial in paused_trials(snapshot))

    def allocate(
        self, state: Any, snapshot: Snapshot, forecasts: Answers, abilities: Abilities, slots: Slots, key: Key
    ) -> Allocation:
        """The arms of the largest gain, but for slots given at random."""
        if not abilities.pause:
            return Allocation(state, start_new(min(slots.free, slots.n_new_allowed), snapshot.goal.horizon))
        ranked = self._ranked(snapshot, forecasts, slots)
        rng, explore = np.random.default_rng(key), self.explore
        if slots.account.total is not None:
            explore *= min(slots.account.left / max(slots.account.total, 1e-300), 1.0)
        price = Price(snapshot, slots)
        left, moves, waiting = slots.account.left, list[Move](), list[_Arm]()
        while ranked and len(moves) < slots.free:
            # New configurations are several entries but one arm.
            new = next((i for i, arm in enumerate(ranked) if arm.uid is None), -1)
            arms = [i for i, arm in enumerate(ranked) if arm.uid is not None or i == new]
            i, why = 0, ""
            if explore and rng.random() < explore:
                i, why = arms[int(rng.integers(len(arms)))], f"at random among {len(arms)}; "
            propensity = explore / len(arms) + (1.0 - explore) * (i == 0)
            arm = ranked.pop(i)
            move = Move(arm.uid, arm.until, arm.score, why + arm.why, propensity)
            cost = price.of(move)
            if cost > left:
                waiting.append(arm)
                continue
            left -= cost
            moves.append(move)
        waiting = sorted((arm for arm in waiting + ranked if arm.uid is not None), key=lambda arm: arm.rank)
        needs = f"more than {moves[-1].score:.3g} a step" if moves else "a free slot"
        waits = (
            Wait(arm.uid, i, len(waiting), f"{self._what} a step", needs)
            for i, arm in enumerate(waiting, start=1)
            if arm.uid is not None
        )
        return Allocation(state, tuple(moves), (), tuple(waits))

    def _started(self, snapshot: Snapshot) -> bool:
        bank = snapshot.bank
        return int(np.count_nonzero(bank.complete & np.isfinite(bank.judged))) >= self.n_startup_trials

    def _ranked(self, snapshot: Snapshot, forecasts: Answers, slots: Slots) -> list[_Arm]:
        """Every arm, best first; new configurations as often as there are slots for them."""
        horizon, paused = snapshot.goal.horizon, paused_trials(snapshot)
        values, value_of_new = self._values(snapshot, paused, forecasts)
        budget, price = slots.account.left, Price(snapshot, slots)
        arms: list[tuple[str | None, float, float]] = [
            (trial.uid, steps_done(trial), value) for trial, value in zip(paused, values, strict=True)
        ]
        arms += [(None, 0.0, value_of_new)] * min(slots.free, slots.n_new_allowed)
        costs = [(horizon - at) * price.step(uid) + price.resume(uid) for uid, at, _ in arms]
        worth = [0.0 if cost > budget else value / cost for cost, (_, _, value) in zip(costs, arms, strict=True)]
        best = max((w for w in worth if w == w), default=0.0)
        ranked = []
        for (uid, at, value), cost, score in zip(arms, costs, worth, strict=True):
            known = score == score
            why = f"{self._what} {value:.3g} in {cost:g} steps" if known else "no forecast: it goes on"
            until = next_pause(at, self.quantum * horizon, horizon)
            ranked.append(_Arm(uid, score if known else best, known, horizon - at, until, why))
        return sorted(ranked, key=lambda arm: arm.rank)

    def _values(self, snapshot: Snapshot, paused: list[Trial], forecasts: Answers) -> tuple[list[float], float]:
        """What each paused trial and a new configuration may gain by the horizon; NaN where nobody knows."""
        incumbent, values, value_of_new = snapshot.incumbent, [math.nan] * len(paused), math.nan
        if incumbent is not None and self._started(snapshot):
            target, least = snapshot.goal.sign * incumbent.value, snapshot.bank.least
            values = mean_gains(forecasts, len(paused), target, self.gain, least).tolist()
            fresh = new_config_forecast(snapshot.bank)
            told = math.nan if fresh is None else float(gains([fresh.row(0)], target, self.gain, least)[0])
            value_of_new = told if math.isfinite(told) else 0.0  # unknown, new ones would go first for ever
        for i, trial in enumerate(paused):
            if self._diverged(trial, snapshot):
                values[i] = 0.0
        return values, value_of_new

    def _diverged(self, trial: Trial, snapshot: Snapshot) -> bool:
        """Only reports that are not finite, where COMPLETE trials have values: else the metric just starts late."""
        return has_diverged(trial.curve, snapshot.bank, self.divergence_reports)

    @property
    def _what(self) -> str:
        return "P(beat)" if self.gain == "p_beat" else "expected improvement"
