"""What real curves do beside saturating: humps, dips, spikes, saw-teeth, blow-ups, growth before a divergence.

Every function maps u (N, S), the time as a share of the horizon, and parameters (N,) or (N, K) to (N, S): a share of
the curve's own gain that is added to its loss.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def hump(u: Tensor, start: Tensor, exponent: Tensor, back: Tensor) -> Tensor:
    """Overfitting: w^p with w = (u - start)+ / (1 - start); where `back`, 4 w (1 - w): double descent.

    Goes down then up (Domhan et al. 2015; LCDB 1.1, peaking): 1 at the end, or 1 halfway and 0 at the end.
    """
    start = start[:, None]
    w = ((u - start) / (1.0 - start)).clamp(min=0.0)
    return torch.where(back[:, None], 4.0 * w * (1.0 - w), w ** exponent[:, None])


def climb(u: Tensor, exponent: Tensor) -> Tensor:
    """u^p: a validation loss that rises from the start on (TaskSet, Metz et al. 2020, has many)."""
    return u ** exponent[:, None]


def kicks(u: Tensor, at: Tensor, height: Tensor, tau: Tensor) -> Tensor:
    """sum_k height_k [u >= at_k] exp(-(u - at_k) / tau_k).

    Stability gap (De Lange et al. 2023) when tau is long, spikes (Chowdhery et al. 2022) when it is short.
    """
    since = u[:, None, :] - at[:, :, None]
    made = height[:, :, None] * torch.exp(-since.clamp(min=0.0) / tau[:, :, None])
    return torch.where(since >= 0, made, 0.0).sum(1)


def saw_tooth(u: Tensor, period: Tensor, doubling: Tensor) -> Tensor:
    """(1 + cos(pi f)) / 2 where f runs from 0 to 1 in every cycle: the rate of SGDR (Loshchilov & Hutter 2017).

    Cycles last `period`, or where `doubling` period, 2 period, 4 period, ...
    """
    x = u / period[:, None]
    k = torch.floor(torch.log2(x + 1.0))
    f = torch.where(doubling[:, None], (x - (torch.exp2(k) - 1.0)) / torch.exp2(k), x - torch.floor(x))
    return 0.5 * (1.0 + torch.cos(math.pi * f))


def blow_up(u: Tensor, at: Tensor, tau: Tensor, remains: Tensor) -> Tensor:
    """[u >= at] (remains + (1 - remains) exp(-(u - at) / tau)): no recovery at remains = 1, a full one at 0."""
    since = u - at[:, None]
    remains = remains[:, None]
    made = remains + (1.0 - remains) * torch.exp(-since.clamp(min=0.0) / tau[:, None])
    return torch.where(since >= 0, made, 0.0)


def growth(u: Tensor, at: Tensor, tau: Tensor) -> Tensor:
    """exp((u - at) / tau), at most 1: the way into a divergence at `at`."""
    return torch.exp(((u - at[:, None]) / tau[:, None]).clamp(max=0.0))
