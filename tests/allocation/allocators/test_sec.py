from __future__ import annotations

import math

import numpy as np
import pytest

from lcsearch.allocation.allocators.sec import SelfEvolving
from lcsearch.allocation.bandit import Reward
from lcsearch.errors import InvalidValue


def test_td_0_by_hand() -> None:
    who = SelfEvolving(alpha=0.25)
    memory = who.learned({"b": 3.0}, Reward("a", 2.0))
    assert memory == {"a": 2.0, "b": 3.0}
    assert who.learned(memory, Reward("a", 4.0)) == {"a": 2.5, "b": 3.0}


def test_odds_by_hand() -> None:
    """Q of 4, 2 and nothing: 1, 1/2 and, as nobody knows, their mean; at temperature 1/2 e^2 : e."""
    who = SelfEvolving(temperature=0.5)
    scores = who.values({"a": 4.0, "b": 2.0, "elsewhere": 99.0}, ["a", "b", "c"])
    assert scores[:2] == [1.0, 0.5]
    assert math.isnan(scores[2])
    np.testing.assert_allclose(who.odds(np.array(scores[:2])), [math.e / (math.e + 1), 1 / (math.e + 1)])
    assert who.values({"a": 0.0}, ["a"]) == [0.0]


def test_what_cannot_be() -> None:
    with pytest.raises(InvalidValue, match=r"^SelfEvolving.alpha: expected a number in \(0, 1\], got 0.$"):
        SelfEvolving(alpha=0)
    with pytest.raises(InvalidValue, match=r"^SelfEvolving.temperature: expected a number > 0, got 0.$"):
        SelfEvolving(temperature=0)
    with pytest.raises(InvalidValue, match=r"^groups: expected "):
        SelfEvolving(groups="")
