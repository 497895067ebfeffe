"""Optuna studies, read without a single write: no table is made, no schema upgraded, no lock file left.

Databases are read by plain SELECTs on the tables that Optuna has kept since 2.4, not through Optuna's storage class,
which makes tables and version rows on opening. A SQLite file is opened with mode=ro, which takes the usual shared lock;
where SQLite itself would have to write before it can read (write-ahead log, a transaction that a crash left behind), a
copy in a temporary folder is read instead.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lcsearch.curves import Curve
from lcsearch.data.readers._assemble import Found, Read, ReadOptions, assemble, choose, count
from lcsearch.data.tables import hint, listing
from lcsearch.errors import EnvironmentProblem, FileProblem, InvalidValue, LcsearchError, in_words
from lcsearch.files import loads, read
from lcsearch.goal import Direction
from lcsearch.study import Status

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial
    from sqlalchemy import URL

Rows = Callable[..., list[dict[str, Any]]]

MAGIC = b"SQLite format 3\x00"
PATIENCE_S = 30
UPGRADE = "Upgrade a copy of it with: optuna storage upgrade --storage"
COPY_TRIES = 50  # a writer moves its log into the database once in a thousand pages; each try is a copy

_STATUS = {
    "COMPLETE": Status.COMPLETE,
    "PRUNED": Status.STOPPED,
    "FAIL": Status.FAILED,
    "RUNNING": Status.RUNNING,
    "WAITING": Status.PAUSED,
}
_DIRECTION: dict[str, Direction] = {"MINIMIZE": "minimize", "MAXIMIZE": "maximize"}
_OURS = ("lcsearch:", "retry_history")
_ODD = {"NAN": math.nan, "INF_POS": math.inf, "INF_NEG": -math.inf}


def read_sqlite(path: Path, wish: ReadOptions) -> Read:
    """A study in a SQLite file."""
    with file_problems(path), _opened(path) as rows:
        return _from_tables(rows, str(path), wish)


def read_url(url: str, wish: ReadOptions) -> Read:
    """A study in any database SQLAlchemy knows."""
    import sqlalchemy

    parsed, path = database(url)
    if path is not None:
        return read_sqlite(path, wish)
    with database_problems(parsed):
        engine = sqlalchemy.create_engine(parsed)
        options = {"postgresql_readonly": True} if parsed.get_backend_name() == "postgresql" else {}
        try:
            with engine.connect().execution_options(**options) as connection:

                def rows(query: str, **values: Any) -> list[dict[str, Any]]:
                    found = connection.execute(sqlalchemy.text(query), values)
                    return [dict(row) for row in found.mappings()]

                return _from_tables(rows, shown(parsed), wish)
        finally:
            engine.dispose()


def database(url: str) -> tuple[URL, Path | None]:
    """A storage's URL, with the driver that is there, and the file of one of SQLite.

    Raises:
        InvalidValue: it is no URL.
        FileProblem: there is no such file.
    """
    import sqlalchemy
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = sqlalchemy.engine.make_url(url)
    except ArgumentError:
        raise InvalidValue("a storage URL like sqlite:///study.db", url, "read(where)") from None
    if parsed.get_backend_name() == "sqlite":
        path = Path(parsed.database or "")
        if not path.is_file():
            raise FileProblem(f"{shown(parsed)}: expected a SQLite file, got none at {path}.")
        return parsed, path
    if parsed.drivername in ("postgresql", "postgres") and (find_spec("psycopg") or not find_spec("psycopg2")):
        parsed = parsed.set(drivername="postgresql+psycopg")
    return parsed, None


def shown(url: URL) -> str:
    """A URL for people: without the password."""
    return url.render_as_string(hide_password=True)


@contextlib.contextmanager
def database_problems(url: URL) -> Iterator[None]:
    """What a database that is no file says, in our words."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except ImportError as error:
        text = f"{shown(url)}: expected a driver for {url.drivername}, got none"
        raise EnvironmentProblem(f"{text} ({error}). Install it with pip.") from None
    except SQLAlchemyError as error:  # its text may quote the password: its class says enough
        raise EnvironmentProblem(f"{shown(url)}: expected tables of Optuna, got {type(error).__name__}.") from None


def unreadable_entry(where: str, error: BaseException) -> FileProblem:
    """What to tell of tables in which somebody has put something else."""
    text = f"{where}: expected the tables of Optuna, got an entry that cannot be read ({in_words(error)[:120]})."
    return FileProblem(f"{text} Bring it back from a copy.")


@contextlib.contextmanager
def file_problems(path: Path) -> Iterator[None]:
    """What SQLite says of a file, in our words."""
    try:
        yield
    except sqlite3.Error as error:
        if _names(error, "SQLITE_BUSY", "SQLITE_LOCKED"):
            text = f"{path}: expected a database that can be read within {PATIENCE_S} s, got one locked by a writer."
            raise EnvironmentProblem(f"{text} Try again.") from error
        raise FileProblem(f"{path}: expected a SQLite file of Optuna, got {error}.") from error
    except OSError as error:
        raise EnvironmentProblem(f"{path}: expected to read it, got {error}.") from error


def read_journal(path: Path, wish: ReadOptions) -> Read:
    """A study in a journal file; a torn last line is one that was never written."""
    study = of_journal(path, wish)
    source = told(study, path)
    direction = _direction([direction.name for direction in study.directions], wish, source)
    found, notes = _found(study.get_trials(deepcopy=False), wish)
    return assemble(study.study_name, found, wish, direction, source, notes)


def of_journal(path: Path, wish: ReadOptions) -> Study:
    import optuna
    from optuna.storages.journal import JournalFileBackend

    class ReadOnly(JournalFileBackend):
        """Nothing that reads appends; if it did, it would be an error."""

        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            raise AssertionError("a study that is only read was written to")

    try:
        return loaded(optuna.storages.JournalStorage(ReadOnly(str(path))), str(path), wish)
    except LcsearchError:
        raise
    except Exception as error:  # whatever Optuna makes of entries that are not its own
        raise FileProblem(f"{path}: expected a journal of Optuna, got {type(error).__name__}: {error}.") from error


def loaded(storage: BaseStorage, where: str, wish: ReadOptions) -> Study:
    """The study asked for; what is wrong with its numbers is raised before anybody works with them."""
    import optuna

    names = optuna.get_all_study_names(storage)

    def with_curves() -> list[str]:
        loaded = ((name, optuna.load_study(study_name=name, storage=storage)) for name in names)
        return [name for name, s in loaded if any(t.intermediate_values for t in s.get_trials(deepcopy=False))]

    study = optuna.load_study(study_name=_one_study(names, where, wish, with_curves), storage=storage)
    for trial in study.get_trials(deepcopy=False):
        Curve.of(trial.intermediate_values)
        Curve.of(range(len(trial.values or ())), trial.values)
    return study


def told(study: Study, where: object) -> str:
    """What was read, for people."""
    return f"Optuna study {study.study_name!r} in {where}"


def _from_tables(rows: Rows, where: str, wish: ReadOptions) -> Read:
    try:
        studies = {row["study_name"]: row["study_id"] for row in rows("SELECT study_id, study_name FROM studies")}

        def with_curves() -> list[str]:
            told = "SELECT DISTINCT study_id FROM trials JOIN trial_intermediate_values USING (trial_id)"
            have = {row["study_id"] for row in rows(told)}
            return [name for name, number in studies.items() if number in have]

        name = _one_study(list(studies), where, wish, with_curves)
        source, of = f"Optuna study {name!r} in {where}", {"study": studies[name]}
        directions = rows("SELECT objective, direction FROM study_directions WHERE study_id = :study", **of)
        trials = rows("SELECT trial_id, number, state FROM trials WHERE study_id = :study ORDER BY number", **of)
        mine = "WHERE trial_id IN (SELECT trial_id FROM trials WHERE study_id = :study)"
        params = rows(f"SELECT trial_id, param_name, param_value, distribution_json FROM trial_params {mine}", **of)
        values = rows(f"SELECT * FROM trial_intermediate_values {mine}", **of)
        kept = [rows(f"SELECT * FROM trial_{whose}_attributes {mine}", **of) for whose in ("user", "system")]
    except sqlite3.OperationalError as error:
        if "no such" not in str(error):
            raise
        text = f"{where}: expected the tables of Optuna 2.4 or newer, got {error}."
        raise FileProblem(f"{text} {UPGRADE}") from error
    from optuna.trial import FrozenTrial, TrialState

    directions.sort(key=lambda row: int(row["objective"]))
    direction = _direction([str(row["direction"]) for row in directions], wish, source)
    try:
        curves: dict[int, dict[int, float]] = {}
        for row in values:
            value = row["intermediate_value"]
            # Before Optuna 3.0 there was no type, and NaN was stored as NULL.
            odd = _ODD.get(str(row.get("intermediate_value_type", "NAN")), math.nan)
            curves.setdefault(row["trial_id"], {})[index(row["step"])] = odd if value is None else float(value)
        configs: dict[int, dict[str, Any]] = {}
        for row in params:
            configs.setdefault(row["trial_id"], {})[row["param_name"]] = _param(
                row["param_value"], row["distribution_json"]
            )
        user, system = map(_attributes, kept)
        frozen = [
            FrozenTrial(
                number=row["number"],
                state=TrialState[str(row["state"])],
                value=None,
                datetime_start=None,
                datetime_complete=None,
                params=configs.get(row["trial_id"], {}),
                distributions={},
                user_attrs=user.get(row["trial_id"], {}),
                system_attrs=system.get(row["trial_id"], {}),
                intermediate_values=curves.get(row["trial_id"], {}),
                trial_id=row["trial_id"],
            )
            for row in trials
        ]
        found, notes = _found(frozen, wish)
    except (ValueError, TypeError, LookupError, OverflowError) as error:
        raise unreadable_entry(where, error) from error
    return assemble(name, found, wish, direction, source, notes)


def _found(trials: Sequence[FrozenTrial], wish: ReadOptions) -> tuple[list[Found], list[str]]:
    """The trials of a study, by number, and what is to be said of them."""
    if wish.standing is None:
        return [
            Found(str(t.number), Curve.of(t.intermediate_values), _STATUS[t.state.name], t.params) for t in trials
        ], []
    found = [Found(one.uid, one.curve, one.status, one.params) for one in wish.standing(trials)]
    notes, reports = [], {str(t.number): len(t.intermediate_values) for t in trials}
    if n := len(trials) - len(found):
        notes.append(f"{count(n, 'trial')} that others go on with: left out, for those have their reports.")
    if n := sum(one.curve.n_reports < reports[one.uid] for one in found):
        notes.append(f"{count(n, 'trial')} began anew after an attempt that died: what that one reported is left out.")
    return found, notes


def _attributes(rows: Sequence[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """What stands beside trials and says which of their reports count; what cannot be read says nothing."""
    found: dict[int, dict[str, Any]] = {}
    for row in rows:
        if str(row["key"]).startswith(_OURS):
            with contextlib.suppress(ValueError, TypeError):
                found.setdefault(row["trial_id"], {})[row["key"]] = loads(row["value_json"])
    return found


def _param(stored: float, distribution: str) -> Any:
    """A hyperparameter as the objective saw it: a choice is stored as its index."""
    from optuna.distributions import json_to_distribution

    return json_to_distribution(distribution).to_external_repr(stored)


def _one_study(names: Sequence[str], where: str, wish: ReadOptions, with_curves: Callable[[], list[str]]) -> str:
    """The study asked for; where several could be meant, the advice names one with curves."""
    if not names:
        raise FileProblem(f"{where}: expected an Optuna study, got a storage without any.")
    if wish.study is None:
        if len(names) > 1:
            expected = f"the name of one of {len(names)} studies: {listing(names, 50)}"
            some = with_curves()
            advice = choose(some) if some else f"{choose(names)}; none of them has curves"
            raise InvalidValue(expected, None, f"{where}: study", advice)
        return names[0]
    if wish.study not in names:
        raise InvalidValue(f"one of {listing(names)}", wish.study, f"{where}: study", hint(wish.study, names))
    return wish.study


def _direction(stored: Sequence[str], wish: ReadOptions, source: str) -> Direction:
    if len(stored) > 1:
        text = f"{source}: expected one objective, got {len(stored)}."
        raise FileProblem(f"{text} Optuna keeps no intermediate values for several: there is no curve to replay.")
    found = _DIRECTION.get(stored[0]) if stored else None
    if found is None:
        if wish.direction is None:
            advice = "the study has none yet: give direction= (--direction)"
            raise InvalidValue("'minimize' or 'maximize'", None, f"{source}: direction", advice)
        return wish.direction
    if wish.direction not in (None, found):
        raise InvalidValue(f"{found!r}, as the study has it", wish.direction, f"{source}: direction", "leave it out")
    return found


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Rows]:
    """Something that answers SELECTs on the file as it stands."""
    with as_it_stands(path) as uri, _connected(uri) as rows:
        yield rows


@contextlib.contextmanager
def as_it_stands(path: Path) -> Iterator[str]:
    """A URI at which SQLite reads the file without a write: its own, or that of a copy."""
    with path.open("rb") as file:
        head = file.read(20)
    # 2 in these bytes is a write-ahead log: reading in place would make or mend its index beside the file.
    in_place = f"{path.resolve().as_uri()}?mode=ro"
    if head[18:20] == b"\x01\x01" and _readable(in_place):
        yield in_place
    else:
        with tempfile.TemporaryDirectory(prefix="lcsearch-") as folder:
            yield _copy(path, Path(folder)).as_uri()


def _readable(uri: str) -> bool:
    """False when a crash left a transaction that SQLite would have to undo first."""
    try:
        with _connected(uri) as rows:
            rows("SELECT name FROM sqlite_master")
    except sqlite3.OperationalError as error:
        if _names(error, "SQLITE_READONLY", "SQLITE_CANTOPEN"):
            return False
        raise
    return True


def _names(error: sqlite3.Error, *names: str) -> bool:
    return getattr(error, "sqlite_errorname", "").startswith(names)


@contextlib.contextmanager
def _connected(uri: str) -> Iterator[Rows]:
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=PATIENCE_S)) as connection:
        connection.row_factory = sqlite3.Row
        connection.execute("BEGIN")  # one transaction: all SELECTs see the same moment

        def rows(query: str, **values: Any) -> list[dict[str, Any]]:
            return [dict(row) for row in connection.execute(query, values)]

        yield rows


def _copy(path: Path, folder: Path) -> Path:
    """A copy of the database with its log or left-over journal, all of one moment.

    A log that grows meanwhile does no harm: only whole transactions count. But it must not have been moved into the
    database between the two copies, so the database must be the same before and after.
    """
    for _ in range(COPY_TRIES):
        before = _stamp(path)
        copy = folder / "study.sqlite3"
        shutil.copyfile(path, copy)
        for ending in ("-wal", "-journal"):
            beside = folder / f"study.sqlite3{ending}"
            beside.unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(path.with_name(path.name + ending), beside)
        if _stamp(path) == before:
            return copy
        time.sleep(0.02)
    raise EnvironmentProblem(f"{path}: expected to copy it between two writes, got {COPY_TRIES} failures. Try again.")


def _stamp(path: Path) -> tuple[int, int, int]:
    found = os.stat(path)
    return found.st_ino, found.st_size, found.st_mtime_ns


_LONGEST = 1 << 26  # bytes of run.json


def run_folder(root: Path) -> tuple[str, dict[str, Any]]:
    """(storage URL, the resolved sweep) of a folder that `lcsearch run` made.

    Raises:
        FileProblem: run.json is not what it should be.
    """
    path = root / "run.json"
    try:
        sweep = cast("dict[str, Any]", loads(read(path, _LONGEST))["sweep"])
        storage = sweep.get("backend", {}).get("storage") or f"sqlite:///{root.resolve() / 'study.sqlite3'}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        text = f"{path}: expected the record of `lcsearch run`, got {type(error).__name__}. Bring it back from a copy."
        raise FileProblem(text) from error
    return str(storage), sweep
