"""Sweeps: one YAML file describes a search, `lcsearch run FILE` trains it with real worker processes.

An objective is a function of one argument, a :class:`Context`; it reports a metric step by step and saves
checkpoints, and that is all it needs to know of lcsearch.

>>> def train(ctx):
...     for epoch in range(1, ctx.max_steps + 1):
...         ctx.report(1.0 / (epoch * ctx.params["lr"]), epoch)
"""

from __future__ import annotations

from lcsearch.sweep.objective.checkpoint import Checkpoint
from lcsearch.sweep.objective.context import Context, Interrupted, Stopped

__all__ = ["Checkpoint", "Context", "Interrupted", "Stopped"]
