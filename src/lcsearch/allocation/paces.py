"""What a step of a trial takes: as it was measured, or by its configuration from those that were. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lcsearch.curves import Floats
from lcsearch.forecast.network.columns import Column, Columns, plain

FEW = 5
"""Measured trials from which on configurations have a say."""
_PENALTIES = (3.0, 0.3, 0.03)  # of coefficients in octaves over the range of a parameter; the first of equals stands
_FASTEST = 1e-6  # seconds


def rounded(seconds: float) -> float:
    """A pace to three significant binary digits, 1, 1.25, 1.5 or 1.75 times a power of two: what a busy machine changes
    of it mostly goes. Downwards, so that whoever is near to making it in time may try.

    >>> [rounded(x) for x in (0.3, 1.0, 1.99, 7.1)]
    [0.25, 1.0, 1.75, 7.0]
    """
    mantissa, exponent = math.frexp(max(seconds, _FASTEST))
    return math.ldexp(math.floor(mantissa * 8.0), exponent - 3)


def predicted(
    params: Mapping[str, Mapping[str, Any]], measured: Mapping[str, float], at_most: Mapping[str, float] | None = None
) -> dict[str, float]:
    """What a step of each trial takes.

    Its own pace where it has one. Else exp2(m + x w), at most an octave beyond the measured ones: m is log2 of the
    median pace, x the configuration (numbers on their range among the measured trials, positive ones after a logarithm,
    so that a power law is a line; a category as one column a word, where a word has two trials on average; one column
    of ones), w a ridge regression of log2(pace) - m on x. Of three penalties that with the least mean absolute error is
    taken, each measured trial left out in turn, e_i / (1 - h_ii); but w = 0, the median for all, where no error is
    smaller than without it, and of fewer than `FEW` measured ones.

    Args:
        params: uid -> configuration, of every trial.
        measured: uid -> seconds of a step, >= 0, of those whose pace is known, at least one.
        at_most: uid -> seconds that its step takes at most, as of a trial whose time with its start-up is known.

    Returns:
        uid -> seconds of a step, > 0, see :func:`rounded`, for all of `params`.

    >>> sizes = {str(size): {"size": size} for size in (1, 2, 4, 8, 16, 32, 64)}
    >>> predicted(sizes, {uid: float(uid) for uid in sizes if uid != "32"})["32"]
    28.0
    """
    known = sorted(uid for uid in measured if uid in params)
    logs = np.log2(np.maximum([measured[uid] for uid in known], _FASTEST))
    middle = math.log2(max(statistics.median(measured.values()), _FASTEST))
    rest, found = sorted(uid for uid in params if uid not in measured), dict[str, float]()
    away = _by_configuration([params[uid] for uid in known], logs - middle, [params[uid] for uid in rest])
    for uid, octaves in zip(rest, away.tolist(), strict=True):
        found[uid] = min(2.0 ** (middle + octaves), (at_most or {}).get(uid, math.inf))
    return {uid: rounded(measured[uid] if uid in measured else found[uid]) for uid in params}


def of_new(
    candidates: Sequence[Mapping[str, Any]],
    params: Mapping[str, Mapping[str, Any]],
    measured: Mapping[str, float],
    at_most: Mapping[str, float] | None = None,
) -> list[float]:
    """What a step of each candidate would take, as :func:`predicted` of a trial that has not been measured.

    Args:
        candidates: configurations that no trial has begun.
        params: as of :func:`predicted`, of the trials that have begun.
        measured: of these, at least one.
        at_most: likewise.
    """
    new = {f"candidate {i}": one for i, one in enumerate(candidates)}
    found = predicted({**params, **new}, measured, at_most)
    return [found[uid] for uid in new]


def _by_configuration(known: Sequence[Mapping[str, Any]], away: Floats, rest: Sequence[Mapping[str, Any]]) -> Floats:
    """(R,) octaves from the median at which each of `rest` lies by what is known of `known`, (K,) `away` from it."""
    nothing = np.zeros(len(rest))
    if len(known) < FEW or not rest:
        return nothing
    there, here = ([plain(one) for one in those] for those in (known, rest))
    some = (c for c in Columns.of(there).columns if c.words is None or len(c.words) <= len(known) // 2)
    columns = Columns(tuple(replace(c, log=c.words is None and c.low > 0) for c in some))
    x, new = (_features(columns, columns.encode(those)) for those in (there, here))
    best, found = float(np.abs(away).mean()), nothing
    for penalty in _PENALTIES:
        inverse = np.linalg.inv(x.T @ x + penalty * np.eye(x.shape[1]))
        w = inverse @ (x.T @ away)
        left_out = (away - x @ w) / (1.0 - ((x @ inverse) * x).sum(1))
        if (error := float(np.abs(left_out).mean())) < best:
            best, found = error, np.clip(new @ w, away.min() - 1.0, away.max() + 1.0)
    return found


def _features(columns: Columns, encoded: Floats) -> Floats:
    """(N, F) what a line is fitted to: what is absent stands in the middle."""
    parts = [np.ones((len(encoded), 1))]
    parts += [_feature(column, encoded[:, k]) for k, column in enumerate(columns.columns)]
    return np.hstack(parts)


def _feature(column: Column, encoded: Floats) -> Floats:
    if column.words is not None:
        return np.asarray(encoded[:, None] == np.arange(len(column.words)), np.float64)
    return np.where(np.isnan(encoded), 0.0, encoded - 0.5)[:, None]
