"""The snapshot a decision is made from."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from lcsearch.curves import Curve
from lcsearch.errors import InvalidValue
from lcsearch.goal import Goal
from lcsearch.study.bank import FinishedTrials
from lcsearch.study.trial import Trial


class Incumbent(NamedTuple):
    """The best judged value so far.

    Attributes:
        value: in the metric's own units and direction.
        uid: the trial that reached it.
        step: the step at which it did.
    """

    value: float
    uid: str
    step: float


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Everything a decision may look at: one study at one moment.

    Attributes:
        study: its name, for messages and logs.
        goal: see `lcsearch.goal.Goal`; the same object the bank was built with.
        bank: finished trials.
        live: trials that are running or paused; their order means nothing.
        abandoned: trials that the framework has as running and nobody trains, as far as can be told (see
            stopping/abandoned.py): nothing is compared with them.
        token: tells studies of one name apart in one process; None: none but this one has the name.
    """

    study: str
    goal: Goal
    bank: FinishedTrials
    live: tuple[Trial, ...] = ()
    abandoned: tuple[Trial, ...] = ()
    token: Hashable = None

    def __post_init__(self) -> None:
        if self.bank.goal != self.goal:
            raise InvalidValue(f"a bank judged by {self.goal}", self.bank.goal, "Snapshot.bank")

    @property
    def key(self) -> Hashable:
        """What a process remembers the study by: its name will do only where no other study has it."""
        return self.study if self.token is None else (self.study, self.token)

    @cached_property
    def horizon(self) -> float:
        """The step at which trials are judged in fact: where the longest ones end, see :attr:`FinishedTrials.end`.

        While a live trial stands beyond all that have ended it is further away, at most twice as far as that trial:
        the short ones end first.
        """
        end = self.bank.end
        if not self.bank.ends.size:
            return end
        ahead = max((trial.curve.last_step for trial in self.live), default=-math.inf)
        return self._further(ahead) if ahead > end + self.bank.tremble else end

    def _further(self, step: float) -> float:
        """Where a trial that has outlived all the others may end: at the goal's horizon, or when it is twice as old."""
        return min(max(self.goal.horizon, step), 2.0 * step)

    def horizons(self, step: float) -> tuple[float, ...]:
        """The steps, rising and of equal weight, at which a trial that stands at `step` may be judged.

        One where the COMPLETE trials that went further ended together; else four: of the quarters of their ends the
        middles of three, and the last end of all, which may be the incumbent's. The last one alone where the best value
        judges: a trial ends when it stops improving, so one that is on its way has that long, and what it reaches by
        then bounds what it reaches sooner. Where none of them reached the goal's horizon, one more end stands for the
        next trial that might go on: always where lengths differ, else (Laplace's rule of succession) as long as that
        makes an eighth of them. So those that gave up early do not take a slow starter's time to win.
        """
        bank = self.bank
        ends = bank.ends[bank.ends > step]
        if not ends.size or self.horizon > bank.end:
            ends = np.append(ends, self.horizon)
        elif not bank.reached and (ends.size < 7 or ends[0] < ends[-1]):
            ends = np.append(ends, self._further(bank.end))
        quarters = (*ends[(ends.size * np.array([1, 3, 5]) + 7) // 8 - 1].tolist(), float(ends[-1]))
        return quarters[3:] if self.goal.judged == "best" or quarters[0] == quarters[3] else quarters

    @property
    def incumbent(self) -> Incumbent | None:
        """The best judged value of a feasible COMPLETE trial, or None. Ties go to the earlier uid, "9" before "10".

        Only these will be there when the study ends: a running trial may still fail, or be a leftover of a killed
        process that nobody trains; a stopped one is not what the study returns.
        """
        if self.bank.best_complete is None:
            return None
        loss, uid, step = self.bank.best_complete
        return Incumbent(self.goal.sign * loss, uid, step)

    @property
    def robust_range(self) -> float:
        """Robust range of judged values, see :attr:`FinishedTrials.robust_range`."""
        return self.bank.robust_range

    def concurrent_losses(self, step: float, uid: str) -> list[float]:
        """Losses at `step` of the other live trials that say something about it (best so far when so judged)."""
        found = []
        sign, best = self.goal.sign, self.goal.judged == "best"
        for trial in self.live:  # there may be a thousand
            steps, losses = trial.curve.standings(sign, best)
            if steps and steps[0] <= step <= steps[-1] and trial.uid != uid:
                found.append(losses[bisect_right(steps, step) - 1])
        return found


def loss_at(curve: Curve, goal: Goal, step: float) -> float:
    """Loss that `curve` is judged by at `step`, see :meth:`Curve.at`."""
    return curve.at(step, goal.sign, best=goal.judged == "best")
