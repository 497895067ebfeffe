"""Tune's controller towards a scheduler and a searcher, without a cluster, and short ways to feed it curves."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any, TypeVar
from unittest import mock

from optuna.study import Study
from ray import cloudpickle
from ray.tune.experiment import Trial
from ray.tune.result import RESULT_DUPLICATE
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch
from ray.tune.utils.util import flatten_dict  # type: ignore[attr-defined]

from kit.doubles import NormalAroundBest
from lcsearch.schedulers.ray_tune import CurveScheduler, StateCallback
from lcsearch.schedulers.ray_tune._book import Book
from lcsearch.stopping.policy import Policy

EARLIEST = Policy().min_observations
"""The first step at which a trial that reports at 1, 2, 3, ... can be stopped."""

T = TypeVar("T")


class Proposals:
    """A search that has these trials to give, at most `limit` at a time: what `tune_controller.search_alg` is."""

    def __init__(self, uids: Sequence[str], limit: int | None = None) -> None:
        self._uids, self.total_samples, self._limit = list(uids), len(uids), limit
        self.live: set[str] = set()

    def is_finished(self) -> bool:
        return not self._uids

    def set_finished(self) -> None:
        self._uids = []

    def next_trial(self) -> str | None:
        """The uid of the next trial, or None."""
        if not self._uids or (self._limit is not None and len(self.live) >= self._limit):
            return None
        self.live.add(self._uids[0])
        return self._uids.pop(0)


class Runner:
    """Calls hooks in the order of `TuneController` of ray 2.60, on real trials that nobody trains.

    An exception of a hook passes through, where Tune would end the trial or the run.
    """

    def __init__(
        self,
        scheduler: Any,
        searcher: Searcher | None = None,
        slots: int = 10_000,
        search_alg: Proposals | None = None,
    ) -> None:
        self.scheduler, self.searcher, self.slots, self.search_alg = scheduler, searcher, slots, search_alg
        updater = SimpleNamespace(get_num_cpus=lambda: self.slots, get_num_gpus=lambda: 0)
        self.trial_executor = SimpleNamespace(_resource_updater=updater)
        self.trials: list[Trial] = []
        self._cached: dict[str, str] = {}
        self.late = False
        """Whether results are answered as while a forecaster is stuck: nobody waits for what a look comes to."""

    # What schedulers use.

    def get_trials(self) -> list[Trial]:
        return self.trials

    def get_live_trials(self) -> set[Trial]:
        return {trial for trial in self.trials if trial.status not in (Trial.TERMINATED, Trial.ERROR)}

    def stop_trial(self, trial: Trial) -> None:
        if trial.status in (Trial.ERROR, Trial.TERMINATED):
            return
        if trial.status in (Trial.PENDING, Trial.PAUSED):
            self.scheduler.on_trial_remove(self, trial)
            result = None
        else:
            result = flatten_dict(trial.last_result)
            self.scheduler.on_trial_complete(self, trial, result)
        if self.searcher is not None:
            self.searcher.on_trial_complete(trial.trial_id, result)
        if self.search_alg is not None:
            self.search_alg.live.discard(trial.trial_id)
        trial.status = Trial.TERMINATED

    def pause_trial(self, trial: Trial, should_checkpoint: bool = True) -> None:
        trial.status = Trial.PAUSED

    # What happens to trials.

    def add(self, uid: str | None = None, status: str = Trial.PENDING, **fields: Any) -> Trial:
        """A new trial, waiting, or one that a restored run brings along."""
        trial = Trial("mock", trial_id=uid or f"t{len(self.trials)}", stub=True, **fields)
        trial.status = status
        self.trials.append(trial)
        self.scheduler.on_trial_add(self, trial)
        return trial

    def suggest(self) -> Trial | None:
        """A new trial of the searcher's, or None."""
        assert self.searcher is not None
        uid = f"t{len(self.trials)}"
        config = self.searcher.suggest(uid)
        return None if config is None else self.add(uid, config=config, evaluated_params=flatten_dict(config))

    def step(self) -> Trial | None:
        """One turn of the loop: new trials, then what the scheduler chose, started when there is room."""
        while self.search_alg is not None and (uid := self.search_alg.next_trial()) is not None:
            self.add(uid)
        chosen: Trial | None = self.scheduler.choose_trial_to_run(self)
        if chosen is not None and sum(trial.status == Trial.RUNNING for trial in self.trials) < self.slots:
            chosen.status = Trial.RUNNING
        return chosen

    def result(self, trial: Trial, result: Mapping[str, Any]) -> str:
        """A report of a running trial; what the scheduler said, or STOP when the trial says `done` itself."""
        result = {**result, "trial_id": trial.trial_id}
        duplicate = RESULT_DUPLICATE in result
        if duplicate:
            result = trial.last_result
            result["done"] = True
        flat = flatten_dict(result)
        with self._unready() if self.late else nullcontext():
            said = TrialScheduler.STOP if flat.get("done") else self.scheduler.on_trial_result(self, trial, flat)
        if said == TrialScheduler.STOP:
            result["done"] = True
        elif self.searcher is not None:
            self.searcher.on_trial_result(trial.trial_id, flat)
        if not duplicate:
            trial.run_metadata.last_result = result  # update_last_result less its statistics
        if trial.is_saving:
            self._cached[trial.trial_id] = said
        elif said == TrialScheduler.STOP:
            self.stop_trial(trial)
        elif said == TrialScheduler.PAUSE:
            self.pause_trial(trial)
        return str(said)

    @contextmanager
    def _unready(self) -> Iterator[None]:
        """Nobody waits for forecasts, and none is ready before the result is answered, however fast the thread is."""
        if not isinstance(self.scheduler, CurveScheduler):
            yield
            return
        session, answered = self.scheduler.session, threading.Event()
        asked = session.panel.ask

        def ask(*arguments: Any) -> Any:
            assert answered.wait(10)
            return asked(*arguments)

        try:
            with mock.patch.object(session.panel, "ask", ask), mock.patch.object(session, "settle"):
                yield
        finally:
            answered.set()

    def end(self, trial: Trial) -> None:
        """The trial's function returns: Tune repeats its last result."""
        self.result(trial, {RESULT_DUPLICATE: True})

    def save(self, trial: Trial) -> None:
        """The trial begins to save a checkpoint."""
        trial.temporary_state.saving_to = object()  # type: ignore[assignment]

    def saved(self, trial: Trial) -> None:
        """The checkpoint is there; what was decided meanwhile is carried out."""
        trial.temporary_state.saving_to = None
        if self._cached.pop(trial.trial_id, None) == TrialScheduler.STOP:
            self.stop_trial(trial)

    def fail(self, trial: Trial, *, retry: bool = False) -> None:
        """The trial raises; with `retry` it waits for its next try."""
        trial.status = Trial.ERROR
        self.scheduler.on_trial_error(self, trial)
        if retry:
            trial.status = Trial.PENDING
            self.trials.remove(trial)
            self.trials.append(trial)
            self.scheduler.on_trial_add(self, trial)
        elif self.searcher is not None:
            self.searcher.on_trial_complete(trial.trial_id, error=True)

    # Shorter.

    def start(self, uid: str | None = None, **fields: Any) -> Trial:
        """A new trial that runs."""
        trial = self.add(uid, **fields)
        trial.status = Trial.RUNNING
        return trial

    def report(self, trial: Trial, step: float, value: object) -> str:
        return self.result(trial, {"training_iteration": step, "loss": value})

    def feed(self, trial: Trial, values: Iterable[float], first: int = 1, *, turn: bool = True) -> int | None:
        """Report until the trial is stopped: that step, or None. Every look is judged before the next report;
        without `turn` none is ready when its result is answered, and its stop is carried out at the next report.
        """
        self.late = self.late or not turn
        for step, value in enumerate(values, first):
            self.report(trial, step, value)
            if isinstance(self.scheduler, CurveScheduler):
                assert self.scheduler.session.wait(10)
            if turn:
                self.step()
            if trial.status == Trial.TERMINATED:
                return step
        return None

    def fork(self, scheduler: Any) -> Runner:
        """Trials as they stand, under another scheduler."""
        twin = Runner(scheduler, None, self.slots)
        for trial in self.trials:
            copy = Trial("mock", trial_id=trial.trial_id, stub=True)
            copy.status = trial.status
            copy.run_metadata.last_result = dict(trial.last_result)
            twin.trials.append(copy)
        return twin


def scheduler(**fields: Any) -> CurveScheduler:
    """A CurveScheduler of trials of 50 steps that asks the plain fake forecaster, once five have ended."""
    known = {"metric": "loss", "mode": "min", "max_t": 50, "n_startup_trials": 5, "look_growth": 1}
    known["forecasters"] = [NormalAroundBest()]
    return CurveScheduler(**{**known, **fields})


def decay(limit: float, n: int = 50, rate: float = 0.8) -> list[float]:
    return [limit + rate**i for i in range(n)]


def run_of(of: CurveScheduler | None = None, n: int = 6, *, sign: float = 1.0, steps: int = 50) -> Runner:
    """A run in which `n` trials came to max_t, decaying to 0.1, 0.2, ... (mirrored when sign is -1)."""
    runner = Runner(of or scheduler(mode="min" if sign > 0 else "max"))
    trials = [runner.start(f"good{i}") for i in range(n)]
    curves = [decay(0.1 * (i + 1), steps) for i in range(n)]
    for step in range(1, steps + 1):  # side by side, so that none is there to be compared with
        for trial, curve in zip(trials, curves, strict=True):
            runner.report(trial, step, sign * curve[step - 1])
    assert all(trial.status == Trial.TERMINATED for trial in trials)
    return runner


def of_run(runner: Runner) -> CurveScheduler:
    assert isinstance(runner.scheduler, CurveScheduler)
    return runner.scheduler


def book_of(of: CurveScheduler) -> Book:
    """What a scheduler has heard of its trials, asked for as `StateCallback` asks for it."""
    book = of.get_state()["book"]
    assert isinstance(book, Book)
    return book


def searched_study(searcher: OptunaSearch) -> Study:
    """The study in which Tune's searcher keeps its trials; Tune has no public way to it."""
    study: Any = searcher._ot_study  # noqa: SLF001  # typed as None
    assert isinstance(study, Study)
    return study


def restored(runner: Runner, state: dict[str, Any], **fields: Any) -> tuple[CurveScheduler, Runner]:
    """A new scheduler with that state, told of the runner's trials as Tune knows them."""
    of = scheduler(**fields)
    StateCallback(of).set_state(state)
    twin = runner.fork(of)
    for trial in twin.trials:
        trial.status = Trial.PENDING if trial.status == Trial.RUNNING else trial.status
        of.on_trial_add(twin, trial)  # type: ignore[arg-type]
    return of, twin


def copy_of(value: T) -> T:
    """What comes back from a pickle, as Tune makes them."""
    return cloudpickle.loads(cloudpickle.dumps(value))  # type: ignore[no-any-return, no-untyped-call]
