from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lcsearch.forecast.network import features
from lcsearch.forecast.network.features import Curves, fill, token_grid

report = st.one_of(
    st.floats(-1e3, 1e3, width=32),
    st.sampled_from([math.nan, math.inf, 0.0, 1e30, -1e30, 1e-30]),
)


def curves(values: list[float], rate: float = math.nan) -> Curves:
    n = len(values)
    steps = torch.arange(1.0, n + 1.0)[None] / 60.0
    rates = torch.full((1, n), rate)
    one = torch.ones(1, 1)
    return Curves.of(torch.tensor([values], dtype=torch.float32), steps, one, 60.0 * one, rates, rates)


@given(st.integers(1, 400), st.integers(0, 100), st.floats(1.1, 1.4))
def test_growing_a_curve_only_moves_its_last_token(n: int, more: int, ratio: float) -> None:
    short, long = token_grid(n, ratio), token_grid(n + more, ratio)
    assert short[-1] == n - 1
    assert long[: len(short) - 1] == short[:-1]
    assert short == sorted(set(short))


def test_tokens_are_few() -> None:
    assert [len(token_grid(n)) for n in (1, 8, 20, 40, 60, 512)] == [1, 8, 14, 18, 20, 32]


@settings(deadline=None)
@given(st.lists(report, min_size=1, max_size=30), st.lists(report, max_size=30))
def test_tokens_know_nothing_of_later_reports(seen: list[float], later: list[float]) -> None:
    if not any(map(math.isfinite, seen)):  # such a curve is never read
        return
    grid = torch.tensor([token_grid(len(seen))])
    before = features.tokens(curves(seen), grid)
    after = features.tokens(curves(seen + later), grid)
    assert torch.isfinite(before).all()
    torch.testing.assert_close(after, before, rtol=0.0, atol=0.0)


@settings(deadline=None)
@given(st.lists(report, min_size=1, max_size=30), st.lists(report, max_size=30))
def test_a_cut_knows_nothing_of_later_reports(seen: list[float], later: list[float]) -> None:
    if not math.isfinite(seen[-1]):
        return

    def look(values: list[float]) -> Tensor:
        c = curves(values, rate=0.5)
        a = features.cut(c, torch.tensor([[len(seen) - 1]]))
        x = torch.ones(1, 1)
        unit = features.unit_of(a, x)
        return features.describe(c, a, unit, x, math.nan * x, x, x, 0.3 * x, x)

    assert torch.isfinite(look(seen)).all()
    torch.testing.assert_close(look(seen + later), look(seen), rtol=0.0, atol=0.0)


def test_events_are_filled_from_the_past_and_the_first_ones_from_what_follows() -> None:
    nan, inf = math.nan, math.inf
    y, bad = fill(torch.tensor([[nan, 3.0, inf, 2.0, nan, nan]]))
    assert y.tolist() == [[3.0, 3.0, 3.0, 2.0, 2.0, 2.0]]
    assert bad.tolist() == [[True, False, True, False, True, True]]
    assert fill(torch.tensor([[nan, inf]]))[0].tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("at", [0, 1, 2, 5])
def test_median_of_three(at: int) -> None:
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(at))
    torch.testing.assert_close(features.median3(*x.unbind(-1)), x.median(-1).values)


@pytest.mark.parametrize("ended", [(), (1, 4), (0, 1, 2, 3, 4)])
def test_what_one_trial_tells_hangs_on_no_other(ended: tuple[int, ...]) -> None:
    """However many of them tell where one ends."""
    torch.manual_seed(0)
    n_q, n_c, s = 3, 5, 12
    context, mine = (
        Curves.of(torch.rand(*shape, s), torch.arange(1.0, s + 1), torch.full((1,), 60.0), torch.full((1,), 60.0), x, x)
        for shape in ((1, n_c), (1, n_q))
        for x in [torch.full((*shape, s), math.nan)]
    )
    q = features.cut(mine, torch.full((1, n_q, 1), 5)).map(lambda x: x.squeeze(2))
    unit, spread = torch.rand(1, n_q), torch.rand(1, n_q)
    now = torch.randint(0, s, (1, n_q, n_c))
    reported = torch.randint(2, s, (1, n_c))
    complete = torch.tensor([[c in ended for c in range(n_c)]])
    rest = now, now // 2, now // 4, torch.full((1, n_q, n_c), s)

    def beside(c: slice) -> Tensor:
        some, places = context.map(lambda x: x[:, c]), [x[..., c] for x in rest]
        return features.beside(q, unit, spread, 0.1 * unit, some, reported[:, c], complete[:, c], *places)

    together = beside(slice(None))
    assert bool((together[0, :, list(ended), 1] == 1.0).all()) or not ended
    for c in range(n_c):
        assert torch.equal(together[:, :, c : c + 1], beside(slice(c, c + 1)))
        assert bool(together[..., c, 10:19].any()) == (c in ended)
