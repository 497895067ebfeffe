"""What the next trials would bring: by hand, by brute force, and where it is not known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcsearch.allocation.next_trials import gain_of_next
from lcsearch.errors import InvalidValue

LOSSES = st.lists(st.floats(-100, 100, width=32), min_size=4, max_size=9)


def test_by_hand() -> None:
    """The excess of the two best over the third is 4 - (1 + 2) / 2."""
    for k in (0.5, 1.0, 2.0):
        assert gain_of_next([1.0, 2.0, 4.0, 8.0], k) == pytest.approx(2.5 * math.log(1 + k / 4))
    # Without one of them, at random, the best is 8 instead of 0 in a quarter.
    assert gain_of_next([0.0, 8.0, 8.0, 8.0], 1) == pytest.approx(8 / 4)
    assert gain_of_next([0.0, 8.0, 8.0, 8.0], 2) == pytest.approx(8 / 2)
    assert gain_of_next([8.0, 8.0, 8.0, 0.0], 1) == 8.0


@given(LOSSES, st.data())
def test_it_is_the_largest_of_three(losses: list[float], data: st.DataObject) -> None:
    """By brute force, over all that may be left out."""
    k = data.draw(st.integers(1, len(losses) // 2))
    kept = itertools.combinations(losses, len(losses) - k)
    mean = float(np.mean([min(some) for some in kept])) - min(losses)
    lately = min(losses[: len(losses) - k]) - min(losses)
    *best, beyond = sorted(losses)[: min(2 * k, len(losses) // 2) + 1]
    tail = (beyond - np.mean(best)) * np.log1p(k / len(losses))
    assert gain_of_next(losses, k) == pytest.approx(max(mean, lately, tail), abs=1e-6)


@given(LOSSES, st.floats(0.1, 2), st.floats(0.1, 10), st.floats(-50, 50))
def test_it_has_the_loss_s_units_and_no_origin(losses: list[float], k: float, scale: float, shift: float) -> None:
    moved = gain_of_next([scale * loss + shift for loss in losses], k)
    assert moved == pytest.approx(scale * gain_of_next(losses, k), rel=1e-6, abs=1e-6)


def test_of_draws_of_one_distribution_the_next_ones_gain_no_more_on_average() -> None:
    rng = np.random.default_rng(0)
    draws = rng.lognormal(size=(4000, 40))
    said = np.mean([gain_of_next(list(row[:30]), 10) for row in draws])
    came = float((draws[:, :30].min(1) - draws.min(1)).mean())
    assert 0 < came < said


@pytest.mark.parametrize(
    ("losses", "k"),
    [([], 1), ([1.0], 1), ([1.0, 2.0, 3.0], 2), ([math.inf] * 9, 1), ([1.0, *[math.inf] * 9], 1), ([math.nan] * 4, 1)],
)
def test_not_known(losses: list[float], k: float) -> None:
    assert gain_of_next(losses, k) == math.inf


@pytest.mark.parametrize("k", [0, -1, math.nan, math.inf])
def test_no_number_of_trials(k: float) -> None:
    with pytest.raises(InvalidValue, match=r"gain_of_next\(k=\): expected a number > 0"):
        gain_of_next([1.0, 2.0], k)
