from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import numpy as np
import pytest
from kit.endpoints import Serving, fetch, question, served
from kit.forecasters import ask, laws, study
from kit.hosts import Counting
from kit.sessions import wait_for

from lcsearch.host import endpoint, wire

TOKEN = "a-secret-of-some-length"
SEEN = study(laws(5), [("live", laws(1, seed=1)[0, :9])])
BODY = question(SEEN, ask(SEEN), "counting-1")


@pytest.fixture(scope="module")
def plain() -> Iterator[Serving]:
    with served(Counting()) as one:
        yield one


@pytest.fixture(scope="module")
def guarded() -> Iterator[Serving]:
    with served(Counting(), token=TOKEN) as one:
        yield one


def open_to(one: Serving) -> socket.socket:
    parts = urlsplit(one.url)
    assert parts.hostname is not None
    assert parts.port is not None
    return socket.create_connection((parts.hostname, parts.port), timeout=30)


def read_all(connection: socket.socket) -> bytes:
    found = b""
    try:
        while part := connection.recv(1 << 16):
            found += part
    except ConnectionError:
        pass
    return found


def lets_in(one: Serving) -> bool:
    try:
        open_to(one).close()
    except ConnectionError:
        return False
    return True


def until(what: str, one: Serving, value: int) -> None:
    """The host's metric `what` has come to `value`."""
    for _ in range(12_000):
        if re.search(rf"^{re.escape(what)} {value}$", fetch(one.url, "/metrics").body.decode(), re.MULTILINE):
            return
        time.sleep(0.01)
    raise AssertionError(fetch(one.url, "/metrics").body.decode())


def test_a_question_is_answered(plain: Serving) -> None:
    found = fetch(plain.url, body=BODY)
    assert (found.status, found.headers["content-type"]) == (200, "application/octet-stream")
    answer = wire.unpack_answer(found.body, len(ask(SEEN)), 1.0, "counting-1")
    want = Counting().forecast(SEEN, ask(SEEN))
    np.testing.assert_array_equal(answer.knots, want.knots)


def test_it_tells_about_itself_and_no_more(plain: Serving) -> None:
    assert fetch(plain.url, "/health").body == b"ready"
    found = fetch(plain.url, "/version")
    about = json.loads(found.body)
    assert (about["wire"], about["name"], about["model"], about["ready"]) == (wire.WIRE, "network", "counting-1", True)
    assert not {"server", "date", "x-powered-by"} & set(found.headers)


class Loading(Counting):
    def prepare(self) -> None:
        assert self.gate.wait(60)


def test_while_the_model_is_loaded_the_host_says_so() -> None:
    model = Loading()
    model.gate.clear()
    with served(model, wait=False) as one:
        wait_for(lambda: lets_in(one))
        for path, body in (("/health", None), ("/v1/forecast", BODY)):
            found = fetch(one.url, path, body)
            assert (found.status, found.body) == (503, b"the model is being loaded")
        assert json.loads(fetch(one.url, "/version").body)["ready"] is False
        model.gate.set()
        wait_for(lambda: fetch(one.url, "/health").status == 200)
        assert fetch(one.url, body=BODY).status == 200


LINE = re.compile(
    r'# (HELP|TYPE) lcsearch_host_\w+ .+|(lcsearch_host_\w+)(\{\w+="\w+"\})? [-+]?\d+(\.\d+)?([eE][-+]?\d+)?'
)


def test_metrics_are_in_the_format_of_prometheus(plain: Serving) -> None:
    fetch(plain.url, body=b"nonsense")
    found = fetch(plain.url, "/metrics")
    assert found.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    text = found.body.decode()
    assert text.endswith("\n")
    rows = text.splitlines()
    assert all(LINE.fullmatch(row) for row in rows), rows
    named = [match[2] for row in rows if (match := LINE.fullmatch(row)) is not None and match[2]]
    for name in named:  # each is introduced once
        assert [row for row in rows if row.startswith(f"# TYPE {name} ")] != []
    assert 'lcsearch_host_replies_total{status="400"} ' in text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/forecast", 405), ("PUT", "/v1/forecast", 405), ("POST", "/version", 405), ("GET", "/", 404)],
)
def test_other_pages_and_methods_are_refused(plain: Serving, method: str, path: str, status: int) -> None:
    assert fetch(plain.url, path, method=method).status == status


@pytest.mark.parametrize("shown", ["", "wrong", TOKEN[:-1], TOKEN + "x", TOKEN.upper()])
def test_without_the_token_nothing_but_health_is_told(guarded: Serving, shown: str) -> None:
    for path, body in (("/v1/forecast", BODY), ("/version", None), ("/metrics", None), ("/nowhere", None)):
        found = fetch(guarded.url, path, body, token=shown)
        assert (found.status, found.headers["www-authenticate"]) == (401, "Bearer")
        assert found.body.startswith(b"expected the host's token")
        assert TOKEN.encode() not in found.body
    assert fetch(guarded.url, "/health").status == 200


def test_with_the_token_all_is_told(guarded: Serving) -> None:
    assert fetch(guarded.url, body=BODY, token=TOKEN).status == 200
    assert fetch(guarded.url, "/version", token=TOKEN).status == 200
    assert fetch(guarded.url, "/version", Authorization=TOKEN).status == 401


def test_a_body_that_is_too_large_is_refused_before_it_was_read() -> None:
    with served(Counting(), most_bytes=4096) as one:
        found = fetch(one.url, body=bytes(5000))
        assert (found.status, found.body) == (413, b"expected a body of at most 4096 bytes, got more")
        assert fetch(one.url, body=bytes(4096)).status == 400
        for head in (b"Content-Length: 1000000000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"):
            with open_to(one) as endless:
                endless.sendall(b"POST /v1/forecast HTTP/1.1\r\nHost: a\r\n" + head)
                with pytest.raises(ConnectionError):
                    endless.sendall((b"400\r\n" + bytes(1024) + b"\r\n") * 40_000)
        assert fetch(one.url, "/health").status == 200


def test_bodies_as_large_as_the_host_takes_are_read() -> None:
    """A request of more than 64 MB was cut off, whatever --max-body said."""
    with served(Counting(), most_bytes=80 * 2**20) as one:
        assert fetch(one.url, body=bytes(70 * 2**20)).status == 400


@pytest.mark.parametrize("said", [b"Content-Length: 10\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n5\r\nabc"])
def test_a_body_that_does_not_come_is_not_waited_for(
    plain: Serving, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(endpoint, "BODY_S", 0.2)
    with open_to(plain) as slow:
        slow.sendall(b"POST /v1/forecast HTTP/1.1\r\nHost: a\r\n" + said)
        found = read_all(slow)
    assert found.startswith(b"HTTP/1.1 408 ")
    assert found.endswith(b"expected the whole body within 0.2 s")


def test_a_head_that_does_not_end_is_not_waited_for(plain: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "HEAD_S", 0.2)
    for begin in (b"", b"GET /version HTTP/1.1\r\nHost: a\r\nX-", b"GET /version HTTP/1.1\r\nHost: a\r\n\r\nGET /ver"):
        with open_to(plain) as slow:
            slow.sendall(begin)
            assert read_all(slow).count(b"HTTP/1.1 ") == begin.count(b"\r\n\r\n")


def test_a_head_without_end_is_cut_off(plain: Serving) -> None:
    with open_to(plain) as endless:
        endless.sendall(b"GET /version HTTP/1.1\r\nX-Long: ")
        with pytest.raises(ConnectionError):
            endless.sendall(b"A" * 40_000_000)
    assert fetch(plain.url, "/health").status == 200


def test_requests_that_follow_each_other_closely_are_all_answered(plain: Serving) -> None:
    request = b"POST /v1/forecast HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
    with open_to(plain) as one:
        one.sendall(request * 30 + b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert read_all(one).count(b"HTTP/1.1 200 OK") == 31


def test_a_busy_host_says_so() -> None:
    model = Counting()
    model.gate.clear()
    with served(model, most_pending=2) as one, ThreadPoolExecutor(3) as pool:
        first = pool.submit(fetch, one.url, body=BODY)
        assert model.entered.wait(120)
        rest = [pool.submit(fetch, one.url, body=BODY) for _ in range(2)]
        until("lcsearch_host_pending", one, 2)
        busy = fetch(one.url, body=BODY)
        assert (busy.status, busy.body) == (503, b"2 requests are waiting")
        model.gate.set()
        assert [f.result(120).status for f in (first, *rest)] == [200] * 3
        assert fetch(one.url, body=BODY).status == 200


def test_many_large_bodies_at_once_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "AT_ONCE", 2)
    with served(Counting(), most_bytes=100_000) as one:
        held = [open_to(one) for _ in range(2)]
        for connection in held:
            connection.sendall(
                b"POST /v1/forecast HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + bytes(99_999)
            )
        for _ in range(12_000):
            if (found := fetch(one.url, body=bytes(1000))).status == 503:
                break
            time.sleep(0.01)
        assert found.body == b"too many large requests at once"
        for connection in held:
            connection.close()
        for _ in range(12_000):
            if fetch(one.url, body=bytes(1000)).status == 400:
                return
            time.sleep(0.01)
        raise AssertionError("what was held is held for ever")


def test_who_leaves_takes_his_question_along() -> None:
    model = Counting()
    model.gate.clear()
    with served(model) as one, ThreadPoolExecutor(1) as pool:
        first = pool.submit(fetch, one.url, body=BODY)
        assert model.entered.wait(120)
        with open_to(one) as leaving:
            leaving.sendall(b"POST /v1/forecast HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY)
            until("lcsearch_host_pending", one, 1)
        until('lcsearch_host_replies_total{status="499"}', one, 1)
        model.gate.set()
        assert first.result(120).status == 200
        assert fetch(one.url, body=BODY).status == 200
        assert len(model.passes) == 2  # nobody worked for the one that had left


def test_requests_on_their_way_are_answered_at_the_end() -> None:
    model = Counting()
    model.gate.clear()
    with served(model) as one, ThreadPoolExecutor(1) as pool:
        first = pool.submit(fetch, one.url, body=BODY)
        assert model.entered.wait(120)
        one.end()
        wait_for(lambda: not lets_in(one))
        model.gate.set()
        assert first.result(120).status == 200


def test_the_end_does_not_wait_for_ever() -> None:
    model = Counting()
    model.gate.clear()
    with served(model, drain=1) as one, ThreadPoolExecutor(1) as pool:
        first = pool.submit(fetch, one.url, body=BODY)
        assert model.entered.wait(120)
        one.end()
        found = first.result(120)
        model.gate.set()
    assert (found.status, found.body) == (503, b"the host is being shut down")
