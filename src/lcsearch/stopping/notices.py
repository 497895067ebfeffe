"""What a study's finished trials say about how it was set up: each is told once, and by whoever is asked why. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

import numpy as np

from lcsearch.curves import Floats
from lcsearch.goal import Judged
from lcsearch.stopping.axis import ENOUGH, odd_axis
from lcsearch.stopping.gates import barred
from lcsearch.study import Snapshot, Status, Trial, judged_loss, trained_by, uid_sort_key

AXIS = "axis"
"""The key of the notice that steps are no axis."""

_COMPARED = 100  # trials: more of them say nothing else, and cost their square

_LATE = 50
"""Gaps between reports: trials that begin as far along the axis may have trained nothing before."""

FAR = 2.0
"""Times the horizon that was named: from here on trials that pass it go far beyond it."""

FEW = 2
"""COMPLETE trials that may be all that a study ever gets, so what they prove must be told."""


class Notice(NamedTuple):
    """Something a user should set otherwise.

    Attributes:
        key: what it is about; a study is told of each once.
        text: what was seen, what follows, and what to do.
        number: what the text names and later trials may outgrow, by half: then it is told again; NaN for none.
    """

    key: str
    text: str
    number: float = math.nan


def notices(snapshot: Snapshot, axis: str | None = None) -> tuple[Notice, ...]:
    """Everything that finished trials contradict, most important first.

    Args:
        axis: what :func:`~lcsearch.stopping.axis.odd_axis` said of trials that were live then.
    """
    told = (*_barred(snapshot), *_bounds(snapshot), *_bound(snapshot))
    if axis := odd_axis(snapshot) or axis:  # where steps mean nothing, neither do the last one and what stands there
        return (Notice(AXIS, axis), *told)
    return (*_horizon(snapshot), *told, *_returned(snapshot), *_placeholder(snapshot), *_offset(snapshot))


def _horizon(snapshot: Snapshot) -> Iterator[Notice]:
    bank, named = snapshot.bank, snapshot.goal.horizon
    n, beyond = bank.ends.size, bank.end > named
    if not beyond and (n < ENOUGH or bank.reached):
        return
    # one trial beyond it will do, unless steps may turn out to be no axis
    if n < ENOUGH and any(t.curve.first_step >= named for t in bank if t.status is Status.COMPLETE and len(t.curve)):
        return
    first = min(trial.curve.first_step for trial in bank if len(trial.curve))
    length = f"{trained_by(bank.end, first):g}"  # range(50) ends at 49
    if beyond:
        key, ratio = "horizon beyond", bank.end / named
        how = f"far beyond max_steps (max_t), which is {named:g} ({ratio:.3g} times as far)"
        if ratio < FAR:
            how = f"{100 * (ratio - 1):.0f} % beyond max_steps (max_t), which is {named:g}"
        text = f"trials go on to step {bank.end:g}, {how}: they are judged there. "
        text += f"Set it to {length}, unless longer trials are still to come"
    else:
        key, same = "horizon", f" (half of them by step {bank.ends[(n - 1) // 2]:g})"
        if bank.ends[0] == bank.end:
            same = " (all of them)"
        text = f"none of {n} trials that ended by themselves so far reached max_steps (max_t), which is {named:g}: "
        text += f"they ended by step {bank.end:g}{same}. "
        text += f"Looks ask now about {_asked(snapshot)}; steps saved are counted to where they ended. "
        text += "Nothing is to be done where they stop early by themselves, or where longer ones are still to come; "
        text += f"else set it to what the longest needs, {length} so far"
    yield Notice(key, text, bank.end)


def _asked(snapshot: Snapshot) -> str:
    """What is forecast for a trial that has just begun: :meth:`lcsearch.study.Snapshot.horizons`, in words."""
    ends = [f"{end:g}" for end in sorted({*snapshot.horizons(-math.inf)})]
    further = "further than they came, for another may go on"
    further = f" ({further})" if float(ends[-1]) > snapshot.bank.end else ""
    if len(ends) == 1:
        value = "best value by" if snapshot.goal.judged == "best" else "final value at"
        return f"the {value} step {ends[-1]}{further}"
    return f"the final value where a trial may end: at step {', '.join(ends[:-1])} or {ends[-1]}{further}"


def _barred(snapshot: Snapshot) -> Iterator[Notice]:
    """That nothing is stopped because no trial that ended may be the incumbent."""
    n, why = snapshot.bank.n_complete, barred(snapshot.bank)
    if n >= ENOUGH and why:
        text = f"none of {n} trials that ran to their end {why}, so there is nothing to beat and nothing is stopped"
        wrong = "constraints, of which a value above 0 breaks one" if why == "is feasible" else "returned values"
        yield Notice("barred", f"{text}. If one should count, look at their {wrong}")


def _bounds(snapshot: Snapshot) -> Iterator[Notice]:
    """Bounds that reports of finished trials pass."""
    goal = snapshot.goal
    for trial in snapshot.bank if goal.bounds is not None else ():
        values = trial.curve.values
        broken = goal.broken(float(values.min()), float(values.max())) if values.size else None
        if broken is not None:
            name, bound, value = broken
            text = f"trial {trial.uid} reported {value:.6g}, beyond the {name} one of bounds, which is {bound:g}: that "
            yield Notice("bounds", f"{text}bound is ignored. Set bounds to what the metric can be, or leave it out")
            return


def _bound(snapshot: Snapshot) -> Iterator[Notice]:
    incumbent, n = snapshot.incumbent, snapshot.bank.at_bound
    if incumbent is not None and n:
        given = snapshot.bank.least > -math.inf
        known = "bounds says" if given else f"{n} reports of finished trials are exactly that"
        text = (
            f"the incumbent, {incumbent.value:g} of trial {incumbent.uid}, is at the metric's bound, as "
            f"{known}: no trial can beat it. Looks and the risk ask whether a trial ties it; "
        )
        yield Notice("bound", f"{text}end the study, or choose a metric that still tells good trials apart")


def _placeholder(snapshot: Snapshot) -> Iterator[Notice]:
    """One value that fills at least half of most trials, with others in between, some of them better."""
    ended, sign = [*islice(snapshot.bank, _COMPARED)], snapshot.goal.sign
    found = [value for trial in ended if (value := _filler(sign * trial.curve.values)) is not None]
    value, n = Counter(found).most_common(1)[0] if found else (math.nan, 0)
    if n >= ENOUGH and 2 * n > len(ended):
        text = f"at least half of the reports of {n} trials are {sign * value:.6g}, with other values between them: if "
        yield Notice("placeholder", f"{text}that stands for 'not measured', report NaN there, or nothing")


def _filler(losses: Floats) -> float | None:
    """The loss of at least half of the reports, no best one, that comes back three times or more after others; None:
    there is none.
    """
    if not losses.size:
        return None
    known, counts = np.unique(losses, return_counts=True)
    often = int(counts.argmax())
    same = losses == known[often]
    back = np.count_nonzero(same[1:] & ~same[:-1])
    return float(known[often]) if often and 2 * counts[often] >= losses.size and back >= 3 else None


def _offset(snapshot: Snapshot) -> Iterator[Notice]:
    """Trials that all begin far along the axis, as fine-tuning does that goes on with the steps of another training."""
    curves = [trial.curve for trial in islice(snapshot.bank, _COMPARED) if trial.curve.n_reports > 1]
    if len(curves) < ENOUGH:
        return
    first = float(np.median([curve.first_step for curve in curves]))
    gap = float(np.median([(curve.last_step - curve.first_step) / (curve.n_reports - 1) for curve in curves]))
    if first > _LATE * gap:
        text = f"trials begin at step {first:g} and report every {gap:.3g} or so from there: what lies before counts "
        text += "as trained in what is spent. If it was not, count steps from each trial's own start"
        yield Notice("offset", text)


def _opposite(pairs: Sequence[tuple[float, float]]) -> str:
    """What follows where trials that return more mostly reported less (a loss reported, an accuracy returned).

    Args:
        pairs: of what each trial returned, and its judged value.
    """
    found = np.asarray(pairs[:_COMPARED])
    above = found[:, None] > found[None]
    order = (above.astype(int) - above.swapaxes(0, 1)).prod(axis=2).sum() if len(found) >= ENOUGH else 0
    return ", and mostly in the opposite order, so that the best ones are stopped first" if order < 0 else ""


def _returned(snapshot: Snapshot) -> Iterator[Notice]:
    """Where the framework's best is not what trials must beat: what is returned is not what is judged."""
    goal, incumbent = snapshot.goal, snapshot.incumbent
    known = [t for t in snapshot.bank if t.feasible and t.returned is not None and math.isfinite(t.returned)]
    ended = [t for t in known if t.status is Status.COMPLETE and len(t.curve)]
    if incumbent is None or len(ended) < FEW:
        return
    returned = {t.uid: t.returned or 0.0 for t in known}
    best = min(known, key=lambda t: (goal.sign * returned[t.uid], uid_sort_key(t.uid)))

    def same(trial: Trial, value: float) -> bool:
        return math.isclose(returned[trial.uid], value, rel_tol=1e-5)

    other: Judged = "best" if goal.judged == "final" else "final"
    n = len(ended)
    judged = sum(same(t, goal.sign * judged_loss(t.curve, goal)[0]) for t in ended)
    otherwise = sum(same(t, goal.sign * judged_loss(t.curve, replace(goal, judged=other))[0]) for t in ended)
    swapped = judged < n - n // 10 <= otherwise and (n >= ENOUGH or n - judged > 1)
    if not swapped:
        # that both have one best trial says nothing against that: who would make a difference may have been stopped
        few = n < ENOUGH and any(t.curve.n_reports < 2 or _reported(t) for t in ended)
        if few or returned[best.uid] == returned.get(incumbent.uid):
            return
    text = f"the study's best is {returned[best.uid]:.6g} of trial {best.uid}"
    text += ", which was stopped" if best.status is Status.STOPPED else ""
    text += f", and trials must beat {incumbent.value:.6g} of trial {incumbent.uid}"
    if best.status is Status.STOPPED:
        text += ". A stopped trial returned a value all the same: end it as pruned"
    elif swapped:
        text += (
            f": {goal.judged} values are judged, and {other} ones are returned. Return the former, or judge the latter"
        )
    else:
        text += f": {n - judged} of {n} trials returned what their curves do not say"
        text += _opposite([(returned[t.uid], judged_loss(t.curve, goal)[0] * goal.sign) for t in ended])
        text += ". Report what is returned"
    yield Notice("returned", text)


def _reported(trial: Trial) -> bool:
    """Whether a trial returned a value that it had reported, be it neither its best nor its last."""
    return trial.returned is not None and bool(np.isclose(trial.curve.values, trial.returned, rtol=1e-5, atol=0).any())
