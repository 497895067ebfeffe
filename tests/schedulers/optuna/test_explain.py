from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from kit.doubles import Dead, NormalAroundBest
from kit.studies import SHORTEST, decay, finished, first_stop, pruner, stop_one, storage, study_of
from optuna.trial import TrialState

from lcsearch.errors import InvalidValue
from lcsearch.schedulers.optuna import CurvePruner
from lcsearch.session.decision_log import read_log
from lcsearch.session.explain import ELSEWHERE, UNMADE
from lcsearch.stopping.verdict import Reason

NAN = math.nan


def of_study(study: optuna.Study) -> CurvePruner:
    assert isinstance(study.pruner, CurvePruner)
    return study.pruner


def test_a_stopped_trial() -> None:
    study = study_of()
    number = stop_one(study)
    text = of_study(study).explain(number)
    assert text.splitlines()[:3] == [
        f"trial 6, step {SHORTEST}: STOP (BELOW)",
        "P(beat) is below the threshold at this report and at the one before.",
        "incumbent: 0.100018, trial 0 at step 49; to beat it counts from 0.0950178",
    ]
    before = f"report before: step {SHORTEST - 1}, {SHORTEST} observations, P(beat): fake < 0.01 %; threshold 1 %"
    assert before in text
    assert of_study(study).explain(study.trials[number]) == text
    assert pruner().explain(study.trials[number]) == text  # a frozen trial carries its own story
    study.add_trial(finished(decay(-1.0)))
    assert of_study(study).explain(number) == text  # as it was decided, not as it would be now


def test_a_frozen_trial_alone_is_told_as_certified_where_nothing_is_known_against_it() -> None:
    """Another process, which has no study at hand, called 'uncalibrated' what the certificate below it speaks of."""
    study = study_of(CurvePruner(max_steps=50))
    number = stop_one(study)
    text = CurvePruner(max_steps=50).explain(number, study)
    assert "(weights certified)" in text
    assert CurvePruner(max_steps=50).explain(study.trials[number]) == text


def test_a_stop_is_told_by_reports_whatever_looks_were_made(tmp_path: Path) -> None:
    """Looks come at 6, 12, 24 ... reports: where the second one stops, there was no look at the report before it."""
    study = study_of(pruner(look_growth=2, forecasters=[NormalAroundBest(0.12)], decision_log=tmp_path))
    trial = study.ask()
    step = first_stop(trial, decay(0.6, rate=0.85))
    study.tell(trial, state=TrialState.PRUNED)
    assert step is not None
    looks = [record["step"] for record in read_log(tmp_path)]
    assert looks[-1] == step
    assert step - 1 not in looks
    lines = of_study(study).explain(trial.number).splitlines()
    assert lines[1] == "P(beat) is below the threshold at this report and at the one before."
    (before,) = (line for line in lines if line.startswith("report before: "))
    assert before.startswith(f"report before: step {step - 1}, {step} observations, ")


def test_a_diverged_trial() -> None:
    study = study_of()
    number = stop_one(study, [9.0, NAN, NAN, math.inf])
    text = of_study(study).explain(number)
    assert text == (
        "trial 6, step 3: STOP (DIVERGED)\n"
        "The trial's own metric stays non-finite where finished trials have values.\n"
        "the last 3 reports were not finite (latest inf)\n"
        "no forecast was made, so no risk is known for this stop"
    )
    assert study.trials[number].user_attrs["lcsearch:reason"] == (
        "step 3: diverged, the last 3 reports were not finite (latest inf)"
    )
    report = of_study(study).report(study)
    assert (report.stops[0].p, report.risk, report.diverged) == (None, 0.0, 1)
    (risk,) = (line for line in str(report).splitlines() if line.startswith("risk"))
    assert risk == (
        "risk that some stop lost the winner: 0 % (no trial is stopped by P(beat)); 1 stop for divergence is not in "
        "it: no risk is known for it"
    )


def held(*looks: tuple[int, Reason]) -> list[str]:
    return [
        "its looks made again just now, beside the trials that had ended when it did, are all held:",
        *(f"  {n:6d} {reason.name}: {reason.advice}" for n, reason in looks),
    ]


FIRST = "it is one of the first 5 that ran to their end (n_startup_trials): until then nothing is stopped"


def test_a_complete_trial() -> None:
    study = study_of()
    ran = "trial 4 ran to its end; no look stopped it"
    assert pruner().explain(4, study).splitlines() == [ran, FIRST, *held((40, Reason.STARTUP))]
    study.add_trial(finished(decay(0.05)))
    assert pruner().explain(6, study).splitlines() == [
        "trial 6 ran to its end; no look stopped it",
        *held((28, Reason.INCUMBENT), (8, Reason.GUARD), (4, Reason.SHORT)),
    ]
    spaced = pruner(look_growth=1.1).explain(6, study).splitlines()
    assert spaced[1:] == held((11, Reason.INCUMBENT), (7, Reason.GUARD), (5, Reason.SHORT))  # those that were due
    apart = pruner(interval_steps=10).explain(6, study).splitlines()
    assert apart[1:] == held((3, Reason.INCUMBENT), (1, Reason.SHORT), (1, Reason.GUARD))  # steps 0, 10 ... 40
    trial = study.ask()
    first_stop(trial, decay(0.05, rate=0.5))
    study.tell(trial, 0.05)
    assert of_study(study).explain(trial.number).startswith(f"trial {trial.number} ran to its end; no look stopped it")


@pytest.mark.parametrize("interval", [1, 2])
def test_a_long_curve_is_looked_at_again_where_looks_were_due(interval: int) -> None:
    """Of thousands of reports a few had a look: any few of the reports hardly hit one of them."""
    study = study_of()
    study.add_trial(finished(decay(0.05, 20_000)))
    some = pruner(max_steps=20_000, look_growth=1.1, interval_steps=interval, n_startup_trials=9)
    assert some.explain(6, study).splitlines()[2:] == held((40, Reason.STARTUP))


def near(study: optuna.Study) -> optuna.trial.FrozenTrial:
    """A trial that came near to a stop and ran to its end."""
    trial = study.ask()
    assert first_stop(trial, decay(0.27)) is None
    study.tell(trial, 0.27)
    return study.trials[trial.number]


def test_how_near_a_complete_trial_came(tmp_path: Path) -> None:
    study = study_of(pruner(forecasters=[NormalAroundBest(0.5)], decision_log=tmp_path / "log"))
    frozen = near(study)
    logged = of_study(study).explain(6, study).splitlines()
    assert logged[0] == "trial 6 ran to its end; no look stopped it"
    assert logged[1].startswith("nearest to a stop: P(beat) ")
    assert logged[1].endswith(f"in {tmp_path / 'log'}")
    assert "threshold 1 %, the lowest of " in logged[1]
    # In another process, with the log alone, and without its study.
    other = pruner(decision_log=tmp_path / "log")
    assert other.explain(6, study).splitlines() == other.explain(frozen).splitlines() == logged
    # Without a log: by the looks of this process.
    of = study.pruner = pruner(forecasters=[NormalAroundBest(0.5)])
    frozen = near(study)
    mine = of.explain(7, study).splitlines()
    assert mine[1].replace(" in this process", "") == logged[1].replace(f" in {tmp_path / 'log'}", "")
    # In another process without a log: by looking at it again.
    again = pruner(forecasters=[NormalAroundBest(0.5)]).explain(7, study).splitlines()
    assert again[1].startswith("nearest to a stop: P(beat) ")
    assert again[1].endswith("made again just now, beside the trials that had ended when it did")


def test_a_log_of_another_study_of_that_name_says_nothing(tmp_path: Path) -> None:
    one = study_of(pruner(forecasters=[NormalAroundBest(0.5)], decision_log=tmp_path / "log"), study_name="same")
    near(one)
    two = study_of(pruner(decision_log=tmp_path / "log"), study_name="same")
    two.add_trial(finished([0.3, *decay(0.2)]))
    assert str(tmp_path) not in of_study(two).explain(6, two)


def test_two_studies_of_one_name_have_a_memory_each() -> None:
    of = pruner(forecasters=[NormalAroundBest(0.5)])
    one = study_of(of, study_name="same")
    mine = one.ask()
    assert first_stop(mine, decay(0.27, SHORTEST + 3)) is None
    before = of.explain(6, one)
    two = study_of(of, study_name="same")
    other = two.ask()
    assert other.number == mine.number
    assert first_stop(other, decay(0.2, SHORTEST + 2)) is None
    assert of.explain(6, one) == before
    assert f"trial 6, step {SHORTEST + 1}" in of.explain(6, two)


@pytest.mark.parametrize("name", ["same", "another"])
def test_a_trial_is_explained_of_the_study_that_holds_it(name: str, tmp_path: Path) -> None:
    """`explain(study.trials[6])` told of trial 6 of whichever study the pruner had seen last."""
    with storage("sqlite", tmp_path) as on:
        of = pruner(forecasters=[NormalAroundBest(0.5)])
        one = study_of(of, on=on, study_name="same")
        mine = one.ask()
        assert first_stop(mine, decay(0.27, SHORTEST + 3)) is None
        one.tell(mine, 0.27)
        told = of.explain(one.trials[6])
        two = study_of(of, study_name=name)
        assert first_stop(two.ask(), decay(0.2, SHORTEST + 2)) is None
        assert of.explain(one.trials[6]) == told
        assert f"trial 6, step {SHORTEST + 1}" in of.explain(two.trials[6])
        frozen = one.trials[6]
        optuna.delete_study(study_name="same", storage=on)
        assert of.explain(frozen).startswith("trial 6 ran to its end; no look stopped it")


def test_a_study_made_again_has_a_new_memory(tmp_path: Path) -> None:
    with storage("sqlite", tmp_path) as on:
        of = pruner(forecasters=[NormalAroundBest(0.5)])
        one = study_of(of, on=on, study_name="s")
        assert first_stop(one.ask(), decay(0.27, SHORTEST + 3)) is None
        assert "step 7" in of.explain(6, one)
        optuna.delete_study(study_name="s", storage=on)
        two = study_of(of, on=on, study_name="s")
        two.ask()
        assert of.explain(6, two) == "trial 6: it has not reported yet"


def test_a_running_a_waiting_and_a_failed_trial() -> None:
    study = study_of()
    trial = study.ask()
    assert of_study(study).explain(trial.number, study) == ("trial 6: it has not reported yet")
    for step, value in enumerate(decay(5.0, SHORTEST + 3)):
        trial.report(value, step)
    assert "STOP (BELOW)" in of_study(study).explain(trial.number, study)  # what a look would come to now
    study.tell(trial, state=TrialState.FAIL)
    assert of_study(study).explain(trial.number, study).startswith("trial 6 failed; no look stopped it")
    study.enqueue_trial({})
    assert of_study(study).explain(7, study) == "trial 7: it has not reported yet"


def test_a_trial_that_never_moved() -> None:
    """No startup trial and no leader, and not held for being short."""
    study = study_of()
    study.add_trial(finished([9.0] * 50))
    lines = of_study(study).explain(6, study).splitlines()
    assert lines == [
        "trial 6 ran to its end; no look stopped it",
        *held((35, Reason.UNMOVED), (4, Reason.SHORT), (1, Reason.HORIZON)),
    ]


def test_the_first_ones_are_those_that_ended_first() -> None:
    """Not those of the lowest numbers, where several train at once."""
    study = study_of(n=0)
    slow = study.ask()
    for i in range(6):
        study.add_trial(finished(decay(0.1 * (i + 1))))
    for step, value in enumerate(decay(5.0)):
        slow.report(value, step)
    study.tell(slow, 5.0)
    assert [FIRST in pruner().explain(n, study).splitlines() for n in range(7)] == [False, *[True] * 5, False]
    assert "nearest to a stop" in pruner().explain(0, study)


def test_a_trial_pruned_by_somebody_else() -> None:
    study = study_of()
    study.add_trial(finished(decay(0.5, 3), TrialState.PRUNED))
    expected = "trial 6 was stopped, but not by lcsearch: it carries no record of a decision"
    assert of_study(study).explain(6, study).splitlines() == [
        expected,
        *held((3, Reason.SHORT)),
    ]
    assert pruner().explain(study.trials[6]).splitlines()[0] == expected
    looked_at = study.ask()
    assert first_stop(looked_at, decay(0.1, SHORTEST + 2)) is None
    study.tell(looked_at, state=TrialState.PRUNED)  # the objective gave up by itself
    assert of_study(study).explain(7).splitlines()[0] == (
        "trial 7 was stopped, but not by lcsearch: it carries no record of a decision"
    )


def test_a_study_whose_looks_gates_held_is_known() -> None:
    """After twenty trials of three reports `explain(7)` asked for the study; with long ones it did not."""
    study = optuna.create_study(pruner=pruner())
    for _ in range(7):
        trial = study.ask()
        assert first_stop(trial, decay(1.0, 3)) is None
        study.tell(trial, 1.0)
    assert of_study(study).explain(6).splitlines()[0] == "trial 6 ran to its end; no look stopped it"


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_looks_made_again_that_contradict_what_became_of_the_trial() -> None:
    """PatientPruner did not ask; "below the threshold at this report and at the one before" was all that was said."""
    of = pruner()
    study = study_of(of)
    study.pruner = optuna.pruners.PatientPruner(of, patience=60)
    trial = study.ask()
    assert first_stop(trial, decay(5.0)) is None
    study.tell(trial, 5.0)
    first, _, advice, *more = of.explain(trial.number, study).splitlines()
    assert first == "trial 6 ran to its end; no look stopped it"
    assert advice == "  P(beat) is below the threshold at this report and at the one before."
    assert more == [UNMADE]
    assert "a pruner around this one did not ask it" in UNMADE


def test_trials_that_ran_side_by_side_were_held_by_a_gate_that_is_open_now() -> None:
    """Six at once: nothing could be stopped before five had ended, and then all had."""
    study = optuna.create_study(pruner=pruner())
    trials = [study.ask() for _ in range(6)]
    for trial in trials:
        assert first_stop(trial, decay(5.0 if trial.number == 5 else 0.1 * (1 + trial.number))) is None
    for trial in trials:
        study.tell(trial, 1.0)
    *_, said = of_study(study).explain(5).splitlines()
    assert said.startswith("  looks made again come to a stop, and none did then: fewer trials may have ended by then")


def test_which_study() -> None:
    of = pruner()
    with pytest.raises(InvalidValue) as error:
        of.explain(3)
    assert str(error.value) == (
        "explain(trial): expected a FrozenTrial, or a number and its study, got 3. Call explain(3, study)."
    )
    study = study_of(of)
    with pytest.raises(InvalidValue) as error:
        of.explain(99, study)
    assert str(error.value) == "explain(trial): expected the number of a trial of the study, got 99."
    assert pruner().explain(study.trials[0]) == (
        "trial 0 ran to its end; no look stopped it\n"
        "its looks stand in the decision log, if one was kept; pass its study to look at it again: explain(0, study)"
    )
    running = study.ask()
    running.report(1.0, 0)
    assert pruner().explain(study.trials[6]) == (
        "trial 6 is still running; pass its study to see which gate holds: explain(6, study)"
    )


def test_the_advice_can_be_typed_in_another_process(tmp_path: Path) -> None:
    with storage("sqlite", tmp_path) as on:
        study = study_of(on=on, study_name="s")
        study.ask().report(1.0, 0)
    code = f"""
import re, optuna
from lcsearch.schedulers.optuna import CurvePruner

study = optuna.load_study(study_name="s", storage="sqlite:///{tmp_path / "study.db"}")
of = CurvePruner(max_steps=50, forecasters="parametric")


def typed(given):
    try:
        text = of.explain(given)
    except ValueError as error:
        text = str(error)
    (call,) = re.findall(r"explain\\([^()]+, study\\)", text)
    print(eval(f"of.{{call}}").splitlines()[0])


for given in (3, study.trials[3], 6, study.trials[6]):
    typed(given)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    ended, running = "trial 3 ran to its end; no look stopped it", "trial 6, step 0: CONTINUE (SHORT)"
    assert done.stdout.splitlines() == [ended, ended, running, running]


def test_explaining_leaves_no_trace() -> None:
    study = study_of()
    trial = study.ask()
    for step, value in enumerate(decay(5.0, SHORTEST + 3)):
        trial.report(value, step)
    of = of_study(study)
    of.explain(trial.number, study)
    of.why_not(study)
    assert not of.session.reasons
    assert study.trials[trial.number].user_attrs == {}


def test_why_not_names_the_gate_of_every_running_trial_and_tallies_the_looks() -> None:
    study = study_of(pruner(n_startup_trials=7))
    assert first_stop(study.ask(), decay(5.0, 4)) is None
    study.ask()
    lines = of_study(study).why_not(study).splitlines()
    assert lines == [
        "trial 6: STARTUP: step 3: 6 of 7 trials have finished",
        "trial 7: it has not reported yet",
        "4 looks in this process:",
        "       4 STARTUP: Fewer than n_startup_trials trials have reached the horizon; the first ones always run to "
        "the end.",
    ]


def test_why_not_in_another_process_tells_what_is_known_there(tmp_path: Path) -> None:
    """It said that nothing was looked at yet, beside stops in the storage and looks in the log."""
    study = study_of(pruner(decision_log=tmp_path / "log"))
    for _ in range(2):
        stop_one(study)
    stop_one(study, [9.0, NAN, NAN, math.inf])
    here = of_study(study).why_not(study).splitlines()
    assert not any("whichever process" in line for line in here), "they are all counted"
    stored = "3 stops of whichever process stand with the study's trials: 2 BELOW, 1 DIVERGED"
    none = f"0 looks in this process; {ELSEWHERE}"
    known = "  6 trials are COMPLETE, n_startup_trials is 5"
    assert pruner().why_not(study).splitlines() == [none, known, stored]
    logged = pruner(decision_log=tmp_path / "log").why_not(study).splitlines()
    there = "0 looks in this process; those of another one are counted there, and stand in"
    assert logged[:3] == [f"{there} {tmp_path / 'log'}", known, stored]
    assert logged[3] == f"3 looks in {tmp_path / 'log'}, of those that came to a forecast or a divergence:"
    assert logged[4:] == [f"       2 BELOW: {Reason.BELOW.advice}", f"       1 DIVERGED: {Reason.DIVERGED.advice}"]
    empty = pruner(decision_log=tmp_path / "none").why_not(study).splitlines()
    assert empty == [f"{there} {tmp_path / 'none'}", known, stored]


def unasked(n: int) -> str:
    text = f"{n} trials reported values and no look at any of them is known: if they ran in this process, nobody asked "
    text += "whether they should stop. Ask trial.should_prune() after each report, and raise optuna.TrialPruned where "
    return text + "it is True"


def test_why_not_says_first_that_nobody_ever_asks() -> None:
    """An objective that reports and never calls `should_prune` was told how many trials are complete."""
    study = study_of(n=0)

    def objective(trial: optuna.Trial) -> float:
        for step in range(4):
            trial.report(1.0 / (1 + step), step)
        return 0.25

    study.optimize(objective, n_trials=3)
    of = of_study(study)
    assert of.why_not(study).splitlines()[0] == unasked(3)
    trial = study.ask()
    trial.report(1.0, 0)
    trial.should_prune()
    assert "nobody asked" not in of.why_not(study)


def test_why_not_of_an_idle_study() -> None:
    study = study_of()
    assert of_study(study).why_not(study).splitlines() == [
        unasked(6),
        f"0 looks in this process; {ELSEWHERE}",
        "  6 trials are COMPLETE, n_startup_trials is 5",
    ]


@pytest.mark.parametrize("steps", [5, 6, 7, "auto"])
def test_too_few_reports_for_a_stop_are_said_at_construction(steps: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", "lcsearch"):
        CurvePruner(max_steps=steps)
    assert [record.getMessage() for record in caplog.records] == (
        []
        if steps in (7, "auto")
        else [
            f"lcsearch: max_steps={steps}: {steps - 1} reports come before the end and a stop needs 6, so only a trial "
            "that diverges can be stopped. Report more often (say, within a fold or an epoch), on an axis that counts "
            "these reports"
        ]
    )


def test_why_not_names_trials_that_report_nothing_first() -> None:
    study = study_of(n=2)
    for _ in range(3):
        study.add_trial(finished({}))
    said = "3 of 5 trials that ran to their end reported no value: call trial.report(value, step) as they train"
    assert str(of_study(study).report(study)).splitlines()[0] == f"! {said}"
    assert of_study(study).why_not(study).splitlines()[:3] == [
        said,
        unasked(2),
        f"0 looks in this process; {ELSEWHERE}",
    ]


def test_why_not_shows_what_failed() -> None:
    study = study_of(pruner(forecasters=[Dead()]))
    assert first_stop(study.ask(), decay(5.0, SHORTEST + 3)) is None
    text = of_study(study).why_not(study)
    assert "       3 failed open: forecast" in text
    assert "ABSENT: A forecaster gave no forecast, so the trial goes on." in text


def test_a_dead_forecaster_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """`why_not` looks at every running trial: one warning each, and one more at every question."""
    study = study_of(pruner(forecasters=[Dead()]))
    for _ in range(4):
        trial = study.ask()
        for step, value in enumerate(decay(5.0, SHORTEST + 2)):
            trial.report(value, step)
    for _ in range(2):
        text = of_study(study).why_not(study)
        assert text.count("ABSENT: ") == 4
    of_study(study).explain(9, study)
    of_study(study).explain(0, study)
    study.tell(9, state=TrialState.FAIL)
    assert first_stop(study.ask(), decay(5.0, SHORTEST + 2)) is None
    (told,) = [record.message for record in caplog.records]
    assert told == "lcsearch: forecaster 'dead' gave no forecast, trials go on: RuntimeError: CUDA error: device lost"


def test_why_not_before_auto_knows_the_horizon() -> None:
    study = optuna.create_study(pruner=pruner(max_steps="auto"))
    first_stop(study.ask(), decay(5.0, 4))
    assert "trial 0: STARTUP: step 3: " in of_study(study).why_not(study)


@pytest.mark.parametrize("fields", [{}, {"max_steps": "auto"}])
def test_the_report_of_an_empty_study(fields: dict[str, Any]) -> None:
    study = optuna.create_study(pruner=pruner(**fields))
    report = of_study(study).report(study)
    assert (report.risk, report.stops, report.failed_open) == (None, (), 0)


def test_the_report_lists_stops_in_order() -> None:
    study = study_of()
    numbers = [stop_one(study), stop_one(study, [9.0, NAN, NAN, NAN]), stop_one(study)]
    report = of_study(study).report(study)
    expected = list(zip(numbers, (SHORTEST, 3, SHORTEST), strict=True))
    assert [(stop.trial, stop.step) for stop in report.stops] == expected
    assert report.risk == pytest.approx(sum(stop.p_now for stop in report.stops))
    assert report.independent == pytest.approx(1 - math.prod(1 - stop.p_now for stop in report.stops))
    assert report.stops[1].reason.startswith("step 3: diverged")
    assert report.failed_open == 0


def test_a_decision_log(tmp_path: Any) -> None:
    study = study_of(pruner(decision_log=tmp_path / "log"))
    stop_one(study)
    records = list(read_log(tmp_path / "log"))
    assert [(r["verdict"], r["step"]) for r in records] == [("STOP", SHORTEST)]
    assert records[0]["study"] == study.study_name


def test_stops_that_nobody_carries_out_are_told() -> None:
    """An objective that does not ask, or a pruner around this one: `explain` alone told it."""
    study = study_of()
    trial = study.ask()
    asked = 0
    for step, value in enumerate(decay(5.0)):
        trial.report(value, step)
        asked += trial.should_prune()
    study.tell(trial, 5.0)
    n = of_study(study).report(study).disobeyed
    assert asked - 1 <= n <= asked
    assert n > 3
    said = f"{n} looks came to a stop and the trial went on: where should_prune() is True, raise optuna.TrialPruned; a "
    said += "pruner around this one may hold stops"
    assert said in str(of_study(study).report(study)).splitlines()
    assert said in of_study(study).why_not(study).splitlines()


def test_trials_that_failed_are_counted_in_the_report() -> None:
    """26 complete and 28 stopped of 60 trials: nobody could tell what became of the rest."""
    study = study_of()
    study.add_trial(finished(decay(0.5, 3), TrialState.FAIL))
    study.add_trial(finished([], TrialState.FAIL))
    assert of_study(study).report(study).failed == 2
    assert str(of_study(study).report(study)).splitlines()[0] == "trials: 6 complete, 0 stopped, 2 failed"
    assert of_study(study).explain(7, study) == "trial 7 failed; no look stopped it\nit reported no value to look at"
