"""`sampler:` of a sweep file, which configuration a new trial gets."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from lcsearch.sweep.spec.strict import Model, by_kind


class RandomSamplerSpec(Model):
    """Configurations at random."""

    kind: Literal["random"]


class TpeSamplerSpec(Model):
    """Optuna's TPE."""

    kind: Literal["tpe"] = "tpe"


class CurveSamplerSpec(Model):
    """The configuration that is forecast to gain most; knobs as in `lcsearch.schedulers.optuna.ForecastSampler`."""

    kind: Literal["curve"]
    inner: Literal["random", "tpe"] = "random"
    n_candidates: Annotated[int, Field(ge=1, le=4096)] = 256
    sampler_share: Annotated[float, Field(ge=0, le=1)] = 0.25
    n_startup_trials: Annotated[int, Field(ge=0)] = 10
    proposer: Literal["gain", "alp-gmm"] = "gain"


SAMPLERS = ("random", "tpe", "curve")


Sampler = Annotated[
    Annotated[RandomSamplerSpec, Tag("<sampler random>")]
    | Annotated[TpeSamplerSpec, Tag("<sampler tpe>")]
    | Annotated[CurveSamplerSpec, Tag("<sampler curve>")],
    Discriminator(by_kind(SAMPLERS, "tpe", "sampler ")),
]
