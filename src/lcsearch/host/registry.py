"""Forecasters by name, for constructors and sweep files, and the default ones."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from lcsearch.errors import EnvironmentProblem, InvalidValue
from lcsearch.extras import need_ray
from lcsearch.forecast.contract import Forecaster
from lcsearch.host.hosted import Hosted
from lcsearch.host.in_process import Pretrained
from lcsearch.host.link import HttpLink, Link

NAMES = ("network", "parametric", "rank-gap")
OWN = "network="
"""Followed by the path of a weight file: the network with weights of one's own (`lcsearch pretrain`)."""
FALLBACK = ("parametric", "rank-gap")
"""Who is asked where the network cannot be: a stop then needs both."""

HOST = "LCSEARCH_HOST"
"""Environment variable: what `host="auto"` asks where the model is held: a URL, ray or local."""

Named = Sequence[Forecaster | str] | Forecaster | str | None
"""Forecasters, or their names; None: the default ones."""

_log = logging.getLogger("lcsearch")
_told: set[str] = set()


def forecaster(name: str) -> Forecaster:
    """A new forecaster of that name, one of NAMES or `network=PATH`.

    Raises:
        InvalidValue: there is none of that name.
        EnvironmentProblem: the network's weights, or torch, are missing or damaged.
    """
    if name == "network":
        return _network()
    if name.startswith(OWN) and name != OWN:
        return _network(file=Path(name.removeprefix(OWN)).expanduser())
    if name == "parametric":
        from lcsearch.forecast.parametric import ParametricEnsemble

        return ParametricEnsemble()
    if name == "rank-gap":
        from lcsearch.forecast.rank_gap import RankAndGap

        return RankAndGap()
    raise InvalidValue(f"one of {', '.join(NAMES)}, {OWN}PATH", name, "forecasters")


def _network(stand_ins: Sequence[Forecaster] = (), file: Path | None = None) -> Forecaster:
    if find_spec("torch") is None:
        text = "expected torch, which the network computes with, got none. Install it: pip install torch"
        raise EnvironmentProblem(text)
    return Pretrained(file=file, stand_ins=stand_ins)


def default() -> tuple[Forecaster, ...]:
    """The network; with one warning a process those of FALLBACK, where it is not to be had."""
    others = tuple(forecaster(name) for name in FALLBACK)
    try:
        return (_network(stand_ins=others),)
    except EnvironmentProblem as error:
        if str(error) not in _told:
            _told.add(str(error))
            _log.warning("lcsearch: forecasts are made by %s, without the network: %s", " and ".join(FALLBACK), error)
        return others


def renamed(forecasters: Named, opinions: Named) -> Named:
    """What `forecasters` was given, or `opinions`, its name in an earlier version.

    Raises:
        InvalidValue: both were given.
    """
    if opinions is None:
        return forecasters
    if forecasters is not None:
        raise InvalidValue("forecasters or its earlier name, opinions", "both", "forecasters")
    warnings.warn("opinions= is called forecasters= now.", DeprecationWarning, stacklevel=4)
    return opinions


def link_to(host: str, local: Pretrained | None = None) -> Link | None:
    """The way to the host of the model; None: it is held in process.

    Args:
        host: "local", "ray" (the host of the Ray cluster that this process is part of, begun where there is none), the
            URL of `lcsearch serve`, or "auto": what LCSEARCH_HOST says, else "local".
        local: the weights that must answer, of which a cluster has a host each; None: those that ship.

    Raises:
        InvalidValue: it is none of these.
        EnvironmentProblem: "ray", and Ray is not installed.
    """
    said, where = _named(host)
    if said == "local":
        return None
    if said == "ray":
        need_ray('host="ray"')
        from lcsearch.host.ray_actor import RayLink

        return RayLink(local)
    try:
        return HttpLink(said)
    except InvalidValue as error:
        if error.where != "host":  # what else the environment says
            raise
        raise InvalidValue(error.expected, error.got, where, error.advice) from None


def _named(host: str) -> tuple[str, str]:
    """local, ray or a URL; and where that was said."""
    said, where = host, "host"
    if host == "auto":
        said, where = os.environ.get(HOST) or "local", HOST
    if said not in ("local", "ray") and not (isinstance(said, str) and said.startswith(("http://", "https://"))):
        raise InvalidValue("auto, local, ray, or the URL http://NAME:PORT of `lcsearch serve`", said, where)
    return said, where


def resolve_forecasters(forecasters: Named, host: str = "local") -> tuple[Forecaster, ...]:
    """Names or forecasters -> forecasters; None gives the default ones, see :func:`default`.

    Args:
        host: who holds the network, see :func:`link_to`; the others compute in process in any case.

    Raises:
        InvalidValue: an unknown name, something that is no forecaster, an empty list, or no such host.
        EnvironmentProblem: the network was named, and is not to be had.
    """
    _named(host)  # says what is wrong with it, whoever forecasts
    return tuple(_at(host, one) if isinstance(one, Pretrained) else one for one in _in_process(forecasters))


def _at(host: str, local: Pretrained) -> Forecaster:
    link = link_to(host, local)
    return local if link is None else Hosted(local, link)


def _in_process(forecasters: Named) -> tuple[Forecaster, ...]:
    if forecasters is None:
        return default()
    if isinstance(forecasters, str | Forecaster):
        forecasters = (forecasters,)
    found = []
    for one in forecasters:
        if isinstance(one, str):
            found.append(forecaster(one))
        elif isinstance(one, Forecaster):
            found.append(one)
        else:
            raise InvalidValue(f"a forecaster or one of {', '.join(NAMES)}, {OWN}PATH", one, "forecasters")
    if not found:
        raise InvalidValue("at least one forecaster", forecasters, "forecasters", "pass None for the default")
    return tuple(found)
