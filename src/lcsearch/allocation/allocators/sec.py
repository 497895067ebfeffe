"""SelfEvolving: groups of trials as the arms of a non-stationary bandit, learned by TD(0).

After SEC, "Self-Evolving Curriculum for LLM Reasoning" (Chen et al. 2025): Q <- (1 - alpha) Q + alpha r, groups drawn
by softmax(Q / temperature), r the mean absolute advantage; here r is |change of P(beat)| per unit of cost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lcsearch.allocation.bandit import GroupBandit, Reward, normalised
from lcsearch.allocation.curriculum import softmax
from lcsearch.curves import Floats
from lcsearch.errors import InvalidValue, is_finite_number


@dataclass(frozen=True)
class SelfEvolving(GroupBandit):
    """Draws a group by softmax(Q / `temperature`), Q a running mean of what turns in it have brought.

    Q is divided by the largest Q first, so that a temperature means the same in every study. A group without a reward
    counts as the mean of the others; the first reward of a group is its Q.

    Attributes:
        first: see :class:`~lcsearch.allocation.bandit.GroupBandit`, as for `eta`, `floor`, `n_asked`, `groups` and
            `n_regions`.
        alpha: the weight of a new reward, in (0, 1].
        temperature: > 0; small: the best group gets nearly all slots.
    """

    alpha: float = 0.5
    temperature: float = 0.4

    name: ClassVar[str] = "sec"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (is_finite_number(self.alpha) and 0 < self.alpha <= 1):
            raise InvalidValue("a number in (0, 1]", self.alpha, "SelfEvolving.alpha")
        if not (is_finite_number(self.temperature) and self.temperature > 0):
            raise InvalidValue("a number > 0", self.temperature, "SelfEvolving.temperature")

    def learned(self, memory: Mapping[str, Any], reward: Reward) -> dict[str, Any]:
        """TD(0)."""
        q = memory.get(reward.group, reward.amount)
        return {**memory, reward.group: q + self.alpha * (reward.amount - q)}

    def values(self, memory: Mapping[str, Any], groups: Sequence[str]) -> list[float]:
        """Q over the largest Q."""
        known = normalised({group: memory[group] for group in groups if group in memory})
        return [known.get(group, math.nan) for group in groups]

    def odds(self, scores: Floats) -> Floats:
        """softmax(Q / temperature)."""
        return softmax(self.temperature)(scores)
