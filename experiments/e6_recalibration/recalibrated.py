"""A forecaster around a forecaster: its levels on another scale of odds. Pure.

    logit F'(y) = slope logit F(y) + shift          slope > 0; 1 and 0 are the identity

F is P(loss <= y), so a negative shift trusts a trial less, in any direction of the metric. What is certain (0 and 1)
stays so. Levels are mapped at the knots; far out F falls as exp(y / scale), and F' as exp(slope y / scale).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, logit

from lcsearch.curves import Floats
from lcsearch.forecast.contract import Forecaster, Forecasts, Query
from lcsearch.study import Snapshot

CLIP = 1e-4
LEAST_SLOPE = 0.05
FINEST = 1e-11
ROUNDS = 50


@dataclass(frozen=True)
class Odds:
    """A monotone map of probabilities.

    Attributes:
        slope: > 0; below 1 the forecaster was too sure.
        shift: in log odds; below 0 it hoped for too much.
    """

    slope: float = 1.0
    shift: float = 0.0

    @property
    def version(self) -> str:
        """Of both numbers."""
        return hashlib.sha256(f"{self.slope!r} {self.shift!r}".encode()).hexdigest()[:8]

    def __call__(self, p: ArrayLike) -> Floats:
        """Probabilities, mapped; NaN stays NaN."""
        with np.errstate(divide="ignore"):
            return np.asarray(expit(self.slope * logit(np.asarray(p, np.float64)) + self.shift))

    def back(self, p: float) -> float:
        """What is mapped to `p`: a stop below p of the mapped ones is a stop below this of those as they were."""
        return float(expit((logit(p) - self.shift) / self.slope))

    def of(self, said: Forecasts, source: str = "") -> Forecasts:
        """The same forecasts with other levels."""
        levels = np.clip(np.maximum.accumulate(self(said.levels), axis=1), 0.0, 1.0)
        fine = FINEST * np.abs(said.knots[:, [0, -1]])  # what the floats there can tell apart, and more
        tails = np.where(said.tails > 0, np.maximum(said.tails / self.slope, fine), said.tails)
        return Forecasts(said.knots, levels, tails, said.sign, said.absent, source or said.source)


@dataclass(frozen=True, eq=False)
class Recalibrated:
    """Answers as `inner` does, by a map that was fitted elsewhere: never on what it answers itself.

    Attributes:
        inner: who is asked.
        odds: the map.
    """

    inner: Forecaster
    odds: Odds

    @property
    def name(self) -> str:
        """The inner one's, and that it is recalibrated: "network-recal"."""
        return f"{self.inner.name}-recal"

    @property
    def version(self) -> str:
        """Changes with the inner one and with the map."""
        return f"{self.inner.version}-{self.odds.version}"

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        """The inner one's answers, mapped; absent ones stay absent."""
        return self.odds.of(self.inner.forecast(snapshot, queries), f"{self.name}/{self.version}")


def fit(p: ArrayLike, won: ArrayLike, weight: ArrayLike = 1.0, sd: float = math.inf) -> Odds:
    """The map of least log-loss, shrunk towards the identity.

    Minimizes sum(weight * log-loss of won) + ((slope - 1)^2 + shift^2) / (2 sd^2): a logistic regression on logit P
    with a normal prior around (1, 0), by Newton's method. P is clipped to [CLIP, 1 - CLIP].

    Args:
        p: (N,) what was forecast; NaN is left out.
        won: (N,) what came of it.
        weight: of each row.
        sd: standard deviation of the prior; inf: no prior.
    """
    said, came = np.asarray(p, np.float64), np.asarray(won, np.float64)
    w = np.broadcast_to(np.asarray(weight, np.float64), said.shape)
    known = ~np.isnan(said)
    x, came, w = logit(np.clip(said[known], CLIP, 1 - CLIP)), came[known], w[known]
    if not x.size or (came.min() == came.max() and math.isinf(sd)):
        return Odds()
    at, start, tie = np.array([1.0, 0.0]), np.array([1.0, 0.0]), 1 / sd**2
    design = np.stack([x, np.ones_like(x)], 1)

    def cost(at: Floats) -> float:
        z = design @ at
        return float(w @ (np.logaddexp(0.0, z) - came * z) + 0.5 * tie * ((at - start) ** 2).sum())

    now = cost(at)
    for _ in range(ROUNDS):
        said_now = expit(design @ at)
        slope = design.T @ (w * (said_now - came)) + tie * (at - start)
        curved = (design * (w * said_now * (1 - said_now))[:, None]).T @ design + (tie + 1e-9) * np.eye(2)
        step = np.linalg.solve(curved, slope)
        while (then := cost(at - step)) > now and np.abs(step).max() > 1e-9:
            step = step / 2
        if then > now:
            break
        at, moved, now = at - step, float(np.abs(step).max()), then
        if moved < 1e-8:
            break
    return Odds(max(float(at[0]), LEAST_SLOPE), float(at[1]))
