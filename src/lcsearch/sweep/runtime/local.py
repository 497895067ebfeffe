"""The loop over worker processes of this machine: slots kept filled, the dead buried."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import optuna

from lcsearch.sweep.monitor.outcome import FAILED
from lcsearch.sweep.monitor.view import View
from lcsearch.sweep.runtime import exits
from lcsearch.sweep.runtime.launch import Watch, after
from lcsearch.sweep.runtime.model_host import ModelHost, pays
from lcsearch.sweep.runtime.processes import Death, Fleet
from lcsearch.sweep.runtime.stalls import Stalls
from lcsearch.sweep.spec.load import Sweep
from lcsearch.sweep.store import ownership, thaws
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.store.storage import Patience
from lcsearch.sweep.store.worker_log import BEGINS, PROBLEM

_TICK_S = 0.1  # how soon a dead worker is noticed
_LAST_WORDS_S = 5.0  # how long workers may take to keep what their programs had printed
_MOST_FAILED_STARTS = 3  # workers that died without taking a trial


class FleetWatch(Watch):
    """Worker processes on this machine."""

    def __init__(
        self, sweep: Sweep, folder: RunFolder, study: optuna.Study, view: View, patience: Patience, lock: int
    ) -> None:
        super().__init__(sweep, folder, study, view, patience)
        self._fleet = Fleet(folder, sweep.file.backend.workers, lock)
        self._failed_starts = 0
        self._tried = len(self.trials())
        self._no_turns = False  # a worker has said that no turn is left; only trials that lost theirs go on
        self._host = ModelHost(folder, sweep.file, view.event) if pays(sweep.file) else None
        self._stalls = Stalls(self.folder, self.file.backend.workers.stall)

    def on_second_interrupt(self) -> None:
        """Kill the workers now: the loop may wait for a storage that does not answer. Those of programs kill these, and
        have a moment to keep what they printed (`close`); a third interrupt leaves them none.
        """
        if self.file.objective.command is not None and self.interrupts == 2:
            self._fleet.hurry()
        else:
            self._fleet.kill_nowait()
        super().on_second_interrupt()

    def close(self) -> None:
        """Kill what still runs."""
        if self.file.objective.command is not None and self.interrupts == 2:
            self._fleet.wait(_LAST_WORDS_S)
        self._fleet.kill()
        if self._host is not None:
            self._host.end()
        self.silent = {}

    def loop(self) -> None:
        """Keep the slots filled, and bury the dead."""
        drained, thawed = False, self._n_thawed()
        if self._host is not None and self._work_left():
            self._host.start(lambda: self.ending)
            self._fleet.environment = self._host.environment
        while True:
            for death in self._fleet.reap():
                self._handle_exit(death)
            if self.interrupts >= 2:
                return
            if self.ending and not drained:
                drained = True
                self._fleet.drain()
            if not self.ending:
                self._fill()
            if not self._fleet.pids and (self.ending or not self._may_have_to_take_over()):
                self._tell_of_paused()
                self._close_finish(thawed)
                return
            if self._host is not None:
                self._host.look()
                self._fleet.environment = self._host.environment
            self.look()
            time.sleep(_TICK_S)

    def _may_have_to_take_over(self) -> bool:
        """Nothing is left to do here; is it on other machines?"""
        if self.others is None:
            return False
        trials = self.trials()
        if self._work_left() or self.others.uncertain(trials):
            return True
        if theirs := self.others.trials(trials):
            hosts = ", ".join(sorted({other.host for other in theirs}))
            self.view.event(f"nothing is left to do here; trials still run on {hosts}: {len(theirs)}")
        return False

    def _tell_of_paused(self) -> None:
        """Say which trials stay with other machines, for their checkpoints lie there."""
        left = ownership.paused_elsewhere(self.trials(), self.run_id) if self.file.pause else {}
        for host, numbers in left.items():
            which = f"trial{'s' * (len(numbers) != 1)} {', '.join(map(str, numbers))}"
            self.view.event(f"{which}: paused, with checkpoints on {host}; a run there goes on with --resume")

    def check_stalls(self) -> None:
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
        for slot in empty[: self._work_left()]:
            self._fleet.start(slot)

    def _work_left(self) -> int:
        trials = self.trials()
        if self._no_turns:
            again = thaws.left(self.study, self.folder, self.file, trials)
            return again + sum(ownership.abandoned(trial, self.run_id) for trial in trials)
        return self._left(trials)

    def _handle_exit(self, death: Death) -> None:
        """A worker ended: give back its trial, say so, and see whether workers can work at all."""
        if death.code == exits.OK and self.ending:
            return  # drained; its trial is for --resume
        explained = (exits.HOPELESS, exits.FILE, exits.ENVIRONMENT)
        told_by_it = self._fleet.told(death.slot)
        if death.code in explained and (text := _problem(told_by_it)):
            self.only_fails |= death.code == exits.HOPELESS and self.problem is None
            self.problem = self.problem or (death.code, text)
            self._release(blame=False)
            return
        if self.interrupts >= 2:
            return
        given = self._release()
        self._no_turns |= death.code == exits.OK and self.file.pause
        if death.code == exits.OK and not given and not self._left_work(told_by_it):
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
        self._failed_starts = 0 if given or n > self._tried else self._failed_starts + 1
        self._tried = n
        if self._failed_starts >= _MOST_FAILED_STARTS:
            log = self.folder.log(death.slot)
            text = f"expected workers that start, got {self._failed_starts} that died at once. See {log}."
            self.problem = (FAILED, text)

    def _release(self, blame: bool = True) -> list[ownership.RequeuedTrial]:
        alive, retries = self._fleet.pids.values(), self.file.retries
        return ownership.release(self.study, self.folder, alive, retries, blame=blame, shared=self.shared)

    def _left_work(self, told: Sequence[Mapping[str, Any]]) -> bool:
        """Did a worker that exited with 0 leave although there was work, without having taken any?"""
        took = any(record["event"] == BEGINS for record in told)
        return not took and self._work_left() > 0


def _problem(told: Sequence[Mapping[str, Any]]) -> str:
    """What a worker said was wrong before it ended; empty when it did not."""
    return next((str(record["text"]) for record in reversed(told) if record["event"] == PROBLEM), "")
