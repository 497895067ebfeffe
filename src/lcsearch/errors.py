"""The exceptions lcsearch raises.

::

    LcsearchError
    ├── InvalidValue(ValueError)   a value handed to lcsearch is wrong: mend the call
    ├── FileProblem                a sweep file, objective or folder is wrong: mend the file
    └── EnvironmentProblem         disk, storage or package missing: mend the machine, try again

Nothing here is ever raised into a running study by an adapter: adapters catch, count and go on.
"""

from __future__ import annotations

import math
from numbers import Real


class LcsearchError(Exception):
    """Base of every error raised on purpose by lcsearch."""


class InvalidValue(LcsearchError, ValueError):
    """A value is not what the callee takes; the message says expected, got, where and what to do.

    >>> raise InvalidValue("a finite step", float("nan"), "Curve.steps[2]", "drop the report")
    Traceback (most recent call last):
    ...
    lcsearch.errors.InvalidValue: Curve.steps[2]: expected a finite step, got nan. Drop the report.
    """

    def __init__(self, expected: str, got: object, where: str, advice: str = "") -> None:
        self.expected, self.got, self.where, self.advice = expected, got, where, advice
        text = f"{where}: expected {expected}, got {got!r}."
        if advice:
            text += f" {advice[0].upper()}{advice[1:].rstrip('.')}."
        super().__init__(text)

    def __reduce__(self) -> tuple[type[InvalidValue], tuple[str, object, str, str]]:
        return type(self), (self.expected, self.got, self.where, self.advice)


def in_words(error: BaseException) -> str:
    """Its type and what it says, in one piece; of one that cannot be printed, the type."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # somebody's __str__ is broken: no reason to end a trial
        return type(error).__name__


def is_finite_number(value: object) -> bool:
    """True for finite ints and floats, numpy's too; False for bool, text, None and everything else.

    >>> is_finite_number(3), is_finite_number(True), is_finite_number("3"), is_finite_number(float("nan"))
    (True, False, False, False)
    """
    try:
        return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)
    except OverflowError:  # an int beyond every float
        return False


class FileProblem(LcsearchError):
    """A file the user wrote is wrong; nothing was started. The command line exits with 2."""


class EnvironmentProblem(LcsearchError):
    """The machine is not as needed (folder, storage, package). The command line exits with 3."""
