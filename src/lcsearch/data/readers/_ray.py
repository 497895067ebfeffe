"""A folder of Ray Tune: each trial's own folder holds result.json, a line a result, and progress.csv, which has less.

The columns of progress.csv are the keys of the first result; what is reported later only is in result.json alone.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lcsearch import files
from lcsearch.curves import Curve
from lcsearch.data.readers._assemble import Attempts, Found, Read, ReadOptions, assemble, direction_of
from lcsearch.data.readers._layouts import NO_METRICS, number
from lcsearch.data.tables import hint, listing
from lcsearch.errors import FileProblem, InvalidValue

STEP, TIME = "training_iteration", "time_total_s"
MOST = 1 << 24
"""Bytes of a trial's parameters."""


def trial_folders(root: Path) -> list[Path]:
    """The folders with results: of a Tune experiment, of a folder of such, or the trial's own."""
    for pattern in ("", "*/", "*/*/"):
        found = {path.parent for name in ("result.json", "progress.csv") for path in root.glob(pattern + name)}
        if found:
            return sorted(found)
    return []


def read_ray(root: Path, folders: Sequence[Path], wish: ReadOptions) -> Read:
    """A Tune experiment, read without Ray.

    Of several results at one step the last one counts: an attempt that began anew wrote it, see Attempts. Nothing in
    these files says whether a trial ended by itself.

    Raises:
        InvalidValue: no direction, or a metric or step that no trial reported.
        FileProblem: a line that is no result.
    """
    direction = direction_of(wish, str(root))
    if wish.study is not None:
        raise InvalidValue("no study: a Tune experiment is one", wish.study, f"{root}: study", "leave it out")
    if wish.trial is not None:
        raise InvalidValue("no column: every trial has its folder", wish.trial, f"{root}: --trial", "leave it out")
    results = {folder: _results(folder) for folder in folders}
    known = sorted({key for rows in results.values() for row in rows for key in row if key})
    every = [row for rows in results.values() for row in rows]
    numbers = [key for key in known if any(_number(row.get(key)) is not None for row in every)]
    metrics = [key for key in numbers if key not in NO_METRICS and not key.startswith("config/")]
    metric = wish.metric or (metrics[0] if len(metrics) == 1 else None)
    for what, name, some in (("metric", metric, metrics), ("--step", wish.step or STEP, numbers)):
        if name not in numbers:
            advice = hint(name, some) if name else "name the one to replay"
            raise InvalidValue(f"one of {listing(some)}", name, f"{root}: {what}", advice)
    step = wish.step or STEP
    found, attempts = [], Attempts()
    for folder, rows in results.items():
        kept: list[tuple[float, float, float]] = []
        for row in rows:
            at, value = _number(row.get(step)), _number(row.get(str(metric)))
            if at is None or value is None or not (math.isfinite(at) and at >= 0):
                continue  # a result without this metric
            kept.append((at, value, _number(row.get(TIME)) or 0.0))
        kept = [kept[i] for i in attempts.latest([at for at, _, _ in kept])]
        uid = next((str(row["trial_id"]) for row in rows if row.get("trial_id")), folder.name)
        clock = np.maximum.accumulate(np.array([time for _, _, time in kept])) if kept else None
        curve = Curve.of([at for at, _, _ in kept], [value for _, value, _ in kept])
        found.append(Found(uid, curve, params=_params(folder), clock=clock))
    uids = [run.uid for run in found]
    if len(set(uids)) < len(uids):
        found = [replace(run, uid=f.relative_to(root).as_posix()) for run, f in zip(found, folders, strict=True)]
    notes = attempts.notes("result", "trial", "reports")
    source = f"Ray Tune results in {root}, {metric} by {step}"
    return assemble(root.resolve().name, found, replace(wish, metric=metric), direction, source, notes)


def _results(folder: Path) -> list[Mapping[str, Any]]:
    """Every result; a last line without an end is one that was never written."""
    path = folder / "result.json"
    if path.is_file() and path.stat().st_size:
        rows: list[Mapping[str, Any]] = []
        for i, (_, line) in enumerate(files.lines(path), 1):
            if not line.endswith(b"\n"):
                break
            try:
                row = files.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise FileProblem(f"{path}:{i}: expected a result of Ray Tune, got {line[:40]!r}.")
            rows.append(_flat(row))
        return rows
    path = folder / "progress.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise FileProblem(f"{path}: expected comma-separated text, got {error}.") from error
    except FileNotFoundError:
        return []


def _flat(result: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested keys as Ray's own tables have them, "eval/loss"; without the configuration, which params.json holds."""
    found: dict[str, Any] = {}
    for key, value in result.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{before}{key}/") if (before or key != "config") else {}
        else:
            found[before + key] = value
    return found


def _params(folder: Path) -> dict[str, Any]:
    """The trial's configuration; {} where it cannot be read, for a replay goes without it."""
    try:
        found = files.loads(files.read(folder / "params.json", MOST))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _number(value: object) -> float | None:
    """What may be a value: a number, or a cell that says one."""
    if isinstance(value, str):
        return number(value)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
