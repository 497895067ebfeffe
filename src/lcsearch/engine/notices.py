"""What a study's finished trials say about how it was set up: each is told once, and by whoever is asked why. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from lcsearch.study import Snapshot

ENOUGH = 5
"""Trials that have ended by themselves before they prove anything."""


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
    return tuple(_horizon(snapshot))


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
