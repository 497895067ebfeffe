"""ask: the gates, cheapest first, and the questions for a look that passes them. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np

from lcsearch.curves import Floats
from lcsearch.forecast.contract import Query, judged_kind
from lcsearch.goal import Goal
from lcsearch.stopping.decision import Decision
from lcsearch.stopping.policy import Policy
from lcsearch.stopping.rules import Rank, epsilon_of, has_diverged
from lcsearch.stopping.verdict import Reason, Verdict
from lcsearch.study import FinishedTrials, Incumbent, Snapshot, Status, Trial, loss_at, uid_sort_key

THAWED = "thawed"
"""The record of a trial that goes on with one that was stopped, and is never stopped again: how it came, in words."""


@dataclass(frozen=True)
class Event:
    """A trial has reported.

    Attributes:
        trial: the trial with its curve up to the report that is looked at.
        step: the last step reported.
    """

    trial: Trial
    step: float


@dataclass(frozen=True)
class GateHold:
    """The look is over before any forecast: the trial goes on."""

    reason: Reason
    detail: str = ""
    standing: Rank | None = None
    incumbent: Incumbent | None = None


@dataclass(frozen=True)
class Ask:
    """What must be forecast to judge this look; a diverged trial needs no forecast and has no queries.

    Attributes:
        event: the look.
        queries: the judged value at this look by each step at which the trial may end
            (:meth:`lcsearch.study.Snapshot.horizons`), then likewise at the report before; empty when `diverged`.
        diverged: the trial's last reports are all non-finite.
        incumbent: what must be beaten.
        target: the loss that must be undercut: the incumbent's, minus epsilon.
        standing: rank at the trial's own step.
        rivals: uids of running trials, about each of which one query stands at the end; none where incumbents decide.
    """

    event: Event
    queries: tuple[Query, ...]
    diverged: bool = False
    incumbent: Incumbent | None = None
    target: float = math.nan
    standing: Rank | None = None
    rivals: tuple[str, ...] = ()

    @property
    def n_ends(self) -> int:
        """At how many steps the trial may end: so many queries are about this look, as many about the report before."""
        return (len(self.queries) - len(self.rivals)) // 2


def interval_of(step: float, policy: Policy) -> int:
    """Index of the look interval a step lies in: 0 starts at n_warmup_steps, negative ones lie before it."""
    return math.floor((step - policy.n_warmup_steps) / policy.interval_steps)


def trial_gates(policy: Policy, steps: Iterable[float], step: float | None, horizon: float | None) -> GateHold | None:
    """The gates that need nothing but the trial's own steps; None when they let the look pass.

    Args:
        policy: the knobs.
        steps: every step at which a finite value was reported, in any order; a report that is no value is no look.
        step: the last one reported; None before the first.
        horizon: where trials end, when known.
    """
    if step is None:
        return GateHold(Reason.NO_REPORT)
    if step < policy.n_warmup_steps:
        return GateHold(Reason.WARMUP)
    # A COMPLETE trial of range(50) ends at 49, so a look at the last but one step could still save one step.
    if horizon is not None and step >= horizon:
        return GateHold(Reason.HORIZON)
    if policy.interval_steps > 1:
        here = interval_of(step, policy)
        if any(s < step and interval_of(s, policy) >= here for s in steps):
            return GateHold(Reason.INTERVAL)
    return None


def study_gates(policy: Policy, n_complete: int, n_observations: int, last_value: float) -> GateHold | None:
    """The gates of young studies and young curves, for callers that can count before they build a snapshot.

    Args:
        policy: the knobs.
        n_complete: COMPLETE trials of the study.
        n_observations: finite observations of the trial, or its reports, which are at least as many.
        last_value: the latest report; a non-finite one may be a divergence, which none of these gates protects.
    """
    if not math.isfinite(last_value):
        return None
    if n_complete < policy.n_startup_trials and not policy.rivals:
        return GateHold(Reason.STARTUP, f"{n_complete} of {policy.n_startup_trials} trials have finished")
    if n_observations < policy.min_observations:
        return GateHold(Reason.SHORT, f"{n_observations} of {policy.min_observations} observations")
    return None


def early_gates(
    policy: Policy, reports: Mapping[Any, float], step: float | None, n_complete: Callable[[], int]
) -> GateHold | None:
    """The gates that need no snapshot, cheapest first, for callers that have not built one; None when all let it pass.

    Args:
        policy: the knobs.
        reports: step -> value, all reports of the trial.
        step: the one that is looked at; None before the first.
        n_complete: counts the study's COMPLETE trials; called once the trial's own gates have let the look pass.
    """
    told = sorted(at for at, value in reports.items() if math.isfinite(value))
    held = trial_gates(policy, told, step, None)
    if held is not None or step is None:
        return held
    if math.isfinite(reports[step]) and (held := spacing_gate(policy, told, step)) is not None:
        return held
    return study_gates(policy, n_complete(), len(reports), reports[step])


@lru_cache(maxsize=64)
def looks_at(first: int, growth: float, most: int) -> tuple[int, ...]:
    """Numbers of observations at which a trial has its looks, up to the first beyond `most`: each the next whole number
    that is `growth` times the one before.

    >>> looks_at(6, 1.1, 35)
    (6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 21, 24, 27, 30, 33, 37)
    """
    found = [first]
    while found[-1] <= most:
        found.append(max(found[-1] + 1, math.ceil(found[-1] * growth - 1e-9)))
    return tuple(found)


def spacing_gate(policy: Policy, steps: Sequence[float], step: float) -> GateHold | None:
    """The gate that spaces a trial's looks; None when this one is due.

    The first look that warm-up and shortness allow is due; a later one when the trial has passed another number of
    observations of :func:`looks_at` since the report before (:func:`report_before`).

    Args:
        policy: the knobs.
        steps: rising, at which finite values were reported, `step` included; later ones are passed over.
        step: the one looked at.
    """
    before = report_before(policy, steps, step)
    if policy.look_growth == 1 or before is None or before < policy.n_warmup_steps:
        return None
    n, n_before = bisect_right(steps, step), bisect_right(steps, before)
    if n_before < policy.min_observations:
        return None
    most = 64
    while most <= n:  # few different lists are made
        most *= 8
    numbers = looks_at(policy.min_observations, policy.look_growth, most)
    following = bisect_right(numbers, n)
    if following > bisect_right(numbers, n_before):
        return None
    return GateHold(Reason.SPACED, f"{n} observations, the next look comes at {numbers[following]}")


def report_before(policy: Policy, steps: Sequence[float], step: float) -> float | None:
    """The report whose forecast a stop at `step` needs beside its own, from the rising steps of a curve's values: the
    one before; where looks are an interval apart, the first of the latest earlier interval. None: there is none.

    It follows from the curve alone: whether there was a look at it does not matter. Intervals reach below the warm-up,
    so that a stop at `n_warmup_steps` itself is possible, as in Optuna.
    """
    if policy.interval_steps == 1:
        earlier = bisect_left(steps, step)
        return steps[earlier - 1] if earlier else None
    index = partial(interval_of, policy=policy)
    earlier = bisect_left(steps, index(step), key=index)
    return steps[bisect_left(steps, index(steps[earlier - 1]), key=index)] if earlier else None


def ask(policy: Policy, snapshot: Snapshot, event: Event) -> Ask | GateHold:
    """Pass the look through the gates, cheapest first, and say what must be forecast.

    Divergence comes before the gates that protect first trials: a metric that stays NaN is beyond saving, and where
    seven of ten trials diverge, waiting for five that are COMPLETE took five times the steps (1828, not 373, in eight
    studies of 30 trials). But it takes a finished trial with values at these steps to tell a divergence from a metric
    that starts late, or is reported now and then.
    """
    trial, step, goal, bank = event.trial, event.step, snapshot.goal, snapshot.bank
    steps: list[float] = trial.curve.steps.tolist()
    end = max(goal.horizon, snapshot.horizon)
    held = trial_gates(policy, steps, step if trial.curve.n_reports else None, end)
    if held is not None:
        return held
    if THAWED in trial.stop_records:
        return GateHold(Reason.THAWED)
    incumbent = snapshot.incumbent
    if incumbent is not None and diverged(policy, snapshot, trial) and not leads(trial, step, incumbent, goal):
        return Ask(event, (), diverged=True, incumbent=incumbent)
    held = study_gates(policy, bank.n_complete, len(trial.curve), 0.0)
    if held is not None:
        return held
    if trial.curve.n_trailing_events:
        return GateHold(Reason.NO_VALUE, f"{trial.curve.event_values[-1]} was reported here")
    before = report_before(policy, steps, step)
    if before is None:
        return GateHold(Reason.FIRST_LOOK)
    held = spacing_gate(policy, steps, step)
    if held is not None:
        return held
    young = bank.n_complete < policy.n_startup_trials
    rivals = _rivals(policy, snapshot, trial, step) if young else []
    if young and len(rivals) < policy.rivals:
        told = f"{bank.n_complete} of {policy.n_startup_trials} trials have finished, and {len(rivals)} of the"
        return GateHold(Reason.STARTUP, f"{told} {policy.rivals} rivals that it takes have come as far")
    standing = protection_gates(policy, snapshot, trial, step, young=young)
    if isinstance(standing, GateHold):
        return standing
    kind = judged_kind(goal)
    cuts, ends = (trial.cut(step), trial.cut(before)), snapshot.horizons(step)
    asked = [Query(cut, kind, end) for cut in cuts for end in ends]
    asked += [Query(rival, kind, ends[-1]) for rival in rivals]
    uids = tuple(rival.uid for rival in rivals)
    target = target_of(policy, snapshot)
    return Ask(event, tuple(asked), incumbent=incumbent, target=target, standing=standing, rivals=uids)


def _rivals(policy: Policy, snapshot: Snapshot, trial: Trial, step: float) -> list[Trial]:
    """The `policy.rivals` other live trials that stand best at `step`, of those that have come as far and have enough
    observations to be forecast; none where nobody knows yet at which step trials are judged.
    """
    goal = snapshot.goal
    if goal.horizon >= np.finfo(np.float64).max:
        return []
    found = []
    for other in snapshot.live:
        steps = other.curve.steps
        far = steps.size >= policy.min_observations and steps[0] <= step <= steps[-1]
        if other.uid != trial.uid and far and not other.curve.n_trailing_events and "stop" not in other.stop_records:
            found.append((loss_at(other.curve, goal, step), uid_sort_key(other.uid), other))
    return [other for _, _, other in sorted(found, key=lambda one: one[:2])[: policy.rivals]]


def protection_gates(
    policy: Policy, snapshot: Snapshot, trial: Trial, step: float, *, young: bool = False
) -> GateHold | Rank:
    """The gates that protect a trial by what it and the study are worth at `step`; its rank there when none does.

    Args:
        policy: the knobs.
        snapshot: the study.
        trial: the trial.
        step: the one looked at.
        young: running trials are what it is compared with: no COMPLETE one is needed.
    """
    goal, bank, incumbent = snapshot.goal, snapshot.bank, snapshot.incumbent
    if incumbent is None and not young:
        why = barred(bank)
        return GateHold(Reason.NO_INCUMBENT, f"{bank.n_complete} trials have ended, none {why}" if why else "")
    if incumbent is not None and leads(trial, step, incumbent, goal):
        return GateHold(Reason.INCUMBENT, incumbent=incumbent)
    if step >= snapshot.horizon:
        return GateHold(Reason.HORIZON, f"trials end at step {snapshot.horizon:g}", incumbent=incumbent)
    seen = bank.at(step, best=goal.judged == "best")
    n_here = int(np.count_nonzero(bank.complete & (seen == seen)))
    if n_here < policy.n_min_trials and not young:
        return GateHold(Reason.MIN_TRIALS, f"{n_here} of {policy.n_min_trials}", incumbent=incumbent)
    standing = _rank(snapshot, trial, step, seen)
    guarded = standing.held_by(policy.guard, policy.min_comparisons)
    if guarded is not None:
        return GateHold(guarded, str(standing), standing, incumbent)
    if trial.curve.still and not bank.stood(step, trial.curve):
        return GateHold(Reason.UNMOVED, "", standing, incumbent)
    # One that stood still and has begun to move is as short as what it has shown since.
    if (n := trial.curve.n_moving) < min(policy.min_observations, len(trial.curve)):
        detail = f"{n} of {policy.min_observations} observations since the curve began to move"
        return GateHold(Reason.SHORT, detail, standing, incumbent)
    return standing


def barred(bank: FinishedTrials) -> str:
    """Why none of the COMPLETE trials may be the incumbent, after "none"; "" where one may, or where none ended."""
    if not bank.n_complete or bank.eligible.any():
        return ""
    feasible = any(trial.feasible for trial in bank if trial.status is Status.COMPLETE)
    return "returned a finite value" if feasible else "is feasible"


def diverged(policy: Policy, snapshot: Snapshot, trial: Trial) -> bool:
    """Is a trial's metric beyond saving? See :func:`~lcsearch.stopping.rules.has_diverged`.

    Placeholders look the same at first: one that has not had a value yet, that came back from a placeholder before, or
    that ranked among the best where it last had a value is given twice as many reports.
    """
    curve, bank, patience = trial.curve, snapshot.bank, policy.divergence_reports
    if not has_diverged(curve, bank, patience):
        return False
    if len(curve) and not 0 < curve.gaps.max(initial=0) < patience:  # longer ones are a rhythm, which is borne as such
        last = float(curve.steps[-1])
        standing = _rank(snapshot, trial, last, bank.at(last, best=snapshot.goal.judged == "best"))
        if standing.held_by(policy.guard, 0) is None:
            return True
    return has_diverged(curve, bank, 2 * patience)


def _rank(snapshot: Snapshot, trial: Trial, step: float, seen: Floats) -> Rank:
    """A trial's rank at `step`, beside the losses of finished trials there, `seen`, and all others."""
    beside, ended = snapshot.concurrent_losses(step, trial.uid), snapshot.bank.rank_among_ended(step, trial.curve)
    return Rank.of(loss_at(trial.curve, snapshot.goal, step), seen, beside, ended)


def leads(trial: Trial, step: float, incumbent: Incumbent, goal: Goal) -> bool:
    """True when a trial judged by its best value has passed the incumbent already."""
    return goal.judged == "best" and passes(loss_at(trial.curve, goal, step), incumbent, goal)


def passes(loss: float, incumbent: Incumbent, goal: Goal) -> bool:
    """True when a judged loss is better than the incumbent's."""
    return loss < goal.sign * incumbent.value


def target_of(policy: Policy, snapshot: Snapshot) -> float:
    """The loss that must be undercut to beat the incumbent: its own, less epsilon; NaN without an incumbent.

    At the metric's bound nothing can be better: a hair more than its own, so that to tie it counts. Nor is anything
    beyond a bound that is given: a margin ends there, and to reach the bound counts.
    """
    if snapshot.incumbent is None:
        return math.nan
    if snapshot.bank.at_bound:
        return math.nextafter(snapshot.goal.sign * snapshot.incumbent.value, math.inf)
    target = snapshot.goal.sign * snapshot.incumbent.value - epsilon_of(snapshot.robust_range, policy.epsilon)
    return max(target, math.nextafter(snapshot.bank.least, math.inf))


def held_decision(snapshot: Snapshot, event: Event, hold: GateHold) -> Decision:
    """A hold as a decision: the trial goes on."""
    return Decision(
        snapshot.study,
        event.trial.uid,
        event.step,
        Verdict.CONTINUE,
        hold.reason,
        hold.detail,
        standing=hold.standing,
        incumbent=hold.incumbent,
        horizon=snapshot.horizon,
    )
