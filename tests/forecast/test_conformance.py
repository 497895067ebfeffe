from __future__ import annotations

from kit.doubles import Scripted
from kit.forecasters import ForecasterKit

from lcsearch.forecast.contract import Forecaster
from lcsearch.forecast.parametric import ParametricEnsemble
from lcsearch.forecast.rank_gap import RankAndGap


class TestParametricEnsemble(ForecasterKit):
    def make(self) -> Forecaster:
        return ParametricEnsemble()


class TestRankAndGap(ForecasterKit):
    def make(self) -> Forecaster:
        return RankAndGap()


def test_doubles_are_forecasters() -> None:
    assert isinstance(Scripted(), Forecaster)
