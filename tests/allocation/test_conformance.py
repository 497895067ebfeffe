from __future__ import annotations

import math
from typing import ClassVar

import pytest
from kit.allocators import FORECASTERS, AllocatorKit, Faulty, Plot, passed_on

from lcsearch.allocation.allocators.alp_gmm import ProgressMixture
from lcsearch.allocation.allocators.asha import AshaPromotion
from lcsearch.allocation.allocators.dump import UpperConfidence
from lcsearch.allocation.allocators.going_rate import GoingRateAsha
from lcsearch.allocation.allocators.greedy import GreedyGain
from lcsearch.allocation.allocators.halving import SuccessiveHalving
from lcsearch.allocation.allocators.hyperband import AsyncHyperband
from lcsearch.allocation.allocators.mfpi import RandomHorizonPi
from lcsearch.allocation.allocators.pandora import PandoraIndex
from lcsearch.allocation.allocators.robust import FollowTheForecast
from lcsearch.allocation.allocators.run_to_end import RunToEnd
from lcsearch.allocation.allocators.sec import SelfEvolving
from lcsearch.allocation.allocators.top_two import TopTwoThompson
from lcsearch.allocation.allocators.uncertain import FundTheUncertain
from lcsearch.allocation.allocators.uniform import Uniform
from lcsearch.allocation.bounded import Bounded
from lcsearch.allocation.contract import Allocator


class TestRunToEnd(AllocatorKit):
    def make(self) -> Allocator:
        return RunToEnd()


class TestUniform(AllocatorKit):
    def make(self) -> Allocator:
        return Uniform()


class TestUniformOfThree(AllocatorKit):
    arms: ClassVar[int | None] = 3

    def make(self) -> Allocator:
        return Uniform(3, quantum=0.3)


class TestAsha(AllocatorKit):
    waits: ClassVar[bool] = True

    def make(self) -> Allocator:
        return AshaPromotion()


class TestAshaOfTwo(AllocatorKit):
    waits: ClassVar[bool] = True

    def make(self) -> Allocator:
        return AshaPromotion(first=0.15, eta=2)


class TestGoingRate(AllocatorKit):
    waits: ClassVar[bool] = True

    def make(self) -> Allocator:
        return GoingRateAsha()


class TestGoingRateFromTheStart(AllocatorKit):
    waits: ClassVar[bool] = True

    def make(self) -> Allocator:
        return GoingRateAsha(first=0.1, eta=2, kappa=0.5, startup=0)


class TestHyperband(AllocatorKit):
    waits: ClassVar[bool] = True

    def make(self) -> Allocator:
        return AsyncHyperband()


class TestHyperbandOfTwo(AllocatorKit):
    waits: ClassVar[bool] = True

    def make(self) -> Allocator:
        return AsyncHyperband(first=0.15, eta=2, n_brackets=2)


class TestHalving(AllocatorKit):
    waits: ClassVar[bool] = True

    def make(self) -> Allocator:
        return SuccessiveHalving()


class TestHalvingOfFour(AllocatorKit):
    waits: ClassVar[bool] = True
    arms: ClassVar[int | None] = 4

    def make(self) -> Allocator:
        return SuccessiveHalving(4, first=0.2, eta=2)


class TestBounded(AllocatorKit):
    """Within bounds that bind nobody: what an allocator keeps, it keeps."""

    waits: ClassVar[bool] = True

    def make(self) -> Allocator:
        return Bounded(AshaPromotion(), max_paused=1000, min_slice=0.0)


class TestPreempting(AllocatorKit):
    waits: ClassVar[bool] = True

    def make(self) -> Allocator:
        return Bounded(AshaPromotion(), max_slice=2.0)


class TestGreedyGain(AllocatorKit):
    def make(self) -> Allocator:
        return GreedyGain()


class TestGreedyGainOfProbability(AllocatorKit):
    def make(self) -> Allocator:
        return GreedyGain(0.3, gain="p_beat", n_startup_trials=3, explore=0.5)


class TestSec(AllocatorKit):
    waits: ClassVar[bool] = True

    def make(self) -> Allocator:
        return SelfEvolving(first=0.1, eta=2)


class TestDump(AllocatorKit):
    waits: ClassVar[bool] = True

    def make(self) -> Allocator:
        return UpperConfidence(first=0.1, eta=2, window=3, groups="x")


class TestProgressMixture(AllocatorKit):
    waits: ClassVar[bool] = True

    def make(self) -> Allocator:
        return ProgressMixture(first=0.1, eta=2, refit=10)


class TestFundTheUncertain(AllocatorKit):
    waits: ClassVar[bool] = True

    def make(self) -> Allocator:
        return FundTheUncertain(first=0.1, eta=2)


class TestTopTwoThompson(AllocatorKit):
    waits: ClassVar[bool] = True

    def make(self) -> Allocator:
        return TopTwoThompson(first=0.1, eta=2)


class TestRandomHorizonPi(AllocatorKit):
    waits: ClassVar[bool] = True

    def make(self) -> Allocator:
        return RandomHorizonPi(first=0.1, eta=2, n_asked=3)


class TestPandoraIndex(AllocatorKit):
    waits: ClassVar[bool] = True

    def make(self) -> Allocator:
        return PandoraIndex(first=0.1, eta=2, floor=0.0)


class TestFollowTheForecast(AllocatorKit):
    waits: ClassVar[bool] = True

    def make(self) -> Allocator:
        return FollowTheForecast(first=0.1, eta=2)


class FaultyKit(AllocatorKit):
    """Not collected: a kit to be run by hand on an allocator with a fault."""

    __test__ = False

    def __init__(self, fault: str) -> None:
        self.one = Faulty(GreedyGain(), fault)

    def make(self) -> Allocator:
        return self.one


STUDY = Plot([[1.0, 0.5, 0.4, 0.3], [0.9, 0.6, 0.35, 0.31], [0.8, 0.7, 0.6, 0.5]], workers=2)
WIDE = Plot([[1.0 - 0.1 * i, 0.5 + 0.1 * i, 0.4] for i in range(8)], workers=4)


def test_the_double_without_a_fault_passes() -> None:
    kit = FaultyKit("")
    kit.assert_all_done(kit.play(STUDY, "normal"))
    kit.assert_same_moves(WIDE, "normal")
    kit.test_the_state_handed_in_is_left_alone()


@pytest.mark.parametrize("fault", ["nothing is moved", "nothing is begun", "half of the slots", "nothing goes on"])
def test_the_kit_sees_idle_slots(fault: str) -> None:
    with pytest.raises(AssertionError, match="a slot is left free"):
        FaultyKit(fault).play(STUDY, "normal")


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        ("the order of live", "in another order"),
        ("the sign of values", "mirrored"),
        ("memory outside the state", "again"),
    ],
)
def test_the_kit_sees_what_moves_depend_on(fault: str, what: str) -> None:
    with pytest.raises(AssertionError, match=what):
        FaultyKit(fault).assert_same_moves(WIDE, "normal")


def test_the_kit_sees_a_bad_state() -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        passed_on(FaultyKit("state is no JSON").make().init())
    with pytest.raises(AssertionError):
        FaultyKit("state is changed in place").test_the_state_handed_in_is_left_alone()


def test_the_kit_sees_global_random_numbers() -> None:
    with pytest.raises(AssertionError):
        FaultyKit("global random numbers").test_global_random_state_is_left_alone()


def test_the_kit_sees_a_policy_that_needs_its_opinions() -> None:
    with pytest.raises(RuntimeError, match="nobody answers"):
        FaultyKit("absent forecasts").test_an_ordinary_study("off law", 1)


@pytest.mark.parametrize("who", FORECASTERS)
@pytest.mark.parametrize("kit", [TestAsha, TestHyperband, TestGoingRate, TestSec, TestFollowTheForecast])
def test_what_is_left_for_no_rung_takes_one_that_waits_to_the_horizon(kit: type[AllocatorKit], who: str) -> None:
    """One step of the budget is left: the second trial needs no more, a new one would need two. Nothing was moved."""
    world = kit().play(Plot([[0.0], [0.0, 0.0, math.nan], [0.0]], first=0, budget=2), who)
    assert [trial.status.name for trial in world.trials.values()] == ["COMPLETE", "COMPLETE"]
    assert world.spent == 2


@pytest.mark.parametrize("who", FORECASTERS)
def test_where_the_leader_s_way_is_not_paid_for_another_s_is(who: str) -> None:
    """Nothing new may be begun, and the best that waits would need 24 of the 22 steps that are left, another one 20."""
    plot = Plot([[0.0], [-1.0, 0.0], [0.0] * 7], direction="minimize", judged="best", first=3, every=4, budget=35)
    world = TestHyperband().play(plot, who)
    assert [trial.status.name for trial in world.trials.values()] == ["COMPLETE", "PAUSED", "COMPLETE"]


@pytest.mark.parametrize("who", FORECASTERS)
def test_a_slot_stays_free_where_the_move_beside_it_takes_what_is_left(who: str) -> None:
    plot = Plot([[0.0], [0.0] * 6, [0.0]], direction="minimize", judged="best", first=0, every=4, workers=2, budget=20)
    world = TestGreedyGainOfProbability().play(plot, who)
    assert "COMPLETE" in {trial.status.name for trial in world.trials.values()}
