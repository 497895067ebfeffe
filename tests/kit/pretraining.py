"""A tiny network, objective and source with the interfaces of the real ones; run as a script, it trains them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lcsearch.forecast.network.studies import Studies
from lcsearch.pretrain.loop import Objective, Outcome, train
from lcsearch.pretrain.recipe import Recipe, SizeSpec

SIZE = {
    **{"curve_width": 4, "curve_layers": 1, "curve_heads": 2, "study_width": 4, "study_layers": 1, "study_heads": 2},
    **{"pair_width": 4, "bins": 3},
}
RECIPE: dict[str, Any] = {
    "name": "toy",
    "steps": 12,
    "batch": 3,
    "learning_rate": 0.01,
    "size": SIZE,
    "threads": 1,
    "log_every": 1,
    "checkpoint_seconds": 3600.0,
}
YAML = """\
name: tiny
steps: 3
batch: 2
learning_rate: 1e-3
size: {curve_width: 8, curve_layers: 1, curve_heads: 2, study_width: 8,
  study_layers: 1, study_heads: 2, pair_width: 4, bins: 8}
device: cpu
threads: 1
"""
"""A recipe file for the real network, as small as it may be."""


def recipe(**changes: Any) -> Recipe:
    return Recipe.model_validate({**RECIPE, **changes})


class Quiet:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.steps: list[int] = []

    def begin(self, recipe: Recipe, step: int, parameters: int, device: str) -> None:
        self.told.append(f"begin after {step}")

    def step(self, step: int, loss: float, smooth: Mapping[str, float]) -> None:
        self.steps.append(step)

    def tell(self, text: str) -> None:
        self.told.append(text)

    def end(self) -> None:
        self.told.append("end")


class Net(nn.Module):
    """Predicts the last report from the first; dropout, so that the global generator matters too."""

    calls: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(1, width), nn.Linear(width, 1)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, first: Tensor) -> Tensor:
        self.calls += 1
        hidden = torch.nn.functional.dropout(torch.tanh(self.one(first[..., None])), 0.1, self.training)
        found: Tensor = self.two(hidden)[..., 0]
        return found


def make_network(size: SizeSpec) -> nn.Module:
    return Net(size.curve_width)


def objective(network: nn.Module, studies: Studies, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
    noise = 0.01 * torch.randn(studies.loss.shape[:2], generator=generator, device=generator.device)
    error = network(studies.loss[:, :, 0]) - studies.loss[:, :, -1] - noise
    return error.square().mean(), {"error": float(error.detach().abs().mean())}


def source(generator: torch.Generator, n: int) -> Studies:
    c, s, d = 4, 5, 2
    loss = torch.rand(n, c, s, generator=generator).cumsum(-1)
    return Studies(
        steps=torch.arange(1.0, s + 1).expand(n, s).contiguous(),
        length=torch.full((n,), s),
        loss=loss,
        latent=loss.clone(),
        reported=torch.full((n, c), s),
        present=torch.ones(n, c, dtype=torch.bool),
        rate=torch.full((n, c, s), torch.nan),
        params=torch.rand(n, c, d, generator=generator),
        kinds=torch.ones(n, d, dtype=torch.int64),
    )


def run(
    folder: Path,
    view: Quiet | None = None,
    *,
    objective: Objective = objective,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    start: Mapping[str, Tensor] | None = None,
    minutes: float | None = None,
    fresh: bool = False,
    **changes: Any,
) -> Outcome:
    return train(
        recipe(**changes),
        folder,
        make_network=make_network,
        objective=objective,
        source=source,
        view=view or Quiet(),
        evaluate=evaluate,
        start=start,
        minutes=minutes,
        fresh=fresh,
    )


def slow_source(generator: torch.Generator, n: int) -> Studies:
    import time

    time.sleep(0.005)
    return source(generator, n)


if __name__ == "__main__":  # a child to be killed: FOLDER STEPS
    train(
        recipe(steps=int(sys.argv[2]), checkpoint_seconds=0.02),
        Path(sys.argv[1]),
        make_network=make_network,
        objective=objective,
        source=slow_source,
        view=Quiet(),
    )
