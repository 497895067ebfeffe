"""The Optuna side of a sweep: its study, storage, sampler and pruner, made from the file."""

from __future__ import annotations

import logging
import time
import weakref
from importlib.util import find_spec
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.storages import BaseStorage, RDBStorage

from lcsearch.errors import EnvironmentProblem, FileProblem
from lcsearch.schedulers.optuna import CurvePruner
from lcsearch.sweep.file import (
    CurvePrunerSpec,
    HyperbandPrunerSpec,
    MedianPrunerSpec,
    SweepFile,
)
from lcsearch.sweep.folder import RunFolder
from lcsearch.sweep.sampler import TrialSampler
from lcsearch.sweep.secret import mask, mask_of

SWEEP = "lcsearch:sweep"
"""The study's user attribute that says which sweep it is of."""

_LOCK_PATIENCE_S = 60  # sqlite: how long a writer waits for the others
_CREATE_TRIES = 5
_PACKAGES = {"MySQLdb": "mysqlclient", "mysql": "mysql-connector-python"}  # where it is not the module's name
_OF_ONE_MACHINE = {"backend", "budget", "retries"}  # keys that may differ between machines that share a study


def open_storage(sweep: SweepFile, folder: RunFolder, *, checked: bool = False) -> BaseStorage:
    """The storage of `sweep`; `checked`: another process has just made or checked its tables, which takes a while.

    Raises:
        EnvironmentProblem: it cannot be reached.
    """
    url = sweep.backend.storage or folder.default_storage
    engine = {"connect_args": {"timeout": _LOCK_PATIENCE_S}} if url.startswith("sqlite") else {}
    for attempt in range(1, _CREATE_TRIES + 1):
        try:
            storage = RDBStorage(
                _with_driver(url),
                engine_kwargs=engine,
                skip_compatibility_check=checked,
                skip_table_creation=checked,
            )
            weakref.finalize(storage, storage.engine.dispose)  # psycopg warns of connections that are left open
            return storage
        except Exception as error:  # drivers raise what they like
            said = mask_of(url, str(error).strip()).splitlines() or [type(error).__name__]
            if isinstance(error, ImportError):
                text = f"{mask(url)}: expected the database's driver, got {said[0].rstrip('.')}."
                missing = getattr(error.__cause__, "name", None) or "the driver of your database"
                package = '"lcsearch[postgres]"' if url.startswith("postgres") else _PACKAGES.get(missing, missing)
                raise EnvironmentProblem(f"{text} Install it: pip install {package}") from None
            # two machines that make the tables of an empty database at once get into each other's way
            if attempt < _CREATE_TRIES and type(error).__name__ in ("IntegrityError", "ProgrammingError"):
                time.sleep(0.2 * attempt)
                continue
            text = f"{mask(url)}: expected an Optuna storage that answers, got {type(error).__name__}: {said[0]}."
            raise EnvironmentProblem(text) from None  # the cause may quote the password
    raise AssertionError("the last try returns or raises")


def _with_driver(url: str) -> str:
    """PostgreSQL without a driver's name means psycopg, whatever SQLAlchemy of this version would choose."""
    for scheme in ("postgresql://", "postgres://"):
        if url.startswith(scheme) and (find_spec("psycopg") or not find_spec("psycopg2")):
            return "postgresql+psycopg://" + url.removeprefix(scheme)
    return url


def check_free(sweep: SweepFile, folder: RunFolder) -> None:
    """A storage of the user's own holds no study of this name yet. lcsearch deletes no study: others may use it.

    Raises:
        FileProblem: there is one.
        EnvironmentProblem: the storage cannot be reached.
    """
    if sweep.backend.storage is not None and sweep.name in optuna.get_all_study_names(open_storage(sweep, folder)):
        raise FileProblem(_taken(sweep))


def _taken(sweep: SweepFile) -> str:
    url = mask(sweep.backend.storage or "")
    text = f"{url}: expected no study {sweep.name!r}, got one. Choose another `name`, or delete the study yourself"
    text += f": optuna delete-study --study-name {sweep.name} --storage {url}"
    return f"{text}\nIf another machine runs this very sweep there, work along with it: --join"


def fingerprint(sweep: SweepFile) -> dict[str, Any]:
    """What must be equal on all machines that work on one study."""
    return sweep.model_dump(mode="json", by_alias=True, exclude=_OF_ONE_MACHINE)


def check_joins(sweep: SweepFile, folder: RunFolder) -> None:
    """The study of this name in the user's own storage, if there is one, is of this very sweep.

    Raises:
        FileProblem: it is not, or the storage is the run folder's own.
        EnvironmentProblem: the storage cannot be reached.
    """
    if sweep.backend.kind != "optuna":
        raise FileProblem(f"--join: expected backend kind optuna, got {sweep.backend.kind}.")
    url = sweep.backend.storage
    if url is None:
        text = "--join: expected a storage that all machines reach, got none."
        raise FileProblem(f"{text} Name one in the file: backend.storage")
    storage = open_storage(sweep, folder)
    if sweep.name not in optuna.get_all_study_names(storage):
        return
    study = optuna.load_study(study_name=sweep.name, storage=storage)
    theirs, ours = study.user_attrs.get(SWEEP), fingerprint(sweep)
    if theirs is None:
        # its creator may be about to sign it; a study of somebody's own never is
        time.sleep(1.0)
        theirs = study.user_attrs.get(SWEEP)
    head = f"{mask(url)}: expected the study {sweep.name!r} to be of this sweep"
    if theirs is None:
        raise FileProblem(f"{head}, got one that lcsearch has not made. Choose another `name`.")
    if theirs != ours:
        lines = [
            f"    {key}: {theirs.get(key, 'nothing')} there, {ours.get(key, 'nothing')} here"
            for key in dict.fromkeys([*ours, *theirs])
            if theirs.get(key) != ours.get(key)
        ]
        text = "\n".join([f"{head}, got one of another:", *lines])
        raise FileProblem(f"{text}\nRun the same file on every machine, or choose another `name`.")


def create_study(sweep: SweepFile, folder: RunFolder, *, resume: bool) -> optuna.Study:
    """Create or reopen (on a resume or a join) the study of `sweep`; needs the run lock.

    Raises:
        FileProblem: a study of that name stands in a storage of the user's own, and is not to be resumed.
        EnvironmentProblem: the storage cannot be reached.
    """
    storage = open_storage(sweep, folder)
    try:
        study = optuna.create_study(
            storage=storage,
            study_name=sweep.name,
            direction=sweep.goal,
            sampler=make_sampler(sweep),
            pruner=make_pruner(sweep, folder),
            load_if_exists=resume,
        )
    except optuna.exceptions.DuplicatedStudyError:
        raise FileProblem(_taken(sweep)) from None
    if SWEEP not in study.user_attrs:
        study.set_user_attr(SWEEP, fingerprint(sweep))
    return study


def open_study(sweep: SweepFile, folder: RunFolder, *, checked: bool = False) -> optuna.Study:
    """The study as a worker or a reader sees it; `checked` as for :func:`open_storage`."""
    storage = open_storage(sweep, folder, checked=checked)
    try:
        return optuna.load_study(
            study_name=sweep.name,
            storage=storage,
            sampler=make_sampler(sweep),
            pruner=make_pruner(sweep, folder),
        )
    except KeyError:
        url = mask(sweep.backend.storage or folder.default_storage)
        text = f"{url}: expected the study {sweep.name!r}, got none."
        raise EnvironmentProblem(text) from None


def make_sampler(sweep: SweepFile) -> TrialSampler:
    """The file's sampler, seeded for each trial."""
    return TrialSampler(sweep.sampler.kind, sweep.seed)


def make_pruner(sweep: SweepFile, folder: RunFolder) -> BasePruner:
    """The file's pruner."""
    match sweep.pruner:
        case CurvePrunerSpec() as spec:
            return curve_pruner(spec, sweep, folder)
        case MedianPrunerSpec() as spec:
            return optuna.pruners.MedianPruner(
                spec.n_startup_trials,
                spec.n_warmup_steps,
                spec.interval_steps,
                n_min_trials=spec.n_min_trials,
            )
        case HyperbandPrunerSpec() as spec:
            return optuna.pruners.HyperbandPruner(
                min_resource=spec.min_resource,
                max_resource=sweep.max_steps,
                reduction_factor=spec.reduction_factor,
            )
        case _:
            return optuna.pruners.NopPruner()


def curve_pruner(spec: CurvePrunerSpec, sweep: SweepFile, folder: RunFolder) -> BasePruner:
    """lcsearch's own pruner with the knobs of the file."""
    knobs = spec.model_dump(exclude={"kind"})
    return CurvePruner(max_steps=sweep.max_steps, judged=sweep.judged, decision_log=folder.decisions, **knobs)


def quiet_optuna() -> None:
    """Optuna's own lines (one for each trial) would tear the live view; warnings stay."""
    optuna.logging.set_verbosity(logging.WARNING)
