"""Trials that repeat an attempt that failed: did they go on from it, or begin anew?

With `inherit_intermediate_values` the new attempt starts with the reports of the dead one. Optuna passes over a step
that was reported before, so a trial that begins anew asks `should_prune` again and again without a new report: that is
how it is known. Its own reports are then those beyond what it inherited. Not known is an attempt that begins anew and
does not ask before it has passed the dead one: it counts as one that goes on, as those do that never ask.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from lcsearch.schedulers.optuna._record import ANEW, inherited_nothing, retried, went_on
from lcsearch.schedulers.optuna._storage import begin_anew, go_on, study_key, trial_id

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

REMEMBERED = 1000


@dataclass
class _Inherited:
    """What a trial inherited: the last step, how many reports, and how often it asked since without one of its own.

    `told`: the storage knows that the trial goes on from there.
    """

    last: int
    n: int
    asked: int = 0
    told: bool = False


class Retries:
    """What this process knows of the trials that it runs; their attributes are read once."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[object, ...], _Inherited | None] = OrderedDict()

    def __reduce__(self) -> tuple[type[Retries], tuple[()]]:
        return type(self), ()

    def own(self, study: Study, trial: FrozenTrial) -> dict[int, float]:
        """The reports of this attempt; none while it has gone no further than what it inherited."""
        key, values = (*study_key(study), trial_id(trial), trial.number), trial.intermediate_values
        if key not in self._known:
            self._known[key] = _inherited(study, trial)
            if self._known[key] is None and retried(trial) and not inherited_nothing(trial):
                go_on(study, trial, None)  # one that repeats it exactly looks later as if it had inherited
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        inherited = self._known[key]
        if inherited is None:
            return values
        if max(values) > inherited.last:
            anew = inherited.asked >= min(inherited.n, 2)
            if not anew and not inherited.told:
                go_on(study, trial, inherited.last)
                inherited.told = True
            return {s: v for s, v in values.items() if s > inherited.last} if anew else values
        inherited.asked += 1
        if inherited.asked == min(inherited.n, 2):
            begin_anew(study, trial, inherited.last)
        return {}


def goes_on_with(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> int | None:
    """The number of the failed attempt that a trial goes on with, whose reports it has: they are of one training. None
    for one that began anew, or has not begun.

    Args:
        trial: any.
        trials: all of its study, by number.
    """
    before = retried(trial)
    if not before or trial.state == TrialState.WAITING:
        return None
    if went_on(trial):
        return before[-1]
    values = _shared(trial, _numbered(before[-1], trials))
    return before[-1] if values and trial.system_attrs.get(ANEW) != max(values) else None


def _numbered(number: int, trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    return next((t for t in trials[number : number + 1] if t.number == number), None)


def _inherited(study: Study, trial: FrozenTrial) -> _Inherited | None:
    """What the trial has from the attempt before it; None for nothing."""
    before = retried(trial)
    if not before:
        return None
    values = _shared(trial, _numbered(before[-1], study.get_trials(deepcopy=False)))
    if not values:
        return None
    known = trial.system_attrs.get(ANEW) == max(values)  # another process has seen it begin anew
    return _Inherited(max(values), 0 if known else len(values))


def _shared(trial: FrozenTrial, dead: FrozenTrial | None) -> dict[int, float]:
    """The reports of the attempt that failed, where the trial has them all; else none."""
    if inherited_nothing(trial):
        return {}
    values, mine = {} if dead is None else dead.intermediate_values, trial.intermediate_values
    return values if all(s in mine and (mine[s] == v or v != v) for s, v in values.items()) else {}
