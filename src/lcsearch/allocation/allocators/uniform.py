"""Uniform: every arm in turn gets as much as every other. What an adaptive allocator has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lcsearch.allocation.arms import affordable, checked_share, next_pause, paused_trials, start_new, steps_done
from lcsearch.allocation.contract import Abilities, Allocation, Key, Move, Slots, Wait
from lcsearch.allocation.rungs import leader_first
from lcsearch.errors import InvalidValue
from lcsearch.forecast.contract import Answers, Query
from lcsearch.study import Snapshot, Trial, uid_sort_key


@dataclass(frozen=True)
class Uniform:
    """The first `n_arms` configurations in a fixed cycle, the same number of steps a turn. Asks nobody.

    The cycle is the order of the uids, with configurations not yet begun at its end; a trial that is running has its
    turn already and is passed over. Nothing starves: between two turns of one arm no other arm has three. But when what
    is left of a budget would only just bring the leader to the horizon, it goes there: so a study ends with a result.

    Adaptive allocation often fails to beat this (Aioli, Chen et al. 2025), so it is run beside every comparison.

    Attributes:
        n_arms: trials the study begins at most, >= 1, finished and failed ones included; None: all there are, each of
            which is begun before any has its second turn.
        quantum: a turn, as a share of the horizon, in (0, 1]; it ends with a report, so one report is the least.
    """

    n_arms: int | None = None
    quantum: float = 0.1

    name: ClassVar[str] = "uniform"

    def __post_init__(self) -> None:
        if self.n_arms is not None and not (isinstance(self.n_arms, int) and self.n_arms >= 1):
            raise InvalidValue("an integer >= 1 or None", self.n_arms, "Uniform.n_arms")
        checked_share(self.quantum, "Uniform.quantum")

    def init(self) -> Any:
        """Where the cycle stands: uid of the arm that had the last turn; None: a new configuration had it."""
        return {"last": None}

    def questions(self, state: Any, snapshot: Snapshot, slots: Slots) -> tuple[Query, ...]:
        """None."""
        return ()

    def allocate(
        self, state: Any, snapshot: Snapshot, forecasts: Answers, abilities: Abilities, slots: Slots, key: Key
    ) -> Allocation:
        """The next arms of the cycle."""
        horizon, fresh = snapshot.goal.horizon, slots.n_new_allowed
        if self.n_arms is not None:
            fresh = min(fresh, max(self.n_arms - len(snapshot.bank) - len(snapshot.live), 0))
        if not abilities.pause:
            return Allocation(state, start_new(min(slots.free, fresh), horizon))
        paused, last, steps = paused_trials(snapshot), state["last"], self.quantum * horizon

        def turn(trial: Trial) -> Move:
            return Move(trial.uid, next_pause(steps_done(trial), steps, horizon), why="its turn")

        # With a new configuration served last the cycle stands at its end, where any other new ones follow.
        later = [trial for trial in paused if last is not None and uid_sort_key(trial.uid) > uid_sort_key(last)]
        cycle = [turn(trial) for trial in later]
        cycle += start_new(min(slots.free, fresh), next_pause(0.0, steps, horizon))
        cycle += [turn(trial) for trial in paused[: len(paused) - len(later)]]
        cycle = leader_first(cycle, snapshot, slots)
        moves = tuple(affordable(cycle, snapshot, slots))
        queue = [move.uid for move in cycle if move.uid is not None and move not in moves]
        before = {trial.uid for trial in later}  # in the cycle, before the new ones
        rest = fresh - sum(move.uid is None for move in moves)
        waits = tuple(
            Wait(uid, i, len(queue), "the order of turns", _turns(i if uid in before else i + rest))
            for i, uid in enumerate(queue, start=1)
        )
        return Allocation({"last": moves[-1].uid} if moves else state, moves, (), waits)


def _turns(n: int) -> str:
    """What a trial needs that has its turn after so many others."""
    return f"{n} {'turn' if n == 1 else 'turns'} more to be given" if n < _ENDLESS else "no more new ones to be begun"


_ENDLESS = 1 << 20
"""New configurations without a limit."""
