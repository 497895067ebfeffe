"""How large the network is; apart from the network, which cannot be imported without torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """Widths and depths.

    Attributes:
        curve_width, curve_layers, curve_heads: of the curve level.
        study_width, study_layers, study_heads: of the study level.
        pair_width: of a query beside a context trial.
        bins: between the outermost borders.
    """

    curve_width: int = 96
    curve_layers: int = 3
    curve_heads: int = 4
    study_width: int = 160
    study_layers: int = 2
    study_heads: int = 8
    pair_width: int = 64
    bins: int = 100
