"""How often curves do what: for every study a rate of its own, so that most studies are free of most troubles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from lcsearch.forecast.prior.variates import Variates


class Rate(NamedTuple):
    """Share of a study's trials that do something.

    Attributes:
        studies: share of the studies in which any trial does it.
        most: largest rate in them; there the rate is `most` times a Kumaraswamy(a, b).
        a: first shape: below 1 small rates are the usual ones.
        b: second shape.
    """

    studies: float
    most: float
    a: float = 1.0
    b: float = 2.0


SUPERVISED: Mapping[str, Rate] = {
    "stuck": Rate(0.75, 0.9, 0.9, 1.3),
    "late": Rate(0.5, 0.4, 0.7, 1.8),
    "slow": Rate(0.4, 0.3, 0.8, 1.8),
    "hump": Rate(0.3, 0.5, 0.8, 1.8),
    "climb": Rate(0.12, 0.25),
    "dip": Rate(0.12, 0.4),
    "spike": Rate(0.2, 0.5),
    "cycle": Rate(0.04, 1.0, 2.0, 0.5),
    "blow_up": Rate(0.2, 0.3),
    "collapse": Rate(0.05, 0.2),
    "diverge": Rate(0.3, 0.6, 0.8, 2.0),
    "missing": Rate(0.05, 0.2),
    "constant": Rate(0.08, 0.2),
}
"""Trait -> its rate in ordinary studies."""

REINFORCEMENT: Mapping[str, Rate] = {
    **SUPERVISED,
    "late": Rate(0.8, 0.5),
    "hump": Rate(0.2, 0.3),
    "collapse": Rate(0.8, 0.4),
    "cycle": Rate(0.0, 0.0),
}
"""Trait -> its rate in studies of returns: plateau, jump, collapse."""


def shares(draws: Variates, returns: Tensor) -> dict[str, Tensor]:
    """Of every study (B,), the rates; `returns` (B,) says which are studies of returns."""
    n = len(returns)
    made = {}
    for name in SUPERVISED:
        u = [_share(draws, table[name], n) for table in (SUPERVISED, REINFORCEMENT)]
        made[name] = torch.where(returns, u[1], u[0])
    return made


def _share(draws: Variates, rate: Rate, n: int) -> Tensor:
    return draws.flip(n, p=rate.studies) * rate.most * draws.kumaraswamy(n, a=rate.a, b=rate.b)
