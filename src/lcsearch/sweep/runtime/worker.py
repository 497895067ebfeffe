"""A worker process: takes trials and trains them until the budget is used.

Started by the launcher as `python -m lcsearch.sweep.runtime.worker FOLDER --slot K --device D`, with its threads set in
the environment (they must be set before torch is imported) and standard input as the line to the launcher:
"drain" asks the worker to end at the next report, "hurry" to end its program at once and keep what that has printed,
and the end of the line means that the launcher is gone.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import optuna

from lcsearch.errors import EnvironmentProblem, LcsearchError
from lcsearch.schedulers.optuna import CurvePruner, ForecastSampler
from lcsearch.secrets_in_urls import mask_of
from lcsearch.sweep.objective.program import kill_programs
from lcsearch.sweep.runtime.exits import ENVIRONMENT, FILE, HOPELESS, OK, ORPHANED
from lcsearch.sweep.runtime.failures import systematic_failure
from lcsearch.sweep.runtime.liveness import HeartbeatWriter
from lcsearch.sweep.runtime.trial import load_any, run_trial
from lcsearch.sweep.spec.load import Sweep
from lcsearch.sweep.store import ownership, studies, thaws
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.store.turns import Turns
from lcsearch.sweep.store.worker_log import Teller

_REST_S, _LONGEST_REST_S = 0.05, 1.0  # between two questions for a turn
_GRACE_S = 5.0  # an orphan that does not report for this long leaves without a word


class LauncherLink:
    """The line to the launcher. `broken()` is True once the worker should end."""

    def __init__(self) -> None:
        self._drain = threading.Event()
        # a descriptor of our own, not passed on: the objective's children must neither read it nor keep it open
        self._input = os.fdopen(os.dup(0))
        os.set_inheritable(self._input.fileno(), False)
        with open(os.devnull) as nothing:
            os.dup2(nothing.fileno(), 0)
        threading.Thread(target=self._listen, name="launcher", daemon=True).start()

    def _listen(self) -> None:
        for line in self._input:
            if line.strip() in ("drain", "hurry"):
                self._drain.set()
            if line.strip() == "hurry":
                kill_programs()
        self._drain.set()
        time.sleep(_GRACE_S)
        kill_own_group()

    def broken(self) -> bool:
        """Should this worker end?"""
        return self._drain.is_set()


def kill_own_group() -> None:
    """End this process now, and the objective's children with it: state on disk is whole at every moment."""
    if os.getpgrp() == os.getpid():  # so the launcher starts it; by hand, the group may be a shell's
        os.killpg(0, signal.SIGKILL)
    os._exit(ORPHANED)


def hold_run_lock(lock: int) -> None:
    """Hold the run lock in this process alone: a child of the objective that outlives it must not block --resume."""
    held = [lock]  # a grandchild finds it empty: the number may stand for another file there
    os.set_inheritable(lock, False)
    os.register_at_fork(after_in_child=lambda: os.close(held.pop()) if held else None)


def work(folder: RunFolder, slot: int, device: str, interrupted: Callable[[], bool]) -> int:
    """Take and train trials until nothing is left; returns the exit code."""
    sweep = folder.read()
    objective = load_any(sweep)
    study = studies.open_study(sweep.file, folder, checked=True)  # by the launcher
    _prepare(study, sweep, folder)
    turns = Turns(study, folder, slot, sweep.file) if sweep.file.pause else None
    pulse, tell = HeartbeatWriter(folder.pulse(slot)), Teller(folder.told(slot))
    began, rest = datetime.now(), _REST_S
    while not interrupted():
        if text := systematic_failure(study.get_trials(deepcopy=False), began):
            tell.problem(f"{text}\nTracebacks: {folder.logs}")
            return HOPELESS
        taken = thaws.take(study, folder, slot, sweep.file)
        if taken is None:
            taken = ownership.take(study, folder, slot, sweep.file) if turns is None else turns.take()
        if taken is None and turns is not None and not turns.over:
            time.sleep(rest)  # others train: a turn may come of it
            rest = min(2 * rest, _LONGEST_REST_S)
            continue
        if taken is None:
            if turns is not None:
                turns.finish()
            break
        rest = _REST_S
        tell.begins(taken.trial.number, adopted=taken.adopted)
        pulse.begin(taken.trial.number)
        state = run_trial(taken, sweep, folder, objective, device, interrupted, pulse.reported, turns)
        pulse.end()
        tell.ended(taken.trial.number, state.name)
    return OK


def _prepare(study: optuna.Study, sweep: Sweep, folder: RunFolder) -> None:
    """Load the forecaster before there is a trial: at the first look a program would train on over it, for seconds."""
    asked = studies.is_forecast(sweep.file) and isinstance(study.pruner, CurvePruner)
    chosen = isinstance(study.sampler, ForecastSampler)
    if not (asked or chosen) or not ownership.work_left(study.get_trials(deepcopy=False), folder, sweep.file):
        return
    if isinstance(study.pruner, CurvePruner):  # its model is the sampler's, too
        study.pruner.prepare()
    elif isinstance(study.sampler, ForecastSampler):
        study.sampler.session.prepare()


def url_of(folder: RunFolder) -> str | None:
    """The storage the run's file names."""
    try:
        return folder.read().file.backend.storage
    except LcsearchError:
        return None


def main() -> int:
    """The process's entry."""
    parser = argparse.ArgumentParser(prog="lcsearch.sweep.runtime.worker", description="One worker of a sweep.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--slot", type=int, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--lock", type=int, help="descriptor of the run lock")
    options = parser.parse_args()
    if options.lock is not None:
        hold_run_lock(options.lock)
    line = LauncherLink()
    studies.quiet_optuna()
    folder = RunFolder(options.folder)
    try:
        return work(folder, options.slot, options.device, line.broken)
    except LcsearchError as error:
        if error.__cause__ is not None:
            said = "".join(traceback.format_exception(error.__cause__))
            print(mask_of(url_of(folder), said), file=sys.stderr, flush=True)
        Teller(folder.told(options.slot)).problem(str(error))
        return ENVIRONMENT if isinstance(error, EnvironmentProblem) else FILE


if __name__ == "__main__":
    sys.exit(main())
