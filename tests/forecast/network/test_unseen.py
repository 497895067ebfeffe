from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.optimize
from scipy.stats import spearmanr

from lcsearch.allocation.gain import expected_improvement
from lcsearch.forecast.contract import Absent, Forecasts
from lcsearch.forecast.network.columns import Plain
from lcsearch.forecast.network.unseen import FEWEST, Unseen, _Process

N = 103


def said(losses: Any, width: float = 0.05, sign: float = 1.0, absent: Any = None) -> Forecasts:
    """Forecasts around so many losses, none of them skew."""
    at = np.linspace(-2.0, 2.0, 9)
    knots = np.asarray(losses, np.float64)[:, None] + width * at
    levels = np.broadcast_to(np.linspace(0.02, 0.98, 9), knots.shape)
    return Forecasts.of(knots, levels, np.full((len(knots), 2), width), sign=sign, source="", absent=absent)


def configs(n: int, seed: int = 0) -> list[Plain]:
    rng = np.random.default_rng(seed)
    return [
        {"lr": 10 ** rng.uniform(-5, 0), "width": float(rng.integers(1, 9)), "opt": str(rng.choice(["a", "b", "c"]))}
        for _ in range(n)
    ]


def loss(config: Any) -> float:
    far = (np.log10(config["lr"]) + 3.0) ** 2
    return float(0.3 * far + {"a": 0.0, "b": 0.5, "c": 1.5}[config["opt"]] - 0.02 * config["width"])


def answers(known: Any, of: Forecasts, asked: Any) -> Forecasts:
    found = Unseen.of(known, of)
    assert found is not None
    return Forecasts.of(*found.answers(asked, N), sign=of.sign, source="")


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_it_ranks_what_nobody_has_begun(sign: float) -> None:
    known, asked = configs(60), configs(200, seed=1)
    found = answers(known, said([loss(c) for c in known], sign=sign), asked)
    assert set(found.absent) == {None}
    truth = np.array([loss(c) for c in asked])
    middle = sign * found.quantile(0.5)
    assert spearmanr(middle, truth)[0] > 0.95
    inside = (sign * found.quantile(0.05) <= truth) == (truth <= sign * found.quantile(0.95))
    assert inside.mean() > 0.75


def test_a_mirrored_study_gives_the_same_bits() -> None:
    for seed in range(5):
        known = configs(30, seed)
        losses = [loss(c) for c in known]
        one, mirror = (answers(known, said(losses, sign=sign), configs(20, seed + 5)) for sign in (1.0, -1.0))
        np.testing.assert_array_equal(one.knots, mirror.knots)


def test_units_and_order_change_nothing() -> None:
    known, asked = configs(30), configs(20, seed=1)
    losses = np.array([loss(c) for c in known])
    middle = answers(known, said(losses), asked).quantile(0.5)
    larger = answers(known, said(1e6 * losses + 3.0, 5e4), asked).quantile(0.5)
    np.testing.assert_allclose(larger, 1e6 * middle + 3.0, rtol=1e-3)
    order = np.random.default_rng(0).permutation(30)
    mixed = answers([known[i] for i in order], said(losses[order]), asked).quantile(0.5)
    np.testing.assert_allclose(mixed, middle, atol=1e-3)


def test_an_answer_hangs_on_no_other_configuration_that_is_asked_about() -> None:
    known, asked = configs(30), [*configs(5, seed=1), {}, {"opt": "new"}]
    of = said([loss(c) for c in known])
    together = answers(known, of, asked).knots
    for config, want in zip(asked, together, strict=True):
        np.testing.assert_allclose(answers(known, of, [config]).knots[0], want, rtol=1e-9)


def test_without_configurations_that_differ_it_is_the_others_in_general() -> None:
    losses = np.random.default_rng(0).normal(size=50)
    found = answers([{"lr": 0.1}] * 50, said(losses), [{"lr": 0.1}, {"lr": 5.0}])
    np.testing.assert_allclose(found.quantile(0.5), np.median(losses), atol=0.2)
    spread = found.quantile(0.84) - found.quantile(0.16)
    assert (spread > 1.2).all()


def test_absent_forecasts_do_not_count() -> None:
    known = configs(10)
    of = said([loss(c) for c in known], absent=[Absent.UNSUPPORTED] * 4 + [None] * 6)
    kept = answers(known, of, configs(5, seed=1)).knots
    alone = answers(known[4:], said([loss(c) for c in known[4:]]), configs(5, seed=1)).knots
    np.testing.assert_array_equal(kept, alone)
    few = said([1.0] * 10, absent=[None] * (FEWEST - 1) + [Absent.LATE] * (11 - FEWEST))
    assert Unseen.of(known, few) is None


def test_where_many_were_begun_more_is_known_though_each_is_forecast_widely() -> None:
    """Else the best mean promises most, and whoever chooses by what is promised goes there for ever."""
    rng = np.random.default_rng(0)
    many = [{"x": 0.2 + 0.02 * u, "y": 0.2 + 0.02 * v} for u, v in rng.random((30, 2))]
    few = [{"x": u, "y": v} for u, v in rng.random((8, 2))]
    losses = [*(0.3 + 0.02 * rng.random(30)), *(0.4 + 0.4 * rng.random(8))]
    found = answers([*many, *few], said(losses, 0.5), [{"x": 0.21, "y": 0.21}, {"x": 0.9, "y": 0.6}])
    known, elsewhere = found.quantile(0.84) - found.quantile(0.16)
    assert elsewhere > 1.5 * known
    promised = expected_improvement(found, 0.28)
    assert promised[1] > 10 * promised[0]


def test_few_trials_tell_what_each_parameter_does_alone() -> None:
    names = "abcdefgh"
    rng = np.random.default_rng(3)
    drawn = [dict(zip(names, rng.random(8).tolist(), strict=True)) for _ in range(230)]
    truth = np.array([abs(c["a"] - 0.3) + abs(c["b"] - 0.7) + abs(c["c"] - 0.5) for c in drawn])
    found = answers(drawn[:30], said(truth[:30]), drawn[30:])
    assert spearmanr(found.quantile(0.5), truth[30:])[0] > 0.9


def test_of_equal_forecasts_and_of_none_that_is_finite_nothing_is_made() -> None:
    assert Unseen.of(configs(8), said([1.0] * 8)) is None
    of = said([1.0, 2.0, 3.0, 4.0])
    certain = replace(of, knots=np.where(np.arange(4)[:, None] == 1, np.inf, of.knots))
    left = answers(configs(4), certain, configs(2, seed=1))
    assert np.isfinite(left.quantile(0.5)).all()


@pytest.mark.parametrize("losses", [[1e300, -1e300] * 4, [0.0] * 7 + [1.0], [1e34] + [0.1] * 7])
def test_any_losses_give_distributions(losses: list[float]) -> None:
    found = answers(configs(8), said(losses), [{}, {"lr": float("nan")}, {"opt": "new"}, {"other": 1.0}])
    assert set(found.absent) == {None}
    assert np.isfinite(found.quantile(0.5)).all()


def test_the_gradient_is_that_of_the_posterior(monkeypatch: pytest.MonkeyPatch) -> None:
    from lcsearch.forecast.network import unseen as module

    seen = []
    plain = scipy.optimize.minimize

    def spy(f: Any, v: Any, **more: Any) -> Any:
        at = v + 0.1
        gradient = f(at)[1]
        steps = 1e-5 * np.eye(v.size)
        seen.append((gradient, np.array([(f(at + d)[0] - f(at - d)[0]) / 2e-5 for d in steps])))
        return plain(f, v, **more)

    monkeypatch.setattr(module, "minimize", spy)
    rng = np.random.default_rng(0)
    _Process.fit(rng.random((20, 3)), np.array([0, 0, 1]), rng.normal(size=20), np.full(20, 0.1))
    ((got, want),) = seen
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
