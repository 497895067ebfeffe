from __future__ import annotations

import pytest
from kit.curricula import NINTH, asked, even, told

from lcsearch.allocation.allocators.uncertain import FundTheUncertain


def test_by_hand() -> None:
    """6: p = 1/4, 6 of 9 steps. 5: p = 1/2, 2 of 9. A new one: p = 1/4, 1 of 9."""
    made = asked(FundTheUncertain(NINTH, floor=0.0), even(0, 4), even(0.5, 1.5))
    assert told(made) == [
        (None, 1.0, pytest.approx(0.75 * 9)), ("5", 3.0, pytest.approx(1.0 * 9 / 2)),
        ("6", 9.0, pytest.approx(0.75 * 9 / 6)),
    ]  # fmt: skip
    assert made.moves[1].why == "how open its outcome is for its cost 4.5"
    (wait,) = asked(FundTheUncertain(NINTH, floor=0.0), even(0, 4), even(0.5, 1.5), free=2).waits
    said = "waits: rank 2 of 2 by how open its outcome is for its cost, needs to be the one that is drawn"
    assert (wait.uid, str(wait)) == ("6", said)


def test_what_is_known_is_worth_nothing() -> None:
    made = asked(FundTheUncertain(NINTH, floor=0.0), even(0, 0.5), even(2, 3), n_new=1)
    assert [(move.uid, move.score) for move in made.moves][1:] == [("6", 0.0), ("5", 0.0)]
