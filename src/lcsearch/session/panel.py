"""Who is asked: the forecasters of a session, how long an answer is waited for, and who takes the place of a model that
cannot be loaded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any, NamedTuple, TypeVar

import numpy as np

from lcsearch.errors import InvalidValue, in_words
from lcsearch.forecast.contract import Absent, Batching, Forecaster, Forecasts, Loading, Opinion, Query
from lcsearch.study import Snapshot

DEADLINE_S = 30.0
"""A forecast takes milliseconds; what takes so long on the busiest machine is stuck."""
LOADING_S = 120.0
"""Importing torch and reading weights takes a second or two, on a busy machine many."""

Question = tuple[Snapshot, Sequence[Query]]
T = TypeVar("T")


class Heard(NamedTuple):
    """What a panel said to some questions.

    Attributes:
        opinions: one mapping a question: forecaster name -> one opinion a query.
        errors: forecaster name -> why it gave none.
    """

    opinions: list[dict[str, list[Opinion]]]
    errors: dict[str, str]


class _Late(Exception):
    """No answer within the deadline; whoever was asked works on, and is not asked again before it has come back."""


class Panel:
    """Forecasters, each asked within a deadline: one that raises, answers nonsense or is late has no opinion.

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
        self._hung: dict[str, threading.Thread] = {}
        self._ready: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_hung": {}, "_ready": set()}  # a copy loads what it needs where it is used

    def ask(self, questions: Sequence[Question]) -> Heard:
        """Every forecaster's answers to every question; of one that answers several in one pass, in one call."""
        heard = Heard([{} for _ in questions], {})
        for forecaster in self._loaded():
            for opinions, answer in zip(
                heard.opinions, self._answers(forecaster, questions, heard.errors), strict=True
            ):
                opinions[forecaster.name] = answer
        for name, error in heard.errors.items():
            self._warn(name, f"forecaster {name!r} gave no opinion, trials go on: {error}")
        return heard

    def load(self) -> None:
        """Load what must be loaded, now and not at the first question: importing torch takes seconds."""
        self._loaded()

    def versions(self) -> dict[str, str]:
        """Forecaster name -> version."""
        return {forecaster.name: forecaster.version for forecaster in self.forecasters}

    def _answers(
        self, forecaster: Forecaster, questions: Sequence[Question], errors: dict[str, str]
    ) -> list[list[Opinion]]:
        if len(questions) > 1 and isinstance(forecaster, Batching):
            whole: dict[str, str] = {}
            found = self._attempt(forecaster, questions, whole, lambda: forecaster.forecast_each(questions))
            if not whole or forecaster.name in self._hung:
                errors.update(whole)
                return found
        return [
            self._attempt(forecaster, [one], errors, lambda one=one: [forecaster.forecast(*one)])[0]  # type: ignore[misc]
            for one in questions
        ]

    def _attempt(
        self,
        forecaster: Forecaster,
        questions: Sequence[Question],
        errors: dict[str, str],
        call: Callable[[], Sequence[Forecasts]],
    ) -> list[list[Opinion]]:
        """One call's answers; where it fails every question's are DEAD, or LATE."""
        name = forecaster.name
        try:
            found = self._within(self.deadline, name, call)
            return [_opinions(name, forecasts, one) for forecasts, one in zip(found, questions, strict=True)]
        except _Late:
            errors[name] = f"no answer within {self.deadline:g} s"
            return _absent(questions, Absent.LATE)
        except Exception as error:  # whatever a model does, the study goes on
            errors[name] = in_words(error)
            return _absent(questions, Absent.DEAD)

    def _within(self, seconds: float, name: str, call: Callable[[], T]) -> T:
        """What the call returns or raises.

        Raises:
            _Late: it does not return in time, or an earlier one to the same forecaster has not returned yet.
        """
        if not isfinite(seconds):
            return call()
        if name in self._hung:
            if self._hung[name].is_alive():
                raise _Late
            self._hung.pop(name, None)
        answers: list[T] = []
        errors: list[BaseException] = []

        def run() -> None:
            try:
                with np.errstate(all="ignore"):
                    answers.append(call())
            except BaseException as error:  # raised anew where it was called
                errors.append(error)

        thread = threading.Thread(target=run, name=f"lcsearch forecast by {name}", daemon=True)
        thread.start()
        thread.join(seconds)
        for error in errors:
            raise error
        for answer in answers:
            return answer
        self._hung[name] = thread
        raise _Late

    def _loaded(self) -> tuple[Forecaster, ...]:
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
                self._within(max(LOADING_S, self.deadline), forecaster.name, forecaster.prepare)
                self._ready.add(forecaster.name)
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


def _absent(questions: Sequence[Question], why: Absent) -> list[list[Opinion]]:
    return [[why] * len(queries) for _, queries in questions]


def _opinions(name: str, forecasts: object, question: Question) -> list[Opinion]:
    n = len(question[1])
    if not isinstance(forecasts, Forecasts):
        raise InvalidValue("Forecasts", type(forecasts).__name__, f"{name}.forecast")
    if len(forecasts) != n:
        raise InvalidValue(f"{n} forecasts", len(forecasts), f"{name}.forecast")
    return [forecasts.opinion(i) for i in range(n)]
