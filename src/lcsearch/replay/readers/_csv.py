"""CSV files: one row a report (long) or one row a trial (wide), told apart by the header."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lcsearch.curves import Curve
from lcsearch.errors import FileProblem, InvalidValue
from lcsearch.replay.readers._assemble import Found, Read, Wish, assemble, direction_of
from lcsearch.replay.tables import STATUS_WORDS, hint, listing, plain
from lcsearch.study import Status

PARAM = "param_"
LONG = "trial,step,value[,time][,state][,param_NAME ...]"
WIDE = "trial[,state][,param_NAME ...] and then one column a step, named by its number"
TIME_OF_DAY = 1e8  # seconds: three years; more is a date


@dataclass
class _Rows:
    """What was read of one trial so far; `lines` says where."""

    line: int
    steps: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    params: dict[str, Any] = field(default_factory=dict)
    status: Status | None = None


def read_csv(path: Path, wish: Wish) -> Read:
    """A study in a CSV file.

    Long, a header `trial,step,value` in any order: `time` counts seconds since the trial's start; `state` stands in any
    of its rows; `wish.metric` names another column than `value`. Wide: an empty cell is no report. NaN and inf are
    reports.

    Raises:
        FileProblem: with file and line.
        InvalidValue: no direction, or a metric that is no column.
    """
    direction = direction_of(wish, str(path))
    if wish.study is not None:
        raise InvalidValue("no study: a CSV file holds one", wish.study, f"{path}: study", "leave it out")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise FileProblem(f"{path}: expected comma-separated text, got {error}.") from error
    if not rows:
        raise FileProblem(f"{path}: expected a header {LONG}; or {WIDE}; got an empty file.")
    (first, header), body = rows[0], rows[1:]
    header = [name.strip() for name in header]
    where = f"{path}:{first}"
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise FileProblem(f"{where}: expected every column once, got {twice!r} {header.count(twice)} times.")
    for line, row in body:
        if len(row) != len(header):
            raise FileProblem(f"{path}:{line}: expected {len(header)} cells as in the header, got {len(row)}.")
    cells = [(line, {name: cell.strip() for name, cell in zip(header, row, strict=True)}) for line, row in body]
    if "trial" in header and "step" in header:
        value = _value_column(header, wish, where)
        trials = _long(path, cells, value, "time" in header)
        name = wish.metric or value
    elif "trial" in header and any(_number(column) is not None for column in header):
        trials = _wide(path, cells, _step_columns(header, where))
        name = wish.metric or "value"
    else:
        advice = (
            " The separator must be a comma." if len(header) == 1 and (";" in header[0] or "\t" in header[0]) else ""
        )
        text = f"{where}: expected {LONG}; or {WIDE}; got {listing(header)}.{advice}"
        raise FileProblem(text)
    found = [_found(path, uid, trial, "time" in header and "step" in header) for uid, trial in trials.items()]
    return assemble(path.stem, found, replace(wish, metric=name), direction, f"CSV file {path}")


def _value_column(header: Sequence[str], wish: Wish, where: str) -> str:
    others = [c for c in header if c not in ("trial", "step", "time", "state") and not c.startswith(PARAM)]
    wanted = wish.metric
    if wanted is None:
        wanted = others[0] if len(others) == 1 and "value" not in others else "value"
    if wanted not in others:
        if wish.metric is None:
            text = f"{where}: expected a column value, got {listing(header)}."
            raise FileProblem(f"{text} Name the column with metric=." if others else text)
        raise InvalidValue(f"a column, one of {listing(others)}", wanted, f"{where}: metric", hint(wanted, others))
    return wanted


def _step_columns(header: Sequence[str], where: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for name in header:
        if name in ("trial", "state") or name.startswith(PARAM):
            continue
        step = _number(name)
        if step is None or not (math.isfinite(step) and step >= 0):
            raise FileProblem(f"{where}: expected {WIDE}; got the column {name!r}.")
        if step in found.values():
            raise FileProblem(f"{where}: expected every step once, got {step:g} twice.")
        found[name] = step
    return found


def _long(path: Path, cells: Sequence[tuple[int, dict[str, str]]], value: str, timed: bool) -> dict[str, _Rows]:
    trials: dict[str, _Rows] = {}
    for line, row in cells:
        trial = _trial(path, line, row, trials)
        if not row["step"] and not row[value]:
            continue  # a row for the state alone
        step = _expect(path, line, "step", row["step"], finite=True)
        if not row[value]:
            continue  # a step at which this metric was not reported
        trial.steps.append(step)
        trial.values.append(_expect(path, line, value, row[value]))
        trial.lines.append(line)
        if timed:
            seconds = _expect(path, line, "time", row["time"], finite=True)
            if seconds > TIME_OF_DAY:
                text = f"expected seconds since the trial's start, got {row['time']}, which looks like a date."
                raise FileProblem(f"{path}:{line}: time: {text}")
            trial.times.append(seconds)
    return trials


def _wide(path: Path, cells: Sequence[tuple[int, dict[str, str]]], steps: dict[str, float]) -> dict[str, _Rows]:
    trials: dict[str, _Rows] = {}
    for line, row in cells:
        if row["trial"] in trials:
            text = f"expected one row a trial, got {row['trial']!r} again (line {trials[row['trial']].line})."
            raise FileProblem(f"{path}:{line}: {text}")
        trial = _trial(path, line, row, trials)
        for name, step in steps.items():
            if row[name]:
                trial.steps.append(step)
                trial.values.append(_expect(path, line, name, row[name]))
                trial.lines.append(line)
    return trials


def _trial(path: Path, line: int, row: dict[str, str], trials: dict[str, _Rows]) -> _Rows:
    """The trial of a row, with what the row says of it as a whole."""
    uid = row["trial"]
    if not uid:
        raise FileProblem(f"{path}:{line}: trial: expected a name or a number, got nothing.")
    trial = trials.setdefault(uid, _Rows(line))
    for name, text in row.items():
        if name.startswith(PARAM) and text:
            known = trial.params.setdefault(name.removeprefix(PARAM), plain(text))
            if known != plain(text):
                raise FileProblem(f"{path}:{line}: {name}: expected {known} as in line {trial.line}, got {text}.")
    state = row.get("state", "")
    if state:
        # "TrialState.PRUNED" is what str() of Optuna's own enum says.
        status = STATUS_WORDS.get(state.rpartition(".")[2].lower())
        if status is None:
            raise FileProblem(f"{path}:{line}: state: expected one of {listing(STATUS_WORDS)}, got {state!r}.")
        trial.status = status
    return trial


def _found(path: Path, uid: str, trial: _Rows, timed: bool) -> Found:
    order = sorted(range(len(trial.steps)), key=trial.steps.__getitem__)
    for a, b in itertools.pairwise(order):
        if trial.steps[a] == trial.steps[b]:
            text = f"expected one value a step, got step {trial.steps[a]:g} of trial {uid!r} again"
            raise FileProblem(f"{path}:{trial.lines[b]}: {text} (line {trial.lines[a]}).")
        if timed and trial.times[a] > trial.times[b]:
            text = f"expected a time that does not fall with the step, got {trial.times[b]:g} after {trial.times[a]:g}"
            raise FileProblem(f"{path}:{trial.lines[b]}: time: {text} (line {trial.lines[a]}).")
    curve = Curve.of([trial.steps[i] for i in order], [trial.values[i] for i in order])
    clock = np.array([trial.times[i] for i in order]) if timed else None
    return Found(uid, curve, trial.status, trial.params, clock)


def _expect(path: Path, line: int, name: str, text: str, *, finite: bool = False) -> float:
    """A cell as a number; with `finite`, one >= 0."""
    number = _number(text)
    if number is None or (finite and not (math.isfinite(number) and number >= 0)):
        want = "a number >= 0" if finite else "a number"
        raise FileProblem(f"{path}:{line}: {name}: expected {want}, got {repr(text) if text else 'nothing'}.")
    return number


def _number(text: str) -> float | None:
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None
