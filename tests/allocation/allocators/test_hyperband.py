from __future__ import annotations

import pytest
from kit.allocators import PAUSES, Plot, World, passed_on
from kit.builders import goal, snapshot, trial

from lcsearch.allocation.allocators.hyperband import AsyncHyperband
from lcsearch.allocation.contract import Account, Slots
from lcsearch.errors import InvalidValue
from lcsearch.study import Status, Trial

ONE = AsyncHyperband(first=1 / 9)


def test_brackets_get_about_the_same_compute() -> None:
    """A trial is counted with 7/3, 5 and 9 steps in brackets 0, 1 and 2 of rungs 1, 3, 9."""
    found = AsyncHyperband().brackets((1.0, 3.0, 9.0), 300)
    assert found[:8] == [0, 1, 2, 0, 0, 1, 0, 2]
    spent = [found.count(b) * price for b, price in enumerate((7 / 3, 5, 9))]
    assert max(spent) - min(spent) <= 9


def test_the_first_moves_by_hand() -> None:
    """Trial 0 is of bracket 0 and pauses at 1, 1 of bracket 1 at 3, 2 of the last runs to its end; so on."""
    world, state = World(Plot([[loss] * 9 for loss in (0.5, 0.4, 0.6, 0.3, 0.7)])), ONE.init()
    for _ in range(5):
        done = ONE.allocate(state, world.snapshot(), {}, PAUSES, world.slots(), (0, 0))
        state = passed_on(done.state)
        world.apply(done)
        world.advance()
    assert [(m.uid, m.pause_at, m.why) for m in world.log] == [
        (None, 1, "a new configuration in bracket 0"),
        (None, 3, "a new configuration in bracket 1"),
        (None, 9, "a new configuration in bracket 2"),
        (None, 1, "a new configuration in bracket 0"),
        (None, 1, "a new configuration in bracket 0"),
    ]
    made = ONE.allocate(state, world.snapshot(), {}, PAUSES, world.slots(), (0, 0))
    assert [(m.uid, m.pause_at, m.why) for m in made.moves] == [("3", 3, "rank 1 of 3 at step 1 in bracket 0")]
    assert "waits: rank 1 of 1 by value at step 3 in bracket 1, needs 2 more trials there" in map(str, made.waits)


def test_only_its_own_bracket_is_compared() -> None:
    """0, 3, 4, 6 and 7 are of the first bracket; 1 and 5, far better at step 1, are not compared with them."""
    losses = {"0": 0.5, "1": 0.01, "2": 0.01, "3": 0.4, "4": 0.6, "5": 0.01, "6": 0.7, "7": 0.8}
    live: list[Trial] = [trial(uid, [loss], Status.PAUSED, first=1) for uid, loss in losses.items()]
    made = ONE.allocate(ONE.init(), snapshot(goal(horizon=9), [], live), {}, PAUSES, Slots(1, 0), (0, 0))
    assert [(m.uid, m.pause_at) for m in made.moves] == [("3", 3)]


def test_a_trial_stays_in_its_bracket_whatever_the_order_of_the_uids() -> None:
    """A trial begun later whose uid sorts first moves nobody else to another bracket: c, b, a are of 0, 1, 2."""
    state, live, seen = ONE.init(), list[Trial](), []
    for uid, until in (("c", 1), ("b", 3), ("a", 9)):
        made = ONE.allocate(state, snapshot(goal(horizon=9), [], live), {}, PAUSES, Slots(1, 1), (0, 0))
        seen.append([move.pause_at for move in made.moves])
        state = made.state
        live.append(trial(uid, [0.5] * until, Status.PAUSED, first=1))
    assert seen == [[1], [3], [9]]
    live[-1] = trial("a", [0.5], Status.PAUSED, first=1)
    made = ONE.allocate(state, snapshot(goal(horizon=9), [], live), {}, PAUSES, Slots(3, 0), (0, 0))
    assert made.state == {"of": {"c": 0, "b": 1, "a": 2}, "coming": []}
    assert [(move.uid, move.pause_at) for move in made.moves] == [("a", 9)]  # to its bracket's first rung
    assert {wait.uid: wait.by for wait in made.waits} == {
        "b": "value at step 3 in bracket 1",
        "c": "value at step 1 in bracket 0",
    }


def test_one_bracket_is_asha() -> None:
    assert AsyncHyperband(n_brackets=1).brackets((1.0, 3.0, 9.0), 4) == [0, 0, 0, 0]


@pytest.mark.parametrize("n", [0, 1.5])
def test_what_cannot_be(n: float) -> None:
    with pytest.raises(InvalidValue, match=r"^AsyncHyperband.n_brackets: expected an integer >= 1 or None, got "):
        AsyncHyperband(n_brackets=n)  # type: ignore[arg-type]


def test_a_bracket_that_is_too_dear_leaves_its_place_to_one_that_is_paid_for() -> None:
    """5 are left: the third bracket would take 9. The next trial is of the first, and stays in it."""
    state = {"of": {"0": 0, "1": 1}, "coming": []}
    live = [trial("0", [0.5], Status.PAUSED, first=1), trial("1", [0.5] * 3, Status.PAUSED, first=1)]
    slots = Slots(1, 9, Account(9, 4))
    made = ONE.allocate(state, snapshot(goal(horizon=9), [], live), {}, PAUSES, slots, (0, 0))
    assert [(m.uid, m.pause_at) for m in made.moves] == [(None, 1)]
    assert made.state == {"of": {"0": 0, "1": 1}, "coming": [0]}
    live.append(trial("2", [0.4], Status.PAUSED, first=1))
    again = ONE.allocate(made.state, snapshot(goal(horizon=9), [], live), {}, PAUSES, Slots(1, 9), (0, 1))
    assert again.state["of"]["2"] == 0
