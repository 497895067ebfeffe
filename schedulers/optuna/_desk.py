"""The desk at which workers of a study ask for their next trial: an allocator says which, the storage does it.

One allocation is made at a time, under a lock that all workers share. The allocator's state is an attribute of the
study, so that any process goes on where another has left off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from optuna.trial import TrialState

from lcsearch.allocation.arms import promised
from lcsearch.allocation.ask import AllocationAsk
from lcsearch.allocation.contract import Abilities, Account, Allocation, Allocator, Move, Slots, Wait
from lcsearch.schedulers.optuna._record import CUT, PAUSE_AT, is_paused, n_pauses, pause_at_of, without_dead
from lcsearch.schedulers.optuna._snapshot import Reader, as_trial, snapshot_of
from lcsearch.schedulers.optuna._storage import (
    allocation_of,
    begin,
    claim,
    end_cut,
    store_allocation,
    store_with,
    stored,
)
from lcsearch.session import Session
from lcsearch.study import Snapshot, Status

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

_TRIES = 10
"""Allocations in a row whose trial another worker has claimed; only without a lock that all share."""


class Turn(NamedTuple):
    """A trial that this worker trains now.

    Attributes:
        trial: its handle; RUNNING.
        pause_at: its turn is over at its first report at this step or later; at the goal's horizon it runs to its end.
        resumed: it was paused, and is to go on from its checkpoint.
    """

    trial: Trial
    pause_at: float
    resumed: bool


class Desk:
    """Hands out turns.

    Args:
        study: whose trials.
        allocator: who says which is next.
        session: asks forecasters, judges, and writes the receipts of allocations.
        reader: reads the study.
        seed: of the allocator's random choices, with the number of the allocation.
        account: from the study's trials, what may be spent and what was.
        n_new_allowed: from them, how many may still be begun; one that is enqueued is not begun yet.
        lock: held while a turn is given; shared by all workers of the study.
        ended: told of every trial that was paused and is cut: it has ended, and its checkpoint is not needed any more.
        mine: may a paused trial go on here? Others, whose checkpoints lie elsewhere, are left to workers there.

    Attributes:
        waits: who got nothing at the latest allocation that was made here, the nearest to a turn first.
    """

    def __init__(
        self,
        study: Study,
        allocator: Allocator,
        session: Session,
        reader: Reader,
        *,
        seed: int,
        account: Callable[[Sequence[FrozenTrial]], Account],
        n_new_allowed: Callable[[Sequence[FrozenTrial]], int],
        lock: Callable[[], AbstractContextManager[Any]],
        ended: Callable[[int], None] = lambda number: None,
        mine: Callable[[FrozenTrial], bool] = lambda frozen: True,
    ) -> None:
        self._study, self._allocator, self._session, self._reader = study, allocator, session, reader
        self._seed, self._account, self._n_new_allowed, self._lock = seed, account, n_new_allowed, lock
        self._ended, self._mine, self._over = ended, mine, False
        self.waits: tuple[Wait, ...] = ()

    @property
    def over(self) -> bool:
        """Whether the latest turn that was not given will never be: nothing runs, and nothing may be moved."""
        return self._over

    def take(self, sign: Callable[[Trial], None]) -> Turn | None:
        """The next turn of a worker without a trial; None where there is none now, see :attr:`over`.

        Args:
            sign: writes into the trial who has it, before anybody else can ask.
        """
        with self._lock():
            return self._give(None, sign)

    def turn_over(self, trial: Trial, sign: Callable[[Trial], None]) -> Turn | None:
        """What a worker does whose trial has come to its `pause_at`.

        A turn of the same number: it goes on where it stands. One of another trial: that is the worker's next one, and
        `pause` is to be called for this one, as where there is none.
        """
        with self._lock():
            return self._give(trial, sign)

    def next_turn(self, number: int, step: str = "step") -> str:
        """What a paused trial waits for, were a slot free now, in one line; nothing is moved, and nothing stored.

        Args:
            number: the trial.
            step: what a step is called.
        """
        reading, uid = self._reader.read(self._study), str(number)
        slots = Slots(1, max(self._n_new_allowed(reading.trials), 0), self._account(reading.trials))
        session = self._session.aside()
        made = session.allocate(self._ask(snapshot_of(self._study, reading), slots, session))
        for move in made.moves:
            if move.uid == uid:
                return f"it is next, until {step} {move.pause_at:g}: {move.why}"
        for other, why in made.stops:
            if other == uid:
                return f"it is to be cut: {why}"
        return next((str(wait) for wait in made.waits if wait.uid == uid), "it waits for a turn")

    def _give(self, here: Trial | None, sign: Callable[[Trial], None]) -> Turn | None:
        for _ in range(_TRIES):
            reading = self._reader.read(self._study)
            running = [t for t in reading.unfinished if t.state == TrialState.RUNNING]
            own = next((t for t in running if here is not None and t.number == here.number), None)
            if here is not None and own is None:  # another worker has taken it over; its own finds that by its lease
                self._over = False
                return None
            current = None if own is None else replace(as_trial(own), status=Status.PAUSED)
            # Whoever runs without a turn is trained by others, or by nobody: an allocator would wait for it for ever.
            alien = {t.number for t in running if pause_at_of(t) is None}
            busy = any(t is not own and t.number not in alien for t in running)
            snapshot = snapshot_of(self._study, reading, current, alien)
            n_new = max(self._n_new_allowed(reading.trials), 0)
            account = self._account(reading.trials)
            rest = (without_dead(t) for t in running if t is not own)
            ends = ((max(t.last_step or 0, 0), pause_at_of(t), str(t.number)) for t in rest)
            turns = [(done, end, account.step(uid)) for done, end, uid in ends if end is not None]
            others = promised(turns, snapshot.goal.horizon, account.checkpoint, here=False)
            due = promised(turns, snapshot.goal.horizon, account.checkpoint, here=own is not None)
            account = account._replace(promised=due)
            waits = any(trial.status is Status.PAUSED for trial in snapshot.live)
            if account._replace(promised=others).left <= 0 or not (n_new or waits):
                break
            slots = Slots(1, n_new, account, None if own is None else str(own.number))
            made = self._allocate_here(snapshot, slots, reading.unfinished, busy)
            for uid, why in made.stops:
                self._cut(int(uid), why, here)
            for move in made.moves:
                if (turn := self._carry_out(move, here, sign, reading.unfinished)) is not None:
                    self._over = False
                    return turn
            if here is not None and any(int(uid) == here.number for uid, _ in made.stops):
                self._over = False  # once it has ended, others may be allocated
                return None
            if not made.moves and (busy or not made.stops):
                break
        self._over = not busy
        return None

    def _allocate_here(
        self, snapshot: Snapshot, slots: Slots, unfinished: Sequence[FrozenTrial], busy: bool
    ) -> Allocation:
        """An allocation that moves none of the trials that are paused elsewhere: from here they are as good as running.
        Where nothing else is, they are left out, so that nobody waits for them for ever.
        """
        elsewhere = {str(t.number) for t in unfinished if is_paused(t) and not self._mine(t)}
        if not elsewhere:
            return self._allocate(snapshot, slots)
        live = tuple(replace(t, status=Status.RUNNING) if t.uid in elsewhere else t for t in snapshot.live)
        made = self._allocate(replace(snapshot, live=live), slots)
        if made.moves or made.stops or busy:
            return made
        return self._allocate(replace(snapshot, live=tuple(t for t in live if t.uid not in elsewhere)), slots)

    def _allocate(self, snapshot: Snapshot, slots: Slots) -> Allocation:
        asked = self._ask(snapshot, slots, self._session)
        made = self._session.allocate(asked)
        kept = {"allocator": self._allocator.name, "n": asked.key[-1] + 1, "state": made.state}
        store_allocation(self._study, kept)
        self.waits = made.waits
        return made

    def _ask(self, snapshot: Snapshot, slots: Slots, session: Session) -> AllocationAsk:
        kept, name = allocation_of(self._study), self._allocator.name
        known = kept if isinstance(kept, dict) else {}
        state = known["state"] if known.get("allocator") == name and "state" in known else self._allocator.init()
        key = (self._seed, known.get("n", 0))
        return session.ask_for_slots(self._allocator, state, snapshot, Abilities(pause=True), slots, key)

    def _cut(self, number: int, why: str, here: Trial | None) -> None:
        if here is not None and number == here.number:
            store_with(self._study, here, CUT, {"why": why, "of": number})
        elif claim(self._study, number) is not None:
            end_cut(self._study, number, why)
            self._ended(number)

    def _carry_out(
        self, move: Move, here: Trial | None, sign: Callable[[Trial], None], unfinished: Sequence[FrozenTrial]
    ) -> Turn | None:
        """The turn; None where another worker has the trial by now."""
        if move.uid is None:
            trial = begin(self._study, move.proposal, {PAUSE_AT: {"at": move.pause_at, "of": None}}, unfinished)
        elif here is not None and move.uid == str(here.number):
            trial = here
        else:
            claimed = claim(self._study, int(move.uid))
            if claimed is None:
                return None
            trial = claimed
        resumes = 0 if move.uid is None else n_pauses(stored(self._study, trial))
        store_with(self._study, trial, PAUSE_AT, {"at": move.pause_at, "of": trial.number, "resumes": resumes})
        if trial is not here:
            sign(trial)
        return Turn(trial, move.pause_at, move.uid is not None and trial is not here)
