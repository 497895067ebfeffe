"""How far a sweep is: one pure reading of the study, from which live view and summary are drawn."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from optuna.trial import FrozenTrial, TrialState

from lcsearch.allocation.contract import FREE, Prices
from lcsearch.curves import Curve
from lcsearch.goal import Goal
from lcsearch.schedulers.optuna import REASON, begun_as, decision_of, is_paused
from lcsearch.schedulers.optuna._record import (
    Thawed,
    cut_kind,
    is_unread,
    n_pauses,
    paid_by,
    paused_at_of,
    thawed_of,
    without_dead,
)
from lcsearch.stopping.decision import Decision
from lcsearch.stopping.verdict import Reason
from lcsearch.study import FinishedTrials, judged_at_end, trained_by, trained_lengths
from lcsearch.sweep.spec.distributions import Parameter
from lcsearch.sweep.spec.strict import Scalar, is_plain
from lcsearch.sweep.store import attributes
from lcsearch.sweep.store.attributes import WORKER
from lcsearch.sweep.store.budget import (
    OVERTAKEN,
    TOOK,
    Reading,
    Spent,
    inherited,
    replacements,
    seconds_of,
    steps_of,
    thawed_as,
)
from lcsearch.sweep.store.ownership import ERROR, NOTED, RETRIES, abandoned, counted
from lcsearch.sweep.store.pace import ENOUGH, Pace, pace_in, usual

_NAMES = {
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "stopped",
    TrialState.FAIL: "failed",
}


@dataclass(frozen=True)
class Row:
    """One trial.

    Attributes:
        state: "running", "waiting" (its worker is gone, nobody has adopted it yet), "paused" (a checkpoint, until the
            allocator gives it a turn), "complete", "stopped", "failed", "thawed" (it was stopped, and another goes on
            with it).
        values: step -> value, in step order.
        spent: steps trained, on the user's axis.
        saved: steps a stop saved: what the trial had left before it, by the complete trials, see
            :meth:`FinishedTrials.left`.
        note: the reason of a stop or the error of a failure, one line for people.
        cut: what left it paused for good, see :func:`lcsearch.schedulers.optuna._record.cut_kind`; "": nothing did.
        pauses: how often it was paused.
        paused_at: the step at which it was paused last; None where it never was.
        paid: what its pauses and resumes have cost, in steps, by the file's prices.
        begun: why it has its configuration, see :func:`lcsearch.schedulers.optuna.begun_as`; "": nobody has chosen it.
        overtaken: whether a stop of it was taken back, because its program was at its end by then.
        stop: the decision that stopped it; None where another pruner did, or where its record cannot be read.
        unread: whether lcsearch stopped it and the record of that was damaged since.
        slot: the worker that has it, if one does.
        run: the identity of the run folder whose worker has it, or had it last; None where nobody signed it.
        retries: how often it was taken up again.
        seconds: what it has taken of its workers' time.
        pace: what a step took, start-up apart; None where that is not known (yet).
        again: the trial that runs this failed one again, and counts in the budget in its place.
        thawed_as: the trial that goes on with this stopped one, likewise.
        thawed: how it came, of a trial that goes on with a stopped one.
        inherited: steps on its curve that the stopped one trained.
        noted: what was odd about its reports, see :attr:`lcsearch.sweep.objective.context.Context.noted`.
    """

    number: int
    state: str
    params: Mapping[str, Scalar]
    values: dict[int, float]
    spent: int
    saved: int
    note: str
    slot: int | None
    retries: int
    began: datetime | None
    ended: datetime | None
    seconds: float = 0.0
    pace: Pace | None = None
    again: int | None = None
    thawed_as: int | None = None
    thawed: Thawed | None = None
    inherited: int = 0
    noted: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    stop: Decision | None = None
    overtaken: bool = False
    cut: str = ""
    pauses: int = 0
    paused_at: int | None = None
    paid: float = 0.0
    begun: str = ""
    run: str | None = None
    unread: bool = False

    @property
    def counts(self) -> bool:
        """Does it count in the budget? Not a failed one that is run again, nor a stopped one that is thawed, nor a thaw
        that failed.
        """
        lost = self.thawed is not None and self.state in ("failed", "stopped")
        return self.again is None and self.thawed_as is None and not lost

    @property
    def done(self) -> bool:
        """Is it one of the budget's trials that have ended? A stopped one that is thawed stays so, and the thawed one
        is none: what has ended only becomes more.
        """
        ended = self.counts and self.state in ("complete", "stopped", "failed")
        return self.thawed is None and (ended or self.state == "thawed")

    @property
    def last(self) -> tuple[int, float] | None:
        """(step, value) of the last report."""
        return next(reversed(self.values.items()), None) if self.values else None

    @property
    def judged_to(self) -> int:
        """Steps that were trained up to the last report that was taken; a program's may be more, see `spent`."""
        return int(trained_by(self.last[0], next(iter(self.values)))) if self.last is not None else self.spent

    def reached(self, goal: Goal) -> tuple[float, int] | None:
        """(judged value, its step) so far; None where there is none that is finite."""
        found = judged_at_end(Curve.of(self.values), goal)
        return None if found is None else (found[0], int(found[1]))


@dataclass(frozen=True)
class Best:
    """A best judged value: where it was reached, with what, and the state of its trial."""

    value: float
    number: int
    step: int
    params: Mapping[str, Scalar]
    state: str


@dataclass(frozen=True)
class Progress:
    """The sweep as it stands.

    Attributes:
        rows: by trial number; without trials begun beyond the budget, so row n need not be trial n (see `numbered`).
        budget: trials in all.
        best: the best value so far, of any trial that has not failed; None before there is one.
        incumbent: the best of the complete trials, which the others must beat; None before there is one.
        lengths: how long the complete trials were, in steps spent; their values are not kept.
        counts: state -> trials in it.
        silent: trial -> seconds since its last report, for those that are overdue by their own pace.
        unreadable: what lcsearch kept with trials and cannot read any more, see :func:`attributes.unreadable`.
    """

    rows: tuple[Row, ...]
    budget: int
    best: Best | None
    counts: Mapping[str, int] = field(default_factory=dict)
    silent: Mapping[int, float] = field(default_factory=dict)
    incumbent: Best | None = None
    lengths: FinishedTrials | None = None
    unreadable: tuple[str, ...] = ()

    @property
    def counted(self) -> int:
        """Trials that count in the budget, see :func:`lcsearch.sweep.store.budget.standing`."""
        return sum(row.counts for row in self.rows)

    @property
    def numbered(self) -> Mapping[int, Row]:
        """Trial -> its row."""
        return {row.number: row for row in self.rows}

    @property
    def spent(self) -> int:
        """Steps trained so far, each once."""
        return sum(row.spent - row.inherited for row in self.rows)

    @property
    def paid(self) -> float:
        """What pauses and resumes have cost so far, in steps, by the file's prices: it comes out of `budget.steps`."""
        return math.fsum(row.paid for row in self.rows)

    def begun(self, goal: Goal) -> list[Spent]:
        """What the sweep's own trials came to that have ended or are paused, without failed ones that are run again, by
        number.
        """
        own = [row for row in self.rows if row.again is None and row.thawed is None]
        own = [row for row in own if row.state not in ("running", "waiting")]
        known = [(row, row.reached(goal) if row.state != "failed" else None) for row in own]
        return [Spent(math.inf if at is None else goal.sign * at[0], row.spent, row.seconds) for row, at in known]

    @property
    def saved(self) -> int:
        """Steps that stops saved, an estimate: :attr:`lcsearch.session.study_report.StudyReport.saved`."""
        return sum(row.saved for row in self.rows)

    @property
    def diverged(self) -> int:
        """Stops for divergence, which are in no risk."""
        return sum(row.stop is not None and row.stop.reason is Reason.DIVERGED for row in self.of("stopped"))

    @property
    def cut(self) -> int:
        """Trials that an allocator has ended, which are in no risk."""
        return sum(row.cut != "" for row in self.rows)

    @property
    def unread_stops(self) -> int:
        """Stops whose records somebody damaged, which are in no risk."""
        return sum(row.unread for row in self.rows)

    @property
    def seconds(self) -> float:
        """Workers' time, summed over trials."""
        return sum(row.seconds for row in self.rows)

    @property
    def seconds_saved(self) -> float | None:
        """What the steps that stops saved would have taken, each trial's at its pace; None where that is not known."""
        return self.seconds_of({row.number: row.saved for row in self.rows})

    def seconds_of(self, steps: Mapping[int, float]) -> float | None:
        """What `steps` (trial -> steps) take: at the trial's own pace, where it has one, else at the usual one."""
        pace, rows, total = usual(row.pace for row in self.rows), self.numbered, 0.0
        for number, n in steps.items():
            own = rows[number].pace
            per_step = own.seconds if own is not None and own.gaps >= ENOUGH else pace
            if n and per_step is None:
                return None
            total += n * (per_step or 0.0)
        return total

    def left(self, spent: int, max_steps: int) -> float:
        """Steps that a trial which has spent so many still has before it, by the complete trials; to `max_steps` before
        there is one.
        """
        known = self.lengths is not None and self.lengths.n_complete > 0
        return self.lengths.left(spent) if known and self.lengths is not None else float(max_steps - spent)

    def of(self, *states: str) -> list[Row]:
        """Rows in one of `states`."""
        return [row for row in self.rows if row.state in states]


def collect(
    trials: Sequence[FrozenTrial],
    goal: Goal,
    budget: int,
    space: Mapping[str, Parameter],
    *,
    now: datetime | None = None,
    prices: Prices = FREE,
) -> Progress:
    """Read a study's trials.

    Args:
        trials: all of them, by number.
        goal: what they are after.
        budget: trials in all.
        space: gives the parameters' order and the constants, which Optuna does not know.
        now: until when the running trials count as running; None: their present workers' time is left out.
        prices: of pauses and resumes.
    """
    again, horizon = replacements(trials), int(goal.horizon)
    twice, thaws = inherited(trials, horizon), thawed_as(trials)
    read = [_row(trial, horizon, space, now, again.get(trial.number), prices) for trial in counted(trials)]
    read = [
        replace(
            row,
            inherited=twice.get(row.number, 0),
            thawed_as=thaws.get(row.number),
            state="thawed" if row.number in thaws and row.state == "stopped" else row.state,
        )
        for row in read
    ]
    own = {t.number: steps_of(alive, horizon) for t in trials if (alive := without_dead(t)) is not t}
    ends = {row.number: own.get(row.number, row.spent) for row in read}  # not where an attempt that died had been
    complete = [row for row in read if row.state == "complete"]  # of whom nothing is saved
    lengths = trained_lengths(goal, ((list(row.values), ends[row.number]) for row in complete if row.values))
    saved = {row.number: round(lengths.left(ends[row.number])) for row in read if row.state == "stopped"}
    rows = tuple(replace(row, saved=saved[row.number]) if row.number in saved else row for row in read)
    counts, lost = Counter(row.state for row in rows), tuple(attributes.unreadable(trials))
    best, incumbent = _best(rows, goal), _best(complete, goal)
    return Progress(rows, budget, best, counts, incumbent=incumbent, lengths=lengths, unreadable=lost)


def _row(
    trial: FrozenTrial,
    horizon: int,
    space: Mapping[str, Parameter],
    now: datetime | None,
    again: int | None,
    prices: Prices,
) -> Row:
    values = dict(sorted(without_dead(trial).intermediate_values.items()))
    done = steps_of(trial, horizon)
    state = _NAMES[trial.state]
    if abandoned(trial):
        state = "waiting"
    elif is_paused(trial):
        state = "paused"
    note, signed = "", attributes.signature(trial.user_attrs, WORKER)
    if state == "stopped":
        note = str(trial.user_attrs.get(REASON) or "stopped by the pruner")
    elif state == "failed":
        note = str(trial.user_attrs.get(ERROR, "failed"))
    return Row(
        number=trial.number,
        state=state,
        params=_params(trial, space),
        values=values,
        spent=done,
        saved=0,
        note=note,
        slot=signed.get("slot"),
        run=signed.get("run"),
        retries=attributes.count(trial.user_attrs, RETRIES),
        began=trial.datetime_start,
        ended=trial.datetime_complete,
        seconds=seconds_of(trial, now),
        pace=pace_in(trial.user_attrs.get(TOOK)),
        again=again,
        thawed=thawed_of(trial),
        noted=attributes.noted(trial.user_attrs, NOTED),
        stop=decision_of(trial) if state == "stopped" else None,
        overtaken=bool(attributes.count(trial.user_attrs, OVERTAKEN)),
        cut=cut_kind(trial) if state == "stopped" else "",
        pauses=n_pauses(trial),
        paused_at=paused_at_of(trial),
        paid=paid_by(trial, prices),
        begun=begun_as(trial) or "",
        unread=is_unread(trial),
    )


def _params(trial: FrozenTrial, space: Mapping[str, Parameter]) -> dict[str, Scalar]:
    constants = {k: p for k, p in space.items() if is_plain(p)}
    known: dict[str, Scalar] = {**trial.params, **constants}
    return {name: known[name] for name in (*space, *known) if name in known}


def _best(rows: Sequence[Row], goal: Goal) -> Best | None:
    """Under "best" every report of a trial that did not fail counts; under "final" only COMPLETE trials do."""
    found: Best | None = None
    for row in rows:
        if row.state == "failed" or (goal.judged == "final" and row.state != "complete"):
            continue
        reached = row.reached(goal)
        if reached is not None and (found is None or goal.sign * reached[0] < goal.sign * found.value):
            found = Best(reached[0], row.number, reached[1], row.params, row.state)
    return found


def wall_clock(reading: Reading, rows: Sequence[Row]) -> float | None:
    """Seconds of wall clock, as the run's clock has counted them; None where nothing is known.

    An earlier lcsearch did not count: then from the first trial's begin to the last time that is known.
    """
    if reading.counted is not None:
        return reading.counted
    times = times_of(rows)
    return (max(times) - min(times)).total_seconds() if times else None


def times_of(rows: Sequence[Row]) -> list[datetime]:
    """When trials began and ended, as far as is known."""
    return [time for row in rows for time in (row.began, row.ended) if time is not None]
