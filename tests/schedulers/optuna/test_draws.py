"""Draws from Optuna's distributions: every value is one of theirs, and all of a range is reached."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.builders import props
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from lcsearch.schedulers.optuna._draws import anywhere, near

KINDS: list[BaseDistribution] = [
    FloatDistribution(-2, 3),
    FloatDistribution(1e-6, 10, log=True),
    FloatDistribution(0, 0.9, step=0.3),
    FloatDistribution(0.5, 0.5),
    IntDistribution(-3, 12),
    IntDistribution(1, 7, step=3),
    IntDistribution(1, 1000, log=True),
    IntDistribution(7, 7),
    CategoricalDistribution(["a", 1, None, 2.5]),
    CategoricalDistribution([True]),
]


@pytest.mark.parametrize("distribution", KINDS, ids=str)
@props
@given(seed=st.integers(0, 2**32))
def test_every_value_is_the_distributions(distribution: BaseDistribution, seed: int) -> None:
    rng = np.random.default_rng(seed)
    value = anywhere(rng).suggest("x", distribution)
    beside = near({"x": value}, rng).suggest("x", distribution)
    elsewhere = near({"y": value}, rng).suggest("x", distribution)
    foreign = near({"x": "nothing of the kind"}, rng).suggest("x", distribution)
    for one in (value, beside, elsewhere, foreign):
        assert distribution._contains(distribution.to_internal_repr(one))  # noqa: SLF001 (Optuna's own check)


def test_all_of_a_range_is_reached_and_evenly() -> None:
    rng = np.random.default_rng(0)
    counts = {
        str(kind): np.unique([str(anywhere(rng).suggest("x", kind)) for _ in range(2000)], return_counts=True)[1]
        for kind in (KINDS[2], KINDS[4], KINDS[5], KINDS[8])
    }
    assert [len(found) for found in counts.values()] == [4, 16, 3, 4]
    assert all(found.min() > 0.6 * found.mean() for found in counts.values())
    logs = np.log10([anywhere(rng).suggest("x", KINDS[1]) for _ in range(2000)])
    assert abs(np.median(logs) + 2.5) < 0.2


def test_near_is_nearer_than_anywhere() -> None:
    rng = np.random.default_rng(0)
    for kind, value in ((KINDS[0], 0.5), (KINDS[4], 3)):
        far = np.mean([abs(anywhere(rng).suggest("x", kind) - value) for _ in range(300)])
        close = np.mean([abs(near({"x": value}, rng).suggest("x", kind) - value) for _ in range(300)])
        assert close < 0.5 * far
    kept = [near({"x": "a"}, rng).suggest("x", KINDS[8]) for _ in range(300)]
    assert 0.75 < kept.count("a") / 300 < 0.95


def test_a_parameter_that_is_asked_for_again_keeps_its_value() -> None:
    draw = anywhere(np.random.default_rng(0))
    assert draw.suggest_float("x", 0, 1) == draw.suggest_float("x", 0, 1)
    assert draw.suggest_int("n", 1, 64, log=True) == draw.params["n"]
    assert draw.suggest_categorical("c", ["a", "b"]) in ("a", "b")
    assert sorted(draw.distributions) == ["c", "n", "x"]
