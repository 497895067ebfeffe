"""PandoraIndex: every arm a box that costs compute to open, opened in the order of its reservation value.

Weitzman 1979, "Optimal Search for the Best Alternative"; the expected cost of a box that may be given up on the way is
after Gittins' index, whose numerator and denominator are taken up to a stopping time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from lcsearch.allocation.curriculum import Arm, Curriculum, stacked
from lcsearch.allocation.gain import expected_improvement
from lcsearch.curves import Floats
from lcsearch.forecast.contract import Forecasts

_HALVINGS = 50


@dataclass(frozen=True)
class PandoraIndex(Curriculum):
    """The arm with the lowest reservation value z: E[(z - Y)^+] = price * cost, Y its judged loss, as forecast.

    z is the loss in hand at which to open the box is just worth its cost (Weitzman's rule: open the lowest z while that
    is below the best in hand). The price, in loss per full trial's compute, is what a new configuration pays: its z is
    the best value seen, E[(best - Y_new)^+] = price * cost_new. So a trial goes on when its z lies below that. Where
    that gains nothing, or nothing new may be begun, arms are ranked by E[(best - Y)^+] for a unit of cost.

    Cost, with abandonment: of what goes on at a rung 1 / `eta` comes to the next, so the turn after next is paid for
    with probability 1 / `eta`, and so on; as turns grow by `eta`, each counts as much as the next one. A trial with n
    turns to its end costs n of its next turn, but no more than its way.

    Attributes: see :class:`~lcsearch.allocation.curriculum.Curriculum`.
    """

    name: ClassVar[str] = "pandora"
    what: ClassVar[str] = "what its box is worth beyond the best value"

    def scores(self, state: Any, arms: Sequence[Arm], best: float, rng: np.random.Generator) -> Floats:
        """best - z, in the metric's units."""
        known = [i for i, arm in enumerate(arms) if arm.told is not None]
        told, costs = stacked([arms[i].told for i in known]), np.array([self._cost(arms[i]) for i in known])
        new = [row for row, i in enumerate(known) if arms[i].uid is None]
        price = float(expected_improvement(told, best)[new[0]]) / costs[new[0]] if new else 0.0
        scores = np.full(len(arms), math.nan)
        # Where compute has no price, as once nothing new may be begun, z says nothing but how wide a forecast is.
        scores[known] = best - self._z(told, price * costs) if price > 0 else expected_improvement(told, best) / costs
        return scores

    def _cost(self, arm: Arm) -> float:
        """Of the box, in full trials' worth."""
        n_turns = math.log(max(arm.way / arm.turn * (self.eta - 1.0) + 1.0, 1.0), self.eta)
        return min(max(n_turns, 1.0) * arm.turn, arm.way)

    @staticmethod
    def _z(told: Forecasts, cost: Floats) -> Floats:
        """(n,) z with E[(z - Y)^+] = cost, which rises in z; by halving intervals that hold it."""
        low, high = told.knots[:, 0], told.knots[:, -1]
        width = np.maximum(np.maximum(high - low, told.tails.max(1)), np.maximum(cost, 1e-12))
        low, high = low - 64.0 * width, high + 2.0 * width  # E[(z - Y)^+] > cost at this end, about 0 at that
        for _ in range(_HALVINGS):
            middle = 0.5 * low + 0.5 * high
            less = expected_improvement(told, middle) < cost
            low, high = np.where(less, middle, low), np.where(less, high, middle)
        return np.asarray(high)
