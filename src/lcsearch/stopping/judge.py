"""judge: from forecasts to a decision. Pure; an absent forecast means CONTINUE."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from lcsearch.errors import InvalidValue
from lcsearch.forecast.contract import Absent, Answer, Answers, Forecasts, Query
from lcsearch.stopping import audit
from lcsearch.stopping.decision import Decision, Look
from lcsearch.stopping.gates import Ask, GateHold, diverged, protection_gates, target_of
from lcsearch.stopping.policy import Policy
from lcsearch.stopping.risk import StopRecord, independent_risk_of, risk_of
from lcsearch.stopping.rules import telling, threshold_for
from lcsearch.stopping.verdict import Reason, Verdict
from lcsearch.study import Snapshot, Status, Trial


class Judgement(NamedTuple):
    """A decision and, when it is a stop or one that is audited, the record to store with the trial."""

    decision: Decision
    record: StopRecord | None = None


def stored_records(snapshot: Snapshot, but: str = "") -> list[StopRecord]:
    """The records of trials that were stopped, or are about to end so, but for the trial `but`.

    A trial that ran to its end although it was marked lost nothing.
    """
    everyone = (*snapshot.bank, *snapshot.live, *snapshot.abandoned)
    stopped = (t for t in everyone if t.status is Status.STOPPED or not t.status.finished)
    records = (t.stop_records.get("stop") for t in stopped if t.uid != but)
    return [record for record in records if isinstance(record, StopRecord)]


def stops_at_risk(snapshot: Snapshot) -> set[str]:
    """The uids of trials whose records take their part in the risk."""
    return {t.uid for t in (*snapshot.bank, *snapshot.live, *snapshot.abandoned) if "stop" in t.stop_records}


def risk_now(policy: Policy, snapshot: Snapshot) -> float | None:
    """A bound of P(some stopped trial would have beaten the present incumbent), see
    :func:`~lcsearch.stopping.risk.risk_of`; None without an incumbent.
    """
    if snapshot.incumbent is None:
        return None
    return risk_of(stored_records(snapshot), target_of(policy, snapshot))


def independent_risk_now(policy: Policy, snapshot: Snapshot) -> float | None:
    """The same, were stopped trials independent, see :func:`~lcsearch.stopping.risk.independent_risk_of`."""
    if snapshot.incumbent is None:
        return None
    return independent_risk_of(stored_records(snapshot), target_of(policy, snapshot))


def stop_invalidated_by(policy: Policy, snapshot: Snapshot, trial: Trial, stop: Judgement) -> Reason | None:
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
        return None if diverged(policy, snapshot, trial) else Reason.SUPERSEDED
    held = protection_gates(policy, snapshot, trial, step, young=stop.decision.by_rivals)
    if isinstance(held, GateHold):
        return held.reason
    return None if limited(policy, snapshot, stop).decision.verdict is Verdict.STOP else Reason.RISK_LIMIT


def limited(policy: Policy, snapshot: Snapshot, stop: Judgement) -> Judgement:
    """A stop with the risk as it is on the snapshot, which may be a later one; no stop where it could pass the limit.

    The margin of the target moves with the study's spread. The limit holds for any margin to come: with none at all a
    target is easiest, and no incumbent is ever worse than the present one.
    """
    decision, record = stop
    if record is None or record.p is None:
        return stop
    records = [*stored_records(snapshot, decision.trial), record]
    target, incumbent = target_of(policy, snapshot), math.nan
    if snapshot.incumbent is not None:
        incumbent = math.nextafter(snapshot.goal.sign * snapshot.incumbent.value, math.inf)
    if policy.risk is not None and (most := risk_of(records, incumbent)) > policy.risk:
        return revoked(Judgement(replace(decision, risk=most)), Reason.RISK_LIMIT)
    decision = replace(decision, risk=risk_of(records, target), independent=independent_risk_of(records, target))
    kept = replace(record, text=decision.text, decision=decision).read_back()  # a long text is cut short
    return revoked(stop, Reason.UNRECORDED) if kept is None else Judgement(decision, kept)


def settled(policy: Policy, snapshot: Snapshot, trial: Trial, stop: Judgement) -> Judgement:
    """A look's outcome once the other stops are weighed, see :func:`limited`, and some stops are left to audits.

    One without a target is not: what the trial comes to could not say whether the stop would have been wrong.
    """
    made = limited(policy, snapshot, stop)
    decision, record = made
    if not policy.audit or decision.verdict is not Verdict.STOP or record is None or record.target is None:
        return made
    decision = replace(decision, propensity=float(policy.audit))
    if audit.released(policy.audit, snapshot.study, trial):
        decision = replace(decision, verdict=Verdict.CONTINUE, reason=Reason.AUDITED, risk=None)
    kept = replace(record, reason=decision.reason.name, text=decision.text, decision=decision).read_back()
    return revoked(made, Reason.UNRECORDED) if kept is None else Judgement(decision, kept)


def with_threshold(policy: Policy, snapshot: Snapshot) -> Policy:
    """The knobs as audits have left them by now, those of earlier studies and those of this one that have ended."""
    start = policy.threshold if policy.threshold_from is None else min(policy.threshold_from, policy.threshold)
    if policy.max_wrong_stop is None:
        return policy
    wrong = [one.wrong for one in audit.audits_of(snapshot).ended]
    now = audit.tracked(start, policy.max_wrong_stop, wrong, most=policy.threshold)
    return replace(policy, threshold=now, max_wrong_stop=None, threshold_from=None)


def revoked(stop: Judgement, reason: Reason) -> Judgement:
    """A stop that is not carried out: the trial goes on, for this reason."""
    return Judgement(replace(stop.decision, verdict=Verdict.CONTINUE, reason=reason))


_DRAWS = np.linspace(0.0, 1.0, 401)[1::2][None]
"""Levels at which a forecast stands for itself in :func:`beats`."""


def beats(one: Forecasts, other: Forecasts) -> float:
    """P(one trial's judged value is better than another's or as good), of two single-row forecasts, independent of each
    other: the mean over `one`'s quantiles of P(`other` is not better).

    The least of these over several others is at least P(better than all of them), however the others hang together.
    """
    return float(np.mean(1.0 - other.p_beat(one.quantile(_DRAWS))))


def _chance(forecast: Forecasts, target: float, rivals: Sequence[Answer]) -> float:
    """P(beat): no more than of beating the incumbent, where there is one, and of beating any one of the rivals; NaN
    without either.
    """
    heard = [beats(forecast, rival) for rival in rivals if isinstance(rival, Forecasts)]
    if not math.isnan(target):
        heard.append(float(forecast.p_beat(forecast.sign * target)[0]))
    return min(heard, default=math.nan)


def _look(
    policy: Policy, snapshot: Snapshot, query: Query, forecasts: Answers, target: float, rivals: Answers
) -> tuple[Look, Forecasts | None]:
    """What one look came to, and the forecast most in the trial's favour (all must agree on a stop).

    Args:
        policy: the knobs.
        snapshot: the study.
        query: any of the look's.
        forecasts: each forecaster's, one for each step at which the trial may end: their mixture is what it says.
        target: the loss that must be undercut; NaN without an incumbent.
        rivals: each forecaster's answers about the running trials that stand for the incumbent; none where one stands.
    """
    n = telling(query.trial.curve, snapshot.bank, snapshot.goal.sign)
    threshold = threshold_for(policy.threshold, n, few=policy.few, factor=policy.few_factor)
    heard: list[tuple[str, float | str]] = []
    best: Forecasts | None = None
    highest, absent = -math.inf, False
    for name, answers in forecasts.items():
        some = [answer for answer in answers if isinstance(answer, Forecasts)]
        if len(some) < len(answers):
            heard.append((name, next(answer.name for answer in answers if isinstance(answer, Absent))))
            absent = True
            continue
        forecast = Forecasts.mixture(some)
        p = _chance(forecast, target, rivals[name])
        if not -1e-9 <= p <= 1.0 + 1e-9:  # NaN, or no probability at all
            heard.append((name, Absent.NONFINITE.name))
            absent = True
            continue
        heard.append((name, p))
        if p > highest:
            highest, best = p, forecast
    interval = None
    if best is not None:
        low, mid, high = (float(v) for v in best.quantile([[0.05, 0.5, 0.95]])[0])
        interval = (low, mid, high)
    p_all = None if absent or best is None else highest
    return Look(query.trial.curve.last_step, len(query.trial.curve), threshold, p_all, interval, tuple(heard)), best


def judge(policy: Policy, snapshot: Snapshot, ask: Ask, forecasts: Answers) -> Judgement:
    """Decide one look.

    STOP needs P(beat) below the threshold at this report and at the one before, from every forecaster; an absent
    forecast at either means CONTINUE, and so does a stop whose record would not read back from a storage.

    Raises:
        InvalidValue: a forecaster did not answer every query, or none was heard.
    """
    trial, goal, step = ask.event.trial, snapshot.goal, ask.event.step
    policy = with_threshold(policy, snapshot)
    if ask.diverged:
        n, worst = trial.curve.n_trailing_events, trial.curve.event_values[-1]
        detail = f"the last {n} reports were not finite (latest {worst})"
        decision = Decision(
            snapshot.study, trial.uid, step, Verdict.STOP, Reason.DIVERGED, detail, seen=trial.curve.digest
        )
        record = StopRecord(step, Reason.DIVERGED.name, None, decision.text, decision=decision).read_back()
        if record is None:
            decision = replace(decision, verdict=Verdict.CONTINUE, reason=Reason.UNRECORDED)
        return Judgement(decision, record)
    if not forecasts:
        raise InvalidValue("what at least one forecaster said", forecasts, "judge(forecasts=)")
    for name, answers in forecasts.items():
        if len(answers) != len(ask.queries):
            raise InvalidValue(f"{len(ask.queries)} forecasts", len(answers), f"judge(forecasts={name!r})")
    n = ask.n_ends
    rivals = {name: answers[2 * n :] for name, answers in forecasts.items()}
    (now, forecast), (before, _) = (
        _look(
            policy,
            snapshot,
            ask.queries[i],
            {name: said[i : i + n] for name, said in forecasts.items()},
            ask.target,
            rivals,
        )
        for i in (0, n)
    )
    bound, ends = snapshot.bank.at_bound > 0, tuple(query.step for query in ask.queries[:n])
    verdict, reason = Verdict.CONTINUE, Reason.BOUND if bound else Reason.RIVALS if ask.rivals else Reason.BELOW
    # What it was compared with is no incumbent, so its record has no target at which P(beat) is known.
    target = math.nan if ask.rivals else ask.target
    record = None
    if now.p is None:
        reason = Reason.ABSENT
    elif not now.p < now.threshold:
        reason = Reason.ABOVE
    elif before.p is None:
        reason = Reason.ABSENT
    elif not before.p < before.threshold:
        reason = Reason.ABOVE_BEFORE
    elif (record := StopRecord.of(step, reason.name, now.p, "", forecast, target).read_back()) is None:
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
        target=None if math.isnan(ask.target) else goal.sign * ask.target,
        horizon=ask.queries[n - 1].step,
        standing=ask.standing,
        bound=bound or None,
        ends=ends if len(set(ends)) > 1 else (),
        seen=trial.curve.digest,
        rivals=ask.rivals,
    )
    return settled(policy, snapshot, trial, Judgement(decision, record))
