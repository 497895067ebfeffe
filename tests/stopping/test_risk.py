from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.builders import goal, props, snapshot, trial
from kit.doubles import NormalAroundBest, chances

from lcsearch.errors import InvalidValue
from lcsearch.forecast.contract import Forecasts, Query
from lcsearch.stopping.decision import Decision, Look
from lcsearch.stopping.risk import LEVELS, StopRecord, independent_risk_of, risk_of
from lcsearch.stopping.rules import Rank
from lcsearch.stopping.verdict import Reason, Verdict
from lcsearch.study import Incumbent


def straight(low: float = 0.0, high: float = 1.0) -> StopRecord:
    """A mark whose forecast has loss = low + level * (high - low)."""
    return StopRecord(5.0, "BELOW", 0.02, "why", tuple(low + level * (high - low) for level in LEVELS))


def a_forecast(sign: float, sd: float = 0.1) -> Forecasts:
    of = goal("minimize" if sign > 0 else "maximize")
    one = trial("0", [sign * 3.0, sign * 2.0])
    return NormalAroundBest(sd).forecast(snapshot(of, []), [Query(one, "best_by", 10)])


def test_p_beat_is_linear_between_levels() -> None:
    mark = straight()
    for level in LEVELS:
        assert mark.p_beat(level) == pytest.approx(level)
    assert mark.p_beat(0.42) == pytest.approx(0.42)
    assert mark.p_beat(50.0) == LEVELS[-1]


def test_p_beat_falls_exponentially_below_the_first_level() -> None:
    mark = StopRecord(5.0, "BELOW", 0.02, "", tuple(float(i) for i in range(len(LEVELS))))
    # Levels rise from 1e-4 to 1e-2 over three units: a factor 100 each three.
    assert mark.p_beat(0.0) == pytest.approx(1e-4)
    assert mark.p_beat(-3.0) == pytest.approx(1e-6)
    assert mark.p_beat(-1e9) == 0.0


def test_a_forecast_without_width() -> None:
    mark = StopRecord(5.0, "BELOW", 0.0, "", (2.0,) * len(LEVELS))
    assert mark.p_beat(1.999) == 0.0
    assert mark.p_beat(2.001) == LEVELS[-1]


def test_a_divergence_counts_nothing() -> None:
    assert StopRecord(5.0, "DIVERGED", None, "gone").p_beat(1e9) == 0.0


def test_a_stop_whose_forecast_could_not_be_kept_counts_with_its_own_p() -> None:
    assert StopRecord(5.0, "BELOW", 0.03, "why").p_beat(1.0) == 0.03
    assert risk_of([StopRecord(5.0, "BELOW", 0.03, "why")], 1.0) == pytest.approx(0.03)


def test_the_risk_formula_by_hand() -> None:
    assert risk_of([], 0.5) == 0.0
    assert risk_of([straight()], 0.1) == pytest.approx(0.1)
    assert risk_of([straight()] * 2, 0.1) == pytest.approx(0.2)
    assert independent_risk_of([straight()] * 2, 0.1) == pytest.approx(1 - 0.9**2)
    marks = [straight(), straight(0.0, 2.0), StopRecord(1.0, "DIVERGED", None, "")]
    assert risk_of(marks, 0.2) == pytest.approx(0.2 + 0.1)
    assert independent_risk_of(marks, 0.2) == pytest.approx(1 - (1 - 0.2) * (1 - 0.1))
    assert risk_of([straight()] * 9, 0.2) == 1.0


spreads = st.lists(st.tuples(st.floats(-5, 5), st.floats(0, 5)), max_size=6)


@props
@given(spreads, spreads, st.floats(-6, 6), st.floats(-6, 6))
def test_risk_grows_with_marks_and_shrinks_when_the_incumbent_improves(
    some: list[tuple[float, float]], more: list[tuple[float, float]], a: float, b: float
) -> None:
    marks = [straight(low, low + width) for low, width in some]
    both = marks + [straight(low, low + width) for low, width in more]
    better, worse = sorted((a, b))
    assert 0.0 <= risk_of(marks, better) <= risk_of(marks, worse) <= 1.0
    assert risk_of(marks, worse) <= risk_of(both, worse) + 1e-12
    assert 0.0 <= independent_risk_of(both, worse) <= risk_of(both, worse) + 1e-12


def test_the_sum_bounds_what_happens_to_trials_that_hang_together_and_the_product_does_not() -> None:
    """Trials of which at most one can win (they share one unknown): with the product a limit would be passed."""
    draws = np.random.default_rng(0).random(200_000)
    marks, p = [straight()] * 5, 0.1
    lost = np.any([(draws >= i * p) & (draws < (i + 1) * p) for i in range(5)], axis=0).mean()
    assert independent_risk_of(marks, p) < lost - 0.05
    assert lost == pytest.approx(risk_of(marks, p), abs=0.005)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_mark_reads_its_forecast_off_in_losses(sign: float) -> None:
    forecast = a_forecast(sign)
    mark = StopRecord.of(1.0, "BELOW", 0.01, "why", forecast)
    assert list(mark.losses) == sorted(mark.losses)
    assert mark.losses[9] == pytest.approx(2.0)  # the median: best loss so far
    for loss in (1.7, 1.85, 2.0, 2.1):
        assert mark.p_beat(loss) == pytest.approx(float(forecast.p_beat(sign * loss)[0]), abs=0.02)
    assert mark.p_beat(1.9) == pytest.approx(0.1587, abs=0.02)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("target", [0.5, 1.7, 1.77, 1.9, 2.0, 2.4])
def test_at_the_target_of_its_stop_a_mark_says_what_the_stop_said(sign: float, target: float) -> None:
    """Between stored levels the distribution is bent: a line from level to level is up to half as much again."""
    forecast = a_forecast(sign)
    p = float(forecast.p_beat(sign * target)[0])
    mark = StopRecord.from_json(StopRecord.of(1.0, "BELOW", p, "why", forecast, target).to_json())
    assert mark.p_beat(target) == pytest.approx(p, rel=1e-12)
    assert risk_of([mark], target) == pytest.approx(p, rel=1e-9)
    rising = [mark.p_beat(loss) for loss in sorted([*np.linspace(0.0, 3.0, 301).tolist(), *mark.losses, target])]
    assert rising == sorted(rising)


def test_a_target_on_an_atom() -> None:
    mark = StopRecord(5.0, "BELOW", 0.03, "", (1.0, 1.5, 1.8, *(2.0,) * (len(LEVELS) - 3)), 2.0)
    assert mark.p_beat(2.0) == 0.01  # no more than the first level that stands there
    assert mark.p_beat(1.9999) < 0.01 < mark.p_beat(2.0001)


def test_an_unbounded_forecast_leaves_no_levels() -> None:
    wild = Forecasts(np.array([[-math.inf, math.inf]]), np.array([[0.0, 1.0]]), np.zeros((1, 2)), 1.0, (None,), "wild")
    with np.errstate(invalid="ignore"):
        assert StopRecord.of(1.0, "BELOW", 0.01, "", wild).losses == ()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_json_round_trip(sign: float) -> None:
    for mark in (
        StopRecord.of(7.0, "BELOW", 0.0123456789012345, 'a\nfew "lines"', a_forecast(sign)),
        StopRecord(3.0, "DIVERGED", None, "gone"),
        StopRecord.of(7.0, "BELOW", 0.5, "", chances([0.5])),
    ):
        twin = StopRecord.from_json(mark.to_json())
        assert (twin.step, twin.reason, twin.p, twin.text) == (mark.step, mark.reason, mark.p, mark.text)
        np.testing.assert_allclose(twin.losses, mark.losses, rtol=1e-9)


def test_a_stored_mark_keeps_its_resolution_far_from_zero() -> None:
    mark = straight(1_000_000.0, 1_000_001.0)
    twin = StopRecord.from_json(mark.to_json())
    for loss in (1_000_000.05, 1_000_000.5):
        assert twin.p_beat(loss) == pytest.approx(mark.p_beat(loss), rel=1e-3)


@pytest.mark.parametrize("text", ["x" * 9000, "ü\U0001f600" * 4000, '"\\\n' * 3000, "\x00" * 5000])
@pytest.mark.parametrize("big", [1.0, 1.2345678901234567e-301, -9.87654321e299])
def test_every_storage_can_keep_a_mark(text: str, big: float) -> None:
    losses = tuple(sorted(big * (1.0 + 0.1234567890123 * i) for i in range(len(LEVELS))))
    stored = StopRecord(123456.789, "BELOW", 0.012345678901234567, text, losses).to_json()
    assert len(stored) < 2046
    assert len(stored.encode()) < 2046
    assert text.startswith(StopRecord.from_json(stored).text)
    assert len(StopRecord.from_json(stored).text) > 100


HUGE = 1.7976931348623157e308
numbers = st.one_of(
    st.floats(allow_nan=False),
    st.sampled_from(
        [5e-324, -5e-324, 2.2250738585072014e-308, 0.0, -0.0, HUGE, -HUGE, 1e300, 1e-300, 1.0, 1.0 + 2e-16]
    ),
)


@st.composite
def forecasts(draw: st.DrawFn) -> Forecasts:
    """Of any numbers: knots that are equal, the largest there are, denormals; levels with atoms; tails without end."""
    n = draw(st.integers(2, 6))
    knots = sorted(draw(st.lists(numbers, min_size=n, max_size=n)))
    levels = sorted(draw(st.lists(st.floats(0.0, 1.0), min_size=n, max_size=n)))
    tails = draw(st.tuples(*[st.floats(0.0, HUGE)] * 2))
    sign = draw(st.sampled_from([1.0, -1.0]))
    return Forecasts(np.array([knots]), np.array([levels]), np.array([tails]), sign, (None,), "wild")


@settings(props, max_examples=600)
@given(forecasts(), numbers, st.one_of(st.none(), numbers), st.lists(numbers, min_size=1, max_size=4))
def test_every_mark_of_a_stop_reads_back(
    forecast: Forecasts, step: float, target: float | None, losses: list[float]
) -> None:
    with np.errstate(all="ignore"):
        p = None if target is None else float(forecast.p_beat(forecast.sign * target)[0])
        if p is not None and not -1e-9 <= p <= 1.0 + 1e-9:
            return  # no forecast, and no stop
        mark = StopRecord.of(step, "BELOW", p, "why", forecast, target)
    if not math.isfinite(step):
        assert mark.read_back() is None
        return
    twin = mark.read_back()
    assert twin is not None
    assert twin.read_back() == twin
    assert (twin.step, twin.p, twin.target) == (mark.step, mark.p, mark.target)
    np.testing.assert_allclose(twin.losses, mark.losses, rtol=1e-11)
    told = [twin.p_beat(loss) for loss in sorted(losses)]
    assert all(0.0 <= p <= 1.0 for p in told)
    assert told == sorted(told)


def test_between_two_levels_no_probability_passes_the_upper_one() -> None:
    """A line from -1.8e308 to 0 stood a last bit above its end, and fell there."""
    losses = (*[-1.79769313486e308] * 8, -1.77720361846e308, 0.0, 0.4, 0.9, 1.6, 2.3)
    mark = StopRecord(1.0, "BELOW", None, "why", losses)
    told = [mark.p_beat(loss) for loss in (-1.2512592230676773, 2.2250738585072014e-308, 1.0)]
    assert told == sorted(told)


def test_a_probability_beyond_one_by_a_rounding_error_is_kept() -> None:
    """judge() takes such a p for one, from_json took it for damage."""
    for p, kept in ((-1e-12, 0.0), (1.0 + 1e-12, 1.0)):
        twin = StopRecord.of(1.0, "BELOW", p, "", None, 2.0).read_back()
        assert twin is not None
        assert twin.p == kept


def test_a_quantile_that_overshoots_its_knot_is_kept() -> None:
    """Far from zero the line between two knots misses the upper one by a few last bits of the lower one."""
    far = 2.0**53
    knots, levels = [[-far, -0.5, -0.5]], [[0.0, 0.5, 1.0]]
    jagged = Forecasts(np.array(knots), np.array(levels), np.zeros((1, 2)), 1.0, (None,), "jagged")
    read = jagged.quantile([LEVELS])[0]
    assert list(read) != sorted(read)
    twin = StopRecord.of(1.0, "BELOW", 0.01, "", jagged).read_back()
    assert twin is not None
    assert len(twin.losses) == len(LEVELS)


@pytest.mark.parametrize("target", [math.inf, -math.inf, math.nan])
def test_a_target_that_is_no_number_is_not_kept(target: float) -> None:
    twin = StopRecord.of(1.0, "BELOW", 0.01, "", a_forecast(1.0), target).read_back()
    assert twin is not None
    assert twin.target is None


@pytest.mark.parametrize("step", [math.nan, math.inf, np.float32(3.0)])
def test_what_cannot_be_written_does_not_read_back(step: float) -> None:
    assert StopRecord(step, "BELOW", 0.01, "").read_back() is None


def test_what_is_too_long_beside_its_text_is_an_error() -> None:
    """It was shortened for ever."""
    assert StopRecord(1.0, "B" * 3000, 0.01, "why").read_back() is None


good = json.loads(straight().to_json())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not json",
        "null",
        "5",
        "[1]",
        "{}",
        "[" * 2000,
        json.dumps({**good, "losses": [1.0]}),
        json.dumps({**good, "losses": good["losses"][::-1]}),
        json.dumps({**good, "losses": [math.nan] * len(LEVELS)}),
        json.dumps({**good, "losses": [*good["losses"][:-1], math.inf]}),
        json.dumps({**good, "losses": 3}),
        json.dumps({**good, "step": None}),
        json.dumps({**good, "step": math.nan}),
        json.dumps({**good, "step": 10**400}),
        json.dumps({**good, "p": "often"}),
        json.dumps({**good, "p": math.nan}),
        json.dumps({**good, "p": -0.5}),
        json.dumps({**good, "target": "low"}),
        json.dumps({**good, "target": math.inf}),
    ],
)
def test_what_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue) as error:
        StopRecord.from_json(text)
    assert str(error.value) == f"lcsearch:mark: expected a record written by lcsearch, got {text[:80]!r}."


def test_a_mark_keeps_the_decision_and_its_text_is_a_view_of_it() -> None:
    look = Look(9.0, 10, 0.05, 0.0042, (0.31, 0.42, math.inf), (("parametric", 0.0042), ("rank-gap", "LATE")))
    decision = Decision(
        "s", "12", 9.0, Verdict.STOP, Reason.BOUND, now=look, before=replace(look, step=8.0, interval=None),
        incumbent=Incumbent(0.1, "3", 49.0), target=0.12, horizon=49.0, standing=Rank(17, 20, 3, 9), risk=0.031,
        bound=True, seen="cafe",
    )  # fmt: skip
    mark = StopRecord(9.0, "BOUND", 0.0042, decision.text, decision=decision)
    stored = mark.to_json(of=[12, 9.0, "cafe"])
    assert json.loads(stored)["text"] == ""
    read = StopRecord.from_json(stored)
    assert (read.decision, read.text) == (replace(decision, study=""), decision.text)
    assert read.to_json(of=[12, 9.0, "cafe"]) == stored
    with pytest.raises(InvalidValue):
        StopRecord.from_json(stored.replace('"STOP"', '"HALT"'))


def test_a_decision_that_does_not_fit_leaves_its_text() -> None:
    heard = tuple((f"forecaster {n}", 0.001) for n in range(99))
    look = Look(9.0, 10, 0.05, 0.0042, heard=heard)
    decision = Decision("s", "12", 9.0, Verdict.STOP, Reason.BELOW, now=look, incumbent=Incumbent(0.1, "3", 49.0))
    read = StopRecord.from_json(StopRecord(9.0, "BELOW", 0.0042, decision.text, decision=decision).to_json())
    assert read.decision is None
    assert decision.text.startswith(read.text)
    assert "this look: step 9" in read.text
