"""judge: where free slots go, and the check of what an allocator says. Pure."""

from __future__ import annotations

import json

from lcsearch.allocation.arms import Price
from lcsearch.allocation.ask import AllocationAsk
from lcsearch.allocation.contract import Abilities, Allocation, Move, Slots, Time
from lcsearch.allocation.in_reach import in_reach
from lcsearch.errors import InvalidValue, is_finite_number
from lcsearch.forecast.contract import Answers
from lcsearch.study import Snapshot, Status

_FALL_BACK = "the allocator is at fault: allocate with RunToEnd() instead"


def judge(asked: AllocationAsk, forecasts: Answers) -> Allocation:
    """Arms for the free slots.

    The caller has put `asked.queries` to the forecasters. Whatever is raised here they catch, with
    :class:`~lcsearch.allocation.allocators.run_to_end.RunToEnd` in hand: a broken allocator must not end a study.

    Raises:
        InvalidValue: a forecaster that did not answer every question (absent is an answer), or an allocation that
            breaks the contract, see :func:`check`.
    """
    n, allocator = len(asked.queries), asked.allocator
    for who, answers in forecasts.items():
        if len(answers) != n:
            raise InvalidValue(f"{n} forecasts", len(answers), f"judge(forecasts={who!r})")
    seen, slots, late = in_reach(asked.snapshot, asked.slots)
    allocation = allocator.allocate(asked.state, seen, forecasts, asked.abilities, slots, asked.key)
    check(allocation, seen, asked.abilities, slots, by=allocator.name)
    if slots.account.time is None:
        return allocation
    moves = tuple(_timed(move, Price(seen, slots), slots.account.time) for move in allocation.moves)
    return allocation._replace(moves=moves, waits=(*allocation.waits, *late))


def _timed(move: Move, price: Price, time: Time) -> Move:
    """With the seconds that it takes among its reasons."""
    return move._replace(why=f"{move.why}; about {price.of(move) * time.usual:.2g} s")


def check(allocation: Allocation, snapshot: Snapshot, abilities: Abilities, slots: Slots, *, by: str) -> None:
    """Hold an allocation to the contract.

    At most one move a free slot and one new configuration a fresh one; a uid is a PAUSED trial's, and is named once in
    moves, stops and waits together; `pause_at` lies beyond the trial's last step and not beyond the goal's horizon; a
    propensity lies in (0, 1], and parameters are proposed for new configurations only; the state can be stored as JSON.
    Without the ability to pause there are new configurations only, each to the horizon.

    Raises:
        InvalidValue: it does not.
    """
    where = f"{by}.allocate()"
    if not isinstance(allocation, Allocation):
        raise InvalidValue("an Allocation", allocation, where, _FALL_BACK)
    if len(allocation.moves) > slots.free:
        raise InvalidValue(f"at most {slots.free} moves", len(allocation.moves), f"{where}.moves", _FALL_BACK)
    try:
        json.dumps(allocation.state, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidValue("plain values that JSON has", allocation.state, f"{where}.state", _FALL_BACK) from error
    # A trial without a report stands where a new one does.
    paused = {
        trial.uid: trial.curve.last_step if trial.curve.n_reports else 0.0
        for trial in snapshot.live
        if trial.status is Status.PAUSED
    }
    named: set[str] = set()

    def name(uid: object, at: str) -> None:
        if not isinstance(uid, str) or uid not in paused:
            raise InvalidValue("the uid of a PAUSED trial", uid, at, _FALL_BACK)
        if uid in named:
            raise InvalidValue("no trial twice", uid, at, _FALL_BACK)
        named.add(uid)

    horizon, begun = snapshot.goal.horizon, 0
    for i, move in enumerate(allocation.moves):
        at = f"{where}.moves[{i}]"
        if not isinstance(move, Move):
            raise InvalidValue("a Move", move, at, _FALL_BACK)
        last = 0.0
        if move.uid is None:
            begun += 1
            if begun > slots.n_new_allowed:
                raise InvalidValue(f"at most {slots.n_new_allowed} new configurations", begun, at, _FALL_BACK)
        elif not abilities.pause:
            raise InvalidValue("new configurations only, for nothing can be resumed", move.uid, f"{at}.uid", _FALL_BACK)
        else:
            name(move.uid, f"{at}.uid")
            last = paused[move.uid]
        if not is_finite_number(move.pause_at) or not last < move.pause_at <= horizon:
            raise InvalidValue(f"a step in ({last:g}, {horizon:g}]", move.pause_at, f"{at}.pause_at", _FALL_BACK)
        if not abilities.pause and move.pause_at != horizon:
            raise InvalidValue(
                f"the horizon {horizon:g}, for nothing can pause", move.pause_at, f"{at}.pause_at", _FALL_BACK
            )
        if not is_finite_number(move.score):
            raise InvalidValue("a finite number", move.score, f"{at}.score", _FALL_BACK)
        if not (is_finite_number(move.propensity) and 0 < move.propensity <= 1):
            raise InvalidValue("a probability in (0, 1]", move.propensity, f"{at}.propensity", _FALL_BACK)
        if move.proposal is not None and move.uid is not None:
            raise InvalidValue("no parameters for a trial that has its own", move.uid, f"{at}.proposal", _FALL_BACK)
    for kind, uids in (("stops", [uid for uid, _ in allocation.stops]), ("waits", [w.uid for w in allocation.waits])):
        for i, uid in enumerate(uids):
            name(uid, f"{where}.{kind}[{i}]")
