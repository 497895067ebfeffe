from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from mcmc import DIMENSIONS, EnsembleMCMC, allowed, checked, draw, values
from stretch import stretch

from lcsearch.curves import Curve, Floats
from lcsearch.errors import InvalidValue
from lcsearch.forecast.contract import Absent, Query
from lcsearch.goal import Goal
from lcsearch.study import FinishedTrials, Snapshot, Status, Trial

GOAL = Goal("accuracy", "maximize", 100, "final")
EMPTY = Snapshot("prior", GOAL, FinishedTrials(GOAL))
X = np.arange(1.0, 101.0)
QUICK = EnsembleMCMC(walkers=40, steps=2500, burn_in=1500, draws=240, bounds=(0.0, 1.0))


def generators(n: int) -> list[np.random.Generator]:
    return [np.random.default_rng([7, i]) for i in range(n)]


def from_prior(n: int, seed: int) -> tuple[Floats, Floats]:
    """(n, DIMENSIONS) parameters that the prior keeps, and curves (n, 100) with their noise."""
    rng = np.random.default_rng(seed)
    p = draw(20 * n, rng)
    f = values(p, X[None])
    good = np.flatnonzero(allowed(f))[:n]
    return p[good], f[good] + np.exp(p[good, -1:]) * rng.standard_normal((n, X.size))


def test_moments_of_known_gaussians() -> None:
    rng = np.random.default_rng(0)
    means = rng.normal(size=(2, 3))
    roots = rng.normal(size=(2, 3, 3)) * np.array([1.0, 30.0])[:, None, None]  # ill-scaled: the move must not mind
    covariances = roots @ roots.transpose(0, 2, 1)
    precisions = np.linalg.inv(covariances)

    def log_density(x: Floats) -> Floats:
        away = x - means[:, None]
        return np.asarray(-0.5 * np.einsum("cwi,cij,cwj->cw", away, precisions, away))

    start = means[:, None] + rng.normal(size=(2, 40, 3))
    kept, accepted = stretch(log_density, start, generators(2), 3000, range(500, 3000, 5))
    x = kept.reshape(2, -1, 3)
    sd = np.sqrt(np.diagonal(covariances, axis1=1, axis2=2))
    assert (np.abs(x.mean(1) - means) / sd).max() < 0.1
    found = np.stack([np.cov(one.T) for one in x])
    assert (np.abs(found - covariances) / (sd[:, :, None] * sd[:, None, :])).max() < 0.15
    assert ((accepted > 0.3) & (accepted < 0.9)).all()


def test_the_posterior_of_a_conjugate_line() -> None:
    """y = a + b x + N(0, .5^2), a and b ~ N(0, 1): the posterior is known in closed form."""
    rng = np.random.default_rng(1)
    design = np.column_stack([np.ones(8), np.linspace(0.0, 1.0, 8)])
    y = design @ np.array([0.3, -1.2]) + 0.5 * rng.normal(size=8)
    precision = np.eye(2) + design.T @ design / 0.25
    mean = np.linalg.solve(precision, design.T @ y / 0.25)

    def log_density(p: Floats) -> Floats:
        return np.asarray(-0.5 * (p**2).sum(-1) - 0.5 * ((y - p @ design.T) ** 2).sum(-1) / 0.25)

    kept, _ = stretch(log_density, rng.normal(size=(1, 30, 2)), generators(1), 2500, range(500, 2500, 4))
    x = kept.reshape(-1, 2)
    covariance = np.linalg.inv(precision)
    np.testing.assert_allclose(x.mean(0), mean, atol=0.03)
    np.testing.assert_allclose(np.cov(x.T), covariance, atol=0.1 * covariance[0, 0])


def test_the_support_is_never_left_and_targets_do_not_mix() -> None:
    def log_density(x: Floats) -> Floats:  # uniform on the unit square
        return np.where(((x >= 0) & (x <= 1)).all(-1), 0.0, -np.inf)

    start = np.random.default_rng(2).random((3, 20, 2))
    run = partial(stretch, log_density, steps=400, keep=range(100, 400))
    kept, _ = run(start, generators(3))
    assert ((kept >= 0) & (kept <= 1)).all()
    np.testing.assert_allclose(kept.mean((1, 2)), 0.5, atol=0.05)
    np.testing.assert_allclose(kept.var((1, 2)), 1 / 12, atol=0.02)
    alone, _ = run(start[2:], generators(3)[2:])
    np.testing.assert_array_equal(alone[0], kept[2])


def test_the_prior_keeps_what_its_authors_keep() -> None:
    """A fifth of the draws (20.6 % in field/forecast.md), checked at 16 times as on all hundred."""
    p = draw(20_000, np.random.default_rng(3))
    every = allowed(values(p, X[None]))
    few = allowed(values(p, checked(np.full(len(p), 100.0))))
    assert every.mean() == pytest.approx(0.206, abs=0.01)
    assert (every != few).mean() < 0.002


def test_families_by_hand() -> None:
    p = np.zeros((3, DIMENSIONS))
    p[0, [0, 1, 2, 9]] = 0.8, 0.4, np.log(0.5), 1.0
    p[1, [3, 4, 10]] = 0.7, 0.2, 0.5
    p[2, [5, 6, 7, 8, 11]] = 0.9, 0.1, np.log(0.3), np.log(2.0), 1.0
    by_hand = [0.8 - 0.4 * 4**-0.5, 0.5 * (0.7 - 0.2 / np.log(5.0)), 0.9 - 0.8 * np.exp(-0.3 * 16)]
    np.testing.assert_allclose(values(p, np.full((1, 1), 4.0))[:, 0], by_hand)


def test_curves_of_its_own_prior_are_recovered() -> None:
    p, y = from_prior(12, seed=4)
    truth = values(p, np.full((1, 1), 100.0))[:, 0]
    trials = [Trial(str(i), Curve.of(X[:40], row[:40])) for i, row in enumerate(y)]
    answers = QUICK.forecast(EMPTY, [Query(trial, "latent", 100.0) for trial in trials])
    low, middle, high = answers.quantile(np.tile([0.02, 0.5, 0.98], (12, 1))).T
    inside = (truth > low) & (truth < high)
    assert inside[np.isfinite(low)].mean() >= 0.75
    assert np.isfinite(low).sum() >= 10
    assert np.nanmedian(np.abs(middle - truth)) < 0.03
    draws, accepted = QUICK.posterior(EMPTY, [trial.curve for trial in trials])
    assert np.median(np.abs(np.median(draws[..., -1], axis=1) - p[:, -1])) < 0.25
    assert ((accepted > 0.01) & (accepted < 0.9)).all()
    assert allowed(values(draws, checked(np.full((12, 1), 100.0)))).all()


def test_deterministic_and_seeded_by_content_only() -> None:
    _, y = from_prior(3, seed=5)
    quick = EnsembleMCMC(walkers=26, steps=60, burn_in=30, draws=52)
    queries = [Query(Trial(str(i), Curve.of(X[:20], row[:20])), "value", 100.0) for i, row in enumerate(y)]
    once, again = quick.forecast(EMPTY, queries), quick.forecast(EMPTY, queries)
    np.testing.assert_array_equal(once.knots, again.knots)
    renamed = Query(Trial("another", queries[1].trial.curve), "value", 100.0)
    np.testing.assert_array_equal(quick.forecast(EMPTY, [renamed]).knots[0], once.knots[1])
    longer = EnsembleMCMC(walkers=26, steps=61, burn_in=30, draws=52)
    assert longer.version != quick.version
    assert (longer.forecast(EMPTY, queries).knots != once.knots).any()


def test_why_it_says_nothing() -> None:
    trials = {
        "one report, no study": Curve.of([1], [0.5]),
        "constant, no study": Curve.of(X[:9], np.full(9, 0.5)),
        "saw-tooth": Curve.of(X[:20], np.tile([0.0, 1.0], 10)),
    }
    quick = EnsembleMCMC(walkers=26, steps=200, burn_in=100, draws=52)
    answers = quick.forecast(EMPTY, [Query(Trial(name, curve), "value", 100.0) for name, curve in trials.items()])
    assert answers.absent == (Absent.UNSUPPORTED,) * 3
    done = [Trial(f"d{i}", Curve.of(X, 0.1 * i + 0.3 - 0.2 / X), status=Status.COMPLETE) for i in range(4)]
    study = Snapshot("study", GOAL, FinishedTrials(GOAL).extend(done))
    answers = quick.forecast(study, [Query(Trial("one", trials["one report, no study"]), "value", 100.0)])
    assert answers.absent == (None,)
    far = EnsembleMCMC(walkers=26, steps=20, burn_in=10, bounds=(0.0, 1.0))
    blown = Query(Trial("blown", Curve.of(X[:3], [0.1, 0.2, 1e300])), "value", 100.0)
    assert far.forecast(EMPTY, [blown]).absent == (Absent.UNSUPPORTED,)


@pytest.mark.parametrize(
    "wrong", [{"walkers": 27}, {"walkers": 20}, {"burn_in": 4000}, {"draws": 0}, {"bounds": (1.0, 0.0)}]
)
def test_arguments_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue, match=rf"EnsembleMCMC.{next(iter(wrong))}"):
        EnsembleMCMC(**wrong)
