"""NePS 0.17's bracket optimizers on our tables, in an environment of their own (see ../README.md).

PriorBand is given no prior by anybody here; it takes the middle of the space for one.
"""

from __future__ import annotations

import logging
import random
from typing import Any

import neps
import numpy as np
import torch
from neps import algorithms
from table_search import Space, Table, run, told_losses

logging.disable(logging.WARNING)
torch.set_num_threads(1)
KINDS = {
    "NePS ASHA": algorithms.asha,
    "NePS Hyperband": algorithms.hyperband,
    "NePS PriorBand": algorithms.priorband,
}


class Neps:
    """A turn ends where its rung is; only that report is told, scaled to [0, 1]."""

    def __init__(self, name: str, table: Table, seed: int) -> None:
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 (the library draws from it)
        torch.manual_seed(seed)
        self.space = Space(table)
        told = told_losses(table)
        self.low, self.wide = float(told.min()), float(told.max() - told.min()) or 1.0
        space: dict[str, Any] = {
            name: neps.HPOCategorical(self.space.words[name]) if name in self.space.words else neps.HPOFloat(0.0, 1.0)
            for name in self.space.names
        }
        space["epoch"] = neps.HPOInteger(1, table.losses.shape[1], is_fidelity=True)
        self.optimizer = neps.AskAndTell(KINDS[name](neps.SearchSpace(space)))
        self.asked: dict[int, tuple[Any, int]] = {}
        self.rows: dict[int, int] = {}

    def next(self) -> tuple[int, int]:
        asked = self.optimizer.ask()
        trial = int(asked.id.partition("_")[0])
        self.asked[trial] = asked, int(asked.config["epoch"])
        if trial not in self.rows:
            self.rows[trial] = self.space.row(asked.config)
        return trial, self.rows[trial]

    def report(self, trial: int, step: int, loss: float) -> bool:
        asked, until = self.asked[trial]
        if step < until:
            return True
        self.optimizer.tell(asked, {"objective_to_minimize": (loss - self.low) / self.wide, "cost": 1.0})
        return False


if __name__ == "__main__":
    run(Neps, tuple(KINDS), "neural-pipeline-search 0.17.0")
