"""The one module that touches what Optuna keeps private (checked with optuna 5.0.0)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from optuna.storages._heartbeat import is_heartbeat_enabled
from optuna.trial import FrozenTrial

from lcsearch.errors import InvalidValue
from lcsearch.schedulers.optuna._record import ANEW, MARK, REASON, Record, curve_of
from lcsearch.stopping.risk import StopRecord

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import Trial


def trial_id(trial: FrozenTrial) -> int:
    """The storage's id of a trial, which is not its number."""
    return trial._trial_id


def study_key(study: Study) -> tuple[int, int, str]:
    """Tells studies apart inside one process, as well as it can be done.

    The id alone is 0 in every in-memory storage, and an object's id may be used again: whoever caches by this key must
    also check that the trials are the ones he knows.
    """
    return id(study._storage), study._study_id, study.study_name


def adopt(study: Study, number: int) -> Trial:
    """The live handle of a RUNNING trial that another process left behind.

    Raises:
        KeyError: the study has no trial of that number.
    """
    from optuna.trial import Trial

    return Trial(study, study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number))


def write_stop(study: Study, trial: FrozenTrial | Trial, stop: StopRecord, reason: str) -> None:
    """Store a stop with its trial, which must still be RUNNING: the stop for us, the reason for people to read.

    The stop is a system attribute (dashboards do not show it), the reason a user attribute (they do).

    Raises:
        InvalidValue: the record would not read back; nothing was stored.
    """
    known = trial if isinstance(trial, FrozenTrial) else study._storage.get_trial(trial._trial_id)
    record = Record.of(stop, known.number, curve_of(known))
    text = record.to_json()
    back = Record.parse(text)
    if back is None or (back.number, back.last, back.digest) != (record.number, record.last, record.digest):
        raise InvalidValue("a record that reads back", text[:80], "lcsearch:mark")
    _write(study, trial, text, reason)


def withdraw_stop(study: Study, trial: FrozenTrial | Trial, made: bool = True) -> None:
    """Take back a stop that was not carried out: an attribute cannot be removed, so the reason becomes empty.

    Args:
        study: whose trial it is.
        trial: whose stop it was.
        made: the trial was told to stop, so a record stays that it did not; else the record becomes empty too.
    """
    stored = study._storage.get_trial_system_attrs(trial._trial_id).get(MARK)
    record = Record.parse(stored)
    gone = replace(record, withdrawn=True).to_json() if record is not None and made else ""
    _write(study, trial, None if record is None else gone, "")


def _write(study: Study, trial: FrozenTrial | Trial, stored: str | None, reason: str) -> None:
    study._storage.set_trial_user_attr(trial._trial_id, REASON, reason)
    if stored is not None:  # last: where the reason could not be written there is no record either
        study._storage.set_trial_system_attr(trial._trial_id, MARK, stored)
    # as Trial.set_user_attr does: what this process knows of the trial is not read again
    (trial if isinstance(trial, FrozenTrial) else trial._cached_frozen_trial).user_attrs[REASON] = reason


def begin_anew(study: Study, trial: FrozenTrial, after: int) -> None:
    """Store that a trial's values up to a step are those of the attempt that it repeats from the start."""
    study._storage.set_trial_system_attr(trial._trial_id, ANEW, after)


def stale(study: Study) -> set[int]:
    """Numbers of the running trials whose heartbeat the storage misses; none where it keeps no heartbeats."""
    storage = study._storage
    if not is_heartbeat_enabled(storage):
        return set()
    return {storage.get_trial_number_from_id(i) for i in storage._get_stale_trial_ids(study._study_id)}  # type: ignore[attr-defined]


def report_again(trial: Trial, step: int, value: float) -> None:
    """Report a step anew, in the place of what was reported there; `trial.report` would pass it over with a warning."""
    trial.storage.set_trial_intermediate_value(trial._trial_id, step, value)
