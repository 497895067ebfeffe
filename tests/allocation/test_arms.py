"""What moves cost, with pauses and resumes."""

from __future__ import annotations

import pytest
from kit.builders import goal, snapshot, trial

from lcsearch.allocation.arms import Price, affordable, checked_prices, promised
from lcsearch.allocation.contract import Account, Move, Prices, Slots
from lcsearch.errors import InvalidValue
from lcsearch.study import Status

SEEN = snapshot(
    goal(horizon=10), [], [trial("0", [1.0] * 4, Status.PAUSED, first=1), trial("1", [1.0] * 2, Status.PAUSED, first=1)]
)


def test_a_move_pays_to_get_there_and_away() -> None:
    price = Price(SEEN, Slots(1, 1, Account(None, 6, 0.5, 2.0), "1"))
    assert price.of(Move("0", 7)) == 3 + 0.5 + 2.0
    assert price.of(Move("0", 10)) == 6 + 2.0, "at the horizon nothing is saved"
    assert price.of(Move("1", 7)) == 5, "it goes on where it stands, and its checkpoint is promised already"
    assert price.of(Move("1", 10)) == 8 - 0.5, "which it does not need at the end"
    assert price.of(Move(None, 7)) == 7 + 0.5


def test_checkpoints_to_come_are_promised() -> None:
    assert promised([(3, 7, 1), (5, 10, 1), (8, 7, 1)], 10, 0.5, here=False) == 4 + 0.5 + 5 + 0.5
    assert promised([], 10, 0.5, here=True) == 0.5
    assert promised([(3, 7, 1), (3, 7, 2.5)], 10, 0.0, here=True) == 4 + 10


def test_what_was_paid_is_not_left() -> None:
    account = Account(20, 6, 0.5, 2.0, promised=1.0, paid=4.5)
    assert account.left == 8.5
    moves = (Move("0", 10), Move("1", 3))
    assert affordable(moves, SEEN, Slots(2, 0, account)) == [Move("0", 10)]
    assert affordable(moves, SEEN, Slots(2, 0, account._replace(paid=1.5))) == [Move("0", 10), Move("1", 3)]


def test_prices_as_the_user_states_them() -> None:
    assert checked_prices(1, 0.5, "Here") == Prices(1.0, 0.5)
    assert Prices(1.0, 0.5).of(3, 2) == 4.0
    for wrong in (-1, float("nan"), float("inf"), "1", None, True):
        with pytest.raises(InvalidValue, match=r"^Here\(resume_cost=\): expected a number of steps >= 0, got "):
            checked_prices(0, wrong, "Here")
