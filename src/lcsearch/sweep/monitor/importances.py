"""Which parameters mattered: Optuna's fANOVA on what the trials reached."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.search_space import intersection_search_space
from optuna.trial import FrozenTrial, TrialState, create_trial

from lcsearch.goal import Goal
from lcsearch.schedulers.optuna import as_trial
from lcsearch.study import judged_loss

LEAST = 10  # fewer trials say nothing of several parameters
MOST = 400  # beyond this many, the forest takes tens of seconds and says the same
_SEED = 0
_CHOICES = 8
"""Choices of one parameter, of which fANOVA takes one column each and every mixture of them: beyond this many, minutes,
and at thirty for ever."""


@dataclass(frozen=True)
class Importances:
    """Shares of the variance by parameter.

    Attributes:
        shares: (name, share), largest first; they sum to 1. Empty when nothing can be said.
        basis: what they were computed from, one sentence; or why there are none.
    """

    shares: tuple[tuple[str, float], ...]
    basis: str


def importances(trials: Sequence[FrozenTrial], goal: Goal) -> Importances:
    """fANOVA on the rank of each trial's judged value: what COMPLETE trials reached, what stopped ones had reached.

    Ranks, because one diverged trial at 1e30 would be all the variance there is. The seed is fixed: the same trials
    give the same shares.
    """
    ended: list[tuple[FrozenTrial, float]] = []
    for trial in trials:
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
            loss, _ = judged_loss(as_trial(trial).curve, goal)
            if math.isfinite(loss):
                ended.append((trial, loss))
    if len(ended) < LEAST:
        text = f"Too few trials: {len(ended)} complete or stopped with a finite value, {LEAST} are needed."
        return Importances((), text)
    found = len(ended)
    if found > MOST:
        ended = [ended[i] for i in np.linspace(0, found - 1, MOST).astype(int)]
    space = intersection_search_space([trial for trial, _ in ended])
    varied = sorted(name for name, distribution in space.items() if not distribution.single())
    if len(varied) < 2:
        return Importances((), "Fewer than two parameters were drawn in every trial: there is nothing to compare.")
    if len({loss for _, loss in ended}) < 2:
        return Importances((), "Every trial reached the same value: there is nothing to explain.")
    try:
        shares = _fanova(ended, {name: space[name] for name in varied})
    except Exception as error:  # a library's bad day must not cost the report
        return Importances((), f"Not available: {type(error).__name__}: {error}")
    n_stopped = sum(trial.state == TrialState.PRUNED for trial, _ in ended)
    reached = "best" if goal.judged == "best" else "last"
    basis = f"Computed by fANOVA (Optuna, fixed seed) from the rank of the {reached} value of {len(ended)} trials"
    basis += f" ({len(ended) - n_stopped} complete, {n_stopped} stopped, these with what they had reached when stopped)"
    if found > MOST:
        basis += f", spread evenly over the {found} there are"
    basis += "."
    left_out = sorted({name for trial, _ in ended for name in trial.distributions} - set(space))
    if left_out:
        basis += f" Not ranked, because only some trials have them: {', '.join(left_out)}."
    return Importances(shares, basis)


def _fanova(
    ended: Sequence[tuple[FrozenTrial, float]], space: dict[str, BaseDistribution]
) -> tuple[tuple[str, float], ...]:
    _, ranks = np.unique([loss for _, loss in ended], return_inverse=True)
    study = optuna.create_study(direction="minimize")
    known = {name: _splittable(distribution) for name, distribution in space.items()}
    study.add_trials(
        create_trial(
            value=float(rank),
            params={name: _place(trial.params[name], space[name], known[name]) for name in space},
            distributions=known,
        )
        for (trial, _), rank in zip(ended, ranks, strict=True)
    )
    shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=_SEED))
    return tuple(sorted(((name, float(share)) for name, share in shares.items()), key=lambda item: (-item[1], item[0])))


def _splittable(distribution: BaseDistribution) -> BaseDistribution:
    """Many choices as their places in the file's list, which trees split as well."""
    if isinstance(distribution, CategoricalDistribution) and len(distribution.choices) > _CHOICES:
        return IntDistribution(0, len(distribution.choices) - 1)
    return distribution


def _place(value: Any, distribution: BaseDistribution, known: BaseDistribution) -> Any:
    return value if known is distribution else int(distribution.to_internal_repr(value))
