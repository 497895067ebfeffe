"""The sweep file's model: what each key is, what it takes, what it is when left out.

Unknown keys are refused everywhere and types are strict ("40" is not 40): a typing error in a sweep file costs
hours, so nothing is guessed. Messages are written in load.py; here stand only the rules.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Self, TypeGuard

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from lcsearch.allocation.contract import Prices
from lcsearch.errors import InvalidValue
from lcsearch.goal import Bounds, Direction, Goal, Judged
from lcsearch.host.link import HttpLink
from lcsearch.host.registry import NAMES
from lcsearch.schedule import Shape

Scalar = bool | int | float | str | None

MOST = 10**15  # beyond it, some whole numbers are no floats, and studies keep floats
Count = Annotated[int, Field(ge=1, le=MOST)]
Whole = Annotated[int, Field(ge=-MOST, le=MOST)]
Range = tuple[float, float]
IntRange = tuple[Whole, Whole]


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


DATABASE = r"^(sqlite|postgres|postgresql|mysql|mariadb|oracle|mssql)(\+\w+)?://"
SHELL = ("&&", "||", ";", "|", ">", ">>", "<", "2>", "2>&1", "&")
PYTHON_SPEC = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"


def _words(command: Any) -> Any:
    try:
        parts = shlex.split(command) if isinstance(command, str) else command
    except ValueError as error:
        raise expected("a command line whose quotes are closed") from error
    if isinstance(command, str) and (shell := [part for part in parts or () if part in SHELL]):
        raise expected(f"one program with its arguments, for no shell reads {shell[0]} (to have one: bash -c '...')")
    if parts is None or (isinstance(parts, (list, tuple)) and parts):
        return parts if parts is None else tuple(parts)
    raise expected("a program with its arguments, one line or a list")


# For editors: what the validators before the types let in.
_WORDS_SCHEMA = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
        {"type": "null"},
    ],
    "default": None,
}
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


class Objective(Model):
    """What is trained: a Python function, or a program.

    `python: "module:function"` stands beside the sweep file. `command:` is a program with its arguments, a list or one
    line; `{lr}` in it becomes the trial's value of `lr`, `{max_steps}`, `{seed}`, `{number}`, `{device}` and
    `{checkpoint_dir}` what they say; they stand in LCSEARCH_MAX_STEPS and so on as well, all parameters as JSON in
    LCSEARCH_PARAMS. No shell reads them: a value is the argument, or the part of one, that it stands for, whatever it
    contains. The program reports by printing lines on its standard output, with the file's own names of step and
    metric: `epoch=3 val_loss=0.52`, `Epoch 3: val_loss: 0.52`, or JSON, `{"epoch": 3, "val_loss": 0.52}`. `pattern`
    takes other lines, a regular expression with the groups `step` and `value`, as in
    `'it (?P<step>\\d+) err (?P<value>\\S+)'`; a line with the step alone counts for the next one with a value.

    To end the program early, because its trial is stopped or the sweep interrupted, it is sent SIGTERM, and SIGKILL
    after `grace` seconds; so is what it has started and left behind, whenever it ends.
    """

    python: Annotated[str, Field(pattern=PYTHON_SPEC)] | None = None
    command: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...] | None, BeforeValidator(_words), WithJsonSchema(_WORDS_SCHEMA)
    ] = None
    grace: Annotated[float, Field(ge=0)] = 10.0
    pattern: Annotated[str, Field(min_length=1)] | None = None

    @field_validator("pattern")
    @classmethod
    def _finds_both(cls, pattern: str | None) -> str | None:
        try:
            named = set() if pattern is None else set(re.compile(pattern).groupindex)
        except (re.error, RecursionError, OverflowError) as error:
            raise expected(f"a regular expression ({error})") from error
        if pattern is not None and not {"step", "value"} <= named:
            raise expected("a regular expression with the groups (?P<step>...) and (?P<value>...)")
        return pattern

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.python is None) == (self.command is None):
            raise expected("one of python and command")
        return self


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


class ParamRef(Model):
    """`{param: NAME}`: the value a trial drew for NAME."""

    param: str


def _by_kind(kinds: tuple[str, ...], default: str, prefix: str = "") -> Callable[[Any], str | None]:
    """Tags by the key `kind`; a prefix where others have a kind of that name: "hyperband" is a pruner, too."""

    def tag(value: Any) -> str | None:
        kind = value.get("kind", default) if isinstance(value, Mapping) else getattr(value, "kind", default)
        return f"<{prefix}{kind}>" if kind in kinds else None

    return tag


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
    Discriminator(_by_kind(SAMPLERS, "tpe", "sampler ")),
]


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
    Discriminator(_by_kind(PRUNERS, "curve")),
]


Share = Annotated[float, Field(gt=0, le=1)]
_Arms = Annotated[int, Field(ge=1)] | None


class _Rungs(Model):
    first: Share = 0.02
    eta: Annotated[float, Field(ge=2)] = 3.0


class GoingRateSpec(_Rungs):
    """Promotions by value that must pay better, by the forecast, than a new trial does."""

    kind: Literal["going-rate"]
    kappa: Annotated[float, Field(ge=0)] = 1.0
    startup: Annotated[float, Field(ge=0, le=1)] = 0.06


class AshaSpec(_Rungs):
    """Promotions by value: the best 1 / eta of every rung."""

    kind: Literal["asha"] = "asha"


class AsyncHyperbandSpec(_Rungs):
    """Promotions by value in brackets that begin at different rungs."""

    kind: Literal["hyperband"]
    n_brackets: _Arms = None


class HalvingSpec(_Rungs):
    """Successive halving of `n_arms` trials at a time (None: of all)."""

    kind: Literal["halving"]
    n_arms: _Arms = None


class UniformSpec(Model):
    """All trials in turn, a `quantum` (a share of max_steps) each."""

    kind: Literal["uniform"]
    n_arms: _Arms = None
    quantum: Share = 0.1


class GreedySpec(Model):
    """Where the forecast gain for a step is largest."""

    kind: Literal["greedy"]
    quantum: Share = 0.1
    gain: Literal["improvement", "p_beat"] = "improvement"
    n_startup_trials: Annotated[int, Field(ge=2)] = 2
    explore: Annotated[float, Field(ge=0, le=1)] = 0.0
    divergence_reports: Annotated[int, Field(ge=1)] = 3


class CurriculumSpec(_Rungs):
    """What allocators share that draw among forecast trials and new ones."""

    floor: Annotated[float, Field(ge=0, le=1)] = 0.25
    n_asked: Count = 16


class _Bandit(CurriculumSpec):
    groups: Annotated[str, Field(min_length=1)] = "rung"
    n_regions: Annotated[int, Field(ge=2)] = 3


class SecSpec(_Bandit):
    """Groups of trials by what turns in them have changed of P(beat) lately, drawn by softmax."""

    kind: Literal["sec"]
    alpha: Share = 0.5
    temperature: Annotated[float, Field(gt=0)] = 0.4


class DumpSpec(_Bandit):
    """The same with a bonus for groups that are seldom drawn."""

    kind: Literal["dump"]
    window: Count = 50
    temperature: Annotated[float, Field(gt=0)] = 0.1


class AlpGmmSpec(CurriculumSpec):
    """Regions of the space, of a mixture of Gaussians, by how much P(beat) differs there between neighbours."""

    kind: Literal["alp-gmm"]
    uniform: Annotated[float, Field(ge=0, le=1)] = 0.2
    refit: Annotated[int, Field(ge=10, le=120)] = 20


class UncertainSpec(CurriculumSpec):
    """Where P(beat) is nearest to 1/2, for a unit of cost."""

    kind: Literal["uncertain"]


class TopTwoSpec(CurriculumSpec):
    """Top-two Thompson sampling of the forecasts."""

    kind: Literal["top-two"]
    beta: Share = 0.5


class MfpiSpec(CurriculumSpec):
    """P(improvement) within a random turn, by a random amount."""

    kind: Literal["mfpi"]


class PandoraSpec(CurriculumSpec):
    """The lowest reservation value: what a trial is worth beyond what it costs."""

    kind: Literal["pandora"]


class RobustSpec(_Rungs):
    """Another one's moves while those that did not pay cost little beside the rest; else ASHA's."""

    kind: Literal["robust"]
    excess: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.25
    rule: Literal["pandora", "mfpi", "top-two", "uncertain"] = "pandora"
    n_asked: Count = 16


ALLOCATORS = (
    *("asha", "going-rate", "hyperband", "halving", "uniform", "greedy"),
    *("sec", "dump", "alp-gmm", "uncertain", "top-two", "mfpi", "pandora", "robust"),
)
FORECASTING = ("going-rate", "greedy", "sec", "dump", "alp-gmm", "uncertain", "top-two", "mfpi", "pandora", "robust")
"""Those that ask the forecasters."""


AllocatorSpec = Annotated[
    Annotated[GoingRateSpec, Tag("<allocator going-rate>")]
    | Annotated[AshaSpec, Tag("<allocator asha>")]
    | Annotated[AsyncHyperbandSpec, Tag("<allocator hyperband>")]
    | Annotated[HalvingSpec, Tag("<allocator halving>")]
    | Annotated[UniformSpec, Tag("<allocator uniform>")]
    | Annotated[GreedySpec, Tag("<allocator greedy>")]
    | Annotated[SecSpec, Tag("<allocator sec>")]
    | Annotated[DumpSpec, Tag("<allocator dump>")]
    | Annotated[AlpGmmSpec, Tag("<allocator alp-gmm>")]
    | Annotated[UncertainSpec, Tag("<allocator uncertain>")]
    | Annotated[TopTwoSpec, Tag("<allocator top-two>")]
    | Annotated[MfpiSpec, Tag("<allocator mfpi>")]
    | Annotated[PandoraSpec, Tag("<allocator pandora>")]
    | Annotated[RobustSpec, Tag("<allocator robust>")],
    Discriminator(_by_kind(ALLOCATORS, "asha", "allocator ")),
]


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
