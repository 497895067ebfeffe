"""The rules a verdict is made of: threshold, rank guard, divergence, epsilon. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lcsearch.curves import Curve, Floats
from lcsearch.decide.verdict import Reason


def threshold_for(threshold: float, n_observations: int, *, few: int, factor: float) -> float:
    """The threshold that holds at a look: `threshold`, times `factor` below `few` finite observations.

    A curve of five points has misled every forecaster tried; little is spent on such looks.

    >>> threshold_for(0.05, 5, few=8, factor=0.2)
    0.010000000000000002
    """
    return threshold * factor if n_observations < few else threshold


def epsilon_of(spread: float, share: float) -> float:
    """By how much an incumbent must be beaten to count: `share` of the study's robust range of judged values, >= 0."""
    return share * spread


def has_diverged(curve: Curve, patience: int) -> bool:
    """True when the last `patience` reports or more were all non-finite."""
    return curve.n_trailing_events >= patience


@dataclass(frozen=True)
class Standing:
    """Where a trial stands among the others at its own step.

    Attributes:
        rank: 1 is best; ties count in the trial's favour.
        n: trials compared, itself included.
    """

    rank: int
    n: int

    @classmethod
    def of(cls, loss: float, finished: Floats, live: Sequence[float] = ()) -> Standing:
        """From the trial's loss and the others' at the same step, lower is better.

        Args:
            loss: the trial's own.
            finished: (m,) of finished trials; NaN for one that says nothing about the step.
            live: of the other live trials.
        """
        better = int(np.count_nonzero(finished < loss)) + sum(other < loss for other in live)
        return cls(1 + better, 1 + int(np.count_nonzero(finished == finished)) + len(live))

    def held_by(self, guard: float, min_comparisons: int) -> Reason | None:
        """The guard that forbids a stop here: too few comparisons, or among the best `guard` share; else None.

        Extrapolators fail together on short curves of slow starters that lead at their own step; a second
        extrapolator is no safety device there, the rank is.
        """
        if self.n - 1 < min_comparisons:
            return Reason.COMPARISONS
        if self.rank - 1 < guard * self.n:
            return Reason.GUARD
        return None
