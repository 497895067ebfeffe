"""Sweeps: one YAML file describes a search, `lcsearch run FILE` trains it with real worker processes.

An objective is a function of one argument, a :class:`Context`; it reports a metric step by step and saves
checkpoints, and that is all it needs to know of lcsearch.

>>> def train(ctx):
...     for epoch in range(1, ctx.max_steps + 1):
...         ctx.report(1.0 / (epoch * ctx.params["lr"]), epoch)
"""

from __future__ import annotations

from lcsearch.extras import need_sweep

need_sweep("lcsearch.sweep")

from lcsearch.checkpoint import Checkpoint  # noqa: E402  # after the check of what it imports
from lcsearch.sweep.objective.context import Context, Interrupted, Stopped  # noqa: E402

__all__ = ["Checkpoint", "Context", "Interrupted", "Stopped"]
