"""What is to be minded of a table of curves: which of its numbers are reports of training, and how its runs ended.

A table's meta.json says it itself, or, where that file is not one's own, a file of caveats by the tables' names::

    "caveat": {"after": 0, "until": 50, "why": "step 0 is before training, 51 after it"}            in meta.json
    {"NAME": {"nan": "diverged", "gaps": ["a task"]}, "OTHER": {"short": "complete"}}               in a file
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lcsearch.errors import FileProblem, is_finite_number
from lcsearch.files import loads, read_text
from lcsearch.study import Status

STATUS_WORDS: Mapping[str, Status] = {
    "complete": Status.COMPLETE,
    "completed": Status.COMPLETE,
    "finished": Status.COMPLETE,
    "pruned": Status.STOPPED,
    "stopped": Status.STOPPED,
    "killed": Status.STOPPED,
    "fail": Status.FAILED,
    "failed": Status.FAILED,
    "crashed": Status.FAILED,
    "running": Status.RUNNING,
    "waiting": Status.PAUSED,
}
"""How a finished or unfinished run is called, in any case: words of Optuna, of lcsearch and of Weights & Biases."""

_MOST = 1 << 20  # bytes of a file of caveats


@dataclass(frozen=True)
class Caveat:
    """What a table asks of its reader. Statuses are told by a word of STATUS_WORDS.

    Attributes:
        nan: "padding" when NaN means nothing was observed; "diverged" when it is what the run reported, to its end.
            None: by what meta.json says in `nan_means`. Before the first finite value NaN is a missing report anyway.
        after: only reports at steps above this one count; 0 leaves out an evaluation before training.
        until: only reports at steps up to this one count.
        length: column of runs.csv.gz with the number of steps after which all is padding.
        gaps: tasks in which "diverged" does not hold for NaN before the last finite value: it is a missing report.
        full: status of a run that reaches the largest step of its task.
        short: status of a run that ends before; "complete" where every run was planned for a length of its own.
        words: status by what the column `status` of runs.csv.gz says, over `full` and `short`; other words say
            nothing, unless these are STATUS_WORDS, the default, beside which there are none.
    """

    nan: Literal["padding", "diverged"] | None = None
    after: float = -math.inf
    until: float = math.inf
    length: str = ""
    gaps: frozenset[str] = frozenset()
    full: Status = Status.COMPLETE
    short: Status = Status.STOPPED
    words: Mapping[str, Status] = field(default_factory=lambda: STATUS_WORDS)


Caveats = Mapping[str, Caveat]
"""By the table's name in its meta.json."""


def caveats_in(path: Path) -> Caveats:
    """A file of caveats: JSON, a caveat by each table's name.

    Raises:
        FileProblem: it is missing, no JSON, or says what no caveat has.
    """
    try:
        said = loads(read_text(path, _MOST))
    except (OSError, ValueError) as error:
        what = getattr(error, "strerror", None) or str(error).partition("\n")[0].rstrip(".")
        raise FileProblem(f"{path}: expected a JSON file of caveats by the tables' names, got {what}.") from error
    if not isinstance(said, dict):
        raise FileProblem(f"{path}: expected an object, caveats by the tables' names, got {said!r:.80}.")
    return {name: caveat_of(one, f"{path}: {name}") for name, one in said.items()}


def caveat_of(said: object, where: str) -> Caveat:
    """A caveat as JSON says it: attributes that are left out keep their defaults, `why` is for people.

    Raises:
        FileProblem: an attribute that there is not, or a value that it does not take; `where` says of what.
    """
    if not isinstance(said, dict):
        raise FileProblem(f"{where}: expected an object with some of {', '.join(_READ)}, got {said!r:.80}.")
    found: dict[str, Any] = {}
    for name, value in said.items():
        if name not in _READ:
            raise FileProblem(f"{where}: expected some of {', '.join(_READ)}, got {name!r}.")
        expected, of = _READ[name]
        try:
            found[name] = of(value)
        except (KeyError, TypeError, ValueError) as error:
            raise FileProblem(f"{where}: {name}: expected {expected}, got {value!r:.80}.") from error
    found.pop("why", None)
    return Caveat(**found)


def _a(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError
    return value


def _text(value: object) -> str:
    return str(_a(str, value))


def _number(value: Any) -> float:
    if not is_finite_number(value):
        raise TypeError
    return float(value)


def _nan(value: object) -> str:
    return {"padding": "padding", "diverged": "diverged"}[_text(value)]


def _names(value: object) -> frozenset[str]:
    return frozenset(map(_text, _a(list, value)))


def _status(value: object) -> Status:
    return STATUS_WORDS[_text(value).strip().lower()]


def _words(value: object) -> dict[str, Status]:
    return {word.strip().lower(): _status(status) for word, status in _a(dict, value).items()}


_A_STATUS = f"one of {', '.join(STATUS_WORDS)}"
_READ: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "nan": ("'padding' or 'diverged'", _nan),
    "after": ("a step", _number),
    "until": ("a step", _number),
    "length": ("the name of a column", _text),
    "gaps": ("a list of tasks", _names),
    "full": (_A_STATUS, _status),
    "short": (_A_STATUS, _status),
    "words": (f"an object of words, each with {_A_STATUS}", _words),
    "why": ("a text", _text),
}
