"""Not among the best at a rung: one bracket, and several."""

from __future__ import annotations

import math
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from lcsearch.replay.baselines.rule import Bare, Said, at_least, first_at
from lcsearch.study import Snapshot, Status, Trial


@dataclass(frozen=True)
class SuccessiveHalving(Bare):
    """Stops a trial at a rung when its value there is not among the best 1/eta of all values recorded at that rung.

    optuna.pruners.SuccessiveHalvingPruner, the asynchronous form (Li et al. 2018): rung r lies at step
    min_resource * eta^(s + r). The first report at or after it that is not NaN is the trial's record there, its value
    of that moment, not its best. With n records, its own included, the trial goes on when it is at least as good as
    number max(n // eta, 1); NaN at a rung stops it.

    Records are read off the curves: of finished, stopped, failed and running trials alike. The verdict is Optuna's,
    look for look, whatever runs side by side, as long as no single report passes two rungs. Where one does (first
    report at step 10, rungs at 3 and 9), a trial stopped there has a record at the first rung it failed and at none
    after it; which that was is worked out from the trials before it in the bank: exact when trials ran one after the
    other. `min_resource="auto"` is left out.

    Attributes:
        min_resource: step of the first rung when s = 0, >= 1.
        reduction_factor: eta, >= 2.
        min_early_stopping_rate: s, >= 0.
        bootstrap_count: a rung's first trials, so many, are stopped there whatever their value.
    """

    min_resource: int = 1
    reduction_factor: int = 4
    min_early_stopping_rate: int = 0
    bootstrap_count: int = 0

    def __post_init__(self) -> None:
        at_least(self.min_resource, 1, "SuccessiveHalving.min_resource")
        at_least(self.reduction_factor, 2, "SuccessiveHalving.reduction_factor")
        at_least(self.min_early_stopping_rate, 0, "SuccessiveHalving.min_early_stopping_rate")
        at_least(self.bootstrap_count, 0, "SuccessiveHalving.bootstrap_count")

    @property
    def name(self) -> str:
        """ "sha"."""
        return "sha"

    def rungs(self, step: float) -> list[float]:
        """Steps of the rungs up to `step`, rising."""
        found: list[float] = []
        rung = self.min_resource * self.reduction_factor**self.min_early_stopping_rate
        while rung <= step:
            found.append(rung)
            rung *= self.reduction_factor
        return found

    def says(self, snapshot: Snapshot, trial: Trial, since: float) -> Said:
        """Judge the rungs passed since the previous look."""
        return self.among((*snapshot.bank, *snapshot.live), snapshot.goal.sign, trial, since)

    def among(self, trials: Iterable[Trial], sign: float, trial: Trial, since: float) -> Said:
        """Judge the rungs passed since the previous look, among these trials; finished ones first, in their order."""
        curve = trial.curve
        rungs = self.rungs(curve.last_step)
        own = first_at(curve, rungs)
        done = sum(step <= since for step, _ in own)
        if done == len(rungs):
            return Said(False, "between rungs")
        records = self._records((t for t in trials if t.uid != trial.uid), sign, rungs)
        why = ""
        for rung, recorded, (_, value) in zip(rungs[done:], records[done:], own[done:], strict=False):
            goes_on, least = self._promoted(value, recorded, sign)
            enough = f"{least:.6g} goes on" if len(recorded) >= self.bootstrap_count else "too few to compare"
            why = f"{value:.6g} at the rung of step {rung:g}, {enough}, {len(recorded) + 1} records"
            if not goes_on:
                return Said(True, why)
        if len(own) < len(rungs):
            return Said(True, f"NaN at the rung of step {rungs[len(own)]:g}")
        return Said(False, why)

    def _promoted(self, value: float, others: Sequence[float], sign: float) -> tuple[bool, float]:
        """Whether a value goes on beside the others recorded at its rung; and what would just do so."""
        ranked = sorted(sign * v for v in (*others, value))
        least = ranked[max(len(ranked) // self.reduction_factor, 1) - 1]
        return len(ranked) > self.bootstrap_count and sign * value <= least, sign * least

    def _records(self, trials: Iterable[Trial], sign: float, rungs: Sequence[float]) -> list[list[float]]:
        """Values recorded at each rung."""
        records: list[list[float]] = [[] for _ in rungs]
        for trial in trials:
            curve = trial.curve
            ended = curve.last_step if trial.status is Status.STOPPED else math.inf
            for recorded, (step, value) in zip(records, first_at(curve, rungs), strict=False):
                failed = step == ended and not self._promoted(value, recorded, sign)[0]
                recorded.append(value)
                if failed:
                    break
        return records


@dataclass(frozen=True)
class Hyperband(Bare):
    """Successive halving in brackets that begin at later and later rungs (Li et al. 2017).

    optuna.pruners.HyperbandPruner: floor(log_eta(max_resource / min_resource)) + 1 = B brackets; bracket b is
    successive halving with s = b among its own trials. A trial's bracket follows from crc32("<study>_<uid>"), brackets
    having shares in proportion to ceil(B eta^(B - 1 - b) / (B - b)). As faithful as :class:`SuccessiveHalving`, when
    `Snapshot.study` and the uids are Optuna's study name and trial numbers. `max_resource="auto"` is left out.

    Attributes:
        max_resource: the step at which trials end.
        min_resource: step of the first bracket's first rung, >= 1.
        reduction_factor: eta, >= 2.
        bootstrap_count: see :class:`SuccessiveHalving`.
    """

    max_resource: int
    min_resource: int = 1
    reduction_factor: int = 3
    bootstrap_count: int = 0

    def __post_init__(self) -> None:
        at_least(self.min_resource, 1, "Hyperband.min_resource")
        at_least(self.max_resource, self.min_resource, "Hyperband.max_resource")
        at_least(self.reduction_factor, 2, "Hyperband.reduction_factor")
        at_least(self.bootstrap_count, 0, "Hyperband.bootstrap_count")

    @property
    def name(self) -> str:
        """ "hyperband"."""
        return "hyperband"

    @cached_property
    def brackets(self) -> tuple[SuccessiveHalving, ...]:
        """One rule a bracket, the one of the earliest rungs first."""
        # As Optuna computes it, rounding included: log(243, 3) is 4.999.
        n = math.floor(math.log(self.max_resource / self.min_resource, self.reduction_factor)) + 1
        return tuple(
            SuccessiveHalving(self.min_resource, self.reduction_factor, b, self.bootstrap_count) for b in range(n)
        )

    @cached_property
    def shares(self) -> tuple[int, ...]:
        """How many of sum(shares) trials go to each bracket."""
        n = len(self.brackets)
        return tuple(math.ceil(n * self.reduction_factor ** (n - 1 - b) / (n - b)) for b in range(n))

    def bracket(self, study: str, uid: str) -> int:
        """Index of a trial's bracket: the same in every process."""
        at = zlib.crc32(f"{study}_{uid}".encode()) % self._bounds[-1]
        return bisect_right(self._bounds, at)

    @cached_property
    def _bounds(self) -> list[int]:
        return list(accumulate(self.shares))

    def says(self, snapshot: Snapshot, trial: Trial, since: float) -> Said:
        """Judge the rungs of the trial's bracket passed since the previous look."""
        mine = self.bracket(snapshot.study, trial.uid)
        beside = (t for t in (*snapshot.bank, *snapshot.live) if self.bracket(snapshot.study, t.uid) == mine)
        stop, why = self.brackets[mine].among(beside, snapshot.goal.sign, trial, since)
        return Said(stop, f"bracket {mine}, {why}")
