"""The curve families of the parametric ensemble: loss = v + a h(u; theta) + d (u - 1).

`u` is normalised time: (step - first + spacing) / (horizon - first + spacing), so the first report stands at
spacing / (...) > 0 and the horizon at 1. `h` is a shape g scaled to run from 1 at the first report to 0 at the horizon,

    h(u) = (g(u) - g(1)) / (g(u_1) - g(1)),

so `v` is the value at the horizon, `a` the whole drop from the first report to the horizon and `d` a linear drift:
numbers on which a scale-free prior can be put, where asymptotes and exponents are not.

| family | g(u; t1, t2) | source |
|---|---|---|
| pow3 | (1 + u / e^t1)^(-e^t2) | Domhan et al. 2015, LC-PFN |
| exp | exp(-u / e^t1) | ifBO |
| weibull | exp(-(u / e^t1)^(e^t2)), Janoschek's | LC-PFN |
| hill | 1 / (1 + (u / e^t1)^(e^t2)), MMF | Domhan et al. 2015, ifBO |
| ilog | 1 / ln(e + u / e^t1) | LC-PFN |
| drift | exp with the drift d: an overfit hump or a late linear gain | |
| constant | none, a = 0: never learns, or has arrived | |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lcsearch.curves import Floats

#: Order of the parameter vector of every family; what a family lacks is held at zero.
PARAMETERS = ("v", "a", "d", "t1", "t2")
_TINY = 1e-9

#: Derivatives of g, or of h, by the shape parameters that the family has.
Slopes = tuple[Floats, ...]
#: u, t1, t2 (broadcast together), whether to differentiate -> g, its derivatives.
Shape = Callable[[Floats, Floats, Floats, bool], tuple[Floats, Slopes]]


def _pow3(u: Floats, t1: Floats, t2: Floats, slopes: bool) -> tuple[Floats, Slopes]:
    x = u * np.exp(-t1)
    alpha = np.exp(t2)
    log = np.log1p(x)
    g = np.exp(-alpha * log)
    return g, (g * alpha * x / (1.0 + x), -g * alpha * log) if slopes else ()


def _exp(u: Floats, t1: Floats, t2: Floats, slopes: bool) -> tuple[Floats, Slopes]:
    x = u * np.exp(-t1)
    g = np.exp(-x)
    return g, (g * x,) if slopes else ()


def _weibull(u: Floats, t1: Floats, t2: Floats, slopes: bool) -> tuple[Floats, Slopes]:
    log = np.log(u) - t1
    beta = np.exp(t2)
    z = np.exp(np.minimum(beta * log, 50.0))
    g = np.exp(-z)
    if not slopes:
        return g, ()
    by_log = g * z * beta
    return g, (by_log, -by_log * log)


def _hill(u: Floats, t1: Floats, t2: Floats, slopes: bool) -> tuple[Floats, Slopes]:
    log = np.log(u) - t1
    beta = np.exp(t2)
    g = 1.0 / (1.0 + np.exp(np.minimum(beta * log, 50.0)))
    if not slopes:
        return g, ()
    by_log = g * (1.0 - g) * beta
    return g, (by_log, -by_log * log)


def _ilog(u: Floats, t1: Floats, t2: Floats, slopes: bool) -> tuple[Floats, Slopes]:
    x = u * np.exp(-t1)
    inner = np.e + x
    g = 1.0 / np.log(inner)
    return g, (g * g * x / inner,) if slopes else ()


def _constant(u: Floats, t1: Floats, t2: Floats, slopes: bool) -> tuple[Floats, Slopes]:
    return np.zeros(np.broadcast_shapes(u.shape, t1.shape)), ()


@dataclass(frozen=True)
class Family:
    """One law of decay and the prior of its shape.

    Attributes:
        name: for receipts and reports.
        shape: g and its derivatives.
        active: which of PARAMETERS it uses.
        mean: prior means of (t1, t2), natural logarithms; t1 is a time in units of the run's length.
        sd: prior standard deviations of (t1, t2).
        grid: starting values of (t1, t2), every combination is tried.
        weight: prior weight in the ensemble; they need not sum to 1.
    """

    name: str
    shape: Shape
    active: tuple[bool, bool, bool, bool, bool]
    mean: tuple[float, float] = (0.0, 0.0)
    sd: tuple[float, float] = (1.0, 1.0)
    grid: tuple[tuple[float, ...], tuple[float, ...]] = ((0.0,), (0.0,))
    weight: float = 1.0

    @cached_property
    def starts(self) -> Floats:
        """(G, 2) every combination of the grid's values."""
        t1, t2 = np.meshgrid(*self.grid, indexing="ij")
        return np.stack([t1.ravel(), t2.ravel()], 1)


_TIMES = (-5.5, -4.4, -3.3, -2.2, -1.1, 0.0)
_SLOW_TIMES = (-6.5, -5.0, -3.5, -2.0)

FAMILIES: tuple[Family, ...] = (
    Family(
        "pow3",
        _pow3,
        (True, True, False, True, True),
        (-3.5, -0.3),
        (1.5, 0.6),
        ((-6.0, -4.5, -3.0, -1.5), (-1.2, -0.4, 0.4, 1.2)),
    ),
    Family("exp", _exp, (True, True, False, True, False), (-2.3, 0.0), (1.5, 1.0), (_TIMES, (0.0,))),
    Family("weibull", _weibull, (True, True, False, True, True), (-2.3, -0.3), (1.5, 0.4), (_TIMES, (-0.9, -0.3, 0.3))),
    Family("hill", _hill, (True, True, False, True, True), (-2.3, 0.0), (1.5, 0.4), (_TIMES, (-0.5, 0.0, 0.5))),
    Family("ilog", _ilog, (True, True, False, True, False), (-4.5, 0.0), (1.5, 1.0), (_SLOW_TIMES, (0.0,))),
    Family("drift", _exp, (True, True, True, True, False), (-2.8, 0.0), (1.2, 1.0), (_TIMES, (0.0,))),
    Family("constant", _constant, (True, False, False, False, False)),
)


def scaled_shape(family: Family, u: Floats, t1: Floats, t2: Floats, *, slopes: bool = False) -> tuple[Floats, Slopes]:
    """h(u) and, when asked for, its derivatives by the shape parameters that the family has.

    Args:
        family: whose shape.
        u: (..., N + 2) normalised times, then the first report's time and 1 as :func:`with_ends` adds them.
        t1, t2: (...,) shape parameters.
        slopes: whether to differentiate.

    Returns:
        h, of the broadcast shape (..., N): 1 at the first report and 0 at u = 1; and its derivatives, as many.
    """
    g, slope = family.shape(u, t1[..., None], t2[..., None], slopes)
    # Below _TINY the shape has no room between first report and horizon: h is then 0 or 1 within rounding.
    span = g[..., -2:-1] - g[..., -1:]
    inverse = 1.0 / np.where(np.abs(span) > _TINY, span, _TINY)
    h = (g[..., :-2] - g[..., -1:]) * inverse
    return h, tuple(((d[..., :-2] - d[..., -1:]) - h * (d[..., -2:-1] - d[..., -1:])) * inverse for d in slope)


def with_ends(u: Floats, first: Floats) -> Floats:
    """Times (..., N) with the first report's time (..., 1) and the horizon's behind them: (..., N + 2)."""
    return np.concatenate([u, first, np.ones_like(first)], -1)
