"""Allocators by their names, as sweep files and frameworks call them."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

from lcsearch.allocation.allocators.alp_gmm import ProgressMixture
from lcsearch.allocation.allocators.asha import AshaPromotion
from lcsearch.allocation.allocators.dump import UpperConfidence
from lcsearch.allocation.allocators.going_rate import GoingRateAsha
from lcsearch.allocation.allocators.greedy import GreedyGain
from lcsearch.allocation.allocators.halving import SuccessiveHalving
from lcsearch.allocation.allocators.hyperband import AsyncHyperband
from lcsearch.allocation.allocators.mfpi import RandomHorizonPi
from lcsearch.allocation.allocators.pandora import PandoraIndex
from lcsearch.allocation.allocators.robust import FollowTheForecast
from lcsearch.allocation.allocators.run_to_end import RunToEnd
from lcsearch.allocation.allocators.sec import SelfEvolving
from lcsearch.allocation.allocators.top_two import TopTwoThompson
from lcsearch.allocation.allocators.uncertain import FundTheUncertain
from lcsearch.allocation.allocators.uniform import Uniform
from lcsearch.allocation.bounded import Bounded
from lcsearch.allocation.contract import Allocator
from lcsearch.errors import InvalidValue

Kinds = (
    AshaPromotion
    | GoingRateAsha
    | AsyncHyperband
    | SuccessiveHalving
    | Uniform
    | GreedyGain
    | SelfEvolving
    | UpperConfidence
    | ProgressMixture
    | FundTheUncertain
    | TopTwoThompson
    | RandomHorizonPi
    | PandoraIndex
    | FollowTheForecast
    | RunToEnd
)
KINDS: dict[str, type[Kinds]] = {kind.name: kind for kind in get_args(Kinds)}
"""Name -> class, the default first; a class's fields are its knobs."""
DEFAULT = AshaPromotion.name


def allocator(
    name: str | Allocator = DEFAULT,
    *,
    max_paused: int | None = None,
    min_slice: float = 0.0,
    max_slice: float | None = None,
    **knobs: Any,
) -> Allocator:
    """An allocator by its name; one that is made already comes back as it is, within the bounds that are given.

    Args:
        name: one of `KINDS`, or an allocator of your own.
        max_paused: at most so many trials wait, >= 1; None: any number.
        min_slice: no turn is shorter than so many steps, >= 0.
        max_slice: none is longer, > 0: a trial is preempted where a better arm waits by then; None: any length.
        knobs: its fields.

    Raises:
        InvalidValue: no such name or knob, or a value that cannot be.
    """
    if (max_paused, min_slice, max_slice) != (None, 0, None):
        return Bounded(allocator(name, **knobs), max_paused, min_slice, max_slice)
    if not isinstance(name, str):
        if not isinstance(name, Allocator) or knobs:
            raise InvalidValue(f"an Allocator without knobs, or one of {', '.join(KINDS)}", name, "allocator")
        return name
    if name not in KINDS:
        raise InvalidValue(f"one of {', '.join(KINDS)}", name, "allocator")
    known = [field.name for field in dataclasses.fields(KINDS[name])]
    for knob in knobs:
        if knob not in known:
            raise InvalidValue(f"a knob of {name!r}: {', '.join(known) or 'it has none'}", knob, "allocator")
    return KINDS[name](**knobs)


def knobs_of(one: Allocator) -> dict[str, Any]:
    """What an allocator was made with, as plain values; {} where it is no dataclass."""
    if isinstance(one, Bounded):
        bounds = {"max_paused": one.max_paused, "min_slice": one.min_slice, "max_slice": one.max_slice}
        return {**knobs_of(one.allocator), **bounds}
    return dataclasses.asdict(one) if isinstance(one, Kinds) or dataclasses.is_dataclass(one) else {}
