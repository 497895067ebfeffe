"""Syne Tune 0.13's schedulers on our tables, in an environment of their own (see ../README.md)."""

from __future__ import annotations

import datetime
import logging
from typing import Any

import numpy as np
from syne_tune.backend.trial_status import Trial
from syne_tune.config_space import choice, uniform
from syne_tune.optimizer import baselines
from syne_tune.optimizer.scheduler import SchedulerDecision
from table_search import Space, Table, run

logging.disable(logging.WARNING)
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "Syne Tune ASHA, promotion": ("ASHA", {"type": "promotion"}),
    "Syne Tune ASHA, stopping": ("ASHA", {"type": "stopping"}),
    "Syne Tune PASHA": ("PASHA", {}),
    "Syne Tune SyncHyperband": ("SyncHyperband", {}),
    "Syne Tune BOHB": ("BOHB", {"type": "promotion"}),
    "Syne Tune HyperTune": ("HyperTune", {"type": "promotion"}),
    "Syne Tune MOBSTER": ("MOBSTER", {"type": "promotion"}),
    "Syne Tune DyHPO": ("DyHPO", {}),
}
NOW = datetime.datetime(2026, 1, 1)


class SyneTune:
    """As its Tuner drives a scheduler."""

    def __init__(self, name: str, table: Table, seed: int) -> None:
        np.random.seed(seed)  # noqa: NPY002 (the library draws from it)
        self.space, self.length = Space(table), table.losses.shape[1]
        space: dict[str, Any] = {
            name: choice(self.space.words[name]) if name in self.space.words else uniform(0.0, 1.0)
            for name in self.space.names
        }
        kind, knobs = KINDS[name]
        if kind != "BOHB":  # its density searcher takes no list: its proposals go to the nearest row
            distinct = {tuple(config.values()): config for config in self.space.configs}
            knobs = {**knobs, "search_options": {"restrict_configurations": list(distinct.values())}}
        self.scheduler = getattr(baselines, kind)(
            {**space, "epochs": table.losses.shape[1]},
            metric="loss",
            mode="min",
            resource_attr="epoch",
            max_resource_attr="epochs",
            random_seed=seed,
            **knobs,
        )
        self.trials: dict[int, Trial] = {}
        self.rows: dict[int, int] = {}

    def next(self) -> tuple[int, int]:
        new = len(self.trials)
        suggestion = self.scheduler.suggest(new)
        if suggestion is None:
            raise RuntimeError("the scheduler suggests nothing more")
        if not suggestion.spawn_new_trial_id:
            trial = suggestion.checkpoint_trial_id
            if suggestion.config is not None:
                self.trials[trial] = Trial(trial, suggestion.config, NOW)
            return trial, self.rows[trial]
        self.trials[new] = Trial(new, suggestion.config, NOW)
        self.rows[new] = self.space.row(suggestion.config)
        self.scheduler.on_trial_add(self.trials[new])
        return new, self.rows[new]

    def report(self, trial: int, step: int, loss: float) -> bool:
        one = self.trials[trial]
        result = {"loss": loss, "epoch": step}
        decision = self.scheduler.on_trial_result(one, result)
        if decision != SchedulerDecision.CONTINUE:
            self.scheduler.on_trial_remove(one)
        elif step == self.length:
            self.scheduler.on_trial_complete(one, result)
        return bool(decision == SchedulerDecision.CONTINUE)


if __name__ == "__main__":
    run(SyneTune, tuple(KINDS), "syne-tune 0.13.0")
