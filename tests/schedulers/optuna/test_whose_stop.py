"""Whose stop was it: what the storage keeps and what became of the trial tell it together, in every process."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from kit.doubles import NormalAroundBest
from kit.studies import SHORTEST, decay, finished, first_stop, pruner, stop_one, storage, storage_of, study_of
from optuna.pruners import BasePruner, PatientPruner, ThresholdPruner
from optuna.trial import FrozenTrial, TrialState, create_trial

from lcsearch.errors import InvalidValue
from lcsearch.schedulers.optuna import CurvePruner, as_trial, write_stop
from lcsearch.stopping.risk import StopRecord
from lcsearch.study import Status

REASON, MARK = "lcsearch:reason", "lcsearch:mark"


@pytest.fixture(params=["memory", "sqlite", "journal"])
def on(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[optuna.storages.BaseStorage]:
    with storage(request.param, tmp_path) as made:
        yield made


class Composite(BasePruner):
    """Users write these: any or all of several pruners."""

    def __init__(self, rule: Any, *pruners: BasePruner) -> None:
        self.rule, self.pruners = rule, pruners

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        return bool(self.rule([one.prune(study, trial) for one in self.pruners]))


class Never(BasePruner):
    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        return False


def elsewhere(study: optuna.Study) -> tuple[CurvePruner, optuna.Study]:
    """As another process sees the study."""
    of = pruner()
    return of, optuna.load_study(study_name=study.study_name, storage=storage_of(study), pruner=of)


def test_a_stop_obeyed_by_returning_a_value_is_a_stop(on: optuna.storages.BaseStorage) -> None:
    study = study_of(on=on)
    of = study.pruner
    assert isinstance(of, CurvePruner)

    def objective(trial: optuna.Trial) -> float:
        first_stop(trial, decay(5.0))
        return 5.0  # `if trial.should_prune(): break`

    study.optimize(objective, n_trials=4)
    assert {t.state for t in study.trials[6:]} == {TrialState.COMPLETE}
    for who in (of, elsewhere(study)[0]):
        report = who.report(study)
        assert (report.complete, len(report.stops)) == (6, 4)
        assert report.saved == 4 * (50 - SHORTEST - 1)
        text = who.explain(7, study)
        assert text.splitlines()[:2] == [
            "trial 7 obeyed by returning a value, so Optuna counts it as COMPLETE",
            f"trial 7, step {SHORTEST}: STOP (BELOW)",
        ]


def test_a_record_that_would_not_read_back_is_not_written(on: optuna.storages.BaseStorage) -> None:
    study = study_of(on=on)
    trial = study.ask()
    trial.report(5.0, 0)
    with pytest.raises(InvalidValue, match=r"^lcsearch:mark: expected a record that reads back, got '\{\"step\":NaN"):
        write_stop(study, trial, StopRecord(math.nan, "BELOW", 0.01, "why"), "why")
    frozen = study.trials[trial.number]
    assert not {REASON, MARK} & {*frozen.user_attrs, *frozen.system_attrs}


def test_its_value_is_in_the_risk_and_never_what_must_be_beaten() -> None:
    study = study_of(pruner(forecasters=[NormalAroundBest(2.0)], threshold=0.5))
    of = study.pruner
    assert isinstance(of, CurvePruner)
    trial = study.ask()
    assert first_stop(trial, decay(5.0)) == SHORTEST
    study.tell(trial, 0.001)  # it returns something that is on no curve
    report = of.report(study)
    assert report.risk is not None
    assert report.risk > 0
    assert "incumbent: 0.100018, trial 0" in of.explain(stop_one(study))
    assert as_trial(study.trials[trial.number]).status is Status.STOPPED
    # Optuna's best is another trial: both are named.
    assert str(of.report(study)).splitlines()[0] == (
        f"! the study's best is 0.001 of trial {trial.number}, which was stopped, and trials must beat 0.100018 of "
        "trial 0. A stopped trial returned a value all the same: end it as pruned"
    )


def all_of(*others: BasePruner) -> Any:
    return lambda of: Composite(all, of, *others)


@pytest.mark.parametrize("wrap", [lambda of: of, all_of(Never())], ids=["ignored", "all"])
def test_a_stop_that_was_not_carried_out_leaves_no_reason(on: optuna.storages.BaseStorage, wrap: Any) -> None:
    of = pruner()
    study = study_of(of, on=on)
    study.pruner = wrap(of)
    trial = study.ask()
    for step, value in enumerate(decay(5.0)):
        trial.report(value, step)
        trial.should_prune()  # whatever it says
    assert not study.trials[trial.number].user_attrs[REASON]
    study.tell(trial, 5.0)
    frozen = study.trials[trial.number]
    assert not frozen.user_attrs[REASON]
    report = of.report(study)
    assert (report.stops, report.risk, report.complete) == ((), 0.0, 7)
    other, again = elsewhere(study)
    assert other.report(again).complete == 7
    first = "trial 6 ran to its end, although a look at step 48 came to a stop: it was not obeyed"
    assert of.explain(6, study).splitlines()[0] == other.explain(6, again).splitlines()[0] == first
    said = "1 trial reported on after a look that had come to a stop: where should_prune() is True, raise "
    said += "optuna.TrialPruned; a pruner around this one may hold stops"
    assert other.report(again).ignored == 1
    assert said in str(other.report(again)).splitlines()
    assert said in other.why_not(again).splitlines()  # in a process that looked at nothing


def test_a_trial_that_never_asks_again_is_seen_to_have_gone_on(on: optuna.storages.BaseStorage) -> None:
    study = study_of(on=on)
    of = study.pruner
    assert isinstance(of, CurvePruner)
    trial = study.ask()
    assert first_stop(trial, decay(5.0)) == SHORTEST
    for step in range(SHORTEST + 1, 50):
        trial.report(0.01, step)
    assert of.report(study).risk == 0.0
    study.tell(trial, 0.01)
    report = of.report(study)
    assert (report.stops, report.risk, report.complete) == ((), 0.0, 7)
    assert f"although a look at step {SHORTEST} came to a stop" in of.explain(6, study)
    assert f"trial {trial.number} at step" in of.explain(stop_one(study))  # it leads


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_patience_around_it() -> None:
    of = pruner()
    study = study_of(of)
    study.pruner = PatientPruner(of, patience=3)
    assert first_stop(study.ask(), [5.0, 4.9, *[6.0] * 48]) == SHORTEST
    assert not any(t.user_attrs.get(REASON) for t in study.trials if t.state == TrialState.COMPLETE)


def test_what_another_pruner_stopped_is_counted_as_its_own(on: optuna.storages.BaseStorage) -> None:
    of = pruner()
    study = study_of(of, on=on)
    study.pruner = Composite(any, ThresholdPruner(upper=10.0), of)
    mine = stop_one(study)
    theirs = [stop_one(study, [11.0] * 5) for _ in range(3)]
    report = of.report(study)
    assert ([stop.trial for stop in report.stops], report.stopped_elsewhere) == ([mine], 3)
    assert str(report).splitlines()[0] == "trials: 6 complete, 1 stopped, 3 stopped by others"
    assert of.explain(theirs[0], study).splitlines()[0] == (
        f"trial {theirs[0]} was stopped, but not by lcsearch: it carries no record of a decision"
    )


def retries(inherit: bool) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return optuna.storages.RetryFailedTrialCallback(inherit_intermediate_values=inherit)


@pytest.mark.parametrize("inherit", [True, False])
def test_a_retried_trial_does_not_inherit_the_stop(on: optuna.storages.BaseStorage, inherit: bool) -> None:
    study = study_of(pruner(forecasters=[NormalAroundBest(2.0)], threshold=0.5), on=on)
    of = study.pruner
    assert isinstance(of, CurvePruner)
    dead = study.ask()
    assert first_stop(dead, decay(5.0)) == SHORTEST
    study.tell(dead, state=TrialState.FAIL)  # the worker died over it
    retries(inherit)(study, study.trials[6])
    again = study.ask()
    frozen = study.trials[again.number]
    assert frozen.user_attrs[REASON]  # Optuna copies all attributes
    assert of.report(study).risk == 0.0
    begin = SHORTEST + 1 if inherit else 0
    for step in range(begin, 50):
        again.report(0.05, step)
        assert not again.should_prune()
    assert not study.trials[again.number].user_attrs[REASON]
    study.tell(again, 0.05)
    report = of.report(study)
    assert (report.stops, report.risk, report.complete) == ((), 0.0, 7)
    assert of.explain(7, study).startswith("trial 7 ran to its end; no look stopped it")


def test_a_retried_trial_may_be_stopped_itself() -> None:
    study = study_of()
    of = study.pruner
    assert isinstance(of, CurvePruner)
    dead = study.ask()
    assert first_stop(dead, decay(5.0)) == SHORTEST
    study.tell(dead, state=TrialState.FAIL)
    retries(False)(study, study.trials[6])
    assert stop_one(study) == 7
    assert [stop.trial for stop in of.report(study).stops] == [7]
    assert of.explain(7, study).startswith(f"trial 7, step {SHORTEST}: STOP")


def test_a_copy_of_a_part_tells_of_its_trials_by_the_numbers_they_had() -> None:
    study = study_of(pruner(forecasters=[NormalAroundBest(2.0)], threshold=0.5))
    numbers = [stop_one(study) for _ in range(4)]
    of = study.pruner
    assert isinstance(of, CurvePruner)
    risk = of.report(study).risk
    part = optuna.create_study(pruner=pruner())
    part.add_trials(study.trials[3:])  # without the best
    other = part.pruner
    assert isinstance(other, CurvePruner)
    text = other.explain(3, part)
    assert text.splitlines()[:2] == [
        f"trial 3 was trial {numbers[0]} where it was stopped, and is called so below:",
        f"trial {numbers[0]}, step {SHORTEST}: STOP (BELOW)",
    ]
    # They lost against an incumbent that is not here: no more than they did there.
    assert other.report(part).risk == pytest.approx(risk)
    assert [stop.trial for stop in other.report(part).stops] == [3, 4, 5, 6]


def test_a_copied_study_and_a_trial_resumed_by_hand() -> None:
    one, two = optuna.storages.InMemoryStorage(), optuna.storages.InMemoryStorage()
    study = study_of(on=one, study_name="s")
    number = stop_one(study)
    optuna.copy_study(from_study_name="s", from_storage=one, to_storage=two)
    copy = optuna.load_study(study_name="s", storage=two, pruner=pruner())
    of = copy.pruner
    assert isinstance(of, CurvePruner)
    assert isinstance(study.pruner, CurvePruner)
    assert of.explain(number, copy) == study.pruner.explain(number)
    frozen = copy.trials[number]
    thawed = create_trial(
        state=TrialState.WAITING,
        intermediate_values=frozen.intermediate_values,
        user_attrs=frozen.user_attrs,
        system_attrs=frozen.system_attrs,
    )
    copy.add_trial(thawed)
    again = copy.ask()
    assert "stop" not in as_trial(copy.trials[again.number]).stop_records
    again.report(0.01, SHORTEST + 1)
    assert not again.should_prune()
    copy.tell(again, 0.01)
    assert [stop.trial for stop in of.report(copy).stops] == [number]


def test_a_record_of_an_earlier_version_is_read_as_before() -> None:
    study = study_of()
    number = stop_one(study)
    frozen = study.trials[number]
    old = {k: v for k, v in json.loads(frozen.system_attrs[MARK]).items() if k != "of"}
    frozen.system_attrs[MARK] = json.dumps(old)
    assert as_trial(frozen).stop_records["stop"].text.startswith("trial 6, step")
    for broken in ([1], "x", None, [1, 2, 3, 4], ["a", "b", "c"], [10**400, 10**400, ""]):
        frozen.system_attrs[MARK] = json.dumps({**old, "of": broken})
        assert "stop" in as_trial(frozen).stop_records


def test_a_withdrawal_that_cannot_be_stored_is_told_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_of()
    of = study.pruner
    assert isinstance(of, CurvePruner)
    trial = study.ask()
    assert first_stop(trial, decay(5.0)) == SHORTEST
    with monkeypatch.context() as patch:

        def refuse(*_: Any) -> None:
            raise OSError("read-only")

        patch.setattr(storage_of(study), "set_trial_user_attr", refuse)
        trial.report(0.01, SHORTEST + 1)
        assert not trial.should_prune()
    assert of.session.failed_open["withdrawing a stop"] > 0
    study.tell(trial, 0.01)
    assert of.report(study).stops == ()


def test_a_part_copied_while_it_runs() -> None:
    """A RUNNING trial that carries a record under another number is nobody's stop."""
    study = study_of()
    trial = study.ask()
    assert first_stop(trial, decay(5.0)) == SHORTEST
    part = optuna.create_study(pruner=pruner())
    part.add_trials(study.trials[2:])
    assert as_trial(part.trials[4]).stop_records == {}
    study.add_trial(finished(decay(0.2)))


@pytest.mark.parametrize("broken", ["set_trial_user_attr", "set_trial_system_attr"])
def test_a_record_that_was_half_written_is_none(monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    """The trial goes on, and where it ends at that very step nobody may say that it obeyed."""
    study = study_of()
    of = study.pruner
    assert isinstance(of, CurvePruner)
    whole = getattr(storage_of(study), broken)

    def full_disk(trial_id: int, key: str, value: Any) -> None:
        if key.startswith("lcsearch") and value:
            raise OSError("no space left")
        whole(trial_id, key, value)

    monkeypatch.setattr(storage_of(study), broken, full_disk)
    for _ in range(3):
        trial = study.ask()
        assert first_stop(trial, decay(5.0, SHORTEST + 1)) is None
        study.tell(trial, 5.0)
    report = of.report(study)
    assert (report.complete, len(report.stops), report.saved) == (9, 0, 0)
    assert all(trial.status is Status.COMPLETE for trial in map(as_trial, study.trials[6:]))


@pytest.mark.parametrize("text", ["17", "{}", "[]", '"x"', "null", "no JSON", '{"step": 1, "p": "much"}', "[" * 50])
def test_a_stop_whose_record_was_damaged_is_ours_and_in_no_risk(text: str) -> None:
    """It was told as somebody else's, and the risk dropped without a word."""
    study = optuna.create_study()
    values = {step: 1.0 / (step + 1) for step in range(5)}
    study.add_trial(optuna.trial.create_trial(value=0.2, intermediate_values=values))
    for attrs in ({MARK: text}, {}):
        stopped = optuna.trial.create_trial(
            state=TrialState.PRUNED, value=0.5, intermediate_values={0: 1.0, 1: 0.5}, system_attrs=attrs
        )
        study.add_trial(stopped)
    pruner = CurvePruner(max_steps=5, forecasters="parametric")
    report = pruner.report(study)
    assert (report.unreadable, report.stopped_elsewhere, report.stops) == (1, 1, ())
    assert "trials: 1 complete, 1 stopped, 1 stopped by others" in str(report)
    assert "; 1 stop whose record cannot be read is not in it: no risk is known for it" in str(report)
    assert "was stopped by lcsearch, but the record of why cannot be read any more" in pruner.explain(1, study)
    assert "was stopped, but not by lcsearch" in pruner.explain(2, study)
