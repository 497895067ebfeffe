"""Numbered pieces of one computation, taken in turn by this process and by others beside it."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

AFTER_S = 1.0
"""Others are started once the first piece has taken that long: what is done sooner is not worth their start."""
POLL_S = 0.2
LOCK_S = 30.0

Do = Callable[[int, Callable[[int], None]], T]
"""Works out a piece, given its number and whom to tell how far it is."""


class Work(Protocol[T_co]):
    """Can be pickled."""

    def begin(self, beside: bool) -> Do[T_co]:
        """Called once in every process; one `beside` the first is not heard, so what fails there must raise."""
        ...


def cores() -> int:
    """Processors that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


class Pieces(Generic[T]):
    """Pieces 0, 1, ... `n` - 1; each is worked out once, and by whom makes no difference to it.

    A process beside this one that dies or fails takes nothing with it: what it had taken is worked out here, where an
    error is raised as if there were no others.

    Args:
        work: what a piece is.
        n: how many there are.
        processes: this one and as many beside it as make up the number, >= 1.
    """

    def __init__(self, work: Work[T], n: int, processes: int) -> None:
        self._work, self._n = work, n
        self._beside = min(processes, n) - 1
        self._do = work.begin(beside=False)
        self._found: dict[int, T] = {}
        self._start = time.monotonic()
        self._others: dict[Connection, tuple[Any, set[int]]] = {}  # each with what it has taken
        self._lost: set[int] = set()
        self._context = multiprocessing.get_context("spawn")  # a fork of a process that has loaded torch may hang
        self._next: Any = None
        self._told: Any = None
        self._far = [0] * n  # of the pieces that were begun here
        self._taken = 0  # where nobody is beside

    def up_to(self, end: int, told: Callable[[int], None]) -> list[T]:
        """What pieces 0 to `end` - 1 came to.

        Args:
            end: how many, <= n; no fewer than the call before.
            told: how far these are, summed.
        """

        def tell() -> None:
            shared = self._far if self._told is None else self._told
            told(sum(max(self._far[k], shared[k]) for k in range(end)))

        while any(k not in self._found for k in range(end)):
            piece = self._take(end)
            if piece is None:
                self._listen(POLL_S)
                tell()
                continue

            def here(count: int, piece: int = piece) -> None:
                self._far[piece] = count
                self._start_others()
                tell()

            self._found[piece] = self._do(piece, here)
            self._listen(0.0)
        return [self._found[k] for k in range(end)]

    def close(self) -> None:
        """End the others, whatever they are at."""
        for pipe, (process, _) in self._others.items():
            process.terminate()
            pipe.close()
        for process, _ in self._others.values():
            process.join()
        self._others.clear()

    def _take(self, end: int) -> int | None:
        """A piece below `end` that nobody has taken, or that was lost; None while the others work on them."""
        if self._lost:
            piece = min(self._lost)
            if piece < end:
                self._lost.remove(piece)
                return piece
        if self._next is None:
            self._taken += 1
            return self._taken - 1
        free = _next(self._next, end)
        if free is None and not self._others:
            return next(k for k in range(end) if k not in self._found)
        return free

    def _start_others(self) -> None:
        if self._beside < 1 or time.monotonic() - self._start < AFTER_S:
            return
        wanted, self._beside = min(self._beside, self._n - self._taken), 0
        # no memory to share, no process is to be had, or a daemon may start none: this one does it all
        with suppress(OSError, ImportError, AssertionError):
            counter, told = self._context.Value("l", self._taken), self._context.RawArray("l", self._n)
            self._next, self._told = counter, told
            with _no_interrupts():
                for _ in range(wanted):
                    mine, theirs = self._context.Pipe(duplex=False)
                    args = (self._work, self._n, counter, told, theirs)
                    process = self._context.Process(target=_beside, args=args, daemon=True)
                    process.start()
                    theirs.close()
                    self._others[mine] = (process, set())

    def _listen(self, seconds: float) -> None:
        """Take what others have worked out, and what those had taken who are gone."""
        for pipe in wait(list(self._others), seconds) if self._others else ():
            assert isinstance(pipe, Connection)
            process, taken = self._others[pipe]
            try:
                piece, *found = pipe.recv()
            except (EOFError, OSError):
                del self._others[pipe]
                self._lost |= taken
                pipe.close()
                process.join()
                continue
            taken.add(piece)
            if found:
                taken.remove(piece)
                self._found[piece] = found[0]


def _next(counter: Any, end: int) -> int | None:
    """The next number below `end`, for whoever asks first."""
    lock = counter.get_lock()
    if not lock.acquire(timeout=LOCK_S):  # who had it was killed
        return None
    try:
        if counter.value >= end:
            return None
        counter.value += 1
        return int(counter.value - 1)
    finally:
        lock.release()


def _beside(work: Work[Any], n: int, counter: Any, told: Any, pipe: Connection) -> None:
    """A process beside the first one; it says nothing but through the pipe."""
    logging.disable()
    warnings.simplefilter("ignore")
    threading.Thread(target=_end_with_the_first, daemon=True).start()
    with suppress(Exception):  # the piece is worked out once more by the first process, which says what is wrong
        do = work.begin(beside=True)
        while (piece := _next(counter, n)) is not None:
            pipe.send((piece,))

            def tell(count: int, piece: int = piece) -> None:
                told[piece] = count

            pipe.send((piece, do(piece, tell)))


def _end_with_the_first() -> None:
    """Where the first process is killed it cannot end the others, and a piece may take minutes."""
    first = multiprocessing.parent_process()
    if first is not None:
        first.join()
        os._exit(1)


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Processes that are started here leave Ctrl-C to the first one."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
