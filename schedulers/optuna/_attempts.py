"""A trial's reports in the storage, over all attempts at it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from lcsearch.schedulers.optuna._pruner import CurvePruner
from lcsearch.schedulers.optuna._record import without_dead
from lcsearch.schedulers.optuna._storage import report_again, write_dead
from lcsearch.study.attempts import Attempts

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.trial import FrozenTrial, Trial


class StoredReports:
    """Stores reports: what an attempt says otherwise than a dead one did takes the place of that.

    Args:
        trial: whose.
        frozen: the trial as an earlier attempt has left it; None: it has not begun.
        report: stores the report of a step that has none, as `optuna.Trial.report`.

    Attributes:
        attempts: what counts of them.
        dead: steps that only a dead attempt had reported.
    """

    def __init__(self, trial: Trial, frozen: FrozenTrial | None, report: Callable[[float, int], None]) -> None:
        self._trial, self._report = trial, report
        self._stored = set(frozen.intermediate_values if frozen is not None else ())
        self.attempts = Attempts(without_dead(frozen).intermediate_values if frozen is not None else {})
        self.dead = self._stored - set(self.attempts.values)

    def report(self, value: float, step: int) -> bool:
        """Store one report; False where the dead attempt had made it as well.

        Others read between the writes, and each of them may fail: what the dead attempt had reported is out of sight
        first, and a step comes back with its new value.
        """
        if self.attempts.repeats(step, value):
            self.attempts.take(step, value)
            return False
        again = step in self._stored
        hidden = self.dead | self.attempts.cuts(step, value) | ({step} if again else set())
        if hidden != self.dead:
            self._hide(hidden, step)
        if again:
            report_again(self._trial, step, value)
            self._hide(self.dead - {step})  # also where nothing is left: it tells that the trial began anew
        else:
            self._report(value, step)
        self._stored.add(step)
        self.attempts.take(step, value)
        return True

    def _hide(self, dead: set[int], *new: int) -> None:
        write_dead(self._trial, self._stored.union(new), dead)
        self.dead = dead

    def can_be_judged(self, pruner: BasePruner) -> bool:
        """Optuna's own pruners are not asked while a dead attempt was further: they would judge that one."""
        behind = bool(self.dead) and max(self.dead) > max(self.attempts.values, default=-1)
        return not behind or isinstance(pruner, CurvePruner)

    def end(self, reported: Mapping[int, float] | None = None) -> None:
        """The trial has ended with what it `reported`, by its attempts where that is None. What only a dead one had
        reported counts no more, and stands in the storage with the last value, for those who know nothing of attempts.
        """
        reported = self.attempts.values if reported is None else reported
        if reported and (dead := self._stored - set(reported)):
            write_dead(self._trial, self._stored, dead)
            for step in dead:
                report_again(self._trial, step, reported[max(reported)])
