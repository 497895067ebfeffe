from __future__ import annotations

import json
import logging
import math
import os
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit.allocators import Says
from kit.builders import early_policy, goal, snapshot, trial
from kit.doubles import Clock, Dead, FullDisk, Kept, Late, Mute, NormalAroundBest, Returns, Rows, Slow, chances

from lcsearch.allocation.allocators.greedy import GreedyGain
from lcsearch.allocation.allocators.run_to_end import RunToEnd
from lcsearch.allocation.ask import ask
from lcsearch.allocation.contract import Abilities, Allocation, Move, Slots
from lcsearch.errors import InvalidValue
from lcsearch.forecast.contract import Absent, Forecasts
from lcsearch.session import Session
from lcsearch.session.decision_log import DecisionLog, read_log
from lcsearch.session.session import REMEMBERED, Present
from lcsearch.stopping.decision import Decision
from lcsearch.stopping.gates import Event, GateHold
from lcsearch.stopping.policy import Policy
from lcsearch.stopping.verdict import Reason, Verdict
from lcsearch.study import Snapshot, Status, Trial

SEEN = snapshot(goal(horizon=20), [trial(str(i), [1.0 + i] * 20) for i in range(5)])
LOSER = trial("9", [8.0] * 12, Status.RUNNING)


def session(*forecasters: Any, sink: Any = None, **fields: Any) -> Session:
    return Session(early_policy(), forecasters or (Rows(0.0, 0.0),), sink, **fields)


def check(of: Session, own: Trial = LOSER, seen: Snapshot = SEEN) -> Decision:
    return of.check(seen, Event(own, own.curve.last_step)).decision


def test_a_stop() -> None:
    kept, clock = Kept(), Clock(50.0)
    judging = session(Late(clock, 0.25), sink=kept, clock=clock, wall=lambda: 1234.5)
    decision, mark = judging.check(SEEN, Event(LOSER, 11))
    assert (decision.verdict, decision.reason) == (Verdict.STOP, Reason.BELOW)
    assert mark is not None
    (receipt,) = kept.receipts
    assert receipt.decision is decision
    assert (receipt.time, receipt.latency, receipt.pid) == (1234.5, 0.25, os.getpid())
    assert receipt.models == {"late": "1"}
    assert receipt.errors == {}
    assert judging.latest["s", "9"] is decision
    assert judging.reasons == {Reason.BELOW: 1}
    assert judging.failed_open == {}


def faulty_forecasts() -> list[Any]:
    """Whatever a forecaster may do wrong, each with a name for the report."""
    nan = Forecasts(np.full((2, 2), math.nan), np.full((2, 2), 0.5), np.zeros((2, 2)), 1.0, (None, None), "nan")
    unsorted = Forecasts.of(np.array([[2.0, 1.0]] * 2), np.array([[0.0, 1.0]] * 2), np.zeros((2, 2)), sign=1, source="")
    negative = Forecasts(
        np.array([[-1e9, 1e9]] * 2), np.array([[-5.0, -5.0]] * 2), np.zeros((2, 2)), 1.0, (None, None), "negative"
    )
    return [
        pytest.param(Dead(), "FAILED", id="raises"),
        pytest.param(Dead(MemoryError()), "FAILED", id="out of memory"),
        pytest.param(Dead(RecursionError()), "FAILED", id="recursion"),
        pytest.param(Dead(Mute()), "FAILED", id="an error that cannot be printed"),
        pytest.param(Returns(None), "FAILED", id="nothing"),
        pytest.param(Returns([0.0, 0.0]), "FAILED", id="numbers"),
        pytest.param(Returns("no"), "FAILED", id="text of the right length"),
        pytest.param(Returns(chances([0.0])), "FAILED", id="too short"),
        pytest.param(Returns(chances([0.0] * 3)), "FAILED", id="too long"),
        pytest.param(Returns(nan), "NONFINITE", id="NaN"),
        pytest.param(Returns(unsorted), "NONFINITE", id="no distribution"),
        pytest.param(Returns(negative), "NONFINITE", id="a negative probability"),
        pytest.param(Returns(Forecasts.none([Absent.UNSUPPORTED] * 2)), "UNSUPPORTED", id="off law"),
        pytest.param(Rows(0.0, Absent.LATE), 0.0, id="absent at the previous look"),
        pytest.param(Rows(Absent.LATE, 0.0), "LATE", id="absent at this look"),
    ]


@pytest.mark.parametrize(("forecaster", "heard"), faulty_forecasts())
@pytest.mark.parametrize("beside", [False, True])
def test_whatever_a_forecaster_does_the_trial_goes_on(forecaster: Any, heard: str | float, beside: bool) -> None:
    kept = Kept()
    both = (forecaster, Rows(0.0, 0.0, name="sure")) if beside else (forecaster,)
    judging = session(*both, sink=kept)
    decision = check(judging)
    assert (decision.verdict, decision.reason) == (Verdict.CONTINUE, Reason.ABSENT)
    assert decision.now is not None
    assert decision.now.heard[0] == (forecaster.name, heard)
    assert judging.failed_open.total() == 1
    assert (forecaster.name in kept.receipts[0].errors) == (heard == "FAILED")
    json.dumps(kept.receipts[0].to_record())


def test_an_error_is_in_the_receipt() -> None:
    kept = Kept()
    check(session(Dead(), sink=kept))
    assert kept.receipts[0].errors == {"dead": "RuntimeError: CUDA error: device lost"}
    check(session(Returns(chances([0.0])), sink=kept))
    assert kept.receipts[1].errors == {"returns": "InvalidValue: returns.forecast: expected 2 forecasts, got 1."}
    check(session(Returns(None), sink=kept))
    assert kept.receipts[2].errors == {"returns": "InvalidValue: returns.forecast: expected Forecasts, got 'NoneType'."}


def test_the_wait_for_a_late_answer_ends_at_the_deadline() -> None:
    kept, answered = Kept(), threading.Event()
    judging = session(Slow(Rows(0.0, 0.0), 60, answered.wait), sink=kept, deadline=0.05)
    for _ in range(3):  # one that has not come back is not asked again
        decision = check(judging)
        assert (decision.verdict, decision.reason) == (Verdict.CONTINUE, Reason.ABSENT)
    assert [receipt.errors for receipt in kept.receipts] == 3 * [{"slow": "no answer within 0.05 s"}]
    assert judging.failed_open == {"late forecast": 3}
    (late,) = (thread for thread in threading.enumerate() if thread.name == "lcsearch forecast by slow")
    answered.set()
    late.join(60)
    assert session(Slow(Rows(0.0, 0.0), 0, time.sleep)).check(SEEN, Event(LOSER, 11)).record is not None


def test_a_study_is_told_its_own_looks_and_every_failure_that_no_study_had() -> None:
    judging = session()
    judging.gate({}, None, lambda: pytest.fail("no report, no study"), whose="mine")
    judging.gate({}, None, lambda: pytest.fail("no report, no study"))
    judging.failed("reading a file", OSError())
    assert sum(judging.reasons.values()) == 2
    assert [sum(n for _, n in judging.tally(whose)[0]) for whose in ("mine", "another")] == [1, 0]
    assert judging.tally("another")[1] == [("reading a file", 1)]


def test_a_model_whose_numbers_are_not_finite_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    judging = session(Rows(Absent.NONFINITE, Absent.NONFINITE))
    with caplog.at_level(logging.WARNING, "lcsearch"):
        for _ in range(2):
            assert check(judging).reason is Reason.ABSENT
    assert [r.getMessage() for r in caplog.records] == [
        "lcsearch: forecaster 'scripted' gave no forecast, trials go on: of a curve that has finite values it made "
        "numbers that are not finite"
    ]
    assert judging.failed_open == {"forecast": 2}


class Loads(Slow):
    """One whose model, or library, takes for ever to load."""

    stand_ins = ()

    def prepare(self) -> None:
        self.sleep(self.seconds)


def test_a_wait_for_what_is_loaded_is_told_as_long_as_it_was(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("lcsearch.session.panel.LOADING_S", 0.1)
    kept, loaded = Kept(), threading.Event()
    judging = session(Loads(Rows(0.0, 0.0), 60, loaded.wait), sink=kept, deadline=0.05)
    with caplog.at_level(logging.WARNING, "lcsearch"):
        for _ in range(2):
            assert check(judging).reason is Reason.ABSENT
    assert [receipt.errors for receipt in kept.receipts] == 2 * [{"slow": "not loaded within 0.1 s"}]
    assert [r.getMessage() for r in caplog.records] == [
        "lcsearch: forecaster 'slow' gave no forecast, trials go on: not loaded within 0.1 s"
    ]
    loaded.set()


def test_a_trial_that_waits_for_what_is_loaded_is_told_of_meanwhile(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A torch that hangs on import was waited for two minutes without a word."""
    monkeypatch.setattr("lcsearch.session.panel.SLOW_S", 0.01)
    told = threading.Event()
    loads = Loads(Rows(0.0, 0.0), 100, told.wait)  # until it is said
    judging = session(loads, deadline=60)

    def warn(key: str, text: str) -> None:
        judging.warn_once(key, text)
        told.set()

    monkeypatch.setattr(judging.panel, "_warn", warn)
    with caplog.at_level(logging.WARNING, "lcsearch"):
        judging.prepare()
    assert told.is_set()
    assert [r.getMessage() for r in caplog.records] == [
        "lcsearch: forecaster 'slow' is still being loaded (import torch, weights): the first look waits for it as "
        "long as it goes on, 90 s at most, and then goes on without it"
    ]


def test_what_is_loaded_too_late_is_asked_from_then_on_and_that_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("lcsearch.session.panel.LOADING_S", 0.1)
    loaded = threading.Event()
    judging = session(Loads(Rows(0.0, 0.0), 60, loaded.wait), deadline=0.1)
    assert check(judging).reason is Reason.ABSENT
    (late,) = (thread for thread in threading.enumerate() if thread.name == "lcsearch forecast by slow")
    loaded.set()
    late.join(600)
    monkeypatch.setattr("lcsearch.session.panel.LOADING_S", 600.0)
    judging.panel.deadline = 600.0
    caplog.clear()
    with caplog.at_level(logging.WARNING, "lcsearch"):
        assert [check(judging).verdict for _ in range(2)] == 2 * [Verdict.STOP]
    assert [r.getMessage() for r in caplog.records] == [
        "lcsearch: forecaster 'slow' is loaded after all: from here on it is asked"
    ]


def test_a_clock_that_runs_ahead_makes_no_answer_late() -> None:
    clock = Clock(0.0)
    assert check(session(Late(clock, 1e9), clock=clock, deadline=50)).verdict is Verdict.STOP


def test_an_interrupt_is_not_swallowed() -> None:
    with pytest.raises(KeyboardInterrupt):
        check(session(Dead(KeyboardInterrupt())))


def test_a_fault_is_logged_once_and_counted_every_time(caplog: pytest.LogCaptureFixture) -> None:
    judging = session(Dead())
    with caplog.at_level(logging.WARNING, "lcsearch"):
        for _ in range(3):
            check(judging)
    assert [r.getMessage() for r in caplog.records] == [
        "lcsearch: forecaster 'dead' gave no forecast, trials go on: RuntimeError: CUDA error: device lost"
    ]
    assert judging.failed_open == {"forecast": 3}
    assert judging.reasons == {Reason.ABSENT: 3}


def test_a_sink_that_raises_changes_no_verdict(caplog: pytest.LogCaptureFixture) -> None:
    judging = session(sink=FullDisk())
    with caplog.at_level(logging.WARNING, "lcsearch"):
        assert check(judging).verdict is Verdict.STOP
        assert check(judging).verdict is Verdict.STOP
    assert judging.failed_open == {"decision log": 2}
    assert [r.getMessage() for r in caplog.records] == [
        "lcsearch: decision log failed, the trial goes on: OSError: [Errno 28] No space left on device"
    ]


def test_a_version_that_cannot_be_read_changes_no_verdict() -> None:
    class Nameless(Rows):
        @property
        def version(self) -> str:  # type: ignore[override]
            raise OSError("weights gone")

    judging = session(Nameless(0.0, 0.0), sink=Kept())
    assert check(judging).verdict is Verdict.STOP
    assert judging.failed_open == {"decision log": 1}


def test_failures_of_others_are_counted_even_without_words() -> None:
    judging = session()
    judging.failed("pruner", Mute())
    judging.failed("pruner", ValueError("x"))
    assert judging.failed_open == {"pruner": 2}


# Clocks


def test_no_clock_holds_a_look() -> None:
    """Forecasts that took a thousand times what training took once held back most looks, on a busy machine more."""
    clock = Clock(0.0)
    judging = session(Late(clock, 4.0), clock=clock)
    assert {check(judging).reason for _ in range(20)} == {Reason.BELOW}


# Counters, memory, receipts


def test_held_looks_are_counted_and_leave_no_receipt() -> None:
    kept = Kept()
    judging = session(sink=kept)
    studies: list[Present] = []
    assert judging.gate({0: 1.0}, None, studies.pop) == GateHold(Reason.NO_REPORT)
    check(judging, trial("9", [8.0] * 2, Status.RUNNING))
    check(judging, trial("9", [8.0, *[math.nan] * 3], Status.RUNNING))
    assert judging.reasons == {Reason.NO_REPORT: 1, Reason.SHORT: 1, Reason.DIVERGED: 1}
    assert [r.decision.reason for r in kept.receipts] == [Reason.DIVERGED]


def test_the_latest_decision_of_each_trial_is_remembered_up_to_a_number() -> None:
    judging = session()
    own = trial("9", [8.0] * 2, Status.RUNNING)
    check(judging)
    for i in range(REMEMBERED - 1):
        check(judging, trial(f"t{i}", [8.0] * 2, Status.RUNNING))
    assert len(judging.latest) == REMEMBERED
    check(judging, own)  # moves to the end
    check(judging, trial("one more", [8.0], Status.RUNNING))
    assert len(judging.latest) == REMEMBERED
    assert ("s", "9") in judging.latest
    assert ("s", "t0") not in judging.latest


def test_a_look_that_was_not_due_does_not_take_the_place_of_what_was_said_last() -> None:
    kept = Kept()
    judging = Session(early_policy(look_growth=1.5), [Rows(0.5, 0.5)], kept)
    assert check(judging, trial("9", [8.0] * 6, Status.RUNNING)).reason is Reason.ABOVE
    assert check(judging, trial("9", [8.0] * 7, Status.RUNNING)).reason is Reason.SPACED
    assert judging.latest["s", "9"].reason is Reason.ABOVE
    assert judging.reasons == {Reason.ABOVE: 1, Reason.SPACED: 1}
    assert [receipt.decision.reason for receipt in kept.receipts] == [Reason.ABOVE]


def test_receipts_reach_a_decision_log(tmp_path: Path) -> None:
    judging = session(NormalAroundBest(), sink=DecisionLog(tmp_path))
    check(judging)
    (record,) = read_log(tmp_path)
    assert (record["verdict"], record["reason"], record["trial"]) == ("STOP", "BELOW", "9")
    assert record["now"]["heard"]["fake"] < 1e-6


@pytest.mark.parametrize(
    ("forecasters", "fields", "message"),
    [
        ([], {}, "forecasters: expected at least one forecaster, no name twice, got []."),
        (
            [Dead(), Dead()],
            {},
            "forecasters: expected at least one forecaster, no name twice, got ['dead', 'dead'].",
        ),
        (
            [Dead()],
            {"deadline": 0},
            "deadline: expected a number of seconds > 0, got 0.",
        ),
        (
            [Dead()],
            {"deadline": math.nan},
            "deadline: expected a number of seconds > 0, got nan.",
        ),
    ],
)
def test_errors_word_for_word(forecasters: list[Any], fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValue) as error:
        Session(Policy(), forecasters, **fields)
    assert str(error.value) == message


# Processes and threads


def test_pickling_keeps_the_knobs_and_leaves_the_clock() -> None:
    judging = session(NormalAroundBest())
    check(judging)
    twin = pickle.loads(pickle.dumps(judging))
    assert twin.policy == judging.policy
    assert twin.reasons == {}
    assert check(twin).verdict is Verdict.STOP


def test_many_threads_one_session() -> None:
    judging = session(NormalAroundBest(), sink=Kept())

    def work(name: str) -> None:
        for i in range(25):
            own = trial(f"{name}{i}", [8.0] * 12, Status.RUNNING)
            assert check(judging, own).verdict is Verdict.STOP

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, "abcd"))
    assert judging.reasons == {Reason.BELOW: 100}
    assert len(judging.latest) == 100


def test_floating_point_traps_of_the_user_are_left_to_his_own_code() -> None:
    """A hunt for NaN with np.seterr must not switch every forecast off."""
    with np.errstate(all="raise"):
        decision = check(session(NormalAroundBest()))
        assert decision.reason in (Reason.BELOW, Reason.ABOVE)
        assert np.geterr()["over"] == "raise"


def test_a_pickle_of_an_earlier_version_is_read() -> None:
    """Its panel warns by a method's name of then."""
    now = pickle.dumps(session(), protocol=3)  # without frames
    was = now.replace(b"X\x09\x00\x00\x00warn_once", b"X\x04\x00\x00\x00tell")
    assert was != now
    assert check(pickle.loads(was)).verdict is Verdict.STOP


# Free slots


WAITING = snapshot(goal(horizon=20), SEEN.bank, [trial("9", [8.0] * 6, Status.PAUSED)])
PAUSE = Abilities(pause=True)


def test_an_allocation_hears_the_forecasters() -> None:
    """The arm that cannot win waits; the queries are worked out once."""
    of = session(Rows(0.0))
    asked = ask(GreedyGain(gain="p_beat"), None, WAITING, PAUSE, Slots(1, 3), (0, 0))
    assert len(asked.queries) == 1
    (move,) = of.allocate(asked).moves
    assert move.uid is None
    (move,) = session(Rows(1.0)).allocate(asked).moves
    assert move.uid == "9"
    assert of.failed_open == {}


def test_an_allocator_that_breaks_its_contract_is_counted_and_everything_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    of = session()
    broken = Says(moves=(Move("5", 20),), name="broken")
    made = of.allocate(ask(broken, "mine", WAITING, PAUSE, Slots(2, 3), (0, 0)))
    assert [move.uid for move in made.moves] == ["9", None]
    assert made.state == "mine"
    assert of.failed_open == {"allocator 'broken'": 1}
    assert "expected the uid of a PAUSED trial, got '5'" in caplog.text


@dataclass(frozen=True)
class Counts(RunToEnd):
    """Its state is a number of numpy's."""

    def allocate(self, state: Any, *args: Any) -> Allocation:
        return super().allocate(np.int64(3), *args)


def test_a_state_that_cannot_be_stored_stays_what_it_was() -> None:
    of = session()
    made = of.allocate(ask(Counts(), {"n": 2}, WAITING, PAUSE, Slots(1, 3), (0, 0)))
    assert [move.uid for move in made.moves] == ["9"]
    assert made.state == {"n": 2}
    assert sum(of.failed_open.values()) == 1


@dataclass(frozen=True)
class Made(RunToEnd):
    what: Any = None


def test_knobs_that_cannot_be_copied_are_no_end() -> None:
    of = session()
    made = of.allocate(ask(Made(threading.Lock()), None, WAITING, PAUSE, Slots(1, 3), (0, 0)))
    assert [move.uid for move in made.moves] == ["9"]
    assert of.failed_open == {"allocation receipt": 1}
    assert of.allocations(WAITING).receipts == []


def test_an_allocation_without_a_forecast_falls_back_on_what_the_allocator_knows() -> None:
    of = session(Dead())
    made = of.allocate(ask(GreedyGain(), None, WAITING, PAUSE, Slots(1, 3), (0, 0)))
    assert [move.uid for move in made.moves] == ["9"], "nobody knows: it goes on"
    assert of.failed_open == {}
