"""A pretraining recipe: every number that a run's weights depend on, and a few that only say how it is run."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator
from pydantic_core import PydanticCustomError

from lcsearch.forecast.network.size import Size

Count = Annotated[int, Field(ge=1, le=10**9)]
Share = Annotated[float, Field(ge=0, le=1)]


class Model(BaseModel):
    """Strict, frozen, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


_FIELDS: dict[str, Any] = {field.name: (Count, ...) for field in fields(Size)}


class SizeSpec(create_model("_Sizes", __base__=Model, **_FIELDS)):  # type: ignore[misc]  # the fields are those of Size
    """Size of the network, see :class:`lcsearch.forecast.network.size.Size`; every one is named."""

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.curve_width % self.curve_heads or self.study_width % self.study_heads:
            raise PydanticCustomError("lcsearch", "{expected}", {"expected": "widths that their heads divide"})
        return self


class Recipe(Model):
    """A pretraining run, defaults filled in.

    Attributes:
        name: of the run folder and of the weights.
        seed: all randomness of step k follows from it and k.
        steps: optimizer steps.
        batch: studies a step.
        learning_rate: its peak; warmed up linearly over the share `warmup` of the steps, then a cosine to zero.
        weight_decay: AdamW's, of matrices only.
        clip: largest norm of the gradient.
        ema: decay of the averaged weights, which are the result.
        real: share of the steps whose batch is drawn from real curves; the others are drawn from the prior.
        start: file of weights to go on from, beside the recipe or absolute; None: random ones. What the run depends on
            is the file's SHA-256, which stands here while it trains.
        size: of the network.
        precision: bfloat16 is used where the device has it, float32 elsewhere.
        device: auto takes a GPU if there is one.
        threads: of the CPU; None: as many as torch chooses. Another number may change the last bits.
        workers: processes that draw batches ahead; 0: they are drawn between the steps.
        checkpoint_seconds: time between two checkpoints.
        evaluate_every: steps between two evaluations; one more follows the last step. None: no other.
        log_every: steps between two lines of the log.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    seed: Annotated[int, Field(ge=0, le=2**31)] = 0
    steps: Count
    batch: Count
    learning_rate: Annotated[float, Field(gt=0)]
    warmup: Share = 0.05
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip: Annotated[float, Field(gt=0)] = 1.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    real: Share = 0.0
    start: Annotated[str, Field(min_length=1)] | None = None
    size: SizeSpec
    precision: Literal["float32", "bfloat16"] = "float32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Count | None = None
    workers: Annotated[int, Field(ge=0, le=256)] = 0
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 120.0
    evaluate_every: Count | None = None
    log_every: Count = 10

    @property
    def digest(self) -> str:
        """Hex digest of what the weights depend on."""
        return hashlib.sha256(json.dumps(self.meaning(), sort_keys=True).encode()).hexdigest()

    def meaning(self) -> dict[str, Any]:
        """What the weights depend on, as plain values."""
        return self.model_dump(mode="json", exclude=set(HANDLING))

    def differences(self, other: dict[str, Any]) -> list[str]:
        """Lines `key: theirs, now ours` for what the weights depend on; `other` is a `meaning()`."""
        ours, theirs = _flat(self.meaning()), _flat(other)
        keys = [*ours, *(key for key in theirs if key not in ours)]
        return [
            f"{key}: {_shown(theirs, key)}, now {_shown(ours, key)}"
            for key in keys
            if ours.get(key, ...) != theirs.get(key, ...)
        ]


HANDLING = ("workers", "checkpoint_seconds", "evaluate_every", "log_every")
"""Keys that say how a run is handled: they may change between two pieces of one run."""


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"size": {"bins": 8}}` as `{"size.bins": 8}`."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return found


def _shown(values: dict[str, Any], key: str) -> str:
    return json.dumps(values[key]) if key in values else "absent"
