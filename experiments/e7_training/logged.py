"""The objective of every way: the task's own, seeded by the search alone, each epoch written down as it ends.

Copied beside the task by run.py, with settings.json: `task`, its module; `constants` of that module; `seed`.
"""

from __future__ import annotations

import importlib
import json
import time
from pathlib import Path
from typing import Any

from lcsearch.sweep import Context

HERE = Path(__file__).resolve().parent
SETTINGS, EPOCHS = HERE / "settings.json", HERE / "epochs.jsonl"


class Logged:
    """A context that keeps [trial, epoch, value, seconds of its training, time] of every report in epochs.jsonl.

    Whatever a context does, that is reports, looks, turns and checkpoints, is no training.
    """

    def __init__(self, ctx: Context, seed: int) -> None:
        self._ctx, self.seed = ctx, seed
        self._trained, self._since = 0.0, time.perf_counter()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ctx, name)

    @property
    def checkpoint_due(self) -> bool:
        self._pause()
        due = self._ctx.checkpoint_due
        self._go_on()
        return due

    def report(self, value: float, step: int) -> None:
        """Written down before anybody may stop the trial over it."""
        self._pause()
        with EPOCHS.open("a") as log:
            log.write(json.dumps([self._ctx.number, step, value, round(self._trained, 5), time.time()]) + "\n")
        self._trained = 0.0
        self._ctx.report(value, step)
        self._go_on()

    def save(self, state: dict[str, Any], step: int) -> None:
        self._pause()
        self._ctx.save(state, step)
        self._go_on()

    def load(self) -> Any:
        self._pause()
        kept = self._ctx.load()
        self._go_on()
        return kept

    def _pause(self) -> None:
        self._trained += time.perf_counter() - self._since

    def _go_on(self) -> None:
        self._since = time.perf_counter()


def train(ctx: Context) -> None:
    """Train one configuration; what comes of it follows from the configuration and the search's seed."""
    settings = json.loads(SETTINGS.read_text())
    task = importlib.import_module(settings["task"])
    for name, value in settings["constants"].items():
        setattr(task, name, value)
    task.train(Logged(ctx, settings["seed"]))
