"""A sweep on Ray: Tune trains the trials on a cluster, the study in the run folder keeps the record.

The driver (this process) files every report, stop and end in the sweep's own study as it happens, so that live view,
summary, `explain` and `--resume` are those of every other sweep. Stops are CurveScheduler's. The run folder must be
one that all nodes see: checkpoints and logs of the trials are written there.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import socket
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
from optuna.trial import Trial, TrialState
from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher
from ray.tune.stopper import NoopStopper, Stopper

from lcsearch.decide.risk import Mark
from lcsearch.errors import EnvironmentProblem, LcsearchError
from lcsearch.schedulers.optuna import REASON, as_trial, write_stop
from lcsearch.schedulers.optuna import SCHEDULE as STORED_SCHEDULE
from lcsearch.schedulers.ray_tune import SCHEDULE, CurveScheduler
from lcsearch.study import Status
from lcsearch.sweep import claim
from lcsearch.sweep.file import CurvePrunerSpec, SweepFile
from lcsearch.sweep.fleet import THREAD_VARIABLES
from lcsearch.sweep.folder import RunFolder
from lcsearch.sweep.launcher import FAILED, Watch, after
from lcsearch.sweep.objective import judged_value
from lcsearch.sweep.ray_trial import CODE, ERROR, PROBLEM, STEP, TRIAL, VALUE, train
from lcsearch.sweep.space import planned_schedule, suggest
from lcsearch.sweep.worker import ENVIRONMENT, NO_REPORT, StudyReporter

_ENVIRONMENT = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is the launcher's
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the study is the record
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # tracebacks stand in the trial's log
    "RAY_AIR_NEW_OUTPUT": "0",  # the one that verbose=0 silences
    "RAY_USAGE_STATS_ENABLED": "0",
}

_PATIENCE_S = 5.0  # for a cluster's first answer


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

    def mark(self, number: int) -> Mark | None:
        """The mark of the stop that ended a trial, if one did."""
        entry = self._book.entries.get(str(number))
        return entry.stop if entry is not None and entry.line else None

    def learn(self, watch: Watch) -> None:
        """Take in what the study knows already: a sweep is resumed."""
        for frozen in watch.trials():
            self._book.take(as_trial(frozen), str(frozen.user_attrs.get(REASON, "")))

    def _ended_as(self, uid: str, result: Mapping[str, Any]) -> Status:
        if ERROR in result or PROBLEM in result:
            return Status.FAILED
        return super()._ended_as(uid, result)


class Ledger:
    """The study's side of a run: which Tune trial is which of its trials, and what became of them."""

    def __init__(self, watch: Watch, scheduler: SweepScheduler | None) -> None:
        self._watch, self._scheduler = watch, scheduler
        self._trials: dict[str, Trial] = {}
        self._reported: dict[str, dict[int, float]] = {}
        self._slots: dict[str, int] = {}

    def begin(self, trial_id: str) -> dict[str, Any] | None:
        """The configuration of the next trial; None when there is none to begin."""
        w = self._watch
        taken = set(self._slots.values())
        slot = next(i for i in range(len(taken) + 1) if i not in taken)
        claimed = None if w.ending else claim.take(w.study, w.folder, slot, w.file.budget.trials)
        if claimed is None:
            return None
        trial = claimed.trial
        params = suggest(trial, w.file.space)
        config: dict[str, Any] = {**params, TRIAL: trial.number}
        schedule = planned_schedule(w.file, params)
        if schedule is not None:
            trial.set_user_attr(STORED_SCHEDULE, asdict(schedule))
            config[SCHEDULE] = asdict(schedule)
        self._trials[trial_id], self._slots[trial_id] = trial, slot
        self._reported[trial_id] = dict(w.trials()[trial.number].intermediate_values)
        return config

    def report(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """File one report; a step replayed from a checkpoint is filed already."""
        step, value = result.get(STEP, math.nan), result.get(VALUE, math.nan)
        if trial_id in self._trials and not math.isnan(step) and int(step) not in self._reported[trial_id]:
            StudyReporter(self._trials[trial_id]).report(value, int(step))
            self._reported[trial_id][int(step)] = value

    def retry(self, trial: TuneTrial) -> None:
        """A trial has lost its worker and will go on."""
        ours = self._trials.get(trial.trial_id)
        if ours is not None:
            retries = self._watch.file.retries
            n = int(self._watch.trials()[ours.number].user_attrs.get(claim.RETRIES, 0)) + 1
            ours.set_user_attr(claim.RETRIES, n)
            place = after(max(self._reported[trial.trial_id], default=None), self._watch.file.step)
            self._watch.view.event(f"trial {ours.number} lost its worker and goes on {place} (retry {n} of {retries})")

    def end(self, trial_id: str, result: Mapping[str, Any] | None, error: bool) -> None:
        """File how a trial ended."""
        trial = self._trials.pop(trial_id, None)
        reported = self._reported.get(trial_id, {})
        if trial is None:
            return
        if result:
            self._trials[trial_id] = trial
            self.report(trial_id, result)
            del self._trials[trial_id]
        del self._reported[trial_id], self._slots[trial_id]
        watch, result = self._watch, result or {}
        mark = self._scheduler.mark(trial.number) if self._scheduler is not None else None
        value = judged_value(reported, watch.file.target)
        if PROBLEM in result:
            watch.problem = watch.problem or (result[CODE], result[PROBLEM])
            claim.abandon(trial, watch.folder.identity())
        elif error:
            n = watch.file.retries + 1
            watch.view.event(f"trial {trial.number} is marked failed after {n - 1} retries")
            self._fail(trial, f"its worker died {claim.times(n)}; retries: {n - 1}")
        elif ERROR in result:
            self._fail(trial, result[ERROR])
        elif mark is not None and self._scheduler is not None:
            write_stop(watch.study, trial, mark, self._scheduler.stopped()[str(trial.number)])
            watch.study.tell(trial, state=TrialState.PRUNED)
        elif value is None:
            self._fail(trial, NO_REPORT)
        else:
            watch.study.tell(trial, value)

    def _fail(self, trial: Trial, text: str) -> None:
        trial.set_user_attr(claim.ERROR, text)
        self._watch.study.tell(trial, state=TrialState.FAIL)

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

    def on_step_end(self, iteration: int, trials: list[TuneTrial], **info: Any) -> None:
        """A turn is over."""
        with self._ledger.ending_on_errors():
            self._watch.look()

    def on_trial_recover(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """A trial's worker died; it will be tried again."""
        with self._ledger.ending_on_errors():
            self._ledger.retry(trial)


class _Ending(Stopper):
    """Ends Tune's run when the launch is to end: trials stay RUNNING in the study, for --resume."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        """Is it to end?"""
        return self._watch.ending

    def __reduce__(self) -> tuple[type[NoopStopper], tuple[()]]:
        return NoopStopper, ()  # Tune pickles it with its own state, which nobody restores


class RayWatch(Watch):
    """The loop of a launch whose trials Ray trains."""

    interrupted = "ending: trials stop now and can be resumed from their checkpoints"

    def loop(self) -> None:
        """Run Tune until nothing is left or the launch is to end."""
        left = claim.work_left(self.trials(), self.file.budget.trials)
        if not left:
            return
        with _environment():
            scheduler = make_scheduler(self.file, self.folder)
            if scheduler is not None:
                scheduler.learn(self)
            ledger = Ledger(self, scheduler)
            root = str(self.folder.root)
            legs = self.folder.root / "ray"

            def trial(config: dict[str, Any]) -> None:
                train(root, config)

            tune.run(
                trial,
                name=f"leg-{len(list(legs.glob('leg-*'))) + 1}",
                storage_path=str(legs),
                num_samples=left,
                max_concurrent_trials=self.file.backend.workers.n,
                resources_per_trial=resources(self.file),
                search_alg=_Search(ledger),
                scheduler=scheduler or FIFOScheduler(),  # type: ignore[no-untyped-call]
                stop=_Ending(self),
                callbacks=[_Watcher(self, ledger)],
                max_failures=self.file.retries,
                reuse_actors=True,
                raise_on_failed_trial=False,
                verbose=0,
            )


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
        grace_period=spec.n_warmup_steps,
        threshold=spec.threshold,
        guard=spec.guard,
        risk=spec.risk,
        n_startup_trials=spec.n_startup_trials,
        opinions=spec.opinions,
        decision_log=folder.decisions,
        interval_steps=spec.interval_steps,
        n_min_trials=spec.n_min_trials,
        judged=file.judged,
    )
    scheduler.name = file.name
    return scheduler


def resources(file: SweepFile) -> dict[str, float]:
    """What one trial takes."""
    workers = file.backend.workers
    return {"cpu": workers.threads, "gpu": float(workers.devices[0] == "cuda")}


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """Tune's settings for this run, the process's own afterwards."""
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    os.environ.update(_ENVIRONMENT)
    log = logging.getLogger("ray.tune")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def cluster(file: SweepFile) -> Iterator[None]:
    """The cluster at the file's address; one of this machine's own ends with the sweep.

    Raises:
        EnvironmentProblem: it does not answer, or no node of it can hold a trial.
    """
    workers, address = file.backend.workers, file.backend.address
    ours = not ray.is_initialized()
    if ours:
        settings: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": logging.ERROR}
        threads = dict.fromkeys(THREAD_VARIABLES, str(workers.threads))
        settings["runtime_env"] = {"env_vars": threads}
        if address == "local":
            settings |= {"num_cpus": workers.n * workers.threads, "include_dashboard": False}
        try:
            host, _, port = address.rpartition(":")
            if host:  # Ray itself would wait for minutes
                socket.create_connection((host, int(port)), timeout=_PATIENCE_S).close()
            ray.init(**settings)
        except Exception as error:
            said = f"{type(error).__name__}: {error}".splitlines()[0]
            text = f"backend.address: expected a Ray cluster that answers at {address!r}, got {said}."
            raise EnvironmentProblem(f"{text} Start one with: ray start --head") from error
    try:
        needed = resources(file)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        if not any(node.get("CPU", 0) >= needed["cpu"] and node.get("GPU", 0) >= needed["gpu"] for node in nodes):
            shown = ", ".join(f"{node.get('CPU', 0):g} CPU + {node.get('GPU', 0):g} GPU" for node in nodes)
            text = f"backend.workers: expected a node with {needed['cpu']} CPU and {needed['gpu']:g} GPU, got {shown}."
            raise EnvironmentProblem(text)
        yield
    finally:
        if ours:
            ray.shutdown()
