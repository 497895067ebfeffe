"""Who trains a trial: a lease in the trial's own attributes, so that a killed worker's trial is taken over.

On one machine a process is known to live; a worker on another one by the lease that it renews at its reports: whoever
sees it unchanged for `lease_s` seconds, by their own clock, takes it for dead. So no two clocks need agree. A worker
that was only away finds at its next report that the trial is another's.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

from lcsearch.schedulers.optuna._process_identity import is_gone, this_process
from lcsearch.schedulers.optuna._record import CLAIMED, LEASE, attribute_of, n_pauses
from lcsearch.schedulers.optuna._storage import store_with, stored

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

Clock = Callable[[], float]
Lock = Callable[[], AbstractContextManager[Any]]


class Lease:
    """This worker's lease of one trial.

    Args:
        study: whose trial.
        trial: which.
        lease_s: seconds after which others may take the trial of a worker that has not renewed it.
        lock: held by whoever takes a trial over.
        run: which run of a driver the worker is of.
        deaths: workers in a row that were killed over the trial.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        study: Study,
        trial: Trial,
        lease_s: float,
        lock: Lock,
        *,
        run: str = "",
        deaths: int = 0,
        clock: Clock = time.monotonic,
    ) -> None:
        self._study, self._trial, self._lease_s, self._lock, self._clock = study, trial, lease_s, lock, clock
        self._token, self._beat, self._run, self._deaths = uuid.uuid4().hex, 0, run, deaths
        self._pauses = n_pauses(stored(study, trial))
        self._checked = False  # the first report sees whether another was faster
        self._write()

    def _write(self) -> None:
        about = this_process() | {
            "token": self._token,
            "run": self._run,
            "beat": self._beat,
            "pauses": self._pauses,
            "deaths": self._deaths,
            "of": self._trial.number,
        }
        store_with(self._study, self._trial, LEASE, about)
        self._renewed = self._clock()

    def holds(self, *, surely: bool = False) -> bool:
        """Is the trial still this worker's? Renews the lease where due; `surely` reads the storage in any case."""
        away = self._clock() - self._renewed
        if away < self._lease_s / 4 and self._checked and not surely:
            return True
        if away < self._lease_s:
            return self._check(renew=away >= self._lease_s / 4)
        with self._lock():  # it may be taken over at this very moment
            return self._check(renew=True)

    def _check(self, *, renew: bool) -> bool:
        frozen = stored(self._study, self._trial)
        if frozen.state != TrialState.RUNNING or attribute_of(frozen, LEASE).get("token") != self._token:
            return False
        if renew:
            self._beat += 1
            self._write()
        self._checked = True
        return True

    def release(self) -> None:
        """Leave the trial to whoever asks next: it goes on from its checkpoint."""
        with suppress(Exception):  # it has ended, or the storage is gone; then the lease runs out
            left = {"token": None, "deaths": self._deaths, "of": self._trial.number}
            store_with(self._study, self._trial, LEASE, left)


class Watch:
    """Knows of each running trial how long its lease has not changed, as far as this process has looked."""

    def __init__(self, lease_s: float, clock: Clock = time.monotonic) -> None:
        self._lease_s, self._clock = lease_s, clock
        self._seen: dict[int, tuple[object, float]] = {}

    def dead(self, frozen: FrozenTrial) -> bool:
        """Is the worker of a RUNNING trial gone?"""
        lease = attribute_of(frozen, LEASE)
        if "token" in lease and lease["token"] is None:
            return True
        # One of an earlier turn says nothing of who claimed the trial since: they are about to sign, or were killed.
        turn = n_pauses(frozen)
        if lease.get("pauses") == turn:
            if (gone := is_gone(lease)) is not None:
                return gone
        elif (claimed := attribute_of(frozen, CLAIMED)).get("pauses") == turn and is_gone(claimed):
            return True
        now = self._clock()
        mark, since = self._seen.get(frozen.number, (None, now))
        if mark != (lease.get("token"), lease.get("beat")):
            mark, since = (lease.get("token"), lease.get("beat")), now
        self._seen[frozen.number] = mark, since
        return now - since >= self._lease_s


def deaths_of(frozen: FrozenTrial, run: str) -> int:
    """How many workers in a row were killed over a trial whose worker is dead, while their run went on.

    Where all of a run is gone that is no fault of a trial.
    """
    lease = attribute_of(frozen, LEASE)
    deaths = lease.get("deaths")
    return (deaths if isinstance(deaths, int) else 0) + (lease.get("run") == run)
