"""What is known of a run beside its study: whether somebody is at work on it, and when its best value came.

Optuna keeps no time of a report: when the best one's came is a user attribute of the study, which the launcher writes.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Collection, Sequence
from pathlib import Path

import optuna

from lcsearch.errors import is_finite_number
from lcsearch.session.decision_log import left_out_words
from lcsearch.sweep.monitor.decision_tail import DecisionLogTail
from lcsearch.sweep.monitor.progress import Best, Progress, Row
from lcsearch.sweep.store.budget import Reading
from lcsearch.sweep.store.folder import RunFolder

BEST = "lcsearch:best"


def at_work(folder: RunFolder) -> bool:
    """Does a launcher, or a worker that it left, hold the run?"""
    try:
        descriptor = os.open(folder.root / "run.lock", os.O_RDONLY | os.O_NONBLOCK)  # it may be a pipe
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def place(folder: RunFolder, number: int) -> str:
    """From where a trial goes on that is taken up again: has it left anything in its checkpoint folder, beside what
    lcsearch itself keeps there?"""
    saved = folder.has_checkpoint(number)
    return "from its last checkpoint" if saved else "from its start, for no checkpoint is in its folder"


def damage(folder: RunFolder, progress: Progress, clock: Reading, log: DecisionLogTail) -> list[str]:
    """What of a run could not be read back and was left out, and what that means; one sentence each.

    Args:
        log: the decision log, as it was read after the study.
    """
    found = [left_out_words(log.left_out)] if log.left_out else []
    if folder.decisions.exists() and not folder.decisions.is_dir():
        found.append(f"{folder.decisions}: expected the folder of the decision log, got none: no look is known")
    gone = not any(path.is_file() and path.stat().st_size for path in folder.decisions.glob("*.jsonl"))
    stopped = stopped_here(folder, progress)
    if gone and not found and stopped:
        text = "trials were stopped by looks, and there is no decision log: it was deleted, or made on another machine"
        found.append(f"{folder.decisions}: {text}; what is known of stops comes from the study")
    elif not gone and (parts := _not_whole(folder, stopped, log)):
        text = f"the decision log is not whole: {', '.join(parts)}; what stood there is not known, stops are"
        found.append(f"{folder.decisions}: {text} known from the study")
    if clock.damaged:
        text = "expected the run's wall clock, got what cannot be read: what earlier launches took is not known"
        found.append(f"{folder.clock}: {text}")
    if n := len(progress.unreadable):
        what = f"{n} attributes of trials in the study" if n > 1 else "an attribute of a trial in the study"
        text = f"{what} cannot be read and count{'s' * (n == 1)} as not there, the first: {progress.unreadable[0]}"
        found.append(text)
    return found


def stopped_here(folder: RunFolder, progress: Progress) -> list[int]:
    """Trials that looks of this run's workers stopped: those of another machine stand in its own log."""
    return [row.number for row in _here(folder, progress) if row.stop is not None]


def cut_here(folder: RunFolder, progress: Progress) -> list[int]:
    """Trials that were cut while they were paused on this machine: its own allocations name them."""
    return [row.number for row in _here(folder, progress) if row.cut == "cut"]


def _here(folder: RunFolder, progress: Progress) -> list[Row]:
    me = folder.identity()
    return [row for row in progress.rows if row.run in (None, me)]


def _not_whole(folder: RunFolder, stopped: Sequence[int], log: DecisionLogTail) -> list[str]:
    """By what a decision log is seen to have lost lines."""
    parts = []
    if n := sum(log.missing.values()):
        parts.append(f"{f'{n} lines are' if n > 1 else 'a line is'} missing in {_first(log.missing)}")
    if log.torn and not at_work(folder):  # whoever is at work may be writing it
        parts.append(f"the last line of {_first(log.torn)} has no end")
    lost = [number for number in stopped if str(number) not in log.stops]
    if lost and not log.left_out:  # else that is where they stood
        parts.append(f"{len(lost)} of {len(stopped)} stops have no line in it, the first that of trial {lost[0]}")
    return parts


def _first(paths: Collection[Path]) -> str:
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return f"{min(paths).name}{more}"


def note_best(study: optuna.Study, best: Best) -> None:
    """Keep when the best value's report was seen first, unless that is kept already."""
    if _noted(study, best) is None:
        study.set_user_attr(BEST, {"trial": best.number, "step": best.step, "value": best.value, "time": time.time()})


def best_since(study: optuna.Study, best: Best, row: Row) -> float | None:
    """When the best value's report came, in seconds since the epoch; None when nothing says so.

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
    return float(known["time"]) if is_finite_number(known.get("time")) else None
