"""Budgets are kept: nothing is begun once steps or seconds are used up; what runs goes on; the account is honest."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from sweep.kit import PATIENCE_S, RESUMING, TRAIN, Remembering, held, state_of, write_toy
from sweep.spec.test_space import SWEEP
from typer.testing import CliRunner

from lcsearch.cli import app
from lcsearch.goal import Goal
from lcsearch.schedulers.optuna import ForecastSampler
from lcsearch.schedulers.optuna._attempts import StoredReports
from lcsearch.schedulers.optuna._finish import add_thaw
from lcsearch.stopping.finish import Frozen
from lcsearch.sweep import run as launcher
from lcsearch.sweep.monitor.outcome import Outcome
from lcsearch.sweep.monitor.progress import Progress, collect
from lcsearch.sweep.monitor.state import SweepState
from lcsearch.sweep.runtime import launch
from lcsearch.sweep.spec.model import Budget, StopWhen, SweepFile
from lcsearch.sweep.store import attributes, budget, ownership
from lcsearch.sweep.store.budget import (
    Clock,
    Reading,
    Spent,
    ended_by,
    limit_now,
    next_gain,
    read_clock,
    room,
    spent_by,
    steps_left,
    worker_seconds,
)
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.store.studies import make_sampler
from lcsearch.sweep.store.turns import Turns, asked_at
from lcsearch.sweep.views.phrases import money
from lcsearch.sweep.views.screen import layout
from lcsearch.sweep.views.summary import limit_reached, limit_told, summarize

SLOW = "import time\ndef train(ctx):\n    for e in range(1, ctx.max_steps + 1):\n        time.sleep({s})\n"
SLOW += "        ctx.report(ctx.params['a'] + 1 / e, e)\n"


def file_of(**budget: Any) -> SweepFile:
    return SweepFile.model_validate({**SWEEP, "budget": {"trials": 9, **budget}})


def said(outcome: Outcome) -> list[str]:
    return summarize(state_of(outcome), outcome.seconds).splitlines()


def test_which_limit() -> None:
    budget = Budget(trials=9, steps=100, seconds=5.0)
    assert ended_by(budget, 8, 99, 4.9) is None
    assert ended_by(budget, 8, 100, 5.0) == "steps"
    assert ended_by(budget, 8, 99, 5.0) == "seconds"
    assert ended_by(budget, 9, 100, 5.0) == "trials"
    assert ended_by(Budget(trials=9), 8, 10**9, 1e9) is None
    dear = Budget(trials=9, money_per_hour=1.0, money=2.0, stop_when=StopWhen(gain=0.1, trials=2))
    assert ended_by(dear, 8, 0, 0.0, 1.9, 0.1) is None
    assert ended_by(dear, 8, 0, 0.0, 2.0, 0.05) == "money"
    assert ended_by(dear, 8, 0, 0.0, 1.9, 0.05) == "stop_when"
    assert ended_by(dear, 8, 0, 0.0, 0.0, math.inf) is None


@pytest.mark.parametrize(
    ("more", "gain"),
    [({"trials": 1}, 2.0), ({"steps": 8}, 4.0), ({"seconds": 10.0}, 1.0), ({"steps": 9}, math.inf)],
)
def test_what_more_gains(more: dict[str, Any], gain: float) -> None:
    """Four trials of 4 steps and 20 s, the best first; two workers."""
    begun = [Spent(loss, 4, 40.0) for loss in (1.0, 9.0, 9.0, 9.0)]
    file = file_of(stop_when={"gain": 1e-3, **more})
    assert next_gain(file, begun) == pytest.approx(gain)
    assert next_gain(file, []) == math.inf
    assert next_gain(file_of(), begun) is None


def test_what_seconds_and_money_leave() -> None:
    """Of workers' time: two of them."""
    assert worker_seconds(file_of()) == math.inf
    assert worker_seconds(file_of(seconds=100.0), 60.0) == 80.0
    assert worker_seconds(file_of(seconds=100.0), 160.0) == 0.0
    assert worker_seconds(file_of(seconds=100.0, money_per_hour=36.0, money=1.0), 60.0, 0.5) == 50.0


def test_a_thaw_that_wins_begins_no_new_trial(tmp_path: Path) -> None:
    study, folder = optuna.create_study(), RunFolder(tmp_path)
    file = file_of(stop_when={"gain": 0.1, "trials": 2})
    for _ in range(4):
        trial = study.ask({"lr": optuna.distributions.FloatDistribution(0.1, 1.0)})
        trial.report(1.0, 2)
        study.tell(trial, state=TrialState.PRUNED)
    assert limit_now(file, folder, study.trials) == "stop_when"
    add_thaw(study, Frozen("0", 2.0, 0.01, 0.01), anew=False)
    (thawed,) = (t for t in study.trials if t.state == TrialState.WAITING)
    claimed = study.ask()
    assert claimed.number == thawed.number
    claimed.report(-5.0, 3)
    assert limit_now(file, folder, study.trials) == "stop_when"
    progress = collect(study.trials, file.target, 9, file.space)
    assert [one.loss for one in progress.begun(file.target)] == [1.0] * 4


def test_a_failed_trial_has_no_value_and_what_runs_has_the_one_it_reached() -> None:
    study, file = optuna.create_study(direction="minimize"), file_of()
    for n, state in enumerate((TrialState.FAIL, TrialState.PRUNED, None)):
        trial = study.ask()
        for step in (1, 2):
            trial.report(float(n) + 1 / step, step)
        if state is not None:
            study.tell(trial, state=state)
    assert [one.loss for one in spent_by(file, study.trials, None)] == [math.inf, 1.5, 2.5]


def test_no_trial_is_begun_once_the_steps_are_spent(tmp_path: Path) -> None:
    path = write_toy(tmp_path, trials=9)
    view = Remembering()
    outcome = launcher.run(path, folder=tmp_path / "run", overrides=["budget.steps=13"], view=view)
    assert (outcome.code, outcome.message) == (0, "")
    assert [row.spent for row in outcome.progress.rows] == [6, 6, 6]  # the third was begun at 12 of 13
    assert "ended by budget.steps: 18 of 13 epochs were spent after 3 of 9 trials had begun" in said(outcome)
    # a resume may raise it, or lift it
    more = launcher.run(path, folder=tmp_path / "run", resume=True, overrides=["budget.steps=19"], view=Remembering())
    assert len(more.progress.rows) == 4
    rest = launcher.run(
        path, folder=tmp_path / "run", resume=True, overrides=["budget.steps=", "budget.trials=5"], view=Remembering()
    )
    assert len(rest.progress.rows) == 5
    assert not any(line.startswith("ended by") for line in said(rest))


def test_trials_that_run_go_on_and_the_view_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_LOOK_S", 0.05)
    view = Remembering(lambda _: (tmp_path / "go").touch() if view.events else None)
    path = write_toy(tmp_path, held(RESUMING), trials=9, max_steps=12, workers=2)
    outcome = launcher.run(path, folder=tmp_path / "run", overrides=["budget.steps=8"], view=view)
    assert [row.spent for row in outcome.progress.rows] in ([12, 12], [12])  # the second worker may start late
    (event,) = view.events
    assert event.startswith("budget.steps: 8 epochs are spent, no trial is begun any more; ")
    assert event.endswith((" running go on", " running goes on"))


def test_seconds_count_over_all_launches(tmp_path: Path) -> None:
    path, run = write_toy(tmp_path, SLOW.format(s=0.05), trials=1), tmp_path / "run"
    first = launcher.run(path, folder=run, view=Remembering())
    used = read_clock(RunFolder(run)).seconds
    assert used == pytest.approx(first.seconds)
    more = [f"budget.seconds={used + 2}", "budget.trials=500"]
    outcome = launcher.run(path, folder=run, resume=True, overrides=more, view=Remembering())
    assert (outcome.code, outcome.seconds > 1.5) == (0, True)
    n = len(outcome.progress.rows)
    assert n < 100
    assert [row.state for row in outcome.progress.rows] == ["complete"] * n
    (line,) = [line for line in said(outcome) if line.startswith("ended by")]
    assert line.startswith("ended by budget.seconds: ")
    assert line.endswith(f" of {used + 2:g} seconds were used after {n} of 500 trials had begun")
    again = launcher.run(path, folder=run, resume=True, view=Remembering())
    assert len(again.progress.rows) == n
    assert read_clock(RunFolder(run)).seconds >= used + 2


ALIKE = "def train(ctx):\n    for e in range(1, ctx.max_steps + 1):\n        ctx.report(1 / e, e)\n"


def test_no_trial_is_begun_once_more_of_them_would_gain_too_little(tmp_path: Path) -> None:
    view, overrides = Remembering(), ["budget.stop_when={gain: 0.001, trials: 2}"]
    path = write_toy(tmp_path, ALIKE, trials=9)
    outcome = launcher.run(path, folder=tmp_path / "run", overrides=overrides, view=view)
    assert [row.state for row in outcome.progress.rows] == ["complete"] * 4  # of fewer nothing is known
    told = "gain of another 2 trials: about 0 loss at most (budget.stop_when: 0.001)"
    assert f"ended by budget.stop_when: {told}; 4 of 9 trials had begun" in said(outcome)
    again = launcher.run(path, folder=tmp_path / "run", resume=True, view=Remembering())
    assert len(again.progress.rows) == 4


def test_a_gain_that_is_never_known_is_told_beforehand(tmp_path: Path) -> None:
    def told(n: int, **more: Any) -> str:
        return Budget(trials=n, stop_when=StopWhen(gain=0.1, **more)).idle_stop_when

    text = "budget.stop_when: what 2 more trials may gain is known once 4 have begun, and budget.trials is {}, so it "
    assert told(4, trials=2) == f"{text.format(4)}never ends the sweep. Name at most 1 in it"
    assert told(2, trials=2) == f"{text.format(2)}never ends the sweep"
    assert told(5, trials=2) == told(3, steps=99) == Budget(trials=3).idle_stop_when == ""
    path, view, asked = write_toy(tmp_path, trials=2), Remembering(), "budget.stop_when={gain: 0.1, trials: 2}"
    launcher.run(path, folder=tmp_path / "run", overrides=[asked], view=view)
    assert told(2, trials=2) in view.events
    for command, line in (("validate", f"! {told(2, trials=2)}"), ("plan", f"  ! {told(2, trials=2)}")):
        assert line in CliRunner().invoke(app, [command, str(path), asked]).stdout.splitlines()


def test_what_more_would_gain_is_shown_before_it_ends_the_sweep(tmp_path: Path) -> None:
    overrides = ["budget.stop_when={gain: 1e-9, trials: 1}"]
    outcome = launcher.run(write_toy(tmp_path), folder=tmp_path / "run", overrides=overrides, view=Remembering())
    (line,) = [line for line in said(outcome) if line.startswith("gain of another 1 trial: about ")]
    assert line.endswith(" loss at most (budget.stop_when: 1e-09)")
    assert line in "\n".join(row.text for row in layout(state_of(outcome), 200, None))


def test_no_trial_is_begun_once_the_money_is_spent(tmp_path: Path) -> None:
    path = write_toy(tmp_path, SLOW.format(s=0.02), trials=9)
    overrides = ["budget.money_per_hour=36000", "budget.money=0.01"]  # a millisecond
    outcome = launcher.run(path, folder=tmp_path / "run", overrides=overrides, view=Remembering())
    assert [row.state for row in outcome.progress.rows] == ["complete"]
    (line,) = [line for line in said(outcome) if line.startswith("ended by")]
    assert line.startswith("ended by budget.money: ")
    assert line.endswith(" of 0.01 were spent after 1 of 9 trials had begun")


def test_steps_that_the_seconds_left_pay_for(tmp_path: Path) -> None:
    """At the trials' usual pace, by both workers; the clock stands still, for its last tick is to come."""
    study, folder, file = optuna.create_study(), RunFolder(tmp_path), file_of(seconds=100.0)
    folder.clock.write_text(
        json.dumps({"seconds": 40.0, "until": "2024-01-01T00:00:00", "monotonic": time.monotonic() + 1e6})
    )
    assert steps_left(file, folder, study.trials) == math.inf  # no pace is known
    for pace in (0.25, 0.5, 2.0):
        study.ask().set_user_attr(budget.TOOK, {"since": "", "seconds": 1.0, "pace": pace, "gaps": 9})
    assert steps_left(file, folder, study.trials) == 240.0
    assert steps_left(file_of(seconds=30.0), folder, study.trials) == 0.0
    assert steps_left(file_of(), folder, study.trials) == math.inf


def pausing(pace: float, gaps: int, **more: Any) -> tuple[SweepFile, Progress]:
    """A sweep of nine trials at most with 1000 s, and its one trial, which has ended."""
    known = {**SWEEP, "pause": True, "budget": {"trials": 9, "seconds": 1e3, **more}}
    study, file = optuna.create_study(), SweepFile.model_validate(known)
    trial = study.ask({"lr": optuna.distributions.FloatDistribution(0.1, 1.0)})
    trial.report(1.0, 1)
    trial.set_user_attr(budget.TOOK, {"since": None, "seconds": 0.0, "pace": pace, "gaps": gaps})
    study.tell(trial, 1.0)
    return file, collect(study.trials, file.target, 9, file.space)


@pytest.mark.parametrize(("more", "limit"), [({}, "seconds"), ({"money_per_hour": 36.0, "money": 0.5}, "money")])
def test_a_sweep_that_pauses_has_ended_where_what_is_left_pays_for_no_turn(more: dict[str, Any], limit: str) -> None:
    """Too little is measured to say that it brings nothing to its end."""
    file, progress = pausing(60.0, 2, **more)
    turn = asked_at(file)[0] * 60.0 / file.backend.workers.n  # of wall clock
    assert limit_reached(progress, file, 1e3 - turn + 1.0) == limit
    if limit == "seconds":
        assert limit_reached(progress, file, 1e3 - turn - 1.0) is None
    told = limit_told(progress, file, 1e3 - turn + 1.0)
    assert told is not None
    assert told.endswith(" after 1 of 9 trials had begun, and what is left pays for no other turn")


def test_a_sweep_that_pauses_has_ended_where_what_is_left_brings_nothing_to_its_end() -> None:
    file, progress = pausing(7.0, 3)
    whole = file.max_steps * 7.0  # of one worker: two are no help to a trial
    assert limit_reached(progress, file, 1e3 - whole - 1.0) is None
    assert limit_reached(progress, file, 1e3 - whole + 1.0) == "seconds"
    told = limit_told(progress, file, 1e3 - whole + 1.0)
    assert told is not None
    assert told.endswith(" after 1 of 9 trials had begun, and what is left brings no other trial to its end")
    runs_on = file.model_copy(update={"pause": False})
    assert limit_reached(progress, runs_on, 1e3 - whole + 1.0) is None, "what is begun goes to its end"
    priced = file.model_copy(update={"budget": Budget(trials=9, money_per_hour=36.0, money=0.5)})
    assert limit_reached(progress, priced, 0.0) == "money", "which pays for 50 s"
    assert not budget.is_late(priced, 0.0, 0.0, 0.0, ()), "no pace is known"


@pytest.mark.parametrize(("steps", "late"), [(60, False), (100, True)])
def test_nobody_is_told_late_where_steps_leave_less_than_time(tmp_path: Path, steps: int, late: bool) -> None:
    """Eight workers have 90 s each, 72 steps together; one trial alone needs 100 s."""
    workers = {"kind": "optuna", "workers": {"n": 8}}
    known = {**SWEEP, "pause": True, "budget": {"trials": 9, "seconds": 1e3, "steps": steps}, "backend": workers}
    study, file, folder = optuna.create_study(), SweepFile.model_validate(known), RunFolder(tmp_path)
    trial = study.ask({"lr": optuna.distributions.FloatDistribution(0.1, 1.0)})
    trial.report(1.0, 1)
    trial.set_user_attr(budget.TOOK, {"since": None, "seconds": 0.0, "pace": 10.0, "gaps": 3})
    study.tell(trial, 1.0)
    clock = {"seconds": 910.0, "until": "2024-01-01T00:00:00", "monotonic": time.monotonic() + 1e6}
    folder.clock.write_text(json.dumps(clock))
    turns = Turns(study, folder, 0, file)
    assert (turns.account(study.trials).time is not None) is late
    assert budget.late_now(file, folder, study.trials) is late
    progress = collect(study.trials, file.target, 9, file.space)
    assert limit_reached(progress, file, 910.0) == ("seconds" if late else None)


def test_steps_that_a_thawed_trial_inherits_are_none_of_its_own(tmp_path: Path) -> None:
    known = {**SWEEP, "pause": True, "budget": {"trials": 9, "seconds": 1e3}}
    study, file, folder = optuna.create_study(), SweepFile.model_validate(known), RunFolder(tmp_path)

    def end(steps: range, state: TrialState, **took: float) -> None:
        trial = study.ask({"lr": optuna.distributions.FloatDistribution(0.1, 1.0)})
        for step in steps:
            trial.report(1.0, step)
        trial.set_user_attr(budget.TOOK, {"since": None, **took})
        study.tell(trial, 1.0 if state is TrialState.COMPLETE else None, state)

    end(range(1, 9), TrialState.PRUNED, seconds=80.0, pace=10.0, gaps=5)
    end(range(1, 3), TrialState.COMPLETE, seconds=20.0, pace=10.0, gaps=3)
    add_thaw(study, Frozen("0", 2.0, 0.01, 0.01), anew=False)
    end(range(9, 10), TrialState.PRUNED, seconds=5.0)
    assert budget.trained(file, study.trials) == 8 + 2 + 1
    paces = budget.paces_of(file, study.trials)
    assert paces == {0: 10.0, 1: 10.0, 2: 5.0}, "of one step in 5 s, not of nine"
    turns = Turns(study, folder, 0, file)
    assert turns.account(study.trials).spent == 8 + 2 + 5 / 10


def test_what_a_step_of_each_trial_takes(tmp_path: Path) -> None:
    """Measured where it was, else by its configuration, but no longer than its whole time says."""
    study, folder, file = optuna.create_study(), RunFolder(tmp_path), file_of(seconds=100.0)
    folder.clock.write_text(
        json.dumps({"seconds": 40.0, "until": "2024-01-01T00:00:00", "monotonic": time.monotonic() + 1e6})
    )
    distribution = optuna.distributions.IntDistribution(1, 64, log=True)

    def add(width: int, **took: Any) -> None:
        attrs = {budget.TOOK: {"since": None, **took}} if took else {}
        params, state = {"width": width}, TrialState.COMPLETE
        study.add_trial(
            optuna.trial.create_trial(
                value=1.0,
                state=state,
                params=params,
                distributions={"width": distribution},
                intermediate_values={1: 1.0, 2: 1.0},
                user_attrs=attrs,
            )
        )

    for width in (1, 2, 4, 8, 16):
        assert budget.paces_of(file, study.trials) == {} or width > 4, "too little is measured"
        add(width, seconds=99.0, pace=float(width), gaps=1 if width < 8 else 3)
    add(64)
    add(64, seconds=12.0)
    paces = budget.paces_of(file, study.trials)
    assert paces == {0: 1.0, 1: 2.0, 2: 4.0, 3: 8.0, 4: 16.0, 5: 28.0, 6: 6.0}
    time_, pooled = budget.time_left(file, folder, study.trials, paces)
    assert (time_.left, time_.usual, pooled) == (60.0, 12.0, 120.0)
    assert time_.paces == {str(number): pace for number, pace in paces.items()}
    assert time_.pace("5") / time_.usual == pytest.approx(28 / 12)
    assert budget.new_paces(file, study.trials, [{"width": 3}, {"width": 12}]) == [3.0, 10.0]
    assert budget.new_paces(file, [], [{"width": 3}]) is None


@pytest.mark.parametrize(("limit", "priced"), [({"seconds": 1e3}, True), ({"steps": 90}, False)])
def test_a_turn_tells_the_sampler_what_steps_cost_where_time_is_short(
    tmp_path: Path, limit: dict[str, Any], priced: bool
) -> None:
    known = {**SWEEP, "pause": True, "sampler": {"kind": "curve"}, "budget": {"trials": 9, **limit}}
    file, folder = SweepFile.model_validate(known), RunFolder(tmp_path)
    study = optuna.create_study(sampler=make_sampler(file))
    for width in (1, 2, 4, 8, 16):
        study.add_trial(
            optuna.trial.create_trial(
                value=1.0,
                params={"width": width},
                distributions={"width": optuna.distributions.IntDistribution(1, 64)},
                intermediate_values={1: 1.0},
                user_attrs={budget.TOOK: {"since": None, "seconds": 99.0, "pace": float(width), "gaps": 3}},
            )
        )
    turns = Turns(study, folder, 0, file)
    assert isinstance(study.sampler, ForecastSampler)
    assert study.sampler.paces is not None
    assert study.sampler.paces(study.trials, [{"width": 3}, {"width": 12}]) == ([3.0, 10.0] if priced else None)
    assert (turns.account(study.trials).time is not None) is priced


def test_the_clock(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert read_clock(folder) == Reading()
    Clock(folder).tick()
    folder.clock.write_text(json.dumps({"seconds": 7.0, "until": "2024-01-01T00:00:00", "monotonic": 0.0}))
    clock = Clock(folder)
    assert clock.before == Reading(7.0, datetime(2024, 1, 1).astimezone(UTC), 0.0)
    assert 7.0 <= read_clock(folder).seconds < 900.0
    time.sleep(0.05)
    assert read_clock(folder).now() >= read_clock(folder).seconds + 0.05
    clock.tick()
    assert read_clock(folder).seconds >= 7.05
    long_ago = Reading(7.0, None, time.monotonic() - 3600.0)
    assert long_ago.now() < 20.0, "nobody ticks: what passes between launches is no time of the sweep's"
    folder.clock.write_text("{")  # damaged by other hands: nothing is known but when
    assert read_clock(folder).seconds == 0.0
    assert read_clock(folder).until is not None


def test_the_door_is_the_same_for_every_backend(tmp_path: Path) -> None:
    folder, study = RunFolder(tmp_path), optuna.create_study()
    file = file_of(steps=10)
    first = ownership.take(study, folder, 0, file)
    assert first is not None
    assert room(file, folder, study.trials) == 8
    first.trial.report(1.0, 9)
    assert ownership.take(study, folder, 1, file) is not None
    first.trial.report(1.0, 10)
    assert ownership.take(study, folder, 2, file) is None
    # one that was left is no new one
    study.trials[0].user_attrs[attributes.WORKER]["pid"] = 0
    ownership.release(study, folder, (), 2)
    taken = ownership.take(study, folder, 2, file)
    assert taken is not None
    assert taken.adopted
    assert ownership.work_left(study.trials, folder, file) == 1  # the other that was left
    used = file_of(seconds=5.0)
    folder.clock.write_text(json.dumps({"seconds": 5.0, "until": "2024-01-01T00:00:00", "monotonic": 0.0}))
    assert room(used, folder, study.trials) == 0


def test_a_trials_time_leaves_out_the_time_without_a_worker() -> None:
    study, now = optuna.create_study(), datetime.now()

    def worker(since: datetime) -> dict[str, Any]:
        return {"slot": 0, "pid": 1, "host": socket.gethostname(), "since": since.isoformat()}

    for earlier, since in ((None, 30), (100.0, 20), (100.0, None)):
        trial = study.ask()
        if earlier is not None:
            trial.set_user_attr(budget.SECONDS, earlier)
        trial.set_user_attr(attributes.WORKER, None if since is None else worker(now - timedelta(seconds=since)))
    seconds = [budget.seconds_of(trial, now) for trial in study.trials]
    assert seconds == pytest.approx([30.0, 120.0, 100.0])
    assert [budget.seconds_of(trial, None) for trial in study.trials] == [0.0, 100.0, 100.0]
    study.tell(0, 1.0)
    assert 30.0 <= budget.seconds_of(study.trials[0], now + timedelta(days=1)) < 900.0


def test_a_launcher_that_was_down_for_a_day_costs_nothing(tmp_path: Path) -> None:
    study, folder = optuna.create_study(), RunFolder(tmp_path)
    claimed = ownership.take(study, folder, 0, file_of())
    assert claimed is not None
    began = datetime.now() - timedelta(days=1)
    owner = {"slot": 0, "pid": 1, "host": socket.gethostname(), "since": began.isoformat()}
    claimed.trial.set_user_attr(attributes.WORKER, owner)
    ownership.release(study, folder, (), 2, blame=False, until=began + timedelta(seconds=60))
    assert study.trials[0].user_attrs[budget.SECONDS] == pytest.approx(60.0)
    assert ownership.take(study, folder, 0, file_of()) is not None
    assert 60.0 <= budget.seconds_of(study.trials[0], datetime.now()) < 900.0


def test_money(tmp_path: Path) -> None:
    study, file = optuna.create_study(), file_of(money_per_hour=36.0)
    now = datetime.now()
    for state, step, seconds in ((TrialState.COMPLETE, 10, 100.0), (TrialState.PRUNED, 4, 40.0)):
        trial = study.ask()
        trial.suggest_float("lr", 0.1, 1.0)
        trial.report(1.0, step)
        trial.set_user_attr(attributes.WORKER, {"slot": 0, "since": (now - timedelta(seconds=seconds)).isoformat()})
        trial.set_user_attr(budget.TOOK, {"since": "", "seconds": 0.0, "pace": 8.0, "gaps": 3})
        study.tell(trial, 1.0 if state == TrialState.COMPLETE else None, state=state)
    progress = collect(study.trials, file.target, 9, file.space)
    assert progress.seconds == pytest.approx(140.0, abs=9.0)
    assert progress.seconds_saved == 48.0  # 6 steps at 8 s: 2 s of every 10 were no steps
    (line,) = [
        t for t in summarize(SweepState(file, RunFolder(tmp_path), progress)).splitlines() if t.startswith("money")
    ]
    assert line.startswith("money: 1.4")
    assert line.endswith(" worker hours at 36), about 0.48 saved")
    assert [money(x) for x in (0.0, 0.0123, 12.345)] == ["0.00", "0.012", "12.35"]


def test_no_price_no_money(tmp_path: Path) -> None:
    outcome = launcher.run(write_toy(tmp_path, TRAIN, trials=1), folder=tmp_path / "run", view=Remembering())
    assert not any(line.startswith(("money", "ended by")) for line in said(outcome))


TAKE = """\
import json, os, sys, time
from pathlib import Path
from datetime import UTC, datetime
import optuna
from lcsearch.sweep.store import ownership as claim
from lcsearch.sweep.spec.model import SweepFile
from lcsearch.sweep.store.folder import RunFolder

folder, file = RunFolder(Path(sys.argv[1])), SweepFile.model_validate_json(sys.argv[3])
study = optuna.load_study(study_name="toy", storage=f"sqlite:///{folder.root}/st.db")
if sys.argv[2] == "take":
    ended, left = claim.take(study, folder, 0, file), claim.take(study, folder, 1, file)
    time.sleep(1.0)
    study.tell(ended.trial, 1.0) if not hasattr(ended, "end") else ended.end(1.0)
elif sys.argv[2] == "release":
    claim.release(study, folder, (), 0)
from lcsearch.sweep.monitor.progress import collect
now = datetime.now(UTC) if hasattr(claim, "TOOK") else datetime.now()
print(json.dumps([row.seconds for row in collect(study.trials, file.target, 9, file.space, now=now).rows]))
"""


def test_workers_time_is_the_same_in_every_time_zone(tmp_path: Path) -> None:
    optuna.create_study(study_name="toy", storage=f"sqlite:///{tmp_path}/st.db")
    file = json.dumps({**SWEEP, "budget": {"trials": 9, "money_per_hour": 1.0}})

    def at(zone: str, action: str) -> list[float]:
        done = subprocess.run(
            [sys.executable, "-c", TAKE, str(tmp_path), action, file],
            env={**os.environ, "TZ": zone},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert done.returncode == 0, done.stderr
        seconds: list[float] = json.loads(done.stdout)
        return seconds

    (ended, running) = at("Asia/Tokyo", "take")
    assert 1.0 <= ended < 900.0
    assert 1.0 <= running < 900.0
    for zone in ("America/New_York", "UTC", "Asia/Tokyo"):
        same, goes_on = at(zone, "read")
        assert same == ended
        assert running < goes_on < 900.0
    (same, given_up) = at("America/New_York", "release")
    assert same == ended
    assert running < given_up < 900.0
    assert at("Asia/Tokyo", "read") == [ended, given_up]


def test_what_was_saved_is_by_where_trials_that_began_anew_ended() -> None:
    """Dead attempts at both had come to step 8."""
    study = optuna.create_study()
    for ends, state in ((4, TrialState.COMPLETE), (1, TrialState.PRUNED)):
        trial = study.ask()
        for step in range(1, 9):
            trial.report(9.0, step)
        reports = StoredReports(trial, study.get_trials()[-1], trial.report)
        for step in range(1, ends + 1):
            reports.report(1.0, step)
        reports.end(dict.fromkeys(range(1, ends + 1), 1.0))
        study.tell(trial, 1.0 if state is TrialState.COMPLETE else None, state=state)
    found = collect(study.trials, Goal("loss", "minimize", 10), 2, {})
    assert found.lengths is not None
    assert found.lengths.ends.tolist() == [4]
    assert found.rows[1].saved == 3
