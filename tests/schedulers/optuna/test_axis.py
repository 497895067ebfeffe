"""Steps that are no axis, and a metric at its bound: said once in the log, first in `why_not`, and in the report."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import optuna
import pytest
from kit.studies import decay, pruner, study_of

from lcsearch.schedulers.optuna import CurvePruner

AXES: dict[str, tuple[Callable[[int, int], int], str]] = {
    "the time of day": (lambda number, step: 1_795_000_000 + 300 * number + 5 * step, "steps are the time of day"),
    "one counter": (lambda number, step: 50 * number + step, "steps go on from trial to trial"),
    "counting down": (lambda number, step: 49 - step, "steps count down"),
    "always 0": (lambda number, step: 0, "each of 5 trials reported at step 0 only"),
}


def run(of: CurvePruner, step_of: Callable[[int, int], int], n: int = 12) -> optuna.Study:
    """All trials but one, which is left running in the middle."""
    study = optuna.create_study(pruner=of)
    for number in range(n + 1):
        trial = study.ask()
        for step, value in enumerate(decay(0.1 * number)[: 20 if number == n else 50]):
            trial.report(value, step_of(number, step))
            trial.should_prune()
        if number < n:
            study.tell(trial, 0.1 * number)
    return study


@pytest.mark.parametrize("max_steps", [50, "auto"])
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.filterwarnings("ignore:The reported value is ignored")
def test_steps_that_are_no_axis(axis: str, max_steps: int, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing stopped, and a tally was all that was said."""
    step_of, expected = AXES[axis]
    of = pruner(max_steps=max_steps)
    with caplog.at_level(logging.WARNING, "lcsearch"):
        study = run(of, step_of)
    told = [record.message for record in caplog.records]
    assert len(told) == 1
    assert told[0].startswith(f"lcsearch: {expected}")
    assert "Report a step that every trial counts from its own start" in told[0]
    begin = expected.replace("of 5", "of 12")
    assert of.why_not(study).splitlines()[0].startswith(begin)
    report = of.report(study)
    assert str(report).startswith(f"! {begin}")
    assert "\nsteps: not known, for they are no axis\n" in str(report), "21540000000 spent, it said of the time of day"
    assert report.spent != report.spent


def test_a_count_down_is_told_when_its_trials_have_ended_too() -> None:
    """`why_not` said it while a trial ran; the report of the study that had ended did not."""
    of = pruner()
    study = run(of, AXES["counting down"][0])
    study.tell(12, state=optuna.trial.TrialState.FAIL)
    assert of.why_not(study).startswith("steps count down (trial 10 ")
    assert str(of.report(study)).startswith("! steps count down (trial 10 ")
    fresh = pruner()
    assert (fresh.report(study).notices, fresh.why_not(study).count("count down")) == ((), 0), "nobody has seen it"


def test_a_metric_at_its_bound(caplog: pytest.LogCaptureFixture) -> None:
    """An accuracy on 38 samples."""
    of = pruner(forecasters=["rank-gap"])
    study = study_of(of, n=0, sign=-1.0)
    with caplog.at_level(logging.WARNING, "lcsearch"):
        for number in range(20):
            top = 1.2 - 0.05 * (number % 10)
            trial = study.ask()
            for step in range(50):
                trial.report(round(38 * min(1.0, top - 0.8 * 0.9**step)) / 38, step)
                if number > 5 and trial.should_prune():
                    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                    break
            else:
                study.tell(trial, min(1.0, top))
    (told,) = [record.message for record in caplog.records]
    assert "is at the metric's bound" in told
    assert "the incumbent, 1 of trial 0, is at the metric's bound" in of.why_not(study).splitlines()[0]
    texts = [of.explain(t, study) for t in study.trials if t.state.name == "PRUNED"]
    assert texts
    assert all("to tie it counts" in text and "STOP (BOUND)" in text for text in texts)
    assert all(t.state.name == "COMPLETE" for t in study.trials if t.number % 10 < 4), "they tie"


@pytest.mark.filterwarnings("ignore:The reported value is ignored")
def test_steps_in_no_order_are_told_while_the_trial_runs(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing was said of them: storages keep reports by step."""
    order = np.random.default_rng(0).permutation(50).tolist()
    of = pruner()
    with caplog.at_level(logging.WARNING, "lcsearch"):
        study = run(of, lambda number, step: order[step])
    (told,) = [record.message for record in caplog.records]
    assert told.startswith("lcsearch: steps come in no order (trial 0 has reported steps ")
    assert told.endswith(". Report steps that rise while a trial trains")
    assert of.why_not(study).splitlines()[0].startswith("steps come in no order")
    assert str(of.report(study)).startswith("! steps come in no order")
