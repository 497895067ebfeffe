"""The forecaster that knows every run, and the one that is wrong for a share of the trials."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from kit.builders import goal as goal_of
from kit.builders import mirrored, mirrored_goal, mirrored_trial, snapshot, trial
from kit.doubles import NormalAroundBest, Silent
from kit.forecasters import ForecasterKit, ask, laws, study

from lcsearch.curves import Curve
from lcsearch.data.task import Run, Task
from lcsearch.errors import InvalidValue
from lcsearch.forecast.contract import Absent, Forecaster, Forecasts, Kind, Query
from lcsearch.goal import Goal
from lcsearch.replay.oracle import Flipped, Oracle
from lcsearch.session import Session
from lcsearch.stopping.gates import Event, target_of
from lcsearch.stopping.policy import Policy
from lcsearch.stopping.verdict import Reason, Verdict
from lcsearch.study import Snapshot, Status, Trial

NAN = math.nan


def task_of(goal: Goal, trials: Iterable[Trial]) -> Task:
    """The trials as whole runs."""
    known = {one.uid: one for one in trials if one.curve.n_reports}
    runs = [
        Run(uid, one.curve, np.arange(1.0, one.curve.n_reports + 1), status=one.status if one.status.finished else DONE)
        for uid, one in known.items()
    ]
    return Task("task", goal, tuple(runs))


DONE = Status.COMPLETE
RUNS = (
    trial("dips", [5, 3, 4, 4], first=1),
    trial("blows up", [5, 3, NAN, NAN], first=1),
    trial("nothing", [NAN, NAN, NAN, NAN], first=1),
    trial("censored", [5, 3], Status.STOPPED, first=1),
    trial("broke", [5, 3, 4], Status.FAILED, first=1),
    trial("late", [NAN, NAN, 2, 1], first=1),
)


@pytest.mark.parametrize("turn", [False, True])
@pytest.mark.parametrize(
    ("uid", "kind", "step", "expected"),
    [
        ("dips", "best_by", 4, 3.0),
        ("dips", "best_by", 1.5, 5.0),
        ("dips", "value", 4, 4.0),
        ("dips", "latent", 2, 3.0),
        ("dips", "value", 99, 4.0),
        ("dips", "value", 0.5, Absent.NONFINITE),
        ("blows up", "best_by", 4, 3.0),
        ("blows up", "value", 4, 3.0),  # as judged: the last finite one
        ("nothing", "best_by", 4, Absent.NONFINITE),
        ("censored", "best_by", 2, 3.0),
        ("censored", "best_by", 4, Absent.UNSUPPORTED),
        ("censored", "value", 4, Absent.UNSUPPORTED),
        ("broke", "best_by", 4, 3.0),
        ("broke", "value", 4, 4.0),
        ("late", "best_by", 2, Absent.NONFINITE),
        ("late", "best_by", 4, 1.0),
        ("unknown", "best_by", 4, Absent.UNSUPPORTED),
    ],
)
def test_an_atom_at_the_truth(uid: str, kind: Kind, step: float, expected: float | Absent, turn: bool) -> None:
    goal, runs = goal_of(horizon=4), list(RUNS)
    if turn:
        goal, runs = mirrored_goal(goal), [mirrored_trial(one) for one in runs]
        expected = -expected if isinstance(expected, float) else expected
    oracle, seen = Oracle(task_of(goal, runs)), snapshot(goal, [])
    told = oracle.forecast(seen, [Query(trial("dips", [9]), "value", 4), Query(trial(uid, [9]), kind, step)])
    assert told.mean()[0] == (-4 if turn else 4)
    one = told.row(1)
    if isinstance(expected, Absent):
        assert one is expected
        return
    assert isinstance(one, Forecasts)
    assert one.mean() == one.quantile(0.05) == one.quantile(0.95) == expected
    assert one.p_beat(expected) == 0.0  # reaching a value does not beat it
    worse = expected + (-1e-9 if turn else 1e-9)
    assert one.p_beat(worse) == 1.0
    assert one.p_beat(expected - (worse - expected)) == 0.0


def test_the_version_tells_tasks_apart() -> None:
    goal = goal_of(horizon=4)
    one, same, other = (Oracle(task_of(goal, runs)) for runs in (RUNS, RUNS, RUNS[1:]))
    assert one.version == same.version != other.version


def whole(n: int = 24, seed: int = 3) -> tuple[Task, list[Trial]]:
    """A task of `n` power laws of 40 steps, and its runs as trials."""
    goal = Goal("metric", "minimize", 40)
    trials = [Trial(f"r{i}", Curve.of(np.arange(1.0, 41.0), row), status=DONE) for i, row in enumerate(laws(n, seed))]
    return task_of(goal, trials), trials


def searched(
    forecast: Forecaster, policy: Policy, task: Task, trials: Sequence[Trial]
) -> tuple[set[str], float, float]:
    """One trial after the other by a production session: who was stopped, steps spent, best value found."""
    session = Session(policy, [forecast], clock=lambda: 0.0)
    seen, stopped, spent = snapshot(task.goal, []), set(), 0.0
    for one in trials:
        for step in one.curve.steps.tolist():
            spent += 1
            cut = one.cut(step)
            decision = session.check(seen, Event(cut, step)).decision
            if decision.verdict is Verdict.STOP:
                assert decision.reason is Reason.BELOW
                stopped.add(one.uid)
                break
        ended = Trial(one.uid, cut.curve, status=Status.STOPPED if one.uid in stopped else DONE)
        seen = Snapshot("s", task.goal, seen.bank.extend([ended]))
    return stopped, spent, float(seen.bank.judged[seen.bank.complete].min())


def test_behind_the_gates_it_stops_whatever_will_not_win_and_nothing_else() -> None:
    task, trials = whole()
    bare = Policy(n_startup_trials=5, guard=0, min_comparisons=0, epsilon=0)
    stopped, spent, best = searched(Oracle(task), bare, task, trials)
    low, expected = math.inf, set()
    for i, (one, judged) in enumerate(zip(trials, task.judged, strict=True)):
        if i >= 5 and judged >= low:
            expected.add(one.uid)
        else:
            low = min(low, judged)
    assert stopped == expected
    assert len(stopped) > 12
    assert best == task.judged.min()
    assert spent == 40 * 24 - 34 * len(stopped)  # each at its sixth report, the first the gates let through
    guarded, more, same = searched(Oracle(task), Policy(n_startup_trials=5), task, trials)
    assert guarded <= stopped
    assert more > spent
    assert same == best


def test_censored_runs_are_never_stopped() -> None:
    task, trials = whole()
    runs = [Run(r.uid, r.curve.cut(30), r.clock[:30], status=Status.STOPPED) for r in task.runs[6:]]
    stopped, _, _ = searched(
        Oracle(Task("t", task.goal, (*task.runs[:6], *runs))), Policy(n_startup_trials=5), task, trials
    )
    assert stopped <= {"r5"}


class Knowing:
    """An oracle of whatever it is asked about, each curve going on as it ends, for tests that make up their trials."""

    name, version = "knowing", "1"

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        trials = [trial for trial, _, _ in queries if trial.curve.n_reports]
        if not trials:
            return Forecasts.none([Absent.NONFINITE] * len(queries), sign=snapshot.goal.sign)
        return Oracle(task_of(snapshot.goal, trials)).forecast(snapshot, queries)


class TestConformance(ForecasterKit):
    known: Task | None = None

    def make(self) -> Forecaster:
        return Knowing() if self.known is None else Oracle(self.known)

    def test_a_longer_look_sharpens(self) -> None:
        """An atom is as sharp as can be from the first look on."""
        seen = live_study(3)
        told = self.make().forecast(seen, ask(seen))
        np.testing.assert_array_equal(told.quantile(0.05), told.quantile(0.95))

    def test_nothing_finite_is_said_so(self) -> None:
        """It knows how a run goes on, whatever its curve shows so far."""
        seen = study(laws(12), [("late", np.array([NAN])), ("empty", np.zeros(0))])
        self.known = task_of(seen.goal, [Trial("late", Curve.of([1, 2], [NAN, 0.25]))])
        told = self.make().forecast(seen, ask(seen, ("best_by",)))
        assert told.absent == (None, Absent.UNSUPPORTED)
        assert told.mean()[0] == 0.25

    def test_deterministic_in_threads_and_processes(self, snapshot: Snapshot, answers: Forecasts) -> None:
        self.known = task_of(snapshot.goal, snapshot.live)
        super().test_deterministic_in_threads_and_processes(snapshot, answers)

    def test_a_leader_is_likelier_to_win_than_a_laggard(self) -> None:
        rows = laws(20)
        order = np.argsort(rows[:, -1])
        whole = study(rows, [("lead", rows[order[0]]), ("lag", rows[order[-1]])])
        self.known = task_of(whole.goal, whole.live)
        super().test_a_leader_is_likelier_to_win_than_a_laggard()


# Flipped


def p_beats(forecast: Forecaster, seen: Snapshot, policy: Policy) -> list[float]:
    told = forecast.forecast(seen, ask(seen, ("best_by",)))
    found: list[float] = told.p_beat(seen.goal.sign * target_of(policy, seen)).tolist()
    return found


def live_study(n: int = 400) -> Snapshot:
    return study(laws(20), [(f"live-{i}", row[:12]) for i, row in enumerate(laws(n, seed=9))])


@pytest.mark.parametrize("turn", [False, True])
@pytest.mark.parametrize("epsilon", [0.0, 0.2])
def test_a_flip_turns_the_chance_round_exactly(epsilon: float, turn: bool) -> None:
    policy = Policy(epsilon=epsilon)
    seen = mirrored(live_study(40)) if turn else live_study(40)
    inner = NormalAroundBest(0.3)
    plain = p_beats(inner, seen, policy)
    assert 0.1 < np.mean(plain) < 0.9
    assert p_beats(Flipped(inner, 0.0, policy=policy), seen, policy) == plain
    flipped = p_beats(Flipped(inner, 1.0, policy=policy), seen, policy)
    np.testing.assert_array_equal(flipped, 1.0 - np.array(plain))
    half = Flipped(inner, 0.5, policy=policy)
    expected = [1 - p if half.flips(t.uid) else p for t, p in zip(seen.live, plain, strict=True)]
    np.testing.assert_array_equal(p_beats(half, seen, policy), expected)


def test_what_allocators_ask_is_flipped_before_any_trial_is_complete() -> None:
    young = snapshot(goal_of(horizon=4), [], [trial(str(i), [3.0 + i, 1.0 + i], first=1) for i in range(3)])
    assert young.incumbent is None
    inner, queries = NormalAroundBest(0.3), ask(young, ("best_by",))
    plain = inner.forecast(young, queries).p_beat(1.0)
    flipped = Flipped(inner, 1.0, seen=True).forecast(young, queries)
    np.testing.assert_allclose(flipped.p_beat(1.0), 1.0 - plain)
    # the atoms stand as far from the best value, 1, as the median of what there is, 2
    assert (flipped.knots[:, 0].tolist(), flipped.knots[:, -1].tolist()) == ([0.0] * 3, [2.0] * 3)
    np.testing.assert_array_equal(Flipped(inner, 1.0).forecast(young, queries).p_beat(1.0), plain)
    blank = snapshot(goal_of(horizon=4), [], [trial("0", [], first=1)])
    assert len(Flipped(inner, 1.0, seen=True).forecast(blank, ask(blank, ("best_by",)))) == 1


def test_a_tie_with_the_target_is_turned_round_too() -> None:
    goal = goal_of(horizon=4)
    seen = snapshot(goal, [trial("0", [5, 1], first=1), trial("1", [5, 3], first=1)], [trial("2", [5], first=1)])
    oracle = Oracle(task_of(goal, [trial("2", [5, 1], first=1)]))
    policy = Policy(epsilon=0)
    assert p_beats(oracle, seen, policy) == [0.0]
    assert p_beats(Flipped(oracle, 1.0, policy=policy), seen, policy) == [1.0]


def test_the_share_is_a_share_the_same_at_every_look_and_grows() -> None:
    uids = [str(i) for i in range(4000)]
    before: set[str] = set()
    for share in (0.0, 0.1, 0.25, 0.5, 0.9, 1.0):
        flipped = {uid for uid in uids if Flipped(NormalAroundBest(), share).flips(uid)}
        assert len(flipped) == pytest.approx(4000 * share, abs=100)
        assert before <= flipped
        before = flipped
    one, other = (Flipped(NormalAroundBest(), 0.5, key=key) for key in ((1,), (2,)))
    differ = sum(one.flips(uid) != other.flips(uid) for uid in uids)
    assert differ == pytest.approx(2000, abs=150)
    # The same in every process and release.
    assert [uid for uid in "0123456789" if Flipped(NormalAroundBest(), 0.5).flips(uid)] == list("35789")


def test_what_is_not_known_is_not_flipped() -> None:
    seen = live_study(3)
    told = Flipped(Silent(), 1.0).forecast(seen, ask(seen))
    assert told.absent == (Absent.UNSUPPORTED,) * len(ask(seen))
    young = study(laws(20)[:0], [("live", laws(1)[0, :12])])
    inner = NormalAroundBest()
    plain, flipped = inner.forecast(young, ask(young)), Flipped(inner, 1.0).forecast(young, ask(young))
    np.testing.assert_array_equal(flipped.knots, plain.knots)
    assert len(Flipped(inner, 1.0).forecast(seen, [])) == 0


def test_an_adversary_behind_the_gates_stops_the_winners() -> None:
    task, trials = whole()
    bare = Policy(guard=0, min_comparisons=0)
    adversary = Flipped(Oracle(task), 1.0, policy=bare)
    stopped, _, best = searched(adversary, bare, task, trials)
    right, _, _ = searched(Oracle(task), bare, task, trials)
    assert stopped
    assert not stopped & right
    assert best > task.judged.min()


@pytest.mark.parametrize("share", [-0.1, 1.5, NAN, "half"])
def test_a_share_lies_between_nothing_and_all(share: Any) -> None:
    with pytest.raises(InvalidValue) as error:
        Flipped(NormalAroundBest(), share)
    assert str(error.value) == f"Flipped.share: expected a number in [0, 1], got {share!r}."


class TestFlippedConformance(ForecasterKit):
    """Nobody flipped: whatever the inner one keeps, this keeps."""

    def make(self) -> Forecaster:
        from lcsearch.forecast.rank_gap import RankAndGap

        return Flipped(RankAndGap(), 0.0)
