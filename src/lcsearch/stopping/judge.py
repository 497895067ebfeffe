"""judge: from opinions to a decision. Pure; an absent opinion means CONTINUE."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from lcsearch.errors import InvalidValue
from lcsearch.forecast.contract import Absent, Forecasts, Opinion, Query
from lcsearch.stopping.decision import Decision, Look
from lcsearch.stopping.gates import Ask, Hold, diverged, shield, target_of
from lcsearch.stopping.policy import Policy
from lcsearch.stopping.risk import Mark, risk_of
from lcsearch.stopping.rules import threshold_for
from lcsearch.stopping.verdict import Reason, Verdict
from lcsearch.study import Snapshot, Status, Trial

Opinions = Mapping[str, Sequence[Opinion]]
"""Forecaster name -> its opinions, one for each of the ask's queries."""


class Judgement(NamedTuple):
    """A decision and, when it is a stop, the mark to store with the trial."""

    decision: Decision
    mark: Mark | None = None


def stored_marks(snapshot: Snapshot, but: str = "") -> list[Mark]:
    """The marks of trials that were stopped, or are about to end so, but for the trial `but`.

    A trial that ran to its end although it was marked lost nothing.
    """
    everyone = (*snapshot.bank, *snapshot.live, *snapshot.abandoned)
    stopped = (t for t in everyone if t.status is Status.STOPPED or not t.status.finished)
    marks = (t.marks.get("stop") for t in stopped if t.uid != but)
    return [mark for mark in marks if isinstance(mark, Mark)]


def marked(snapshot: Snapshot) -> set[str]:
    """The uids of trials whose marks take their part in the risk."""
    return {t.uid for t in (*snapshot.bank, *snapshot.live, *snapshot.abandoned) if "stop" in t.marks}


def risk_now(policy: Policy, snapshot: Snapshot) -> float | None:
    """P(some stopped trial would have beaten the present incumbent); None without an incumbent."""
    if snapshot.incumbent is None:
        return None
    return risk_of(stored_marks(snapshot), target_of(policy, snapshot))


def fallen(policy: Policy, snapshot: Snapshot, trial: Trial, stop: Judgement) -> Reason | None:
    """Why a stop that was judged on an earlier snapshot must not be carried out on this one; None: it stands.

    The verdict of a look is not worked out anew. But what protects a trial is a matter of the moment: where it stands
    now, and what other stops have taken of the risk limit meanwhile.

    Args:
        policy: the knobs.
        snapshot: the study as it stands now.
        trial: the trial as it stands now; it may have reported on.
        stop: what the look came to.
    """
    step = trial.curve.last_step
    if step >= max(snapshot.goal.horizon, snapshot.horizon):
        return Reason.HORIZON
    if stop.decision.reason is Reason.DIVERGED:
        return None if diverged(policy, snapshot, trial) else Reason.OVERTAKEN
    held = shield(policy, snapshot, trial, step)
    if isinstance(held, Hold):
        return held.reason
    return None if limited(policy, snapshot, stop).decision.verdict is Verdict.STOP else Reason.RISK_LIMIT


def limited(policy: Policy, snapshot: Snapshot, stop: Judgement) -> Judgement:
    """A stop with the risk as it is on the snapshot, which may be a later one; no stop where it could pass the limit.

    The margin of the target moves with the study's spread. The limit holds for any margin to come: with none at all a
    target is easiest, and no incumbent is ever worse than the present one.
    """
    decision, mark = stop
    if mark is None or mark.p is None:
        return stop
    marks, target, incumbent = [*stored_marks(snapshot, decision.trial), mark], target_of(policy, snapshot), math.nan
    if snapshot.incumbent is not None:
        incumbent = math.nextafter(snapshot.goal.sign * snapshot.incumbent.value, math.inf)
    if policy.risk is not None and (most := risk_of(marks, incumbent)) > policy.risk:
        return revoked(Judgement(replace(decision, risk=most)), Reason.RISK_LIMIT)
    decision = replace(decision, risk=risk_of(marks, target))
    kept = replace(mark, text=decision.text, decision=decision).read_back()  # a long text is cut short
    return revoked(stop, Reason.UNRECORDED) if kept is None else Judgement(decision, kept)


def revoked(stop: Judgement, reason: Reason) -> Judgement:
    """A stop that is not carried out: the trial goes on, for this reason."""
    return Judgement(replace(stop.decision, verdict=Verdict.CONTINUE, reason=reason))


def _look(policy: Policy, query: Query, opinions: Opinions, target: float) -> tuple[Look, Forecasts | None]:
    """What one look came to, and the forecast most in the trial's favour (all must agree on a stop).

    Args:
        policy: the knobs.
        query: any of the look's.
        opinions: each forecaster's, one for each step at which the trial may end: their mixture is what it says.
        target: the loss that must be undercut.
    """
    n = len(query.trial.curve)
    threshold = threshold_for(policy.threshold, n, few=policy.few, factor=policy.few_factor)
    heard: list[tuple[str, float | str]] = []
    best: Forecasts | None = None
    highest, absent = -math.inf, False
    for name, answers in opinions.items():
        some = [answer for answer in answers if isinstance(answer, Forecasts)]
        if len(some) < len(answers):
            heard.append((name, next(answer.name for answer in answers if isinstance(answer, Absent))))
            absent = True
            continue
        opinion = Forecasts.mixture(some)
        p = float(opinion.p_beat(opinion.sign * target)[0])
        if not -1e-9 <= p <= 1.0 + 1e-9:  # NaN, or no probability at all
            heard.append((name, Absent.NONFINITE.name))
            absent = True
            continue
        heard.append((name, p))
        if p > highest:
            highest, best = p, opinion
    interval = None
    if best is not None:
        low, mid, high = (float(v) for v in best.quantile([[0.05, 0.5, 0.95]])[0])
        interval = (low, mid, high)
    p_all = None if absent or best is None else highest
    return Look(query.trial.curve.last_step, n, threshold, p_all, interval, tuple(heard)), best


def judge(policy: Policy, snapshot: Snapshot, ask: Ask, opinions: Opinions) -> Judgement:
    """Decide one look.

    STOP needs P(beat) below the threshold at this report and at the one before, from every forecaster; an absent
    opinion at either means CONTINUE, and so does a stop whose mark would not read back from a storage.

    Raises:
        InvalidValue: a forecaster did not answer every query, or none was heard.
    """
    trial, goal, step = ask.event.trial, snapshot.goal, ask.event.step
    if ask.diverged:
        n, worst = trial.curve.n_trailing_events, trial.curve.event_values[-1]
        detail = f"the last {n} reports were not finite (latest {worst})"
        decision = Decision(
            snapshot.study, trial.uid, step, Verdict.STOP, Reason.DIVERGED, detail, seen=trial.curve.digest
        )
        mark = Mark(step, Reason.DIVERGED.name, None, decision.text, decision=decision).read_back()
        if mark is None:
            decision = replace(decision, verdict=Verdict.CONTINUE, reason=Reason.UNRECORDED)
        return Judgement(decision, mark)
    if not opinions:
        raise InvalidValue("at least one forecaster's opinions", opinions, "judge(opinions=)")
    for name, answers in opinions.items():
        if len(answers) != len(ask.queries):
            raise InvalidValue(f"{len(ask.queries)} opinions", len(answers), f"judge(opinions={name!r})")
    n = len(ask.queries) // 2
    (now, forecast), (before, _) = (
        _look(policy, ask.queries[i], {name: answers[i : i + n] for name, answers in opinions.items()}, ask.target)
        for i in (0, n)
    )
    bound, ends = snapshot.bank.at_bound > 0, tuple(query.step for query in ask.queries[:n])
    verdict, reason = Verdict.CONTINUE, Reason.BOUND if bound else Reason.BELOW
    mark = None
    if now.p is None:
        reason = Reason.ABSENT
    elif not now.p < now.threshold:
        reason = Reason.ABOVE
    elif before.p is None:
        reason = Reason.ABSENT
    elif not before.p < before.threshold:
        reason = Reason.ABOVE_BEFORE
    elif (mark := Mark.of(step, reason.name, now.p, "", forecast, ask.target).read_back()) is None:
        reason = Reason.UNRECORDED
    else:
        verdict = Verdict.STOP
    decision = Decision(
        snapshot.study,
        trial.uid,
        step,
        verdict,
        reason,
        now=now,
        before=before,
        incumbent=ask.incumbent,
        target=goal.sign * ask.target,
        horizon=ask.queries[n - 1].step,
        standing=ask.standing,
        bound=bound or None,
        ends=ends if len(set(ends)) > 1 else (),
        seen=trial.curve.digest,
    )
    return limited(policy, snapshot, Judgement(decision, mark))
