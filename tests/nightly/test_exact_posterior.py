"""A network trained on a family whose posterior is known must come to that posterior: a line, and a change of level.

Training takes minutes, so that test runs only where LCSEARCH_NIGHTLY is set. One trial a study: nothing but its own
curve tells.

Both families are Gaussian given the noise's sd and, in the second, the time of the change; the level is free (flat
prior) and so is the scale (1 / sd), which are the invariances that the network has by construction. So differences from
the first report are Student-t given the time of the change (O'Hagan & Forster 2004, section 11), and the time's
posterior weighs them. The exact predictive is then compared with the network's, in nats.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy.special import gammaln, stdtr

from lcsearch.curves import Curve, Floats
from lcsearch.forecast.contract import Query
from lcsearch.forecast.network.forecaster import NetworkForecaster
from lcsearch.forecast.network.model import CurveNetwork
from lcsearch.forecast.network.objective import objective
from lcsearch.forecast.network.size import Size
from lcsearch.forecast.network.studies import Studies
from lcsearch.goal import Goal
from lcsearch.study import FinishedTrials, Snapshot, Trial

H = 24
SLOPE, SHIFT = 0.5, 4.0  # prior sds, in units of the noise's
TIME = np.arange(1.0, H + 1.0)
CUTS = (4, 8, 16)
Kernels = Sequence[Floats]

nightly = pytest.mark.skipif("LCSEARCH_NIGHTLY" not in os.environ, reason="trains for minutes: LCSEARCH_NIGHTLY=1")


def line() -> Kernels:
    """Covariance of the reports without their level, in units of the noise's variance."""
    return [np.eye(H) + SLOPE**2 * np.outer(TIME, TIME)]


def change() -> Kernels:
    """One for every time of the change, the last of them never."""
    after = [(c <= TIME).astype(float) for c in range(2, H + 2)]
    return [np.eye(H) + SHIFT**2 * np.outer(a, a) for a in after]


def draw(kernels: Kernels, n: int, rng: np.random.Generator) -> Floats:
    """(n, H) curves of random level and scale."""
    roots = np.array([np.linalg.cholesky(k) for k in kernels])[rng.integers(len(kernels), size=n)]
    curves = np.einsum("nij,nj->ni", roots, rng.standard_normal((n, H)))
    drawn: Floats = np.exp(2 * rng.standard_normal((n, 1))) * (curves + 10 * rng.standard_normal((n, 1)))
    return drawn


def exact(kernels: Kernels, seen: Floats) -> tuple[Floats, Floats, Floats, float]:
    """Weights, centres, scales and degrees of freedom of the Student-t mixture of the last report given the first."""
    n = len(seen)
    minus = np.concatenate([-np.ones((H - 1, 1)), np.eye(H - 1)], 1)  # differences from the first report
    z, rows = seen[1:] - seen[0], []
    for kernel in kernels:
        k = minus @ kernel @ minus.T
        known, cross = k[: n - 1, : n - 1], k[-1, : n - 1]
        inverse = np.linalg.inv(known)
        q = float(z @ inverse @ z)
        evidence = -0.5 * np.linalg.slogdet(known)[1] - 0.5 * (n - 1) * np.log(q)
        rows.append((evidence, seen[0] + cross @ inverse @ z, q / (n - 1) * (k[-1, -1] - cross @ inverse @ cross)))
    evidence, centre, square = np.array(rows).T
    weight = np.exp(evidence - evidence.max())
    return weight / weight.sum(), centre, np.sqrt(square), float(n - 1)


def log_density(kernels: Kernels, seen: Floats, y: float) -> float:
    w, m, s, v = exact(kernels, seen)
    x = (y - m) / s
    each = (
        gammaln((v + 1) / 2) - gammaln(v / 2) - 0.5 * np.log(v * np.pi) - np.log(s) - (v + 1) / 2 * np.log1p(x * x / v)
    )
    return float(np.log(w @ np.exp(each)))


def trained(kernels: Kernels, steps: int, seed: int) -> CurveNetwork:
    """A small network after so many batches of fresh curves."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = CurveNetwork(Size(48, 2, 4, 64, 1, 4, 16, 100))
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.0)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.05)
    n = 192
    blank, none = torch.full((n, 1, H), torch.nan), torch.zeros((n, 1), dtype=torch.int64)
    for _ in range(steps):
        curves = draw(kernels, n, rng)
        curves = (curves - curves[:, :1]) / np.abs(curves).max(1, keepdims=True)  # float32 is enough then
        studies = Studies(
            steps=torch.as_tensor(TIME, dtype=torch.float32).expand(n, H),
            length=torch.full((n,), H),
            loss=torch.as_tensor(curves, dtype=torch.float32).unsqueeze(1),
            latent=blank,
            reported=none + H,
            present=torch.ones((n, 1), dtype=torch.bool),
            rate=blank,
            params=torch.zeros((n, 1, 0)),
            kinds=torch.zeros((n, 0), dtype=torch.int64),
        )
        loss, _ = objective(network, studies, generator)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        plan.step()
    return network


def test_the_reference_is_the_conjugate_posterior_of_a_line() -> None:
    # With a flat slope too this is ordinary regression: a t of n - 2 degrees; a wide prior on the slope comes near it.
    rng = np.random.default_rng(0)
    seen = rng.standard_normal(12)
    wide = [np.eye(H) + 1e4 * np.outer(TIME, TIME)]
    _, (centre,), (scale,), _ = exact(wide, seen)
    design = np.stack([np.ones(12), TIME[:12]], 1)
    beta, (rss,), *_ = np.linalg.lstsq(design, seen, rcond=None)
    at = np.array([1.0, H])
    assert centre == pytest.approx(at @ beta, abs=1e-3)
    square = rss / 11 * (1 + at @ np.linalg.inv(design.T @ design) @ at)  # 11: the slope's prior is proper
    assert scale == pytest.approx(np.sqrt(square), rel=1e-2)


def test_the_reference_is_calibrated() -> None:
    rng = np.random.default_rng(1)
    for kernels in (line(), change()):
        levels = []
        for curve in draw(kernels, 400, rng):
            w, m, s, v = exact(kernels, curve[:8])
            levels.append(float(w @ stdtr(v, (curve[-1] - m) / s)))
        assert np.abs(np.sort(levels) - (np.arange(400) + 0.5) / 400).max() < 0.08  # Kolmogorov-Smirnov at .01


@nightly
@pytest.mark.parametrize(("kernels", "allowed"), [(line(), 0.08), (change(), 0.12)], ids=["line", "change"])
def test_the_network_comes_to_the_exact_posterior(kernels: Kernels, allowed: float) -> None:
    network = NetworkForecaster(trained(kernels, 3000, 0), "0")
    goal = Goal("loss", "minimize", float(H), "final")
    snapshot, rng = Snapshot("s", goal, FinishedTrials(goal)), np.random.default_rng(2)
    curves = draw(kernels, 400, rng)
    for n in CUTS:
        queries = [Query(Trial(f"{i}", Curve.of(TIME[:n], c[:n])), "value", float(H)) for i, c in enumerate(curves)]
        answers = network.forecast(snapshot, queries)
        low, high = answers.quantile([0.1587, 0.8413] * np.ones((400, 1))).T
        y, h = curves[:, -1], 0.05 * (high - low)
        ours = np.log((answers.cdf(y + h) - answers.cdf(y - h)) / (2 * h))
        best = np.array([log_density(kernels, c[:n], c[-1]) for c in curves])
        gap = best - ours
        error = gap.std() / np.sqrt(gap.size)
        print(f"{n} reports: exact {best.mean():.3f}, network {ours.mean():.3f}, gap {gap.mean():.3f} +- {error:.3f}")
        assert gap.mean() < allowed + 2 * error
