from __future__ import annotations

import pytest
from kit.forecasters import ForecasterKit
from kit.networks import forecaster

from lcsearch.forecast.contract import Forecaster

LEARNED = pytest.mark.skip(reason="holds for trained weights (tests/host/test_conformance.py); these are random")


class TestNetwork(ForecasterKit):
    affine_rtol = 1e-3
    batch_atol = 1e-5

    def make(self) -> Forecaster:
        return forecaster()

    test_a_longer_look_sharpens = LEARNED(ForecasterKit.test_a_longer_look_sharpens)
    test_more_time_is_never_worse = LEARNED(ForecasterKit.test_more_time_is_never_worse)
    test_a_leader_is_likelier_to_win_than_a_laggard = LEARNED(
        ForecasterKit.test_a_leader_is_likelier_to_win_than_a_laggard
    )
