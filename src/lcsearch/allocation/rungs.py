"""Rungs of successive halving: which trials got where, how they rank there, and who may go on.

Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning", Algorithm 2 (promotion).
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import NamedTuple

import numpy as np

from lcsearch.allocation.arms import Price, affordable, checked_share, paused_trials, runs
from lcsearch.allocation.contract import Move, Slots, Wait
from lcsearch.curves import Floats
from lcsearch.errors import InvalidValue, is_finite_number
from lcsearch.study import Snapshot, Status, Trial, uid_sort_key

_NOISE = 1e-9  # of products of floats
_COUNTED = 0.3  # steps to the first rung
_CLOSING = "a new one would come too late to its end"
_LEFT = "what is left is too little for any other"


class Member(NamedTuple):
    """A trial in a rung; tuples sort as the rung ranks: by loss, then by uid."""

    loss: float
    place: tuple[int, str]
    uid: str


def checked_rungs(first: float, eta: float, who: str) -> None:
    """Hold the knobs of rungs to what they may be.

    Raises:
        InvalidValue: they are not.
    """
    checked_share(first, f"{who}.first")
    if not (is_finite_number(eta) and eta >= 2):
        raise InvalidValue("a finite number >= 2", eta, f"{who}.eta")


def rungs_of(horizon: float, first: float, eta: float) -> tuple[float, ...]:
    """The steps at which trials pause, rising: first * horizon * eta^k below the horizon, and the horizon.

    >>> rungs_of(50, 0.02, 3)
    (1.0, 3.0, 9.0, 27.0, 50.0)
    >>> rungs_of(40, 0.02, 3)
    (1.0, 3.0, 8.0, 22.0, 40.0)
    """
    steps, step = [], float(first) * horizon
    while step < horizon * (1 - _NOISE):
        steps.append(counted(step, first, horizon))
        step *= eta
    return (*(rung for rung in dict.fromkeys(steps) if rung < horizon), float(horizon))


def counted(step: float, first: float, horizon: float) -> float:
    """A step, the next whole one where steps are counted, as a horizon says that is whole and not too short for it.

    A trial pauses at its first report there or later, so that this changes nothing but what people read.
    """
    whole = float(horizon).is_integer() and first * horizon >= _COUNTED
    return float(math.ceil(step * (1 - _NOISE))) if whole else step


@dataclass(frozen=True)
class Ladder:
    """The rungs of one study as it stands.

    In rung k are all trials that got there, with their loss at their first report at or after it (the best so far where
    the best is judged, else the latest value). That a trial was promoted is seen from where it stands.

    Attributes:
        snapshot: the study.
        rungs: see :func:`rungs_of`.
        eta: reduction factor.
        uids: the trials that climb it; None: all.
    """

    snapshot: Snapshot
    rungs: tuple[float, ...]
    eta: float
    uids: Collection[str] | None = None

    @cached_property
    def paused(self) -> list[Trial]:
        """Those that wait, in order of their uids."""
        return [trial for trial in paused_trials(self.snapshot) if self.uids is None or trial.uid in self.uids]

    @cached_property
    def standing(self) -> dict[str, int]:
        """The rung at which each of them waits; -1: below the first."""
        return {trial.uid: bisect_right(self.rungs, trial.curve.last_step) - 1 for trial in self.paused}

    @cached_property
    def losses(self) -> Floats:
        """See :func:`losses_seen`."""
        return losses_seen(self.snapshot)

    @cached_property
    def _members(self) -> dict[int, list[Member]]:
        return {}

    def members(self, k: int) -> list[Member]:
        """Who got to rung k, best first."""
        if k not in self._members:
            everyone = chain(self.snapshot.bank, self.snapshot.live)
            mine = (trial for trial in everyone if self.uids is None or trial.uid in self.uids)
            self._members[k] = sorted(self._member(t, self.rungs[k]) for t in mine if reached(t, self.rungs[k]))
        return self._members[k]

    def _member(self, trial: Trial, rung: float) -> Member:
        """A trial that reached the rung, with its loss there; one without any value ranks last."""
        goal = self.snapshot.goal
        steps, losses = trial.curve.standings(goal.sign, goal.judged == "best")
        loss = losses[min(bisect_left(steps, rung), len(steps) - 1)] if steps else math.inf
        return Member(loss, uid_sort_key(trial.uid), trial.uid)

    def promotable(self, standing: Mapping[str, int]) -> Iterator[Move]:
        """Who may go on, from the highest rung down and best first: the best floor(n / eta) of a rung's n.

        Args:
            standing: the rung at which each trial waits that has not been promoted from there.
        """
        for k in reversed(range(len(self.rungs) - 1)):
            if k not in standing.values():
                continue
            rung = self.members(k)
            for rank, (_, _, uid) in enumerate(rung[: int(len(rung) / self.eta)], start=1):
                if standing.get(uid) == k:
                    why = f"rank {rank} of {len(rung)} at step {self.rungs[k]:g}"
                    yield Move(uid, self.rungs[k + 1], k + 1.0, why)

    def first_steps(self) -> Iterator[Move]:
        """Trials that wait below the first rung go there."""
        for uid, k in self.standing.items():
            if k < 0:
                yield Move(uid, self.rungs[0], why=f"on to step {self.rungs[0]:g}")

    @cached_property
    def _ranks(self) -> dict[int, dict[str, int]]:
        return {}

    def _rank(self, uid: str) -> tuple[int, int, int]:
        """(rung, rank there, how many may go on) of a trial that waits."""
        k = max(self.standing[uid], 0)
        if k not in self._ranks:
            self._ranks[k] = {one.uid: rank for rank, one in enumerate(self.members(k), start=1)}
        ranks = self._ranks[k]
        return k, ranks.get(uid, len(ranks) + 1), int(len(ranks) / self.eta)

    def line(self, uid: str) -> tuple[int, int]:
        """Where a trial stands in line, less is nearer: by the places that it is short of, then the highest rung."""
        k, rank, most = self._rank(uid)
        return max(rank - most, 0), -k

    def waits(self, uid: str) -> Wait:
        """What a trial that waits at a rung needs: a better rank, or that the rung grows."""
        k, rank, most = self._rank(uid)
        n = len(self.members(k))
        grown = math.ceil(rank * self.eta) - n
        needs = "its turn" if grown <= 0 else f"{grown} more {'trials' if grown > 1 else 'trial'} there"
        needs = f"rank {most} or {needs}" if most and rank > most else needs
        return Wait(uid, rank, max(n, rank), f"value at step {self.rungs[k]:g}", needs)

    @property
    def best(self) -> Move | None:
        """The best of the highest rung at which one waits, on to the next rung."""
        if not self.standing:
            return None
        k = max(self.standing.values())
        if k < 0:
            return next(self.first_steps())
        uid = min(member for member in self.members(k) if self.standing.get(member.uid) == k).uid
        return Move(uid, self.rungs[k + 1], k + 1.0, f"best of all at step {self.rungs[k]:g}")


def reached(trial: Trial, rung: float) -> bool:
    """True when the trial got to the rung; a COMPLETE one got to all of them, wherever its last report stands."""
    return trial.curve.last_step >= rung or trial.status is Status.COMPLETE


def leader(snapshot: Snapshot, left: float = math.inf, price: Price | None = None) -> Trial | None:
    """The PAUSED trial with the best value so far, where that is better than all COMPLETE ones': it may become the
    study's result.

    Args:
        snapshot: the study.
        left: only of those whose way to the horizon costs no more, by `price`.
        price: see above.
    """
    best, goal = None, snapshot.goal
    for trial in paused_trials(snapshot):
        found = (loss_so_far(trial, snapshot), uid_sort_key(trial.uid))
        if price is not None and price.of(Move(trial.uid, goal.horizon)) > left:
            continue
        if math.isfinite(found[0]) and (best is None or found < best[0]):
            best = found, trial
    incumbent = snapshot.incumbent
    if best is None or (incumbent is not None and goal.sign * incumbent.value <= best[0][0]):
        return None
    return best[1]


def loss_so_far(trial: Trial, snapshot: Snapshot) -> float:
    """A trial's loss as it stands: the best one where the best is judged, else the last; inf where there is none."""
    _, losses = trial.curve.standings(snapshot.goal.sign, snapshot.goal.judged == "best")
    return losses[-1] if losses else math.inf


def losses_seen(snapshot: Snapshot) -> Floats:
    """(n,) the finite losses, best so far or last, of all trials that may still be the study's result, rising."""
    lost = (Status.FAILED, Status.STOPPED)  # what they reached is no result any more
    everyone = (trial for trial in chain(snapshot.bank, snapshot.live) if trial.status not in lost)
    losses = np.array([loss_so_far(trial, snapshot) for trial in everyone], np.float64)
    return np.sort(losses[np.isfinite(losses)])


def best_seen(snapshot: Snapshot) -> float:
    """The best of :func:`losses_seen`; inf where there is none."""
    losses = losses_seen(snapshot)
    return float(losses[0]) if losses.size else math.inf


def served(
    snapshot: Snapshot,
    slots: Slots,
    moves: Iterator[Move],
    waits: Callable[[str], Wait],
    line: Callable[[str], tuple[int, int]],
    best: Move | None,
    *,
    cut: tuple[tuple[str, str], ...] = (),
    closed: str = "its rung is closed",
) -> tuple[tuple[Move, ...], tuple[tuple[str, str], ...], tuple[Wait, ...]]:
    """Hand the slots out: moves, stops and waits of an allocation.

    - Nothing is begun or promoted that cannot reach its next pause in what is left of the budget.
    - When what is left would not pay for a move and for a leader's way to the horizon, the leader goes first: the best
      of those whose way is paid for, so that the study ends with a result. Exploration ends with the budget.
    - When no rung can grow any more (nothing new may be begun, nothing runs), those that wait are cut; but whoever
      leads all COMPLETE trials runs to the horizon first, and where none is COMPLETE the best goes on, so that a small
      study has a result and no leader is lost. Where it is time that lets nothing new begin they are not cut: the slots
      that nobody else wants take them to the horizon, the nearest to a promotion first.
    - When what is left pays for nothing else and nothing runs, it takes those to the horizon that it still pays for.

    Args:
        snapshot: the study.
        slots: what is free.
        moves: whom the slots may go to, best first.
        waits: what a trial that gets none waits for.
        line: where it stands in line, less is nearer.
        best: who goes on where nobody may and nothing is COMPLETE; None: nobody.
        cut: trials that are cut already, with the reason.
        closed: why the others are, when no rung can grow.
    """
    gone = {uid for uid, _ in cut}
    paused = [trial for trial in paused_trials(snapshot) if trial.uid not in gone]
    ahead_of = sorted(paused, key=lambda trial: (line(trial.uid), uid_sort_key(trial.uid)))
    if slots.closing:
        moves = chain(moves, _to_the_end(ahead_of, snapshot, _CLOSING))
    wanted = leader_first(_each_once(moves, gone), snapshot, slots, gone)
    chosen = affordable(wanted, snapshot, slots)
    first, stops = leader(snapshot), cut
    # one that was cut just now may have been the last to wait: the others are judged at the next call
    if not wanted and not cut and not slots.n_new_allowed and paused and not runs(snapshot):
        goes_on = best
        if snapshot.bank.n_complete:
            why = "it leads all that are complete"
            goes_on = None if first is None else Move(first.uid, snapshot.goal.horizon, why=why)
        if goes_on is None:
            stops = tuple((trial.uid, closed) for trial in paused)
        else:
            chosen = affordable([goes_on], snapshot, slots)
    if not chosen and (wanted or not stops) and not runs(snapshot):
        chosen = affordable(_to_the_end(ahead_of, snapshot, _LEFT), snapshot, slots)
    named = {move.uid for move in chosen} | {uid for uid, _ in stops}
    ahead = "" if first is None else first.uid
    left = [trial.uid for trial in paused if trial.uid not in named]
    left.sort(key=lambda uid: (uid != ahead, line(uid), uid_sort_key(uid)))
    return tuple(chosen), stops, tuple(map(waits, left))


def _to_the_end(trials: Sequence[Trial], snapshot: Snapshot, why: str) -> Iterator[Move]:
    return (Move(trial.uid, snapshot.goal.horizon, why=why) for trial in trials)


def _each_once(moves: Iterator[Move], gone: set[str]) -> list[Move]:
    """The first word on each trial, none on those that are cut: one may be on its way and below the first rung."""
    named, found = set(gone), list[Move]()
    for move in moves:
        if move.uid is None or move.uid not in named:
            found.append(move)
            named |= set() if move.uid is None else {move.uid}
    return found


def leader_first(moves: list[Move], snapshot: Snapshot, slots: Slots, gone: Collection[str] = ()) -> list[Move]:
    """The leader's move to the horizon before all others, from where only that is left in the budget.

    Args:
        moves: whom the slots may go to, best first.
        snapshot: the study.
        slots: what is free, and the account.
        gone: trials that are cut.
    """
    account = slots.account
    if account.total is None or not moves:
        return moves
    price, left = Price(snapshot, slots), account.left
    who = leader(snapshot, left, price)
    if who is None or who.uid in gone:
        return moves
    what = f"{left:g} steps" if account.time is None else f"{left * account.time.usual:.3g} s"
    needs = f"the last {what} of the budget finish the leader"
    last = Move(who.uid, snapshot.goal.horizon, moves[0].score, needs)
    first = [move for move in moves if move.uid != who.uid]
    if not first or price.of(first[0]) + price.of(last) <= left:
        return moves
    return [last, *first]
