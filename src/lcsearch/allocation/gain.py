"""What an arm may gain: expected improvement on a loss, in closed form, and what to expect of a new configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from lcsearch.curves import Floats
from lcsearch.forecast.contract import Absent, Answer, Forecasts
from lcsearch.study import FinishedTrials

Gain = Literal["improvement", "p_beat"]


def expected_improvement(forecasts: Forecasts, loss: ArrayLike) -> Floats:
    """E[(loss - L)^+] = integral of P(L <= x) over x < loss, exact for the piecewise-linear CDF and its tails.

    With knots k_0..k_m at levels p_0..p_m and tail scales (s, r) the terms are, for t = loss,

    - below the knots: p_0 s exp(-(k_0 - t)^+ / s);
    - each segment, of width w, passed as far as h = min((t - k_i)^+, w): h (p_i + (p_{i+1} - p_i) h / (2 w));
    - above them, passed as far as h = (t - k_m)^+: h - (1 - p_m) r (1 - exp(-h / r)).

    Args:
        forecasts: Q of them.
        loss: what to improve on, in loss units (`sign * value`): a number or (Q,).

    Returns:
        (Q,) >= 0, as large in the metric's units; NaN in rows that are absent or no numbers.
    """
    t = np.broadcast_to(np.asarray(loss, np.float64), (len(forecasts),))[:, None]
    k, p = forecasts.knots, forecasts.levels
    s, r = forecasts.tails[:, :1], forecasts.tails[:, 1:]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore", under="ignore"):
        width = np.diff(k, axis=1)
        h = np.clip(t - k[:, :-1], 0.0, width)
        slope = np.where(width > 0, np.diff(p, axis=1) * (h / np.where(width > 0, width, 1.0)), 0.0)
        inside = (h * (p[:, :-1] + 0.5 * slope)).sum(1, keepdims=True)
        below = p[:, :1] * np.where(s > 0, s * np.exp(-np.maximum(k[:, :1] - t, 0.0) / np.where(s > 0, s, 1.0)), 0.0)
        h = np.maximum(t - k[:, -1:], 0.0)
        above = h - (1.0 - p[:, -1:]) * np.where(r > 0, r * -np.expm1(-h / np.where(r > 0, r, 1.0)), 0.0)
        # Far inside the upper tail the last difference is rounding.
        total = below + inside + np.maximum(above, 0.0)
    absent = np.array([reason is not None for reason in forecasts.absent], np.bool_)
    return np.where(absent, np.nan, total[:, 0])


def gains(answers: Sequence[Answer], loss: float, gain: Gain, least: float = -math.inf) -> Floats:
    """(Q,) what each of one forecaster's Q forecasts promises beyond `loss`; NaN where it promises nothing finite.

    Args:
        answers: single-row forecasts, or reasons for there being none.
        loss: what to improve on, in loss units.
        gain: "improvement" for E[(loss - max(L, least))^+] = E[(loss - L)^+] - E[(least - L)^+], "p_beat" for
            P(L < loss).
        least: the loss that nothing undercuts, as far as the metric's bound is known: nothing is gained beyond it.
    """
    found = np.full(len(answers), np.nan)
    alike: dict[int, list[int]] = {}  # rows of one width are worked out together: numpy costs the same for one
    for i, answer in enumerate(answers):
        if not isinstance(answer, Absent):
            alike.setdefault(answer.knots.shape[1], []).append(i)
    for rows in alike.values():
        told = [answer for i in rows if not isinstance(answer := answers[i], Absent)]
        knots, levels, tails = (
            np.concatenate([getattr(f, part) for f in told]) for part in ("knots", "levels", "tails")
        )
        with np.errstate(over="ignore"):  # losses of 1e308 are no gain, and no reason to fail
            stack = Forecasts.of(knots, levels, tails, sign=1.0, source="")
            found[rows] = expected_improvement(stack, loss) if gain == "improvement" else stack.p_beat(loss)
            if gain == "improvement" and least > -math.inf:
                found[rows] = np.maximum(found[rows] - expected_improvement(stack, min(least, loss)), 0.0)
    return np.where(np.isfinite(found), found, np.nan)


def mean_gains(
    forecasts: Mapping[str, Sequence[Answer]], n: int, loss: float, gain: Gain, least: float = -math.inf
) -> Floats:
    """(n,) mean over the forecasters that answered, each with n forecasts, see :func:`gains`; NaN where none did."""
    told = np.full((len(forecasts), n), np.nan)
    for row, name in zip(told, sorted(forecasts), strict=True):  # sorted: a sum depends on its order
        row[:] = gains(forecasts[name], loss, gain, least)
    heard = np.isfinite(told)
    with np.errstate(over="ignore"):
        total = np.where(heard, told, 0.0).sum(0)
    return np.where(heard.any(0), total / np.maximum(heard.sum(0), 1), np.nan)


def new_config_forecast(bank: FinishedTrials) -> Forecasts | None:
    """Judged loss of a configuration not begun yet, from the finished ones; None before two have a finite one.

    The i-th best of n finished trials stands at level i / (n + 1), Laplace's rule: a new one is as likely to fall into
    any of the n + 1 gaps, the one below the best included. There the tail is exponential, its scale the mean distance
    of the best quarter to the next trial (the maximum-likelihood scale of an exponential beyond that threshold). Only
    a feasible COMPLETE trial has a judged loss; stopped, failed, diverged and infeasible ones count as worse than that.

    Finished trials are a choice of the better ones wherever hopeless ones stay paused, so this errs towards new ones.
    """
    losses = np.sort(bank.judged[bank.eligible & np.isfinite(bank.judged)])
    n = losses.size
    if n < 2:
        return None
    with np.errstate(over="ignore"):
        scale = _scale(losses)
        levels = np.arange(1.0, n + 1.0) / (len(bank) + 1.0)
        return Forecasts.of(losses[None], levels[None], np.array([[scale, 0.0]]), sign=1.0, source="finished trials")


def _scale(losses: Floats) -> float:
    """Mean distance of the best quarter of at least two losses, rising, to the next one."""
    k = max(losses.size // 4, 1)
    return float((losses[k] - losses[:k]).mean())


def record_forecast(losses: Floats, p: float) -> Forecasts | None:
    """Judged loss of a configuration not begun yet, where hardly any has finished: from the best values seen of those
    that have begun; None before two have one.

    Below the best lies mass `p`, the probability of a record, with the exponential tail of `new_config_forecast`; the
    rest is spread over the losses seen, the i-th best at level p + (1 - p) * i / n, i from 0.

    Args:
        losses: (n,) of all that have begun, finite, rising.
        p: of a record, in [0, 1].
    """
    n = losses.size
    if n < 2:
        return None
    with np.errstate(over="ignore"):
        scale = _scale(losses)
        if not scale > 0:  # the best ones tie: the smallest step that there is, or next to nothing
            gaps = np.diff(losses)
            scale = float(gaps[gaps > 0].min()) if (gaps > 0).any() else max(1e-6 * abs(float(losses[0])), 1e-12)
        levels = p + (1.0 - p) * np.arange(n) / n
        tails = np.array([[scale, max(float(losses[-1] - losses[-2]), 0.0)]])
        told = Forecasts.of(losses[None], levels[None], tails, sign=1.0, source="trials that have begun")
    return told if told.absent[0] is None else None
