"""Rules of the field, to compare with: what Optuna, Ray Tune and the papers stop by, as stoppers.

    Never                nothing is stopped
    Patience             no improvement for so many reports        LC-PFN (Adriaensen et al. 2023), section 4.3
    Median               worse than the median at this step        optuna.pruners.MedianPruner
    SuccessiveHalving    not in the best 1/eta at a rung           optuna.pruners.SuccessiveHalvingPruner
    Hyperband            the same, in brackets                     optuna.pruners.HyperbandPruner
    Asha                 below the cutoff of a rung                ray.tune.schedulers.ASHAScheduler, one bracket
    Gated                any of these behind the gates of production

Each is a function of the snapshot and of the event's trial, and keeps nothing between looks. The originals keep notes
on trials (who has passed which rung, with which value); here they are read off the curves, where they stand as well: a
stopped trial's curve ends where it was stopped, and a trial that went on has passed every rung it reached. Each class
says how far that goes. The originals stop at any report, the last one too: whoever replays asks no look there, or lets
a trial that has reached its horizon be COMPLETE.
"""

from __future__ import annotations

import math
import zlib
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike

from lcsearch.curves import Curve, Floats
from lcsearch.decide.decision import Decision
from lcsearch.decide.risk import Mark
from lcsearch.decide.verdict import Reason, Verdict
from lcsearch.engine.ask import Ask, Event, Hold, ask, held_decision, previous_look
from lcsearch.engine.judge import Judgement, judge
from lcsearch.engine.policy import Policy
from lcsearch.errors import InvalidValue, is_finite_number
from lcsearch.study import Bank, Snapshot, Status, Trial


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
    """A rule's verdict as a judgement; the mark of a stop has no probability, for the rule knows none."""
    with np.errstate(all="ignore"):  # curves reach infinities, as the originals' do
        stop, why = rule.says(snapshot, event.trial.cut(event.step), since)
    verdict = Verdict.STOP if stop else Verdict.CONTINUE
    detail = f"{rule.name}: {why}"
    decision = Decision(snapshot.study, event.trial.uid, event.step, verdict, Reason.RULE, detail)
    return Judgement(decision, Mark(event.step, Reason.RULE.name, None, decision.text) if stop else None)


class _Bare(ABC):
    """A :class:`Rule` that stops whenever it says so, each report being a look."""

    @property
    @abstractmethod
    def name(self) -> str: ...

    @abstractmethod
    def says(self, snapshot: Snapshot, trial: Trial, since: float) -> Said: ...

    def check(self, snapshot: Snapshot, event: Event) -> Judgement:
        """Decide one look."""
        steps = event.trial.curve.cut(event.step).reports()[0]
        return judged_by(self, snapshot, event, float(steps[-2]) if steps.size > 1 else -math.inf)


def _at_least(value: float, low: float, where: str) -> None:
    """Raise InvalidValue unless `value` is a whole number >= low."""
    if not is_finite_number(value) or value != int(value) or value < low:
        raise InvalidValue(f"a whole number >= {low:g}", value, where)


@dataclass(frozen=True)
class Never(_Bare):
    """Stops nothing."""

    @property
    def name(self) -> str:
        """ "never"."""
        return "never"

    def says(self, snapshot: Snapshot, trial: Trial, since: float) -> Said:
        """Go on."""
        return Said(False, "nothing is stopped")


@dataclass(frozen=True)
class Patience(_Bare):
    """Stops a trial whose best value is more than `patience` reports old: 0 stops at the first that is no better.

    An equal value is no improvement, nor is a non-finite one; a trial that never reported a finite value is as old as
    its reports are many. LC-PFN section 4.3 compares with 0, 1, 5, 10, 20 and 50. (Optuna's PatientPruner without a
    pruner inside is the same but for ties and NaN, which it forgives.)

    Attributes:
        patience: reports without improvement that are borne, >= 0.
    """

    patience: int

    def __post_init__(self) -> None:
        _at_least(self.patience, 0, "Patience.patience")

    @property
    def name(self) -> str:
        """ "patience-5"."""
        return f"patience-{self.patience}"

    def says(self, snapshot: Snapshot, trial: Trial, since: float) -> Said:
        """Count the reports since the best one."""
        best = trial.curve.standings(snapshot.goal.sign, True)[1]
        idle = 0
        if best:
            idle = len(best) - 1 - best.index(best[-1]) if best[-1] < math.inf else len(best)
        return Said(idle > self.patience, f"{idle} reports without improvement")


@dataclass(frozen=True)
class Median(_Bare):
    """Stops a trial whose best value so far is worse than the median of COMPLETE trials' values at this very step.

    optuna.pruners.MedianPruner, verdict for verdict: the values compared with are those reported at exactly this step
    (not their best so far), NaN aside; a trial that has reported nothing but NaN is stopped.

    Attributes:
        n_startup_trials: nothing is stopped before this many trials are COMPLETE (nor before one is).
        n_warmup_steps: nothing is stopped below this step.
        interval_steps: one look an interval of so many steps.
        n_min_trials: reports needed at the step, NaN included.
    """

    n_startup_trials: int = 5
    n_warmup_steps: int = 0
    interval_steps: int = 1
    n_min_trials: int = 1

    def __post_init__(self) -> None:
        _at_least(self.n_startup_trials, 0, "Median.n_startup_trials")
        _at_least(self.n_warmup_steps, 0, "Median.n_warmup_steps")
        _at_least(self.interval_steps, 1, "Median.interval_steps")
        _at_least(self.n_min_trials, 1, "Median.n_min_trials")

    @property
    def name(self) -> str:
        """ "median"."""
        return "median"

    def says(self, snapshot: Snapshot, trial: Trial, since: float) -> Said:
        """Compare with the median here."""
        bank, step, sign = snapshot.bank, trial.curve.last_step, snapshot.goal.sign
        if bank.n_complete < max(self.n_startup_trials, 1):
            return Said(False, f"{bank.n_complete} trials have finished")
        if not trial.curve.n_reports or step < self.n_warmup_steps:
            return Said(False, "below the warm-up")
        steps, values = trial.curve.reports()
        if steps.size > 1 and steps[-2] >= step - (step - self.n_warmup_steps) % self.interval_steps:
            return Said(False, "this interval had its look")
        known = values[~np.isnan(values)]
        if not known.size:
            return Said(True, "nothing but NaN")
        best = float(known.min() if sign > 0 else known.max())
        others = _reported_at(bank, step)
        if others.size < self.n_min_trials or np.isnan(others).all():
            return Said(False, f"{others.size} values at this step")
        # In the metric's own units and by the same function as Optuna, so that the last bit agrees.
        median = float(np.percentile(others[~np.isnan(others)], 50.0))
        return Said(sign * best > sign * median, f"best {best:.6g}, median {median:.6g} of {others.size}")


def _reported_at(bank: Bank, step: float) -> Floats:
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


def _first_at(curve: Curve, rungs: Sequence[float]) -> list[tuple[float, float]]:
    """(step, value) of the first report that is not NaN at or after each rung; shorter where the curve ends."""
    steps, values = curve.reports()
    if curve.event_steps.size:
        told = ~np.isnan(values)
        steps, values = steps[told], values[told]
    at = steps.searchsorted(np.asarray(rungs, np.float64))
    at = at[at < steps.size]
    return list(zip(steps[at].tolist(), values[at].tolist(), strict=True))


@dataclass(frozen=True)
class SuccessiveHalving(_Bare):
    """Stops a trial at a rung when its value there is not among the best 1/eta of all values recorded at that rung.

    optuna.pruners.SuccessiveHalvingPruner, the asynchronous form (Li et al. 2018): rung r lies at step
    min_resource * eta^(s + r). The first report at or after it that is not NaN is the trial's record there, its value
    of that moment, not its best. With n records, its own included, the trial goes on when it is at least as good as
    number max(n // eta, 1); NaN at a rung stops it.

    Records are read off the curves: of finished, stopped, failed and running trials alike. The verdict is Optuna's,
    look for look, whatever runs side by side, as long as no single report passes two rungs. Where one does (first
    report at step 10, rungs at 3 and 9), a trial stopped there has a record at the first rung it failed and at none
    after it; which that was is worked out from the trials before it in the bank: exact when trials ran one after the
    other. `min_resource="auto"` is left out.

    Attributes:
        min_resource: step of the first rung when s = 0, >= 1.
        reduction_factor: eta, >= 2.
        min_early_stopping_rate: s, >= 0.
        bootstrap_count: a rung's first trials, so many, are stopped there whatever their value.
    """

    min_resource: int = 1
    reduction_factor: int = 4
    min_early_stopping_rate: int = 0
    bootstrap_count: int = 0

    def __post_init__(self) -> None:
        _at_least(self.min_resource, 1, "SuccessiveHalving.min_resource")
        _at_least(self.reduction_factor, 2, "SuccessiveHalving.reduction_factor")
        _at_least(self.min_early_stopping_rate, 0, "SuccessiveHalving.min_early_stopping_rate")
        _at_least(self.bootstrap_count, 0, "SuccessiveHalving.bootstrap_count")

    @property
    def name(self) -> str:
        """ "sha"."""
        return "sha"

    def rungs(self, step: float) -> list[float]:
        """Steps of the rungs up to `step`, rising."""
        found: list[float] = []
        rung = self.min_resource * self.reduction_factor**self.min_early_stopping_rate
        while rung <= step:
            found.append(rung)
            rung *= self.reduction_factor
        return found

    def says(self, snapshot: Snapshot, trial: Trial, since: float) -> Said:
        """Judge the rungs passed since the previous look."""
        return self.among((*snapshot.bank, *snapshot.live), snapshot.goal.sign, trial, since)

    def among(self, trials: Iterable[Trial], sign: float, trial: Trial, since: float) -> Said:
        """Judge the rungs passed since the previous look, among these trials; finished ones first, in their order."""
        curve = trial.curve
        rungs = self.rungs(curve.last_step)
        own = _first_at(curve, rungs)
        done = sum(step <= since for step, _ in own)
        if done == len(rungs):
            return Said(False, "between rungs")
        records = self._records((t for t in trials if t.uid != trial.uid), sign, rungs)
        why = ""
        for rung, recorded, (_, value) in zip(rungs[done:], records[done:], own[done:], strict=False):
            goes_on, least = self._promoted(value, recorded, sign)
            enough = f"{least:.6g} goes on" if len(recorded) >= self.bootstrap_count else "too few to compare"
            why = f"{value:.6g} at the rung of step {rung:g}, {enough}, {len(recorded) + 1} records"
            if not goes_on:
                return Said(True, why)
        if len(own) < len(rungs):
            return Said(True, f"NaN at the rung of step {rungs[len(own)]:g}")
        return Said(False, why)

    def _promoted(self, value: float, others: Sequence[float], sign: float) -> tuple[bool, float]:
        """Whether a value goes on beside the others recorded at its rung; and what would just do so."""
        ranked = sorted(sign * v for v in (*others, value))
        least = ranked[max(len(ranked) // self.reduction_factor, 1) - 1]
        return len(ranked) > self.bootstrap_count and sign * value <= least, sign * least

    def _records(self, trials: Iterable[Trial], sign: float, rungs: Sequence[float]) -> list[list[float]]:
        """Values recorded at each rung."""
        records: list[list[float]] = [[] for _ in rungs]
        for trial in trials:
            curve = trial.curve
            ended = curve.last_step if trial.status is Status.STOPPED else math.inf
            for recorded, (step, value) in zip(records, _first_at(curve, rungs), strict=False):
                failed = step == ended and not self._promoted(value, recorded, sign)[0]
                recorded.append(value)
                if failed:
                    break
        return records


@dataclass(frozen=True)
class Hyperband(_Bare):
    """Successive halving in brackets that begin at later and later rungs (Li et al. 2017).

    optuna.pruners.HyperbandPruner: floor(log_eta(max_resource / min_resource)) + 1 = B brackets; bracket b is
    successive halving with s = b among its own trials. A trial's bracket follows from crc32("<study>_<uid>"), brackets
    having shares in proportion to ceil(B eta^(B - 1 - b) / (B - b)). As faithful as :class:`SuccessiveHalving`, when
    `Snapshot.study` and the uids are Optuna's study name and trial numbers. `max_resource="auto"` is left out.

    Attributes:
        max_resource: the step at which trials end.
        min_resource: step of the first bracket's first rung, >= 1.
        reduction_factor: eta, >= 2.
        bootstrap_count: see :class:`SuccessiveHalving`.
    """

    max_resource: int
    min_resource: int = 1
    reduction_factor: int = 3
    bootstrap_count: int = 0

    def __post_init__(self) -> None:
        _at_least(self.min_resource, 1, "Hyperband.min_resource")
        _at_least(self.max_resource, self.min_resource, "Hyperband.max_resource")
        _at_least(self.reduction_factor, 2, "Hyperband.reduction_factor")
        _at_least(self.bootstrap_count, 0, "Hyperband.bootstrap_count")

    @property
    def name(self) -> str:
        """ "hyperband"."""
        return "hyperband"

    @cached_property
    def brackets(self) -> tuple[SuccessiveHalving, ...]:
        """One rule a bracket, the one of the earliest rungs first."""
        # As Optuna computes it, rounding included: log(243, 3) is 4.999.
        n = math.floor(math.log(self.max_resource / self.min_resource, self.reduction_factor)) + 1
        return tuple(
            SuccessiveHalving(self.min_resource, self.reduction_factor, b, self.bootstrap_count) for b in range(n)
        )

    @cached_property
    def shares(self) -> tuple[int, ...]:
        """How many of sum(shares) trials go to each bracket."""
        n = len(self.brackets)
        return tuple(math.ceil(n * self.reduction_factor ** (n - 1 - b) / (n - b)) for b in range(n))

    def bracket(self, study: str, uid: str) -> int:
        """Index of a trial's bracket: the same in every process."""
        at = zlib.crc32(f"{study}_{uid}".encode()) % self._bounds[-1]
        return bisect_right(self._bounds, at)

    @cached_property
    def _bounds(self) -> list[int]:
        return list(accumulate(self.shares))

    def says(self, snapshot: Snapshot, trial: Trial, since: float) -> Said:
        """Judge the rungs of the trial's bracket passed since the previous look."""
        mine = self.bracket(snapshot.study, trial.uid)
        beside = (t for t in (*snapshot.bank, *snapshot.live) if self.bracket(snapshot.study, t.uid) == mine)
        stop, why = self.brackets[mine].among(beside, snapshot.goal.sign, trial, since)
        return Said(stop, f"bracket {mine}, {why}")


@dataclass(frozen=True)
class Asha(_Bare):
    """Stops a trial at a rung when its value is worse than the best 1/eta of the values recorded there before.

    ray.tune.schedulers.ASHAScheduler with one bracket, the stopping variant: rungs at grace_period * eta^k up to max_t.
    A report is recorded at the highest rung at or below its step that has no record of this trial yet (after a jump
    over a rung, the next report goes to the one jumped over). The cutoff is the (1 - 1/eta) percentile, interpolated,
    of the rewards (sign turned so that higher is better) recorded by others, the trial's own not among them; the first
    one at a rung always goes on. NaN is recorded, counts for nothing, and never stops.

    Which reports a trial recorded depends on its own curve alone, so the verdict is Ray's, look for look, whatever
    runs side by side. A trial's end hands its last report in once more, as Tune does; a failure does not. At max_t Ray
    says STOP, by which it means done: here the trial just ends.

    Attributes:
        max_t: the step at which trials end.
        grace_period: step of the first rung.
        reduction_factor: eta, > 1.
    """

    max_t: float
    grace_period: float = 1
    reduction_factor: float = 4

    def __post_init__(self) -> None:
        knobs = (self.max_t, self.grace_period, self.reduction_factor)
        if not all(map(is_finite_number, knobs)) or not (
            0 < self.grace_period <= self.max_t and self.reduction_factor > 1
        ):
            expected = "0 < grace_period <= max_t and reduction_factor > 1"
            raise InvalidValue(expected, knobs, "Asha(max_t, grace_period, reduction_factor)")

    @property
    def name(self) -> str:
        """ "asha"."""
        return "asha"

    @cached_property
    def rungs(self) -> tuple[float, ...]:
        """Steps of the rungs, falling."""
        # As Ray computes it, rounding included.
        n = int(np.log(self.max_t / self.grace_period) / np.log(self.reduction_factor) + 1)
        return tuple(self.grace_period * self.reduction_factor**k for k in reversed(range(n)))

    def _records(self, curve: Curve, *, ended: bool) -> dict[float, tuple[float, float]]:
        """Rung -> (step, value) that a trial recorded there."""
        steps, values = curve.reports()
        every = list(zip(steps.tolist(), values.tolist(), strict=True))
        told = [(step, value) for step, value in every if step < self.max_t]
        if ended:
            told += every[-1:]
        found: dict[float, tuple[float, float]] = {}
        for step, value in told:
            for rung in self.rungs:
                if step >= rung and rung not in found:
                    found[rung] = step, value
                    break
        return found

    def says(self, snapshot: Snapshot, trial: Trial, since: float) -> Said:
        """Judge the rungs recorded at since the previous look."""
        sign = snapshot.goal.sign
        new = {r: v for r, (s, v) in self._records(trial.curve, ended=False).items() if s > since}
        if not new:
            return Said(False, "max_t is reached" if trial.curve.last_step >= self.max_t else "between rungs")
        rewards: dict[float, list[float]] = {rung: [] for rung in new}
        for other in (*snapshot.bank, *snapshot.live):
            if other.uid == trial.uid:
                continue
            ended = other.status in (Status.COMPLETE, Status.STOPPED)
            for rung, (_, value) in self._records(other.curve, ended=ended).items():
                if rung in rewards:
                    rewards[rung].append(-sign * value)
        why = ""
        for rung, value in new.items():
            cutoff = -sign * _percentile(rewards[rung], (1 - 1 / self.reduction_factor) * 100)
            why = f"{value:.6g} at the rung of step {rung:g}, cutoff {cutoff:.6g} of {len(rewards[rung])} records"
            if -sign * value < -sign * cutoff:
                return Said(True, why)
        return Said(False, why)


def _percentile(values: ArrayLike, q: float) -> float:
    """np.nanpercentile, NaN for nothing, without a word."""
    known = np.asarray(values, np.float64)
    known = known[~np.isnan(known)]
    return float(np.percentile(known, q)) if known.size else math.nan


@dataclass(frozen=True)
class Gated:
    """A rule behind the gates of production: :func:`~lcsearch.engine.ask.ask` itself, so they are the same to the bit.

    First trials, warm-up, intervals, short curves, what leads, the rank guard, and the stop of diverged trials; for a
    rule without the rank guard `Policy(guard=0, min_comparisons=0)`, for one without the stop of diverged trials a
    large `divergence_reports`. The threshold, epsilon and the risk limit mean nothing here. Production also asks for a
    previous look (`FIRST_LOOK`), and so does this.

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
            if isinstance(question, Hold):
                return Judgement(held_decision(snapshot, event, question))
            if question.diverged:
                return judge(self.policy, snapshot, question, {})
        decision, mark = judged_by(self.rule, snapshot, event, self._since(question))
        decision = replace(decision, incumbent=question.incumbent, standing=question.standing, horizon=snapshot.horizon)
        return Judgement(decision, None if mark is None else replace(mark, text=decision.text))

    def _since(self, question: Ask) -> float:
        """The previous look's step if the trial's own gates let it pass; -inf otherwise, as for all before it."""
        before, policy = question.queries[-1].trial.curve, self.policy
        if self.looks is not None:
            earlier = [look for look in self.looks if look <= before.last_step]
            before = before.cut(max(earlier, default=-math.inf))
        step = before.last_step
        passed = step >= policy.n_warmup_steps and len(before) >= policy.min_observations
        steps: list[float] = before.steps.tolist()
        return step if passed and previous_look(policy, steps, step) is not None else -math.inf
