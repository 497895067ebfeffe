"""The columnar bank of finished trials."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lcsearch.curves import Curve, Floats, latest
from lcsearch.errors import InvalidValue
from lcsearch.goal import ROUNDING, Goal
from lcsearch.study.trial import Status, Trial, uid_sort_key

BOUNDS = (0.0, -1.0, -100.0)
"""Losses that metrics end at: no error, all of a share, all of a percentage."""
_TIES = 3


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

    def update_grid(self, steps: Floats) -> None:
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
class FinishedTrials:
    """Finished trials in columns. Append-only: `extend` returns a new bank and costs O(new trials).

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

    def extend(self, trials: Iterable[Trial]) -> FinishedTrials:
        """A bank with `trials` after the present ones.

        Raises:
            InvalidValue: a trial is not finished.
        """
        new = tuple(trials)
        if not new:
            return self
        for trial in new:
            if not trial.status.finished:
                raise InvalidValue("a finished trial", trial.status.name, f"FinishedTrials.extend(trial {trial.uid})")
        c = self._columns
        if len(c.trials) != self._n_trials:  # a sibling was extended already: leave it its columns
            c = c.fork(self._n_trials, self._n_points)
        sign = self.goal.sign
        for trial in new:
            steps, losses = trial.curve.losses(sign)
            best = np.minimum.accumulate(losses) if losses.size else losses
            judged, at = judged_loss(trial.curve, self.goal)
            c.update_grid(steps)
            c.step.append(steps)
            c.loss.append(losses)
            c.best.append(best)
            c.latest.append(latest(losses))
            c.stop.append(np.array([c.step.size]))
            c.judged.append(np.array([judged]))
            c.judged_step.append(np.array([at]))
            c.moved.append(np.array([trial.curve.moved]))
            c.complete.append(np.array([trial.status is Status.COMPLETE]))
            c.eligible.append(np.array([trial.status is Status.COMPLETE and trial.counts]))
            c.trials.append(trial)
        return FinishedTrials(self.goal, c, len(c.trials), c.step.size)

    def extends(self, earlier: FinishedTrials) -> bool:
        """Whether `earlier` is this bank or one that it was made of by `extend`; False also where that cannot be told
        from how they are kept."""
        return self._columns is earlier._columns and self._n_trials >= earlier._n_trials

    def _view(self, column: _Column, n: int) -> NDArray[Any]:
        view = column.data[:n]
        view.setflags(write=False)
        return view

    @property
    def grid(self) -> Floats | None:
        """The steps at which all trials report, each of them up to its last one; None when they differ."""
        return self._columns.grid

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
        ranked = sorted((uid_sort_key(trial.uid), int(n)) for trial, n in zip(self, sizes, strict=True))
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
        """How many steps a trial that stands at `step` still had before it, >= 0: the mean over the COMPLETE trials
        that went further, rounded where those ended at whole steps; 0 where none did.

        Where trials end by themselves, stopped ones would not have ended like complete ones: of made studies the sum is
        too high by a fifth where bad trials are rather short, and as much too low where they are rather long. With
        stopped trials as censored (Kaplan and Meier's estimate) it is no nearer: 25 for 24 % off where length says
        nothing of quality, 40 for 33 where the bad are short, 25 for 28 where they are long.
        """
        beyond = self.ends[self.ends > step]
        if not beyond.size:
            return 0.0
        mean = float(beyond.mean())  # not the median: means add up to the sum over trials that is told
        return (round(mean) if np.array_equal(beyond, np.floor(beyond)) else mean) - step

    @cached_property
    def best_complete(self) -> tuple[float, str, float] | None:
        """(judged loss, uid, its step) of the best feasible COMPLETE trial, or None. Ties go to the earlier uid."""
        losses = np.where(self.eligible, self.judged, np.inf)
        if not losses.size or not math.isfinite(low := float(losses.min())):
            return None
        rows = np.flatnonzero(losses == low).tolist()
        row = min(rows, key=lambda row: uid_sort_key(self[row].uid))  # as Optuna's `best_trial` has it
        return low, self[row].uid, float(self.judged_steps[row])

    @cached_property
    def least(self) -> float:
        """The loss that no trial can undercut, by the goal's bounds; -inf without one, or where a report passes it."""
        least = self.goal.least
        beyond = self._n_points and float(self.losses.min()) < least - ROUNDING * abs(least)
        return -math.inf if least == -math.inf or beyond else least

    @cached_property
    def at_bound(self) -> int:
        """How many reports of COMPLETE trials are exactly the best one's loss, where that is the metric's bound; or 0.

        Where the goal knows the bound, one report at it will do. Else it is seen: shares end at 1 and percentages at
        100 (or -1, -100 when minimized), errors at 0. Three reports at such a value, none beyond it, and a trial that
        came to it from a worse one make it the bound; a share of 0 that no trial ever leaves is none.
        """
        if self.best_complete is None:
            return 0
        low, given = self.best_complete[0], self.least > -math.inf
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
    def robust_range(self) -> float:
        """Robust range of judged values of feasible COMPLETE trials, >= 0; beyond floating point 0, no margin at all.

        Twice the distance from the best to the median, and at most eight times that to the lower quartile (rounded
        towards the best): where half of the trials never learned, or one blew up to 1e34, the median says nothing of
        the differences that matter among the good ones.
        """
        return robust_range(self.judged[self.eligible])

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
        grid = self.grid
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

    def rank_among_ended(self, step: float, curve: Curve) -> tuple[int, int]:
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
        grid = self.grid
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


def robust_range(losses: Floats) -> float:
    """Of losses of any length, those that are not finite left out; see :attr:`FinishedTrials.robust_range`."""
    losses = np.sort(losses[np.isfinite(losses)])
    if not losses.size:
        return 0.0
    with np.errstate(over="ignore"):
        to_median = 0.5 * losses[(losses.size - 1) // 2] + 0.5 * losses[losses.size // 2] - losses[0]
        spread = 2.0 * min(to_median, 4.0 * (losses[(losses.size - 1) // 4] - losses[0]))
    return float(spread) if math.isfinite(spread) else 0.0


def trained_lengths(goal: Goal, complete: Iterable[tuple[Sequence[float], float]]) -> FinishedTrials:
    """How long COMPLETE trials have trained, as a bank: its :meth:`FinishedTrials.left` counts steps trained.

    Args:
        goal: of their study.
        complete: of each trial the steps of its reports, rising, one at least, and up to where it has trained, which
            may be beyond its last one.
    """
    found = []
    for number, (steps, end) in enumerate(complete):
        told = (step for step in {steps[0], *steps[-2:-1]} if step < end)  # what closeness of ends is read from
        curve = Curve.of(dict.fromkeys([*told, end], 0.0))
        found.append(Trial(str(number), curve, status=Status.COMPLETE))
    return FinishedTrials(goal).extend(found)


def judged_loss(curve: Curve, goal: Goal) -> tuple[float, float]:
    """(loss, step) a curve is judged by so far: its best or its last finite value; (+inf, -inf) without one."""
    if not len(curve):
        return np.inf, -np.inf
    at = curve.extremes[goal.sign < 0] if goal.judged == "best" else len(curve) - 1
    return float(goal.sign * curve.values[at]), float(curve.steps[at])


def judged_at_end(curve: Curve, goal: Goal) -> tuple[float, float] | None:
    """(value, step), in the metric's units, that a trial is worth which ends with `curve`; None for nothing finite.

    As :func:`judged_loss`, but for one that is judged by its final value and ends at no finite number: it has none.
    """
    loss, step = judged_loss(curve, goal)
    if loss == math.inf or (goal.judged == "final" and curve.n_trailing_events):
        return None
    return goal.sign * loss, step
