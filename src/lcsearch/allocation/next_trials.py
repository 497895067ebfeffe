"""What so many more trials may bring, from the values of those that have begun: has a search had enough? Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lcsearch.errors import InvalidValue


def gain_of_next(losses: Sequence[float], k: float) -> float:
    """About what k more trials improve the best loss, at most.

    The largest of three, of losses l_1 <= ... <= l_n and m = min(2 ceil(k), n // 2):

    - what the last k trials improved it, for where a sampler learns late trials may be the better ones;
    - what k trials improve it on average over all orders of the trials, the sum over i < k of
      (l_{i+1} - l_i) prod_{j < i} (k - j) / (n - j). Where trials are draws from one distribution it bounds the
      expected gain of the next k: the expected minimum of n draws, the integral of P(L > x)^n, is convex in n;
    - (l_{m+1} - mean of l_1 .. l_m) log(1 + k / n), the same from more of the best trials, where these lie as in an
      exponential tail (Weissman 1978, Estimation of parameters and large quantiles based on the k largest
      observations). A search that ends when a bound is low ends where the two best happen to lie near each other.

    Args:
        losses: of the trials in the order they were begun, lower is better; inf for one without a value.
        k: how many more trials, > 0; a fraction of one is taken as it stands.

    Returns:
        In the loss's units, >= 0; inf where k is more than half of the trials, or too few have a value: not known.

    Raises:
        InvalidValue: k is no number above 0.

    >>> gain_of_next([2.0] * 6, 1)
    0.0
    >>> gain_of_next([4.0, 3.0, 2.0, 1.0], 1)  # the last one improved the best by 1
    1.0
    """
    if not (math.isfinite(k) and k > 0):
        raise InvalidValue("a number > 0", k, "gain_of_next(k=)")
    found = np.asarray(losses, np.float64)
    found = np.where(np.isnan(found), np.inf, found)
    n, whole = len(found), math.ceil(k)
    if 2 * whole > n or not math.isfinite(best := float(found.min(initial=math.inf))):
        return math.inf
    lately = float(found[: n - whole].min()) - best
    most = min(2 * whole, n // 2)
    first = np.sort(found)[: most + 1]
    if not np.isfinite(first).all():
        return math.inf
    at = np.arange(whole)
    lost = np.cumprod(np.maximum(k - at, 0.0) / (n - at))  # P(the i + 1 best are all among the k)
    tail = float(first[most] - first[:most].mean()) * math.log1p(k / n)
    return max(lately, float(np.diff(first[: whole + 1]) @ lost), tail)
