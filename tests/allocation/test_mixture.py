"""The mixture over (configuration, ALP): what it is fitted to, its densities, its regions."""

from __future__ import annotations

import numpy as np
from scipy.stats import multivariate_normal

from lcsearch.allocation.mixture import mixture, scaled


def test_configurations_as_points() -> None:
    rows = scaled([{"x": 2.0, "opt": "a"}, {"x": 4.0, "opt": "b"}, {"x": 3.0, "opt": "c"}, {"opt": "b"}])
    np.testing.assert_allclose(rows, [[0.0, 0.0], [0.5, 1.0], [1.0, 0.5], [0.5, 0.5]])


def test_densities_are_those_of_its_gaussians() -> None:
    rng = np.random.default_rng(0)
    fit = mixture(np.hstack([rng.random((60, 2)), rng.random((60, 1)) < 0.5]))
    x = rng.random((7, 2))
    for k in range(len(fit.weights)):
        normal = multivariate_normal(fit.means[k], np.linalg.inv(fit.precisions[k]))
        np.testing.assert_allclose(fit.densities(x)[:, k], normal.logpdf(x), rtol=1e-6)


def test_a_region_where_neighbours_differ_has_more_progress() -> None:
    x = np.linspace(0, 1, 80)[:, None]
    fit = mixture(np.hstack([x, np.where(x > 0.5, 0.8, 0.01)]))
    best = int(np.argmax(fit.progress))
    assert 0.5 < fit.means[best, 0] < 1.0
    assert fit.progress[best] > 0.5
    assert fit.progress.min() < 0.1
