"""What a trial that begins anew leaves in a storage, after every single write."""

from __future__ import annotations

from typing import Any, ClassVar

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import Trial

from lcsearch.schedulers.optuna import as_trial
from lcsearch.schedulers.optuna._attempts import StoredReports

DEAD = -9.0


class Watched(InMemoryStorage):
    """What others see of trial 0 after every write; number `fails` is not made, as in a locked database."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[dict[float, float]] = []
        self.fails, self._n = -1, 0

    def watch(self, fails: int = -1) -> None:
        self.seen, self.fails, self._n = [], fails, 0

    def _comes(self) -> None:
        self._n += 1
        if self._n - 1 == self.fails:
            raise OSError("locked")

    def set_trial_intermediate_value(self, *args: Any, **kwargs: Any) -> None:
        self._comes()
        super().set_trial_intermediate_value(*args, **kwargs)
        self.seen.append(counted(self))

    def set_trial_system_attr(self, *args: Any, **kwargs: Any) -> None:
        self._comes()
        super().set_trial_system_attr(*args, **kwargs)
        self.seen.append(counted(self))


def counted(storage: Watched) -> dict[float, float]:
    steps, values = as_trial(storage.get_all_trials(0, deepcopy=False)[0]).curve.reports()
    return dict(zip(steps.tolist(), values.tolist(), strict=True))


def died() -> tuple[Watched, Trial]:
    """A trial whose dead attempt came to step 5."""
    storage = Watched()
    trial = optuna.create_study(storage=storage).ask()
    for step in range(1, 6):
        trial.report(DEAD, step)
    storage.watch()
    return storage, trial


def anew(storage: Watched, trial: Trial) -> StoredReports:
    return StoredReports(trial, storage.get_all_trials(0)[0], trial.report)


def test_others_see_no_value_of_a_dead_attempt_between_two_writes() -> None:
    storage, trial = died()
    reports = anew(storage, trial)
    for step in range(1, 8):
        assert reports.report(1.0, step)
    assert storage.seen
    assert all(DEAD not in seen.values() for seen in storage.seen)
    assert storage.seen[-1] == dict.fromkeys(range(1, 8), 1.0)


def test_a_pruner_is_given_the_new_value_of_a_step() -> None:
    class Judge(optuna.pruners.NopPruner):
        given: ClassVar[list[float]] = []

        def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
            self.given.append(trial.intermediate_values[2])
            return False

    storage, trial = died()
    trial.study.pruner = Judge()
    reports = anew(storage, trial)
    for step in (1, 2):
        reports.report(1.0, step)
    trial.should_prune()
    assert Judge.given == [1.0]


@pytest.mark.parametrize("again", [False, True], ids=["the same process", "another one"])
@pytest.mark.parametrize("fails", range(5))
def test_a_report_that_was_not_stored_can_be_made_again(fails: int, again: bool) -> None:
    storage, trial = died()
    reports = anew(storage, trial)
    storage.watch(fails)
    for step in range(1, 8):
        try:
            reports.report(1.0, step)
        except OSError:
            reports = anew(storage, trial) if again else reports
            reports.report(1.0, step)
    assert storage.seen[-1] == dict.fromkeys(range(1, 8), 1.0)
    assert all(DEAD not in seen.values() for seen in storage.seen)


def test_a_first_attempt_s_report_that_was_not_stored_can_be_made_again() -> None:
    storage = Watched()
    trial = optuna.create_study(storage=storage).ask()
    reports = StoredReports(trial, None, trial.report)
    storage.watch(fails=0)
    with pytest.raises(OSError, match="locked"):
        reports.report(1.0, 1)
    assert reports.report(1.0, 1)
    assert storage.seen[-1] == {1: 1.0}
