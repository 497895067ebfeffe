"""Tables of curves in a folder: those of `shared/data`, or a user's own in the same layout.

::

    NAME/
        curves.npz        Y__<metric> (R, S), NaN where nothing was observed; step (S,) or (R, S), NaN as padding;
                          T__<name> (R, S) when times were measured
        runs.csv.gz       R rows: task, config_id, seed, and more; row i belongs to Y[i]
        configs.csv.gz    one row per config_id, its hyperparameters
        meta.json         primary, metrics{m: {direction}}, tasks[{task, direction?}], step_unit, nan_means, caveat?

What NaN means, which columns are no report of training and which runs were cut short differs by table: see
:mod:`lcsearch.data.caveats`. No value is changed: blow-ups to 1e34 and returns of -3e21 stay as they are, ranks do not
mind.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lcsearch.curves import Curve, Floats
from lcsearch.data.caveats import STATUS_WORDS, Caveat, Caveats, caveat_of
from lcsearch.data.task import Run, Task
from lcsearch.errors import EnvironmentProblem, FileProblem, InvalidValue
from lcsearch.files import loads
from lcsearch.goal import Direction, Goal, Judged
from lcsearch.study import Status
from lcsearch.terminal import quoted

DIRECTIONS: Mapping[str, Direction] = {
    "min": "minimize",
    "max": "maximize",
    "minimize": "minimize",
    "maximize": "maximize",
}


def listing(names: Iterable[object], most: int = 12) -> str:
    """Names for a message: "a, b, c", cut after `most`."""
    known = [quoted(str(name)) for name in names]
    more = f" and {len(known) - most} more" if len(known) > most else ""
    return (", ".join(known[:most]) or "none") + more


def hint(word: object, known: Iterable[object]) -> str:
    """ "perhaps 'val_loss' is meant" or ""."""
    close = difflib.get_close_matches(str(word), [str(name) for name in known], n=1, cutoff=0.6)
    return f"perhaps {close[0]!r} is meant" if close else ""


def reached(curve: Curve, horizon: float) -> bool:
    """True when the next report of a curve would lie beyond the horizon: `range(50)` ends at 49 and is whole."""
    steps = curve.reports()[0]
    gap = float(steps[-1] - steps[-2]) if steps.size > 1 else 0.0
    return horizon - float(steps[-1]) <= 1.5 * gap


def is_table(folder: Path) -> bool:
    """True for a folder that looks like one of this layout."""
    return (folder / "curves.npz").is_file()


@dataclass(frozen=True)
class Table:
    """One folder of curves, read when asked for.

    Attributes:
        folder: where it lies.
        caveats: what is to be minded of tables, over what meta.json says; this one's stands under its name.

    Raises:
        FileProblem: (from everything below) a file is missing or not what the layout says.
    """

    folder: Path
    caveats: Caveats = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def meta(self) -> Mapping[str, Any]:
        """meta.json."""
        path = self._path("meta.json")
        try:
            meta = loads(path.read_bytes())
        except ValueError as error:
            raise FileProblem(f"{path}: expected JSON, got {_said(error)}.") from error
        if not (isinstance(meta, dict) and isinstance(meta.get("metrics"), dict) and meta["metrics"]):
            raise FileProblem(f"{path}: expected an object with `metrics`: {{name: {{direction: min or max}}}}.")
        return meta

    @property
    def name(self) -> str:
        """Its name in meta.json, else the folder's."""
        return str(self.meta.get("name", self.folder.name))

    @cached_property
    def caveat(self) -> Caveat:
        """What is to be minded of it, `nan` settled: one of `caveats`, else what meta.json says in `caveat`."""
        found = self.caveats.get(self.name)
        if found is None:
            found = caveat_of(self.meta.get("caveat", {}), f"{self.folder / 'meta.json'}: caveat")
        if found.nan is not None:
            return found
        text = str(self.meta.get("nan_means", "")).lower()
        diverged = ("diverged" in text or "failed" in text) and "padding" not in text.replace("never padding", "")
        return replace(found, nan="diverged" if diverged else "padding")

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics it holds."""
        return tuple(name.removeprefix("Y__") for name in self._arrays if name.startswith("Y__"))

    @property
    def clocks(self) -> tuple[str, ...]:
        """Names of the clocks it holds beside the steps."""
        return tuple(name.removeprefix("T__") for name in self._arrays if name.startswith("T__"))

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        """Names of its tasks, in the order of their first runs."""
        return tuple(self._rows)

    @property
    def step_unit(self) -> str:
        """What a step counts, without what meta.json explains after a bracket or a comma."""
        text = str(self.meta.get("step_unit", "steps"))
        return text.partition("(")[0].partition(",")[0].strip() or "steps"

    def task(
        self, name: str, *, metric: str | None = None, judged: Judged = "best", clock: str | None = None
    ) -> Task | None:
        """The runs of one task; None when none of them reported the metric.

        Args:
            name: one of `tasks`.
            metric: one of `metrics`; None for the primary one.
            judged: "best" or "final".
            clock: one of `clocks`; None for the steps. Runs in which it is missing or falls are left out.

        Returns:
            Values in their own units and direction; the horizon is the largest step of the task; runs without a
            report are left out.

        Raises:
            InvalidValue: a name that the table does not hold.
        """
        rows = self._rows.get(self._one_of(name, self.tasks, "tasks"))
        assert rows is not None
        metric = self.primary if metric is None else self._one_of(metric, self.metrics, "metric")
        direction = self._direction(metric, name)
        steps, values = self._steps, self._matrix(f"Y__{metric}")[rows]
        steps = steps[rows] if steps.ndim == 2 else np.broadcast_to(steps, values.shape)
        times = None if clock is None else self._matrix(f"T__{self._one_of(clock, self.clocks, 'clock')}")[rows]
        seen = self._seen(name, rows, steps, values)
        if not np.isfinite(values[seen]).any():
            return None
        horizon = float(steps[seen].max())
        if not horizon > 0:
            raise FileProblem(f"{self.folder / 'curves.npz'}: step: expected steps above 0 in task {name!r}.")
        uids = self._uids(rows)
        runs: list[Run] = []
        for i, row in enumerate(rows.tolist()):
            which = seen[i]
            at = steps[i, which]
            cost = at if times is None else times[i, which]
            if not at.size or (times is not None and not _rises(cost)):
                continue
            curve = Curve.of(at, values[i, which])
            status = self._status(row, curve, horizon)
            if status.finished:
                runs.append(Run(uids[i], curve, np.maximum(cost, 0.0), self._params[self._configs[row]], status))
        if not runs:
            return None
        unit = self.step_unit if clock is None else ("seconds" if clock.endswith("_s") else clock)
        return Task(name, Goal(metric, direction, horizon, judged), tuple(runs), unit)

    @property
    def primary(self) -> str:
        """The metric it is used with unless another is asked for."""
        name = self.meta.get("primary", self.metrics[0] if len(self.metrics) == 1 else None)
        if name not in self.metrics:
            path = self.folder / "meta.json"
            raise FileProblem(f"{path}: primary: expected one of {listing(self.metrics)}, got {name!r}.")
        return str(name)

    # How the files are read

    def _path(self, name: str) -> Path:
        path = self.folder / name
        if not path.is_file():
            what = "a folder" if self.folder.is_dir() else "no folder"
            text = f"{path}: expected curves.npz, runs.csv.gz, configs.csv.gz and meta.json, got {what} without it."
            raise FileProblem(text)
        return path

    @cached_property
    def _arrays(self) -> tuple[str, ...]:
        """Names of the arrays in curves.npz; they are read one by one, when asked for."""
        path = self._path("curves.npz")
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                found = tuple(arrays.files)
        except (AttributeError, OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise FileProblem(f"{path}: expected a file of numpy.savez, got {_said(error)}.") from error
        if "step" not in found or not any(name.startswith("Y__") for name in found):
            raise FileProblem(f"{path}: expected step and Y__<metric>, got {listing(found)}.")
        return found

    def _array(self, name: str) -> Floats:
        path = self._path("curves.npz")
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return np.asarray(arrays[name], np.float64)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise FileProblem(f"{path}: {name}: expected an array of numbers, got {_said(error)}.") from error

    def _matrix(self, name: str) -> Floats:
        known = self._memo.get(name)
        if known is None:
            known = self._memo[name] = self._array(name)
            want = (len(self._runs), self._steps.shape[-1])
            if known.shape != want:
                path = self.folder / "curves.npz"
                raise FileProblem(f"{path}: {name}: expected the shape {want} (runs, steps), got {known.shape}.")
        return known

    @cached_property
    def _memo(self) -> dict[str, Floats]:
        return {}

    @cached_property
    def _steps(self) -> Floats:
        steps, where = self._array("step"), f"{self.folder / 'curves.npz'}: step"
        if not (steps.ndim == 1 or (steps.ndim == 2 and len(steps) == len(self._runs))):
            want = f"(steps,) or ({len(self._runs)}, steps)"
            raise FileProblem(f"{where}: expected the shape {want}, got {steps.shape}.")
        rows = np.atleast_2d(steps)
        bad = np.isfinite(rows)
        bad[:, 1:] &= ~(rows[:, 1:] > rows[:, :-1])  # false after padding too
        bad[:, :1] = False
        if bad.any():
            row, column = (int(i) for i in np.argwhere(bad)[0])
            at = f"{where}[{row}, {column}]" if steps.ndim == 2 else f"{where}[{column}]"
            raise FileProblem(f"{at}: expected steps that rise, padding last, got {rows[row, column]:g}.")
        return steps

    def _read(self, name: str, columns: Collection[str]) -> list[dict[str, str]]:
        path = self._path(name)
        try:
            with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
                reader = csv.DictReader(file)
                rows, header = list(reader), list(reader.fieldnames or ())
        except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error) as error:
            raise FileProblem(f"{path}: expected a gzipped CSV file, got {_said(error)}.") from error
        missing = [column for column in columns if column not in header]
        if missing:
            raise FileProblem(f"{path}: expected the column {missing[0]}, got {listing(header)}.")
        return rows

    @cached_property
    def _runs(self) -> list[dict[str, str]]:
        return self._read("runs.csv.gz", ("task", "config_id"))

    @cached_property
    def _configs(self) -> list[str]:
        """Of every run, the configuration's id."""
        ids = [row["config_id"] for row in self._runs]
        for line, known in enumerate(ids, 2):
            if known not in self._params:
                path = self.folder / "runs.csv.gz"
                raise FileProblem(f"{path}:{line}: config_id: expected one of configs.csv.gz, got {known!r}.")
        return ids

    @cached_property
    def _params(self) -> dict[str, dict[str, Any]]:
        """config_id -> its hyperparameters; an empty cell is one the configuration does not have."""
        rows = self._read("configs.csv.gz", ("config_id",))
        return {
            row["config_id"]: {k: plain(v) for k, v in row.items() if k is not None and k != "config_id" and v}
            for row in rows
        }

    @cached_property
    def _rows(self) -> dict[str, NDArray[np.intp]]:
        """Task -> its rows."""
        found: dict[str, list[int]] = {}
        for i, row in enumerate(self._runs):
            found.setdefault(row["task"], []).append(i)
        return {name: np.array(rows, np.intp) for name, rows in found.items()}

    # What the files mean

    def _one_of(self, name: str, known: Collection[str], what: str) -> str:
        if name not in known:
            raise InvalidValue(f"one of {listing(known)}", name, f"{self.folder}: {what}", hint(name, known))
        return name

    def _direction(self, metric: str, task: str) -> Direction:
        said = [self.meta["metrics"].get(metric, {}).get("direction")]
        said += [row.get("direction") for row in self.meta.get("tasks", ()) if row.get("task") == task]
        found = next((DIRECTIONS[word] for word in said if isinstance(word, str) and word in DIRECTIONS), None)
        if found is None:
            text = f"metrics.{metric}.direction: expected min or max, there or at the task {task!r} in tasks"
            raise FileProblem(f"{self.folder / 'meta.json'}: {text}, got {said[0]!r}.")
        return found

    def _seen(self, task: str, rows: NDArray[np.intp], steps: Floats, values: Floats) -> NDArray[np.bool_]:
        """(r, S) True where a run reported something, finite or not."""
        caveat, blank = self.caveat, np.isnan(values)
        room: NDArray[np.bool_] = np.isfinite(steps) & (steps > caveat.after) & (steps <= caveat.until)
        if caveat.length:
            try:
                length = np.array([int(float(self._runs[row][caveat.length])) for row in rows])
            except (KeyError, ValueError) as error:
                path = self.folder / "runs.csv.gz"
                text = f"{caveat.length}: expected a number in every row, got {_said(error)}."
                raise FileProblem(f"{path}: {text}") from error
            room = room & (np.arange(values.shape[1]) < length[:, None])
        if caveat.nan == "padding":
            return room & ~blank
        finite: NDArray[np.bool_] = np.isfinite(values) & room
        begun = np.logical_or.accumulate(room & ~blank, axis=1)
        missing = blank & ~begun & np.any(finite, axis=1, keepdims=True)
        if task in caveat.gaps:
            missing |= blank & np.logical_or.accumulate(finite[:, ::-1], axis=1)[:, ::-1]
        seen: NDArray[np.bool_] = room & ~missing
        return seen

    def _status(self, row: int, curve: Curve, horizon: float) -> Status:
        word = self._runs[row].get("status", "").strip().lower()
        if word and self.caveat.words:
            known = self.caveat.words.get(word)
            if known is not None:
                return known
            if self.caveat.words is STATUS_WORDS:
                path = self.folder / "runs.csv.gz"
                text = f"expected one of {listing(STATUS_WORDS)}, got {word!r}."
                raise FileProblem(f"{path}:{row + 2}: status: {text}")
        whole = curve.last_step >= horizon if self._steps.ndim == 1 else reached(curve, horizon)
        return self.caveat.full if whole else self.caveat.short

    def _uids(self, rows: NDArray[np.intp]) -> list[str]:
        """The configuration's id; with the seed when there are several; the row when that is not enough."""
        ids = [self._runs[row]["config_id"] for row in rows]
        if len(set(ids)) == len(ids):
            return ids
        ids = [f"{self._runs[row]['config_id']}/{self._runs[row].get('seed', '')}" for row in rows]
        return ids if len(set(ids)) == len(ids) else [f"row {row}" for row in rows]


def load(
    folder: Path,
    *,
    metric: str | None = None,
    tasks: Collection[str] | None = None,
    judged: Judged = "best",
    clock: str | None = None,
    caveats: Caveats | None = None,
) -> Iterator[Task]:
    """The tasks of one folder, each built when it is asked for.

    Args:
        folder: of the layout above.
        metric: None for the primary one.
        tasks: names; None for all. A task in which nobody reported the metric is left out, unless it was named.
        judged: "best" or "final".
        clock: a T__ column to count costs by; None for the steps.
        caveats: what is to be minded of tables, over what their meta.json says.

    Raises:
        FileProblem: a file is missing or not what the layout says.
        InvalidValue: a metric, task or clock the folder does not hold.
    """
    table = Table(Path(folder), caveats or {})
    for name in table.tasks if tasks is None else tasks:
        found = table.task(name, metric=metric, judged=judged, clock=clock)
        if found is not None:
            yield found
        elif tasks is not None:
            got = metric or table.primary
            raise InvalidValue(f"a task with reports of {got!r}", name, f"{table.folder}: tasks")


def sources(data: Path) -> tuple[str, ...]:
    """Names of the folders under `data` that hold a table, sorted.

    Raises:
        EnvironmentProblem: there is no such folder.
    """
    if not data.is_dir():
        raise EnvironmentProblem(f"{data}: expected a folder of curve tables, got none.")
    return tuple(sorted(folder.name for folder in data.iterdir() if is_table(folder)))


def plain(text: str) -> Any:
    """A cell as the value it stands for: an int, a float, True or False; else the text itself.

    >>> plain("32"), plain("1e-3"), plain("True"), plain("relu")
    (32, 0.001, True, 'relu')
    """
    if text in ("True", "true"):
        return True
    if text in ("False", "false"):
        return False
    if "_" in text:  # a number to Python, a name to everybody else
        return text
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _rises(times: Floats) -> bool:
    """True for finite times >= 0 that do not fall."""
    return bool(np.isfinite(times).all() and (np.diff(times, prepend=0.0) >= 0).all())


def _said(error: Exception) -> str:
    """What an error said, in one line and without its full stop."""
    return (str(error) or type(error).__name__).partition("\n")[0].rstrip(".")
