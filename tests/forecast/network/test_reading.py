from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lcsearch.curves import Floats
from lcsearch.forecast.contract import Forecasts
from lcsearch.forecast.network.model import default_borders
from lcsearch.forecast.network.objective import likelihood, p_below, tail_scales
from lcsearch.forecast.network.reading import insert, read_off

BORDERS = default_borders(40)


def head(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logs = (2.0 * torch.randn(n, 42, generator=generator)).log_softmax(-1)
    return logs, 3.0 * torch.tanh(torch.randn(n, generator=generator))


def read(last: Floats, unit: Floats, incumbent: float, cap: Floats, seed: int = 0) -> Forecasts:
    logs, split = head(last.size, seed)
    return Forecasts.of(*read_off(BORDERS, logs, split, last, unit, incumbent, cap), sign=1.0, source="")


finite = st.floats(-1e3, 1e3)


@settings(deadline=None)
@given(finite, st.floats(1e-6, 1e3), finite, st.one_of(st.just(math.inf), finite), st.integers(0, 50))
def test_p_beat_is_the_mass_that_the_split_gives(
    last: float, unit: float, incumbent: float, cap: float, seed: int
) -> None:
    n = np.ones(1)
    got = read(last * n, unit * n, incumbent, cap * n, seed)
    logs, split = head(1, seed)
    gap = torch.tensor([[(incumbent - last) / unit]], dtype=torch.float64)
    meant = float(p_below(BORDERS.double(), logs.double().log_softmax(-1)[None], split.double()[None], gap))
    meant = 1.0 if cap < incumbent else meant
    assert got.absent == (None,)
    assert got.p_beat(incumbent)[0] == pytest.approx(meant, rel=1e-9, abs=1e-12)


@settings(deadline=None)
@given(finite, st.floats(1e-6, 1e3), finite, st.one_of(st.just(math.inf), finite), st.integers(0, 50))
def test_quantiles_invert_a_monotone_cdf(last: float, unit: float, incumbent: float, cap: float, seed: int) -> None:
    n = np.ones(1)
    got = read(last * n, unit * n, incumbent, cap * n, seed)
    p = np.linspace(0.001, 0.999, 101)[None]
    q = got.quantile(p)
    assert (np.diff(q) >= 0).all()
    assert (got.cdf(q) >= p - 1e-6).all()
    x = np.sort(np.concatenate([q, last + unit * np.linspace(-30.0, 30.0, 101)[None]], 1))
    assert (np.diff(got.cdf(x)) >= 0).all()
    assert (q <= cap).all()
    if cap < math.inf:
        assert got.cdf(cap)[0] == 1.0


def test_left_of_the_cap_nothing_changes() -> None:
    n = np.ones(5)
    free, capped = read(n, 0.1 * n, 0.9, np.inf * n), read(n, 0.1 * n, 0.9, 0.95 * n)
    x = np.tile(np.linspace(-3.0, 0.95, 200), (5, 1))
    np.testing.assert_allclose(capped.p_beat(x), free.p_beat(x), rtol=1e-9, atol=1e-15)
    np.testing.assert_array_equal(capped.p_beat(np.tile([0.950001, 2.0], (5, 1))), 1.0)


def test_the_incumbent_that_is_the_cap_is_beaten_strictly() -> None:
    n = np.ones(5)
    there, free = read(n, 0.1 * n, 0.93, 0.93 * n), read(n, 0.1 * n, 0.93, np.inf * n)
    np.testing.assert_allclose(there.p_beat(0.93), free.p_beat(0.93), rtol=1e-12)
    assert (there.p_beat(0.93) < 1.0).all()


@pytest.mark.parametrize("unit", [1e-300, 1e-12, 1.0, 1e30, 1e300, 1.7e308])
@pytest.mark.parametrize("last", [0.0, -1.0, 1e34, -1e300])
@pytest.mark.parametrize("cap", [math.inf, -1e300])
def test_units_of_any_size_give_finite_numbers(unit: float, last: float, cap: float) -> None:
    got = read(np.array([last]), np.array([unit]), 0.5, np.array([cap]))
    assert got.absent == (None,)
    assert np.isfinite(got.mean()).all()
    assert np.isfinite(got.quantile(np.array([[0.001, 0.5, 0.999]]))).all()


@given(st.lists(st.floats(-5.0, 5.0), min_size=2, max_size=8), st.floats(-6.0, 6.0), st.floats(0.0, 1.0))
def test_a_knot_put_in_keeps_its_level(knots: list[float], where: float, level: float) -> None:
    k = np.sort(np.array([knots]))
    p = np.linspace(0.1, 0.9, k.shape[1])[None]
    at, got = insert(k, p, np.array([where]), np.array([level]), np.zeros((1, 1)))
    assert at.shape == got.shape == (1, k.shape[1] + 1)
    assert (np.diff(at) >= 0).all()
    assert (np.diff(got) >= 0).all()
    assert got[0, np.flatnonzero(at[0] == where)[0]] == level


def between(a: float, b: float) -> torch.Tensor:
    """(1, 400) places inside a bin."""
    return torch.linspace(a, b, 402, dtype=torch.float64)[1:-1].float()[None]


def density(logs: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return (-likelihood(BORDERS, logs[None].expand(1, x.shape[1], -1), x)).exp()[0]


def test_the_likelihood_is_a_density() -> None:
    logs, _ = head(1)
    scale = tail_scales(BORDERS)
    total = 0.0
    for a, b in pairwise(BORDERS.tolist()):
        total += float(density(logs, between(a, b)).mean()) * (b - a)
    for end, far in ((BORDERS[0], -25.0 * scale[0]), (BORDERS[-1], 25.0 * scale[1])):
        x = between(float(end), float(end + far)).double()
        total += float(torch.trapezoid(density(logs, x.float()).double(), (x[0] - end).abs()))
    assert total == pytest.approx(1.0, abs=5e-3)


def test_the_mass_below_is_what_the_likelihood_sums_to() -> None:
    logs, _ = head(1)
    for a, b in pairwise(BORDERS.tolist()):
        x = between(a, b)
        below = p_below(BORDERS, logs[None].expand(1, x.shape[1], -1), torch.zeros(1, x.shape[1]), x)[0]
        slope = (below[-1] - below[0]) / (x[0, -1] - x[0, 0])
        assert float(slope) == pytest.approx(float(density(logs, x).mean()), rel=2e-2)
