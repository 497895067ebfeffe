"""Policies by name, as people type them: `curve`, `curve:threshold=0.02,forecasters=parametric+rank-gap`, `median`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from lcsearch.data.tables import hint
from lcsearch.data.task import Task
from lcsearch.errors import InvalidValue
from lcsearch.forecast.contract import Forecaster
from lcsearch.host.registry import default, resolve_forecasters
from lcsearch.replay.baselines import Asha, Hyperband, Median, Never, Patience, SuccessiveHalving
from lcsearch.replay.oracle import Oracle
from lcsearch.replay.prefetching import Memo, PrefetchingForecaster
from lcsearch.replay.stopper import Stopper
from lcsearch.session import Session
from lcsearch.stopping.policy import Policy

RULES: dict[str, tuple[type[Any], Callable[[Task], dict[str, Any]]]] = {
    "none": (Never, lambda task: {}),
    "patience": (Patience, lambda task: {"patience": 5}),
    "median": (Median, lambda task: {}),
    "sha": (SuccessiveHalving, lambda task: {"min_resource": _first(task)}),
    "hyperband": (
        Hyperband,
        lambda task: {"max_resource": _last(task), "min_resource": min(_first(task), _last(task))},
    ),
    "asha": (Asha, lambda task: {"max_t": task.goal.horizon, "grace_period": min(_first(task), task.goal.horizon)}),
}
NAMES = ("curve", "oracle", *RULES)


def _first(task: Task) -> int:
    """Where rungs begin unless somebody says otherwise: at the first report."""
    return max(1, round(min(run.steps[0] for run in task.runs)))


def _last(task: Task) -> int:
    return max(1, round(task.goal.horizon))


class Shared:
    """Forecasters by name, each made once, and what each has answered on one task."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[Forecaster, Memo]] = {}

    def of(self, name: str) -> tuple[Forecaster, Memo]:
        """The forecaster of that name and its memo."""
        if name not in self._made:
            self._made[name] = resolve_forecasters(name)[0], {}
        return self._made[name]

    def forget(self) -> None:
        """What they have answered, not the forecasters."""
        self._made = {name: (forecaster, {}) for name, (forecaster, _) in self._made.items()}


@dataclass(frozen=True)
class PolicySpec:
    """A policy that takes part in a replay.

    Attributes:
        name: as it was typed.
        knobs: what was set beside the name.
        forecasters: who forecasts; empty for a rule of the field.
    """

    name: str
    knobs: tuple[tuple[str, Any], ...] = ()
    forecasters: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """One of NAMES."""
        return self.name.partition(":")[0]

    @property
    def policy(self) -> Policy | None:
        """The knobs of production's rule; None for a rule of the field."""
        return Policy(**dict(self.knobs)) if self.forecasters else None

    def at(self, threshold: float) -> PolicySpec:
        """The same with another threshold.

        Raises:
            InvalidValue: a rule of the field has none.
        """
        if not self.forecasters:
            raise InvalidValue("a policy with a threshold (curve, oracle)", self.name, "threshold")
        knobs = {**dict(self.knobs), "threshold": threshold}
        return replace(self, knobs=tuple(knobs.items()))

    def make(self, task: Task, shared: Shared | None = None, *, ahead: bool = True) -> Stopper:
        """A fresh one for one search over the task.

        Args:
            task: the runs.
            shared: forecasters and their answers, shared with other searches over the task, which then wait for each
                other, see :func:`~lcsearch.replay.simulator.simulate_all`; None: none are.
            ahead: forecasts are made in batches and remembered, see
                :class:`~lcsearch.replay.prefetching.PrefetchingForecaster`; False where the time of a look is measured
                (`World.latency=None`).
        """
        if self.policy is None:
            rule, defaults = RULES[self.kind]
            made: Stopper = rule(**{**defaults(task), **dict(self.knobs)})
            return made
        heard: list[Forecaster] = []
        for name in self.forecasters:
            if name == "oracle":
                heard.append(Oracle(task))
                continue
            if shared is not None:
                told, memo = shared.of(name)
                heard.append(PrefetchingForecaster(told, task, memo, waits=True, policy=self.policy))
            else:
                told = resolve_forecasters(name)[0]
                heard.append(PrefetchingForecaster(told, task, policy=self.policy) if ahead else told)
        return session_for(self.policy, heard)


def session_for(policy: Policy, heard: Sequence[Forecaster]) -> Session:
    """Production's session for a replay: no deadline, for the clock stands still while it decides."""
    return Session(policy, heard, deadline=math.inf, clock=lambda: 0.0)


def policy_spec(text: str) -> PolicySpec:
    """Read NAME or NAME:KEY=VALUE,...

    Raises:
        InvalidValue: an unknown name or key, or a value that does not fit; a rule of the field reads its values when it
            is made for a task.
    """
    kind, _, rest = text.partition(":")
    if kind not in NAMES:
        raise InvalidValue(f"one of {', '.join(NAMES)}", text, "policy", hint(kind, NAMES))
    knobs: dict[str, Any] = {}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        if not equals:
            raise InvalidValue("KEY=VALUE after the colon", item, f"policy {text!r}")
        if (key := key.strip()) in knobs:
            raise InvalidValue("every key once", key, f"policy {text!r}")
        knobs[key] = _plain(value.strip())
    forecasters: tuple[str, ...] = ()
    if kind == "curve":
        if "opinions" in knobs and "forecasters" not in knobs:  # its name in an earlier version
            knobs["forecasters"] = knobs.pop("opinions")
        forecasters = tuple(str(knobs.pop("forecasters", "+".join(f.name for f in default()))).split("+"))
        resolve_forecasters(forecasters)  # names what is wrong
    elif kind == "oracle":
        forecasters = ("oracle",)
    known = [field.name for field in fields(Policy if forecasters else RULES[kind][0])]
    known += ["forecasters"] if kind == "curve" else []
    for key in knobs:
        if key not in known:
            expected = f"one of {', '.join(known)}" if known else "no key"
            raise InvalidValue(expected, key, f"policy {text!r}", hint(key, known))
    found = PolicySpec(text, tuple(knobs.items()), forecasters)
    if forecasters:
        Policy(**knobs)
    return found


def _plain(text: str) -> Any:
    """A number where it is one."""
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return None if text in ("none", "None") else text
