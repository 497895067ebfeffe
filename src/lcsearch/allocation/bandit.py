"""What SEC and DUMP share: groups of trials as arms, and the reward of a turn, |change of P(beat)| per unit of cost."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from lcsearch.allocation.arms import start_new, trained
from lcsearch.allocation.contract import Move, Slots
from lcsearch.allocation.curriculum import Choice, Curriculum, chances, together
from lcsearch.allocation.groups import RUNG, Groups
from lcsearch.allocation.rungs import Ladder, loss_so_far
from lcsearch.forecast.contract import Answers
from lcsearch.study import Status, Trial

NEW = "new"
"""The group of configurations that are not begun."""
_DIGITS = 9  # of a probability in the state


class Reward(NamedTuple):
    """What a turn brought to the group that it was given to."""

    group: str
    amount: float


@dataclass(frozen=True)
class GroupBandit(Curriculum):
    """The half that bandits over groups have in common. A slot is drawn for a group, and goes to its first in line.

    Only trials that come back from a turn are forecast, once each: one row an allocation with one worker. The reward of
    a turn is |P(beat) after it - P(beat) before it| / (its steps as a share of the horizon); of a trial that has ended
    P(beat) is 1 where it holds the best value, else 0, and of one not begun 1 / (1 + full trials' worth spent).

    Attributes:
        first: see :class:`~lcsearch.allocation.curriculum.Curriculum`, as for `eta`, `floor` and `n_asked`.
        groups: "rung", or the name of a parameter, see :class:`~lcsearch.allocation.groups.Groups`. 'A new
            configuration' is a group of its own.
        n_regions: of a numerical parameter, >= 2.
    """

    groups: str = RUNG
    n_regions: int = 3

    what = "what turns in its group bring, the best being 1,"

    def __post_init__(self) -> None:
        super().__post_init__()
        Groups(self.groups, self.n_regions)

    def groups_of(self, ladder: Ladder) -> Mapping[str, str]:
        """Uid -> group of the trials that wait at a rung."""
        return Groups(self.groups, self.n_regions).of(ladder)

    @abstractmethod
    def learned(self, memory: Mapping[str, Any], reward: Reward) -> dict[str, Any]:
        """What is known of the groups, with one more reward; plain values, group -> its."""

    @abstractmethod
    def values(self, memory: Mapping[str, Any], groups: Sequence[str]) -> list[float]:
        """The score of each group; NaN where nothing is known of it."""

    def init(self) -> Any:
        """What is known of the groups; P(beat) of trials where it was last forecast, uid -> (step, P); and what was
        known of those that have a turn: uid -> (group, P, step).
        """
        return {"memory": {}, "p": {}, "turns": {}}

    def scores(self, *args: Any) -> Any:
        """Groups have scores, not trials."""
        raise NotImplementedError

    def asked(self, state: Any, ladder: Ladder, slots: Slots) -> list[Trial]:
        """Those that have reported since they were last forecast: those that had a turn first, then in line."""
        return self.unheard(state["p"], ladder, slots, first=state["turns"])

    def _choices(
        self, state: Any, ladder: Ladder, slots: Slots, forecasts: Answers, rng: np.random.Generator
    ) -> tuple[Any, list[Choice]]:
        back = self.asked(state, ladder, slots)
        told = together(forecasts, len(back))
        state = self._booked(state, ladder, slots, back, chances(told, self._best(ladder)).tolist())
        deaf = bool(back) and all(one is None for one in told)
        if deaf or not state["memory"] or not self.begins(ladder, slots):
            return state, []
        queues: dict[str, list[Move]] = {}
        of = self.groups_of(ladder)
        for uid in self.in_line(ladder, slots):
            until = ladder.rungs[ladder.standing[uid] + 1]
            queues.setdefault(of[uid], []).append(Move(uid, until, why=f"first in line of {of[uid]}"))
        names = sorted(queues)
        if n_new := min(slots.free, slots.n_new_allowed):
            names.append(NEW)
            queues[NEW] = list(start_new(n_new, ladder.rungs[0]))
        scores = self.values(state["memory"], names)

        def scored(move: Move, score: float) -> Move:
            if not math.isfinite(score):
                return move
            return move._replace(score=score, why=f"{move.why}: {self.what} {score:.3g}")

        return state, [
            Choice(score, tuple(scored(move, score) for move in queues[name]))
            for name, score in zip(names, scores, strict=True)
        ]

    @staticmethod
    def _best(ladder: Ladder) -> float:
        return float(ladder.losses[0]) if ladder.losses.size else math.inf

    def _booked(
        self, state: Any, ladder: Ladder, slots: Slots, back: Sequence[Trial], now: Sequence[float]
    ) -> dict[str, Any]:
        """The state with what the turns have brought that are over."""
        snapshot, memory, p, turns = ladder.snapshot, state["memory"], dict(state["p"]), dict(state["turns"])
        horizon, best = snapshot.goal.horizon, self._best(ladder)
        unseen = 1.0 / (1.0 + slots.account.spent / horizon)
        known = {trial.uid: chance for trial, chance in zip(back, now, strict=True) if math.isfinite(chance)}
        ended = [trial for trial in snapshot.bank if trial.uid in turns]
        for trial in chain(back, ended):
            if trial.status.finished:
                won = trial.status is Status.COMPLETE and loss_so_far(trial, snapshot) <= best
                after = 1.0 if won else 0.0
            elif trial.uid in known:
                after = round(known[trial.uid], _DIGITS)
            else:
                continue
            group, before, at = turns.pop(trial.uid, (NEW, unseen, 0.0))
            cost = (trained(trial, horizon) - at) * slots.account.step(trial.uid)
            if cost > 0 and (group != NEW or ladder.standing.get(trial.uid, 0) == 0):
                memory = self.learned(memory, Reward(group, abs(after - before) * horizon / cost))
            p[trial.uid] = [trial.curve.last_step, after]
        live = {trial.uid for trial in snapshot.live}
        return {
            "memory": memory,
            "p": {uid: one for uid, one in p.items() if uid in live},
            "turns": {uid: one for uid, one in turns.items() if uid in live},
        }

    def after(self, state: Any, ladder: Ladder, moves: Sequence[Move], rng: np.random.Generator) -> Any:
        """With the turns that are given to trials whose P(beat) is known."""
        of, at = self.groups_of(ladder), {trial.uid: trial for trial in ladder.paused}
        turns = dict(state["turns"])
        for move in moves:
            if move.uid is not None and move.uid in of and move.uid in state["p"]:
                done = trained(at[move.uid], ladder.snapshot.goal.horizon)
                turns[move.uid] = [of[move.uid], state["p"][move.uid][1], done]
        return {**state, "turns": turns}


def normalised(values: Mapping[str, float]) -> dict[str, float]:
    """Divided by the largest of them: the papers' rewards lie in [0, 1], |change of P| per cost may be anything."""
    most = max(values.values(), default=0.0)
    return {name: value / most if most > 0 else 0.0 for name, value in values.items()}
