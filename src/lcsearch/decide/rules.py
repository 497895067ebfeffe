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

    A trial that was stopped or failed before that step is compared where it ended. Left out, the more a search stops,
    the better those would be that a trial is compared with, and the guard of the best tenth would become one of the
    best tenth of the survivors.

    Attributes:
        rank: 1 is best; ties count in the trial's favour.
        n: trials compared, itself included.
        ended: of them, those compared at an earlier step, where they ended.
    """

    rank: int
    n: int
    ended: int = 0

    @classmethod
    def of(cls, loss: float, finished: Floats, live: Sequence[float] = (), ended: tuple[int, int] = (0, 0)) -> Standing:
        """From the trial's loss and the others' at the same step, lower is better.

        Args:
            loss: the trial's own.
            finished: (m,) of finished trials; NaN for one that says nothing about the step.
            live: of the other live trials.
            ended: of trials that ended earlier, how many were better there, and how many could be compared.
        """
        better = int(np.count_nonzero(finished < loss)) + sum(other < loss for other in live)
        n = 1 + int(np.count_nonzero(finished == finished)) + len(live)
        return cls(1 + better + ended[0], n + ended[1], ended[1])

    def __str__(self) -> str:
        """ "rank 4 of 56 at this step (39 of them compared where they ended)"."""
        text = f"rank {self.rank} of {self.n} at this step"
        return f"{text} ({self.ended} of them compared where they ended)" if self.ended else text

    def held_by(self, guard: float, min_comparisons: int) -> Reason | None:
        """The guard that forbids a stop here: too few comparisons, or among the best `guard` share; else None.

        Extrapolators fail together on short curves of slow starters that lead at their own step; a second
        extrapolator is no safety device there, the rank is.
        """
        if self.n - self.ended - 1 < min_comparisons:
            return Reason.COMPARISONS
        if self.rank - 1 < guard * self.n:
            return Reason.GUARD
        return None
