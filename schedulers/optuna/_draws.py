"""Configurations drawn from Optuna's distributions: anywhere, or near one that is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

_NEAR = 0.1  # standard deviation, as a share of a parameter's range
_ANOTHER = 0.2  # probability of another category


class Draw:
    """A configuration while it is drawn, parameter by parameter.

    Args:
        value: of a parameter, by its name and distribution.

    Attributes:
        params: name -> value, as far as it was drawn.
        distributions: name -> distribution, likewise.
    """

    def __init__(self, value: Callable[[str, BaseDistribution], Any]) -> None:
        self._value = value
        self.params: dict[str, Any] = {}
        self.distributions: dict[str, BaseDistribution] = {}

    def suggest(self, name: str, distribution: BaseDistribution) -> Any:
        """The value of a parameter; the same one when it is asked for again."""
        if name not in self.params:
            single = distribution.single()
            self.params[name] = _at(distribution, 0.0) if single else self._value(name, distribution)
            self.distributions[name] = distribution
        return self.params[name]

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """As `optuna.Trial.suggest_float`."""
        return float(self.suggest(name, FloatDistribution(low, high, log=log, step=step)))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """As `optuna.Trial.suggest_int`."""
        return int(self.suggest(name, IntDistribution(low, high, log=log, step=step)))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """As `optuna.Trial.suggest_categorical`."""
        return self.suggest(name, CategoricalDistribution(choices))


def anywhere(rng: np.random.Generator) -> Draw:
    """Uniform, after the logarithm where the distribution says so."""
    return Draw(lambda name, distribution: _at(distribution, rng.random()))


def near(params: Mapping[str, Any], rng: np.random.Generator) -> Draw:
    """Like `params`, a tenth of a parameter's range away; anywhere, for parameters that are not in it."""

    def value(name: str, distribution: BaseDistribution) -> Any:
        u = _where(distribution, params[name]) if name in params else None
        if u is None or (isinstance(distribution, CategoricalDistribution) and rng.random() < _ANOTHER):
            return _at(distribution, rng.random())
        if isinstance(distribution, CategoricalDistribution):
            return params[name]
        return _at(distribution, min(max(u + _NEAR * rng.standard_normal(), 0.0), 1.0))

    return Draw(value)


def _ends(distribution: FloatDistribution | IntDistribution) -> tuple[float, float, int]:
    """Low and high end of what is uniform, and into how many equal parts it is divided; 0 for none."""
    low, high, step = distribution.low, distribution.high, distribution.step
    if distribution.log:
        half = 0.5 if isinstance(distribution, IntDistribution) else 0.0
        return math.log(low - half), math.log(high + half), 0
    return low, high, 0 if step is None else round((high - low) / step) + 1


def _at(distribution: BaseDistribution, u: float) -> Any:
    """The value at a place in [0, 1] of a distribution's range."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[min(int(u * len(distribution.choices)), len(distribution.choices) - 1)]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high, n = _ends(distribution)
    whole = int if isinstance(distribution, IntDistribution) else float
    if n:
        assert distribution.step is not None
        return whole(distribution.low + min(int(u * n), n - 1) * distribution.step)
    x = low + u * (high - low)
    if distribution.log:
        x = math.exp(x)
    return min(max(whole(round(x) if whole is int else x), distribution.low), distribution.high)


def _where(distribution: BaseDistribution, value: Any) -> float | None:
    """The place of a value in [0, 1]; None where the distribution has no such value."""
    if isinstance(distribution, CategoricalDistribution):
        return 0.5 if value in distribution.choices else None
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if not isinstance(value, int | float) or not distribution.low <= value <= distribution.high:
        return None
    low, high, n = _ends(distribution)
    if n:
        assert distribution.step is not None
        return (round((value - distribution.low) / distribution.step) + 0.5) / n
    return ((math.log(value) if distribution.log else value) - low) / (high - low)
