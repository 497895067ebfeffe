"""What a study's stops came to, read from the records of its trials: the same lines for every framework."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from lcsearch.goal import Goal
from lcsearch.session.explain import disobeyed, n_ignored
from lcsearch.session.session import PROPOSING
from lcsearch.stopping.audit import Audits
from lcsearch.stopping.calibration import Calibration
from lcsearch.stopping.decision import percent, risk_told
from lcsearch.stopping.gates import THAWED, target_of
from lcsearch.stopping.judge import independent_risk_now, risk_now
from lcsearch.stopping.notices import AXIS, Notice
from lcsearch.stopping.policy import Policy
from lcsearch.stopping.risk import UNREADABLE
from lcsearch.study import Snapshot, Status, Trial, steps_trained, trained_lengths, uid_sort_key


@dataclass(frozen=True)
class Stop:
    """One stopped trial.

    Attributes:
        trial: its number in Optuna, its trial id in Ray Tune.
        step: where it was stopped.
        p: P(beat) then; None for a divergence.
        reason: one line.
        p_now: P(it would have beaten the present incumbent), by its stored forecast; NaN without an incumbent.
    """

    trial: int | str
    step: float
    p: float | None
    reason: str
    p_now: float = math.nan


@dataclass(frozen=True)
class StudyReport:
    """A study's stops.

    Attributes:
        risk: a bound of P(some stopped trial would have beaten the present incumbent): the sum of the stops' `p_now`,
            at most 1, which holds however trials hang together; None without an incumbent. Stops for divergence are
            not in it: no forecast was made.
        stops: in order of trials.
        failed_open: looks and configurations of this process where something failed and the trial went on, or began.
        disobeyed: looks of this process that came to a stop after which the trial reported on.
        ignored: trials that reported on after such a look, whichever process made it.
        faults: what failed -> at how many of them, most frequent first; a forecast that came too late has its own name.
        spaced: looks of this process that were held because looks are spaced (`look_growth`).
        complete: trials that ran to the end.
        failed: trials that failed.
        paused: trials that wait for a slot to go on.
        cut: trials that ended where they were paused, cut by an allocator or for want of budget: stopped, too, and not
            among `stops`.
        spent: steps that all trials have trained, by their reports; what reported NaN was trained, too; what a failed
            attempt trained counts once where another goes on from there. NaN, as `saved` is, where steps are no axis.
        saved: an estimate of the steps that those in `stops` and those in `cut` had left: each counted to the mean end
            of the COMPLETE trials that went further. Where trials end by themselves, it is too high when bad ones end
            sooner than those that were left to run, and too low when they would have gone on for longer.
        notices: what finished trials say about how the study was set up.
        stopped_elsewhere: trials that something else stopped: another pruner beside this one, or the objective.
        abandoned: trials that stand as running and that nobody trains, as far as can be told.
        audits: stops that were not carried out, and what they prove; those trials are among `complete`.
        calibration: how P(beat) fared in the study, by its decision log; its state stands beside the risk.
        never_begun: trials that a searcher has proposed and that an allocator has ended before their first report.
        unreadable: trials whose stop was ours and whose record was damaged since: they are in no risk, nor in `saved`.
        thawed: trials that go on, or went on, with one that was stopped, see
            :func:`lcsearch.schedulers.optuna.finish`; that one is in no count, and its steps are theirs.
        independent: what `risk` bounds, were trials independent: 1 - prod(1 - `p_now`).
        certificate: what that of the weights says of such sweeps, see :func:`lcsearch.weights.certificate.quoted`.
    """

    risk: float | None
    stops: tuple[Stop, ...]
    failed_open: int
    spaced: int = 0
    complete: int = 0
    spent: float = 0
    saved: float = 0
    notices: tuple[str, ...] = ()
    stopped_elsewhere: int = 0
    abandoned: int = 0
    faults: tuple[tuple[str, int], ...] = ()
    disobeyed: int = 0
    ignored: int = 0
    failed: int = 0
    paused: int = 0
    cut: int = 0
    never_begun: int = 0
    independent: float | None = None
    certificate: str = ""
    calibration: Calibration = field(default_factory=Calibration)
    thawed: int = 0
    unreadable: int = 0
    audits: Audits = field(default_factory=Audits)

    @property
    def diverged(self) -> int:
        """How many stops were for divergence: they are in no risk."""
        return sum(stop.p is None for stop in self.stops)

    @property
    def unproposed(self) -> int:
        """How many configurations were left to the sampler in this process, for proposing one failed."""
        return dict(self.faults).get(PROPOSING, 0)

    def __str__(self) -> str:
        """A few lines for people."""
        risk, stops = "not known yet", any(stop.p is not None for stop in self.stops)
        if self.risk is not None:
            risk = risk_told(self.risk, self.independent, self.calibration.state, stops=stops)
        of_looks = [f"{fault} {n}" for fault, n in self.faults if fault != PROPOSING]
        what, looks, own = ", ".join(of_looks), self.failed_open - self.unproposed, self.unproposed
        failed = f"{looks} look{'s' * (looks != 1)} failed open (the trial went on{': ' * bool(what)}{what})"
        left = f", {own} configuration{'s' * (own != 1)} left to the sampler, for {PROPOSING} failed" if own else ""
        ended = f"{len(self.stops) + self.cut + self.unreadable} stopped"
        ended += f" ({self.cut} of them ended while paused)" if self.cut else ""
        thawed = f" ({self.thawed} thawed)" if self.thawed else ""
        others = f", {self.stopped_elsewhere} stopped by others" if self.stopped_elsewhere else ""
        others += f", {self.failed} failed" if self.failed else ""
        others += f", {self.paused} paused" if self.paused else ""
        others += f", {self.never_begun} never begun" if self.never_begun else ""
        steps = "not known, for they are no axis"
        if not math.isnan(total := self.spent + self.saved):
            share = f" ({percent(self.saved / total)} of {_whole(total)}), {COUNTED}" if self.saved else ""
            steps = f"{_whole(self.spent)} spent, {about(self.saved, _whole(self.saved))} saved{share}"
        return "\n".join(
            [
                *(f"! {text}" for text in self.notices),
                f"trials: {self.complete} complete{thawed}, {ended}{others}",
                f"steps: {steps}",
                f"risk that some stop lost the winner: {risk}{without_risk(self.diverged, self.cut, self.unreadable)}",
                *([self.certificate] if self.certificate else []),
                *self.audits.lines,
                f"in this process: {failed}, {self.spaced} held between looks (look_growth){left}",
                *disobeyed(self.disobeyed, self.ignored),
                *([f"running, but abandoned: {self.abandoned} (why_not says which)"] if self.abandoned else []),
            ]
        )


COUNTED = "counted to where complete trials ended"
"""How steps saved are estimated, see :attr:`StudyReport.saved`."""


def about(saved: float, shown: str) -> str:
    """What is saved, as it is shown: an estimate, unless it is nothing.

    >>> about(90.0, "1 min 30 s"), about(0, "0 s")
    ('about 1 min 30 s', '0 s')
    """
    return f"about {shown}" if saved else shown


def without_risk(diverged: int, cut: int = 0, unreadable: int = 0) -> str:
    """What a risk says nothing of; empty without stops for divergence and trials that ended where they were paused (an
    allocator cut them, or nothing was left for them).

    >>> without_risk(2)
    '; 2 stops for divergence are not in it: no risk is known for them'
    >>> without_risk(0, 12)
    '; 12 trials that ended while paused are not in it: no risk is known for them'
    """
    said = []
    if diverged:
        said.append(f"{diverged} stop{'s' * (diverged != 1)} for divergence")
    if cut:
        said.append(f"{cut} trial{'s' * (cut != 1)} that ended while paused")
    if unreadable:
        said.append(f"{unreadable} stop{'s' * (unreadable != 1)} whose record cannot be read")
    if not said:
        return ""
    are, them = ("is", "it") if diverged + cut + unreadable == 1 else ("are", "them")
    return f"; {' and '.join(said)} {are} not in it: no risk is known for {them}"


def _whole(steps: float) -> str:
    """Steps as people read them; only few of an axis that is no count (seconds) keep a fraction."""
    return f"{steps:.0f}" if steps >= 100 or steps == round(steps) else f"{steps:.3g}"


def report_of(
    policy: Policy,
    snapshot: Snapshot,
    reasons: Mapping[str, str],
    faults: Sequence[tuple[str, int]],
    spaced: int = 0,
    *,
    notices: Sequence[Notice],
    calibration: Calibration,
    audits: Audits,
    unheard: str = "",
    n_disobeyed: int = 0,
    failed: int | None = None,
    certificate: str = "",
    apart: float = 0.0,
    name: Callable[[str], int | str] = str,
) -> StudyReport:
    """From a snapshot; `reasons` are one-line reasons by uid, `faults`, `notices`, `calibration`, `audits` and
    `certificate` as the members `tally`, `notices`, `calibration`, `audits` and `certificate` of
    :class:`lcsearch.session.Session` have them, `unheard` says why no report could be used, so that no steps are known,
    `failed` is how many trials failed, where the snapshot is without those that others go on with, `apart` are steps of
    trials, and of dead attempts at them, that are not in the snapshot (others were begun anew in their place), `name`
    is what a framework calls the trial of a uid."""
    stops, target = [], target_of(policy, snapshot)
    saved, others, cut, never_begun, unreadable = 0.0, 0, 0, 0, 0
    complete = (t for t in snapshot.bank if t.status is Status.COMPLETE and t.curve.n_reports)
    lengths = trained_lengths(snapshot.goal, ((_steps(t), _trained(t, snapshot.goal)) for t in complete))
    for trial in sorted(snapshot.bank, key=lambda trial: uid_sort_key(trial.uid)):
        record = trial.stop_records.get("stop")
        if trial.status is not Status.STOPPED:
            continue
        if record is not None:
            reason = reasons.get(trial.uid, record.reason)
            stops.append(Stop(name(trial.uid), record.step, record.p, reason, record.p_lost(target)))
        elif UNREADABLE in trial.stop_records:
            unreadable += 1
            continue
        elif "cut" not in trial.stop_records:
            others += 1
            continue
        elif not trial.curve.n_reports:
            never_begun += 1
            continue
        else:
            cut += 1
        saved += lengths.left(_trained(trial, snapshot.goal))
    everyone = (*snapshot.bank, *snapshot.live, *snapshot.abandoned)
    spent = apart + float(sum(_trained(trial, snapshot.goal) for trial in everyone))
    if any(notice.key == AXIS for notice in notices):
        spent = saved = math.nan
    return StudyReport(
        risk_now(policy, snapshot),
        tuple(stops),
        sum(n for _, n in faults),
        spaced,
        complete=snapshot.bank.n_complete,
        spent=spent,
        saved=saved,
        notices=(*([unheard] if unheard else []), *(notice.text for notice in notices)),
        stopped_elsewhere=others,
        abandoned=len(snapshot.abandoned),
        faults=tuple(faults),
        disobeyed=n_disobeyed,
        ignored=n_ignored(snapshot),
        failed=sum(trial.status is Status.FAILED for trial in snapshot.bank) if failed is None else failed,
        cut=cut,
        never_begun=never_begun,
        certificate=certificate,
        calibration=calibration,
        audits=audits,
        paused=sum(trial.status is Status.PAUSED for trial in snapshot.live),
        independent=independent_risk_now(policy, snapshot),
        unreadable=unreadable,
        thawed=sum(THAWED in trial.stop_records and trial.status is not Status.FAILED for trial in everyone),
    )


def _steps(trial: Trial) -> list[float]:
    """Of all its reports, those that were no value, too."""
    found: list[float] = trial.curve.reports()[0].tolist()
    return found


def _trained(trial: Trial, goal: Goal) -> float:
    return steps_trained(_steps(trial), goal.horizon, complete=trial.status is Status.COMPLETE)
