"""CSV files: one row a report (long) or one row a trial (wide), told apart by the header; exports of other tools."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lcsearch.curves import Curve
from lcsearch.data.caveats import STATUS_WORDS
from lcsearch.data.readers._assemble import Attempts, Found, Read, ReadOptions, assemble, direction_of
from lcsearch.data.readers._layouts import LONG, PARAM, WIDE, Long, Panel, check_curves, layout, number
from lcsearch.data.tables import hint, listing, plain
from lcsearch.errors import FileProblem, InvalidValue
from lcsearch.study import Status

PARAMS = (PARAM, "config/")
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


@dataclass(frozen=True)
class _Table:
    """Lines and rows of a file; `comma`: 0,5 is a number."""

    path: Path
    rows: Sequence[tuple[int, dict[str, str]]]
    comma: bool

    def number(self, line: int, name: str, text: str, *, finite: bool = False) -> float:
        """A cell as a number; with `finite`, one >= 0."""
        found = number(text.replace(",", ".") if self.comma and text.count(",") == 1 and "." not in text else text)
        if found is None or (finite and not (math.isfinite(found) and found >= 0)):
            want = "a number >= 0" if finite else "a number"
            raise FileProblem(f"{self.path}:{line}: {name}: expected {want}, got {repr(text) if text else 'nothing'}.")
        return found


def read_csv(path: Path, wish: ReadOptions) -> Read:
    """A study in a CSV file, separated by commas, semicolons (then 0,5 is a number) or tabs.

    Long, a header `trial,step,value` in any order: `time` counts seconds since the trial's start; `state` stands in any
    of its rows; `wish.metric` names another column than `value`, `wish.trial` and `wish.step` others than those. Wide:
    an empty cell is no report. NaN and inf are reports. Of several reports of one trial at one step the last one
    counts: an attempt that began anew wrote it, see Attempts. Exports of other tools: see _layouts.py.

    Raises:
        FileProblem: with file and line.
        InvalidValue: no direction, or a metric that is no column.
    """
    direction = direction_of(wish, str(path))
    if wish.study is not None:
        raise InvalidValue("no study: a CSV file holds one", wish.study, f"{path}: study", "leave it out")
    first, header, cells, comma = rows_of(path, f"a header {LONG}; or {WIDE}")
    where = f"{path}:{first}"
    table = _Table(path, cells, comma)
    found = layout(header, wish, where)
    if isinstance(found, Long):
        found = found if found.key is None else _keyed(table, found, found.key, where)
        trials = _long(table, found)
    elif isinstance(found, Panel):
        trials = _panel(table, found)
    else:
        trials = _wide(table, _step_columns(header, where))
    name = (wish.metric or "value") if found is None else found.metric
    timed = isinstance(found, Long) and found.time is not None
    attempts = Attempts()
    runs = [_found(path, uid, trial, timed, attempts) for uid, trial in trials.items()]
    notes = attempts.notes("report", "trial", "reports")
    return assemble(path.stem, runs, replace(wish, metric=name), direction, f"CSV file {path}", notes)


def rows_of(path: Path, expected: str) -> tuple[int, list[str], list[tuple[int, dict[str, str]]], bool]:
    """Line and names of the header, line and cells of every row, and whether 0,5 is a number there.

    Raises:
        FileProblem: it is no table, or an empty file where something is `expected`.
    """
    try:
        text = path.read_text(encoding="utf-16" if is_utf16(path) else "utf-8-sig")
        separator = _separator(text)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except UnicodeError as error:
        raise FileProblem(f"{path}: expected text in UTF-8, got {error}. Save it as UTF-8.") from error
    except csv.Error as error:
        raise FileProblem(f"{path}: expected comma-separated text, got {error}.") from error
    if not rows:
        raise FileProblem(f"{path}: expected {expected}; got an empty file.")
    (first, header), body = rows[0], rows[1:]
    header = [name.strip() for name in header]
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        check_curves(header, f"{path}:{first}")
        raise FileProblem(f"{path}:{first}: expected every column once, got {twice!r} {header.count(twice)} times.")
    for line, row in body:
        if len(row) != len(header):
            raise FileProblem(f"{path}:{line}: expected {len(header)} cells as in the header, got {len(row)}.")
    cells = [(line, {name: cell.strip() for name, cell in zip(header, row, strict=True)}) for line, row in body]
    return first, header, cells, separator == ";"


def is_utf16(path: Path) -> bool:
    """Does a file begin as spreadsheets begin what they call Unicode text?"""
    with path.open("rb") as file:
        return file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def _separator(text: str) -> str:
    """What the header is separated by: of these three, what gives the most columns."""
    header = next((line for line in text.splitlines() if line.strip()), "")
    return max((",", ";", "\t"), key=lambda one: len(next(csv.reader([header], delimiter=one), [])))


def _keyed(table: _Table, found: Long, key: str, where: str) -> Long:
    """Which of the metrics that the rows are of."""
    keys = sorted({row[key] for _, row in table.rows})
    wanted = found.metric or (keys[0] if len(keys) == 1 else None)
    if wanted not in keys:
        advice = hint(wanted, keys) if wanted else "name the one to replay"
        raise InvalidValue(f"one of the metrics {listing(keys)}", wanted, f"{where}: metric", advice)
    return replace(found, metric=wanted)


def _step_columns(header: Sequence[str], where: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for name in header:
        if name in ("trial", "state") or name.startswith(PARAM):
            continue
        step = number(name)
        if step is None or not (math.isfinite(step) and step >= 0):
            raise FileProblem(f"{where}: expected {WIDE}; got the column {name!r}.")
        if step in found.values():
            raise FileProblem(f"{where}: expected every step once, got {step:g} twice.")
        found[name] = step
    return found


def _long(table: _Table, found: Long) -> dict[str, _Rows]:
    trials: dict[str, _Rows] = {}
    for line, row in table.rows:
        if found.key is not None and row[found.key] != found.metric:
            continue
        trial = _trial(table.path, line, row, trials, found.trial)
        if not row[found.step] and not row[found.value]:
            continue  # a row for the state alone
        step = table.number(line, found.step, row[found.step], finite=True)
        if not row[found.value]:
            continue  # a step at which this metric was not reported
        trial.steps.append(step)
        trial.values.append(table.number(line, found.value, row[found.value]))
        trial.lines.append(line)
        if found.time is not None:
            seconds = table.number(line, found.time, row[found.time], finite=True)
            if seconds > TIME_OF_DAY:
                text = f"expected seconds since the trial's start, got {row[found.time]}, which looks like a date."
                raise FileProblem(f"{table.path}:{line}: {found.time}: {text}")
            trial.times.append(seconds)
    return trials


def _panel(table: _Table, found: Panel) -> dict[str, _Rows]:
    trials = {run: _Rows(1) for run in found.runs.values()}
    for line, row in table.rows:
        step = table.number(line, found.step, row[found.step], finite=True)
        for column, run in found.runs.items():
            if row[column]:
                trials[run].steps.append(step)
                trials[run].values.append(table.number(line, column, row[column]))
                trials[run].lines.append(line)
    return trials


def _wide(table: _Table, steps: dict[str, float]) -> dict[str, _Rows]:
    trials: dict[str, _Rows] = {}
    for line, row in table.rows:
        if row["trial"] in trials:
            text = f"expected one row a trial, got {row['trial']!r} again (line {trials[row['trial']].line})."
            raise FileProblem(f"{table.path}:{line}: {text}")
        trial = _trial(table.path, line, row, trials, "trial")
        for name, step in steps.items():
            if row[name]:
                trial.steps.append(step)
                trial.values.append(table.number(line, name, row[name]))
                trial.lines.append(line)
    return trials


def _trial(path: Path, line: int, row: dict[str, str], trials: dict[str, _Rows], column: str) -> _Rows:
    """The trial of a row, with what the row says of it as a whole."""
    uid = row[column]
    if not uid:
        raise FileProblem(f"{path}:{line}: {column}: expected a name or a number, got nothing.")
    trial = trials.setdefault(uid, _Rows(line))
    for name, text in row.items():
        if name.startswith(PARAMS) and text:
            known = trial.params.setdefault(name.removeprefix(PARAM).removeprefix("config/"), plain(text))
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


def _found(path: Path, uid: str, trial: _Rows, timed: bool, attempts: Attempts) -> Found:
    order = attempts.latest(trial.steps)
    for a, b in itertools.pairwise(order):
        if timed and trial.times[a] > trial.times[b]:
            text = f"expected a time that does not fall with the step, got {trial.times[b]:g} after {trial.times[a]:g}"
            raise FileProblem(f"{path}:{trial.lines[b]}: time: {text} (line {trial.lines[a]}).")
    curve = Curve.of([trial.steps[i] for i in order], [trial.values[i] for i in order])
    clock = np.array([trial.times[i] for i in order]) if timed else None
    return Found(uid, curve, trial.status, trial.params, clock)
