"""RandomHorizonPi: MFPI-random, the acquisition of ifBO.

Rakotoarison et al. 2024, "In-Context Freeze-Thaw Bayesian Optimization for Hyperparameter Optimization", section 4:
P(M(x; min(b + h, b_max)) > T), h ~ U(1, b_max), T = f_best + 10^tau (1 - f_best), tau ~ U(-4, -1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from lcsearch.allocation.arms import steps_done
from lcsearch.allocation.contract import Move
from lcsearch.allocation.curriculum import Arm, Curriculum, chances
from lcsearch.allocation.rungs import Ladder
from lcsearch.curves import Floats
from lcsearch.study import Snapshot, Trial


@dataclass(frozen=True)
class RandomHorizonPi(Curriculum):
    """The arm that improves most probably on the best value seen, within steps and by an amount drawn anew each time.

    Steps: h ~ U(0, 1] of the horizon, counted from where a trial stands, no further than the horizon. Amount: 10^tau of
    the distance from the best value to the median of the arms' median forecasts, tau ~ U(-4, -1) (ifBO's metrics lie in
    [0, 1], and the distance is that to 1, which a loss does not have). A new configuration improves within h with h
    times the probability that it has by the horizon. Context of a forecast are all trials that have begun.

    What is drawn for the next allocation is drawn at this one, from its key, for questions are asked before the key is
    known; the first is asked at the horizon.

    Attributes: see :class:`~lcsearch.allocation.curriculum.Curriculum`.
    """

    name: ClassVar[str] = "mfpi"
    what: ClassVar[str] = "P(improvement within a random turn)"

    def init(self) -> Any:
        """What was drawn: steps as a share of the horizon, and tau."""
        return {"h": 1.0, "tau": -4.0}

    def after(self, state: Any, ladder: Ladder, moves: Sequence[Move], rng: np.random.Generator) -> Any:
        """Drawn anew."""
        return {"h": 1.0 - float(rng.random()), "tau": float(rng.uniform(-4.0, -1.0))}

    def step(self, state: Any, trial: Trial, snapshot: Snapshot) -> float:
        """h beyond its last one."""
        return min(steps_done(trial) + float(state["h"]) * snapshot.horizon, snapshot.horizon)

    def scores(self, state: Any, arms: Sequence[Arm], best: float, rng: np.random.Generator) -> Floats:
        """P(L < best - amount) by then."""
        medians = [float(arm.told.quantile(0.5)[0]) for arm in arms if arm.told is not None]
        apart = max(float(np.median(medians)) - best, 0.0)
        p = chances([arm.told for arm in arms], best - 10.0 ** state["tau"] * apart)
        return np.asarray(p * np.array([state["h"] if arm.uid is None else 1.0 for arm in arms]))
