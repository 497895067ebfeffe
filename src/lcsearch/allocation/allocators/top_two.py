"""TopTwoThompson: the arm that may be the best, against the one that may be it instead.

Russo 2020, "Simple Bayesian Algorithms for Best-Arm Identification", top-two Thompson sampling.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from lcsearch.allocation.curriculum import Arm, Curriculum
from lcsearch.curves import Floats
from lcsearch.errors import InvalidValue, is_finite_number

_DRAWS = 512


@dataclass(frozen=True)
class TopTwoThompson(Curriculum):
    """With probability `beta` the arm whose draw of its judged value is the best one; else the best of a further draw
    in which another one is.

    With a_i = P(arm i has the best draw), counted over 512 joint draws of the forecasts, arm i gets the slot with
    probability a_i (beta + (1 - beta) * sum over j != i of a_j / (1 - a_j)) (Russo 2020, section 3). That is drawn
    from at once, so the propensity of every move is known.

    Attributes:
        first: see :class:`~lcsearch.allocation.curriculum.Curriculum`, as for `eta`, `floor` and `n_asked`.
        beta: in (0, 1]; 1 is Thompson sampling.
    """

    beta: float = 0.5

    name: ClassVar[str] = "top-two"
    what: ClassVar[str] = "P(it ends as the best)"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (is_finite_number(self.beta) and 0 < self.beta <= 1):
            raise InvalidValue("a probability in (0, 1]", self.beta, "TopTwoThompson.beta")

    def scores(self, state: Any, arms: Sequence[Arm], best: float, rng: np.random.Generator) -> Floats:
        """a_i, the share of joint draws in which it is the best; the first of equal ones."""
        draws = np.stack([np.full(_DRAWS, math.inf) if a.told is None else a.told.sample(_DRAWS, rng)[0] for a in arms])
        won = np.bincount(np.argmin(draws, 0), minlength=len(arms)) / _DRAWS
        return np.where([arm.told is None for arm in arms], math.nan, won)

    def odds(self, scores: Floats) -> Floats:
        """The mixture of leader and challenger."""
        a = scores / scores.sum() if scores.sum() > 0 else np.full(len(scores), 1.0 / len(scores))
        rest = 1.0 - a
        if not (self.beta < 1.0 and (rest > 0).all()):  # one has every draw: there is no challenger
            return np.asarray(a)
        share = a / rest
        return np.asarray(a * (self.beta + (1.0 - self.beta) * (share.sum() - share)))
