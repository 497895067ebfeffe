"""What the curricula share: who is asked about, how an arm is drawn, when it is ASHA."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.allocators import FORECASTERS, PAUSES, PLOTS, AllocatorKit, Plot
from kit.builders import props
from kit.curricula import ACCOUNT, NINTH, asked, even, paused, study

from lcsearch.allocation.allocators.asha import AshaPromotion
from lcsearch.allocation.allocators.uncertain import FundTheUncertain
from lcsearch.allocation.contract import Account, Allocator, Move, Slots
from lcsearch.allocation.curriculum import Choice, Curriculum, drawn, largest, softmax, stacked, together
from lcsearch.allocation.gain import record_forecast
from lcsearch.allocation.named import KINDS
from lcsearch.errors import InvalidValue
from lcsearch.forecast.contract import Absent, Answers, Forecasts
from lcsearch.study import Snapshot

CURRICULA = [kind for kind in KINDS.values() if issubclass(kind, Curriculum)]


def test_softmax_by_hand() -> None:
    odds = softmax(0.5)(np.array([1.0, 0.5, 0.5]))  # e^2 : e : e
    np.testing.assert_allclose(odds, np.array([math.e, 1.0, 1.0]) / (math.e + 2.0))
    assert softmax(0.1)(np.array([99.0, 0.0])).tolist() == [1.0, 0.0]
    assert largest(np.array([1.0, 3.0, 3.0])).tolist() == [0.0, 1.0, 0.0]


def test_slots_are_drawn_one_after_the_other_and_a_share_begins_new_ones() -> None:
    """By score b is first; a quarter goes to a new one all the same. Without b the mean of a and new is c's."""
    choices = [
        Choice(1.0, (Move("a", 3.0),)), Choice(5.0, (Move("b", 3.0),)), Choice(math.nan, (Move("c", 3.0),)),
        Choice(0.0, (Move(None, 1.0), Move(None, 1.0))),
    ]  # fmt: skip
    first: dict[str | None, float] = {}
    for seed in range(400):
        moves = list(drawn(choices, 2, largest, 0.25, np.random.default_rng(seed)))
        assert sorted(str(move.uid) for move in moves) == ["None", "None", "a", "b", "c"], "each once"
        first[moves[0].uid] = first.get(moves[0].uid, 0) + 1 / 400
        assert moves[0].propensity == {"b": 0.75, None: 0.25}[moves[0].uid]
        if moves[0].uid == "b":
            assert moves[1].uid in ("c", None), "c is worth the mean of all, 2, and a but 1"
    assert first["b"] == pytest.approx(0.75, abs=0.06)


@props
@given(st.lists(st.one_of(st.floats(-1e300, 1e300), st.just(math.nan)), min_size=1, max_size=6), st.integers(0, 9))
def test_propensities_are_probabilities(scores: list[float], seed: int) -> None:
    choices = [Choice(score, (Move(str(i), 3.0),)) for i, score in enumerate(scores)]
    with np.errstate(all="ignore"):
        moves = list(drawn(choices, 9, softmax(0.4), 0.25, np.random.default_rng(seed)))
    assert sorted(str(move.uid) for move in moves) == [str(i) for i in range(len(scores))]
    assert all(0 < move.propensity <= 1 for move in moves)


def test_what_all_forecasters_say_together() -> None:
    blank = np.full((1, 2), np.nan)
    broken = Forecasts(blank, blank, blank, 1.0, (None,))
    said: Answers = {"a": [even(0, 2), Absent.LATE, broken], "b": [even(0, 4), even(1, 2), Absent.LATE]}
    both, one, none = together(said, 3)
    assert none is None
    assert both is not None
    assert one is not None
    assert both.p_beat(1.0)[0] == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert one.p_beat(1.5)[0] == 0.5
    rows = stacked([both, one])
    np.testing.assert_allclose(rows.p_beat(1.5), [(0.75 + 1.5 / 4) / 2, 0.5])


def test_the_forecast_of_a_record_by_hand() -> None:
    """A quarter lies below the best, with the tail's scale 2 - 1; three eighths up to the second, the rest beyond."""
    told = record_forecast(np.array([1.0, 2.0]), 0.25)
    assert told is not None
    assert told.p_beat(1.0)[0] == 0.25
    assert told.cdf(2.0)[0] == pytest.approx(0.625)
    assert told.p_beat(0.0)[0] == pytest.approx(0.25 / math.e)
    assert record_forecast(np.array([1.0]), 0.25) is None
    tied = record_forecast(np.array([0.5] * 8 + [0.7]), 0.25)  # the smallest step that there is
    assert tied is not None
    assert tied.p_beat(0.5)[0] == pytest.approx(0.25)
    same = record_forecast(np.zeros(8), 0.25)
    assert same is not None
    assert same.p_beat(0.0)[0] == pytest.approx(0.25)


@pytest.mark.parametrize("kind", CURRICULA)
def test_before_a_full_trial_is_spent_and_without_a_forecast_it_is_asha(kind: type[Curriculum]) -> None:
    who, asha = kind(NINTH), AshaPromotion(NINTH)
    young = Slots(3, 1, Account(spent=8.9))
    assert who.questions(who.init(), study(), young) == ()
    for slots in (young, Slots(3, 1, ACCOUNT)):
        plain = asha.allocate(None, study(), {}, PAUSES, slots, (0, 0))
        n = len(who.questions(who.init(), study(), slots))
        for said in ({}, {"test": [Absent.FAILED] * n}):
            made = who.allocate(who.init(), study(), said, PAUSES, slots, (0, 0))
            assert (made.moves, made.waits) == (plain.moves, plain.waits)


def test_an_allocation_asks_about_few_however_many_wait() -> None:
    many = study(*(paused(str(i), 1, 3.0 + i) for i in range(10, 200)))
    asks = FundTheUncertain(NINTH, n_asked=5).questions(None, many, Slots(1, 9, ACCOUNT))
    # of 192 at the first rung the best 64 may go on; trial 6 is past it
    assert [query.trial.uid for query in asks] == ["5", "10", "11", "12", "13"]


def test_once_nothing_new_may_be_begun_asha_closes_the_rungs() -> None:
    made = asked(FundTheUncertain(NINTH), n_new=0)
    assert [move.uid for move in made.moves] == ["6"], "the best goes on, for nothing is complete"
    done: Snapshot = study(paused("7", 3, 3.0), paused("8", 3, 4.0))
    made = asked(FundTheUncertain(NINTH), even(0, 4), at=done, n_new=0)
    assert [move.uid for move in made.moves] == ["6"], "one of three"


@pytest.mark.parametrize("kind", CURRICULA)
@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"first": 0}, r"first: expected a share of the horizon in \(0, 1\], got 0."),
        ({"floor": 1.5}, r"floor: expected a share in \[0, 1\], got 1.5."),
        ({"n_asked": 0}, "n_asked: expected an integer >= 1, got 0."),
    ],
)
def test_what_cannot_be(kind: type[Curriculum], fields: dict[str, float], says: str) -> None:
    with pytest.raises(InvalidValue, match=f"^{kind.__name__}.{says}$"):
        kind(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", CURRICULA)
def test_a_share_of_the_slots_begins_new_ones_whatever_is_forecast(kind: type[Curriculum]) -> None:
    """Every trial is certain to win, and a new one is worth little: a third of the turns is new ones' all the same."""

    class Kit(AllocatorKit):
        __test__ = False

        def make(self) -> Allocator:
            return kind(0.1, 2, floor=1 / 3)

    losses = [[1.0 - 0.001 * i - 0.01 * t for t in range(20)] for i in range(60)]
    world = Kit().play(Plot(losses, budget=200), "certain")
    assert sum(move.uid is None for move in world.log) / len(world.log) > 0.2


@pytest.mark.parametrize("kind", CURRICULA)
def test_other_seeds_draw_others_and_one_seed_the_same(kind: type[Curriculum]) -> None:
    @props
    @given(PLOTS)
    def holds(plot: Plot) -> None:
        class Kit(AllocatorKit):
            __test__ = False
            waits = True

            def make(self) -> Allocator:
                return kind(0.1, 2)

        assert Kit().play(plot, "normal").log == Kit().play(plot, "normal").log

    holds()
    assert FORECASTERS
