"""Configurations that are not begun: rows of a CSV file, or draws from a search space. As trials without a report."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import optuna

from lcsearch.data.readers._csv import rows_of
from lcsearch.data.tables import hint, listing, plain
from lcsearch.errors import EnvironmentProblem, FileProblem, InvalidValue
from lcsearch.proposal import identity
from lcsearch.schedule import Schedule
from lcsearch.study import Snapshot, Trial
from lcsearch.sweep.spec.load import load_space
from lcsearch.sweep.spec.space import suggest
from lcsearch.sweep.spec.strict import is_plain
from lcsearch.sweep.store.sampler import TrialSampler

MOST = 4096
"""Configurations that are forecast at once."""

_TRIES = 4
"""Draws for one configuration: a small space gives the same ones again and again."""

ScheduleOf = Callable[[Mapping[str, Any]], Schedule | None]


class Known(NamedTuple):
    """What the trials of a study say of its parameters.

    Attributes:
        values: name -> the values that trials have.
        always: the names that every trial with a configuration has.
    """

    values: Mapping[str, Sequence[Any]]
    always: frozenset[str]

    @classmethod
    def of(cls, snapshot: Snapshot, where: str) -> Known:
        """Of all trials.

        Raises:
            FileProblem: none has a parameter.
        """
        configs = [t.params for t in (*snapshot.bank, *snapshot.live, *snapshot.abandoned) if t.params]
        if not configs:
            text = f"{where}: expected trials with parameters, which configurations are compared with, got none."
            raise FileProblem(f"{text} Leave --candidates and --space out.")
        values: dict[str, list[Any]] = {}
        for config in configs:
            for name, value in config.items():
                values.setdefault(name, []).append(value)
        return cls(values, frozenset(name for name, found in values.items() if len(found) == len(configs)))

    def check(self, names: Sequence[str], where: str, a_name: str) -> None:
        """Hold names to those of the study: none unknown, none missing that every trial has.

        Raises:
            FileProblem: one is.
        """
        known = f"the study's parameters ({listing(self.values)})"
        for name in names:
            if name not in self.values:
                near = hint(name, self.values)
                advice = f"{near[0].upper()}{near[1:]}." if near else "Take it away."
                raise FileProblem(f"{where}: expected {known}, got {a_name} {name!r}. {advice}")
        missing = [name for name in self.values if name in self.always and name not in names]
        if missing:
            text = f"{where}: expected every parameter that all trials have, got none called {listing(missing)}."
            raise FileProblem(f"{text} Add {'it' if len(missing) == 1 else 'them'}.")


def from_csv(path: Path, known: Known, schedule: ScheduleOf = lambda params: None) -> list[Trial]:
    """The rows of a file whose header names parameters; an empty cell is a parameter that the configuration has not.

    Raises:
        FileProblem: with file and line.
        EnvironmentProblem: it may not be read.
    """
    expected = f"a header of parameters ({listing(known.values)}) and a row for every configuration"
    try:
        first, header, rows, comma = rows_of(path, expected)
    except FileNotFoundError:
        raise FileProblem(f"{path}: expected a CSV file of configurations, got no such file.") from None
    except OSError as error:
        raise EnvironmentProblem(f"{path}: expected a CSV file that can be read, got {error.strerror}.") from error
    known.check(header, f"{path}:{first}", "the column")
    if not rows:
        raise FileProblem(f"{path}: expected {expected}; got the header alone.")
    if len(rows) > MOST:
        raise FileProblem(f"{path}: expected at most {MOST} configurations, got {len(rows)}. Split the file.")
    found = []
    for line, row in rows:
        params = {
            name: _value(known, name, text.replace(",", ".") if comma else text, f"{path}:{line}: {name}")
            for name, text in row.items()
            if text or name in known.always
        }
        found.append(Trial(f"line {line}", params=params, schedule=schedule(params)))
    return found


def _value(known: Known, name: str, text: str, where: str) -> Any:
    """A cell as the kind of value that the trials have there.

    Raises:
        FileProblem: it is of another kind.
    """
    values, found = known.values[name], plain(text)
    if all(isinstance(value, bool) for value in values):
        if not isinstance(found, bool):
            raise FileProblem(f"{where}: expected true or false, as the trials have it, got {text!r}.")
        return found
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        if isinstance(found, (bool, str)) or not math.isfinite(found):
            got = repr(text) if text else "nothing"
            raise FileProblem(f"{where}: expected a finite number, as the trials have it, got {got}.")
        return found
    if not text:
        raise FileProblem(f"{where}: expected a value, which all trials have, got nothing.")
    return text if all(isinstance(value, str) for value in values) else found


def from_space(
    path: Path, known: Known, begun: Sequence[Mapping[str, Any]], n: int, seed: int, schedule: ScheduleOf
) -> tuple[list[Trial], str]:
    """`n` different draws from the `space:` of a file that no trial has; where it has fewer, those and a word on it.

    Drawn as a sweep with a random sampler draws its trials. Constants of the space are left out where the study's
    trials do not have them: a sweep keeps them apart, too.

    Raises:
        FileProblem: the file has no space, or none of this study; nothing is left.
        InvalidValue: `n` is no number from 1 to MOST.
    """
    if not 1 <= n <= MOST:
        raise InvalidValue(f"1 to {MOST}", n, "--n")
    space = load_space(path)
    kept = {name: parameter for name, parameter in space.items() if name in known.values or not is_plain(parameter)}
    known.check(list(kept), str(path), "the parameter")
    study = optuna.create_study(sampler=TrialSampler("random", seed))
    taken = {identity(params) for params in begun}
    found: list[Trial] = []
    most = len(begun) + _TRIES * n
    for i in range(most):
        drawn = suggest(study.ask(), space)
        params = {name: value for name, value in drawn.items() if name in kept}
        if (key := identity(params)) in taken:
            continue
        taken.add(key)
        found.append(Trial(f"draw {i}", params=params, schedule=schedule(drawn)))
        if len(found) == n:
            return found, ""
    if not found:
        raise FileProblem(f"{path}: expected configurations that no trial has, got none in {most} draws. Widen it.")
    return found, f"{path}: {len(found)} of {n} configurations: {most} draws gave no others that no trial has."
