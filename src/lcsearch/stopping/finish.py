"""A risk-limiting finish: which stopped trials to thaw so that the rest have lost the winner with at most a given risk.

As an audit of an election counts ballots by hand until what is left cannot turn the result but with a given risk (Stark
2008), stopped trials are trained on, the likeliest to have won first, until the P(beat) of the others sum to the limit
or less; at worst all of them are. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from lcsearch.errors import InvalidValue, is_finite_number
from lcsearch.stopping.gates import target_of
from lcsearch.stopping.policy import Policy
from lcsearch.stopping.risk import StopRecord
from lcsearch.study import Snapshot, Status, uid_sort_key


class Frozen(NamedTuple):
    """A trial that lcsearch stopped.

    Attributes:
        uid: which.
        step: where it was stopped.
        p: P(it would have beaten the present incumbent), by its stored forecast; `was` without an incumbent.
        was: P(beat) when it was stopped.
    """

    uid: str
    step: float
    p: float
    was: float


@dataclass(frozen=True)
class FinishPlan:
    """What a finish comes to on a study as it stands.

    Attributes:
        limit: what the rest may sum to.
        risk: what all of them sum to now; it may exceed 1.
        thaw: those to be trained on, the likeliest to have won first.
        rest: what the others sum to, those that cannot be thawed among them.
        apart: uids of stopped trials that no look of lcsearch stopped (another pruner, the objective, an allocator that
            cut them): no risk is known for them, and they are left alone.
        diverged: uids of those stopped as diverged, likewise.
        named: whether those to be trained on were named, whatever the rest sum to.
    """

    limit: float
    risk: float
    thaw: tuple[Frozen, ...]
    rest: float
    apart: tuple[str, ...] = ()
    diverged: tuple[str, ...] = ()
    named: bool = False


def stopped_of(policy: Policy, snapshot: Snapshot) -> list[Frozen]:
    """The trials that lcsearch stopped by P(beat), the likeliest to have won first.

    Args:
        policy: whose epsilon says what it is to beat the incumbent.
        snapshot: the study as it stands; of a trial that is thawed it has the one that goes on in its place.
    """
    target, found = target_of(policy, snapshot), []
    for trial in snapshot.bank:
        record = trial.stop_records.get("stop")
        if trial.status is Status.STOPPED and isinstance(record, StopRecord) and record.p is not None:
            p = record.p if math.isnan(target) else record.p_lost(target)
            found.append(Frozen(trial.uid, record.step, p, record.p))
    return sorted(found, key=lambda one: (-one.p, uid_sort_key(one.uid)))


def plan_finish(
    policy: Policy, snapshot: Snapshot, limit: float, *, but: Collection[str] = (), only: Collection[str] = ()
) -> FinishPlan:
    """Which stopped trials to thaw.

    Args:
        policy: see :func:`stopped_of`.
        snapshot: likewise.
        limit: what the P(beat) of all that stay stopped may sum to, in [0, 1]; 0 thaws all that have any.
        but: uids of trials that cannot be thawed (again): what they are at risk stays, and no other is thawed for it.
        only: uids of trials to thaw instead, whatever they sum to.

    Raises:
        InvalidValue: the limit is no number in [0, 1].
    """
    if not (is_finite_number(limit) and 0.0 <= limit <= 1.0):
        raise InvalidValue("a number in [0, 1]", limit, "finish(risk=)")
    found = stopped_of(policy, snapshot)
    able = [one for one in found if one.uid not in but]
    thaw = [one for one in able if one.uid in only]
    if not only:
        while able[len(thaw) :] and math.fsum(one.p for one in able[len(thaw) :]) > limit:
            thaw.append(able[len(thaw)])
    gone = {one.uid for one in thaw}
    apart: list[str] = []
    diverged: list[str] = []
    for trial in snapshot.bank:
        if trial.status is Status.STOPPED:
            record = trial.stop_records.get("stop")
            if not isinstance(record, StopRecord):
                apart.append(trial.uid)
            elif record.p is None:
                diverged.append(trial.uid)
    return FinishPlan(
        limit,
        math.fsum(one.p for one in found),
        tuple(thaw),
        math.fsum(one.p for one in found if one.uid not in gone),
        tuple(sorted(apart, key=uid_sort_key)),
        tuple(sorted(diverged, key=uid_sort_key)),
        named=bool(only),
    )
