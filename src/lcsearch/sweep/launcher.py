"""Run a sweep: make the folder, start the workers, watch them, and sum up.

Ctrl-C once drains: every worker ends at its trial's next report and the trials stay RUNNING, to be continued from
their checkpoints by `--resume`. (Waiting for whole trials to finish could take hours; nothing beyond the last
checkpoint is lost this way.) Ctrl-C twice kills the workers; what they had checkpointed is kept.

Several machines may work on one study in a storage they all reach, each with a run folder of its own (`--join`). The
study counts the budget; checkpoints, logs and decisions stay in the folder of the machine that made them.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from lcsearch.errors import EnvironmentProblem, FileProblem
from lcsearch.sweep import backend, claim, machines, preflight, record, worker
from lcsearch.sweep.budget import Clock, limit_now, read_clock
from lcsearch.sweep.file import SweepFile
from lcsearch.sweep.fleet import Death, Fleet
from lcsearch.sweep.folder import RunFolder, prepare
from lcsearch.sweep.interrupts import counted
from lcsearch.sweep.live import View, make_view
from lcsearch.sweep.load import Sweep, load
from lcsearch.sweep.neighbours import Neighbours
from lcsearch.sweep.progress import Best, Progress, collect, fruitless, hopeless
from lcsearch.sweep.secret import mask
from lcsearch.sweep.stalls import Stalls
from lcsearch.sweep.storage import Patience

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
        code: 0 when the budget is used, a trial is COMPLETE and there is a best value, 1 when the sweep failed, 130
            when it was interrupted.
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
    join: bool = False,
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
        seed, trials, workers, pruner: as in the file, in place of the file's.
        overrides: `key.sub=value` in place of the file's; on a resume only below `budget` and `backend.workers`.
        view: what is shown, or what makes it when all is ready; left out, the terminal chooses.

    Raises:
        FileProblem: file, objective or folder are wrong. EnvironmentProblem: the machine is. Nothing was started.
    """
    if resume and fresh:
        raise FileProblem("expected --resume or --fresh, got both.")
    if resume and join:
        text = "expected --resume or --join, got both. --resume goes on with this folder's run, a joined one too."
        raise FileProblem(text)
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
        outcome: Outcome = watch(ready, where, study, shown, patience).run(resume)
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
    for text in overrides:
        if not text.startswith(("budget.", "backend.workers.")):
            may = "expected a key below budget or backend.workers, which may change when a run is resumed"
            raise FileProblem(
                f"override '{mask(text)}': {may}. Leave it out, or start over with --fresh or another --folder."
            )
    same = Sweep(before, sweep.path, sweep.text)
    return same.override(overrides, trials=options["trials"], workers=options["workers"])


class Watch:
    """One launch of a sweep: what every backend's loop needs. A backend fills in :meth:`loop`."""

    interrupted = "draining: workers end at their next report, trials can be resumed. Again to kill them"

    def __init__(self, sweep: Sweep, folder: RunFolder, study: optuna.Study, view: View, patience: Patience) -> None:
        self.file, self.folder, self.study, self.view = sweep.file, folder, study, view
        self._patience = patience
        self._may_break_off = False
        self.interrupts = 0
        self._heard = 0  # how many of them were counted by signal
        self.problem: tuple[int, str] | None = None  # (exit code, message): end the sweep
        self._began = time.monotonic()
        self._clock = Clock(folder)
        self._limit_told = False
        self._last_look = 0.0
        self._told = False
        self._best: Best | None = None
        trials = self.trials()
        self._failures_before = _failures(trials)
        self.shared = self.file.backend.storage is not None and self.file.backend.kind == "optuna"
        self.silent: dict[int, float] = {}  # trial -> seconds since its last report, of those that are overdue
        self.run_id = folder.identity()
        self.others = Neighbours(study, folder, self.file.retries) if self.shared else None
        self._seen = self._progress(trials)

    def loop(self) -> None:
        """Train until nothing is left, `ending`, or a second interrupt."""
        raise NotImplementedError

    def close(self) -> None:
        """Leave nothing running."""

    def insist(self) -> None:
        """A second interrupt has come: break off the loop, whatever it waits for; called in the signal's handler."""
        self._patience.end()
        if self._may_break_off:
            self._may_break_off = False
            raise KeyboardInterrupt

    def run(self, resume: bool) -> Outcome:
        """From the first trial to the outcome."""
        if resume:
            # the lock of the folder is ours: nobody else is at work on a study that lies in it, so whoever signed
            # a trial is gone, even if this machine went by another name then (a container does)
            given = claim.release(
                self.study,
                self.folder,
                (),
                self.file.retries,
                blame=False,
                shared=self.shared,
                anywhere=not self.shared,
                until=self._clock.before.until,
            )
            for trial in given:
                place = after(trial.step, self.file.step, self.folder, trial.number)
                self.view.event(f"trial {trial.number} goes on {place}")
            for other in self.others.trials(self.trials()) if self.others else ():
                self.view.event(f"trial {other.number} is left to the worker on {other.host} that has it")
        with self._signals(), self._heard_by_others():
            self.view.start()
            try:
                self._to_the_end(self.loop)
            finally:
                self.close()
                self._clock.tick()
                self._to_the_end(self._show)
                self.view.stop()
        return self._outcome()

    def _to_the_end(self, part: Callable[[], None]) -> None:
        """Run `part`, until a second interrupt breaks it off or the storage is given up: what was seen last stands."""
        try:
            self._may_break_off = True
            part()
        except KeyboardInterrupt:
            if self.interrupts < 2:
                raise
        except EnvironmentProblem as error:
            if self.interrupts < 2:
                self.problem = self.problem or (worker.ENVIRONMENT, str(error))
        finally:
            self._may_break_off = False

    @property
    def ending(self) -> bool:
        """No trial is to be begun any more."""
        return self.interrupts > 0 or self.problem is not None

    def look(self) -> None:
        """Say what has happened and, once a second, show the study; called in every turn of a loop."""
        if self.interrupts and not self._told:
            self._told = True
            self.view.event(self.interrupted)
        if time.monotonic() - self._last_look >= _LOOK_S:
            self._last_look = time.monotonic()
            trials = self.trials()
            self._clock.tick()
            self._tell_limit(trials)
            self.examine()
            self._show(trials)
            self._check_failures(trials)
            if self.others is not None and not self.ending:
                for text in self.others.mind(trials):
                    self.view.event(text)

    def examine(self) -> None:
        """See whether the trials that run here make headway; once a second."""

    def trials(self) -> list[FrozenTrial]:
        """The study's trials as they stand."""
        return claim.counted(self.study.get_trials(deepcopy=False))

    @contextmanager
    def _heard_by_others(self) -> Iterator[None]:
        """Other machines hear that this one lives."""
        beat = machines.Beat(self.study, self.run_id) if self.shared else None
        try:
            yield
        finally:
            if beat is not None:
                beat.stop()

    def _tell_limit(self, trials: list[FrozenTrial]) -> None:
        """Say once that steps or seconds are used up while trials still run."""
        if self._limit_told or (limit := limit_now(self.file, self.folder, trials)) is None:
            return
        self._limit_told = True
        running = sum(t.state == TrialState.RUNNING for t in trials)
        if limit != "trials":
            n = getattr(self.file.budget, limit)
            what = f"{n} {self.file.step}s are spent" if limit == "steps" else f"{n:g} seconds are used"
            text = f"budget.{limit}: {what}, no trial is begun any more"
            self.view.event(text + (f"; {running} running go{'es' * (running == 1)} on" if running else ""))

    def _check_failures(self, trials: list[FrozenTrial]) -> None:
        """End a sweep that only fails, counting from this launch."""
        finished = [t for t in trials if t.state.is_finished()]
        finished.sort(key=lambda t: (t.datetime_complete is not None, t.datetime_complete, t.number))
        row = 0
        while row < len(finished) and finished[-1 - row].state == TrialState.FAIL:
            row += 1
        row = min(row, _failures(trials) - self._failures_before)
        limit = _LATER_FAILURES if row < len(finished) else _FIRST_FAILURES
        if row >= limit and self.problem is None:
            error = finished[-1].user_attrs.get(claim.ERROR, "")
            text = f"{row} trials failed in a row, so the sweep was ended. The last said: {error}"
            text = hopeless(trials, datetime.min) or text
            self.problem = (FAILED, f"{text}\nTracebacks: {self.folder.logs}")

    def _show(self, trials: list[FrozenTrial] | None = None) -> None:
        progress = self._seen = self._progress(self.trials() if trials is None else trials)
        if progress.best is not None and progress.best != self._best:
            self._best = progress.best
            record.note_best(self.study, progress.best)
        self.view.update(progress, self.study)

    def _progress(self, trials: list[FrozenTrial]) -> Progress:
        file = self.file
        progress = collect(trials, file.target, file.budget.trials, file.space, now=datetime.now(UTC))
        return replace(progress, silent=dict(self.silent))

    def _outcome(self) -> Outcome:
        progress = self._seen
        code, message = SUCCESS, ""
        if self.problem is not None:
            code, message = self.problem
        elif self.interrupts:
            code, message = INTERRUPTED, "interrupted; go on with --resume"
        elif text := fruitless(progress, self.file):
            code, message = FAILED, text
        seconds = time.monotonic() - self._began
        return Outcome(self.folder.root, progress, self.study, code, message, seconds)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGINT, SIGTERM and a terminal that closes drain, the second kills; only the main thread may listen."""
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup: the sweep is to outlive its terminal
            numbers.append(signal.SIGHUP)
        with ExitStack() as stack:
            with suppress(ValueError):  # not the main thread: the caller's own handling stays
                stack.enter_context(counted(numbers, self._interrupt))
            yield

    def _interrupt(self, heard: int) -> None:
        """So many interrupts were heard so far; the loop speaks of them: the view may be in the middle of a line."""
        if heard > self._heard:
            self.interrupts += heard - self._heard
            self._heard = heard
        if self.interrupts >= 2:
            self.insist()


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
        if death.code in explained and (text := _last_words(self._fleet.said(death.slot))):
            self.problem = self.problem or (death.code, text)
            self._release(blame=False)
            return
        if self.interrupts >= 2:
            return
        given = self._release()
        if death.code == worker.OK and not given and not self._left_work(self._fleet.said(death.slot)):
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

    def _left_work(self, said: str) -> bool:
        """Did a worker that exited with 0 leave although there was work, without having taken any?"""
        took = any(line.startswith("trial ") for line in said.splitlines())
        return not took and claim.work_left(self.trials(), self.folder, self.file) > 0


def _last_words(said: str) -> str:
    """What a worker said was wrong before it ended; empty when it did not."""
    lines = said.splitlines()
    at = next((i for i in reversed(range(len(lines))) if lines[i].startswith(worker.PROBLEM)), None)
    return "" if at is None else "\n".join(lines[at:]).removeprefix(worker.PROBLEM)


def _failures(trials: list[FrozenTrial]) -> int:
    return sum(t.state == TrialState.FAIL for t in trials)


def after(step: int | None, unit: str, folder: RunFolder, number: int) -> str:
    """From where a trial goes on that had reported `step` last."""
    if step is None:
        return "from its start"
    place = "from its last checkpoint" if record.saved(folder, number) else "with nothing in its checkpoint folder"
    return f"{place} (it had reported {unit} {step})"


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
