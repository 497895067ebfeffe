"""From the masses of bins to distributions: knots in losses, split at the incumbent, never above the best so far."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lcsearch.curves import Floats
from lcsearch.forecast.contract import Forecasts
from lcsearch.forecast.network.objective import p_below, tail_scales

_FINEST = -1054  # binary exponent: 2^20 times the smallest number
_FAR = 1e307  # knots and tails stay finite, and so do means


def read_off(
    borders: Tensor, logs: Tensor, split: Tensor, last: Floats, unit: Floats, incumbent: Floats | float, cap: Floats
) -> tuple[Floats, Floats, Floats]:
    """Knots, levels and tails of Q answers.

    Args:
        borders: (bins + 1,) in own units.
        logs, split: (Q, bins + 2), (Q,) of :meth:`~lcsearch.forecast.network.model.CurveNetwork.answer`.
        last, unit: (Q,) raw loss at zero and raw size of an own unit.
        incumbent: raw loss, one number or (Q,); NaN for none.
        cap: (Q,) raw loss that is reached already, an atom of all that lies above it; +inf for none.
    """
    borders, logs = borders.double().cpu(), logs.double().cpu().log_softmax(-1)
    levels = np.minimum(logs.exp().cumsum(-1).numpy()[:, :-1], 1.0)
    with np.errstate(over="ignore"):
        knots = np.clip(last[:, None] + unit[:, None] * borders.numpy(), -_FAR, _FAR)
        tails = np.minimum(unit[:, None] * tail_scales(borders).numpy(), _FAR / 100.0)
    grain = _grain(last)
    knots = _settled(knots, last, grain)
    tails = np.where(tails < grain, 0.0, tails)  # a tail within rounding is no tail: its mass lies on the knot
    beat = np.broadcast_to(incumbent, last.shape)
    there = np.isfinite(beat)
    if there.any():
        with np.errstate(all="ignore"):
            gap = np.where(there, np.clip((beat - last) / unit, -1e30, 1e30), 0.0)
        p = p_below(borders, logs[None], split.double().cpu()[None], torch.from_numpy(gap)[None])[0].numpy()
        # without an incumbent the last knot stands twice, which changes nothing
        beat, p = np.where(there, beat, knots[:, -1]), np.where(there, np.clip(p, 0.0, 1.0), levels[:, -1])
        knots, levels = insert(knots, levels, beat, p, grain)
    capped = np.isfinite(cap)
    if capped.any():
        with np.errstate(over="ignore", invalid="ignore"):
            below = Forecasts(knots, levels, tails, 1.0, (None,) * len(cap)).p_beat(np.where(capped, cap, 0.0))
        knots, levels = insert(
            knots, levels, np.where(capped, cap, knots[:, -1]), np.where(capped, below, levels[:, -1]), grain
        )
        knots = np.minimum(knots, cap[:, None])
        levels[capped, -1] = 1.0
        tails[capped, 1] = 0.0
    return knots, levels, tails


def _grain(last: Floats) -> Floats:
    """(Q, 1) a power of two about 2^20 roundings of a loss of that size.

    Knots closer than that are one: between them a quantile could not be told from its neighbours.
    """
    exponent = np.where(last != 0, np.frexp(last)[1] - 33, _FINEST)
    return np.ldexp(1.0, np.maximum(exponent, _FINEST))[:, None]


def _settled(knots: Floats, last: Floats, grain: Floats) -> Floats:
    """Knots on multiples of the grain, as far as they are about as large as the last loss."""
    near = 0.5 * np.abs(knots) <= np.abs(last)[:, None]
    return np.where(near, np.round(np.where(near, knots, 0.0) / grain) * grain, knots)


def insert(knots: Floats, levels: Floats, where: Floats, level: Floats, grain: Floats) -> tuple[Floats, Floats]:
    """(Q, K) -> (Q, K + 1): one more knot in every row, before those within a grain, with P(loss < where) = level."""
    with np.errstate(over="ignore"):
        knots = np.where(np.abs(knots - where[:, None]) < grain, where[:, None], knots)
    at = np.count_nonzero(knots < where[:, None], axis=1)[:, None]
    place = np.arange(knots.shape[1] + 1)
    source = place - (place > at)
    source[:, -1] = knots.shape[1] - 1
    new_knots = np.take_along_axis(knots, source, 1)
    new_levels = np.take_along_axis(levels, source, 1)
    level = level[:, None]
    # what rounding in float32 would bend stays monotone
    new_levels = np.where(place < at, np.minimum(new_levels, level), np.maximum(new_levels, level))
    new_levels = np.where(place == at, level, new_levels)
    return np.where(place == at, where[:, None], new_knots), new_levels


def write_point_mass(found: tuple[Floats, Floats, Floats], rows: list[int], sure: list[float]) -> None:
    """Make some rows certain, in place."""
    knots, levels, tails = found
    knots[rows] = np.array(sure)[:, None]
    levels[rows] = 0.0
    levels[rows, -1] = 1.0
    tails[rows] = 0.0
