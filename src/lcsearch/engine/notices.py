"""What a study's finished trials say about how it was set up: each is told once, and by whoever is asked why. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from lcsearch.engine.axis import ENOUGH, odd_axis
from lcsearch.study import Snapshot


class Notice(NamedTuple):
    """Something a user should set otherwise.

    Attributes:
        key: what it is about; a study is told of each once.
        text: what was seen, what follows, and what to do.
    """

    key: str
    text: str


def notices(snapshot: Snapshot) -> tuple[Notice, ...]:
    """Everything that finished trials contradict, most important first."""
    if axis := odd_axis(snapshot):  # where steps mean nothing, neither does the last one
        return (Notice("axis", axis), *_bound(snapshot))
    return (*_horizon(snapshot), *_bound(snapshot))


def _horizon(snapshot: Snapshot) -> Iterator[Notice]:
    bank, named = snapshot.bank, snapshot.goal.horizon
    n = bank.ends.size
    if n < ENOUGH or (bank.reached and bank.end <= named):
        return
    first = min(trial.curve.first_step for trial in bank if len(trial.curve))
    length = f"{bank.end + (first == 0):g}"  # range(50) ends at 49
    if bank.end > named:
        text = f"trials go on to step {bank.end:g}, far beyond max_steps (max_t), which is {named:g}: they are judged "
        text += "there"
    else:
        same = " (all of them)" if bank.ends[0] == bank.end else f" (half of them by step {bank.ends[(n - 1) // 2]:g})"
        text = (
            f"none of {n} trials that ended by themselves reached max_steps (max_t), which is {named:g}: they ended by "
        )
        text += f"step {bank.end:g}{same}. Looks ask about where trials end, and steps saved are counted to there"
    yield Notice("horizon", f"{text}. Set it to {length}, unless longer trials are still to come")


def _bound(snapshot: Snapshot) -> Iterator[Notice]:
    incumbent, n = snapshot.incumbent, snapshot.bank.at_bound
    if incumbent is not None and n:
        text = (
            f"the incumbent, {incumbent.value:g} of trial {incumbent.uid}, is at the metric's bound, as {n} reports of "
        )
        text += (
            "finished trials are exactly that: no trial can beat it. Looks and the risk ask whether a trial ties it; "
        )
        yield Notice("bound", f"{text}end the study, or choose a metric that still tells good trials apart")
