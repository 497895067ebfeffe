"""Curves: what one trial has reported so far. Immutable, numpy only."""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lcsearch.errors import InvalidValue

Floats = NDArray[np.float64]


def _frozen(array: Floats) -> Floats:
    array.setflags(write=False)
    return array


ROUNDING = 1e-12
"""A curve that moves by less, relative to its size, does not move."""
_EMPTY = _frozen(np.zeros(0))


def _empty() -> Floats:
    return _EMPTY


@dataclass(frozen=True, eq=False)
class Curve:
    """The reports of one trial: finite observations and, apart from them, non-finite events.

    Build one with :meth:`of` (any order, duplicates and NaN allowed); the constructor takes arrays that are
    already in order.

    Attributes:
        steps: (n,) strictly increasing positions on the resource axis (epochs, samples, seconds).
        values: (n,) finite metric values, in the user's own units and direction.
        event_steps: (m,) strictly increasing steps at which a NaN or an infinity was reported.
        event_values: (m,) what was reported there.
    """

    steps: Floats = field(default_factory=_empty)
    values: Floats = field(default_factory=_empty)
    event_steps: Floats = field(default_factory=_empty)
    event_values: Floats = field(default_factory=_empty)

    @classmethod
    def of(cls, steps: ArrayLike | Mapping[Any, Any], values: ArrayLike | None = None) -> Curve:
        """Sort, deduplicate and split reports into observations and events.

        Args:
            steps: (n,) steps in any order, or a mapping step -> value.
            values: (n,) values; NaN and infinities become events. At a step reported twice the first
                report counts, as in Optuna.

        Raises:
            InvalidValue: lengths differ, or a step is not finite.

        >>> Curve.of([2, 0, 1, 1], [0.3, 0.9, float("nan"), 0.5]).steps
        array([0., 2.])
        """
        if isinstance(steps, Mapping):
            if values is not None:
                raise InvalidValue("no values beside a mapping", type(values).__name__, "Curve.of(values=)")
            n = len(steps)
            s = np.fromiter(steps.keys(), np.float64, n)
            v = np.fromiter(steps.values(), np.float64, n)
        else:
            # Copies: the caller's arrays stay his own, and what he writes there later is no part of the curve.
            s = np.array(steps, np.float64).ravel()
            v = np.array([] if values is None else values, np.float64).ravel()
        if s.shape != v.shape:
            raise InvalidValue(f"{s.size} values, one a step", v.size, "Curve.of(values=)")
        if s.size == 0:
            return cls()
        # A look is held in microseconds: counting is cheaper than `all`, and steps that rise between finite ends are
        # finite themselves.
        rising = np.count_nonzero(s[1:] > s[:-1]) == s.size - 1
        if not (rising and math.isfinite(s[0]) and math.isfinite(s[-1])):
            if not np.isfinite(s).all():
                at = int(np.flatnonzero(~np.isfinite(s))[0])
                raise InvalidValue("a finite step", float(s[at]), f"Curve.of(steps=)[{at}]", "drop that report")
            s, first = np.unique(s, return_index=True)
            v = v[first]
        good = np.isfinite(v)
        if np.count_nonzero(good) == good.size:
            return cls(_frozen(s), _frozen(v))
        return cls(_frozen(s[good]), _frozen(v[good]), _frozen(s[~good]), _frozen(v[~good]))

    def __len__(self) -> int:
        """Number of finite observations."""
        return self.steps.size

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Curve) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    @cached_property
    def key(self) -> tuple[bytes, bytes, bytes, bytes]:
        """The content as bytes: equal curves have equal keys in every process."""
        return (
            self.steps.tobytes(),
            self.values.tobytes(),
            self.event_steps.tobytes(),
            self.event_values.tobytes(),
        )

    @cached_property
    def digest(self) -> str:
        """The content in 16 letters: of one curve the same in every process and storage.

        Values are taken in single precision, without the sign of a zero or the payload of a NaN: storages round.
        """
        with np.errstate(all="ignore"):
            events = np.where(np.isnan(self.event_values), np.nan, self.event_values).astype(np.float32)
            parts = (self.steps, (self.values + 0.0).astype(np.float32), self.event_steps, events)
        return hashlib.blake2b(b"|".join(part.tobytes() for part in parts), digest_size=8).hexdigest()

    @property
    def n_reports(self) -> int:
        """Observations and events together."""
        return self.steps.size + self.event_steps.size

    @property
    def first_step(self) -> float:
        """The smallest step reported, events included; +inf for an empty curve."""
        first = self.steps[0] if self.steps.size else np.inf
        return float(min(first, self.event_steps[0]) if self.event_steps.size else first)

    @property
    def last_step(self) -> float:
        """The largest step reported, events included; -inf for an empty curve."""
        last = self.steps[-1] if self.steps.size else -np.inf
        return float(max(last, self.event_steps[-1]) if self.event_steps.size else last)

    @cached_property
    def extremes(self) -> tuple[int, int]:
        """Where the lowest and the highest observation stand, the first of equal ones; of a curve that has one."""
        return int(np.argmin(self.values)), int(np.argmax(self.values))

    @property
    def n_trailing_events(self) -> int:
        """How many non-finite reports stand after the last finite observation."""
        if not self.event_steps.size:
            return 0
        last = self.steps[-1] if self.steps.size else -np.inf
        return int((self.event_steps > last).sum())

    @cached_property
    def moved(self) -> float:
        """The first step at which the value is another one than the first, but for rounding; +inf where none is."""
        return self._leaves(0)

    @cached_property
    def moved_on(self) -> float:
        """The first step at which the value is another one than the second, but for rounding; +inf where none is."""
        return self._leaves(1)

    def _leaves(self, at: int) -> float:
        steps, values = self.steps[at:], self.values[at:]
        with np.errstate(over="ignore", under="ignore"):
            away = np.abs(values - values[:1]) > ROUNDING * np.abs(values[:1])
        return float(steps[away.argmax()]) if away.any() else math.inf

    @property
    def n_moving(self) -> int:
        """Observations from the last one on that still had the first value; all of a curve that never moved."""
        return len(self) - max(int(self.steps.searchsorted(self.moved)) - 1, 0) if self.moved < math.inf else len(self)

    @property
    def still(self) -> bool:
        """Two or more observations, and all of one value."""
        return len(self) > 1 and self.moved == math.inf

    @cached_property
    def turns(self) -> tuple[int, int]:
        """How often a value is above the one before, and how often below it."""
        apart = np.diff(self.values)
        return int(np.count_nonzero(apart > 0)), int(np.count_nonzero(apart < 0))

    @cached_property
    def gaps(self) -> NDArray[np.intp]:
        """(n,) how many non-finite reports stand right before each finite observation: runs that ended in a value."""
        if not self.event_steps.size:
            return np.zeros(self.steps.size, np.intp)
        return np.bincount(self.steps.searchsorted(self.event_steps), minlength=self.steps.size + 1)[:-1]

    def cut(self, step: float) -> Curve:
        """The curve as it stood when `step` was its last report (reports at `step` included)."""
        if step >= self.last_step:
            return self
        n = int(np.searchsorted(self.steps, step, side="right"))
        m = int(np.searchsorted(self.event_steps, step, side="right"))
        return Curve(self.steps[:n], self.values[:n], self.event_steps[:m], self.event_values[:m])

    def to_last_value(self) -> Curve:
        """The curve as it stood at its last finite observation; itself when it ends there, or never had one."""
        return self.cut(float(self.steps[-1])) if len(self) else self

    def reports(self) -> tuple[Floats, Floats]:
        """All reports in step order: (steps (k,), values (k,)), events included."""
        if not self.event_steps.size:
            return self.steps, self.values
        steps = np.concatenate([self.steps, self.event_steps])
        order = np.argsort(steps, kind="stable")
        return steps[order], np.concatenate([self.values, self.event_values])[order]

    def standings(self, sign: float, best: bool) -> tuple[list[float], list[float]]:
        """Plain lists (steps, losses at them), in step order; `best`: of the best loss so far. Worked out once.

        At a report that is no value a curve stands where it stood before, at +inf before its first value. Lists and
        `bisect`: one number of one curve costs less so than by numpy.
        """
        known: dict[tuple[float, bool], tuple[list[float], list[float]]] = self._standings
        found = known.get((sign, best))
        if found is None:
            steps, losses = self.losses(sign)
            found = steps.tolist(), (np.minimum.accumulate(losses) if best and losses.size else latest(losses)).tolist()
            known[sign, best] = found
        return found

    def at(self, step: float, sign: float, *, best: bool) -> float:
        """Loss at the last finite value not after `step`, of the `best` one until then if so asked; +inf for none."""
        steps, losses = self.standings(sign, best)
        n = bisect_right(steps, step)
        return losses[n - 1] if n else math.inf

    @cached_property
    def _standings(self) -> dict[tuple[float, bool], tuple[list[float], list[float]]]:
        return {}

    def losses(self, sign: float) -> tuple[Floats, Floats]:
        """All reports in loss units (`sign` times the value, lower is better); an event counts as +inf."""
        steps, values = self.reports()
        if not self.event_steps.size:
            return steps, sign * values
        return steps, np.where(np.isfinite(values), sign * values, np.inf)


def latest(losses: Floats) -> Floats:
    """(n,) losses with +inf for events -> at every report the last value so far; +inf before the first one.

    >>> latest(np.array([np.inf, 3.0, np.inf, 2.0]))
    array([inf,  3.,  3.,  2.])
    """
    told = np.isfinite(losses)
    if np.count_nonzero(told) == told.size:
        return losses
    at = np.maximum.accumulate(np.where(told, np.arange(told.size), -1))
    return np.where(at < 0, np.inf, losses[at])
