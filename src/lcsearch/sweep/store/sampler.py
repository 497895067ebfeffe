"""Sampling as a pure function of (seed, trial number, history).

Optuna's samplers draw from one stream for each process: which worker happens to ask first decides what trial 7
gets. Here each trial gets a sampler of its own, seeded by (seed, number), so trial 7 of a `random` sweep has the
same parameters whatever the number of workers, the pruner, or how often the sweep was killed and resumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from lcsearch.sweep.spec.seeds import derive_seed


class TrialSampler(BaseSampler):
    """Delegates to a fresh RandomSampler or TPESampler for each trial.

    Independent draws are seeded by the parameter's name as well: a parameter added to a space leaves the draws of
    the others as they were.

    Attributes:
        blind: it reads no values, so that none need be forecast for it.
    """

    def __init__(self, kind: Literal["random", "tpe"], seed: int) -> None:
        self._kind, self._seed = kind, seed
        self.blind = kind == "random"

    def _inner(self, trial: FrozenTrial, name: str = "") -> BaseSampler:
        seed = derive_seed(self._seed, trial.number, name)
        return RandomSampler(seed=seed) if self._kind == "random" else TPESampler(seed=seed)

    def again(self, n: int) -> TrialSampler:
        """One whose draws for a trial are others: the n-th, from 0, which is this one."""
        return TrialSampler(self._kind, derive_seed(self._seed, n, "again")) if n else self

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """As the inner sampler."""
        return self._inner(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As the inner sampler, seeded by the trial's number."""
        return self._inner(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """As the inner sampler, seeded by the trial's number and the parameter's name."""
        inner = self._inner(trial, param_name)
        return inner.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """As the inner sampler."""
        self._inner(trial).after_trial(study, trial, state, values)
