"""The search space of a sweep file <-> Optuna's distributions, and the schedule a configuration plans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lcsearch.errors import InvalidValue
from lcsearch.schedule import Schedule
from lcsearch.sweep.spec.distributions import Choice, Distribution, Int, LogInt, LogUniform, Parameter, Uniform
from lcsearch.sweep.spec.model import ParamRef, SchedulePlan, SweepFile
from lcsearch.sweep.spec.strict import Scalar

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial

_ENTRIES = ("shape", "peak", "warmup", "decay", "floor")


def to_optuna(parameter: Distribution) -> BaseDistribution:
    """One parameter of the file as an Optuna distribution."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    match parameter:
        case Uniform(bounds=(low, high), step=step):
            return FloatDistribution(low, high, step=step)
        case LogUniform(bounds=(low, high)):
            return FloatDistribution(low, high, log=True)
        case Int(bounds=(low, high), step=step):
            return IntDistribution(low, high, step=step)
        case LogInt(bounds=(low, high)):
            return IntDistribution(low, high, log=True)
        case Choice(options=options):
            return CategoricalDistribution(options)


def from_optuna(distribution: BaseDistribution) -> Distribution:
    """The inverse of :func:`to_optuna`: `from_optuna(to_optuna(p)) == p`, up to the last point of a grid.

    Optuna lowers `high` to the last point a step reaches; that is what comes back.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    match distribution:
        case FloatDistribution(log=True):
            return LogUniform(loguniform=(distribution.low, distribution.high))
        case FloatDistribution():
            return Uniform(uniform=(distribution.low, distribution.high), step=distribution.step)
        case IntDistribution(log=True):
            return LogInt(logint=(distribution.low, distribution.high))
        case IntDistribution():
            return Int(int=(distribution.low, distribution.high), step=distribution.step)
        case CategoricalDistribution():
            return Choice(choice=tuple(distribution.choices))
        case _:
            raise InvalidValue("a float, int or categorical distribution", distribution, "from_optuna()")


def distributions(space: Mapping[str, Parameter]) -> dict[str, BaseDistribution]:
    """The parameters that vary, in the file's order; constants are no business of a sampler."""
    return {name: to_optuna(p) for name, p in space.items() if isinstance(p, Distribution)}


def suggest(trial: Trial, space: Mapping[str, Parameter]) -> dict[str, Scalar]:
    """The whole configuration of `trial`, in the file's order.

    A parameter the trial already has (a trial that is adopted after a crash) keeps its value. One whose `when` does not
    hold is left out.
    """
    params: dict[str, Scalar] = {}
    for name, parameter in space.items():
        if isinstance(parameter, Distribution) and not is_active(parameter, params):
            continue
        match parameter:
            case Uniform(bounds=(low, high), step=step):
                params[name] = trial.suggest_float(name, low, high, step=step)
            case LogUniform(bounds=(low, high)):
                params[name] = trial.suggest_float(name, low, high, log=True)
            case Int(bounds=(low, high), step=step):
                params[name] = trial.suggest_int(name, low, high, step=step)
            case LogInt(bounds=(low, high)):
                params[name] = trial.suggest_int(name, low, high, log=True)
            case Choice(options=options):
                params[name] = trial.suggest_categorical(name, options)
            case _:
                params[name] = parameter
    return params


def is_active(parameter: Distribution, params: Mapping[str, Scalar]) -> bool:
    """Whether the conditions of `parameter` hold for the parameters above it."""
    conditions = (parameter.when or {}).items()
    return all(name in params and any(is_same(params[name], value) for value in values) for name, values in conditions)


def is_same(a: Scalar, b: Scalar) -> bool:
    """Equal, and not as True equals 1: what a `when` compares."""
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def planned_schedule(sweep: SweepFile, params: Mapping[str, Scalar]) -> Schedule | None:
    """The learning-rate schedule that `params` plan; None where the file plans none.

    Raises:
        InvalidValue: a parameter drew a value that a schedule does not take (load.py checks the ranges first).
    """
    if sweep.plan is None:
        return None
    return build_schedule(sweep.plan, params, sweep.max_steps)


def build_schedule(plan: SchedulePlan, params: Mapping[str, Scalar], max_steps: int) -> Schedule:
    """The plan with each `{param: NAME}` replaced by the value of NAME."""
    entries: dict[str, Any] = {}
    for entry in _ENTRIES:
        value = getattr(plan, entry)
        entries[entry] = params[value.param] if isinstance(value, ParamRef) else value
    return Schedule(horizon=float(max_steps), **entries)
