"""Why was this one stopped, and why does nothing stop: the same words for every framework."""

from __future__ import annotations

import math
from dataclasses import replace

from lcsearch.decide.decision import Decision
from lcsearch.decide.risk import Mark
from lcsearch.decide.verdict import Verdict
from lcsearch.engine.ask import Event
from lcsearch.engine.notices import notices
from lcsearch.session import Session
from lcsearch.study import Snapshot, Status, Trial


def explain(session: Session, trial: Trial, snapshot: Snapshot | None) -> str:
    """Why a trial was stopped, or why it was not, in a few lines.

    Args:
        session: whose looks are told.
        trial: the trial as it stands.
        snapshot: its study as it stands; None when it is not known.

    Returns:
        For a stopped trial the stop as it was decided, from its mark; for any other one its latest look in this
        process; for a live one that was not looked at here, what a look at its last step comes to now.
    """
    stopped = trial.status is Status.STOPPED
    mark = trial.marks.get("stop")
    if stopped and isinstance(mark, Mark):
        return mark.text
    if snapshot is not None:
        latest = session.latest.get((snapshot.study, trial.uid))
        # What ended it is not what was looked at last when the objective stopped itself after a look that went on.
        if latest is not None and (not stopped or latest.verdict is Verdict.STOP):
            return latest.text
    if stopped:
        return f"trial {trial.uid} was stopped, but not by lcsearch: it carries no mark of a decision"
    if trial.status.finished:
        # A look at it now would compare it with itself and with trials that came later.
        state = "ran to its end" if trial.status is Status.COMPLETE else "failed"
        return f"trial {trial.uid} {state}; no look stopped it. Its looks stand in the decision log, if one was kept"
    if snapshot is None:
        return f"trial {trial.uid} is still running; pass its study to see which gate holds"
    return hindsight(session, trial, snapshot).text


def hindsight(session: Session, trial: Trial, snapshot: Snapshot) -> Decision:
    """What a look at a live trial's last step comes to now; leaves no trace in counters and logs."""
    step = trial.curve.last_step
    aside = Session(replace(session.policy, look_growth=1), session.forecasters)
    return aside.check(snapshot, Event(trial, step if math.isfinite(step) else -1)).decision


def silent(snapshot: Snapshot, call: str) -> str:
    """How many of the trials that ran to their end reported no value, in one line; "" when all reported.

    Args:
        snapshot: the study as it stands.
        call: how a value is reported.
    """
    complete = [trial for trial in snapshot.bank if trial.status is Status.COMPLETE]
    n, total = sum(not trial.curve.n_reports for trial in complete), len(complete)
    trials = f"{n} of {total} trial{'s' * (total != 1)}"
    return f"{trials} that ran to their end reported no value: call {call} as they train" if n else ""


def tell_few_reports(session: Session, given: str, condition: str, end: float) -> None:
    """Say, once, that trials end before a stop could come.

    Args:
        session: whose policy says how many reports a stop needs.
        given: the argument that says where trials end, as it was given.
        condition: under which so many reports come, with a comma behind it.
        end: where trials end, when each report is one step.
    """
    most, needed = math.ceil(end) - 1, session.policy.min_observations
    if most < needed:
        text = (
            f"{given}: {condition}{most} reports come before the end and a stop needs {needed}, so only a trial that "
        )
        text += "diverges can be stopped. Report more often (say, within a fold or an epoch), on an axis that counts "
        session._tell("few reports", f"{text}these reports")


def why_not(session: Session, snapshot: Snapshot, call: str, unheard: str = "") -> str:
    """Why nothing stops (or not more): for every live trial what holds it, then the tally of the session.

    Args:
        session: whose looks are told.
        snapshot: the study as it stands.
        call: how a value is reported.
        unheard: why no report at all could be used, when that is so.
    """
    lines = [line] if (line := unheard or silent(snapshot, call)) else []
    lines += [notice.text for notice in notices(snapshot)]
    first = len(lines)
    for trial in snapshot.live:
        decision = hindsight(session, trial, snapshot)
        lines.append(f"trial {trial.uid}: {decision.reason.name}: {decision.line}")
    counted, failed = session.tally()
    total = sum(n for _, n in counted)
    lines.append(f"{total} looks in this process" + (":" if total else "; nothing was looked at yet"))
    lines += [f"  {n:6d} {reason.name}: {reason.advice}" for reason, n in counted]
    if not total and len(lines) == first + 1:
        known, needed = snapshot.bank.n_complete, session.policy.n_startup_trials
        lines.append(f"  {known} trials are COMPLETE, n_startup_trials is {needed}")
    lines += [f"  {n:6d} failed open: {what}" for what, n in failed]
    return "\n".join(lines)
