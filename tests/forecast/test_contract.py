from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.builders import props

from lcsearch.errors import InvalidValue
from lcsearch.forecast.contract import Absent, Forecasts

LOG2 = float(np.log(2.0))


def one(
    knots: list[float], levels: list[float], tails: tuple[float, float] = (0.0, 0.0), sign: float = 1.0
) -> Forecasts:
    return Forecasts.of(np.array([knots]), np.array([levels]), np.array([tails]), sign=sign, source="test")


def test_uniform_by_hand() -> None:
    uniform = one([2.0, 6.0], [0.0, 1.0])
    assert uniform.cdf(3.0)[0] == pytest.approx(0.25)
    assert uniform.p_beat(3.0)[0] == pytest.approx(0.25)
    assert uniform.quantile(0.75)[0] == pytest.approx(5.0)
    assert uniform.mean()[0] == pytest.approx(4.0)
    assert uniform.cdf([[1.0, 2.0, 6.0, 9.0]]).tolist() == [[0.0, 0.0, 1.0, 1.0]]


def test_exponential_tails_by_hand() -> None:
    # 20 % below 0 with scale 2, 30 % above 1 with scale 3, 50 % even in between.
    tailed = one([0.0, 1.0], [0.2, 0.7], (2.0, 3.0))
    assert tailed.cdf(-2.0 * LOG2)[0] == pytest.approx(0.1)
    assert tailed.cdf(1.0 + 3.0 * LOG2)[0] == pytest.approx(0.85)
    assert tailed.quantile(0.1)[0] == pytest.approx(-2.0 * LOG2)
    assert tailed.quantile(0.85)[0] == pytest.approx(1.0 + 3.0 * LOG2)
    assert tailed.quantile([[0.0, 1.0]]).tolist() == [[-np.inf, np.inf]]
    assert tailed.mean()[0] == pytest.approx(0.2 * (0.0 - 2.0) + 0.5 * 0.5 + 0.3 * (1.0 + 3.0))


def test_an_atom_counts_for_reaching_and_not_for_beating() -> None:
    # 25 % even on [0, 1), an atom of 75 % at 1: best so far 1, one chance in four to improve on it.
    best_by = one([0.0, 1.0, 1.0], [0.0, 0.25, 1.0])
    assert best_by.p_beat(1.0)[0] == pytest.approx(0.25)
    assert best_by.cdf(1.0)[0] == 1.0
    assert best_by.p_beat(0.5)[0] == pytest.approx(0.125)
    assert best_by.p_beat(1.0 + 1e-12)[0] == 1.0
    assert best_by.quantile([[0.2, 0.25, 0.26, 1.0]])[0] == pytest.approx([0.8, 1.0, 1.0, 1.0])
    assert best_by.mean()[0] == pytest.approx(0.25 * 0.5 + 0.75)


def test_a_mixture_by_hand() -> None:
    # even on [0, 4]; an atom at 2: half of each
    even, atom = one([0.0, 4.0], [0.0, 1.0]), one([2.0, 2.0], [0.0, 1.0])
    both = Forecasts.mixture([even, atom])
    assert both.cdf([[1.0, 2.0, 3.0, 4.0]])[0] == pytest.approx([0.125, 0.75, 0.875, 1.0])
    assert both.p_beat(2.0)[0] == pytest.approx(0.25)
    assert both.mean()[0] == pytest.approx(2.0)
    assert Forecasts.mixture([atom]) is atom


@props
@given(
    st.lists(st.lists(st.floats(-9, 9), min_size=2, max_size=5), min_size=1, max_size=4), st.sampled_from([1.0, -1.0])
)
def test_a_mixture_is_the_mean_of_its_parts_at_every_knot(knots: list[list[float]], sign: float) -> None:
    parts = [one(sorted(k), np.linspace(0.1, 0.9, len(k)).tolist(), (1.0, 2.0), sign) for k in knots]
    both = Forecasts.mixture(parts)
    assert both.absent == (None,)
    assert Forecasts.of(both.knots, both.levels, both.tails, sign=sign, source="").absent == (None,)
    at = sign * both.knots
    for of in ("cdf", "p_beat"):
        expected = np.mean([getattr(part, of)(at) for part in parts], axis=0)
        assert getattr(both, of)(at) == pytest.approx(expected, abs=1e-12)


def test_a_tail_of_scale_zero_is_an_atom() -> None:
    atom = one([1.0, 2.0], [0.4, 0.9])
    assert atom.cdf([[0.999, 1.0, 2.0]])[0] == pytest.approx([0.0, 0.4, 1.0])
    assert atom.p_beat(2.0)[0] == pytest.approx(0.9)
    assert atom.mean()[0] == pytest.approx(0.4 * 1.0 + 0.5 * 1.5 + 0.1 * 2.0)


def test_maximizing_speaks_the_metrics_own_units() -> None:
    # The loss is the atom example; the metric is its negative: best so far -1, one chance in four for more.
    up = one([0.0, 1.0, 1.0], [0.0, 0.25, 1.0], sign=-1.0)
    assert up.p_beat(-1.0)[0] == pytest.approx(0.25)
    assert up.cdf(-1.0)[0] == pytest.approx(0.75)
    assert up.cdf(-0.5)[0] == pytest.approx(0.875)
    assert up.quantile(0.875)[0] == pytest.approx(-0.5)
    assert up.quantile(0.5)[0] == -1.0
    assert up.mean()[0] == pytest.approx(-0.875)


def test_samples_follow_the_distribution() -> None:
    best_by = one([0.0, 1.0, 1.0], [0.1, 0.25, 1.0], (0.5, 0.0), sign=-1.0)
    draws = best_by.sample(4000, np.random.default_rng(0))[0]
    assert (draws >= -1.0).all()
    assert (draws == -1.0).mean() == pytest.approx(0.75, abs=0.02)
    assert draws.mean() == pytest.approx(best_by.mean()[0], abs=0.02)


def test_a_row_that_is_no_distribution_becomes_absent() -> None:
    knots = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, np.nan], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    levels = np.array([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [0.5, 0.2], [0.0, 1.5], [0.0, 1.0]])
    tails = np.zeros((6, 2))
    tails[5, 0] = -1.0
    made = Forecasts.of(knots, levels, tails, sign=1.0, source="test")
    assert made.absent == (None, *[Absent.NONFINITE] * 5)
    assert made.row(1) is Absent.NONFINITE
    assert isinstance(made.row(0), Forecasts)


def test_absent_rows_answer_nan() -> None:
    none = Forecasts.none([Absent.LATE, Absent.UNSUPPORTED])
    assert len(none) == 2
    assert none.row(-1) is Absent.UNSUPPORTED
    for answer in (none.cdf(0.0), none.p_beat(0.0), none.quantile(0.5), none.mean()):
        assert np.isnan(answer).all()


def test_every_reason_has_advice() -> None:
    assert all(reason.advice.endswith(".") for reason in Absent)
    assert all("goes on" in reason.advice for reason in Absent)


def test_rows_do_not_mix() -> None:
    two = Forecasts.of(
        np.array([[0.0, 1.0], [10.0, 20.0]]), np.array([[0.0, 1.0]] * 2), np.zeros((2, 2)), sign=1.0, source="test"
    )
    assert two.cdf(np.array([0.5, 15.0])) == pytest.approx([0.5, 0.5])
    assert two.cdf(0.5) == pytest.approx([0.5, 0.0])
    last = two.row(-1)
    assert isinstance(last, Forecasts)
    assert last.mean() == pytest.approx([15.0])


def test_one_row_is_read_as_each_of_many_to_the_bit() -> None:
    """A look reads few numbers off one row by plain floats; ties, tails and the largest numbers among them."""
    rng = np.random.default_rng(0)
    for i in range(300):
        size = 10.0 ** rng.integers(-300, 300) if i % 3 == 0 else 1.0
        knots, levels = np.sort(rng.normal(size=9) * size), np.sort(rng.random(9))
        knots[3], levels[6] = knots[4], levels[5]
        if i % 5 == 0:
            knots[0], knots[-1] = -1e308, 1e308
        sign, tails = 1.0 - 2.0 * (i % 2), rng.random(2) * (rng.random(2) < 0.7)
        one = Forecasts(knots[None], levels[None], tails[None], sign, (None,))
        twice = [np.array([x, x]) for x in (knots, levels, tails)]
        two = Forecasts(twice[0], twice[1], twice[2], sign, (None, None))
        places = sign * np.concatenate([rng.normal(size=2) * size, knots[[3, 7]], [np.nan, np.inf]])
        chances = np.concatenate([rng.random(2), levels[[5, 7]], [0.0, 1.0]])
        with np.errstate(all="ignore"):
            for x, y in zip(places, chances, strict=True):
                for name, at in (("cdf", x), ("p_beat", x), ("quantile", y)):
                    mine, theirs = getattr(one, name)(at), getattr(two, name)(at)[:1]
                    assert np.array_equal(mine, theirs, equal_nan=True)
                    assert mine.shape == (1,)
            few = np.array([[0.05, 0.5, 0.95]])
            assert np.array_equal(one.quantile(few), two.quantile(few.repeat(2, 0))[:1], equal_nan=True)


def test_wrong_shapes_and_levels_are_refused() -> None:
    uniform = one([0.0, 1.0], [0.0, 1.0])
    with pytest.raises(InvalidValue, match=r"Forecasts\.cdf\(value\)"):
        uniform.cdf([1.0, 2.0])
    with pytest.raises(InvalidValue, match=r"levels in \[0, 1\]"):
        uniform.quantile(1.5)
    with pytest.raises(InvalidValue, match="tails of shape"):
        Forecasts(uniform.knots, uniform.levels, np.zeros((1, 3)), 1.0, (None,))
    with pytest.raises(InvalidValue, match="knots and levels of shape"):
        Forecasts(uniform.knots, uniform.levels, uniform.tails, 1.0, (None, None))


@st.composite
def distributions(draw: st.DrawFn) -> Forecasts:
    """Any distribution of the form, atoms and tails included."""
    k = draw(st.integers(1, 8))
    steps = draw(st.lists(st.sampled_from([0.0, 0.25, 1.0, 3.0]), min_size=k, max_size=k))
    rises = draw(st.lists(st.integers(0, 4), min_size=k + 1, max_size=k + 1).filter(lambda r: sum(r) > 0))
    levels = np.cumsum(rises[:k]) / sum(rises)
    tails = draw(st.tuples(st.sampled_from([0.0, 0.5]), st.sampled_from([0.0, 2.0])))
    sign = draw(st.sampled_from([1.0, -1.0]))
    start = draw(st.sampled_from([-2.0, 0.0, 5.0]))
    return one((start + np.cumsum(steps)).tolist(), levels.tolist(), tails, sign)


@props
@given(distributions(), st.lists(st.floats(0.001, 0.999), min_size=2, max_size=6))
def test_quantile_and_cdf_are_inverse(forecast: Forecasts, p: list[float]) -> None:
    levels = np.sort(p)[None, :]
    q = forecast.quantile(levels)
    assert (np.diff(q) >= 0).all()
    assert (forecast.cdf(q) >= levels - 1e-9).all()
    below = forecast.cdf(q - 1e-7)  # nothing smaller reaches the level
    assert (below <= levels + 1e-6).all()


@props
@given(distributions(), st.lists(st.floats(-20.0, 20.0), min_size=2, max_size=8))
def test_cdf_is_monotone_and_p_beat_agrees(forecast: Forecasts, values: list[float]) -> None:
    y = np.sort(values)[None, :]
    cdf, beat = forecast.cdf(y), forecast.p_beat(y)
    assert (np.diff(cdf) >= -1e-12).all()
    assert ((cdf >= 0) & (cdf <= 1) & (beat >= 0) & (beat <= 1)).all()
    if forecast.sign > 0:
        assert (beat <= cdf + 1e-12).all()
    else:
        assert beat == pytest.approx(1.0 - cdf, abs=1e-12)


@props
@given(distributions())
def test_mirrored_forecasts_mirror(forecast: Forecasts) -> None:
    mirror = Forecasts(forecast.knots, forecast.levels, forecast.tails, -forecast.sign, forecast.absent)
    y = np.array([[-1.0, 0.0, 0.3, 4.0]])
    assert mirror.p_beat(-y) == pytest.approx(forecast.p_beat(y))
    assert mirror.mean() == pytest.approx(-forecast.mean())


def test_knots_farther_apart_than_a_float_are_no_forecast() -> None:
    """P(beat) between them was 0, and where warnings are errors a host answered 500."""
    ends = np.array([[-1.7e308, 1.7e308], [1.6e308, 1.7e308]])
    wide = Forecasts.of(ends, np.array([[0.0, 1.0]]), np.zeros((2, 2)), sign=1.0, source="wide")
    assert wide.absent == (Absent.NONFINITE, None)
    assert wide.mean()[1] == pytest.approx(1.65e308)
    assert wide.p_beat(1.65e308)[1] == pytest.approx(0.5)
    assert wide.quantile(0.5)[1] == pytest.approx(1.65e308)
