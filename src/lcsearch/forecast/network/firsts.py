"""Trials of a single report: one that begins worse than others is not forecast to end better than they are.

One loss says where a curve stands and nothing of how it goes on, and the network reads one far above all others as one
that has far to fall: on half a such trials were given chances that those at the front had not, and nearly all of them
stayed behind. So every quantile of their forecasts is at least the largest, but for a tenth of them, that is forecast
of the trials that began better: an envelope of first-order stochastic dominance over the study.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr

from lcsearch.curves import Floats
from lcsearch.forecast.contract import Forecasts
from lcsearch.study import Status, Trial

_LEVELS = ndtr(np.linspace(-3.0, 3.0, 49))
_ODD_ONES = 10  # of so many that began better one may be forecast worse and bind nobody


def single(trial: Trial) -> bool:
    """Whether it has made one report and may make others."""
    return trial.curve.n_reports == 1 and trial.status is not Status.COMPLETE


def in_order(trials: Sequence[Trial], said: Forecasts) -> Forecasts:
    """The forecasts `said` of trials at one step, where those of a single report are in the order in which they began.

    Trials are compared that reported at one and the same step. Of half a's begun trials after one report
    (`experiments/e1_forecast/begun.py`) log-loss of P(beat) and CRPS fell on all sources. Tried there as well: the
    mean over all that are out of order (log-loss rose); trials of three reports (log-loss fell, and so did Spearman
    where curves cross); a quarter in the place of a tenth (level).
    """
    groups: dict[float, list[int]] = {}
    for i, (trial, why) in enumerate(zip(trials, said.absent, strict=True)):
        if why is None and single(trial):
            groups.setdefault(float(trial.curve.steps[0]), []).append(i)
    knots = said.knots.copy()
    for rows in groups.values():
        losses = said.sign * np.array([trials[i].curve.values[0] for i in rows])
        knots[rows] = _raised(losses, said.pick(rows))
    return Forecasts.of(knots, said.levels, said.tails, sign=said.sign, source=said.source, absent=said.absent)


def _raised(losses: Floats, said: Forecasts) -> Floats:
    """(N,) first losses and their trials' forecasts -> their knots (N, K), raised to the envelope."""
    quantiles = said.sign * said.quantile(np.tile(_LEVELS if said.sign > 0 else 1.0 - _LEVELS, (len(said), 1)))
    order = np.argsort(losses, kind="stable")
    ahead = np.searchsorted(losses[order], losses, side="left")
    largest = np.full((1 + losses.size // _ODD_ONES, _LEVELS.size), -np.inf)  # of those ahead, rising
    knots, added = said.knots.copy(), 0
    for i in order:
        for k in order[added : ahead[i]]:
            largest = np.sort(np.vstack([largest, quantiles[k]]), 0)[1:]
        added = ahead[i]
        if added:
            knots[i] = np.maximum(knots[i], np.interp(said.levels[i], _LEVELS, largest[-1 - added // _ODD_ONES]))
    return knots
