"""What every allocator must keep. Run it on your own::

from kit.allocators import AllocatorKit

class TestMine(AllocatorKit):
    def make(self) -> Allocator:
        return MyAllocator()
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import strategies as st

from kit.builders import hold, mirrored
from kit.doubles import Dead, NormalAroundBest, NotANumber, Random, Scripted, Silent
from lcsearch.allocation.arms import Around, Price, StatelessAllocator, paused_trials, promised
from lcsearch.allocation.ask import ask
from lcsearch.allocation.contract import Abilities, Account, Allocation, Allocator, Key, Move, Slots, Time
from lcsearch.allocation.in_reach import in_reach
from lcsearch.allocation.judge import judge
from lcsearch.curves import Curve
from lcsearch.forecast.contract import Absent, Answer, Answers, Forecaster, Forecasts, Query
from lcsearch.goal import Direction, Goal, Judged
from lcsearch.stopping.decision import Decision
from lcsearch.stopping.gates import Event
from lcsearch.stopping.judge import Judgement
from lcsearch.stopping.verdict import Reason, Verdict
from lcsearch.study import FinishedTrials, Snapshot, Status, Trial

PAUSES = Abilities(pause=True)
RUNS_ON = Abilities(pause=False)


def passed_on(state: Any) -> Any:
    """The state as the next process reads it."""
    return json.loads(json.dumps(state, allow_nan=False))


def heard(forecasters: Sequence[Forecaster], snapshot: Snapshot, queries: Sequence[Query]) -> Answers:
    """The forecasts of all; of one that raises, FAILED for every question."""
    said: dict[str, list[Answer]] = {}
    for who in forecasters:
        try:
            answers: Forecasts = who.forecast(snapshot, queries)
        except RuntimeError:
            said[who.name] = [Absent.FAILED] * len(queries)
        else:
            said[who.name] = [answers.row(i) for i in range(len(queries))]
    return said


@dataclass
class Plot:
    """A made-up study: what its trials will report, and what befalls them.

    Attributes:
        losses: of configuration i at each step; its report is `sign * loss`. NaN allowed.
        first: the step of the first report.
        every: steps from one report to the next.
        fails: configurations that break down instead of pausing for the first time.
        paces: of configuration i, what a step of it takes, beside a usual one of 1 second; then the budget is in
            seconds, the same for each of the workers. (): nothing is timed.
    """

    losses: Sequence[Sequence[float]]
    direction: Direction = "minimize"
    judged: Judged = "best"
    first: int = 1
    every: int = 1
    workers: int = 1
    fails: frozenset[int] = frozenset()
    budget: float | None = None
    seed: int = 0
    paces: Sequence[float] = ()

    @property
    def goal(self) -> Goal:
        reports = max(len(row) for row in self.losses)
        return Goal("metric", self.direction, self.first + self.every * (reports - 1) or 1, self.judged)


@dataclass
class World:
    """Workers that do as an allocator bids, in no particular order of finishing: `seed` decides.

    Attributes:
        plot: what will come.
        begun: uid -> configuration's index.
        trials: uid -> the trial as it stands.
        running: uid -> the step at which it is to pause.
        given_up: uids in `stops`.
        log: the moves, in order.
        spent: steps run.
    """

    plot: Plot
    begun: dict[str, int] = field(default_factory=dict)
    trials: dict[str, Trial] = field(default_factory=dict)
    running: dict[str, float] = field(default_factory=dict)
    given_up: set[str] = field(default_factory=set)
    log: list[Move] = field(default_factory=list)
    spent: float = 0.0

    def __post_init__(self) -> None:
        self.goal = self.plot.goal
        self.bank = FinishedTrials(self.goal)
        self.chance = random.Random(self.plot.seed)

    @property
    def fresh(self) -> int:
        return len(self.plot.losses) - len(self.begun)

    @property
    def free(self) -> int:
        return self.plot.workers - len(self.running)

    @property
    def live(self) -> list[Trial]:
        return [trial for trial in self.trials.values() if not trial.status.finished]

    @property
    def paused(self) -> list[str]:
        return [trial.uid for trial in self.live if trial.status is Status.PAUSED]

    def snapshot(self) -> Snapshot:
        return Snapshot("kit", self.goal, self.bank, tuple(self.live))

    def slots(self) -> Slots:
        if not self.plot.paces or self.plot.budget is None:
            return Slots(self.free, self.fresh, Account(self.plot.budget, self.spent))
        due = [(max(self.trials[uid].curve.last_step, 0.0), end, self._pace(uid)) for uid, end in self.running.items()]
        left = self.plot.budget - self.spent / self.plot.workers
        time = Time(max(left, 0.0), 1.0, {uid: self._pace(uid) for uid in self.begun})
        total, coming = self.plot.budget * self.plot.workers, promised(due, self.goal.horizon, 0.0, here=False)
        return Slots(self.free, self.fresh, Account(total, self.spent, promised=coming, time=time))

    def _pace(self, uid: str) -> float:
        return self.plot.paces[self.begun[uid] % len(self.plot.paces)] if self.plot.paces else 1.0

    def poor(self, moves: Sequence[Move]) -> bool:
        """Would what `moves` leave of the budget bring no other arm to the horizon?"""
        slots, moved = self.slots(), [move.uid for move in moves]
        left = slots.account.left - sum(map(Price(self.snapshot(), slots).of, moves))
        paused = (self.trials[uid].curve.last_step for uid in self.paused if uid not in moved)
        ways = [self.goal.horizon - max(step, 0.0) for step in paused]
        return all(way > left for way in [*ways, *[self.goal.horizon] * (self.fresh > moved.count(None))])

    def apply(self, allocation: Allocation) -> None:
        """Start what is to be moved; end what is given up."""
        for uid, _ in allocation.stops:
            self.given_up.add(uid)
            self._end(replace(self.trials[uid], status=Status.STOPPED))
        for move in allocation.moves:
            uid = str(len(self.begun)) if move.uid is None else move.uid
            if move.uid is None:
                self.begun[uid] = len(self.begun)
                self.trials[uid] = Trial(uid)
            self.trials[uid] = replace(self.trials[uid], status=Status.RUNNING)
            self.running[uid] = move.pause_at
            self.log.append(move)

    def advance(self) -> None:
        """Some of the running trials, in any order, get to where they were to go."""
        uids = sorted(self.running)
        for uid in self.chance.sample(uids, self.chance.randint(min(len(uids), 1), len(uids))):
            self._arrive(uid)

    def _arrive(self, uid: str) -> None:
        """At the first report there or beyond."""
        until, i, plot = self.running.pop(uid), self.begun[uid], self.plot
        old = self.trials[uid]
        steps = [plot.first + plot.every * j for j in range(len(plot.losses[i]))]
        n = min(sum(step < until for step in steps) + 1, len(steps))
        n = max(n, old.curve.n_reports)
        curve = Curve.of(steps[:n], self.goal.sign * np.array(plot.losses[i][:n], np.float64))
        self.spent += max(curve.last_step - max(old.curve.last_step, 0.0), 0.0) * self._pace(uid)
        trial = replace(old, curve=curve)
        if i in plot.fails:
            self._end(replace(trial, status=Status.FAILED))
        elif n == len(steps):
            self._end(replace(trial, status=Status.COMPLETE))
        else:
            self.trials[uid] = replace(trial, status=Status.PAUSED)

    def _end(self, trial: Trial) -> None:
        self.trials[trial.uid] = trial
        self.bank = self.bank.extend([trial])


FORECASTERS: Mapping[str, tuple[Forecaster, ...]] = {
    "normal": (NormalAroundBest(),),
    "random": (Random(),),
    "two": (NormalAroundBest(), Random()),
    "one of two is dead": (NormalAroundBest(), Dead()),
    "hopeless": (Scripted(0.0),),
    "certain": (Scripted(1.0),),
    "dead": (Dead(),),
    "nan": (NotANumber(),),
    "off law": (Silent(),),
    "nobody": (),
}
"""Who is asked."""

rows = st.lists(st.one_of(st.floats(-2, 2, width=16), st.just(float("nan"))), min_size=1, max_size=12)


@st.composite
def plots(draw: st.DrawFn) -> Plot:
    """Small studies with everything that happens: ties, NaN, short and silent trials, failures, sparse reports."""
    configurations = draw(st.lists(rows, min_size=1, max_size=10))
    n = len(configurations)
    return Plot(
        configurations,
        draw(st.sampled_from(["minimize", "maximize"])),
        draw(st.sampled_from(["best", "final"])),
        first=draw(st.sampled_from([0, 1, 3])),
        every=draw(st.sampled_from([1, 1, 4])),
        workers=draw(st.integers(1, 4)),
        fails=draw(st.frozensets(st.integers(0, n - 1), max_size=2)),
        budget=draw(st.one_of(st.none(), st.integers(0, 60))),
        seed=draw(st.integers(0, 3)),
    )


people = st.sampled_from(sorted(FORECASTERS))
PLOTS = plots()
ASKED = st.tuples(PLOTS, people)
TIMED = st.tuples(PLOTS, st.lists(st.sampled_from([0.25, 1.0, 8.0, 64.0]), min_size=1), st.integers(1, 60), people)


class AllocatorKit:
    """The tests. `make` gives a fresh allocator; the attributes say what it leaves undone on purpose."""

    #: It may leave a slot free although an arm is there; but when nothing runs it must move or give up at least one.
    waits: ClassVar[bool] = False
    #: Configurations it begins at most; None: all.
    arms: ClassVar[int | None] = None

    def make(self) -> Allocator:
        """A fresh allocator under test."""
        raise NotImplementedError

    def step(
        self, state: Any, snapshot: Snapshot, who: str, slots: Slots, key: Key, abilities: Abilities = PAUSES
    ) -> Allocation:
        """One allocation as production makes it, by a fresh allocator."""
        asked = ask(self.make(), state, snapshot, abilities, slots, key)
        return judge(asked, heard(FORECASTERS[who], snapshot, asked.queries))

    def may_begin(self, world: World) -> int:
        """How many configurations the policy could still begin."""
        return world.fresh if self.arms is None else max(min(world.fresh, self.arms - len(world.begun)), 0)

    def play(self, plot: Plot, who: str, abilities: Abilities = PAUSES) -> World:
        """Go on until no arm is left; a move takes its trial to one more report at least, so there is an end.

        Raises:
            AssertionError: slots stand free for no reason.
            InvalidValue: a move is not legal.
        """
        world, state, turn = World(plot), passed_on(self.make().init()), 0
        while True:
            if world.free:
                n_arms = len(world.paused) + self.may_begin(world)
                done = self.step(state, world.snapshot(), who, world.slots(), (plot.seed, turn), abilities)
                state, turn = passed_on(done.state), turn + 1
                n_served = len(done.moves) + len(done.stops)
                poor = world.poor(done.moves)
                assert n_served >= min(world.free, n_arms) or self.waits or poor, "a slot is left free"
                assert n_served or world.running or not n_arms or poor, "nothing runs and nothing is moved"
                told = {wait.uid for wait in done.waits}
                served = {move.uid for move in done.moves} | {uid for uid, _ in done.stops}
                left = {t.uid for t in paused_trials(world.snapshot())} - served
                assert told == left, "every trial that waits is told what for"
                world.apply(done)
                if poor and not n_served and not world.running:
                    return world
            if not world.running:
                if not world.paused and not self.may_begin(world):
                    return world
                continue
            world.advance()

    def assert_all_done(self, world: World) -> None:
        """Every trial that was begun is at the horizon, failed, or was given up; every arm was begun."""
        if world.plot.budget is None:
            assert self.may_begin(world) == 0
        for uid, trial in world.trials.items():
            assert trial.status is not Status.PAUSED or world.plot.budget is not None, uid
            assert (trial.status is Status.STOPPED) == (uid in world.given_up)

    def test_is_an_allocator(self) -> None:
        one = self.make()
        assert isinstance(one, Allocator)
        assert one.name
        assert passed_on(one.init()) == passed_on(self.make().init())

    def test_every_move_is_legal_and_every_study_ends(self) -> None:
        hold(ASKED, lambda asked: self.assert_all_done(self.play(*asked)))

    def test_what_cannot_pause_runs_to_the_end(self) -> None:
        def holds(asked: tuple[Plot, str]) -> None:
            world = self.play(*asked, RUNS_ON)
            self.assert_all_done(world)
            assert len(world.log) == len(world.begun)
            assert {move.pause_at for move in world.log} <= {world.goal.horizon}

        hold(ASKED, holds)

    def test_nobody_gets_a_slot_who_cannot_end_in_time(self) -> None:
        def holds(asked: tuple[Plot, list[float], int, str]) -> None:
            plot, paces, seconds, who = asked
            world, state = World(replace(plot, paces=paces, budget=seconds)), self.make().init()
            for turn in range(200):
                while world.free:
                    seen, slots = world.snapshot(), world.slots()
                    made = self.step(state, seen, who, slots, (plot.seed, turn))
                    state, price, time = passed_on(made.state), Price(seen, slots), slots.account.time
                    assert time is not None
                    ways = {uid: price.of(Move(uid, world.goal.horizon)) for uid in (*world.paused, None)}
                    assert all(ways[move.uid] <= time.left for move in made.moves)
                    assert {uid for uid, way in ways.items() if uid and way > time.left} <= {w.uid for w in made.waits}
                    assert not (made.stops and in_reach(seen, slots)[1].closing), "nobody is cut for want of time"
                    able = any(ways[uid] <= min(time.left, slots.account.left) for uid in world.paused)
                    assert made.moves or made.stops or world.running or not able, "whoever can end is not left to wait"
                    world.apply(made)
                    if not made.moves:
                        break
                if not world.running:
                    return
                world.advance()
            raise AssertionError("no end")

        hold(TIMED, holds)

    @pytest.mark.parametrize("who", FORECASTERS)
    def test_nobody_is_cut_where_time_lets_nothing_new_begin(self, who: str) -> None:
        """Each of six needs 12.5 s to its end, a new one 108 s, and 30 s are left."""
        goal, paces = Goal("metric", "minimize", 27.0), {str(i): 0.5 for i in range(6)}
        live = tuple(
            Trial(uid, Curve.of([1, 2], [2.0 + i, 1.0 + i]), status=Status.PAUSED) for i, uid in enumerate(paces)
        )
        slots = Slots(1, 9, Account(1000.0, 12.0, time=Time(30.0, 4.0, paces)))
        made = self.step(self.make().init(), Snapshot("kit", goal, FinishedTrials(goal), live), who, slots, (0, 0))
        assert made.stops == ()
        assert len(made.moves) == 1
        assert len(made.waits) == 5

    def test_same_history_same_moves(self) -> None:
        hold(ASKED, lambda asked: self.assert_same_moves(*asked))

    def assert_same_moves(self, plot: Plot, who: str) -> None:
        """On the way through one study: again, in another order, mirrored, with the state as it was handed out."""
        world, state = World(plot), self.make().init()
        for turn in range(12):
            if world.free:
                seen, slots, key = world.snapshot(), world.slots(), (plot.seed, turn)
                done = self.step(state, seen, who, slots, key)
                assert self.step(state, seen, who, slots, key) == done, "again"
                turned = self.step(state, replace(seen, live=seen.live[::-1]), who, slots, key)
                assert turned == done, "in another order"
                assert self.step(state, mirrored(seen), who, slots, key) == done, "mirrored"
                stored = self.step(passed_on(state), seen, who, slots, key)
                assert stored[1:] == done[1:], "with the state from a file"
                assert passed_on(stored.state) == passed_on(done.state)
                state = done.state
                world.apply(done)
            world.advance()

    @pytest.mark.parametrize("who", FORECASTERS)
    @pytest.mark.parametrize("workers", [1, 3])
    def test_an_ordinary_study(self, who: str, workers: int) -> None:
        rng = np.random.default_rng(0)
        t = np.arange(1.0, 13.0)
        losses = rng.uniform(0.1, 0.5, (12, 1)) + rng.uniform(0.4, 1.6, (12, 1)) * t ** -rng.uniform(0.3, 1.2, (12, 1))
        self.assert_all_done(self.play(Plot(losses.tolist(), workers=workers), who))

    @pytest.mark.parametrize("who", FORECASTERS)
    @pytest.mark.parametrize("finished", [0, 1, 4])
    def test_strange_trials(self, who: str, finished: int) -> None:
        """Paused ones that nobody has met: without a report, with none but NaN, at the horizon, before step 0."""
        nan, horizon = float("nan"), 10.0
        goal = Goal("metric", "minimize", horizon)
        curves = {
            "0": Curve(), "1": Curve.of([1], [nan]), "2": Curve.of([1, 2, 3, 4], [nan] * 4),
            "3": Curve.of([0, 1, 2], [1.0, nan, nan]), "4": Curve.of([-3, -2], [1.0, 0.5]),
            "5": Curve.of([9.999], [0.1]), "6": Curve.of([1, 2], [1e308, -1e308]),
            "7": Curve.of([1, 2], [float("inf"), -float("inf")]), "8": Curve.of([1e-300], [0.5]),
        }  # fmt: skip
        over = {"at": Curve.of([1, 10], [0.5, 0.4]), "beyond": Curve.of([1, 14], [0.5, 0.4])}
        live = [Trial(uid, curve, status=Status.PAUSED) for uid, curve in (curves | over).items()]
        live.append(Trial("runs", Curve.of([1], [0.5])))
        bank = FinishedTrials(goal).extend(
            Trial(f"{i:03}", Curve.of([0, 1, 5, 10], [1.0, 0.9, 0.8, 0.7 + i]), status=Status.COMPLETE)
            for i in range(finished)
        )
        for slots in (Slots(1, 0), Slots(1, 5), Slots(20, 0), Slots(20, 3), Slots(2, 10**9)):
            done = self.step(self.make().init(), Snapshot("kit", goal, bank, tuple(live)), who, slots, (0, 0))
            assert not {move.uid for move in done.moves} & set(over), "there is nothing left to run"
            if not self.waits and self.arms is None:
                assert len(done.moves) == min(slots.free, len(curves) + slots.n_new_allowed)

    def test_nothing_to_do(self) -> None:
        goal = Goal("metric", "minimize", 10)
        live = (Trial("0", Curve.of([1], [0.5])),)
        for abilities in (PAUSES, RUNS_ON):
            for who in ("nobody", "normal"):
                seen = Snapshot("kit", goal, FinishedTrials(goal), live)
                done = self.step(self.make().init(), seen, who, Slots(2, 0), (0, 0), abilities)
                assert done.moves == ()
                assert done.stops == ()

    def test_global_random_state_is_left_alone(self) -> None:
        def global_state() -> list[Any]:
            name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
            return [name, keys.tolist() if isinstance(keys, np.ndarray) else keys, rest, random.getstate()]

        before = global_state()
        world, state = World(Plot([[1.0, 0.5, 0.2]] * 4, workers=2)), self.make().init()
        done = self.step(state, world.snapshot(), "random", world.slots(), (0, 0))
        world.apply(done)
        assert global_state() == before

    def test_the_state_handed_in_is_left_alone(self) -> None:
        world, state = World(Plot([[1.0, 0.5, 0.2]] * 4, workers=2)), self.make().init()
        for turn in range(6):
            if world.free:
                before = json.dumps(state)
                done = self.step(state, world.snapshot(), "normal", world.slots(), (0, turn))
                assert json.dumps(state) == before
                state = done.state
                world.apply(done)
            world.advance()


@dataclass(frozen=True)
class Says(StatelessAllocator):
    """An allocator that answers every call alike, whatever it is asked: for what the engine must catch."""

    moves: Any = ()
    stops: Any = ()
    name: str = "says"

    def allocate(
        self, state: Any, snapshot: Snapshot, forecasts: Answers, abilities: Abilities, slots: Slots, key: Key
    ) -> Allocation:
        """What it always says."""
        return Allocation(state, self.moves, self.stops)


@dataclass(frozen=True)
class Faulty:
    """Another allocator, spoiled in one way that every single allocation hides: for what the kit must catch."""

    inner: Allocator
    fault: str
    name: str = "faulty"
    made: list[int] = field(default_factory=list, compare=False)

    def init(self) -> Any:
        """A set is no JSON."""
        return {1, 2} if self.fault == "state is no JSON" else {"inner": self.inner.init(), "calls": []}

    def questions(self, state: Any, snapshot: Snapshot, slots: Slots) -> tuple[Query, ...]:
        """What the inner one asks."""
        return self.inner.questions(state["inner"], snapshot, slots)

    def allocate(
        self, state: Any, snapshot: Snapshot, forecasts: Answers, abilities: Abilities, slots: Slots, key: Key
    ) -> Allocation:
        """The inner one's allocation, spoiled."""
        if self.fault == "state is changed in place":
            state["calls"].append(1)
        if self.fault == "global random numbers":
            random.random()
        done = self.inner.allocate(state["inner"], snapshot, forecasts, abilities, slots, key)
        moves = list(done.moves)
        paused = [trial for trial in snapshot.live if trial.status is Status.PAUSED]
        if self.fault == "nothing is moved":
            moves = []
        elif self.fault == "nothing is begun":
            moves = [move for move in moves if move.uid is not None]
        elif self.fault == "half of the slots":
            moves = moves[: (len(moves) + 1) // 2]
        elif self.fault == "nothing goes on":
            moves = [move for move in moves if move.uid is None]
        elif self.fault == "the order of live" and paused and moves:
            moves[0] = moves[0]._replace(uid=paused[0].uid, pause_at=snapshot.goal.horizon)
            moves = [m for i, m in enumerate(moves) if i == 0 or m.uid != paused[0].uid]
        elif self.fault == "the sign of values" and moves:
            total = math.fsum(value for trial in snapshot.live for value in trial.curve.values.tolist())
            moves = [move._replace(score=total) for move in moves]
        elif self.fault == "memory outside the state":
            self.made.append(1)
            moves = [m._replace(score=len(self.made)) for m in moves]
        elif self.fault == "absent forecasts" and any(
            isinstance(o, Absent) for said in forecasts.values() for o in said
        ):
            raise RuntimeError("nobody answers")
        gone = {move.uid for move in moves}
        waits = tuple(wait for wait in done.waits if wait.uid not in gone)
        return Allocation({**state, "inner": done.state}, tuple(moves), done.stops, waits)


@dataclass(frozen=True)
class Recorded(Around):
    """Another allocator, and all that was said to it and by it: (slots, key, moves, stops) of each allocation."""

    allocator: Allocator
    said: list[tuple[Slots, Key, tuple[Move, ...], tuple[tuple[str, str], ...]]] = field(
        default_factory=list, compare=False
    )

    def allocate(
        self, state: Any, snapshot: Snapshot, forecasts: Answers, abilities: Abilities, slots: Slots, key: Key
    ) -> Allocation:
        made = super().allocate(state, snapshot, forecasts, abilities, slots, key)
        self.said.append((slots, key, made.moves, made.stops))
        return made

    @property
    def moves(self) -> list[tuple[str | None, float]]:
        return [(move.uid, move.pause_at) for _, _, moves, _ in self.said for move in moves]

    @property
    def stops(self) -> list[str]:
        return [uid for _, _, _, stops in self.said for uid, _ in stops]


class Never:
    """Stops nothing."""

    def check(self, snapshot: Snapshot, event: Event) -> Judgement:
        return Judgement(Decision(snapshot.study, event.trial.uid, event.step, Verdict.CONTINUE, Reason.ABOVE))
