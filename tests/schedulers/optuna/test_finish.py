"""finish: stopped trials trained on until the risk is low enough, in a study."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from kit.doubles import NormalAroundBest
from kit.studies import decay, finished, pruner, stop_one, study_of
from optuna.samplers import BaseSampler, BruteForceSampler, GridSampler
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from lcsearch.errors import InvalidValue
from lcsearch.schedulers.optuna import CurvePruner, finish, resumed_from
from lcsearch.stopping.decision import percent, risk_told

PATIENCE = 600


def stopped(n: int = 3) -> tuple[optuna.Study, list[int]]:
    """Six complete trials, and some that a look stopped, each likelier to have won than the one before."""
    study = study_of(pruner(forecasters=[NormalAroundBest(2.0)], threshold=0.5))
    return study, [stop_one(study, decay(5.0 - i)) for i in range(n)]


class Objective:
    """Goes on where the stopped trial was; remembers what it was asked to do."""

    def __init__(self, limit: float = 0.5) -> None:
        self.limit, self.ran = limit, list[tuple[int | None, int]]()

    def __call__(self, trial: Trial) -> float:
        before = resumed_from(trial)
        first = 0 if before is None else (trial.study.trials[trial.number].last_step or 0) + 1
        self.ran.append((before, first))
        for step in range(first, 50):
            trial.report(self.limit + 0.8**step, step)
            assert not trial.should_prune()
        return self.limit


def of(study: optuna.Study) -> CurvePruner:
    assert isinstance(study.pruner, CurvePruner)
    return study.pruner


def test_the_price_is_said_before_and_nothing_is_done() -> None:
    study, numbers = stopped()
    risk = of(study).report(study).risk
    assert risk is not None
    told = finish(study, Objective(), risk=0.01, dry_run=True)
    assert [int(one.uid) for one in told.plan.thaw] == numbers[::-1]
    left = sum(49 - one.step for one in told.plan.thaw)
    assert (told.steps, told.thawed) == (left, ())
    assert told.plan.risk == pytest.approx(risk)
    assert len(study.trials) == 9
    assert f"That takes about {left:g} steps" in str(told)
    assert str(told).count("\n") == 0


def test_the_likeliest_go_on_until_the_rest_is_within_the_limit() -> None:
    study, numbers = stopped()
    chances = {stop.trial: stop.p_now for stop in of(study).report(study).stops}
    limit = chances[numbers[0]] + 1e-9
    before, objective = of(study).report(study), Objective()
    told = finish(study, objective, risk=limit)
    assert told.thawed == ((numbers[2], 9, "COMPLETE"), (numbers[1], 10, "COMPLETE"))
    last = study.trials[numbers[2]].last_step or 0
    assert objective.ran == [(numbers[2], last + 1), (numbers[1], last + 1)]
    after = of(study).report(study)
    assert after.risk == told.risk
    assert after.risk is not None
    assert after.risk <= limit
    assert [stop.trial for stop in after.stops] == numbers[:1]
    # what the stops had saved is given back, and no step is counted twice
    assert (after.spent, after.thawed, after.complete) == (before.spent + 2 * (49 - last), 2, 8)
    assert after.saved == 49 - last
    assert "trials: 8 complete (2 thawed), 1 stopped" in str(after)
    assert str(told).endswith("the winner is the same as before")
    assert [study.trials[n].state for n in numbers] == [TrialState.PRUNED] * 3
    assert "it was thawed as trial 9, which is complete" in of(study).explain(numbers[2], study)
    told_of = of(study).explain(9, study)
    assert f"it is trial {numbers[2]}, stopped at step {last} with P(beat)" in told_of
    assert "from its checkpoint; nothing stops it again" in told_of
    again = finish(study, objective, risk=limit)
    assert (again.thawed, again.plan.thaw) == ((), ())


def test_a_winner_that_had_been_stopped_is_told_plainly_and_spares_the_others() -> None:
    study, numbers = stopped()
    told = finish(study, Objective(-40.0), risk=0.01)
    assert [by for _, by, _ in told.thawed] == [9]  # beside it the others have no chance
    assert study.best_trial.number == 9
    assert "THE WINNER HAS CHANGED: trial 9 reached -40, and had been stopped; before it was trial 0 with" in str(told)
    assert len(told.plan.thaw) == len(numbers)


def test_anew_where_no_checkpoint_is_kept() -> None:
    study, numbers = stopped(1)
    before, objective = of(study).report(study), Objective()
    told = finish(study, objective, risk=0.0, anew=True)
    assert (told.steps, objective.ran) == (50, [(None, 0)])
    assert "risk that some stop lost the winner: 0 % (no trial is stopped by P(beat))" in str(told)
    assert "anew, for no checkpoint was left" in of(study).explain(told.thawed[0][1], study)
    after = of(study).report(study)
    assert (after.spent, after.saved) == (before.spent + 50, 0)  # what it had trained before it was stopped was spent
    assert numbers[0] not in {stop.trial for stop in after.stops}


@pytest.mark.parametrize("back", [None, 2])
def test_what_is_trained_a_second_time_is_told(back: int | None, caplog: pytest.LogCaptureFixture) -> None:
    """By an objective that loads no checkpoint, though nobody said so, or one that is older than the stop."""
    study, numbers = stopped(2)
    last = study.trials[numbers[0]].last_step or 0

    def objective(trial: Trial) -> float:
        for step in range(0 if back is None else last + 1 - back, 50):
            trial.report(0.5 + 0.8**step, step)
        return 0.5

    with caplog.at_level("WARNING", "lcsearch"):
        told = finish(study, objective, risk=0.0)
    assert told.steps == 2 * (49 - last)
    assert told.again == 2 * (last + 1 if back is None else back)
    line = (
        f"about {told.again:g} steps more than that were trained, a second time: checkpoints were older than the stops"
    )
    assert line in str(told)
    said = [record.getMessage() for record in caplog.records if "begins at its start" in record.getMessage()]
    assert len(said) == (back is None)  # once
    if back is None:
        assert f"trial 8 goes on with one that had come to step {last}, and begins at its start" in said[0]
        assert "If it does so for all, the finish takes about 100 steps." in said[0]
    assert dict(study.trials[-1].intermediate_values).keys() == set(range(50))


def test_one_that_begins_at_its_start_is_told_after_one_with_an_old_checkpoint(
    caplog: pytest.LogCaptureFixture,
) -> None:
    study, numbers = stopped(2)
    last = study.trials[numbers[0]].last_step or 0
    starts = iter((last - 1, 0))

    def objective(trial: Trial) -> float:
        for step in range(next(starts), 50):
            trial.report(0.5 + 0.8**step, step)
        return 0.5

    with caplog.at_level("WARNING", "lcsearch"):
        assert finish(study, objective, risk=0.0).again == 2 + last + 1
    assert [r.args[0] for r in caplog.records if "begins at its start" in r.msg and isinstance(r.args, tuple)] == [9]


def test_a_failure_leaves_the_stop_as_it_was() -> None:
    study, numbers = stopped(2)
    risk = of(study).report(study).risk

    def fails(trial: Trial) -> float:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        finish(study, fails, risk=0.0)
    told = finish(study, fails, risk=0.0, catch=(ValueError,))
    assert [state for _, _, state in told.thawed] == ["FAIL", "FAIL"]
    assert of(study).report(study).risk == pytest.approx(risk) == told.risk
    assert "failed, so this stop stands" in of(study).explain(numbers[1], study)
    assert len(finish(study, Objective(), risk=0.0).thawed) == 2  # mended
    assert of(study).report(study).risk == 0.0


def on_grid() -> FrozenTrial:
    """The one trial of a grid, which has ended."""
    place = {"grid_id": 0, "search_space": {"x": [1]}}
    return create_trial(state=TrialState.FAIL, system_attrs=place)


@pytest.mark.filterwarnings("ignore:BruteForceSampler is experimental")
@pytest.mark.parametrize(
    ("make", "more"),
    [(lambda: GridSampler({"x": [1]}), [on_grid()]), (lambda: GridSampler({"x": [1]}), []), (BruteForceSampler, [])],
    ids=["grid", "grid that is not whole", "brute force"],
)
def test_samplers_that_end_a_search_end_no_finish(make: Callable[[], BaseSampler], more: list[FrozenTrial]) -> None:
    study, numbers = stopped()
    study.add_trials(more)
    study.sampler = make()
    told = finish(study, Objective(), risk=0.0)
    assert [(number, state) for number, _, state in told.thawed] == [(n, "COMPLETE") for n in numbers[::-1]]


def test_others_stops_are_left_alone_and_named() -> None:
    study, numbers = stopped(1)
    study.add_trial(finished({1: 0.3}, TrialState.PRUNED))
    told = finish(study, Objective(), risk=0.0)
    assert [stopped for stopped, _, _ in told.thawed] == numbers
    assert (
        "left alone, for no risk is known of them (not stopped by lcsearch, or its record cannot be read): trial 7"
        in str(told)
    )


def test_what_a_named_thaw_leaves_is_said_before_and_what_is_known_of_it_after() -> None:
    """It was: "to bring the risk from at most ... to at most 2 %", whatever the others summed to."""
    study, numbers = stopped()
    chances = {stop.trial: stop.p_now for stop in of(study).report(study).stops}
    one, rest = numbers[0], math.fsum(chances[n] for n in numbers[1:])
    assert rest > 0.02
    text = str(finish(study, Objective(), trials=[one], dry_run=True))
    assert text == (
        f"1 stopped trial is thawed, the likeliest to have won first: {one} (trial {one} with P(beat) "
        f"{percent(chances[one])}). The risk is at most {percent(math.fsum(chances.values()))} now, by the sum of "
        f"P(beat); the others sum to at most {percent(rest)}. That takes about 44 steps"
    )
    told, after = finish(study, Objective(), trials=[one]), of(study).report(study)
    assert after.risk is not None
    assert 0.02 < after.risk <= rest  # the incumbent may be better now
    assert (told.risk, told.independent, told.calibration) == (after.risk, after.independent, after.calibration.state)
    known = risk_told(after.risk, after.independent, "calibrated on 40")
    assert f"\nrisk that some stop lost the winner: {known}\n" in str(replace(told, calibration="calibrated on 40"))


def test_one_by_its_number() -> None:
    study, numbers = stopped()
    told = finish(study, Objective(), trials=numbers[:1])
    assert [stopped for stopped, _, _ in told.thawed] == numbers[:1]
    with pytest.raises(InvalidValue) as error:
        finish(study, Objective(), trials=[0])
    assert str(error.value).startswith("finish(trials=): expected the number of a trial that a look stopped and that")


@pytest.mark.parametrize("study", [optuna.create_study(), optuna.create_study(directions=["minimize", "minimize"])])
def test_whose_stops_it_is_for(study: optuna.Study) -> None:
    with pytest.raises(InvalidValue):
        finish(study, Objective())


def test_enqueued_trials_of_the_user_wait() -> None:
    study, _ = stopped(1)
    study.enqueue_trial({"x": 1})
    told = finish(study, Objective(), risk=0.0)
    assert [by for _, by, _ in told.thawed] == [8]
    assert study.trials[7].state == TrialState.WAITING


SCRIPT = """
import sys, os, signal
sys.path.insert(0, {kit!r})
import optuna
from kit.doubles import NormalAroundBest
from kit.studies import pruner
from lcsearch.schedulers.optuna import finish, resumed_from

def objective(trial):
    first = (trial.study.get_trials(deepcopy=False)[trial.number].last_step or 0) + 1
    for step in range(first, 50):
        trial.report(0.5 + 0.8 ** step, step)
        assert not trial.should_prune()
        if {dies} and step == 40:
            os.kill(os.getpid(), signal.SIGKILL)
    return 0.5

of = pruner(forecasters=[NormalAroundBest(2.0)], threshold=0.5)
study = optuna.load_study(study_name="s", storage={url!r}, pruner=of)
print(finish(study, objective, risk=0.0))
"""


def test_a_killed_finish_is_taken_up_by_the_next_one(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.sqlite3'}"
    study = optuna.create_study(
        study_name="s", storage=url, pruner=pruner(forecasters=[NormalAroundBest(2.0)], threshold=0.5)
    )
    for i in range(6):
        study.add_trial(finished(decay(0.1 * (i + 1))))
    numbers = [stop_one(study, decay(5.0 - i)) for i in range(2)]
    spent = of(study).report(study).spent

    def run(dies: bool) -> subprocess.CompletedProcess[str]:
        script = SCRIPT.format(kit=str(Path(__file__).parents[2]), dies=dies, url=url)
        here: Any = {"capture_output": True, "text": True, "timeout": PATIENCE}
        return subprocess.run([sys.executable, "-c", script], env=dict(os.environ), check=False, **here)

    assert run(True).returncode == -signal.SIGKILL
    left = optuna.load_study(study_name="s", storage=url).trials[-1]
    assert (left.state, left.last_step) == (TrialState.RUNNING, 40)
    done = run(False)
    assert done.returncode == 0, done.stderr
    assert f"trial {numbers[1]} was thawed as trial 8: complete" in done.stdout
    assert f"trial {numbers[0]} was thawed as trial 9: complete" in done.stdout
    again = optuna.load_study(study_name="s", storage=url, pruner=study.pruner)
    assert [t.state.name for t in again.trials[6:]] == ["PRUNED", "PRUNED", "COMPLETE", "COMPLETE"]
    report = of(again).report(again)
    assert (report.risk, report.saved) == (0.0, 0)
    last = again.trials[numbers[0]].last_step or 0
    assert report.spent == spent + 2 * (49 - last)
