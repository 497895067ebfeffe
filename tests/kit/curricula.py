"""One study that the curricula's golden steps are worked out for by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from kit.allocators import PAUSES
from kit.builders import goal, snapshot, trial
from lcsearch.allocation.contract import Account, Allocation, Allocator, Slots
from lcsearch.forecast.contract import Answer, Answers, Forecasts
from lcsearch.study import Snapshot, Status, Trial

NINTH = 1 / 9
"""The lowest rung of a horizon of 9, so that rungs are 1, 3, 9."""
ACCOUNT = Account(spent=27.0)
"""Three full trials' worth: a new configuration beats the best value with probability 1 / 4."""


def paused(uid: str, n: int, value: float, **fields: Any) -> Trial:
    """It has reported steps 1 to n."""
    return trial(uid, [value] * n, Status.PAUSED, first=1, **fields)


def study(*more: Trial) -> Snapshot:
    """Trial 5 stands at the first rung with 2, trial 6 at the second with 1, the best value. In line: 6, 5."""
    return snapshot(goal(horizon=9), [], [paused("5", 1, 2.0), paused("6", 3, 1.0), *more])


def even(low: float, high: float) -> Forecasts:
    """Even on a stretch."""
    return Forecasts.of(np.array([[low, high]]), np.array([[0.0, 1.0]]), np.zeros((1, 2)), sign=1.0, source="test")


def asked(
    who: Allocator, *answers: Answer, at: Snapshot | None = None, state: Any = None, free: int = 3, n_new: int = 1,
    account: Account = ACCOUNT, key: tuple[int, ...] = (0, 0),
) -> Allocation:  # fmt: skip
    """One allocation of the study, with these answers to its questions."""
    at, state, slots = at or study(), state or who.init(), Slots(free, n_new, account)
    questions = who.questions(state, at, slots)
    assert len(answers) in (0, len(questions)), questions
    said: Answers = {"test": answers} if answers else {}
    return who.allocate(state, at, said, PAUSES, slots, key)


def told(made: Allocation) -> list[tuple[str | None, float, Any]]:
    """(uid, where the turn ends, score) of each move."""
    return [(move.uid, move.pause_at, move.score) for move in made.moves]
