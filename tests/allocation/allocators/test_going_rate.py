from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kit.allocators import PAUSES, Plot, World
from kit.builders import goal, snapshot, trial

from lcsearch.allocation.allocators.asha import AshaPromotion
from lcsearch.allocation.allocators.going_rate import GoingRateAsha
from lcsearch.allocation.contract import Account, Allocation, Slots
from lcsearch.errors import InvalidValue
from lcsearch.forecast.contract import Absent, Answer, Answers, Forecasts
from lcsearch.study import Snapshot, Status, Trial

ONE = GoingRateAsha(first=1 / 27, startup=0)
"""Rungs 1, 3, 9, 27; checks at 5 and 6, 13 and 18."""
SPENT = Account(None, 100)


def paused(uid: str, *losses: float) -> Trial:
    return trial(uid, losses, Status.PAUSED, first=1)


def study(*live: Trial, finished: tuple[Trial, ...] = ()) -> Snapshot:
    return snapshot(goal(horizon=27), finished, live)


def chance(p: float, best: float) -> Forecasts:
    """P(value < best) = p: even on [best - 1, best + 1], shifted."""
    low = best - 2 * p
    return Forecasts.of(np.array([[low, low + 2]]), np.array([[0.0, 1.0]]), np.zeros((1, 2)), sign=1.0, source="test")


def ask(
    seen: Snapshot,
    *answers: Answer,
    state: Any = None,
    account: Account = SPENT,
    n_new: int = 9,
) -> Allocation:
    said: Answers = {"test": answers} if answers else {}
    return ONE.allocate(state or ONE.init(), seen, said, PAUSES, Slots(1, n_new, account), (0, 0))


def nine(*others: Trial) -> Snapshot:
    """Nine in rung 1, of which three may go: 0 holds the best value and has gone, 1 and 2 are next."""
    gone = trial("0", [0.1] * 3, Status.RUNNING, first=1)
    rest = [paused(str(i), 0.2 + i / 100) for i in range(1, 9)]
    return study(gone, *rest, *others)


def test_a_promotion_must_pay_better_than_a_new_configuration() -> None:
    """Trial 1 has 26 steps to go, 100 are spent: P must be .26; trial 2 likewise."""
    seen = nine()
    assert [(q.trial.uid, q.step) for q in ONE.questions(ONE.init(), seen, Slots(1, 9, Account(None, 100)))] == [
        ("1", 27), ("2", 27),
    ]  # fmt: skip
    made = ask(seen, chance(0.27, 0.1), chance(0.1, 0.1))
    assert [(move.uid, move.pause_at) for move in made.moves] == [("1", 3)]
    assert made.moves[0].why == "rank 2 of 9 at step 1; P(it beats the best seen) 27.0%, the going rate is 26.0%"
    assert made.stops == (("2", "not worth going on: P(it beats the best seen) 10.0%, the going rate is 26.0%"),)
    assert made.state == {"to": {"1": 3.0}}
    none = ask(seen, chance(0.25, 0.1), chance(0.1, 0.1))
    assert [move.uid for move in none.moves] == [None]
    assert [uid for uid, _ in none.stops] == ["1", "2"]


def test_a_resume_counts_among_the_steps_to_go_but_where_the_trial_stands() -> None:
    """26 steps to go and 4 to pay, 100 spent: P must be .30; for one that goes on where it stands .26."""
    seen, account = nine(), Account(None, 100, resume=4.0)
    said: Answers = {"test": (chance(0.27, 0.1), chance(0.27, 0.1))}
    for here, goes in ((None, None), ("1", "1"), ("2", "2")):
        made = ONE.allocate(ONE.init(), seen, said, PAUSES, Slots(1, 9, account, here), (0, 0))
        assert [move.uid for move in made.moves] == [goes]
        assert made.stops[-1][1].endswith("the going rate is 30.0%")


def test_a_trial_that_was_cut_keeps_its_place_in_the_ranks() -> None:
    cut = tuple(trial(str(i), [0.2 + i / 100], Status.STOPPED, first=1) for i in (1, 2))
    gone = trial("0", [0.1] * 3, Status.RUNNING, first=1)
    rest = [paused(str(i), 0.2 + i / 100) for i in range(3, 9)]
    assert [move.uid for move in ask(study(gone, *rest, finished=cut)).moves] == [None], "the best three have gone"


def test_nobody_knows_is_worth_it_and_so_is_the_best_value() -> None:
    assert ask(nine(), Absent.UNSUPPORTED, Absent.FAILED).moves[0].why == "rank 2 of 9 at step 1; no forecast of it"
    assert ask(nine(), Absent.UNSUPPORTED, Absent.FAILED).stops == ()
    best = [paused("0", 0.1), paused("1", 0.2), paused("2", 0.3)]
    (move,) = ask(study(*best), chance(0.0, 0.1)).moves
    assert (move.uid, move.why) == ("0", "rank 1 of 3 at step 1; it holds the best value")


def test_on_its_way_a_trial_is_asked_again() -> None:
    """At step 3 it is promoted to 9; at 5 (4.2) and 6 it must be worth it again: 22 / 100, then 20 / 100."""
    others = [paused(str(i), 0.1, 0.1, 0.3) for i in range(1, 3)]
    first = ask(study(paused("3", 0.1, 0.1, 0.09), *others), chance(0.0, 0.1))
    assert [(m.uid, m.pause_at) for m in first.moves] == [("3", 5)]
    assert first.state == {"to": {"3": 9.0}}
    leads = paused("4", 0.01)
    at = study(paused("3", 0.1, 0.1, 0.09, 0.09, 0.09), *others, leads)
    on = ask(at, chance(0.23, 0.01), state=first.state)
    assert [(m.uid, m.pause_at, m.why) for m in on.moves] == [
        ("3", 6.0, "on to step 9; P(it beats the best seen) 23.0%, the going rate is 22.0%")
    ]
    off = ask(at, chance(0.21, 0.01), state=first.state)
    assert off.stops == (("3", "not worth going on: P(it beats the best seen) 21.0%, the going rate is 22.0%"),)
    assert off.state == {"to": {"3": 9.0, "4": 3.0}}, "3 is gone from the snapshot at the next call"
    assert ask(study(*others), state=off.state).state == {"to": {}}
    last = ask(study(paused("3", *[0.09] * 6), *others, leads), chance(1.0, 0.01), state=first.state)
    assert [(m.uid, m.pause_at) for m in last.moves] == [("3", 9.0)]


def test_the_startup_is_plain_asha() -> None:
    rule, plain = GoingRateAsha(first=1 / 27), AshaPromotion(first=1 / 27)
    seen = nine()
    for account in (Account(1000, 60), Account(None, 32), Account(1000, 0)):
        slots = Slots(3, 9, account)
        assert rule.questions(rule.init(), seen, slots) == ()
        answers: Answers = {"test": (chance(0.0, 0.1),) * 2}
        made = rule.allocate(rule.init(), seen, answers, PAUSES, slots, (0, 0))
        assert made.moves == plain.allocate(None, seen, {}, PAUSES, slots, (0, 0)).moves
        assert made.stops == ()
    assert rule.questions(rule.init(), seen, Slots(1, 9, Account(1000, 61)))


def test_without_forecasts_it_moves_as_asha_does_to_the_end() -> None:
    def log(allocator: Any) -> list[tuple[str | None, float]]:
        losses = [0.5, 0.3, 0.9, 0.4, 0.2, 0.8, 0.7, 0.1, 0.6]
        world, state = World(Plot([[loss] * 9 for loss in losses])), allocator.init()
        while not world.given_up:
            done = allocator.allocate(state, world.snapshot(), {}, PAUSES, world.slots(), (0, 0))
            state = done.state
            world.apply(done)
            world.advance()
        # a check on the way is a move of its own: the trial stays where it is
        return [(m.uid, m.pause_at) for m in world.log if m.pause_at in (1, 3, 9)]

    assert log(GoingRateAsha(first=1 / 9)) == log(AshaPromotion(first=1 / 9))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"first": 0}, "GoingRateAsha.first: expected a share of the horizon"),
        ({"eta": 1}, "GoingRateAsha.eta: expected a finite number >= 2"),
        ({"kappa": -1}, "GoingRateAsha.kappa: expected a finite number >= 0"),
        ({"startup": 2}, "GoingRateAsha.startup: expected a share in"),
    ],
)
def test_what_cannot_be(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidValue, match=f"^{says}"):
        GoingRateAsha(**fields)


def test_nothing_is_cut_where_nothing_new_may_be_begun_and_what_is_lost_is_nothing_to_beat() -> None:
    seen = nine()
    assert ONE.questions(ONE.init(), seen, Slots(1, 0, SPENT)) == ()
    assert ask(seen, n_new=0).stops == ()
    lost = trial("9", [0.01], Status.FAILED, first=1)
    held = study(*[paused(str(i), 0.2 + i / 100) for i in range(9)], finished=(lost,))
    made = ask(held, chance(0.0, 0.2), chance(0.0, 0.2))
    assert [move.uid for move in made.moves] == ["0"], "it holds the best value of those that may still win"


def test_no_trial_is_named_twice() -> None:
    """One that leads those that wait is cut, where only its way to the end is paid for; another is on its way and below
    the first rung at once."""
    seen = nine()
    tight = Account(126.5, 100)  # 1 would have 26 to go, a new one takes 1
    made = ask(seen, chance(0.0, 0.1), chance(0.0, 0.1), account=tight)
    assert [uid for uid, _ in made.stops] == ["1", "2"]
    assert not {move.uid for move in made.moves} & {"1", "2"}
    early = trial("0", [0.1], Status.PAUSED, steps=[0])
    twice = ONE.allocate({"to": {"0": 27.0}}, study(early), {}, PAUSES, Slots(3, 0, SPENT), (0, 0))
    assert [move.uid for move in twice.moves] == ["0"]
