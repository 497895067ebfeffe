"""FundTheUncertain: compute goes where the outcome is most open.

After PCL, "Prompt Curriculum Learning" (2025), which trains on the prompts whose success its value model puts nearest
to 1/2; the value is P(beat) here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from lcsearch.allocation.curriculum import Arm, Curriculum, chances
from lcsearch.curves import Floats


@dataclass(frozen=True)
class FundTheUncertain(Curriculum):
    """The arm with the largest 4 p (1 - p) per unit of cost, p = P(it beats the best value seen, by the horizon).

    4 p (1 - p) is 1 where p is 1/2 and 0 where the outcome is known. Cost is that of the next turn, in full trials'
    worth. PCL takes the nearest to 1/2 alone; the quotient is ours, as turns differ in length.

    Attributes: see :class:`~lcsearch.allocation.curriculum.Curriculum`.
    """

    name: ClassVar[str] = "uncertain"
    what: ClassVar[str] = "how open its outcome is for its cost"

    def scores(self, state: Any, arms: Sequence[Arm], best: float, rng: np.random.Generator) -> Floats:
        """4 p (1 - p) / cost of the turn."""
        p = chances([arm.told for arm in arms], best)
        return np.asarray(4.0 * p * (1.0 - p) / np.array([arm.turn for arm in arms]))
