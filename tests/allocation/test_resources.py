from __future__ import annotations

from typing import Any

import pytest

from lcsearch.allocation.contract import Move, Resources
from lcsearch.allocation.resources import ResourceBounds, shared_out
from lcsearch.errors import InvalidValue

BOUNDS = ResourceBounds(Resources(1, 1), Resources(4, 2))
NODE = Resources(8, 4)


def sizes(left: Resources, bounds: ResourceBounds = BOUNDS, node: Resources = NODE, *scores: float) -> list[Any]:
    moves = [Move(str(i), 9, score) for i, score in enumerate(scores)]
    return [move.resources for move in shared_out(moves, left, bounds, node)]


def test_spare_slots_go_to_the_largest_score_first() -> None:
    three = ResourceBounds(Resources(1, 1), Resources(3, 3))
    assert sizes(Resources(3, 3), three, NODE, 1.0, 3.0, 2.0) == [(1, 1)] * 3  # none is spare
    assert sizes(Resources(7, 4), three, NODE, 1.0, 3.0, 2.0) == [(1, 1), (2, 2), (1, 1)]  # four slots: by their GPUs
    assert sizes(Resources(6, 6), three, NODE, 1.0, 3.0, 2.0) == [(1, 1), (3, 3), (2, 2)]
    assert sizes(Resources(20, 20), three, NODE, 1.0, 1.0) == [(3, 3), (3, 3)]  # not beyond `most`
    assert sizes(Resources(3, 3), three, NODE, 1.0, 1.0) == [(2, 2), (1, 1)]  # the first of equals
    assert sizes(Resources(20, 20), BOUNDS, NODE, 1.0) == [(4, 2)]


def test_no_trial_is_larger_than_a_node_and_none_smaller_than_a_slot() -> None:
    assert sizes(Resources(20, 20), BOUNDS, Resources(2, 2), 1.0) == [(2, 2)]
    assert sizes(Resources(20, 20), BOUNDS, Resources(8, 1), 1.0) == [(1, 1)]
    assert sizes(Resources(0, -1), BOUNDS, NODE, 1.0) == [(1, 1)]  # a cluster that is smaller than a slot
    assert sizes(Resources(20, 20), BOUNDS, Resources(0, 0), 1.0) == [(1, 1)]


def test_beyond_one_devices_come_whole() -> None:
    half = ResourceBounds(Resources(0.5, 0.25), Resources(3, 3))
    assert sizes(Resources(1.0, 0.75), half, NODE, 1.0) == [(1.0, 0.5)]
    assert sizes(Resources(2.5, 2.75), half, NODE, 1.0) == [(2, 1)]


@pytest.mark.parametrize(
    ("least", "most"),
    [
        (Resources(2), Resources(1)),
        (Resources(1, 1), Resources(2)),
        (Resources(1), Resources(1, 1)),
        (Resources(0), Resources(1)),
        (Resources(-1), Resources(1)),
        (Resources(float("nan")), Resources(1)),
        (1, 2),
    ],
)
def test_bounds_are_checked(least: Any, most: Any) -> None:
    with pytest.raises(InvalidValue, match="ResourceBounds"):
        ResourceBounds(least, most)
