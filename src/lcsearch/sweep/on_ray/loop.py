"""A sweep on Ray: Tune trains the trials on a cluster, the study in the run folder keeps the record.

The driver (this process) files every report, stop and end in the sweep's own study as it happens, so that live view,
summary, `explain` and `--resume` are those of every other sweep. Stops are CurveScheduler's. The run folder must be
one that all nodes see: checkpoints and logs of the trials are written there.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import ray
from optuna.trial import FrozenTrial, Trial, TrialState
from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher
from ray.tune.stopper import NoopStopper, Stopper

from lcsearch.errors import EnvironmentProblem, LcsearchError
from lcsearch.schedulers.optuna import REASON, as_trial, write_stop
from lcsearch.schedulers.optuna import SCHEDULE as STORED_SCHEDULE
from lcsearch.schedulers.optuna._record import thawed_of
from lcsearch.schedulers.optuna._storage import write_audit
from lcsearch.schedulers.ray_tune import SCHEDULE, CurveScheduler
from lcsearch.stopping.risk import StopRecord
from lcsearch.study import Status
from lcsearch.sweep.monitor.outcome import FAILED
from lcsearch.sweep.objective.context import judged_value
from lcsearch.sweep.on_ray.cluster import cluster, handlers_kept, note, resources
from lcsearch.sweep.on_ray.trial import (
    AT,
    CODE,
    ERROR,
    LEFT,
    PATIENCE_S,
    PROBLEM,
    SEEDED_AS,
    STEP,
    TRIAL,
    VALUE,
    hand_on,
    noted,
    trainable,
)
from lcsearch.sweep.runtime.exits import ENVIRONMENT, NO_REPORT
from lcsearch.sweep.runtime.launch import Watch, after
from lcsearch.sweep.runtime.trial import StudyReporter, take_back
from lcsearch.sweep.spec.model import SweepFile
from lcsearch.sweep.spec.pruner import CurvePrunerSpec
from lcsearch.sweep.spec.space import planned_schedule, suggest
from lcsearch.sweep.store import attributes, ownership, thaws
from lcsearch.sweep.store.budget import TRAINED
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.store.studies import is_forecast

__all__ = ["RayWatch", "cluster"]

_NODES_S = 5.0  # how often the cluster is asked whether it lives


class SweepScheduler(CurveScheduler):
    """CurveScheduler with the sweep's own trial numbers."""

    _stops_at_max_t = False  # a trial ends by itself, with whatever it does after its last report
    name = "sweep"

    def uid(self, trial: TuneTrial) -> str:
        """The trial's number in the study."""
        return str(trial.config[TRIAL])

    def study(self, trial: TuneTrial) -> str:
        """The sweep's name."""
        return self.name

    def stop_of(self, number: int) -> tuple[StopRecord, str] | None:
        """Record and reason of the stop that ended a trial, if one did."""
        entry = self._book.entries.get(str(number))
        return (entry.stop, entry.line) if entry is not None and entry.line and entry.stop is not None else None

    def audit_of(self, number: int) -> StopRecord | None:
        """Record of a stop of a trial that was not carried out, but audited."""
        entry = self._book.entries.get(str(number))
        return None if entry is None else entry.audit

    def learn(self, trials: Iterable[FrozenTrial], number: int) -> None:
        """Take in what the study knows and this run does not: what others finished, and trial `number` so far.

        A trial that another machine has now is left out: its curve here would stand still.
        """
        with self._failing_open("learning what the study knows"):
            for frozen in trials:
                if (frozen.state.is_finished() or frozen.number == number) and (
                    str(frozen.number) not in self._book.entries
                ):
                    self._book.take(as_trial(frozen), str(frozen.user_attrs.get(REASON, "")))

    def relearn(self, frozen: FrozenTrial) -> None:
        """Take a trial that was stopped here as the study has it: its program had come to its end before that."""
        with self._failing_open("learning that a trial had ended"):
            self._book.enter(str(frozen.number), frozen.params, None)
            self._book.take(as_trial(frozen))

    def _ended_as(self, uid: str, result: Mapping[str, Any]) -> Status:
        if ERROR in result or PROBLEM in result:
            return Status.FAILED
        return super()._ended_as(uid, result)


class _Leaving(NamedTuple):
    """A stopped trial whose process has yet to tell how it left, and until when that is waited for."""

    claimed: ownership.Claim
    reporter: StudyReporter
    deadline: float


class Ledger:
    """The study's side of a run: which Tune trial is which of its trials, and what became of them."""

    def __init__(self, watch: Watch, scheduler: SweepScheduler | None) -> None:
        self._watch, self._scheduler = watch, scheduler
        self._claims: dict[str, ownership.Claim] = {}
        self._reporters: dict[str, StudyReporter] = {}
        self._slots: dict[str, int] = {}
        self._leaving: list[_Leaving] = []
        self._met = 0
        self.begun = 0
        self.exhausted = False
        """There was no trial left to begin."""

    @property
    def under_way(self) -> bool:
        """Are there trials that have begun and not ended?"""
        return bool(self._claims)

    def meet(self, trials: list[TuneTrial]) -> None:
        """Tell Tune how often each new trial may still lose its worker: earlier launches may have seen it lose some."""
        for trial in trials[self._met :]:
            ours = self._claims.get(trial.trial_id)
            if ours is not None:
                trial.max_failures = max(self._watch.file.retries - self._retries(ours.trial), 0)
        self._met = len(trials)

    def _retries(self, trial: Trial) -> int:
        return attributes.count(self._frozen(trial).user_attrs, ownership.RETRIES)

    def _frozen(self, trial: Trial) -> FrozenTrial:
        return self._watch.study.get_trials(deepcopy=False)[trial.number]

    def begin(self, trial_id: str) -> dict[str, Any] | None:
        """The configuration of the next trial; None when there is none to begin."""
        w = self._watch
        taken = set(self._slots.values())
        slot = next(i for i in range(len(taken) + 1) if i not in taken)
        claimed = None if w.ending else thaws.take(w.study, w.folder, slot, w.file)
        if claimed is None and not w.ending:
            claimed = ownership.take(w.study, w.folder, slot, w.file)
        if claimed is None:
            self.exhausted = True
            return None
        trial = claimed.trial
        self.begun += 1
        frozen = self._frozen(trial)
        thawed = thawed_of(frozen)
        if self._scheduler is not None:
            self._scheduler.learn(w.trials(), trial.number if claimed.adopted or thawed is not None else -1)
        params = suggest(trial, w.file.space)
        config: dict[str, Any] = {**params, TRIAL: trial.number}
        if thawed is not None:
            config[SEEDED_AS] = thawed.stopped
            thaws.bring_checkpoint(w.folder, trial.number, thawed, partial(hand_on, frozen.intermediate_values))
        schedule = planned_schedule(w.file, params)
        if schedule is not None:
            trial.set_user_attr(STORED_SCHEDULE, asdict(schedule))
            config[SCHEDULE] = asdict(schedule)
        self._claims[trial_id], self._slots[trial_id] = claimed, slot
        self._reporters[trial_id] = StudyReporter(trial, frozen=self._frozen(trial))
        return config

    def report(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """File one report; what an earlier process had reported is filed already."""
        step, value = result.get(STEP, math.nan), result.get(VALUE, math.nan)
        if trial_id in self._claims and not math.isnan(step):
            reporter = self._reporters[trial_id]
            if reporter.attempts.repeats(int(step), value):
                reporter.attempts.take(int(step), value)
                return
            reporter.report(value, int(step))
            if AT in result:
                self._claims[trial_id].pacer.came(int(step), float(result[AT]))

    def retry(self, trial: TuneTrial) -> None:
        """A trial has lost its worker and will go on."""
        claimed = self._claims.get(trial.trial_id)
        if claimed is not None:
            claimed.pacer.pause()
            attempts = self._reporters[trial.trial_id].attempts
            attempts.begin()
            ours, retries = claimed.trial, self._watch.file.retries
            n = self._retries(ours) + 1
            ours.set_user_attr(ownership.RETRIES, n)
            step = max(attempts.values, default=None)
            place = after(step, self._watch.file.step, self._watch.folder, ours.number)
            text = f"trial {ours.number} lost its worker and goes on {place} (retry {n} of {retries})"
            self._watch.view.event(text, trial=ours.number, retry=n, retries=retries, given_up=False)

    def end(self, trial_id: str, result: Mapping[str, Any] | None, error: bool) -> None:
        """File how a trial ended."""
        claimed = self._claims.get(trial_id)
        if claimed is None:
            return
        trial = claimed.trial
        watch, result, reporter = self._watch, result or {}, self._reporters[trial_id]
        self.report(trial_id, result)
        claimed.noted.update(self._noted(claimed))
        del self._claims[trial_id], self._reporters[trial_id], self._slots[trial_id]
        stop = self._scheduler.stop_of(trial.number) if self._scheduler is not None else None
        if self._scheduler is not None and (audited := self._scheduler.audit_of(trial.number)) is not None:
            write_audit(watch.study, trial, audited)
        if stop is None and not error and ERROR not in result and PROBLEM not in result:
            reporter.attempts.end()
        value = judged_value(reporter.attempts.values, watch.file.target)
        if PROBLEM in result:
            watch.problem = watch.problem or (result[CODE], result[PROBLEM])
            ownership.abandon(trial, watch.folder.identity())
        elif error:
            retries = self._retries(trial)
            text = f"trial {trial.number} is marked failed after {retries} retries"
            watch.view.event(text, trial=trial.number, retry=retries + 1, retries=watch.file.retries, given_up=True)
            self._fail(claimed, f"its worker died {ownership.times(retries + 1)}; retries: {watch.file.retries}")
        elif ERROR in result:
            self._fail(claimed, result[ERROR])
        elif stop is not None:
            write_stop(watch.study, trial, *stop)
            # a program does not wait for looks: its process tells what it had printed by then
            grace = watch.file.objective.grace if watch.file.objective.command is not None else -PATIENCE_S
            self._leaving.append(_Leaving(claimed, reporter, time.monotonic() + grace + PATIENCE_S))
            self.settle()
        elif value is None:
            self._fail(claimed, NO_REPORT)
        else:
            reporter.end()
            claimed.end(value)

    def _noted(self, claimed: ownership.Claim) -> dict[str, Any]:
        return {k: v for k, v in noted(self._watch.folder.checkpoints(claimed.trial.number)).items() if k != LEFT}

    def settle(self, wait: bool = True) -> None:
        """File the stopped trials whose processes have told how they left, or are late with that."""
        waiting, self._leaving = self._leaving, []
        for one in waiting:
            left = noted(self._watch.folder.checkpoints(one.claimed.trial.number)).get(LEFT)
            if not isinstance(left, dict) and wait and time.monotonic() < one.deadline:
                self._leaving.append(one)
                continue
            self._file(one, left if isinstance(left, dict) else {})

    def _file(self, one: _Leaving, left: Mapping[str, Any]) -> None:
        claimed, trial, file = one.claimed, one.claimed.trial, self._watch.file
        attempts = one.reporter.attempts
        claimed.noted.update(self._noted(claimed))
        if not left.get("overtaken"):
            trained, last = left.get("trained"), max(attempts.values, default=-1)
            if file.objective.command is not None and isinstance(trained, int) and trained > last:
                trial.set_user_attr(TRAINED, min(trained, file.max_steps))
            one.reporter.end()
            claimed.end(state=TrialState.PRUNED)
            return
        for step, value in left["late"]:
            if not attempts.repeats(step, value):
                one.reporter.report(value, step)
        one.reporter.end()
        take_back(self._watch.study, trial, self._watch.folder, curve=True)
        if isinstance(left.get("failed"), str):
            self._fail(claimed, left["failed"])
        else:
            claimed.end(judged_value(attempts.values, file.target))
        if self._scheduler is not None:
            self._scheduler.relearn(self._frozen(trial))

    def _fail(self, claimed: ownership.Claim, text: str) -> None:
        claimed.trial.set_user_attr(ownership.ERROR, text)
        claimed.end(state=TrialState.FAIL)

    @contextlib.contextmanager
    def ending_on_errors(self) -> Iterator[None]:
        """An error in here (the storage is gone) ends the sweep, not one trial."""
        try:
            yield
        except Exception as error:
            code = ENVIRONMENT if isinstance(error, EnvironmentProblem) else FAILED
            said = str(error) if isinstance(error, LcsearchError) else f"{type(error).__name__}: {error}"
            traceback.print_exc()
            self._watch.problem = self._watch.problem or (code, said)


class _Search(Searcher):
    """Tune's searcher: proposes the study's trials and files what Tune says of them."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(metric=VALUE, mode="min")
        self._ledger = ledger

    def suggest(self, trial_id: str) -> Any:
        """The next trial's configuration, or the end."""
        config = None
        with self._ledger.ending_on_errors():
            config = self._ledger.begin(trial_id)
        return config or Searcher.FINISHED

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """File a report."""
        with self._ledger.ending_on_errors():
            self._ledger.report(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """File an end."""
        with self._ledger.ending_on_errors():
            self._ledger.end(trial_id, result, error)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is the record."""
        Path(checkpoint_path).write_bytes(b"")

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""


class _Watcher(tune.Callback):
    """Lets the launch look at the study in every turn of Tune's loop, and hear of lost workers."""

    def __init__(self, watch: Watch, ledger: Ledger) -> None:
        self._watch, self._ledger = watch, ledger
        self._asked = time.monotonic()

    def on_step_end(self, iteration: int, trials: list[TuneTrial], **info: Any) -> None:
        """A turn is over."""
        with self._ledger.ending_on_errors():
            self._ledger.meet(trials)
            self._ledger.settle()
            self._watch.look()
            self._ask_for_nodes()

    def on_trial_recover(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """A trial's worker died; it will be tried again."""
        with self._ledger.ending_on_errors():
            self._ledger.retry(trial)

    def _ask_for_nodes(self) -> None:
        """A cluster without a living node never comes back by itself, and Tune would wait for it without a word."""
        if time.monotonic() - self._asked < _NODES_S:
            return
        self._asked = time.monotonic()
        if not any(node["Alive"] for node in ray.nodes()):  # type: ignore[no-untyped-call]  # Ray's own
            text = "the Ray cluster is gone: no node of it is alive. Go on with --resume"
            self._watch.problem = self._watch.problem or (FAILED, text)


class _Actors(tune.Callback):
    """Knows the trials' processes."""

    def __init__(self) -> None:
        self._trials: list[TuneTrial] = []
        self._held: list[Any] = []

    def on_step_begin(self, iteration: int, trials: list[TuneTrial], **info: Any) -> None:
        """Tune's own list: it grows."""
        self._trials = trials

    def hold(self) -> None:
        """Remember those that live; before that Tune lets a process go by forgetting it, and so must we."""
        self._held += [actor for t in self._trials if (actor := t.temporary_state.ray_actor) is not None]

    def kill(self) -> None:
        """Kill them at once."""
        self.hold()
        for actor in self._held:
            ray.kill(actor)


class _Ending(Stopper):
    """Ends Tune's run when the launch is to end: trials stay RUNNING in the study, for --resume."""

    def __init__(self, watch: Watch, actors: _Actors) -> None:
        self._watch, self._actors = watch, actors

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        """Is it to end?"""
        if self._watch.ending:
            self._actors.hold()
        return self._watch.ending

    def __reduce__(self) -> tuple[type[NoopStopper], tuple[()]]:
        return NoopStopper, ()  # Tune pickles it with its own state, which nobody restores


class RayWatch(Watch):
    """The loop of a launch whose trials Ray trains."""

    interrupted = (
        "ending: trials end at their next report, or are killed after 10 s; they can be resumed. Again to kill them now"
    )

    def loop(self) -> None:
        """Run Tune until nothing is left or the launch is to end: stopped trials that are trained on come in turns of
        their own, for they are named when all others have ended.
        """
        thawed = self._n_thawed()
        while not self.ending and (left := self._left(self.trials())) and self._leg(left):
            pass
        self._close_finish(thawed)

    def _leg(self, left: int) -> bool:
        """One run of Tune's, of so many trials; has it begun any?"""
        scheduler = make_scheduler(self.file, self.folder)
        ledger, actors = Ledger(self, scheduler), _Actors()
        if scheduler is not None and is_forecast(self.file):
            scheduler.prepare()
            if self.ending:
                return False
        segments = self.folder.root / "ray"
        try:
            with handlers_kept():
                tune.run(
                    trainable(str(self.folder.root), os.getcwd(), self.file.objective.grace),
                    name=f"leg-{len(list(segments.glob('leg-*'))) + 1}",
                    storage_path=str(segments),
                    num_samples=left,
                    max_concurrent_trials=self.file.backend.workers.n,
                    resources_per_trial=resources(self.file),
                    search_alg=_Search(ledger),
                    scheduler=scheduler or FIFOScheduler(),  # type: ignore[no-untyped-call]  # Ray's own
                    stop=_Ending(self, actors),
                    callbacks=[_Watcher(self, ledger), actors],
                    max_failures=self.file.retries,
                    reuse_actors=True,
                    raise_on_failed_trial=False,
                    verbose=0,
                )
        except KeyboardInterrupt:
            if self.interrupts < 2:
                raise
            actors.kill()
        except Exception as error:
            note(self.folder, traceback.format_exc())
            if not self.ending:
                said = (str(error).strip().splitlines() or [""])[0]
                text = f"Ray Tune broke off the run: {type(error).__name__}: {said}. Go on with --resume."
                self.problem = (FAILED, f"{text}\nTraceback: {self.folder.ray_log}")
        with ledger.ending_on_errors():
            ledger.settle(wait=False)  # Tune has waited for its processes
        if not self.ending and (ledger.under_way or (ledger.begun < left and not ledger.exhausted)):
            self.interrupts += 1  # SIGUSR1 is one for Tune
            self.view.event("Ray Tune was told to end by a signal; trials can be resumed from their checkpoints")
        return ledger.begun > 0


def make_scheduler(file: SweepFile, folder: RunFolder) -> SweepScheduler | None:
    """The file's pruner as a scheduler of Tune; None when nothing is to be stopped."""
    spec = file.pruner
    if not isinstance(spec, CurvePrunerSpec):
        return None
    scheduler = SweepScheduler(
        time_attr=STEP,
        metric=VALUE,
        mode="min" if file.goal == "minimize" else "max",
        max_t=file.max_steps,
        grace_period=min(spec.n_warmup_steps, file.max_steps),  # at the end nothing is stopped anyway
        decision_log=folder.decisions,
        judged=file.judged,
        bounds=file.bounds,
        host=file.backend.host,
        **spec.model_dump(exclude={"kind", "n_warmup_steps"}),
    )
    scheduler.name = file.name
    return scheduler
