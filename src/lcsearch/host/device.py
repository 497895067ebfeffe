"""The network on a device where one is to be had, else on the CPU: a host waits for no GPU that the trials hold."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from lcsearch.curves import Curve
from lcsearch.errors import EnvironmentProblem, in_words
from lcsearch.forecast.contract import Forecasts, Query
from lcsearch.goal import Goal
from lcsearch.host.in_process import Pretrained, import_torch
from lcsearch.in_time import NotInTime, in_time
from lcsearch.study import FinishedTrials, Snapshot, Trial

AUTO, CPU = "auto", "cpu"
LOADING_S = 60.0
"""Seconds that a device is waited for."""

_log = logging.getLogger("lcsearch")


class OnDevice:
    """A forecaster that holds the network on a device; on the CPU, with one warning, where that fails or takes too
    long, while it is loaded or at any later pass.

    Args:
        make: the network for a device, as torch names it.
        device: cpu, cuda, cuda:N, or auto: cuda where torch sees one.
        seconds: how long loading is waited for.
    """

    def __init__(self, make: Callable[[str], Pretrained], device: str = AUTO, seconds: float = LOADING_S) -> None:
        self._make, self._wanted, self._seconds = make, device, seconds
        self._cpu = make(CPU)
        self._held: Pretrained | None = None
        self.name, self.version = self._cpu.name, self._cpu.version

    @property
    def device(self) -> str:
        """Where it computes; empty before it is loaded."""
        return "" if self._held is None else self._held.device

    def prepare(self) -> None:
        """Load it, once.

        Raises:
            EnvironmentProblem: it does not load on the CPU either.
        """
        if self._held is None:
            found = self._on_device() if self._wanted != CPU else None
            if found is None:
                self._cpu.prepare()
            self._held = found or self._cpu

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        """As :class:`~lcsearch.host.in_process.Pretrained` answers."""
        return self.forecast_many([(snapshot, queries)])[0]

    def forecast_many(self, asks: Sequence[tuple[Snapshot, Sequence[Query]]]) -> list[Forecasts]:
        """As :class:`~lcsearch.host.in_process.Pretrained` answers."""
        self.prepare()
        assert self._held is not None
        try:
            return self._held.forecast_many(asks)
        except Exception as error:
            if self._held is self._cpu:
                raise
            found = self._cpu.forecast_many(asks)  # raises, too, where it is the question's fault
            self._held = self._cpu
            self._say(in_words(error))
            return found

    def _on_device(self) -> Pretrained | None:
        """The network where it was asked for; None: that did not work."""
        try:
            return in_time(self._seconds, "lcsearch device", self._loaded)  # a driver may hang for good
        except NotInTime:
            self._say(f"no answer within {self._seconds:g} s")
        except Exception as error:
            self._say(str(error) if isinstance(error, EnvironmentProblem) else in_words(error))
        return None

    def _loaded(self) -> Pretrained:
        """The network where it was asked for, having answered there once."""
        device = _seen() if self._wanted == AUTO else self._wanted
        model = self._cpu if device == CPU else self._make(device)
        model.prepare()
        model.forecast(*_trifle())  # what a driver lacks, or memory, shows only then
        return model

    def _say(self, why: str) -> None:
        _log.warning("lcsearch: forecasts are made on the CPU and not on %s: %s", self._wanted, why[:500])


def _seen() -> str:
    import_torch()
    import torch

    return "cuda" if torch.cuda.is_available() else CPU


def _trifle() -> tuple[Snapshot, list[Query]]:
    """A question that any network answers."""
    goal = Goal("loss", "minimize", 4.0)
    return Snapshot("", goal, FinishedTrials(goal)), [Query(Trial("0", Curve.of([1, 2], [1.0, 0.5])), "value", 4.0)]
