"""One launch of a sweep, whatever trains its trials: signals, live view, limits, and how it ended."""

from __future__ import annotations

import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime

import optuna
from optuna.trial import FrozenTrial, TrialState

from lcsearch.errors import EnvironmentProblem
from lcsearch.schedulers.optuna._record import thawed_of
from lcsearch.sweep.monitor import run_record
from lcsearch.sweep.monitor.outcome import FAILED, INTERRUPTED, SUCCESS, Outcome
from lcsearch.sweep.monitor.progress import Best, Progress, collect
from lcsearch.sweep.monitor.view import View
from lcsearch.sweep.runtime import exits
from lcsearch.sweep.runtime.failures import no_result, systematic_failure
from lcsearch.sweep.runtime.peers import Peers
from lcsearch.sweep.runtime.signals import counted
from lcsearch.sweep.spec.load import Sweep
from lcsearch.sweep.store import heartbeat, ownership, thaws
from lcsearch.sweep.store.budget import Clock, limit_now, paid, standing
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.store.storage import Patience

_LOOK_S = 1.0  # how often the study is read for the view
_FIRST_FAILURES = 5  # this many failures before any success end the sweep,
_LATER_FAILURES = 10  # and this many in a row at any time
_NAMED = 10  # trials in one sentence


class Watch(ABC):
    """One launch of a sweep: what every backend's loop needs. A backend fills in :meth:`loop`."""

    interrupted = "draining: workers end at their next report, trials can be resumed. Again to kill them"

    def __init__(self, sweep: Sweep, folder: RunFolder, study: optuna.Study, view: View, patience: Patience) -> None:
        self.file, self.folder, self.study, self.view = sweep.file, folder, study, view
        self._patience = patience
        self._may_break_off = False
        self.interrupts = 0
        self._heard = 0  # how many of them were counted by signal
        self.problem: tuple[int, str] | None = None  # (exit code, message): end the sweep
        self._since = datetime.now()
        self._clock = Clock(folder)
        self._limit_told = False
        self._last_look = 0.0
        self._told = False
        self._best: Best | None = None
        trials = self.trials()
        self._failures_before = _failures(trials)
        self.only_fails = False  # the sweep was ended for it
        self._read = trials  # as they stood last
        self.shared = self.file.backend.storage is not None and self.file.backend.kind == "optuna"
        self.silent: dict[int, float] = {}  # trial -> seconds since its last report, of those that are overdue
        self.run_id = folder.identity()
        self.others = Peers(study, folder, self.file.retries) if self.shared else None
        self._seen = self._progress(trials)

    @abstractmethod
    def loop(self) -> None:
        """Train until nothing is left, `ending`, or a second interrupt."""

    def close(self) -> None:  # noqa: B027  # a backend may have nothing to end
        """Leave nothing running."""

    def on_second_interrupt(self) -> None:
        """A second interrupt has come: break off the loop, whatever it waits for; called in the signal's handler."""
        self._patience.end()
        if self._may_break_off:
            self._may_break_off = False
            raise KeyboardInterrupt

    def run(self, resume: bool, *, retry_failed: bool = False) -> Outcome:
        """From the first trial to the outcome.

        Args:
            resume: go on with what earlier launches have left.
            retry_failed: run what failed in them again.
        """
        if resume:
            # the lock of the folder is ours: nobody else is at work on a study that lies in it, so whoever signed
            # a trial is gone, even if this machine went by another name then (a container does)
            given = ownership.release(
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
            self._mind_failed(retry_failed)
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

    def _mind_failed(self, retry: bool) -> None:
        """Run again what has failed in earlier launches, or say that it counts."""
        if retry:
            again = ownership.retry_failed(self.study, self.folder)
            named = [f"{failed} as {number}" for failed, number in again.items()]
            more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
            text = f"failed trials are run again: {', '.join(named[:_NAMED])}{more}"
            self.view.event(text if again else "no trial has failed: there is nothing to run again")
        elif n := _failures(standing(self.trials())):
            text = f"{n} trial{'s' * (n != 1)} failed in earlier launches and count{'s' * (n == 1)} in the budget"
            self.view.event(f"{text}; --retry-failed runs {'them' if n != 1 else 'it'} again")

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
                self.problem = self.problem or (exits.ENVIRONMENT, str(error))
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
            self.check_stalls()
            self._show(trials)
            self._check_failures(trials)
            if self.others is not None and not self.ending:
                for text in self.others.reclaim_orphans(trials):
                    self.view.event(text)

    def check_stalls(self) -> None:  # noqa: B027  # nor to look at
        """See whether the trials that run here make headway; once a second."""

    def trials(self) -> list[FrozenTrial]:
        """The study's trials as they stand."""
        return ownership.counted(self.study.get_trials(deepcopy=False))

    def _n_thawed(self) -> int:
        """Thawed trials that have ended."""
        return sum(thawed_of(trial) is not None and trial.state.is_finished() for trial in self.trials())

    def _left(self, trials: Sequence[FrozenTrial]) -> int:
        """How many of the budget's trials, and of those to be thawed, somebody may still begin or go on with."""
        again = thaws.left(self.study, self.folder, self.file, trials)
        return again + ownership.work_left(trials, self.folder, self.file)

    def _close_finish(self, thawed: int) -> None:
        """The finish that was asked for is over; it is told when it has thawed none beside the `thawed` of before."""
        if not self.ending and thaws.done(self.study) and self._n_thawed() == thawed:
            self.view.event(thaws.NONE)

    @contextmanager
    def _heard_by_others(self) -> Iterator[None]:
        """Other machines hear that this one lives."""
        beat = heartbeat.PeerHeartbeat(self.study, self.run_id) if self.shared else None
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
            budget = self.file.budget
            paid_for = f", {cost:g} of them on pauses and resumes" if (cost := paid(self.file, trials)) else ""
            what = {
                "steps": f"{budget.steps} {self.file.step}s are spent{paid_for}",
                "seconds": f"{budget.seconds or 0:g} seconds are used",
                "money": f"{budget.money or 0:g} are spent",
                "stop_when": f"more of them would gain less than {budget.stop_when.gain if budget.stop_when else 0:g}",
            }[limit]
            ever = "while that is so" if limit == "stop_when" else "any more"
            text = f"budget.{limit}: {what}, no trial is begun {ever}"
            self.view.event(text + (f"; {running} running go{'es' * (running == 1)} on" if running else ""))

    def _check_failures(self, trials: list[FrozenTrial]) -> None:
        """End a sweep that only fails, counting from this launch."""
        succeeded = len(_finished(trials)) > _failures(trials)
        limit = _LATER_FAILURES if succeeded else _FIRST_FAILURES
        if self._row_of_failures(trials) >= limit and self.problem is None:
            self.only_fails = True
            self.problem = (FAILED, self._failures_told(trials))

    def _row_of_failures(self, trials: list[FrozenTrial]) -> int:
        """How many trials of this launch have failed since one did not."""
        row = 0
        for trial in reversed(_finished(trials)):
            if trial.state != TrialState.FAIL:
                break
            row += 1
        return min(row, _failures(trials) - self._failures_before)

    def _failures_told(self, trials: list[FrozenTrial]) -> str:
        """Why a sweep that only fails was ended."""
        error = _finished(trials)[-1].user_attrs.get(ownership.ERROR, "")
        row = self._row_of_failures(trials)
        text = f"{row} trials failed in a row, so the sweep was ended. The last said: {error}"
        return f"{systematic_failure(trials, self._since) or text}\nTracebacks: {self.folder.logs}"

    def _show(self, trials: list[FrozenTrial] | None = None) -> None:
        self._read = self.trials() if trials is None else trials
        progress = self._seen = self._progress(self._read)
        if progress.best is not None and progress.best != self._best:
            self._best = progress.best
            run_record.note_best(self.study, progress.best)
        self.view.update(progress, self.study)

    def _progress(self, trials: list[FrozenTrial]) -> Progress:
        file = self.file
        now = datetime.now(UTC)
        progress = collect(trials, file.target, file.budget.trials, file.space, now=now, prices=file.prices)
        return replace(progress, silent=dict(self.silent))

    def _outcome(self) -> Outcome:
        progress = self._seen
        code, message = SUCCESS, ""
        if self.only_fails and self._row_of_failures(self._read):
            code, message = FAILED, self._failures_told(self._read)  # those that ran when it was ended failed too
        elif self.problem is not None:
            code, message = self.problem
        elif self.interrupts and not self._all_over():
            code, message = INTERRUPTED, "interrupted; go on with --resume"
        elif text := no_result(progress, self.file):
            code, message = FAILED, text
        return Outcome(self.folder.root, progress, self.study, code, message, self._clock.seconds)

    def _all_over(self) -> bool:
        """Did an interrupt come when there was nothing left that it could have ended?"""
        trials = self._read
        if self.interrupts > 1 or any(not trial.state.is_finished() for trial in trials):
            return False
        return not self._left(trials)

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
            self.on_second_interrupt()


def _finished(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """In the order in which they ended."""
    ended = [trial for trial in trials if trial.state.is_finished()]
    return sorted(ended, key=lambda t: (t.datetime_complete is not None, t.datetime_complete, t.number))


def _failures(trials: list[FrozenTrial]) -> int:
    return sum(t.state == TrialState.FAIL for t in trials)


def after(step: int | None, unit: str, folder: RunFolder, number: int) -> str:
    """From where a trial goes on that had reported `step` last."""
    if step is None:
        return "from its start"
    return f"{run_record.place(folder, number)} (it had reported {unit} {step})"
