from __future__ import annotations

from kit.forecasters import ForecasterKit

from lcsearch.forecast.contract import Forecaster
from lcsearch.host.in_process import Pretrained


class TestPretrained(ForecasterKit):
    """The weights that ship: what holds of any weights, and what must have been learned."""

    affine_rtol = 1e-3
    batch_atol = 1e-5

    def make(self) -> Forecaster:
        return Pretrained()
