"""The pretrained network in this process: weights from the package, loaded at the first forecast."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING, Any

from lcsearch.forecast.contract import Forecasts, Query
from lcsearch.pretrain.shipped import content, found
from lcsearch.study import Snapshot

if TYPE_CHECKING:
    from lcsearch.forecast.network.forecaster import NetworkForecaster

DEFAULT = "network"
"""Name of the weights that are used unless others are named."""


class Pretrained:
    """A forecaster that holds the network.

    Making one checks the file of weights and imports no torch; the first forecast does, and takes a second or two.
    Thread-safe; a copy sent to another process loads the weights there.

    Args:
        weights: name of the weights in the package.
        device: where the network computes, as torch names it. In a training process keep "cpu": no CUDA context is
            made there.
        where: a folder of weights in place of the package's.

    Raises:
        EnvironmentProblem: the weights are missing or damaged.
    """

    name = "network"

    def __init__(self, weights: str = DEFAULT, device: str = "cpu", where: Traversable | None = None) -> None:
        self._weights, self._device = weights, device
        self._file, self._sha256 = found(weights, where)
        content(self._file, self._sha256)
        self._lock = threading.Lock()
        self._network: NetworkForecaster | None = None

    @property
    def version(self) -> str:
        """Name and hash of the weights."""
        return f"{self._weights}-{self._sha256[:12]}"

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        """As :class:`~lcsearch.forecast.network.forecaster.NetworkForecaster` answers."""
        self.prepare()
        with self._lock:
            assert self._network is not None
            return self._network.forecast(snapshot, queries)

    def prepare(self) -> None:
        """Load the weights, once.

        Raises:
            EnvironmentProblem: they have gone missing or were damaged meanwhile.
        """
        with self._lock:
            if self._network is None:
                self._network = self._load()

    def _load(self) -> NetworkForecaster:
        import torch

        from lcsearch.forecast.network.forecaster import NetworkForecaster
        from lcsearch.forecast.network.model import CurveNetwork, Size
        from lcsearch.pretrain.weights import load

        held = load(self._file, self._sha256)
        with torch.device("meta"):  # no random numbers are drawn for weights that are loaded anyway
            network = CurveNetwork(Size(**held.size))
        network.load_state_dict(held.tensors, assign=True)
        return NetworkForecaster(network, self.version, self._device)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None, "_network": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()
