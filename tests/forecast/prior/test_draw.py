from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch

from lcsearch.forecast.network.studies import Studies
from lcsearch.forecast.prior import draw
from lcsearch.forecast.prior.configurations import DIMENSIONS, FACTORS, configurations, traits
from lcsearch.forecast.prior.losses import noise_ball
from lcsearch.forecast.prior.rates import REINFORCEMENT, SUPERVISED, shares
from lcsearch.forecast.prior.statistics import statistics, summary
from lcsearch.forecast.prior.variates import Variates


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def batches() -> list[Studies]:
    generator = seeded()
    return [draw(40, generator) for _ in range(6)]


def test_shapes_and_types(batches: list[Studies]) -> None:
    for one in batches:
        (b, c, s), d = one.loss.shape, one.params.shape[-1]
        assert (b, d) == (40, DIMENSIONS)
        shapes = {
            **{"steps": (b, s), "length": (b,), "reported": (b, c), "present": (b, c), "params": (b, c, d)},
            **{"loss": (b, c, s), "latent": (b, c, s), "rate": (b, c, s), "kinds": (b, d)},
        }
        assert {f.name: tuple(getattr(one, f.name).shape) for f in fields(one)} == shapes
        assert {one.length.dtype, one.reported.dtype, one.kinds.dtype} == {torch.int64}
        assert {one.loss.dtype, one.latent.dtype, one.rate.dtype, one.params.dtype} == {torch.float32}
        assert one.present.dtype == torch.bool


def test_bounds(batches: list[Studies]) -> None:
    for one in batches:
        n = one.present.sum(1)
        assert 4 <= n.min() <= n.max() <= 40
        assert (one.present.int().diff(dim=1) <= 0).all()  # padding is last
        assert 8 <= one.length.min() <= one.length.max() == one.loss.shape[2]
        assert one.length.max() <= 1.31 * one.length.min() + 1
        assert (one.reported[one.present] >= 1).all()
        assert (one.reported <= one.length[:, None]).all()
        assert (one.reported[~one.present] == 0).all()
        where = torch.arange(one.loss.shape[2])
        rises = one.steps.diff(dim=1)
        inside = where[1:] < one.length[:, None]
        assert (rises[inside] > 0).all()
        assert (rises[~inside] == 0).all()
        assert (one.steps > 0).all()


def test_nan_only_where_allowed(batches: list[Studies]) -> None:
    lost = 0
    for one in batches:
        where = torch.arange(one.loss.shape[2])
        real = (where < one.length[:, None])[:, None] & one.present[..., None]
        assert (one.loss[~real] == 0).all()
        assert (one.latent[~real] == 0).all()
        assert not torch.isinf(one.loss).any()
        assert not torch.isinf(one.latent).any()
        # What has no noise-free value has none to the end and was not reported either.
        gone = one.latent.isnan() & real
        assert (one.loss.isnan() | ~gone).all()
        assert (gone[..., 1:] | ~gone[..., :-1] | ~real[..., 1:]).all()
        known = ~one.rate.isnan()
        assert (real | ~known).all()
        assert ((one.rate[known] >= 0) & (one.rate[known] <= 1)).all()
        lost += int((one.loss.isnan() & real).any(-1).sum())
    assert 0.01 < lost / sum(int(one.present.sum()) for one in batches) < 0.25


def test_configurations_are_as_their_kinds_say(batches: list[Studies]) -> None:
    conditional = 0
    for one in batches:
        params, kinds = one.params[one.present], one.kinds.repeat_interleave(one.present.sum(1), 0)
        assert one.params[~one.present].isnan().all()
        assert params[kinds == 0].isnan().all()
        numbers, categories = params[(kinds == 1) & ~params.isnan()], params[(kinds == 2) & ~params.isnan()]
        assert ((numbers >= 0) & (numbers <= 1)).all()
        assert (categories == categories.round()).all()
        assert set(categories.tolist()) <= {0.0, 1.0, 2.0, 3.0, 4.0}
        assert len(numbers)
        assert len(categories)
        conditional += int((params.isnan() & (kinds > 0)).sum())
    assert conditional


def test_a_seed_determines_everything_and_nothing_else_does() -> None:
    one = draw(6, seeded(3))
    torch.manual_seed(1234)
    state = torch.get_rng_state()
    again, other = draw(6, seeded(3)), draw(6, seeded(4))
    assert torch.equal(torch.get_rng_state(), state)  # the global generator is left alone
    for f in fields(one):
        torch.testing.assert_close(getattr(one, f.name), getattr(again, f.name), rtol=0, atol=0, equal_nan=True)
    assert one.loss.shape != other.loss.shape or not torch.equal(one.loss, other.loss)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_it_runs_where_the_generator_lives() -> None:
    made = draw(6, torch.Generator("cuda").manual_seed(0))
    assert {getattr(made, f.name).device.type for f in fields(made)} == {"cuda"}


def test_ranges_asked_for_are_kept() -> None:
    made = draw(16, seeded(), trials=(2, 3), horizon=(150, 160))
    assert made.loss.shape[1] <= 3
    assert 150 <= made.length.min() <= made.length.max() <= 160
    long = draw(8, seeded(), trials=(4, 1000), horizon=(1000, 1000), most_reports=80_000)
    assert long.loss.numel() <= 80_000
    assert draw(1, seeded(), trials=(2, 2), horizon=(2, 2)).loss.shape == (1, 2, 2)


def test_every_trouble_occurs_in_some_studies_and_is_absent_in_others() -> None:
    returns = torch.arange(4000) % 2 == 0
    for name, rates in shares(Variates(seeded()), returns).items():
        for table, some in ((REINFORCEMENT, rates[returns]), (SUPERVISED, rates[~returns])):
            rate = table[name]
            assert ((some >= 0) & (some <= rate.most)).all()
            assert float((some > 0).float().mean()) == pytest.approx(rate.studies, abs=0.05)


def test_traits_are_standard_normal_and_follow_the_factors() -> None:
    draws = Variates(seeded())
    params, kinds, factors = configurations(draws, 400, 30)
    assert params.shape == (400, 30, DIMENSIONS)
    assert kinds.shape == (400, DIMENSIONS)
    assert factors.shape == (400, 30, FACTORS)
    made = traits(draws, factors, ("floor", "other"), {"floor": -0.8})
    for z in made.values():
        assert float(z.mean()) == pytest.approx(0.0, abs=0.25)
        assert float(z.std()) == pytest.approx(1.0, abs=0.1)
    goodness = factors[..., 0] - factors[..., 0].mean(1, keepdim=True)
    assert float((goodness * made["floor"]).mean()) < -0.3
    assert abs(float((goodness * made["other"]).mean())) < 0.1


def test_configurations_tell_of_the_end_in_most_studies_and_not_in_some() -> None:
    """R^2 of the last value's rank on the numbers and their squares."""
    made = draw(100, seeded(2), trials=(60, 60), horizon=(20, 40))
    shares = []
    for b in range(100):
        use = (made.kinds[b] == 1) & ~made.params[b].isnan().any(0)
        end = made.latent[b, :, made.length[b] - 1]
        if not use.any():
            continue
        x = made.params[b][:, use].double().numpy()
        x = np.column_stack([np.ones(60), x, x**2])
        y = torch.nan_to_num(end, nan=torch.inf).argsort().argsort().double().numpy()
        left = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
        shares.append(1 - left.var() / y.var())
    by_chance = 0.15  # eleven numbers at most and sixty trials
    assert np.quantile(shares, 0.15) < by_chance < 0.35 < np.quantile(shares, 0.7)


def test_latent_is_the_curve_under_the_noise(batches: list[Studies]) -> None:
    for one in batches:
        both = one.loss.isfinite() & one.latent.isfinite() & (one.latent.abs() < 1e6)
        error = torch.where(both, (one.loss - one.latent).abs(), 0.0).sum(-1) / both.sum(-1).clamp(min=1)
        ordinary = torch.where(both, one.latent, torch.nan)
        low, high = (torch.nanquantile(ordinary.flatten(1), q, dim=1) for q in (0.02, 0.98))
        share = error / (high - low).clamp(min=1e-20)[:, None]
        assert float(share[one.present].median()) < 0.02


def test_the_statistics_lie_where_real_sources_do() -> None:
    """Wide bounds: the prior must cover all sources and may be fitted to none."""
    generator, tasks = seeded(), []
    for _ in range(4):
        made = draw(30, generator, trials=(40, 40), horizon=(30, 60))
        for b, length in enumerate(made.length.tolist()):
            tasks.append(statistics(made.steps[b, :length].numpy(), made.loss[b, :, :length].double().numpy()))
    found = summary(tasks)
    assert 0.68 < found["rank_10"][1] < 0.88
    assert found["rank_10"][2] > 0.9
    assert 0.85 < found["rank_50"][1] < 0.99
    assert found["late"][1] < 0.14 < found["late"][2]
    assert found["flat"][1] < 0.15
    assert found["flat"][2] > 0.3
    assert 1e-4 < found["noise_50"][1] < 5e-3
    assert found["noise_50"][0] < 2e-4
    assert found["lost"][1] < 0.02 < found["lost"][2]


def test_a_high_peak_costs_while_the_rate_is_high_and_may_pay_in_the_end() -> None:
    b, c = 200, 3
    z, task = {"peak": torch.tensor([-1.0, 0.0, 1.0]).repeat(b)}, torch.arange(b).repeat_interleave(c)
    rate = torch.tensor([1.0, 0.5, 0.0]).expand(b * c, 3)
    schedules = torch.arange(b) % 2 == 0
    ball, better = noise_ball(Variates(seeded()), z, task, rate, schedules)
    ball, better = ball.view(b, c, 3), better.view(b, c)
    assert not ball[~schedules].any()
    assert not better[~schedules].any()
    some = ball[:, 0, 0] > 0
    assert 30 < some.sum() < 70  # in about half of those with schedules
    torch.testing.assert_close(ball[..., 1], 0.5 * ball[..., 0])
    assert not ball[..., 2].any()
    assert (ball[some].diff(dim=1)[..., 0] >= 0).all()
    pays = better[:, 2] > 0
    assert 0.5 < pays[some].float().mean() < 0.9
    assert (better[pays].diff(dim=1) >= 0).all()
    assert (better <= ball[..., 0]).all()
