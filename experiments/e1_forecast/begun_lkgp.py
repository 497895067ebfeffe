"""BoTorch's latent Kronecker Gaussian process, a row of `begun.py`: configurations and all reports of begun trials.

Lin et al. 2025 (arXiv:2410.09239). It needs botorch, which stands in no extra of the package: give it a virtual
environment of its own, with this package, scikit-learn and botorch, and run `begun.py --forecasters lkgp` there; rows
of other environments stay where they are kept.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from begun_questions import Round
from begun_rows import Said, Scale
from scipy.special import ndtr

from lcsearch.curves import Floats
from lcsearch.forecast.contract import Absent, Forecasts

LONGEST = 12
"""Steps of the grid, at most: the first and the last report among them, and where trials are judged."""
Z = np.linspace(-4.0, 4.0, 33)
SEED = 0


def grid(asked: Round) -> Floats:
    """(T,) steps, rising, evenly spaced in the logarithm: of reports of the longest trial, and the end."""
    steps = max((trial.curve.steps for trial in asked.begun), key=len)
    end = asked.snapshot.goal.horizon
    at = np.unique(np.geomspace(1, len(steps), LONGEST - 1).round().astype(int)) - 1
    found = steps[at]
    return found if found[-1] == end else np.append(found, end)


def table(asked: Round, steps: Floats) -> Floats:
    """(N, T) losses of the begun trials, NaN where there is no report."""
    found = np.full((len(asked.begun), steps.size), np.nan)
    for row, trial in zip(found, asked.begun, strict=True):
        where = np.searchsorted(steps, trial.curve.steps)
        there = (where < steps.size) & (steps[np.minimum(where, steps.size - 1)] == trial.curve.steps)
        row[where[there]] = trial.curve.values[there]
    return found


@dataclass(frozen=True)
class LatentKronecker:
    """As it comes, of normal scores of all losses that were reported; time is the logarithm of the step, in [0, 1]."""

    label: str = "lkgp"

    @property
    def version(self) -> str:
        """Of the library."""
        import botorch

        return f"1-{botorch.__version__}"

    def say(self, asked: Round) -> Said:
        """Of every query, begun or not; nothing where it cannot be computed."""
        steps = grid(asked)
        losses = table(asked, steps)
        there = np.isfinite(losses)
        scale = Scale.of(losses[there])
        scores = np.full(losses.shape, np.nan)
        scores[there] = np.interp(losses[there], scale.losses, scale.scores)
        time = np.log(steps / steps[0]) / np.log(steps[-1] / steps[0])
        x, at = asked.features
        from botorch.exceptions.errors import ModelFittingError

        try:
            mean, deviation = _learn(x, time, scores, at)
        except (ModelFittingError, RuntimeError) as error:  # of linear algebra
            print(f"{asked.snapshot.study}: lkgp says nothing ({error})", flush=True)
            return Said(np.full(len(at), np.nan), Forecasts.none([Absent.UNSUPPORTED] * len(at)))
        return Said(mean, scale.forecasts(mean[:, None] + deviation[:, None] * Z, ndtr(Z)))


def _learn(x: Floats, time: Floats, y: Floats, at: Floats) -> tuple[Floats, Floats]:
    """(N, D), (T,), (N, T) with NaN and (Q, D) -> mean and standard deviation (Q,) at the last time."""
    import torch
    from botorch.fit import fit_gpytorch_mll
    from botorch.models.latent_kronecker_gp import LatentKroneckerGP
    from gpytorch.mlls import ExactMarginalLogLikelihood

    torch.manual_seed(SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of how it is computed
        a, t, b, c = (torch.tensor(np.asarray(z), dtype=torch.float64) for z in (x, time[:, None], y, at))
        model = LatentKroneckerGP(a, t, b)
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        with torch.no_grad():
            said = model.posterior(c, t[-1:])
            mean, variance = said.mean.reshape(-1), said.variance.reshape(-1)
            variance = variance + model.likelihood.noise.reshape(()) * _unit(model) ** 2
    return mean.numpy(), np.sqrt(np.maximum(variance.numpy(), 1e-12))


def _unit(model: Any) -> float:
    """Of a score, in the units in which the likelihood's noise is stated."""
    transform = getattr(model, "outcome_transform", None)
    return float(transform.stdvs.reshape(-1)[0]) if transform is not None else 1.0
