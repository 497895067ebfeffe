"""What the launcher notes for those who come later: when it was at work, and when the best value came.

Each launch is a file in the run folder that holds when it began; the file's own time is when its launcher was last
seen, so that a kill at any moment leaves a true record. Optuna keeps no time of a report: when the incumbent's came
stands in a user attribute of the study.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

import optuna

from lcsearch.sweep.folder import RunFolder
from lcsearch.sweep.progress import Best, Row

BEST = "lcsearch:best"

Leg = tuple[float, float]
"""(began, last seen) of one launch, in seconds since the epoch."""


class Launch:
    """This launch's entry; a full disk costs the entry, never the sweep."""

    def __init__(self, folder: RunFolder) -> None:
        began = time.time()
        self._path = folder.launches / f"{began:.3f}"
        with suppress(OSError):
            folder.launches.mkdir(exist_ok=True)
            self._path.touch()

    def seen(self) -> None:
        """Still at work."""
        with suppress(OSError):
            os.utime(self._path)


def legs(folder: RunFolder) -> list[Leg]:
    """Every launch so far, by time."""
    found = []
    with suppress(OSError):
        for path in folder.launches.iterdir():
            with suppress(ValueError, OSError):
                began = float(path.name)
                found.append((began, max(began, path.stat().st_mtime)))
    return sorted(found)


def at_work(folder: RunFolder) -> bool:
    """Does a launcher, or a worker that it left, hold the run?"""
    try:
        descriptor = os.open(folder.root / "run.lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def last_seen(folder: RunFolder) -> float:
    """When something was last written of the run, in seconds since the epoch."""
    paths: list[Path] = [folder.record, folder.root / "study.sqlite3", *folder.logs.glob("*.log")]
    times = [end for _, end in legs(folder)]
    for path in paths:
        with suppress(OSError):
            times.append(path.stat().st_mtime)
    return max(times, default=time.time())


def note_best(study: optuna.Study, best: Best) -> None:
    """Keep when the incumbent's report was seen first, unless that is kept already."""
    if _noted(study, best) is None:
        study.set_user_attr(BEST, {"trial": best.number, "step": best.step, "value": best.value, "time": time.time()})


def best_since(study: optuna.Study, best: Best, row: Row) -> float | None:
    """When the incumbent's report came, in seconds since the epoch; None when nothing says so.

    Without a note (a launcher was killed in that very second) it is read off the trial's own times, as if its steps
    had all been equally long.
    """
    noted = _noted(study, best)
    if noted is not None:
        return noted
    if row.began is None or row.ended is None or row.last is None:
        return None
    share = min(1.0, best.step / max(row.last[0], 1))
    return row.began.timestamp() + share * (row.ended - row.began).total_seconds()


def _noted(study: optuna.Study, best: Best) -> float | None:
    known = study.user_attrs.get(BEST)
    if not isinstance(known, dict) or (known.get("trial"), known.get("step")) != (best.number, best.step):
        return None
    return float(known["time"])


def seconds_of(row: Row, launches: list[Leg], now: float) -> float:
    """How long a worker has been busy with the trial: its own time, less what lies between the launches."""
    if row.began is None or (row.state == "waiting" and not launches):
        return 0.0
    began = row.began.timestamp()
    ended = row.ended.timestamp() if row.ended is not None else now
    if not launches:
        return max(0.0, ended - began)
    # a trial that another machine trains may lie outside all launches of this one
    if not any(first <= ended and last >= began for first, last in launches):
        return max(0.0, ended - began) if row.ended is not None else 0.0
    return sum(max(0.0, min(ended, last) - max(began, first)) for first, last in launches)
