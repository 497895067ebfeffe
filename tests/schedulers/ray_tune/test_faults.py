"""Nothing that goes wrong in the scheduler, the forecaster or the log reaches the run."""

from __future__ import annotations

import logging
import math
import threading
from pathlib import Path
from typing import Any

import pytest
from kit.doubles import Dead, Liar, Mute, NormalAroundBest, NotANumber, Random, Short, Silent, Slow
from kit.tune_runner import EARLIEST, Runner, book_of, decay, of_run, run_of, scheduler
from ray.tune.experiment import Trial

from lcsearch.forecast.contract import Absent
from lcsearch.schedulers.ray_tune import CurveScheduler
from lcsearch.schedulers.ray_tune._book import Book
from lcsearch.session import Session
from lcsearch.study import Status


def failures(runner: Runner) -> dict[str, int]:
    return dict(of_run(runner).session.failed_open)


@pytest.mark.parametrize(
    "forecaster",
    [
        Dead(),
        Dead(Mute()),
        Dead(MemoryError()),
        NotANumber(),
        Short(Liar()),
        *[Silent(reason) for reason in Absent],
    ],
    ids=lambda forecaster: forecaster.name,
)
def test_a_faulty_forecaster_stops_nothing(forecaster: Any) -> None:
    runner = run_of(scheduler(forecasters=[forecaster]))
    trial = runner.start()
    assert runner.feed(trial, decay(5.0)) == 50
    assert book_of(of_run(runner)).entries[trial.trial_id].status is Status.COMPLETE
    assert sum(failures(runner).values()) == 50 - EARLIEST
    assert f", {50 - EARLIEST} failed open, " in of_run(runner).debug_string()


def test_a_slow_forecaster_stops_nothing() -> None:
    answered = threading.Event()
    of = scheduler(forecasters=[Slow(Liar(), 60, answered.wait)])
    of.session.panel.deadline = 0.05
    runner = run_of(of)
    assert runner.feed(runner.start("x"), decay(5.0, 20)) is None
    assert failures(runner) == {"late forecast": 21 - EARLIEST}
    assert of_run(runner).explain("x").splitlines()[2].startswith("incumbent: ")
    assert "P(beat): slow LATE" in of_run(runner).explain("x")
    answered.set()


@pytest.mark.parametrize("forecaster", [Liar(), Random()], ids=lambda forecaster: forecaster.name)
def test_gates_hold_against_a_liar(forecaster: Any) -> None:
    """It is sure that nothing will ever win: first trials and leaders run on all the same."""
    runner = run_of(scheduler(forecasters=[forecaster]))
    assert forecaster.calls == 0
    for values in (decay(0.05, rate=0.5), decay(0.04, rate=0.45), decay(0.03, rate=0.4)):
        trial = runner.start()
        assert runner.feed(trial, values) == 50
        assert book_of(of_run(runner)).entries[trial.trial_id].status is Status.COMPLETE
    runner.feed(runner.start(), decay(5.0))
    assert forecaster.calls > 0
    assert failures(runner) == {}


def test_one_faulty_forecaster_of_two_stops_nothing() -> None:
    runner = run_of(scheduler(forecasters=[NormalAroundBest(), Dead()]))
    assert runner.feed(runner.start(), decay(5.0, 20)) is None
    assert failures(runner) == {"forecast": 21 - EARLIEST}


@pytest.mark.parametrize("error", [ValueError("a bug"), Mute(), KeyError(3), RecursionError(), MemoryError()])
@pytest.mark.parametrize(
    ("of", "name"),
    [
        (Book, "enter"),
        (Book, "report"),
        (Book, "stop"),
        (Book, "end"),
        (Book, "trial"),
        (Book, "bank"),
        (Book, "snapshot"),
        (Session, "submit"),
        (Session, "poll"),
        (Session, "gate"),
        (Session, "withdraw"),
        (Session, "_decide"),
        (CurveScheduler, "uid"),
        (CurveScheduler, "_point"),
        (CurveScheduler, "_look"),
        (CurveScheduler, "_carry_out"),
        (CurveScheduler, "_stop"),
    ],
)
def test_a_bug_of_ours_never_reaches_the_run(
    of: Any, name: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = run_of(steps=12, of=scheduler(max_t=12, n_startup_trials=3))

    def broken(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(of, name, broken)
    trials = [runner.add(f"x{i}") for i in range(4)]
    for step in range(1, 14):
        runner.step()
        for trial in trials:
            if trial.status == Trial.RUNNING:
                runner.report(trial, step, 5.0 if step % 2 else math.nan)
        if name not in ("_decide", "submit"):
            assert of_run(runner).session.wait(10)
        runner.scheduler.debug_string()
    waiting = runner.add("waiting")
    runner.fail(trials[0], retry=True)
    runner.fail(trials[1])
    runner.stop_trial(trials[2])
    runner.stop_trial(waiting)
    runner.step()
    if name not in ("stop", "_stop", "withdraw"):  # those are not always come to
        assert failures(runner)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit()])
def test_a_signal_is_no_failure(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = run_of()

    def broken(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(Book, "report", broken)
    with pytest.raises(type(error)):
        runner.report(runner.start(), 1, 1.0)


def test_a_failure_is_counted_each_time_and_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runner = run_of()

    def broken(*_: Any) -> Any:
        raise OSError("no such thing")

    monkeypatch.setattr(Book, "report", broken)
    trial = runner.start()
    with caplog.at_level(logging.WARNING, "lcsearch"):
        for step in range(1, 6):
            assert runner.report(trial, step, 1.0) == "CONTINUE"
    assert failures(runner) == {"a result": 5}
    assert [record.getMessage() for record in caplog.records] == [
        "lcsearch: a result failed, the trial goes on: OSError: no such thing"
    ]


def test_a_decision_log_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    runner = run_of(scheduler(decision_log=tmp_path / "file" / "log"))
    for _ in range(2):
        assert runner.feed(runner.start(), decay(5.0)) == EARLIEST
    assert of_run(runner).session.wait(10)
    assert failures(runner) == {"decision log": 2}


def test_a_controller_that_raises() -> None:
    """The stop is lost, the trial goes on; it is no stop of ours then."""
    runner = run_of()
    trial = runner.start()
    runner.feed(trial, decay(5.0, EARLIEST), turn=False)

    def broken(_: Any) -> None:
        raise RuntimeError("no actor")

    whole, runner.stop_trial = runner.stop_trial, broken  # type: ignore[assignment]
    runner.step()
    runner.stop_trial = whole  # type: ignore[method-assign]
    assert trial.status == Trial.RUNNING
    assert failures(runner) == {"carrying out a stop": 1}
    assert of_run(runner).stopped() == {}
    assert runner.feed(trial, decay(5.0), EARLIEST + 1) == EARLIEST + 1
