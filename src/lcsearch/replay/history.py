"""What became of every run of a replayed search, and the figures it is judged by.

Losses are `goal.sign * value`, lower is better; costs are in the task's unit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from lcsearch.data.task import Task
from lcsearch.stopping.decision import Decision
from lcsearch.stopping.policy import Policy
from lcsearch.stopping.rules import epsilon_of
from lcsearch.stopping.verdict import Reason
from lcsearch.study import Status, judged_loss

NEAR = Policy().epsilon
"""Share of the study's robust range within which two judged values are as good as each other; one for all policies."""


@dataclass(frozen=True)
class RunOutcome:
    """One run in one search.

    Attributes:
        uid, row: which run of the task.
        status: COMPLETE, STOPPED or FAILED; RUNNING or PAUSED when the budget was spent first.
        shown: reports that were shown.
        step: the last of them, -inf without one.
        cost: what they cost.
        begun, ended: times of the virtual clock; None while it had not ended.
        stop: the decision that stopped it; None for one that ended by itself, or where the allocator gave it up.
        pauses: how often it was paused.
        place: how many had ended before it; of those that ended at one time, it tells who was first.
    """

    uid: str
    row: int
    status: Status
    shown: int
    step: float
    cost: float
    begun: float
    ended: float | None
    stop: Decision | None = None
    pauses: int = 0
    place: int | None = None


@dataclass(frozen=True, eq=False)
class History:
    """A replayed search.

    Attributes:
        task: what was searched.
        lives: every run that was begun, in that order.
        trace: (time, cost spent, loss) at every improvement of the best finite value; a final value counts at its
            horizon. What other workers have under way is spent.
        spent: cost of all workers, waiting for verdicts and checkpoints included; never more than the budget.
        time: the virtual clock at the end.
        reasons: looks by what held or decided them.
    """

    task: Task
    lives: tuple[RunOutcome, ...]
    trace: tuple[tuple[float, float, float], ...]
    spent: float
    time: float
    reasons: Mapping[Reason, int]

    @property
    def stopped(self) -> list[RunOutcome]:
        """Runs that a verdict stopped."""
        return [life for life in self.lives if life.stop is not None and life.status is Status.STOPPED]

    @property
    def again(self) -> list[RunOutcome]:
        """Of these the ones that had been stopped there already, when they were really run: nothing is saved by it."""
        runs = self.task.runs
        return [life for life in self.stopped if life.shown == len(runs[life.row].steps)]

    @property
    def full_cost(self) -> float:
        """What the runs that were begun would have cost, each to its end."""
        return sum(self.task.runs[life.row].cost for life in self.lives)

    def known(self, life: RunOutcome) -> bool:
        """Whether it is on record how the run would have ended: it reached its horizon when it was really run."""
        return bool(self.task.complete[life.row])

    def lost(self, top: int = 1) -> list[RunOutcome]:
        """Runs among the `top` best of those begun that a verdict stopped before they had their judged value.

        A run stopped after its best value lost nothing when the best is judged. Ties with the worst of the top count
        as among them only as far as `top` goes, the earlier run first. Censored runs are no candidates: nobody knows.
        """
        losses, stopped = self.task.judged, {life.uid for life in self.stopped}
        ranked = sorted((life for life in self.lives if self.known(life)), key=lambda life: float(losses[life.row]))
        return [life for life in ranked[:top] if life.uid in stopped and self.shown_loss(life) > losses[life.row]]

    def found(self) -> float:
        """Best judged loss that was shown, of runs whose end is known; +inf for none."""
        return min((self.shown_loss(life) for life in self.lives if self.known(life)), default=math.inf)

    def missed(self, share: float = NEAR) -> bool:
        """Whether the best found is worse than the best of the runs begun, by more than epsilon.

        Epsilon is `share` of the robust range of all complete runs, the margin by which production says that one trial
        beats another. `lost(1)` is strict: it also counts a best run that was stopped when one as good had been kept.
        """
        best = min((float(self.task.judged[life.row]) for life in self.lives if self.known(life)), default=math.inf)
        return self.found() > best + epsilon_of(self.task.robust_range, share)

    def to_beat(self, life: RunOutcome) -> float:
        """Best judged loss among runs that were COMPLETE when this one was stopped; +inf for none.

        Rules of the field note no incumbent in their decisions, so it is worked out here for all alike.
        """
        until = math.inf if life.place is None else life.place
        done = (o for o in self.lives if o.status is Status.COMPLETE and o.place is not None and o.place <= until)
        return min((float(self.task.judged[other.row]) for other in done), default=math.inf)

    def shown_loss(self, life: RunOutcome) -> float:
        """Judged loss of what was shown; +inf for a stopped run when the final value is judged."""
        if self.task.goal.judged == "final" and life.status is not Status.COMPLETE:
            return math.inf
        return judged_loss(self.task.runs[life.row].curve.cut(life.step), self.task.goal)[0]

    def wrong(self) -> list[RunOutcome]:
        """Stopped runs that would have beaten what there was to beat, and had not yet shown the value they would have.

        Censored runs are left out, and stops before any run was COMPLETE.
        """
        losses = self.task.judged
        known = (life for life in self.stopped if self.known(life) and losses[life.row] < self.shown_loss(life))
        return [life for life in known if losses[life.row] < self.to_beat(life) < math.inf]
