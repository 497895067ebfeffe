"""A wait that ends, whatever is waited for."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import TypeVar

TICK_S = 0.5
"""How often an import is looked at."""
_MOVED_S = 0.01  # of processor time: what waits for a lock or for an answer takes next to none

T = TypeVar("T")


class NotInTime(Exception):
    """A call has not come back in time, as its text says; `thread` works on."""

    def __init__(self, thread: threading.Thread, why: str) -> None:
        super().__init__(why)
        self.thread = thread


def in_time(
    seconds: float, name: str, call: Callable[[], T], slow: tuple[float, Callable[[], None]] | None = None
) -> T:
    """What the call returns or raises, made on a thread of its own which ends with it.

    Args:
        seconds: how long it is waited for.
        name: of the thread.
        slow: seconds, fewer, after which something is called if it has not come back by then.

    Raises:
        NotInTime: it has not come back by then.
    """
    future: Future[T] = Future()

    thread = threading.Thread(target=_run, args=(call, future), name=name, daemon=True)
    thread.start()
    if slow is not None and slow[0] < seconds:
        thread.join(slow[0])
        seconds -= slow[0]
        if not future.done():
            slow[1]()
    thread.join(seconds)
    if not future.done():
        raise NotInTime(thread, "no answer in time")
    try:
        return future.result()
    finally:
        del future  # what it raises holds this frame, which would hold it


def while_it_moves(still: float, name: str, call: Callable[[], T]) -> T:
    """What an import returns or raises, made on a thread of its own; given up once it stands still, and not for being
    slow: a busy machine, or a slow disk, lets it move all the same.

    It moves while its thread takes processor time or modules are added. Looks at it are counted and no clock is read,
    so a process that was halted for a while has not stood still.

    Args:
        still: seconds without any move after which it is given up.
        name: of the thread.
        call: imports something.

    Raises:
        NotInTime: it was given up.
    """
    future: Future[T] = Future()
    began = threading.Event()
    spent: list[Callable[[], float]] = []

    def run() -> None:
        with suppress(AttributeError, OSError):  # asked of itself: of a thread that has ended it may crash
            spent.append(partial(time.clock_gettime, time.pthread_getcpuclockid(threading.get_ident())))
        began.set()
        _run(call, future)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    began.wait()
    clock = spent[0] if spent else time.process_time
    stood, before = 0, (-1, -1)
    while stood * TICK_S < still:
        thread.join(TICK_S)
        if future.done():
            try:
                return future.result()
            finally:
                del future  # what it raises holds this frame, which would hold it
        now = before
        with suppress(OSError):  # it ends just now
            now = len(sys.modules), int(clock() / _MOVED_S)
        stood = stood + 1 if now == before else 0
        before = now
    raise NotInTime(thread, f"nothing has moved for {still:g} s")


def _run(call: Callable[[], T], future: Future[T]) -> None:
    try:
        future.set_result(call())
    except SystemExit as error:  # a library that gives up must not end who has waited for it
        future.set_exception(RuntimeError(f"it wanted to exit ({error})"))
    except BaseException as error:  # raised anew where it was called
        future.set_exception(error)
