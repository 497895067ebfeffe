from __future__ import annotations

import math

import pytest
from kit.curricula import ACCOUNT, NINTH, asked, even, study, told

from lcsearch.allocation.allocators.mfpi import RandomHorizonPi
from lcsearch.allocation.contract import Slots

WHO = RandomHorizonPi(NINTH, floor=0.0)
DRAWN = {"h": 0.5, "tau": -1.0}


def test_the_questions_are_at_a_random_step() -> None:
    asks = WHO.questions(DRAWN, study(), Slots(1, 1, ACCOUNT))
    assert [(query.trial.uid, query.step) for query in asks] == [("6", 7.5), ("5", 5.5)]
    assert {query.step for query in WHO.questions(WHO.init(), study(), Slots(1, 1, ACCOUNT))} == {9.0}


def test_by_hand() -> None:
    """Medians 2, 1 and, of a new one, 1 + 1 / 1.5: the middle is 5/3, so to beat is 1 - .1 * 2/3 = 14/15."""
    made = asked(WHO, even(0, 4), even(0.5, 1.5), state=DRAWN)
    new = 0.25 * math.exp(-1 / 15) * 0.5  # the tail's scale is 2 - 1, and half of the horizon will do half
    assert told(made) == [
        ("5", 3.0, pytest.approx(14 / 15 - 0.5)), ("6", 9.0, pytest.approx(14 / 15 / 4)),
        (None, 1.0, pytest.approx(new)),
    ]  # fmt: skip


def test_what_is_drawn_for_the_next_allocation_follows_from_the_key() -> None:
    one, same, other = (asked(WHO, even(0, 4), even(0.5, 1.5), key=key).state for key in ((0, 1), (0, 1), (0, 2)))
    assert one == same != other
    for n in range(50):
        state = asked(WHO, even(0, 4), even(0.5, 1.5), key=(1, n)).state
        assert 0 < state["h"] <= 1
        assert -4 <= state["tau"] <= -1
