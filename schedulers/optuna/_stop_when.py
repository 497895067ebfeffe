"""StopWhen: ends a study once more trials would gain too little."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from lcsearch.allocation.next_trials import gain_of_next
from lcsearch.errors import InvalidValue, is_finite_number
from lcsearch.goal import Goal
from lcsearch.schedulers.optuna._pruner import several
from lcsearch.schedulers.optuna._record import curve_of, is_paused
from lcsearch.schedulers.optuna._snapshot import as_trial
from lcsearch.study import judged_loss

if TYPE_CHECKING:
    from optuna import Study

_log = logging.getLogger("lcsearch")


class StopWhen:
    """Ends a study once `trials` more would improve its best value by less than `gain`, as far as can be told.

    A callback of `study.optimize`, which then begins no further trial, and `FreezeThaw(stop_when=)`, which finishes who
    leads. How much they would gain is read from the values of all trials that have ended or are paused, see
    :func:`lcsearch.allocation.next_trials.gain_of_next`: a bound in expectation where trials are drawn alike, as at
    random, and a rule of thumb where a sampler learns. A trial that has no value of its own counts with the best one it
    reported, so reports should be of the metric that the objective returns; where few trials are trained to the end, as
    with pauses, what the others may still reach is counted as a possible gain, and the study ends late. Nothing is
    ended before twice as many trials have begun.

    Args:
        gain: in the metric's units, > 0.
        trials: how many more, >= 1.

    Raises:
        InvalidValue: an argument is outside its range.

    >>> import optuna
    >>> from lcsearch.schedulers.optuna import StopWhen
    >>> study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    >>> study.optimize(lambda trial: 1.0, n_trials=50, callbacks=[StopWhen(0.001, trials=10)])
    >>> len(study.trials)
    20
    """

    def __init__(self, gain: float, *, trials: int = 10) -> None:
        if not (is_finite_number(gain) and gain > 0):
            raise InvalidValue("a number > 0", gain, "StopWhen(gain)")
        if not (isinstance(trials, int) and trials >= 1):
            raise InvalidValue("a whole number >= 1", trials, "StopWhen(trials=)")
        self._gain, self._trials = float(gain), trials

    def gain_of_next(self, study: Study) -> float:
        """What as many more trials would gain, about and at most, in the metric's units, >= 0; inf: not known yet."""
        if several(study):
            return math.inf
        return self._of(study, study.get_trials(deepcopy=False))

    def enough(self, study: Study, trials: Sequence[FrozenTrial]) -> bool:
        """Is that less than the gain that was asked for?"""
        return not several(study) and self._of(study, trials) < self._gain

    def _of(self, study: Study, trials: Sequence[FrozenTrial]) -> float:
        goal = Goal("value", "maximize" if study.direction == StudyDirection.MAXIMIZE else "minimize", 1.0)
        shown = [t for t in trials if t.state.is_finished() or is_paused(t)]
        return gain_of_next([_loss(trial, goal) for trial in shown], self._trials)

    def __call__(self, study: Study, trial: FrozenTrial) -> None:
        """For `study.optimize`."""
        if not self.enough(study, study.get_trials(deepcopy=False)):
            return
        n = f"{self._trials} more trial{'s' * (self._trials != 1)}"
        _log.info("lcsearch: the study ends after trial %d: %s would gain less than %g", trial.number, n, self._gain)
        study.stop()


def _loss(trial: FrozenTrial, goal: Goal) -> float:
    """A trial's value as a loss, or its best report; inf where it has neither, has failed or is infeasible."""
    if trial.state == TrialState.FAIL or not as_trial(trial).feasible:
        return math.inf
    if trial.state == TrialState.COMPLETE and trial.value is not None:
        return goal.sign * trial.value
    return judged_loss(curve_of(trial), goal)[0]
