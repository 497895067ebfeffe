"""What a search knew after each step, by hand."""

from __future__ import annotations

import math

import numpy as np
from kit.scripts import script

anytime = script("anytime.py")


def test_the_best_a_search_knew_after_each_step() -> None:
    assert anytime.improvements([math.nan, 3.0, math.inf, 1.0, 1.0]) == [(2, 3.0), (4, 1.0)]
    known = anytime.best_at([[2, 3.0], [4, 1.0]], np.arange(7))
    assert known.tolist() == [math.inf, math.inf, 3.0, 3.0, 1.0, 1.0, 1.0]
