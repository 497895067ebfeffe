from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.builders import props
from kit.curricula import NINTH, asked, even, told

from lcsearch.allocation.allocators.pandora import PandoraIndex
from lcsearch.allocation.curriculum import Arm, stacked
from lcsearch.allocation.gain import expected_improvement

WHO = PandoraIndex(NINTH, floor=0.0)


def test_by_hand() -> None:
    """A new one gains 1/4 (probability 1/4, scale 1) for log3(19) turns of 1/9: that is the price of compute. Even on
    [0, 4] z^2 / 8 must pay for 6/9 of it, even on [.5, 1.5] (z - .5)^2 / 2 for two turns of 2/9."""
    price = 0.25 / (math.log(19, 3) / 9)
    made = asked(WHO, even(0, 4), even(0.5, 1.5))
    assert told(made) == [
        (None, 1.0, pytest.approx(0.0, abs=1e-9)),
        ("5", 3.0, pytest.approx(1 - (0.5 + math.sqrt(2 * price * 4 / 9)))),
        ("6", 9.0, pytest.approx(1 - math.sqrt(8 * price * 6 / 9))),
    ]


def test_a_trial_that_is_sure_to_win_is_worth_its_gain_less_its_cost() -> None:
    price = 0.25 / (math.log(19, 3) / 9)
    made = asked(WHO, even(-9, -9), even(2, 3), free=1)
    assert told(made) == [("6", 9.0, pytest.approx(10 - price * 6 / 9))]


def test_where_compute_has_no_price_the_surer_gain_goes_first() -> None:
    """And not the wider forecast: even on [0, .2] gains .9 in two of six steps' way, even on [1, 9] nothing."""
    arms = [Arm("0", 3.0, 2 / 9, 6 / 9, even(0, 0.2)), Arm("1", 3.0, 2 / 9, 6 / 9, even(1, 9))]
    scores = WHO.scores(None, arms, 1.0, np.random.default_rng(0))
    assert scores[0] == pytest.approx(0.9 / WHO._cost(arms[0]))  # noqa: SLF001
    assert scores[1] == 0.0


@pytest.mark.parametrize(("turn", "way", "cost"), [(6, 6, 6), (2, 8, 4), (1, 9, math.log(19, 3)), (4, 5, 5)])
def test_the_cost_of_a_box_that_may_be_given_up(turn: float, way: float, cost: float) -> None:
    assert WHO._cost(Arm("0", 9.0, turn, way, None)) == pytest.approx(min(cost, way), rel=0.3)  # noqa: SLF001
    assert turn <= WHO._cost(Arm("0", 9.0, turn, way, None)) <= way  # noqa: SLF001


@props
@given(st.floats(-5, 5), st.floats(0, 5), st.floats(1e-6, 20))
def test_z_pays_for_the_cost(low: float, width: float, cost: float) -> None:
    told = stacked([even(low, low + width)])
    z = WHO._z(told, np.array([cost]))  # noqa: SLF001
    assert expected_improvement(told, z)[0] == pytest.approx(cost, rel=1e-6, abs=1e-9)
