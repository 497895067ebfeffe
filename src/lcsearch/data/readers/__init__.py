"""Studies people already have, read without a write: Optuna, a run of lcsearch, CSV, TensorBoard, Ray Tune, MLflow."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lcsearch.data.caveats import caveats_in
from lcsearch.data.readers._assemble import Read, ReadOptions, Standing, as_direction, choose
from lcsearch.data.readers._csv import is_utf16, read_csv
from lcsearch.data.readers._mlflow import experiments, read_mlflow
from lcsearch.data.readers._opened import opened
from lcsearch.data.readers._optuna import MAGIC, read_journal, read_sqlite, read_url, run_folder
from lcsearch.data.readers._ray import read_ray, trial_folders
from lcsearch.data.readers._tensorboard import MARK, event_files, read_tensorboard
from lcsearch.data.tables import Table, hint, is_table, listing
from lcsearch.errors import EnvironmentProblem, FileProblem, InvalidValue
from lcsearch.goal import Judged

if TYPE_CHECKING:
    from optuna import Study

__all__ = ["Read", "optuna_study", "read"]

_EXPECTED = (
    "expected an Optuna storage (URL, SQLite file or journal file), a run folder of lcsearch, a CSV file, "
    "a folder of TensorBoard event files, of a Ray Tune experiment or of MLflow (mlruns), or one with curves.npz"
)


def read(
    where: str | os.PathLike[str],
    *,
    study: str | None = None,
    metric: str | None = None,
    direction: str | None = None,
    max_steps: float | None = None,
    judged: Judged | None = None,
    steps: bool = False,
    trial: str | None = None,
    step: str | None = None,
    caveats: str | os.PathLike[str] | None = None,
    live: bool = False,
    standing: Standing | None = None,
) -> Read:
    """A study as a task to replay. Nothing is written, locked for long, upgraded or made.

    Args:
        where: Optuna storage URL, SQLite file or journal file; a folder made by `lcsearch run`; a CSV file, one row a
            report (`trial,step,value`) or one row a trial, or what Weights & Biases or MLflow export; a folder of
            TensorBoard runs, of a Ray Tune experiment, MLflow's mlruns; a table of curves (data/tables.py).
        study: the study's name where a storage holds several; MLflow's experiment; the task's name in a table of
            curves.
        metric: the CSV column, the TensorBoard tag, Ray's key, the table's metric; a mere name in Optuna.
        direction: "minimize" or "maximize"; needed where the file does not say.
        max_steps: the horizon, in steps; None for the largest last step of a complete trial. Curves are cut there.
        judged: "best" or "final"; None for what a run folder says, else "best".
        steps: costs are counted in steps, also where the study has times.
        trial, step: the CSV columns that tell trials apart and that count steps, where they are called otherwise; the
            key that counts steps in results of Ray Tune.
        caveats: a file of what is to be minded of a table of curves, over what its meta.json says (data/caveats.py).
        live: unfinished trials are kept, too: `Read.live`.
        standing: of a study of Optuna, all trials by number -> those that no other one goes on with, as they count:
            `lcsearch.schedulers.optuna._snapshot.standing`. None: every trial stands, with all that it has reported.

    Returns:
        The task, and in words what was left out of it or had to be assumed.

    Raises:
        FileProblem: there is nothing to read, or it is not what it seems.
        InvalidValue: an argument is missing, or names something that is not there.
        EnvironmentProblem: a database or driver is missing, or a file may not be read.

    Examples::

        read("sqlite:///study.db")
        read("runs/digits")
        read("curves.csv", direction="minimize")
        read("logs", metric="val/loss", direction="minimize")
        read("wandb.csv", trial="run", step="epoch", metric="val_loss", direction="minimize")
    """
    text = os.fspath(where)
    if judged not in (None, "best", "final"):
        raise InvalidValue("'best' or 'final'", judged, "read(judged=)")
    if caveats is not None and ("://" in text or not is_table(Path(text))):
        raise InvalidValue("none: this is no table of curves", str(caveats), f"{text}: --caveats", "leave it out")
    minded = {} if caveats is None else caveats_in(Path(caveats))
    wish = ReadOptions(
        study, metric, as_direction(direction), max_steps, judged or "best", steps, trial, step, minded, live, standing
    )
    if "://" in text:
        _no_columns(text, wish)
        return read_url(text, wish)
    path = Path(text)
    try:
        if path.is_dir():
            return _folder(path, wish, judged)
        if not path.is_file():
            raise FileProblem(f"{path}: {_EXPECTED}; got nothing of that name.")
        reader = _reader(path)
        if reader is not read_csv:
            _no_columns(text, wish)
        return reader(path, wish)
    except PermissionError as error:
        raise EnvironmentProblem(f"{path}: expected to read it, got {error.strerror}.") from error


@contextmanager
def optuna_study(where: str | os.PathLike[str], name: str | None = None) -> Iterator[tuple[Study, str] | None]:
    """An Optuna study as Optuna's own, open for reading while the context lasts, and where it lies, for people.

    Args:
        where: Optuna storage URL, SQLite file or journal file.
        name: the study's, where a storage holds several.

    Returns:
        None where `where` is something else that :func:`read` may know.

    Raises:
        LcsearchError: as :func:`read`.
    """
    text = os.fspath(where)
    if "://" in text:
        with opened(text, name, "url") as found:
            yield found
        return
    path = Path(text)
    if path.is_dir():
        yield None
        return
    if not path.is_file():
        raise FileProblem(f"{path}: {_EXPECTED}; got nothing of that name.")
    try:
        reader = _reader(path)
    except PermissionError as error:
        raise EnvironmentProblem(f"{path}: expected to read it, got {error.strerror}.") from error
    if reader not in (read_sqlite, read_journal):
        yield None
        return
    with opened(path, name, "sqlite" if reader is read_sqlite else "journal") as found:
        yield found


def _no_columns(where: str, wish: ReadOptions) -> None:
    """Only a table has columns to be named."""
    for option, column in (("--trial", wish.trial), ("--step", wish.step)):
        if column is not None:
            raise InvalidValue("no column: this is no CSV file", column, f"{where}: {option}", "leave it out")


def _folder(path: Path, wish: ReadOptions, judged: Judged | None) -> Read:
    found: list[Path] = [] if (path / "run.json").is_file() or is_table(path) else trial_folders(path)
    if found:
        return read_ray(path, found, wish)
    _no_columns(str(path), wish)
    if (path / "run.json").is_file():
        return _run_folder(path, wish, judged)
    if is_table(path):
        return _table(path, wish)
    if runs := experiments(path):
        return read_mlflow(path, runs, wish)
    if event_files(path):
        return read_tensorboard(path, wish)
    names = sorted(child.name for child in path.iterdir())
    inside = [path / name for name in names if (path / name).is_file() and _may_be_a_study(path / name)]
    advice = f" Name the file: {inside[0]}" if inside else ""
    raise FileProblem(f"{path}: {_EXPECTED}; got a folder with {listing(names)}.{advice}")


def _run_folder(path: Path, wish: ReadOptions, judged: Judged | None) -> Read:
    storage, sweep = run_folder(path)
    wish = replace(
        wish,
        study=wish.study or sweep.get("name"),
        metric=wish.metric or sweep.get("metric"),
        max_steps=wish.max_steps or sweep.get("max_steps"),
        judged=judged or sweep.get("judged", "best"),
    )
    return read_url(storage, wish)


def _table(path: Path, wish: ReadOptions) -> Read:
    table = Table(path, wish.caveats)
    name = wish.study or (table.tasks[0] if len(table.tasks) == 1 else None)
    if name is None:
        expected = f"the name of one of {len(table.tasks)} tasks: {listing(table.tasks, 50)}"
        raise InvalidValue(expected, None, f"{path}: study", choose(table.tasks))
    if name not in table.tasks:
        raise InvalidValue(f"one of {listing(table.tasks)}", name, f"{path}: study", hint(name, table.tasks))
    task = table.task(name, metric=wish.metric, judged=wish.judged)
    if task is None:
        raise FileProblem(f"{path}: expected reports of {wish.metric or table.primary} in {name!r}, got none.")
    for asked, has, what in (
        (wish.direction, task.goal.direction, "direction"),
        (wish.max_steps, task.goal.horizon, "max_steps"),
    ):
        if asked not in (None, has):
            raise InvalidValue(f"{has!r}, as the table has it", asked, f"{path}: {what}", "leave it out")
    return Read(task, (), f"task {name!r} of the curves in {path}")


def _may_be_a_study(path: Path) -> bool:
    try:
        return bool(_reader(path))
    except (FileProblem, OSError):
        return False


def _reader(path: Path) -> Callable[[Path, ReadOptions], Read]:
    """What reads a file: told by its first bytes, then by its name.

    Raises:
        FileProblem: nothing does.
    """
    with path.open("rb") as file:
        head = file.read(4096)
    if head.startswith(MAGIC):
        return read_sqlite
    if MARK in path.name:
        return read_tensorboard
    if head.lstrip().startswith(b"{") and b'"op_code"' in head.partition(b"\n")[0]:
        return read_journal
    if path.suffix.lower() in (".csv", ".tsv", ".txt") and (b"\x00" not in head or is_utf16(path)):
        return read_csv
    got = "an empty file" if not head else f"a file that begins with {head[:16]!r}"
    raise FileProblem(f"{path}: {_EXPECTED}; got {got}.")
