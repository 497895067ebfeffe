"""Is the rate of wrong stops at most what was promised? Two e-processes over audits, right at any time. Pure.

An e-process starts at 1, and while its hypothesis holds it is a game that nobody can expect to win: that it ever
reaches 1 / delta has a probability of at most delta, however long one looks, whenever one stops looking (Ville). With
w_i = 1 for a stop that was wrong and 0 for one that was right, and the promise `rate <= alpha`:

- alarm: E = prod(1 + lam_i (w_i - alpha)), 0 <= lam_i <= 1 / alpha, is small while the promise is kept;
- certificate: E = prod(1 + lam_i (alpha - w_i)), 0 <= lam_i <= 1 / (1 - alpha), is small while it is broken.

(Waudby-Smith and Ramdas, arXiv 2010.09686; bets lam_i may hang on what came before.) Nothing is assumed of audits but
that each is wrong with a conditional probability on one side of alpha: sweeps may differ, and rates may drift.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

HORIZON = 40
"""Audits for which most of the alarm's bets are laid out."""
_SHARE = 0.97
_RATIO = 4.0
_MOST = 700.0
"""Of the alarm's logarithm: e to the power of more is no float, and no delta asks for it."""


@dataclass(frozen=True)
class Verdicts:
    """What audits have come to by now.

    Attributes:
        n, n_wrong: audits, and those whose stop would have been wrong.
        alarm: the largest value that the alarm's e-process has had.
        certificate: likewise of the certificate's.
        delta: both are said at 1 / delta.
    """

    n: int
    n_wrong: int
    alarm: float
    certificate: float
    delta: float

    @property
    def broken(self) -> bool:
        """Is the promise broken? Wrongly said in at most `delta` of all cases, ever."""
        return self.alarm >= 1.0 / self.delta

    @property
    def kept(self) -> bool:
        """Is it kept? Wrongly said in at most `delta` of all cases, ever."""
        return self.certificate >= 1.0 / self.delta


def verdicts(wrong: Sequence[bool], promised: float, delta: float = 0.05, *, n_ordered: int | None = None) -> Verdicts:
    """What audits say of a promise.

    Args:
        wrong: of each audit, in the order in which they became known: would the stop have been wrong?
        promised: the rate of wrong stops that is not to be passed, in (0, 1).
        delta: chance of being told wrong, for each of the two, in (0, 1).
        n_ordered: the order of so many, from the first, is known, and counts at each of them; that of the others is
            not, and they count together. None: of all.
    """
    ordered = len(wrong) if n_ordered is None else n_ordered
    alarm = certificate = 1.0
    bold = timid = 1.0
    k = 0
    for n, w in enumerate(wrong, start=1):
        k += w
        bold *= 1.0 + (promised - w) / (1.0 - promised)
        timid *= 1.0 + 0.5 * (promised - w) / (1.0 - promised)
        if n <= ordered or n == len(wrong):
            alarm = max(alarm, _alarm(n, k, promised, delta, sum(wrong[:HORIZON]) if n > HORIZON else k))
            certificate = max(certificate, 0.5 * (bold + timid))
    return Verdicts(len(wrong), k, alarm, certificate, delta)


def audits_needed(promised: float, delta: float = 0.05) -> int:
    """How many audits in a row without a failure certify a promise."""
    bold, timid, n = 1.0, 1.0, 0
    while 0.5 * (bold + timid) < 1.0 / delta:
        bold, timid, n = bold / (1.0 - promised), timid * (1.0 + 0.5 * promised / (1.0 - promised)), n + 1
    return n


def _alarm(n: int, k: int, alpha: float, delta: float, k_then: int) -> float:
    """The alarm's e-process after `n` audits with `k` wrong ones, of which `k_then` were among the first HORIZON.

    Most of the stake is laid out so that it reaches 1 / delta with the wrong audit at which the exact binomial test of
    HORIZON audits is decided: P(that test rejects | what is seen, rate alpha) over P(it rejects) is a martingale at
    rate alpha, and falls on average below it. The rest is the likelihood ratio of _RATIO times the rate, which finds in
    the long run what the first HORIZON did not.
    """
    needed = next(i for i in range(HORIZON + 2) if _at_least(i, HORIZON, alpha) <= _SHARE * delta)
    planned = 0.0
    if needed <= HORIZON:
        left = max(HORIZON - n, 0)
        planned = _at_least(needed - k_then, left, alpha) / _at_least(needed, HORIZON, alpha)
    else:  # no number of wrong ones would do: the promise is too weak to be refuted so soon
        planned = 1.0
    odd = min(_RATIO * alpha, 0.5 * (1.0 + alpha))
    log_ratio = k * math.log(odd / alpha) + (n - k) * math.log((1.0 - odd) / (1.0 - alpha))
    ratio = math.exp(min(log_ratio, _MOST))
    return _SHARE * planned + (1.0 - _SHARE) * ratio


@lru_cache(maxsize=1 << 14)
def _at_least(k: int, n: int, p: float) -> float:
    """P(Bin(n, p) >= k)."""
    if k <= 0:
        return 1.0
    return math.fsum(math.comb(n, i) * p**i * (1.0 - p) ** (n - i) for i in range(k, n + 1))
