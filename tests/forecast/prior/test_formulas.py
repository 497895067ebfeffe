"""Every family's formula against values worked out by hand, in the standard library's math."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lcsearch.forecast.prior import annealing, bases, departures, noise, warps
from lcsearch.forecast.prior.variates import Variates, kumaraswamy, phi


def t(*values: float) -> Tensor:
    return torch.tensor(values)


def close(made: Tensor, *expected: float, within: float = 2e-6) -> None:
    assert made.flatten().tolist() == pytest.approx(list(expected), rel=within, abs=within)


def test_bases() -> None:
    x = t(0.0, 0.5, 2.0)
    close(bases.power(x, t(0.5)), 1.0, 1 / math.sqrt(1.5), 1 / math.sqrt(3.0))
    close(bases.exponential(x), 1.0, math.exp(-0.5), math.exp(-2.0))
    close(bases.janoschek(x, t(2.0)), 1.0, math.exp(-0.25), math.exp(-4.0))
    close(bases.hill(x, t(3.0)), 1.0, 1 / 1.125, 1 / 9)
    close(bases.ilog(x), 1.0, 1 / math.log(math.e + 0.5), 1 / math.log(math.e + 2.0))
    close(bases.linear(x), 1.0, 1 - 0.5 * 1.0625**-0.25, 1 - 2.0 * 17**-0.25)


@pytest.mark.parametrize("base", range(len(bases.BASES)))
def test_a_mixture_of_one_base_is_that_base(base: int) -> None:
    weights = torch.zeros(1, len(bases.BASES))
    weights[0, base] = 1.0
    time, tau = torch.tensor([[0.1, 0.4]]), t(0.2)
    made = bases.mixture(time, t(0.1), tau, t(0.5), t(2.0), t(3.0), weights)
    by_hand = {
        "pow3": (1.0, 4**-0.5),  # (t / t_1)^-a
        "power": (1.5**-0.5, 3**-0.5),
        "exponential": (math.exp(-0.5), math.exp(-2)),
        "janoschek": (math.exp(-0.25), math.exp(-4)),
        "hill": (1 / 1.125, 1 / 9),
        "ilog": (1 / math.log(math.e + 0.5), 1 / math.log(math.e + 2)),
        "linear": (1 - 0.5 * 1.0625**-0.25, 1 - 2 * 17**-0.25),
    }
    close(made, *by_hand[bases.BASES[base]])


def test_mixtures_are_weighted_and_fall_from_1() -> None:
    weights = torch.tensor([[0.0, 0.25, 0.75, 0.0, 0.0, 0.0, 0.0]])
    made = bases.mixture(torch.tensor([[0.0, 1.0]]), t(1.0), t(1.0), t(1.0), t(1.0), t(1.0), weights)
    close(made, 1.0, 0.25 / 2 + 0.75 / math.e)
    time = torch.linspace(0, 5, 50)[None]
    every = bases.mixture(time, t(0.1), t(0.3), t(0.7), t(0.9), t(1.5), torch.full((1, 7), 1 / 7))
    assert (every.diff() <= 0).all()
    assert 0 < every.min() < every.max() == pytest.approx(1.0)


def test_humps() -> None:
    u, start, power = torch.tensor([[0.1, 0.6, 1.0]]), t(0.2), t(2.0)
    close(departures.hump(u, start, power, torch.tensor([False])), 0.0, 0.25, 1.0)
    close(departures.hump(u, start, power, torch.tensor([True])), 0.0, 1.0, 0.0)
    close(departures.climb(torch.tensor([[0.25, 1.0]]), t(0.5)), 0.5, 1.0)


def test_kicks_add_up_and_die_away() -> None:
    u = torch.tensor([[0.1, 0.2, 0.5, 0.7]])
    made = departures.kicks(u, torch.tensor([[0.2, 0.5]]), torch.tensor([[2.0, 1.0]]), torch.tensor([[0.3, 0.1]]))
    close(made, 0.0, 2.0, 2 / math.e + 1.0, 2 * math.exp(-5 / 3) + math.exp(-2))


def test_saw_teeth() -> None:
    u = torch.tensor([[0.0, 0.1, 0.2, 0.4]])
    close(departures.saw_tooth(u, t(0.2), torch.tensor([False])), 1.0, 0.5, 1.0, 1.0)
    # Cycles of .2 and .4: at .4 half of the second is over.
    close(departures.saw_tooth(u, t(0.2), torch.tensor([True])), 1.0, 0.5, 1.0, 0.5)


def test_blow_ups_recover_to_what_remains() -> None:
    u, at, tau = torch.tensor([[0.1, 0.2, 0.3]]), t(0.2), t(0.1)
    close(departures.blow_up(u, at, tau, t(0.0)), 0.0, 1.0, math.exp(-1))
    close(departures.blow_up(u, at, tau, t(1.0)), 0.0, 1.0, 1.0)
    close(departures.blow_up(u, at, tau, t(0.5)), 0.0, 1.0, 0.5 + 0.5 * math.exp(-1))
    close(departures.growth(u, t(0.2), tau), math.exp(-1), 1.0, 1.0)


def schedule(name: str, u: list[float], *, warm: float = 0.0, decay: float = 0.2, final: float = 0.0) -> Tensor:
    kind = torch.tensor([annealing.SCHEDULES.index(name)])
    return annealing.multiplier(kind, torch.tensor([u]), t(warm), t(decay), t(final))


def test_schedules() -> None:
    close(schedule("constant", [0.1, 0.5, 1.0], warm=0.2), 0.5, 1.0, 1.0)
    close(schedule("linear", [0.25, 1.0], final=0.1), 0.775, 0.1)
    close(schedule("cosine", [0.25, 0.5, 1.0]), 0.5 + math.sqrt(0.125), 0.5, 0.0)
    close(schedule("wsd", [0.5, 0.8, 0.9, 1.0]), 1.0, 1.0, 0.5, 0.0)
    close(schedule("step", [0.2, 0.5, 0.9, 1.0], decay=0.4, final=0.1), 1.0, 0.1, 0.01, 0.01)


def test_areas_under_a_schedule() -> None:
    """S1 = sum of rates; m_i = lambda m_{i-1} + (rate_{i-1} - rate_i), S2 = sum of m."""
    rate = [0.5, 1.0, 1.0, 0.6, 0.2]
    keep = math.exp(-1 / (0.4 * 5))
    m, s2, by_hand = 0.0, 0.0, []
    for before, now in zip([rate[0], *rate], rate, strict=False):
        m = keep * m + max(before - now, 0.0)
        s2 += m
        by_hand.append((1 - keep) * s2)
    first, second = annealing.areas(torch.tensor([rate]), torch.tensor([5]), t(0.4))
    close(first, 0.1, 0.3, 0.5, 0.62, 0.66)
    close(second, *by_hand)


def test_decayed_sum_is_the_recursion() -> None:
    x = torch.randn(2, 37, generator=torch.Generator().manual_seed(0))
    keep, made = t(0.9, 0.3), annealing.decayed_sum(x, t(0.9, 0.3))
    e = torch.zeros(2)
    for i in range(37):
        e = keep * e + x[:, i]
        close(made[:, i], *e.tolist(), within=1e-5)


def warped(name: str, y: list[float], p: float, q: float = 0.0) -> Tensor:
    return warps.warp(torch.tensor([y]), torch.tensor([warps.WARPS.index(name)]), t(p), t(q))


def test_warps() -> None:
    close(warped("plain", [-0.5, 0.3], 9.0), -0.5, 0.3)
    close(warped("log", [-1.0, 0.0, 0.5, 1.0], 0.1), 0.0, 0.0, math.log(6) / math.log(11), 1.0)
    close(warped("power", [-1.0, 0.25, 1.0], 0.5), 0.0, 0.5, 1.0)
    close(warped("bounded", [0.1, 0.6, 9.0], 0.8, 0.2), 0.0, 0.32, 1.0)
    close(warped("logistic", [0.5, 0.7], 0.5, 0.1), 0.5, 1 / (1 + math.exp(-2)))
    close(warped("exp", [0.0, 0.5, 1.0], 2.0), 0.0, math.expm1(1) / math.expm1(2), 1.0)
    close(warps.quantise(torch.tensor([[0.123], [0.123]]), t(50.0, 0.0)), 0.12, 0.123)


def test_noise() -> None:
    draws = Variates(torch.Generator().manual_seed(0))
    unit = noise.unit_noise(draws, t(0.0, 0.8), t(math.inf, math.inf), 40_000)
    assert unit.std(1).tolist() == pytest.approx([1.0, 1.0], abs=0.05)
    lagged = (unit[:, 1:] * unit[:, :-1]).mean(1) / unit.var(1)
    assert lagged.tolist() == pytest.approx([0.0, 0.8], abs=0.03)
    heavy = noise.unit_noise(draws, t(0.0), t(2.0), 40_000)
    assert heavy.abs().max() <= noise.WORST
    # Student's t with 2 degrees of freedom: P(|T| > sqrt(2)) = 1 - 1 / sqrt(2).
    assert float((heavy.abs() > math.sqrt(2)).float().mean()) == pytest.approx(1 - math.sqrt(0.5), abs=0.01)
    close(noise.envelope(torch.tensor([[1.0, 0.25]] * 2), t(0.4, -0.4)), 1.0, 0.7, 0.6, 0.9)
    close(noise.skewed(torch.tensor([[-2.0, 2.0]]), t(0.1)), -0.2, 2.0)


def test_variates() -> None:
    close(kumaraswamy(t(0.5), t(2.0), t(1.0)), math.sqrt(0.5))
    close(kumaraswamy(t(0.75), t(1.0), t(2.0)), 0.5)
    close(phi(t(0.0, 1.959964)), 0.5, 0.975)
    draws = Variates(torch.Generator().manual_seed(1))
    parts = draws.dirichlet_half(20_000, 3)
    close(parts.sum(-1).mean(), 1.0)
    # A component of Dirichlet(a, a, a) has variance (1/3)(2/3) / (3 a + 1).
    assert float(parts[:, 0].var()) == pytest.approx(2 / 9 / 2.5, rel=0.05)
    kinds = draws.choice(30_000, weights=(1.0, 0.0, 3.0))
    assert torch.bincount(kinds, minlength=3).tolist() == pytest.approx([7500, 0, 22_500], abs=300)
