"""Worker processes: begun anew when one is killed, ended together when one fails."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import wait
from typing import Any

_log = logging.getLogger("lcsearch")

_RESTARTS = 10
"""How many workers may be killed, all together, before the run is given up."""


def run_processes(work: Callable[[Callable[[], bool]], None], n_workers: int) -> None:
    """`n_workers` processes of `work`, which is told how to ask whether it is to end early, until all have ended.

    Raises:
        RuntimeError: one has failed, or too many were killed.
    """
    context = multiprocessing.get_context("spawn")  # a fork copies locks that other threads hold
    stop, left, failed = context.Event(), _RESTARTS, ""

    def start() -> Any:
        process = context.Process(target=_work, args=(work, stop))
        process.start()
        return process

    living = [start() for _ in range(n_workers)]
    try:
        while living:
            ended = wait([process.sentinel for process in living])
            for process in [process for process in living if process.sentinel in ended]:
                process.join()
                living.remove(process)
                code = process.exitcode
                if code == 0 or failed:
                    continue
                if code is not None and code < 0 and left:
                    left -= 1
                    _log.warning("lcsearch: worker process %s was ended by signal %d", process.pid, -code)
                    living.append(start())
                    continue
                why = "too many were killed" if code is not None and code < 0 else "its error stands above"
                failed = f"worker process {process.pid} ended with exit code {code}: {why}"
                stop.set()
    except BaseException:
        stop.set()
        for process in living:
            process.join()
        raise
    if failed:
        raise RuntimeError(failed)


def _work(work: Callable[[Callable[[], bool]], None], stop: Any) -> None:
    work(stop.is_set)
