from __future__ import annotations

from typing import Any

import pytest
from kit.allocators import PAUSES, Plot, World, passed_on
from kit.builders import goal, snapshot, trial

from lcsearch.allocation.allocators.run_to_end import RunToEnd
from lcsearch.allocation.allocators.uniform import Uniform
from lcsearch.allocation.contract import Allocation, Allocator, Slots
from lcsearch.errors import InvalidValue
from lcsearch.study import Status


def order(allocator: Allocator, plot: Plot, n: int) -> list[tuple[str | None, float]]:
    """(uid, until) of the first n moves; every round all that run arrive."""
    world, state = World(plot), allocator.init()
    while len(world.log) < n:
        done = allocator.allocate(state, world.snapshot(), {}, PAUSES, world.slots(), (0, 0))
        if not done.moves:
            break
        state = passed_on(done.state)
        world.apply(done)
        while world.running:
            world.advance()
    return [(move.uid, move.pause_at) for move in world.log][:n]


ONE = Slots(1, 0)
FLAT = [[0.5] * 6] * 3


def test_the_cycle_by_hand() -> None:
    assert order(Uniform(quantum=2 / 6), Plot(FLAT), 99) == [
        (None, 2), (None, 2), (None, 2),
        ("0", 4), ("1", 4), ("2", 4),
        ("0", 6), ("1", 6), ("2", 6),
    ]  # fmt: skip


def test_the_first_n_arms_only() -> None:
    assert order(Uniform(2, quantum=4 / 6), Plot(FLAT), 99) == [(None, 4), (None, 4), ("0", 6), ("1", 6)]


def test_two_workers_go_through_the_same_cycle() -> None:
    assert order(Uniform(quantum=2 / 6), Plot(FLAT, workers=2), 7) == [
        (None, 2), (None, 2),
        (None, 2), ("0", 4),
        ("1", 4), ("2", 4),
        ("0", 6),
    ]  # fmt: skip


def turn(state: Any, paused: list[str], slots: Slots = ONE, running: tuple[str, ...] = ()) -> Allocation:
    live = [trial(uid, [0.5], Status.PAUSED) for uid in paused]
    live += [trial(uid, [0.5], Status.RUNNING) for uid in running]
    return Uniform().allocate(state, snapshot(goal(), [], live), {}, PAUSES, slots, (0, 0))


def test_the_cycle_goes_by_number_and_passes_over_who_runs() -> None:
    uids = ["10", "2", "9"]
    assert [turn({"last": last}, uids).moves[0].uid for last in (None, "2", "9", "10")] == ["2", "9", "10", "2"]
    assert turn({"last": "2"}, ["2", "10"], running=("9",)).moves[0].uid == "10"
    assert turn({"last": "9"}, ["2", "10"]).moves[0].uid == "10", "the one that had the last turn has ended"


def test_new_ones_stand_at_the_end_of_the_cycle() -> None:
    moves = turn({"last": "1"}, ["0", "1", "2"], Slots(5, 1)).moves
    assert [move.uid for move in moves] == ["2", None, "0", "1"]
    assert turn({"last": "1"}, ["0", "1", "2"], Slots(2, 1)).state == {"last": None}


def test_a_slot_without_an_arm_changes_nothing() -> None:
    assert turn({"last": "1"}, [], running=("0",)) == Allocation({"last": "1"}, ())


def test_a_coarse_float_still_gets_on() -> None:
    far = trial("0", [0.5], Status.PAUSED, first=2.0**54)
    seen = snapshot(goal(horizon=2.0**55), [], [far])
    assert (
        Uniform(quantum=2.0**-54).allocate({"last": None}, seen, {}, PAUSES, Slots(1, 0), (0, 0)).moves[0].pause_at
        == 2.0**55
    )


@pytest.mark.parametrize("n_arms", [0, -1, 2.0, "3"])
def test_arms_that_cannot_be(n_arms: Any) -> None:
    with pytest.raises(InvalidValue, match=r"^Uniform.n_arms: expected an integer >= 1 or None, got "):
        Uniform(n_arms)


@pytest.mark.parametrize("quantum", [0, -1.0, 1.5, float("nan"), float("inf")])
def test_turns_that_cannot_be(quantum: float) -> None:
    with pytest.raises(InvalidValue, match=r"^Uniform.quantum: expected a share of the horizon in \(0, 1\], got "):
        Uniform(quantum=quantum)


def test_run_to_end_by_hand() -> None:
    assert order(RunToEnd(), Plot(FLAT), 99) == [(None, 6)] * 3
    live = [trial("10", [0.5], Status.PAUSED), trial("9", [0.5], Status.PAUSED)]
    moves = RunToEnd().allocate(None, snapshot(goal(), [], live), {}, PAUSES, Slots(3, 5), (0, 0)).moves
    assert [(move.uid, move.pause_at) for move in moves] == [("9", 10), ("10", 10), (None, 10)]
