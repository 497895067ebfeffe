"""Short ways to build trials, banks and snapshots, and a slow reference for what a bank answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, seed, settings
from hypothesis.strategies import SearchStrategy

from lcsearch.curves import Curve, Floats
from lcsearch.goal import Direction, Goal, Judged
from lcsearch.stopping.policy import Policy
from lcsearch.study import FinishedTrials, Snapshot, Status, Trial

props = settings(
    derandomize=True, deadline=None, database=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
"""For every property: the same examples every time, nothing written to disk, however slow the machine."""


@cache
def _drawn(examples: SearchStrategy[Any]) -> tuple[Any, ...]:
    found: list[Any] = []
    _tried(examples, found.append)
    return tuple(found)


def _tried(examples: SearchStrategy[Any], holds: Callable[[Any], None]) -> None:
    @seed(0)
    @props
    @given(examples)
    def tried(example: Any) -> None:
        holds(example)

    tried()


def hold(examples: SearchStrategy[Any], holds: Callable[[Any], None]) -> None:
    """A property that many subjects are to have: the examples are drawn for the first of them alone.

    Drawing takes hypothesis longer than most subjects take to be tried. One that fails is made small as ever.

    Args:
        examples: the same object for every subject; nobody changes what it draws.
        holds: raises where the property does not hold.
    """
    try:
        for example in _drawn(examples):
            holds(example)
    except Exception:
        _tried(examples, holds)
        raise


INTERVALS = [
    # n_warmup_steps, interval_steps, report every, steps at which a hopeless trial is pruned
    (0, 1, 1, [0, 1, 2, 3, 4, 5]),
    (1, 1, 1, [1, 2, 3, 4, 5]),
    (1, 2, 1, [1, 3, 5]),
    (0, 3, 10, [*range(29)]),
    (2, 3, 10, [*range(10, 29)]),
    (0, 10, 3, [0, 1, 2, 12, 13, 14, 21, 22, 23]),
    (2, 10, 3, [3, 4, 5, 12, 13, 14, 24, 25, 26]),
]
"""MedianPruner's own table (optuna, tests/pruners_tests/test_median.py)."""

WRONG_ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"judged": "last"}, "judged: expected 'best' or 'final', got 'last'."),
    ({"threshold": 1.5}, "threshold: expected a number in [0, 1], got 1.5."),
    ({"threshold": math.nan}, "threshold: expected a number in [0, 1], got nan."),
    ({"guard": -0.1}, "guard: expected a number in [0, 1], got -0.1."),
    ({"risk": 2}, "risk: expected a number in [0, 1], got 2."),
    ({"n_startup_trials": -1}, "n_startup_trials: expected a number >= 0, got -1."),
    ({"interval_steps": 0}, "interval_steps: expected a number >= 1, got 0."),
    ({"n_min_trials": 0}, "n_min_trials: expected a number >= 1, got 0."),
    ({"look_growth": 0.9}, "look_growth: expected a number >= 1, got 0.9."),
    (
        {"bounds": (1, 0)},
        "bounds: expected (low, high), low < high, either may be None, got (1, 0). Give the least and the largest "
        "value that the metric can have, as in (0, 1) or (0, None).",
    ),
    ({"max_overhead": 0}, "max_overhead: expected a number > 0, got 0."),
    ({"max_overhead": math.nan}, "max_overhead: expected a number > 0, got nan."),
    ({"max_overhead": "1%"}, "max_overhead: expected a number > 0, got '1%'."),
    ({"forecasters": []}, "forecasters: expected at least one forecaster, got []. Pass None for the default."),
    (
        {"forecasters": "oracle"},
        "forecasters: expected one of network, parametric, rank-gap, network=PATH, got 'oracle'.",
    ),
]
"""Of every adapter, and what it says to them."""


def goal(direction: Direction = "minimize", horizon: float = 10, judged: Judged = "best") -> Goal:
    return Goal("loss", direction, horizon, judged)


def early_policy(**fields: Any) -> Policy:
    """A policy for short histories, whatever the defaults: two startup trials, four comparisons, stops from the fourth
    observation on, a look at every report."""
    known = {"n_startup_trials": 2, "min_comparisons": 4, "min_observations": 4, "look_growth": 1}
    return Policy(**{**known, **fields})


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
    return Trial(uid, Curve.of(at, reported), fields.pop("params", {}), status, **fields)


def snapshot(of: Goal, finished: Iterable[Trial], live: Iterable[Trial] = (), *, study: str = "s") -> Snapshot:
    return Snapshot(study, of, FinishedTrials(of).extend(finished), tuple(live))


def mirrored_goal(of: Goal) -> Goal:
    return replace(of, direction="maximize" if of.direction == "minimize" else "minimize")


def mirrored_trial(of: Trial) -> Trial:
    steps, values = of.curve.reports()
    return replace(of, curve=Curve.of(steps, -values))


def mirrored(of: Snapshot) -> Snapshot:
    """All values negated and the direction turned: nothing a decision says may change but the signs."""
    return snapshot(mirrored_goal(of.goal), map(mirrored_trial, of.bank), map(mirrored_trial, of.live), study=of.study)


def slow_at(bank: FinishedTrials, step: float, *, best: bool) -> list[float]:
    """FinishedTrials.at in plain Python, trial by trial."""
    out = []
    for one in bank:
        steps, losses = (a.tolist() for a in one.curve.losses(bank.goal.sign))
        before = [loss for s, loss in zip(steps, losses, strict=True) if s <= step]
        told = [loss for loss in before if math.isfinite(loss)]
        silent = not before or (steps[-1] < step and one.status is not Status.COMPLETE)
        out.append(math.nan if silent else (math.inf if not told else min(told) if best else told[-1]))
    return out


def others_at(snapshot: Snapshot, step: float, uid: str) -> Floats:
    """(m,) losses at `step` of every other trial that says something about it."""
    finished = snapshot.bank.at(step, best=snapshot.goal.judged == "best")
    return np.concatenate([finished[~np.isnan(finished)], snapshot.concurrent_losses(step, uid)])
