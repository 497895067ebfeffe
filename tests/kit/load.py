"""A machine that is busy, and clocks that are wrong: nothing of these may change what a study comes to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

Time = Literal["right", "frozen", "slow", "fast", "jumping", "racing"]
"""How clocks go: a hundredth or a hundred times as fast as they should, back and forth by up to ten seconds between any
two readings, an hour on between any two."""

_STUDY = """
import json, math, random, sys, time

kind, trials, steps, pause = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
real, began, draw, ticks = time.monotonic, time.monotonic(), random.Random(0), iter(range(10**9))
wrong = {
    "frozen": lambda: 1e6,
    "slow": lambda: 1e6 + 0.01 * (real() - began),
    "fast": lambda: 1e6 + 100 * (real() - began),
    "jumping": lambda: 1e6 + real() - began + draw.uniform(-10, 10),
    "racing": lambda: 3600.0 * next(ticks),
}.get(kind)
if wrong:
    time.monotonic = time.perf_counter = time.time = wrong
    time.monotonic_ns = time.perf_counter_ns = time.time_ns = lambda: int(1e9 * wrong())

import optuna
from lcsearch.schedulers.optuna import CurvePruner

optuna.logging.set_verbosity(optuna.logging.ERROR)

def objective(trial):
    lr = trial.suggest_float("lr", 1e-4, 1.0, log=True)
    limit = 0.1 + abs(math.log10(lr) + 2) / 4
    for epoch in range(steps):
        time.sleep(pause)
        noise = 0.01 * math.sin(1e4 * lr * (epoch + 1))
        trial.report(limit + (1 - limit) * (1 + epoch) ** -0.8 + noise, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return limit

pruner = CurvePruner(max_steps=steps)
study = optuna.create_study(pruner=pruner, sampler=optuna.samplers.RandomSampler(seed=3))
study.optimize(objective, n_trials=trials)
print(json.dumps({
    "trials": [[t.number, t.state.name, t.last_step, t.user_attrs, t.system_attrs] for t in study.trials],
    "looks": {reason.name: n for reason, n in pruner.session.tally()[0]},
    "failed": dict(pruner.session.tally()[1]),
    "why_not": pruner.why_not(study),
    "report": str(pruner.report(study)),
    "explain": [pruner.explain(t.number) for t in study.trials if t.state.name == "PRUNED"],
}))
"""


@contextmanager
def busy(n: int = 2) -> Iterator[None]:
    """So many processes that never rest, on one processor with this thread and all that it starts meanwhile: the other
    processors are left to the tests beside.
    """
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(mine)[os.getpid() % len(mine)]})
    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)
        for hog in hogs:
            hog.kill()
            hog.wait()


def told(
    time: Time = "right", load: int = 0, *, trials: int = 22, steps: int = 30, pause: float = 0.001
) -> dict[str, Any]:
    """What one seed's study comes to in a process of its own, with the pretrained network: trials with their records,
    looks by what came of them, and all that people can ask.

    Args:
        time: how the process's clocks go.
        load: so many busy processes beside it, on its processor.
        trials: how many.
        steps: of a trial that runs to its end.
        pause: seconds that a step takes at least.
    """
    given = [time, str(trials), str(steps), str(pause)]
    with busy(load) if load else nullcontext():
        done = subprocess.run(
            [sys.executable, "-c", _STUDY, *given],
            capture_output=True,
            text=True,
            timeout=500,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found
