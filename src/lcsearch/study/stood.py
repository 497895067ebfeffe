"""How far a trial had come at some moment, in a few letters, and how to have it back from what it reported since."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from lcsearch.curves import Curve
from lcsearch.errors import InvalidValue
from lcsearch.study.trial import Status, Trial

_MOST = 10**7  # trials of one range: a damaged record must not fill the memory
_LETTERS = {Status.RUNNING: "R", Status.PAUSED: "P"}
_STATUSES = {letter: status for status, letter in _LETTERS.items()}


class Stood(NamedTuple):
    """How far a trial had come that had not ended.

    Attributes:
        status: RUNNING or PAUSED.
        n: its reports.
        last: the largest step of them; None without one, and in receipts of earlier versions.
        first: the smallest, where all of them are evenly spaced, so that the three tell every step; else None.
        digest: of its curve; "" without a report, and in receipts of earlier versions.
    """

    status: Status
    n: int
    last: float | None = None
    first: float | None = None
    digest: str = ""

    @classmethod
    def of(cls, trial: Trial) -> Stood:
        """The trial as it stands."""
        steps = trial.curve.reports()[0]
        if not steps.size:
            return cls(trial.status, 0)
        first, last = float(steps[0]), float(steps[-1])
        even = np.array_equal(steps, np.linspace(first, last, steps.size))
        return cls(trial.status, steps.size, last, first if even else None, trial.curve.digest)

    def again(self, trial: Trial) -> Trial:
        """The trial as it stood, from what it has reported by now.

        Raises:
            InvalidValue: that does not tell: reports of earlier steps came later, or some are gone.
        """
        steps, values = trial.curve.reports()
        if not self.n or (self.last is None and self.n <= steps.size):
            curve = trial.curve.cut(float(steps[self.n - 1]) if self.n else -math.inf)
        else:
            curve = trial.curve.cut(math.inf if self.last is None else self.last)
        if curve.n_reports != self.n and self.first is not None and self.last is not None:
            then = np.isin(steps, np.linspace(self.first, self.last, self.n))
            curve = Curve.of(steps[then], values[then])
        if curve.n_reports != self.n:
            to = "" if self.last is None else f" up to step {self.last:g}"
            expected = f"the {self.n} report{'s' * (self.n != 1)}{to} that trial {trial.uid} had then"
            what = "Reports of earlier steps came later, or some are gone: this decision cannot be made again"
            raise InvalidValue(expected, curve.n_reports, "again(trials=)", what)
        return replace(trial, curve=curve, status=self.status)

    def to_text(self) -> str:
        """In a few letters: "P9@1:9", or "P9@9" where steps are not evenly spaced; after "~" the digest."""
        text = f"{_LETTERS[self.status]}{self.n}"
        if self.last is not None:
            text += f"@{_short(self.last)}" if self.first is None else f"@{_short(self.first)}:{_short(self.last)}"
        return f"{text}~{self.digest}" if self.digest else text

    @classmethod
    def from_text(cls, text: str) -> Stood:
        """Read :meth:`to_text` back.

        Raises:
            KeyError, IndexError, ValueError: it is none.
        """
        text, _, digest = text.partition("~")
        n, _, steps = text[1:].partition("@")
        first, _, last = steps.rpartition(":")
        return cls(_STATUSES[text[0]], int(n), float(last) if last else None, float(first) if first else None, digest)


def _short(step: float) -> str:
    """A step with all its digits."""
    return str(int(step)) if step.is_integer() else repr(step)


def packed(uids: Sequence[str]) -> list[str]:
    """Uids in their order; numbers that follow each other as one range, "3-17", for a study may have thousands."""
    found: list[list[str]] = []
    for uid in uids:
        last = found[-1][-1] if found else ""
        if last.isdecimal() and str(int(last)) == last and str(int(last) + 1) == uid:
            found[-1][1:] = [uid]
        else:
            found.append([uid])
    return ["-".join(part) if len(part) > 1 else _alone(part[0]) for part in found]


def _alone(uid: str) -> str:
    """A uid that no range is taken for."""
    return f"{uid}-" if "-" in uid else uid


def unpacked(part: str) -> Iterator[str]:
    """The uids of one entry of :func:`packed`."""
    first, dash, last = part.partition("-")
    if dash and first.isdecimal() and last.isdecimal():
        if int(last) - int(first) > _MOST:
            raise ValueError(part)
        yield from map(str, range(int(first), int(last) + 1))
    else:
        yield part.removesuffix("-") if dash else part
