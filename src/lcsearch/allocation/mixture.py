"""Where in the space P(beat) differs most from what neighbours have: a mixture of Gaussians, as ALP-GMM fits it. Pure.

After "Teacher Algorithms for Curriculum Learning of Deep RL in Continuously Parameterized Environments" (Portelas et
al. 2019): of each task a point (task, ALP), and of several numbers of components that of the lowest AIC. Here a task is
a configuration. An allocator draws from it who goes on, a proposer what is begun.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from lcsearch.curves import Floats
from lcsearch.errors import InvalidValue
from lcsearch.forecast.network.columns import Columns

FEW = 5
"""Known P below which no neighbour says anything (the authors' code)."""
MOST = 240
"""Points that are kept, about as many as the paper's 250."""
COMPONENTS = range(2, 7)
"""The paper's go to 10, with 250 points at every fit."""
_NARROWEST = 1e-3  # variance, of configurations in [0, 1]


class Mixture(NamedTuple):
    """K components over configurations of d parameters.

    Attributes:
        weights: (K,), they add up to 1.
        means: (K, d).
        precisions: (K, d, d) inverse covariances.
        log_dets: (K,) log determinants of the covariances.
        progress: (K,) mean ALP, >= 0.
    """

    weights: Floats
    means: Floats
    precisions: Floats
    log_dets: Floats
    progress: Floats

    def densities(self, x: Floats) -> Floats:
        """(N, K) the logarithm of each component's density at (N, d) configurations, scaled as it was fitted."""
        apart = x[:, None, :] - self.means
        far = np.einsum("nkd,kde,nke->nk", apart, self.precisions, apart)
        constant = x.shape[1] * math.log(2.0 * math.pi)
        return np.asarray(-0.5 * (far + self.log_dets + constant))


def need_sklearn(where: str) -> None:
    """Check that a mixture can be fitted.

    Raises:
        InvalidValue: no scikit-learn (it comes with the extra `sweep`); the message begins with `where`.
    """
    if find_spec("sklearn") is None:
        what = "Install it: pip install scikit-learn, or 'lcsearch[sweep]'"
        raise InvalidValue("the package scikit-learn", "none", where, what)


def scaled(configurations: Sequence[Any], columns: Columns | None = None) -> Floats:
    """(n, d) in about [0, 1]: numbers as the network reads them, categories by their place; .5 where there is none."""
    columns = columns or Columns.of(configurations)
    x = columns.encode(configurations)
    for k, column in enumerate(columns.columns):
        if column.words is not None:
            x[:, k] /= max(len(column.words) - 1, 1)
    return np.asarray(np.nan_to_num(x, nan=0.5))


def mixture(points: Floats) -> Mixture:
    """The mixture of the lowest AIC.

    Args:
        points: (N, d + 1) configurations, as of :func:`scaled`, and ALP in the last column; at least twice as many as
            there may be components.
    """
    return _mixture(points.tobytes(), points.shape)


@lru_cache(maxsize=8)
def _mixture(table: bytes, shape: tuple[int, ...]) -> Mixture:
    """A memo only: the same points give the same mixture."""
    from sklearn.mixture import GaussianMixture  # not needed by whoever allocates otherwise

    x = np.frombuffer(table).reshape(shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few points, and alike: it may not converge
        fits = [GaussianMixture(k, reg_covar=_NARROWEST, random_state=0).fit(x) for k in COMPONENTS]
    best = min(fits, key=lambda fit: float(fit.aic(x)))
    part, means = best.covariances_[:, :-1, :-1], best.means_
    log_dets: Any = np.linalg.slogdet(part)[1]
    return Mixture(best.weights_, means[:, :-1], np.linalg.inv(part), log_dets, np.maximum(means[:, -1], 0.0))
