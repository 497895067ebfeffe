from __future__ import annotations

from kit.doubles import Scripted
from kit.forecasters import ForecasterKit
from mcmc import EnsembleMCMC

from lcsearch.forecast.contract import Forecaster
from lcsearch.forecast.parametric import ParametricEnsemble
from lcsearch.forecast.rank_gap import RankAndGap


class TestParametricEnsemble(ForecasterKit):
    def make(self) -> Forecaster:
        return ParametricEnsemble()


class TestRankAndGap(ForecasterKit):
    def make(self) -> Forecaster:
        return RankAndGap()


class TestEnsembleMCMC(ForecasterKit):
    def make(self) -> Forecaster:
        return EnsembleMCMC(walkers=32, steps=150, burn_in=80, draws=128)


def test_doubles_are_forecasters() -> None:
    assert isinstance(Scripted(), Forecaster)
