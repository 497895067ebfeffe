"""CurvePruner: translates a look into a snapshot and a verdict into a bool. It decides nothing itself."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal

from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, TrialState

from lcsearch.errors import InvalidValue, is_finite_number
from lcsearch.forecast.contract import Forecaster
from lcsearch.goal import Bounds, Judged, checked_bounds
from lcsearch.schedulers.optuna._order import Order
from lcsearch.schedulers.optuna._record import REASON, is_audited, overtaken, steps_apart, thawed_of, without_dead
from lcsearch.schedulers.optuna._retries import Retries
from lcsearch.schedulers.optuna._snapshot import Reader, as_trial, ended_before, snapshot_of
from lcsearch.schedulers.optuna._storage import counted_as, stale, study_key, withdraw_stop, write_audit, write_stop
from lcsearch.session import Session, make_session
from lcsearch.session import explain as words
from lcsearch.session.session import Present
from lcsearch.session.study_report import StudyReport, report_of
from lcsearch.stopping.axis import no_order
from lcsearch.stopping.gates import Event
from lcsearch.stopping.judge import Judgement, limited, revoked, stops_at_risk
from lcsearch.stopping.policy import Policy
from lcsearch.stopping.verdict import Reason, Verdict
from lcsearch.study import Snapshot, Trial, uid_sort_key

if TYPE_CHECKING:
    from optuna import Study

_CALL = "trial.report(value, step)"
_ASK = "Ask trial.should_prune() after each report, and raise optuna.TrialPruned where it is True"

THRESHOLD_FROM = "lcsearch:threshold_from"
"""The study's user attribute that says to what audits of others had brought its threshold when it began."""


class CurvePruner(BasePruner):
    """Stops a trial when its learning curve leaves it next to no chance of beating the incumbent.

    At every look the curve so far is extrapolated to `max_steps`, and P(beat) is the probability that the trial's
    judged value passes the best one reached so far by more than 1 % of the study's robust range. The trial is stopped
    when P(beat) is below `threshold` at a look, by the curve up to there and by the curve up to the report before
    (with fewer than 8 observations: below a fifth of it), unless it ranks among the best at its own step. A trial
    whose metric stays non-finite at three reports where finished ones had values is stopped too (six before its first
    value, after a gap that it came back from, or where it ranked among the best).

    Nothing that goes wrong in here reaches the study: the trial goes on, the failure is counted and logged once.

    Args:
        max_steps: the step at which trials end, on the axis of `trial.report(value, step)`; `range(50)` is 50. "auto"
            takes the largest last step of the COMPLETE trials.
        threshold: P(beat) below which a trial is stopped, at this report and at the one before, in [0, 1].
        guard: a trial among this best share of all trials at its own step is never stopped, in [0, 1].
        risk: largest allowed probability that some stopped trial would have beaten the incumbent, by the sum of their
            P(beat), which is a bound however trials hang together; None: no limit, the risk is worked out and shown
            all the same.
        n_startup_trials: nothing is stopped before this many trials are COMPLETE, as in Optuna.
        rivals: until then, stop a trial that is unlikely to beat so many running ones, those that stand best at its
            step, by what all are forecast to reach: for more workers than `n_startup_trials`. 0: nothing is stopped
            until then; 1 will do.
        n_warmup_steps: no stop is earlier than this step, as in Optuna. Two reports and a few observations (see
            lcsearch.stopping.policy.Policy) are needed too, so with 0 the first stop comes after some reports.
        interval_steps: looks are this many steps apart, counted from the warm-up, as in Optuna; the report before is
            then the first of the interval before.
        n_min_trials: COMPLETE trials needed that say something about the step. Optuna asks for a report at that very
            step; here a report before and one after it will do.
        judged: "best" judges a trial by its best value, "final" by its last one.
        bounds: (low, high), the least and the largest value that the metric can have; None, here or for an end: not
            known. No trial is asked to pass one: where the margin would end beyond it, to reach it counts.
        forecasters: forecasters or their names ("network", "parametric", "rank-gap"); a stop needs all of them to
            agree. None: the pretrained network, or the other two where its weights or torch are missing.
        decision_log: a folder; every look that reached a forecaster is appended there as one JSON line.
        look_growth: looks are made as a trial's finite reports grow by this factor, >= 1; 1: at every report. So the
            forecasts of a trial are few however long it is, and which they are follows from its curve alone.
        host: where the network computes: "local", in this process; the URL of `lcsearch serve`; "ray", an actor of the
            Ray cluster; "auto": what the environment variable LCSEARCH_HOST says, else "local". A host that does not
            answer stops no trial; after three times in a row forecasts are made in this process until it is back.
        max_overhead: of earlier versions. math.inf is `look_growth=1`; a share is held by the spacing of looks.
        opinions: of earlier versions, the name that `forecasters` had; deprecated.
        audit: a stop by P(beat) is not carried out with this probability, in [0, 1), and its trial runs to its end, so
            that wrong stops can be counted; which trials these are follows from the study, see docs/trust.md.
        max_wrong_stop: rate of wrong stops that you allow, in (0, 1): audits that find more, of this study or in the
            file LCSEARCH_AUDIT, make the threshold stricter; None: they move nothing. Needs `audit`.

    Raises:
        ValueError: an argument is outside its range.

    >>> import optuna
    >>> optuna.logging.set_verbosity(optuna.logging.ERROR)
    >>> def objective(trial):
    ...     limit = trial.suggest_float("limit", 0, 1)
    ...     for step in range(30):
    ...         trial.report(limit + 0.8**step, step)
    ...         if trial.should_prune():
    ...             raise optuna.TrialPruned
    ...     return limit + 0.8**29
    >>> sampler = optuna.samplers.RandomSampler(seed=0)
    >>> study = optuna.create_study(sampler=sampler, pruner=CurvePruner(max_steps=30))
    >>> study.optimize(objective, n_trials=20)
    >>> sum(t.state.name == "PRUNED" for t in study.trials) > 5
    True
    """

    def __init__(
        self,
        *,
        max_steps: int | Literal["auto"] = "auto",
        threshold: float = 0.05,
        guard: float = 0.1,
        risk: float | None = None,
        n_startup_trials: int = 2,
        rivals: int = 0,
        n_warmup_steps: int = 0,
        interval_steps: int = 1,
        n_min_trials: int = 1,
        judged: Judged = "best",
        bounds: Bounds | None = None,
        forecasters: Sequence[Forecaster | str] | Forecaster | str | None = None,
        decision_log: str | os.PathLike[str] | None = None,
        look_growth: float = 1.1,
        host: str = "auto",
        max_overhead: float | None = None,
        opinions: Sequence[Forecaster | str] | Forecaster | str | None = None,
        audit: float = 0.0,
        max_wrong_stop: float | None = None,
    ) -> None:
        if max_steps != "auto" and not (is_finite_number(max_steps) and max_steps > 0):
            raise InvalidValue("'auto' or a number > 0", max_steps, "max_steps")
        if judged not in ("best", "final"):
            raise InvalidValue("'best' or 'final'", judged, "judged")
        self._max_steps: int | Literal["auto"] = max_steps
        policy = Policy(
            threshold=threshold,
            guard=guard,
            risk=risk,
            n_startup_trials=n_startup_trials,
            rivals=rivals,
            n_warmup_steps=n_warmup_steps,
            interval_steps=interval_steps,
            look_growth=look_growth,
            n_min_trials=n_min_trials,
            audit=audit,
            max_wrong_stop=max_wrong_stop,
        )
        self._session = make_session(policy, forecasters, decision_log, max_overhead, opinions, host)
        if max_steps != "auto":
            words.tell_few_reports(self._session, f"max_steps={max_steps:g}", "", max_steps)
        self._reader = Reader(max_steps, judged, checked_bounds(bounds, "bounds"))
        self._study: weakref.ref[Study] | None = None  # the latest one
        self._studies: weakref.WeakSet[Study] = weakref.WeakSet()
        self._recording = os.getpid(), threading.Lock()
        self._retries = Retries()
        self._order = Order()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_study": None, "_studies": None, "_recording": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        fresh = {"_studies": weakref.WeakSet(), "_recording": (os.getpid(), threading.Lock())}
        self.__dict__.update({"_order": Order(), **state}, **fresh)

    def prepare(self) -> None:
        """Load the forecaster now (torch, weights: seconds), not at the first look. Never raises: a look fails open."""
        self._session.prepare()

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """True when the trial should stop; called by `trial.should_prune()`. Never raises."""
        try:
            return self._prune(study, trial)
        except Exception as error:  # the promise: nothing of ours ends a trial by accident
            self._session.failed("pruner", error)
            return False

    def _prune(self, study: Study, trial: FrozenTrial) -> bool:
        if several(study):
            self._session.warn_once("objectives", several(study))
            return False
        if self._study is None or self._study() is not study:
            self._study = weakref.ref(study)
            self._studies = self._studies | weakref.WeakSet([study])  # a new set: another thread may walk the old one
            self._agree(study)
        trial = without_dead(trial)
        step = trial.last_step
        whose = counted_as(study)
        values = trial.intermediate_values if step is None else self._retries.own(study, trial)
        if not values:  # none of this attempt's own
            step = None
        elif (span := self._order.broken((study_key(study), trial.number), values)) is not None:
            self._session.tell_axis(self._now(study), no_order(str(trial.number), *span))
        if trial.user_attrs.get(REASON) and overtaken(trial):
            self._session.count_disobeyed(whose)
            self._withdraw(study, trial)
        read = cache(lambda: self._reader.read(study))

        def present() -> Present:
            return Present(read().token, read().bank, lambda: snapshot_of(study, read()))

        if self._session.gate(values, step, present, whose) is not None or step is None:
            return False
        own = as_trial(trial)
        if overtaken(trial):  # what another process recorded
            self._withdraw(study, trial)
        snapshot = snapshot_of(study, read(), own)
        stopped = self._session.check(snapshot, Event(own, step), partial(self._commit, study, trial, own), whose)
        if stopped.decision.reason is Reason.AUDITED and stopped.record is not None and not is_audited(trial):
            write_audit(study, trial, stopped.record)
        return stopped.decision.verdict is Verdict.STOP

    def _agree(self, study: Study) -> None:
        """All processes of a study begin with the threshold to which the audits of others had brought it by its first
        look: a file that grows meanwhile, also by the study's own audits, changes nothing for it.
        """
        policy = self._session.policy
        if policy.max_wrong_stop is None:
            return
        if not is_finite_number(study.user_attrs.get(THRESHOLD_FROM)):
            if policy.threshold_from is None:
                return
            study.set_user_attr(THRESHOLD_FROM, policy.threshold_from)
        self._session.policy = replace(policy, threshold_from=float(study.user_attrs[THRESHOLD_FROM]))

    def _commit(self, study: Study, trial: FrozenTrial, own: Trial, stop: Judgement) -> Judgement:
        """Record a stop; under a risk limit only where the risk stays below it, whatever was recorded meanwhile.

        In this process weighing and recording are one step. Other processes are known by what they have recorded
        before and after: of stops that pass the limit together all are withdrawn, and the one of the lowest trial
        number is tried once more.
        """
        policy = self._session.policy
        if policy.risk is None:
            self._record(study, trial, stop)
            return stop
        if self._recording[0] != os.getpid():  # a fork may have left it locked for ever
            self._recording = os.getpid(), threading.Lock()
        with self._recording[1]:
            weighed = stop
            for _ in range(2):
                before = self._now(study, own)
                weighed = limited(policy, before, stop)
                if weighed.decision.verdict is not Verdict.STOP:
                    break
                self._record(study, trial, weighed)
                after = self._now(study, own)
                if limited(policy, after, stop).decision.verdict is Verdict.STOP:
                    return weighed
                self._withdraw(study, trial, made=False)
                weighed = revoked(weighed, Reason.RISK_LIMIT)
                if any(
                    uid_sort_key(uid) < uid_sort_key(own.uid) for uid in stops_at_risk(after) - stops_at_risk(before)
                ):
                    break
            return weighed

    def _record(self, study: Study, trial: FrozenTrial, stop: Judgement) -> None:
        if stop.record is None:
            return
        try:
            write_stop(study, trial, stop.record, stop.decision.line)
        except Exception:  # half of it may be there, and the trial goes on
            self._withdraw(study, trial, made=False)
            raise

    def _withdraw(self, study: Study, trial: FrozenTrial, made: bool = True) -> None:
        try:
            withdraw_stop(study, trial, made)
        except Exception as error:  # whoever reads it finds that the trial has reported on
            self._session.failed("withdrawing a stop", error)

    def _now(self, study: Study, own: Trial | None = None, silent: Collection[int] = ()) -> Snapshot:
        return snapshot_of(study, self._reader.read(study), own, silent)

    def _shown(self, study: Study) -> Snapshot:
        """For people: trials whose heartbeat is missed are left out too, which no verdict may depend on."""
        return self._now(study, silent=stale(study))

    def _find(self, trial: int | FrozenTrial, study: Study | None) -> tuple[FrozenTrial, Study | None]:
        latest = self._study() if self._study is not None else None
        if isinstance(trial, FrozenTrial):  # of whichever study of this process: a number says nothing of another's
            known = (*([latest] if latest is not None else []), *self._studies)
            return trial, study or next((one for one in known if _holds(one, trial)), None)
        study = study or latest
        if study is None:
            call = f"call explain({trial if isinstance(trial, int) else 'number'}, study)"
            raise InvalidValue("a FrozenTrial, or a number and its study", trial, "explain(trial)", call)
        for found in study.get_trials(deepcopy=False):
            if found.number == trial:
                return found, study
        raise InvalidValue("the number of a trial of the study", trial, "explain(trial)")

    def explain(self, trial: int | FrozenTrial, study: Study | None = None) -> str:
        """Why a trial was stopped, or why it was not, in a few lines.

        Args:
            trial: its number, or a FrozenTrial of `study.trials`.
            study: where it belongs; needed once, for a trial that this pruner has not looked at.

        Returns:
            For a stopped trial the stop as it was decided, also in another process and long after. For another one that
            has ended, the look at which it was nearest to a stop: by the decision log, else by the looks of this
            process, else by looking at it again. For a running one its latest look in this process, or what a look at
            its last step comes to on the study as it stands. For a paused one what it waits for, by the latest
            allocation: of this process, or by the decision log.

        Raises:
            InvalidValue: no such trial.
        """
        frozen, study = self._find(trial, study)
        if study is not None and several(study):
            return several(study)
        if study is None:
            return words.explain(self._session, as_trial(frozen), None)
        then = _thawed(frozen, study.get_trials(deepcopy=False))
        return words.explain(
            self._session, as_trial(frozen), self._shown(study), ended_before(study, frozen), then=then
        )

    def why_not(self, study: Study) -> str:
        """Why nothing stops (or not more): for every running trial the gate or rule that holds it, then the tally.

        Works in any process; the tally counts the looks of this one. One that has made none says which stops the
        study's storage holds, and what the decision log does.
        """
        return several(study) or words.why_not(
            self._session, self._shown(study), _CALL, ask=_ASK, whose=counted_as(study)
        )

    def report(self, study: Study) -> StudyReport:
        """The stops so far with their reasons, and the risk now, from the records in the study's storage.

        Printed, it says in a few lines what was spent and saved, how risky that was, and what looks came to nothing.
        """
        whose = counted_as(study)
        held, faults = self._session.tally(whose)
        spaced = dict(held).get(Reason.SPACED, 0)
        trials = study.get_trials(deepcopy=False)
        reasons = {str(t.number): str(t.user_attrs[REASON]) for t in trials if t.user_attrs.get(REASON)}
        if several(study):
            n = sum(t.state == TrialState.COMPLETE for t in trials)
            failed = sum(n for _, n in faults)
            return StudyReport(None, (), failed, spaced, complete=n, notices=(several(study),), faults=tuple(faults))
        shown = self._shown(study)
        notices = self._session.notices(shown)
        return report_of(
            self._session.policy,
            shown,
            reasons,
            faults,
            spaced,
            notices=notices,
            calibration=self._session.calibration(shown),
            audits=self._session.audits(shown),
            unheard=words.silent(shown, _CALL),
            n_disobeyed=self._session.n_disobeyed(whose),
            failed=sum(t.state == TrialState.FAIL for t in trials),
            certificate=self._session.certificate_of(shown.bank),
            apart=steps_apart(trials, shown.goal.horizon),
            name=int,
        )

    @property
    def session(self) -> Session:
        """Who judges: its counts of looks and failures, and the latest decision of each trial. To be read."""
        return self._session

    @property
    def max_steps(self) -> int | Literal["auto"]:
        """Where trials end, see the argument."""
        return self._max_steps

    @property
    def judged(self) -> Judged:
        """How trials are judged, see the argument."""
        return self._reader.judged

    def reader(self, max_steps: int) -> Reader:
        """Reads studies as this pruner does, for whoever shares its session, and judges trials at `max_steps`."""
        return self._reader.until(max_steps)

    @property
    def bounds(self) -> Bounds | None:
        """Between which values the metric lies, see the argument."""
        return self._reader.bounds

    def snapshot(self, study: Study) -> Snapshot:
        """The study as a look at this moment would see it: its goal, the trials that have ended and those that run."""
        return self._now(study)


def _holds(study: Study, trial: FrozenTrial) -> bool:
    """Is it one of the study's, by its number, its start and its parameters?"""
    try:
        trials = study.get_trials(deepcopy=False)
    except Exception:  # it is deleted, or its storage away: the trial's own records tell what they do
        return False
    which = trial.number, trial.datetime_start, trial.params
    return any((one.number, one.datetime_start, one.params) == which for one in trials)


def _thawed(frozen: FrozenTrial, trials: Sequence[FrozenTrial]) -> list[str]:
    """What became of a stopped trial that was thawed, in at most one line for each time."""
    again = [t for t in trials if (thawed := thawed_of(t)) is not None and thawed.stopped == frozen.number]
    return [f"it was thawed as trial {t.number}, which is {_FATES[t.state]}" for t in again]


_FATES = {
    TrialState.WAITING: "to be begun",
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "ended by something else than lcsearch, so this stop stands",
    TrialState.FAIL: "failed, so this stop stands",
}


def several(study: Study) -> str:
    """Why a study of several objectives has no looks; "" for one of a single objective."""
    n = len(study.directions)
    if n == 1:
        return ""
    return (
        f"this study has {n} objectives and CurvePruner judges one value, so nothing is looked at and nothing stopped: "
        "Optuna takes no reports in such a study"
    )
