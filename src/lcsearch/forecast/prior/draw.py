"""Whole studies drawn from the prior: configurations, curves, metrics, noise, and the contexts schedulers leave."""

from __future__ import annotations

import torch
from torch import Tensor

from lcsearch.forecast.network.studies import Studies
from lcsearch.forecast.prior import noise, warps
from lcsearch.forecast.prior.configurations import configurations, traits
from lcsearch.forecast.prior.contexts import censor
from lcsearch.forecast.prior.losses import GOOD, TRAITS, Losses, losses
from lcsearch.forecast.prior.records import keep_best
from lcsearch.forecast.prior.variates import Variates

LARGEST = 1e35
"""Bound on the size of a value: float32 ends at 3.4e38."""


def draw(
    n: int,
    generator: torch.Generator,
    *,
    trials: tuple[int, int] = (4, 40),
    horizon: tuple[int, int] = (8, 2000),
    most_reports: int = 2_000_000,
) -> Studies:
    """Draw n studies.

    Args:
        n: studies.
        generator: the only source of randomness; everything happens on its device.
        trials: fewest and most trials of a study.
        horizon: fewest and most reports of a trial. The studies of one batch lie within a factor 1.3 of one another,
            so that little is padding; most batches have 10 to 120 reports.
        most_reports: bound on the reports of a batch, n C S: with long curves there are fewer trials a study.
    """
    draws = Variates(generator)
    length = _lengths(draws, n, horizon)
    s = int(length.max())
    most = max(min(trials[1], most_reports // max(n * s, 1)), trials[0])
    low, high = torch.log(torch.tensor([trials[0], most + 1.0])).tolist()
    count = torch.exp(draws.uniform(n, low=low, high=high)).long().clamp(trials[0], most)
    c = int(count.max())
    present = torch.arange(c, device=draws.device) < count[:, None]
    steps = _steps(draws, length, s)
    params, kinds, factors = configurations(draws, n, c)
    z = traits(draws, factors, TRAITS, GOOD)

    # From here on one row a curve.
    task, trial = present.nonzero(as_tuple=True)
    returns, schedules = draws.flip(n, p=0.12), draws.flip(n, p=0.35)
    u = (steps / steps[:, -1:])[task]
    rows = {name: value[task, trial] for name, value in z.items()}
    made = losses(draws, rows, task, u, length[task], returns, schedules & ~returns)
    loss, latent = _reports(draws, made, task, rows["noise"], returns)
    loss, latent = keep_best(draws, task, rows, loss, latent, n)
    loss, latent = _own_units(draws, loss, latent, task, returns)
    loss = torch.where(made.lost, torch.nan, loss)
    latent = torch.where(made.gone, torch.nan, latent)
    known = made.scheduled & draws.flip(n, p=0.6)
    rate = torch.where(known[task, None], made.rate, torch.nan)

    def scatter(values: Tensor, blank: float) -> Tensor:
        whole = values.new_full((n, c, s), blank)
        whole[task, trial] = values
        beyond = torch.arange(s, device=draws.device) >= length[:, None, None]
        return torch.where(beyond, blank, whole)

    studies = Studies(
        steps=steps,
        length=length,
        loss=scatter(loss, 0.0),
        latent=scatter(latent, 0.0),
        reported=torch.where(present, length[:, None], 0),
        present=present,
        rate=scatter(rate, torch.nan),
        params=torch.where(present[..., None], params, torch.nan),
        kinds=kinds,
    )
    return censor(studies, generator)


def _lengths(draws: Variates, n: int, horizon: tuple[int, int]) -> Tensor:
    """(n,) reports, around one centre for the batch: 10 to 120 in 85 % of the batches, up to the longest in 15 %."""
    low, high = horizon
    usual = max(low, 10), min(high, 120)
    if usual[0] >= usual[1]:
        usual = low, high
    centre = draws.log_uniform(1, low=float(usual[0]), high=float(usual[1]))
    tail = draws.log_uniform(1, low=float(low), high=float(high))
    centre = torch.where(draws.flip(1, p=0.85), centre, tail)
    around = 1.3 ** draws.uniform(n, low=-0.5, high=0.5)
    return torch.round(centre * around).long().clamp(max(low, 2), high)


def _steps(draws: Variates, length: Tensor, s: int) -> Tensor:
    """(n, S) 1, 2, ..., often; else every k steps, from elsewhere, or in geometric progression (data-set sizes)."""
    n = len(length)
    i = torch.minimum(torch.arange(1, s + 1, device=draws.device), length[:, None]).float()
    kind = draws.choice(n, 1, weights=(0.7, 0.15, 0.08, 0.07))
    every = torch.round(draws.log_uniform(n, 1, low=2.0, high=5000.0))
    start = torch.floor(draws.log_uniform(n, 1, low=1.0, high=20.0))
    # A factor 10 to 1000 in all.
    ratio = draws.log_uniform(n, 1, low=10.0, high=1000.0).log() / length[:, None]
    steps = torch.where(kind == 1, i * every, torch.where(kind == 2, i + start, i))
    return torch.where(kind == 3, 16.0 * torch.exp(ratio * i), steps)


def _reports(draws: Variates, made: Losses, task: Tensor, z: Tensor, returns: Tensor) -> tuple[Tensor, Tensor]:
    """The metric with and without noise, in task units, (N, S) each."""
    b = len(returns)
    kind = draws.choice(b, weights=(0.45, 0.1, 0.1, 0.23, 0.06, 0.06))
    kind = torch.where(returns, 0, kind)
    ranges = ((0.0, 1.0), (1e-3, 0.3), (0.4, 2.5), (0.1, 0.98), (0.1, 0.9), (0.5, 4.0))
    p = torch.stack([draws.uniform(b, low=low, high=high) for low, high in ranges], -1).gather(1, kind[:, None])[:, 0]
    shift = torch.where(draws.flip(b, p=0.3), draws.uniform(b, high=0.2), 0.0)
    q = torch.where(kind == 4, draws.log_uniform(b, low=0.03, high=0.3), shift)
    bounded = ((kind == 3) | (kind == 4))[task]
    latent = warps.warp(made.smooth, kind[task], p[task], q[task]) + made.added
    latent = torch.where(bounded[:, None], latent.clamp(0.0, 1.0), latent)

    sigma = draws.log_normal(b, median=1.2e-3, sigma=1.9).clamp(max=0.3) * draws.flip(b, p=0.95)
    # Where trials end close together their noise tends to be small too: ranks are mostly told by more than luck.
    sigma = torch.minimum(sigma, made.spread * draws.log_uniform(b, low=0.01, high=1.0))
    sigma = torch.where(returns, draws.log_uniform(b, low=3e-3, high=0.3), sigma)
    # Some trials are far noisier than others, yet hardly by more than they can gain.
    sigma = sigma[task] * torch.exp(draws.uniform(b, high=2.0)[task] * z)
    sigma = torch.minimum(sigma, torch.where(made.stuck, 0.3, 0.4 * made.gain))
    # What learns nothing hardly varies, returns least of all: the same action throughout.
    quiet = torch.where(draws.flip(b, p=0.6) | returns, draws.log_uniform(b, low=0.003, high=0.6), 1.0)
    sigma = torch.where(made.stuck, sigma * quiet[task], sigma) * ~made.constant
    shrink = torch.where(draws.flip(b, p=0.4), draws.uniform(b), 0.0)
    shrink = torch.where(returns, -shrink, shrink)
    over_time = noise.envelope(made.level, torch.where(made.stuck, 0.0, shrink[task]))
    # Noise of the gradient goes down with the learning rate.
    follows = (made.scheduled & draws.flip(b, p=0.6))[task]
    over_time = torch.where(follows[:, None], over_time * (0.05 + 0.95 * made.rate), over_time)
    # Relative to the value where that is above chance: a blow-up is noisy too.
    over_time = over_time * latent.abs().clamp(min=1.0)
    correlation = torch.where(draws.flip(b, p=0.4), draws.uniform(b, high=0.95), 0.0)[task]
    freedom = torch.where(draws.flip(b, p=0.35), draws.log_uniform(b, low=1.5, high=10.0), torch.inf)[task]
    unit = noise.unit_noise(draws, correlation, freedom, latent.shape[1])
    # Losses are rather thrown up than down; returns are thrown either way.
    down = torch.where(draws.flip(b, p=0.4) & ~returns, draws.uniform(b), 1.0)[task]
    loss = latent + sigma[:, None] * over_time * noise.skewed(unit, down)
    samples = torch.where(draws.flip(b, p=0.6), torch.round(draws.log_uniform(b, low=50.0, high=5e4)), 0.0)[task]
    loss = torch.where(bounded[:, None], warps.quantise(loss.clamp(0.0, 1.0), samples * bounded), loss)
    return loss, latent


def _own_units(draws: Variates, loss: Tensor, latent: Tensor, task: Tensor, returns: Tensor) -> tuple[Tensor, Tensor]:
    """A scale and an offset of the study's own; the offset at most 20 scales, so that float32 resolves the noise."""
    b = len(returns)
    scale = torch.where(draws.flip(b, p=0.4), 1.0, draws.log_uniform(b, low=1e-3, high=1e4))
    offset = torch.where(draws.flip(b, p=0.5), 0.0, draws.log_uniform(b, low=0.01, high=20.0))
    offset = torch.where(returns, -offset, offset)
    scale, offset = scale[task, None], offset[task, None]
    return tuple((scale * (y + offset)).clamp(-LARGEST, LARGEST) for y in (loss, latent))  # type: ignore[return-value]
