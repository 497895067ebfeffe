"""Thaw: for `study.optimize`: a stopped trial that has become worth going on with is added to the study again."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from optuna.trial import TrialState, create_trial

from lcsearch import files
from lcsearch.errors import InvalidValue, is_finite_number
from lcsearch.schedulers.optuna._artifacts import LOCK, folder_for
from lcsearch.schedulers.optuna._pruner import CurvePruner, several
from lcsearch.schedulers.optuna._record import REASON, RESUMED_FROM, resumed_from, without_dead
from lcsearch.schedulers.optuna._storage import file_of
from lcsearch.session.explain import hindsight
from lcsearch.stopping.gates import target_of
from lcsearch.stopping.risk import StopRecord
from lcsearch.study import FinishedTrials, Snapshot, Status, Trial

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

_log = logging.getLogger("lcsearch")

THAWED = "lcsearch:thawed"
"""The user attribute that tells people, in one line, why a stopped trial goes on."""

_ASKED = 8
"""Stopped trials that are forecast anew at a time: those of the largest P(beat) by the forecasts that stopped them."""


_ADDING = threading.Lock()


class Thaw:
    """A callback of `study.optimize` that resumes stopped trials whose P(beat) has risen.

    A stop is decided on what was known then. As more trials end, the forecast of a stopped curve changes; where its
    P(beat) against the present incumbent is above `margin`, the trial is added to the study again: WAITING, with its
    parameters, its reports and its user attributes, so that the next free worker goes on with it. The objective finds
    its checkpoint by `resumed_from(trial)`, the stopped trial's number (or by a user attribute that it had set itself),
    and goes on at the step after the last one:

    >>> def objective(trial):  # doctest: +SKIP
    ...     before = resumed_from(trial)
    ...     first, model = (0, make(trial)) if before is None else load(f"checkpoints/{before}")
    ...     for step in range(first, 50): ...  # saves to f"checkpoints/{trial.number}"
    >>> study.optimize(objective, n_trials=100, callbacks=[Thaw(pruner)])  # doctest: +SKIP

    The stopped trial stays PRUNED, and CurvePruner passes it over from then on: the new one has its curve. Samplers see
    both. A trial that is resumed counts in `n_trials`.

    Nothing that goes wrong in here reaches the study.

    Args:
        pruner: the study's.
        margin: P(beat) above which a trial is resumed, in [0, 1]; well above the pruner's `threshold`, or it is
            stopped again soon.
        most: how often a trial is resumed at most.
        growth: stopped trials are looked at as the number of finished ones grows by this factor, >= 1.

    Raises:
        InvalidValue: an argument is outside its range.
    """

    def __init__(self, pruner: CurvePruner, *, margin: float = 0.1, most: int = 1, growth: float = 1.1) -> None:
        if not (is_finite_number(margin) and 0 <= margin <= 1):
            raise InvalidValue("a probability in [0, 1]", margin, "Thaw(margin=)")
        if not (isinstance(most, int) and most >= 1):
            raise InvalidValue("a whole number >= 1", most, "Thaw(most=)")
        if not (is_finite_number(growth) and growth >= 1):
            raise InvalidValue("a number >= 1", growth, "Thaw(growth=)")
        self._pruner, self._margin, self._most, self._growth = pruner, margin, most, growth
        self._next = 0

    def __call__(self, study: Study, trial: FrozenTrial) -> None:
        """Look at the stopped trials, when it is time to, and resume the most hopeful one that is above the margin."""
        try:
            if not several(study):
                self._look(study)
        except Exception as error:  # a callback that raises ends the study
            self._pruner.session.failed("thawing a trial", error)

    def _look(self, study: Study) -> None:
        snapshot = self._pruner.snapshot(study)
        if len(snapshot.bank) < self._next:
            return
        self._next = max(math.ceil(len(snapshot.bank) * self._growth), len(snapshot.bank) + 1)
        trials = {str(frozen.number): frozen for frozen in study.get_trials(deepcopy=False)}
        found = [
            (p, uid) for uid, p in self._chances(snapshot, trials).items() if p > self._margin and math.isfinite(p)
        ]
        if found:
            p, uid = max(found)
            self._resume(study, trials[uid], p)

    def _chances(self, snapshot: Snapshot, trials: dict[str, FrozenTrial]) -> dict[str, float]:
        """P(beat) now, of the stopped trials that are the nearest to it."""
        target = target_of(self._pruner.session.policy, snapshot)
        stopped = []
        for trial in snapshot.bank:
            record = trial.stop_records.get("stop")
            if trial.status is not Status.STOPPED or not isinstance(record, StopRecord) or record.p is None:
                continue
            frozen = trials.get(trial.uid)
            if frozen is not None and frozen.state == TrialState.PRUNED and _n_thaws(trials, frozen) < self._most:
                stopped.append((record.p_lost(target), trial))
        nearest = sorted(stopped, key=lambda one: -one[0] if math.isfinite(one[0]) else 0.0)[:_ASKED]
        return {trial.uid: self._chance(snapshot, trial) for _, trial in nearest}

    def _chance(self, snapshot: Snapshot, trial: Trial) -> float:
        """What a look at its last step comes to now, beside all the others."""
        others = FinishedTrials(snapshot.goal).extend(other for other in snapshot.bank if other.uid != trial.uid)
        again = replace(trial, status=Status.RUNNING, stop_records={})
        beside = replace(snapshot, bank=others, live=(*snapshot.live, again), token="thaw")
        now = hindsight(self._pruner.session.aside(), again, beside).now
        return now.p if now is not None and now.p is not None else math.nan

    def _resume(self, study: Study, frozen: FrozenTrial, p: float) -> None:
        with alone(study):
            if any(resumed_from(other) == frozen.number for other in study.get_trials(deepcopy=False)):
                return  # another worker did, since this one read the study
            self._add(study, frozen, p)

    def _add(self, study: Study, frozen: FrozenTrial, p: float) -> None:
        why = f"P(beat) {p:.1%} now, above {self._margin:.1%}, where trial {frozen.number} was stopped"
        attrs = {key: value for key, value in frozen.user_attrs.items() if key != REASON}
        study.add_trial(
            create_trial(
                state=TrialState.WAITING,
                params=frozen.params,
                distributions=frozen.distributions,
                intermediate_values=without_dead(frozen).intermediate_values,
                user_attrs={**attrs, RESUMED_FROM: frozen.number, THAWED: why},
            )
        )
        _log.info("lcsearch: trial %d is resumed: %s", frozen.number, why)


@contextlib.contextmanager
def alone(study: Study) -> Iterator[None]:
    """A block that one worker at a time is in: of this process, and of all that share the file of the storage."""
    with _ADDING, contextlib.ExitStack() as stack:
        if file_of(study) is not None:
            folder = folder_for(study)
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(files.locked(folder / LOCK))
        yield


def _n_thaws(trials: dict[str, FrozenTrial], frozen: FrozenTrial) -> int:
    """How often a trial, or the one that it goes on with, was resumed."""
    before = resumed_from(frozen)
    return 0 if before is None else 1 + _n_thaws(trials, trials[str(before)])
