"""`pruner:` of a sweep file, which trials are stopped."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AliasChoices, Discriminator, Field, Tag, field_validator, model_validator

from lcsearch.host.registry import NAMES
from lcsearch.sweep.spec.strict import Model, by_kind, expected


class _Startup(Model):
    n_startup_trials: Annotated[int, Field(ge=0)] = 5
    n_warmup_steps: Annotated[int, Field(ge=0)] = 0
    interval_steps: Annotated[int, Field(ge=1)] = 1
    n_min_trials: Annotated[int, Field(ge=1)] = 1


class CurvePrunerSpec(_Startup):
    """lcsearch's own pruner; knobs as in `lcsearch.schedulers.optuna.CurvePruner`."""

    kind: Literal["curve"] = "curve"
    n_startup_trials: Annotated[int, Field(ge=0)] = 2
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.05
    guard: Annotated[float, Field(ge=0, le=1)] = 0.1
    risk: Annotated[float, Field(gt=0, lt=1)] | None = None
    rivals: Annotated[int, Field(ge=0)] = 0
    look_growth: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.1
    audit: Annotated[float, Field(ge=0, lt=1)] = 0.0
    max_wrong_stop: Annotated[float, Field(gt=0, lt=1)] | None = None
    forecasters: Annotated[
        Annotated[tuple[str, ...], Field(min_length=1)] | None,
        Field(validation_alias=AliasChoices("forecasters", "opinions")),  # its name in an earlier version
    ] = None

    @model_validator(mode="after")
    def _audited(self) -> Self:
        if self.max_wrong_stop is not None and not self.audit:
            raise expected("audit beside max_wrong_stop, which goes by audits")
        return self

    @field_validator("forecasters")
    @classmethod
    def _known(cls, forecasters: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if not set(forecasters or ()) <= set(NAMES):
            raise expected(f"names among {', '.join(NAMES)}")
        return forecasters


class MedianPrunerSpec(_Startup):
    """Optuna's median pruner."""

    kind: Literal["median"]


class HyperbandPrunerSpec(Model):
    """Optuna's Hyperband; its largest resource is `max_steps`."""

    kind: Literal["hyperband"]
    min_resource: Annotated[int, Field(ge=1)] = 1
    reduction_factor: Annotated[int, Field(ge=2)] = 3


class NoPrunerSpec(Model):
    """Every trial runs to the horizon."""

    kind: Literal["none"]


PRUNERS = ("curve", "median", "hyperband", "none")
RAY_PRUNERS = ("curve", "none")


Pruner = Annotated[
    Annotated[CurvePrunerSpec, Tag("<curve>")]
    | Annotated[MedianPrunerSpec, Tag("<median>")]
    | Annotated[HyperbandPrunerSpec, Tag("<hyperband>")]
    | Annotated[NoPrunerSpec, Tag("<none>")],
    Discriminator(by_kind(PRUNERS, "curve")),
]
