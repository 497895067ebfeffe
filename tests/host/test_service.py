from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest
from kit.hosts import Counting, Running

from lcsearch.curves import Curve
from lcsearch.forecast.contract import Query
from lcsearch.goal import Goal
from lcsearch.host import service, wire
from lcsearch.host.service import KeptTrials
from lcsearch.host.wire import Refused, Request
from lcsearch.study import FinishedTrials, Status, Trial

GOAL = Goal("loss", "minimize", 20.0)


@pytest.fixture
def model() -> Counting:
    return Counting()


@pytest.fixture
def running(model: Counting) -> Iterator[Running]:
    with Running(model, most_pending=4) as made:
        yield made
        model.gate.set()


def done(n: int, first: int = 0) -> tuple[Trial, ...]:
    return tuple(
        Trial(f"s/{i}", Curve.of({1: 1.0 + i, 2: 0.5 + i}), {"lr": 0.1}, Status.COMPLETE) for i in range(first, n)
    )


def request(
    uid: str = "s/q", study: str = "s", trials: tuple[Trial, ...] = (), n: int = 1, **changes: object
) -> Request:
    first = wire.first_digest(study, GOAL)
    queries = (Query(Trial(uid, Curve.of({1: 3.0, 2: 2.0})), "best_by", 20.0),) * n
    bank = [first, *wire.digests(first, trials)][-1]
    made = Request("counting-1", study, 20.0, "best", 2.0, first, bank, trials, queries, 30.0)
    return replace(made, **changes)  # type: ignore[arg-type]


def send(running: Running, request: Request) -> wire.Reply:
    return running.send(wire.pack(request), 60)


def later(running: Running, request: Request) -> asyncio.Future[wire.Reply]:
    return asyncio.run_coroutine_threadsafe(running.host.answer(wire.pack(request)), running.loop)  # type: ignore[return-value]


def test_finished_trials_travel_once(running: Running) -> None:
    whole = request(trials=done(3))
    assert send(running, whole).status == wire.OK
    delta = replace(whole, base=whole.bank, bank=wire.digests(whole.bank, done(5, 3))[-1], trials=done(5, 3))
    found = wire.unpack_answer(send(running, delta).body, 1, 1.0, "counting-1")
    assert found.knots.tolist() == [[2.0, 5.0]]  # five finished trials
    # whoever knows them needs to send nothing, also of an earlier moment
    for bank, n in ((delta.bank, 5.0), (whole.bank, 3.0)):
        reply = send(running, replace(delta, base=bank, bank=bank, trials=()))
        assert wire.unpack_answer(reply.body, 1, 1.0, "counting-1").knots.max() == n


def test_trials_that_are_not_here_or_not_those_are_asked_for(running: Running) -> None:
    whole = request(trials=done(3))
    unknown = replace(whole, base="ff", bank="ee", trials=())
    other = replace(whole, trials=done(2))
    for one in (unknown, other):
        reply = send(running, one)
        assert reply.status == wire.UNKNOWN_TRIALS
        assert b"send all of them" in reply.body
    assert send(running, whole).status == wire.OK


def test_a_digest_of_another_goal_leads_nowhere(running: Running) -> None:
    whole = request(trials=done(3))
    send(running, whole)
    assert send(running, replace(whole, judged="final", base=whole.bank, bank="aa", trials=done(4, 3))).status == 409


def test_what_came_while_a_pass_ran_makes_up_the_next(running: Running, model: Counting) -> None:
    model.gate.clear()
    first = later(running, request("s/first"))
    assert model.entered.wait(60)
    rest = [later(running, request(f"t{i}/x", study=f"t{i}")) for i in range(3)]
    wait_for(running, 3)
    model.gate.set()
    assert all(one.result(60).status == wire.OK for one in (first, *rest))  # type: ignore[call-arg]
    assert model.passes == [["s/first"], ["t0/x", "t1/x", "t2/x"]]


def wait_for(running: Running, pending: int) -> None:
    async def waited() -> None:
        while running.host.about()["pending"] != pending:
            await asyncio.sleep(0.001)

    running.run(asyncio.wait_for(waited(), 60))


def test_studies_take_turns(running: Running, model: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "PASS", 1)
    model.gate.clear()
    held = later(running, request("s/held"))
    assert model.entered.wait(60)
    many = [later(running, request(f"a/{i}", study="a")) for i in range(2)]
    wait_for(running, 2)
    few = later(running, request("b/0", study="b"))
    wait_for(running, 3)
    model.gate.set()
    assert all(one.result(60).status == wire.OK for one in (held, few, *many))  # type: ignore[call-arg]
    assert [uids[0] for uids in model.passes] == ["s/held", "a/0", "b/0", "a/1"]


def test_one_too_many_is_told_that_the_host_is_busy(running: Running, model: Counting) -> None:
    model.gate.clear()
    held = later(running, request("s/held"))
    assert model.entered.wait(60)
    waiting = [later(running, request(f"a/{i}")) for i in range(4)]
    wait_for(running, 4)
    assert send(running, request("a/more")).status == wire.BUSY
    model.gate.set()
    assert all(one.result(60).status == wire.OK for one in (held, *waiting))  # type: ignore[call-arg]


def test_what_nobody_waits_for_is_not_worked_on(running: Running, model: Counting) -> None:
    model.gate.clear()
    held = later(running, request("s/held"))
    assert model.entered.wait(60)
    late, left = later(running, request("a/late", within=0.0)), later(running, request("a/left"))
    wait_for(running, 2)
    running.loop.call_soon_threadsafe(left.cancel)
    model.gate.set()
    assert held.result(60).status == wire.OK  # type: ignore[call-arg]
    assert late.result(60).status == wire.LATE  # type: ignore[call-arg]
    wait_for(running, 0)
    assert model.passes == [["s/held"]]


def test_one_that_cannot_be_answered_takes_none_with_it(running: Running, model: Counting) -> None:
    model.gate.clear()
    held = later(running, request("s/held"))
    assert model.entered.wait(60)
    bad, good = later(running, request("a/poison", study="a")), later(running, request("b/good", study="b"))
    wait_for(running, 2)
    model.gate.set()
    assert held.result(60).status == good.result(60).status == wire.OK  # type: ignore[call-arg]
    reply = bad.result(60)  # type: ignore[call-arg]
    assert (reply.status, reply.body) == (wire.FAILED, b"RuntimeError: poisoned")


def test_a_request_without_queries_brings_trials(running: Running, model: Counting) -> None:
    assert len(wire.unpack_answer(send(running, request(n=0, trials=done(2))).body, 0, 1.0, "counting-1")) == 0
    assert model.passes == []
    assert send(running, request(n=257)).status == wire.MALFORMED


def test_other_weights_and_large_bodies_are_refused(model: Counting) -> None:
    with Running(model, most_bytes=10_000) as running:
        reply = send(running, request(model="other-2"))
        assert (reply.status, b"counting-1" in reply.body) == (wire.OTHER_MODEL, True)
        assert running.send(b"x" * 10_001, 60).status == wire.TOO_LARGE


def test_metrics_count_what_happened(running: Running) -> None:
    send(running, request(trials=done(3), n=2))
    running.send(b"nonsense", 60)
    lines = running.host.metrics().splitlines()
    for line in (
        "lcsearch_host_queries_total 2",
        "lcsearch_host_passes_total 1",
        'lcsearch_host_replies_total{status="200"} 1',
        'lcsearch_host_replies_total{status="400"} 1',
        "lcsearch_host_studies_kept 1",
        "lcsearch_host_pending 0",
    ):
        assert line in lines
    assert all(line.startswith("#") or len(line.split()) == 2 for line in lines)


def test_what_is_kept_is_bounded() -> None:
    kept = KeptTrials(most=200_000)
    for k in range(90):
        kept.find(request(study=f"s{k}", trials=done(3)))
        assert kept.bytes <= 200_000
    last = request(study="s89", trials=done(3))
    assert len(kept.find(replace(last, base=last.bank, trials=()))) == 3
    first = request(study="s0", trials=done(3))
    with pytest.raises(Refused):
        kept.find(replace(first, base=first.bank, trials=()))
    # one study that grows is one study, however often it is asked about
    bank, n = request(study="s89", trials=done(3)).bank, len(kept)
    for i in range(3, 100):
        new = wire.digests(bank, done(i + 1, i))[-1]
        assert len(kept.find(replace(last, base=bank, bank=new, trials=done(i + 1, i)))) == i + 1
        bank = new
    assert len(kept) <= n


def test_workers_that_see_trials_end_in_another_order_share_them() -> None:
    kept, there = KeptTrials(), request(trials=done(4))
    found, back = kept.find(there), tuple(reversed(done(4)))
    other = request(trials=back)
    assert other.bank == there.bank
    assert kept.find(replace(other, trials=())) is found


def test_studies_without_a_finished_trial_are_forgotten_too() -> None:
    kept = KeptTrials(most=20_000)
    for k in range(200):
        assert len(kept.find(request(study=f"s{k}"))) == 0
    assert 0 < kept.bytes <= 20_000
    assert len(kept) < 30


def test_a_model_that_answers_too_little_hangs_nobody(
    running: Running, model: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "forecast_many", lambda asks: [])
    for _ in range(2):
        reply = send(running, request())
        assert reply.status == wire.FAILED
        assert b"expected 1 forecasts, got 0" in reply.body
    monkeypatch.undo()
    assert send(running, request()).status == wire.OK


def test_a_pass_that_hangs_shows(running: Running, model: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    assert running.host.about()["ready"]
    model.gate.clear()
    held = later(running, request("s/held"))
    assert model.entered.wait(60)
    monkeypatch.setattr(service, "HUNG_S", 0.0)
    assert not running.host.about()["ready"]
    model.gate.set()
    assert held.result(60).status == wire.OK  # type: ignore[call-arg]
    assert running.host.about()["ready"]


def test_two_ways_on_from_one_moment_are_two() -> None:
    kept = KeptTrials()
    base = request(trials=done(3))
    kept.find(base)
    found: list[FinishedTrials] = []
    for name in "ab":
        more = (replace(done(4, 3)[0], uid=f"s/{name}"),)
        found.append(kept.find(replace(base, base=base.bank, bank=wire.digests(base.bank, more)[-1], trials=more)))
    assert [[trial.uid for trial in bank][-1] for bank in found] == ["s/a", "s/b"]


def test_stopping_leaves_nobody_waiting(model: Counting) -> None:
    with Running(model) as running:
        model.gate.clear()
        held = later(running, request("s/held"))
        assert model.entered.wait(60)
        waiting = later(running, request("s/waits"))
        wait_for(running, 1)
        stopped = asyncio.run_coroutine_threadsafe(running.host.stop(), running.loop)
        model.gate.set()
        stopped.result(60)
        assert {one.result(60).status for one in (held, waiting)} <= {wire.OK, wire.BUSY}  # type: ignore[call-arg]
