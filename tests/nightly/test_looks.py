"""A hundred thousand looks of studies of every sort, each examined (see the kit): ten pieces of some minutes."""

from __future__ import annotations

import os

import optuna
import pytest
from kit.looks import Play

pytestmark = pytest.mark.skipif("LCSEARCH_NIGHTLY" not in os.environ, reason="half an hour: LCSEARCH_NIGHTLY=1")


@pytest.mark.parametrize("piece", range(10))
def test_ten_thousand_looks(piece: int) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    looks, seed = 0, 1000 * (piece + 1)
    while looks < 10_000:
        looks += Play(seed).play().looks
        seed += 1
