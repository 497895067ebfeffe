"""Which process has a trial, as it is stored with the trial: by machine, number and when it began."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lcsearch import files


def this_process() -> dict[str, Any]:
    """This process, told from all others that have been or will be, for :func:`is_gone`."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "started": _started(pid)}


def is_gone(process: Mapping[str, Any]) -> bool | None:
    """Has a process of this machine ended? None for one of another machine, of which nobody here knows."""
    if process.get("host") != socket.gethostname():
        return None
    pid = process.get("pid")
    return not isinstance(pid, int) or not files.lives(pid) or process.get("started") != _started(pid)


def _started(pid: int) -> str | None:
    """When a process began, in the kernel's ticks: numbers of processes come again."""
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return None
