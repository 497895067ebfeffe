"""An Optuna storage that may be away for a while: a server that restarts, a sqlite file that somebody locks.

Every call is tried again until it succeeds, for :data:`PATIENCE_S` at most; then the storage is given up for good, and
every later call fails at its first try. What a call had written before its answer was lost is written again (a report,
an attribute) or taken for done (a trial's end); only a trial that was begun twice stays, unsigned, and is given to the
next worker like any that lost its own.
"""

from __future__ import annotations

import functools
import inspect
import sqlite3
import time
from collections.abc import Callable
from typing import Any

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from lcsearch.errors import EnvironmentProblem
from lcsearch.schedulers.optuna._storage import WaitingKnown
from lcsearch.secrets_in_urls import mask, mask_of

PATIENCE_S = 45.0
"""Below machines.SILENCE_S: after an outage that was waited out, no machine is taken for gone."""

_BUSY_S = 1.0  # one try of sqlite, which waits for a lock in C: no signal is heard there
_LONGEST_REST_S = 1.0


class Patience:
    """How long this process still waits for a storage that does not answer."""

    def __init__(self) -> None:
        self.seconds = PATIENCE_S

    def end(self) -> None:
        """Wait no more: the next try that fails is the last."""
        self.seconds = 0.0


class PatientStorage(WaitingKnown):
    """Optuna's storage on SQL, with patience."""

    def __init__(self, url: str, patience: Patience, *, checked: bool) -> None:
        self._patience = patience
        engine = {"connect_args": {"timeout": _BUSY_S}} if url.startswith("sqlite") else {}
        super().__init__(url, engine_kwargs=engine, skip_compatibility_check=checked, skip_table_creation=checked)


def rests(patience: Patience) -> Callable[[], bool]:
    """A function to call after every failure: it rests a while and says True, or False when patience has ended."""
    began, rest = time.monotonic(), 0.05

    def again() -> bool:
        nonlocal rest
        if time.monotonic() - began >= patience.seconds:
            return False
        time.sleep(rest)
        rest = min(2 * rest, _LONGEST_REST_S)
        return True

    return again


def told(url: str, error: BaseException) -> str:
    """One line of what the driver said, without a password; Optuna's own wrapping says nothing."""
    if isinstance(error, StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    said = mask_of(url, str(error).strip()).splitlines()
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__


def _patiently(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: PatientStorage, *args: Any, **kwargs: Any) -> Any:
        again, first = rests(self._patience), True
        while True:
            try:
                found = method(self, *args, **kwargs)
                _check_numbers(found, self.url)
                return found
            except UpdateFinishedTrialError:
                if first or method.__name__ != "set_trial_state_values":
                    raise
                return True  # an earlier try was heard, its answer was not
            except StorageInternalError as error:
                first = False
                if is_damage(error):
                    raise EnvironmentProblem(damaged(self.url, told(self.url, error))) from None
                if not again():
                    waited, self._patience.seconds = f"{PATIENCE_S:g} s", 0.0
                    text = f"{mask(self.url)}: expected the study's storage to answer within {waited}"
                    text += f", got {told(self.url, error)}. "
                    text += "See that it runs and can be written to; a run goes on with --resume."
                    raise EnvironmentProblem(text) from None  # the cause may quote the password
            except (ValueError, TypeError, RecursionError, AssertionError, LookupError) as error:
                if isinstance(error, KeyError) or not method.__name__.lstrip("_").startswith("get_"):
                    raise  # of what is not there, or was to be written
                said = f"an entry that cannot be read ({type(error).__name__}: {str(error)[:80]})"
                raise EnvironmentProblem(damaged(self.url, said)) from error

    return call


def _check_numbers(found: object, url: str) -> None:
    """Whatever is a trial among what was read holds numbers where Optuna keeps numbers.

    Raises:
        EnvironmentProblem: it does not; SQLite takes text in any column.
    """
    for trial in found if isinstance(found, list) else [found]:
        if not isinstance(trial, FrozenTrial):
            return
        for value in (*trial.intermediate_values.values(), *(trial.values or ())):
            if not isinstance(value, int | float):
                raise EnvironmentProblem(damaged(url, f"{str(value)[:40]!r} for a number of trial {trial.number}"))


def is_damage(error: Exception) -> bool:
    """Is it the file of the database that is no (longer) one? No patience mends that."""
    return any(type(getattr(e, "orig", None)) is sqlite3.DatabaseError for e in (error, error.__cause__))


def damaged(url: str, said: str) -> str:
    """What to tell of a database that cannot be read, where its driver or Optuna has `said` so."""
    text = f"{mask(url)}: expected a database that Optuna can read, got {said}."
    return f"{text} Bring it back from a copy, or start over with --fresh or another --folder."


# Optuna calls some of them by private names: all are wrapped, whatever this version calls.
for _name, _method in {**vars(RDBStorage), **vars(WaitingKnown)}.items():
    if inspect.isfunction(_method) and not _name.startswith("__"):
        setattr(PatientStorage, _name, _patiently(_method))
