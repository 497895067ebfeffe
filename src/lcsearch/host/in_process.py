"""The pretrained network in this process: weights from the package, loaded at the first forecast."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from importlib import import_module
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcsearch.errors import EnvironmentProblem
from lcsearch.forecast.contract import Forecaster, Forecasts, Query
from lcsearch.forecast.network.size import Size
from lcsearch.in_time import NotInTime, while_it_moves
from lcsearch.study import Snapshot
from lcsearch.weights.shipped import ANOTHER, about, content, found

if TYPE_CHECKING:
    from lcsearch.forecast.network.forecaster import NetworkForecaster

DEFAULT = "network"
"""Name of the weights that are used unless others are named."""


STILL_S = 15.0
"""Seconds without any move after which an import of torch hangs. A slow one is late, which no stop hangs on."""

_no_torch = ""
"""Why torch does not import, once this process has tried: a broken one takes seconds to say so, each time anew."""
_importing = threading.Lock()


def _forked() -> None:
    """In a child: whoever held the lock is not there."""
    global _importing
    _importing = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def import_torch() -> None:
    """Import torch, or say why that failed; it is tried once a process, so one that hangs is not used later either.

    Raises:
        EnvironmentProblem: it does not import, or hangs.
    """
    global _no_torch
    with _importing:
        if not _no_torch and not _is_imported("torch"):
            try:
                while_it_moves(STILL_S, "lcsearch imports torch", partial(import_module, "torch"))
            except NotInTime as late:
                _no_torch = f"one whose import was given up ({late}). If it is but slow, import it first; else install"
            except Exception as error:  # a library that is missing, a symbol, a driver: it may raise anything
                _no_torch = f"one that does not import ({_first_line(error)}). Install"
    if _no_torch:
        text = f"expected torch, which the network computes with, got {_no_torch} it again"
        raise EnvironmentProblem(f"{text}: pip install --force-reinstall torch")


def _is_imported(name: str) -> bool:
    """Has its import come to an end? One that is under way, in any thread, stands in sys.modules already."""
    module = sys.modules.get(name)
    return module is not None and not getattr(getattr(module, "__spec__", None), "_initializing", False)


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".strip().partition("\n")[0].rstrip(".")


@contextmanager
def _one_thread() -> Iterator[None]:
    """The calling thread computes alone, and has its number of threads back afterwards.

    The network is so small that handing parts of it to other threads costs more than it saves, twenty times more while
    a training keeps the cores busy; in a forked child OpenMP's other threads are gone, and waiting for them would hang;
    and the last bits of an answer do not depend on the machine's number of cores.
    """
    import torch

    n = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n)


class Pretrained:
    """A forecaster that holds the network.

    Making one checks the file of weights and imports no torch; the first forecast does, and takes a second or two.
    Thread-safe; a copy sent to another process loads the weights there.

    Args:
        weights: name of the weights in the package.
        device: where the network computes, as torch names it. In a training process keep "cpu": no CUDA context is
            made there.
        where: a folder of weights in place of the package's.
        file: a weight file of one's own in place of both.
        stand_ins: who takes its place where it cannot be loaded after all (a torch that does not import).

    Raises:
        EnvironmentProblem: the weights are missing or damaged.
    """

    def __init__(
        self,
        weights: str = DEFAULT,
        device: str = "cpu",
        where: Traversable | None = None,
        file: Path | None = None,
        stand_ins: Sequence[Forecaster] = (),
    ) -> None:
        self.name, self._device, self.stand_ins = "network", device, tuple(stand_ins)
        self._ships = file is None and where is None
        self._file: Path | Traversable
        if file is None:
            self._weights, (self._file, wanted) = weights, found(weights, where)
        else:  # absolute: a copy may be unpickled by a process that works elsewhere
            self._weights, self._file, wanted = file.stem, file.resolve(), None
            self.name = f"network={file.stem}"
        data, self._sha256 = content(self._file, wanted)
        names = [field.name for field in fields(Size)]
        if (size := about(data, str(self._file))["size"]).keys() != set(names):
            text = f"{self._file}: expected weights of lcsearch's network, with {', '.join(names)}, got {size}."
            raise EnvironmentProblem(f"{text} {ANOTHER}")
        self._begin()
        self._network: NetworkForecaster | None = None
        self._failed = ""  # why it cannot be loaded

    def _begin(self) -> None:
        self._lock, self._pid = threading.Lock(), os.getpid()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One thread at a time; a lock that another thread held when the process was forked is left behind."""
        if self._pid != os.getpid():
            self._begin()
        with self._lock:
            yield

    @property
    def device(self) -> str:
        """Where the network computes, as torch names it."""
        return self._device

    @property
    def version(self) -> str:
        """Name and hash of the weights."""
        return f"{self._weights}-{self._sha256[:12]}"

    def own_bytes(self) -> bytes | None:
        """The file's bytes, for a process that may not have it; None: the package ships them.

        Raises:
            EnvironmentProblem: the file has gone missing or was changed meanwhile.
        """
        return None if self._ships else content(self._file, self._sha256)[0]

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        """As :class:`~lcsearch.forecast.network.forecaster.NetworkForecaster` answers."""
        self.prepare()
        with self._alone(), _one_thread():
            assert self._network is not None
            return self._network.forecast(snapshot, queries)

    def forecast_each(self, asks: Sequence[tuple[Snapshot, Sequence[Query]]]) -> list[Forecasts]:
        """What `forecast` says of each, in one pass of the network."""
        self.prepare()
        with self._alone(), _one_thread():
            assert self._network is not None
            return self._network.forecast_each(asks)

    def forecast_many(self, asks: Sequence[tuple[Snapshot, Sequence[Query]]]) -> list[Forecasts]:
        """As :meth:`~lcsearch.forecast.network.forecaster.NetworkForecaster.forecast_many` answers."""
        self.prepare()
        with self._alone(), _one_thread():
            assert self._network is not None
            return self._network.forecast_many(asks)

    @property
    def loaded(self) -> bool:
        """Whether it answers, or fails, at once."""
        return self._network is not None or bool(self._failed)

    def prepare(self) -> None:
        """Load the weights, once.

        Raises:
            EnvironmentProblem: torch does not import; they have gone missing or were damaged meanwhile, are of another
                network, or do not load on the device. It is tried once: what failed fails again at once.
        """
        if self._network is None:
            with self._alone():
                if not self._failed and self._network is None:
                    try:
                        import_torch()
                        with _one_thread():
                            self._network = self._load()
                    except EnvironmentProblem as error:
                        self._failed = str(error)
                    except Exception as error:  # of a torch that imports and does not work, or a device
                        text = f"{self._file}: expected weights that load on {self._device}, got {_first_line(error)}."
                        self._failed = f"{text} See that torch works there."
                if self._failed:
                    raise EnvironmentProblem(self._failed)  # a new one: one that is kept would keep every frame it saw

    def _load(self) -> NetworkForecaster:
        import torch

        from lcsearch.forecast.network.forecaster import NetworkForecaster
        from lcsearch.forecast.network.model import CurveNetwork
        from lcsearch.weights.store import load

        held = load(self._file, self._sha256)
        with torch.device("meta"):  # no random numbers are drawn for weights that are loaded anyway
            network = CurveNetwork(Size(**held.size))
        try:
            network.load_state_dict(held.tensors, assign=True)
        except RuntimeError as error:
            said = str(error).splitlines()[1].strip().rstrip(".")
            text = f"{self._file}: expected weights of this lcsearch's network, got others ({said[:200]})."
            raise EnvironmentProblem(f"{text} Train them anew, or go on from them: `start:` in a recipe.") from error
        return NetworkForecaster(network, self.version, self._device)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None, "_network": None, "_failed": ""}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()
