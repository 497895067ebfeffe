"""Runs whose whole curve is known, and the task they belong to: what a replay shows a policy, one report at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lcsearch.curves import Curve, Floats
from lcsearch.errors import InvalidValue
from lcsearch.goal import Goal
from lcsearch.schedule import Schedule
from lcsearch.study import FinishedTrials, Status, Trial, judged_loss


@dataclass(frozen=True, eq=False)
class Run:
    """One training run from its first report to its last.

    Attributes:
        uid: unique in its task.
        curve: everything it reported, non-finite reports included.
        clock: (n_reports,) cost from the run's start to each report, rising, in any unit that is the same for the whole
            task (seconds, steps).
        params: its configuration.
        status: COMPLETE when it ran to the horizon; STOPPED when somebody ended it earlier, so that nobody knows how it
            would have gone on (censored); FAILED when it broke down.
        schedule: the learning rate it planned to follow, when known.

    Raises:
        InvalidValue: no report, a clock that does not rise or does not fit the curve, or a status of a live trial.
    """

    uid: str
    curve: Curve
    clock: Floats
    params: Mapping[str, Any] = field(default_factory=dict)
    status: Status = Status.COMPLETE
    schedule: Schedule | None = None

    def __post_init__(self) -> None:
        where = f"Run({self.uid!r})"
        if not self.curve.n_reports:
            raise InvalidValue("at least one report", 0, f"{where}.curve", "leave the run out")
        if self.clock.shape != (self.curve.n_reports,):
            raise InvalidValue(f"{self.curve.n_reports} times, one a report", self.clock.shape, f"{where}.clock")
        if not (np.isfinite(self.clock).all() and (np.diff(self.clock, prepend=0.0) >= 0).all()):
            raise InvalidValue("finite times >= 0 that do not fall", self.clock, f"{where}.clock")
        if not self.status.finished:
            raise InvalidValue("COMPLETE, STOPPED or FAILED", self.status.name, f"{where}.status")

    @cached_property
    def steps(self) -> list[float]:
        """Step of every report, in order, as plain numbers."""
        found: list[float] = self.curve.reports()[0].tolist()
        return found

    @cached_property
    def values(self) -> list[float]:
        """Value of every report, in order, as plain numbers; those that are not finite included."""
        found: list[float] = self.curve.reports()[1].tolist()
        return found

    @cached_property
    def cuts(self) -> list[Curve]:
        """The curve as it stood after every report: what searches over one run work out of a cut, they share."""
        return [self.curve.cut(step) for step in self.steps]

    @property
    def cost(self) -> float:
        """What the whole run cost."""
        return float(self.clock[-1])


@dataclass(frozen=True, eq=False)
class Task:
    """Runs of one objective that may be compared: a table a search can be replayed on.

    Attributes:
        name: for messages and results.
        goal: metric, direction, horizon, judged as best or final.
        runs: no uid twice.
        unit: what `Run.clock` counts: "epochs", "seconds".

    Raises:
        InvalidValue: no runs, or a uid that occurs twice.
    """

    name: str
    goal: Goal
    runs: tuple[Run, ...]
    unit: str = "steps"

    def __post_init__(self) -> None:
        uids = [run.uid for run in self.runs]
        if not uids or len(set(uids)) != len(uids):
            twice = next((uid for uid in uids if uids.count(uid) > 1), None)
            raise InvalidValue("at least one run, no uid twice", twice, f"Task({self.name!r}).runs")

    def __len__(self) -> int:
        return len(self.runs)

    @cached_property
    def judged(self) -> Floats:
        """(R,) judged loss of every whole run (lower is better); +inf for one without a finite report."""
        return np.array([judged_loss(run.curve, self.goal)[0] for run in self.runs])

    @cached_property
    def complete(self) -> NDArray[np.bool_]:
        """(R,) True where the run reached its horizon."""
        return np.array([run.status is Status.COMPLETE for run in self.runs])

    @cached_property
    def robust_range(self) -> float:
        """Robust range of judged values, all complete runs: :attr:`~lcsearch.study.FinishedTrials.robust_range`."""
        whole = [Trial(run.uid, run.curve, status=run.status) for run in self.runs if run.status is Status.COMPLETE]
        return FinishedTrials(self.goal).extend(whole).robust_range

    def order(self, seed: int) -> list[int]:
        """The runs in a random order that depends on the task's name and `seed` alone."""
        key = [seed, *self.name.encode()]
        order: list[int] = np.random.default_rng(key).permutation(len(self.runs)).tolist()
        return order

    def pick(self, rows: Sequence[int]) -> Task:
        """The task with some of its runs, in the order given."""
        return Task(self.name, self.goal, tuple(self.runs[row] for row in rows), self.unit)
