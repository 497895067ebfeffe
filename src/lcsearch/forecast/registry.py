"""Forecasters by name, for constructors and sweep files."""

from __future__ import annotations

from collections.abc import Sequence

from lcsearch.errors import InvalidValue
from lcsearch.forecast.contract import Forecaster

NAMES = ("parametric", "rank-gap")


def forecaster(name: str) -> Forecaster:
    """A new forecaster of that name.

    Raises:
        InvalidValue: there is none of that name.
    """
    if name == "parametric":
        from lcsearch.forecast.parametric import ParametricEnsemble

        return ParametricEnsemble()
    if name == "rank-gap":
        from lcsearch.forecast.rank_gap import RankAndGap

        return RankAndGap()
    raise InvalidValue(f"one of {', '.join(NAMES)}", name, "opinions")


def forecasters(opinions: Sequence[Forecaster | str] | Forecaster | str | None) -> tuple[Forecaster, ...]:
    """Names or forecasters -> forecasters; None gives the default, the parametric ensemble alone.

    Raises:
        InvalidValue: an unknown name, something that is no forecaster, or an empty list.
    """
    if opinions is None:
        return (forecaster("parametric"),)
    if isinstance(opinions, str | Forecaster):
        opinions = (opinions,)
    found = []
    for opinion in opinions:
        if isinstance(opinion, str):
            found.append(forecaster(opinion))
        elif isinstance(opinion, Forecaster):
            found.append(opinion)
        else:
            raise InvalidValue(f"a forecaster or one of {', '.join(NAMES)}", opinion, "opinions")
    if not found:
        raise InvalidValue("at least one forecaster", opinions, "opinions", "pass None for the default")
    return tuple(found)
