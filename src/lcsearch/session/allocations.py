"""Allocations of free slots in one process, which stand whatever an allocator does, and the latest receipts of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from lcsearch.allocation.allocators.run_to_end import RunToEnd
from lcsearch.allocation.ask import AllocationAsk
from lcsearch.allocation.ask import ask as ask_allocator
from lcsearch.allocation.contract import Abilities, Allocation, Allocator, Key, Slots, Wait
from lcsearch.allocation.judge import judge as allocated
from lcsearch.allocation.receipt import AllocationReceipt
from lcsearch.errors import InvalidValue, in_words
from lcsearch.forecast.contract import Answers
from lcsearch.session.panel import Panel
from lcsearch.study import Snapshot

REMEMBERED_ALLOCATIONS = 20
"""Latest receipts of allocations kept in memory, of each study."""


class Allocated(NamedTuple):
    """What a process remembers of a study's allocations.

    Attributes:
        receipts: the latest ones, oldest first.
        waits: the trials that got no slot at the last one, the nearest to one first.
    """

    receipts: list[AllocationReceipt]
    waits: tuple[Wait, ...]


class Made(NamedTuple):
    """An allocation that was made.

    Attributes:
        allocation: what it is.
        receipt: of it; None where its allocator's knobs cannot be copied.
        errors: of the forecasters that were asked, by their names.
    """

    allocation: Allocation
    receipt: AllocationReceipt | None
    errors: dict[str, str]


class Allocations:
    """Asks allocators and lets them judge, and remembers the latest receipts of each study. Thread-safe.

    Args:
        failed: counts what failed; called outside the lock.
    """

    def __init__(self, failed: Callable[[str, BaseException], None]) -> None:
        self._failed = failed
        self._lock = threading.Lock()
        self._latest: dict[Hashable, Allocated] = {}

    def ask(
        self, allocator: Allocator, state: Any, snapshot: Snapshot, abilities: Abilities, slots: Slots, key: Key
    ) -> AllocationAsk:
        """See :meth:`lcsearch.session.Session.ask_for_slots`."""
        try:
            return ask_allocator(allocator, state, snapshot, abilities, slots, key)
        except Exception as error:
            self._failed(f"allocator {allocator.name!r}", error)
        with suppress(Exception):
            return ask_allocator(allocator, allocator.init(), snapshot, abilities, slots, key)
        return ask_allocator(RunToEnd(), state, snapshot, abilities, slots, key)

    def make(self, asked: AllocationAsk, panel: Panel) -> Made:
        """See :meth:`lcsearch.session.Session.allocate`; nothing is written here."""
        failed = ""
        answers: Answers = {}
        errors: dict[str, str] = {}
        with np.errstate(all="ignore"):
            try:
                made, answers, errors = _judged(asked, panel)
            except Exception as error:  # whatever an allocator does, the study goes on
                self._failed(f"allocator {asked.allocator.name!r}", error)
                anew = None if isinstance(error, InvalidValue) else _anew(asked, panel)
                if anew is not None:
                    asked, made, answers, errors = anew
                else:
                    failed = in_words(error)
                    made = allocated(replace(asked, allocator=RunToEnd(), queries=()), {})
        receipt: AllocationReceipt | None = None
        try:
            receipt = AllocationReceipt.of(asked, made, failed, answers)
        except Exception as error:  # an allocator whose knobs cannot be copied
            self._failed("allocation receipt", error)
        with self._lock:
            kept = self._latest.get(asked.snapshot.key, Allocated([], ()))
            receipts = [*kept.receipts, *([] if receipt is None else [receipt])][-REMEMBERED_ALLOCATIONS:]
            self._latest[asked.snapshot.key] = Allocated(receipts, made.waits)
        return Made(made, receipt, errors)

    def latest(self, snapshot: Snapshot) -> Allocated:
        """The latest allocations of this process in a study: in none but it, though others may have its name."""
        with self._lock:
            return self._latest.get(snapshot.key, Allocated([], ()))


def _judged(asked: AllocationAsk, panel: Panel) -> tuple[Allocation, Answers, dict[str, str]]:
    """What the allocator says, the answers that it had, and the errors of the forecasters that it asked."""
    answers: Answers = {}
    errors: dict[str, str] = {}
    if asked.queries:
        answers, errors = panel.ask([(asked.snapshot, asked.queries)])[0]
    return allocated(asked, answers), answers, errors


def _anew(asked: AllocationAsk, panel: Panel) -> tuple[AllocationAsk, Allocation, Answers, dict[str, str]] | None:
    """The allocation from the allocator's first state; None where that is no help."""
    with suppress(Exception):
        who, seen = asked.allocator, asked.snapshot
        again = ask_allocator(who, who.init(), seen, asked.abilities, asked.slots, asked.key)
        return again, *_judged(again, panel)
    return None
