"""Configurations of two trials side by side, one parameter at a time: no order of parameters, any number of them."""

from __future__ import annotations

import torch
from torch import Tensor

N_MATCH = 6


def match(mine: Tensor, theirs: Tensor, kinds: Tensor, loss: Tensor, use: Tensor) -> Tensor:
    """Features of Q queries' parameters beside those of C context trials -> (B, Q, C, D, N_MATCH).

    Args:
        mine: (B, Q, D) parameters as in :class:`~lcsearch.forecast.network.studies.Studies`, NaN where absent.
        theirs: (B, C, D) likewise.
        kinds: (B, D) 0 none, 1 number, 2 category.
        loss: (B, C) judged losses of the context trials, NaN where they were not complete.
        use: (B, Q, C) which context trials count.
    """
    number = (kinds == 1).unsqueeze(1).unsqueeze(1)
    a, b = mine.unsqueeze(2), theirs.unsqueeze(1)
    both = torch.isfinite(a) & torch.isfinite(b)
    one = torch.isfinite(a) ^ torch.isfinite(b)
    d = torch.where(both, a - b, torch.zeros_like(a))
    differ = (both & ~number & (d.abs() > 0.5)).to(mine.dtype)
    d = d * number
    # How the losses' ranks go with a number, over the context trials that count: a slope in [-1, 1].
    known = torch.isfinite(loss)
    w = (use & known.unsqueeze(1)).to(mine.dtype)
    filled = torch.nan_to_num(loss)
    better = (filled.unsqueeze(2) < filled.unsqueeze(1)).to(mine.dtype)  # (B, C, C): the first beats the second
    rank = (w @ better) / w.sum(-1, keepdim=True).clamp_min(2.0) - 0.5  # (B, Q, C), among those that count
    x = torch.nan_to_num(theirs - 0.5) * torch.isfinite(theirs)
    n = w.sum(-1, keepdim=True).clamp_min(1.0)
    mx, mr = (w @ x) / n, (w * rank).sum(-1, keepdim=True) / n
    mxr = ((w * rank) @ x) / n
    vx = (w @ (x * x)) / n - mx.square()
    vr = (w * rank * rank).sum(-1, keepdim=True) / n - mr.square()
    slope = ((mxr - mx * mr) / (vx.clamp_min(0.0) * vr.clamp_min(0.0)).sqrt().clamp_min(1e-4)).clamp(-1.0, 1.0)
    slope = (slope * (n / (n + 4.0))).unsqueeze(2) * number
    there = (kinds > 0).unsqueeze(1).unsqueeze(1) & (both | one)
    columns = torch.stack(
        [both.to(d.dtype), one.to(d.dtype), d.abs(), slope * d, slope.abs().expand(d.shape) * d.abs(), differ], -1
    )
    return columns if bool(there.all()) else columns * there.unsqueeze(-1).to(d.dtype)
