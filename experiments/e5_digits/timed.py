"""The digits objective with every `should_prune()` timed; copied beside digits.py by run.py."""

from __future__ import annotations

import json
import time

import digits  # stands beside this file once copied
import optuna

from lcsearch.sweep import Context

_times: list[float] = []
_should_prune = optuna.trial.Trial.should_prune


def _timed(trial: optuna.trial.Trial) -> bool:
    start = time.perf_counter()
    try:
        return _should_prune(trial)
    finally:
        _times.append(time.perf_counter() - start)


optuna.trial.Trial.should_prune = _timed  # type: ignore[method-assign, assignment]


def train(ctx: Context) -> None:
    """Train as the sweep does and leave the seconds of every look beside the checkpoints."""
    _times.clear()
    try:
        digits.train(ctx)
    finally:
        (ctx.checkpoint_dir / "looks.json").write_text(json.dumps(_times))
