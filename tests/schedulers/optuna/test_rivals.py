"""More workers than first trials, in a study: hopeless ones stop before anything has ended."""

from __future__ import annotations

import optuna
from kit.studies import decay, pruner, study_of
from optuna.trial import TrialState

from lcsearch.schedulers.optuna import CurvePruner


def side_by_side(of: CurvePruner, n: int = 12) -> tuple[optuna.Study, dict[int, int]]:
    """So many trials that report in turn, and where each was stopped."""
    study, stopped = study_of(of, n=0), dict[int, int]()
    trials = [study.ask() for _ in range(n)]
    for step in range(20):
        for trial in trials:
            if trial.number in stopped:
                continue
            trial.report(decay(0.2 * trial.number)[step], step)
            if trial.should_prune():
                stopped[trial.number] = step
                study.tell(trial, state=TrialState.PRUNED)
    return study, stopped


def test_nothing_stops_before_the_first_end_unless_asked_for() -> None:
    assert side_by_side(pruner())[1] == {}


def test_those_behind_stop_and_say_against_whom() -> None:
    of = pruner(rivals=1)
    study, stopped = side_by_side(of)
    assert side_by_side(pruner(rivals=1))[1] == stopped
    assert len(stopped) >= 6
    assert not {0, 1} & set(stopped)  # the guard's
    text = of.explain(max(stopped), study)
    assert "STOP (RIVALS)" in text
    assert "against running trials 0, by what they are forecast to reach" in text
    assert of.report(study).risk is None  # nobody leads yet
    best = next(t for t in study.get_trials(deepcopy=False) if t.number == 0)
    study.tell(best.number, 0.01)
    risk = of.report(study).risk
    assert risk is not None
    assert risk < 0.05
