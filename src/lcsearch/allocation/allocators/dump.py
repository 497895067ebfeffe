"""UpperConfidence: groups of trials as the arms of a bandit with an optimistic bonus for those seldom drawn.

After DUMP, "Automated Distribution-Level Curriculum Learning for RL-based LLM Post-training" (Wang et al. 2025):
score = mean |advantage| over a window + sqrt(2 ln(N + 1) / (n + 1)), softmax with temperature .1.
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
class UpperConfidence(GroupBandit):
    """Draws a group by softmax(score / `temperature`), score = m + sqrt(2 ln(N + 1) / (n + 1)).

    m is the mean of the group's last `window` rewards over the largest such mean (the bonus is in absolute units, so
    rewards are normalised: ours), n how many turns it has had, N all of them.

    Attributes:
        first: see :class:`~lcsearch.allocation.bandit.GroupBandit`, as for `eta`, `floor`, `n_asked`, `groups` and
            `n_regions`.
        window: rewards that are remembered of a group, >= 1 (300 in the paper, of whole batches; receipts hold them).
        temperature: > 0.
    """

    window: int = 50
    temperature: float = 0.1

    name: ClassVar[str] = "dump"
    what = "what turns in its group bring, the best being 1, and a bonus for few turns,"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (isinstance(self.window, int) and self.window >= 1):
            raise InvalidValue("an integer >= 1", self.window, "UpperConfidence.window")
        if not (is_finite_number(self.temperature) and self.temperature > 0):
            raise InvalidValue("a number > 0", self.temperature, "UpperConfidence.temperature")

    def learned(self, memory: Mapping[str, Any], reward: Reward) -> dict[str, Any]:
        """One more turn, the oldest reward forgotten."""
        old = memory.get(reward.group, {"n": 0, "last": []})
        last = [*old["last"], float(f"{reward.amount:.6g}")][-self.window :]
        return {**memory, reward.group: {"n": old["n"] + 1, "last": last}}

    def values(self, memory: Mapping[str, Any], groups: Sequence[str]) -> list[float]:
        """Mean and bonus."""
        means = normalised({g: math.fsum(memory[g]["last"]) / len(memory[g]["last"]) for g in groups if g in memory})
        n_all = sum(one["n"] for one in memory.values())
        turns = [memory[group]["n"] if group in memory else 0 for group in groups]
        bonus = [math.sqrt(2.0 * math.log(n_all + 1.0) / (n + 1.0)) for n in turns]
        return [means.get(group, 0.0) + extra for group, extra in zip(groups, bonus, strict=True)]

    def odds(self, scores: Floats) -> Floats:
        """softmax(score / temperature)."""
        return softmax(self.temperature)(scores)
