"""Bootstrap samples where orders or seeds of one task share its curves: tasks are drawn first, then their rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np


def resamples(sizes: Sequence[int], draws: int, rng: np.random.Generator) -> Iterator[list[tuple[int, np.ndarray]]]:
    """`draws` times as many tasks as there are, drawn with return, each with as many of its rows.

    Args:
        sizes: rows of each task.
        draws: samples.
        rng: drawn from as the samples are asked for.

    Yields:
        (task, its rows) of each.
    """
    for _ in range(draws):
        yield [(i, rng.integers(sizes[i], size=sizes[i])) for i in rng.integers(len(sizes), size=len(sizes)).tolist()]
