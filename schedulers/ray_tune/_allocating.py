"""Pauses and resumes in a Tune run: from a trial's turn that is over, or a free slot, to an allocation and back.

Every new trial is held as PAUSED. The book has a trial as RUNNING from the moment an allocator has named it, as PAUSED
from the moment its turn is over. So Tune starts nothing by itself, and what is to be done follows from where the two
differ: what the book has as RUNNING and Tune as PAUSED is started next, what the book has as ended and Tune as PAUSED
is stopped. Which slots are free follows from the book, too: Tune's own picture is late while it saves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from ray.tune.experiment import Trial as TuneTrial

from lcsearch.allocation.arms import account, promised, steps_done
from lcsearch.allocation.contract import FREE, Abilities, Allocation, Allocator, Prices, Resources, Slots
from lcsearch.allocation.resources import ResourceBounds, shared_out
from lcsearch.allocation.turns import verdict_at
from lcsearch.schedulers.ray_tune import _room
from lcsearch.schedulers.ray_tune._book import RUN_ENDED, Book
from lcsearch.session import Session
from lcsearch.stopping.verdict import Verdict
from lcsearch.study import Status, uid_sort_key

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController

    from lcsearch.goal import Goal

_PAUSES = Abilities(pause=True)


class Turn(NamedTuple):
    """A trial's latest turn.

    Attributes:
        n: the number of moves before it.
        pause_at: it ends at the first report at this step or later that a trial can go on from.
    """

    n: int
    pause_at: float


class Found(NamedTuple):
    """What is free now.

    Attributes:
        free: slots.
        fresh: new trials that may still be begun.
        left: of the cluster's CPUs and GPUs.
    """

    free: int
    fresh: int
    left: Resources


@dataclass
class Run:
    """What belongs to one run.

    Attributes:
        state: the allocator's.
        allocations: how many there were.
        moves: how many.
        turns: trial id -> its latest turn; a trial without one is held, and has never been started.
        owed: where the turns of trials end that are to begin and that the searcher has yet to give, and their sizes.
        sizes: trial id -> what it trains on, or will; empty where resources are Tune's.
        idle: what had happened when the latest allocation left a slot idle; nobody is asked again before more has.
        checkpoints: how often a trial has left its slot for others.
        resumes: how often a paused one went on.
    """

    state: Any
    allocations: int = 0
    moves: int = 0
    turns: dict[str, Turn] = field(default_factory=dict)
    owed: list[tuple[float, Resources | None]] = field(default_factory=list)
    sizes: dict[str, Resources] = field(default_factory=dict)
    idle: object = None
    checkpoints: int = 0
    resumes: int = 0


class Allocating:
    """Who gets the next slot of a Tune run.

    Args:
        allocator: decides it.
        session: asks for it, and writes the receipts.
        uid: what a trial of Tune's is called in decisions.
        bounds: of what a trial trains on; None: what Tune has it train on.
        prices: of pauses and resumes.
    """

    _prices = FREE  # pickles of earlier versions have none

    def __init__(
        self,
        allocator: Allocator,
        session: Session,
        uid: Callable[[TuneTrial], str],
        bounds: ResourceBounds | None = None,
        prices: Prices = FREE,
    ) -> None:
        self.allocator, self._session, self._uid, self._bounds = allocator, session, uid, bounds
        self._prices = prices
        self.begin(Book("tune"))

    def begin(self, book: Book) -> None:
        """A run with this book begins."""
        self.book, self.run = book, Run(self.allocator.init())
        self._events, self._refused = 0, False

    def happened(self, *, ended: bool = False) -> None:
        """A trial has come, reported or gone: idle slots are asked about again, and after an end the searcher, too."""
        self._events += 1
        self._refused = self._refused and not ended

    # What the search asks, see `_room.hold_back`.

    def wants_more(self) -> bool:
        """Whether Tune may ask for one more trial: a slot waits for one, or there is none at all."""
        return bool(self.run.owed) or not self.book.live

    def refused(self) -> None:
        """The searcher has no trial to give for now: the slots that wait for one go to others."""
        self._refused = True
        if self.run.owed and any(entry.status is Status.PAUSED for entry in self.book.entries.values()):
            n = len(self.book.live)
            self._session.warn_once(
                "searcher is full",
                f"the searcher gives no new trial beside {n}, and those that are paused count: leave out "
                "max_concurrent_trials (or the ConcurrencyLimiter), or the allocator has only those to choose among",
            )
        self.run.owed.clear()

    # What Tune tells.

    def arrive(self, tune_controller: TuneController, trial: TuneTrial, uid: str) -> None:
        """A trial is added: a new one, or one of a restored run that was paused, is held; one that ran goes on."""
        self.happened()
        _room.hold_back(getattr(tune_controller, "search_alg", None), self)
        new = self._held(uid)
        if new and self.run.owed:
            self._claim(uid, *self.run.owed.pop(0))
        if new or self.book.entries[uid].status is Status.PAUSED:
            trial.set_status(TuneTrial.PAUSED)  # type: ignore[no-untyped-call]  # Ray's, here and below
        elif uid in self.run.sizes:  # which Tune forgets over a restore
            _room.resize(trial, self.run.sizes[uid])

    def was_cut(self, trial: TuneTrial, uid: str) -> bool:
        """Whether the trial was cut before the run was restored, and is only to be stopped."""
        if uid in self.book.entries and self.book.entries[uid].given_up:
            trial.set_status(TuneTrial.PAUSED)  # type: ignore[no-untyped-call]  # Ray's, here and below
            return True
        return False

    def turn_over(
        self, tune_controller: TuneController, goal: Goal, trial: TuneTrial, uid: str, result: Mapping[str, Any]
    ) -> bool:
        """A trial has reported. True: it is to be paused; or to be stopped, where the book has it as ended now."""
        turn, step = self.run.turns.get(uid), self.book.entries[uid].last
        pause_at = -math.inf if turn is None else turn.pause_at
        if verdict_at(Verdict.CONTINUE, step, pause_at, goal.horizon) is not Verdict.PAUSE:
            return False
        if not _room.pausable(trial, result):
            self._session.warn_once(
                "no checkpoint",
                f"trial {uid} is not paused at step {step:g} and runs on: this report carries no checkpoint to go on "
                "from. Report one with it: tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))",
            )
            return False
        self.book.turn(uid, Status.PAUSED)
        if self._grows(self._live(tune_controller)):
            self.run.checkpoints += 1
            return True  # a larger one waits for its place
        try:
            found = self._slots(tune_controller, trial)
            self._allocate(goal, found._replace(free=max(found.free, 1)), here=uid)
        except BaseException:
            self._claim(uid, goal.horizon)
            raise
        goes_on = self.book.entries[uid].status is Status.RUNNING
        resized = self.run.sizes.get(uid, _room.request(trial)) != _room.request(trial)
        self.run.checkpoints += resized or not goes_on
        self.run.resumes += resized and goes_on
        return resized or not goes_on

    def choose(self, tune_controller: TuneController, goal: Goal) -> TuneTrial | None:
        """The trial to start now, if any: free slots are given away, and cut trials are stopped before."""
        live = self._live(tune_controller)
        found = self._claimed(live)
        if found is None and not self._grows(live):
            self._give_away(tune_controller, goal, live)
            found = self._claimed(live)
        if found is not None and (uid := self._uid(found)) in self.run.sizes:
            _room.resize(found, self.run.sizes[uid])
        for uid, trial in live.items():
            if trial.status == TuneTrial.PAUSED and self.book.entries[uid].status.finished:
                tune_controller.stop_trial(trial)  # type: ignore[no-untyped-call]
        return found

    def any_paused(self, tune_controller: TuneController) -> TuneTrial | None:
        """Some trial that waits, where allocations fail: the run goes on."""
        found = [t for t in tune_controller.get_live_trials() if t.status == TuneTrial.PAUSED]  # type: ignore[no-untyped-call]
        return min(found, key=lambda trial: uid_sort_key(trial.trial_id), default=None)

    def leave(self, trials: Iterable[TuneTrial]) -> list[str]:
        """The run is over, by its time budget or a rule of the user's: uids of the trials that still waited, which have
        ended now. Where a signal ended it they have not, and a restored run goes on with them.
        """
        gone = [
            uid
            for trial in trials
            if trial.status == TuneTrial.TERMINATED and (uid := self._uid(trial)) in self.book.live
        ]
        left = [uid for uid in gone if self._held(uid) or self.book.entries[uid].status is Status.PAUSED]
        for uid in left:
            self.book.give_up(uid, RUN_ENDED)
        return left

    # What Tune shows.

    def _live(self, tune_controller: TuneController) -> dict[str, TuneTrial]:
        """Trials of Tune's that have not ended, in no order."""
        trials = {self._uid(trial): trial for trial in tune_controller.get_live_trials()}  # type: ignore[no-untyped-call]
        return {uid: trial for uid, trial in trials.items() if uid in self.book.entries}

    def _held(self, uid: str) -> bool:
        return uid not in self.run.turns

    def _claimed(self, live: Mapping[str, TuneTrial]) -> TuneTrial | None:
        """The trial with the oldest turn that Tune has not begun yet."""
        turns = self.run.turns
        waiting = [
            uid
            for uid, trial in live.items()
            if uid in turns and trial.status == TuneTrial.PAUSED and self.book.entries[uid].status is Status.RUNNING
        ]
        return live[min(waiting, key=lambda uid: turns[uid].n)] if waiting else None

    def _grows(self, live: Mapping[str, TuneTrial]) -> bool:
        """Whether a trial that is to train on more than a slot has no place yet.

        Until it has, no slot is given away: smaller ones would take what it waits for, one after another.
        """
        bounds, turns = self._bounds, self.run.turns
        return bounds is not None and any(
            trial.status != TuneTrial.RUNNING
            and uid in turns
            and self.book.entries[uid].status is Status.RUNNING
            and self.run.sizes.get(uid, bounds.least) != bounds.least
            for uid, trial in live.items()
        )

    def _slots(self, tune_controller: TuneController, like: TuneTrial) -> Found:
        """What is free, and how many new trials may still be begun."""
        live, run = self._live(tune_controller), self.run
        slot = _room.request(like) if self._bounds is None else self._bounds.least
        used = [
            run.sizes.get(uid, _room.request(trial))
            for uid, trial in live.items()
            if uid in run.turns and self.book.entries[uid].status is Status.RUNNING
        ]
        used += [slot if size is None else size for _, size in run.owed]
        to_come = 0 if self._refused else _room.to_come(tune_controller)
        fresh = max(len(self._waiting_to_begin()) + to_come - len(run.owed), 0)
        left = _room.left(_room.size(tune_controller), used)
        free = _room.room(left, slot)
        if not used:
            free = max(free, 1)  # whatever the cluster's size is said to be: Tune waits for it, or says why not
        return Found(int(min(free, len(live) + fresh)), int(fresh), left)  # more slots could not be used

    def _waiting_to_begin(self) -> list[str]:
        return [uid for uid in self.book.live if self._held(uid)]

    # Allocations.

    def _give_away(self, tune_controller: TuneController, goal: Goal, live: Mapping[str, TuneTrial]) -> None:
        """Ask for moves as long as slots are free and moves are made; where nothing runs, something is done."""
        like, run = next(iter(live.values()), None), self.run
        order = sorted(live, key=uid_sort_key)
        while like is not None:
            entries = self.book.entries
            found = self._slots(tune_controller, like)
            free, fresh, _ = found
            paused = [uid for uid in order if entries[uid].status is Status.PAUSED]
            now = self._events, free, fresh, len(paused)
            if free < 1 or not (fresh or paused) or run.idle == now:
                return
            made = self._allocate(goal, found)
            if made.moves:
                continue
            if run.owed or any(uid in run.turns and entries[uid].status is Status.RUNNING for uid in live):
                run.idle = now
                return
            if made.stops:
                continue
            if paused:
                said = RuntimeError("nothing runs and trials are paused, but it named none")
                self._session.failed(f"allocator {self.allocator.name!r}", said)
                self._claim(paused[0], goal.horizon)
                run.resumes += 1
                continue
            # Only trials that were never started are left, and none of them is to be.
            tune_controller.search_alg.set_finished()
            for uid in order:
                if not entries[uid].status.finished:
                    self.book.give_up(uid, f"{self.allocator.name} begins no more trials")
            return

    def _allocate(self, goal: Goal, found: Found, here: str | None = None) -> Allocation:
        """Ask for moves and note them; `here`, which reports now, may go on where it stands."""
        run, book = self.run, self.book
        snapshot = book.begun(goal, run.turns)
        spent = account(snapshot, self._prices, self._prices.of(run.checkpoints, run.resumes))
        running = (t for t in snapshot.live if t.status is Status.RUNNING and t.uid in run.turns and t.uid != here)
        turns = [(steps_done(trial), run.turns[trial.uid].pause_at, 1.0) for trial in running]
        due = promised(turns, goal.horizon, self._prices.checkpoint, here=here is not None)
        spent = spent._replace(promised=due)
        slots, key = Slots(found.free, found.fresh, spent, here), (0, run.allocations)
        asked = self._session.ask_for_slots(self.allocator, run.state, snapshot, _PAUSES, slots, key)
        made = self._session.allocate(asked)
        run.state, run.allocations = made.state, run.allocations + 1
        for uid, why in made.stops:
            self._session.withdraw(uid)
            book.give_up(uid, why)
        held = iter(self._waiting_to_begin())
        moves = made.moves
        if self._bounds is not None and moves:
            node = _room.largest_node(self._bounds.least)
            moves = shared_out(moves, found.left, self._bounds, node)
        run.resumes += sum(move.uid not in (None, here) for move in moves)
        for move in moves:
            who = move.uid if move.uid is not None else next(held, None)
            if who is None:
                run.owed.append((move.pause_at, move.resources))
            else:
                self._claim(who, move.pause_at, move.resources)
        return made

    def _claim(self, uid: str, pause_at: float, size: Resources | None = None) -> None:
        """The trial has the next turn."""
        if size is not None:
            self.run.sizes[uid] = size
        self.book.turn(uid, Status.RUNNING)
        self.run.turns[uid] = Turn(self.run.moves, pause_at)
        self.run.moves += 1

    # What people ask.

    def explain(self, uid: str) -> str | None:
        """Why a trial was not begun; None for one that was."""
        entry = self.book.entries[uid]
        if not self._held(uid):
            return None
        if entry.status.finished:
            return f"trial {uid} was never begun: {entry.given_up}" if entry.given_up else None
        return f"trial {uid} has not been begun yet by the allocator {self.allocator.name!r}"

    # State.

    def get_state(self) -> dict[str, Any]:
        """Plain values."""
        run = self.run
        return {
            "allocator": self.allocator.name,
            "state": run.state,
            "allocations": run.allocations,
            "moves": run.moves,
            "turns": {uid: list(turn) for uid, turn in run.turns.items()},
            "owed": [[pause_at, size and list(size)] for pause_at, size in run.owed],
            "sizes": {uid: list(size) for uid, size in run.sizes.items()},
            "checkpoints": run.checkpoints,
            "resumes": run.resumes,
        }

    def set_state(self, state: Mapping[str, Any] | None, book: Book) -> None:
        """Take back what :meth:`get_state` gave; None: the book is of a run without an allocator. Trials keep their
        places; what another allocator remembered is of no use to this one.
        """
        self.begin(book)
        if state is None:
            return
        run = self.run
        if state["allocator"] == self.allocator.name:
            run.state = state["state"]
        run.allocations, run.moves = state["allocations"], state["moves"]
        run.turns = {uid: Turn(*turn) for uid, turn in state["turns"].items()}
        run.owed = [(pause_at, size and Resources(*size)) for pause_at, size in state["owed"]]
        run.sizes = {uid: Resources(*size) for uid, size in state.get("sizes", {}).items()}
        run.checkpoints, run.resumes = state.get("checkpoints", 0), state.get("resumes", 0)
