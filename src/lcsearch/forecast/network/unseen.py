"""Trials without a report, from their configurations: a Gaussian process on what the begun ones are forecast to reach.

What is regressed is no value that was seen but the forecast of every begun trial at the queried step, as a normal
score among them: a slow starter is no bad configuration, and a blow-up no outlier. The kernel is a sum of Matern's with
nu 3/2 (Rasmussen and Williams 2006, 4.2.1): of every parameter alone, the mean of them, which few trials can tell
(additive processes: Duvenaud et al. 2011), and of all at once. Each parameter has one length for both; lengths, scales
and noise are the most probable ones, and that of all at once grows with the root of the number of parameters (Hvarfner
et al. 2024). Answers are read back through the quantiles of what is forecast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.linalg import LinAlgError
from numpy.typing import NDArray
from scipy.linalg import cho_solve
from scipy.linalg.lapack import dpotrf, dpotri, dpotrs
from scipy.optimize import minimize
from scipy.special import ndtr, ndtri

from lcsearch.curves import Floats
from lcsearch.forecast.contract import Forecasts
from lcsearch.forecast.network.columns import Columns, Plain

FEWEST = 3
"""Begun trials with a forecast below which nothing is said of unseen ones."""
_ROUNDS = 12  # of the optimizer: later ones change no figure
_LENGTH, _NOISE, _SIGNAL = math.log(0.5), math.log(0.3), math.log(0.7)  # medians of their priors, logarithms
_PRIOR = 1.5, 1.0, 0.5  # and widths
_OWN = 0.5  # of the width of its forecast, a begun trial's noise: forecasts of one study err together
_JITTER = 1e-4
_OUTERMOST = 3.0  # standard deviations; beyond it a normal distribution goes on for .28 of one, in the mean
_BEYOND = 0.28


@dataclass(frozen=True, eq=False)
class Unseen:
    """What follows from the forecasts of begun trials, at one step, for those that have not begun.

    Attributes:
        columns: of their configurations.
        process: configuration -> normal score.
        scale: losses and normal scores.
        width: of a begun trial's forecast, in scores: where nothing is known, one that is not begun is no surer.
    """

    columns: Columns
    process: _Process
    scale: _Scale
    width: float

    @classmethod
    def of(cls, begun: Sequence[Plain], said: Forecasts) -> Unseen | None:
        """Learn it; None where too few are begun, or nothing tells them apart.

        Args:
            begun: configurations of the begun trials.
            said: their forecasts at the step that is asked about, one row each; absent ones do not count.
        """
        if len(said) < FEWEST:
            return None
        as_losses = replace(said, sign=1.0)  # in a mirrored study the same bits
        losses = np.stack([as_losses.quantile(p) for p in (0.16, 0.5, 0.84)])
        there = np.array([reason is None for reason in said.absent], np.bool_)
        rows = np.flatnonzero(there & np.isfinite(losses).all(0)).tolist()
        low, middle, high = losses[:, rows]
        if len(rows) < FEWEST or middle.min() == middle.max():
            return None
        scale = _Scale.of(middle)
        own = np.clip(0.5 * (scale.scores(high) - scale.scores(low)), 0.0, 2.0)  # as wide as its own forecast
        known = [begun[i] for i in rows]
        columns = Columns.of(known)
        process = _Process.fit(*_inputs(columns, known), scale.scores(middle), _OWN * own)
        return cls(columns, process, scale, math.sqrt((own**2).mean()))

    def answers(self, asked: Sequence[Plain], n_knots: int) -> tuple[Floats, Floats, Floats]:
        """Q configurations -> knots (Q, n_knots) in losses, levels likewise and tails (Q, 2)."""
        mean, deviation, unknown = self.process.predict(_inputs(self.columns, asked)[0])
        # Added in full it outweighs what is known of a place, and the best mean promises most, again and again.
        deviation = np.hypot(deviation, self.width * np.sqrt(unknown))
        at = np.linspace(-_OUTERMOST, _OUTERMOST, n_knots)
        knots = self.scale.losses(mean[:, None] + deviation[:, None] * at)
        tails = _BEYOND * deviation[:, None] * np.array(self.scale.slopes)
        return knots, np.broadcast_to(ndtr(at), knots.shape), tails


@dataclass(frozen=True, eq=False)
class _Scale:
    """Losses and their normal scores, one to one: straight between those that were seen, and beyond.

    Attributes:
        at: (n,) rising losses.
        score: (n,) of them, rising.
        slopes: losses for a unit of score below the lowest and above the highest one: those of the outer quarters.
    """

    at: Floats
    score: Floats
    slopes: tuple[float, float]

    @classmethod
    def of(cls, losses: Floats) -> _Scale:
        """Scores by rank, of losses of which two differ; equal ones share one."""
        at, n = np.unique(losses, return_counts=True)
        score = ndtri((np.cumsum(n) - n / 2) / losses.size)  # the middle of the ranks that it takes
        k = max(at.size // 4, 1)
        ends = (at[k] - at[0]) / (score[k] - score[0]), (at[-1] - at[-1 - k]) / (score[-1] - score[-1 - k])
        return cls(at, score, ends)

    def losses(self, score: Floats) -> Floats:
        """Scores of any shape -> losses."""
        beyond = np.minimum(score - self.score[0], 0.0), np.maximum(score - self.score[-1], 0.0)
        found: Floats = np.interp(score, self.score, self.at) + self.slopes[0] * beyond[0] + self.slopes[1] * beyond[1]
        return found

    def scores(self, loss: Floats) -> Floats:
        """Losses of any shape -> scores."""
        found = np.interp(loss, self.at, self.score)
        for end, slope, beyond in zip((0, -1), self.slopes, (np.minimum, np.maximum), strict=True):
            if slope > 0:
                found = found + beyond(loss - self.at[end], 0.0) / slope
        return found


def _inputs(columns: Columns, trials: Sequence[Plain]) -> tuple[Floats, NDArray[np.int64]]:
    """(N, F) numbers of configurations, and of each the parameter (F,) whose length it shares.

    A category is so many numbers that two different ones lie a distance of 1 apart, words that are new included; a
    parameter that a trial lacks stands in the middle, with a number that says so.
    """
    if not columns.columns:
        return np.zeros((len(trials), 1)), np.zeros(1, np.int64)
    coded = columns.encode(trials)
    parts, group = [], []
    for k, column in enumerate(columns.columns):
        value = coded[:, k]
        lacks = np.isnan(value)
        if column.words is None:
            mine = np.where(lacks, 0.5, value)[:, None]
        else:
            mine = (value[:, None] == np.arange(len(column.words) + 1.0)) * math.sqrt(0.5)
        parts.append(np.column_stack([mine, lacks]))
        group += [k] * parts[-1].shape[1]
    return np.concatenate(parts, 1), np.array(group, np.int64)


@dataclass(frozen=True, eq=False)
class _Process:
    """A Gaussian process after its observations.

    Attributes:
        x: (n, F) inputs.
        group: (F,) the parameter of each.
        rates: (D,) of the parameters, one over the squares of their lengths.
        signals: variances of what each parameter does alone, and of what all do together.
        noise: variance.
        factor: Cholesky's, of the covariance.
        weights: (n,) its inverse times the scores.
    """

    x: Floats
    group: NDArray[np.int64]
    rates: Floats
    signals: Floats
    noise: float
    factor: Floats
    weights: Floats

    @classmethod
    def fit(cls, x: Floats, group: NDArray[np.int64], y: Floats, noise: Floats) -> _Process:
        """Of scores y (n,), each with a noise of its own beside the common one (standard deviations)."""
        n, d, own = y.size, int(group.max()) + 1, noise**2 + _JITTER
        centre = np.array([_LENGTH] * d + [_SIGNAL, _SIGNAL, _NOISE])
        width = np.array([_PRIOR[0]] * d + [_PRIOR[2], _PRIOR[2], _PRIOR[1]])
        one, other = np.triu_indices(n, 1)  # a symmetric matrix is worked on by half
        pairs, square = one * n + other, _squares(x, x, group).reshape(d, -1)
        square = square[:, pairs]
        away = np.sqrt(3.0 * square)

        def posterior(v: Floats) -> tuple[float, Floats]:
            """Negative logarithm, up to a constant, and its gradient."""
            rates, (alone, together, common) = np.exp(-2.0 * v[:d]), np.exp(2.0 * v[d:])
            r = np.exp(-v[:d])[:, None] * away
            fall = np.exp(-r)
            mean = np.einsum("dp,dp->p", 1.0 + r, fall) / d
            far = np.sqrt(3.0 / d * (rates @ square))
            fallen = np.exp(-far)
            joint = (1.0 + far) * fallen
            factor = _factor(pairs, alone * mean + together * joint, alone + together + own + common)
            inverse = dpotri(factor, lower=1)[0].T  # its upper half
            weights = dpotrs(factor, y, lower=1)[0]
            rest = inverse.ravel()[pairs] - weights[one] * weights[other]
            trace = np.trace(inverse) - weights @ weights
            gradient = (v - centre) / width**2
            fall *= r
            fall *= r
            gradient[:d] += (alone * (fall @ rest) + 3.0 * together * rates * (square @ (rest * fallen))) / d
            gradient[d] += alone * (2.0 * rest @ mean + trace)
            gradient[d + 1] += together * (2.0 * rest @ joint + trace)
            gradient[d + 2] += common * trace
            value = 0.5 * y @ weights + np.log(np.diag(factor)).sum() + 0.5 * (((v - centre) / width) ** 2).sum()
            return float(value), gradient

        bounds = [(c - 4.0 * w, c + 4.0 * w) for c, w in zip(centre, width, strict=True)]
        v = minimize(posterior, centre, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": _ROUNDS}).x
        rates, signals, common = np.exp(-2.0 * v[:d]), np.exp(2.0 * v[d : d + 2]), math.exp(2.0 * v[d + 2])
        factor = _factor(pairs, _kernel(rates[:, None] * square, signals), signals.sum() + own + common)
        return cls(x, group, rates, signals, common, factor, dpotrs(factor, y, lower=1)[0])

    def predict(self, z: Floats) -> tuple[Floats, Floats, Floats]:
        """(Q, F) -> mean and standard deviation (Q,) of what a trial there would reach, and how much is unknown there:
        the share of the signals' variance that the observations have left, in [0, 1].
        """
        k = _kernel(self.rates[:, None, None] * _squares(z, self.x, self.group), self.signals)
        signal = self.signals.sum()
        left = np.clip(signal - np.einsum("qn,nq->q", k, cho_solve((self.factor, True), k.T)), 0.0, signal)
        return k @ self.weights, np.sqrt(left + self.noise), left / signal


def _squares(a: Floats, b: Floats, group: NDArray[np.int64]) -> Floats:
    """(n, F), (m, F) -> (D, n, m) squared distances in each parameter."""
    found = np.zeros((int(group.max()) + 1, len(a), len(b)))
    for k, mine, theirs in zip(group, a.T, b.T, strict=True):
        found[k] += (mine[:, None] - theirs) ** 2
    return found


def _kernel(q: Floats, signals: Floats) -> Floats:
    """(D, ...) squared distances over squared lengths -> covariances."""
    return np.asarray(signals[0] * _matern(q).mean(0) + signals[1] * _matern(q.mean(0)))


def _factor(pairs: NDArray[np.intp], beside: Floats, diagonal: Floats) -> Floats:
    """Cholesky's lower factor of a symmetric matrix, by what stands beside its diagonal, at `pairs`, and on it."""
    n = diagonal.size
    whole = np.zeros((n, n))
    whole.ravel()[pairs] = beside
    np.fill_diagonal(whole, diagonal)
    factor, failed = dpotrf(whole.T, lower=1, overwrite_a=1)
    if failed:
        raise LinAlgError(f"no positive definite matrix of {n} begun trials")
    return np.asarray(factor)


def _matern(square: Floats) -> Floats:
    """Squared distances -> correlations."""
    r = np.sqrt(3.0 * square)
    return np.asarray((1.0 + r) * np.exp(-r))
