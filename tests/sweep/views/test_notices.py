"""What trials, objective and sweep file disagree about is said once, with what to do: in the summary and the report."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from kit.studies import stop_one, study_of
from optuna.trial import FrozenTrial, TrialState
from sweep.kit import Remembering, state_of, write_toy
from sweep.report.test_report import paper
from sweep.views.test_live import FILE, trial

from lcsearch.sweep import run as launcher
from lcsearch.sweep.monitor.progress import collect
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.store.ownership import NOTED
from lcsearch.sweep.views.notices import notices
from lcsearch.sweep.views.summary import summarize

ODD = """\
def train(ctx):
    if ctx.number == 0:                                  # counts down
        for left in range(ctx.max_steps, 0, -1):
            ctx.report(1.0 / left, left)
    elif ctx.number == 1:                                # counts in an inner loop
        for fold in range(3):
            for epoch in range(1, ctx.max_steps + 1):
                ctx.report(2.0 / epoch, epoch)
    elif ctx.number == 2:
        for epoch in range(1, ctx.max_steps + 1):
            ctx.report(float("nan"), epoch)
    else:                                                # the best, and then no number any more
        for epoch in range(1, ctx.max_steps + 1):
            ctx.report(0.1 if epoch == 3 else 5.0 * epoch, epoch)
        return 77.0
"""
SAID = [
    "epoch 1 of trial 1 was reported more than once: the first report of a step stands, the others were ignored; "
    "report each epoch once, counted from the trial's begin",
    "trial 0 reported epoch 5 after epoch 6: a curve is read in the order of its steps, so count what was trained "
    "upwards, not what is left",
    "trial 3 returned 77 and is judged by its best loss, 0.1 at epoch 3: what is returned is not used; report what is "
    "to be judged, or return nothing",
    "1 of 4 trials that reported have no finite loss at all (trial 2), so they count for nothing: see what explain "
    "tells of one, and take out of the space what they share",
    "the best value is of a trial that diverged later: trial 3 reached 0.1 at epoch 3, its report at epoch 6 is 30, "
    "worse than its first; keep a checkpoint of the best epoch, or set judged: final",
]


@pytest.mark.parametrize(
    ("values", "gone"),
    [
        ([1.0, 0.5, math.nan] * 3 + [math.nan], True),  # longer than between any two
        ([0.5] * 9 + [math.nan], True),
        ([math.nan, 1.0, 0.5] * 3 + [math.nan], False),  # not measured at every step
        ([1.0, math.nan, math.nan, 0.5, 0.4, math.nan, math.nan, 0.3, math.nan, math.nan], False),
    ],
)
def test_a_metric_that_is_not_measured_at_every_step_has_not_diverged(values: list[float], gone: bool) -> None:
    said = [text for text in told(whole(0, *values)) if "diverged later" in text]
    assert bool(said) == gone
    assert not said or "is no finite number any more" in said[0]


def test_one_that_counts_down_is_told_of_that_alone() -> None:
    down = whole(0, *(1.0 + n for n in range(10)), **{NOTED: {"descending": [9, 10]}})
    assert [text for text in told(down) if "diverged later" in text] == []
    assert len([text for text in told(down) if "counted" in text or "upwards" in text]) == 1


def told(*trials: FrozenTrial, **changes: Any) -> list[str]:
    file = FILE.model_copy(update=changes)
    return notices(collect(trials, file.target, 9, file.space), file)


def whole(number: int, *values: float, **attrs: Any) -> FrozenTrial:
    """Of ten epochs; the last value goes on."""
    curve = {e: values[min(e, len(values)) - 1] for e in range(1, 11)}
    return trial(number, TrialState.COMPLETE, curve, **attrs)


def test_each_kind_is_said_once(tmp_path: Path) -> None:
    path = write_toy(tmp_path, ODD, trials=4)
    outcome = launcher.run(path, folder=tmp_path / "run", view=Remembering())
    folder = RunFolder(tmp_path / "run")
    said = summarize(state_of(outcome)).splitlines()
    assert [line.removeprefix("! ") for line in said if line.startswith("! ")] == SAID
    page = paper(folder).text
    for text in SAID:
        assert page.count(text[1:]) == 1
    (log,) = folder.logs.glob("*.log")
    assert log.read_text().count("ignored: it was reported before") == 1  # not a line for each


def test_stops_that_stand_ins_forecast_are_told() -> None:
    """Workers that could not load torch said so in their logs alone; the summary called their stops certified."""
    study = study_of()
    stop_one(study)
    progress = collect(study.trials, FILE.target, 9, {})
    (said,) = (text for text in notices(progress, FILE) if "forecast by" in text)
    assert said == (
        "1 of 1 stops by P(beat) were forecast by fake (trial 6), for their workers could not load the network: "
        "logs/worker-*.log says why. No certificate speaks of such stops"
    )
    on_ray = FILE.model_copy(update={"backend": FILE.backend.model_copy(update={"kind": "ray"})})
    (said,) = (text for text in notices(progress, on_ray) if "forecast by" in text)
    assert "for the launch could not load the network: what it printed says why. No" in said  # there are no such logs
    named = FILE.model_copy(update={"pruner": FILE.pruner.model_copy(update={"forecasters": ("parametric",)})})
    assert not [text for text in notices(progress, named) if "forecast by" in text]


def test_a_sound_sweep_is_told_nothing() -> None:
    assert told(whole(0, 1.0, 0.5), whole(1, 0.9, 0.7, **{NOTED: {"returned": "x", "repeated": []}})) == []


def test_of_several_trials_one_is_shown() -> None:
    odd = [whole(n, 1.0, **{NOTED: {"descending": [3, 4], "repeated": [0]}}) for n in range(3)]
    repeated, descending = told(*odd)
    assert repeated.startswith("epoch 0 of trial 0 was reported more than once (and so in 2 other trials): ")
    assert descending.startswith("trial 0 reported epoch 3 after epoch 4 (and so in 2 other trials): ")


def test_what_is_returned_may_be_the_last_report() -> None:
    (text,) = told(whole(0, 1.0, 0.25, 0.5, **{NOTED: {"returned": [0.5]}}))
    assert text == (
        "trial 0 returned 0.5 (its last report) and is judged by its best loss, 0.25 at epoch 2: what is returned is "
        "not used; set judged: final if it should count"
    )


@pytest.mark.parametrize(("last", "how"), [(math.nan, "no finite number any more"), (9.0, "9, worse than its first")])
def test_a_best_that_diverged(last: float, how: str) -> None:
    (text,) = told(whole(0, 1.0, 0.2, last))
    assert f"trial 0 reached 0.2 at epoch 2, its report at epoch 10 is {how}; " in text
    assert told(whole(0, 1.0, 0.2, last), judged="final") == []
    assert told(whole(0, 1.0, 0.2, 0.3)) == []  # a little overfitting is no divergence


def test_a_trial_that_has_just_begun_with_nan_is_not_told_yet() -> None:
    assert told(whole(0, 1.0), trial(1, TrialState.RUNNING, {1: math.nan})) == []


@pytest.mark.parametrize(
    ("argument", "how"),
    [
        (
            "--lr={a}",
            "the program gets that number where its command line has the placeholder '{max_steps}', and in the "
            "environment variable LCSEARCH_MAX_STEPS",
        ),
        ("--epochs={max_steps}", "see what the program does with that number, which its command line passes on"),
    ],
)
def test_programs_that_stop_early_are_blamed_for_nothing(argument: str, how: str) -> None:
    """It may be their own early stopping; and braces in a text looked like a gap that nobody had filled in."""
    objective = FILE.objective.model_copy(update={"python": None, "command": ("train", argument)})
    ended = [trial(n, TrialState.COMPLETE, {1: 1.0, 2: 0.5, 3: 0.4}) for n in range(2)]
    (text,) = told(*ended, objective=objective)
    assert text == (
        "2 of 2 complete trials ended before epoch 10, the longest of these at epoch 3: if they stop early by "
        "themselves, "
        "nothing is to be done (looks ask about the best value by the last end, or further, for another may go on; "
        f"epochs saved are counted to where they ended); if they are meant to train 10 epochs, {how}"
    )


def test_stops_that_came_too_late_are_told() -> None:
    """A program faster than looks: 'stopped 5, 0 saved', or all complete, and nothing said why."""
    at_its_end = trial(1, TrialState.PRUNED, {1: 2.0, 2: 2.0}, **{"lcsearch:trained": 10})
    taken_back = whole(2, 2.0, **{"lcsearch:overtaken": 1})
    some_saved = trial(3, TrialState.PRUNED, {1: 2.0, 2: 2.0}, **{"lcsearch:trained": 5})
    (text,) = told(whole(0, 1.0), at_its_end, taken_back, some_saved)
    assert text == (
        "2 stops came too late to save anything (trials 1, 2): a program does not wait for a look, and was at its end "
        "by then. Nothing is to be done where its epochs take no longer than looks; else see that it prints each "
        "report at once (flush)"
    )
    assert told(whole(0, 1.0), some_saved) == []


@pytest.mark.parametrize(
    ("pruner", "judged", "known"),
    [
        ("none", "best", ""),
        ("median", "best", " (epochs saved are counted to where they ended)"),
        (
            "curve",
            "final",
            " (looks ask about the final value at their ends; epochs saved are counted to where they ended)",
        ),
    ],
)
def test_early_ends_say_of_looks_what_is_true(pruner: str, judged: str, known: str) -> None:
    """It spoke of looks whatever the pruner was, and of "where trials end" whatever was judged."""
    whole = dict.fromkeys(range(1, 11), 1.0)
    ended = [trial(0, TrialState.COMPLETE, whole), trial(1, TrialState.COMPLETE, {1: 1.0, 2: 0.5})]
    (text,) = told(*ended, pruner=FILE.pruner.model_copy(update={"kind": pruner}), judged=judged)
    assert f"if they stop early by themselves, nothing is to be done{known}; if they are meant" in text
