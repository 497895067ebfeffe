"""Who has which trial: taking, giving back and counting, all under the run folder's claim lock.

A RUNNING trial belongs to the worker named in its user attribute `lcsearch:worker`: its process, its machine's name,
and the run (folder) it works for. Without a pid there, its worker is gone and any worker of that run may adopt it:
its checkpoints lie in that run's folder. Over several machines the lock does not reach; there

- the trial number, which the storage hands out atomically, keeps the budget: one with as many trials below it as the
  budget allows is surplus. It is not run and not counted, also when the budget is raised;
- steps are counted over all machines, seconds on each for itself;
- a trial changes its run only when its own has been silent for long: :func:`request_takeover`, and a while later
  :func:`take_over` by whoever then stands as its claimant, which is one;
- a worker that was only away (suspended, cut off) asks :func:`still_has` before it writes.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from lcsearch.schedulers.optuna import adopt, is_paused
from lcsearch.schedulers.optuna._record import without_dead
from lcsearch.schedulers.optuna._storage import stored
from lcsearch.sweep.spec.model import SweepFile
from lcsearch.sweep.store import attributes
from lcsearch.sweep.store.attributes import WORKER
from lcsearch.sweep.store.budget import AGAIN, SECONDS, TOOK, replacements, room, seconds_of, standing
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.store.heartbeat import here
from lcsearch.sweep.store.pace import Pacer

CLAIMANT = "lcsearch:claimant"
RETRIES = "lcsearch:retries"
ERROR = "lcsearch:error"
SURPLUS = "lcsearch:surplus"


NOTED = "lcsearch:noted"
"""What was odd about its reports, see :attr:`lcsearch.sweep.objective.context.Context.noted`."""
REPLAYED = "replayed"
"""The one kind of note that counts: in all processes of a trial together."""


@dataclass(frozen=True)
class Claim:
    """A trial this process may run, and whether it was begun by another; `owner` is how it was signed.

    `began` is when, by this process's monotonic clock; `pacer` is told of its reports, `noted` is what
    was odd about them. With pausing, the trial's turn goes until its first report at `pause_at` or later.
    """

    trial: Trial
    adopted: bool
    owner: dict[str, Any]
    began: float = field(default_factory=time.monotonic)
    pacer: Pacer = field(default_factory=Pacer)
    noted: dict[str, Any] = field(default_factory=dict)
    pause_at: float = math.inf

    def note(self, more: Mapping[str, Sequence[float]]) -> None:
        """Keep what was odd about this worker's reports with the trial, beside what earlier workers noted."""
        self.noted.update({kind: list(numbers) for kind, numbers in more.items()})
        if self.noted:
            frozen = self.trial.study.get_trials(deepcopy=False)[self.trial.number]
            earlier = attributes.noted(frozen.user_attrs, NOTED)
            counted = [n for noted in (earlier, self.noted) for n in noted.get(REPLAYED, ())]
            together = {REPLAYED: [sum(counted)]} if counted else {}
            self.trial.set_user_attr(NOTED, {**self.noted, **earlier, **together})

    def end(self, value: float | None = None, state: TrialState | None = None) -> None:
        """Tell the study how the trial ended, and what it took."""
        self.count()
        self.trial.study.tell(self.trial, value, state=state)

    def count(self) -> None:
        """Store what it took, and what was odd about its reports."""
        frozen = stored(self.trial.study, self.trial)
        pace, before = self.pacer.told(), attributes.took(frozen.user_attrs, TOOK) or {}
        if before.get("gaps", 0) > pace.get("gaps", 0):  # of an earlier turn, which says more
            pace = {name: before[name] for name in ("pace", "gaps") if name in before}
        took = {"since": self.owner["since"], "seconds": time.monotonic() - self.began}
        self.trial.set_user_attr(TOOK, {**took, **pace})
        self.note({})


def take(study: optuna.Study, folder: RunFolder, slot: int, file: SweepFile) -> Claim | None:
    """An abandoned trial of this run if there is one, else a new one while the budget lasts, else None."""
    with folder.claim():
        trials = study.get_trials(deepcopy=False)
        found = adopt_abandoned(study, trials, folder, slot, file)
        if found is not None or not room(file, folder, counted(trials)):
            return found
        me, trial = signature(folder, slot), study.ask()
        trial.set_user_attr(WORKER, me)
        return None if is_surplus(study, trial, file) else Claim(trial, False, me)


def signature(folder: RunFolder, slot: int) -> dict[str, Any]:
    """How a worker signs a trial that it takes now."""
    now = datetime.now(UTC).isoformat()
    return {"slot": slot, "pid": os.getpid(), "host": here(), "run": folder.identity(), "since": now}


def adopt_abandoned(
    study: optuna.Study, trials: Sequence[FrozenTrial], folder: RunFolder, slot: int, file: SweepFile
) -> Claim | None:
    """An abandoned trial of this run, signed; needs the claim lock, and the trials as they stand under it."""
    run, me = folder.identity(), signature(folder, slot)
    for frozen in trials:
        if abandoned(frozen, run):
            trial = adopt(study, frozen.number)
            if not is_surplus(study, trial, file):
                sign(study, trial, me)
                return Claim(trial, True, me)
    return None


def sign(study: optuna.Study, trial: Trial, me: dict[str, Any]) -> None:
    """Sign a trial that is taken; what a turn took that has ended is added to the earlier ones'."""
    frozen = stored(study, trial)
    took, since = attributes.took(frozen.user_attrs, TOOK), _owner(frozen).get("since")
    if took is not None and since is not None and took.get("since") == since:
        trial.set_user_attr(SECONDS, seconds_of(frozen, None))
    trial.set_user_attr(WORKER, me)


def is_surplus(study: optuna.Study, trial: Trial, file: SweepFile) -> bool:
    """Was the trial begun beyond the budget, because another machine was faster? Then its end is told; it was not run.

    One that has reported is none: it was begun within a budget that is smaller now.
    """
    budget = file.budget.trials
    if trial.number < budget:
        return False
    trials = study.get_trials(deepcopy=False)
    before = sum(t.number < trial.number for t in standing(counted(trials)))
    if before < budget or trials[trial.number].intermediate_values:
        return False
    trial.set_user_attr(SURPLUS, budget)
    trial.set_user_attr(ERROR, f"not run: another machine was faster to take the last of {budget} trials")
    study.tell(trial, state=TrialState.FAIL)
    return True


def abandoned(frozen: FrozenTrial, run: str | None = None) -> bool:
    """Is it RUNNING without a worker, and, given `run`, one that this run may adopt?"""
    if frozen.state != TrialState.RUNNING or WORKER not in frozen.user_attrs:
        return False
    owner = _owner(frozen) or {"pid": None}  # by an earlier lcsearch, or one that cannot be read
    return owner.get("pid", 0) is None and (run is None or owner.get("run", run) == run)


def retry_failed(study: optuna.Study, folder: RunFolder) -> dict[int, int]:
    """Put every failed trial on the list of those to be begun, from its start, with the parameters that it had.

    Each counts in the budget in place of the failed one, which keeps what it reported.

    Returns:
        failed trial -> the trial that runs it again.
    """
    with folder.claim():
        trials = study.get_trials(deepcopy=False)
        failed = [t for t in standing(counted(trials)) if t.state == TrialState.FAIL]
        for trial in failed:
            study.enqueue_trial(trial.params, user_attrs={AGAIN: trial.number})
        numbers = {trial.number for trial in failed}
        return {n: by for n, by in replacements(study.get_trials(deepcopy=False)).items() if n in numbers}


def still_has(study: optuna.Study, claim: Claim) -> bool:
    """Is the trial still that of its worker? Reads the storage."""
    frozen = study.get_trials(deepcopy=False)[claim.trial.number]
    return frozen.state == TrialState.RUNNING and frozen.user_attrs.get(WORKER) == claim.owner


@dataclass(frozen=True)
class RequeuedTrial:
    """What became of a dead worker's trial.

    Attributes:
        number: the trial.
        step: the last step it reported; None before the first.
        retry: which retry this is, from 1.
        given_up: its retries are used; it was marked FAIL.
    """

    number: int
    step: int | None
    retry: int
    given_up: bool


def release(
    study: optuna.Study,
    folder: RunFolder,
    alive: Collection[int],
    retries: int,
    *,
    blame: bool = True,
    shared: bool = False,
    anywhere: bool = False,
    until: datetime | None = None,
) -> list[RequeuedTrial]:
    """Give back every RUNNING trial of this run whose worker (by pid) is not among the living.

    Args:
        alive: pids of this run's workers that live.
        retries: how often a trial may lose its worker before it is marked FAIL.
        blame: count it against the trial; False when a whole launcher went down, which is no fault of any trial.
        shared: other machines use the study. Otherwise a trial that nobody signed was begun by a worker of this run
            that died over it, and is given back too.
        anywhere: whoever signed a trial was of this run: nobody else uses the study.
        until: when the workers worked last, as far as is known; now when None.
    """
    run = folder.identity()
    released = []
    with folder.claim():
        for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            owner = _owner(frozen)
            unsigned = WORKER not in frozen.user_attrs
            if abandoned(frozen) or (unsigned and shared) or not (anywhere or _is_of(owner, run)):
                continue
            if owner.get("pid") not in alive:
                released.append(_give_back(study, frozen, run, retries, blame, until))
    return released


def _owner(frozen: FrozenTrial) -> dict[str, Any]:
    return attributes.signature(frozen.user_attrs, WORKER)


def _is_of(owner: dict[str, Any], run: str) -> bool:
    """Signed by a worker of `run`; by this machine, if by one that named no run."""
    return bool(owner["run"] == run) if "run" in owner else bool(owner.get("host", here()) == here())


@dataclass(frozen=True)
class RemoteTrial:
    """A RUNNING trial of another machine.

    `run` tells that machine's run from others; `claimant` is the run that wants to have the trial.
    """

    number: int
    host: str
    run: str
    claimant: str | None


def foreign(trials: Iterable[FrozenTrial], run: str, *, shared: bool = True) -> Iterator[RemoteTrial]:
    """The RUNNING trials that are not of `run`; those nobody has signed yet count when the study is shared."""
    for frozen in trials:
        if frozen.state != TrialState.RUNNING:
            continue
        owner = _owner(frozen)
        unsigned = WORKER not in frozen.user_attrs and shared
        if unsigned or not _is_of(owner, run):
            host = owner.get("host", "a machine unknown")
            name = owner.get("run") or (f"unsigned {frozen.number}" if unsigned else f"host {host}")
            yield RemoteTrial(frozen.number, host, name, frozen.user_attrs.get(CLAIMANT))


def request_takeover(study: optuna.Study, folder: RunFolder, number: int) -> None:
    """Say that this run wants the trial of a silent machine; of several that say so at once, the last one stands."""
    adopt(study, number).set_user_attr(CLAIMANT, folder.identity())


def take_over(study: optuna.Study, folder: RunFolder, wanted: RemoteTrial, retries: int) -> RequeuedTrial | None:
    """Make the trial one of this run that its workers may adopt; None when another machine got it, or it is back."""
    run = folder.identity()
    with folder.claim():
        frozen = study.get_trials(deepcopy=False)[wanted.number]
        owner = _owner(frozen)
        changed = owner.get("run", wanted.run) != wanted.run or (WORKER in frozen.user_attrs and _is_of(owner, run))
        if frozen.state != TrialState.RUNNING or changed or frozen.user_attrs.get(CLAIMANT) != run:
            return None
        return _give_back(study, frozen, run, retries, blame=True)


def _give_back(
    study: optuna.Study, frozen: FrozenTrial, run: str, retries: int, blame: bool, until: datetime | None = None
) -> RequeuedTrial:
    retry = attributes.count(frozen.user_attrs, RETRIES) + blame
    trial = adopt(study, frozen.number)
    given_up = retry > retries
    seconds = seconds_of(frozen, until or datetime.now(UTC))
    if given_up:
        lately = seconds - attributes.seconds(frozen.user_attrs, SECONDS)
        trial.set_user_attr(TOOK, {"since": _owner(frozen).get("since"), "seconds": lately})
        trial.set_user_attr(ERROR, f"its worker died {times(retry)}; retries: {retries}")
        study.tell(trial, state=TrialState.FAIL)
    else:
        trial.set_user_attr(RETRIES, retry)
        trial.set_user_attr(SECONDS, seconds)
        abandon(trial, run)
    return RequeuedTrial(frozen.number, without_dead(frozen).last_step, retry, given_up)


def abandon(trial: Trial, run: str) -> None:
    """Leave a trial to the workers of `run`."""
    trial.set_user_attr(WORKER, {"slot": None, "pid": None, "host": here(), "run": run})


def times(n: int) -> str:
    """`once`, `2 times`."""
    return "once" if n == 1 else f"{n} times"


def counted(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Without those that were begun beyond the budget and not run."""
    return [trial for trial in trials if SURPLUS not in trial.user_attrs]


def work_left(trials: Sequence[FrozenTrial], folder: RunFolder, file: SweepFile) -> int:
    """How many trials can be taken: those this run may adopt or go on with, and the room in the budget."""
    run = folder.identity()
    return max(room(file, folder, counted(trials)), 0) + sum(abandoned(t, run) or is_paused_in(t, run) for t in trials)


def paused_elsewhere(trials: Iterable[FrozenTrial], run: str) -> dict[str, list[int]]:
    """Host -> the paused trials whose checkpoints lie there."""
    found: dict[str, list[int]] = {}
    for frozen in trials:
        if is_paused(frozen) and not is_paused_in(frozen, run):
            found.setdefault(str(_owner(frozen).get("host", "a machine unknown")), []).append(frozen.number)
    return found


def is_paused_in(frozen: FrozenTrial, run: str) -> bool:
    """Is it paused, and its checkpoint in the folder of `run`?"""
    return is_paused(frozen) and _is_of(_owner(frozen), run)
