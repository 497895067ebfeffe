"""A trial that repeats an attempt that failed is judged by its own reports, where it began anew."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from kit.studies import SHORTEST, decay, finished, first_stop, pruner, storage, study_of
from optuna.trial import Trial, TrialState

from lcsearch.schedulers.optuna import CurvePruner, adopt, as_trial

pytestmark = pytest.mark.filterwarnings("ignore:The reported value is ignored:UserWarning")


@pytest.fixture(params=["memory", "sqlite", "journal"])
def on(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[optuna.storages.BaseStorage]:
    with storage(request.param, tmp_path) as made:
        yield made


def retried(study: optuna.Study, values: list[float]) -> Trial:
    """The second attempt at a trial that reported `values` and died."""
    dead = study.ask()
    for step, value in enumerate(values):
        dead.report(value, step)
    study.tell(dead, state=TrialState.FAIL)
    return again(study, dead.number)


def of_study(study: optuna.Study) -> CurvePruner:
    assert isinstance(study.pruner, CurvePruner)
    return study.pruner


@pytest.mark.parametrize("n", [1, 3])
def test_one_lucky_value_of_a_dead_attempt_leads_nothing(on: optuna.storages.BaseStorage, n: int) -> None:
    study = study_of(on=on)
    trial = retried(study, [0.001] * n)
    for step, value in enumerate(decay(0.4, rate=0.5)):
        trial.report(value, step)
        trial.should_prune()  # it runs to its end whatever that says
    study.tell(trial, 0.4)
    own = as_trial(study.trials[trial.number])
    assert own.curve.steps.tolist() == list(range(n, 50))  # Optuna passed over the others
    incumbent = of_study(study).snapshot(study).incumbent
    assert incumbent is not None
    assert incumbent.uid == "0"


def test_it_is_stopped_by_its_own_reports_and_not_by_the_dead_ones(on: optuna.storages.BaseStorage) -> None:
    study = study_of(on=on)
    trial = retried(study, decay(5.0, SHORTEST + 2))
    assert first_stop(trial, decay(0.05, rate=0.5)) is None
    study.tell(trial, 0.05)
    hopeless = retried(study, decay(0.2, 4))
    assert first_stop(hopeless, decay(5.0)) == 4 + SHORTEST  # six reports of its own
    study.tell(hopeless, state=TrialState.PRUNED)
    assert [stop.trial for stop in of_study(study).report(study).stops] == [hopeless.number]


def test_one_that_goes_on_from_a_checkpoint_keeps_its_curve(on: optuna.storages.BaseStorage) -> None:
    study = study_of(on=on)
    trial = retried(study, decay(5.0, 4))
    for step in range(4, SHORTEST + 1):
        trial.report(decay(5.0)[step], step)
        assert trial.should_prune() is (step == SHORTEST)
    assert as_trial(study.trials[trial.number]).curve.first_step == 0


def test_what_a_dead_attempt_trained_is_counted_once(on: optuna.storages.BaseStorage) -> None:
    """Five trials that died at step 20 of 30 and went on from there: 188 steps were trained, and 293 "spent"."""
    study = optuna.create_study(storage=on, pruner=pruner(max_steps=30))
    for _ in range(5):
        trial = retried(study, decay(1.0, 21))
        for step in range(21, 30):
            trial.report(decay(1.0)[step], step)
            trial.should_prune()
        study.tell(trial, 1.0)
    assert of_study(study).report(study).spent == 150
    assert pruner(max_steps=30).report(study).spent == 150  # in another process
    third = retried(study, decay(1.0, 5))
    for step in range(5, 8):
        third.report(1.0, step)
        third.should_prune()
    study.tell(third, state=TrialState.FAIL)
    assert of_study(study).report(study).spent == 158
    fourth = again(study, third.number)
    fourth.report(1.0, 8)
    fourth.should_prune()
    assert of_study(study).report(study).spent == 159


def again(study: optuna.Study, number: int) -> Trial:
    """The next attempt at a trial that failed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        retry = optuna.storages.RetryFailedTrialCallback(inherit_intermediate_values=True)
    retry(study, study.trials[number])
    return study.ask()


def test_what_a_dead_attempt_trained_is_counted_once_where_nobody_asks(on: optuna.storages.BaseStorage) -> None:
    """With objectives that report and never call `should_prune`, nobody of ours sees an attempt go on."""
    study = optuna.create_study(storage=on, pruner=pruner(max_steps=30))
    first = retried(study, [float("nan"), *decay(1.0, 20)])
    assert of_study(study).report(study).spent == 21  # the second has only what it inherited
    for step in range(21, 25):
        first.report(1.0, step)
    study.tell(first, state=TrialState.FAIL)
    second = again(study, first.number)
    for step in range(25, 30):
        second.report(1.0, step)
    study.tell(second, 1.0)
    assert of_study(study).report(study).spent == 30
    assert pruner(max_steps=30).report(study).spent == 30  # in another process


@pytest.mark.parametrize("value", [1.0, 0.9])
def test_an_attempt_that_inherits_nothing_trained_all_that_it_reports(
    on: optuna.storages.BaseStorage, value: float
) -> None:
    """With the same seed it may repeat the failed one to the digit."""
    study = optuna.create_study(storage=on, pruner=pruner(max_steps=30))
    dead = study.ask()
    for step, reported in enumerate(decay(1.0, 21)):
        dead.report(reported, step)
    study.tell(dead, state=TrialState.FAIL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optuna.storages.RetryFailedTrialCallback()(study, study.trials[dead.number])
    anew = study.ask()
    for step, reported in enumerate(decay(value, 30)):
        anew.report(reported, step)
        anew.should_prune()
    study.tell(anew, 1.0)
    assert of_study(study).report(study).spent == 51
    assert pruner(max_steps=30).report(study).spent == 51


def uids(study: optuna.Study) -> list[str]:
    """Of whose curves the snapshot is made."""
    seen = of_study(study).snapshot(study)
    return sorted(trial.uid for trial in (*seen.bank, *seen.live))


def test_a_training_that_another_attempt_goes_on_with_stands_once_in_the_ranks(on: optuna.storages.BaseStorage) -> None:
    """The reports of the attempt that failed are its first ones; one that begins anew is another training."""
    study = optuna.create_study(storage=on, pruner=pruner(max_steps=30))
    dead = study.ask()
    for step, value in enumerate(decay(1.0, 9)):
        dead.report(value, step)
    study.tell(dead, state=TrialState.FAIL)
    assert uids(study) == ["0"]  # true measurements
    second = again(study, 0)
    assert uids(study) == ["1"]
    second.report(0.9, 9)
    second.should_prune()
    study.tell(second, state=TrialState.FAIL)
    third = again(study, 1)
    assert uids(study) == ["2"]
    assert of_study(study).report(study).failed == 2
    for step, value in enumerate(decay(2.0, 20)):  # from its start
        third.report(value, step)
        third.should_prune()
    assert uids(study) == ["1", "2"]
    study.tell(third, 2.0)
    assert uids(study) == ["1", "2"]
    other = optuna.load_study(study_name=study.study_name, storage=on, pruner=pruner(max_steps=30))
    assert uids(other) == ["1", "2"]


def test_a_failed_trial_that_is_to_be_tried_again_stands_until_that_begins(on: optuna.storages.BaseStorage) -> None:
    study = optuna.create_study(storage=on, pruner=pruner(max_steps=30))
    dead = study.ask()
    dead.report(1.0, 0)
    study.tell(dead, state=TrialState.FAIL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optuna.storages.RetryFailedTrialCallback(inherit_intermediate_values=True)(study, study.trials[0])
    assert uids(study) == ["0"]


def test_another_process_that_takes_it_over_knows(on: optuna.storages.BaseStorage) -> None:
    study = study_of(on=on)
    trial = retried(study, decay(0.001, 4))
    assert first_stop(trial, decay(5.0, 6)) is None
    other = optuna.load_study(study_name=study.study_name, storage=on, pruner=pruner())
    adopted = adopt(other, trial.number)
    for step in range(6, 4 + SHORTEST + 1):
        adopted.report(5.0, step)
        assert adopted.should_prune() is (step == 4 + SHORTEST)


def test_a_third_attempt() -> None:
    study = study_of()
    second = retried(study, decay(0.001, 2))
    assert first_stop(second, decay(5.0, 5)) is None
    study.tell(second, state=TrialState.FAIL)
    third = again(study, second.number)
    assert first_stop(third, decay(0.05, rate=0.5)) is None
    assert as_trial(study.trials[third.number]).curve.first_step == 5


def test_values_that_are_no_numbers_and_attempts_that_are_gone() -> None:
    study = study_of()
    trial = retried(study, [float("nan"), 0.001])
    assert first_stop(trial, decay(5.0, 4)) is None
    assert as_trial(study.trials[trial.number]).curve.first_step == 2
    part = optuna.create_study(pruner=pruner())
    part.add_trials(study.trials[:3])
    study.tell(trial, state=TrialState.FAIL)
    part.add_trial(finished(decay(0.2)))
    copy = study.trials[trial.number]
    part.add_trial(
        optuna.trial.create_trial(
            state=TrialState.WAITING, intermediate_values=copy.intermediate_values, system_attrs=copy.system_attrs
        )
    )
    alone = part.ask()
    alone.report(5.0, 4)
    assert not alone.should_prune()
    assert of_study(part).session.failed_open == {}
