"""A wait that ends, whatever is waited for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


class NotInTime(Exception):
    """A call has not come back in time; `thread` works on."""

    def __init__(self, thread: threading.Thread) -> None:
        super().__init__(thread.name)
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
        raise NotInTime(thread)
    try:
        return future.result()
    finally:
        del future  # what it raises holds this frame, which would hold it


def _run(call: Callable[[], T], future: Future[T]) -> None:
    try:
        future.set_result(call())
    except BaseException as error:  # raised anew where it was called
        future.set_exception(error)
