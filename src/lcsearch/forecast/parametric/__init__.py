"""Parametric curves, fitted and mixed: the forecaster that needs no training."""

from __future__ import annotations

from lcsearch.forecast.parametric.ensemble import ParametricEnsemble

__all__ = ["ParametricEnsemble"]
