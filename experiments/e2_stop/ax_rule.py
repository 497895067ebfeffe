"""Ax's default early-stopping rule, written anew: its own code takes .2 s a look, and `ax_agrees.py` holds this to it.

`ax.early_stopping.dispatch.get_default_ess_or_none` of ax-platform 1.3.1 gives
`PercentileEarlyStoppingStrategy(percentile_threshold=50, min_curves=3, min_progression=.2, max_progression=.9,
normalize_progressions=True, n_best_trials_to_complete=3, check_safe=True)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lcsearch.curves import Floats
from lcsearch.replay.baselines import Bare, Said
from lcsearch.study import Snapshot, Status, Trial

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class AxDefault(Bare):
    """Stops a trial that is worse than the median of all trials at its step, itself and stopped ones among them, unless
    it is one of the best three there. Only between 20 and 90 % of the steps seen, once three trials are COMPLETE, and
    not while the same rule, replayed over all curves so far, would have stopped the trial that now stands best.

    Trials must have ended in the order in which they were begun, as in a search of one worker: Ax goes by numbers.

    Attributes:
        min_curves: COMPLETE trials needed; the first so many are never stopped in the replay.
        first: share of the range of steps below which nothing is stopped.
        last: share beyond which nothing is.
        n_best: ranks at the step that are never stopped; equal values share one.
    """

    min_curves: int = 3
    first: float = 0.2
    last: float = 0.9
    n_best: int = 3

    @property
    def name(self) -> str:
        """ "ax"."""
        return "ax"

    def says(self, snapshot: Snapshot, trial: Trial, since: float) -> Said:
        """Judge the trial at its last value."""
        if snapshot.bank.n_complete < self.min_curves:
            return Said(False, f"{snapshot.bank.n_complete} trials have finished")
        others = [other for other in (*snapshot.bank, *snapshot.live) if other.uid != trial.uid]
        shown = [one for one in (*others, trial) if not np.isnan(one.curve.reports()[1]).all()]
        if not shown or shown[-1] is not trial:
            return Said(False, "no value")
        steps, losses = aligned(shown, snapshot.goal.sign)
        along = (steps - steps[0]) / max(steps[-1] - steps[0], np.finfo(float).tiny)
        here = int(np.flatnonzero(~np.isnan(losses[:, -1]))[-1])
        if not self.first <= along[here] <= self.last:
            return Said(False, "outside the steps at which it stops")
        everyone = np.ones(len(shown), bool)
        if not self._stops(losses[here], everyone, everyone)[-1]:
            return Said(False, "not worse than the median, or among the best")
        complete = np.array([one.status is Status.COMPLETE for one in shown])
        if self._harmful(along, losses, complete):
            return Said(False, "it would have stopped the best trial")
        return Said(True, "worse than the median at this step")

    def _stops(self, row: Floats, among: Mask, ranked: Mask) -> Mask:
        """(n,) who is to be stopped at one step: worse than the median of `among`, and not the best of `ranked`."""
        known = row[among & ~np.isnan(row)]
        if not known.size:
            return np.zeros(row.size, bool)
        best = np.unique(row[ranked & ~np.isnan(row)])[: self.n_best]
        return np.asarray((row > np.median(known)) & ~(row <= best[-1]))

    def _harmful(self, along: Floats, losses: Floats, complete: Mask) -> bool:
        """Whether the rule, from the first step to the last, would stop the trial whose last value is best."""
        known = ~np.isnan(losses)
        ends = losses[len(losses) - 1 - known[::-1].argmax(0), np.arange(losses.shape[1])]
        best = int(ends.argmin())
        complete = complete.copy()
        complete[best] = False  # what is to be judged by the others is not one of them
        startup = np.zeros_like(complete)
        startup[np.flatnonzero(complete)[: self.min_curves]] = True
        active = ~startup
        active[best] = False
        for row in losses[(along >= self.first) & (along < self.last)]:
            if not active.any():
                return False
            others = startup | active
            mine = others.copy()
            mine[best] = True
            if self._stops(row, others, mine)[best]:
                return True
            active &= ~self._stops(row, others, others)
        return False


def aligned(trials: Sequence[Trial], sign: float) -> tuple[Floats, Floats]:
    """(S,) all steps seen, and (S, n) losses there: interpolated between a trial's values, NaN outside of them."""
    curves = [trial.curve.reports() for trial in trials]
    steps = np.unique(np.concatenate([at for at, _ in curves]))
    out = np.full((steps.size, len(curves)), np.nan)
    for i, (at, values) in enumerate(curves):
        known = ~np.isnan(values)
        at, values = at[known], values[known]
        inside = slice(*np.searchsorted(steps, [at[0], np.nextafter(at[-1], np.inf)]))
        if inside.stop - inside.start == at.size:
            out[inside, i] = sign * values
        else:
            out[inside, i] = sign * np.interp(steps[inside], at, values)
    return steps, out
