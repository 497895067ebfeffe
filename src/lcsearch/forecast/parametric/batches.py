"""Queries grouped by their curves, for forecasters that compute many curves at once and give each the same bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lcsearch.curves import Curve
from lcsearch.forecast.contract import Absent, Query


class Batch(NamedTuple):
    """R queries about C curves.

    Attributes:
        curves: C curves of one padded width.
        rows: (R,) places of the queries among all that were asked; those about one curve stand together.
        which: (R,) index into `curves` of the one asked about.
    """

    curves: list[Curve]
    rows: NDArray[np.intp]
    which: NDArray[np.intp]


def batched(
    queries: Sequence[Query], width: Callable[[Curve], int], most: int
) -> tuple[list[Absent | None], list[Batch]]:
    """Queries in batches of curves of one width; a curve that several ask about is computed once.

    Args:
        queries: Q of them.
        width: columns a curve is padded to.
        most: curves in a batch.

    Returns:
        Q reasons, NONFINITE where the curve has no finite observation or the step is not finite, else None; and the
        batches of those that have none, each curve as it stood at its last value.
    """
    absent: list[Absent | None] = [None] * len(queries)
    groups: dict[int, dict[Curve, list[int]]] = {}
    for i, query in enumerate(queries):
        curve = query.trial.curve.to_last_value()
        if not len(curve) or not np.isfinite(query.step):
            absent[i] = Absent.NONFINITE
        else:
            groups.setdefault(width(curve), {}).setdefault(curve, []).append(i)
    batches = []
    for group in groups.values():
        for start in range(0, len(group), most):
            asked = list(group.values())[start : start + most]
            which = np.repeat(np.arange(len(asked)), [len(rows) for rows in asked])
            batches.append(Batch(list(group)[start : start + most], np.concatenate(asked), which))
    return absent, batches
