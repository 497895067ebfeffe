"""What every part of a sweep file is made of: strict models, numbers within bounds, plain values, parts told by `kind`.

Unknown keys are refused everywhere and types are strict ("40" is not 40): a typing error in a sweep file costs
hours, so nothing is guessed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeGuard

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

Scalar = bool | int | float | str | None

MOST = 10**15  # beyond it, some whole numbers are no floats, and studies keep floats
Count = Annotated[int, Field(ge=1, le=MOST)]
Whole = Annotated[int, Field(ge=-MOST, le=MOST)]
Share = Annotated[float, Field(gt=0, le=1)]


def expected(what: str) -> PydanticCustomError:
    """An error whose message is "expected <what>, got <the value>"."""
    return PydanticCustomError("lcsearch", "{expected}", {"expected": what})


def is_plain(value: object) -> TypeGuard[Scalar]:
    """One value: in a space, a constant rather than a parameter that is searched."""
    return value is None or isinstance(value, (bool, int, float, str))


def _one_value(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise expected("a finite number")
    if is_plain(value):
        return value
    raise expected("a plain value")


Plain = Annotated[Scalar, BeforeValidator(_one_value)]  # one error, not one for each type of the union


class Model(BaseModel):
    """Strict, frozen, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, serialize_by_alias=True)


def by_kind(kinds: tuple[str, ...], default: str, prefix: str = "") -> Callable[[Any], str | None]:
    """Tags by the key `kind`; a prefix where others have a kind of that name: "hyperband" is a pruner, too."""

    def tag(value: Any) -> str | None:
        kind = value.get("kind", default) if isinstance(value, Mapping) else getattr(value, "kind", default)
        return f"<{prefix}{kind}>" if kind in kinds else None

    return tag
