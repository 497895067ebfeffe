"""The state of a sweep in facts: the one model that live view, `status`, summary, `--json` and report render.

Nothing is drawn here. :class:`StateReader` reads what it needs: study, decision log, run folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING

from lcsearch.allocation.receipt import AllocationReceipt
from lcsearch.errors import EnvironmentProblem
from lcsearch.stopping.calibration import Calibration
from lcsearch.sweep.monitor import run_record
from lcsearch.sweep.monitor.decision_tail import DecisionLogTail
from lcsearch.sweep.monitor.progress import Progress, wall_clock
from lcsearch.sweep.spec.model import SweepFile
from lcsearch.sweep.store.budget import Reading, price_of, read_clock
from lcsearch.sweep.store.folder import RunFolder

if TYPE_CHECKING:
    import optuna

    from lcsearch.schedulers.optuna import StudyReport

ENDED = ("complete", "stopped", "failed")

_TURNS = 10  # the latest allocations that are kept
_ENOUGH = 3  # trials that must have ended before the rest can be estimated
_RISK_SHARE = 0.1  # of the time goes into the risk at most


@dataclass(frozen=True)
class SweepState:
    """A sweep at one moment.

    Attributes:
        progress: its trials, what they spent and saved, best and incumbent.
        clock: the wall clock of all launches so far.
        left: estimated seconds to the end; None before a few trials have ended, and at the end.
        best_age: seconds since the report of the best value; None when there is none, or nothing says.
        ledger: what the curve pruner's stops came to; None for other pruners, or when it cannot be worked out now.
        looks: trial -> (step, P(beat)) at its latest look.
        n_looks: looks that reached a forecaster.
        latency: (p50, p99) of such a look in seconds; None before the first.
        failed_open: "forecaster REASON" -> looks at which it gave no forecast, most frequent first.
        n_turns: turns that the allocator has given, of a sweep that pauses.
        turns: its latest allocations, oldest first.
        damage: what could not be read and was left out, one sentence each.
    """

    sweep: SweepFile
    folder: RunFolder
    progress: Progress
    clock: Reading = field(default_factory=Reading)
    left: float | None = None
    best_age: float | None = None
    ledger: StudyReport | None = None
    looks: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    n_looks: int = 0
    latency: tuple[float, float] | None = None
    failed_open: Mapping[str, int] = field(default_factory=dict)
    n_turns: int = 0
    turns: tuple[AllocationReceipt, ...] = ()
    damage: tuple[str, ...] = ()

    @property
    def risk(self) -> float | None:
        """A bound of the probability that some stop lost the winner; None when not known."""
        return None if self.ledger is None else self.ledger.risk

    @property
    def independent(self) -> float | None:
        """What it is, were trials independent; None when not known."""
        return None if self.ledger is None else self.ledger.independent

    @property
    def calibration(self) -> Calibration:
        """How P(beat) fared; its state stands beside the risk."""
        return Calibration() if self.ledger is None else self.ledger.calibration

    @property
    def wall(self) -> float | None:
        """Seconds of wall clock, see :func:`lcsearch.sweep.monitor.progress.wall_clock`; None when not known."""
        return wall_clock(self.clock, self.progress.rows)

    @property
    def n_failed_open(self) -> int:
        """Looks at which a forecaster gave no forecast."""
        return sum(self.failed_open.values())

    @property
    def share_saved(self) -> float | None:
        """Of the steps that were spent or saved, the saved ones; None before any."""
        total = self.progress.spent + self.progress.saved
        return self.progress.saved / total if total else None

    @property
    def money(self) -> tuple[float, float | None] | None:
        """(spent, saved), None for what is not known; None where the file gives a worker's hour no price."""
        spent = self._price(self.progress.seconds)
        return None if spent is None else (spent, self._price(self.progress.seconds_saved))

    @property
    def money_unpruned(self) -> float | None:
        """What the same trials would have cost unpruned, an estimate; None when not known, or without a price."""
        return self._price(self.seconds_unpruned)

    def _price(self, seconds: float | None) -> float | None:
        return price_of(self.sweep, seconds)

    @property
    def unpruned(self) -> int:
        """Steps that the same trials would have taken unpruned; failed ones as long as they ran."""
        return round(self.progress.spent + self.progress.saved + sum(self._to_go.values()))

    @property
    def seconds_unpruned(self) -> float | None:
        """What those would have taken of workers' time, an estimate by the trials' pace; None when not known."""
        p = self.progress
        saved, rest = p.seconds_saved, p.seconds_of(self._to_go)
        return None if saved is None or rest is None or not p.seconds else p.seconds + saved + rest

    @property
    def _to_go(self) -> dict[int, float]:
        live = self.progress.of("running", "waiting", "paused")
        return {row.number: self.progress.left(row.spent, self.sweep.max_steps) for row in live}


def time_left(progress: Progress, sweep: SweepFile, seconds: float) -> float | None:
    """Estimated seconds until the budget is used.

    A trial to come is taken to last as many steps as those that ended did on average (those after the startup trials,
    which are never stopped, once there are a few of them); one that has passed that, half of what it has left. Not
    known where trials are paused: how many of them go on is the allocator's to say.
    """
    if sweep.pause:
        return None
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


class StateReader:
    """Reads the state of one run; what is costly is read again only when it can have changed.

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
        self._looks = DecisionLogTail(folder.decisions)
        self._ledger: StudyReport | None = None
        self._ledger_of: object = ()
        self._ledger_due = -float("inf")
        self._best: tuple[tuple[int, int], float | None] | None = None

    def state(self, progress: Progress, study: optuna.Study) -> SweepState:
        """The sweep now, as far as `progress` has it."""
        since, clock, looks = self._since(progress, study), read_clock(self._folder), self._looks
        latest = dict(looks.latest())
        return SweepState(
            self._sweep,
            self._folder,
            progress,
            clock,
            left=time_left(progress, self._sweep, wall_clock(clock, progress.rows) or 0.0),
            best_age=None if since is None else max(0.0, self._wall() - since),
            ledger=self._ledger_now(progress, study),
            looks=latest,
            n_looks=looks.count,
            latency=looks.latency(),
            failed_open=dict(looks.failed_open.most_common()),
            n_turns=looks.n_turns,
            turns=tuple(looks.allocations[-_TURNS:]),
            damage=tuple(run_record.damage(self._folder, progress, clock, looks)),
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

    def _ledger_now(self, progress: Progress, study: optuna.Study) -> StudyReport | None:
        """Worked out anew when a trial has ended or a new best has come, if that does not take too long."""
        report = getattr(study.pruner, "report", None)
        best = progress.best
        what = (best and (best.number, best.value), sum(progress.counts.get(state, 0) for state in ENDED))
        before = self._clock()
        if report is not None and what != self._ledger_of and before >= self._ledger_due:
            try:
                self._ledger = report(study)
            except Exception:  # a number on a screen must not end a sweep; the summary says when it is missing
                self._ledger = None
            self._ledger_of, after = what, self._clock()
            self._ledger_due = after + (after - before) / _RISK_SHARE
        return self._ledger
