"""CurveScheduler: translates results into looks and verdicts into Tune's words. It decides nothing itself."""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from ray.tune.experiment import Trial as TuneTrial
from ray.tune.result import DEFAULT_METRIC, TIME_TOTAL_S
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.utils import flatten_dict

from lcsearch.allocation.arms import checked_prices
from lcsearch.allocation.contract import Allocator
from lcsearch.allocation.named import allocator as named_allocator
from lcsearch.allocation.resources import ResourceBounds
from lcsearch.errors import InvalidValue, is_finite_number
from lcsearch.forecast.contract import Forecaster
from lcsearch.goal import Bounds, Goal, Judged, checked_bounds
from lcsearch.schedule import Schedule
from lcsearch.schedulers.ray_tune._allocating import Allocating
from lcsearch.schedulers.ray_tune._book import Book
from lcsearch.schedulers.ray_tune._heard import Heard
from lcsearch.session import Session, make_session
from lcsearch.session import explain as words
from lcsearch.session.session import Present
from lcsearch.session.study_report import StudyReport, report_of, without_risk
from lcsearch.stopping.decision import risk_told
from lcsearch.stopping.gates import Event
from lcsearch.stopping.judge import Judgement, independent_risk_now, risk_now, stored_records
from lcsearch.stopping.policy import Policy
from lcsearch.stopping.verdict import Reason, Verdict
from lcsearch.study import Snapshot, Status

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController

SCHEDULE = "lcsearch:schedule"
"""The key of a trial's `config` under which its planned learning rate may stand: Schedule, or its fields."""

_DIRECTIONS: dict[str, Literal["minimize", "maximize"]] = {"min": "minimize", "max": "maximize"}
_GONE = (TuneTrial.TERMINATED, TuneTrial.ERROR)


_hearers: weakref.WeakKeyDictionary[CurveScheduler, weakref.WeakSet[Searcher]] = weakref.WeakKeyDictionary()
"""Beside the schedulers: Tune pickles those."""


class CurveScheduler(FIFOScheduler):
    """Stops a trial when its learning curve leaves it next to no chance of beating the incumbent; else first come,
    first served, or with an `allocator` whom that names.

    The rule is the one of `lcsearch.schedulers.optuna.CurvePruner`, by the same code. Forecasts are made on a
    thread of the driver, and a result whose look is due is answered when its forecast is there, some milliseconds
    later: so a stop does not depend on how busy the machine is. A forecaster that is stuck is waited for once.

    Nothing that goes wrong in here reaches the run: the trial goes on, the failure is counted and logged once.

    Args:
        time_attr: the result key that counts a trial's progress; any number that grows.
        metric: the result key that is judged; here or in `tune.TuneConfig`.
        mode: "min" or "max"; here or in `tune.TuneConfig`.
        max_t: trials are stopped when `time_attr` reaches it, as with ASHA; that is where they are judged.
        grace_period: no stop before `time_attr` reaches it, as with ASHA.
        threshold: P(beat) below which a trial is stopped, at this report and at the one before, in [0, 1].
        guard: a trial among this best share of all trials at its own step is never stopped, in [0, 1].
        risk: largest allowed probability that some stopped trial would have beaten the incumbent, by the sum of their
            P(beat), which is a bound however trials hang together; None: no limit, the risk is worked out and shown
            all the same.
        n_startup_trials: nothing is stopped before this many trials have run to their end.
        rivals: until then, stop a trial that is unlikely to beat so many running ones, those that stand best at its
            step, by what all are forecast to reach: for more trials at once than `n_startup_trials`. 0: nothing is
            stopped until then; 1 will do.
        forecasters: forecasters or their names ("network", "parametric", "rank-gap"); a stop needs all of them to
            agree. None: the pretrained network, or the other two where its weights or torch are missing.
        decision_log: a folder of the driver's machine; every look that reached a forecaster is appended there as one
            JSON line.
        interval_steps: looks are this far apart in `time_attr`, counted from the grace period; the report before is
            then the first of the interval before.
        n_min_trials: trials that ran to their end needed that say something about the step.
        judged: "best" judges a trial by its best value, "final" by its last one.
        bounds: (low, high), the least and the largest value that the metric can have; None, here or for an end: not
            known. No trial is asked to pass one: where the margin would end beyond it, to reach it counts.
        look_growth: looks are made as a trial's finite reports grow by this factor, >= 1; 1: at every report. So the
            forecasts of a trial are few however long it is, and which they are follows from its curve alone.
        allocator: pauses and resumes trials: "asha", or another name of `lcsearch.allocation.named.KINDS`, or an
            `Allocator`. Trials must report with checkpoints: one that does not is never paused. It also says when a
            new trial begins, and which paused ones never go on. None: whatever begins runs to its end or its stop.
        max_paused: at most so many trials wait, >= 1; beyond it the one with the allocator's lowest rank is ended.
            None: any number, each with its checkpoint.
        min_slice: a trial that goes on trains at least so many steps before it is paused again, > 0; None: as the
            allocator has it.
        max_slice: a trial that runs is asked about again after at most so many steps, > 0, and is preempted where the
            allocator has a better one for its slot by then; None: at the end of its turn only.
        checkpoint_cost: what pausing a trial costs, in steps of `time_attr`, >= 0; it stands beside training in the
            allocator's account, in what a move gains per step, and in the receipts.
        resume_cost: what it costs to go on with a paused one, in steps, >= 0.
        resources: CPUs and GPUs of a trial (one bundle), within bounds: a slot is `least`, and slots that the allocator
            names nobody for go to its best trials, up to `most` and to what the largest node holds. A trial grows and
            shrinks while it is paused; `tune.get_context().get_trial_resources()` tells it. None: as Tune has it.
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
    """

    _stops_at_max_t = True
    _bounds: Bounds | None = None  # pickles of earlier versions have none
    _allocating: Allocating | None = None  # nor this
    _begun: Mapping[str, str] = MappingProxyType({})  # why a searcher has chosen a trial's configuration; nor this
    _drawn: frozenset[str] = frozenset()  # names of what Tune has drawn for any trial; nor this
    _supports_buffered_results = False  # a batch of results would reach us after the trial has gone on

    def __init__(
        self,
        time_attr: str = "training_iteration",
        metric: str | None = None,
        mode: str | None = None,
        max_t: float = 100,
        grace_period: float = 1,
        *,
        threshold: float = 0.05,
        guard: float = 0.1,
        risk: float | None = None,
        n_startup_trials: int = 2,
        rivals: int = 0,
        forecasters: Sequence[Forecaster | str] | Forecaster | str | None = None,
        decision_log: str | os.PathLike[str] | None = None,
        interval_steps: int = 1,
        n_min_trials: int = 1,
        judged: Judged = "best",
        bounds: Bounds | None = None,
        look_growth: float = 1.1,
        allocator: Allocator | str | None = None,
        max_paused: int | None = None,
        min_slice: float | None = None,
        max_slice: float | None = None,
        checkpoint_cost: float = 0.0,
        resume_cost: float = 0.0,
        resources: ResourceBounds | None = None,
        host: str = "auto",
        max_overhead: float | None = None,
        opinions: Sequence[Forecaster | str] | Forecaster | str | None = None,
        audit: float = 0.0,
        max_wrong_stop: float | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Ray's is untyped, here and below
        if not (isinstance(time_attr, str) and time_attr):
            raise InvalidValue("the name of a result key", time_attr, "time_attr")
        if not (metric is None or isinstance(metric, str)):
            raise InvalidValue("the name of a result key, or None", metric, "metric")
        if mode is not None and mode not in _DIRECTIONS:
            raise InvalidValue("'min', 'max' or None", mode, "mode")
        if not (is_finite_number(max_t) and max_t > 0):
            raise InvalidValue("a number > 0", max_t, "max_t")
        if not (is_finite_number(grace_period) and 0 <= grace_period <= max_t):
            raise InvalidValue(f"a number in [0, max_t], here [0, {max_t:g}]", grace_period, "grace_period")
        if not (resources is None or isinstance(resources, ResourceBounds)):
            raise InvalidValue("ResourceBounds(least, most) or None", resources, "resources")
        prices = checked_prices(checkpoint_cost, resume_cost, "CurveScheduler")
        got = {"max_paused": max_paused, "min_slice": min_slice, "max_slice": max_slice, "resources": resources}
        got |= {f"{name}_cost": price or None for name, price in prices._asdict().items()}
        if allocator is None and any(value is not None for value in got.values()):
            raise InvalidValue("an allocator beside them", got, "CurveScheduler()", 'as in allocator="asha"')
        if judged not in ("best", "final"):
            raise InvalidValue("'best' or 'final'", judged, "judged")
        self._time_attr, self._metric, self._mode = time_attr, metric, mode
        self._max_t, self._judged, self._bounds = float(max_t), judged, checked_bounds(bounds, "bounds")
        policy = Policy(
            threshold=threshold,
            guard=guard,
            risk=risk,
            n_startup_trials=n_startup_trials,
            rivals=rivals,
            n_warmup_steps=grace_period,
            interval_steps=interval_steps,
            look_growth=look_growth,
            n_min_trials=n_min_trials,
            audit=audit,
            max_wrong_stop=max_wrong_stop,
        )
        self._session = make_session(policy, forecasters, decision_log, max_overhead, opinions, host)
        if (
            time_attr != TIME_TOTAL_S and max_t >= 2
        ):  # seconds, and shares of a whole, are reported as often as one likes
            words.tell_few_reports(self._session, f"max_t={max_t:g}", f"when {time_attr!r} counts by ones, ", max_t)
        self._given = metric, mode
        self._book, self._run_begins, self._heard = Book("tune"), False, Heard()
        self._known_goal: Goal | None = None
        if allocator is not None:
            least = 0.0 if min_slice is None else min_slice
            named = named_allocator(allocator, max_paused=max_paused, min_slice=least, max_slice=max_slice)
            self._allocating = Allocating(named, self._session, self.uid, resources, prices)
            self._allocating.begin(self._book)

    def prepare(self) -> None:
        """Load the forecaster now (torch, weights: seconds), not at the first look. Never raises: a look fails open."""
        self._session.prepare()

    # What Tune asks.

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Take metric and mode from `TuneConfig`; False when they are given twice. Tune calls this once a run."""
        self._run_begins = bool(self._book.entries)
        if self._book.entries:  # another run: what the last one's `TuneConfig` said is over
            self._metric, self._mode = self._given
        if (self._metric and metric) or (self._mode and mode):
            return False
        self._metric, self._mode, self._known_goal = metric or self._metric, mode or self._mode, None
        if self._metric is None and self._mode:
            self._metric = DEFAULT_METRIC
        return True

    def on_trial_add(self, tune_controller: TuneController, trial: TuneTrial) -> None:
        """A trial is new, or comes back after an error or a restore.

        Raises:
            ValueError: neither the scheduler nor `TuneConfig` says what to optimize.
        """
        if not self._metric or self._mode not in _DIRECTIONS:
            raise ValueError(
                f"{type(self).__name__} has been instantiated without a valid `metric` ({self._metric}) or `mode` "
                f"({self._mode}) parameter. Either pass these parameters when instantiating the scheduler, or pass "
                "them as parameters to `tune.TuneConfig()`"
            )
        with self._failing_open("a trial's arrival"):
            uid = self.uid(trial)
            if self._run_begins:
                self._run_begins = False
                if uid not in self._book.entries:
                    self._begin_anew()
            if trial.status in _GONE:  # a restored run tells of its past
                if uid not in self._book.entries:
                    lost = RuntimeError("its curves are gone; give the run a StateCallback to keep them")
                    self._session.failed("restoring a trial that had ended", lost)
                elif not self._book.entries[uid].status.finished:
                    self._end_unseen(uid, trial)
                return
            allocating = self._allocating
            if allocating is None:
                self._enter(uid, trial)
            elif not allocating.was_cut(trial, uid):
                self._enter(uid, trial)
                allocating.arrive(tune_controller, trial, uid)

    def on_trial_result(self, tune_controller: TuneController, trial: TuneTrial, result: Mapping[str, Any]) -> str:
        """Take in a result; STOP when a look at the trial came to that, or its end is reached."""
        with self._failing_open("a result"):
            said = self._on_result(trial, result)
            return said if said == TrialScheduler.STOP else self._turn(tune_controller, trial, result)
        return TrialScheduler.CONTINUE

    def on_trial_complete(self, tune_controller: TuneController, trial: TuneTrial, result: Mapping[str, Any]) -> None:
        """A trial has ended, by itself or by a stop; its last result may be one that nobody has seen yet."""
        with self._failing_open("a trial's end"):
            uid = self._known(trial)
            point = self._point(result)
            if point is not None and not self._book.entries[uid].echoed(*point):
                self._book.report(uid, *point)
            self._end(uid, self._ended_as(uid, result))
            if not self._heard.read and (said := self._nothing_heard(self.snapshot())):
                self._session.warn_once("nothing heard", f"nothing can be stopped: {said}")

    def on_trial_error(self, tune_controller: TuneController, trial: TuneTrial) -> None:
        """A trial has failed; Tune adds it again when it is to be retried."""
        with self._failing_open("a trial's error"):
            self._end(self._known(trial), Status.FAILED)

    def on_trial_remove(self, tune_controller: TuneController, trial: TuneTrial) -> None:
        """A trial was stopped by somebody else before it ran, or while it was paused."""
        with self._failing_open("a trial's removal"):
            self._end(self._known(trial), Status.STOPPED)

    def choose_trial_to_run(self, tune_controller: TuneController) -> TuneTrial | None:
        """The first trial that waits; before that, carry out the stops that have become known since."""
        with self._failing_open("carrying out a stop"):
            self._carry_out(tune_controller)
        if self._allocating is not None:
            with self._failing_open("an allocation"):
                return self._allocating.choose(tune_controller, self._goal)
            return self._allocating.any_paused(tune_controller)
        return super().choose_trial_to_run(tune_controller)

    def end_run(self, trials: Iterable[TuneTrial]) -> None:
        """The run is over: trials that still waited are told to the searcher, as Tune tells of none at its end."""
        with self._failing_open("the end of the run"):
            for uid in [] if self._allocating is None else self._allocating.leave(trials):
                for hears in _hearers.get(self, ()):
                    hears.on_trial_complete(uid)

    def hearer(self, searcher: Searcher) -> None:
        """A searcher that is to hear, at the end of a run, of trials that still waited."""
        _hearers.setdefault(self, weakref.WeakSet()).add(searcher)

    def begun_as(self, trial_id: str, why: str) -> None:
        """Why a searcher has chosen a trial's configuration, for `explain`."""
        self._begun = {**self._begun, trial_id: why}

    def debug_string(self) -> str:
        """One line for Tune's status report."""
        statuses = [entry.status for entry in self._book.entries.values() if not entry.never_begun]
        paused, cut = statuses.count(Status.PAUSED), sum(entry.was_cut for entry in self._book.entries.values())
        looks, failed = self._session.tally()
        text = f"Using CurveScheduler: {statuses.count(Status.STOPPED)} stopped"
        text += f" ({cut} of them ended while paused)" if cut else ""
        text += f", {statuses.count(Status.COMPLETE)} complete, {sum(n for _, n in looks)} looks"
        text += f", {paused} paused" if paused else ""
        if looks:
            text += f" (most: {looks[0][0].name} {looks[0][1]})"
        if failed:
            text += f", {sum(n for _, n in failed)} failed open"
        risk, independent, unknown, state, stops = None, None, "", "", True
        with self._failing_open("the risk in the status line"):
            risk = self.risk_now()
            if risk is not None:
                seen = self.snapshot()
                independent, state = independent_risk_now(self._session.policy, seen), self._session.state_of(seen)
                records = list(stored_records(seen))
                diverged = sum(record.p is None for record in records)
                unknown, stops = without_risk(diverged, cut), diverged < len(records)
        return text if risk is None else f"{text}, risk {risk_told(risk, independent, state, stops=stops)}{unknown}"

    # What people ask.

    def explain(self, trial_id: str) -> str:
        """Why a trial was stopped, or why it was not, in a few lines.

        Args:
            trial_id: as Tune has it; a prefix will do when it is unique.

        Raises:
            InvalidValue: no such trial, or several.
        """
        found = [uid for uid in self._book.entries if uid.startswith(trial_id)]
        if trial_id in found:
            found = [trial_id]
        if len(found) != 1:
            got = f"{len(found)} trials that begin with {trial_id!r}"
            raise InvalidValue("the id of one trial of the run", got, "explain(trial_id)")
        (uid,) = found
        said = None if self._allocating is None else self._allocating.explain(uid)
        if said is not None:
            return said
        trial = self._book.trial(uid)
        if uid in self._begun:
            trial = replace(trial, stop_records={**trial.stop_records, "begun": self._begun[uid]})
        return words.explain(self._session, trial, self.snapshot(), self._book.ended_before(uid))

    def why_not(self) -> str:
        """Why nothing stops (or not more): for every live trial what holds it, then the looks by what came of them.

        First of all a key that no result has (a misspelt `time_attr` or `metric`), and trials that report nothing.
        """
        return words.why_not(self._session, self.snapshot(), self._call, self._unheard())

    def stopped(self) -> dict[str, str]:
        """Trial id -> the reason in one line, of every trial that a decision of lcsearch stopped."""
        return {uid: line for uid in self._book.entries if (line := self.reason(uid)) is not None}

    def reason(self, trial_id: str) -> str | None:
        """The reason in one line why lcsearch stopped a trial, or its allocator ended it; None when they did not."""
        entry = self._book.entries.get(trial_id)
        if entry is None or entry.status is not Status.STOPPED:
            return None
        return entry.line or entry.given_up or None

    def risk_now(self) -> float | None:
        """A bound of P(some stopped trial would have beaten the present incumbent): the sum of their P(beat), in
        [0, 1]; None before there is an incumbent.
        """
        if not self._metric or self._mode not in _DIRECTIONS:
            return None
        return risk_now(self._session.policy, self.snapshot())

    def report(self) -> StudyReport:
        """The stops so far with their reasons, and the risk now.

        Printed, it says in a few lines what was spent and saved (in `time_attr`), how risky that was, and what looks
        came to nothing.
        """
        held, faults = self._session.tally()
        spaced = dict(held).get(Reason.SPACED, 0)
        shown = self.snapshot()
        notices = self._session.notices(shown)
        unheard = self._nothing_heard(shown)
        return report_of(
            self._session.policy,
            shown,
            self.stopped(),
            faults,
            spaced,
            notices=notices,
            unheard=unheard,
            calibration=self._session.calibration(shown),
            audits=self._session.audits(shown),
            certificate=self._session.certificate_of(shown.bank),
            apart=sum(entry.redone for entry in self._book.entries.values()),
        )

    @property
    def session(self) -> Session:
        """Who judges: its counts of looks and failures, and the latest decision of each trial. To be read."""
        return self._session

    def snapshot(self) -> Snapshot:
        """The run as a look at this moment would see it: its goal, the trials that have ended and those that run."""
        return self._book.snapshot(self._goal)

    # State.

    def get_state(self) -> dict[str, Any]:
        """What `StateCallback` keeps: curves, ends and stops, by trial id, and whose turn it is."""
        turns = {} if self._allocating is None else {"allocation": self._allocating.get_state()}
        return {"version": 1, "book": self._book, "begun": dict(self._begun), **turns}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `get_state` gave.

        Raises:
            InvalidValue: it is not of this version of lcsearch.
        """
        if state.get("version") != 1 or not isinstance(state.get("book"), Book):
            raise InvalidValue("a state of version 1", state.get("version"), "CurveScheduler.set_state")
        self._book, self._run_begins = state["book"], False
        self._begun = dict(state.get("begun", {}))
        if self._allocating is not None:
            self._allocating.set_state(state.get("allocation"), self._book)

    # Translation.

    def uid(self, trial: TuneTrial) -> str:
        """What a trial is called in decisions: its trial id."""
        return str(trial.trial_id)

    def study(self, trial: TuneTrial) -> str:
        """What the run is called in decisions: the name of its experiment."""
        return "tune" if trial.storage is None else str(trial.storage.experiment_dir_name)

    @property
    def _goal(self) -> Goal:
        if self._known_goal is None:
            metric, direction = self._metric or DEFAULT_METRIC, _DIRECTIONS[self._mode or "min"]
            self._known_goal = Goal(metric, direction, self._max_t, self._judged, self._bounds)
        return self._known_goal

    def _failing_open(self, what: str) -> _FailingOpen:
        return _FailingOpen(self._session, what)

    def _begin_anew(self) -> None:
        """The run's first trial is none of the book's: this scheduler served another experiment before."""
        for uid, entry in self._book.entries.items():
            if not entry.status.finished:  # its time was up
                self._session.withdraw(uid)
        self._session.forget()
        self._book, self._heard, self._drawn = Book("tune"), Heard(), frozenset()
        if self._allocating is not None:
            self._allocating.begin(self._book)

    def _unheard(self) -> str:
        """Why no result of this process could be used, in one line; "" when one could, or there was none."""
        return self._heard.complaint(self._time_attr, self._metric or DEFAULT_METRIC)

    def _nothing_heard(self, shown: Snapshot) -> str:
        """That, or who reported nothing; "" where neither is so."""
        return self._unheard() or words.silent(shown, self._call)

    @property
    def _call(self) -> str:
        return f"tune.report({{{self._time_attr!r}: ..., {self._metric or DEFAULT_METRIC!r}: ...}})"

    def _enter(self, uid: str, trial: TuneTrial) -> None:
        """The trial runs, or will."""
        # A config may hold data sets: what the searcher chose is what tells trials apart. Of `points_to_evaluate` Tune
        # does not say what that is: what it says of others, or where it says nothing of any, all.
        drawn, config = trial.evaluated_params or {}, _flat(trial.config or {})
        self._drawn |= drawn.keys()
        known = {name: value for name, value in config.items() if name in self._drawn or not self._drawn}
        chosen = {
            name: value
            for name, value in {**known, **drawn}.items()
            if isinstance(value, bool | int | float | str) and not name.startswith("lcsearch:")
        }
        scratch = not trial.has_checkpoint()
        # Tune counts seconds anew where it has no checkpoint to begin from; at other axes the step itself tells.
        afresh = scratch and self._time_attr == TIME_TOTAL_S
        planned = _schedule((trial.config or {}).get(SCHEDULE))
        self._book.enter(uid, chosen, planned, scratch=scratch, afresh=afresh)
        self._book.study = self.study(trial)

    def _known(self, trial: TuneTrial) -> str:
        """The trial's uid; a trial that Tune has never added is entered."""
        uid = self.uid(trial)
        if uid not in self._book.entries:
            self._enter(uid, trial)
        return uid

    def _point(self, result: Mapping[str, Any]) -> tuple[float, float] | None:
        """(step, value) of a result; None when one is missing, or is no number."""
        point, metric = None, self._metric or DEFAULT_METRIC
        try:
            step, value = float(result[self._time_attr]), float(result[metric])
            point = (step, value) if math.isfinite(step) else None
        except KeyError:
            pass
        except Exception as error:  # whatever a tensor says to float()
            self._session.failed("reading a result", error)
        self._heard.hear(result, self._time_attr, metric, read=point is not None)
        return point

    def _on_result(self, trial: TuneTrial, result: Mapping[str, Any]) -> str:
        uid = self._known(trial)
        if self._book.entries[uid].status.finished:
            return TrialScheduler.CONTINUE
        point = self._point(result)
        if point is not None:
            step, _ = point
            if self._book.report(uid, *point):
                self._look(uid, step)
            if step >= self._max_t and self._stops_at_max_t:  # where trials end, not a decision
                return TrialScheduler.STOP
        for judgement in self._session.poll(self.snapshot, lambda one: one == uid):
            self._audit(judgement)
            if judgement.decision.trial == uid and judgement.decision.verdict is Verdict.STOP:
                self._stop(uid, judgement)
                return TrialScheduler.STOP
        return TrialScheduler.CONTINUE

    def _turn(self, tune_controller: TuneController, trial: TuneTrial, result: Mapping[str, Any]) -> str:
        """Whether the trial, which is not stopped, goes on where it stands."""
        uid, allocating = self.uid(trial), self._allocating
        if allocating is None or self._book.entries[uid].status.finished:
            return TrialScheduler.CONTINUE
        allocating.happened()
        if not allocating.turn_over(tune_controller, self._goal, trial, uid, result):
            return TrialScheduler.CONTINUE
        return TrialScheduler.STOP if self._book.entries[uid].status.finished else TrialScheduler.PAUSE

    def _look(self, uid: str, step: float) -> None:
        session, book = self._session, self._book

        def present() -> Present:
            return Present(id(book), book.bank(self._goal), self.snapshot)

        if session.gate(book.entries[uid].reports, step, present) is None:
            session.submit(self.snapshot(), Event(book.trial(uid), step))
            session.settle(uid)

    def _carry_out(self, tune_controller: TuneController) -> None:
        """Stop the running trials whose looks came to a stop since their last result."""
        running: dict[str, TuneTrial] = {}
        stoppable = (TuneTrial.RUNNING,) if self._allocating is None else (TuneTrial.RUNNING, TuneTrial.PAUSED)

        def ready(uid: str) -> bool:
            if not running:
                for trial in tune_controller.get_trials():  # type: ignore[no-untyped-call]
                    # While a trial saves its checkpoint the stop waits for its next result, or until it is paused.
                    if trial.status in stoppable and not trial.is_saving:
                        running[self.uid(trial)] = trial
            return uid in running

        for judgement in self._session.poll(self.snapshot, ready):
            uid = judgement.decision.trial
            self._audit(judgement)
            if judgement.decision.verdict is not Verdict.STOP:
                continue
            with self._failing_open("carrying out a stop"):
                self._stop(uid, judgement)
                try:
                    tune_controller.stop_trial(running[uid])  # type: ignore[no-untyped-call]
                except BaseException:
                    self._book.stop(uid, None, "")  # it goes on
                    raise

    def _stop(self, uid: str, judgement: Judgement) -> None:
        self._book.stop(uid, judgement.record, judgement.decision.line)

    def _audit(self, judgement: Judgement) -> None:
        if judgement.decision.reason is Reason.AUDITED and judgement.record is not None:
            self._book.audit(judgement.decision.trial, judgement.record)

    def _ended_as(self, uid: str, result: Mapping[str, Any]) -> Status:
        """A trial that was not stopped by us has run to its end: by itself, at max_t, or by a rule of the user's."""
        return Status.STOPPED if self._book.entries[uid].line else Status.COMPLETE

    def _end_unseen(self, uid: str, trial: TuneTrial) -> None:
        """The trial ended between two saves: Tune's own, which holds the end, and ours, which does not."""
        result = flatten_dict(trial.last_result or {})
        point = self._point(result)
        if point is not None:
            self._book.report(uid, *point)
        status = Status.FAILED if trial.status == TuneTrial.ERROR else self._ended_as(uid, result)
        end = min(self._max_t, self._book.bank(self._goal).end)
        if status is Status.COMPLETE and self._book.entries[uid].last < end:
            status = Status.STOPPED  # perhaps by us: the record is lost
        self._end(uid, status)

    def _end(self, uid: str, status: Status) -> None:
        self._session.withdraw(uid)
        self._book.end(uid, status)
        if self._allocating is not None:
            self._allocating.happened(ended=True)


class _FailingOpen:
    """Whatever goes wrong inside: the trial goes on, the failure is counted and logged once."""

    def __init__(self, session: Session, what: str) -> None:
        self._session, self._what = session, what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, Exception):
            self._session.failed(self._what, error)
            return True
        return False


def _flat(config: Mapping[Any, Any], before: str = "") -> dict[str, Any]:
    """A nested configuration with one name a value, `a/b`, as Tune names what it draws."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        found |= _flat(value, f"{before}{name}/") if isinstance(value, Mapping) else {f"{before}{name}": value}
    return found


def _schedule(planned: object) -> Schedule | None:
    """The planned schedule from a trial's config: a Schedule, or its fields; anything else is the user's own."""
    try:
        return planned if isinstance(planned, Schedule) else Schedule(**planned)  # type: ignore[arg-type]  # what is no mapping is caught
    except (TypeError, ValueError):
        return None
