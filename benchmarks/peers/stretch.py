"""An affine-invariant ensemble sampler, many independent targets at a time.

The stretch move (Goodman & Weare 2010, "Ensemble samplers with affine invariance"): a walker x of one half of the
ensemble picks a partner c of the other half and proposes

    y = c + z (x - c),    z = ((a - 1) u + 1)^2 / a,    u ~ U(0, 1), a = 2,

accepted with probability min(1, z^(D - 1) p(y) / p(x)). The halves take turns, so a half moves at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from lcsearch.curves import Floats

STRETCH = 2.0
_BLOCK = 64  # steps whose random numbers are drawn at once: few calls, little memory

LogDensity = Callable[[Floats], Floats]
"""(C, M, D) points of C targets -> (C, M) log densities up to a constant; -inf (or NaN) outside the support."""


def stretch(
    log_density: LogDensity, start: Floats, keys: Sequence[np.random.Generator], steps: int, keep: Sequence[int]
) -> tuple[Floats, Floats]:
    """Run C ensembles of W walkers for `steps` sweeps.

    Args:
        log_density: of all targets at once; a row must depend on its own target only.
        start: (C, W, D) walkers, W even and at least 2 D, each inside its target's support.
        keys: C generators, one a target: a target's walk does not depend on what is sampled beside it.
        steps: sweeps over both halves.
        keep: sweeps (from 0) after which the walkers are kept, rising.

    Returns:
        kept (C, len(keep), W, D) and the share of proposals accepted (C,).
    """
    x = np.array(start, np.float64)
    c, w, d = x.shape
    half = w // 2
    now = log_density(x)
    kept = np.empty((c, len(keep), w, d))
    accepted = np.zeros(c)
    rows, at = np.arange(c)[:, None], 0
    draws = np.empty((c, 0, 3, w))
    for step in range(steps):
        if step % _BLOCK == 0:
            n = min(_BLOCK, steps - step)
            draws = np.stack([key.random((n, 3, w)) for key in keys]) if c else np.empty((0, n, 3, w))
        for mine, others in ((slice(0, half), half), (slice(half, w), 0)):
            u, pick, toss = (draws[:, step % _BLOCK, i, mine] for i in range(3))
            z = ((STRETCH - 1.0) * u + 1.0) ** 2 / STRETCH
            partner = x[rows, others + np.minimum((pick * half).astype(np.intp), half - 1)]
            proposal = partner + z[..., None] * (x[:, mine] - partner)
            there = log_density(proposal)
            with np.errstate(divide="ignore", invalid="ignore"):
                yes = np.log(toss) < (d - 1.0) * np.log(z) + there - now[:, mine]  # NaN: no
            x[:, mine] = np.where(yes[..., None], proposal, x[:, mine])
            now[:, mine] = np.where(yes, there, now[:, mine])
            accepted += yes.sum(1)
        if at < len(keep) and step == keep[at]:
            kept[:, at] = x
            at += 1
    return kept, accepted / max(steps * w, 1)
