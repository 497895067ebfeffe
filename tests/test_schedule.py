from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.builders import props

from lcsearch.errors import InvalidValue
from lcsearch.schedule import Schedule


@pytest.mark.parametrize(
    ("schedule", "at", "rates"),
    [
        (Schedule("constant", 0.1, 100), [0, 50, 100], [0.1, 0.1, 0.1]),
        (Schedule("linear", 0.1, 100), [0, 25, 50, 100], [0.1, 0.075, 0.05, 0.0]),
        (Schedule("linear", 0.1, 100, floor=0.1), [0, 50, 100], [0.1, 0.055, 0.01]),
        (Schedule("cosine", 0.2, 100), [0, 25, 50, 75, 100], [0.2, 0.1 + 0.05 * math.sqrt(2), 0.1, None, 0.0]),
        (Schedule("cosine", 0.2, 100, warmup=0.2), [0, 10, 20, 60, 100], [0.0, 0.1, 0.2, 0.1, 0.0]),
        (Schedule("wsd", 0.1, 100), [0, 79, 80, 90, 95, 100], [0.1, 0.1, 0.1, 0.05, 0.025, 0.0]),
        (Schedule("wsd", 0.1, 10, warmup=0.1, decay=0.5), [0, 0.5, 1, 5, 7.5, 10], [0, 0.05, 0.1, 0.1, 0.05, 0]),
        (Schedule("step", 1.0, 100), [0, 49, 50, 74, 75, 100], [1, 1, 0.1, 0.1, 0.01, 0.01]),
    ],
)
def test_shapes_by_constants(schedule: Schedule, at: list[float], rates: list[float | None]) -> None:
    for step, rate in zip(at, rates, strict=True):
        if rate is not None:
            assert schedule(step) == pytest.approx(rate, abs=1e-12), step


def test_outside_the_run_the_nearest_end_holds() -> None:
    schedule = Schedule("linear", 0.1, 100, floor=0.5)
    assert schedule(-3) == schedule(0) == 0.1
    assert schedule(1000) == schedule(100) == pytest.approx(0.05)


def test_any_shape_in_the_same_shape_out() -> None:
    schedule = Schedule("cosine", 0.1, 100, warmup=0.1)
    steps = np.arange(12.0).reshape(3, 4)
    assert schedule.rate(steps).shape == (3, 4)
    np.testing.assert_array_equal(schedule.rate(steps)[1, 2], schedule(6))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"shape": "exponential"},
            "Schedule.shape: expected one of constant, linear, cosine, wsd, step, got 'exponential'.",
        ),
        ({"peak": 0.0}, "Schedule.peak: expected a finite number > 0, got 0.0."),
        ({"peak": math.inf}, "Schedule.peak: expected a finite number > 0, got inf."),
        ({"horizon": -1}, "Schedule.horizon: expected a finite number > 0, got -1."),
        ({"warmup": 1.0}, "Schedule.warmup: expected a number in [0, 1), got 1.0."),
        ({"warmup": -0.1}, "Schedule.warmup: expected a number in [0, 1), got -0.1."),
        ({"decay": 0.0}, "Schedule.decay: expected a number in (0, 1], got 0.0."),
        ({"floor": 1.5}, "Schedule.floor: expected a number in [0, 1], got 1.5."),
        ({"floor": math.nan}, "Schedule.floor: expected a number in [0, 1], got nan."),
        ({"peak": "0.1"}, "Schedule.peak: expected a finite number > 0, got '0.1'."),
    ],
)
def test_errors_word_for_word(changed: dict[str, Any], message: str) -> None:
    fields: dict[str, Any] = {"shape": "wsd", "peak": 0.1, "horizon": 100, **changed}
    with pytest.raises(InvalidValue) as error:
        Schedule(**fields)
    assert str(error.value) == message


@props
@given(
    st.sampled_from(["constant", "linear", "cosine", "wsd", "step"]),
    st.floats(1e-6, 10),
    st.floats(1, 1e6),
    st.floats(0, 0.99),
    st.floats(0.01, 1),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_a_rate_lies_between_zero_and_the_peak(
    shape: Any, peak: float, horizon: float, warmup: float, decay: float, floor: float, share: float
) -> None:
    schedule = Schedule(shape, peak, horizon, warmup, decay, floor)
    assert 0.0 <= schedule(share * horizon) <= peak * (1 + 1e-12)
    if share >= warmup:
        assert schedule(share * horizon) >= floor * peak * (1 - 1e-9)
