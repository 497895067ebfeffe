"""Curves that report the best value so far: plateaus and jumps, as evolutionary and random searches make them.

Three kinds, one a study: a random search's running minimum (records come at rate 1 / t); a search from the best so far
that succeeds now and then and takes a share of the way that is left (a (1+1) evolution strategy, Rechenberg 1973);
any curve of which a logger kept the best.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lcsearch.forecast.prior.variates import Variates

SHARE = 0.1
"""Of the studies."""


def keep_best(
    draws: Variates, task: Tensor, z: dict[str, Tensor], loss: Tensor, latent: Tensor, studies: int
) -> tuple[Tensor, Tensor]:
    """(N, S) losses and what they are without noise, in task units: best values so far in `SHARE` of the studies.

    A best value has no noise: what was reported is what is there.

    Args:
        draws: randomness.
        task: (N,) study of each curve.
        z: standard normal traits (N,); "floor" and "rate" are read.
        loss, latent: (N, S).
        studies: B.
    """
    has = draws.flip(studies, p=SHARE)
    rows = has[task].nonzero()[:, 0]
    if not rows.numel():
        return loss, latent
    of, n, s = task[rows], rows.numel(), loss.shape[1]
    kind = draws.choice(studies, weights=(0.3, 0.4, 0.3))[of, None]
    spread = draws.log_uniform(studies, low=0.02, high=1.0)[of]
    floor = (0.8 * spread * torch.special.ndtr(z["floor"][rows]))[:, None]
    speed = torch.exp(draws.uniform(studies, high=1.2)[of] * z["rate"][rows])
    # a random search: the k-th power of a uniform draw is close to the floor once in many
    power = draws.log_uniform(studies, low=0.4, high=6.0)[of] / speed
    random = floor + (1.0 - floor) * draws.uniform(n, s) ** power.clamp(0.1, 20.0)[:, None]
    # from the best so far: less and less often
    often = draws.log_uniform(studies, low=0.03, high=0.9)[of] * speed
    tired = draws.uniform(studies, high=1.2)[of, None]
    later = (1.0 + torch.arange(s, device=loss.device) / (0.1 * s)) ** -tired
    hit = draws.uniform(n, s) < (often[:, None] * later).clamp(max=1.0)
    step = draws.log_uniform(studies, low=0.03, high=0.7)[of, None] * draws.kumaraswamy(n, s, a=0.6, b=1.5)
    hit[:, 0] = False
    from_best = floor + (1.0 - floor) * torch.where(hit, 1.0 - step, 1.0).cumprod(-1)
    made = torch.where(kind == 0, random, torch.where(kind == 1, from_best, loss[rows]))
    # scores of few cases come in levels: many ties
    levels = draws.log_uniform(studies, low=15.0, high=3000.0)[of, None]
    coarse = draws.flip(studies, p=0.35)[of, None]
    made = torch.where(coarse, torch.round(made * levels) / levels, made).cummin(-1).values
    loss, latent = loss.clone(), latent.clone()
    loss[rows], latent[rows] = made, made
    return loss, latent
