"""Worse than the median at this step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lcsearch.replay.baselines.rule import Bare, Said, at_least, reported_at
from lcsearch.study import Snapshot, Trial


@dataclass(frozen=True)
class Median(Bare):
    """Stops a trial whose best value so far is worse than the median of COMPLETE trials' values at this very step.

    optuna.pruners.MedianPruner, verdict for verdict: the values compared with are those reported at exactly this step
    (not their best so far), NaN aside; a trial that has reported nothing but NaN is stopped.

    Attributes:
        n_startup_trials: nothing is stopped before this many trials are COMPLETE (nor before one is).
        n_warmup_steps: nothing is stopped below this step.
        interval_steps: one look an interval of so many steps; 1: at every report.
        n_min_trials: reports needed at the step, NaN included.
    """

    n_startup_trials: int = 5
    n_warmup_steps: int = 0
    interval_steps: int = 1
    n_min_trials: int = 1

    def __post_init__(self) -> None:
        at_least(self.n_startup_trials, 0, "Median.n_startup_trials")
        at_least(self.n_warmup_steps, 0, "Median.n_warmup_steps")
        at_least(self.interval_steps, 1, "Median.interval_steps")
        at_least(self.n_min_trials, 1, "Median.n_min_trials")

    @property
    def name(self) -> str:
        """ "median"."""
        return "median"

    def says(self, snapshot: Snapshot, trial: Trial, since: float) -> Said:
        """Compare with the median here."""
        bank, step, sign = snapshot.bank, trial.curve.last_step, snapshot.goal.sign
        if bank.n_complete < max(self.n_startup_trials, 1):
            return Said(False, f"{bank.n_complete} trials have finished")
        if not trial.curve.n_reports or step < self.n_warmup_steps:
            return Said(False, "below the warm-up")
        steps, values = trial.curve.reports()
        began = step - (step - self.n_warmup_steps) % self.interval_steps
        if self.interval_steps > 1 and steps.size > 1 and steps[-2] >= began:  # with 1 also where steps are fractions
            return Said(False, "this interval had its look")
        known = values[~np.isnan(values)]
        if not known.size:
            return Said(True, "nothing but NaN")
        best = float(known.min() if sign > 0 else known.max())
        others = reported_at(bank, step)
        if others.size < self.n_min_trials or np.isnan(others).all():
            return Said(False, f"{others.size} values at this step")
        # In the metric's own units and by the same function as Optuna, so that the last bit agrees.
        median = float(np.percentile(others[~np.isnan(others)], 50.0))
        return Said(sign * best > sign * median, f"best {best:.6g}, median {median:.6g} of {others.size}")
