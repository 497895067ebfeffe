"""A whole sweep file, what each key is, what it takes, what it is when left out: the rules alone.

What is said where one is broken stands in messages.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from lcsearch.allocation.contract import Prices
from lcsearch.errors import InvalidValue
from lcsearch.goal import Bounds, Direction, Goal, Judged
from lcsearch.host.link import HttpLink
from lcsearch.schedule import Shape
from lcsearch.sweep.spec.allocator import AllocatorSpec, AshaSpec
from lcsearch.sweep.spec.distributions import Parameter
from lcsearch.sweep.spec.objective import Objective
from lcsearch.sweep.spec.pruner import CurvePrunerSpec, Pruner
from lcsearch.sweep.spec.sampler import Sampler, TpeSamplerSpec
from lcsearch.sweep.spec.strict import Count, Model, expected

DATABASE = r"^(sqlite|postgres|postgresql|mysql|mariadb|oracle|mssql)(\+\w+)?://"


class ParamRef(Model):
    """`{param: NAME}`: the value a trial drew for NAME."""

    param: str


def _entry_tag(value: Any) -> str:
    return "<param>" if isinstance(value, (Mapping, ParamRef)) else "<value>"


ShapeEntry = Annotated[
    Annotated[Shape, Tag("<value>")] | Annotated[ParamRef, Tag("<param>")], Discriminator(_entry_tag)
]
NumberEntry = Annotated[
    Annotated[float, Tag("<value>")] | Annotated[ParamRef, Tag("<param>")], Discriminator(_entry_tag)
]


class SchedulePlan(Model):
    """How the planned learning rate follows from the parameters; entries as in :class:`Schedule`."""

    shape: ShapeEntry = "constant"
    peak: NumberEntry
    warmup: NumberEntry = 0.0
    decay: NumberEntry = 0.2
    floor: NumberEntry = 0.0


class Workers(Model):
    """`n` processes of `threads` threads each; devices are dealt out in turn.

    A worker with `cuda:N` is shown that GPU alone, as its `cuda:0`; one with `cuda` is shown all there are.

    `stall`: seconds without a report after which a trial's worker is killed and the trial retried; None: it is told.
    """

    n: Annotated[int, Field(ge=1)] = 2
    threads: Annotated[int, Field(ge=1)] = 1
    devices: Annotated[tuple[Annotated[str, Field(pattern=r"^(cpu|mps|cuda(:\d+)?)$")], ...], Field(min_length=1)] = (
        "cpu",
    )
    stall: Annotated[float, Field(gt=0)] | None = None


class Backend(Model):
    """Where trials live and run.

    `kind: optuna` starts worker processes on this machine; `kind: ray` trains on a Ray cluster, one of this machine's
    own (`address: local`) or the one at `address` (`host:port`; `auto`: the one that this machine is part of).
    `host` holds the network: `local`, every worker; the URL of `lcsearch serve`; `ray`, an actor of the cluster;
    `auto`, one process of this machine for more than two workers, or with a GPU that none of them is given.
    `storage` is the URL of a database (a relative sqlite file stands beside the sweep file); None is study.sqlite3 in
    the run folder.
    """

    kind: Literal["optuna", "ray"] = "optuna"
    address: Annotated[str, Field(pattern=r"^(local|auto|[^\s/]+:\d+)$")] = "local"
    workers: Workers = Workers()
    storage: Annotated[str, Field(pattern=DATABASE)] | None = None
    host: Annotated[str, Field(pattern=r"^(auto|local|ray|https?://[^\s/@?#]+/?)$")] = "auto"

    @field_validator("host")
    @classmethod
    def _leads_there(cls, host: str) -> str:
        if host.startswith("http"):
            try:
                HttpLink(host, token="", ca="")
            except InvalidValue as error:
                raise expected(error.expected) from error
        return host


class Checkpoints(Model):
    """`keep`: how many paused trials keep their checkpoint; what is least likely to go on is stopped. None: all.

    `save_cost` and `resume_cost`: what a pause and going on from one cost beside training, in steps; they come out of
    `budget.steps`, and stand in the allocator's account.
    """

    keep: Count | None = None
    save_cost: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    resume_cost: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


class StopWhen(Model):
    """The sweep is over once so many more `trials`, or `steps` or `seconds` more, gain less than `gain` at most.

    How much they may gain is read from the values of the trials that have begun, see
    :func:`lcsearch.allocation.next_trials.gain_of_next`; seconds are of wall clock.
    """

    gain: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    trials: Count | None = None
    steps: Count | None = None
    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(given is not None for given in (self.trials, self.steps, self.seconds)) != 1:
            raise expected("one of trials, steps and seconds beside gain")
        return self


class Finish(Model):
    """At the sweep's end stopped trials are trained on, the likeliest to have won first, until the P(beat) of those
    that stay stopped sum to `risk` or less. They go beyond `budget.steps` and `budget.seconds`.
    """

    risk: Annotated[float, Field(ge=0, lt=1)]


class Budget(Model):
    """When the sweep is over, and what it costs.

    `trials` counts every trial begun, failed ones included until they are run again (`--resume --retry-failed`). No
    trial is begun any more once all trials together have spent `steps`, or the sweep `seconds`, or its workers `money`;
    those that run go on, with `pause` to the end of their turn; with it, where `steps` do not leave less, nothing is
    begun or resumed that cannot end in what is left of `seconds` and `money`, as far as its pace tells, which is
    rounded down, and without its start-up. Nor is one once more of them would gain too little, see `stop_when`.
    `money_per_hour` is the price of one worker's hour.
    """

    trials: Count
    steps: Count | None = None
    seconds: Annotated[float, Field(gt=0)] | None = None
    money_per_hour: Annotated[float, Field(ge=0)] | None = None
    money: Annotated[float, Field(gt=0)] | None = None
    stop_when: StopWhen | None = None

    @property
    def idle_stop_when(self) -> str:
        """That `stop_when` never ends the sweep, for it needs more trials than there are; "" where it may."""
        asked = self.stop_when
        if asked is None or asked.trials is None or self.trials > 2 * asked.trials:
            return ""
        n, most = asked.trials, (self.trials - 1) // 2
        text = f"budget.stop_when: what {n} more trial{'s' * (n > 1)} may gain is known once {2 * n} have begun, and "
        text += f"budget.trials is {self.trials}, so it never ends the sweep"
        return f"{text}. Name at most {most} in it" if most else text

    @model_validator(mode="after")
    def _priced(self) -> Self:
        if self.money is not None and not self.money_per_hour:
            raise expected("money_per_hour above 0 beside money")
        return self


class SweepFile(Model):
    """A whole sweep, defaults filled in."""

    version: Literal[1]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    objective: Objective
    metric: Annotated[str, Field(min_length=1)]
    goal: Direction
    judged: Judged = "best"
    bounds: Bounds | None = None
    step: Annotated[str, Field(min_length=1)] = "step"
    max_steps: Count
    space: Annotated[dict[str, Parameter], Field(min_length=1)]
    # the field cannot be called `schedule` in code and be clear beside a trial's Schedule value; in the file it is
    plan: SchedulePlan | None = Field(default=None, alias="schedule")
    backend: Backend = Backend()
    sampler: Sampler = TpeSamplerSpec()
    pruner: Pruner = CurvePrunerSpec()
    pause: bool = False
    allocator: AllocatorSpec | None = None  # with pause, None is the default one, see `turns`
    checkpoints: Checkpoints | None = None
    budget: Budget
    finish: Finish | None = None
    retries: Annotated[int, Field(ge=0)] = 2
    seed: Annotated[int, Field(ge=0)] = 0

    @field_validator("bounds")
    @classmethod
    def _bounds_ascend(cls, bounds: Bounds | None) -> Bounds | None:
        low, high = bounds or (None, None)
        if low is not None and high is not None and not low < high:
            raise expected("a lower bound below the upper one")
        return bounds

    @model_validator(mode="after")
    def _params_exist(self) -> Self:
        for entry in SchedulePlan.model_fields:
            value = getattr(self.plan, entry) if self.plan is not None else None
            if isinstance(value, ParamRef) and value.param not in self.space:
                raise ValueError(f"schedule.{entry}: no parameter {value.param!r} in space")
        return self

    @model_validator(mode="after")
    def _finish_knows_the_risk(self) -> Self:
        if self.finish is not None and self.pruner.kind != "curve":
            raise ValueError(f"finish: expected `pruner: {{kind: curve}}`, got pruner {self.pruner.kind}")
        if self.finish is not None and self.backend.storage is not None:
            raise ValueError("finish: expected a study of this run's own, got backend.storage; call lcsearch finish on")
        return self

    @property
    def prices(self) -> Prices:
        """What pauses and resumes cost, in steps."""
        known = self.checkpoints or Checkpoints()
        return Prices(known.save_cost, known.resume_cost)

    @property
    def turns(self) -> AllocatorSpec | None:
        """Who gives the turns where trials are paused and resumed; None where they are not."""
        return (self.allocator or AshaSpec()) if self.pause else None

    @property
    def target(self) -> Goal:
        """The goal as the forecasting rooms know it."""
        return Goal(self.metric, self.goal, float(self.max_steps), self.judged, self.bounds)
