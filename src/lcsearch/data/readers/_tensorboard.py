"""Folders of TensorBoard event files: which of them are trials, and which are parts of one.

Every folder with event files is a trial, but for

- Keras' `train` and `validation` and their like (PARTS): parts of the trial that is the folder around them;
- what `add_scalars` makes beside the event file of its writer, one folder a curve (torch: TAG_NAME; tensorboardX:
  TAG/NAME): series TAG/NAME of that trial;
- what `add_hparams` makes below it: one report of each metric, and no trial.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from lcsearch.curves import Curve
from lcsearch.data.readers._assemble import Found, Read, ReadOptions, assemble, count, direction_of
from lcsearch.data.readers._events import Scalar, scalars
from lcsearch.data.tables import hint, listing
from lcsearch.errors import FileProblem, InvalidValue

MARK = "tfevents"
PARTS = ("validation", "val", "valid", "eval", "evaluation", "test", "train", "training")
"""Names of folders that are parts of a trial; the first of them that has a tag is read unless another is named."""

Attempts = list[list[Scalar]]


def event_files(root: Path) -> list[Path]:
    """The event files under a folder (or the one file), by folder and then by name, which is by time."""
    if root.is_file():
        return [root]
    return sorted(path for path in root.rglob(f"*{MARK}*") if path.is_file())


@dataclass
class _Trials:
    """What the folders are.

    Attributes:
        series: trial's folder -> name of a series (TAG, PART/TAG, TAG/NAME) -> its rows, a list a file, under their
            own tag.
        parts: names of parts.
        children: folders of `add_scalars`.
        hparams: folders of `add_hparams`.
    """

    series: dict[Path, dict[str, tuple[str, Attempts]]] = field(default_factory=dict)
    parts: set[str] = field(default_factory=set)
    children: int = 0
    hparams: int = 0


def read_tensorboard(root: Path, wish: ReadOptions) -> Read:
    """A folder of runs, each named by its path below `root`; see the module for what is a run.

    Steps reported again after a restart count from the restart on: what the abandoned attempt wrote at or after its
    step is dropped, as TensorBoard does. The clock is the wall time spent in the run's files, without the pauses
    between them, unless `wish.steps`.

    Raises:
        InvalidValue: no direction, or a tag that no run has.
        FileProblem: a damaged record; one cut off at a file's end is one that was never written.
    """
    direction = direction_of(wish, str(root))
    if wish.study is not None:
        raise InvalidValue("no study: a folder of event files is one", wish.study, f"{root}: study", "leave it out")
    files: dict[Path, list[Path]] = {}
    for path in event_files(root):
        files.setdefault(path.parent, []).append(path)
    trials = _trials({folder: [list(scalars(path)) for path in paths] for folder, paths in files.items()}, root)
    names = sorted({name for series in trials.series.values() for name in series})
    wanted, note = _series(names, wish, root)
    notes = [note] * bool(note)
    found, torn, silent = [], 0, 0
    for folder, series in trials.series.items():
        tag, attempts = series.get(wanted, ("", []))
        at, values, times, dropped = _joined(attempts, tag)
        torn += dropped > 0
        if not at:
            silent += 1
            continue
        uid = root.name if folder == root or root.is_file() else folder.relative_to(root).as_posix()
        found.append(Found(uid, Curve.of(at, values), clock=np.array(times)))
    if trials.parts:
        notes.append(f"Folders {listing(sorted(trials.parts))} are parts of the trial around them, no trials.")
    if trials.children:
        notes.append(f"{count(trials.children, 'folder')} of add_scalars: curves of the trial around them, no trials.")
    if trials.hparams:
        notes.append(f"{count(trials.hparams, 'folder')} of add_hparams, with one report each: no trials.")
    if silent:
        notes.append(f"{count(silent, 'run')} without the tag {wanted!r}: left out.")
    if torn:
        notes.append(f"{count(torn, 'run')} went back to an earlier step: the abandoned reports are dropped.")
    source = f"TensorBoard runs in {root}, tag {wanted!r}"
    return assemble(root.name, found, replace(wish, metric=wanted), direction, source, notes)


def _trials(files: Mapping[Path, Attempts], root: Path) -> _Trials:
    """Sort the folders with their rows."""
    made = _Trials()
    for folder, attempts in files.items():
        reports: dict[str, int] = {}
        for row in (row for rows in attempts for row in rows if row.tag):
            reports[row.tag] = reports.get(row.tag, 0) + 1
        around = next((parent for parent in folder.parents if parent in files), None) if folder != root else None
        owner, prefix = folder, ""
        if around is not None and len(reports) == 1 and (name := _child(folder, around, next(iter(reports)))):
            made.children += 1
            made.series.setdefault(around, {})[name] = (next(iter(reports)), attempts)
            continue
        if folder != root and folder.name in PARTS:
            owner, prefix = folder.parent, f"{folder.name}/"
            made.parts.add(folder.name)
        elif around is not None and reports and max(reports.values()) == 1:
            made.hparams += 1
            continue
        series = made.series.setdefault(owner, {})
        series.update((prefix + tag, (tag, attempts)) for tag in reports)
    return made


def _child(folder: Path, around: Path, tag: str) -> str:
    """TAG/NAME of a folder that `add_scalars` made below its writer's; "" for another."""
    below = folder.relative_to(around).as_posix()
    for begin in (tag.replace("/", "_") + "_", tag + "/"):  # torch, tensorboardX
        if below.startswith(begin) and "/" not in (name := below.removeprefix(begin)):
            return f"{tag}/{name}"
    return ""


def _series(names: list[str], wish: ReadOptions, root: Path) -> tuple[str, str]:
    """The series to read, and what is to be said of the choice."""
    if not names:
        raise FileProblem(f"{root}: expected event files with scalars, got none.")
    wanted, where = wish.metric, f"{root}: metric"
    if wanted in names:
        return wanted, ""
    split = {name: name.partition("/") for name in names}
    tags = {tag if part in PARTS and tag else name for name, (part, _, tag) in split.items()}
    if wanted is None and len(tags) > 1:
        raise InvalidValue(f"one of the tags {listing(names)}", None, where, "name the one to replay")
    tag = next(iter(tags)) if wanted is None else wanted
    if tag in names:
        return tag, ""
    several = [name for part in PARTS if (name := f"{part}/{tag}") in names]
    if not several:
        raise InvalidValue(f"one of the tags {listing(names)}", wanted, where, hint(wanted, names))
    others = f"; --metric {several[1]} reads the other" if len(several) > 1 else ""
    return several[0], f"{several[0]} is read{others}." if len(several) > 1 else ""


def _joined(attempts: Iterable[list[Scalar]], tag: str) -> tuple[list[float], list[float], list[float], int]:
    """(steps, values, seconds of work before each, how many reports were superseded) of one run's files, in order."""
    steps: list[float] = []
    values: list[float] = []
    times: list[float] = []
    dropped, worked = 0, 0.0
    for rows in attempts:
        if not rows:
            continue
        # A file's first record says when it was begun; whoever gives wall times of his own may give earlier ones.
        start, now = min(row.wall for row in rows), worked
        for row in rows:
            if not row.tag:
                continue
            now = max(now, worked + row.wall - start)  # a clock that is set back stands still
            if row.tag != tag:
                continue
            while steps and steps[-1] >= row.step:
                steps.pop()
                values.pop()
                times.pop()
                dropped += 1
            steps.append(float(row.step))
            values.append(row.value)
            times.append(now)
        worked = now
    return steps, values, times, dropped
