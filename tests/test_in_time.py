from __future__ import annotations

import sys
import threading
import time
from types import ModuleType

import pytest

from lcsearch import in_time as waits
from lcsearch.in_time import NotInTime, in_time, while_it_moves


@pytest.fixture(autouse=True)
def _ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits, "TICK_S", 0.01)


def test_what_a_call_returns_or_raises_comes_back() -> None:
    assert in_time(600, "t", lambda: 3) == while_it_moves(600, "t", lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        in_time(600, "t", lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        while_it_moves(600, "t", lambda: 1 // 0)


def test_an_import_that_stands_still_is_given_up_long_before_its_end() -> None:
    end = threading.Event()
    with pytest.raises(NotInTime, match=r"^nothing has moved for 0\.05 s$") as caught:
        while_it_moves(0.05, "t", end.wait)
    end.set()
    caught.value.thread.join(600)
    assert not caught.value.thread.is_alive()


def test_one_that_moves_is_waited_for_however_slow_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two modules nothing moves for four looks of the five after which it would be given up."""
    end, looks, join = threading.Event(), 0, threading.Thread.join

    def look(thread: threading.Thread, seconds: float | None = None) -> None:
        nonlocal looks
        looks += 1
        if looks % 4 == 0:
            monkeypatch.setitem(sys.modules, f"module_{looks}_of_a_test", ModuleType("m"))
        if looks == 160:
            end.set()
            join(thread, 600)

    monkeypatch.setattr(threading.Thread, "join", look)
    assert while_it_moves(0.05, "t", lambda: end.wait(600) and "imported") == "imported"


def test_one_that_only_computes_moves_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty looks at it, five of which without a move would be too many."""
    looked, computed, looks, join = threading.Semaphore(0), threading.Semaphore(0), 0, threading.Thread.join

    def look(thread: threading.Thread, seconds: float | None = None) -> None:
        nonlocal looks
        looks += 1
        if looks > 20:
            join(thread, 600)
        else:
            looked.release()
            assert computed.acquire(timeout=600)

    def computes() -> str:
        for _ in range(20):
            assert looked.acquire(timeout=600)
            began = time.thread_time()
            while time.thread_time() - began < 0.02:
                pass
            computed.release()
        return "imported"

    monkeypatch.setattr(threading.Thread, "join", look)
    assert while_it_moves(0.05, "t", computes) == "imported"


def test_who_waits_is_not_ended_by_what_wants_to_exit() -> None:
    """A library that gives up with sys.exit() while it is imported."""
    with pytest.raises(RuntimeError, match=r"^it wanted to exit \(3\)$"):
        while_it_moves(1.0, "exits", lambda: sys.exit(3))
    with pytest.raises(RuntimeError, match=r"^it wanted to exit \(3\)$"):
        in_time(9.0, "exits", lambda: sys.exit(3))
