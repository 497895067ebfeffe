"""Arguments, and what people are told."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit.builders import WRONG_ARGUMENTS
from kit.doubles import Dead, NormalAroundBest
from kit.tune_runner import EARLIEST, Runner, book_of, decay, of_run, run_of, scheduler
from ray.tune.experiment import Trial

from lcsearch.errors import InvalidValue
from lcsearch.forecast.contract import Forecasts
from lcsearch.schedule import Schedule
from lcsearch.schedulers.ray_tune import SCHEDULE, CurveScheduler
from lcsearch.session.decision_log import read_log
from lcsearch.session.explain import ELSEWHERE
from lcsearch.session.study_report import COUNTED
from lcsearch.stopping.decision import risk_told
from lcsearch.stopping.verdict import Reason

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"time_attr": ""}, "time_attr: expected the name of a result key, got ''."),
        ({"time_attr": 3}, "time_attr: expected the name of a result key, got 3."),
        ({"metric": 3}, "metric: expected the name of a result key, or None, got 3."),
        ({"mode": "minimize"}, "mode: expected 'min', 'max' or None, got 'minimize'."),
        ({"max_t": 0}, "max_t: expected a number > 0, got 0."),
        ({"decision_log": 5}, "decision_log: expected a folder's path, or None, got 5."),
        ({"max_t": INF}, "max_t: expected a number > 0, got inf."),
        ({"max_t": True}, "max_t: expected a number > 0, got True."),
        ({"max_t": "auto"}, "max_t: expected a number > 0, got 'auto'."),
        ({"grace_period": -1}, "grace_period: expected a number in [0, max_t], here [0, 50], got -1."),
        ({"grace_period": 51}, "grace_period: expected a number in [0, max_t], here [0, 50], got 51."),
        ({"grace_period": None}, "grace_period: expected a number in [0, max_t], here [0, 50], got None."),
        *WRONG_ARGUMENTS,
    ],
)
def test_constructor_errors_word_for_word(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011  # the whole message is compared below
        scheduler(**fields)
    assert isinstance(error.value, InvalidValue)
    assert str(error.value) == message


def test_the_first_five_arguments_stand_in_the_order_of_ray() -> None:
    of = CurveScheduler("epoch", "loss", "min", 30, 4)
    goal = of.snapshot().goal
    assert (of._time_attr, goal.metric, goal.direction, goal.horizon) == ("epoch", "loss", "minimize", 30.0)  # noqa: SLF001
    assert of.session.policy.n_warmup_steps == 4
    with pytest.raises(TypeError):
        CurveScheduler("epoch", "loss", "min", 30, 4, 0.05)  # type: ignore[call-arg]
    numbers = scheduler(max_t=np.int64(50), threshold=np.float32(0.05), n_startup_trials=np.int64(5))
    runner = run_of(numbers)
    assert runner.feed(runner.start(), decay(5.0)) == EARLIEST


# What a trial brings along


@pytest.mark.parametrize(
    "planned",
    [
        Schedule("cosine", 0.1, 50, 0.1),
        {"shape": "cosine", "peak": 0.1, "horizon": 50, "warmup": 0.1},
    ],
)
def test_a_planned_schedule_reaches_the_forecaster(planned: Any) -> None:
    seen: list[Any] = []

    class Curious(NormalAroundBest):
        def forecast(self, snapshot: Any, queries: Any) -> Forecasts:
            seen.extend(query.trial.schedule for query in queries)
            return super().forecast(snapshot, queries)

    runner = run_of(scheduler(forecasters=[Curious()]))
    runner.feed(runner.start(config={SCHEDULE: planned, "lr": 0.1}), decay(5.0))
    assert seen == [Schedule("cosine", 0.1, 50, 0.1)] * 2


@pytest.mark.parametrize(
    "planned", [None, "cosine", 5, [1, 2], {}, {"shape": "spiral", "peak": 0.1, "horizon": 50}, {1: 2}, {"lr": 1}]
)
def test_another_schedule_is_the_users_own(planned: Any) -> None:
    runner = run_of()
    trial = runner.start(config={SCHEDULE: planned})
    assert book_of(of_run(runner)).entries[trial.trial_id].schedule is None
    assert runner.feed(trial, decay(5.0)) == EARLIEST
    assert not of_run(runner).session.failed_open


def test_only_plain_values_of_what_the_searcher_chose_are_kept() -> None:
    runner = run_of()
    chosen = {"lr": 0.1, "n": 3, "on": True, "opt": "sgd", "data": np.zeros(9), "f": print, "none": None, "l": [1]}
    trial = runner.start("x", config={"big": "data", **chosen}, evaluated_params=chosen)
    assert dict(book_of(of_run(runner)).trial("x").params) == {"lr": 0.1, "n": 3, "on": True, "opt": "sgd"}
    assert runner.feed(trial, decay(5.0)) == EARLIEST


def test_one_of_points_to_evaluate_has_its_configuration() -> None:
    runner = run_of()
    config = {"lr": 0.1, "net": {"width": 8, 3: {"deep": True}}, "data": np.zeros(9), SCHEDULE: {"peak": 0.1}}
    runner.start("x", config=config, evaluated_params={})  # as Tune has it
    assert dict(book_of(of_run(runner)).trial("x").params) == {"lr": 0.1, "net/width": 8, "net/3/deep": True}


def test_what_one_of_points_to_evaluate_pins_stands_beside_what_is_drawn() -> None:
    runner = run_of()
    runner.start("free", config={"lr": 0.2, "wd": 0.5, "big": "data"}, evaluated_params={"lr": 0.2, "wd": 0.5})
    runner.start("half", config={"lr": 0.1, "wd": 0.4, "big": "data"}, evaluated_params={"wd": 0.4})
    assert dict(book_of(of_run(runner)).trial("half").params) == {"lr": 0.1, "wd": 0.4}


# Words


def test_a_stopped_trial() -> None:
    runner = run_of()
    runner.feed(runner.start("5f3a_07"), decay(5.0))
    text = of_run(runner).explain("5f3a_07")
    assert text.splitlines() == [
        f"trial 5f3a_07, step {EARLIEST}: STOP (BELOW)",
        "P(beat) is below the threshold at this report and at the one before.",
        "incumbent: 0.100018, trial good0 at step 50; to beat it counts from 0.0950178",
        f"this look: step {EARLIEST}, 6 observations, P(beat): fake < 0.01 %; threshold 1 %",
        "  forecast by step 50: 5.328, 90 % in [5.245, 5.41]",
        f"report before: step {EARLIEST - 1}, 5 observations, P(beat): fake < 0.01 %; threshold 1 %",
        "  forecast by step 50: 5.41, 90 % in [5.327, 5.492]",
        "rank 7 of 7 at this step",
        "risk that some stop by P(beat) so far lost the winner: < 0.01 % (uncalibrated)",
    ]
    assert of_run(runner).explain("5f") == text
    runner.feed(runner.start("better"), decay(-1.0))
    assert of_run(runner).explain("5f") == text  # as it was decided, not as it would be now
    assert of_run(runner).stopped() == {
        "5f3a_07": f"step {EARLIEST}: P(beat) < 0.01 % (was < 0.01 % at step {EARLIEST - 1}), threshold 1 %, incumbent "
        "0.1 of trial good0, rank 7 of 7 at this step"
    }


def test_a_diverged_trial() -> None:
    runner = run_of()
    runner.feed(runner.start("x"), [9.0, NAN, NAN, INF])
    assert of_run(runner).explain("x") == (
        "trial x, step 4: STOP (DIVERGED)\n"
        "The trial's own metric stays non-finite where finished trials have values.\n"
        "the last 3 reports were not finite (latest inf)\n"
        "no forecast was made, so no risk is known for this stop"
    )


def test_a_running_a_waiting_a_complete_and_a_failed_trial() -> None:
    runner = run_of()
    trial = runner.start("run")
    runner.add("wait")
    said = of_run(runner).explain("wait")
    assert said == "trial wait: it has not reported yet"
    assert of_run(runner).explain("run") == said.replace("wait", "run")
    runner.feed(trial, decay(5.0, 3))
    assert of_run(runner).explain("run").endswith("3 of 6 observations")
    runner.feed(trial, decay(5.0, EARLIEST), turn=False)
    assert "STOP (BELOW)" in of_run(runner).explain("run")  # what a look would come to now
    runner.fail(trial)
    lines = of_run(runner).explain("run").splitlines()
    assert lines[0] == "trial run failed; no look stopped it"
    assert lines[1].startswith("nearest to a stop: P(beat) < 0.01 % at step 6")
    assert lines[2].startswith("  The trial went on before this look was judged")  # SUPERSEDED
    young = runner.start("young")
    runner.feed(young, [1.0])
    runner.fail(young)
    assert of_run(runner).explain("young") == (
        "trial young failed; no look stopped it\n"
        "its looks made again just now, beside the trials that had ended when it did, are all held:\n"
        f"       1 SHORT: {Reason.SHORT.advice}"
    )
    again = of_run(runner).explain("good2").splitlines()  # no look was made at it: they are made now
    assert again[:2] == [
        "trial good2 ran to its end; no look stopped it",
        "it is one of the first 5 that ran to their end (n_startup_trials): until then nothing is stopped",
    ]
    assert again[3].endswith(f" STARTUP: {Reason.STARTUP.advice}")
    leader = runner.start("leader")
    runner.feed(leader, decay(0.05, rate=0.5))
    assert of_run(runner).explain("leader").startswith("trial leader ran to its end; no look stopped it")


def test_which_trial() -> None:
    runner = run_of(n=2)
    runner.start("good")
    for given, n in (("goo", 3), ("x", 0), ("", 3)):
        with pytest.raises(InvalidValue) as error:
            of_run(runner).explain(given)
        assert str(error.value) == (
            f"explain(trial_id): expected the id of one trial of the run, got \"{n} trials that begin with '{given}'\"."
        )
    assert (
        of_run(runner).explain("good") == "trial good: it has not reported yet"
    )  # a whole id, and the beginning of others
    assert "ran to its end" in of_run(runner).explain("good1")


def test_explaining_leaves_no_trace() -> None:
    runner = run_of()
    trial = runner.start("x")
    runner.feed(trial, decay(5.0, EARLIEST - 1))
    of = of_run(runner)
    before = dict(of.session.reasons), dict(of.session.latest), of.debug_string()
    for _ in range(2):
        of.explain("x")
        of.why_not()
        of.risk_now()
    assert (dict(of.session.reasons), dict(of.session.latest), of.debug_string()) == before


def test_why_not_names_the_gate_of_every_trial_that_reports_and_tallies_the_looks() -> None:
    runner = Runner(scheduler())
    assert of_run(runner).why_not().splitlines() == [
        f"0 looks in this process; {ELSEWHERE}",
        "  0 trials are COMPLETE, n_startup_trials is 5",
    ]
    runner.feed(runner.start("x"), decay(5.0, 4))
    assert of_run(runner).why_not().splitlines() == [
        "trial x: STARTUP: step 4: 0 of 5 trials have finished",
        "4 looks in this process:",
        "       4 STARTUP: Fewer than n_startup_trials trials have reached the horizon; the first ones always run to "
        "the end.",
    ]


def test_why_not_shows_what_failed() -> None:
    runner = run_of(scheduler(forecasters=[Dead()]))
    assert runner.feed(runner.start(), decay(5.0, EARLIEST + 2)) is None
    text = of_run(runner).why_not()
    assert "       3 failed open: forecast" in text
    assert "ABSENT: A forecaster gave no forecast, so the trial goes on." in text


def test_the_status_line() -> None:
    of = CurveScheduler()
    assert of.debug_string() == "Using CurveScheduler: 0 stopped, 0 complete, 0 looks"
    runner = run_of()
    for _ in range(2):
        runner.feed(runner.start(), decay(5.0))
    trial = runner.start()
    runner.report(trial, 1, "?")
    assert of_run(runner).debug_string() == (
        "Using CurveScheduler: 2 stopped, 6 complete, 312 looks (most: STARTUP 299), 1 failed open, risk < 0.01 % "
        "(uncalibrated)"
    )
    assert "\n" not in of_run(runner).debug_string()


def test_the_report_of_a_run() -> None:
    certificate = CurveScheduler().session.certificate
    assert str(CurveScheduler().report()).splitlines() == [
        "trials: 0 complete, 0 stopped",
        "steps: 0 spent, 0 saved",
        "risk that some stop lost the winner: not known yet",
        *([certificate] if certificate else []),
        "in this process: 0 looks failed open (the trial went on), 0 held between looks (look_growth)",
    ]
    runner = run_of(scheduler(forecasters=[NormalAroundBest(2.0)], threshold=0.5))
    runner.feed(runner.start("b"), decay(5.0))
    runner.feed(runner.start("a"), decay(5.0))
    lost, live = runner.start("lost"), runner.start("live")
    runner.feed(lost, decay(5.0, 3))
    runner.fail(lost)
    runner.feed(live, [1.0, 1.0])
    runner.report(live, 3, "?")
    found = of_run(runner).report()
    assert found.risk is not None
    assert found.risk == of_run(runner).risk_now()
    assert [(stop.trial, stop.step) for stop in found.stops] == [("a", EARLIEST), ("b", EARLIEST)]
    assert {stop.trial: stop.reason for stop in found.stops} == of_run(runner).stopped()
    assert str(found).splitlines() == [
        "trials: 6 complete, 2 stopped, 1 failed",
        f"steps: {300 + 2 * EARLIEST + 3 + 2} spent, about {2 * (50 - EARLIEST)} saved (22 % of 405), {COUNTED}",
        f"risk that some stop lost the winner: {risk_told(found.risk, found.independent)}",
        "in this process: 1 look failed open (the trial went on: reading a result 1), 0 held between looks "
        "(look_growth)",
    ]


def test_another_run_counts_its_own_looks() -> None:
    of = scheduler(forecasters=[NormalAroundBest(2.0)], threshold=0.5)
    runner = run_of(of)
    runner.feed(runner.start("x"), decay(5.0))
    runner.report(runner.start("y"), 1, "?")
    before = of.report()
    assert before.failed_open
    assert before.stops
    assert of.set_search_properties(None, None)
    again = Runner(of)
    again.report(again.start("new"), 1, 0.5)
    assert of.session.tally() == ([(Reason.STARTUP, 1)], [])
    assert "1 looks in this process:" in of.why_not()
    assert "1 looks (most: STARTUP 1)" in of.debug_string()
    assert of.report().failed_open == 0


def test_another_run_has_parameters_of_its_own() -> None:
    """Of the first Tune says what it has drawn, of the second it says nothing, so all of its configuration counts."""
    of = scheduler()
    run_of(of).start("x", config={"lr": 0.1, "data": 7}, evaluated_params={"lr": 0.1})
    assert of.set_search_properties(None, None)
    again = Runner(of)
    again.report(again.start("new", config={"width": 3}), 1, 0.5)
    assert [trial.params for trial in of.snapshot().live] == [{"width": 3}]


def test_a_decision_log(tmp_path: Path) -> None:
    runner = run_of(scheduler(decision_log=tmp_path / "log"))
    runner.feed(runner.start("x"), decay(5.0))
    runner.feed(runner.start("y"), [NAN] * 9)
    runner.feed(runner.start("z"), decay(0.3, 8))
    records = list(read_log(tmp_path / "log"))
    told = [(r["trial"], r["step"], r["verdict"], r["reason"]) for r in records]
    assert told[:2] == [("x", EARLIEST, "STOP", "BELOW"), ("y", 6, "STOP", "DIVERGED")]
    assert {r["trial"] for r in records[2:]} <= {"z"}
    assert {r["study"] for r in records} == {"tune"}
    assert all(r["latency"] >= 0 and r["models"] == {"fake": "1"} for r in records)


def test_a_run_is_called_by_its_folder() -> None:
    class Storage:
        experiment_dir_name = "digits_2026"

    of = scheduler()
    trial = Trial("mock", trial_id="x", stub=True)
    trial.storage = Storage()  # type: ignore[assignment]
    of.on_trial_add(None, trial)  # type: ignore[arg-type]
    assert of.snapshot().study == "digits_2026"


def test_steps_that_count_down_are_what_why_not_names_first() -> None:
    runner = Runner(scheduler())
    for trial in [runner.start() for _ in range(5)]:
        for step in range(49, 0, -1):
            runner.report(trial, step, 1.0 / step)
        runner.end(trial)
    runner.feed(runner.start("x"), [1.0], first=49)
    of = of_run(runner)
    said = "steps count down (trial x began with step 49, finished ones have reported steps 1 to 49)"
    assert of.why_not().startswith(said)
    assert str(of.report()).startswith("! steps count down")
