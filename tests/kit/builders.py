"""Short ways to build trials, banks and snapshots, and a slow reference for what a bank answers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings

from lcsearch.curves import Curve, Floats
from lcsearch.engine.policy import Policy
from lcsearch.goal import Direction, Goal, Judged
from lcsearch.study import Bank, Snapshot, Status, Trial

props = settings(
    derandomize=True, deadline=None, database=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
"""For every property: the same examples every time, nothing written to disk, however slow the machine."""


def goal(direction: Direction = "minimize", horizon: float = 10, judged: Judged = "best") -> Goal:
    return Goal("loss", direction, horizon, judged)


def early_policy(**fields: Any) -> Policy:
    """A policy for short histories: two startup trials, stops from the fourth observation on, whatever the defaults."""
    return Policy(**{"n_startup_trials": 2, "min_observations": 4, **fields})


def trial(
    uid: str,
    values: Iterable[float],
    status: Status = Status.COMPLETE,
    *,
    first: float = 0,
    steps: Sequence[float] | None = None,
    **fields: Any,
) -> Trial:
    """A trial that reported `values` at `steps`, or at first, first + 1, ..."""
    reported = list(values)
    at = [first + i for i in range(len(reported))] if steps is None else list(steps)
    return Trial(uid, Curve.of(at, reported), {}, status, **fields)


def snapshot(of: Goal, finished: Iterable[Trial], live: Iterable[Trial] = (), *, study: str = "s") -> Snapshot:
    return Snapshot(study, of, Bank(of).extend(finished), tuple(live))


def mirrored_goal(of: Goal) -> Goal:
    return replace(of, direction="maximize" if of.direction == "minimize" else "minimize")


def mirrored_trial(of: Trial) -> Trial:
    steps, values = of.curve.reports()
    return replace(of, curve=Curve.of(steps, -values))


def mirrored(of: Snapshot) -> Snapshot:
    """All values negated and the direction turned: nothing a decision says may change but the signs."""
    return snapshot(mirrored_goal(of.goal), map(mirrored_trial, of.bank), map(mirrored_trial, of.live), study=of.study)


def slow_at(bank: Bank, step: float, *, best: bool) -> list[float]:
    """Bank.at in plain Python, trial by trial."""
    out = []
    for one in bank:
        steps, losses = (a.tolist() for a in one.curve.losses(bank.goal.sign))
        before = [loss for s, loss in zip(steps, losses, strict=True) if s <= step]
        silent = not before or (steps[-1] < step and one.status is not Status.COMPLETE)
        out.append(math.nan if silent else (min(before) if best else before[-1]))
    return out


def others_at(snapshot: Snapshot, step: float, uid: str) -> Floats:
    """(m,) losses at `step` of every other trial that says something about it."""
    finished = snapshot.bank.at(step, best=snapshot.goal.judged == "best")
    return np.concatenate([finished[~np.isnan(finished)], snapshot.beside(step, uid)])
