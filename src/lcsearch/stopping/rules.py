"""The rules a verdict is made of: threshold, rank guard, divergence, epsilon. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lcsearch.curves import Curve, Floats
from lcsearch.stopping.verdict import Reason
from lcsearch.study import FinishedTrials, Status


def threshold_for(threshold: float, n_observations: int, *, few: int, factor: float) -> float:
    """The threshold that holds at a look: `threshold`, times `factor` below `few` finite observations.

    A curve of five points has misled every forecaster tried; little is spent on such looks.

    >>> threshold_for(0.05, 5, few=8, factor=0.2)
    0.010000000000000002
    """
    return threshold * factor if n_observations < few else threshold


def telling(curve: Curve, bank: FinishedTrials, sign: float) -> int:
    """Observations of a curve that say something: all of them, but of a best value so far each value once.

    A plateau of a best value so far, as evolutionary searches log it, repeats what was known, and forecasters take it
    for an end. It is told from other plateaus by the study: all COMPLETE trials have some, and none has ever reported a
    worse value than the one before. On made studies of 30 and 100 such reports 6 and 11 % of the stops below .05 were
    wrong where all values were counted; counted like this 1 and 6 % are (`experiments/e2_stop/records.py`).

    Args:
        curve: the trial's.
        bank: finished trials.
        sign: of the goal: times a value it is a loss.
    """

    def values(curve: Curve) -> int | None:
        """How many there are, one a plateau; None of a curve that got worse or that has no plateau."""
        better, worse = curve.turns[:: -int(sign)]
        return None if worse or better + 1 >= len(curve) else better + 1

    n = values(curve)
    if n is None or curve.still or not bank.n_complete:
        return len(curve)
    ended = (trial.curve for trial in bank if trial.status is Status.COMPLETE)
    return len(curve) if any(values(one) is None for one in ended) else n


def epsilon_of(spread: float, share: float) -> float:
    """By how much an incumbent must be beaten to count: `share` of the study's robust range of judged values, >= 0."""
    return share * spread


def has_diverged(curve: Curve, bank: FinishedTrials, patience: int) -> bool:
    """True when the last reports were all non-finite though about `patience` values were due there.

    A value is due at a report by the share of COMPLETE trials that had one since the report before (those that have no
    value any more from there on say nothing). A metric that is reported now and then has runs of placeholders: one no
    longer than a run that this trial came back from is no divergence, nor is one less than twice as long as a run that
    any COMPLETE trial came back from (where values are missing at random, the next trial easily has a run that is one
    longer: 28 of 1316 healthy trials were stopped for it, and 3 are).
    """
    run = curve.n_trailing_events
    if run < patience or run <= curve.gaps.max(initial=0):
        return False
    edges = np.concatenate([curve.steps[-1:] if len(curve) else [-np.inf], curve.event_steps[-run:]])
    had, spoke = np.zeros(run), np.zeros(run)
    for trial in bank:
        theirs = trial.curve
        if trial.status is not Status.COMPLETE or not len(theirs):
            continue
        if 2 * theirs.gaps.max(initial=0) > run:
            return False
        alive = edges[1:] <= theirs.steps[-1]
        spoke += alive
        had += alive & (np.diff(theirs.steps.searchsorted(edges, side="right")) > 0)
    due = np.divide(had, spoke, out=np.zeros(run), where=spoke > 0).sum()
    return bool(due + 0.5 >= patience)


@dataclass(frozen=True)
class Rank:
    """Where a trial stands among the others at its own step, and among all.

    The more a search stops, the better those are that come as far as a trial, so the best tenth of these is far less
    than the best tenth of all. Therefore trials that were stopped or failed before the step are counted too, each where
    it ended.

    Attributes:
        rank: among those that have come as far; 1 is best, ties count in the trial's favour.
        n: trials that have come as far, itself included.
        ended_ahead: of those that ended earlier, how many were better there.
        ended: how many ended earlier.
    """

    rank: int
    n: int
    ended_ahead: int = 0
    ended: int = 0

    @classmethod
    def of(cls, loss: float, finished: Floats, live: Sequence[float] = (), ended: tuple[int, int] = (0, 0)) -> Rank:
        """From the trial's loss and the others' at the same step, lower is better.

        Args:
            loss: the trial's own.
            finished: (m,) of finished trials; NaN for one that says nothing about the step.
            live: of the other live trials.
            ended: of trials that ended earlier, how many were better there, and how many could be compared.
        """
        better = int(np.count_nonzero(finished < loss)) + sum(other < loss for other in live)
        n = 1 + int(np.count_nonzero(finished == finished)) + len(live)
        return cls(1 + better, n, *ended)

    def __str__(self) -> str:
        """ "rank 4 of 17 at this step, 9 of 56 with those that ended earlier"."""
        text = f"rank {self.rank} of {self.n} at this step"
        if not self.ended:
            return text
        return f"{text}, {self.rank + self.ended_ahead} of {self.n + self.ended} with those that ended earlier"

    def held_by(self, guard: float, min_comparisons: int) -> Reason | None:
        """The guard that forbids a stop here: too few comparisons, or among the best `guard` share of those that have
        come as far, or of all; else None.

        Extrapolators fail together on short curves of slow starters that lead at their own step; a second
        extrapolator is no safety device there, the rank is.
        """
        if self.n - 1 < min_comparisons:
            return Reason.COMPARISONS
        overall = self.rank + self.ended_ahead
        if self.rank - 1 < guard * self.n or overall - 1 < guard * (self.n + self.ended):
            return Reason.GUARD
        return None
