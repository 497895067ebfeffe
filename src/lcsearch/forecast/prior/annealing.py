"""Learning-rate schedules and what annealing does to a loss: L = L0 + A S1^-alpha - C S2 (Tissue et al. 2024).

S1 is the sum of the rates; S2 = sum m_i with m_i = lambda m_{i-1} + (rate_{i-1} - rate_i). Both are scaled here: S1 by
the number of reports, S2 by 1 - lambda, so that annealing slowly from 1 to 0 ends near 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SCHEDULES = ("constant", "linear", "cosine", "wsd", "step")


def multiplier(kind: Tensor, u: Tensor, warm: Tensor, decay: Tensor, final: Tensor) -> Tensor:
    """Learning rate as a share of its peak.

    Args:
        kind: (N,) index into `SCHEDULES`.
        u: (N, S) share of the horizon.
        warm: (N,) share of the horizon that a linear warm-up takes; 0 for none.
        decay: (N,) wsd: share of the horizon that the final decay takes; step: its period.
        final: (N,) multiplier at the end; step: the factor of every drop.

    Returns:
        (N, S) in [0, 1].
    """
    warm, decay, final, kind = warm[:, None], decay[:, None], final[:, None], kind[:, None]
    v = ((u - warm) / (1.0 - warm)).clamp(0.0, 1.0)
    ways = (
        torch.ones_like(v),
        1.0 - (1.0 - final) * v,
        final + (1.0 - final) * 0.5 * (1.0 + torch.cos(math.pi * v)),
        1.0 - (1.0 - final) * ((u - (1.0 - decay)) / decay).clamp(0.0, 1.0),
        # A drop falls on the step that ends its period, not on the last one.
        final ** torch.floor((v / decay).clamp(max=1.0 / decay - 1e-4)),
    )
    made = ways[0]
    for k, way in enumerate(ways[1:], 1):
        made = torch.where(kind == k, way, made)
    return made * (u / warm.clamp(min=1e-9)).clamp(max=1.0)


def decayed_sum(x: Tensor, keep: Tensor) -> Tensor:
    """e_i = keep e_{i-1} + x_i along the last axis, keep (N,), by doubling: log2 S passes instead of S steps."""
    made, factor, shift = x.clone(), keep[:, None].clone(), 1
    while shift < x.shape[-1]:
        made[:, shift:] = made[:, shift:] + factor * made[:, :-shift]
        factor, shift = factor * factor, 2 * shift
    return made


def areas(rate: Tensor, length: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """S1 / length and (1 - lambda) S2.

    Args:
        rate: (N, S) multipliers.
        length: (N,) reports to the horizon.
        memory: (N,) 1 / (1 - lambda), about, as a share of the horizon.

    Returns:
        Two (N, S).
    """
    keep = torch.exp(-1.0 / (memory * length))
    fall = torch.zeros_like(rate)
    fall[:, 1:] = (rate[:, :-1] - rate[:, 1:]).clamp(min=0.0)  # warm-up gives no negative area
    second = decayed_sum(fall, keep).cumsum(-1) * (1.0 - keep)[:, None]
    return rate.cumsum(-1) / length[:, None], second
