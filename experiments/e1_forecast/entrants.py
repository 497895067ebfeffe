"""Forecasters by the names of their rows."""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from calibration import FEATURES, Calibration
from cheap import CHEAP

from lcsearch.curves import Floats
from lcsearch.forecast.contract import Forecaster, Forecasts, Query
from lcsearch.host.registry import NAMES, forecaster
from lcsearch.study import Snapshot

NETWORK = re.compile(r"network(?P<configs>\+configs)?(@(?P<name>[\w.+-]+))?(=(?P<path>.+))?")
PEERS = ("lc-pfn-recipe", "wide")
RECALIBRATED: dict[str, tuple[str, tuple[str, ...]]] = {
    "lc-pfn-recipe-recal": ("lc-pfn-recipe", ("logit",)),
    "wide-recal": ("wide", ("logit",)),
    "wide-recal+rank-gap": ("wide", FEATURES),
    "rank-gap-recal": ("rank-gap", ("logit", "rank")),
}
"""Row -> whose P(beat) it recalibrates, and by what: chosen on half a, from one source to the other."""
WEIGHTS = Path(__file__).resolve().parent / "peers"
"""What `train_peers.py` makes: not in the repository."""
TRAIN = "python experiments/e1_forecast/train_peers.py"


@dataclass(frozen=True, eq=False)
class PolicySpec:
    """A forecaster under the name of its row.

    Attributes:
        label: of the row.
        method: who is asked.
        configs: it is shown the trials' configurations.
        calibration: of its P(beat); None: as it is.
    """

    label: str
    method: Forecaster
    configs: bool = False
    calibration: Calibration | None = None

    @property
    def version(self) -> str:
        """Changes whenever the same question may get another answer."""
        return self.method.version + (f"-{self.calibration.version}" if self.calibration else "")

    def p_beat(self, source: str, snapshot: Snapshot, queries: Sequence[Query], said: Forecasts, y: float) -> Floats:
        """(Q,) P(beats y) on a task of `source`; NaN where nothing was said."""
        p = np.where([reason is None for reason in said.absent], said.p_beat(y), np.nan)
        return p if self.calibration is None else self.calibration.p_beat(source, snapshot, queries, p)


def entrant(spec: str) -> PolicySpec:
    """See the module.

    Raises:
        LcsearchError: the weights cannot be read.
        SystemExit: there is no such forecaster, or it is not trained yet.
    """
    if spec in RECALIBRATED:
        return PolicySpec(spec, entrant(RECALIBRATED[spec][0]).method, calibration=_calibration(spec))
    if spec in PEERS:
        return PolicySpec(spec, _peer(spec))
    if spec in NAMES:
        return PolicySpec(spec, forecaster(spec))
    if spec in CHEAP:
        return PolicySpec(spec, CHEAP[spec]())
    if spec == "mcmc":
        return PolicySpec(spec, _of_module("mcmc"))
    asked = NETWORK.fullmatch(spec)
    if asked is None:
        known = ", ".join((*NAMES, *CHEAP, "mcmc", *PEERS, *RECALIBRATED, "network[+configs][@NAME][=PATH]"))
        raise SystemExit(f"--forecasters: expected some of {known}, got {spec!r}")
    path, name = asked["path"], asked["name"]
    name = name or (Path(path).stem if path else None)
    label = "network" + (asked["configs"] or "") + (f"@{name}" if name else "")
    return PolicySpec(label, _network(path, name), bool(asked["configs"]))


def _peer(name: str) -> Forecaster:
    """A small network with its trained weights."""
    from peers import LcPfn, SingleCurve, Size, Wide

    from lcsearch.weights import store as weights

    path = WEIGHTS / f"{name}.safetensors"
    if not path.exists():
        raise SystemExit(f"{name}: expected {path}, got none; train it: {TRAIN}")
    read = weights.load(path)
    network = SingleCurve(Size(**read.size))
    network.load_state_dict(read.tensors)
    made = {"lc-pfn-recipe": LcPfn, "wide": Wide}[name]
    return made(network, read.sha256[:12])


def _calibration(name: str) -> Calibration:
    path = WEIGHTS / f"{name}.json"
    if not path.exists():
        raise SystemExit(f"{name}: expected {path}, got none; fit it: {TRAIN}")
    return Calibration.read(path)


def _of_module(name: str) -> Forecaster:
    """A new one of the only forecaster that a module defines."""
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise SystemExit(f"{name}: there is none here ({error})") from error
    found = [c for c in vars(module).values() if isinstance(c, type) and c.__module__ == name and "forecast" in vars(c)]
    if len(found) != 1:
        raise SystemExit(f"{name}: expected one class with `forecast`, got {[c.__name__ for c in found]}")
    method: Forecaster = found[0]()
    return method


def _network(path: str | None, name: str | None) -> Forecaster:
    """The network with the weights of a file, or with those that ship."""
    from lcsearch.forecast.network.forecaster import NetworkForecaster
    from lcsearch.forecast.network.model import CurveNetwork
    from lcsearch.forecast.network.size import Size
    from lcsearch.weights import shipped
    from lcsearch.weights import store as weights

    if path is not None:
        read = weights.load(Path(path))
    else:
        known = shipped.names()
        if name is None and len(known) != 1:
            raise SystemExit(f"network: expected one set of weights that ships, got {', '.join(known) or 'none'}")
        read = weights.shipped(name or known[0])
    network = CurveNetwork(Size(**read.size))
    network.load_state_dict(read.tensors)
    return NetworkForecaster(network, read.sha256[:12])
