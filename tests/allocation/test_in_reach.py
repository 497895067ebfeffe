"""With a limit in time a step costs what it takes, and nothing is begun that cannot end before it is over."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from kit.allocators import PAUSES, heard
from kit.builders import goal, snapshot, trial
from kit.doubles import NormalAroundBest

from lcsearch.allocation.allocators.asha import AshaPromotion
from lcsearch.allocation.allocators.greedy import GreedyGain
from lcsearch.allocation.allocators.halving import SuccessiveHalving
from lcsearch.allocation.allocators.run_to_end import RunToEnd
from lcsearch.allocation.arms import Price
from lcsearch.allocation.ask import ask
from lcsearch.allocation.contract import Account, Allocation, Allocator, Move, Slots, Time, Wait
from lcsearch.allocation.in_reach import in_reach
from lcsearch.allocation.judge import judge
from lcsearch.errors import InvalidValue
from lcsearch.study import Snapshot, Status

SEEN = snapshot(
    goal(horizon=9),
    [],
    [
        trial("0", [0.1], Status.PAUSED, first=1),
        trial("1", [0.2] * 3, Status.PAUSED, first=1),
        trial("2", [0.3], Status.PAUSED, first=1),
        trial("3", [0.4], Status.RUNNING, first=1),
    ],
)
PACES = {"0": 100.0, "1": 100.0, "2": 2.0}


def slots(seconds: float, n_new: int = 5, *, free: int = 1, total: float | None = None) -> Slots:
    return Slots(free, n_new, Account(total, 6.0, time=Time(seconds, 4.0, PACES)))


def made(seen: Snapshot, there: Slots, by: Allocator | None = None) -> Allocation:
    by = by or AshaPromotion(1 / 9)
    asked = ask(by, by.init(), seen, PAUSES, there, (0, 0))
    return judge(asked, heard([NormalAroundBest()], asked.snapshot, asked.queries))


def test_a_step_costs_what_it_takes_in_steps_of_the_usual_trial() -> None:
    price = Price(SEEN, slots(1e9))
    assert price.of(Move("0", 3)) == 2 * 25
    assert price.of(Move("2", 9)) == 8 / 2
    assert price.of(Move(None, 3)) == 3
    assert Account().step("0") == 1


def test_who_has_time_enough_is_no_case() -> None:
    assert in_reach(SEEN, slots(800)) == (SEEN, slots(800), ())
    untimed = Slots(1, 5, Account(20, 6))
    assert in_reach(SEEN, untimed) == (SEEN, untimed, ())


def test_the_late_ones_wait_and_stay_in_the_ranks() -> None:
    seen, there, waits = in_reach(SEEN, slots(700))
    assert [t.status.name for t in seen.live] == ["STOPPED", "PAUSED", "PAUSED", "RUNNING"]
    assert there == slots(700)
    assert waits == (Wait("0", 1, 1, "seconds to step 9", "about 800 s, and 700 s are left"),)
    # "0" is the best of four at step 1, and would be promoted with more time
    assert made(SEEN, slots(800)).moves == (Move("0", 3.0, 1.0, "rank 1 of 4 at step 1; about 2e+02 s"),)
    late = made(SEEN, slots(700))
    assert late.moves == (Move(None, 1.0, 0.0, "a new configuration; about 4 s"),)
    assert late.waits[-1:] == waits


def test_nothing_new_is_begun_that_comes_too_late_and_whoever_can_ends() -> None:
    assert in_reach(SEEN, slots(35))[1].n_new_allowed == 0
    assert in_reach(SEEN, slots(36))[1].n_new_allowed == 5
    still = replace(SEEN, live=SEEN.live[:3])
    last = made(still, slots(35))
    assert last.moves == (Move("2", 9, 0.0, "a new one would come too late to its end; about 16 s"),)
    assert last.stops == (), "nobody is cut for it"
    assert [wait.uid for wait in last.waits] == ["1", "0"]
    assert made(still, slots(10)) == Allocation(None, (), (), in_reach(still, slots(10))[2]), "nobody can"


def test_a_set_that_may_grow_no_more_for_want_of_time_is_as_large_as_it_was_and_cuts_nobody() -> None:
    paused = [trial(str(i), [1.0 + i] * 2, Status.PAUSED, first=1) for i in range(6)]
    paces, rule = {str(i): 0.5 for i in range(6)}, SuccessiveHalving()
    there = Slots(2, 9, Account(1000, 12, time=Time(30.0, 4.0, paces)))  # a new one needs 108 s, a paused one 12.5 s
    for state in (rule.init(), {"n": 9}):
        asked = ask(rule, state, snapshot(goal(horizon=27), [], paused), PAUSES, there, (0, 0))
        made = judge(asked, {})
        assert [move.uid for move in made.moves] == ["0", "1"]
        assert (made.stops, made.state) == ((), state)
        assert [wait.uid for wait in made.waits] == ["2", "3", "4", "5"]


def test_one_that_goes_on_where_it_stands_has_the_whole_way_before_it() -> None:
    priced = Account(200, 6, 20.0, 5.0, 20.0, time=Time(35.0, 1.0, {}))  # "0" has 8 steps to go, and resumes for 5
    for here in (None, "0"):
        assert in_reach(SEEN, Slots(1, 0, priced, here)) == (SEEN, Slots(1, 0, priced, here), ())
    tight = priced._replace(time=Time(7.5, 1.0, {}))
    for here, needs in ((None, "13"), ("0", "8")):
        waits = in_reach(SEEN, Slots(1, 0, tight, here))[2]
        assert next(w.needs for w in waits if w.uid == "0") == f"about {needs} s, and 7.5 s are left"


def test_whoever_falls_back_keeps_to_it() -> None:
    assert [move.uid for move in made(SEEN, slots(35, free=4), RunToEnd()).moves] == ["2"]


def test_gain_per_cost_is_gain_per_second() -> None:
    done = [trial("8", [1.0] * 9, first=1), trial("9", [2.0] * 9, first=1)]
    pair = [trial("0", [0.5] * 3, Status.PAUSED, first=1), trial("2", [0.5] * 3, Status.PAUSED, first=1)]
    seen = snapshot(goal(horizon=9), done, pair)
    steps = Slots(1, 0, Account(None, 18))
    assert [move.uid for move in made(seen, steps, GreedyGain()).moves] == ["0"], "of equals the older"
    assert [move.uid for move in made(seen, slots(1e9, 0), GreedyGain()).moves] == ["2"], "the faster"


@pytest.mark.parametrize("time", [Time(-1.0, 1.0, {}), Time(1.0, 0.0, {}), Time(1.0, 1.0, {"0": math.nan})])
def test_times_that_cannot_be(time: Time) -> None:
    with pytest.raises(InvalidValue, match=r"^ask\(slots.account.time\): expected seconds >= 0 that are left, and"):
        ask(RunToEnd(), None, SEEN, PAUSES, Slots(1, 1, Account(time=time)), (0, 0))
