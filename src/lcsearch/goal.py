"""The goal: which metric, which way is better, and when a trial is judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from lcsearch.errors import InvalidValue, is_finite_number

Direction = Literal["minimize", "maximize"]
Judged = Literal["best", "final"]


@dataclass(frozen=True)
class Goal:
    """What a trial is judged on.

    Attributes:
        metric: name of the reported metric, for messages.
        direction: "minimize" or "maximize".
        horizon: the step at which a trial is judged, on the user's resource axis; > 0. Steps may start at 0 or
            at 1: a COMPLETE trial has reached the horizon whatever its last step is.
        judged: "best" (best value reached by the horizon) or "final" (value at the horizon).
    """

    metric: str
    direction: Direction
    horizon: float
    judged: Judged = "best"

    def __post_init__(self) -> None:
        if self.direction not in get_args(Direction):
            raise InvalidValue("'minimize' or 'maximize'", self.direction, "Goal.direction")
        if self.judged not in get_args(Judged):
            raise InvalidValue("'best' or 'final'", self.judged, "Goal.judged")
        if not (is_finite_number(self.horizon) and self.horizon > 0):
            raise InvalidValue("a finite number > 0", self.horizon, "Goal.horizon")

    @property
    def sign(self) -> float:
        """+1.0 when lower is better, -1.0 when higher is: sign * value is a loss (lower is better)."""
        return 1.0 if self.direction == "minimize" else -1.0
