"""`space:` of a sweep file: its parameters, constant or drawn from a distribution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Field, Tag, WithJsonSchema, field_validator, model_validator

from lcsearch.sweep.spec.strict import Count, Model, Plain, Scalar, Whole, expected

Range = tuple[float, float]
IntRange = tuple[Whole, Whole]

# For editors: what the validators before the types let in.
_PLAIN_TYPE = ["boolean", "integer", "number", "string", "null"]
_WHEN_SCHEMA = {
    "anyOf": [
        {
            "type": "object",
            "additionalProperties": {
                "anyOf": [
                    {"type": _PLAIN_TYPE},
                    {"type": "array", "items": {"type": _PLAIN_TYPE}, "minItems": 1},
                ]
            },
        },
        {"type": "null"},
    ],
    "default": None,
}


def _ascending(bounds: Any) -> Any:
    if not bounds[0] < bounds[1]:
        raise expected("a lower bound below the upper one")
    return bounds


def _listed(condition: Any) -> Any:
    if not isinstance(condition, Mapping):
        return condition
    return {name: tuple(value) if isinstance(value, (list, tuple)) else (value,) for name, value in condition.items()}


class _Varying(Model):
    """A parameter that a sampler draws; `when: {opt: sgd}` (a value or a list of them): only where that holds."""

    when: Annotated[
        dict[str, Annotated[tuple[Plain, ...], Field(min_length=1)]] | None,
        BeforeValidator(_listed),
        WithJsonSchema(_WHEN_SCHEMA),
    ] = None


def _reaches(parameter: Any) -> Any:
    low, high = parameter.bounds
    if (parameter.step or 0) > (high - low) * (1 + 1e-9):
        raise expected("a step that is no longer than the range")
    return parameter


class Uniform(_Varying):
    """`{uniform: [low, high]}`, both included; `step:` makes it a grid from low."""

    bounds: Range = Field(alias="uniform")
    step: Annotated[float, Field(gt=0)] | None = None

    _check = field_validator("bounds")(_ascending)
    _check_step = model_validator(mode="after")(_reaches)


class LogUniform(_Varying):
    """`{loguniform: [low, high]}`: uniform in the logarithm, low > 0."""

    bounds: tuple[Annotated[float, Field(gt=0)], float] = Field(alias="loguniform")

    _check = field_validator("bounds")(_ascending)


class Int(_Varying):
    """`{int: [low, high]}`, both included; `step:` as in `{int: [8, 64], step: 8}`."""

    bounds: IntRange = Field(alias="int")
    step: Count = 1

    _check = field_validator("bounds")(_ascending)
    _check_step = model_validator(mode="after")(_reaches)


class LogInt(_Varying):
    """`{logint: [low, high]}`: whole numbers, uniform in the logarithm, low >= 1."""

    bounds: tuple[Count, Count] = Field(alias="logint")

    _check = field_validator("bounds")(_ascending)


class Choice(_Varying):
    """`{choice: [a, b, ...]}`: one of a list of plain values, no order assumed."""

    options: Annotated[tuple[Plain, ...], Field(min_length=1)] = Field(alias="choice")

    @field_validator("options")
    @classmethod
    def _different(cls, options: tuple[Scalar, ...]) -> tuple[Scalar, ...]:
        if len(set(options)) < len(options):  # Optuna looks options up by ==, and True == 1 == 1.0
            raise expected("options that differ (true is equal to 1, false to 0, 1 to 1.0)")
        return options


Distribution = Uniform | LogUniform | Int | LogInt | Choice
DISTRIBUTIONS = ("uniform", "loguniform", "int", "logint", "choice")


# Tags are in angle brackets so that they cannot be taken for a key of the file in an error's location.
def _distribution_tag(value: Any) -> str | None:
    if isinstance(value, Mapping):
        kinds = [kind for kind in DISTRIBUTIONS if kind in value]
        return f"<{kinds[0]}>" if len(kinds) == 1 else None
    if isinstance(value, (Uniform, LogUniform, Int, LogInt, Choice)):
        return f"<{next(f.alias for f in type(value).model_fields.values() if f.alias)}>"
    return None if isinstance(value, (list, tuple)) else "<constant>"


Parameter = Annotated[
    Annotated[Uniform, Tag("<uniform>")]
    | Annotated[LogUniform, Tag("<loguniform>")]
    | Annotated[Int, Tag("<int>")]
    | Annotated[LogInt, Tag("<logint>")]
    | Annotated[Choice, Tag("<choice>")]
    | Annotated[Plain, Tag("<constant>")],
    Discriminator(_distribution_tag),
]
