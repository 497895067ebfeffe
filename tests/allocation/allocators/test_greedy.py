from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from kit.allocators import PAUSES, RUNS_ON
from kit.builders import goal, snapshot, trial

from lcsearch.allocation.allocators.greedy import GreedyGain
from lcsearch.allocation.contract import Account, Allocation, Slots
from lcsearch.errors import InvalidValue
from lcsearch.forecast.contract import Absent, Answer, Answers, Forecasts
from lcsearch.goal import Judged
from lcsearch.study import Snapshot, Status, Trial

NAN = math.nan
UNLIMITED = Account()
ONE = Slots(1, 9)
DONE = [trial("0", [1.0] * 11), trial("1", [3.0] * 11)]  # incumbent 1.0; a new one gains (3 - 1) / 3 in 10 steps


def paused(uid: str, n: int, value: float = 2.0) -> Trial:
    """It has reported steps 1 to n."""
    return trial(uid, [value] * n, Status.PAUSED, first=1)


def uniform(low: float, high: float) -> Forecasts:
    return Forecasts.of(np.array([[low, high]]), np.array([[0.0, 1.0]]), np.zeros((1, 2)), sign=1.0, source="test")


def seen(*live: Trial, judged: Judged = "best") -> Snapshot:
    return snapshot(goal(judged=judged), DONE, live)


def ask(at: Snapshot, *answers: Answer, slots: Slots = ONE, **fields: Any) -> Allocation:
    said: Answers = {"test": answers} if answers else {}
    return GreedyGain(**{"quantum": 0.1, **fields}).allocate(None, at, said, PAUSES, slots, (0, 0))


def ranked(at: Snapshot, *answers: Answer, account: Account = UNLIMITED, **fields: Any) -> list[tuple[str | None, Any]]:
    """(uid, score) of every arm, one new configuration among them."""
    moves = ask(at, *answers, slots=Slots(9, 1, account), **fields).moves
    return [(move.uid, pytest.approx(move.score)) for move in moves]


def test_expected_improvement_per_step_by_hand() -> None:
    # Even on [0, 4] with 1 to beat: 1 / 8, in 2 steps. Even on [0, 2]: 1 / 4, in 5 steps. A new one: 2 / 3, in 10.
    at = seen(paused("5", 8), paused("6", 5))
    assert ranked(at, uniform(0, 4), uniform(0, 2)) == [(None, 2 / 3 / 10), ("5", 1 / 16), ("6", 1 / 20)]
    top = ask(at, uniform(0, 4), uniform(0, 2), slots=Slots(3, 1)).moves
    assert [move.pause_at for move in top] == [1, 9, 6]
    assert [move.why for move in top] == [
        "expected improvement 0.667 in 10 steps",
        "expected improvement 0.125 in 2 steps",
        "expected improvement 0.25 in 5 steps",
    ]


def test_a_resume_is_paid_for_but_by_the_trial_that_stands_there() -> None:
    """Trial 5 has 2 steps to go and 3 to pay, trial 6 has 5 and 3: as one goes on where it stands it pays nothing."""
    at, account = seen(paused("5", 8), paused("6", 5)), Account(resume=3.0)
    told = {here: ask(at, uniform(0, 4), uniform(0, 2), slots=Slots(9, 1, account, here)).moves for here in (None, "5")}
    assert {here: {move.uid: move.score for move in moves} for here, moves in told.items()} == {
        None: pytest.approx({None: 2 / 3 / 10, "5": 1 / 8 / 5, "6": 1 / 4 / 8}),
        "5": pytest.approx({None: 2 / 3 / 10, "5": 1 / 8 / 2, "6": 1 / 4 / 8}),
    }
    assert [move.why for move in told["5"] if move.uid] == [
        "expected improvement 0.125 in 2 steps",
        "expected improvement 0.25 in 8 steps",
    ]


def test_p_beat_per_step_by_hand() -> None:
    # 1 / 4 in 2 steps, 1 / 2 in 5, and Laplace's 1 / 3 in 10.
    at = seen(paused("5", 8), paused("6", 5))
    told = ranked(at, uniform(0, 4), uniform(0, 2), gain="p_beat")
    assert told == [("5", 1 / 8), ("6", 1 / 10), (None, 1 / 30)]


def test_the_mean_of_those_that_answer() -> None:
    at = seen(paused("5", 8), paused("6", 8))
    said: Answers = {"a": [uniform(0, 4), uniform(1, 2)], "b": [uniform(0, 2), Absent.LATE]}
    moves = GreedyGain().allocate(None, at, said, PAUSES, Slots(3, 0), (0, 0)).moves
    assert [(move.uid, move.score) for move in moves] == [("5", pytest.approx((1 / 8 + 1 / 4) / 2 / 2)), ("6", 0.0)]


@pytest.mark.parametrize("reason", Absent)
def test_an_arm_without_an_opinion_goes_on(reason: Absent) -> None:
    at = seen(paused("5", 8), paused("6", 5))
    assert ranked(at, uniform(0, 4), reason) == [("6", 1 / 15), (None, 1 / 15), ("5", 1 / 16)]
    # Nobody says anything: first what is nearest to its end, new ones last.
    assert [uid for uid, _ in ranked(at)] == ["5", "6", None]


def test_the_startup_runs_trials_to_their_end() -> None:
    young = snapshot(goal(), DONE[:1], [paused("5", 2), paused("6", 5)])
    assert GreedyGain().questions(None, young, ONE) == ()
    assert [move.uid for move in ask(young, slots=Slots(9, 2)).moves] == ["6", "5", None, None]
    unlucky = snapshot(goal(), [DONE[0], trial("1", [NAN] * 11)], [paused("5", 2)])
    assert GreedyGain().questions(None, unlucky, ONE) == ()


def test_questions_are_about_the_judged_value() -> None:
    live = (paused("10", 3), paused("9", 3), trial("8", [2.0], Status.RUNNING), paused("7", 10))
    asked = GreedyGain().questions(None, seen(*live), ONE)
    assert [(query.trial.uid, query.kind, query.step) for query in asked] == [
        ("9", "best_by", 10),
        ("10", "best_by", 10),
    ]
    assert GreedyGain().questions(None, seen(*live, judged="final"), ONE)[0].kind == "value"


def test_a_diverged_arm_gains_nothing() -> None:
    at = seen(trial("5", [2.0, NAN, NAN, NAN], Status.PAUSED, first=1), paused("6", 5))
    assert ranked(at, Absent.NONFINITE, uniform(2, 3)) == [(None, 1 / 15), ("6", 0.0), ("5", 0.0)]
    # Where no COMPLETE trial has a value either, the metric starts late.
    late = [trial(str(i), [NAN] * 8 + [1.0 + i] * 3) for i in range(2)]
    young = snapshot(goal(), late, [trial("5", [NAN] * 4, Status.PAUSED, first=1)])
    assert ask(young, Absent.NONFINITE).moves[0].uid == "5"


def test_an_arm_beyond_the_budget_gains_nothing() -> None:
    at = seen(paused("5", 8), paused("6", 5))
    assert ranked(at, uniform(0, 4), uniform(0, 2), account=Account(37, 33)) == [("5", 1 / 16), ("6", 0.0), (None, 0.0)]


def test_ties_go_to_the_nearest_end_and_then_by_number() -> None:
    at = seen(paused("10", 5), paused("9", 5), paused("8", 4))
    told = ranked(at, uniform(2, 3), uniform(2, 3), uniform(2, 3))
    assert [uid for uid, _ in told] == [None, "9", "10", "8"]


def test_new_ones_fill_as_many_slots_as_they_may() -> None:
    at = seen(paused("5", 8))
    assert [move.uid for move in ask(at, uniform(2, 3), slots=Slots(3, 2)).moves] == [None, None, "5"]


def test_without_pause_new_ones_run_to_the_end() -> None:
    moves = GreedyGain().allocate(None, seen(), {}, RUNS_ON, Slots(3, 2), (0, 0)).moves
    assert [(move.uid, move.pause_at) for move in moves] == [(None, 10)] * 2


def test_a_share_of_the_slots_goes_to_every_arm_alike() -> None:
    at = seen(paused("5", 8), paused("6", 5), paused("7", 5))
    said: Answers = {"test": [uniform(0, 1), uniform(2, 3), uniform(2, 3)]}
    allocator, n = GreedyGain(explore=0.4), 2000
    won = Counter(
        allocator.allocate(None, at, said, PAUSES, Slots(1, 50), (7, i)).moves[0].uid for i in range(n)
    )  # fmt: skip
    assert won["5"] / n == pytest.approx(0.6 + 0.1, abs=0.04)
    for uid in ("6", "7", None):
        assert won[uid] / n == pytest.approx(0.1, abs=0.03)
    drawn = GreedyGain(explore=1.0).allocate(None, at, said, PAUSES, Slots(6, 50), (7, 0)).moves
    assert len(drawn) == 6
    assert drawn[0].why.startswith("at random among 4; ")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"quantum": 0}, r"GreedyGain.quantum: expected a share of the horizon in \(0, 1\], got 0."),
        ({"gain": "ucb"}, "GreedyGain.gain: expected 'improvement' or 'p_beat', got 'ucb'."),
        ({"n_startup_trials": 1}, "GreedyGain.n_startup_trials: expected a number >= 2, got 1."),
        ({"explore": 1.5}, r"GreedyGain.explore: expected a number in \[0, 1\], got 1.5."),
        ({"divergence_reports": 0}, "GreedyGain.divergence_reports: expected a number >= 1, got 0."),
    ],
)
def test_what_cannot_be(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidValue, match=f"^{says}$"):
        GreedyGain(**fields)


def test_what_an_arm_waits_for() -> None:
    at = seen(paused("5", 8), paused("6", 5))
    made = ask(at, uniform(0, 4), uniform(0, 2))
    assert [move.uid for move in made.moves] == [None]
    assert [str(wait) for wait in made.waits] == [
        "waits: rank 1 of 2 by expected improvement a step, needs more than 0.0667 a step",
        "waits: rank 2 of 2 by expected improvement a step, needs more than 0.0667 a step",
    ]


def test_propensities_and_the_end_of_exploration() -> None:
    """Three arms, .3 at random: .7 + .1 for the first, .1 for another; half of that with half of the budget left."""
    at, said = seen(paused("5", 8), paused("6", 5)), (uniform(0, 4), uniform(0, 2))
    for account, share in ((UNLIMITED, 0.3), (Account(1000, 500), 0.15), (Account(1e9, 1e9 - 40), 0.0)):
        odds = {}
        for n in range(200):
            answers: Answers = {"test": said}
            slots = Slots(1, 9, account)
            (move,) = GreedyGain(explore=0.3).allocate(None, at, answers, PAUSES, slots, (n,)).moves
            odds[move.uid] = move.propensity
        assert odds[None] == pytest.approx(1 - share + share / 3)
        assert odds.get("5") == (pytest.approx(share / 3) if share else None)
    assert ask(at, *said, slots=Slots(1, 9, Account(100, 100))).moves == (), "nothing is left"
