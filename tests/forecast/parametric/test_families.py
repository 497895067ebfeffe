from __future__ import annotations

import numpy as np
import pytest
from kit.forecasters import laws
from scipy.optimize import minimize

from lcsearch.curves import Curve, Floats
from lcsearch.forecast.parametric.families import FAMILIES, Family, scaled_shape, with_ends
from lcsearch.forecast.parametric.fit import NOISE, NOISE_WEIGHT, NU, TEMPER, curve_at, fit, model, priors
from lcsearch.forecast.parametric.observed import Observed, observe
from lcsearch.goal import Goal

GOAL = Goal("loss", "minimize", 40)
U = np.linspace(0.025, 1.0, 40)[None, :]


def seen_of(rows: Floats, n: int) -> Observed:
    return observe([Curve.of(np.arange(1.0, n + 1.0), row[:n]) for row in rows], GOAL, 40.0, 0.3)


def test_at_least_five_families_and_one_that_does_not_improve() -> None:
    assert len(FAMILIES) >= 6
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    assert [family.name for family in FAMILIES if not family.active[1]] == ["constant"]


@pytest.mark.parametrize("family", FAMILIES[:-1], ids=lambda family: family.name)
def test_shapes_fall_from_one_to_zero(family: Family) -> None:
    for t1, t2 in family.starts:
        h, _ = scaled_shape(family, with_ends(U, U[:, :1]), np.array([t1]), np.array([t2]))
        assert h[0, 0] == pytest.approx(1.0)
        assert h[0, -1] == pytest.approx(0.0, abs=1e-12)
        assert (np.diff(h[0]) <= 1e-12).all()


@pytest.mark.parametrize("family", FAMILIES[:-1], ids=lambda family: family.name)
def test_slopes_match_finite_differences(family: Family) -> None:
    u = with_ends(U, U[:, :1])
    for t1, t2 in family.starts:
        _, slopes = scaled_shape(family, u, np.array([t1]), np.array([t2]), slopes=True)
        assert len(slopes) == sum(family.active[3:])
        for i, slope in enumerate(slopes):
            step = np.array([1e-5, 0.0])[[i, 1 - i]]
            up, _ = scaled_shape(family, u, np.array([t1 + step[0]]), np.array([t2 + step[1]]))
            down, _ = scaled_shape(family, u, np.array([t1 - step[0]]), np.array([t2 - step[1]]))
            np.testing.assert_allclose(slope, (up - down) / 2e-5, rtol=1e-4, atol=1e-6)


def test_jacobian_matches_finite_differences() -> None:
    rng = np.random.default_rng(0)
    p = rng.normal([0.5, 1.0, 0.1, -2.0, 0.1], 0.3, (3, len(FAMILIES), 5))
    u = with_ends(np.repeat(U, 3, 0), np.repeat(U[:, :1], 3, 0))
    _, jac = model(FAMILIES, u, p)
    for i in range(5):
        step = 1e-6 * np.eye(5)[i]
        numeric = (model(FAMILIES, u, p + step)[0] - model(FAMILIES, u, p - step)[0]) / 2e-6
        active = np.array([family.active[i] for family in FAMILIES])
        np.testing.assert_allclose(jac[:, :, i][:, active], numeric[:, active], rtol=1e-4, atol=1e-5)


def test_curve_at_agrees_with_the_model() -> None:
    rng = np.random.default_rng(1)
    p = rng.normal([0.5, 1.0, 0.0, -2.0, 0.1], 0.2, (1, len(FAMILIES), 5))
    p *= np.array([family.active for family in FAMILIES])
    f, _ = model(FAMILIES, with_ends(U, U[:, :1]), p)
    k = np.arange(len(FAMILIES))
    np.testing.assert_allclose(curve_at(FAMILIES, k, np.repeat(U, k.size, 0), np.repeat(U[:, 0], k.size), p[0]), f[0])


def _energy(x: Floats, seen: Observed, k: int, mean: Floats, precision: Floats) -> float:
    """E of fit.py written a second time, for one curve and one family, straight from its formula."""
    family, n = FAMILIES[k], int(seen.n[0])
    p = np.where(family.active, x[:5], 0.0)
    u = seen.u[:1, :n]
    h, _ = scaled_shape(family, with_ends(u, u[:, :1]), p[3:4], p[4:5])
    r = seen.y[0, :n] - (p[0] + p[1] * h[0] + p[2] * (u[0] - 1.0))
    log_s = x[5]
    like = 0.5 * (NU + 1.0) * np.log1p(r**2 / (NU * np.exp(2 * log_s))).sum() + n * log_s
    noise = 0.5 * NOISE_WEIGHT * (NOISE**2 * np.exp(-2 * log_s) + 2 * log_s)
    return float(like / TEMPER + noise + 0.5 * (precision * (p - mean) ** 2).sum())


@pytest.mark.parametrize("n", [8, 25])
def test_map_is_where_scipy_finds_it(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = seen_of(laws(1, seed=12, noise=0.01), n)
    prior = priors(seen)
    early = fit(seen)
    monkeypatch.setattr("lcsearch.forecast.parametric.fit.STEPS", 40)
    late = fit(seen)
    shortfall = []
    for k in range(len(FAMILIES)):
        args = (seen, k, prior.mean[0, k], prior.precision[0, k])
        starts = [np.append(p, -4.0) for p in (late.p[0, k], prior.mean[0, k])]
        runs = [minimize(_energy, x, args, method="Nelder-Mead", options={"maxfev": 2000}) for x in starts]
        best = min(run.fun for run in runs)
        # sigma of a Fit is corrected for the parameters spent, so it is profiled out here.
        for fitted in (early, late):
            found = min(_energy(np.append(fitted.p[0, k], log_s), *args) for log_s in np.linspace(-8.0, 0.0, 160))
            shortfall.append(found - best)
    quick, patient = np.sort(np.reshape(shortfall, (-1, 2)), axis=0).T
    assert patient[-2] < 0.05  # one family may sit in a neighbouring basin
    assert np.median(quick) < 0.2
    assert quick[-1] < 2.0  # a nat or two at worst: the weights of families feel it, verdicts hardly


def test_the_right_family_wins_on_its_own_curves() -> None:
    t = np.arange(1.0, 41.0)
    rng = np.random.default_rng(3)
    flat = 0.5 + 0.01 * rng.standard_normal((4, 40))
    exponential = 0.5 + np.exp(-t / 6.0) + 0.003 * rng.standard_normal((4, 40))
    hump = 0.5 + np.exp(-t / 4.0) + 0.01 * t + 0.003 * rng.standard_normal((4, 40))
    names = [family.name for family in FAMILIES]
    for rows, winners in ((flat, ["constant"]), (exponential, ["exp", "weibull"]), (hump, ["drift"])):
        weights = fit(seen_of(rows, 30)).weights.mean(0)
        assert sum(weights[names.index(name)] for name in winners) > 0.5, (winners, weights.round(2))


def test_long_curves_are_thinned_without_losing_their_shape() -> None:
    t = np.arange(1.0, 2001.0)
    y = 0.3 + t**-0.5
    seen = observe([Curve.of(t, y)], Goal("loss", "minimize", 4000), 4000.0, 0.2)
    assert seen.n[0] <= 64
    assert seen.last[0] == 2000.0
    assert seen.first[0] == 1.0
    assert seen.spacing[0] == 1.0
