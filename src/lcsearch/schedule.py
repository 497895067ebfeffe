"""Planned learning-rate schedules: known before launch, carried by every trial for forecasters that read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from lcsearch.curves import Floats
from lcsearch.errors import InvalidValue, is_finite_number

Shape = Literal["constant", "linear", "cosine", "wsd", "step"]


@dataclass(frozen=True)
class Schedule:
    """A learning rate for every step of a trial, `0 <= step <= horizon`.

    Attributes:
        shape: what follows the warm-up. "constant"; "linear" and "cosine" fall from the peak to `floor * peak` at
            the horizon; "wsd" stays at the peak and falls linearly over the last `decay` share of the horizon;
            "step" divides by ten at 1/2 and 3/4 of the horizon.
        peak: the largest learning rate, > 0.
        horizon: the step at which the schedule ends, > 0, on the trial's resource axis.
        warmup: share of the horizon spent rising linearly from zero, in [0, 1).
        decay: share of the horizon that "wsd" spends falling, in (0, 1].
        floor: the last rate as a share of the peak, in [0, 1].
    """

    shape: Shape
    peak: float
    horizon: float
    warmup: float = 0.0
    decay: float = 0.2
    floor: float = 0.0

    def __post_init__(self) -> None:
        if self.shape not in get_args(Shape):
            raise InvalidValue(f"one of {', '.join(get_args(Shape))}", self.shape, "Schedule.shape")
        for name in ("peak", "horizon"):
            value = getattr(self, name)
            if not (is_finite_number(value) and value > 0):
                raise InvalidValue("a finite number > 0", value, f"Schedule.{name}")
        for name, bounds, open_end in (("warmup", "[0, 1)", 1.0), ("decay", "(0, 1]", 0.0), ("floor", "[0, 1]", None)):
            value = getattr(self, name)
            if not (is_finite_number(value) and 0 <= value <= 1) or value == open_end:
                raise InvalidValue(f"a number in {bounds}", value, f"Schedule.{name}")

    def rate(self, steps: ArrayLike) -> Floats:
        """The learning rate at `steps`, any shape; steps outside [0, horizon] take the nearest end."""
        t = np.clip(np.asarray(steps, np.float64) / self.horizon, 0.0, 1.0)
        share = np.ones_like(t)
        after = np.clip((t - self.warmup) / max(1.0 - self.warmup, 1e-12), 0.0, 1.0)
        if self.shape == "linear":
            share = 1.0 - after
        elif self.shape == "cosine":
            share = 0.5 * (1.0 + np.cos(np.pi * after))
        elif self.shape == "wsd":
            share = np.clip((1.0 - t) / self.decay, 0.0, 1.0)
        elif self.shape == "step":
            share = np.where(t < 0.5, 1.0, np.where(t < 0.75, 0.1, 0.01))
        rates = self.peak * (self.floor + (1.0 - self.floor) * share)
        if self.warmup > 0:
            rates = np.minimum(rates, self.peak * t / self.warmup)
        return rates

    def __call__(self, step: float) -> float:
        """The learning rate at one step."""
        return float(self.rate(step))
