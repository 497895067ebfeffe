"""Scores of one round of `begun.py`: orders, and predictive distributions in the unit of the task (`scores.py`)."""

from __future__ import annotations

import math

import numpy as np
from begun_questions import Round
from begun_rows import Said, nothing
from scipy.stats import rankdata, spearmanr
from scores import Unit, losses, mean, value_scores

from lcsearch.curves import Floats

METRICS = (
    *("absent", "spearman", "top", "place", "log_loss", "crps", "pit"),
    *("in_50", "in_80", "in_95"),
)
BEST, TOP = 10, 0.05
FEWEST_ASKED, FEWEST_ANSWERED = 4 * BEST, 5


def first(order: Floats, k: float) -> Floats:
    """(Q,) how much of each is among the k lowest: ties share what is left; NaN (nothing was said) stands last."""
    _, which, count = np.unique(np.where(np.isnan(order), np.inf, order), return_inverse=True, return_counts=True)
    share = np.clip(k - (np.cumsum(count) - count), 0, count) / count
    return np.asarray(share[which])


def correlation(order: Floats, finals: Floats) -> float:
    """Spearman's, of the answered ones; 0 of an order that is none, NaN where finals do not differ."""
    known = np.isfinite(order)
    if known.sum() < FEWEST_ANSWERED or np.ptp(finals[known]) == 0:
        return math.nan
    return float(spearmanr(order[known], finals[known]).statistic) if np.ptp(order[known]) > 0 else 0.0


def figures(asked: Round, said: Said, unit: Unit, which: slice) -> Floats:
    """METRICS of some of a round's queries; see `begun.py`."""
    order, finals = said.order[which], asked.finals[which]
    known = np.isfinite(order)
    found = dict.fromkeys(METRICS, math.nan)
    found["absent"] = 1.0 - mean(known.astype(float))
    found["spearman"] = correlation(order, finals)
    if known.any() and order.size >= FEWEST_ASKED:
        ten = first(order, BEST) / BEST
        found["top"] = float(ten @ first(finals, math.ceil(TOP * order.size)))
        found["place"] = float(ten @ (rankdata(finals) - 0.5)) * 100.0 / order.size
    if said.forecasts is not None and known.any():
        f = said.forecasts
        there = np.array([reason is None for reason in f.absent])
        p = np.where(there, f.p_beat(asked.target), asked.nothing)[which]
        found["log_loss"] = mean(losses(p, (finals < asked.target).astype(float))[0])
        values, blank = value_scores(f, asked.finals, unit), value_scores(nothing(asked), asked.finals, unit)
        found["crps"] = mean(np.where(there, values[:, 3], blank[:, 3])[which])
        pit = 0.5 * (f.cdf(asked.finals) + f.p_beat(asked.finals))  # in the middle of an atom
        for name, column in (("pit", pit), ("in_50", values[:, 0]), ("in_80", values[:, 1]), ("in_95", values[:, 2])):
            found[name] = mean(column[which][there[which]])
    return np.array([found[name] for name in METRICS])
