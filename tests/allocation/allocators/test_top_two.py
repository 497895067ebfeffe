from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.builders import props
from kit.curricula import NINTH, asked, even, told

from lcsearch.allocation.allocators.top_two import TopTwoThompson
from lcsearch.errors import InvalidValue
from lcsearch.forecast.contract import Absent


def test_leader_and_challenger_by_hand() -> None:
    """a of .5, .3, .2 and beta 1/2: a_i (1/2 + 1/2 the others' a / (1 - a)), of which 1, 3/7 and 1/4."""
    odds = TopTwoThompson().odds(np.array([0.5, 0.3, 0.2]))
    hand = [0.5 * (0.5 + 0.5 * (3 / 7 + 1 / 4)), 0.3 * (0.5 + 0.5 * 5 / 4), 0.2 * (0.5 + 0.5 * (1 + 3 / 7))]
    np.testing.assert_allclose(odds, hand)
    np.testing.assert_allclose(TopTwoThompson(beta=1.0).odds(np.array([0.5, 0.3, 0.2])), [0.5, 0.3, 0.2])
    assert TopTwoThompson().odds(np.array([1.0, 0.0])).tolist() == [1.0, 0.0]


@props
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.floats(0.01, 1))
def test_odds_are_probabilities(scores: list[float], beta: float) -> None:
    odds = TopTwoThompson(beta=beta).odds(np.array(scores))
    assert odds.min() >= 0
    assert odds.sum() == pytest.approx(1.0)


def test_who_has_every_draw_has_the_slot() -> None:
    made = asked(TopTwoThompson(NINTH, floor=0.0), even(-9, -8), even(2, 3), free=1)
    assert told(made) == [("6", 9.0, 1.0)]
    assert made.moves[0].propensity == 1.0
    assert made.moves[0].why == "P(it ends as the best) 1"


def test_of_two_alike_each_has_half_of_the_draws() -> None:
    made = asked(TopTwoThompson(NINTH, floor=0.0), even(-9, -8), even(-9, -8), free=2)
    assert [move.score for move in made.moves] == pytest.approx([0.5, 0.5], abs=0.1)
    lone = asked(TopTwoThompson(NINTH, floor=0.0), even(-9, -8), Absent.LATE, free=3)
    assert [move.why for move in lone.moves if move.uid == "5"] == ["no forecast of it"]


def test_what_cannot_be() -> None:
    with pytest.raises(InvalidValue, match=r"^TopTwoThompson.beta: expected a probability in \(0, 1\], got 0.$"):
        TopTwoThompson(beta=0)
