"""Saturating bases: g falls from 1 at x = 0 towards 0, x = time over a time constant, and mixtures of them.

A loss is then floor + (start - floor) g(t / tau).

========== ============================ =============================================================================
base       g(x)                         source
========== ============================ =============================================================================
power      (1 + x)^-a                   pow4; pow3 (LC-PFN, Adriaensen et al. 2023) when x = t / t_1 - 1
exponential e^-x                        exp3 (LCDB, Mohr et al. 2022)
janoschek  exp(-x^d)                    Janoschek, Weibull (LC-PFN; Domhan et al. 2015)
hill       1 / (1 + x^h)                Hill and MMF (Domhan et al. 2015); bounded metrics (Scaling RL Compute)
ilog       1 / ln(e + x)                ilog2 (LC-PFN), moved so that it is finite at 0
linear     1 - x (1 + x^4)^(-1/4)       near-linear slow learners that level off at x = 1
========== ============================ =============================================================================
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

BASES = ("pow3", "power", "exponential", "janoschek", "hill", "ilog", "linear")


def power(x: Tensor, a: Tensor) -> Tensor:
    """(1 + x)^-a."""
    return torch.exp(-a * torch.log1p(x))


def exponential(x: Tensor) -> Tensor:
    """e^-x."""
    return torch.exp(-x)


def janoschek(x: Tensor, d: Tensor) -> Tensor:
    """exp(-x^d)."""
    return torch.exp(-(x**d))


def hill(x: Tensor, h: Tensor) -> Tensor:
    """1 / (1 + x^h)."""
    return 1.0 / (1.0 + x**h)


def ilog(x: Tensor) -> Tensor:
    """1 / ln(e + x)."""
    return 1.0 / torch.log(math.e + x)


def linear(x: Tensor) -> Tensor:
    """1 - x (1 + x^4)^(-1/4)."""
    square = x * x
    return 1.0 - x * torch.rsqrt(torch.sqrt(1.0 + square * square))


def mixture(t: Tensor, first: Tensor, tau: Tensor, a: Tensor, d: Tensor, h: Tensor, weights: Tensor) -> Tensor:
    """sum_k w_k g_k over `BASES`.

    Args:
        t: (N, S) time >= 0.
        first: (N,) unit of time of pow3: its (t / first)^-a begins with 1 at t = first.
        tau: (N,) time constant of the others.
        a: (N,) exponent of the powers.
        d: (N,) exponent of janoschek.
        h: (N,) exponent of hill.
        weights: (N, 7), of sum 1.

    Returns:
        (N, S) in [0, 1].
    """
    a, d, h = a[:, None], d[:, None], h[:, None]
    x = (t / tau[:, None]).clamp(1e-9, 1e9)
    since = (t / first[:, None] - 1.0).clamp(0.0, 1e9)
    made = torch.zeros_like(x)
    # A curve has two or three bases that matter: each base is computed for the curves that it matters for.
    for k, base in enumerate(BASES):
        rows = (weights[:, k] > 1e-3).nonzero()[:, 0]
        if base == "pow3":
            value = power(since[rows], a[rows])
        elif base == "power":
            value = power(x[rows], a[rows])
        elif base == "exponential":
            value = exponential(x[rows])
        elif base == "janoschek":
            value = janoschek(x[rows], d[rows])
        elif base == "hill":
            value = hill(x[rows], h[rows])
        elif base == "ilog":
            value = ilog(x[rows])
        else:
            value = linear(x[rows])
        made[rows] += weights[rows, k, None] * value
    return made
