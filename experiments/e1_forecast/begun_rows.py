"""The rows of `begun.py`: the network, and what a library makes of configurations alone.

A surrogate learns configuration -> normal score of a begun trial's standing (values go to 1e34: on half a the
forest's Spearman was .3 by values and .6 by scores on TaskSet, .55 and .63 on LCBench); what it predicts is read as a
loss off the begun trials' own losses. Nothing is tuned, and nothing is known of how curves go on.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import provenance
import sklearn
from begun_questions import Ints, Round
from entrants import entrant
from scipy.special import logsumexp, ndtr, ndtri
from sklearn.ensemble import ExtraTreesRegressor, RandomForestRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from lcsearch.curves import Floats
from lcsearch.forecast.contract import Absent, Forecaster, Forecasts, Query

FEWEST_TRAINED = 5
Z = np.linspace(-4.0, 4.0, 33)
CODE = ("*.py", "study/*.py", "forecast/*.py", "forecast/network/*.py")


@dataclass(frozen=True, eq=False)
class Said:
    """What a row answers.

    Attributes:
        order: (Q,) the lower the better; NaN where nothing was said.
        forecasts: of the final loss; None from who knows an order alone.
    """

    order: Floats
    forecasts: Forecasts | None


class Row(Protocol):
    """Who is asked, under the name of its row; `version` changes whenever the same question may get another answer."""

    @property
    def label(self) -> str: ...

    @property
    def version(self) -> str: ...

    def say(self, asked: Round) -> Said:
        """Of every query."""
        ...


@dataclass(frozen=True, eq=False)
class Scale:
    """Between normal scores and losses: the sorted losses stand at the normal scores of their places.

    Below the best one it goes on as steeply as from the median to the best; above the worst one it stays.
    """

    scores: Floats
    losses: Floats

    @classmethod
    def of(cls, losses: Floats) -> Scale:
        """Of at least two losses."""
        return cls(ndtri((np.arange(losses.size) + 0.5) / losses.size), np.sort(losses))

    @property
    def steep(self) -> float:
        """Losses a unit of score, at the best."""
        return float((np.median(self.losses) - self.losses[0]) / -self.scores[0])

    def read(self, score: Floats) -> Floats:
        """Losses of scores, in their shape."""
        below = np.minimum(score - self.scores[0], 0.0) * self.steep
        return np.asarray(np.interp(score, self.scores, self.losses) + below)

    def forecasts(self, scores: Floats, levels: Floats) -> Forecasts:
        """Of (Q, K) scores, rising, at K levels."""
        tails = np.tile([0.25 * self.steep, 0.0], (len(scores), 1))
        return Forecasts.of(self.read(scores), levels, tails, sign=1.0, source="begun")


def normal_scores(standing: Ints) -> Floats:
    """(N,) of places from 0."""
    return np.asarray(ndtri((standing + 0.5) / standing.size))


def nothing(asked: Round) -> Forecasts:
    """What is said of any trial by who knows nothing of it: the begun trials' losses."""
    scale = Scale.of(asked.shown)
    return scale.forecasts(np.tile(scale.scores, (len(asked.queries), 1)), ndtr(scale.scores))


@dataclass(frozen=True)
class Nothing:
    """See `nothing`."""

    label: str = "nothing"
    version: str = "1"

    def say(self, asked: Round) -> Said:
        """The same of all."""
        return Said(np.zeros(len(asked.queries)), nothing(asked))


@dataclass(frozen=True)
class LastLoss:
    """The last value of a begun trial: an order, and none of the unseen ones."""

    label: str = "value"
    version: str = "1"

    def say(self, asked: Round) -> Said:
        """Begun trials only."""
        shown = [float(q.trial.curve.values[-1]) for q in asked.queries[asked.unseen :]]
        return Said(np.array([np.nan] * asked.unseen + shown), None)


Learner = Callable[[Floats, Floats, Floats], tuple[Floats, Floats, Floats]]
"""(N, D) configurations, (N,) scores, (Q, D) asked about -> (Q,) predicted, (Q, K) quantiles at (K,) levels."""


def trees(made: Callable[..., RandomForestRegressor | ExtraTreesRegressor]) -> Learner:
    """What each of a hundred trees says, grown until its leaves are pure: a distribution of leaves."""

    def learn(x: Floats, y: Floats, at: Floats) -> tuple[Floats, Floats, Floats]:
        each = np.stack([tree.predict(at) for tree in made(100, random_state=0).fit(x, y).estimators_], 1)
        return each.mean(1), np.sort(each, 1), (np.arange(each.shape[1]) + 0.5) / each.shape[1]

    return learn


def process(x: Floats, y: Floats, at: Floats) -> tuple[Floats, Floats, Floats]:
    """A Gaussian process: Matern 5/2 with a length for each column, and noise; likeliest from one start."""
    lengths = np.full(x.shape[1], 0.5)
    kernel = ConstantKernel(1.0, (0.05, 20.0)) * Matern(lengths, (0.05, 50.0), 2.5) + WhiteKernel(0.1, (1e-3, 2.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a length at its bound: the column does not matter
        mean, sd = GaussianProcessRegressor(kernel, normalize_y=True).fit(x, y).predict(at, return_std=True)
    return mean, mean[:, None] + sd[:, None] * Z, ndtr(Z)


def ratio(x: Floats, y: Ints, at: Floats) -> Floats:
    """(Q,) ln of the density of configurations that are not good over that of good ones, as the tree-structured Parzen
    estimator has it (Bergstra et al. 2011; Optuna's own is private).

    Good: the best tenth, at most 25. Densities as Optuna's multivariate ones: around each configuration a normal of
    width .2 n^(-1 / (D + 4)) in every column, and one of width 1 around the middle.
    """
    good = np.argsort(y, kind="stable")[: min(-(-y.size // 10), 25)]
    return _density(np.delete(x, good, 0), at) - _density(x[good], at)


def _density(x: Floats, at: Floats) -> Floats:
    n, d = x.shape
    centres = np.vstack([x, np.full((1, d), 0.5)])
    width = np.append(np.full(n, 0.2 * max(n, 1) ** (-1.0 / (d + 4))), 1.0)
    away = ((at[:, None] - centres) ** 2).sum(2) / width**2
    return np.asarray(logsumexp(-0.5 * away - d * np.log(width), axis=1) - np.log(n + 1))


LEARNERS: dict[str, Learner] = {
    "forest": trees(RandomForestRegressor),
    "extra-trees": trees(ExtraTreesRegressor),
    "gp": process,
}


@dataclass(frozen=True)
class Surrogate:
    """Configuration -> standing among the begun trials."""

    label: str
    version: str = f"1-{sklearn.__version__}"

    def say(self, asked: Round) -> Said:
        """Of every query, begun or not."""
        x, at = asked.features
        mean, scores, levels = LEARNERS[self.label](x, normal_scores(asked.standing), at)
        return Said(mean, Scale.of(asked.shown).forecasts(scores, levels))


@dataclass(frozen=True)
class Tpe:
    """See `ratio`."""

    label: str = "tpe"
    version: str = "1"

    def say(self, asked: Round) -> Said:
        """An order alone."""
        x, at = asked.features
        return Said(ratio(x, asked.standing, at), None)


@dataclass(frozen=True, eq=False)
class Network:
    """A forecaster of curves; it is shown all configurations."""

    label: str
    version: str
    method: Forecaster

    def say(self, asked: Round) -> Said:
        """The order is that of the medians."""
        said = self.method.forecast(asked.snapshot, asked.queries)
        return Said(_medians(said), said)


@dataclass(frozen=True, eq=False)
class ForestOnForecasts:
    """The forest on configuration -> median of what a forecaster says of each begun trial's end."""

    label: str
    version: str
    method: Forecaster

    def say(self, asked: Round) -> Said:
        """Nothing where it says something of fewer than FEWEST_TRAINED begun trials."""
        end = asked.snapshot.goal.horizon
        said = self.method.forecast(asked.snapshot, [Query(trial, "value", end) for trial in asked.begun])
        median = _medians(said)
        known, (x, at) = np.isfinite(median), asked.features
        if known.sum() < FEWEST_TRAINED:
            return Said(np.full(len(at), np.nan), Forecasts.none([Absent.UNSUPPORTED] * len(at)))
        standing = np.argsort(np.argsort(median[known], kind="stable"), kind="stable").astype(np.int64)
        mean, scores, levels = LEARNERS["forest"](x[known], normal_scores(standing), at)
        return Said(mean, Scale.of(median[known]).forecasts(scores, levels))


def _medians(said: Forecasts) -> Floats:
    return np.where([reason is None for reason in said.absent], said.quantile(0.5), np.nan)


def row(spec: str) -> Row:
    """By its name, see `begun.py`.

    Raises:
        LcsearchError: the weights cannot be read.
        SystemExit: there is none of this name.
    """
    if spec in LEARNERS:
        return Surrogate(spec)
    for known in (Nothing(), LastLoss(), Tpe()):
        if spec == known.label:
            return known
    if spec == "lkgp":
        from begun_lkgp import LatentKronecker  # it needs a library that is not always there

        return LatentKronecker()
    who = entrant(spec.removeprefix("forest+"))
    version = f"{who.version}-{provenance.fingerprint(CODE)}"  # the same weights may be asked in another way
    if spec.startswith("forest+"):
        return ForestOnForecasts(f"forest+{who.label}", f"{Surrogate('forest').version}-{version}", who.method)
    return Network(who.label, version, who.method)
