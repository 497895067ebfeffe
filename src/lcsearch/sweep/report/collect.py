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
from lcsearch.stopping.risk import StopRecord
from lcsearch.study import trained_by
from lcsearch.sweep.monitor.importances import Importances, importances
from lcsearch.sweep.monitor.open_run import reader
from lcsearch.sweep.monitor.progress import Progress, Row, times_of
from lcsearch.sweep.monitor.progress import collect as read_progress
from lcsearch.sweep.monitor.state import StateReader, SweepState
from lcsearch.sweep.spec.model import SweepFile
from lcsearch.sweep.store.budget import Reading, read_clock
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.store.ownership import counted
from lcsearch.sweep.views.cuts import Cut, begun_told, cuts_of
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
        forecast: the judged value at the levels of stopping.risk.LEVELS, the metric's best end first.
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
    """A run, read once: its state, and what only the page shows.

    Attributes:
        stops: trials that were stopped as they ran.
        cuts: trials that ended while they were paused.
        looks: trial -> its looks that reached a forecaster, in step order.
        best_path: (cumulative steps, best judged value) at every improvement.
        axis: where its trials' times stand.
        notes: what could not be read, and what the trials and the sweep file disagree about.
    """

    state: SweepState
    stops: tuple[Stop, ...]
    importances: Importances
    looks: Mapping[int, tuple[LookPoint, ...]] = field(default_factory=dict)
    best_path: tuple[tuple[int, float], ...] = ()
    axis: Axis | None = None
    notes: tuple[str, ...] = ()
    cuts: tuple[Cut, ...] = ()

    @property
    def sweep(self) -> SweepFile:
        """What was asked for."""
        return self.state.sweep

    @property
    def progress(self) -> Progress:
        """The trials."""
        return self.state.progress

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
    now = read_clock(folder).until
    progress = read_progress(trials, file.target, file.budget.trials, file.space, now=now, prices=file.prices)
    state = StateReader(file, folder).state(progress, study)
    axis = axis_of(progress.rows, state.clock)
    records, notes = _records(folder.decisions)
    return Report(
        state,
        _stops(state, trials, records),
        importances(trials, file.target),
        looks=_looks(records),
        best_path=best_path(progress.rows, file.target, axis),
        axis=axis,
        notes=(
            *(notes if file.pruner.kind == "curve" and all(row.stop is None for row in progress.rows) else ()),
            *(f"{text[:1].upper()}{text[1:]}." for text in notices(progress, file)),
            *state.damage,
        ),
        cuts=cuts_of(progress.rows, trials, file.target, folder.decisions, file.step),
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


def _stops(state: SweepState, trials: Sequence[FrozenTrial], records: Sequence[Mapping[str, Any]]) -> tuple[Stop, ...]:
    told = {str(record.get("trial")): record for record in records if record.get("verdict") == "STOP"}
    today = {stop.trial: stop.p_now for stop in state.ledger.stops} if state.ledger is not None else {}
    stops = []
    for row, trial in zip(state.progress.rows, trials, strict=True):
        if row.state == "stopped" and not row.cut:
            stop = as_trial(trial).stop_records.get("stop")
            stop = stop if isinstance(stop, StopRecord) else None
            kept = None if stop is None else stop.decision
            record = kept.to_record() if kept is not None else told.get(str(row.number), {})
            stops.append(_stop(row, stop, record, state.sweep.target.sign, today.get(row.number, math.nan)))
    return tuple(stops)


def _stop(row: Row, stop: StopRecord | None, record: Mapping[str, Any], sign: float, today: float) -> Stop:
    """From the stop in the study, and from the log what a stop without a decision does not keep."""
    step = float(row.last[0] if row.last else 0)
    if stop is None:
        return Stop(row.number, step, row.saved, "", row.note, f"{row.note}{begun_told(row)}")
    now, before = _look(record.get("now")), _look(record.get("before"))
    p = stop.p if stop.p is not None else (now.p if now is not None else None)
    return Stop(
        number=row.number,
        step=stop.step,
        saved=row.saved,
        reason=stop.reason,
        line=row.note,
        text=f"{stop.text}{begun_told(row)}",
        p=p,
        p_before=before.p if before is not None else None,
        threshold=_threshold(record),
        incumbent=_incumbent(record),
        rank=_rank(record),
        p_today=today if math.isfinite(today) else None,
        forecast=tuple(sign * loss for loss in stop.losses),
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
        done = np.minimum(trained_by(steps, steps[0]), goal.horizon)
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
