"""Run a sweep: make the folder, start the workers, watch them, and sum up.

Ctrl-C once drains: every worker ends at its trial's next report and the trials stay RUNNING, to be continued from
their checkpoints by `--resume`. (Waiting for whole trials to finish could take hours; nothing beyond the last
checkpoint is lost this way.) Ctrl-C twice kills the workers; what they had checkpointed is kept.

Several machines may work on one study in a storage they all reach, each with a run folder of its own (`--join`). The
study counts the budget; checkpoints, logs and decisions stay in the folder of the machine that made them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import optuna

from lcsearch.errors import EnvironmentProblem, FileProblem
from lcsearch.sweep import backend, claim, preflight, worker
from lcsearch.sweep.budget import read_clock
from lcsearch.sweep.file import SweepFile
from lcsearch.sweep.fleet import Death, Fleet
from lcsearch.sweep.folder import RunFolder, prepare
from lcsearch.sweep.live import View, make_view
from lcsearch.sweep.load import Sweep, load
from lcsearch.sweep.progress import Progress, collect
from lcsearch.sweep.secret import mask
from lcsearch.sweep.stalls import Stalls
from lcsearch.sweep.storage import Patience
from lcsearch.sweep.watch import FAILED, Outcome, Watch, after
from lcsearch.sweep.worker_log import BEGINS, PROBLEM

_TICK_S = 0.1  # how soon a dead worker is noticed
_BARREN_STARTS = 3  # workers that died without taking a trial


def run(
    path: str | Path,
    *,
    folder: str | Path | None = None,
    resume: bool = False,
    fresh: bool = False,
    join: bool = False,
    retry_failed: bool = False,
    seed: int | None = None,
    trials: int | None = None,
    workers: int | None = None,
    pruner: str | None = None,
    overrides: Sequence[str] = (),
    view: View | Callable[[SweepFile, RunFolder], View] = make_view,
) -> Outcome:
    """Run the sweep file at `path` to its end.

    Args:
        folder: where the run lies; `runs/NAME` when None.
        resume: go on with the run in `folder`, whose file must not have changed. `trials` and `workers` may be
            given anew, `seed` and `pruner` are as they were.
        fresh: start over; an earlier run in `folder` is kept as `NAME.old-K`.
        join: work along with other machines on the study of this very sweep in the file's storage, with a run folder
            of this machine's own; the first one makes the study.
        retry_failed: on a resume, run the failed trials again, from their start and with their parameters; each counts
            in the budget in place of the failed one.
        seed, trials, workers, pruner: as in the file, in place of the file's.
        overrides: `key.sub=value` in place of the file's; on a resume those that the run was begun with, and any below
            `budget` and `backend.workers`.
        view: what is shown, or what makes it when all is ready; left out, the terminal chooses.

    Raises:
        FileProblem: file, objective or folder are wrong. EnvironmentProblem: the machine is. Nothing was started.
    """
    if resume and fresh:
        raise FileProblem("expected --resume or --fresh, got both.")
    if resume and join:
        text = "expected --resume or --join, got both. --resume goes on with this folder's run, a joined one too."
        raise FileProblem(text)
    if retry_failed and not resume:
        raise FileProblem("--retry-failed: expected --resume with it, got none. It runs failed trials of a run again.")
    sweep = load(path)
    where = RunFolder(Path(folder or Path("runs") / sweep.file.name).resolve())
    options = {"seed": seed, "trials": trials, "workers": workers, "pruner": pruner}
    if resume:
        chosen = _as_before(sweep, where, overrides, options)
    else:
        chosen = backend.anchored(sweep.override(overrides, **options))
    preflight.check(chosen, resume=resume)
    on_ray = _import_ray() if chosen.file.backend.kind == "ray" else None
    backend.quiet_optuna()

    with ExitStack() as stack:

        def check() -> None:
            if join:
                backend.check_joins(chosen.file, where)
            elif not resume:
                backend.check_free(chosen.file, where)
            if on_ray is not None:
                stack.enter_context(on_ray.cluster(chosen.file, where))

        ready, lock, notice = prepare(chosen, where, resume=resume, fresh=fresh, check=check)
        stack.callback(os.close, lock)
        patience = Patience()
        study = backend.create_study(ready.file, where, resume=resume, join=join, patience=patience)
        shown = view(ready.file, where) if callable(view) else view
        if notice:
            shown.event(notice)
        watch = on_ray.RayWatch if on_ray is not None else partial(_FleetWatch, lock=lock)
        outcome: Outcome = watch(ready, where, study, shown, patience).run(resume, retry_failed=retry_failed)
        return outcome


def _import_ray() -> ModuleType:
    """The launcher's part for Ray, which is an extra, and slow to import.

    Raises:
        EnvironmentProblem: Ray is not installed.
    """
    try:
        from lcsearch.sweep import on_ray
    except ImportError as error:
        text = f"backend.kind: expected Ray, got {error}. Install it: pip install 'lcsearch[ray]'"
        raise EnvironmentProblem(text) from error
    return on_ray


def _as_before(sweep: Sweep, where: RunFolder, overrides: Sequence[str], options: dict[str, Any]) -> Sweep:
    """The resolved sweep of the run that is resumed, with the overrides that may change."""
    if not where.record.exists():
        return sweep  # prepare() says that there is nothing to resume
    before = where.read().file
    for option, had in (("seed", before.seed), ("pruner", before.pruner.kind)):
        if options[option] not in (None, had):
            text = f"--{option}: expected {had}, as this run was started with, got {options[option]}."
            raise FileProblem(f"{text} Leave it out, or start over with --fresh or another --folder.")
    same, may = Sweep(before, sweep.path, sweep.text), ("budget.", "backend.workers.")
    for text in overrides:
        if not text.startswith(may) and backend.anchored(same.override([text])).file != before:
            told = "expected a value that this run was started with, or a key below budget or backend.workers"
            raise FileProblem(
                f"override '{mask(text)}': {told}. Leave it out, or start over with --fresh or another --folder."
            )
    changes = [text for text in overrides if text.startswith(may)]
    return same.override(changes, trials=options["trials"], workers=options["workers"])


class _FleetWatch(Watch):
    """Worker processes on this machine."""

    def __init__(
        self, sweep: Sweep, folder: RunFolder, study: optuna.Study, view: View, patience: Patience, lock: int
    ) -> None:
        super().__init__(sweep, folder, study, view, patience)
        self._fleet = Fleet(folder, sweep.file.backend.workers, lock)
        self._barren = 0
        self._tried = len(self.trials())
        self._stalls = Stalls(self.folder, self.file.backend.workers.stall)

    def insist(self) -> None:
        """Kill the workers now: the loop may wait for a storage that does not answer."""
        self._fleet.strike()
        super().insist()

    def close(self) -> None:
        """Kill what still runs."""
        self._fleet.kill()
        self.silent = {}

    def loop(self) -> None:
        """Keep the slots filled, and bury the dead."""
        drained = False
        while True:
            for death in self._fleet.reap():
                self._bury(death)
            if self.interrupts >= 2:
                return
            if self.ending and not drained:
                drained = True
                self._fleet.drain()
            if not self.ending:
                self._fill()
            if not self._fleet.pids and (self.ending or not self._may_have_to_take_over()):
                return
            self.look()
            time.sleep(_TICK_S)

    def _may_have_to_take_over(self) -> bool:
        """Nothing is left to do here; is it on other machines?"""
        if self.others is None:
            return False
        trials = self.trials()
        if claim.work_left(trials, self.folder, self.file) or self.others.uncertain(trials):
            return True
        if theirs := self.others.trials(trials):
            hosts = ", ".join(sorted({other.host for other in theirs}))
            self.view.event(f"nothing is left to do here; trials still run on {hosts}: {len(theirs)}")
        return False

    def examine(self) -> None:
        """Tell of stalled trials, and kill their workers if the file says so."""
        found = self._stalls.look(self._fleet.pids)
        self.silent = {stall.trial: stall.seconds for stall in found}
        for stall in found:
            if stall.text:
                self.view.event(stall.text, worker=stall.slot, trial=stall.trial)
            if stall.kill:
                self._fleet.kill_one(stall.slot)

    def _fill(self) -> None:
        """Start workers where there is work; at the first call, all of them."""
        empty = self._fleet.empty_slots()
        if not empty:
            return
        for slot in empty[: claim.work_left(self.trials(), self.folder, self.file)]:
            self._fleet.start(slot)

    def _bury(self, death: Death) -> None:
        """A worker ended: give back its trial, say so, and see whether workers can work at all."""
        if death.code == worker.OK and self.ending:
            return  # drained; its trial is for --resume
        explained = (worker.HOPELESS, worker.FILE, worker.ENVIRONMENT)
        told_by_it = self._fleet.told(death.slot)
        if death.code in explained and (text := _problem(told_by_it)):
            self.only_fails |= death.code == worker.HOPELESS and self.problem is None
            self.problem = self.problem or (death.code, text)
            self._release(blame=False)
            return
        if self.interrupts >= 2:
            return
        given = self._release()
        if death.code == worker.OK and not given and not self._left_work(told_by_it):
            return
        head = f"worker {death.slot} {death.how}"
        for trial in given:
            if trial.given_up:
                text = f"trial {trial.number} is marked failed after {trial.retry - 1} retries"
            else:
                place = after(trial.step, self.file.step, self.folder, trial.number)
                text = f"trial {trial.number} goes on {place} in another worker"
                text += f" (retry {trial.retry} of {self.file.retries})"
            told: dict[str, object] = {"trial": trial.number, "retry": trial.retry, "given_up": trial.given_up}
            self.view.event(f"{head}; {text}", worker=death.slot, how=death.how, retries=self.file.retries, **told)
        if not given:
            text = f"{head} between trials; another takes its place"
            self.view.event(text, worker=death.slot, how=death.how)
        n = len(self.trials())
        self._barren = 0 if given or n > self._tried else self._barren + 1
        self._tried = n
        if self._barren >= _BARREN_STARTS:
            log = self.folder.log(death.slot)
            text = f"expected workers that start, got {self._barren} that died at once. See {log}."
            self.problem = (FAILED, text)

    def _release(self, blame: bool = True) -> list[claim.Released]:
        alive, retries = self._fleet.pids.values(), self.file.retries
        return claim.release(self.study, self.folder, alive, retries, blame=blame, shared=self.shared)

    def _left_work(self, told: Sequence[Mapping[str, Any]]) -> bool:
        """Did a worker that exited with 0 leave although there was work, without having taken any?"""
        took = any(record["event"] == BEGINS for record in told)
        return not took and claim.work_left(self.trials(), self.folder, self.file) > 0


def _problem(told: Sequence[Mapping[str, Any]]) -> str:
    """What a worker said was wrong before it ended; empty when it did not."""
    return next((str(record["text"]) for record in reversed(told) if record["event"] == PROBLEM), "")


def reader(folder: RunFolder) -> tuple[Sweep, optuna.Study, Callable[[], Progress]]:
    """A finished or running run, for reading: its sweep, its study, and a function that reads its progress.

    Raises:
        FileProblem: `folder` holds no run.
    """
    sweep = folder.read()
    backend.quiet_optuna()
    study = backend.open_study(sweep.file, folder)

    def progress() -> Progress:
        trials = study.get_trials(deepcopy=False)
        file = sweep.file
        return collect(trials, file.target, file.budget.trials, file.space, now=read_clock(folder).until)

    return sweep, study, progress
