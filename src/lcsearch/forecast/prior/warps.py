"""Metrics: monotone maps of a loss in task units (chance 1, the best possible 0) to what is reported.

======== ==================================================== =====================================================
warp     f(y)                                                 what it stands for
======== ==================================================== =====================================================
plain    y                                                    losses
log      (ln(y+ + e) - ln e) / (ln(1 + e) - ln e)             metrics looked at on a log scale
power    y+^p                                                 error against loss, root of a mean square
bounded  clip(chance (y - shift), 0, 1)                       error rates: saturate at 0 and 1
logistic 1 / (1 + exp(-(y - c) / w))                          thresholded metrics, pass rates (Schaeffer et al. 2023)
exp      (e^(k y) - 1) / (e^k - 1)                            perplexities
======== ==================================================== =====================================================
"""

from __future__ import annotations

import torch
from torch import Tensor

WARPS = ("plain", "log", "power", "bounded", "logistic", "exp")
BOUNDED = (3, 4)
"""Warps whose values lie in [0, 1]."""


def warp(y: Tensor, kind: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """The metric.

    Args:
        y: (N, S) losses in task units.
        kind: (N,) index into `WARPS`.
        p: (N,) log: e; power: p; bounded: chance; logistic: c; exp: k.
        q: (N,) bounded: shift; logistic: w.

    Returns:
        (N, S).
    """
    made = y.clone()
    for k, way in enumerate(_WAYS, 1):
        rows = (kind == k).nonzero()[:, 0]
        if rows.numel():
            made[rows] = way(y[rows], p[rows, None], q[rows, None])
    return made


def _log(y: Tensor, e: Tensor, _: Tensor) -> Tensor:
    return torch.log(y.clamp(min=0.0) / e + 1.0) / torch.log(1.0 / e + 1.0)


def _power(y: Tensor, p: Tensor, _: Tensor) -> Tensor:
    return y.clamp(min=0.0) ** p


def _bounded(y: Tensor, chance: Tensor, shift: Tensor) -> Tensor:
    return (chance * (y - shift)).clamp(0.0, 1.0)


def _logistic(y: Tensor, c: Tensor, w: Tensor) -> Tensor:
    return torch.sigmoid((y - c) / w)


def _exp(y: Tensor, k: Tensor, _: Tensor) -> Tensor:
    # Losses far above chance would be perplexities of 1e30; blow-ups are added after the warp.
    return torch.expm1(k * y.clamp(max=2.0)) / torch.expm1(k)


_WAYS = (_log, _power, _bounded, _logistic, _exp)


def quantise(y: Tensor, samples: Tensor) -> Tensor:
    """Rounded to multiples of 1 / samples, the resolution of a rate over so many examples; samples (N,), 0 for none."""
    n = samples[:, None]
    return torch.where(n > 0, torch.round(y * n) / n.clamp(min=1.0), y)
