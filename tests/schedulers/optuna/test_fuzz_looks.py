"""Whatever users report, through CurvePruner with real forecasters: no exception, no fault, no stop unrecorded."""

from __future__ import annotations

import warnings

import optuna
from kit.looks import Play


def test_a_thousand_looks() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    looks = stops = forecasts = 0
    for seed in (0, 1, 2, 6, 18, 20, 22, 26, 39):  # of the quick ones, those in which much is stopped
        done = Play(seed).play()
        looks, stops, forecasts = looks + done.looks, stops + done.stops, forecasts + done.forecasts
    assert looks > 1000
    assert stops > 20
    assert forecasts > 100
