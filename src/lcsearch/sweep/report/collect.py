"""What a report says of a run: one reading of its folder, pure data. figures.py draws it, page.py writes it down."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from optuna.trial import FrozenTrial

from lcsearch.curves import Floats
from lcsearch.errors import FileProblem
from lcsearch.goal import Goal
from lcsearch.schedulers.optuna import as_trial
from lcsearch.session.decision_log import read_log
from lcsearch.stopping.gates import target_of
from lcsearch.stopping.policy import Policy
from lcsearch.stopping.risk import Mark
from lcsearch.study import Bank, Snapshot, trained_by
from lcsearch.sweep.monitor.decision_tail import LookTail
from lcsearch.sweep.monitor.importances import Importances, importances
from lcsearch.sweep.monitor.open_run import reader
from lcsearch.sweep.monitor.progress import Progress, Row, times_of, wall_clock
from lcsearch.sweep.monitor.progress import collect as read_progress
from lcsearch.sweep.monitor.run_record import damage
from lcsearch.sweep.monitor.state import risk_now
from lcsearch.sweep.spec.model import SweepFile
from lcsearch.sweep.store.budget import Reading, read_clock
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.store.ownership import counted
from lcsearch.sweep.views.notices import notices


class LookPoint(NamedTuple):
    """One look that reached a forecaster: its step, P(beat), and (5 %, 50 %, 95 %) of the judged value, if given."""

    step: float
    p: float | None
    interval: tuple[float, float, float] | None


@dataclass(frozen=True)
class Stop:
    """One stopped trial; what is not known, because another pruner stopped it or the log is gone, is None or empty.

    Attributes:
        step: where it was stopped.
        reason: the rule's name.
        line, text: the reason in one line, and the whole story.
        p, p_before: P(beat) at the last look and at the one before it.
        threshold: what both had to be below.
        incumbent: (value, trial) that had to be beaten then.
        rank: (rank, of how many) at its own step.
        p_today: P(it would have beaten the incumbent of today), from the stored forecast.
        forecast: the judged value at the levels of decide.risk.LEVELS, the metric's best end first.
    """

    number: int
    step: float
    saved: int
    reason: str
    line: str
    text: str
    p: float | None = None
    p_before: float | None = None
    threshold: float | None = None
    incumbent: tuple[float, str] | None = None
    rank: tuple[int, int] | None = None
    p_today: float | None = None
    forecast: tuple[float, ...] = ()


@dataclass(frozen=True)
class Compute:
    """What was spent, what stops saved, what the same trials would have cost unpruned.

    Failed trials count as long as they ran, also unpruned. Seconds are the workers', as status and summary count them.
    Saved and unpruned seconds are estimates, None where not known: each trial's own pace (the median time between its
    reports, start-up apart) over the steps it did not train.

    Attributes:
        wall: seconds of wall clock, as status and summary have them; None where nothing is known.
    """

    spent: int
    saved: int
    unpruned: int
    seconds_spent: float | None = None
    seconds_saved: float | None = None
    seconds_unpruned: float | None = None
    wall: float | None = None


@dataclass(frozen=True)
class Axis:
    """Where the times of a run stand on an axis of seconds.

    Attributes:
        placed: when a trial began or ended -> its place.
        end: the last one.
        breaks: where a later launch began.
        counted: it is the run's wall clock, where what lies between launches takes no room; otherwise seconds since the
            first trial began, because launches are not known or other machines took part.
    """

    placed: Mapping[datetime, float]
    end: float
    breaks: tuple[float, ...]
    counted: bool

    def span(self, began: datetime, ended: datetime | None) -> tuple[float, float]:
        """Begin and end of a trial; of one that has not ended, the last end there is."""
        begin = self.placed[began]
        return begin, max(begin, self.end if ended is None else self.placed[ended])


@dataclass(frozen=True)
class Report:
    """A run, read once.

    Attributes:
        risk: P(some stop lost the winner) now; None when not known.
        looks: trial -> its looks that reached a forecaster, in step order.
        latencies: seconds of every such look.
        failed_open: what gave no opinion -> at how many looks.
        best_path: (cumulative steps, best judged value) at every improvement.
        axis: where its trials' times stand.
        notes: what could not be read, and what the trials and the sweep file disagree about.
    """

    sweep: SweepFile
    progress: Progress
    compute: Compute
    stops: tuple[Stop, ...]
    importances: Importances
    risk: float | None = None
    looks: Mapping[int, tuple[LookPoint, ...]] = field(default_factory=dict)
    latencies: tuple[float, ...] = ()
    failed_open: tuple[tuple[str, int], ...] = ()
    best_path: tuple[tuple[int, float], ...] = ()
    axis: Axis | None = None
    notes: tuple[str, ...] = ()

    @property
    def goal(self) -> Goal:
        """What trials are judged on."""
        return self.sweep.target

    def finite(self, row: Row) -> tuple[Floats, Floats]:
        """(steps, values) of a trial's finite reports."""
        steps = np.array(list(row.values), dtype=float)
        values = np.array(list(row.values.values()), dtype=float)
        keep = np.isfinite(values)
        return steps[keep], values[keep]


def collect(folder: RunFolder) -> Report:
    """Read the run in `folder`, whether it runs, was interrupted or is over.

    Raises:
        FileProblem: there is no run, or one without a study.
        EnvironmentProblem: the study's storage does not answer.
    """
    file = folder.read().file
    if file.backend.storage is None and not (folder.root / "study.sqlite3").exists():
        text = f"{folder.root}: expected the study of a run (study.sqlite3), got none. "
        raise FileProblem(text + "Start it with `lcsearch run`.")
    _, study, _ = reader(folder)
    trials = counted(study.get_trials(deepcopy=False))
    clock = read_clock(folder)
    progress = read_progress(trials, file.target, file.budget.trials, file.space, now=clock.until)
    axis = axis_of(progress.rows, clock)
    records, notes = _records(folder.decisions)
    tail = LookTail(folder.decisions)
    tail.latest()
    curve = file.pruner.kind == "curve"
    return Report(
        sweep=file,
        progress=progress,
        compute=compute_of(progress, file.max_steps, wall_clock(clock, progress.rows)),
        stops=_stops(progress.rows, trials, records, file),
        importances=importances(trials, file.target),
        risk=risk_now(study) if curve and trials else None,
        looks=_looks(records),
        latencies=tuple(tail.latencies),
        failed_open=tuple(tail.failed_open.most_common()),
        best_path=best_path(progress.rows, file.target, axis),
        axis=axis,
        notes=(
            *(notes if curve else ()),
            *(f"{text[:1].upper()}{text[1:]}." for text in notices(progress, file)),
            *damage(folder, progress, tail.left_out),
        ),
    )


def _records(decisions: Path) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """The decision log, and what there is to say when it cannot be read."""
    try:
        return list(read_log(decisions)), ()
    except FileNotFoundError:
        return [], ("There is no decision log: what is known of stops comes from the study alone.",)


def _look(raw: Any) -> LookPoint | None:
    """A look of the log; None when it is none."""
    try:
        step, p, interval = float(raw["step"]), raw.get("p"), raw.get("interval")
        p = float(p) if p is not None and math.isfinite(p) else None
        if interval is not None:
            low, mid, high = map(float, interval)
            interval = (low, mid, high) if all(map(math.isfinite, (low, mid, high))) else None
        return LookPoint(step, p, interval) if math.isfinite(step) else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _looks(records: Sequence[Mapping[str, Any]]) -> dict[int, tuple[LookPoint, ...]]:
    """By trial, in step order; a step looked at twice (the trial was resumed) counts as it was the last time."""
    found: dict[int, dict[float, LookPoint]] = {}
    for record in records:
        look, uid = _look(record.get("now")), str(record.get("trial"))
        if look is not None and uid.isdecimal() and (look.p is not None or look.interval is not None):
            found.setdefault(int(uid), {})[look.step] = look
    return {n: tuple(looks[step] for step in sorted(looks)) for n, looks in sorted(found.items())}


def _stops(
    rows: Sequence[Row], trials: Sequence[FrozenTrial], records: Sequence[Mapping[str, Any]], file: SweepFile
) -> tuple[Stop, ...]:
    told = {str(record.get("trial")): record for record in records if record.get("verdict") == "STOP"}
    known = [as_trial(trial) for trial in trials]
    bank = Bank(file.target).extend(trial for trial in known if trial.status.finished)
    live = tuple(trial for trial in known if not trial.status.finished)
    target = target_of(Policy(), Snapshot(file.name, file.target, bank, live))
    stops = []
    for row, trial in zip(rows, known, strict=True):
        if row.state == "stopped":
            mark = trial.marks.get("stop")
            mark = mark if isinstance(mark, Mark) else None
            kept = None if mark is None else mark.decision
            record = kept.to_record() if kept is not None else told.get(str(row.number), {})
            stops.append(_stop(row, mark, record, file.target.sign, target))
    return tuple(stops)


def _stop(row: Row, mark: Mark | None, record: Mapping[str, Any], sign: float, target: float) -> Stop:
    """From the mark in the study, and from the log what a mark without a decision does not keep."""
    step = float(row.last[0] if row.last else 0)
    if mark is None:
        return Stop(row.number, step, row.saved, "", row.note, row.note)
    now, before = _look(record.get("now")), _look(record.get("before"))
    p = mark.p if mark.p is not None else (now.p if now is not None else None)
    return Stop(
        number=row.number,
        step=mark.step,
        saved=row.saved,
        reason=mark.reason,
        line=row.note,
        text=mark.text,
        p=p,
        p_before=before.p if before is not None else None,
        threshold=_threshold(record),
        incumbent=_incumbent(record),
        rank=_rank(record),
        p_today=mark.p_lost(target) if math.isfinite(target) else None,
        forecast=tuple(sign * loss for loss in mark.losses),
    )


def _threshold(record: Mapping[str, Any]) -> float | None:
    try:
        return float(record["now"]["threshold"])
    except (KeyError, TypeError, ValueError):
        return None


def _incumbent(record: Mapping[str, Any]) -> tuple[float, str] | None:
    try:
        return float(record["incumbent"]["value"]), str(record["incumbent"]["uid"])
    except (KeyError, TypeError, ValueError):
        return None


def _rank(record: Mapping[str, Any]) -> tuple[int, int] | None:
    try:
        return int(record["standing"]["rank"]), int(record["standing"]["n"])
    except (KeyError, TypeError, ValueError):
        return None


def compute_of(progress: Progress, max_steps: int, wall: float | None = None) -> Compute:
    """Steps and seconds; see :class:`Compute`."""
    rows, spent, saved = progress.rows, progress.spent, progress.saved
    live = [row for row in rows if row.state in ("running", "waiting")]
    left = {row.number: progress.left(row.spent, max_steps) for row in live}
    unpruned = round(spent + saved + sum(left.values()))
    seconds, kept = progress.seconds, progress.seconds_saved
    if not seconds:
        return Compute(spent, saved, unpruned, wall=wall)
    rest = progress.seconds_of(left)
    whole = None if kept is None or rest is None else seconds + kept + rest
    return Compute(spent, saved, unpruned, seconds, kept, whole, wall)


def axis_of(rows: Sequence[Row], clock: Reading) -> Axis | None:
    """The axis of a run's times; None where it has none."""
    times = times_of(rows)
    if not times:
        return None
    placed = {time: at for time in times if (at := clock.at(time)) is not None}
    if len(placed) == len(set(times)):
        ends = accumulate(launch.seconds for launch in clock.launches)
        return Axis(placed, clock.seconds, tuple(ends)[:-1], True)
    origin = min(times)
    return Axis({t: (t - origin).total_seconds() for t in times}, (max(times) - origin).total_seconds(), (), False)


def best_path(rows: Sequence[Row], goal: Goal, axis: Axis | None) -> tuple[tuple[int, float], ...]:
    """(steps trained by all trials so far, best judged value so far) at every improvement, and at the end.

    A trial's reports are placed evenly between its begin and its end (of a running one: the last time known), since
    the study keeps no time for each. What counts as reached is what counts for the incumbent: nothing of a failed
    trial, and under "final" only what COMPLETE trials ended at.
    """
    when, cost, loss = [np.zeros(0)], [np.zeros(0)], [np.zeros(0)]
    for row in rows:
        steps = np.array(list(row.values), dtype=float)
        if not steps.size:
            continue
        done = np.minimum(steps + trained_by(0, steps[0]), goal.horizon)
        done[-1] = row.spent
        begin, end = float(row.number), float(row.number)
        if axis is not None and row.began is not None:
            begin, end = axis.span(row.began, row.ended)
        losses = goal.sign * np.array(list(row.values.values()), dtype=float)
        if goal.judged == "final":
            losses[:-1] = np.inf
        if row.state == "failed" or (goal.judged == "final" and row.state != "complete"):
            losses[:] = np.inf
        when.append(begin + (end - begin) * done / max(row.spent, 1))
        cost.append(np.diff(done, prepend=0.0))
        loss.append(np.where(np.isfinite(losses), losses, np.inf))
    order = np.argsort(np.concatenate(when), kind="stable")
    total = np.cumsum(np.concatenate(cost)[order])
    best = np.minimum.accumulate(np.concatenate(loss)[order])
    if not best.size or not math.isfinite(best[-1]):
        return ()
    better = np.flatnonzero(best < np.concatenate([[np.inf], best[:-1]]))
    path = [(round(float(total[i])), float(goal.sign * best[i])) for i in better]
    return (*path, (round(float(total[-1])), float(goal.sign * best[-1])))
