"""Noise of reports: sigma(trial, time) times an AR(1) of unit variance, normal or Student's t."""

from __future__ import annotations

import torch
from torch import Tensor

from lcsearch.forecast.prior.annealing import decayed_sum
from lcsearch.forecast.prior.variates import Variates

WORST = 60.0
"""Largest noise in standard deviations: a t with 1.5 degrees of freedom knows no bound."""


def unit_noise(draws: Variates, correlation: Tensor, freedom: Tensor, steps: int) -> Tensor:
    """e_i = rho e_{i-1} + sqrt(1 - rho^2) w_i.

    Args:
        draws: randomness.
        correlation: (N,) rho in [0, 1).
        freedom: (N,) degrees of freedom of w; inf for a normal.
        steps: S.

    Returns:
        (N, S); the first report is stationary when w is normal.
    """
    n = len(correlation)
    w = draws.normal(n, steps)
    heavy = freedom.isfinite().nonzero()[:, 0]
    w[heavy] = draws.student_t(freedom[heavy, None], len(heavy), steps).clamp(-WORST, WORST)
    rows = (correlation > 0).nonzero()[:, 0]
    if rows.numel():
        rho = correlation[rows]
        shocks = w[rows]
        shocks[:, 1:] *= torch.sqrt(1.0 - rho * rho)[:, None]
        w[rows] = decayed_sum(shocks, rho)
    return w


def envelope(level: Tensor, shrink: Tensor) -> Tensor:
    """Noise over time: (1 - |k|) + |k| level, or with 1 - level in its place where k < 0, as of returns.

    Args:
        level: (N, S) share of the gain still to come.
        shrink: (N,) k in [-1, 1].
    """
    shrink, level = shrink[:, None], level.clamp(0.0, 1.0)
    return (1.0 - shrink.abs()) + shrink.abs() * torch.where(shrink < 0, 1.0 - level, level)


def skewed(unit: Tensor, down: Tensor) -> Tensor:
    """Noise (N, S) with what points down shrunk to a share `down` (N,): a split normal."""
    return torch.where(unit < 0, down[:, None] * unit, unit)
