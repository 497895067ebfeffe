"""The ceiling and its spoiled brother: a forecaster that knows every run to its end, and one that is wrong on purpose.

Behind the same gates as any other forecaster, the oracle shows what the gates alone leave to be saved; flipped for a
share of the trials it shows what a wrong forecast costs (consistent, robust, smooth).
"""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from lcsearch.allocation.rungs import losses_seen
from lcsearch.data.task import Run, Task
from lcsearch.errors import InvalidValue, is_finite_number
from lcsearch.forecast.contract import Absent, Forecaster, Forecasts, Kind, Query
from lcsearch.stopping.gates import target_of
from lcsearch.stopping.policy import Policy
from lcsearch.study import Snapshot, Status


@dataclass(frozen=True, eq=False)
class Oracle:
    """Knows how every run of a task goes on: an atom at the truth. Runs are found by the trial's uid.

    "best_by" is the best finite report up to and including the step asked about, "value" and "latent" the latest
    finite one, as :func:`~lcsearch.study.judged_loss` has it: of a run that blows up at the end, the last value before.
    A run keeps its last value beyond its last report, one that FAILED too: what it reported is all there will ever be.

    Absent: UNSUPPORTED for a trial that is no run of the task, and beyond the last report of a STOPPED run, which
    somebody ended, so that nobody knows how it would have gone on; NONFINITE where the truth is not finite (such a
    trial is for the divergence rule). Unlike other forecasters it also answers for a curve that has nothing finite yet.

    Attributes:
        task: the runs.
    """

    task: Task

    @property
    def name(self) -> str:
        """ "oracle"."""
        return "oracle"

    @cached_property
    def version(self) -> str:
        """Changes with the task."""
        seen = 0
        for run in self.task.runs:
            for part in (run.uid.encode(), run.status.name.encode(), *run.curve.key):
                seen = zlib.crc32(part, seen)
        return f"1-{seen:08x}"

    @cached_property
    def _runs(self) -> dict[str, Run]:
        return {run.uid: run for run in self.task.runs}

    def _truth(self, uid: str, kind: Kind, step: float, sign: float) -> float | Absent:
        """The loss a run will have reached at a step."""
        run = self._runs.get(uid)
        if run is None or (run.status is Status.STOPPED and step > run.curve.last_step):
            return Absent.UNSUPPORTED
        loss = run.curve.at(step, sign, best=kind == "best_by")
        return loss if math.isfinite(loss) else Absent.NONFINITE

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        """One atom a query, in the order of the queries."""
        sign = snapshot.goal.sign
        truths = [self._truth(trial.uid, kind, step, sign) for trial, kind, step in queries]
        absent = tuple(truth if isinstance(truth, Absent) else None for truth in truths)
        knots = np.array([[np.nan if isinstance(truth, Absent) else truth] for truth in truths]).reshape(-1, 1)
        # One knot with nothing beyond it: all mass lies there.
        tails = np.where(np.isnan(knots), np.nan, np.zeros((len(queries), 2)))
        return Forecasts(knots, np.where(np.isnan(knots), np.nan, 1.0), tails, sign, absent, f"oracle/{self.version}")


@dataclass(frozen=True, eq=False)
class Flipped:
    """Another forecaster whose P(beat) is turned into 1 - P(beat) for a share of the trials, always the same ones.

    A trial is flipped when a hash of (key, uid), uniform on [0, 1), lies below `share`: at every look alike, and of two
    shares the larger one flips all that the smaller one does. The answer has two atoms, mass 1 - P just better than the
    target and P just worse, apart from it by the study's spread; with `seen`, by the distance to the median of what
    trials have. Absent answers stay absent, and without an incumbent there is nothing to flip.

    Attributes:
        inner: who is asked.
        share: of the trials to flip, in [0, 1].
        key: seed; other keys flip others.
        policy: of the session this forecaster serves; its epsilon says what to beat means.
        seen: what to beat is the best value that any trial has, as allocators ask, not the incumbent's.

    Raises:
        InvalidValue: a share outside [0, 1].
    """

    inner: Forecaster
    share: float
    key: tuple[int, ...] = (0,)
    policy: Policy = field(default_factory=Policy)
    seen: bool = False

    def __post_init__(self) -> None:
        if not is_finite_number(self.share) or not 0.0 <= self.share <= 1.0:
            raise InvalidValue("a number in [0, 1]", self.share, "Flipped.share")

    @property
    def name(self) -> str:
        """The inner one's, and that it is flipped: "oracle-flipped"."""
        return f"{self.inner.name}-flipped"

    @property
    def version(self) -> str:
        """Changes with the inner one, the share, the key and epsilon."""
        key = ".".join(map(str, self.key))
        return f"{self.inner.version}-{self.share:g}-{key}-{self.policy.epsilon:g}"

    def flips(self, uid: str) -> bool:
        """Whether this trial's answers are turned round."""
        text = ".".join(map(str, self.key)) + ":" + uid
        drawn = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
        return drawn < self.share * 2.0**64

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        """The inner one's answers, turned round where the trial is flipped."""
        told = self.inner.forecast(snapshot, queries)
        rows = [i for i, query in enumerate(queries) if told.absent[i] is None and self.flips(query.trial.uid)]
        if not rows or (snapshot.incumbent is None and not self.seen):
            return told
        losses = losses_seen(snapshot) if self.seen else None
        if losses is not None and not losses.size:
            return told
        target = target_of(self.policy, snapshot) if losses is None else float(losses[0])
        p = np.clip(told.p_beat(told.sign * target)[rows], 0.0, 1.0)
        spread = snapshot.robust_range if losses is None else float(np.median(losses)) - target
        apart = max(spread, 1e-6 * abs(target)) or 1.0
        width = max(told.knots.shape[1], 4)
        pad = ((0, 0), (0, width - told.knots.shape[1]))
        knots, levels = (np.pad(a, pad, mode="edge") for a in (told.knots, told.levels))
        tails = told.tails.copy()
        knots[rows] = target + apart
        knots[rows, :2] = target - apart
        levels[rows] = 1.0
        levels[rows, 0] = 0.0
        levels[rows, 1:3] = 1.0 - p[:, None]
        tails[rows] = 0.0
        return Forecasts(knots, levels, tails, told.sign, told.absent, f"{self.name}/{self.version}")
