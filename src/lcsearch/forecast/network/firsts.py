"""Trials of a single report: one that begins worse than others is not forecast to end better than they are.

One loss says where a curve stands and nothing of how it goes on, and the network reads one far above all others as one
that has far to fall: on half a such trials were given chances that those at the front had not, and nearly all of them
stayed behind. So every quantile of their forecasts is at least the largest, but for a tenth of them, that is forecast
of the context trials that began better at the same step: an envelope of first-order stochastic dominance.

Of half a's begun trials after one report (`experiments/e1_forecast/begun.py`) log-loss of P(beat) and CRPS fell on all
sources. Tried there as well: the mean over all that are out of order (log-loss rose); trials of three reports (log-loss
fell, and so did Spearman where curves cross); a quarter in the place of a tenth (level).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
from scipy.special import ndtr

from lcsearch.curves import Floats
from lcsearch.forecast.contract import Forecasts
from lcsearch.study import Status, Trial

_LEVELS = ndtr(np.linspace(-3.0, 3.0, 49))
_ODD_ONES = 10  # of so many that began better one may be forecast worse and bind nobody


def single(trial: Trial) -> bool:
    """Whether it made one report and would go on from there: none that is complete, or failed."""
    return trial.curve.n_reports == 1 and trial.status not in (Status.COMPLETE, Status.FAILED)


@dataclass(frozen=True, eq=False)
class Firsts:
    """What trials of a single report are forecast to reach at one step, by the step of their report.

    Attributes:
        sign: of the goal.
        losses: step -> (N,) first losses, rising.
        least: step -> (N + 1, L) what who began behind the first n of them must reach at least, at L levels.
    """

    sign: float
    losses: dict[float, Floats]
    least: dict[float, Floats]

    @classmethod
    def of(cls, trials: Sequence[Trial], said: Forecasts) -> Firsts:
        """Those of `trials` with a single report, by the network's own forecasts `said`, one row a trial."""
        sign = said.sign
        there = [
            (float(trial.curve.steps[0]), sign * float(trial.curve.values[0]), i)
            for i, (trial, why) in enumerate(zip(trials, said.absent, strict=True))
            if why is None and single(trial) and len(trial.curve)
        ]
        losses, least = {}, {}
        for step, some in groupby(sorted(there), key=lambda one: one[0]):
            rows = list(some)
            losses[step] = np.array([loss for _, loss, _ in rows])
            least[step] = _envelope(said.pick([i for *_, i in rows]))
        return cls(sign, losses, least)

    def raised(self, trial: Trial, knots: Floats, levels: Floats) -> Floats:
        """The knots (K,) of the forecast of a trial of a single report, no better than of those that began better."""
        step = float(trial.curve.steps[0])
        if step not in self.losses:
            return knots
        n = int(np.searchsorted(self.losses[step], self.sign * trial.curve.values[0], side="left"))
        return np.maximum(knots, np.interp(levels, _LEVELS, self.least[step][n])) if n else knots


def _envelope(said: Forecasts) -> Floats:
    """Forecasts of N trials in the order in which they began -> (N + 1, L), see :class:`Firsts`."""
    as_losses = replace(said, sign=1.0)  # in a mirrored study the same bits
    quantiles = as_losses.quantile(np.tile(_LEVELS, (len(said), 1)))
    largest = np.full((1 + len(said) // _ODD_ONES, _LEVELS.size), -np.inf)  # so far, rising
    least = np.full((len(said) + 1, _LEVELS.size), -np.inf)
    for n, row in enumerate(quantiles, 1):
        largest = np.sort(np.vstack([largest, row]), 0)[1:]
        least[n] = largest[-1 - n // _ODD_ONES]
    return least
