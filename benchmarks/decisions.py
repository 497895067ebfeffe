"""What a look costs, beside Optuna's own pruners in the same run.

    python benchmarks/decisions.py            # a minute on two cores; prints a table, writes nothing

Gates: microseconds of `prune()` beyond NopPruner's, in-memory storage. Forecasts: milliseconds of one look with both
cuts, and of 100 curves in one batch, with 100 finished trials of 50 steps in the bank.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "2")

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import optuna

from lcsearch import Curve, FinishedTrials, Goal, Query, Snapshot, Status, Trial
from lcsearch.host.registry import NAMES, forecaster
from lcsearch.schedulers.optuna import CurvePruner

STEPS = 50


def curve(rng: np.random.Generator) -> list[float]:
    """A saturating curve with noise, lower is better."""
    limit, rate = rng.uniform(0, 1), rng.uniform(0.05, 0.4)
    return [limit + float(np.exp(-rate * t)) + 0.005 * float(rng.normal()) for t in range(STEPS)]


def median_of(call: Callable[[], object], n: int) -> tuple[float, float]:
    """(median, 99 % quantile) seconds of `n` calls."""
    times = []
    for _ in range(n):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times)), float(np.quantile(times, 0.99))


def study_with(n: int, rng: np.random.Generator) -> optuna.Study:
    """An in-memory study of `n` COMPLETE trials."""
    study = optuna.create_study()
    for _ in range(n):
        values = curve(rng)
        study.add_trial(optuna.trial.create_trial(value=min(values), intermediate_values=dict(enumerate(values))))
    return study


def looks() -> None:
    """`prune()` in memory, by gate, beside NopPruner and MedianPruner."""
    rng = np.random.default_rng(0)
    pruners: dict[str, optuna.pruners.BasePruner] = {
        "nop": optuna.pruners.NopPruner(),
        "median": optuna.pruners.MedianPruner(),
        "curve, gate WARMUP": CurvePruner(max_steps=STEPS, n_warmup_steps=40),
        "curve, gate INTERVAL": CurvePruner(max_steps=STEPS, interval_steps=20),
        "curve, gate STARTUP": CurvePruner(max_steps=STEPS, n_startup_trials=10_000),
        "curve, gate INCUMBENT": CurvePruner(max_steps=STEPS),
        "curve, gate GUARD": CurvePruner(max_steps=STEPS, guard=1.0),
        "curve, forecast": CurvePruner(max_steps=STEPS, guard=0.0, threshold=0.0, look_growth=1),
    }
    for n in (10, 100, 1000):
        study = study_with(n, rng)
        trial = study.ask()
        values = curve(rng)
        for step in range(25):
            trial.report(values[step] + 0.3, step)
        ahead = study.ask()
        for step in range(25):
            ahead.report(values[step] - 2, step)
        frozen, leading = (study.get_trials(deepcopy=False)[one.number] for one in (trial, ahead))
        base = 0.0
        for name, pruner in pruners.items():
            looked_at = leading if "INCUMBENT" in name else frozen
            pruner.prune(study, looked_at)
            calls = 200 if "forecast" in name else 2000
            median, p99 = median_of(partial(pruner.prune, study, looked_at), calls)
            base = median if name == "nop" else base
            beyond = 1e6 * (median - base)
            print(
                f"{n:5d} finished  {name:22s} {1e6 * median:10.1f} us  p99 {1e6 * p99:10.1f}  beyond nop {beyond:10.1f}"
            )


def batches() -> None:
    """Forecasters by themselves: two cuts of one curve, and 100 curves at once."""
    rng = np.random.default_rng(1)
    goal = Goal("loss", "minimize", STEPS - 1)
    finished = [Trial(str(i), Curve.of(range(STEPS), curve(rng)), status=Status.COMPLETE) for i in range(100)]
    live = tuple(Trial(f"live-{i}", Curve.of(range(25), curve(rng)[:25])) for i in range(100))
    snapshot = Snapshot("benchmark", goal, FinishedTrials(goal).extend(finished), live)
    for name in NAMES:
        one = [Query(live[0].cut(step), "best_by", STEPS - 1) for step in (24, 23)]
        many = [Query(trial, "best_by", STEPS - 1) for trial in live]
        for what, queries, n in (("1 curve, both cuts", one, 200), ("100 curves", many, 20)):
            model = forecaster(name)
            model.forecast(snapshot, queries)
            median, p99 = median_of(partial(model.forecast, snapshot, queries), n)
            print(f"{name:12s} {what:20s} {1e3 * median:8.2f} ms  p99 {1e3 * p99:8.2f}")


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    looks()
    batches()
