from __future__ import annotations

import pytest
from kit.allocators import PAUSES, Plot, World, passed_on
from kit.builders import goal, snapshot, trial

from lcsearch.allocation.allocators.halving import SuccessiveHalving
from lcsearch.allocation.contract import Account, Slots
from lcsearch.errors import InvalidValue
from lcsearch.study import Snapshot, Status

ONE = SuccessiveHalving(first=1 / 9)


def log(allocator: SuccessiveHalving, plot: Plot) -> tuple[list[tuple[str | None, float]], World]:
    world, state = World(plot), allocator.init()
    while True:
        done = allocator.allocate(state, world.snapshot(), {}, PAUSES, world.slots(), (0, 0))
        state = passed_on(done.state)
        world.apply(done)
        if not world.running:
            return [(move.uid, move.pause_at) for move in world.log], world
        world.advance()


def test_nine_trials_by_hand() -> None:
    """Nine to step 1, the best three of them to 3, the best of these to 9; at each rung the others are cut."""
    moves, world = log(ONE, Plot([[loss] * 9 for loss in (0.5, 0.3, 0.9, 0.4, 0.2, 0.8, 0.7, 0.1, 0.6)]))
    assert moves == [(None, 1)] * 9 + [("1", 3), ("4", 3), ("7", 3), ("7", 9)]
    assert world.given_up == set("01234568")
    assert world.trials["7"].status is Status.COMPLETE
    assert world.spent == 9 + 3 * 2 + 6


def test_who_is_cut_is_told_why() -> None:
    live = [trial(str(i), [0.5 + i / 10], Status.PAUSED, first=1) for i in range(3)]
    made = ONE.allocate(ONE.init(), snapshot(goal(horizon=9), [], live), {}, PAUSES, Slots(1, 0), (0, 0))
    assert [(m.uid, m.pause_at, m.why) for m in made.moves] == [("0", 3, "of the best at step 1")]
    assert made.stops == (
        ("1", "rank 2 of 3 at step 1: the best 1 go on"),
        ("2", "rank 3 of 3 at step 1: the best 1 go on"),
    )


def seen(running: int) -> Snapshot:
    live = [trial(str(i), [0.5], Status.PAUSED, first=1) for i in range(3)]
    live += [trial(str(3 + i), [], Status.RUNNING) for i in range(running)]
    return snapshot(goal(horizon=9), [], live)


def test_a_rung_waits_for_its_last_trial_but_not_for_one_that_failed() -> None:
    made = ONE.allocate(ONE.init(), seen(running=1), {}, PAUSES, Slots(2, 0), (0, 0))
    assert (made.moves, made.stops) == ((), ())
    assert str(made.waits[0]) == "waits: rank 1 of 3 by value at step 1, needs all others to get there"
    failed = snapshot(goal(horizon=9), [trial("3", [], Status.FAILED)], seen(0).live)
    assert [m.uid for m in ONE.allocate(ONE.init(), failed, {}, PAUSES, Slots(2, 0), (0, 0)).moves] == ["0"]


def test_a_budget_says_how_many() -> None:
    """Nine cost 9 + 6 + 6 = 21, three 3 + 2 + 6 = 11, two 2 + 2 + 6 = 10."""
    assert [ONE.cost(n, (1.0, 3.0, 9.0)) for n in (9, 3, 2, 1)] == [21, 11, 10, 9]
    empty = snapshot(goal(horizon=9), [], [])
    for total, n in ((21.0, 9), (20.0, 8), (10.5, 2), (1.0, 1)):
        made = ONE.allocate(ONE.init(), empty, {}, PAUSES, Slots(99, 9, Account(total)), (0, 0))
        assert len(made.moves) == n


@pytest.mark.parametrize("n", [0, 1.5])
def test_what_cannot_be(n: float) -> None:
    with pytest.raises(InvalidValue, match=r"^SuccessiveHalving.n_arms: expected an integer >= 1 or None, got "):
        SuccessiveHalving(n_arms=n)  # type: ignore[arg-type]


def test_one_that_failed_or_was_stopped_at_its_rung_leaves_its_place_to_the_next_best() -> None:
    for status in (Status.FAILED, Status.STOPPED):
        best = trial("3", [0.1] * 2, status, first=1)
        made = ONE.allocate(
            ONE.init(), snapshot(goal(horizon=9), [best], seen(0).live), {}, PAUSES, Slots(1, 0), (0, 0)
        )
        assert [(m.uid, m.pause_at) for m in made.moves] == [("0", 3)]


def test_the_set_stays_what_the_budget_made_it() -> None:
    """Prices and counts of what comes may change on the way: the set does not."""
    empty = snapshot(goal(horizon=9), [], [])
    first = ONE.allocate(ONE.init(), empty, {}, PAUSES, Slots(1, 9, Account(11.0)), (0, 0))
    assert first.state == {"n": 3}
    again = ONE.allocate(first.state, empty, {}, PAUSES, Slots(99, 99, Account(1000.0)), (0, 1))
    assert len(again.moves) == 3
    dear = ONE.allocate(ONE.init(), empty, {}, PAUSES, Slots(99, 9, Account(21.0, 0, 1, 1)), (0, 0))
    assert dear.state == {"n": 5}, "5 + 2 + 6 steps, and 2 turns of 2 each: 17; 6 would take 18 + 6"
