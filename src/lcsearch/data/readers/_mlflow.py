"""MLflow's folder mlruns, read without MLflow.

mlruns/EXPERIMENT/meta.yaml                    name: ...
mlruns/EXPERIMENT/RUN/meta.yaml                run_name, status (3 finished, 4 failed, 5 killed), start_time (ms)
mlruns/EXPERIMENT/RUN/metrics/NAME             a line a value: time (ms), value, step; NAME may lie in folders
mlruns/EXPERIMENT/RUN/params/NAME              the value
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lcsearch import files
from lcsearch.curves import Curve
from lcsearch.data.readers._assemble import Attempts, Found, Read, ReadOptions, assemble, choose, count, direction_of
from lcsearch.data.readers._layouts import number
from lcsearch.data.tables import hint, listing, plain
from lcsearch.errors import FileProblem, InvalidValue
from lcsearch.study import Status

META = "meta.yaml"
MOST = 1 << 20
"""Bytes of a description or a parameter."""
_STATUS = {
    **{"1": Status.RUNNING, "2": Status.PAUSED, "3": Status.COMPLETE, "4": Status.FAILED, "5": Status.STOPPED},
    **{"RUNNING": Status.RUNNING, "SCHEDULED": Status.PAUSED, "FINISHED": Status.COMPLETE, "FAILED": Status.FAILED},
    "KILLED": Status.STOPPED,
}


def experiments(root: Path) -> dict[Path, list[Path]]:
    """Folders of experiments with their runs: of mlruns, or the experiment's own."""
    for pattern in ("*/metrics", "*/*/metrics"):
        found: dict[Path, list[Path]] = {}
        for path in sorted(root.glob(pattern)):
            run = path.parent
            if (run / META).is_file() and ".trash" not in run.parts:
                found.setdefault(run.parent, []).append(run)
        if found:
            return found
    return {}


def read_mlflow(root: Path, found: Mapping[Path, Sequence[Path]], wish: ReadOptions) -> Read:
    """An experiment; its runs that were deleted are left out.

    Of several values at one step the last one counts, see Attempts. Where every step is 0, as `log_metric` without a
    step writes it, the values are counted instead.

    Raises:
        InvalidValue: no direction, or an experiment or metric that is not there.
        FileProblem: a line that is no value.
    """
    direction = direction_of(wish, str(root))
    for option, column in (("--trial", wish.trial), ("--step", wish.step)):
        if column is not None:
            raise InvalidValue("no column: MLflow has its own", column, f"{root}: {option}", "leave it out")
    named = {str(_meta(folder).get("name") or folder.name): runs for folder, runs in found.items()}
    name = wish.study or (next(iter(named)) if len(named) == 1 else None)
    if name not in named:
        curves = [n for n, runs in named.items() if any(_values(p)[0][1:] for run in runs for p in _keys(run).values())]
        advice = hint(name, named) if name else choose(curves or list(named))
        raise InvalidValue(f"one of the experiments {listing(named)}", name, f"{root}: study", advice)
    runs = {run: meta for run in named[name] if (meta := _meta(run)).get("lifecycle_stage") != "deleted"}
    keys = sorted({key for run in runs for key in _keys(run)})
    metric = wish.metric or (keys[0] if len(keys) == 1 else None)
    if metric not in keys:
        advice = hint(metric, keys) if metric else "name the one to replay"
        raise InvalidValue(f"one of the metrics {listing(keys)}", metric, f"{root}: metric", advice)
    made, attempts, counted = [], Attempts(), 0
    for run, meta in runs.items():
        path = _keys(run).get(metric)
        steps, values, times = ([], [], []) if path is None else _values(path)
        if len(steps) > 1 and not any(steps):
            steps, counted = [float(i) for i in range(len(values))], counted + 1
        order = attempts.latest(steps)
        start = number(str(meta.get("start_time"))) or min(times, default=0.0)
        clock = np.maximum.accumulate([max((times[i] - start) / 1000.0, 0.0) for i in order]) if order else None
        curve = Curve.of([steps[i] for i in order], [values[i] for i in order])
        status = _STATUS.get(str(meta.get("status")))
        made.append(Found(str(meta.get("run_name") or run.name), curve, status, _params(run), clock))
    uids = [one.uid for one in made]
    if len(set(uids)) < len(uids):  # names of runs need not differ
        made = [replace(one, uid=run.name) for one, run in zip(made, runs, strict=True)]
    notes = attempts.notes("value", "run", "logs")
    notes += [f"{count(counted, 'run')} without steps: values are counted instead."] * bool(counted)
    source = f"MLflow experiment {name!r} in {root}, metric {metric!r}"
    return assemble(name, made, replace(wish, metric=metric), direction, source, notes)


def _meta(folder: Path) -> dict[str, Any]:
    """What MLflow says of an experiment or a run: plain `key: value` lines."""
    try:
        text = files.read(folder / META, MOST).decode(errors="replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.splitlines() if ":" in line and not line.startswith((" ", "-")))
    return {key.strip(): value.strip().strip("'\"") for key, _, value in pairs}


def _keys(run: Path) -> dict[str, Path]:
    folder = run / "metrics"
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def _values(path: Path) -> tuple[list[float], list[float], list[float]]:
    """(steps, values, times in ms) of a metric, in the order they were logged."""
    steps: list[float] = []
    values: list[float] = []
    times: list[float] = []
    for i, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if not (cells := line.split()):
            continue
        cells += ["0"] * (len(cells) == 2)  # before MLflow 1.0 there were no steps
        time, value, step = (*(number(cell) for cell in cells[:3]), None, None)[:3]
        if time is None or value is None or step is None or not (math.isfinite(step) and step >= 0):
            raise FileProblem(f"{path}:{i}: expected a time, a value and a step, got {line[:60]!r}.")
        steps.append(step)
        values.append(value)
        times.append(time)
    return steps, values, times


def _params(run: Path) -> dict[str, Any]:
    folder, found = run / "params", {}
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        try:
            found[path.relative_to(folder).as_posix()] = plain(files.read(path, MOST).decode().strip())
        except (OSError, ValueError):
            continue  # a replay goes without it
    return found
