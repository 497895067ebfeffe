"""Configurations of a study's trials, and the factors through which they shape the curves."""

from __future__ import annotations

import torch
from torch import Tensor

from lcsearch.forecast.prior.variates import Variates

DIMENSIONS = 10
FACTORS = 4
"""Factors of a trial: the first is how good it is; traits of the curve load on all of them."""
_HIDDEN, _LEVELS, _SPARE = 24, 5, 2


def configurations(draws: Variates, studies: int, trials: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw configurations and what they determine.

    A random network of one hidden tanh layer over a few relevant dimensions, sines of it for rougher landscapes, maps a
    configuration to factors of mean 0 and variance 1 over its space. Some studies draw their trials at random, some
    rather among the better ones (as TPE would, Bergstra et al. 2011).

    Returns:
        params (B, C, D), kinds (B, D) as in :class:`~lcsearch.forecast.network.studies.Studies`, and factors (B, C, 4),
        standard normal: part from the configuration, part the trial's own, in shares that differ by study.
    """
    b, m, d = studies, _SPARE * trials, DIMENSIONS
    count = torch.floor(draws.uniform(b, 1) * (d + 1)).long()
    there = torch.arange(d, device=draws.device) < count
    category = draws.flip(b, d, p=0.22) & there
    kinds = torch.where(category, 2, 1) * there
    values = draws.uniform(b, m, d)
    grid = torch.floor(draws.uniform(b, 1, d, low=2.0, high=10.0))  # batch sizes, layers: a few levels
    gridded = draws.flip(b, 1, d, p=0.2)
    values = torch.where(gridded, torch.round(values * grid) / grid, values)
    levels = torch.floor(draws.uniform(b, 1, d, low=2.0, high=_LEVELS + 1.0))
    index = torch.floor(values * levels).clamp(max=levels - 1.0)
    params = torch.where(category[:, None], index, values)
    # A parameter exists or not by the value of the one before it: optimizer -> momentum.
    depends = draws.flip(b, d, p=0.15) & there
    depends[:, 0] = False
    parent = torch.roll(torch.where(category[:, None], index > 0, values > 0.5), 1, dims=-1)
    gone = (depends[:, None] & ~parent) | ~there[:, None]

    # Inputs of the network: numbers around 0, categories by a random place, absent ones in the middle.
    places = draws.normal(b, d, _LEVELS)
    place = places.gather(2, index.transpose(1, 2).long()).transpose(1, 2)
    inputs = torch.where(category[:, None], place, 3.4 * (values - 0.5))
    inputs = torch.where(gone, 0.0, inputs)
    relevance = draws.dirichlet_half(b, d).sqrt() * there
    relevance = relevance / relevance.norm(dim=-1, keepdim=True).clamp(min=1e-6)
    rough = draws.log_uniform(b, 1, 1, low=0.15, high=1.5)
    first = draws.normal(b, d, _HIDDEN) * relevance[:, :, None] * rough
    hidden = torch.tanh(inputs @ first + 0.7 * draws.normal(b, 1, _HIDDEN))
    smooth = hidden @ draws.normal(b, _HIDDEN, FACTORS)
    # A best value inside the range, as learning rates have: further away is worse.
    centre = draws.uniform(b, 1, d, low=-1.2, high=1.2)
    bowl = ((inputs - centre).square() * relevance[:, None].square()).sum(-1)
    smooth[..., 0] = smooth[..., 0] - draws.uniform(b, 1, high=6.0) * bowl
    spread = smooth.std(1, keepdim=True)
    known = (smooth - smooth.mean(1, keepdim=True)) / spread.clamp(min=1e-6)

    # Which candidates are tried: Gumbel top-k, that is without replacement in proportion to exp(greed * goodness).
    greed = torch.where(draws.flip(b, 1, p=0.3), draws.uniform(b, 1, high=2.0), 0.0)
    gumbel = -torch.log(-torch.log(draws.uniform(b, m).clamp(1e-7, 1.0 - 1e-7)))
    chosen = (greed * known[..., 0] + gumbel).topk(trials, dim=1).indices
    chosen = chosen.gather(1, draws.uniform(b, trials).argsort(1))
    params = torch.where(gone, torch.nan, params).gather(1, chosen[..., None].expand(-1, -1, d))
    known = known.gather(1, chosen[..., None].expand(-1, -1, FACTORS))

    # Not at all in a fifth of the studies, nearly wholly in many.
    share = torch.where(draws.flip(b, 1, 1, p=0.8), draws.kumaraswamy(b, 1, 1, a=4.0, b=0.6), 0.0)
    share = torch.where((count == 0)[..., None] | (spread < 1e-6), 0.0, share)
    factors = share.sqrt() * known + (1.0 - share).sqrt() * draws.normal(b, trials, FACTORS)
    return params, kinds, factors


def traits(draws: Variates, factors: Tensor, names: tuple[str, ...], good: dict[str, float]) -> dict[str, Tensor]:
    """Standard normal traits (B, C) that share the trial's factors, so that they go together within a study.

    Args:
        draws: randomness.
        factors: (B, C, F).
        names: of the traits.
        good: correlation that a trait has with the first factor in the median study; 0 unless named.
    """
    b, c, f = factors.shape
    direction = draws.normal(b, f, len(names)) * 0.5
    direction[:, 0] += torch.tensor([3.0 * good.get(name, 0.0) for name in names], device=draws.device)
    direction = direction / direction.norm(dim=1, keepdim=True)
    share = draws.uniform(b, 1, len(names), low=0.5)
    made = share.sqrt() * (factors @ direction) + (1.0 - share).sqrt() * draws.normal(b, c, len(names))
    return {name: made[..., k] for k, name in enumerate(names)}
