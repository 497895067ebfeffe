"""Session.submit, poll, wait, withdraw: the same looks as `check`, decided on a thread."""

from __future__ import annotations

import json
import math
import pickle
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
from kit.builders import early_policy, goal, snapshot, trial
from kit.doubles import Clock, Dead, FullDisk, Kept, NormalAroundBest, NotANumber, Random, Rows, chances
from ray import cloudpickle

import lcsearch.session.look_queue
import lcsearch.session.session
from lcsearch.errors import InvalidValue
from lcsearch.forecast.contract import Absent, Forecasts, Query
from lcsearch.session import Session
from lcsearch.stopping.decision import Decision
from lcsearch.stopping.gates import Ask, Event, ask
from lcsearch.stopping.judge import Judgement, risk_now
from lcsearch.stopping.policy import Policy
from lcsearch.stopping.verdict import Reason, Verdict
from lcsearch.study import Snapshot, Status, Trial

NAN = math.nan
LIMIT_S = 10.0
"""Reached by no test that passes."""

SEEN = snapshot(goal(horizon=20), [trial(str(i), [1.0 + i] * 20) for i in range(5)])
LOSER = trial("9", [8.0] * 12, Status.RUNNING)


class Door:
    """Asks `inner` behind a door: a question comes in, waits for `let`, and is answered."""

    version = "1"

    def __init__(self, inner: Any = None, name: str = "door") -> None:
        self.inner, self.name = inner or Rows(0.0, 0.0), name
        self.asked: list[tuple[str, float]] = []
        self._entered, self._may = threading.Semaphore(0), threading.Semaphore(0)

    def __reduce__(self) -> tuple[type[Rows], tuple[float, float]]:
        return Rows, (0.0, 0.0)

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        self.asked.append((queries[0].trial.uid, queries[0].trial.curve.last_step))
        self._entered.release()
        assert self._may.acquire(timeout=LIMIT_S)
        answer: Forecasts = self.inner.forecast(snapshot, queries)
        return answer

    def await_question(self) -> None:
        """Wait until one more question stands before the door."""
        assert self._entered.acquire(timeout=LIMIT_S)

    def let(self, n: int = 1) -> None:
        """Let so many questions through, now or when they come."""
        self._may.release(n)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    """Every thread of a test ends with it, doors included."""
    before = set(threading.enumerate())
    patch = pytest.MonkeyPatch()
    patch.setattr(lcsearch.session.look_queue, "IDLE_S", 0.02)
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(LIMIT_S)
        assert not thread.is_alive(), "a door was never opened"
    patch.undo()


def session(*forecasters: Any, sink: Any = None, policy: Policy | None = None, **fields: Any) -> Session:
    return Session(policy or early_policy(), forecasters or (Rows(0.0, 0.0),), sink, **fields)


def loser(uid: str = "9", n: int = 12) -> Trial:
    return trial(uid, [8.0] * n, Status.RUNNING)


def submit(of: Session, own: Trial = LOSER, seen: Snapshot = SEEN, step: float | None = None) -> None:
    _, live = PRESENT.get(id(of), (seen, {}))
    PRESENT[id(of)] = seen, {**live, own.uid: own}
    of.submit(seen, Event(own, own.curve.last_step if step is None else step))


PRESENT: dict[int, tuple[Snapshot, dict[str, Trial]]] = {}
"""By session: the study that was submitted last, and every trial as it was submitted last."""


def polled(of: Session, ready: Callable[[str], bool] = lambda uid: True) -> list[Judgement]:
    def present() -> Snapshot:
        seen, live = PRESENT.get(id(of), (SEEN, {}))
        return replace(seen, live=tuple(live.values()))

    return list(of.poll(present, ready))


def settled(of: Session, ready: Callable[[str], bool] = lambda uid: True) -> list[Decision]:
    """Every decision there is to be had now."""
    assert of.wait(LIMIT_S)
    decisions = [judgement.decision for judgement in polled(of, ready)]
    assert of.wait(LIMIT_S)  # for what is written of them
    return decisions


def short(decisions: Sequence[Decision]) -> list[tuple[str, float, str]]:
    return [(d.trial, d.step, d.reason.name) for d in decisions]


def logged(kept: Kept) -> list[tuple[str, float, str]]:
    return short([receipt.decision for receipt in kept.receipts])


# The same decisions


def random_look(seed: int) -> tuple[Policy, Snapshot, Event]:
    """A look of a made-up study; all kinds of gates and rules occur."""
    rng = np.random.default_rng(seed)

    def values(n: int) -> list[float]:
        found = rng.choice([*range(6), NAN, math.inf], n, p=[0.15] * 6 + [0.05] * 2)
        if rng.random() < 0.15:
            found[-4:] = NAN
        return [float(v) for v in found]

    of = goal(("minimize", "maximize")[seed % 2], 20, ("best", "final")[seed // 2 % 2])
    states = (Status.COMPLETE, Status.STOPPED, Status.FAILED)
    done = [trial(f"d{i}", values(20), states[int(rng.choice(3, p=[0.6, 0.3, 0.1]))]) for i in range(rng.integers(12))]
    live = [trial(f"r{i}", values(int(rng.integers(1, 22))), Status.RUNNING) for i in range(4)]
    knobs = {"threshold": 0.4, "interval_steps": int(rng.integers(1, 3)), "n_warmup_steps": int(rng.integers(6))}
    policy = early_policy(**knobs, risk=[None, 0.2][rng.integers(2)], n_startup_trials=int(rng.integers(4)))
    return policy, snapshot(of, done, live), Event(live[0], live[0].curve.last_step)


def test_a_submitted_look_is_decided_as_a_checked_one() -> None:
    reasons = set()
    for seed in range(300):
        policy, seen, event = random_look(seed)
        forecast = NormalAroundBest(0.3) if seed % 3 else Random(seed=seed)
        at_once, later = session(forecast, policy=policy), session(forecast, policy=policy)
        expected = at_once.check(seen, event)
        later.submit(seen, event)
        assert later.wait(LIMIT_S)
        handed = list(later.poll(lambda seen=seen: seen))  # type: ignore[misc]
        passed = isinstance(ask(policy, seen, event), Ask)
        assert handed == ([expected] if passed else [])  # held looks have nothing to carry out
        assert later.latest == at_once.latest == {("s", "r0"): expected.decision}
        assert later.reasons == at_once.reasons
        assert later.failed_open == at_once.failed_open
        reasons.add(expected.decision.reason)
    assert reasons >= {Reason.BELOW, Reason.ABOVE, Reason.ABOVE_BEFORE, Reason.DIVERGED, Reason.GUARD, Reason.STARTUP}


@pytest.mark.parametrize(
    "forecaster",
    [
        pytest.param(Dead(), id="raises"),
        pytest.param(Dead(MemoryError()), id="out of memory"),
        pytest.param(NotANumber(), id="NaN"),
        pytest.param(Rows(Absent.UNSUPPORTED, 0.0), id="off law"),
        pytest.param(Rows(0.0, Absent.LATE), id="absent at the previous look"),
    ],
)
def test_whatever_a_forecaster_does_the_trial_goes_on(forecaster: Any) -> None:
    kept = Kept()
    judging = session(forecaster, Rows(0.0, 0.0, name="sure"), sink=kept)
    submit(judging)
    (decision,) = settled(judging)
    assert (decision.verdict, decision.reason) == (Verdict.CONTINUE, Reason.ABSENT)
    assert judging.failed_open.total() == 1
    (receipt,) = kept.receipts
    assert ("dead" in receipt.errors) == (forecaster.name == "dead")
    json.dumps(receipt.to_record())


def test_time_in_the_queue_is_no_lateness_of_the_forecaster() -> None:
    clock, door, kept = Clock(0.0), Door(), Kept()
    judging = session(door, sink=kept, clock=clock, deadline=50.0)
    submit(judging, loser("a"))
    door.await_question()
    submit(judging, loser("b"))
    clock.now = 100.0
    door.let(2)
    assert [(d.trial, d.reason) for d in settled(judging)] == [("a", Reason.BELOW), ("b", Reason.BELOW)]
    assert [receipt.latency for receipt in kept.receipts] == [100.0, 100.0]


class Panic(BaseException):
    pass


def test_a_panic_inside_a_forecaster_does_not_end_the_thread() -> None:
    """That of a library written in Rust is no Exception."""
    failing = Dead(Panic())
    judging = session(failing)
    submit(judging)
    assert settled(judging) == []
    assert judging.failed_open == {"look": 1}
    failing.error = RuntimeError("better")
    submit(judging)
    assert short(settled(judging)) == [("9", 11, "ABSENT")]


def test_a_failure_of_ours_ends_neither_thread_nor_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> Any:
        raise InvalidValue("a sound judge", "none", "judge")

    judging = session(sink=Kept())
    with monkeypatch.context() as patch:
        patch.setattr(lcsearch.session.session, "judge", broken)
        submit(judging)
        assert settled(judging) == []
    assert judging.failed_open == {"look": 1}
    submit(judging)
    assert short(settled(judging)) == [("9", 11, "BELOW")]


def test_a_full_disk_changes_no_verdict() -> None:
    judging = session(sink=FullDisk())
    submit(judging)
    assert short(settled(judging)) == [("9", 11, "BELOW")]
    assert judging.failed_open == {"decision log": 1}


# While a forecaster takes its time


def test_submit_and_poll_return_while_a_forecaster_blocks() -> None:
    door = Door()
    judging = session(door)
    submit(judging)
    door.await_question()
    submit(judging, loser("8"))  # one more waits behind it
    submit(judging, trial("7", [8.0] * 2, Status.RUNNING))  # a gate holds it at once
    assert judging.reasons == {Reason.SHORT: 1}
    assert polled(judging) == []
    assert judging.wait(0) is False
    assert judging.reasons.total() == 1
    door.let(2)
    assert short(settled(judging)) == [("9", 11, "BELOW"), ("8", 11, "BELOW")]
    assert judging.wait(0) is True


def test_looks_of_different_trials_come_oldest_first() -> None:
    door = Door()
    judging = session(door)
    for uid in "acbd":
        submit(judging, loser(uid))
    door.let(4)
    assert [d.trial for d in settled(judging)] == [*"acbd"]
    assert [uid for uid, _ in door.asked] == [*"acbd"]


def test_at_most_one_look_of_a_trial_waits() -> None:
    door, kept = Door(), Kept()
    judging = session(door, sink=kept)
    submit(judging, loser("a"))
    door.await_question()
    for n in (9, 10, 11):
        submit(judging, loser("b", n))
    assert judging.reasons == {Reason.SUPERSEDED: 2}
    overtaken = judging.latest["s", "b"]
    assert (overtaken.verdict, overtaken.now) == (Verdict.CONTINUE, None)
    assert overtaken.standing is not None
    assert overtaken.incumbent == SEEN.incumbent
    door.let(2)
    assert short(settled(judging)) == [("a", 11, "BELOW"), ("b", 10, "BELOW")]
    assert door.asked == [("a", 11), ("b", 10)]
    assert judging.reasons == {Reason.SUPERSEDED: 2, Reason.BELOW: 2}


def test_a_look_that_is_judged_and_not_fetched_gives_way_to_a_newer_one() -> None:
    kept = Kept()
    judging = session(Rows(0.9, 0.9), sink=kept)
    for n in (9, 10, 11):
        submit(judging, loser(n=n))
        assert judging.wait(LIMIT_S)
    assert logged(kept) == [("9", 8, "SUPERSEDED"), ("9", 9, "SUPERSEDED")]
    assert all(receipt.decision.now is not None for receipt in kept.receipts)
    assert short(settled(judging)) == [("9", 10, "ABOVE")]


def test_no_look_is_begun_while_a_stop_is_to_be_fetched() -> None:
    """Whether the newer look would have gone on must not hang on how fast the thread is."""
    answers = iter([0.0, 0.9])

    class Changing(Rows):
        def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
            return chances([next(answers)] * 2, snapshot.goal.sign)

    kept = Kept()
    judging = session(Changing(), sink=kept)
    submit(judging, loser(n=11))
    assert judging.wait(LIMIT_S)
    submit(judging, loser(n=12))
    ((decision, mark),) = polled(judging)
    assert (decision.step, decision.verdict) == (10, Verdict.STOP)
    assert mark is not None
    assert settled(judging) == []
    assert logged(kept) == [("9", 11, "SUPERSEDED"), ("9", 10, "BELOW")]


def test_a_stop_takes_back_the_newer_look_that_waits_behind_it() -> None:
    door = Door()
    judging = session(door, sink=(kept := Kept()))
    submit(judging, loser(n=11))
    door.await_question()
    submit(judging, loser(n=12))
    door.let()
    assert short(settled(judging)) == [("9", 10, "BELOW")]
    assert logged(kept) == [("9", 11, "SUPERSEDED"), ("9", 10, "BELOW")]


def test_a_newer_look_keeps_the_place_of_the_older_one() -> None:
    """A trial that reports often is not sent to the end of the row each time."""
    door = Door()
    judging = session(door)
    submit(judging, loser("8"))
    door.await_question()
    submit(judging, loser("7", 11))
    submit(judging, loser("6"))
    submit(judging, loser("7", 12))
    door.let(3)
    settled(judging)
    assert [uid for uid, _ in door.asked] == ["8", "7", "6"]


def test_each_judgement_is_handed_out_once() -> None:
    judging = session()
    submit(judging)
    assert len(settled(judging)) == 1
    assert settled(judging) == []
    assert judging.reasons == {Reason.BELOW: 1}
    submit(judging)
    assert len(settled(judging)) == 1


def test_judgements_of_trials_that_are_not_ready_stay() -> None:
    judging = session()
    for uid in "abc":
        submit(judging, loser(uid))
    assert [d.trial for d in settled(judging, lambda uid: uid == "b")] == ["b"]
    assert settled(judging, lambda uid: False) == []
    assert judging.reasons == {Reason.BELOW: 1}  # what nobody has fetched is not counted
    assert [d.trial for d in settled(judging)] == ["a", "c"]


# Withdrawals

PROTECTING = {
    Reason.INCUMBENT: (trial("9", [*[8.0] * 12, 0.5], Status.RUNNING), SEEN),
    Reason.GUARD: (trial("9", [*[8.0] * 12, 1.0], Status.RUNNING), SEEN),
    Reason.HORIZON: (trial("9", [8.0] * 20, Status.RUNNING), SEEN),
    Reason.MIN_TRIALS: (
        loser(n=13),
        snapshot(SEEN.goal, [trial(str(i), [1.0 + i] * 7, first=13) for i in range(5)]),
    ),
    Reason.COMPARISONS: (loser(n=13), snapshot(SEEN.goal, [trial(str(i), [1.0 + i] * 20) for i in range(3)])),
    Reason.UNMOVED: (loser(n=13), snapshot(SEEN.goal, [trial(str(i), [9.0, *[1.0 + i] * 19]) for i in range(5)])),
}
OTHERS = {
    Reason.WARMUP: (loser(n=3), SEEN, {"n_warmup_steps": 4}),
    Reason.INTERVAL: (loser(n=14), SEEN, {"interval_steps": 11}),
    Reason.SHORT: (loser(n=2), SEEN, {}),
    Reason.NO_VALUE: (trial("9", [*[8.0] * 13, NAN], Status.RUNNING), SEEN, {}),
}
MOMENTS = ["waiting", "busy", "judged"]


def under_way(moment: str, **knobs: Any) -> tuple[Session, Door, Kept]:
    """A session that has a stop of trial 9 at step 11 under way."""
    door, kept = Door(), Kept()
    judging = session(door, sink=kept, policy=early_policy(**knobs))
    if moment == "waiting":
        submit(judging, loser("8"))
        door.await_question()
    submit(judging)
    if moment == "busy":
        door.await_question()
    if moment == "judged":
        door.let()
        assert judging.wait(LIMIT_S)
    return judging, door, kept


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("reason", PROTECTING, ids=lambda reason: reason.name)
def test_a_gate_that_protects_withdraws_the_stop_of_an_older_look(reason: Reason, moment: str) -> None:
    judging, door, kept = under_way(moment)
    own, seen = PROTECTING[reason]
    submit(judging, own, seen)
    assert judging.reasons == {reason: 1}
    door.let(2)
    assert "9" not in [d.trial for d in settled(judging)]
    assert judging.wait(LIMIT_S)
    (fell,) = [r.decision for r in kept.receipts if r.decision.trial == "9"]
    assert (fell.step, fell.verdict, fell.reason) == (11, Verdict.CONTINUE, reason)
    assert fell.now is not None


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_trial_that_leads_by_now_is_protected_though_no_look_was_due(moment: str) -> None:
    """Between two looks of an interval no gate is asked; the stop of the last look falls all the same."""
    judging, door, _ = under_way(moment, interval_steps=11)
    submit(judging, trial("9", [*[8.0] * 13, 0.5], Status.RUNNING))
    assert judging.reasons == {Reason.INTERVAL: 1}
    door.let(2)
    assert "9" not in [d.trial for d in settled(judging)]
    assert judging.reasons[Reason.INCUMBENT] == 1


def test_stops_that_were_judged_side_by_side_keep_to_the_risk_limit() -> None:
    """Each was judged before any of the others had left its mark."""
    kept = Kept()
    judging = session(Rows(0.03, 0.03), sink=kept, policy=early_policy(risk=0.07))
    live = {uid: loser(uid) for uid in "abcdefgh"}
    for own in live.values():
        judging.submit(SEEN, Event(own, 11))
    assert judging.wait(LIMIT_S)
    stopped = []
    for judgement in judging.poll(lambda: replace(SEEN, live=tuple(live.values()))):
        uid = judgement.decision.trial
        live[uid] = replace(live[uid], stop_records={"stop": judgement.record})
        stopped.append(uid)
    assert stopped == ["a", "b"]
    assert judging.reasons == {Reason.BELOW: 2, Reason.RISK_LIMIT: 6}
    risk = risk_now(judging.policy, replace(SEEN, live=tuple(live.values())))
    assert risk is not None
    assert 0.05 < risk <= 0.07


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("reason", OTHERS, ids=lambda reason: reason.name)
def test_other_gates_leave_a_stop_under_way(reason: Reason, moment: str) -> None:
    own, seen, knobs = OTHERS[reason]
    judging, door, _ = under_way(moment, **knobs)
    submit(judging, own, seen)
    assert judging.reasons == {reason: 1}
    door.let(2)
    assert ("9", 11, "BELOW") in short(settled(judging))
    assert Reason.SUPERSEDED not in judging.reasons


def test_every_gate_protects_or_does_not() -> None:
    """Neither STARTUP nor NO_INCUMBENT comes back after a stop was judged; a thawed trial is one from its begin."""
    tried = {*PROTECTING, *OTHERS, Reason.STARTUP}
    assert set(list(Reason)[: list(Reason).index(Reason.SPACED)]) - tried == {
        Reason.NO_REPORT,
        Reason.FIRST_LOOK,
        Reason.THAWED,
        Reason.NO_INCUMBENT,
        Reason.THAWED,
    }


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_trial_that_has_ended_takes_its_look_with_it(moment: str) -> None:
    judging, door, kept = under_way(moment)
    judging.withdraw("none of that name")
    judging.withdraw("9")
    judging.withdraw("9")
    door.let(2)
    assert [d.trial for d in settled(judging)] == (["8"] if moment == "waiting" else [])
    assert [entry for entry in logged(kept) if entry[0] == "9"] == [("9", 11, "SUPERSEDED")]


def test_another_trials_withdrawal_leaves_a_look_that_is_being_judged() -> None:
    judging, door, _ = under_way("busy")
    judging.withdraw("8")
    submit(judging, trial("8", [*[8.0] * 12, 0.5], Status.RUNNING))
    assert judging.reasons == {Reason.INCUMBENT: 1}
    door.let()
    assert short(settled(judging)) == [("9", 11, "BELOW")]


def test_a_look_after_a_withdrawal_counts() -> None:
    """The trial is looked at again while its first look, withdrawn by now, is still being judged."""
    judging, door, kept = under_way("busy")
    judging.withdraw("9")
    submit(judging, loser(n=14))
    door.let(2)
    assert short(settled(judging)) == [("9", 13, "BELOW")]
    assert logged(kept) == [("9", 11, "SUPERSEDED"), ("9", 13, "BELOW")]


# Divergence


DIVERGED = trial("9", [8.0, *[NAN] * 12], Status.RUNNING)


@pytest.mark.parametrize("moment", ["nothing", *MOMENTS])
def test_a_diverged_trial_needs_no_forecaster(moment: str) -> None:
    door, kept = Door(), Kept()
    judging = session(door, sink=kept)
    if moment != "nothing":
        judging, door, kept = under_way(moment)
    submit(judging, DIVERGED)
    ((decision, mark),) = polled(judging, lambda uid: uid == "9")  # at once
    assert (decision.verdict, decision.reason, decision.step) == (Verdict.STOP, Reason.DIVERGED, 12)
    assert mark is not None
    assert mark.reason == "DIVERGED"
    door.let(2)
    assert [d.trial for d in settled(judging)] == (["8"] if moment == "waiting" else [])
    assert ("9", 12, "DIVERGED") in logged(kept)
    assert judging.reasons[Reason.SUPERSEDED] == (moment != "nothing")


# Waiting for one look


def test_whoever_settles_a_look_has_its_judgement() -> None:
    judging = session(Rows(0.0, 0.0))
    for uid in "abc":
        submit(judging, loser(uid))
        assert judging.settle(uid)
        assert short([judgement.decision for judgement in polled(judging)]) == [(uid, 11, "BELOW")]
    assert judging.settle("unknown")


def test_a_forecaster_that_is_stuck_is_waited_for_once_and_told(caplog: pytest.LogCaptureFixture) -> None:
    door = Door()
    judging = session(door, deadline=0.05)
    submit(judging, loser("a"))
    assert judging.settle("a")
    assert short(settled(judging)) == [("a", 11, "ABSENT")]  # the wait has ended, the forecaster has not answered
    for uid in "bc":
        submit(judging, loser(uid))
        assert judging.settle(uid)
    assert {d.reason for d in settled(judging)} == {Reason.ABSENT}
    assert door.asked == [("a", 11)]  # nobody asks one that has not come back
    assert judging.failed_open == {"late forecast": 3}
    assert "forecaster 'door' gave no forecast, trials go on: no answer within 0.05 s" in caplog.text
    (stuck,) = (thread for thread in threading.enumerate() if thread.name == "lcsearch forecast by door")
    door.let(2)
    stuck.join(LIMIT_S)
    submit(judging, loser("d"))
    assert short(settled(judging)) == [("d", 11, "BELOW")]  # it has answered: it is asked again


def test_looks_that_wait_are_asked_about_together() -> None:
    class Together(Door):
        batches: ClassVar[list[int]] = []

        def forecast_each(self, asks: Sequence[tuple[Snapshot, Sequence[Query]]]) -> list[Forecasts]:
            self.batches.append(len(asks))
            return [self.inner.forecast(*one) for one in asks]

    door = Together()
    judging = session(door)
    submit(judging, loser("a"))
    door.await_question()
    for uid in "bcd":
        submit(judging, loser(uid))
    door.let()
    assert [d.trial for d in settled(judging)] == [*"abcd"]
    assert door.batches == [3]


def test_a_look_is_told_of_its_own_failure_alone() -> None:
    """Looks that were asked about together once shared the errors of them all."""

    class Moody(Door):
        def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
            answer = super().forecast(snapshot, queries)
            if queries[0].trial.uid == "c":
                raise RuntimeError("not that one")
            return answer

    door, kept = Moody(), Kept()
    judging = session(door, sink=kept)
    submit(judging, loser("a"))
    door.await_question()
    for uid in "bcd":
        submit(judging, loser(uid))
    door.let(4)
    settled(judging)
    failed = {receipt.decision.trial: receipt.errors for receipt in kept.receipts}
    assert failed == {"a": {}, "b": {}, "c": {"door": "RuntimeError: not that one"}, "d": {}}


def test_a_batch_that_fails_is_asked_one_by_one() -> None:
    class Clumsy(Door):
        def forecast_each(self, asks: Sequence[tuple[Snapshot, Sequence[Query]]]) -> list[Forecasts]:
            raise MemoryError("too many at once")

    door = Clumsy()
    judging = session(door)
    submit(judging, loser("a"))
    door.await_question()
    for uid in "bcd":
        submit(judging, loser(uid))
    door.let(4)
    assert short(settled(judging)) == [(uid, 11, "BELOW") for uid in "abcd"]
    assert judging.failed_open == {}


# Counters and receipts


def test_one_receipt_for_each_look_that_reached_a_forecaster() -> None:
    door, kept = Door(NormalAroundBest()), Kept()
    judging = session(door, sink=kept)
    door.let(100)
    rng = np.random.default_rng(0)
    for n in range(3, 22):  # too short at first, beyond the horizon at last
        for uid in "abc":
            submit(judging, loser(uid, n))
        if rng.random() < 0.3:
            judging.withdraw("a")
        if rng.random() < 0.3:
            polled(judging)
        if rng.random() < 0.3:
            assert judging.wait(LIMIT_S)
    settled(judging)
    heard = [(r.decision.trial, r.decision.step) for r in kept.receipts if r.decision.now is not None]
    assert sorted(heard) == sorted(door.asked)
    unheard = [r.decision.reason for r in kept.receipts if r.decision.now is None]
    assert set(unheard) <= {Reason.SUPERSEDED}
    assert judging.reasons.total() == 3 * 19
    # Of looks in a row that were overtaken before they were judged the first is written.
    assert 0 < len(unheard) <= judging.reasons[Reason.SUPERSEDED]


def test_whoever_has_waited_finds_every_look_recorded() -> None:
    """Also one that was withdrawn while it was judged."""
    for _ in range(50):
        judging, door, kept = under_way("busy")
        judging.withdraw("9")
        door.let()
        assert judging.wait(LIMIT_S)
        assert logged(kept) == [("9", 11, "SUPERSEDED")]


def test_an_older_judgement_does_not_count_before_it_is_fetched() -> None:
    judging = session(sink=Kept())
    submit(judging)
    assert judging.wait(LIMIT_S)
    assert judging.latest == {}
    polled(judging)
    assert judging.latest["s", "9"].reason is Reason.BELOW


# The thread


def thread_of(of: Session) -> threading.Thread:
    assert of.thread is not None
    return of.thread


def test_the_thread_ends_when_idle_and_comes_back() -> None:
    door = Door()
    judging = session(door)
    assert judging.thread is None
    for _ in range(3):
        submit(judging)
        working = thread_of(judging)
        assert working.daemon
        door.let()
        working.join(LIMIT_S)
        assert judging.thread is None
        assert short(settled(judging)) == [("9", 11, "BELOW")]  # what it has judged stays


def test_a_thread_that_comes_and_goes_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done at the interpreter's end is noted once a session, not once a thread."""
    noted: list[object] = []
    monkeypatch.setattr("atexit.register", lambda *what: noted.append(what))
    judging = session()
    for _ in range(3):
        submit(judging)
        thread = thread_of(judging)
        settled(judging)
        thread.join(LIMIT_S)
    assert len(noted) == 1


def test_one_thread_a_session() -> None:
    judging, door, _ = under_way("busy")
    working = thread_of(judging)
    submit(judging, loser("8"))
    assert thread_of(judging) is working
    door.let(2)
    assert len(settled(judging)) == 2


def test_a_session_that_only_checks_has_no_thread() -> None:
    judging = session()
    judging.check(SEEN, Event(LOSER, 11))
    submit(judging, DIVERGED)
    submit(judging, loser("8", 2))
    assert judging.thread is None


def test_floating_point_traps_of_the_user_are_left_to_his_own_code() -> None:
    with np.errstate(all="raise"):
        judging = session(NormalAroundBest())
        submit(judging)
        submit(judging, DIVERGED)
        assert len(settled(judging)) == 1
        assert judging.failed_open == {}


def test_many_threads_submit() -> None:
    kept = Kept()
    judging = session(sink=kept, policy=early_policy(guard=0.0))
    handed: list[Decision] = []
    everyone = replace(SEEN, live=tuple(loser(f"{name}{i}") for name in "abcd" for i in range(50)))

    def work(name: str) -> None:
        for i in range(50):
            submit(judging, loser(f"{name}{i}"))
            handed.extend(j.decision for j in judging.poll(lambda: everyone))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, "abcd"))
    assert judging.wait(LIMIT_S)
    handed += [j.decision for j in judging.poll(lambda: everyone)]
    assert judging.wait(LIMIT_S)
    assert sorted(d.trial for d in handed) == sorted(f"{name}{i}" for name in "abcd" for i in range(50))
    assert judging.reasons == {Reason.BELOW: 200}
    assert len(kept.receipts) == 200


# Copies


@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps], ids=["pickle", "cloudpickle"])
@pytest.mark.parametrize("moment", ["nothing", *MOMENTS, "handed out"])
def test_a_copy_at_every_moment_works_on_its_own(moment: str, dumps: Callable[[Any], bytes]) -> None:
    judging, door = session(), Door()
    if moment == "handed out":
        judging, door, _ = under_way("judged")
        assert len(polled(judging)) == 1
    elif moment != "nothing":
        judging, door, _ = under_way(moment)
    twin: Session = pickle.loads(dumps(judging))
    assert twin.policy == judging.policy
    assert twin.wait(0) is True  # what is under way is not copied
    assert polled(twin) == []
    assert twin.reasons == {}
    submit(twin)
    assert short(settled(twin)) == [("9", 11, "BELOW")]
    twin.withdraw("9")
    door.let(2)
    expected = {"nothing": [], "waiting": ["8", "9"], "handed out": []}.get(moment, ["9"])
    assert [d.trial for d in settled(judging)] == expected  # nor touched
    assert polled(twin) == []


def test_a_copy_while_looks_come_and_go() -> None:
    judging = session()
    for i in range(100):
        submit(judging, loser(str(i % 7)))
        twin: Session = pickle.loads(pickle.dumps(judging))
        assert polled(twin) == []
        assert twin.check(SEEN, Event(LOSER, 11)).decision.verdict is Verdict.STOP
        if i % 5 == 0:
            polled(judging)
    assert judging.wait(LIMIT_S)
