"""The same histories through CurvePruner and CurveScheduler: the same verdict, for the same reason, at every look."""

from __future__ import annotations

import math
import pickle
import threading
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple
from unittest import mock

import numpy as np
import optuna
import pytest
from kit.doubles import Kept, NormalAroundBest, chances
from kit.tune_runner import book_of
from optuna.trial import TrialState
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import TrialScheduler

from lcsearch.forecast.contract import Absent, Forecaster, Forecasts, Query
from lcsearch.goal import Direction
from lcsearch.schedulers.optuna import REASON, SCHEDULE, CurvePruner, as_trial
from lcsearch.schedulers.optuna._storage import withdraw_stop
from lcsearch.schedulers.ray_tune import CurveScheduler, StateCallback
from lcsearch.session import Session
from lcsearch.stopping.decision import Decision
from lcsearch.stopping.gates import GateHold, protection_gates
from lcsearch.stopping.risk import StopRecord
from lcsearch.stopping.verdict import Reason, Verdict
from lcsearch.study import Snapshot, Trial

optuna.logging.set_verbosity(optuna.logging.ERROR)

NAN, INF = math.nan, math.inf
STUDY = "parity"
PATIENCE_S = 10.0
"""For threads that work at once: reaching it is a failure."""
CANNOT_OCCUR = {
    Reason.NO_REPORT,  # Tune casts no look without a report
    Reason.FIRST_LOOK,  # six observations are asked for before, and five of them lie below the look
    Reason.SPACED,  # a look at every report
    Reason.SUPERSEDED,  # every look is waited for
    Reason.RULE,  # only in replays
    Reason.UNRECORDED,  # every record here reads back
    Reason.AUDITED,  # nothing is audited
    Reason.THAWED,  # nor is anything thawed
    Reason.RIVALS,  # nor compared with running trials
}


# Forecasters


class Fingerprint:
    """P(beat) from a hash of everything it is shown: whoever builds another snapshot gets another answer.

    One answer in thirty is absent, one in thirty NaN. Small probabilities are frequent, so that trials are stopped.

    Args:
        marks: what stops have left with trials is read too.
    """

    name, version = "fingerprint", "1"

    def __init__(self, *, marks: bool = True) -> None:
        self.marks = marks

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        shown = 0
        for trial in (*snapshot.bank, *snapshot.live):
            if trial.curve.n_reports:
                shown ^= self.print_of(trial)  # in any order
        goal = snapshot.goal
        frame = (goal.direction, goal.judged, snapshot.horizon, snapshot.incumbent, len(snapshot.bank), shown)
        p, absent = [], list[Absent | None]()
        for query in queries:
            asked = repr((frame, query.kind, query.step)).encode()
            number = zlib.crc32(asked, self.print_of(query.trial))
            kind = number % 30
            absent.append(Absent.UNSUPPORTED if kind == 0 else None)
            p.append(NAN if kind == 1 else ((number >> 8) / 2**24) ** 4)
        told = chances(p, goal.sign)
        return Forecasts(told.knots, told.levels, told.tails, told.sign, tuple(absent), self.name)

    def print_of(self, trial: Trial) -> int:
        mark = trial.stop_records.get("stop")
        left = (mark.step, mark.reason, mark.p) if isinstance(mark, StopRecord) and self.marks else None
        about = (trial.uid, trial.status.name, sorted(trial.params.items()), trial.schedule, left)
        return zlib.crc32(b"|".join(trial.curve.key), zlib.crc32(repr(about).encode()))


@dataclass
class Behind:
    """Another forecaster behind a door, under its name."""

    inner: Forecaster
    door: threading.Event = field(default_factory=threading.Event)
    version: str = "1"

    @property
    def name(self) -> str:
        return self.inner.name

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        assert self.door.wait(PATIENCE_S)
        return self.inner.forecast(snapshot, queries)


# Histories


class Point(NamedTuple):
    step: int
    value: float


@dataclass(frozen=True)
class Life:
    """What a trial will report when nobody stops it.

    Attributes:
        points: its reports.
        fails: it ends by an error.
        unseen: its last report is heard of only when it has ended.
        schedule: what it plans, as people write it down.
    """

    points: list[Point]
    fails: bool = False
    unseen: bool = False
    schedule: dict[str, Any] | None = None


class Event(NamedTuple):
    kind: Literal["begin", "report", "end"]
    trial: int
    point: Point | None = None


@dataclass(frozen=True)
class History:
    """One study: knobs under the names of CurvePruner, lives, and who reports when."""

    direction: Direction
    knobs: dict[str, Any]
    lives: list[Life]
    workers: int
    seed: int

    def events(self, ended: set[int]) -> Iterator[Event]:
        """Events in order; trials in `ended`, which the caller adds to, report no more."""
        rng = np.random.default_rng(self.seed)
        heard = [0] * len(self.lives)
        running: list[int] = []
        begun = 0
        while running or begun < len(self.lives):
            if len(running) < self.workers and begun < len(self.lives):
                running.append(begun)
                yield Event("begin", begun)
                begun += 1
                continue
            one = running[int(rng.integers(len(running)))]
            life = self.lives[one]
            seen = life.points[:-1] if life.unseen else life.points
            if heard[one] < len(seen):
                point = seen[heard[one]]
                heard[one] += 1
                yield Event("report", one, point)
                if one not in ended and point.step >= self.knobs["max_steps"]:
                    yield Event("end", one)
                    ended.add(one)
            else:
                yield Event("end", one, life.points[-1] if life.unseen else None)
                ended.add(one)
            if one in ended:
                running.remove(one)


def history(direction: Direction, seed: int, n_trials: int, forecast: Forecaster | Sequence[str]) -> History:
    rng = np.random.default_rng(seed)
    max_steps = int(rng.integers(12, 25))
    knobs = {
        "max_steps": max_steps,
        "threshold": float(rng.choice([0.02, 0.05, 0.2, 1.0], p=[0.2, 0.4, 0.3, 0.1])),
        "guard": float(rng.choice([0.0, 0.1, 0.4])),
        "risk": [None, 0.3, 0.05][rng.integers(3)],
        "n_startup_trials": int(rng.choice([0, 1, 3, 5])),
        "n_warmup_steps": int(rng.choice([0, 1, 4, 9])),
        "interval_steps": int(rng.choice([1, 1, 2, 3])),
        "n_min_trials": int(rng.choice([1, 1, 2, 6])),
        "judged": str(rng.choice(["best", "final"])),
        "look_growth": 1,
        "forecasters": forecast,
    }
    sign = 1.0 if direction == "minimize" else -1.0
    tied = rng.random() < 0.3
    lives = [life(rng, sign, max_steps, tied) for _ in range(n_trials)]
    if seed % 5 == 3:  # an error that ends at 0
        for one in lives:
            losses = np.maximum(np.array([sign * point.value for point in one.points]) - 1.0, 0.0)
            one.points[:] = [Point(at.step, float(sign * x)) for at, x in zip(one.points, losses, strict=True)]
    return History(direction, knobs, lives, int(rng.choice([1, 3, 8])), seed)


def life(rng: np.random.Generator, sign: float, max_steps: int, tied: bool) -> Life:
    start = int(rng.choice([0, 1, 1, 4]))
    gaps = rng.choice([1, 1, 1, 2, 5], 40) if rng.random() < 0.3 else np.ones(40, int)
    steps = [s for s in (start + np.cumsum(gaps) - 1).tolist() if s < max_steps + int(rng.integers(4))]
    n = len(steps)
    t = np.arange(n)
    limit, rate = rng.uniform(0, 2), rng.uniform(0.5, 0.95)
    losses = limit + rate**t + rng.choice([0.0, 0.02, 0.3]) * rng.standard_normal(n)
    kind = rng.random()
    if kind < 0.07:  # runs away
        losses = losses * 1e3 ** np.maximum(0, t - n // 2)
    elif kind < 0.14:  # is lost for good
        losses[int(rng.integers(n)) :] = rng.choice([NAN, INF, -INF])
    elif kind < 0.28:  # stumbles
        losses[rng.random(n) < 0.3] = rng.choice([NAN, INF, -INF])
    elif kind < 0.33:  # stands still
        losses[:] = round(limit)
    if tied:
        losses = np.round(losses, 1)
    points = [Point(step, float(value)) for step, value in zip(steps, sign * losses, strict=True)]
    ending = rng.random()
    if ending < 0.2:  # by itself, early, at times before it has said anything
        points = points[: int(rng.integers(n))]
    planned = {"shape": "cosine", "peak": float(rng.uniform(0.1, 1)), "horizon": max_steps}
    return Life(
        points,
        fails=0.1 < ending < 0.3,
        unseen=bool(points) and ending >= 0.3 and bool(rng.random() < 0.2),
        schedule=planned if rng.random() < 0.2 else None,
    )


# The two frameworks


class Look(NamedTuple):
    """What came of a report."""

    stop: bool
    reasons: Counter[Reason]
    decision: Decision | None


class Watch:
    """What a session counts and keeps during one report."""

    def __init__(self, session: Session, uid: str) -> None:
        self.session, self._uid = session, uid
        for key in [key for key in session.latest if key[1] == uid]:
            del session.latest[key]
        self._before = Counter(session.reasons)

    def _latest(self) -> Decision | None:
        return next((decision for (_, uid), decision in self.session.latest.items() if uid == self._uid), None)

    def look(self, stop: bool) -> Look:
        return Look(stop, self.session.reasons - self._before, self._latest())


class OptunaRun:
    def __init__(self, of: History) -> None:
        self.lives = of.lives
        self.pruner = CurvePruner(**of.knobs)
        sampler = optuna.samplers.RandomSampler(seed=of.seed)
        self.study = optuna.create_study(direction=of.direction, sampler=sampler, pruner=self.pruner, study_name=STUDY)
        self.trials: list[optuna.Trial] = []
        self.session = self.pruner.session

    def begin(self) -> dict[str, Any]:
        trial = self.study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
        schedule = self.lives[len(self.trials)].schedule
        self.trials.append(trial)
        if schedule is not None:
            trial.set_user_attr(SCHEDULE, schedule)
        return trial.params

    def report(self, number: int, point: Point) -> Look:
        watch = Watch(self.session, str(number))
        self.trials[number].report(point.value, point.step)
        return watch.look(self.trials[number].should_prune())

    def protected(self, number: int) -> bool:
        """Whether a gate protects the trial as it stands now."""
        own = as_trial(self.study.get_trials(deepcopy=False)[number])
        return isinstance(
            protection_gates(self.session.policy, self.pruner.snapshot(self.study), own, own.curve.last_step), GateHold
        )

    def end(self, number: int, state: TrialState, point: Point | None = None) -> None:
        if point is not None:
            self.trials[number].report(point.value, point.step)
        self.study.tell(self.trials[number], 1.0 if state == TrialState.COMPLETE else None, state)

    def stored(self, number: int) -> tuple[StopRecord, str]:
        frozen = self.study.get_trials(deepcopy=False)[number]
        return as_trial(frozen).stop_records["stop"], frozen.user_attrs[REASON]


@dataclass
class TrialDouble:
    """What the scheduler reads of a trial of Tune's."""

    trial_id: str
    evaluated_params: dict[str, Any]
    config: dict[str, Any]
    status: str = TuneTrial.RUNNING
    is_saving: bool = False
    last_result: dict[str, Any] = field(default_factory=dict)
    storage: Any = field(default_factory=lambda: SimpleNamespace(experiment_dir_name=STUDY))

    def has_checkpoint(self) -> bool:
        """What is run again goes on from where it stood."""
        return True


class RayRun:
    """A mock controller. With `trouble`, results come again, come broken, and the run is killed and restored."""

    def __init__(self, of: History, trouble: np.random.Generator | None = None) -> None:
        self.history, self.trouble = of, trouble
        self.trials: list[TrialDouble] = []
        self.troubles: Counter[str] = Counter()
        self._new_scheduler()

    def _new_scheduler(self) -> None:
        knobs = dict(self.history.knobs)
        mode = self.history.direction[:3]
        max_t, grace = knobs.pop("max_steps"), knobs.pop("n_warmup_steps")
        self.scheduler: Any = CurveScheduler("epoch", "loss", mode, max_t, grace, **knobs)
        self.session: Session = self.scheduler.session

    # What the scheduler calls.

    def get_trials(self) -> list[TrialDouble]:
        return self.trials

    def stop_trial(self, trial: TrialDouble) -> None:
        self.scheduler.on_trial_complete(self, trial, trial.last_result)
        trial.status = TuneTrial.TERMINATED

    # What the test calls.

    def begin(self, params: dict[str, Any]) -> None:
        number = len(self.trials)
        schedule = self.history.lives[number].schedule
        config = params if schedule is None else {**params, SCHEDULE: schedule}
        self.trials.append(TrialDouble(str(number), params, config))
        self.scheduler.on_trial_add(self, self.trials[number])

    def report(self, number: int, point: Point) -> Look:
        trial = self.trials[number]
        if self.trouble is not None:
            self._suffer(trial, self.trouble)
        watch = Watch(self.session, trial.trial_id)
        self.result(trial, point)
        assert self.session.wait(PATIENCE_S)
        assert self.scheduler.choose_trial_to_run(self) is None
        past_end = point.step >= self.history.knobs["max_steps"]
        return watch.look(trial.status == TuneTrial.TERMINATED and not past_end)

    def result(self, trial: TrialDouble, point: Point) -> str:
        """As Tune handles a result."""
        result = {"epoch": point.step, "loss": point.value}
        answer = str(self.scheduler.on_trial_result(self, trial, result))
        trial.last_result = result
        if answer == TrialScheduler.STOP:
            self.stop_trial(trial)
        return answer

    def end(self, number: int, fails: bool, point: Point | None = None) -> None:
        trial = self.trials[number]
        if trial.status == TuneTrial.TERMINATED:  # at max_t already
            assert not fails
            return
        if fails:
            self.scheduler.on_trial_error(self, trial)
            trial.status = TuneTrial.ERROR
            return
        if point is not None:
            trial.last_result = {"epoch": point.step, "loss": point.value}
        self.stop_trial(trial)

    def stored(self, number: int) -> tuple[StopRecord, str]:
        entry = book_of(self.scheduler).entries[str(number)]
        assert entry.stop is not None
        return entry.stop, entry.line

    # Trouble: nothing of it is part of the history.

    def _suffer(self, trial: TrialDouble, rng: np.random.Generator) -> None:
        kind = str(rng.choice(["nothing", "replay", "retry", "restore", "broken"], p=[0.6, 0.15, 0.1, 0.05, 0.1]))
        self.troubles[kind] += 1
        if kind == "broken":
            for result in ({"epoch": 99}, {"loss": -99.0}, {"epoch": NAN, "loss": -99.0}, {"epoch": 99, "loss": "?"}):
                assert self.scheduler.on_trial_result(self, trial, result) == TrialScheduler.CONTINUE
        if kind == "retry":
            self.scheduler.on_trial_error(self, trial)
            self.scheduler.on_trial_add(self, trial)
        if kind == "restore":
            state = pickle.dumps(StateCallback(self.scheduler).get_state())
            self._new_scheduler()
            StateCallback(self.scheduler).set_state(pickle.loads(state))
            for one in self.trials:
                self.scheduler.on_trial_add(self, one)
        if kind in ("replay", "retry", "restore"):
            self._replay(trial, rng)

    def _replay(self, trial: TrialDouble, rng: np.random.Generator) -> None:
        """The trial reports some of its steps anew: from a checkpoint the same, within one attempt anything."""
        entry = book_of(self.scheduler).entries[trial.trial_id]
        known, same = sorted(entry.reports.items()), entry.repeated is not None
        before = Counter(self.session.reasons)
        for step, was in known[int(rng.integers(len(known) + 1)) :]:
            value = was if same else float(rng.choice([NAN, INF, -99.0, 99.0]))
            assert self.result(trial, Point(int(step), value)) == TrialScheduler.CONTINUE
        assert self.session.reasons == before


# The comparison


def close(a: Any, b: Any) -> bool:
    """Equal, numbers to 1e-12."""
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (a != a and b != b) or math.isclose(a, b, rel_tol=1e-12, abs_tol=1e-12)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(close(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(close, a, b))
    return bool(a == b)


def same(a: Decision | None, b: Decision | None, *, risk: bool = True) -> bool:
    """The same decision; risk to 1e-9, as Optuna's storage keeps twelve digits of a record's losses, Tune all."""
    if a is None or b is None:
        return a is b
    if a == b:
        return True
    for mine, other in ((a.risk, b.risk), (a.independent, b.independent)) if risk else ():
        if (mine is None) != (other is None):
            return False
        if mine is not None and other is not None and not math.isclose(mine, other, rel_tol=1e-9):
            return False
    return close(asdict(replace(a, risk=None, independent=None)), asdict(replace(b, risk=None, independent=None)))


def told(name: str, look: Look) -> str:
    text = look.decision.text if look.decision is not None else "no decision"
    return f"{name}: {'STOP' if look.stop else 'CONTINUE'}, {[r.name for r in look.reasons.elements()]}\n{text}"


@dataclass
class Seen:
    """What a test has met."""

    trials: int = 0
    looks: int = 0
    stops: int = 0
    not_finite: int = 0
    ties: int = 0
    failures: int = 0
    reasons: Counter[Reason] = field(default_factory=Counter)
    troubles: Counter[str] = field(default_factory=Counter)


def compare(of: History, seen: Seen, trouble: np.random.Generator | None = None) -> None:
    """One study through both frameworks, look by look."""
    one, two = OptunaRun(of), RayRun(of, trouble)
    stopped: list[int] = []
    ended: set[int] = set()
    for event in of.events(ended):
        number, point = event.trial, event.point
        if event.kind == "begin":
            two.begin(one.begin())
        elif event.kind == "end":
            failed = of.lives[number].fails and two.trials[number].status != TuneTrial.TERMINATED
            one.end(number, TrialState.FAIL if failed else TrialState.COMPLETE, point)
            two.end(number, failed, point)
            seen.failures += failed
        else:
            assert point is not None
            a, b = one.report(number, point), two.report(number, point)
            if not (a.stop == b.stop and a.reasons == b.reasons and same(a.decision, b.decision)):
                where = f"seed {of.seed}, {of.direction}, trial {number}, step {point.step}"
                pytest.fail(f"{where}\n{told('CurvePruner', a)}\n{told('CurveScheduler', b)}")
            assert a.reasons.total() == 1
            seen.looks += 1
            seen.reasons += a.reasons
            seen.not_finite += not math.isfinite(point.value)
            if a.stop:
                one.end(number, TrialState.PRUNED)
                ended.add(number)
                stopped.append(number)
    finals = [life.points[-1].value for life in of.lives if life.points]
    seen.ties += len(finals) - len(set(finals))
    seen.trials += len(of.lives)
    seen.stops += len(stopped)
    seen.troubles += two.troubles
    check_ends(one, two, stopped)


def check_ends(one: OptunaRun, two: RayRun, stopped: list[int]) -> None:
    """What is left behind of two runs that agreed at every look."""
    for number in stopped:
        (mark, line), (other, other_line) = one.stored(number), two.stored(number)
        assert close(asdict(mark), asdict(StopRecord.from_json(other.to_json()))), f"trial {number}"
        assert close(mark.p, other.p)
        assert line == other_line
    assert two.scheduler.stopped() == {str(number): one.stored(number)[1] for number in stopped}
    risk, other_risk = one.pruner.report(one.study).risk, two.scheduler.risk_now()
    assert (risk is None) == (other_risk is None)
    assert risk is None or math.isclose(risk, other_risk, rel_tol=1e-9, abs_tol=1e-9)
    assert one.session.failed_open.keys() <= {"forecast"}
    if not two.troubles:
        assert one.session.reasons == two.session.reasons
        assert one.session.failed_open == two.session.failed_open
        for number in range(len(one.trials)):
            assert one.pruner.explain(number, one.study) == two.scheduler.explain(str(number))


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_verdicts_for_the_same_reasons(direction: Direction, seed: int) -> None:
    seen = Seen()
    for i in range(30):
        forecast = NormalAroundBest([0.02, 0.3][i % 2]) if i % 4 == 3 else Fingerprint()
        compare(history(direction, 1000 * seed + i, 25, forecast), seen)
    assert seen.trials == 750
    assert seen.looks > 7000
    assert seen.stops > 100
    assert seen.not_finite > 300
    assert seen.ties > 10
    assert seen.failures > 50
    assert set(Reason) - set(seen.reasons) == CANNOT_OCCUR
    assert min(seen.reasons.values()) >= 5, seen.reasons


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_real_forecasters(direction: Direction) -> None:
    seen = Seen()
    for seed in range(4):
        of = history(direction, 7000 + seed, 16, ["parametric", "rank-gap"])
        compare(replace(of, knobs={**of.knobs, "n_startup_trials": 4, "threshold": 0.2, "guard": 0.1}), seen)
    assert seen.stops > 3
    assert seen.reasons[Reason.ABOVE] > 3


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_more_workers_than_startup_trials(direction: Direction) -> None:
    """Stops against running trials, with limits of the risk, and looks at which some rivals have ended meanwhile."""
    seen = Seen()
    for seed in range(16):
        of = history(direction, 8000 + seed, 16, NormalAroundBest(0.1) if seed % 2 else Fingerprint())
        few = {"rivals": 1 + seed % 3, "n_startup_trials": 5, "guard": 0.1, "threshold": 0.2}
        # Optuna's side has to guess which running trials are dead, and where many end together it guesses wrongly.
        with mock.patch("lcsearch.schedulers.optuna._snapshot.abandoned", return_value=set()):
            compare(replace(of, knobs={**of.knobs, **few}, workers=16), seen)
    assert seen.reasons[Reason.RIVALS] > 20
    assert seen.reasons[Reason.STARTUP] > 20


@pytest.mark.parametrize("seed", [50120, 50290])
def test_the_real_forecasters_where_values_tie(seed: int) -> None:
    """Tune's bank is in the order of the trials' ends; Optuna's in that of their numbers, look by look."""
    compare(history("minimize", seed, 16, ["parametric", "rank-gap"]), Seen())


def test_a_run_that_is_killed_and_repeats_itself_decides_as_one_that_did_not() -> None:
    """Steps that come again, retries and restores that repeat themselves, and broken results: no part of a history."""
    seen, rng = Seen(), np.random.default_rng(5)
    directions: tuple[Direction, ...] = ("minimize", "maximize")
    for i in range(24):
        compare(history(directions[i % 2], 3000 + i, 25, Fingerprint()), seen, rng)
    assert seen.stops > 30
    assert {"replay", "retry", "restore", "broken"} < set(seen.troubles)
    assert min(seen.troubles.values()) > 50
    assert set(Reason) - set(seen.reasons) == CANNOT_OCCUR


# A stop that comes one result later


@dataclass
class LateSeen:
    looks: int = 0
    judged: int = 0
    stops: int = 0
    diverged: int = 0
    withdrawn: int = 0
    too_late: int = 0
    overtaken: int = 0


def compare_late(of: History, seen: LateSeen) -> None:
    """Forecasts are never ready before a result is answered, and nobody chooses in between.

    CurvePruner is asked at every report and not obeyed: Tune's run says when a trial ends. Its marks stand one report
    earlier, so nothing that reads marks (the risk limit) is compared.
    """
    forecast, one_kept, two_kept = Fingerprint(marks=False), Kept(), Kept()
    of, behind = replace(of, knobs={**of.knobs, "risk": None, "forecasters": forecast}), Behind(forecast)
    one, two = OptunaRun(of), RayRun(replace(of, knobs={**of.knobs, "forecasters": behind}))
    one.session.sink, two.session.sink = one_kept, two_kept
    due: set[int] = set()  # trials that CurvePruner stopped at their last report
    ended: set[int] = set()
    for event in of.events(ended):
        number, point = event.trial, event.point
        if event.kind == "begin":
            two.begin(one.begin())
        elif event.kind == "end":
            seen.too_late += number in due
            if number in due:  # it ends by itself, and not because it was told to
                withdraw_stop(one.study, one.study.get_trials(deepcopy=False)[number])
            failed = of.lives[number].fails and two.trials[number].status != TuneTrial.TERMINATED
            one.end(number, TrialState.FAIL if failed else TrialState.COMPLETE, point)
            two.end(number, failed, point)
        else:
            assert point is not None
            a = one.report(number, point)
            (reason,) = a.reasons
            behind.door.clear()
            with mock.patch.object(two.session, "settle"):
                answer = two.result(two.trials[number], point)
            behind.door.set()
            assert two.session.wait(PATIENCE_S)
            past_end = point.step >= of.knobs["max_steps"]
            protected = past_end or one.protected(number)
            stops = reason is Reason.DIVERGED or (number in due and not protected)
            where = f"seed {of.seed}, {of.direction}, trial {number}, step {point.step}: {told('CurvePruner', a)}"
            assert answer == (TrialScheduler.STOP if stops or past_end else TrialScheduler.CONTINUE), where
            seen.looks += 1
            seen.withdrawn += number in due and protected
            due.discard(number)
            if a.stop and not stops:
                due.add(number)
            if stops and not past_end:
                seen.stops += 1
                seen.diverged += reason is Reason.DIVERGED
                one.end(number, TrialState.PRUNED)
                ended.add(number)
    assert two.session.wait(PATIENCE_S)
    compare_logs(one_kept, two_kept, seen)


def compare_logs(one: Kept, two: Kept, seen: LateSeen) -> None:
    """Every look that Tune's run judged was judged so by CurvePruner, whether it was carried out or overtaken."""
    decided = {(r.decision.trial, r.decision.step): r.decision for r in one.receipts}
    late = [r.decision for r in two.receipts]
    assert len({(d.trial, d.step) for d in late}) == len(late)
    for decision in late:
        as_decided = decided[decision.trial, decision.step]
        if decision.reason is Reason.SUPERSEDED or as_decided.verdict is not decision.verdict:
            assert decision.verdict is Verdict.CONTINUE
            seen.overtaken += decision.reason is Reason.SUPERSEDED
            if decision.now is None:  # the trial's end came before any forecast
                continue
            as_decided = replace(as_decided, verdict=decision.verdict, reason=decision.reason)
        assert same(as_decided, decision, risk=False), f"{as_decided.text}\n{decision.text}"
    seen.judged += len(late)
    assert {(d.trial, d.step) for d in late} == decided.keys()


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_a_stop_that_comes_with_the_next_result(direction: Direction) -> None:
    seen = LateSeen()
    for seed in range(9016, 9056):
        compare_late(history(direction, seed, 25, Fingerprint()), seen)
    assert seen.judged > 300, seen
    assert seen.stops - seen.diverged > 50, seen
    assert min(seen.diverged, seen.withdrawn, seen.too_late, seen.overtaken) > 1, seen
