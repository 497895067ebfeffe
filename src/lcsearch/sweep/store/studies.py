"""The Optuna side of a sweep: its study, storage, sampler and pruner, made from the file."""

from __future__ import annotations

import logging
import re
import time
import weakref
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage

from lcsearch.errors import EnvironmentProblem, FileProblem
from lcsearch.schedulers.optuna import CurvePruner, ForecastSampler
from lcsearch.secrets_in_urls import mask, mask_of
from lcsearch.stopping.policy import Policy
from lcsearch.sweep.spec.allocator import FORECASTING
from lcsearch.sweep.spec.load import Sweep
from lcsearch.sweep.spec.model import SweepFile
from lcsearch.sweep.spec.pruner import CurvePrunerSpec, HyperbandPrunerSpec, MedianPrunerSpec
from lcsearch.sweep.spec.sampler import CurveSamplerSpec
from lcsearch.sweep.spec.space import suggest
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.store.sampler import TrialSampler
from lcsearch.sweep.store.storage import Patience, PatientStorage, damaged, is_damage, rests, told

SWEEP = "lcsearch:sweep"
"""The study's user attribute that says which sweep it is of."""

_CREATE_TRIES = 5
_RELATIVE = re.compile(r"(sqlite(?:\+\w+)?:///)(?!/|:memory:|file:)([^?]+)(.*)")
_FILE = re.compile(r"sqlite(?:\+\w+)?:///(?!:memory:|file:)([^?]+)")
_PACKAGES = {"MySQLdb": "mysqlclient", "mysql": "mysql-connector-python"}  # where it is not the module's name
_OF_ONE_MACHINE = {"backend", "budget", "retries", "checkpoints"}  # may differ between machines that share a study


def open_storage(
    sweep: SweepFile, folder: RunFolder, *, checked: bool = False, patience: Patience | None = None
) -> BaseStorage:
    """The storage of `sweep`.

    Args:
        checked: another process has just made or checked its tables, which takes a while: it was there, and is waited
            for if it is not.
        patience: of this process with a storage that does not answer.

    Raises:
        EnvironmentProblem: it cannot be reached.
    """
    url = url_of(sweep, folder)
    patience = patience or Patience()
    again, tries = rests(patience), 0
    while True:
        try:
            storage = PatientStorage(_with_driver(url), patience, checked=checked)
            weakref.finalize(storage, storage.engine.dispose)  # psycopg warns of connections that are left open
            return storage
        except Exception as error:  # drivers raise what they like
            if isinstance(error, ImportError):
                said = mask_of(url, str(error).strip()) or type(error).__name__
                text = f"{mask(url)}: expected the database's driver, got {said.splitlines()[0].rstrip('.')}."
                missing = getattr(error.__cause__, "name", None) or "the driver of your database"
                package = '"lcsearch[postgres]"' if url.startswith("postgres") else _PACKAGES.get(missing, missing)
                raise EnvironmentProblem(f"{text} Install it: pip install {package}") from None
            said = told(url, error)
            if is_damage(error):
                raise EnvironmentProblem(damaged(url, said)) from None
            tries += 1
            # two machines that make the tables of an empty database at once get into each other's way
            rival = tries < _CREATE_TRIES and said.startswith(("IntegrityError", "ProgrammingError"))
            if (rival or checked or "database is locked" in said) and again():
                continue
            text = f"{mask(url)}: expected an Optuna storage that answers, got {said}. See that the URL is right and"
            raise EnvironmentProblem(f"{text} that it runs.") from None  # the cause may quote the password


def url_of(sweep: SweepFile, folder: RunFolder) -> str:
    """The storage's URL: the file's, or the run folder's own."""
    return sweep.backend.storage or folder.default_storage


def anchored(sweep: Sweep) -> Sweep:
    """With a sqlite file that the sweep names by a relative path where it belongs: beside the sweep file.

    SQLAlchemy would look for it wherever a process happens to work.
    """
    found = _RELATIVE.match(sweep.file.backend.storage or "")
    if found is None:
        return sweep
    url = f"{found[1]}{(sweep.path.parent / found[2]).resolve()}{found[3]}"
    placed = sweep.file.backend.model_copy(update={"storage": url})
    return replace(sweep, file=sweep.file.model_copy(update={"backend": placed}))


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
        raise FileProblem(_taken(sweep, folder))


def _taken(sweep: SweepFile, folder: RunFolder) -> str:
    url = mask(url_of(sweep, folder))
    text = f"{url}: expected no study {sweep.name!r}, got one. Choose another `name`, or delete the study yourself"
    text += f": optuna delete-study --study-name {sweep.name} --storage {url}"
    return f"{text}\nIf another machine runs this very sweep there, work along with it: --join"


def fingerprint(sweep: SweepFile) -> dict[str, Any]:
    """What must be equal on all machines that work on one study."""
    turns = () if sweep.pause else ("pause", "allocator")  # an earlier version knew no such keys
    found = sweep.model_dump(mode="json", by_alias=True, exclude={*_OF_ONE_MACHINE, *turns})
    if sweep.turns is not None:
        found["allocator"] = sweep.turns.model_dump(mode="json")  # named or left out, it is the same one
    return found


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
    if not isinstance(theirs, dict):
        raise FileProblem(f"{head}, got one that lcsearch has not made. Choose another `name`.")
    if isinstance(pruner := theirs.get("pruner"), dict) and "opinions" in pruner:  # of an earlier version
        theirs = theirs | {"pruner": {"forecasters" if key == "opinions" else key: pruner[key] for key in pruner}}
    if theirs != ours:
        lines = [
            f"    {key}: {theirs.get(key, 'nothing')} there, {ours.get(key, 'nothing')} here"
            for key in dict.fromkeys([*ours, *theirs])
            if theirs.get(key) != ours.get(key)
        ]
        text = "\n".join([f"{head}, got one of another:", *lines])
        raise FileProblem(f"{text}\nRun the same file on every machine, or choose another `name`.")


def create_study(
    sweep: SweepFile, folder: RunFolder, *, resume: bool, join: bool = False, patience: Patience | None = None
) -> optuna.Study:
    """Create or reopen (on a resume or a join) the study of `sweep`; needs the run lock.

    A run that has had its study does not get another: its trials would begin anew over checkpoints that are there.

    Raises:
        FileProblem: a study of that name stands in a storage of the user's own, and is not to be resumed; or the
            study of a run that is resumed is gone.
        EnvironmentProblem: the storage cannot be reached.
    """
    made = resume and folder.has_study()
    if made:
        _expect_file(sweep, folder)
    storage = open_storage(sweep, folder, patience=patience)
    settings: dict[str, Any] = {"storage": storage, "study_name": sweep.name}
    settings |= {"sampler": make_sampler(sweep), "pruner": make_pruner(sweep, folder)}
    try:
        if made:
            study = optuna.load_study(**settings)
        else:
            study = optuna.create_study(direction=sweep.goal, load_if_exists=resume or join, **settings)
    except KeyError:
        raise FileProblem(_gone(sweep, folder)) from None
    except optuna.exceptions.DuplicatedStudyError:
        raise FileProblem(_taken(sweep, folder)) from None
    if SWEEP not in study.user_attrs:
        study.set_user_attr(SWEEP, fingerprint(sweep))
    folder.note_study()
    return study


def open_study(sweep: SweepFile, folder: RunFolder, *, checked: bool = False) -> optuna.Study:
    """The study as a worker or a reader sees it, who makes none; `checked` as for :func:`open_storage`.

    Raises:
        FileProblem: there is none.
        EnvironmentProblem: the storage cannot be reached.
    """
    _expect_file(sweep, folder)
    storage = open_storage(sweep, folder, checked=checked)
    try:
        return optuna.load_study(
            study_name=sweep.name,
            storage=storage,
            sampler=make_sampler(sweep),
            pruner=make_pruner(sweep, folder),
        )
    except KeyError:
        raise FileProblem(_gone(sweep, folder)) from None


def _expect_file(sweep: SweepFile, folder: RunFolder) -> None:
    """The sqlite file of a study that was made is there: whoever opens it would make an empty one."""
    found = _FILE.match(url_of(sweep, folder))
    if found is None:
        return
    path = Path(found[1])
    if not path.exists():
        raise FileProblem(_gone(sweep, folder))
    if not path.is_file() or (sweep.backend.storage is None and path.is_symlink()):
        what = "a symbolic link" if path.is_symlink() else "something else"
        text = f"{path}: expected the file of the study's database, got {what}. Bring it back"
        raise FileProblem(f"{text}, or name a database that lies elsewhere: backend.storage in the sweep file.")


def _gone(sweep: SweepFile, folder: RunFolder) -> str:
    text = f"{mask(url_of(sweep, folder))}: expected the study {sweep.name!r} of the run in {folder.root}, got none."
    if folder.has_study():
        return f"{text} Bring it back, or start over with --fresh or another --folder."
    return f"{text} It was not made yet: go on with `lcsearch run`, or with its --resume if that was killed."


def make_sampler(sweep: SweepFile) -> BaseSampler:
    """The file's sampler, seeded for each trial."""
    spec = sweep.sampler
    if not isinstance(spec, CurveSamplerSpec):
        return TrialSampler(spec.kind, sweep.seed)
    return ForecastSampler(
        TrialSampler(spec.inner, sweep.seed),
        max_steps=sweep.max_steps,
        judged=sweep.judged,
        space=partial(suggest, space=sweep.space),
        host=sweep.backend.host,
        seed=sweep.seed,
        **spec.model_dump(exclude={"kind", "inner"}),
    )


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
    return CurvePruner(
        max_steps=sweep.max_steps,
        judged=sweep.judged,
        bounds=sweep.bounds,
        decision_log=folder.decisions,
        host=sweep.backend.host,
        **knobs,
    )


def is_forecast(sweep: SweepFile) -> bool:
    """May a look come to a forecast? Startup trials and short ones do not, and no torch is loaded for them."""
    spec = sweep.pruner
    long = sweep.max_steps > Policy().min_observations
    if not isinstance(spec, CurvePrunerSpec) or not long:
        return False
    return sweep.budget.trials > spec.n_startup_trials or spec.rivals > 0


def asks_network(sweep: SweepFile) -> bool:
    """May the network be asked, by looks, for turns or for configurations?"""
    spec = sweep.pruner
    named = spec.forecasters if isinstance(spec, CurvePrunerSpec) else None
    by_turns = sweep.turns is not None and sweep.turns.kind in FORECASTING
    return (is_forecast(sweep) or by_turns or isinstance(sweep.sampler, CurveSamplerSpec)) and (
        named is None or "network" in named
    )


def quiet_optuna() -> None:
    """Optuna's own lines (one for each trial) would tear the live view; warnings stay."""
    optuna.logging.set_verbosity(logging.WARNING)
    logging.getLogger("optuna.storages._rdb.storage").setLevel(logging.ERROR)  # it would tell of every try in vain
