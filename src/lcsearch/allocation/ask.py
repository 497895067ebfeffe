"""ask: what must be forecast before free slots are given away. Pure; the twin of a look's gates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lcsearch.allocation.contract import Abilities, Allocator, Key, Slots
from lcsearch.allocation.in_reach import in_reach
from lcsearch.errors import InvalidValue, is_finite_number
from lcsearch.forecast.contract import Query
from lcsearch.study import Snapshot


@dataclass(frozen=True)
class AllocationAsk:
    """What must be forecast for one allocation, and all that it is made from.

    Attributes:
        allocator: who gives the slots away.
        state: the allocator's.
        snapshot: the study.
        abilities: what the framework can do with a trial.
        slots: what is free.
        key: the allocation's seed.
        queries: worked out once; none where nobody need be asked.
    """

    allocator: Allocator
    state: Any
    snapshot: Snapshot
    abilities: Abilities
    slots: Slots
    key: Key
    queries: tuple[Query, ...]


def ask(
    allocator: Allocator, state: Any, snapshot: Snapshot, abilities: Abilities, slots: Slots, key: Key
) -> AllocationAsk:
    """The questions of an allocation.

    Raises:
        InvalidValue: slots that cannot be.
    """
    if slots.free < 1 or slots.n_new_allowed < 0:
        got = slots[:2]
        raise InvalidValue("at least 1 free slot and no negative number of configurations", got, "ask(slots=)")
    total, *others, time = slots.account
    if time is not None and not (time.left >= 0 and all(x > 0 for x in (time.usual, *time.paces.values()))):
        raise InvalidValue("seconds >= 0 that are left, and paces > 0", time, "ask(slots.account.time)")
    if not all(is_finite_number(x) and x >= 0 for x in others) or not (total is None or is_finite_number(total)):
        raise InvalidValue("numbers >= 0, and a total or None", slots.account, "ask(slots.account)")
    queries = allocator.questions(state, *in_reach(snapshot, slots)[:2])
    return AllocationAsk(allocator, state, snapshot, abilities, slots, key, queries)
