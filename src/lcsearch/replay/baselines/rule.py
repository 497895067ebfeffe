"""What a rule of the field is, and how it is made a stopper."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike

from lcsearch.curves import Curve, Floats
from lcsearch.errors import InvalidValue, is_finite_number
from lcsearch.stopping.decision import Decision
from lcsearch.stopping.gates import Ask, Event, GateHold, ask, held_decision, report_before
from lcsearch.stopping.judge import Judgement, judge
from lcsearch.stopping.policy import Policy
from lcsearch.stopping.risk import StopRecord
from lcsearch.stopping.verdict import Reason, Verdict
from lcsearch.study import FinishedTrials, Snapshot, Trial


class Said(NamedTuple):
    """What a rule came to, and why in words."""

    stop: bool
    why: str


class Rule(Protocol):
    """A rule of the field. Pure: it looks at its arguments alone."""

    @property
    def name(self) -> str:
        """Short, with what sets it apart: "patience-5"."""
        ...

    def says(self, snapshot: Snapshot, trial: Trial, since: float) -> Said:
        """Judge one look.

        Args:
            snapshot: the study; the trial itself may or may not stand in it.
            trial: its curve ends at the report that is looked at.
            since: step of the trial's previous look, -inf before its first: reports up to there were judged then.
        """
        ...


def judged_by(rule: Rule, snapshot: Snapshot, event: Event, since: float) -> Judgement:
    """A rule's verdict as a judgement; the record of a stop has no probability, for the rule knows none."""
    with np.errstate(all="ignore"):  # curves reach infinities, as the originals' do
        stop, why = rule.says(snapshot, event.trial.cut(event.step), since)
    verdict = Verdict.STOP if stop else Verdict.CONTINUE
    detail = f"{rule.name}: {why}"
    decision = Decision(snapshot.study, event.trial.uid, event.step, verdict, Reason.RULE, detail)
    return Judgement(decision, StopRecord(event.step, Reason.RULE.name, None, decision.text) if stop else None)


class Bare(ABC):
    """A :class:`Rule` that stops whenever it says so, each report being a look."""

    @property
    @abstractmethod
    def name(self) -> str:
        """See :attr:`Rule.name`."""

    @abstractmethod
    def says(self, snapshot: Snapshot, trial: Trial, since: float) -> Said:
        """See :meth:`Rule.says`."""

    def check(self, snapshot: Snapshot, event: Event) -> Judgement:
        """Decide one look."""
        steps = event.trial.curve.cut(event.step).reports()[0]
        return judged_by(self, snapshot, event, float(steps[-2]) if steps.size > 1 else -math.inf)


def at_least(value: float, low: float, where: str) -> None:
    """Raise InvalidValue unless `value` is a whole number >= low."""
    if not is_finite_number(value) or value != int(value) or value < low:
        raise InvalidValue(f"a whole number >= {low:g}", value, where)


def reported_at(bank: FinishedTrials, step: float) -> Floats:
    """What COMPLETE trials reported at exactly `step`, in the metric's units, non-finite values included."""
    points = np.flatnonzero(bank.steps == step)
    rows = np.searchsorted(bank.stops, points, side="right")
    use = bank.complete[rows]
    rows, values = rows[use], bank.goal.sign * bank.losses[points[use]]
    for i in np.flatnonzero(~np.isfinite(values)).tolist():  # the bank has +inf for NaN and for both infinities
        curve = bank[int(rows[i])].curve
        values[i] = curve.event_values[curve.event_steps.searchsorted(step)]
    out: Floats = values
    return out


def first_at(curve: Curve, rungs: Sequence[float]) -> list[tuple[float, float]]:
    """(step, value) of the first report that is not NaN at or after each rung; shorter where the curve ends."""
    steps, values = curve.reports()
    if curve.event_steps.size:
        told = ~np.isnan(values)
        steps, values = steps[told], values[told]
    at = steps.searchsorted(np.asarray(rungs, np.float64))
    at = at[at < steps.size]
    return list(zip(steps[at].tolist(), values[at].tolist(), strict=True))


def percentile(values: ArrayLike, q: float) -> float:
    """np.nanpercentile, NaN for nothing, without a word."""
    known = np.asarray(values, np.float64)
    known = known[~np.isnan(known)]
    return float(np.percentile(known, q)) if known.size else math.nan


@dataclass(frozen=True)
class Gated:
    """A rule behind the gates of production: :func:`~lcsearch.stopping.gates.ask` itself, so they are the same to the
    bit.

    First trials, warm-up, intervals, short curves, what leads, the rank guard, and the stop of diverged trials; for a
    rule without the rank guard `Policy(guard=0, min_comparisons=0)`, for one without the stop of diverged trials a
    large `divergence_reports`. The threshold, epsilon and the risk limit mean nothing here. Production also asks for a
    report before (`FIRST_LOOK`), and so does this.

    A look stands for all reports since the trial's previous one, as far as gates of the trial alone (warm-up,
    intervals, short curves) put it off: a rung passed between two looks is judged at the second. A rung passed while
    the study's gates protected the trial (first trials, leader, guard) is passed for good: statelessness.

    Attributes:
        rule: what decides the looks that pass.
        policy: the gates' knobs.
        looks: the steps at which a look is made, when not at every report; see `World.looks`.
    """

    rule: Rule
    policy: Policy
    looks: Collection[float] | None = None

    def __post_init__(self) -> None:
        # What a rule of the field costs is next to nothing: it need not space its looks.
        object.__setattr__(self, "policy", replace(self.policy, look_growth=1))

    @property
    def name(self) -> str:
        """ "median, gated"."""
        return f"{self.rule.name}, gated"

    def check(self, snapshot: Snapshot, event: Event) -> Judgement:
        """Decide one look."""
        with np.errstate(all="ignore"):
            question = ask(self.policy, snapshot, event)
            if isinstance(question, GateHold):
                return Judgement(held_decision(snapshot, event, question))
            if question.diverged:
                return judge(self.policy, snapshot, question, {})
        decision, record = judged_by(self.rule, snapshot, event, self._since(question))
        decision = replace(decision, incumbent=question.incumbent, standing=question.standing, horizon=snapshot.horizon)
        return Judgement(decision, None if record is None else replace(record, text=decision.text))

    def _since(self, question: Ask) -> float:
        """The previous look's step if the trial's own gates let it pass; -inf otherwise, as for all before it."""
        before, policy = question.queries[-1].trial.curve, self.policy
        if self.looks is not None:
            earlier = [look for look in self.looks if look <= before.last_step]
            before = before.cut(max(earlier, default=-math.inf))
        step = before.last_step
        passed = step >= policy.n_warmup_steps and len(before) >= policy.min_observations
        steps: list[float] = before.steps.tolist()
        return step if passed and report_before(policy, steps, step) is not None else -math.inf
