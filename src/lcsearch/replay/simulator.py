"""The simulator: a search over runs that are known already, under a virtual clock, decided by production's own code.

An event heap ordered by (time, counter) holds the next report of every trial that trains. A report is shown when its
time has come, never before; the look it triggers goes to a :class:`~lcsearch.replay.stopper.Stopper`, a free worker to
an allocator. Nothing else reads a run, so nobody looks ahead. With a fixed latency the same arguments give the same
bits; `latency=None` charges what forecasts took on this machine instead.
"""

from __future__ import annotations

import heapq
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lcsearch.allocation.allocators.run_to_end import RunToEnd
from lcsearch.allocation.arms import account, promised, steps_done
from lcsearch.allocation.ask import ask
from lcsearch.allocation.contract import Abilities, Account, Allocator, Move, Slots, Time
from lcsearch.allocation.judge import judge
from lcsearch.allocation.paces import of_new, predicted, rounded
from lcsearch.allocation.turns import verdict_at
from lcsearch.data.task import Run, Task
from lcsearch.errors import InvalidValue, is_finite_number
from lcsearch.forecast.contract import Absent, Answer, Forecaster, Query
from lcsearch.proposal import Proposer
from lcsearch.replay.history import History, RunOutcome
from lcsearch.replay.prefetching import Missing, Wanted, answer
from lcsearch.replay.stopper import Stopper
from lcsearch.session.session import Session
from lcsearch.stopping.decision import Decision
from lcsearch.stopping.gates import Event, early_gates
from lcsearch.stopping.policy import Policy
from lcsearch.stopping.verdict import Reason, Verdict
from lcsearch.study import FinishedTrials, Snapshot, Status, Trial, judged_loss


@dataclass(frozen=True)
class World:
    """What a search is run in.

    Attributes:
        workers: trials that train at once, 1 to 64.
        budget: cost that may be spent, in the task's unit, over all trials; None: until every run has been begun and
            has ended. It is spent on a report when the report is begun. What would exceed it is not begun, nor is
            anything after that; what several workers have under way by then is still shown.
        looks: the steps at which a look is made; None: at every report. At a run's last report none is made, for there
            is nothing left to save; production, which cannot know that a run is about to fail, would look. But where a
            run had been stopped one is: whoever decides now may come to the same.
        latency: cost of a look that reached a forecaster, in the task's unit, during which the trial waits; None: the
            seconds the stopper took over it, times `per_second`. Of a forecaster with a memo (see
            :class:`~lcsearch.replay.prefetching.PrefetchingForecaster`) these are no measure: make the stopper without
            one.
        per_second: units of the task's clock in one second, for `latency=None`.
        checkpoint: cost of pausing a trial. Its worker pays, and is busy that long, before it takes another; nothing
            for a trial that goes on at once where it stands.
        resume: cost of going on with a paused one.
        timed: allocators are told what a step of each trial costs, by its reports or as :func:`predicted
            <lcsearch.allocation.paces.predicted>`, as they are in a sweep with a limit in seconds; needs a budget, of
            which a worker has its share. Else all they know is the mean cost of a step so far.
        pause: whether trials can be paused; without it every allocator begins new configurations only, each to run to
            its end or its stop.
        seed: of the allocator's random choices.
    """

    workers: int = 1
    budget: float | None = None
    looks: Collection[float] | None = None
    latency: float | None = 0.0
    per_second: float = 1.0
    checkpoint: float = 0.0
    resume: float = 0.0
    pause: bool = True
    seed: int = 0
    timed: bool = False

    def __post_init__(self) -> None:
        if not (isinstance(self.workers, int) and 1 <= self.workers <= 64):
            raise InvalidValue("1 to 64 workers", self.workers, "World.workers")
        if self.budget is not None and not (is_finite_number(self.budget) and self.budget > 0):
            raise InvalidValue("a cost > 0 or None", self.budget, "World.budget")
        if self.timed and self.budget is None:
            raise InvalidValue("a budget beside timed", None, "World.budget")
        if self.looks is not None:
            object.__setattr__(self, "looks", frozenset(float(step) for step in self.looks))
        for name in ("checkpoint", "resume", "latency", "per_second"):
            value = getattr(self, name)
            if value is not None and not (is_finite_number(value) and value >= 0):
                raise InvalidValue("a cost >= 0", value, f"World.{name}")


@dataclass
class _Begun:
    """A run that has been begun: how much of it was shown, and where it stands."""

    row: int
    run: Run
    begun: float
    trial: Trial
    shown: int = 0
    until: float = math.inf
    ended: float | None = None
    place: int | None = None
    stop: Decision | None = None
    pauses: int = 0
    waits: bool = False

    def life(self) -> RunOutcome:
        """For the history."""
        run, n = self.run, self.shown
        cost, step = (float(run.clock[n - 1]), run.steps[n - 1]) if n else (0.0, -math.inf)
        status = self.trial.status
        stop = self.stop if status is Status.STOPPED else None  # not when the budget ended before the wait for it
        return RunOutcome(
            run.uid, self.row, status, n, step, cost, self.begun, self.ended, stop, self.pauses, self.place
        )


def simulate(
    task: Task,
    order: Sequence[int],
    stopper: Stopper,
    world: World | None = None,
    allocator: Allocator | None = None,
    forecasters: Sequence[Forecaster] = (),
    proposer: Proposer | None = None,
) -> History:
    """Search `task` and say what became of every run.

    Args:
        task: the runs.
        order: rows of `task.runs` in the order in which new configurations are begun; none twice.
        stopper: decides looks.
        world: workers, budget, looks, costs.
        allocator: picks arms; None: every run goes to its end or its stop, in order.
        forecasters: forecasters that the questions of the allocator, and of the proposer, are put to.
        proposer: chooses among all runs that have not been begun, the next one in order being the sampler's; None:
            they are begun in order.

    Raises:
        InvalidValue: a row that is not there or comes twice, or an allocator that breaks its contract. Whatever an
            allocator raises comes through as well: production goes on with RunToEnd then, a replay shows the fault.
    """
    if len(set(order)) != len(order) or not all(0 <= row < len(task) for row in order):
        raise InvalidValue(f"rows of 0..{len(task) - 1}, none twice", list(order)[:10], "simulate(order=)")
    search = _Search(task, order, stopper, world or World(), allocator or RunToEnd(), tuple(forecasters), proposer)
    for wanted in search.run():
        answer([wanted])
    return search.history()


def simulate_all(
    task: Task,
    searches: Sequence[tuple[Sequence[int], Stopper]],
    world: World | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[History]:
    """Searches over one task, side by side: what their stoppers wait for is forecast for all of them at once.

    Each goes as :func:`simulate` would have it go, for none sees anything of another.

    Args:
        task: the runs.
        searches: an order and a stopper each.
        world: of them all.
        progress: told now and then how many trials have ended, of all searches together.
    """
    holds: _Holds = {}
    made = [_Search(task, order, stopper, world or World(), RunToEnd(), (), holds=holds) for order, stopper in searches]
    going = [(search, search.run()) for search in made]
    while going:
        wanted, still = [], []
        for search, steps in going:
            if (one := next(steps, None)) is not None:
                wanted.append(one)
                still.append((search, steps))
            elif progress is not None:
                progress(sum(len(search.bank) for search in made))
        going = still
        answer(wanted)
        if progress is not None:
            progress(sum(len(search.bank) for search in made))
    return [search.history() for search in made]


_Holds = dict[tuple[Policy, int], tuple[list[Reason | None], list[Reason | None]]]
"""By the knobs of the gates and a run's row, see :func:`_early_holds`."""


class _Search:
    """One search while it goes on."""

    def __init__(
        self,
        task: Task,
        order: Sequence[int],
        stopper: Stopper,
        world: World,
        allocator: Allocator,
        forecasters: tuple[Forecaster, ...],
        proposer: Proposer | None = None,
        holds: _Holds | None = None,
    ) -> None:
        self.task, self.stopper, self.world, self.proposer = task, stopper, world, proposer
        self.allocator, self.forecasters = allocator, forecasters
        self.abilities = Abilities(pause=world.pause)
        self.state: Any = allocator.init()
        self.fresh = list(reversed(order))
        self.begun: dict[str, _Begun] = {}
        self.chosen: dict[str, bool] = {}  # of what the proposer was asked for
        self.live: dict[str, _Begun] = {}
        self.bank = FinishedTrials(task.goal)
        self.heap: list[tuple[float, int, str]] = []
        self.events = self.allocations = self.n_paused = 0
        self.now = self.spent = self.paid = 0.0  # the last for checkpoints and resumes, within `spent`
        self.budget = math.inf if world.budget is None else float(world.budget)
        self.over = False
        self.ready = [0.0] * world.workers  # a heap: since when, or from when on, each free worker may begin
        self.here: str | None = None  # a trial that paused just now, at a worker that is not in `ready` yet
        self.policy = replace(stopper.policy, threshold=1.0) if type(stopper) is Session else None  # of its gates
        self.holds: _Holds = {} if holds is None else holds
        self.low = math.inf
        self.trace: list[tuple[float, float, float]] = []
        self.reasons: Counter[Reason] = Counter()

    def run(self) -> Iterator[Wanted]:
        """Until nothing runs any more; once the budget is spent nothing more is begun.

        Yields what a look cannot be decided without: it is tried again when the search is to go on.
        """
        self._fill()
        while self.heap:
            self.now, _, uid = heapq.heappop(self.heap)
            yield from self._report(self.begun[uid])
            self._fill()

    def history(self) -> History:
        """What became of it."""
        lives = tuple(b.life() for b in self.begun.values())
        return History(self.task, lives, tuple(self.trace), self.spent, self.now, dict(self.reasons))

    def snapshot(self) -> Snapshot:
        """The study as a production adapter would see it now."""
        return Snapshot(self.task.name, self.task.goal, self.bank, tuple(b.trial for b in self.live.values()))

    def account(self, snapshot: Snapshot) -> Account:
        """What there is to spend, in steps: the task's unit of cost by the mean cost of a step so far."""
        found, world, time = account(snapshot), self.world, self._time()
        a_step = (self.spent - self.paid) / found.spent if found.spent else self._first_step
        if time is not None:
            a_step = time.usual
            found = found._replace(spent=(self.spent - self.paid) / a_step, time=time)
        total = None if world.budget is None else world.budget / a_step
        running = (b for b in self.live.values() if b.trial.status is Status.RUNNING)
        checkpoint, resume, paid = (cost / a_step for cost in (world.checkpoint, world.resume, self.paid))
        turns = [(steps_done(b.trial), b.until, found.step(b.run.uid)) for b in running]
        due = promised(turns, self.task.goal.horizon, checkpoint, here=self.here is not None)
        return Account(total, found.spent, checkpoint, resume, due, paid, time)

    def _time(self) -> Time | None:
        """What is left to one worker, and what a step of each run costs; None before one has two reports."""
        measured = self._measured() if self.world.timed else {}
        if not measured:
            return None
        usual = rounded(statistics.median(measured.values()))
        paces = predicted(self._params(), measured)
        left = max(self.budget / self.world.workers - self.now, 0.0)
        return Time(left, usual, {uid: pace for uid, pace in paces.items() if pace != usual})

    def _measured(self) -> dict[str, float]:
        """What a step of each run has cost, of those that have two reports."""
        timed = (b for b in self.begun.values() if b.shown > 1)
        return {
            b.run.uid: float(b.run.clock[b.shown - 1] - b.run.clock[0]) / (b.run.steps[b.shown - 1] - b.run.steps[0])
            for b in timed
        }

    def _params(self) -> dict[str, Mapping[str, Any]]:
        return {uid: b.run.params for uid, b in self.begun.items()}

    @property
    def _first_step(self) -> float:
        """Cost of a step before any was paid for: that of the first run that will be begun."""
        run = self.task.runs[self.fresh[-1]] if self.fresh else None
        return float(run.clock[0]) / run.steps[0] if run is not None and run.steps and run.steps[0] > 0 else 1.0

    def _pay(self, cost: float) -> bool:
        """Book a cost before it arises; False when the budget does not allow it, and the search is over by that."""
        total = self.spent + cost
        if math.isclose(total, self.budget, rel_tol=1e-12):  # sums that should reach it may miss it by the last bits
            total = self.budget
        self.over = self.over or self.spent >= self.budget or total > self.budget
        if not self.over:
            self.spent = total
        return not self.over

    def _pay_for(self, move: float) -> None:
        """Book a checkpoint or a resume."""
        if self._pay(move):
            self.paid += move

    def _fill(self) -> None:
        """Hand free workers to arms, as far as the allocator wants."""
        while (free := len(self.ready) + (self.here is not None)) and (self.fresh or self.n_paused):
            if self.over or self.spent >= self.budget:
                return
            snapshot = self.snapshot()
            slots = Slots(free, len(self.fresh), self.account(snapshot), self.here)
            key = (self.world.seed, self.allocations)
            asked = ask(self.allocator, self.state, snapshot, self.abilities, slots, key)
            queries = asked.queries
            made = judge(asked, {f.name: _answers(f, snapshot, queries) for f in self.forecasters} if queries else {})
            self.state, self.allocations = made.state, self.allocations + 1
            for uid, _ in made.stops:
                self.n_paused -= 1
                self._end(self.begun[uid], Status.STOPPED)
                if uid == self.here:
                    self._leave()
            for move in made.moves:
                if not self.over and self.spent < self.budget:
                    self._begin(move)
            if not made.moves and (self.heap or not made.stops):
                break  # with nothing under way others may be moved once some are cut
        if self.here is not None:
            self._leave()

    def _leave(self) -> None:
        """The trial that paused just now does not go on at once: its worker writes a checkpoint."""
        self._pay_for(self.world.checkpoint)
        heapq.heappush(self.ready, self.now + self.world.checkpoint)
        self.here = None

    def _begin(self, move: Move) -> None:
        at = self.now
        if move.uid is not None and move.uid == self.here:
            self.here = None  # who goes on where he stands neither writes nor reads a checkpoint
        else:
            if not self.ready:
                self._leave()
            at = max(heapq.heappop(self.ready), at)
            if move.uid is not None:
                self._pay_for(self.world.resume)
                at += self.world.resume
        if move.uid is None:
            run = self.task.runs[row := self.fresh.pop(self._proposed())]
            trial = Trial(run.uid, params=run.params, schedule=run.schedule, cost=0.0)
            b = self.begun[run.uid] = self.live[run.uid] = _Begun(row, run, self.now, trial)
        else:
            b = self.begun[move.uid]
            b.trial = replace(b.trial, status=Status.RUNNING)
            self.n_paused -= 1
        b.until = move.pause_at
        self._next(b, at)

    def _proposed(self) -> int:
        """The place in `fresh` of the run that is begun next; the last one without a proposer."""
        if self.proposer is None:
            return -1
        snapshot, key = self.snapshot(), (self.world.seed, len(self.begun))
        proposer = self.proposer.trusted(snapshot, self.chosen)
        said = proposer.own(snapshot, key)
        if said is None:
            candidates = [self.task.runs[row].params for row in reversed(self.fresh)]
            queries = proposer.questions(snapshot, candidates)
            answers = {f.name: _answers(f, snapshot, queries) for f in self.forecasters}
            said = proposer.choose(snapshot, candidates, answers, key, self._paces(candidates))
        if said.by_forecasts is not None:
            self.chosen[self.task.runs[self.fresh[-1 - said.row]].uid] = said.by_forecasts
        return -1 - said.row

    def _paces(self, candidates: Sequence[Mapping[str, Any]]) -> list[float] | None:
        """What a step of each would cost; None where that is not asked, or not known yet."""
        measured = self._measured() if self.world.timed else {}
        return of_new(candidates, self._params(), measured) if measured else None

    def _next(self, b: _Begun, at: float) -> None:
        """Begin the trial's next report, if the budget allows it."""
        before, after = float(b.run.clock[b.shown - 1]) if b.shown else 0.0, float(b.run.clock[b.shown])
        if self._pay(after - before):
            self._push(at + after - before, b)

    def _push(self, at: float, b: _Begun) -> None:
        heapq.heappush(self.heap, (at, self.events, b.run.uid))
        self.events += 1

    def _report(self, b: _Begun) -> Iterator[Wanted]:
        """Show a trial's next report, or end its wait for a verdict."""
        run = b.run
        if b.waits:
            b.waits = False
            self._go_on(b, run.steps[b.shown - 1])
            return
        cost, step = float(run.clock[b.shown]), run.steps[b.shown]
        b.shown += 1
        last = b.shown == len(run.steps)
        b.trial = replace(b.trial, curve=run.cuts[b.shown - 1], cost=cost)
        look = self.world.looks is None or step in self.world.looks
        if last:
            if look and run.status is Status.STOPPED:
                yield from self._look(b, step)
            self._free(b, run.status)
        self._mark_best(b)
        if last:
            return
        if look and not self._is_held(b) and (delay := (yield from self._look(b, step))):
            if self._pay(delay):
                b.waits = True  # for the verdict
                self._push(self.now + delay, b)
            return
        self._go_on(b, step)

    def _go_on(self, b: _Begun, step: float) -> None:
        """What follows a report that is not the last one."""
        looked = Verdict.STOP if b.stop is not None else Verdict.CONTINUE
        verdict = verdict_at(looked, step, b.until, self.task.goal.horizon)
        if verdict is Verdict.STOP:
            self._free(b, Status.STOPPED)
        elif verdict is Verdict.CONTINUE:
            self._next(b, self.now)
        else:
            self.here = b.run.uid
            self.n_paused += 1
            b.pauses += 1
            b.trial = replace(b.trial, status=Status.PAUSED)

    def _is_held(self, b: _Begun) -> bool:
        """Do gates hold the look that need no snapshot, as they hold most? They go first in production, too."""
        if self.policy is None:
            return False
        if (found := self.holds.get((self.policy, b.row))) is None:
            found = self.holds[self.policy, b.row] = _early_holds(self.policy, b.run)
        hold = found[self.bank.n_complete >= self.policy.n_startup_trials][b.shown - 1]
        if hold is not None:
            self.reasons[hold] += 1
        return hold is not None

    def _look(self, b: _Begun, step: float) -> Generator[Wanted, None, float]:
        """Ask the stopper; returns what the look cost."""
        snapshot, event = self.snapshot(), Event(b.trial, step)
        while True:
            start = time.perf_counter()
            try:
                judgement = self.stopper.check(snapshot, event)
                break
            except Missing as missing:
                wanted = missing.wanted
            yield wanted
        took = time.perf_counter() - start
        decision = judgement.decision
        self.reasons[decision.reason] += 1
        if decision.verdict is Verdict.STOP:
            b.stop = decision
            stopped = {} if judgement.record is None else {"stop": judgement.record}
            b.trial = replace(b.trial, stop_records=stopped)
        if decision.now is None:  # held before any forecast
            return 0.0
        return took * self.world.per_second if self.world.latency is None else self.world.latency

    def _free(self, b: _Begun, status: Status) -> None:
        heapq.heappush(self.ready, self.now)
        self._end(b, status)

    def _end(self, b: _Begun, status: Status) -> None:
        b.ended, b.place = self.now, len(self.bank)
        b.trial = replace(b.trial, status=status)
        del self.live[b.run.uid]
        self.bank = self.bank.extend([b.trial])

    def _mark_best(self, b: _Begun) -> None:
        """Note a new best value; a final value counts when its trial has reached the horizon."""
        if self.task.goal.judged == "best":
            loss = self.task.goal.sign * b.run.values[b.shown - 1]
        elif b.trial.status is Status.COMPLETE:
            loss = judged_loss(b.trial.curve, self.task.goal)[0]
        else:
            return
        if math.isfinite(loss) and loss < self.low:
            self.low = loss
            self.trace.append((self.now, self.spent, loss))


def _early_holds(policy: Policy, run: Run) -> tuple[list[Reason | None], list[Reason | None]]:
    """What holds the look after each report of a run, in a young study and in one that is none."""
    young, old = list[Reason | None](), list[Reason | None]()
    reports: dict[float, float] = {}
    for step, value in zip(run.steps, run.values, strict=True):
        reports[step] = value
        held = (
            early_gates(policy, reports, step, lambda: 0),
            early_gates(policy, reports, step, lambda: policy.n_startup_trials),
        )
        for found, hold in zip((young, old), held, strict=True):
            found.append(None if hold is None else hold.reason)
    return young, old


def _answers(forecaster: Forecaster, snapshot: Snapshot, questions: Sequence[Query]) -> list[Answer]:
    """As a session hears them: a forecaster that fails says nothing, and the search goes on."""
    try:
        forecasts = forecaster.forecast(snapshot, questions)
        return [forecasts.row(i) for i in range(len(questions))]
    except Exception:
        return [Absent.FAILED] * len(questions)
