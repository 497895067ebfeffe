"""Simulated and real: the same trials, trained under the pruner, stop where the simulator stops them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from sweep.kit import Remembering, write_toy

from lcsearch.curves import Curve
from lcsearch.data.readers import read
from lcsearch.data.task import Run, Task
from lcsearch.goal import Goal
from lcsearch.replay.history import History
from lcsearch.replay.policies import policy_spec
from lcsearch.replay.simulator import simulate
from lcsearch.schedulers.optuna import CurvePruner
from lcsearch.session.decision_log import read_log
from lcsearch.stopping.policy import Policy
from lcsearch.sweep import run as launcher

# Power laws whose limit and speed hang on the configuration, with noise that hangs on it too: deterministic, crossing.
TRAIN = """\
import math

def train(ctx):
    a, lr = ctx.params["a"], ctx.params["lr"]
    for epoch in range(1, ctx.max_steps + 1):
        noise = 0.004 * math.sin(1e4 * a * epoch)
        ctx.report(a + 0.3 * epoch ** -(0.3 + 0.1 * abs(math.log10(lr))) + noise, epoch)
"""


def stops(history: History) -> dict[str, tuple[float, str]]:
    return {life.uid: (life.step, life.stop.reason.name) for life in history.stopped if life.stop is not None}


def test_a_real_sweep_stops_the_very_same_trials(tmp_path: Path) -> None:
    path = write_toy(tmp_path, TRAIN, max_steps=20, trials=25)
    full = launcher.run(path, folder=tmp_path / "full", view=Remembering())
    text = path.read_text()
    assert "pruner: {kind: none}" in text
    path.write_text(text.replace("pruner: {kind: none}", "pruner: {kind: curve, threshold: 0.1}"))
    real = launcher.run(path, folder=tmp_path / "real", view=Remembering())
    assert (full.code, real.code) == (0, 0)
    assert [row.params for row in full.progress.rows] == [row.params for row in real.progress.rows]
    task = read(tmp_path / "full").task
    assert task.complete.all()
    simulated = simulate(task, range(25), policy_spec("curve:threshold=0.1").make(task))
    logged = {
        record["trial"]: (record["step"], record["reason"])
        for record in read_log(tmp_path / "real" / "decisions")
        if record["verdict"] == "STOP"
    }
    assert len(logged) >= 5  # or the comparison says nothing
    assert stops(simulated) == logged
    assert simulated.spent == real.progress.spent
    shown = {row.number: sorted(row.values) for row in real.progress.rows}
    assert {int(life.uid): task.runs[life.row].steps[: life.shown] for life in simulated.lives} == shown


def curve_of(params: dict[str, Any], number: int) -> list[float]:
    """20 losses; one trial in eight breaks down."""
    x = np.arange(1.0, 21.0)
    noise = 0.004 * np.random.default_rng(number).standard_normal(20)
    losses = params["a"] + 0.3 * x ** -params["b"] + noise
    if number % 8 == 7:
        losses[9:] = math.nan
    found: list[float] = losses.tolist()
    return found


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize("forecasters", ["parametric", "rank-gap"])
def test_plain_optimize_stops_the_very_same_trials(direction: Any, forecasters: str) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sign = 1.0 if direction == "minimize" else -1.0
    pruner = CurvePruner(max_steps=20, threshold=0.1, forecasters=forecasters, look_growth=1)
    study = optuna.create_study(direction=direction, pruner=pruner, sampler=optuna.samplers.RandomSampler(seed=5))
    runs: list[Run] = []

    def train(trial: optuna.Trial) -> float:
        params = {"a": trial.suggest_float("a", 0, 1), "b": trial.suggest_float("b", 0.3, 1.2)}
        values = [sign * loss for loss in curve_of(params, trial.number)]
        runs.append(Run(str(trial.number), Curve.of(range(1, 21), values), np.arange(1.0, 21), params))
        for step, value in enumerate(values, 1):
            trial.report(value, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return float(np.nanmin(values) if sign > 0 else np.nanmax(values))

    study.optimize(train, n_trials=32, n_jobs=1)
    task = Task(study.study_name, Goal("value", direction, 20.0), tuple(runs))
    policy = policy_spec(f"curve:threshold=0.1,forecasters={forecasters}")
    assert policy.policy == Policy(threshold=0.1)
    simulated = simulate(task, range(32), policy.make(task))
    pruned = [trial for trial in study.trials if trial.state is optuna.trial.TrialState.PRUNED]
    assert len(pruned) >= 8
    assert {life.uid: life.step for life in simulated.stopped} == {str(t.number): t.last_step for t in pruned}
    lines = {str(trial.number): trial.user_attrs["lcsearch:reason"] for trial in pruned}
    assert {life.uid: life.stop.line for life in simulated.stopped if life.stop is not None} == lines
    assert {"BELOW", "DIVERGED"} <= {reason for _, reason in stops(simulated).values()}
    assert simulated.spent == sum(len(trial.intermediate_values) for trial in study.trials)
