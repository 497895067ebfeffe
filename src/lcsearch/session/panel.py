"""Who is asked: the forecasters of a session, how long an answer is waited for, and who takes the place of a model that
cannot be loaded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from math import isfinite
from typing import Any, NamedTuple, TypeVar

import numpy as np

from lcsearch.errors import InvalidValue, in_words
from lcsearch.forecast.contract import Absent, Answer, Batching, Forecaster, Forecasts, Loading, Query
from lcsearch.in_time import NotInTime, in_time
from lcsearch.study import Snapshot

DEADLINE_S = 30.0
"""A forecast takes milliseconds; what takes so long on the busiest machine is stuck."""
LOADING_S = 90.0
"""Importing torch and reading weights takes a second or two, on a busy machine many."""

SLOW_S = 5.0
"""From here on it is said that a trial waits for that."""

Question = tuple[Snapshot, Sequence[Query]]
T = TypeVar("T")


class Heard(NamedTuple):
    """What a panel said to one question.

    Attributes:
        answers: forecaster name -> one answer a query.
        errors: forecaster name -> why it gave none.
    """

    answers: dict[str, list[Answer]]
    errors: dict[str, str]


class _Answer(NamedTuple):
    """One forecaster's to one question: an answer a query, and why there is none."""

    answers: list[Answer]
    error: str = ""


class _Late(Exception):
    """No answer within the deadline, as its text says; whoever was asked works on, and is not asked again before it has
    come back.
    """


class Panel:
    """Forecasters, each asked within a deadline: one that raises, answers nonsense or is late has no answer.

    A call is made on a thread of its own, which ends with it, so that the wait ends at the deadline whatever the
    forecaster does. Thread-safe.

    Args:
        forecasters: who is asked.
        deadline: seconds after which an answer counts as late; math.inf calls at once and waits for ever.
        warn: takes a key and a message, to be shown once a key.

    Raises:
        InvalidValue: no forecaster, two of one name, or a deadline that is no number above 0.
    """

    def __init__(
        self,
        forecasters: Sequence[Forecaster],
        deadline: float,
        warn: Callable[[str, str], None],
    ) -> None:
        names = [forecaster.name for forecaster in forecasters]
        if not names or len(set(names)) != len(names):
            raise InvalidValue("at least one forecaster, no name twice", names, "forecasters")
        if not deadline > 0:
            raise InvalidValue("a number of seconds > 0", deadline, "deadline")
        self.forecasters = tuple(forecasters)
        self.deadline, self._warn = deadline, warn
        self._hung: dict[str, tuple[threading.Thread, str]] = {}  # and what was waited for, and how long
        self._ready: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_hung": {}, "_ready": set()}  # a copy loads what it needs where it is used

    def ask(self, questions: Sequence[Question]) -> list[Heard]:
        """Every forecaster's answers to every question; of one that answers several in one pass, in one call."""
        heard = [Heard({}, {}) for _ in questions]
        for forecaster in self.load():
            name, said = forecaster.name, self._answers(forecaster, questions)
            for one, (answers, errors), (answer, error) in zip(questions, heard, said, strict=True):
                answers[name] = answer
                if error:
                    errors[name] = error
                    self._warn(name, f"forecaster {name!r} gave no forecast, trials go on: {error}")
                elif _not_finite(one, answer):
                    text = "of a curve that has finite values it made numbers that are not finite"
                    self._warn(f"{name} is not finite", f"forecaster {name!r} gave no forecast, trials go on: {text}")
        return heard

    @property
    def longest(self) -> float:
        """Seconds after which every forecaster has answered or is late, loading included."""
        return LOADING_S + self.deadline * (1 + len(self.forecasters))

    def versions(self) -> dict[str, str]:
        """Forecaster name -> version."""
        return {forecaster.name: forecaster.version for forecaster in self.forecasters}

    def _answers(self, forecaster: Forecaster, questions: Sequence[Question]) -> list[_Answer]:
        if len(questions) > 1 and isinstance(forecaster, Batching):
            found = self._attempt(forecaster.name, questions, partial(forecaster.forecast_each, questions))
            if not found[0].error or found[0].answers[0] is Absent.LATE:
                return found
        return [
            answer
            for one in questions
            for answer in self._attempt(forecaster.name, [one], partial(_alone, forecaster, one))
        ]

    def _attempt(
        self, name: str, questions: Sequence[Question], call: Callable[[], Sequence[Forecasts]]
    ) -> list[_Answer]:
        """One call's answers; where it fails every question's are FAILED, or LATE."""
        try:
            found = self._within(self.deadline, name, call)
            return [_Answer(_answers_of(name, said, one)) for said, one in zip(found, questions, strict=True)]
        except _Late as late:
            why, error = Absent.LATE, str(late)
        except Exception as failure:  # whatever a model does, the study goes on
            why, error = Absent.FAILED, in_words(failure)
        return [_Answer([why] * len(queries), error) for _, queries in questions]

    def _within(self, seconds: float, name: str, call: Callable[[], T], what: str = "", slow: str = "") -> T:
        """What the call returns or raises.

        Args:
            seconds: how long it is waited for.
            name: the forecaster's.
            call: what is waited for.
            what: what has not come in time; "": no answer.
            slow: what is said once after SLOW_S; "": nothing.

        Raises:
            _Late: it does not return in time, or an earlier one to the same forecaster has not returned yet.
        """
        if not isfinite(seconds):
            return call()
        if name in self._hung and self._hung[name][0].is_alive():
            raise _Late(self._hung[name][1])

        def quietly() -> T:
            with np.errstate(all="ignore"):
                return call()

        try:
            told = (SLOW_S, partial(self._warn, f"{name} is slow", slow)) if slow else None
            return in_time(seconds, f"lcsearch forecast by {name}", quietly, told)
        except NotInTime as late:
            text = f"{what or 'no answer'} within {seconds:g} s"
            self._hung[name] = late.thread, text
            raise _Late(text) from None

    def load(self) -> tuple[Forecaster, ...]:
        """Who is asked. One that must load a model does so first: that is no forecast, and waited for longer.

        Where it cannot be loaded and has stand-ins, they take its place for good. Without any it is asked all the same,
        and raises.
        """
        for forecaster in self.forecasters:
            if forecaster.name in self._ready:
                continue
            if not isinstance(forecaster, Loading):  # said once: asking a protocol takes longer than a memo's answer
                self._ready.add(forecaster.name)
                continue
            try:
                seconds, name = max(LOADING_S, self.deadline), forecaster.name
                slow = f"forecaster {name!r} is still being loaded (import torch, weights): the first look waits for it"
                slow += f" as long as it goes on, {seconds:g} s at most, and then goes on without it"
                self._within(seconds, name, forecaster.prepare, "not loaded", slow)
                self._ready.add(name)
                if self._hung.pop(name, None) is not None:
                    self._warn(
                        f"{name} is loaded", f"forecaster {name!r} is loaded after all: from here on it is asked"
                    )
            except _Late:
                continue
            except Exception as error:  # whatever a model does, the study goes on
                others = [f for f in self.forecasters if f is not forecaster]
                known = {f.name for f in others}
                new = [f for f in forecaster.stand_ins if f.name not in known]
                if new:
                    self.forecasters = (*others, *new)
                    who = " and ".join(f.name for f in self.forecasters)
                    text = f"forecasts are made by {who}, without {forecaster.name!r}: {in_words(error)}"
                    self._warn(forecaster.name, text)
        return self.forecasters


def _not_finite(question: Question, answers: Sequence[Answer]) -> bool:
    """Did it fail where there was something to forecast from? Damaged weights do, at every curve."""
    asked = zip(question[1], answers, strict=True)
    return any(said is Absent.NONFINITE and any(query.trial.curve.steps <= query.step) for query, said in asked)


def _alone(forecaster: Forecaster, question: Question) -> list[Forecasts]:
    return [forecaster.forecast(*question)]


def _answers_of(name: str, forecasts: object, question: Question) -> list[Answer]:
    n = len(question[1])
    if not isinstance(forecasts, Forecasts):
        raise InvalidValue("Forecasts", type(forecasts).__name__, f"{name}.forecast")
    if len(forecasts) != n:
        raise InvalidValue(f"{n} forecasts", len(forecasts), f"{name}.forecast")
    return [forecasts.row(i) for i in range(n)]
