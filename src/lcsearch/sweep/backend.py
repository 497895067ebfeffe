"""The Optuna side of a sweep: its study, storage, sampler and pruner, made from the file."""

from __future__ import annotations

import logging

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

_LOCK_PATIENCE_S = 60  # sqlite: how long a writer waits for the others


def open_storage(sweep: SweepFile, folder: RunFolder) -> BaseStorage:
    """The storage of `sweep`.

    Raises:
        EnvironmentProblem: it cannot be reached.
    """
    url = sweep.backend.storage or folder.default_storage
    try:
        if url.startswith("sqlite"):
            return RDBStorage(url, engine_kwargs={"connect_args": {"timeout": _LOCK_PATIENCE_S}})
        return optuna.storages.get_storage(url)
    except Exception as error:  # drivers raise what they like
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        text = f"{url}: expected an Optuna storage that answers, got {type(error).__name__}: {said}."
        raise EnvironmentProblem(text) from error


def check_free(sweep: SweepFile, folder: RunFolder) -> None:
    """A storage of the user's own holds no study of this name yet. lcsearch deletes no study: others may use it.

    Raises:
        FileProblem: there is one.
        EnvironmentProblem: the storage cannot be reached.
    """
    if sweep.backend.storage is not None and sweep.name in optuna.get_all_study_names(open_storage(sweep, folder)):
        raise FileProblem(_taken(sweep))


def _taken(sweep: SweepFile) -> str:
    url = sweep.backend.storage
    text = f"{url}: expected no study {sweep.name!r}, got one. Choose another `name`, or delete the study yourself"
    return f"{text}: optuna delete-study --study-name {sweep.name} --storage {url}"


def create_study(sweep: SweepFile, folder: RunFolder, *, resume: bool) -> optuna.Study:
    """Create or reopen the study of `sweep`; needs the run lock.

    Raises:
        FileProblem: a study of that name stands in a storage of the user's own, and is not to be resumed.
        EnvironmentProblem: the storage cannot be reached.
    """
    storage = open_storage(sweep, folder)
    try:
        return optuna.create_study(
            storage=storage,
            study_name=sweep.name,
            direction=sweep.goal,
            sampler=make_sampler(sweep),
            pruner=make_pruner(sweep, folder),
            load_if_exists=resume,
        )
    except optuna.exceptions.DuplicatedStudyError:
        raise FileProblem(_taken(sweep)) from None


def open_study(sweep: SweepFile, folder: RunFolder) -> optuna.Study:
    """The study as a worker or a reader sees it."""
    storage = open_storage(sweep, folder)
    try:
        return optuna.load_study(
            study_name=sweep.name,
            storage=storage,
            sampler=make_sampler(sweep),
            pruner=make_pruner(sweep, folder),
        )
    except KeyError:
        text = f"{sweep.backend.storage or folder.default_storage}: expected the study {sweep.name!r}, got none."
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
