"""What a result costs the driver of a Tune run, beside Ray's FIFO and ASHA in the same run.

    python benchmarks/ray_results.py          # a minute on two cores; prints a table, writes nothing

Microseconds of `on_trial_result` and the `choose_trial_to_run` after it, for one result, without a cluster: N trials
of 30 results each, 16 at a time, and all N side by side (results of all trials at step 1, then at step 2, ...). Ten
trials have run to their end before, and only results from step 6 on are counted, as earlier ones never reach a
forecaster: the parametric ensemble. A row ends after eight seconds, if it must.

Forecasts are made on a thread of the driver, and Python runs one thread at a time: `cpu` is what the hooks compute,
the wall clock holds the waits for the other thread too. "curve" reports as fast as it can, so that most looks are
overtaken; in "curve, in pace" every look is judged before the next result, outside the clock. "gates only" is a run
whose startup trials never end. Looks are spaced as they come.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

from lcsearch.schedulers.ray_tune import CurveScheduler
from lcsearch.stopping.verdict import Reason

STEPS, AT_ONCE, FINISHED, FIRST, SECONDS = 30, 16, 10, 6, 8.0
FORECASTS = (Reason.ABSENT, Reason.ABOVE, Reason.ABOVE_BEFORE, Reason.RISK_LIMIT, Reason.BELOW)

SCHEDULERS: dict[str, Callable[[], Any]] = {
    "fifo": FIFOScheduler,
    "asha": lambda: AsyncHyperBandScheduler("training_iteration", "loss", "min", STEPS),
    "curve, gates only": lambda: CurveScheduler(metric="loss", mode="min", max_t=STEPS, n_startup_trials=10**6),
    "curve": lambda: CurveScheduler(metric="loss", mode="min", max_t=STEPS),
    "curve, in pace": lambda: CurveScheduler(metric="loss", mode="min", max_t=STEPS),
}


class Run:
    """Tune's controller as far as a scheduler sees it."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self.trials: list[Trial] = []
        self.times: list[float] = []
        self.cpu = 0.0
        self.in_pace = False

    def get_trials(self) -> list[Trial]:
        return self.trials

    def stop_trial(self, trial: Trial) -> None:
        self.scheduler.on_trial_complete(self, trial, trial.last_result)
        trial.status = Trial.TERMINATED

    def start(self) -> Trial:
        trial = Trial("benchmark", trial_id=f"{len(self.trials):08x}", stub=True)
        trial.status = Trial.RUNNING
        self.trials.append(trial)
        self.scheduler.on_trial_add(self, trial)
        return trial

    def report(self, trial: Trial, step: int, value: float) -> None:
        """One result and one turn of the loop, timed."""
        result = {"training_iteration": step, "loss": value, "trial_id": trial.trial_id}
        start, cpu = time.perf_counter(), time.thread_time()
        said = self.scheduler.on_trial_result(self, trial, result)
        between, cpu = time.perf_counter(), cpu - time.thread_time()
        trial.run_metadata.last_result = result
        if said == TrialScheduler.STOP:
            self.stop_trial(trial)
        again, cpu = time.perf_counter(), cpu + time.thread_time()
        self.scheduler.choose_trial_to_run(self)
        took = between - start + time.perf_counter() - again
        if step >= FIRST:
            self.times.append(took)
            self.cpu += time.thread_time() - cpu
        if self.in_pace:
            self.scheduler.session.wait()


def curve(rng: np.random.Generator) -> list[float]:
    """A saturating curve with noise, lower is better."""
    limit, rate = rng.uniform(0, 1), rng.uniform(0.05, 0.4)
    return [limit + float(np.exp(-rate * t)) + 0.005 * float(rng.normal()) for t in range(STEPS)]


def play(run: Run, n: int, at_once: int, rng: np.random.Generator) -> None:
    """`n` trials, `at_once` side by side, each to its end, unless time is up."""
    end = time.perf_counter() + SECONDS
    waiting = deque(curve(rng) for _ in range(n))
    running: list[tuple[Trial, list[float], int]] = []
    while waiting or running:
        while waiting and len(running) < at_once:
            running.append((run.start(), waiting.popleft(), 0))
        for trial, values, step in running:
            if time.perf_counter() > end:
                return
            if trial.status == Trial.RUNNING:
                run.report(trial, step + 1, values[step])
        running = [(t, v, step + 1) for t, v, step in running if t.status == Trial.RUNNING and step + 1 < STEPS]


def results() -> None:
    """The table."""
    head = f"{'trials':>6s} {'at once':>7s}  {'scheduler':19s} {'results':>7s}"
    head += "".join(f"{name:>{width}s}" for name, width in (("median", 9), ("mean", 9), ("p99", 10), ("cpu", 9)))
    print(head + "  us; forecasts, overtaken, spaced, stopped; all in all")
    for n in (10, 100, 1000):
        for at_once in sorted({min(AT_ONCE, n), n}):
            for name, made in SCHEDULERS.items():
                run, rng = Run(made()), np.random.default_rng(0)
                play(run, FINISHED, FINISHED, rng)
                run.times.clear()
                run.cpu = 0.0
                run.in_pace = "pace" in name
                start = time.perf_counter()
                play(run, n, at_once, rng)
                took = time.perf_counter() - start
                times = 1e6 * np.array(run.times)
                line = f"{n:6d} {at_once:7d}  {name:19s} {times.size:7d} {np.median(times):8.1f} {times.mean():8.1f}"
                line += f" {np.quantile(times, 0.99):9.1f} {1e6 * run.cpu / times.size:8.1f}"
                if isinstance(run.scheduler, CurveScheduler):
                    counted = dict(run.scheduler.session.tally()[0])
                    looks = [sum(counted.get(reason, 0) for reason in FORECASTS)]
                    looks += [counted.get(reason, 0) for reason in (Reason.SUPERSEDED, Reason.SPACED)]
                    line += "     " + " ".join(f"{k:6d}" for k in (*looks, len(run.scheduler.stopped())))
                    line += f"  {took:6.1f} s"
                print(line, flush=True)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    results()
