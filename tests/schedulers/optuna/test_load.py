"""The same seed does the same on a busy machine: no clock stands on the way to a verdict."""

from __future__ import annotations

import threading

import optuna
from kit.doubles import Liar, Slow
from kit.load import told

from lcsearch.schedulers.optuna import CurvePruner
from lcsearch.stopping.verdict import Reason


def test_the_same_stops_on_a_busy_machine_and_by_any_clock() -> None:
    """Once one script and one seed gave 20 stops after 2376 steps, and 33 after 1850."""
    quiet = told()
    assert sum(state == "PRUNED" for _, state, *_ in quiet["trials"]) >= 10
    assert quiet["looks"]["SPACED"] > 10
    assert quiet["failed"] == {}
    assert told(load=2) == quiet
    assert told("jumping", pause=0.0) == quiet
    assert told("racing", pause=0.0) == quiet


def test_late_answers_are_counted_and_stop_nothing() -> None:
    """The one thing a clock can do: an answer after the deadline holds the stop, and is told wherever people look."""
    answered = threading.Event()
    pruner = CurvePruner(max_steps=20, forecasters=[Slow(Liar(), 60, answered.wait)])
    pruner.session.panel.deadline = 0.02
    study = optuna.create_study(pruner=pruner, sampler=optuna.samplers.RandomSampler(seed=0))

    def objective(trial: optuna.Trial) -> float:
        level = trial.suggest_float("level", 0, 1)
        for step in range(20):
            trial.report(level + 0.5**step, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return level

    study.optimize(objective, n_trials=12)
    answered.set()
    assert {trial.state.name for trial in study.trials} == {"COMPLETE"}
    n = dict(pruner.session.tally()[0])[Reason.ABSENT]
    assert dict(pruner.session.tally()[1]) == {"late forecast": n}
    assert f"{n:6d} failed open: late forecast" in pruner.why_not(study).splitlines()[-1]
    assert f"{n} looks failed open (the trial went on: late forecast {n})" in str(pruner.report(study))
