"""What is said of the trials that ended while they were paused: what for, by which allocation, and how they rank."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import FrozenTrial

from lcsearch.allocation.receipt import AllocationReceipt
from lcsearch.allocation.rungs import Ladder
from lcsearch.goal import Goal
from lcsearch.schedulers.optuna import as_trial
from lcsearch.schedulers.optuna._record import EVICTED, LEFT
from lcsearch.session.decision_log import read_allocations
from lcsearch.study import FinishedTrials, Snapshot, uid_sort_key
from lcsearch.sweep.monitor.progress import Row

_BY = {LEFT: "the budget's end", EVICTED: "checkpoints.keep"}
"""What ended a paused trial where no allocator did."""


@dataclass(frozen=True)
class Cut:
    """One trial that ended while it was paused.

    Attributes:
        step: where it was paused: its rung.
        saved: steps that it had left, an estimate.
        rank: (rank, of how many) by value among all trials that came to that step, as things stand now.
        by: the allocator, or what else ended it.
        allocation: the number of the allocation that cut it; None where none did, or where the log is gone.
        line, text: the reason in one line, and the whole story.
    """

    number: int
    step: float
    saved: int
    rank: tuple[int, int]
    by: str
    allocation: int | None
    line: str
    text: str


def cuts_of(
    rows: Sequence[Row], trials: Sequence[FrozenTrial], goal: Goal, decisions: Path, step: str
) -> tuple[Cut, ...]:
    """The trials that were cut, by number.

    Args:
        rows: the sweep's trials.
        trials: the same as Optuna has them.
        goal: what they are after.
        decisions: the decision log, which has the receipts of allocations.
        step: what a step is called.
    """
    cut = [row for row in rows if row.cut]
    if not cut:
        return ()
    receipts: dict[str, AllocationReceipt] = {}
    with suppress(FileNotFoundError):
        receipts = {uid: one for one in read_allocations(decisions) for uid, _ in one.stops}
    seen = [as_trial(trial) for trial in trials]
    bank = FinishedTrials(goal).extend(trial for trial in seen if trial.status.finished)
    snapshot = Snapshot("report", goal, bank, tuple(trial for trial in seen if not trial.status.finished))
    ranks: dict[float, dict[str, int]] = {}
    found = []
    for row in cut:
        at, uid = float(row.last[0] if row.last else 0), str(row.number)
        if at not in ranks:
            there = Ladder(snapshot, (at, goal.horizon), 2.0).members(0)
            ranks[at] = {one.uid: rank for rank, one in enumerate(there, start=1)}
        rank = ranks[at].get(uid, len(ranks[at])), len(ranks[at])
        receipt = receipts.get(uid) if row.cut == "cut" else None
        by = _BY.get(row.cut, "the allocator" if receipt is None else receipt.allocator)
        number = None if receipt is None else receipt.number
        story = f"{_story(row, receipt, step)}{begun_told(row)}"
        found.append(Cut(row.number, at, row.saved, rank, by, number, row.note, story))
    return tuple(found)


def begun_told(row: Row) -> str:
    """The last line of a story: why the trial has its configuration; nothing where nobody has chosen it."""
    return f"\nit was begun as {row.begun}" if row.begun else ""


def _story(row: Row, receipt: AllocationReceipt | None, step: str) -> str:
    """What the allocation that cut a trial came to besides."""
    if receipt is None:
        return row.note
    lines = [str(receipt.story(str(row.number)))]
    others = sorted((uid for uid, _ in receipt.stops if uid != str(row.number)), key=uid_sort_key)
    lines += [f"and {len(others)} more that waited were cut at once"] if others else []
    went = receipt.told(step, cuts=False)
    return "\n".join([*lines, *(["its slots went to:", *(f"  {line}" for line in went)] if went else [])])
