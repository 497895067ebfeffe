"""What losses on tasks that were kept aside can prove: Learn-then-Test, conformal risk control, bounds. Pure.

A loss is in [0, 1], one a task, and tasks are the units: independent, or as if drawn from one pool. Losses of several
thresholds stand in columns, from strict to loose: `losses` is (n_tasks, n_thresholds).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

Floats = NDArray[np.float64]
PValue = Callable[[Floats, float], float]
"""(losses of one threshold, alpha) -> p-value of 'the mean loss is above alpha'; it falls as alpha rises."""

DELTA = 0.05
"""What is proved may be false with this probability."""
BETS = 4


def p_binomial(losses: Floats, alpha: float) -> float:
    """P(Bin(n, alpha) <= k): k of n tasks lost anything, each loss rounded up to 1.

    It speaks of the share of tasks that lose anything, which is no less than the mean loss.
    """
    return float(binom.cdf(int((losses > 0).sum()), losses.size, alpha))


def p_betting(losses: Floats, alpha: float) -> float:
    """1 / E with E = the mean over bets b of prod(1 + b (alpha - loss)), for losses anywhere in [0, 1].

    Where the mean loss is above alpha each product has a mean of at most 1, so has E, and P(E >= 1 / delta) <= delta by
    Markov (Waudby-Smith and Ramdas 2024, there one task after the other). Bets are BETS even steps up to
    1 / (1 - alpha), at which a loss of 1 leaves nothing; they are set beforehand, so tasks may come in any order.
    """
    if not 0 < alpha < 1:
        return 0.0 if alpha >= 1 else 1.0
    bets = np.arange(1, BETS + 1)[:, None] / BETS / (1 - alpha)
    with np.errstate(divide="ignore"):
        logs = np.log(np.maximum(1 + bets * (alpha - losses), 0.0)).sum(1)
    top = float(logs.max())
    if not math.isfinite(top):
        return 1.0
    return float(min(1.0, math.exp(-top) / np.exp(logs - top).mean()))


def fixed_sequence(losses: Floats, alpha: float, p: PValue, delta: float = DELTA) -> int:
    """How many thresholds are certified: 'mean loss <= alpha', all of them together with probability 1 - delta.

    Learn-then-Test (Angelopoulos et al. 2021): from strict to loose, up to the first that is not proved.
    """
    for n, column in enumerate(losses.T):
        if p(column, alpha) > delta:
            return n
    return len(losses.T)


def least(losses: Floats, p: PValue, delta: float = DELTA) -> Floats:
    """(n_thresholds,) the smallest alpha at which :func:`fixed_sequence` reaches each threshold, rounded up to 1e-4.

    Every entry alone holds with probability 1 - delta: an alpha picked after a look at all of them is no test.
    """
    found, at = [], 0.0
    for column in losses.T:
        low, high = 0, 10_000  # in units of 1e-4; p falls in alpha
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if p(column, middle / 1e4) <= delta else (middle + 1, high)
        at = max(at, low / 1e4)  # whoever comes after a stricter one waits for it
        found.append(at)
    return np.array(found)


def conformal(losses: Floats) -> Floats:
    """(n_thresholds,) what conformal risk control bounds the mean loss on one more task by: (n R + 1) / (n + 1).

    R is the mean of each task's largest loss at this threshold or a stricter one, for losses are not monotone by
    themselves: what there is to be beaten moves (Angelopoulos et al. 2022). A mean, not a statement with confidence.
    """
    n = losses.shape[0]
    worst = np.maximum.accumulate(losses, axis=1)
    return np.asarray((worst.sum(0) + 1) / (n + 1))


def tasks_needed(alpha: float, delta: float = DELTA) -> int:
    """Tasks without a loss that prove 'at most alpha'."""
    return math.ceil(math.log(delta) / math.log1p(-alpha))
