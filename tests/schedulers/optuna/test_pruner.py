"""What Optuna's own tests expect of a pruner, and what CurvePruner promises beyond."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from kit.builders import INTERVALS, WRONG_ARGUMENTS
from kit.doubles import NormalAroundBest, Rows
from kit.studies import SHORTEST, decay, finished, first_stop, pruner, stop_one, storage, study_of
from optuna.trial import TrialState

from lcsearch.errors import InvalidValue
from lcsearch.schedulers.optuna import CurvePruner
from lcsearch.session.audit_file import keep
from lcsearch.stopping.audit import Audit

NAN, INF = math.nan, math.inf


def reasons(of: CurvePruner) -> set[str]:
    return {reason.name for reason in of.session.reasons}


# As in Optuna


def test_the_first_trial_is_never_pruned() -> None:
    study = optuna.create_study(pruner=pruner(n_startup_trials=0))
    assert first_stop(study.ask(), decay(5.0)) is None


def test_no_report_no_prune() -> None:
    study = study_of()
    assert study.ask().should_prune() is False


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("judged", ["best", "final"])
def test_a_hopeless_trial_is_stopped_in_both_directions(sign: float, judged: Any) -> None:
    study = study_of(pruner(judged=judged), sign=sign)
    assert first_stop(study.ask(), [sign * v for v in decay(5.0)]) == SHORTEST
    assert first_stop(study.ask(), [sign * v for v in decay(0.01, rate=0.5)]) is None


@pytest.mark.parametrize("n", [0, 1, 5, 7])
def test_startup_counts_complete_trials(n: int) -> None:
    study = study_of(pruner(n_startup_trials=n), n=6)
    stopped = first_stop(study.ask(), decay(5.0))
    assert stopped == (None if n > 6 else SHORTEST)
    study.add_trial(finished(decay(1.0), TrialState.PRUNED))
    study.add_trial(finished(decay(1.0), TrialState.FAIL))
    assert first_stop(study.ask(), decay(5.0)) == stopped


@pytest.mark.parametrize("warmup", [0, 2, SHORTEST, SHORTEST + 1, 20])
def test_the_earliest_prune_is_at_the_end_of_the_warmup(warmup: int) -> None:
    study = study_of(pruner(n_warmup_steps=warmup))
    assert first_stop(study.ask(), decay(5.0)) == max(warmup, SHORTEST)


@pytest.mark.parametrize(("warmup", "interval", "every", "expected"), INTERVALS)
def test_the_interval_table_of_the_median_pruner(warmup: int, interval: int, every: int, expected: list[int]) -> None:
    """Optuna's table, moved behind the reports a curve needs before a stop."""
    of = pruner(n_warmup_steps=SHORTEST + warmup, interval_steps=interval, n_startup_trials=0, max_steps=200)
    study = optuna.create_study(pruner=of)
    for _ in range(5):
        study.add_trial(finished([0.0] * 100))
    trial = study.ask()
    for step in range(SHORTEST):
        trial.report(2.0, step)
    pruned = []
    for step in range(max(expected) + 1):
        if step % every == 0:
            trial.report(2.0, SHORTEST + step)
        if trial.should_prune():
            pruned.append(step)
    assert pruned == expected


def test_n_min_trials_counts_complete_trials_that_say_something_about_the_step() -> None:
    for n, expected in ((6, SHORTEST), (7, None)):
        assert first_stop(study_of(pruner(n_min_trials=n)).ask(), decay(5.0)) == expected


def test_fewer_than_two_comparisons() -> None:
    study = study_of(pruner(n_startup_trials=1), n=1)
    assert first_stop(study.ask(), decay(5.0)) is None
    assert "COMPARISONS" in reasons(study.pruner)  # type: ignore[arg-type]


def test_steps_out_of_order_and_a_step_of_zero() -> None:
    study = study_of()
    trial = study.ask()
    for step in (SHORTEST + 1, 0, *range(2, SHORTEST), 1):
        trial.report(5.0 - 0.1 * step, step)
        assert not trial.should_prune() or step == 1
    assert trial.should_prune()


@pytest.mark.parametrize("end", [49, 50])
def test_nothing_is_left_to_save_at_the_end(end: int) -> None:
    """range(50) and max_steps=50: trials end at step 49, where no stop can save anything."""
    study = study_of(pruner(n_warmup_steps=end))
    assert first_stop(study.ask(), decay(5.0, 51)) is None
    assert first_stop(study_of(pruner(n_warmup_steps=48)).ask(), decay(5.0)) == 48


def test_auto_takes_the_end_of_the_complete_trials() -> None:
    of = pruner(max_steps="auto", n_startup_trials=0)
    study = optuna.create_study(pruner=of)
    assert first_stop(study.ask(), decay(5.0, SHORTEST + 7)) is None
    assert reasons(of) == {"SHORT", "NO_INCUMBENT"}
    for i in range(5):
        study.add_trial(finished(decay(0.1 * i, 20)))
    trial = study.ask()
    assert first_stop(trial, decay(5.0)) == SHORTEST
    study.tell(trial, state=TrialState.PRUNED)
    assert "by step 19" in of.explain(trial.number)
    study.add_trial(finished(decay(1.0, 60)))  # the horizon moves, the median end does not
    assert first_stop(study.ask(), decay(5.0)) == SHORTEST


# NaN and infinities


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_non_finite_reports_stop_a_trial_at_the_third_or_at_the_sixth_where_there_was_no_value_yet(bad: float) -> None:
    study = study_of()
    assert first_stop(study.ask(), [9.0, 9.0, *[bad] * 10]) == 4
    assert first_stop(study.ask(), [bad] * 10) == 5
    assert first_stop(study.ask(), [0.01, bad, bad, 0.01, bad, bad, 0.01]) is None


def test_divergence_needs_one_finished_trial() -> None:
    study = optuna.create_study(pruner=pruner())
    assert first_stop(study.ask(), [NAN] * 50) is None
    study.add_trial(finished(decay(1.0)))
    trial = study.ask()
    assert first_stop(trial, [NAN] * 9) == 5
    assert "diverged" in str(study.trials[2].user_attrs["lcsearch:reason"])


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_non_finite_history_is_no_incumbent_and_no_obstacle(bad: float) -> None:
    study = study_of()
    study.add_trial(finished({**dict(enumerate(decay(0.5))), 20: bad, 49: bad, 50: 0.5}))
    study.add_trial(finished({0: bad, 1: 1.0}))
    study.add_trial(finished([bad] * 10, TrialState.PRUNED))
    assert first_stop(study.ask(), decay(5.0)) == SHORTEST
    assert first_stop(study.ask(), [bad, *decay(5.0)]) is not None


def test_a_history_without_one_usable_value_stops_nothing() -> None:
    study = optuna.create_study(pruner=pruner(n_startup_trials=1))
    for _ in range(6):
        study.add_trial(create_with_nothing_finite())
    assert first_stop(study.ask(), decay(5.0)) is None


def create_with_nothing_finite() -> optuna.trial.FrozenTrial:
    return optuna.trial.create_trial(value=1.0, intermediate_values=dict.fromkeys(range(50), NAN))


# The trials of a study


def test_a_trial_that_ignores_the_stop_counts_as_what_it_came_to(tmp_path: Any) -> None:
    """It runs on and completes: it may lead, and its mark takes no risk."""
    for kind in ("memory", "sqlite"):
        with storage(kind, tmp_path) as on:
            study = study_of(on=on)
            of = study.pruner
            assert isinstance(of, CurvePruner)
            ignoring = study.ask()
            assert first_stop(ignoring, decay(5.0)) == SHORTEST
            assert of.report(study).stops == ()
            for step in range(SHORTEST + 1, 50):
                ignoring.report(0.01, step)
                assert not ignoring.should_prune()  # it leads by now
            study.tell(ignoring, 0.01)
            report = of.report(study)
            assert (report.stops, report.risk) == ((), 0.0)
            number = stop_one(study)
            assert f"trial {ignoring.number} at step" in of.explain(number)
            assert [stop.trial for stop in of.report(study).stops] == [number]


def test_running_trials_are_compared_but_do_not_lead() -> None:
    """What a killed process left RUNNING at a fine value must not stop anybody."""
    study = study_of(n=5)
    zombie = study.ask()
    assert first_stop(zombie, [0.01] * 20) is None
    other = study.ask()
    assert first_stop(other, decay(5.0)) is not None
    reason = study.trials[other.number].user_attrs["lcsearch:reason"]
    assert f"of trial {zombie.number}" not in reason
    assert "rank 7 of 7" in reason


def test_two_studies_one_pruner() -> None:
    of = pruner()
    one, two = study_of(of), study_of(of, sign=-1.0)
    assert (one._study_id, two._study_id) == (0, 0)  # noqa: SLF001
    for _ in range(2):
        assert first_stop(one.ask(), decay(5.0)) == SHORTEST
        assert first_stop(two.ask(), [-v for v in decay(5.0)]) == SHORTEST
        assert first_stop(two.ask(), [5.0] * 50) is None
    empty = optuna.create_study(pruner=of)
    assert first_stop(empty.ask(), decay(5.0)) is None


def test_two_studies_of_one_name_in_separate_memory() -> None:
    of = pruner()
    one = study_of(of, study_name="same")
    assert first_stop(one.ask(), decay(5.0)) == SHORTEST
    two = study_of(of, n=2, study_name="same")
    assert first_stop(two.ask(), decay(5.0)) is None
    assert first_stop(one.ask(), decay(5.0)) == SHORTEST


def test_a_study_of_several_objectives_is_answered_with_one_sentence(caplog: pytest.LogCaptureFixture) -> None:
    of = pruner(n_startup_trials=0)
    study = optuna.create_study(directions=["minimize", "maximize"], pruner=of)
    study.add_trial(optuna.trial.create_trial(values=[1.0, 2.0]))
    frozen = optuna.trial.create_trial(state=TrialState.RUNNING, intermediate_values={0: 1.0, 1: 1.0})
    sentence = (
        "this study has 2 objectives and CurvePruner judges one value, so nothing is looked at and nothing stopped: "
        "Optuna takes no reports in such a study"
    )
    with caplog.at_level(logging.WARNING, "lcsearch"):
        assert not of.prune(study, frozen)
        assert not of.prune(study, frozen)
    assert [record.getMessage() for record in caplog.records] == [f"lcsearch: {sentence}"]
    assert of.session.failed_open == {}
    assert of.why_not(study) == of.explain(0, study) == sentence
    report = of.report(study)
    assert (report.complete, report.stops, report.risk) == (1, (), None)
    assert str(report).splitlines()[:2] == [f"! {sentence}", "trials: 1 complete, 0 stopped"]


@pytest.mark.parametrize(
    "made",
    [
        lambda: optuna.samplers.GridSampler({"x": list(range(12))}, seed=0),
        lambda: optuna.samplers.BruteForceSampler(seed=0),
    ],
    ids=["grid", "brute force"],
)
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_exhaustive_samplers_still_finish(made: Callable[[], optuna.samplers.BaseSampler]) -> None:
    sampler = made()
    study = optuna.create_study(sampler=sampler, pruner=pruner(max_steps=20, n_startup_trials=4))

    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_int("x", 0, 11)
        for step, value in enumerate(decay(float(x), 20)):
            trial.report(value, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return value

    study.optimize(objective)
    assert sorted(t.params["x"] for t in study.trials) == list(range(12))
    assert {t.state for t in study.trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    assert study.best_params == {"x": 0}


def test_inside_a_patient_pruner() -> None:
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        patient = optuna.pruners.PatientPruner(pruner(), patience=2)
    study = study_of(patient)  # type: ignore[arg-type]
    assert first_stop(study.ask(), decay(5.0)) is None  # still improving
    assert first_stop(study.ask(), [5.0, *[6.0] * (SHORTEST + 1)]) is not None


# Knobs


def test_the_threshold_is_what_p_must_lie_below() -> None:
    for p, threshold, expected in ((0.049, 0.05, 8), (0.05, 0.05, None), (0.0, 0.0, None), (0.3, 1.0, 8)):
        # At step 8, when the previous look had its eight observations too.
        of = pruner(forecasters=[Rows(p, p)], threshold=threshold)
        assert first_stop(study_of(of).ask(), decay(5.0)) == expected


@pytest.mark.parametrize("judged", ["best", "final"])
def test_a_trial_that_returned_no_number_is_no_incumbent(judged: Any) -> None:
    """It fell to 0.05 and returned inf: to its study it is worth nothing, and others were stopped for it."""
    study = optuna.create_study(pruner=pruner(judged=judged))
    worthless = finished(decay(0.0))
    worthless.value = INF
    study.add_trials([worthless, *(finished(decay(0.9)) for _ in range(5))])
    assert first_stop(study.ask(), decay(0.5)) is None


def test_the_earlier_name_of_forecasters_is_taken_for_one_version() -> None:
    with pytest.warns(DeprecationWarning, match="opinions= is called forecasters= now") as told:
        of = CurvePruner(max_steps=20, opinions=["rank-gap"])
    assert told[0].filename == __file__
    assert [one.name for one in of.session.panel.forecasters] == ["rank-gap"]
    with pytest.raises(InvalidValue, match="expected forecasters or its earlier name, opinions, got 'both'"):
        CurvePruner(max_steps=20, opinions="rank-gap", forecasters="rank-gap")


def test_all_forecasters_must_agree() -> None:
    sure, unsure = Rows(0.0, 0.0, name="sure"), Rows(0.9, 0.9, name="unsure")
    assert first_stop(study_of(pruner(forecasters=[sure, unsure])).ask(), decay(5.0)) is None
    assert first_stop(study_of(pruner(forecasters=[sure])).ask(), decay(5.0)) == SHORTEST


def test_a_risk_limit_ends_the_stops() -> None:
    of = pruner(forecasters=[NormalAroundBest(2.0)], threshold=0.5, risk=0.2)
    study = study_of(of)
    risks = []
    for _ in range(12):
        trial = study.ask()
        stopped = first_stop(trial, decay(2.0)) is not None
        study.tell(trial, *((None, TrialState.PRUNED) if stopped else (2.0,)))
        risk = of.report(study).risk
        assert risk is not None
        risks.append(risk)
    assert 0.0 < max(risks) <= 0.2 + 1e-6
    assert "RISK_LIMIT" in reasons(of)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_steps": 0}, "max_steps: expected 'auto' or a number > 0, got 0."),
        ({"decision_log": 5}, "decision_log: expected a folder's path, or None, got 5."),
        ({"max_steps": -5}, "max_steps: expected 'auto' or a number > 0, got -5."),
        ({"max_steps": "all"}, "max_steps: expected 'auto' or a number > 0, got 'all'."),
        ({"max_steps": INF}, "max_steps: expected 'auto' or a number > 0, got inf."),
        ({"max_steps": True}, "max_steps: expected 'auto' or a number > 0, got True."),
        ({"max_steps": None}, "max_steps: expected 'auto' or a number > 0, got None."),
        ({"n_warmup_steps": -1}, "n_warmup_steps: expected a number >= 0, got -1."),
        *WRONG_ARGUMENTS,
    ],
)
def test_constructor_errors_word_for_word(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011  # the whole message is compared below
        pruner(**fields)
    assert isinstance(error.value, InvalidValue)
    assert str(error.value) == message


def test_numpy_numbers_and_an_unlimited_overhead_are_fine() -> None:
    of = pruner(max_steps=np.int64(50), threshold=np.float32(0.05), n_startup_trials=np.int64(5), max_overhead=INF)
    assert first_stop(study_of(of).ask(), decay(5.0)) == SHORTEST


def test_every_argument_is_a_keyword() -> None:
    with pytest.raises(TypeError):
        CurvePruner(50)  # type: ignore[call-arg]


def test_a_study_begins_at_one_threshold_whatever_other_studies_audits_say_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "audits.json"
    monkeypatch.setenv("LCSEARCH_AUDIT", str(place))
    keep(place, [Audit("earlier", "1", 0.01, 0.05, True)])
    study = optuna.create_study()

    def started() -> float | None:
        """By a process that begins now."""
        own = CurvePruner(max_steps=9, forecasters=[NormalAroundBest()], audit=0.2, max_wrong_stop=0.05)
        study.pruner = own
        trial = study.ask()
        trial.report(1.0, 1)
        trial.should_prune()
        return own.session.policy.threshold_from

    first = started()
    assert first is not None
    assert first < 0.05
    keep(place, [Audit("other", str(i), 0.01, 0.05, True) for i in range(3)])
    assert started() == first
    assert study.user_attrs["lcsearch:threshold_from"] == first
