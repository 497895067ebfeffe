"""Below the cutoff of a rung, as Ray Tune has it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lcsearch.curves import Curve
from lcsearch.errors import InvalidValue, is_finite_number
from lcsearch.replay.baselines.rule import Bare, Said, percentile
from lcsearch.study import Snapshot, Status, Trial


@dataclass(frozen=True)
class Asha(Bare):
    """Stops a trial at a rung when its value is worse than the best 1/eta of the values recorded there before.

    ray.tune.schedulers.ASHAScheduler with one bracket, the stopping variant: rungs at grace_period * eta^k up to max_t.
    A report is recorded at the highest rung at or below its step that has no record of this trial yet (after a jump
    over a rung, the next report goes to the one jumped over). The cutoff is the (1 - 1/eta) percentile, interpolated,
    of the rewards (sign turned so that higher is better) recorded by others, the trial's own not among them; the first
    one at a rung always goes on. NaN is recorded, counts for nothing, and never stops.

    Which reports a trial recorded depends on its own curve alone, so the verdict is Ray's, look for look, whatever
    runs side by side. A trial's end hands its last report in once more, as Tune does; a failure does not. At max_t Ray
    says STOP, by which it means done: here the trial just ends.

    Attributes:
        max_t: the step at which trials end.
        grace_period: step of the first rung.
        reduction_factor: eta, > 1.
    """

    max_t: float
    grace_period: float = 1
    reduction_factor: float = 4

    def __post_init__(self) -> None:
        knobs = (self.max_t, self.grace_period, self.reduction_factor)
        if not all(map(is_finite_number, knobs)) or not (
            0 < self.grace_period <= self.max_t and self.reduction_factor > 1
        ):
            expected = "0 < grace_period <= max_t and reduction_factor > 1"
            raise InvalidValue(expected, knobs, "Asha(max_t, grace_period, reduction_factor)")

    @property
    def name(self) -> str:
        """ "asha"."""
        return "asha"

    @cached_property
    def rungs(self) -> tuple[float, ...]:
        """Steps of the rungs, falling."""
        # As Ray computes it, rounding included.
        n = int(np.log(self.max_t / self.grace_period) / np.log(self.reduction_factor) + 1)
        return tuple(self.grace_period * self.reduction_factor**k for k in reversed(range(n)))

    def _records(self, curve: Curve, *, ended: bool) -> dict[float, tuple[float, float]]:
        """Rung -> (step, value) that a trial recorded there."""
        steps, values = curve.reports()
        every = list(zip(steps.tolist(), values.tolist(), strict=True))
        told = [(step, value) for step, value in every if step < self.max_t]
        if ended:
            told += every[-1:]
        found: dict[float, tuple[float, float]] = {}
        for step, value in told:
            for rung in self.rungs:
                if step >= rung and rung not in found:
                    found[rung] = step, value
                    break
        return found

    def says(self, snapshot: Snapshot, trial: Trial, since: float) -> Said:
        """Judge the rungs recorded at since the previous look."""
        sign = snapshot.goal.sign
        new = {r: v for r, (s, v) in self._records(trial.curve, ended=False).items() if s > since}
        if not new:
            return Said(False, "max_t is reached" if trial.curve.last_step >= self.max_t else "between rungs")
        rewards: dict[float, list[float]] = {rung: [] for rung in new}
        for other in (*snapshot.bank, *snapshot.live):
            if other.uid == trial.uid:
                continue
            ended = other.status in (Status.COMPLETE, Status.STOPPED)
            for rung, (_, value) in self._records(other.curve, ended=ended).items():
                if rung in rewards:
                    rewards[rung].append(-sign * value)
        why = ""
        for rung, value in new.items():
            cutoff = -sign * percentile(rewards[rung], (1 - 1 / self.reduction_factor) * 100)
            why = f"{value:.6g} at the rung of step {rung:g}, cutoff {cutoff:.6g} of {len(rewards[rung])} records"
            if -sign * value < -sign * cutoff:
                return Said(True, why)
        return Said(False, why)
