"""FreezeThaw: trials of an Optuna study are paused and resumed, as an allocator says; workers, leases, checkpoints."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna import TrialPruned
from optuna.trial import FrozenTrial, Trial, TrialState

from lcsearch import files
from lcsearch.allocation.arms import checked_prices
from lcsearch.allocation.contract import Account, Allocator
from lcsearch.allocation.named import allocator as named
from lcsearch.errors import InvalidValue, in_words, is_finite_number
from lcsearch.forecast.contract import Forecaster
from lcsearch.schedulers.optuna._artifacts import (
    LOCK,
    TrialCheckpoints,
    artifact_of,
    folder_for,
    remove,
    store_in,
)
from lcsearch.schedulers.optuna._desk import Desk, Turn
from lcsearch.schedulers.optuna._freeze_trial import FreezeThawTrial, LostTrial, Paused
from lcsearch.schedulers.optuna._lease import Lease, Watch, deaths_of
from lcsearch.schedulers.optuna._processes import run_processes
from lcsearch.schedulers.optuna._pruner import CurvePruner
from lcsearch.schedulers.optuna._record import LEFT, curve_of, cut_of, is_paused, paid_by, pause_at_of
from lcsearch.schedulers.optuna._sampler import ForecastSampler, Seen
from lcsearch.schedulers.optuna._snapshot import Reader, as_trial, snapshot_of
from lcsearch.schedulers.optuna._stop_when import StopWhen
from lcsearch.schedulers.optuna._storage import (
    adopt,
    claim,
    end_cut,
    is_in_memory,
    optimizing,
    pause,
    stored,
    take_stop,
)
from lcsearch.session import explain as words
from lcsearch.session import make_session
from lcsearch.session.study_report import StudyReport, report_of
from lcsearch.stopping.policy import Policy
from lcsearch.study import steps_trained

if TYPE_CHECKING:
    from optuna import Study
    from optuna.artifacts._protocol import ArtifactStore

_log = logging.getLogger("lcsearch")

MOST_DEATHS = 3
"""A trial over which so many workers of one run in a row were killed has FAILED."""
_REST_S = 0.05, 1.0
_LOOK_S = 5.0
_NO_LIMIT = 1 << 30

Objective = Callable[[FreezeThawTrial], float]


class FreezeThaw:
    """Trains the trials of a study in turns: hopeful ones go on, the others wait as checkpoints.

    The place of `study.optimize`. At every pause, and whenever a worker is free, an allocator says who gets the next
    turn: a paused trial or a new one. A paused trial is WAITING in the storage, with its parameters and its curve:
    samplers pass it over, it has no value, it is in no plot of values and never the `best_trial`.

    A pruner is asked as ever, and its stop goes before a pause. `n_trials` and `steps` count the whole study, so that
    a run with larger ones goes on where the last one has ended: trials that are paused by then stay so, until
    :meth:`finish` ends them as PRUNED. Do not call `study.optimize` or `study.ask` while trials are paused: Optuna
    would begin them as if they were enqueued.

    `study.stop()` in the objective ends the run: trials that are under way pause when they save next. Samplers that
    count what has been tried (BruteForceSampler) do not count paused trials, and may propose one's parameters again.

    Any number of processes and machines may run a FreezeThaw over one study at once, with the same arguments, where
    they share the storage and the folder of the checkpoints. A trial whose worker was killed goes on from its last
    checkpoint at another one. Steps that it trains again are not reported again.

    Args:
        study: of one objective.
        objective: as for `study.optimize`; it is given a :class:`FreezeThawTrial`, and `load`s and `save`s with it. One
            that never saves is never paused. With `processes` it must be importable by its name.
        max_steps: the step at which trials end, on the axis of `trial.report(value, step)`; `range(50)` is 50.
        allocator: "asha", another name of `lcsearch.allocation.named.KINDS`, or an Allocator, as that module's
            `allocator("sec", groups="lr")` makes it.
        n_trials: trials that are begun at most; None: no limit but `steps`.
        steps: the budget, in steps of all trials together; None: no limit but `n_trials`. It is passed by what
            workers have under way, at most.
        checkpoint_cost: what pausing a trial costs, in steps, >= 0; it comes out of `steps`, and stands in the
            allocator's account and the receipts.
        resume_cost: what it costs to go on with a paused one, in steps, >= 0.
        n_workers: trials that are trained at once.
        processes: workers are processes and not threads; the study needs a storage that they share.
        artifact_store: where checkpoints are kept: a folder, or a store of `optuna.artifacts`. None: a folder beside
            the storage's file; a temporary one for a study in memory.
        forecasters: who is asked for allocators that ask, see :class:`CurvePruner`; those of the pruner where it is a
            CurvePruner.
        pruner: takes the place of the study's own. With a CurvePruner allocations and looks share forecasters and log.
        seed: of the allocator's random choices. With one worker the same seed gives the same moves.
        decision_log: a folder for receipts of allocations; that of the pruner where it is a CurvePruner.
        host: where the network computes, see :class:`CurvePruner`; that of the pruner where it is a CurvePruner.
        lease_s: seconds without a report after which a worker on another machine is taken for dead; above the longest
            time between two reports.
        catch: exceptions of the objective that make a trial FAIL and no more, as in `study.optimize`; any other makes
            it FAIL and ends the run.
        stop_when: no trial is begun while more of them would gain too little; those that wait are cut then, and who
            leads runs to the end.

    Raises:
        InvalidValue: an argument is outside its range.
    """

    def __init__(
        self,
        study: Study,
        objective: Objective,
        *,
        max_steps: int,
        allocator: str | Allocator = "asha",
        n_trials: int | None = None,
        steps: float | None = None,
        checkpoint_cost: float = 0.0,
        resume_cost: float = 0.0,
        n_workers: int = 1,
        processes: bool = False,
        artifact_store: ArtifactStore | str | os.PathLike[str] | None = None,
        forecasters: Sequence[Forecaster | str] | Forecaster | str | None = None,
        pruner: CurvePruner | None = None,
        seed: int = 0,
        decision_log: str | os.PathLike[str] | None = None,
        host: str = "auto",
        lease_s: float = 60.0,
        catch: tuple[type[Exception], ...] = (),
        stop_when: StopWhen | None = None,
    ) -> None:
        _check(study, max_steps, n_trials, steps, n_workers, lease_s)
        if processes and is_in_memory(study):
            expected = "a storage that processes share, as a sqlite file or a journal"
            raise InvalidValue(expected, "a study in memory", "FreezeThaw(processes=True)")
        self.study, self.seed = study, seed
        self._objective, self._horizon, self._catch = objective, float(max_steps), tuple(catch)
        self._allocator = named(allocator) if isinstance(allocator, str) else allocator
        self._n_trials, self._steps, self._stop_when = n_trials, steps, stop_when
        self._prices = checked_prices(checkpoint_cost, resume_cost, "FreezeThaw")
        self._n_workers, self._processes, self._lease_s = n_workers, processes, float(lease_s)
        if pruner is not None:
            study.pruner = pruner
        own = study.pruner if isinstance(study.pruner, CurvePruner) else None
        for name, given, unsaid in (
            ("forecasters", forecasters, None),
            ("decision_log", decision_log, None),
            ("host", host, "auto"),
        ):
            if own is not None and given != unsaid:
                raise InvalidValue(repr(unsaid), given, f"FreezeThaw({name}=)", "Give it to the study's CurvePruner")
        if own is not None and own.max_steps not in ("auto", max_steps):
            raise InvalidValue(f"max_steps={max_steps}, as FreezeThaw has it", own.max_steps, "CurvePruner(max_steps=)")
        self._session = (
            make_session(Policy(), forecasters, decision_log, None, host=host) if own is None else own.session
        )
        self._reader = Reader(max_steps, "best") if own is None else own.reader(max_steps)
        if artifact_store is None or isinstance(artifact_store, str | os.PathLike):
            folder = folder_for(study) if artifact_store is None else Path(artifact_store).absolute()
            self._store: ArtifactStore = store_in(folder)
            self._lock_file = folder / LOCK
        else:  # its workers may be on several machines, which the storage keeps apart, and the leases
            name = hashlib.sha256(study.study_name.encode()).hexdigest()[:16]
            self._store, self._lock_file = artifact_store, Path(tempfile.gettempdir()) / f"lcsearch-{name}.lock"
        self._run_name = ""
        self._begin()

    def _begin(self) -> None:
        """What belongs to one process."""
        self._watch = Watch(self._lease_s)
        self._stop = threading.Event()
        self._done: dict[int, float] = {}  # steps of finished trials
        self._exhausted = False
        self._looked = -math.inf

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_watch", "_stop")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def run(self) -> None:
        """Train until nothing is left to be done, or the budget is spent.

        Raises:
            Exception: what the objective raised, unless it is in `catch`; of a worker process, RuntimeError.
        """
        self._stop.clear()
        take_stop(self.study)
        self._exhausted, self._looked = False, -math.inf
        self._run_name = uuid.uuid4().hex
        try:
            if self._processes:
                run_processes(self._work_alone, self._n_workers)
            elif self._n_workers == 1:
                self._work()
            else:
                self._run_threads()
        finally:
            if isinstance(self.study.sampler, ForecastSampler):
                self.study.sampler.beside(None)

    def _seen(self) -> Seen:
        """The study as the desk sees it."""
        return Seen(self._session, snapshot_of(self.study, self._reader.read(self.study)))

    def _run_threads(self) -> None:
        self.study.sampler.reseed_rng()
        with ThreadPoolExecutor(self._n_workers, thread_name_prefix="freeze-thaw") as pool:
            futures = [pool.submit(self._work) for _ in range(self._n_workers)]
            try:
                for future in futures:
                    future.result()
            finally:  # an interrupt, too: trials that are under way pause when they save next
                self._stop.set()

    def _work_alone(self, stopped: Callable[[], bool]) -> None:
        """The work of a process."""
        if self._n_workers > 1:  # samplers that were copied would say the same
            self.study.sampler.reseed_rng()
        self._work(stopped)

    def _work(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """What one worker does; `stopped` ends it early, at the end of a turn or when its trial saves."""

        def over() -> bool:
            return self._stop.is_set() or stopped()

        leases: dict[int, Lease] = {}
        desk = self._desk()
        if isinstance(self.study.sampler, ForecastSampler):
            self.study.sampler.beside(self._seen)
        turn: Turn | None = None
        try:
            rest = _REST_S[0]
            while not over():
                turn = turn or self._take(desk, leases)
                if turn is None:
                    if desk.over:
                        return
                    self._stop.wait(rest)
                    rest = min(2 * rest, _REST_S[1])
                    continue
                rest, now, turn = _REST_S[0], turn, None
                turn = self._train(now, desk, leases, over)
        except BaseException:
            self._stop.set()
            raise
        finally:
            for lease in leases.values():  # of a turn that was given and not begun
                lease.release()

    def _desk(self) -> Desk:
        return Desk(
            self.study,
            self._allocator,
            self._session,
            self._reader,
            seed=self.seed,
            account=self._account,
            n_new_allowed=self._n_new_allowed,
            lock=self._lock,
            ended=self._forget,
        )

    def _forget(self, number: int) -> None:
        """Remove the checkpoint of a trial that has ended."""
        remove(self._store, artifact_of(stored(self.study, adopt(self.study, number))))

    def _lock(self) -> AbstractContextManager[None]:
        """One allocation at a time; the death of a process frees it."""
        return files.locked(self._lock_file)

    def _account(self, trials: Sequence[FrozenTrial]) -> Account:
        paid = math.fsum(paid_by(trial, self._prices) for trial in trials) if any(self._prices) else 0.0
        return Account(self._steps, sum(map(self._trained, trials)), *self._prices, paid=paid)

    def _trained(self, frozen: FrozenTrial) -> float:
        known = self._done.get(frozen.number)
        if known is None:
            at = curve_of(frozen).reports()[0].tolist()
            known = steps_trained(at, self._horizon, complete=frozen.state == TrialState.COMPLETE)
            if frozen.state.is_finished():
                self._done[frozen.number] = known
        return known

    def _n_new_allowed(self, trials: Sequence[FrozenTrial]) -> int:
        if self._exhausted or (self._stop_when is not None and self._stop_when.enough(self.study, trials)):
            return 0
        if self._n_trials is None:
            return _NO_LIMIT
        return self._n_trials - sum(t.state != TrialState.WAITING or is_paused(t) for t in trials)

    def _spent(self, over: Callable[[], bool]) -> bool:
        """Is there nothing more to be trained: the budget is spent, or the run is to end?"""
        if over():
            return True
        return self._steps is not None and self._account(self.study.get_trials(deepcopy=False)).left <= 0

    def _sign(self, leases: dict[int, Lease], deaths: int = 0) -> Callable[[Trial], None]:
        def sign(trial: Trial) -> None:
            leases[trial.number] = Lease(
                self.study, trial, self._lease_s, self._lock, run=self._run_name, deaths=deaths
            )

        return sign

    def _take(self, desk: Desk, leases: dict[int, Lease]) -> Turn | None:
        """A trial whose worker is dead if there is one, else what the desk says. Dead ones are looked for now and then,
        for that is a reading of the study, and when there is nothing else to do.
        """
        now = time.monotonic()
        if now - self._looked >= _LOOK_S:
            self._looked = now
            if (turn := self._take_over(leases)) is not None:
                return turn
        return desk.take(self._sign(leases)) or self._take_over(leases)

    def _dead(self) -> list[FrozenTrial]:
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [frozen for frozen in running if pause_at_of(frozen) is not None and self._watch.dead(frozen)]

    def _take_over(self, leases: dict[int, Lease]) -> Turn | None:
        if not self._dead():
            return None
        with self._lock():
            for frozen in self._dead():
                trial, at = adopt(self.study, frozen.number), pause_at_of(frozen)
                deaths, why = deaths_of(frozen, self._run_name), cut_of(frozen)
                if why is not None:  # its worker was killed before it could pause
                    end_cut(self.study, trial.number, why)
                    self._forget(trial.number)
                elif deaths >= MOST_DEATHS:
                    _log.warning("lcsearch: trial %d has FAILED: %d workers were killed over it", trial.number, deaths)
                    self._end(trial, state=TrialState.FAIL)
                elif at is not None:
                    self._sign(leases, deaths)(trial)
                    return Turn(trial, at, True)
        return None

    def _train(self, turn: Turn, desk: Desk, leases: dict[int, Lease], over: Callable[[], bool]) -> Turn | None:
        """Train a trial until its turn is over or it has ended; the next turn, where one was given on the way."""
        lease, checkpoints = leases[turn.trial.number], TrialCheckpoints(self._store, self.study, turn.trial)
        sign, spent = self._sign(leases), lambda: self._spent(over)
        trial = FreezeThawTrial(
            turn,
            lease,
            checkpoints,
            self._horizon,
            lambda trial: desk.turn_over(trial, sign),
            spent,
            self._session.warn_once,
        )
        value: float | None = None
        state: TrialState | None = None
        error: Exception | None = None
        try:
            with optimizing(self.study):
                value = self._objective(trial)
        except Paused:
            del leases[trial.number]
            if lease.holds(surely=True) and not pause(self.study, turn.trial):
                self._forget(trial.number)  # it was cut
            return trial.following()
        except LostTrial:
            _log.warning("lcsearch: trial %d was taken over by another worker", trial.number)
            del leases[trial.number]
            return trial.following()
        except TrialPruned:
            state = TrialState.PRUNED
        except Exception as raised:
            state, error = TrialState.FAIL, raised
        finally:
            checkpoints.close()
            if take_stop(self.study):
                self._stop.set()
        del leases[trial.number]
        if lease.holds(surely=True):
            trial.ended(returned=state is None)
            self._end(turn.trial, value, state)
        if error is not None and not isinstance(error, self._catch):
            raise error
        if error is not None:
            _log.warning("lcsearch: trial %d has FAILED: %s", trial.number, in_words(error))
        return trial.following()

    def _end(self, trial: Trial, value: float | None = None, state: TrialState | None = None) -> None:
        kept = artifact_of(stored(self.study, trial))
        with optimizing(self.study):
            self.study.tell(trial, value, state)
        self._exhausted = self._exhausted or take_stop(self.study)  # a sampler that has nothing more to propose
        remove(self._store, kept)

    def finish(self) -> list[int]:
        """End the trials that are paused, or that a killed worker has left, as PRUNED, and remove their checkpoints.

        Returns:
            Their numbers.
        """
        ended = []
        with self._lock():
            dead = {frozen.number for frozen in self._dead()}
            for frozen in self.study.get_trials(deepcopy=False):
                if frozen.number in dead or (is_paused(frozen) and claim(self.study, frozen.number) is not None):
                    end_cut(self.study, frozen.number, "the search was finished while it was paused", LEFT)
                    remove(self._store, artifact_of(frozen))
                    ended.append(frozen.number)
        return ended

    def paused(self) -> list[int]:
        """Numbers of the trials that are paused now."""
        return [t.number for t in self.study.get_trials(deepcopy=False) if is_paused(t)]

    def explain(self, trial: int | FrozenTrial) -> str:
        """Why a trial was stopped, waits, or goes on, in a few lines.

        Args:
            trial: its number, or a FrozenTrial of `study.trials`.

        Raises:
            InvalidValue: no such trial.
        """
        number = trial.number if isinstance(trial, FrozenTrial) else trial
        frozen = next((t for t in self.study.get_trials(deepcopy=False) if t.number == number), None)
        if frozen is None:
            raise InvalidValue("the number of a trial of the study", number, "explain(trial)")
        if isinstance(self.study.pruner, CurvePruner) and not is_paused(frozen):
            return self.study.pruner.explain(number, self.study)
        reading = self._reader.read(self.study)
        said = words.explain(
            self._session,
            as_trial(frozen),
            snapshot_of(self.study, reading),
            asked=lambda: self._desk().next_turn(frozen.number),
        )
        account = self._account(reading.trials)
        if is_paused(frozen) and account.total is not None and account.left <= 0:
            used = f"{account.spent + account.paid:g} of {account.total:g} steps"
            said += f"\nthe budget is spent, {used}: nobody goes on until `steps` is raised"
        return said

    def report(self) -> StudyReport:
        """What stops and pauses have come to; printed, a few lines."""
        if isinstance(self.study.pruner, CurvePruner):
            return self.study.pruner.report(self.study)
        snapshot = snapshot_of(self.study, self._reader.read(self.study))
        _, faults = self._session.tally()
        known = self._session.calibration(snapshot)
        told: dict[str, Any] = {"calibration": known, "audits": self._session.audits(snapshot), "notices": ()}
        return report_of(self._session.policy, snapshot, {}, faults, 0, **told, name=int)


def _check(study: Study, max_steps: Any, n_trials: Any, steps: Any, n_workers: Any, lease_s: Any) -> None:
    where = "FreezeThaw"
    if len(study.directions) != 1:
        raise InvalidValue("a study of one objective", f"one of {len(study.directions)}", f"{where}(study=)")
    for name, value in (("max_steps", max_steps), ("lease_s", lease_s)):
        if not (is_finite_number(value) and value > 0):
            raise InvalidValue("a number > 0", value, f"{where}({name}=)")
    if not (isinstance(n_workers, int) and n_workers >= 1):
        raise InvalidValue("a whole number >= 1", n_workers, f"{where}(n_workers=)")
    if n_trials is not None and not (isinstance(n_trials, int) and n_trials >= 1):
        raise InvalidValue("a whole number >= 1 or None", n_trials, f"{where}(n_trials=)")
    if steps is not None and not (is_finite_number(steps) and steps > 0):
        raise InvalidValue("a number of steps > 0 or None", steps, f"{where}(steps=)")
    if n_trials is None and steps is None:
        raise InvalidValue("n_trials or steps", None, f"{where}(n_trials=, steps=)", "say when the search ends")
