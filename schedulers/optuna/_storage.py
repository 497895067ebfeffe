"""The one module that touches what Optuna keeps private (checked with optuna 5.0.0)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lcsearch.decide.risk import Mark

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

MARK = "lcsearch:mark"
REASON = "lcsearch:reason"


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


def write_stop(study: Study, trial: FrozenTrial | Trial, mark: Mark, reason: str) -> None:
    """Store a stop with its trial, which must still be RUNNING: the mark for us, the reason for people to read.

    The mark is a system attribute (dashboards do not show it), the reason a user attribute (they do).
    """
    study._storage.set_trial_system_attr(trial._trial_id, MARK, mark.to_json())
    study._storage.set_trial_user_attr(trial._trial_id, REASON, reason)


def report_again(trial: Trial, step: int, value: float) -> None:
    """Report a step anew, in the place of what was reported there; `trial.report` would pass it over with a warning."""
    trial.storage.set_trial_intermediate_value(trial._trial_id, step, value)
