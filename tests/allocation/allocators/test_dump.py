from __future__ import annotations

import math
from typing import Any

import pytest

from lcsearch.allocation.allocators.dump import UpperConfidence
from lcsearch.allocation.bandit import Reward
from lcsearch.errors import InvalidValue


def test_the_oldest_reward_is_forgotten_and_counted() -> None:
    who = UpperConfidence(window=2)
    memory: dict[str, Any] = {}
    for amount in (9.0, 1.0, 3.0):
        memory = who.learned(memory, Reward("a", amount))
    assert memory == {"a": {"n": 3, "last": [1.0, 3.0]}}


def test_scores_by_hand() -> None:
    """Means 2 and 1, over the larger one; 3 turns in all, of which 2, 1 and none."""
    memory = {"a": {"n": 2, "last": [1.0, 3.0]}, "b": {"n": 1, "last": [1.0]}}
    root = math.sqrt(2 * math.log(4))
    told = UpperConfidence().values(memory, ["a", "b", "c"])
    assert told == pytest.approx([1 + root / math.sqrt(3), 0.5 + root / math.sqrt(2), root])


def test_what_cannot_be() -> None:
    with pytest.raises(InvalidValue, match=r"^UpperConfidence.window: expected an integer >= 1, got 0.$"):
        UpperConfidence(window=0)
    with pytest.raises(InvalidValue, match=r"^UpperConfidence.temperature: expected a number > 0, got -1.$"):
        UpperConfidence(temperature=-1)
