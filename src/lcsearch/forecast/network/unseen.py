"""Trials without a report, from their configurations: a Gaussian process on what the begun ones are forecast to reach.

What is regressed is no value that was seen but the forecast of every begun trial at the queried step, as a normal
score among them: a slow starter is no bad configuration, and a blow-up no outlier. The kernel is Matern's with nu 5/2
and a length for every parameter (Rasmussen and Williams 2006, 4.2.1); lengths, scale and noise are the most probable
ones, the lengths under a prior that grows with the root of the number of parameters (Hvarfner et al. 2024). Answers are
read back through the quantiles of what is forecast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.linalg import LinAlgError
from numpy.typing import NDArray
from scipy.linalg import cho_solve
from scipy.linalg.lapack import dpotrf, dpotri, dpotrs
from scipy.optimize import minimize
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata

from lcsearch.curves import Floats
from lcsearch.forecast.contract import Forecasts
from lcsearch.forecast.network.columns import Columns, Plain

FEWEST = 3
"""Begun trials with a forecast below which nothing is said of unseen ones."""
_ROUNDS = 25  # of the optimizer: later ones change no figure
_LENGTH, _NOISE, _SIGNAL = math.log(0.5), math.log(0.3), 0.0  # medians of their priors, logarithms
_PRIOR = 1.0, 1.0, 0.5  # and widths
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
        width: of a begun trial's forecast, in scores: one that is not begun is no surer.
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
        levels = (0.16, 0.5, 0.84) if said.sign > 0 else (0.84, 0.5, 0.16)
        losses = said.sign * np.stack([said.quantile(p) for p in levels])
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
        mean, deviation = self.process.predict(_inputs(self.columns, asked)[0])
        deviation = np.hypot(deviation, self.width)
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
        at, first = np.unique(losses, return_index=True)
        score = ndtri((rankdata(losses) - 0.5) / losses.size)[first]
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
    coded = columns.encode(trials)
    parts, group = [np.zeros((len(trials), 0))], []
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
    """A Gaussian process after its observations: inputs (n, F) over their lengths, weights, and the factor of K."""

    x: Floats
    lengths: Floats
    weights: Floats
    factor: Floats
    signal: float
    noise: float

    @classmethod
    def fit(cls, x: Floats, group: NDArray[np.int64], y: Floats, noise: Floats) -> _Process:
        """Of scores y (n,), each with a noise of its own beside the common one (standard deviations)."""
        d, own = int(group.max(initial=-1)) + 1, noise**2 + _JITTER
        centre = np.array([_LENGTH + 0.5 * math.log(max(d, 1))] * d + [_SIGNAL, _NOISE])
        width = np.array([_PRIOR[0]] * d + [_PRIOR[2], _PRIOR[1]])
        n = y.size
        one, other = np.triu_indices(n, 1)  # a symmetric matrix is worked on by half
        pairs = one * n + other
        square = np.zeros((d, pairs.size))
        for k, column in zip(group, x.T, strict=True):
            square[k] += ((column[:, None] - column) ** 2).ravel()[pairs]

        def posterior(v: Floats) -> tuple[float, Floats]:
            """Negative logarithm, up to a constant, and its gradient."""
            lengths, signal, common = np.exp(-2.0 * v[:d]), math.exp(2.0 * v[d]), math.exp(2.0 * v[d + 1])
            k, slope = _matern(lengths @ square)
            factor = _factor(pairs, signal * k, signal + own + common)
            inverse = dpotri(factor, lower=1, overwrite_c=0)[0].T  # its upper half
            weights = dpotrs(factor, y, lower=1)[0]
            rest = inverse.ravel()[pairs] - weights[one] * weights[other]
            trace = np.trace(inverse) - weights @ weights
            gradient = (v - centre) / width**2
            gradient[:d] += signal * lengths * (square @ (rest * slope))
            gradient[d] += signal * (2.0 * rest @ k + trace)
            gradient[d + 1] += common * trace
            value = 0.5 * y @ weights + np.log(np.diag(factor)).sum() + 0.5 * (((v - centre) / width) ** 2).sum()
            return float(value), gradient

        bounds = [(c - 4.0 * w, c + 4.0 * w) for c, w in zip(centre, width, strict=True)]
        v = minimize(posterior, centre, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": _ROUNDS}).x
        signal, common = math.exp(2.0 * v[d]), math.exp(2.0 * v[d + 1])
        factor = _factor(pairs, signal * _matern(np.exp(-2.0 * v[:d]) @ square)[0], signal + own + common)
        lengths = np.exp(-v[:d])[group]
        return cls(x * lengths, lengths, dpotrs(factor, y, lower=1)[0], factor, signal, common)

    def predict(self, z: Floats) -> tuple[Floats, Floats]:
        """(Q, F) -> mean and standard deviation (Q,) of what a trial there would reach."""
        z = z * self.lengths
        square = (z * z).sum(1)[:, None] + (self.x * self.x).sum(1) - 2.0 * z @ self.x.T
        k = self.signal * _matern(np.maximum(square, 0.0))[0]
        left = self.signal - np.einsum("qn,nq->q", k, cho_solve((self.factor, True), k.T))
        return k @ self.weights, np.sqrt(np.maximum(left, 0.0) + self.noise)


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


def _matern(square: Floats) -> tuple[Floats, Floats]:
    """Squared distances -> correlations, and minus twice their slope in the squared distance."""
    r = np.sqrt(5.0 * square)
    fall = np.exp(-r)
    return (1.0 + r + r * r / 3.0) * fall, (5.0 / 3.0) * (1.0 + r) * fall
