"""The goal: which metric, which way is better, and when a trial is judged."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from lcsearch.errors import InvalidValue, is_finite_number

Direction = Literal["minimize", "maximize"]
Judged = Literal["best", "final"]
Bounds = tuple[float | None, float | None]
ROUNDING = 1e-6
"""A value beyond a bound by this share of it is at the bound: means in single precision are."""


def checked_bounds(bounds: object, where: str) -> Bounds | None:
    """Bounds of a metric as they were given.

    Raises:
        InvalidValue: they are no pair (low, high) of finite numbers or None, or low is not below high.
    """
    if bounds is None:
        return None
    pair = tuple(bounds) if isinstance(bounds, (tuple, list)) else ()
    if len(pair) == 2 and all(end is None or is_finite_number(end) for end in pair):
        low, high = (None if end is None else float(end) for end in pair)
        if low is None or high is None or low < high:
            return low, high
    advice = "give the least and the largest value that the metric can have, as in (0, 1) or (0, None)"
    raise InvalidValue("(low, high), low < high, either may be None", bounds, where, advice)


@dataclass(frozen=True)
class Goal:
    """What a trial is judged on.

    Attributes:
        metric: name of the reported metric, for messages.
        direction: "minimize" or "maximize".
        horizon: the step at which a trial is judged, on the user's resource axis; > 0. Steps may start at 0 or
            at 1: a COMPLETE trial has reached the horizon whatever its last step is.
        judged: "best" (best value reached by the horizon) or "final" (value at the horizon).
        bounds: (low, high) that no value passes, in the metric's own units; None, here or for an end: not known.
    """

    metric: str
    direction: Direction
    horizon: float
    judged: Judged = "best"
    bounds: Bounds | None = None

    def __post_init__(self) -> None:
        if self.direction not in get_args(Direction):
            raise InvalidValue("'minimize' or 'maximize'", self.direction, "Goal.direction")
        if self.judged not in get_args(Judged):
            raise InvalidValue("'best' or 'final'", self.judged, "Goal.judged")
        if not (is_finite_number(self.horizon) and self.horizon > 0):
            raise InvalidValue("a finite number > 0", self.horizon, "Goal.horizon")
        object.__setattr__(self, "bounds", checked_bounds(self.bounds, "Goal.bounds"))

    @property
    def sign(self) -> float:
        """+1.0 when lower is better, -1.0 when higher is: sign * value is a loss (lower is better)."""
        return 1.0 if self.direction == "minimize" else -1.0

    @property
    def least(self) -> float:
        """The loss (`sign` times the value) that no trial can undercut; -inf where no bound is given."""
        low, high = self.bounds or (None, None)
        end = low if self.direction == "minimize" else high
        return -math.inf if end is None else self.sign * end

    def broken(self, low: float, high: float) -> tuple[str, float, float] | None:
        """The bound that values from `low` to `high` pass, by more than rounding: its name, itself, and the value."""
        for name, bound, value, sign in zip(("low", "high"), self.bounds or (), (low, high), (-1, 1), strict=False):
            if bound is not None and sign * (value - bound) > ROUNDING * abs(bound):
                return name, bound, value
        return None
