"""Worker processes that end at the worst moment."""

from __future__ import annotations

import os
from pathlib import Path

from lcsearch.sweep.runtime.processes import Fleet
from lcsearch.sweep.spec.model import Workers
from lcsearch.sweep.store.folder import RunFolder


def test_a_worker_that_was_gone_when_it_was_asked_to_drain_is_reaped(tmp_path: Path) -> None:
    """What could not be written to it was once written again as its pipe was closed: the launcher ended with it."""
    folder = RunFolder(tmp_path)
    folder.log(0).parent.mkdir(parents=True)
    lock = os.open(os.devnull, os.O_RDONLY)
    try:
        fleet = Fleet(folder, Workers(n=1), lock)
        fleet.start(0)
        os.waitid(os.P_PID, fleet.pids[0], os.WEXITED | os.WNOWAIT)  # there is no run: it ends by itself
        fleet.drain()
        (death,) = fleet.reap()
    finally:
        os.close(lock)
    assert death.code > 0
    assert fleet.empty_slots() == [0]
