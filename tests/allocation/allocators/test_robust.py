"""The leash: whatever is forecast, most of the compute goes where ASHA has it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.allocators import FORECASTERS, PAUSES, AllocatorKit, Plot, World, heard, passed_on, people, plots
from kit.builders import goal, props, snapshot
from kit.curricula import NINTH, asked, even, paused

from lcsearch.allocation.allocators.asha import AshaPromotion
from lcsearch.allocation.allocators.robust import RULES, FollowTheForecast
from lcsearch.allocation.ask import ask
from lcsearch.allocation.contract import Account, Allocation, Allocator
from lcsearch.allocation.judge import judge
from lcsearch.errors import InvalidValue

WHO = FollowTheForecast(NINTH, rule="uncertain")


def test_a_departure_stands_against_the_rule_until_it_has_paid() -> None:
    """Rule: trial 5, whose outcome is open; ASHA: a new one, for neither is among the best third of its rung."""
    answers, late = (even(-9, -8), even(0.5, 1.5)), Account(spent=270.0)

    def at(n: int, **state: Any) -> Allocation:
        start = {**WHO.init(), **state}
        return asked(WHO, *answers, free=1, key=(0, n), account=late, state=start)

    key = next(n for n in range(99) if at(n).moves[0].propensity == 0.75)
    made = at(key)
    assert [move.uid for move in made.moves] == ["5"], "4.5 against 1.1 of a new one with 1 chance in 31"
    assert (made.state["open"], made.state["lost"]) == ({"5": 2.0}, 0.0)
    assert at(key, lost=52.0).moves[0].uid == "5", "52 + 2 is less than a quarter of 270 - 52"
    short = at(key, lost=53.0)
    assert short.moves[0].why == "a new configuration; the forecast's rule has 53 of 270 steps against it"
    assert (short.state["open"], short.state["lost"]) == ({}, 53.0)


@pytest.mark.parametrize(("losses", "lost"), [((2.0, 1.0, 3.0, 3.0), 2.0), ((0.5, 1.0, 3.0, 3.0), 0.0)])
def test_what_pays(losses: tuple[float, ...], lost: float) -> None:
    """Back at step 3 it is the best of four there, or the second, where one may go on."""
    back = snapshot(goal(horizon=9), [], [paused(str(5 + i), 3, loss) for i, loss in enumerate(losses)])
    made = asked(WHO, at=back, state={**WHO.init(), "open": {"5": 2.0}})
    assert (made.state["open"], made.state["lost"]) == ({}, lost)


@props
@given(plots(), people, st.sampled_from([0.0, 0.25, 1.0]), st.sampled_from(sorted(RULES)))
def test_what_stands_against_the_rule_is_bounded(plot: Plot, who: str, excess: float, rule: str) -> None:
    """At every allocation, beside the turns that were under way when it was last within its bound."""
    one, world = FollowTheForecast(0.1, 2, excess, rule), World(plot)
    state = one.init()
    for turn in range(40):
        if world.free and (world.fresh or world.paused):
            asked = ask(one, state, world.snapshot(), PAUSES, world.slots(), (plot.seed, turn))
            made = judge(asked, heard(FORECASTERS[who], asked.snapshot, asked.queries))
            departed = made.state["lost"] + sum(made.state["open"].values())
            before = state["lost"] + sum(state["open"].values())
            assert departed <= max(before, excess * world.spent) + 1e-9
            state = passed_on(made.state)
            world.apply(made)
        world.advance()


@props
@given(plots(), people)
def test_without_a_leash_to_give_it_is_asha(plot: Plot, who: str) -> None:
    class Kit(AllocatorKit):
        __test__ = False
        waits = True

        def __init__(self, one: Allocator) -> None:
            self.one = one

        def make(self) -> Allocator:
            return self.one

    mine, asha = (Kit(one).play(plot, who).log for one in (FollowTheForecast(0.1, 2, 0.0), AshaPromotion(0.1, 2)))
    assert [(move.uid, move.pause_at) for move in mine] == [(move.uid, move.pause_at) for move in asha]


def test_what_cannot_be() -> None:
    with pytest.raises(InvalidValue, match=r"^FollowTheForecast.rule: expected one of pandora, mfpi, top-two, uncerta"):
        FollowTheForecast(rule="asha")
    with pytest.raises(InvalidValue, match=r"^FollowTheForecast.excess: expected a finite number >= 0, got -1.$"):
        FollowTheForecast(excess=-1)
