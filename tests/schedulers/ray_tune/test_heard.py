"""A run whose results say nothing: what `why_not` names first, and what is said at construction."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from kit.tune_runner import Runner, copy_of, of_run, run_of, scheduler

from lcsearch.schedulers.ray_tune import CurveScheduler, StateCallback


def reported(of: CurveScheduler, result: dict[str, Any], trials: int = 2, results: int = 3) -> Runner:
    """A run in which every trial reports `result` a few times, with what Tune adds, and returns."""
    runner = Runner(of)
    for _ in range(trials):
        trial = runner.start()
        for i in range(1, results + 1):
            runner.result(trial, {"training_iteration": i, "time_total_s": float(i), "config": {"lr": 1}, **result})
        runner.end(trial)
    return runner


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (
            {"time_attr": "epochs"},
            "none of 8 results had 'epochs', the time_attr: they had 'epoch', 'loss', 'time_total_s', "
            "'training_iteration'; did you mean 'epoch'?",
        ),
        (
            {"time_attr": "epoch", "metric": "los"},
            "none of 8 results had 'los', the metric: they had 'epoch', 'loss', 'time_total_s', 'training_iteration'; "
            "did you mean 'loss'?",
        ),
        (
            {"time_attr": "samples", "metric": "score"},
            "none of 8 results had 'samples', the time_attr, nor 'score', the metric: they had 'epoch', 'loss', "
            "'time_total_s', 'training_iteration'",
        ),
    ],
    ids=["time_attr", "metric", "both"],
)
def test_a_misspelt_key_is_named_first_and_said_once(
    fields: dict[str, Any], line: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "lcsearch"):
        runner = reported(scheduler(**fields), {"epoch": 3, "loss": 0.5})
    assert of_run(runner).why_not().splitlines()[0] == line
    assert str(of_run(runner).report()).splitlines()[0] == f"! {line}"  # before the steps, of which none are known
    said = line.replace("8 results", "4 results")  # when the first trial had ended
    assert [record.getMessage() for record in caplog.records] == [f"lcsearch: nothing can be stopped: {said}"]


def test_keys_that_never_come_together() -> None:
    of = scheduler(time_attr="epoch")
    runner = Runner(of)
    trial = runner.start()
    for _ in range(2):
        runner.result(trial, {"training_iteration": 1, "epoch": 1})
        runner.result(trial, {"training_iteration": 1, "loss": 1.0})
    assert of.why_not().splitlines()[0] == (
        "none of 4 results had 'epoch', the time_attr, and 'loss', the metric, together: report both in one result"
    )


def test_results_that_can_never_be_read() -> None:
    of = scheduler()
    runner = Runner(of)
    trial = runner.start()
    for step in range(1, 4):
        runner.report(trial, step, "low")
    assert of.why_not().splitlines()[0] == (
        "none of 3 results could be read: the latest had 'loss': 'low' at 'training_iteration': 3; report two numbers"
    )


def test_trials_that_never_report(caplog: pytest.LogCaptureFixture) -> None:
    of = scheduler(time_attr="epoch")
    runner = Runner(of)
    with caplog.at_level(logging.WARNING, "lcsearch"):
        for _ in range(3):
            runner.end(runner.start())
    what = "that ran to their end reported no value: call tune.report({'epoch': ..., 'loss': ...}) as they train"
    assert of.why_not().splitlines()[0] == f"3 of 3 trials {what}"
    assert [record.getMessage() for record in caplog.records] == [
        f"lcsearch: nothing can be stopped: 1 of 1 trial {what}"
    ]


def test_some_trials_that_never_report() -> None:
    runner = run_of(n=4)
    runner.end(runner.start())
    lines = of_run(runner).why_not().splitlines()
    call = "tune.report({'training_iteration': ..., 'loss': ...})"
    assert lines[0] == f"1 of 5 trials that ran to their end reported no value: call {call} as they train"
    assert "looks in this process" in lines[1]


def test_a_metric_that_comes_now_and_then_is_no_complaint() -> None:
    runner = run_of()
    trial = runner.start("x")
    for step in range(1, 4):
        runner.result(trial, {"training_iteration": step})
    runner.report(trial, 4, 0.5)
    assert of_run(runner).why_not().splitlines()[0].startswith("trial x: ")


def test_it_goes_with_copies_and_ends_with_the_run() -> None:
    of = scheduler(time_attr="epochs")
    reported(of, {"epoch": 3, "loss": 0.5})
    line = of.why_not().splitlines()[0]
    assert copy_of(of).why_not().splitlines()[0] == line
    fresh = scheduler(time_attr="epochs")
    StateCallback(fresh).set_state(StateCallback(of).get_state())
    assert fresh.why_not().startswith("2 of 2 trials that ran to their end reported no value: ")
    of.set_search_properties(None, None)
    Runner(of).start("new")
    assert "epochs" not in of.why_not().splitlines()[0]


@pytest.mark.parametrize(
    ("fields", "most"),
    [
        ({"max_t": 5}, 4),
        ({"max_t": 6}, 5),
        ({"max_t": 6, "time_attr": "fold"}, 5),
        ({"max_t": 7}, None),
        ({"max_t": 3, "time_attr": "time_total_s"}, None),
        ({"max_t": 1, "time_attr": "share"}, None),
    ],
)
def test_too_few_reports_for_a_stop_are_said_at_construction(
    fields: dict[str, Any], most: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "lcsearch"):
        of = CurveScheduler(metric="loss", mode="min", **fields)
        copy_of(of)
    attr = fields.get("time_attr", "training_iteration")
    assert [record.getMessage() for record in caplog.records] == (
        []
        if most is None
        else [
            f"lcsearch: max_t={fields['max_t']}: when {attr!r} counts by ones, {most} reports come before the end and "
            "a stop needs 6, so only a trial that diverges can be stopped. Report more often (say, within a fold or an "
            "epoch), on an axis that counts these reports"
        ]
    )
