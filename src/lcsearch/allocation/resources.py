"""Shares of a cluster: what is spare goes to the moves with the largest score. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lcsearch.allocation.contract import Move, Resources
from lcsearch.errors import InvalidValue, is_finite_number


@dataclass(frozen=True)
class ResourceBounds:
    """What one trial may train on.

    Attributes:
        least: what every trial has, and what a slot is; of something > 0.
        most: what a trial has at most, >= `least`, and nothing of what a slot has nothing of.
    """

    least: Resources
    most: Resources

    def __post_init__(self) -> None:
        for name, one in (("least", self.least), ("most", self.most)):
            if not (isinstance(one, Resources) and all(is_finite_number(x) and x >= 0 for x in one) and any(one)):
                raise InvalidValue("Resources(cpus, gpus), numbers >= 0", one, f"ResourceBounds.{name}")
        if any(low > high or (low == 0 and high > 0) for low, high in zip(self.least, self.most, strict=True)):
            expected = f"at least {self.least}, and 0 where that is 0"
            raise InvalidValue(expected, self.most, "ResourceBounds.most")


def shared_out(moves: Sequence[Move], left: Resources, bounds: ResourceBounds, node: Resources) -> tuple[Move, ...]:
    """The moves with what each trains on: one slot, `least`, and, the largest score first, the slots that are spare.

    No slot is taken from anybody by that: a spare one is one that no move was made for. A trial of k slots has k times
    `least`, CPUs and GPUs alike (one with all CPUs of a node would leave its GPUs idle), but nothing beyond `most`.

    Args:
        moves: of one allocation, in its order.
        left: what they have together.
        bounds: for each.
        node: the largest node: no trial has more than it holds.

    >>> bounds = ResourceBounds(Resources(1), Resources(3))
    >>> moves = [Move("a", 9, score=1.0), Move("b", 9, score=2.0)]
    >>> [move.resources.cpus for move in shared_out(moves, Resources(5), bounds, Resources(8))]
    [2, 3]
    """
    least, most = bounds.least, bounds.most
    spare, found = _slots(left, least) - len(moves), list(moves)
    enough = max(math.ceil(high / low - _EPSILON) for low, high in zip(least, most, strict=True) if low > 0)
    largest = max(min(enough, _slots(node, least)), 1)
    for at in sorted(range(len(moves)), key=lambda i: (-moves[i].score, i)):
        more = max(min(spare, largest - 1), 0)
        spare -= more
        share = [max(_whole(min(low * (1 + more), high)), low) for low, high in zip(least, most, strict=True)]
        found[at] = moves[at]._replace(resources=Resources(*share))
    return tuple(found)


_EPSILON = 1e-9  # of sums of fractions


def _slots(have: Resources, least: Resources) -> int:
    return math.floor(min(n / low for n, low in zip(have, least, strict=True) if low > 0) + _EPSILON)


def _whole(amount: float) -> float:
    """Beyond one, devices and cores come whole."""
    return math.floor(amount + _EPSILON) if amount > 1 else amount
