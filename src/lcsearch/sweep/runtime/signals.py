"""Ctrl-C and its like, each counted: Python calls a handler once for all that came while the main thread was in C."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

_READ = 1 << 16  # bytes: all that a pipe holds


@contextmanager
def counted(numbers: Sequence[signal.Signals], tell: Callable[[int], None]) -> Iterator[None]:
    """Call `tell` with how many of these signals have come so far, whenever Python hears of one.

    `tell` is called in the main thread, between two lines of whatever runs there, and may raise.

    Raises:
        ValueError: this is not the main thread, which alone can listen.
    """
    calls: dict[int, int] = dict.fromkeys(
        numbers, 0
    )  # both are changed in single steps: a handler may run within a handler
    written = bytearray()

    def handle(number: int, frame: FrameType | None) -> None:
        calls[number] += 1
        with suppress(BlockingIOError):  # nothing to read: an earlier call has read it
            written.extend(os.read(reading, _READ))
        # Bytes count the signals that were one call, and calls those whose byte is not there yet, or never will be
        # (somebody else took the bytes). A signal is one of each, so neither alone is ever too high.
        tell(sum(max(calls[n], written.count(n)) for n in numbers))

    before: dict[signal.Signals, Any] = {}
    reading, writing = os.pipe()
    try:
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)
        woken = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)  # C writes each signal's number, as it comes
        try:
            for number in numbers:
                before[number] = signal.signal(number, handle)
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            now = signal.set_wakeup_fd(-1)
            with suppress(ValueError, OSError):  # closed meanwhile
                signal.set_wakeup_fd(woken if now == writing else now)
    finally:
        os.close(reading)
        os.close(writing)
