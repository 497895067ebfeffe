"""Which stopped trials a finish thaws: counted by hand and against brute force."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.builders import goal, props, snapshot, trial

from lcsearch.errors import InvalidValue
from lcsearch.stopping.finish import FinishPlan, plan_finish, stopped_of
from lcsearch.stopping.gates import THAWED, Event, GateHold, ask
from lcsearch.stopping.policy import Policy
from lcsearch.stopping.risk import StopRecord
from lcsearch.stopping.verdict import Reason
from lcsearch.study import Snapshot, Status, Trial

POLICY = Policy()


def stopped(uid: int, p: float) -> Trial:
    """One whose record has no levels, so that its P(beat) stays as it was."""
    records = {"stop": StopRecord(2.0, "BELOW", p, "why")}
    return trial(str(uid), [2.0, 1.9], Status.STOPPED, stop_records=records)


def study(chances: list[float], *more: Trial) -> Snapshot:
    done = [trial(str(i), [2.0 - 0.1 * j for j in range(10)]) for i in range(3)]
    return snapshot(goal(), [*done, *(stopped(10 + i, p) for i, p in enumerate(chances)), *more])


def uids(plan: FinishPlan) -> list[str]:
    return [one.uid for one in plan.thaw]


def test_the_likeliest_are_thawed_until_the_rest_is_within_the_limit() -> None:
    seen = study([0.01, 0.04, 0.003, 0.04, 0.008])
    plan = plan_finish(POLICY, seen, 0.02)
    assert uids(plan) == ["11", "13", "10"]  # the earlier of two alike first
    assert plan.risk == pytest.approx(0.101)
    assert plan.rest == pytest.approx(0.011)
    assert uids(plan_finish(POLICY, seen, 0.021)) == ["11", "13"]
    assert uids(plan_finish(POLICY, seen, 0.2)) == []
    assert uids(plan_finish(POLICY, seen, 0.0)) == ["11", "13", "10", "14", "12"]


def test_what_nothing_is_known_of_is_left_alone_and_named() -> None:
    records = {"stop": StopRecord(2.0, "DIVERGED", None, "gone")}
    diverged = trial("20", [2.0, 1.9], Status.STOPPED, stop_records=records)
    theirs = trial("21", [2.0, 1.9], Status.STOPPED)
    plan = plan_finish(POLICY, study([0.04], diverged, theirs, trial("22", [2.0], Status.FAILED)), 0.0)
    assert (uids(plan), plan.apart, plan.diverged) == (["10"], ("21",), ("20",))


def test_one_that_cannot_be_thawed_stays_and_drives_no_other_on() -> None:
    seen = study([0.04, 0.03, 0.01])
    plan = plan_finish(POLICY, seen, 0.02, but={"10"})
    assert uids(plan) == ["11"]
    assert plan.rest == pytest.approx(0.05)
    assert uids(plan_finish(POLICY, seen, 0.02, but={"10", "11", "12"})) == []


def test_named_ones_whatever_they_sum_to() -> None:
    plan = plan_finish(POLICY, study([0.04, 0.03, 0.01]), 0.5, only={"12"})
    assert uids(plan) == ["12"]
    assert plan.rest == pytest.approx(0.07)


@pytest.mark.parametrize("limit", [-0.1, 1.1, math.nan, "much"])
def test_a_limit_is_a_probability(limit: Any) -> None:
    with pytest.raises(InvalidValue) as error:
        plan_finish(POLICY, study([0.04]), limit)
    assert str(error.value).startswith("finish(risk=): expected a number in [0, 1], got ")


@props
@given(st.lists(st.floats(0, 0.05), max_size=7), st.floats(0, 0.2))
def test_no_smaller_number_of_thaws_would_do(chances: list[float], limit: float) -> None:
    plan = plan_finish(POLICY, study(chances), limit)
    assert plan.rest <= limit
    assert plan.risk == pytest.approx(math.fsum(chances))
    for n in range(len(plan.thaw)):
        for some in itertools.combinations(range(len(chances)), n):
            assert math.fsum(p for i, p in enumerate(chances) if i not in some) > limit


def test_p_is_read_against_the_incumbent_of_now() -> None:
    losses = tuple(1.0 + 0.1 * i for i in range(14))
    record = StopRecord(2.0, "BELOW", 0.04, "why", losses, 1.4)
    seen = study([], trial("10", [2.0, 1.9], Status.STOPPED, stop_records={"stop": record}))
    (one,) = stopped_of(POLICY, seen)
    assert (one.was, one.p) == (0.04, record.p_lost(1.1 - 0.01 * seen.robust_range))
    assert one.p < one.was
    before_any = snapshot(goal(), [stopped(10, 0.04)])
    assert [one.p for one in stopped_of(POLICY, before_any)] == [0.04]


def test_a_thawed_trial_is_not_stopped_again_even_where_it_diverges() -> None:
    done = [trial(str(i), [2.0 - 0.1 * j for j in range(10)]) for i in range(6)]
    policy = Policy(look_growth=1)
    for values in ([5.0 - 0.1 * i for i in range(8)], [5.0, 4.0, *[math.nan] * 6]):
        own = trial("9", values, Status.RUNNING)
        thawed = trial("9", values, Status.RUNNING, stop_records={THAWED: "trial 3, stopped at step 2"})
        asked = ask(policy, snapshot(goal(), done, (own,)), Event(own, own.curve.last_step))
        assert not isinstance(asked, GateHold)
        held = ask(policy, snapshot(goal(), done, (thawed,)), Event(thawed, own.curve.last_step))
        assert isinstance(held, GateHold)
        assert held.reason is Reason.THAWED
