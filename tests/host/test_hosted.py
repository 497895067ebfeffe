from __future__ import annotations

import logging
import math
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from kit.doubles import Clock
from kit.forecasters import ask, laws, study
from kit.hosts import Running, Scripted

from lcsearch import extras
from lcsearch.curves import Floats
from lcsearch.errors import InvalidValue
from lcsearch.forecast.contract import Absent, Forecasts
from lcsearch.goal import Direction
from lcsearch.host import hosted, registry, wire
from lcsearch.host.hosted import AGAIN_S, IN_A_ROW, Hosted
from lcsearch.host.in_process import Pretrained
from lcsearch.host.link import TOKEN, HostLate, HostTrouble, HttpLink
from lcsearch.host.wire import Reply
from lcsearch.schedule import Schedule
from lcsearch.study import FinishedTrials, Snapshot

LOCAL = Pretrained()


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with Running(LOCAL) as made:
        yield made


def snapshot(direction: Direction = "minimize", n: int = 8) -> Snapshot:
    losses = laws(n + 3)
    return study(losses[:n], [(f"live-{i}", losses[n + i, : 4 + 5 * i]) for i in range(3)], direction=direction)


def refusing(status: int, body: bytes = b"no") -> Scripted:
    return Scripted(LOCAL.version, lambda _: Reply(status, body))


@cache
def values() -> Floats:
    """Where answers are compared."""
    at = LOCAL.forecast(snapshot(), ask(snapshot()))
    return np.linspace(at.quantile(0.1).min(), at.quantile(0.9).max(), 7)


def close(a: Forecasts, b: Forecasts) -> None:
    assert (a.absent, a.source, a.sign) == (b.absent, b.source, b.sign)
    for value in values():
        np.testing.assert_allclose(a.p_beat(a.sign * value), b.p_beat(b.sign * value), rtol=0, atol=1e-5)


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize("n", [0, 1, 8])
def test_says_what_the_model_says_in_process(running: Running, direction: Direction, n: int) -> None:
    one = snapshot(direction, n)
    close(Hosted(LOCAL, running).forecast(one, ask(one)), LOCAL.forecast(one, ask(one)))


def test_finished_trials_are_sent_once_and_again_to_a_host_that_knows_nothing(running: Running) -> None:
    client, one = Hosted(LOCAL, running), replace(snapshot(n=40), study="once")
    sizes = []
    for _ in range(3):
        running.sent.clear()
        client.forecast(one, ask(one))
        sizes.append([len(wire.unpack(body).trials) for body in running.sent])
    assert sizes == [[40], [0], [0]]
    more = replace(one, bank=one.bank.extend([replace(one.bank[0], uid="new")]))
    running.sent.clear()
    client.forecast(more, ask(more))
    client.forecast(one, ask(one))  # a moment ago
    assert [len(wire.unpack(body).trials) for body in running.sent] == [1, 0]
    with Running(LOCAL) as restarted:
        client.link = restarted
        close(client.forecast(more, ask(more)), LOCAL.forecast(more, ask(more)))
        assert [len(wire.unpack(body).trials) for body in restarted.sent] == [0, 41]


def test_two_clients_share_what_one_has_sent(running: Running) -> None:
    one = replace(snapshot(n=12), study="shared")
    Hosted(LOCAL, running).forecast(one, ask(one))
    kept = running.host.metrics()
    Hosted(LOCAL, running).forecast(one, ask(one))
    name = "lcsearch_host_kept_bytes"
    assert [x for x in kept.splitlines() if x.startswith(name)] == [
        x for x in running.host.metrics().splitlines() if x.startswith(name)
    ]


def test_large_studies_travel_in_several_requests(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MOST_SENT", 9000)
    one = replace(snapshot(n=40), study="large")
    running.sent.clear()
    close(Hosted(LOCAL, running).forecast(one, ask(one)), LOCAL.forecast(one, ask(one)))
    sent = [wire.unpack(body) for body in running.sent]
    assert [len(request.queries) for request in sent] == [0] * (len(sent) - 1) + [9]
    assert len(sent) > 3
    assert sum(len(request.trials) for request in sent) == 40


def test_many_queries_travel_in_several_requests(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MOST_QUERIES", 4)
    one = replace(snapshot(), study="queries")
    running.sent.clear()
    close(Hosted(LOCAL, running).forecast(one, ask(one)), LOCAL.forecast(one, ask(one)))
    assert [len(wire.unpack(body).queries) for body in running.sent] == [4, 4, 1]
    assert len(Hosted(LOCAL, running).forecast(one, [])) == 0


def test_looks_of_one_study_go_in_one_request(running: Running) -> None:
    client, one, other = Hosted(LOCAL, running), replace(snapshot(), study="x"), replace(snapshot(n=5), study="y")
    asks = [(one, ask(one)[:2]), (other, ask(other)), (one, ask(one)[5:])]
    running.sent.clear()
    found = client.forecast_each(asks)
    assert [len(wire.unpack(body).queries) for body in running.sent] == [6, 9]
    for answer, (about, queries) in zip(found, asks, strict=True):
        close(answer, LOCAL.forecast(about, queries))


def at_once(call: Callable[[], None]) -> None:
    call()


def test_an_answer_that_does_not_come_leaves_absent_forecasts_and_then_local_ones(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, link = Clock(), refusing(wire.FAILED, b"broken")
    client, one = Hosted(LOCAL, link, clock=clock, aside=at_once), snapshot()
    for _ in range(IN_A_ROW):
        with pytest.raises(HostTrouble, match="scripted answers 500: broken"):
            client.forecast(one, ask(one))
    close(client.forecast(one, ask(one)), LOCAL.forecast(one, ask(one)))
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "forecasts are made in this process until the host answers again: scripted answers 500" in caplog.text
    assert (len(link.bodies), link.looks, client.unanswered) == (IN_A_ROW, 1, IN_A_ROW)


def test_a_host_that_is_there_and_answers_nothing_is_asked_more_and_more_seldom(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, one = Clock(), snapshot()
    with Running(LOCAL) as good:
        answers = [False]
        link = Scripted(LOCAL.version, lambda body: good.send(body, 60) if answers[0] else Reply(500, b""))
        client = Hosted(LOCAL, link, clock=clock, aside=at_once)
        for _ in range(IN_A_ROW):
            with pytest.raises(HostTrouble):
                client.forecast(one, ask(one))
        asked_at, begun, expected = [], clock.now, LOCAL.forecast(one, ask(one))
        for _ in range(200):
            clock.now += 0.5
            before = len(link.bodies)
            close(client.forecast(one, ask(one)), expected)
            asked_at += [clock.now - begun] * (len(link.bodies) - before)
        assert asked_at == [1, 3, *range(7, 100, 4)]
        assert len(caplog.records) == 1  # said once
        answers[0] = True
        clock.now += hosted.LONGEST_S
        n = len(link.bodies)
        client.forecast(one, ask(one))  # still the local one: no look waits for it
        client.forecast(one, ask(one))
        assert len(link.bodies) > n + 1
        assert "scripted answers again" in caplog.text


def test_it_is_looked_for_on_the_side() -> None:
    clock, one = Clock(), snapshot()
    looks: list[Callable[[], None]] = []
    client = Hosted(LOCAL, refusing(wire.OTHER_MODEL), clock=clock, aside=looks.append)
    for _ in range(5):
        close(client.forecast(one, ask(one)), LOCAL.forecast(one, ask(one)))
        clock.now += AGAIN_S
    assert len(looks) == 1  # one at a time


def test_the_deadline_ends_the_wait_whatever_the_link_does() -> None:
    release, one = threading.Event(), snapshot()

    def hang(_: bytes) -> Reply:
        assert release.wait(60)
        return Reply(wire.OK, b"")

    try:
        found = Hosted(LOCAL, Scripted(LOCAL.version, hang), deadline=0.2).forecast(one, ask(one))
        assert set(found.absent) == {Absent.LATE}
    finally:
        release.set()


def test_what_cannot_be_asked_there_is_asked_here(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: bytes) -> Reply:
        raise TypeError("no\nERROR forged \x1b]0;line")

    one = snapshot()
    close(Hosted(LOCAL, Scripted(LOCAL.version, broken)).forecast(one, ask(one)), LOCAL.forecast(one, ask(one)))
    assert "TypeError: no ERROR forged ?]0;line" in caplog.text


def test_a_large_study_arrives_bit_by_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a deadline leaves over goes on where it was."""
    monkeypatch.setattr(wire, "MOST_SENT", 9000)
    one = replace(snapshot(n=40), study="bit by bit")
    with Running(LOCAL) as good:
        sent: list[int] = []

        def slow(body: bytes) -> Reply:
            sent.append(len(wire.unpack(body).trials))
            if len(sent) % 3 == 0:
                raise HostLate("no answer")
            return good.send(body, 60)

        client = Hosted(LOCAL, Scripted(LOCAL.version, slow), aside=at_once)
        late = 0
        while all((found := client.forecast(one, ask(one))).absent):
            late += 1
            monkeypatch.setattr(client, "_failed", 0)
        close(found, LOCAL.forecast(one, ask(one)))
        assert late >= 1
        assert sum(n for i, n in enumerate(sent, 1) if i % 3) == 40


def test_numbers_of_a_plan_may_be_of_any_kind(running: Running) -> None:
    plan = Schedule("cosine", np.float32(0.1), np.int64(40))  # type: ignore[arg-type]
    one = snapshot()
    queries = [query._replace(trial=replace(query.trial, schedule=plan)) for query in ask(one)]
    close(Hosted(LOCAL, running).forecast(one, queries), LOCAL.forecast(one, queries))


def test_an_answer_in_time_ends_the_row() -> None:
    with Running(LOCAL) as good:
        link = Scripted(LOCAL.version, lambda body: good.send(body, 60) if len(link.bodies) % 3 else Reply(500, b""))
        client, one = Hosted(LOCAL, link), snapshot()
        for i in range(1, 12):
            if i % 3:
                close(client.forecast(one, ask(one)), LOCAL.forecast(one, ask(one)))
            else:
                with pytest.raises(HostTrouble):
                    client.forecast(one, ask(one))
        assert link.looks == 1


def test_late_is_late() -> None:
    def late(_: bytes) -> Reply:
        raise HostLate("no answer within 5 s")

    one = snapshot()
    for link in (Scripted(LOCAL.version, late), refusing(wire.LATE)):
        found = Hosted(LOCAL, link).forecast(one, ask(one))
        assert set(found.absent) == {Absent.LATE}
        assert len(found) == len(ask(one))


def test_a_busy_host_is_asked_again_until_the_deadline() -> None:
    clock = Clock()

    def busy(_: bytes) -> Reply:
        clock.now += 1
        return Reply(wire.BUSY, b"busy")

    one, link = snapshot(), Scripted(LOCAL.version, busy)
    assert set(Hosted(LOCAL, link, deadline=3, clock=clock).forecast(one, ask(one)).absent) == {Absent.LATE}
    assert len(link.bodies) == 3


def test_other_weights_are_never_asked(caplog: pytest.LogCaptureFixture) -> None:
    one, link = snapshot(), Scripted("network-other", lambda _: Reply(wire.OK, b""))
    close(Hosted(LOCAL, link).forecast(one, ask(one)), LOCAL.forecast(one, ask(one)))
    assert link.bodies == []
    assert f"scripted holds 'network-other', and {LOCAL.version!r} is asked for" in caplog.text
    # exchanged while it ran
    link = refusing(wire.OTHER_MODEL, b"another")
    close(Hosted(LOCAL, link).forecast(one, ask(one)), LOCAL.forecast(one, ask(one)))
    assert len(link.bodies) == 1


@pytest.mark.parametrize("body", [b"", b"<html>", b"\0" * 100])
def test_garbage_is_no_answer(body: bytes) -> None:
    one = snapshot()
    with pytest.raises(HostTrouble, match="scripted: answer"):
        Hosted(LOCAL, refusing(wire.OK, body)).forecast(one, ask(one))


def test_a_host_that_forgets_at_once_is_not_asked_for_ever() -> None:
    one, link = snapshot(), refusing(wire.UNKNOWN_TRIALS)
    with pytest.raises(HostTrouble, match="409"):
        Hosted(LOCAL, link).forecast(one, ask(one))
    assert len(link.bodies) == 2


def test_without_a_host_at_the_start_the_local_weights_are_loaded(caplog: pytest.LogCaptureFixture) -> None:
    def gone(_: bytes) -> Reply:
        raise HostTrouble("no answer from scripted: refused")

    local = Pretrained()
    client = Hosted(local, Scripted("", gone))
    client.prepare()
    assert "no answer from scripted: refused" in caplog.text
    close(client.forecast(snapshot(), ask(snapshot())), LOCAL.forecast(snapshot(), ask(snapshot())))


def test_no_look_waits_for_the_local_weights() -> None:
    local, one, aside = Pretrained(), snapshot(), list[Callable[[], None]]()
    client = Hosted(local, refusing(wire.FAILED), aside=aside.append)
    for i in range(IN_A_ROW + 2):
        with pytest.raises(HostTrouble, match="500" if i < IN_A_ROW else "the network is being loaded here"):
            client.forecast(one, ask(one))
    assert not local.loaded
    (load,) = aside  # begun at the first request without an answer
    load()
    close(client.forecast(one, ask(one)), LOCAL.forecast(one, ask(one)))


def test_a_copy_begins_anew(running: Running) -> None:
    client = Hosted(LOCAL, HttpLink("http://127.0.0.1:9"), deadline=2)
    copy = pickle.loads(pickle.dumps(client))
    assert (copy.name, copy.version, copy.deadline, copy.link.where) == ("network", LOCAL.version, 2, client.link.where)


def test_threads_may_ask_at_once(running: Running) -> None:
    client, one = Hosted(LOCAL, running), replace(snapshot(n=20), study="threads")
    banks = [FinishedTrials(one.goal)]
    for trial in one.bank:
        banks.append(banks[-1].extend([trial]))
    moments = [replace(one, bank=bank) for bank in banks]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda moment: client.forecast(moment, ask(moment)), moments * 3))
    for moment, answer in zip(moments * 3, found, strict=True):
        close(answer, LOCAL.forecast(moment, ask(moment)))


def test_hosts_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert registry.link_to("local") is registry.link_to("auto") is None
    monkeypatch.setenv(registry.HOST, "http://[::1]:8642")
    link = registry.link_to("auto")
    assert isinstance(link, HttpLink)
    assert link.where == "http://[::1]:8642"
    assert registry.link_to("local") is None
    (network,) = registry.resolve_forecasters(None, "auto")
    assert isinstance(network, Hosted)
    names = [type(one).__name__ for one in registry.resolve_forecasters(("parametric", "network"), "https://h:1")]
    assert names == ["ParametricEnsemble", "Hosted"]
    for wrong in ("", "gpu", "ftp://x", "http://", "http://u:secret@h:1", "http://h:99999", "http://h:1/path"):
        with pytest.raises(InvalidValue, match="host: expected") as error:
            registry.link_to(wrong)
        assert "secret" not in str(error.value)
    monkeypatch.setenv(registry.HOST, "nowhere")
    with pytest.raises(InvalidValue, match="LCSEARCH_HOST: expected auto, local, ray"):
        registry.link_to("auto")
    monkeypatch.setenv(registry.HOST, "http://h:99999")
    sentence = r"^LCSEARCH_HOST: expected http://NAME:PORT of `lcsearch serve`, got 'http://h:99999'\.$"
    with pytest.raises(InvalidValue, match=sentence):
        registry.link_to("auto")
    with pytest.raises(InvalidValue, match=sentence):
        registry.resolve_forecasters(None, "auto")


def test_a_way_is_made_once_and_only_for_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    class Counted(HttpLink):
        def __init__(self, url: str) -> None:
            made.append(url)
            super().__init__(url)

    monkeypatch.setattr(registry, "HttpLink", Counted)
    monkeypatch.setattr(extras, "_is_there", lambda _: False)
    registry.resolve_forecasters(("network", "parametric"), "http://h:1")
    assert made == ["http://h:1"]
    registry.resolve_forecasters(("rank-gap", "parametric"), "http://h:1")
    assert made == ["http://h:1"]
    assert registry.resolve_forecasters("parametric", "ray")[0].name == "parametric"  # without Ray
    with pytest.raises(InvalidValue, match=r"^host: expected auto, local, ray"):
        registry.resolve_forecasters("parametric", "rubbish")


def test_a_token_of_the_environment_is_neither_pickled_nor_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN, "a-secret-of-some-length\n")  # as a file's last line leaves it
    link = HttpLink("http://127.0.0.1:9")
    with pytest.raises(HostTrouble) as caught:  # nobody listens; the header itself can be sent
        link.about(5)
    assert "Refused" in str(caught.value)
    there = pickle.dumps(Hosted(LOCAL, link))
    assert b"a-secret" not in there
    monkeypatch.setenv(TOKEN, "wrong\x07secret")
    with pytest.raises(InvalidValue, match=r"LCSEARCH_HOST_TOKEN: expected a token of .*got '12 characters'"):
        HttpLink("http://127.0.0.1:9")


def test_wrong_deadlines() -> None:
    for wrong in (0, -1, math.inf, math.nan):
        with pytest.raises(InvalidValue, match="deadline"):
            Hosted(LOCAL, refusing(wire.OK), deadline=wrong)
    assert hosted.DEADLINE_S > 0
