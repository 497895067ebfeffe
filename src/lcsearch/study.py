"""Trials, the columnar bank of finished ones, and the snapshot a decision is made from. Immutable, numpy only."""

from __future__ import annotations

import enum
import math
from bisect import bisect_right
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lcsearch.curves import Curve, Floats, latest
from lcsearch.errors import InvalidValue
from lcsearch.goal import ROUNDING, Goal
from lcsearch.schedule import Schedule

BOUNDS = (0.0, -1.0, -100.0)
"""Losses that metrics end at: no error, all of a share, all of a percentage."""
_TIES = 3


class Status(enum.Enum):
    """Where a trial is in its life."""

    RUNNING = "running"
    PAUSED = "paused"
    COMPLETE = "complete"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def finished(self) -> bool:
        """True for the states a trial never leaves."""
        return self in (Status.COMPLETE, Status.STOPPED, Status.FAILED)


def place(uid: str) -> tuple[int, str]:
    """Order of uids: numbers as numbers, "9" before "10"; so are Ray's ids, which are of one length.

    >>> sorted(["10", "9", "a_02", "a_01"], key=place)
    ['9', '10', 'a_01', 'a_02']
    """
    return len(uid), uid


@dataclass(frozen=True, eq=False)
class Trial:
    """One training run as it stands.

    Attributes:
        uid: unique in its study; the trial number as text in Optuna, the trial id in Ray Tune.
        curve: what it reported so far.
        params: its configuration, name -> value.
        status: see :class:`Status`.
        schedule: the learning rate it plans to follow, when known.
        cost: compute spent so far, in any unit that is the same for the whole study; None when not measured.
        marks: past decisions about this trial, kept in the framework's own storage (see decide/risk.py).
        feasible: False for one that has ended outside its study's constraints: it may be compared with, and is never
            what must be beaten.
        returned: what the framework ranks the trial by, where that need not be on its curve; None when not known.
    """

    uid: str
    curve: Curve = field(default_factory=Curve)
    params: Mapping[str, Any] = field(default_factory=dict)
    status: Status = Status.RUNNING
    schedule: Schedule | None = None
    cost: float | None = None
    marks: Mapping[str, Any] = field(default_factory=dict)
    feasible: bool = True
    returned: float | None = None

    def __post_init__(self) -> None:
        if not self.uid:
            raise InvalidValue("a non-empty uid", self.uid, "Trial.uid")
        if self.cost is not None and not self.cost >= 0:
            raise InvalidValue("a cost >= 0 or None", self.cost, "Trial.cost")

    def cut(self, step: float) -> Trial:
        """This trial as it stood at `step`; only the curve is cut."""
        curve = self.curve.cut(step)
        return self if curve is self.curve else replace(self, curve=curve)


class Incumbent(NamedTuple):
    """The best judged value so far.

    Attributes:
        value: in the metric's own units and direction.
        uid: the trial that reached it.
        step: the step at which it did.
    """

    value: float
    uid: str
    step: float


class _Column:
    """A growing array shared by successive banks: appending is amortised O(new), earlier views stay valid."""

    __slots__ = ("data", "size")

    def __init__(self, dtype: type[np.generic]) -> None:
        self.data: NDArray[Any] = np.empty(16, dtype)
        self.size = 0

    def append(self, items: NDArray[Any]) -> None:
        need = self.size + items.size
        if need > self.data.size:
            grown = np.empty(max(need, 2 * self.data.size), self.data.dtype)
            grown[: self.size] = self.data[: self.size]
            self.data = grown
        self.data[self.size : need] = items
        self.size = need

    def fork(self, size: int) -> _Column:
        twin = _Column(self.data.dtype.type)
        twin.append(self.data[:size])
        return twin


class _Columns:
    """The mutable store behind a chain of banks; a bank reads only its own first rows."""

    def __init__(self) -> None:
        self.trials: list[Trial] = []
        self.step = _Column(np.float64)
        self.loss = _Column(np.float64)
        self.best = _Column(np.float64)
        self.latest = _Column(np.float64)
        self.stop = _Column(np.int64)
        self.judged = _Column(np.float64)
        self.judged_step = _Column(np.float64)
        self.moved = _Column(np.float64)
        self.complete = _Column(np.bool_)
        self.eligible = _Column(np.bool_)
        # The longest trial's steps, while every other trial's are its first ones; None once they differ.
        self.grid: Floats | None = np.zeros(0)

    def meet(self, steps: Floats) -> None:
        """Keep `grid` true of one more trial."""
        if self.grid is not None:
            short, long = sorted((steps, self.grid), key=len)
            self.grid = long if np.array_equal(long[: short.size], short) else None

    def fork(self, n_trials: int, n_points: int) -> _Columns:
        twin = _Columns()
        twin.trials = self.trials[:n_trials]
        twin.grid = self.grid  # true of all of them, so of the first ones too
        for name in ("step", "loss", "best", "latest"):
            setattr(twin, name, getattr(self, name).fork(n_points))
        for name in ("stop", "judged", "judged_step", "moved", "complete", "eligible"):
            setattr(twin, name, getattr(self, name).fork(n_trials))
        return twin


@dataclass(frozen=True, eq=False)
class Bank:
    """Finished trials in columns. Append-only: :meth:`extend` returns a new bank and costs O(new trials).

    Points of all trials stand one after the other, each trial's in step order; trials without a report are kept
    in `trials` but have no points. Losses are `goal.sign * value` (lower is better), a non-finite report is +inf.

    Attributes:
        goal: what the judged columns are judged by.
    """

    goal: Goal
    _columns: _Columns = field(default_factory=_Columns, repr=False)
    _n_trials: int = 0
    _n_points: int = 0

    def __len__(self) -> int:
        return self._n_trials

    def __iter__(self) -> Iterator[Trial]:
        return iter(self._columns.trials[: self._n_trials])

    def __getitem__(self, index: int) -> Trial:
        if not -self._n_trials <= index < self._n_trials:
            raise IndexError(index)
        return self._columns.trials[index % self._n_trials]

    def extend(self, trials: Iterable[Trial]) -> Bank:
        """A bank with `trials` after the present ones.

        Raises:
            InvalidValue: a trial is not finished.
        """
        new = tuple(trials)
        if not new:
            return self
        for trial in new:
            if not trial.status.finished:
                raise InvalidValue("a finished trial", trial.status.name, f"Bank.extend(trial {trial.uid})")
        c = self._columns
        if len(c.trials) != self._n_trials:  # a sibling was extended already: leave it its columns
            c = c.fork(self._n_trials, self._n_points)
        sign = self.goal.sign
        for trial in new:
            steps, losses = trial.curve.losses(sign)
            best = np.minimum.accumulate(losses) if losses.size else losses
            judged, at = judged_loss(trial.curve, self.goal)
            c.meet(steps)
            c.step.append(steps)
            c.loss.append(losses)
            c.best.append(best)
            c.latest.append(latest(losses))
            c.stop.append(np.array([c.step.size]))
            c.judged.append(np.array([judged]))
            c.judged_step.append(np.array([at]))
            c.moved.append(np.array([trial.curve.moved]))
            c.complete.append(np.array([trial.status is Status.COMPLETE]))
            c.eligible.append(np.array([trial.status is Status.COMPLETE and trial.feasible]))
            c.trials.append(trial)
        return Bank(self.goal, c, len(c.trials), c.step.size)

    def _view(self, column: _Column, n: int) -> NDArray[Any]:
        view = column.data[:n]
        view.setflags(write=False)
        return view

    @property
    def steps(self) -> Floats:
        """(points,) step of every report of every trial."""
        return self._view(self._columns.step, self._n_points)

    @property
    def losses(self) -> Floats:
        """(points,) loss of every report; +inf where it was not finite."""
        return self._view(self._columns.loss, self._n_points)

    @property
    def best_losses(self) -> Floats:
        """(points,) best loss so far inside its own trial; +inf before the first finite one."""
        return self._view(self._columns.best, self._n_points)

    @property
    def stops(self) -> NDArray[np.int64]:
        """(trials,) index one past the last point of each trial."""
        return self._view(self._columns.stop, self._n_trials)

    @property
    def judged(self) -> Floats:
        """(trials,) judged loss (best or final finite report so far); +inf without one."""
        return self._view(self._columns.judged, self._n_trials)

    @property
    def judged_steps(self) -> Floats:
        """(trials,) the step at which the judged loss was reported; -inf without one."""
        return self._view(self._columns.judged_step, self._n_trials)

    @property
    def complete(self) -> NDArray[np.bool_]:
        """(trials,) True where the trial reached the horizon."""
        return self._view(self._columns.complete, self._n_trials)

    def stood(self, step: float, curve: Curve) -> bool:
        """Whether a COMPLETE trial stood still as long as `curve`, which has not moved up to `step`.

        From its first value on; or from its second one, made no later than the curve's own, at a value no better than
        the curve's: a first report is often made before any training.
        """
        moved = self._view(self._columns.moved, self._n_trials)
        if (self.complete & (self._bounds[1] <= step) & (self.judged < np.inf) & (moved > step)).any():
            return True
        second, loss = float(curve.steps[1]), self.goal.sign * float(curve.values[0])
        for row in np.flatnonzero(self.complete & (moved <= second)).tolist():
            theirs = self[row].curve
            if theirs.steps[1] <= second and self.goal.sign * theirs.values[1] >= loss and theirs.moved_on > step:
                return True
        return False

    @property
    def eligible(self) -> NDArray[np.bool_]:
        """(trials,) True where the trial reached the horizon and is feasible: it may be what must be beaten."""
        return self._view(self._columns.eligible, self._n_trials)

    @cached_property
    def n_complete(self) -> int:
        """How many trials reached the horizon."""
        return int(self.complete.sum())

    @cached_property
    def begun(self) -> tuple[list[tuple[int, str]], list[int]]:
        """Places of the trials in the order in which they began, and behind each how many reports it and all later ones
        made together; one more number, 0, for none."""
        sizes = np.diff(self.stops, prepend=0)
        ranked = sorted((place(trial.uid), int(n)) for trial, n in zip(self, sizes, strict=True))
        reports = np.cumsum([0, *(n for _, n in reversed(ranked))])[::-1]
        return [where for where, _ in ranked], reports.tolist()

    @cached_property
    def longest(self) -> int:
        """How many reports the longest trial made."""
        return int(np.diff(self.stops, prepend=0).max(initial=0))

    @cached_property
    def ends(self) -> Floats:
        """(n,) last steps of the COMPLETE trials that reported, rising: where trials end by themselves.

        Ends close to the longest trial's (see :attr:`tremble`) are counted as that one.
        """
        last = self.last_steps[self.complete & (self.last_steps > -np.inf)]
        return np.sort(np.where(last >= last.max() - self.tremble, last.max(), last)) if last.size else last

    @cached_property
    def tremble(self) -> float:
        """By how many steps ends may differ and be the same end: one and a half reports, or a twentieth of the longest
        COMPLETE trial: a report every ten steps may end at 40 or at 49, and a clock never stops at the same second."""
        last = np.where(self.complete, self.last_steps, -np.inf)
        if not last.size or not math.isfinite(end := float(last.max())):
            return 0.0
        # of several that end there the one that tells it most closely, in whatever order they were read
        rows = (last == end) & (self.stops - self._bounds[0] > 1)
        gaps = end - self.steps[self.stops[rows] - 2]
        spans = end - self._bounds[1][rows]
        return float(np.maximum(1.5 * gaps, 0.05 * spans).min()) if rows.any() else 0.0

    @cached_property
    def end(self) -> float:
        """The step at which the longest trials end: the largest last step of a COMPLETE trial, or the goal's horizon
        before one has ended.

        `range(50)` ends at 49, and one step too far is no other horizon. Trials that end by themselves long before the
        horizon, or well beyond it, prove that the one the user named is not where they are judged.
        """
        end, named = float(self.ends[-1]) if self.ends.size else 0.0, self.goal.horizon
        return named if end <= 0 or named < end <= named + self.tremble else end

    @property
    def reached(self) -> bool:
        """Whether a trial has ended at the goal's horizon or beyond, give or take the tremble."""
        return bool(self.ends.size) and self.end >= self.goal.horizon - self.tremble

    def left(self, step: float) -> float:
        """How many steps a trial that stands at `step` still had before it, >= 0: the median over the COMPLETE trials
        that went further, where those ended at whole steps without a half; 0 where none did."""
        beyond = self.ends[self.ends > step]
        if not beyond.size:
            return 0.0
        middle = float(np.median(beyond))
        return (math.floor(middle) if np.array_equal(beyond, np.floor(beyond)) else middle) - step

    @cached_property
    def leader(self) -> tuple[float, str, float] | None:
        """(judged loss, uid, its step) of the best feasible COMPLETE trial, or None. Ties go to the earlier uid."""
        losses = np.where(self.eligible, self.judged, np.inf)
        if not losses.size or not math.isfinite(low := float(losses.min())):
            return None
        rows = np.flatnonzero(losses == low).tolist()
        row = min(rows, key=lambda row: place(self[row].uid))  # as Optuna's `best_trial` has it
        return low, self[row].uid, float(self.judged_steps[row])

    @cached_property
    def least(self) -> float:
        """The loss that no trial can undercut, by the goal's bounds; -inf without one, or where a report passes it."""
        least = self.goal.least
        beyond = self._n_points and float(self.losses.min()) < least - ROUNDING * abs(least)
        return -math.inf if least == -math.inf or beyond else least

    @cached_property
    def at_bound(self) -> int:
        """How many reports of COMPLETE trials are exactly the leader's loss, where that is the metric's bound; else 0.

        Where the goal knows the bound, one report at it will do. Else it is seen: shares end at 1 and percentages at
        100 (or -1, -100 when minimized), errors at 0. Three reports at such a value, none beyond it, and a trial that
        came to it from a worse one make it the bound; a share of 0 that no trial ever leaves is none.
        """
        if self.leader is None:
            return 0
        low, given = self.leader[0], self.least > -math.inf
        if low > self.least if given else low not in BOUNDS:
            return 0
        starts, sizes = self._bounds[0], self.stops - self._bounds[0]
        here = self.losses == low
        mine = here & np.repeat(self.complete, sizes)
        if given:
            return int(np.count_nonzero(mine))
        rows = np.flatnonzero(self.complete & (sizes > 0))
        came = rows[(self.losses[starts[rows]] > low) & (self.best_losses[self.stops[rows] - 1] == low)]
        n = int(np.count_nonzero(mine))
        return n if n >= _TIES and came.size and float(self.losses.min()) == low else 0

    @cached_property
    def spread(self) -> float:
        """Robust range of judged values of feasible COMPLETE trials, >= 0; beyond floating point 0, no margin at all.

        Twice the distance from the best to the median, and at most eight times that to the lower quartile (rounded
        towards the best): where half of the trials never learned, or one blew up to 1e34, the median says nothing of
        the differences that matter among the good ones.
        """
        losses = np.sort(self.judged[self.eligible])
        losses = losses[np.isfinite(losses)]
        if not losses.size:
            return 0.0
        with np.errstate(over="ignore"):
            to_median = 0.5 * losses[(losses.size - 1) // 2] + 0.5 * losses[losses.size // 2] - losses[0]
            spread = 2.0 * min(to_median, 4.0 * (losses[(losses.size - 1) // 4] - losses[0]))
        return float(spread) if math.isfinite(spread) else 0.0

    @cached_property
    def _bounds(self) -> tuple[NDArray[np.int64], Floats, Floats]:
        """(trials,) index of the first point; first and last step (+inf, -inf without points)."""
        stops = self.stops
        starts = np.concatenate([[0], stops[:-1]]).astype(np.int64)
        some = stops > starts
        first, last = np.full(stops.size, np.inf), np.full(stops.size, -np.inf)
        first[some], last[some] = self.steps[starts[some]], self.steps[stops[some] - 1]
        return starts, first, last

    @property
    def last_steps(self) -> Floats:
        """(trials,) largest step reported; -inf without a report."""
        return self._bounds[2]

    @cached_property
    def _reach(self) -> tuple[NDArray[np.int64], Floats]:
        """(trials,) offset of the last point from the first; the last step something is known of (-inf: of none)."""
        starts, first, last = self._bounds
        return self.stops - starts - 1, np.where(self.complete & (first < np.inf), np.inf, last)

    @cached_property
    def _filled(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Trials that have points, and where their points start (what reduceat needs)."""
        rows = np.flatnonzero(self.stops > self._bounds[0])
        return rows, self._bounds[0][rows]

    def at(self, step: float, *, best: bool) -> Floats:
        """Loss of every trial at `step`.

        Args:
            step: position on the resource axis.
            best: the best loss so far instead of the latest one.

        Returns:
            (trials,) loss at the last value not after `step` (+inf where only non-finite reports stand); NaN where
            the trial says nothing about that step: it had not reported yet, or it was stopped or failed earlier. A
            COMPLETE trial has reached the horizon, so beyond its last report it keeps its last value.
        """
        if not self._n_points:
            return np.full(self._n_trials, np.nan)
        starts, first, _ = self._bounds
        last, reach = self._reach
        silent = reach < step
        grid = self._columns.grid
        if grid is not None:  # the usual case: all trials report at the same steps
            at = int(grid.searchsorted(step, side="right")) - 1
            index = starts + np.minimum(last, at)
            silent |= at < 0
        else:
            index = starts - 1
            rows, begin = self._filled
            index[rows] += np.add.reduceat(self.steps <= step, begin, dtype=np.int64)
            silent |= first > step
        # Where a trial is silent the index is any that exists: its value is overwritten.
        out = (self._columns.best if best else self._columns.latest).data.take(index, mode="clip")
        if np.count_nonzero(silent):
            out[silent] = np.nan
        return out

    def ended(self, step: float, curve: Curve) -> tuple[int, int]:
        """How a curve stood beside the trials that had ended before `step` short of the horizon.

        Each is compared at the curve's last report not after its end, by best or latest loss, as the goal judges; those
        without a report by then say nothing.

        Returns:
            How many of them stood better there than the curve, and how many could be compared.
        """
        best = self.goal.judged == "best"
        steps, losses = curve.standings(self.goal.sign, best)
        if not steps:
            return 0, 0
        starts, first, last = self._bounds
        rows = np.flatnonzero((last < step) & (last >= steps[0]) & ~self.complete)
        if not rows.size:
            return 0, 0
        # where the curve reported last before the other ended: both are read at that step
        place = np.searchsorted(steps, last[rows], side="right") - 1
        where = np.array(steps)[place]
        both = first[rows] <= where
        rows, place, where = rows[both], place[both], where[both]
        grid = self._columns.grid
        if grid is not None:
            index = (
                starts[rows] + np.minimum(self.stops[rows] - starts[rows], grid.searchsorted(where, side="right")) - 1
            )
        else:
            sizes = self.stops[rows] - starts[rows]
            ends = np.cumsum(sizes)
            points = np.repeat(starts[rows] - (ends - sizes), sizes) + np.arange(sizes.sum())
            seen = self.steps[points] <= np.repeat(where, sizes)
            index = starts[rows] - 1 + (np.add.reduceat(seen, ends - sizes, dtype=np.int64) if rows.size else 0)
        theirs = (self._columns.best if best else self._columns.latest).data[index]
        return int(np.count_nonzero(theirs < np.array(losses)[place])), int(rows.size)


def judged_loss(curve: Curve, goal: Goal) -> tuple[float, float]:
    """(loss, step) a curve is judged by so far: its best or its last finite value; (+inf, -inf) without one."""
    if not len(curve):
        return np.inf, -np.inf
    at = int(np.argmin(goal.sign * curve.values)) if goal.judged == "best" else len(curve) - 1
    return float(goal.sign * curve.values[at]), float(curve.steps[at])


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Everything a decision may look at: one study at one moment.

    Attributes:
        study: its name, for messages and logs.
        goal: see :class:`~lcsearch.goal.Goal`; the same object the bank was built with.
        bank: finished trials.
        live: trials that are running or paused; their order means nothing.
        budget: steps the study may still spend; None when unlimited.
        abandoned: trials that the framework has as running and nobody trains, as far as can be told (see
            engine/abandoned.py): nothing is compared with them.
        token: tells studies of one name apart in one process; None: none but this one has the name.
    """

    study: str
    goal: Goal
    bank: Bank
    live: tuple[Trial, ...] = ()
    budget: float | None = None
    abandoned: tuple[Trial, ...] = ()
    token: Hashable = None

    def __post_init__(self) -> None:
        if self.bank.goal != self.goal:
            raise InvalidValue(f"a bank judged by {self.goal}", self.bank.goal, "Snapshot.bank")

    @property
    def key(self) -> Hashable:
        """What a process remembers the study by: its name will do only where no other study has it."""
        return self.study if self.token is None else (self.study, self.token)

    @cached_property
    def horizon(self) -> float:
        """The step at which trials are judged in fact: where the longest ones end, see :attr:`Bank.end`.

        While a live trial stands beyond all that have ended it is further away, at most twice as far as that trial:
        the short ones end first.
        """
        end = self.bank.end
        if not self.bank.ends.size:
            return end
        ahead = max((trial.curve.last_step for trial in self.live), default=-math.inf)
        return self._further(ahead) if ahead > end + self.bank.tremble else end

    def _further(self, step: float) -> float:
        """Where a trial that has outlived all the others may end: at the goal's horizon, or when it is twice as old."""
        return min(max(self.goal.horizon, step), 2.0 * step)

    def horizons(self, step: float) -> tuple[float, ...]:
        """The steps, rising and of equal weight, at which a trial that stands at `step` may be judged.

        One where the COMPLETE trials that went further ended together; else four: of the quarters of their ends the
        middles of three, and the last end of all, which may be the incumbent's. The last one alone where the best value
        judges: a trial ends when it stops improving, so one that is on its way has that long, and what it reaches by
        then bounds what it reaches sooner. Where none of them reached the goal's horizon, one more end stands for the
        next trial that might go on: always where lengths differ, else (Laplace's rule of succession) as long as that
        makes an eighth of them. So those that gave up early do not take a slow starter's time to win.
        """
        bank = self.bank
        ends = bank.ends[bank.ends > step]
        if not ends.size or self.horizon > bank.end:
            ends = np.append(ends, self.horizon)
        elif not bank.reached and (ends.size < 7 or ends[0] < ends[-1]):
            ends = np.append(ends, self._further(bank.end))
        quarters = (*ends[(ends.size * np.array([1, 3, 5]) + 7) // 8 - 1].tolist(), float(ends[-1]))
        return quarters[3:] if self.goal.judged == "best" or quarters[0] == quarters[3] else quarters

    @property
    def incumbent(self) -> Incumbent | None:
        """The best judged value of a feasible COMPLETE trial, or None. Ties go to the earlier uid, "9" before "10".

        Only these will be there when the study ends: a running trial may still fail, or be a leftover of a killed
        process that nobody trains; a stopped one is not what the study returns.
        """
        if self.bank.leader is None:
            return None
        loss, uid, step = self.bank.leader
        return Incumbent(self.goal.sign * loss, uid, step)

    @property
    def spread(self) -> float:
        """Robust range of judged values, see :attr:`Bank.spread`."""
        return self.bank.spread

    def beside(self, step: float, uid: str) -> list[float]:
        """Losses at `step` of the other live trials that say something about it (best so far when so judged)."""
        found = []
        sign, best = self.goal.sign, self.goal.judged == "best"
        for trial in self.live:  # there may be a thousand
            steps, losses = trial.curve.standings(sign, best)
            if steps and steps[0] <= step <= steps[-1] and trial.uid != uid:
                found.append(losses[bisect_right(steps, step) - 1])
        return found


def loss_at(curve: Curve, goal: Goal, step: float) -> float:
    """Loss at the last value not after `step` (best so far when the best is judged); +inf for none."""
    steps, losses = curve.standings(goal.sign, goal.judged == "best")
    at = bisect_right(steps, step)
    return losses[at - 1] if at else math.inf
