"""Run a sweep: make the folder, start the workers, watch them, and sum up.

Ctrl-C once drains: every worker ends at its trial's next report and the trials stay RUNNING, to be continued from
their checkpoints by `--resume`. (Waiting for whole trials to finish could take hours; nothing beyond the last
checkpoint is lost this way.) Ctrl-C twice kills the workers; what they had checkpointed is kept.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from lcsearch.errors import FileProblem
from lcsearch.sweep import backend, claim, worker
from lcsearch.sweep.fleet import Death, Fleet, check_devices
from lcsearch.sweep.folder import RunFolder, prepare
from lcsearch.sweep.live import View, make_view
from lcsearch.sweep.load import Sweep, load
from lcsearch.sweep.progress import Progress, collect

SUCCESS, FAILED, INTERRUPTED = 0, 1, 130

_TICK_S = 0.1  # how soon a dead worker is noticed
_LOOK_S = 1.0  # how often the study is read for the view
_FIRST_FAILURES = 5  # this many failures before any success end the sweep,
_LATER_FAILURES = 10  # and this many in a row at any time
_BARREN_STARTS = 3  # workers that died without taking a trial


@dataclass(frozen=True)
class Outcome:
    """How a sweep ended.

    Attributes:
        code: 0 when at least one trial is COMPLETE and the budget is used, 1 when the sweep failed, 130 when it was
            interrupted.
        message: why, unless all went well.
        seconds: wall clock of this launch.
    """

    folder: Path
    progress: Progress
    study: optuna.Study
    code: int
    message: str
    seconds: float


def run(
    path: str | Path,
    *,
    folder: str | Path | None = None,
    resume: bool = False,
    fresh: bool = False,
    seed: int | None = None,
    trials: int | None = None,
    workers: int | None = None,
    pruner: str | None = None,
    view: View | None = None,
) -> Outcome:
    """Run the sweep file at `path` to its end.

    Args:
        folder: where the run lies; `runs/NAME` when None.
        resume: go on with the run in `folder`, whose file must not have changed. `trials` and `workers` may be
            given anew, `seed` and `pruner` are as they were.
        fresh: start over; an earlier run in `folder` is kept as `NAME.old-K`.
        seed, trials, workers, pruner: as in the file, in place of the file's.
        view: what is shown; chosen by the terminal when None.

    Raises:
        FileProblem: file, objective or folder are wrong. EnvironmentProblem: the machine is. Nothing was started.
    """
    if resume and fresh:
        raise FileProblem("expected --resume or --fresh, got both.")
    sweep = load(path)
    where = RunFolder(Path(folder or Path("runs") / sweep.file.name).resolve())
    overrides = {"seed": seed, "trials": trials, "workers": workers, "pruner": pruner}
    chosen = _as_before(sweep, where, overrides) if resume else sweep.override(**overrides)
    check_devices(chosen.file.backend.workers)
    backend.quiet_optuna()

    def check() -> None:
        if not resume:
            backend.check_free(chosen.file, where)

    ready, lock, notice = prepare(chosen, where, resume=resume, fresh=fresh, check=check)
    try:
        study = backend.create_study(ready.file, where, resume=resume)
        view = view or make_view(ready.file, where)
        if notice:
            view.event(notice)
        return _Watch(ready, where, study, view, lock).run(resume)
    finally:
        os.close(lock)


def _as_before(sweep: Sweep, where: RunFolder, overrides: dict[str, Any]) -> Sweep:
    """The resolved sweep of the run that is resumed, with the overrides that may change."""
    if not where.record.exists():
        return sweep  # prepare() says that there is nothing to resume
    before = where.read().file
    for option, had in (("seed", before.seed), ("pruner", before.pruner.kind)):
        if overrides[option] not in (None, had):
            text = f"--{option}: expected {had}, as this run was started with, got {overrides[option]}."
            raise FileProblem(f"{text} Leave it out, or start over with --fresh or another --folder.")
    same = Sweep(before, sweep.path, sweep.text)
    return same.override(trials=overrides["trials"], workers=overrides["workers"])


class _Watch:
    """The loop of one launch."""

    def __init__(self, sweep: Sweep, folder: RunFolder, study: optuna.Study, view: View, lock: int) -> None:
        self._file, self._folder, self._study, self._view = sweep.file, folder, study, view
        self._fleet = Fleet(folder, sweep.file.backend.workers, lock)
        self._began = time.monotonic()
        self._interrupts = 0
        self._barren = 0
        self._tried = len(self._trials())
        self._failures_before = _failures(self._trials())
        self._problem: tuple[int, str] | None = None  # (exit code, message): end the sweep

    def run(self, resume: bool) -> Outcome:
        if resume:
            # the lock of the folder is ours: nobody else is at work on a study that lies in it, so whoever signed
            # a trial is gone, even if this machine went by another name then (a container does)
            anywhere = self._file.backend.storage is None
            given = claim.release(self._study, self._folder, (), self._file.retries, blame=False, anywhere=anywhere)
            for trial in given:
                self._view.event(f"trial {trial.number} goes on {_after(trial.step, self._file.step)}")
            for number, host in claim.foreign(self._study):
                self._view.event(f"trial {number} is left to the worker on {host} that has it")
        with self._signals():
            self._view.start()
            try:
                self._loop()
            finally:
                self._fleet.kill()
                self._show(self._trials())
                self._view.stop()
        return self._outcome()

    def _loop(self) -> None:
        last_look, drained, told = 0.0, False, False
        while True:
            for death in self._fleet.reap():
                self._bury(death)
            if self._interrupts and not told:
                told = True
                text = "draining: workers end at their next report, trials can be resumed. Again to kill them"
                self._view.event(text)
            if self._interrupts >= 2:
                return
            ending = self._interrupts > 0 or self._problem is not None
            if ending and not drained:
                drained = True
                self._fleet.drain()
            if not ending:
                self._fill()
            if not self._fleet.pids:
                return
            if time.monotonic() - last_look >= _LOOK_S:
                last_look = time.monotonic()
                trials = self._trials()
                self._show(trials)
                self._check_failures(trials)
            time.sleep(_TICK_S)

    def _fill(self) -> None:
        """Start workers where there is work; at the first call, all of them."""
        empty = self._fleet.empty_slots()
        if not empty:
            return
        for slot in empty[: claim.work_left(self._trials(), self._file.budget.trials)]:
            self._fleet.start(slot)

    def _bury(self, death: Death) -> None:
        """A worker ended: give back its trial, say so, and see whether workers can work at all."""
        if death.code == worker.OK and (self._interrupts or self._problem is not None):
            return  # drained; its trial is for --resume
        if death.code in (worker.FILE, worker.ENVIRONMENT) and (text := _last_words(self._fleet.said(death.slot))):
            self._problem = self._problem or (death.code, text)
            claim.release(self._study, self._folder, self._fleet.pids.values(), self._file.retries, blame=False)
            return
        if self._interrupts >= 2:
            return
        given = claim.release(self._study, self._folder, self._fleet.pids.values(), self._file.retries)
        if death.code == worker.OK and not given and not self._left_work(self._fleet.said(death.slot)):
            return
        head = f"worker {death.slot} {death.how}"
        for trial in given:
            if trial.given_up:
                text = f"trial {trial.number} is marked failed after {trial.retry - 1} retries"
            else:
                text = f"trial {trial.number} goes on {_after(trial.step, self._file.step)} in another worker"
                text += f" (retry {trial.retry} of {self._file.retries})"
            self._view.event(f"{head}; {text}")
        if not given:
            self._view.event(f"{head} between trials; another takes its place")
        n = len(self._trials())
        self._barren = 0 if given or n > self._tried else self._barren + 1
        self._tried = n
        if self._barren >= _BARREN_STARTS:
            log = self._folder.log(death.slot)
            text = f"expected workers that start, got {self._barren} that died at once. See {log}."
            self._problem = (FAILED, text)

    def _left_work(self, said: str) -> bool:
        """Did a worker that exited with 0 leave although there was work, without having taken any?"""
        took = any(line.startswith("trial ") for line in said.splitlines())
        return not took and claim.work_left(self._trials(), self._file.budget.trials) > 0

    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _check_failures(self, trials: list[FrozenTrial]) -> None:
        """End a sweep that only fails, counting from this launch."""
        finished = [t for t in trials if t.state.is_finished()]
        finished.sort(key=lambda t: (t.datetime_complete is not None, t.datetime_complete, t.number))
        row = 0
        while row < len(finished) and finished[-1 - row].state == TrialState.FAIL:
            row += 1
        row = min(row, _failures(trials) - self._failures_before)
        limit = _LATER_FAILURES if row < len(finished) else _FIRST_FAILURES
        if row >= limit and self._problem is None:
            error = finished[-1].user_attrs.get(claim.ERROR, "")
            text = f"{row} trials failed in a row, so the sweep was ended. The last said: {error}"
            self._problem = (FAILED, f"{text}\nTracebacks: {self._folder.logs}")

    def _show(self, trials: list[FrozenTrial]) -> None:
        self._view.update(self._progress(trials), self._study)

    def _progress(self, trials: list[FrozenTrial]) -> Progress:
        return collect(trials, self._file.target, self._file.budget.trials, self._file.space)

    def _outcome(self) -> Outcome:
        progress = self._progress(self._trials())
        code, message = SUCCESS, ""
        if self._problem is not None:
            code, message = self._problem
        elif self._interrupts:
            code, message = INTERRUPTED, "interrupted; go on with --resume"
        elif not progress.of("complete"):
            code, message = FAILED, "no trial ran to its end"
        seconds = time.monotonic() - self._began
        return Outcome(self._folder.root, progress, self._study, code, message, seconds)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM drain, the second kills; only the main thread may listen."""

        def interrupt(number: int, frame: FrameType | None) -> None:
            self._interrupts += 1  # the loop speaks: the view may be in the middle of a line

        before: dict[signal.Signals, Any] = {}
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                before[number] = signal.signal(number, interrupt)
        except ValueError:
            pass  # not the main thread: the caller's own handling stays
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _last_words(said: str) -> str:
    """What a worker said was wrong before it ended; empty when it did not."""
    lines = said.splitlines()
    at = next((i for i in reversed(range(len(lines))) if lines[i].startswith(worker.PROBLEM)), None)
    return "" if at is None else "\n".join(lines[at:]).removeprefix(worker.PROBLEM)


def _failures(trials: list[FrozenTrial]) -> int:
    return sum(t.state == TrialState.FAIL for t in trials)


def _after(step: int | None, unit: str) -> str:
    return "from its start" if step is None else f"from its last checkpoint, if any (it had reported {unit} {step})"


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
        return collect(trials, sweep.file.target, sweep.file.budget.trials, sweep.file.space)

    return sweep, study, progress
