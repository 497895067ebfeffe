"""An Optuna study opened as Optuna's own, for who needs more of it than curves: live trials, what is kept beside them.

Nothing is written here, either: no table is made, a SQLite file is opened with mode=ro or read from a copy.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lcsearch.data.readers._assemble import ReadOptions
from lcsearch.data.readers._optuna import (
    PATIENCE_S,
    UPGRADE,
    as_it_stands,
    database,
    database_problems,
    file_problems,
    loaded,
    of_journal,
    shown,
    unreadable_entry,
)
from lcsearch.errors import FileProblem, LcsearchError

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import RDBStorage


@contextlib.contextmanager
def opened(
    where: str | os.PathLike[str], name: str | None, kind: Literal["url", "sqlite", "journal"]
) -> Iterator[tuple[Study, str]]:
    """See :func:`lcsearch.data.readers.optuna_study`."""
    from optuna.storages import RDBStorage

    wish, text = ReadOptions(study=name), os.fspath(where)
    if kind == "journal":
        yield of_journal(Path(text), wish), text
        return
    with contextlib.ExitStack() as stack:
        options: dict[str, Any] = {}
        problems: contextlib.AbstractContextManager[None]
        parsed, path = database(text) if kind == "url" else (None, Path(text))
        if path is None:
            assert parsed is not None
            text, url, problems = shown(parsed), parsed.render_as_string(hide_password=False), database_problems(parsed)
        else:
            with file_problems(path):
                uri = stack.enter_context(as_it_stands(path))
            text, url, problems = str(path), "sqlite://", file_problems(path)
            options = {"creator": lambda: sqlite3.connect(uri, uri=True, timeout=PATIENCE_S)}
        with problems, _table_problems(text):
            storage = RDBStorage(url, options, skip_table_creation=True)
            stack.callback(_close, storage)
            study = loaded(storage, text, wish)
        yield study, text


def _close(storage: RDBStorage) -> None:
    storage.remove_session()
    storage.engine.dispose()


@contextlib.contextmanager
def _table_problems(where: str) -> Iterator[None]:
    """What Optuna says of tables that it does not read, in our words; what else a database says goes through."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError

    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        told = error.__cause__ if isinstance(error, StorageInternalError) else error
        found = told.orig if isinstance(told, DBAPIError) else told
        if isinstance(found, sqlite3.Error) and "no such" in str(found):
            text = f"{where}: expected the tables of this Optuna, got {found}."
            raise FileProblem(f"{text} {UPGRADE}") from None
        raise (found if isinstance(found, sqlite3.Error) else told or error) from None
    except RuntimeError as error:  # of another version
        said = " ".join(str(error).split())[:200].rstrip(".")
        raise FileProblem(f"{where}: expected the tables of this Optuna, got others ({said}). {UPGRADE}") from None
    except LcsearchError:
        raise
    except (ValueError, TypeError, LookupError, AssertionError) as error:
        raise unreadable_entry(where, error) from error
