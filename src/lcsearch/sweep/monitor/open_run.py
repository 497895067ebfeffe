"""A run opened for reading, whether it runs or is over."""

from __future__ import annotations

from collections.abc import Callable

import optuna

from lcsearch.schedulers.optuna import CurvePruner
from lcsearch.sweep.monitor.progress import Progress, collect
from lcsearch.sweep.monitor.state import StateReader, SweepState
from lcsearch.sweep.spec.load import Sweep
from lcsearch.sweep.store import studies
from lcsearch.sweep.store.budget import read_clock
from lcsearch.sweep.store.folder import RunFolder


def reader(folder: RunFolder) -> tuple[Sweep, optuna.Study, Callable[[], Progress]]:
    """A finished or running run, for reading: its sweep, its study, and a function that reads its progress.

    Raises:
        FileProblem: `folder` holds no run.
    """
    sweep = folder.read()
    studies.quiet_optuna()
    study = studies.open_study(sweep.file, folder)
    if isinstance(study.pruner, CurvePruner):
        study.pruner.session.keeps_audits = False

    def progress() -> Progress:
        trials = study.get_trials(deepcopy=False)
        file = sweep.file
        now = read_clock(folder).until
        return collect(trials, file.target, file.budget.trials, file.space, now=now, prices=file.prices)

    return sweep, study, progress


def read_state(folder: RunFolder) -> tuple[optuna.Study, SweepState]:
    """A finished or running run as it stands: its study, and its state.

    Raises:
        FileProblem: `folder` holds no run.
    """
    sweep, study, progress = reader(folder)
    return study, StateReader(sweep.file, folder).state(progress(), study)
