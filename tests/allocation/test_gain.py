from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.builders import goal, props, snapshot, trial
from scipy.integrate import quad

from lcsearch.allocation.gain import expected_improvement, gains, mean_gains, new_config_forecast
from lcsearch.curves import Floats
from lcsearch.forecast.contract import Absent, Forecasts
from lcsearch.study import Status

NAN = math.nan


def one(
    knots: list[float], levels: list[float], tails: tuple[float, float] = (0.0, 0.0), sign: float = 1.0
) -> Forecasts:
    return Forecasts.of(np.array([knots]), np.array([levels]), np.array([tails]), sign=sign, source="test")


def improvement(forecasts: Forecasts, loss: float) -> float:
    return float(expected_improvement(forecasts, loss)[0])


def test_uniform_by_hand() -> None:
    # L even on [2, 6]: E[(t - L)^+] = (t - 2)^2 / 8 inside, t - 4 beyond.
    uniform = one([2.0, 6.0], [0.0, 1.0])
    assert [improvement(uniform, t) for t in (1.0, 2.0, 4.0, 6.0, 9.0)] == pytest.approx([0.0, 0.0, 0.5, 2.0, 5.0])


def test_an_atom_by_hand() -> None:
    # A quarter even on [0, 1), three quarters at 1.
    best_by = one([0.0, 1.0, 1.0], [0.0, 0.25, 1.0])
    assert improvement(best_by, 1.0) == pytest.approx(0.25 * 0.5)
    assert improvement(best_by, 0.5) == pytest.approx(0.25 * 0.5 * 0.25)
    assert improvement(best_by, 3.0) == pytest.approx(0.25 * 2.5 + 0.75 * 2.0)


def test_tails_by_hand() -> None:
    # 20 % below 0 with scale 2, 30 % above 1 with scale 3, 50 % even in between.
    tailed = one([0.0, 1.0], [0.2, 0.7], (2.0, 3.0))
    assert improvement(tailed, 0.0) == pytest.approx(0.2 * 2.0)
    assert improvement(tailed, -2.0 * math.log(2.0)) == pytest.approx(0.2)
    assert improvement(tailed, 1.0) == pytest.approx(0.2 * 3.0 + 0.5 * 0.5)
    # One scale into the upper tail: E[(h - X)^+] = h - r (1 - exp(-h / r)) of the 30 % there.
    assert improvement(tailed, 4.0) == pytest.approx(0.2 * 6.0 + 0.5 * 3.5 + 0.3 * 3.0 * math.exp(-1.0))


def test_a_tail_of_scale_zero_is_an_atom() -> None:
    assert improvement(one([1.0, 2.0], [0.4, 0.9]), 3.0) == pytest.approx(0.4 * 2.0 + 0.5 * 1.5 + 0.1 * 1.0)
    assert improvement(one([1.0, 2.0], [0.4, 0.9]), 1.0) == 0.0
    assert improvement(one([1.0], [1.0]), 1.5) == pytest.approx(0.5)


@st.composite
def forecasts(draw: st.DrawFn) -> Forecasts:
    n = draw(st.integers(1, 6))
    knots = sorted(draw(st.lists(st.integers(-8, 8), min_size=n, max_size=n)))  # integers: atoms are common
    levels = sorted(draw(st.lists(st.integers(0, 20), min_size=n, max_size=n)))
    scales = st.sampled_from([0.0, 0.5, 3.0])
    return one([float(k) for k in knots], [p / 20 for p in levels], (draw(scales), draw(scales)))


@props
@given(forecasts(), st.floats(-12, 12))
def test_is_the_integral_of_the_cdf(forecast: Forecasts, t: float) -> None:
    def cdf(x: float) -> float:
        return float(forecast.cdf(x)[0])

    edges = sorted({-80.0, *(k for k in forecast.knots[0].tolist() if k < t), t})
    whole = sum(quad(cdf, a, b)[0] for a, b in pairwise(edges))
    assert improvement(forecast, t) == pytest.approx(whole, abs=1e-6)


@props
@given(forecasts(), st.floats(-12, 12))
def test_is_the_mean_of_samples(forecast: Forecasts, t: float) -> None:
    draws = forecast.sample(4000, np.random.default_rng(0))[0]
    won = np.maximum(t - draws, 0.0)
    assert improvement(forecast, t) == pytest.approx(won.mean(), abs=5 * won.std() / math.sqrt(4000) + 0.01)


@props
@given(forecasts(), st.floats(-12, 12))
def test_falls_to_the_mean_far_beyond_and_rises_with_the_loss(forecast: Forecasts, t: float) -> None:
    assert improvement(forecast, 1000.0) == pytest.approx(1000.0 - forecast.mean()[0])
    low, high = improvement(forecast, t), improvement(forecast, t + 0.5)
    assert 0.0 <= low <= high + 1e-12
    assert high - low <= 0.5 + 1e-12


def test_mirrored_is_the_same_in_loss_units() -> None:
    parts = ([0.0, 1.0, 1.0], [0.1, 0.25, 0.9], (0.5, 2.0))
    down, up = one(*parts), one(*parts, sign=-1.0)
    assert improvement(down, 0.7) == improvement(up, 0.7)
    draws = up.sample(200_000, np.random.default_rng(1))[0]
    assert improvement(up, 0.7) == pytest.approx(np.maximum(draws - -0.7, 0.0).mean(), rel=0.02)


def test_a_loss_a_row_and_absent_rows() -> None:
    rows = Forecasts.of(
        np.array([[2.0, 6.0], [2.0, NAN], [2.0, 6.0]]),
        np.array([[0.0, 1.0]] * 3),
        np.zeros((3, 2)),
        sign=1.0,
        source="test",
    )
    np.testing.assert_array_equal(expected_improvement(rows, [4.0, 4.0, 6.0]), [0.5, NAN, 2.0])
    assert expected_improvement(Forecasts.none([]), 1.0).shape == (0,)


def uniform(low: float, sign: float = 1.0) -> Forecasts:
    return one([low, low + 4.0], [0.0, 1.0], sign=sign)


def test_gains_of_answers_of_several_widths() -> None:
    answers: list[Forecasts | Absent]
    answers = [uniform(2.0), Absent.LATE, one([1.0, 1.0, 5.0], [0.0, 0.5, 1.0]), uniform(4.0, -1.0), uniform(2.0)]
    alone = [NAN if isinstance(a, Absent) else improvement(a, 4.0) for a in answers]
    np.testing.assert_array_equal(gains(answers, 4.0, "improvement"), alone)
    np.testing.assert_array_equal(gains(answers, 4.0, "p_beat"), [0.5, NAN, 0.875, 0.0, 0.5])
    assert gains([], 4.0, "improvement").shape == (0,)


@pytest.mark.filterwarnings("error")
def test_what_is_no_number_is_no_gain() -> None:
    blank = np.full((1, 2), NAN)
    nan = Forecasts(blank, blank, blank, 1.0, (None,))
    ends, levels, tails = np.array([[-1.7e308, 1.7e308]]), np.array([[0.0, 1.0]]), np.array([[1e308, 1e308]])
    vast = Forecasts(ends, levels, tails, 1.0, (None,))
    endless = one([0.0, 1.0], [0.0, 1.0])
    assert np.isnan(gains([nan, vast], 1.7e308, "improvement")).all()
    assert np.isnan(gains([endless], math.inf, "improvement")).all()


def test_the_mean_is_over_those_that_answered() -> None:
    said: dict[str, list[Forecasts | Absent]] = {
        "b": [uniform(2.0), Absent.FAILED, Absent.FAILED],
        "a": [uniform(0.0), uniform(2.0), Absent.UNSUPPORTED],
    }
    np.testing.assert_allclose(mean_gains(said, 3, 4.0, "improvement"), [(0.5 + 2.0) / 2, 0.5, NAN])
    assert np.isnan(mean_gains({}, 2, 4.0, "improvement")).all()
    assert mean_gains({}, 0, 4.0, "improvement").shape == (0,)


def finished(*losses: float, others: int = 0) -> Forecasts | None:
    trials = [trial(str(i), [loss]) for i, loss in enumerate(losses)]
    trials += [trial(f"x{i}", [-9.0], Status.STOPPED) for i in range(others)]
    return new_config_forecast(snapshot(goal(), trials).bank)


def test_a_new_configuration_beats_the_best_of_n_one_time_in_n_plus_one() -> None:
    for losses in ([1.0, 3.0], [1.0, 3.0, 2.0, 5.0], list(range(1, 10))):
        told = finished(*losses)
        assert told is not None
        assert told.p_beat(1.0)[0] == pytest.approx(1 / (len(losses) + 1))


def test_a_new_configuration_by_hand() -> None:
    # Best quarter of eight: 1 and 2; the third is 4, so the scale is ((4 - 1) + (4 - 2)) / 2 = 2.5.
    told = finished(1.0, 2.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)
    assert told is not None
    assert improvement(told, 1.0) == pytest.approx(2.5 / 9)
    assert told.p_beat(1.0 - 2.5 * math.log(2.0))[0] == pytest.approx(0.5 / 9)


def test_what_did_not_finish_counts_as_worse() -> None:
    told = finished(1.0, 3.0, NAN, others=4)
    assert told is not None
    assert told.p_beat(1.0)[0] == pytest.approx(1 / 8)
    assert told.p_beat(3.0)[0] == pytest.approx(2 / 8)


def test_nobody_knows_before_two_have_finished() -> None:
    assert finished() is None
    assert finished(1.0) is None
    assert finished(1.0, NAN, others=3) is None


def test_ties_promise_nothing() -> None:
    told = finished(1.0, 1.0, 1.0, 1.0)
    assert told is not None
    assert improvement(told, 1.0) == 0.0


def test_monte_carlo_of_the_rule() -> None:
    """Of an exponential law, where the rule is exact but for noise in the scale: E = scale / (n + 1)."""
    rng = np.random.default_rng(0)
    told: list[float] = []
    won: list[float] = []
    for _ in range(2000):
        losses: Floats = -rng.exponential(1.0, 9)  # the best are far out, as in the tail the rule assumes
        law = finished(*losses[:8].tolist())
        assert law is not None
        best = float(losses[:8].min())
        told.append(improvement(law, best))
        won.append(max(best - float(losses[8]), 0.0))
    assert np.mean(told) == pytest.approx(1 / 9, rel=0.05)
    assert np.mean(told) == pytest.approx(np.mean(won), rel=0.15)
