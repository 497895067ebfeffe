"""Why was this one stopped, and why does nothing stop: the same words for every framework."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any

import numpy as np

from lcsearch.errors import is_finite_number
from lcsearch.session.decision_log import read_log
from lcsearch.session.session import Session
from lcsearch.session.waiting import waiting
from lcsearch.stopping.decision import CERTIFIED, Decision, exactly, percent
from lcsearch.stopping.gates import THAWED, Event, interval_of, spacing_gate
from lcsearch.stopping.risk import UNREADABLE, StopRecord
from lcsearch.stopping.verdict import Reason, Verdict
from lcsearch.study import FinishedTrials, Snapshot, Status, Trial, uid_sort_key


def explain(
    session: Session,
    trial: Trial,
    snapshot: Snapshot | None,
    before: Collection[str] = (),
    asked: Callable[[], str] | None = None,
    then: Sequence[str] = (),
) -> str:
    """Why a trial was stopped, or why it was not, in a few lines.

    Args:
        session: whose looks are told.
        trial: the trial as it stands.
        snapshot: its study as it stands; None when it is not known.
        before: uids of the trials that had ended when this one ended.
        asked: see :func:`lcsearch.session.waiting.waiting`.
        then: what became of it after its stop, a line each.

    Returns:
        For a stopped trial the stop as it was decided, from its record, what P(beat) is called by now (without its
        study, as far as this stop tells), and the certificate of the weights, where it speaks of such sweeps. For
        another one that has ended, how near it came to a stop: by the decision log, by the looks of this process, or by
        looking at it again. For a live one its latest look in this process, or what a look at its last step comes to
        now. For a paused one what it waits for. Then, where its configuration was chosen by forecasts or left to the
        sampler, why.
    """
    begun = trial.stop_records.get("begun")
    why = [f"it was begun as {begun}"] if isinstance(begun, str) else []
    thawed = trial.stop_records.get(THAWED)
    why += [f"it is {thawed}; nothing stops it again"] if isinstance(thawed, str) else []
    return "\n".join([_became(session, trial, snapshot, before, asked), *then, *why])


def _became(
    session: Session,
    trial: Trial,
    snapshot: Snapshot | None,
    before: Collection[str],
    asked: Callable[[], str] | None,
) -> str:
    """What became of it, and why."""
    record = trial.stop_records.get("stop")
    if trial.status is Status.STOPPED and isinstance(record, StopRecord):
        certificate = session.certificate_of([trial]) if record.p is not None and session.certified else ""
        alone = CERTIFIED if certificate else ""  # nothing is known of other stops in its study, nor of its log
        text = _stop_told(record, alone if snapshot is None else session.calibration(snapshot).state)
        return "\n".join([text, *([certificate] if certificate else [])])
    if trial.status.finished:
        return "\n".join([_ended(trial), *_nearest(session, trial, snapshot, before)])
    if snapshot is None:
        return (
            f"trial {trial.uid} is still running; pass its study to see which gate holds: explain({trial.uid}, study)"
        )
    if not trial.curve.n_reports:
        return f"trial {trial.uid}: {SILENT}"
    if trial.status is Status.PAUSED:
        first = f"trial {trial.uid} is paused at step {trial.curve.last_step:g}"
        return "\n".join([first, *waiting(session, trial, snapshot, asked)])
    latest = session.latest.get((snapshot.key, trial.uid))
    text = (latest if latest is not None else hindsight(session.aside(), trial, snapshot)).text
    if any(other.uid == trial.uid for other in snapshot.abandoned):
        return (
            f"{text}\nit is running, but abandoned as far as can be told: it counts in no ranks until it reports again"
        )
    return text


def _stop_told(record: StopRecord, state: str) -> str:
    """A stop as it was decided, and what is known by now of P(beat)."""
    made = record.decision
    if not state or made is None or not record.text.endswith(made.text):
        return record.text
    return record.text.removesuffix(made.text) + made.told(state)


SILENT = "it has not reported yet"


def _ended(trial: Trial) -> str:
    """How a trial ended that no stop of ours ended."""
    record, ignored = trial.stop_records.get("stop"), trial.stop_records.get("ignored")
    if isinstance(ignored, StopRecord) and trial.status is not Status.FAILED:
        how = "ran to its end" if trial.status is Status.COMPLETE else "was stopped later, by something else"
        why = "it was not obeyed" if trial.curve.last_step > ignored.step else "it came too late to be carried out"
        return f"trial {trial.uid} {how}, although a look at step {ignored.step:g} came to a stop: {why}"
    audited = trial.stop_records.get("audit")
    if isinstance(audited, StopRecord) and trial.status is Status.COMPLETE:
        why = "it was audited, to tell whether such stops are right"
        return f"trial {trial.uid} ran to its end, although a look at step {audited.step:g} came to a stop: {why}"
    if trial.status is Status.STOPPED and "cut" in trial.stop_records:
        why = trial.stop_records["cut"]
        return f"trial {trial.uid} was cut at step {trial.curve.last_step:g}, where it was paused: {why}"
    if trial.status is Status.STOPPED and UNREADABLE in trial.stop_records:
        return f"trial {trial.uid} was stopped by lcsearch, but the record of why cannot be read any more"
    if trial.status is Status.STOPPED:
        return f"trial {trial.uid} was stopped, but not by lcsearch: it carries no record of a decision"
    if trial.status is Status.FAILED and isinstance(record, StopRecord):
        return f"trial {trial.uid} failed at step {record.step:g}, where a look had come to a stop"
    return f"trial {trial.uid} {'failed' if trial.status is Status.FAILED else 'ran to its end'}; no look stopped it"


def _nearest(session: Session, trial: Trial, snapshot: Snapshot | None, before: Collection[str]) -> list[str]:
    """The look at which a trial that has ended was nearest to a stop, or what held all of them."""
    folder = session.log_folder
    with contextlib.suppress(OSError):
        study = None if snapshot is None else snapshot.study
        if folder is not None and (looks := judged_looks(read_log(folder), trial, study)):
            return nearest(looks, f"in {folder}")
    if not len(trial.curve):
        return [f"it reported no {'finite ' * (trial.curve.n_reports > 0)}value to look at"]
    if snapshot is None:
        stand = "its looks stand in the decision log, if one was kept"
        return [f"{stand}; pass its study to look at it again: explain({trial.uid}, study)"]
    known, n = session.lowest.get((snapshot.key, trial.uid), (None, 0))
    if known is not None and (looks := judged_looks([known.to_record()], trial)):
        return nearest(looks, "in this process", n)
    latest = session.latest.get((snapshot.key, trial.uid))
    lines = [f"its latest look in this process: {latest.reason.name}: {latest.line}"] if latest is not None else []
    again = list(_again(session, trial, snapshot, before))
    if looks := judged_looks((decision.to_record() for decision in again), trial):
        ignored = "ignored" in trial.stop_records or THAWED in trial.stop_records  # made, or held for what is told
        stops = [] if ignored or all(decision.verdict is not Verdict.STOP for decision in again) else [UNMADE]
        return [*lines, *nearest(looks, AGAIN), *stops]
    held = Counter(decision.reason for decision in again).most_common()
    return [
        *_first_ones(session, trial, snapshot, before),
        *lines,
        f"its looks {AGAIN}, are all held:",
        *(f"  {n:6d} {reason.name}: {reason.advice}" for reason, n in held),
    ]


AGAIN = "made again just now, beside the trials that had ended when it did"
"""Where looks stand that are made again; other trials that ran then are not known."""

UNMADE = (
    "  looks made again come to a stop, and none did then: fewer trials may have ended by then (n_startup_trials), "
    "others that ran beside it counted, a pruner around this one did not ask it, a forecaster failed, or steps went "
    "back"
)
"""Why looks that are made again may contradict a trial that ran to its end."""


def _first_ones(session: Session, trial: Trial, snapshot: Snapshot, before: Collection[str]) -> list[str]:
    """That a COMPLETE trial is one of those that had to end before anything could be stopped."""
    n = session.policy.n_startup_trials
    sooner = sum(one.status is Status.COMPLETE and one.uid in before for one in snapshot.bank)
    if trial.status is not Status.COMPLETE or sooner >= n:
        return []
    stopped = "it was compared with running ones" if session.policy.rivals else "nothing is stopped"
    return [f"it is one of the first {n} that ran to their end (n_startup_trials): until then {stopped}"]


def judged_looks(records: Iterable[Mapping[str, Any]], trial: Trial, study: str | None = None) -> list[dict[str, Any]]:
    """Of a decision log's records, or decisions as records, those of a trial's looks that came to a forecast.

    A record names the curve that it judged, so that none is taken for one of another trial of this number: of a study
    that had the same name, or of another attempt.
    """
    found = []
    for record in records:
        now, seen = record.get("now"), record.get("seen")
        if str(record.get("trial")) != trial.uid or study not in (None, record.get("study")):
            continue
        if not isinstance(now, Mapping) or not all(is_finite_number(now.get(name)) for name in _SHOWN):
            continue
        if not seen or seen == trial.curve.cut(now["step"]).digest:
            found.append(dict(record))
    return found


_SHOWN = ("step", "p", "threshold")


def nearest(looks: Sequence[Mapping[str, Any]], where: str, n: int = 0, step: str = "step") -> list[str]:
    """The look with the lowest P(beat), in two lines.

    Args:
        looks: at least one, see :func:`judged_looks`.
        where: they were made, or stand.
        n: how many there were, when not all are given.
        step: what a step is called.
    """
    look = min(looks, key=lambda record: float(record["now"]["p"]))
    at, p, threshold = (float(look["now"][name]) for name in _SHOWN)
    line = f"nearest to a stop: P(beat) {percent(p, threshold)} at {step} {at:g}, threshold {exactly(threshold)}"
    reason = Reason.__members__.get(str(look.get("reason")))
    return [
        f"{line}, the lowest of {max(n, len(looks))} {where}",
        *([f"  {reason.advice}"] if reason is not None else []),
    ]


def _again(
    session: Session, trial: Trial, snapshot: Snapshot, before: Collection[str], most: int = 40
) -> Iterator[Decision]:
    """What looks at a finished trial come to, at up to `most` of the steps at which one was due; leaves no trace in
    counters and logs.

    It is compared with those that had ended when it did: beside what has ended since, many a winner would be stopped.
    """
    bank = FinishedTrials(snapshot.goal).extend(other for other in snapshot.bank if other.uid in before)
    told, aside = trial.curve.steps.tolist(), session.aside()
    first = told  # of each interval
    if session.policy.interval_steps > 1:
        first = sorted({interval_of(step, session.policy): step for step in reversed(told)}.values())
    due = [step for step in first if spacing_gate(session.policy, told, step) is None]
    for i in np.linspace(0, len(due) - 1, min(most, len(due))).astype(int).tolist():
        step = due[i]
        cut = replace(trial, curve=trial.curve.cut(step), status=Status.RUNNING, stop_records={})
        beside = replace(snapshot, bank=bank, live=(cut,), token="again")
        yield aside.check(beside, Event(cut, step)).decision


def hindsight(aside: Session, trial: Trial, snapshot: Snapshot) -> Decision:
    """What a look at a live trial's last step comes to now, by a session that leaves no trace."""
    step = trial.curve.last_step
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


def startup_waits(n_complete: int, n_startup_trials: int, n_min_trials: int = 1) -> str:
    """Why a pruner beside an allocator stops nothing; "" once it may.

    Args:
        n_complete: trials that ran to their end.
        n_startup_trials, n_min_trials: the pruner's; the larger one is named, for it holds longer.
    """
    needed, knob = max((n_startup_trials, "n_startup_trials"), (n_min_trials, "n_min_trials"), key=itemgetter(0))
    if n_complete >= needed:
        return ""
    few = f"{n_complete} of the {needed} that {knob} waits for {'is' if n_complete == 1 else 'are'} complete"
    return (
        f"an allocator pauses trials here, so that few run to their end: {few}, and before that the pruner stops only "
        f"what diverges. Leave it to the allocator, or lower {knob}"
    )


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
        session.warn_once("few reports", f"{text}these reports")


def n_ignored(snapshot: Snapshot) -> int:
    """How many trials reported on after a look that had come to a stop, by what is stored with them."""
    every = (
        (trial, trial.stop_records.get("ignored")) for trial in (*snapshot.bank, *snapshot.live, *snapshot.abandoned)
    )
    return sum(isinstance(record, StopRecord) and trial.curve.last_step > record.step for trial, record in every)


def disobeyed(looks: int, trials: int) -> list[str]:
    """That stops were not carried out, and what to do, in at most one line.

    Args:
        looks: of this process that came to one.
        trials: of the study, also of those that other processes looked at.
    """
    if looks:
        seen = f"{looks} look{'s' * (looks != 1)} came to a stop and the trial went on"
    else:
        seen = f"{trials} trial{'s' * (trials != 1)} reported on after a look that had come to a stop"
    what = "where should_prune() is True, raise optuna.TrialPruned; a pruner around this one may hold stops"
    return [f"{seen}: {what}"] if looks or trials else []


_THERE = "those of another one are counted there, and stand in"
ELSEWHERE = f"{_THERE} the decision log that it keeps (decision_log=FOLDER)"
"""Where looks of other processes are known, where this one keeps no log."""


def _elsewhere(session: Session, snapshot: Snapshot, here: Counter[Reason]) -> list[str]:
    """What storage and decision log hold of looks that this process did not make."""
    records = [trial.stop_records.get("stop") for trial in snapshot.bank if trial.status is Status.STOPPED]
    stops = Counter(record.reason for record in records if isinstance(record, StopRecord))
    lines = []
    if (n := stops.total()) > sum(here[reason] for reason in Reason if reason.name in stops):
        said = ", ".join(f"{m} {name}" for name, m in stops.most_common())
        lines.append(f"{n} stop{'s' * (n != 1)} of whichever process stand with the study's trials: {said}")
    folder = session.log_folder
    if folder is None or here:
        return lines
    with contextlib.suppress(OSError):
        looks: dict[tuple[object, object], dict[str, Any]] = {}
        for one in read_log(folder):
            if one.get("study") == snapshot.study:  # a stop that was taken back has a second line, without the look
                known = looks.setdefault((one.get("trial"), one.get("step")), {})
                known |= {name: value for name, value in one.items() if value is not None}
        told = Counter(
            str(one.get("reason")) for one in looks.values() if one.get("now") or one.get("reason") == "DIVERGED"
        )
        if not told:
            return lines
        lines.append(f"{told.total()} looks in {folder}, of those that came to a forecast or a divergence:")
        lines += [f"  {n:6d} {name}: {Reason[name].advice}" for name, n in told.most_common() if name in _REASONS]
    return lines


_REASONS = Reason.__members__

_NAMED = 10
"""Abandoned trials that are named."""


def _unasked(snapshot: Snapshot, ask: str) -> list[str]:
    """That no look is known at trials which reported, and how one is asked for, in at most one line."""
    everyone = (*snapshot.bank, *snapshot.live, *snapshot.abandoned)
    n = sum(trial.curve.n_reports > 0 for trial in everyone)
    trials = f"{n} trial{'s' * (n != 1)} reported values and no look at any of them is known"
    return [f"{trials}: if they ran in this process, nobody asked whether they should stop. {ask}"] if n else []


def why_not(
    session: Session, snapshot: Snapshot, call: str, unheard: str = "", ask: str = "", whose: Hashable = None
) -> str:
    """Why nothing stops (or not more): for every live trial what holds it, then the tally of the session.

    Args:
        session: whose looks are told.
        snapshot: the study as it stands.
        call: how a value is reported.
        unheard: why no report at all could be used, when that is so.
        ask: what an objective does to have looks made; "": that is not for it to do.
        whose: the study in :meth:`Session.tally`.
    """
    counted, failed = session.tally(whose)
    total, elsewhere = sum(n for _, n in counted), _elsewhere(session, snapshot, Counter(dict(counted)))
    lines = [line] if (line := unheard or silent(snapshot, call)) else []
    everyone, policy = (*snapshot.bank, *snapshot.live), session.policy
    allocated = any(t.status is Status.PAUSED or "cut" in t.stop_records for t in everyone)  # so somebody did ask
    lines += _unasked(snapshot, ask) if ask and not (total or elsewhere or allocated) else []
    lines += [notice.text for notice in session.notices(snapshot)]
    if allocated and not policy.rivals:
        waits = startup_waits(snapshot.bank.n_complete, policy.n_startup_trials, policy.n_min_trials)
        lines += [waits] if waits else []
    first, aside = len(lines), session.aside()
    for trial in snapshot.live:
        decision = hindsight(aside, trial, snapshot)
        held = f"{decision.reason.name}: {decision.line}" if trial.curve.n_reports else SILENT
        lines.append(f"trial {trial.uid}: {held}")
    if snapshot.abandoned:
        uids = sorted((trial.uid for trial in snapshot.abandoned), key=uid_sort_key)
        some = ", ".join(uids[:_NAMED]) + (f" and {len(uids) - _NAMED} more" if len(uids) > _NAMED else "")
        lines.append(f"{len(uids)} running, but abandoned as far as can be told, and left out of ranks: {some}")
    alone = not total and len(lines) == first
    where = f"{_THERE} {folder}" if (folder := session.log_folder) is not None else ELSEWHERE
    lines.append(f"{total} looks in this process" + (":" if total else f"; {where}"))
    lines += [f"  {n:6d} {reason.name}: {reason.advice}" for reason, n in counted]
    if alone:
        known, needed = snapshot.bank.n_complete, session.policy.n_startup_trials
        lines.append(f"  {known} trials are COMPLETE, n_startup_trials is {needed}")
    lines += [f"  {n:6d} failed open: {what}" for what, n in failed]
    lines += elsewhere
    return "\n".join([*lines, *disobeyed(session.n_disobeyed(whose), n_ignored(snapshot))])
