"""Steps that are no axis: what they were taken for, and what to report instead. Pure."""

from __future__ import annotations

import numpy as np

from lcsearch.curves import Curve
from lcsearch.study import Snapshot, Status

ENOUGH = 5
"""Trials that have ended by themselves before they prove anything."""
_CLOCKS = ((1e9, 3e9), (1e12, 3e12), (1e15, 3e15), (1e18, 3e18))  # seconds to nanoseconds since 1970, from 2001 to 2065
_APART = 3.0

_WHAT = "Report a step that every trial counts from its own start: epochs, or seconds since it began"


def odd_axis(snapshot: Snapshot) -> str | None:
    """Why the steps of a study cannot be compared from trial to trial, in one line; None where they can, or who knows.

    Seen are the COMPLETE trials: that each reported at one step only, a time of day, steps that go on from trial to
    trial (their first ones spread over three lengths of a trial), or, beside live and stopped ones that have only the
    last steps of these, a count down.
    """
    ended = [trial for trial in snapshot.bank if trial.status is Status.COMPLETE and trial.curve.n_reports]
    if len(ended) < ENOUGH:
        return None
    first = np.array([trial.curve.first_step for trial in ended])
    last = np.array([trial.curve.last_step for trial in ended])
    n, start, length = len(ended), float(np.median(first)), float(np.median(last - first))
    if (last == first).all():
        at = f"at step {first[0]:g} only" if (first == first[0]).all() else "at one step only"
        return f"each of {n} trials reported {at}, so there is no curve to look at. {_WHAT}"
    apart = length > 0 or np.unique(first).size > 1  # all that begin at one step count samples, or tokens
    if apart and any(low <= start < high for low, high in _CLOCKS) and start > 100.0 * length:
        return (
            f"steps are the time of day (trial {ended[0].uid} began at {first[0]:.0f}): no two trials share a step, "
            f"and next to nothing can be stopped. {_WHAT}"
        )
    if length > 0 and np.ptp(first) >= _APART * length and np.unique(first).size == n:
        one, other = (f"trial {trial.uid} reported {_span(trial.curve)}" for trial in ended[:2])
        return (
            f"steps go on from trial to trial ({one}, {other}): no two trials share a step, and next to nothing can be "
            f"stopped. {_WHAT}"
        )
    others = (*snapshot.live, *(trial for trial in snapshot.bank if trial.status is Status.STOPPED))
    whole = first[0], last[0]
    spans = {trial.uid: (trial.curve.first_step, trial.curve.last_step) for trial in others if trial.curve.n_reports}
    parts = [trial for trial in others if spans.get(trial.uid, whole) != whole]
    same = (first == first[0]).all() and (last == last[0]).all()
    if parts and same and all(spans[t.uid][1] == last[0] and spans[t.uid][0] > first[0] for t in parts):
        return (
            f"steps count down (trial {parts[0].uid} began with {_span(parts[0].curve)}, finished ones have reported "
            f"{_span(ended[0].curve)}): a trial's first report seems to be its last. {_WHAT}"
        )
    return None


def no_order(uid: str, low: float, high: float) -> str:
    """What to say of a trial that has reported steps `low` to `high`, and went back between them."""
    return (
        f"steps come in no order (trial {uid} has reported steps {low:.12g} to {high:.12g} and went back between): "
        "a trial counts as trained to its largest step, so it is looked at for what it is not. Report steps that rise "
        "while a trial trains"
    )


def _span(curve: Curve) -> str:
    first, last = curve.first_step, curve.last_step
    return f"step {last:.12g}" if first == last else f"steps {first:.12g} to {last:.12g}"
