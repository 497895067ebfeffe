"""What the loop is run with: the network, its objective, the prior, and the figures that are watched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from lcsearch.forecast.network.model import CurveNetwork
from lcsearch.forecast.network.objective import objective as network_objective
from lcsearch.forecast.network.size import Size
from lcsearch.forecast.network.studies import Studies
from lcsearch.forecast.prior.contexts import censor
from lcsearch.forecast.prior.draw import draw
from lcsearch.pretrain.batches import Source, batch_of, mix
from lcsearch.pretrain.loop import Objective
from lcsearch.pretrain.randomness import generator_of
from lcsearch.pretrain.real import FEWEST_RUNS, MOST_RUNS, RealCurves, RealTask, balanced
from lcsearch.pretrain.recipe import Recipe, SizeSpec

WATCHED = 8
"""Batches that an evaluation looks at, the same ones every time."""


def make_network(size: SizeSpec) -> nn.Module:
    """A fresh network."""
    return CurveNetwork(Size(**size.model_dump()))


def objective(
    network: nn.Module, studies: Studies, generator: torch.Generator
) -> tuple[torch.Tensor, dict[str, float]]:
    """The network's own."""
    assert isinstance(network, CurveNetwork)
    return network_objective(network, studies, generator)


class Prior:
    """Draws studies from the prior, those of one batch of about one size."""

    def __call__(self, generator: torch.Generator, n: int) -> Studies:
        """About `n` studies of `TYPICAL_TRIALS`: more small ones, fewer large ones."""
        low, high = 2.0 * FEWEST_RUNS, 1.0 + MOST_RUNS
        share = torch.rand((), generator=generator, device=generator.device)
        trials = int(low * (high / low) ** float(share))
        return draw(balanced(n, trials), generator, trials=(max(3 * trials // 4, FEWEST_RUNS), trials))


class Censored:
    """Real studies as schedulers would have left them."""

    def __init__(self, tasks: Sequence[RealTask]) -> None:
        self._curves = RealCurves(tasks)

    def __call__(self, generator: torch.Generator, n: int) -> Studies:
        """`n` studies."""
        studies = self._curves.draw(generator, n)
        return replace(studies, reported=censor(studies, generator).reported)


def source_of(recipe: Recipe, tasks: Sequence[RealTask]) -> Source:
    """The recipe's mixture of the prior and the real tasks (which may be none where its share is 0)."""
    return mix(Prior(), Censored(tasks), recipe.real) if recipe.real else Prior()


def evaluation(
    objective: Objective, sources: Mapping[str, Source], n: int, seed: int = 0
) -> Callable[[nn.Module], dict[str, float]]:
    """Mean figures `source.figure` (and `source.loss`) over `WATCHED` batches of `n` studies of each source."""
    drawn: dict[str, list[Studies]] = {}

    def evaluate(network: nn.Module) -> dict[str, float]:
        device = next(network.parameters()).device
        found: dict[str, float] = {}
        for name, source in sources.items():
            if name not in drawn:  # steps of training are above 0
                drawn[name] = [batch_of(source, seed, -k, n) for k in range(1, WATCHED + 1)]
            for k, studies in enumerate(drawn[name]):
                chance = generator_of(seed, k, "evaluation", device)
                loss, figures = objective(network, studies.to(device), chance)
                for figure, value in {"loss": float(loss), **figures}.items():
                    found[f"{name}.{figure}"] = found.get(f"{name}.{figure}", 0.0) + value / WATCHED
        return found

    return evaluate
