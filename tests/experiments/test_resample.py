"""Bootstrap samples: tasks first, then their rows."""

from __future__ import annotations

import numpy as np
from kit.scripts import script

resamples = script("resample.py").resamples


def test_tasks_are_drawn_first_then_their_rows() -> None:
    sizes, draws = [2, 5, 1], 400
    found = list(resamples(sizes, draws, np.random.default_rng(0)))
    assert [len(some) for some in found] == [3] * draws
    assert all(len(rows) == sizes[i] and set(rows) <= set(range(sizes[i])) for some in found for i, rows in some)
    tasks = [i for some in found for i, _ in some]
    assert np.allclose(np.bincount(tasks) / len(tasks), 1 / 3, atol=0.05)
    assert any(len(set(rows)) < len(rows) for some in found for _, rows in some), "with return"
    again = resamples(sizes, draws, np.random.default_rng(0))
    assert all(
        i == j and (a == b).all()
        for x, y in zip(found, again, strict=True)
        for (i, a), (j, b) in zip(x, y, strict=True)
    )
