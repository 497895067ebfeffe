"""What the small networks are trained on: batches of single curves, drawn from one generator each."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import mcmc
import numpy as np
import torch
from peers import FARTHEST, LONGEST, LcPfn, Wide, own_scale
from torch import Tensor

from lcsearch.curves import Floats
from lcsearch.forecast.prior import draw

QUERIES = 16
"""Of a curve of LC-PFN's prior, at random later steps."""
_ACCEPTED = 0.18
"""Share of the draws that keep LC-PFN's conditions, rather less."""


class Batch(NamedTuple):
    """Arguments of `SingleCurve` and, in the network's unit, the answers (B, Q)."""

    times: Tensor
    values: Tensor
    seen: Tensor
    asked: Tensor
    kind: Tensor
    target: Tensor


Source = Callable[[int, torch.Generator], Batch]


def lc_pfn_curves(n: int, rng: np.random.Generator) -> Floats:
    """(n, LONGEST) noisy losses of LC-PFN's prior, 1 - y."""
    found = np.empty((0, mcmc.DIMENSIONS))
    ends = mcmc.checked(np.array([float(LONGEST)]))
    while len(found) < n:
        some = mcmc.draw(int((n - len(found)) / _ACCEPTED) + 1, rng)
        found = np.concatenate([found, some[mcmc.allowed(mcmc.values(some, ends))]])
    found = found[:n]
    y = mcmc.values(found, np.arange(1.0, LONGEST + 1.0)[None])
    return np.asarray(1.0 - y - np.exp(found[:, -1:]) * rng.standard_normal(y.shape))


def lc_pfn(n: int, generator: torch.Generator) -> Batch:
    """n curves, all cut after the same number of reports, any from 1 to 99."""
    rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
    v = torch.from_numpy(lc_pfn_curves(n, rng)).float()
    cut = int(rng.integers(1, LONGEST))
    later = torch.from_numpy(rng.integers(cut, LONGEST, (n, QUERIES)))
    m = torch.tensor(float(LONGEST))
    times = LcPfn.clock(torch.arange(1.0, cut + 1.0), m).expand(n, -1, -1)
    seen = torch.ones(n, cut, dtype=torch.bool)
    asked = LcPfn.clock(later + 1.0, m)
    return Batch(times, LcPfn.shown(v[:, :cut]), seen, asked, torch.zeros_like(later), v.gather(1, later))


def wide(n: int, generator: torch.Generator) -> Batch:
    """The finite curves of n small studies, cut anywhere, rather early: the final value and best, and those of a step.

    Whoever asks about a curve that does not end finite is not asked here.
    """
    studies = draw(n, generator, trials=(1, 2), horizon=(12, LONGEST))
    task, trial = studies.present.nonzero(as_tuple=True)
    loss, length = studies.loss[task, trial].double(), studies.length[task]
    place = torch.arange(loss.shape[1])
    whole = (loss.isfinite() | (place >= length[:, None])).all(1)
    loss, length = loss[whole], length[whole]

    def uniform() -> Tensor:
        return torch.rand(len(loss), generator=generator)

    share = torch.exp(math.log(0.04) + (math.log(0.95) - math.log(0.04)) * uniform())
    cut = torch.minimum((share * length).round().long().clamp(min=2), length - 1)
    at = torch.stack([length, length, *(cut + 1 + (uniform() * (length - cut)).long() for _ in range(2))], 1)
    at = torch.minimum(at, length[:, None])  # a uniform that rounds up to 1
    kind = torch.tensor([0, 1, 0, 1]).expand(len(loss), -1)
    best = loss.cummin(1).values
    target = torch.where(kind == 0, loss.gather(1, at - 1), best.gather(1, at - 1))
    last = loss.gather(1, cut[:, None] - 1)
    loss, place = loss[:, : int(cut.max())], place[: int(cut.max())]
    seen = place < cut[:, None]
    scale = own_scale(loss, seen, last)[:, None]

    def bent(y: Tensor) -> Tensor:
        return torch.asinh((y - last) / scale).clamp(-FARTHEST, FARTHEST).float()

    m = length[:, None].float()
    times = Wide.clock((place + 1.0).expand_as(loss), m.expand_as(loss))
    shown = Wide.shown(torch.where(seen, bent(loss), 0.0))
    return Batch(times, shown, seen, Wide.clock(at.float(), m.expand_as(at)), kind, bent(target))
