"""What happens to a client when its host, a process of its own, dies, stops, is restarted, or talks nonsense."""

from __future__ import annotations

import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kit.endpoints import Served, command, fetch, served
from kit.forecasters import ForecasterKit, ask, laws, study
from kit.hosts import Counting

from lcsearch.forecast.contract import Absent, Answer, Forecaster, Forecasts
from lcsearch.goal import Direction, Judged
from lcsearch.host import wire
from lcsearch.host.hosted import AGAIN_S, IN_A_ROW, Hosted
from lcsearch.host.in_process import Pretrained
from lcsearch.host.link import HostLate, HostTrouble, HttpLink
from lcsearch.session.panel import Panel
from lcsearch.study import Snapshot

PATIENCE_S = 120.0
SEEN = study(laws(8), [(f"live-{i}", laws(3, seed=1)[i, : 4 + 5 * i]) for i in range(3)])


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """With the weights that ship."""
    with command(tmp_path_factory.mktemp("host"), "--device", "cpu") as found:
        yield found


class TestThroughAnEndpoint(ForecasterKit):
    affine_rtol = 1e-3
    batch_atol = again_atol = 1e-5

    @pytest.fixture(autouse=True)
    def _host(self, host: Served) -> Iterator[None]:
        self.link = HttpLink(host.url)
        yield
        self.link.close()

    def make(self) -> Forecaster:
        return Hosted(Pretrained(), self.link)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10_000),
    finished=st.integers(0, 30),
    lengths=st.lists(st.integers(1, 39), min_size=1, max_size=6),
    direction=st.sampled_from(["minimize", "maximize"]),
    judged=st.sampled_from(["best", "final"]),
)
def test_p_beat_is_that_of_the_process(
    host: Served, seed: int, finished: int, lengths: list[int], direction: Direction, judged: Judged
) -> None:
    losses = laws(finished + len(lengths), seed=seed)
    looks = [(f"live-{i}", losses[finished + i, :n]) for i, n in enumerate(lengths)]
    seen = replace(study(losses[:finished], looks, direction=direction, judged=judged), study=f"study-{seed}")
    client = Hosted(LOCAL, HttpLink(host.url))
    found, want = client.forecast(seen, ask(seen)), LOCAL.forecast(seen, ask(seen))
    assert (found.absent, found.source, client.unanswered) == (want.absent, want.source, 0)
    for value in np.quantile(losses, [0.0, 0.1, 0.5, 0.9]):
        at = seen.goal.sign * float(value)
        np.testing.assert_allclose(found.p_beat(at), want.p_beat(at), rtol=0, atol=1e-5)
    assert isinstance(client.link, HttpLink)
    client.link.close()


LOCAL = Pretrained()


def heard(client: Hosted, snapshot: Snapshot = SEEN) -> list[Answer]:
    """What a session hears."""
    (answer,) = Panel([client], 60.0, lambda *_: None).ask([(snapshot, ask(snapshot))])
    return answer.answers[client.name]


def is_answered(answers: Sequence[Answer], own: Pretrained) -> bool:
    """By forecasts, and if so by those of the weights; else by reasons alone."""
    if any(isinstance(one, Absent) for one in answers):
        assert {one for one in answers if isinstance(one, Absent)} == set(answers)
        return False
    want = own.forecast(SEEN, ask(SEEN))
    for i, one in enumerate(answers):
        assert isinstance(one, Forecasts)
        np.testing.assert_allclose(one.p_beat(0.4), want.p_beat(0.4)[i : i + 1], rtol=0, atol=1e-5)
    return True


def asked_at(served: Served) -> int:
    """How many queries it has answered."""
    (line,) = (
        row
        for row in fetch(served.url, "/metrics").body.decode().splitlines()
        if row.startswith("lcsearch_host_queries_total ")
    )
    return int(line.split()[1])


def eventually_asked(client: Hosted, served: Served, own: Pretrained, log: pytest.LogCaptureFixture) -> None:
    """The host is asked again, by itself."""
    end = time.monotonic() + PATIENCE_S
    while not log.records[-1].getMessage().endswith("answers again"):
        assert is_answered(heard(client), own)
        assert time.monotonic() < end
        time.sleep(AGAIN_S / 4)
    before = asked_at(served)
    assert is_answered(heard(client), own)
    assert asked_at(served) > before


def test_one_that_stops_dies_and_comes_back(small: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="lcsearch")
    own = Pretrained(file=small)
    options = ["--weights", str(small), "--device", "cpu"]
    with command(tmp_path / "first", *options) as first:
        client = Hosted(own, link := HttpLink(first.url), deadline=60.0)
        client.prepare()
        assert is_answered(heard(client), own)

        # It stands still: the client's own deadline ends every wait, and after three in a row nobody waits any more.
        first.send(signal.SIGSTOP)
        client.deadline = 1.0
        for _ in range(IN_A_ROW):
            began = time.monotonic()
            assert set(heard(client)) == {Absent.LATE}
            assert 0.9 < time.monotonic() - began < 30  # and not for as long as it stands still
        client.deadline = 60.0
        assert is_answered(heard(client), own)
        assert client.unanswered >= IN_A_ROW

        first.send(signal.SIGCONT)
        eventually_asked(client, first, own, caplog)

        # It is killed while it is asked.
        first.send(signal.SIGSTOP)
        answers: list[list[Answer]] = []
        asking = threading.Thread(target=lambda: answers.append(heard(client)))
        asking.start()
        wait_until_sent(first)
        first.send(signal.SIGKILL)
        asking.join(60)
        assert [set(one) for one in answers] == [{Absent.FAILED}]
        first.process.wait()
        for _ in range(IN_A_ROW - 1):
            assert set(heard(client)) == {Absent.FAILED}  # nobody listens there
        assert is_answered(heard(client), own)

        # Another one at its address knows none of the finished trials: it is sent them, and answers.
        with command(tmp_path / "second", *options, listen=f"127.0.0.1:{first.port}") as second:
            eventually_asked(client, second, own, caplog)
            assert 'lcsearch_host_replies_total{status="409"} 1' in fetch(second.url, "/metrics").body.decode()
            assert second.end() == 0
        told = [record.getMessage().removeprefix("lcsearch: ") for record in caplog.records]
        away = "forecasts are made in this process until the host answers again: no answer from "
        assert [text.startswith(away) for text in told] == [True, False, True, False]
        assert [text for text in told if not text.startswith(away)] == [f"{first.url} answers again"] * 2
        link.close()


def wait_until_sent(served: Served) -> None:
    """Bytes wait at the host that stands still."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        for row in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            local, _, _, queues = row.split()[1:5]
            if int(local.split(":")[1], 16) == served.port and int(queues.split(":")[1], 16) > 0:
                return
        time.sleep(0.01)
    raise AssertionError("nothing was sent")


def test_one_of_other_weights_at_the_same_address_is_not_asked(small: Path, caplog: pytest.LogCaptureFixture) -> None:
    own, model = Pretrained(file=small), Counting()
    with served(model) as other:
        client = Hosted(own, link := HttpLink(other.url))
        assert is_answered(heard(client), own)
        assert f"{other.url} holds 'counting-1', and {own.version!r} is asked for" in caplog.text
        # exchanged since it was looked for
        late = Hosted(own, link)
        late._looked = True  # noqa: SLF001  # as after a look at the right one
        assert is_answered(heard(late), own)
        assert f"{other.url} answers 412" in caplog.text
        assert model.passes == []
        link.close()


@contextmanager
def liar(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that tells about itself as it should, and answers requests by what it likes."""
    listening = socket.create_server(("127.0.0.1", 0))
    version = LOCAL.version.encode()
    page = b'{"model": "%s"}' % version
    ended = threading.Event()

    def one(connection: socket.socket) -> None:
        with connection:
            try:
                head = b""
                while b"\r\n\r\n" not in head:
                    if not (part := connection.recv(1 << 16)):
                        return
                    head += part
                if head.startswith(b"GET"):
                    connection.sendall(
                        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(page)
                    )
                    connection.sendall(page)
                    return
                size = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                body = len(head.partition(b"\r\n\r\n")[2])
                while body < size:
                    body += len(connection.recv(1 << 16))
                answer(connection)
            except OSError:
                pass  # the client has left

    def serve() -> None:
        threads = []
        while not ended.is_set():
            connection, _ = listening.accept()
            threads.append(threading.Thread(target=one, args=(connection,)))
            threads[-1].start()
        for thread in threads:
            thread.join(30)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        ended.set()
        socket.create_connection(listening.getsockname()).close()
        thread.join(60)
        listening.close()
        assert not thread.is_alive()


def says(body: bytes, status: bytes = b"200 OK", size: int | None = None) -> Callable[[socket.socket], None]:
    head = b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n" % (status, len(body) if size is None else size)
    return lambda connection: connection.sendall(head + body)


def answer_of(forecasts: Forecasts, model: str = LOCAL.version) -> bytes:
    done = [wire.travelling(trial, 1.0, SEEN.study) for trial in SEEN.bank]
    return wire.pack_answer(forecasts, model, wire.digests(wire.first_digest(SEEN.study, SEEN.goal), done)[-1])


def dribble(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    for _ in range(600):
        connection.sendall(b"x")
        time.sleep(0.05)


def never(connection: socket.socket) -> None:
    connection.recv(1)


N = len(ask(SEEN))
RIGHT = LOCAL.forecast(SEEN, ask(SEEN))
SHORT = LOCAL.forecast(SEEN, ask(SEEN)[1:])


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(lambda connection: None, id="closes"),
        pytest.param(lambda connection: connection.sendall(b"\x80\x04\xff" * 999), id="no HTTP"),
        pytest.param(lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 500), id="headers"),
        pytest.param(says(b"<html>It works!</html>"), id="a page"),
        pytest.param(says(b""), id="nothing"),
        pytest.param(says(b"abc", size=10_000), id="less than it says"),
        pytest.param(says(answer_of(SHORT)), id="one short"),
        pytest.param(says(answer_of(RIGHT, "network-other")), id="other weights"),
        pytest.param(says(answer_of(RIGHT)[:-9]), id="cut"),
        pytest.param(says(b"oh", b"500 Oh"), id="500"),
        pytest.param(says(b"", b"302 Found"), id="302"),
        pytest.param(says(b"send all", b"409 Conflict"), id="409 for ever"),
        pytest.param(says(b"wrong", b"401 No"), id="401"),
    ],
)
def test_nonsense_is_no_answer(answer: Callable[[socket.socket], None]) -> None:
    with liar(answer) as url:
        client = Hosted(LOCAL, HttpLink(url), deadline=30.0)
        for _ in range(IN_A_ROW):
            assert set(heard(client)) == {Absent.FAILED}
        assert is_answered(heard(client), LOCAL)


@pytest.mark.parametrize("answer", [dribble, never, says(b"busy", b"503 Busy")])
def test_an_answer_that_takes_its_time_is_late(answer: Callable[[socket.socket], None]) -> None:
    with liar(answer) as url:
        client = Hosted(LOCAL, HttpLink(url), deadline=0.5)
        for _ in range(IN_A_ROW):
            assert set(heard(client)) == {Absent.LATE}
        assert is_answered(heard(client), LOCAL)


def test_numbers_that_are_no_distribution_are_no_forecast() -> None:
    knots = RIGHT.knots.copy()
    knots[0, 3], knots[1] = np.nan, knots[1][::-1]
    wrong = Forecasts(knots, RIGHT.levels, RIGHT.tails, 1.0, RIGHT.absent)
    with liar(says(answer_of(wrong))) as url:
        answers = heard(Hosted(LOCAL, link := HttpLink(url)))
        link.close()
    assert answers[:2] == [Absent.NONFINITE] * 2
    assert all(isinstance(one, Forecasts) for one in answers[2:])


def test_what_a_host_says_steers_no_terminal(caplog: pytest.LogCaptureFixture) -> None:
    with liar(says(b"\x1b]0;title\x07oh", b"500 \x1b[2J")) as url:
        client = Hosted(LOCAL, HttpLink(url), deadline=30.0)
        for _ in range(IN_A_ROW):
            heard(client)
    assert f"{url} answers 500: ?]0;title?oh" in caplog.text


def test_an_answer_without_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lcsearch.host.link._LONGEST", 2**20)

    def endless(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            connection.sendall(b"10000\r\n" + bytes(65536) + b"\r\n")

    with liar(endless) as url, pytest.raises(HostTrouble, match="an answer of more than 1048576 bytes"):
        HttpLink(url).send(b"", 30)


def test_a_deadline_counts_from_the_first_byte_to_the_last() -> None:
    with liar(dribble) as url, pytest.raises(HostLate, match=r"within 0\.3 s"):
        HttpLink(url).send(b"", 0.3)
