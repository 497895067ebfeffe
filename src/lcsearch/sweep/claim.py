"""Who has which trial: taking, giving back and counting, all under the run folder's claim lock.

A RUNNING trial belongs to the worker named in its user attribute `lcsearch:worker`; None there means that its
worker is gone and anybody may adopt it. Over several machines the lock does not reach; there the trial number,
which the storage hands out atomically, keeps the budget: a trial numbered beyond it is not run. Steps are counted
over all machines, seconds on each for itself.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from lcsearch.schedulers.optuna import adopt
from lcsearch.sweep.budget import room
from lcsearch.sweep.file import SweepFile
from lcsearch.sweep.folder import RunFolder

WORKER = "lcsearch:worker"
RETRIES = "lcsearch:retries"
ERROR = "lcsearch:error"
SECONDS = "lcsearch:seconds"
"""What a trial's earlier workers took for it; its present or last one counts from the `since` of its signature."""


@dataclass(frozen=True)
class Claim:
    """A trial this process may run, and whether it was begun by another."""

    trial: Trial
    adopted: bool


def take(study: optuna.Study, folder: RunFolder, slot: int, file: SweepFile) -> Claim | None:
    """An abandoned trial if there is one, else a new one while the budget lasts, else None."""
    me = {"slot": slot, "pid": os.getpid(), "host": socket.gethostname(), "since": datetime.now().isoformat()}
    with folder.claim():
        trials = study.get_trials(deepcopy=False)
        for frozen in trials:
            if frozen.state == TrialState.RUNNING and frozen.user_attrs.get(WORKER, me) is None:
                trial = adopt(study, frozen.number)
                trial.set_user_attr(WORKER, me)
                return Claim(trial, True)
        if not room(file, folder, trials):
            return None
        trial = study.ask()
        if trial.number >= file.budget.trials:  # another machine was faster
            study.tell(trial, state=TrialState.FAIL)
            return None
        trial.set_user_attr(WORKER, me)
        return Claim(trial, False)


@dataclass(frozen=True)
class Released:
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
    anywhere: bool = False,
    until: datetime | None = None,
) -> list[Released]:
    """Give back every RUNNING trial whose worker (by pid) was on this machine and is not among the living.

    Args:
        alive: pids of the workers that live; trials of none of them are given back, those that a worker died over
            before it could sign included.
        retries: how often a trial may lose its worker before it is marked FAIL.
        blame: count it against the trial; False when a whole launcher went down, which is no fault of any trial.
        anywhere: give back those of other machines too; only for who knows that nobody is at work there.
        until: when the workers worked last, as far as is known; now when None.
    """
    here = socket.gethostname()
    released = []
    with folder.claim():
        for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            owner = frozen.user_attrs.get(WORKER, {})
            if owner is None:
                continue
            elsewhere = owner.get("host", here) != here
            if not anywhere if elsewhere else owner.get("pid") in alive:
                continue
            released.append(_give_back(study, frozen, retries, blame, until))
    return released


def foreign(study: optuna.Study) -> Iterator[tuple[int, str]]:
    """(number, host) of the RUNNING trials that a worker on another machine has."""
    for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        host = (frozen.user_attrs.get(WORKER) or {}).get("host", socket.gethostname())
        if host != socket.gethostname():
            yield frozen.number, host


def seconds_of(frozen: FrozenTrial, now: datetime | None) -> float:
    """What a trial has taken of its workers' time, the time without a worker left out.

    Args:
        frozen: the trial.
        now: the end of what its present worker has done so far; None leaves the present worker of a trial out.
    """
    owner, earlier = frozen.user_attrs.get(WORKER), float(frozen.user_attrs.get(SECONDS, 0.0))
    since = datetime.fromisoformat(owner["since"]) if isinstance(owner, dict) and "since" in owner else None
    if since is None and SECONDS not in frozen.user_attrs and frozen.state.is_finished():
        since = frozen.datetime_start
    until = frozen.datetime_complete or now
    return earlier + (max((until - since).total_seconds(), 0.0) if since is not None and until is not None else 0.0)


def _give_back(study: optuna.Study, frozen: FrozenTrial, retries: int, blame: bool, until: datetime | None) -> Released:
    retry = int(frozen.user_attrs.get(RETRIES, 0)) + blame
    trial = adopt(study, frozen.number)
    given_up = retry > retries
    if given_up:
        trial.set_user_attr(ERROR, f"its worker died {times(retry)}; retries: {retries}")
        study.tell(trial, state=TrialState.FAIL)
    else:
        trial.set_user_attr(RETRIES, retry)
        trial.set_user_attr(SECONDS, seconds_of(frozen, until or datetime.now()))
        trial.set_user_attr(WORKER, None)
    return Released(frozen.number, frozen.last_step, retry, given_up)


def times(n: int) -> str:
    """`once`, `2 times`."""
    return "once" if n == 1 else f"{n} times"


def work_left(trials: Sequence[FrozenTrial], folder: RunFolder, file: SweepFile) -> int:
    """How many trials can be taken: those to adopt, and the room in the budget."""
    abandoned = sum(t.state == TrialState.RUNNING and t.user_attrs.get(WORKER, {}) is None for t in trials)
    return max(room(file, folder, trials), 0) + abandoned
