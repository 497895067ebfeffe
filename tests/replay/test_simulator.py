"""The simulator: every counted number by hand, virtual time, no look ahead, and the same stops as a real run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from lcsearch.allocation.allocators.asha import AshaPromotion
from lcsearch.allocation.allocators.greedy import GreedyGain
from lcsearch.allocation.allocators.run_to_end import RunToEnd
from lcsearch.allocation.allocators.uniform import Uniform
from lcsearch.allocation.arms import Around
from lcsearch.allocation.contract import Allocation, Allocator, Key, Move, Slots
from lcsearch.allocation.named import allocator
from lcsearch.curves import Curve
from lcsearch.data.synthetic import KINDS, Kind, synthetic_task
from lcsearch.data.task import Run, Task
from lcsearch.errors import InvalidValue
from lcsearch.forecast.contract import Forecasts, Query
from lcsearch.forecast.rank_gap import RankAndGap
from lcsearch.goal import Direction, Goal, Judged
from lcsearch.host.registry import forecaster
from lcsearch.proposal import ByForecast
from lcsearch.replay.baselines import Gated, Median
from lcsearch.replay.history import History
from lcsearch.replay.score import regrets, scale_of, speed_up, trace_of
from lcsearch.replay.simulator import World, simulate
from lcsearch.session.session import Session
from lcsearch.stopping.decision import Decision, Look
from lcsearch.stopping.gates import Event
from lcsearch.stopping.judge import Judgement
from lcsearch.stopping.policy import Policy
from lcsearch.stopping.risk import StopRecord
from lcsearch.stopping.verdict import Reason, Verdict
from lcsearch.study import Snapshot, Status

# Horizon 4, lower is better. "d" jumps at the end and is the best of all; "b" never learns.
CURVES = {"a": [5, 4, 3, 2], "b": [6, 6, 6, 6], "c": [5, 3, 2, 1], "d": [7, 7, 7, 0.5], "e": [4, 4, 4, 4]}


def task_of(
    curves: dict[str, Any], judged: Judged = "best", direction: Direction = "minimize", pace: float = 1.0
) -> Task:
    horizon = max(map(len, curves.values()))
    goal = Goal("loss", direction, horizon, judged)
    sign = goal.sign
    runs = [
        Run(uid, Curve.of(range(1, len(c) + 1), [sign * v for v in c]), pace * np.arange(1.0, len(c) + 1))
        for uid, c in curves.items()
    ]
    return Task("five", goal, tuple(runs))


@dataclass
class Above:
    """Stops at step 2 what stands above 5 there once a trial is COMPLETE; remembers all it saw."""

    forecasts: bool = False
    seen: list[tuple[Snapshot, Event]] = field(default_factory=list)

    def check(self, snapshot: Snapshot, event: Event) -> Judgement:
        self.seen.append((snapshot, event))
        loss = snapshot.goal.sign * float(event.trial.curve.values[-1])
        stop = event.step == 2 and loss > 5 and snapshot.bank.n_complete > 0
        now = Look(event.step, 2, 0.05, 0.5, None, ()) if self.forecasts else None
        verdict, reason = (Verdict.STOP, Reason.BELOW) if stop else (Verdict.CONTINUE, Reason.ABOVE)
        decision = Decision(
            snapshot.study, event.trial.uid, event.step, verdict, reason, now=now, incumbent=snapshot.incumbent
        )
        return Judgement(decision, StopRecord(event.step, reason.name, None, "") if stop else None)


class Never:
    def check(self, snapshot: Snapshot, event: Event) -> Judgement:
        return Judgement(Decision(snapshot.study, event.trial.uid, event.step, Verdict.CONTINUE, Reason.ABOVE))


@dataclass
class StopsAt:
    """Stops every trial but the first at a step, and says nothing of an incumbent."""

    step: float

    def check(self, snapshot: Snapshot, event: Event) -> Judgement:
        stop = event.step == self.step and snapshot.bank.n_complete > 0
        verdict = Verdict.STOP if stop else Verdict.CONTINUE
        return Judgement(Decision(snapshot.study, event.trial.uid, event.step, verdict, Reason.BELOW))


ORDER = [0, 1, 2, 3, 4]
ALLOCATORS = [RunToEnd(), Uniform(12, 0.1), AshaPromotion(0.1), GreedyGain(0.15)]


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_five_trials_by_hand(direction: Direction) -> None:
    task = task_of(CURVES, direction=direction)
    found = simulate(task, ORDER, Above())
    # a: 4 steps. b: stopped at 2. c: 4. d: stopped at 2 before its jump. e: 4.
    assert [(life.uid, life.status.name, life.shown, life.cost) for life in found.lives] == [
        ("a", "COMPLETE", 4, 4.0),
        ("b", "STOPPED", 2, 2.0),
        ("c", "COMPLETE", 4, 4.0),
        ("d", "STOPPED", 2, 2.0),
        ("e", "COMPLETE", 4, 4.0),
    ]
    assert [(life.begun, life.ended) for life in found.lives] == [(0, 4), (4, 6), (6, 10), (10, 12), (12, 16)]
    assert (found.spent, found.time, found.full_cost) == (16.0, 16.0, 20.0)
    # Best so far: 5, 4, 3, 2 of a; then 1 of c at its end.
    assert list(found.trace) == [(1, 1, 5), (2, 2, 4), (3, 3, 3), (4, 4, 2), (10, 10, 1)]
    # Looks: 3 of each whole trial (none at the last report), 2 of each stopped one.
    assert dict(found.reasons) == {Reason.ABOVE: 11, Reason.BELOW: 2}
    # Finals are a 2, b 6, c 1, d 0.5, e 4. d is the winner, and it was stopped; b had shown its best value.
    assert [life.uid for life in found.stopped] == ["b", "d"]
    assert [life.uid for life in found.lost(1)] == ["d"]
    assert [life.uid for life in found.lost(5)] == ["d"]
    # The incumbent of a at b's stop was 2, that of c at d's stop 1: only d (0.5) would have beaten its incumbent.
    assert [life.uid for life in found.wrong()] == ["d"]
    # Regret: the table's best is 0.5, its median 2.
    assert scale_of(task) == 1.5
    trace = trace_of(found, 4.0)  # in whole runs
    assert trace == [(0.25, 3.0), (0.5, 3.5 / 1.5), (0.75, 2.5 / 1.5), (1.0, 1.0), (2.5, 0.5 / 1.5)]
    grid = np.array([0.2, 0.25, 1.0, 2.0, 2.5, 5.0])
    np.testing.assert_allclose(regrets(trace, grid), [np.inf, 3.0, 1.0, 1.0, 1 / 3, 1 / 3])
    none = simulate(task, ORDER, Never())
    assert none.spent == none.full_cost == 20.0
    assert not none.lost(1)
    # No stopping ends at regret 0, at cost 4 of 5 runs; the rule never has it. The other way round: 1/3 is there at 2.5
    # and at 3 runs.
    grid = np.arange(1, 101) / 20
    mine, other = (regrets(t, grid)[None] for t in (trace, trace_of(none, 4.0)))
    assert speed_up(mine, other, grid) == (4 / 5, False)
    factor, arrived = speed_up(other, mine, grid)
    assert arrived
    assert factor == pytest.approx(2.5 / 3)
    assert speed_up(mine, mine, grid) == (1, True)


def test_a_final_value_counts_at_the_horizon_only() -> None:
    found = simulate(task_of(CURVES, judged="final"), ORDER, Above())
    assert list(found.trace) == [(4, 4, 2), (10, 10, 1)]
    assert [life.uid for life in found.lost(5)] == ["d", "b"]  # a stopped trial has no final value


def test_the_budget_ends_the_search_in_the_middle_of_a_trial() -> None:
    found = simulate(task_of(CURVES), ORDER, Above(), World(budget=7))
    assert [(life.uid, life.status.name, life.shown) for life in found.lives] == [
        ("a", "COMPLETE", 4),
        ("b", "STOPPED", 2),
        ("c", "RUNNING", 1),
    ]
    assert found.spent == 7
    assert found.lives[-1].ended is None


@pytest.mark.parametrize("workers", [1, 2, 8])
@pytest.mark.parametrize("latency", [0.0, 0.75])
def test_no_more_than_the_budget_is_spent(workers: int, latency: float) -> None:
    task = task_of({str(i): [9.0 - i - t for t in range(4)] for i in range(8)}, pace=1.5)
    for budget in (1.0, 6.0, 20.0, 31.0):
        world = World(workers=workers, budget=budget, latency=latency)
        found = simulate(task, range(8), Above(forecasts=True), world)
        assert found.spent <= budget
        assert all(spent <= found.spent for _, spent, _ in found.trace)
        assert sum(life.cost for life in found.lives) <= found.spent  # nothing that was begun is free
        if latency == 0:
            assert sum(life.cost for life in found.lives) == found.spent == 1.5 * (budget // 1.5)


def test_no_configuration_is_begun_when_the_budget_is_spent() -> None:
    found = simulate(task_of(CURVES), ORDER, Never(), World(budget=4))
    assert [(life.uid, life.status.name) for life in found.lives] == [("a", "COMPLETE")]
    five = simulate(task_of(CURVES), ORDER, Never(), World(budget=4, workers=5))
    assert [life.shown for life in five.lives] == [1, 1, 1, 1]  # four reports may be begun, so four configurations are
    assert found.spent == five.spent == 4
    assert five.time == 1


def test_a_budget_is_reached_by_costs_that_do_not_add_up_to_the_bit() -> None:
    found = simulate(task_of(CURVES, pace=0.1), ORDER, Never(), World(budget=1.2))
    assert [life.shown for life in found.lives] == [4, 4, 4]
    assert found.spent <= 1.2


def test_a_run_cut_off_in_its_first_report_has_shown_nothing() -> None:
    task = Task("two", Goal("loss", "minimize", 2), (Run("a", Curve.of([1, 2], [5, 4]), np.array([100.0, 200.0])),))
    found = simulate(task, [0], Never(), World(budget=1))
    assert [(life.shown, life.cost, life.status.name) for life in found.lives] == [(0, 0.0, "RUNNING")]
    assert (found.spent, list(found.trace)) == (0, [])
    assert found.found() == math.inf
    assert found.missed()


def test_a_verdict_that_the_budget_does_not_reach_stops_nothing() -> None:
    # a: 4 reports and 3 looks of half a unit, 5.5; b: 2 reports and a look, 8; its stop would be there at 8.5.
    found = simulate(task_of(CURVES), ORDER, Above(forecasts=True), World(latency=0.5, budget=8.25))
    assert (found.spent, found.lives[1].status, found.lives[1].stop) == (8, Status.RUNNING, None)


def test_a_value_that_is_not_finite_is_never_the_best() -> None:
    curves = {"a": [5, -math.inf, 4, 3], "b": [2, 2, 1, 1]}
    for direction in ("minimize", "maximize"):
        found = simulate(task_of(curves, direction=direction), [0, 1], Never())
        assert list(found.trace) == [(1, 1, 5), (3, 3, 4), (4, 4, 3), (5, 5, 2), (7, 7, 1)]


def test_looks_are_made_where_they_are_wanted() -> None:
    stopper = Above()
    simulate(task_of(CURVES), ORDER, stopper, World(looks=[2]))
    assert {event.step for _, event in stopper.seen} == {2}
    assert simulate(task_of(CURVES), ORDER, Above(), World(looks=[1, 3])).spent == 20


def test_workers_share_the_time_and_events_keep_their_order() -> None:
    stopper = Above()
    found = simulate(task_of(CURVES), ORDER, stopper, World(workers=2))
    # a and b side by side: nothing is COMPLETE at step 2, so b runs on. Then c and d from 4; d stops at 6; e until 10.
    assert [(life.uid, life.begun, life.ended) for life in found.lives] == [
        ("a", 0, 4),
        ("b", 0, 4),
        ("c", 4, 8),
        ("d", 4, 6),
        ("e", 6, 10),
    ]
    assert (found.spent, found.time) == (18, 10)
    # At one and the same time the trial begun first reports first.
    assert [event.trial.uid for _, event in stopper.seen][:4] == ["a", "b", "a", "b"]


def test_a_trial_waits_for_its_verdict() -> None:
    found = simulate(task_of(CURVES), ORDER[:2], Above(forecasts=True), World(latency=0.5))
    # a: 3 looks, 5.5 in all. b: stopped at its second look, half a unit after 2 reports and a wait.
    assert [(life.begun, life.ended, life.cost) for life in found.lives] == [(0, 5.5, 4), (5.5, 8.5, 2)]
    assert found.spent == 8.5
    held = simulate(task_of(CURVES), ORDER[:2], Above(), World(latency=0.5))
    assert held.spent == 6  # what a gate holds costs nothing


def test_a_worker_is_free_only_when_the_verdict_is_there() -> None:
    found = simulate(task_of(CURVES), [0, 3, 1, 4], Above(forecasts=True), World(workers=2, latency=2))
    assert all(life.ended is None or life.ended <= found.time for life in found.lives)
    begun = sorted(life.begun for life in found.lives)
    ended = sorted(life.ended for life in found.lives if life.ended is not None)
    assert begun[2:] == ended[: len(begun) - 2]  # the third begins when the first has ended, and so on


def test_measured_latency_is_charged_and_changes_no_verdict() -> None:
    fixed = simulate(task_of(CURVES), ORDER, Above(forecasts=True))
    found = simulate(task_of(CURVES), ORDER, Above(forecasts=True), World(latency=None))
    assert found.spent > fixed.spent
    assert [life.shown for life in found.lives] == [life.shown for life in fixed.lives]
    held = simulate(task_of(CURVES), ORDER, Above(), World(latency=None))
    assert held.spent == 16  # what a gate holds costs nothing, measured or not


def test_nobody_looks_ahead() -> None:
    curves = {str(i): list(np.random.default_rng(i).random(12)) for i in range(9)}
    task = task_of(curves)
    stopper = Above()
    simulate(task, list(range(9)), stopper, World(workers=3))
    for snapshot, event in stopper.seen:
        shown = {t.uid: t.curve for t in (*snapshot.bank, *snapshot.live)}
        assert event.step == event.trial.curve.last_step
        assert shown[event.trial.uid] == event.trial.curve
        for trial in snapshot.live:
            # Trials of one wave go in step: nobody is more than one report ahead.
            assert trial.curve == task.runs[int(trial.uid)].curve.cut(trial.curve.last_step)
            assert trial.curve.n_reports < 12
        assert all(t.status.finished for t in snapshot.bank)


def test_what_was_stopped_when_it_ran_is_censored() -> None:
    task = task_of(CURVES)
    runs = list(task.runs)
    runs[3] = Run("d", Curve.of([1, 2, 3], [7, 7, 7]), np.arange(1.0, 4), status=Status.STOPPED)
    runs[4] = Run("e", Curve.of([1], [4]), np.arange(1.0, 2), status=Status.FAILED)
    found = simulate(Task("five", task.goal, tuple(runs)), ORDER, Never())
    assert [life.status.name for life in found.lives] == ["COMPLETE", "COMPLETE", "COMPLETE", "STOPPED", "FAILED"]
    assert not found.stopped
    assert [found.known(life) for life in found.lives] == [True, True, True, False, False]
    pruned = simulate(Task("five", task.goal, tuple(runs)), ORDER, Above())
    assert [life.uid for life in pruned.stopped] == ["b", "d"]
    assert not pruned.wrong()  # nobody knows what would have become of d
    assert not pruned.lost(5)


def test_bad_arguments_are_named() -> None:
    task = task_of(CURVES)
    with pytest.raises(InvalidValue, match=r"simulate\(order=\): expected rows of 0..4, none twice, got \[0, 0\]"):
        simulate(task, [0, 0], Never())
    with pytest.raises(InvalidValue, match="expected 1 to 64 workers, got 65"):
        World(workers=65)
    with pytest.raises(InvalidValue, match=r"World\.budget: expected a cost > 0 or None, got nan"):
        World(budget=math.nan)
    with pytest.raises(InvalidValue, match=r"World\.latency: expected a cost >= 0, got -1"):
        World(latency=-1)


def same(one: History, two: History) -> bool:
    return (one.lives, one.trace, one.spent, one.time) == (two.lives, two.trace, two.spent, two.time)


def test_the_same_bits_again() -> None:
    rng = np.random.default_rng(3)
    task = task_of({str(i): list(rng.random(20).cumsum()[::-1]) for i in range(30)})
    world = World(workers=4, latency=0.25)
    assert same(
        simulate(task, task.order(1), Above(forecasts=True), world),
        simulate(task, task.order(1), Above(forecasts=True), world),
    )
    assert task.order(1) != task.order(2)
    assert task.order(1) == task.order(1)


def test_turns_cost_a_checkpoint_and_a_return() -> None:
    world = World(checkpoint=0.5, resume=0.25)
    found = simulate(task_of(CURVES), [0, 1], Never(), world, Uniform(quantum=0.5))
    # a 0-2; its checkpoint, b 2.5-4.5; its checkpoint and a's return, a 5.25-7.25; b's return, b 7.5-9.5.
    assert [(life.begun, life.ended, life.pauses) for life in found.lives] == [(0, 7.25, 1), (2, 9.5, 1)]
    assert found.spent == found.time == 9.5
    # Who goes on where he stands pays nothing.
    assert simulate(task_of(CURVES), [0], Never(), world, Uniform(quantum=0.5)).spent == 4


@dataclass
class Counting(Around):
    """Another allocator; counts pauses that its moves of the same moment do not undo."""

    allocator: Allocator
    paused: dict[str, float] = field(default_factory=dict)
    pauses: int = 0

    def allocate(self, state: Any, snapshot: Snapshot, forecasters: Any, abilities: Any, slots: Slots, key: Key) -> Any:
        made = super().allocate(state, snapshot, forecasters, abilities, slots, key)
        now = {t.uid: t.curve.last_step for t in snapshot.live if t.status is Status.PAUSED}
        new = [uid for uid, step in now.items() if self.paused.get(uid) != step]
        self.paused.update(now)
        self.pauses += sum(uid not in {move.uid for move in made.moves} for uid in new)
        return made


@pytest.mark.parametrize("workers", [1, 4, 16])
@pytest.mark.parametrize("allocator", [AshaPromotion(0.05), Uniform(12, 0.1)], ids=lambda a: a.name)
def test_every_pause_is_paid_for_unless_the_trial_goes_on_at_once(allocator: Allocator, workers: int) -> None:
    task = synthetic_task("power", 20, 1, n_steps=20)
    counting = Counting(allocator)
    found = simulate(task, task.order(0), Never(), World(workers=workers, checkpoint=1.0), counting)
    assert counting.pauses > 10 or (workers, allocator.name) == (16, "uniform")  # a worker an arm: all go on at once
    assert found.spent - sum(life.cost for life in found.lives) == counting.pauses


@dataclass
class Script:
    """Makes the moves it is told, one list an allocation, and then none."""

    moves: list[list[tuple[str | None, float]]]
    name: str = "script"

    def init(self) -> Any:
        return 0

    def questions(self, state: Any, snapshot: Snapshot, slots: Slots) -> tuple[Query, ...]:
        return ()

    def allocate(self, state: Any, snapshot: Snapshot, forecasters: Any, abilities: Any, slots: Slots, key: Key) -> Any:
        moves = self.moves[state] if state < len(self.moves) else []
        return Allocation(state + 1, tuple(Move(*move) for move in moves))


def test_who_is_told_what_steps_cost_ends_with_a_result() -> None:
    """8 of 30 seconds are left once "a" (a second a step) and "b" (ten) stand at step 2, where "b" is better."""
    task = task_of({"a": [5, 4, 3, 2], "b": [4, 3, 2, 1], "c": [9, 9, 9, 9]})
    slow = tuple(replace(run, clock=run.clock * (10.0 if run.uid == "b" else 1.0)) for run in task.runs)
    task, asha = replace(task, runs=slow), AshaPromotion(0.5, 2)
    untold, told = (simulate(task, [0, 1, 2], Never(), World(budget=30, timed=t), asha) for t in (False, True))
    assert [life.status.name for life in untold.lives] == ["PAUSED", "PAUSED"], "a step costs 5.5 on average"
    assert [(life.status.name, life.shown) for life in told.lives] == [("COMPLETE", 4), ("PAUSED", 2)]
    assert told.spent == 24
    with pytest.raises(InvalidValue, match=r"^World.budget: expected a budget beside timed, got None"):
        World(timed=True)


def test_the_worker_that_paused_writes_the_checkpoint() -> None:
    # One list of moves an event. a pauses at 2, and its worker writes until 3.5. b takes the idle one at 2, at once;
    # c is given a's worker at 3, and begins when it has written. a goes on at 6 where b was.
    moves: list[list[tuple[str | None, float]]] = [[(None, 2)], [], [], [(None, 4)], [], [(None, 4)], [("a", 4)]]
    found = simulate(task_of(CURVES), ORDER, Never(), World(workers=2, checkpoint=1.5), Script(moves))
    assert [(life.uid, life.begun, life.ended) for life in found.lives] == [("a", 0, 8), ("b", 2, 6), ("c", 3, 7.5)]
    assert found.spent == 4 + 4 + 4 + 1.5
    # Of two moves made at the pause, the second has to wait.
    both = simulate(
        task_of(CURVES), ORDER, Never(), World(workers=2, checkpoint=1.5), Script([*moves[:3], [(None, 4), (None, 4)]])
    )
    assert [life.ended for life in both.lives] == [None, 6, 7.5]


def test_a_checkpoint_is_paid_when_nobody_takes_the_worker() -> None:
    found = simulate(task_of(CURVES), ORDER, Never(), World(checkpoint=10), Script([[(None, 2)]]))
    assert (found.spent, found.time) == (12, 2)
    # Two allocations at the moment of a pause, with an idle worker: who goes on by the second stays where it is.
    script = Script([[(None, 2)], [], [], [(None, 4)], [("a", 4)]])
    stays = simulate(task_of(CURVES), ORDER, Never(), World(workers=2, checkpoint=10, resume=10), script)
    assert ([life.ended for life in stays.lives], stays.spent) == ([4, 6], 8)


def test_without_pauses_every_allocator_runs_to_the_end() -> None:
    task = synthetic_task("power", 9, 1, n_steps=9)
    found = simulate(task, task.order(0), Never(), World(pause=False), AshaPromotion(0.05))
    assert found.spent == found.full_cost
    assert same(found, simulate(task, task.order(0), Never()))


def test_an_allocator_that_breaks_its_contract_is_named() -> None:
    with pytest.raises(InvalidValue, match="expected the uid of a PAUSED trial"):
        simulate(task_of(CURVES), ORDER, Never(), World(), Script([[("nobody", 2)]]))


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("judged", ["best", "final"])
def test_wrong_is_what_would_have_beaten_the_incumbent(judged: Judged, workers: int) -> None:
    n = 0
    for kind in KINDS:
        task = synthetic_task(kind, 24, 1, n_steps=20, judged=judged)
        policy = Policy(n_startup_trials=3, min_observations=3, guard=0.0, min_comparisons=0)
        found = simulate(task, task.order(0), Gated(Median(0), policy), World(workers=workers))
        told = [(life, life.stop.incumbent) for life in found.stopped if life.stop and life.stop.incumbent]
        beaten = [life for life, best in told if task.judged[life.row] < task.goal.sign * best.value]
        assert [life for life in found.wrong() if life in [one for one, _ in told]] == beaten
        n += len(beaten)
    assert n > 0


def test_wrong_needs_no_incumbent_in_the_decision() -> None:
    found = simulate(task_of(CURVES), ORDER, Median(n_startup_trials=1))
    assert [life.uid for life in found.stopped if life.stop is not None and life.stop.incumbent is None] == [
        "b",
        "d",
        "e",
    ]
    assert [life.uid for life in found.wrong()] == ["d"]
    # Who had shown his judged value lost nothing, better than the incumbent or not.
    shown = task_of({"a": [5, 4, 3, 2], "b": [6, 1, 6, 6]})
    stopped = simulate(shown, [0, 1], StopsAt(3))
    assert [life.uid for life in stopped.stopped] == ["b"]
    assert not stopped.wrong()


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(
    "allocator", [RunToEnd(), Uniform(12, 0.1), AshaPromotion(0.1), GreedyGain(0.15)], ids=lambda a: a.name
)
def test_every_allocator_plays_a_task_to_its_end(allocator: Allocator, workers: int) -> None:
    task = synthetic_task("crossing", 20, 1, n_steps=18)
    world = World(workers=workers, budget=None, checkpoint=0.1, resume=0.1)
    found = simulate(task, task.order(0), Never(), world, allocator, [forecaster("rank-gap")])
    assert {life.status for life in found.lives} <= {Status.COMPLETE, Status.STOPPED}
    assert sum(life.status is Status.COMPLETE for life in found.lives) >= 1
    assert not found.stopped  # what an allocator gives up is no verdict
    assert found.spent >= sum(life.cost for life in found.lives) - 1e-9
    assert same(found, simulate(task, task.order(0), Never(), world, allocator, [forecaster("rank-gap")]))


def test_asha_spends_most_on_the_best() -> None:
    task = synthetic_task("power", 27, 2, n_steps=27)
    found = simulate(task, task.order(0), Never(), World(), AshaPromotion(0.05))
    assert found.spent < 0.6 * found.full_cost
    shown = [life.shown for life in sorted(found.lives, key=lambda life: task.judged[life.row])]
    assert np.mean(shown[:9]) > 2 * np.mean(shown[18:])


def test_an_allocator_hears_a_dead_forecaster_as_an_absent_one() -> None:
    class Dead:
        name, version = "dead", "1"

        def forecast(self, snapshot: Snapshot, queries: Any) -> Any:
            raise RuntimeError("no")

    found = simulate(task_of(CURVES), ORDER, Never(), World(workers=2), GreedyGain(0.5), [Dead()])
    assert {life.status for life in found.lives} == {Status.COMPLETE}


@pytest.mark.parametrize("kind", ["asha", "going-rate", "hyperband", "uniform"])
@pytest.mark.parametrize("prices", [(0.0, 0.0), (1.0, 3.0)])
@pytest.mark.parametrize("max_slice", [None, 2.0])
def test_a_budget_with_prices_and_slices_ends_with_a_result(
    kind: str, prices: tuple[float, float], max_slice: float | None
) -> None:
    """Where each checkpoint to come was in no account, or the leader was halted on its last way, 9 to 30 of 30 such
    studies ended without one, of several workers or of one."""
    steps, horizon = np.arange(1.0, 28.0), 27
    for seed in range(4):
        rng = np.random.default_rng(seed)
        runs = tuple(
            Run(str(i), Curve.of(steps, a + b / steps), steps) for i, (a, b) in enumerate(rng.uniform(0.1, 1, (14, 2)))
        )
        task = Task("t", Goal("loss", "minimize", horizon), runs)
        for workers in (1, 3):
            world = World(workers=workers, budget=75.0, checkpoint=prices[0], resume=prices[1])
            found = simulate(task, range(14), Above(), world, allocator(kind, max_slice=max_slice))
            assert found.spent <= 75.0
            assert any(life.status is Status.COMPLETE for life in found.lives), (seed, workers)


@dataclass
class Foresees:
    """Says of a configuration what its run will reach, given as the parameter "end"."""

    name: str = "foresees"
    version: str = "1"
    asked: list[int] = field(default_factory=list)

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        self.asked.append(len(queries))
        ends = np.array([float(query.trial.params["end"]) for query in queries])
        knots = np.stack([ends, ends + 0.1], 1)
        return Forecasts.of(knots, np.array([[0.0, 1.0]] * len(queries)), 0 * knots, sign=1.0, source="foresees/1")


def test_a_proposer_chooses_which_run_is_begun() -> None:
    task = task_of(CURVES)
    runs = tuple(replace(run, params={"end": min(run.values)}) for run in task.runs)
    task, foresees = replace(task, runs=runs), Foresees()
    proposer = ByForecast(sampler_share=0, n_startup=2)
    found = simulate(task, [4, 1, 2, 0, 3], Never(), World(), None, [foresees], proposer)
    # two of the order's own; a third without a report of three; then the best of what is left, "d" before "c"
    assert [life.uid for life in found.lives] == ["e", "b", "c", "d", "a"]
    assert foresees.asked == [2, 1]
    alone = simulate(
        task, [4, 1, 2, 0, 3], Never(), World(), None, [foresees], ByForecast(sampler_share=1, n_startup=0)
    )
    assert [life.uid for life in alone.lives] == ["e", "b", "c", "a", "d"]


@pytest.mark.parametrize(("timed", "expected"), [(True, [3.0, 28.0]), (False, None)])
def test_a_proposer_is_told_what_a_step_of_each_run_would_take(
    monkeypatch: pytest.MonkeyPatch, timed: bool, expected: list[float] | None
) -> None:
    """Five runs of width 1 to 16 have taken as many seconds a step; left are one of 3, and one of 32."""
    widths = (1, 2, 4, 8, 16, 3, 32)
    task = task_of({str(width): [5, 4, 3, 2] for width in widths})
    runs = (
        replace(run, params={"width": w, "end": 2}, clock=run.clock * w)
        for run, w in zip(task.runs, widths, strict=True)
    )
    told: list[Any] = []
    choose = ByForecast.choose

    def noted(self: ByForecast, *args: Any) -> Any:
        told.append(args[-1])
        return choose(self, *args)

    monkeypatch.setattr(ByForecast, "choose", noted)
    proposer = ByForecast(sampler_share=0, n_startup=5)
    world = World(budget=1e4, timed=timed)
    simulate(replace(task, runs=tuple(runs)), range(7), Never(), world, None, [Foresees()], proposer)
    assert told[0] == expected


@pytest.mark.parametrize("kind", ["power", "sor", "diverging"])
def test_looks_that_gates_hold_without_a_snapshot_change_nothing(kind: Kind) -> None:
    """A session that is asked at every report comes to the same, look by look."""

    class Asked(Session):
        pass

    task, policy = synthetic_task(kind, 24, 1, n_steps=30), Policy(threshold=0.1)
    short, whole = (
        simulate(task, task.order(0), made(policy, [RankAndGap()], deadline=math.inf, clock=lambda: 0.0))
        for made in (Session, Asked)
    )
    assert short.lives == whole.lives
    assert (short.spent, short.time, short.trace) == (whole.spent, whole.time, whole.trace)
    assert sum(short.reasons.values()) == sum(whole.reasons.values())
    judged = (Reason.BELOW, Reason.ABOVE, Reason.ABOVE_BEFORE, Reason.GUARD, Reason.DIVERGED, Reason.INCUMBENT)
    assert [short.reasons.get(reason) for reason in judged] == [whole.reasons.get(reason) for reason in judged]
    assert {Reason.BELOW, Reason.SPACED} <= set(short.reasons)
