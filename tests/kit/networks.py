"""Small networks with random weights, made without touching the global random state."""

from __future__ import annotations

import torch

from lcsearch.forecast.network.forecaster import NetworkForecaster
from lcsearch.forecast.network.model import CurveNetwork
from lcsearch.forecast.network.size import Size

SMALL = Size(
    curve_width=32,
    curve_layers=2,
    curve_heads=4,
    study_width=32,
    study_layers=2,
    study_heads=4,
    pair_width=16,
    bins=40,
)


def network(size: Size = SMALL, seed: int = 0) -> CurveNetwork:
    """The same network for the same seed, in every process."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = CurveNetwork(size)
        with torch.no_grad():  # as made, it hardly looks at what it is told
            for one in (*made.head, made.pair, made.token, made.pair_curve, made.match_out):
                if isinstance(one, torch.nn.Linear):
                    one.weight.mul_(3.0)
    return made


def forecaster(seed: int = 0) -> NetworkForecaster:
    """With :func:`network`'s weights."""
    return NetworkForecaster(network(seed=seed), f"random-{seed}")
