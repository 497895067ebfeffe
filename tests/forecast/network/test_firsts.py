from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcsearch.curves import Curve, Floats
from lcsearch.forecast.contract import Absent, Forecasts
from lcsearch.forecast.network.firsts import Firsts, single
from lcsearch.study import Status, Trial

LEVELS = np.linspace(0.01, 0.99, 50)


def trial(i: int, values: list[float], status: Status = Status.PAUSED, first: float = 1.0) -> Trial:
    return Trial(f"t{i}", Curve.of(first + np.arange(float(len(values))), np.array(values)), status=status)


def said(medians: list[float], sign: float = 1.0, absent: list[Absent | None] | None = None) -> Forecasts:
    """Losses as wide as one, around each median."""
    knots: Floats = np.array(medians)[:, None] + LEVELS - 0.5
    return Forecasts.of(knots, LEVELS, np.zeros((len(medians), 2)), sign=sign, source="made", absent=absent)


def in_order(trials: list[Trial], found: Forecasts) -> Forecasts:
    """All of them as a crowd is told."""
    firsts = Firsts.of(trials, found)
    rows = zip(trials, found.knots, found.levels, strict=True)
    raised = [firsts.raised(t, knots, levels) if single(t) else knots for t, knots, levels in rows]
    return replace(found, knots=np.stack(raised))


def medians(of: Forecasts) -> list[float]:
    return [round(float(x), 6) for x in of.quantile(0.5)]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_who_begins_worse_is_forecast_no_better(sign: float) -> None:
    trials = [trial(0, [sign * 90.0]), trial(1, [sign * 30.0]), trial(2, [sign * 50.0])]
    found = in_order(trials, said([10.0, 20.0, 45.0], sign))
    assert medians(found) == [sign * 45.0, sign * 20.0, sign * 45.0]
    assert found.p_beat(sign * 44.8).tolist() == pytest.approx([0.3, 1.0, 0.3])


def test_a_mirrored_study_gives_the_same_bits() -> None:
    rng = np.random.default_rng(0)
    firsts, ends = rng.random(40), rng.normal(0, 3, 40).tolist()
    one, mirror = (
        in_order([trial(i, [sign * x]) for i, x in enumerate(firsts.tolist())], said(ends, sign))
        for sign in (1.0, -1.0)
    )
    np.testing.assert_array_equal(one.knots, mirror.knots)


def test_one_in_ten_may_be_out_of_order_and_bind_nobody() -> None:
    """Of those that begin better the worst forecast counts up to nine, of ten the second worst."""
    trials = [trial(i, [float(i)]) for i in range(11)]
    ends = [50.0, *(float(i) for i in range(1, 10)), 3.0]
    assert medians(in_order([*trials[:9], trials[10]], said([*ends[:9], 3.0])))[-1] == 50.0
    assert medians(in_order(trials, said(ends)))[-1] == 9.0


def test_only_single_reports_of_one_step_are_compared() -> None:
    others = [
        trial(1, [30.0, 29.0]),
        trial(2, [30.0], Status.COMPLETE),
        trial(3, [30.0], first=2.0),
        trial(4, [90.0]),  # a tie
    ]
    assert [single(t) for t in others] == [False, False, True, True]
    found = said([10.0, 80.0, 80.0, 80.0, 80.0])
    kept = in_order([trial(0, [90.0]), *others], found)
    np.testing.assert_array_equal(kept.knots, found.knots)


def test_one_that_is_asked_beside_them_is_bound_by_them_and_binds_none() -> None:
    trials, found = [trial(0, [30.0]), trial(1, [50.0])], said([20.0, 45.0])
    firsts = Firsts.of(trials, found)
    for first, median in ((20.0, 10.0), (30.0, 10.0), (40.0, 20.0), (50.0, 20.0), (90.0, 45.0)):
        knots = firsts.raised(trial(2, [first]), said([10.0]).knots[0], LEVELS)
        assert round(float(np.interp(0.5, LEVELS, knots)), 6) == median


def test_no_answer_stays_none_and_binds_nobody() -> None:
    found = in_order([trial(0, [90.0]), trial(1, [30.0])], said([10.0, np.nan], absent=[None, Absent.UNSUPPORTED]))
    assert found.absent == (None, Absent.UNSUPPORTED)
    assert medians(found)[0] == 10.0


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-50, 50)), min_size=1, max_size=9))
def test_up_to_ten_trials_end_in_the_order_of_their_first_reports_and_stay_so(some: list[tuple[int, int]]) -> None:
    trials = [trial(i, [float(first)]) for i, (first, _) in enumerate(some)]
    before = said([float(end) for _, end in some])
    after = in_order(trials, before)
    assert (after.knots >= before.knots).all()
    firsts, ends = np.array([first for first, _ in some]), after.quantile(0.5)
    assert all(ends[i] >= ends[firsts < firsts[i]].max(initial=-np.inf) - 1e-9 for i in range(len(some)))
    np.testing.assert_allclose(in_order(trials, after).knots, after.knots, atol=0.01)
