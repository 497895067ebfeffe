"""One picture of a sweep in numbers: what the screen draws and `--json` tells.

Nothing is drawn here. `take` is pure; :class:`Observer` reads what it needs: study, decision log, run folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from lcsearch.errors import EnvironmentProblem
from lcsearch.sweep.monitor import run_record
from lcsearch.sweep.monitor.decision_tail import LookTail
from lcsearch.sweep.monitor.progress import Progress, wall_clock
from lcsearch.sweep.spec.model import SweepFile
from lcsearch.sweep.store.budget import read_clock
from lcsearch.sweep.store.folder import RunFolder

if TYPE_CHECKING:
    import optuna

    from lcsearch.schedulers.optuna import StudyReport

ENDED = ("complete", "stopped", "failed")
CALIBRATION = "uncalibrated"
"""No forecaster's probabilities have been calibrated yet."""

_ENOUGH = 3  # trials that must have ended before the rest can be estimated
_RISK_SHARE = 0.1  # of the time goes into the risk at most


@dataclass(frozen=True)
class Picture:
    """A sweep at one moment.

    Attributes:
        seconds: wall clock of all launches so far, see :func:`lcsearch.sweep.monitor.progress.wall_clock`.
        left: estimated seconds to the end; None before a few trials have ended, and at the end.
        best_age: seconds since the report of the best value; None when there is none, or nothing says.
        risk: that some stop lost the winner; None when not known.
        looks: trial -> (step, P(beat)) at its latest look.
        n_looks: looks that reached a forecaster.
        latency: (p50, p99) of such a look in seconds; None before the first.
        failed_open: looks at which a forecaster gave no opinion.
        price: of one worker's hour; None when the file names none.
    """

    progress: Progress
    seconds: float
    left: float | None = None
    best_age: float | None = None
    risk: float | None = None
    looks: Mapping[int, tuple[float, float]] | None = None
    n_looks: int = 0
    latency: tuple[float, float] | None = None
    failed_open: int = 0
    price: float | None = None

    @property
    def money(self) -> tuple[float, float | None] | None:
        """(spent, saved), see :func:`priced`; None without a price."""
        return None if self.price is None else priced(self.progress, self.price)


def priced(progress: Progress, price: float) -> tuple[float, float | None]:
    """(spent, saved) where a worker's hour costs `price`; None for what is not known."""
    saved = progress.seconds_saved
    return progress.seconds / 3600 * price, None if saved is None else saved / 3600 * price


def time_left(progress: Progress, sweep: SweepFile, seconds: float) -> float | None:
    """Estimated seconds until the budget is used.

    A trial to come is taken to last as many steps as those that ended did on average (those after the startup trials,
    which are never stopped, once there are a few of them); one that has passed that, half of what it has left.
    """
    ended = progress.of(*ENDED)
    running = progress.of("running", "waiting")
    to_come = max(0, progress.budget - progress.counted)
    if len(ended) < _ENOUGH or not progress.seconds or not progress.spent or not (running or to_come):
        return None
    ended.sort(key=lambda row: (row.ended is not None, row.ended, row.number))
    startup = int(getattr(sweep.pruner, "n_startup_trials", 0))
    usual = fmean(row.spent for row in (ended[startup:] if len(ended) >= startup + _ENOUGH else ended))
    pace = progress.seconds / progress.spent
    left = {row.number: progress.left(row.spent, sweep.max_steps) for row in running}
    rest = [usual - row.spent if row.spent < usual else left[row.number] / 2 for row in running]
    new = to_come * usual
    if sweep.budget.steps is not None:
        new = min(new, max(0.0, sweep.budget.steps - progress.spent - sum(rest)))
    if sweep.budget.seconds is not None:
        new = min(new, max(0.0, sweep.budget.seconds - seconds) / pace * sweep.backend.workers.n)
    workers = max(1, min(sweep.backend.workers.n, len(running) + to_come))
    longest = max([*rest, usual if new else 0.0])
    return pace * max((new + sum(rest)) / workers, longest)


class Observer:
    """Takes pictures of one run; what is costly is read again only when it can have changed.

    Args:
        clock: monotonic seconds.
        wall: seconds since the epoch.
    """

    def __init__(
        self,
        sweep: SweepFile,
        folder: RunFolder,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._sweep, self._folder, self._clock, self._wall = sweep, folder, clock, wall
        self.looks = LookTail(folder.decisions)
        self._risk: float | None = None
        self._risk_of: object = ()
        self._risk_due = -float("inf")
        self._best: tuple[tuple[int, int], float | None] | None = None

    def picture(self, progress: Progress, study: optuna.Study) -> Picture:
        """The sweep now."""
        now, seconds = self._wall(), wall_clock(read_clock(self._folder), progress.rows) or 0.0
        since = self._since(progress, study)
        looks = self.looks.latest()
        return Picture(
            progress=progress,
            seconds=seconds,
            left=time_left(progress, self._sweep, seconds),
            best_age=None if since is None else max(0.0, now - since),
            risk=self._risk_now(progress, study),
            looks=dict(looks),
            n_looks=self.looks.count,
            latency=self.looks.latency(),
            failed_open=sum(self.looks.failed_open.values()),
            price=self._sweep.budget.money_per_hour,
        )

    def _since(self, progress: Progress, study: optuna.Study) -> float | None:
        best = progress.best
        if best is None:
            return None
        key = (best.number, best.step)
        if self._best is None or self._best[0] != key or self._best[1] is None:
            row = progress.numbered[best.number]
            try:
                self._best = (key, run_record.best_since(study, best, row))
            except EnvironmentProblem:  # a storage that has been given up ends a sweep, not its account
                return None
        return self._best[1]

    def _risk_now(self, progress: Progress, study: optuna.Study) -> float | None:
        """Worked out anew when a trial has ended or a new best has come, if that does not take too long."""
        best = progress.best
        what = (best and (best.number, best.value), sum(progress.counts.get(state, 0) for state in ENDED))
        before = self._clock()
        if what != self._risk_of and before >= self._risk_due:
            self._risk, self._risk_of = risk_now(study), what
            after = self._clock()
            self._risk_due = after + (after - before) / _RISK_SHARE
        return self._risk


def risk_now(study: optuna.Study) -> float | None:
    """The risk by the curve pruner's ledger; None for other pruners, or when it cannot be worked out now."""
    report = stops_now(study)
    return None if report is None or report.risk is None else float(report.risk)


def stops_now(study: optuna.Study) -> StudyReport | None:
    """The curve pruner's ledger; None for other pruners, or when it cannot be worked out now."""
    report = getattr(study.pruner, "report", None)
    if report is None:
        return None
    try:
        found: StudyReport = report(study)
        return found
    except Exception:  # a number on a screen must not end a sweep; the summary says when it is missing
        return None
