"""Trials that never learn: constant at chance level, beside others whose accuracy ties at 1.0 on 38 samples."""

from __future__ import annotations

import math

import numpy as np
import optuna
import pytest
from kit.studies import pruner

from lcsearch.curves import Floats
from lcsearch.schedulers.optuna import CurvePruner

STEPS, N = np.arange(50), 30
OPINIONS = [["network"], ["parametric"], ["rank-gap"], ["parametric", "rank-gap"]]


def counted(accuracy: Floats, of: int = 38) -> Floats:
    """As measured on so many samples."""
    return np.round(np.clip(accuracy, 0.0, 1.0) * of) / of


def slow(start: int, top: float) -> Floats:
    """At chance level until `start`, then towards `top`."""
    return np.where(start > STEPS, 0.1, 0.1 + (top - 0.1) * (1.0 - np.exp(-(STEPS - start) / 4.0)))


def rows(ties: bool) -> tuple[list[Floats], list[int]]:
    """Curves, and which of them are dead."""
    rng = np.random.default_rng(0)
    dead = [1, 4, *range(6, N, 3)]
    made = []
    for number in range(N):
        top = rng.uniform(0.85, 1.2) if ties else rng.uniform(0.5, 0.9)
        rise = 0.1 + (top - 0.1) * (1.0 - np.exp(-STEPS / rng.uniform(2, 12)))
        made.append(counted(np.full(50, 0.1) if number in dead else rise + rng.normal(0, 0.015, 50)))
    return made, dead


def run(of: CurvePruner, curves: list[Floats]) -> optuna.Study:
    study = optuna.create_study(direction="maximize", pruner=of)

    def objective(trial: optuna.Trial) -> float:
        for step, value in enumerate(curves[trial.number].tolist()):
            trial.report(value, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return float(curves[trial.number].max())

    study.optimize(objective, n_trials=len(curves))
    return study


@pytest.mark.parametrize("forecasters", OPINIONS, ids="+".join)
@pytest.mark.parametrize("ties", [True, False])
def test_dead_trials_are_stopped(ties: bool, forecasters: list[str]) -> None:
    """8 of 14 ran to the end, and each of their looks failed open."""
    curves, dead = rows(ties)
    assert not ties or sum(row.max() == 1.0 for row in curves) > 5
    of = pruner(forecasters=forecasters, max_overhead=math.inf)
    study = run(of, curves)
    ends = {t.number: t.last_step or 0 for t in study.trials if t.number in dead[2:]}
    assert max(ends.values()) < 30, ends
    assert study.best_value == max(row.max() for row in curves)
    if "parametric" not in forecasters:  # it may say of another curve that it left its law
        assert of.session.tally()[1] == []


def test_levels_with_a_blip_now_and_then_have_a_forecast_where_all_others_tie() -> None:
    """A median of few values has no range, and values that tie no spread: looks of the network failed open."""
    rng = np.random.default_rng(0)
    good = [np.concatenate([[50 / 54], np.ones(49)])] * 14
    poor = [(level + rng.choice([0, 0, 0, 0, -1, 1], 50)) / 54 for level in (18, 30, 45, 52)]
    of = pruner(forecasters=["network"], n_startup_trials=5)
    study = run(of, [*good, *poor])
    assert of.session.tally()[1] == []
    assert [t.state.name for t in study.trials[14:]] == ["PRUNED"] * 4


@pytest.mark.parametrize("blip", [1e-15, 1e-12, 1e-9, -1e34])
def test_a_blip_that_says_nothing_is_no_scale_where_all_others_tie(blip: float) -> None:
    """Rounding, or a blow-up, taken for the spread: P was 0, and the trial that would have won was stopped."""
    late = np.where(STEPS < 20, 0.9, 0.99)
    late[3] += blip
    of = pruner(forecasters=["network"], n_startup_trials=5)
    study = run(of, [*[np.full(50, 0.97)] * 8, late])
    assert study.trials[8].state.name == "COMPLETE"


@pytest.mark.parametrize("forecasters", OPINIONS, ids="+".join)
def test_a_slow_starter_wins_where_one_has_finished(forecasters: list[str]) -> None:
    """What became of finished trials that stood here: most stayed dead, one began to learn at step 12."""
    curves, _ = rows(ties=False)
    curves[3], curves[24] = counted(slow(12, 0.8)), counted(slow(10, 1.0))
    study = run(pruner(forecasters=forecasters, max_overhead=math.inf), curves)
    assert study.trials[24].state.name == "COMPLETE"
    assert study.best_trial.number == 24


@pytest.mark.parametrize("forecasters", OPINIONS, ids="+".join)
def test_a_slow_starter_is_not_stopped_while_none_like_it_has_finished(forecasters: list[str]) -> None:
    curves, dead = rows(ties=False)
    for number in dead:
        curves[number] = curves[0] - 0.01 * number
    curves[20] = counted(slow(20, 1.0))
    study = run(pruner(forecasters=forecasters, max_overhead=math.inf), curves)
    end = study.trials[20].last_step
    assert end is not None
    assert end >= 25, "five reports after it began to learn"
    if forecasters != ["rank-gap"]:  # which extrapolates nothing
        assert study.best_trial.number == 20


@pytest.mark.parametrize("forecasters", OPINIONS, ids="+".join)
def test_dead_trials_are_stopped_where_others_reported_before_they_trained(forecasters: list[str]) -> None:
    """A first report of another value, then chance for ever: one more dead trial ran to its end."""
    curves, dead = rows(ties=False)
    for number in dead[:2]:
        curves[number] = np.concatenate([[0.13], curves[number][1:]])
    study = run(pruner(forecasters=forecasters, max_overhead=math.inf), curves)
    ends = {number: study.trials[number].last_step or 0 for number in dead[2:]}
    assert max(ends.values()) < 30, ends
    assert study.best_value == max(row.max() for row in curves)
