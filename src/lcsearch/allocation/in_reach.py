"""Whose way to the horizon a limit in time or money still pays for: no slot goes to anybody else. Pure."""

from __future__ import annotations

from dataclasses import replace

from lcsearch.allocation.arms import Price, paused_trials
from lcsearch.allocation.contract import Move, Slots, Wait
from lcsearch.study import Snapshot, Status, uid_sort_key

BY = "seconds to step"
"""What late trials are ranked by, before the horizon."""


def in_reach(snapshot: Snapshot, slots: Slots) -> tuple[Snapshot, Slots, tuple[Wait, ...]]:
    """The study and its slots as an allocator is to see them, and the trials that are late.

    Only a COMPLETE trial is a study's result. So a PAUSED one that cannot get to the goal's horizon while there is time
    or money cannot beat the incumbent any more: it is late. It waits, and is not cut, for a pace is measured and may be
    found to be another one; the allocator sees it as it sees one that was stopped, which stays in the ranks. Where a
    new configuration would be late, at the pace of the trial in the middle, none may be begun, and slots are `closing`.

    Args:
        snapshot: the study.
        slots: what is free; without `account.time` nobody is late.

    Returns:
        Both as they are where nobody is late; and what each late trial waits for, the nearest to the horizon first.
    """
    time, horizon = slots.account.time, snapshot.goal.horizon
    if time is None:
        return snapshot, slots, ()
    price = Price(snapshot, slots)

    def way(uid: str | None) -> float:
        steps = price.of(Move(uid, horizon))
        if uid is not None and uid == slots.here:
            steps += slots.account.checkpoint  # its price leaves out the one that it does not leave with
        return steps * time.usual

    ways = sorted((way(trial.uid), uid_sort_key(trial.uid), trial.uid) for trial in paused_trials(snapshot))
    late = {uid: seconds for seconds, _, uid in ways if seconds > time.left}
    if late:
        live = (replace(t, status=Status.STOPPED) if t.uid in late else t for t in snapshot.live)
        snapshot = replace(snapshot, live=tuple(live))
    if slots.n_new_allowed and way(None) > time.left:
        slots = slots._replace(n_new_allowed=0, closing=True)
    by = f"{BY} {horizon:g}"
    waits = (
        Wait(uid, i, len(late), by, f"about {seconds:.3g} s, and {time.left:.3g} s are left")
        for i, (uid, seconds) in enumerate(late.items(), start=1)
    )
    return snapshot, slots, tuple(waits)
