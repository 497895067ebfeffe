"""`lcsearch explain` and the groups of the summary, on made-up studies: every line as it is read."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from sweep.kit import write_toy
from sweep.views.test_live import trial

from lcsearch.errors import FileProblem
from lcsearch.schedulers.optuna import CurvePruner
from lcsearch.schedulers.optuna._record import MARK
from lcsearch.stopping.risk import LEVELS, StopRecord
from lcsearch.sweep.monitor.progress import Progress, collect
from lcsearch.sweep.monitor.state import StateReader, SweepState
from lcsearch.sweep.runtime.failures import systematic_failure
from lcsearch.sweep.spec.load import load
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.views.explain import explain, number_of
from lcsearch.sweep.views.summary import configuration, summarize

LEGEND = (
    "P(beat): a trial's forecast chance to beat the incumbent by epoch 10; it is stopped where this report and the "
    "one before are below 5 % (1 % below 8 observations)"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.chdir(tmp_path)
    made = RunFolder(tmp_path / "runs/toy")
    made.decisions.mkdir(parents=True)
    made.logs.mkdir()
    made.write(load(write_toy(tmp_path, pruner="curve", max_steps=10, trials=3)))
    return made


def story(number: int, folder: RunFolder, *trials: FrozenTrial) -> list[str]:
    file = folder.read().file
    study = optuna_study(*trials)
    progress = collect(trials, file.target, file.budget.trials, file.space)
    return explain(number, StateReader(file, folder).state(progress, study), study).splitlines()


def told(number: int, folder: RunFolder, *trials: FrozenTrial) -> list[str]:
    lines = story(number, folder, *trials)
    return lines[lines.index("  k: 3") + 1 :]


def log(folder: RunFolder, *looks: tuple[int, float, float, str]) -> None:
    lines = [
        json.dumps({"trial": str(n), "reason": reason, "now": {"step": step, "p": p, "threshold": 0.05}})
        for n, step, p, reason in looks
    ]
    (folder.decisions / "w.jsonl").write_text("".join(f"{line}\n" for line in lines))


def whole(number: int, **attrs: Any) -> FrozenTrial:
    return trial(number, TrialState.COMPLETE, dict.fromkeys(range(1, 11), 1.0 + number), **attrs)


def test_how_near_a_complete_trial_was_to_a_stop(folder: RunFolder) -> None:
    log(folder, (0, 6.0, 0.5, "ABOVE"), (0, 9.0, 0.049, "ABOVE_BEFORE"), (1, 7.0, 0.01, "ABOVE_BEFORE"))
    lines = told(0, folder, whole(0))
    assert lines[2:-1] == [
        "it was not stopped",
        "nearest to a stop: P(beat) 4.9 % at epoch 9, threshold 5 %, the lowest of 2 in runs/toy/decisions",
        "  P(beat) is below the threshold now but was not at the report before.",
        LEGEND,
        "it is the best trial",
    ]
    log(folder)
    assert told(0, folder, whole(0))[2:4] == [
        "it was not stopped",
        "it is one of the first 2 that ran to their end (n_startup_trials): until then nothing is stopped",
    ]


def test_values_off_the_scale_are_told(folder: RunFolder) -> None:
    values = {step: 2.0 * 0.7**step for step in range(1, 10)} | {10: 1e30}
    assert told(0, folder, trial(0, TrialState.COMPLETE, values))[:2] == [
        "loss over epoch 1..10: █▇▆▅▅▄▃▂▁^",
        "  first 1.4, last 1e+30, best 0.0807072 at epoch 9; ^ and v lie far off the scale, above and below",
    ]


def test_what_a_trial_reported_a_second_time_is_told(folder: RunFolder) -> None:
    lines = told(0, folder, whole(0, **{"lcsearch:noted": {"replayed": [3]}}))
    assert lines[2] == "it was taken up again, and 3 of its reports came a second time: epochs spent count each once"


def test_what_a_stopped_program_trained_and_what_it_reported_by_then(folder: RunFolder) -> None:
    """'17 of 30 epochs' stood above a curve that ended at epoch 4, without a word."""
    values = dict.fromkeys(range(1, 5), 3.0)
    ahead = trial(1, TrialState.PRUNED, values, **{"lcsearch:trained": 7})
    head = story(1, folder, whole(0), ahead)[0]
    assert head == (
        "trial 1: stopped, 7 of 10 epochs trained, of which its curve has 4: the program had gone on by the time its "
        "stop came"
    )
    assert story(1, folder, whole(0), trial(1, TrialState.PRUNED, values))[0] == "trial 1: stopped, 4 of 10 epochs"


def test_a_dead_attempt_that_had_come_further_is_no_program_that_went_on(folder: RunFolder) -> None:
    values, dead = dict.fromkeys(range(1, 10), 3.0), {"steps": [[5, 9]], "of": 1}
    again = trial(1, TrialState.PRUNED, values, **{"lcsearch:retries": 1})
    again.system_attrs["lcsearch:dead"] = dead
    assert story(1, folder, whole(0), again)[0] == (
        "trial 1: stopped, 9 of 10 epochs trained, of which its curve has 4: an attempt that died had come further, or "
        "the program had gone on by the time its stop came"
    )


def test_a_trial_that_waits(folder: RunFolder) -> None:
    waiting = trial(1, TrialState.RUNNING, {}, **{"lcsearch:worker": None})
    line = "it waits for a worker"
    assert told(1, folder, whole(0), waiting)[:2] == [
        "it reported nothing",
        f"{line}: lcsearch run toy.yaml --resume",
    ]
    held = folder.hold()
    assert told(1, folder, whole(0), waiting)[1] == line
    os.close(held)
    fresh = trial(1, TrialState.RUNNING, {}, **{"lcsearch:worker": {"slot": 0, "pid": 1}})
    assert told(1, folder, whole(0), fresh)[:2] == ["it reported nothing", "best: loss 1 (trial 0, epoch 1)"]


def test_the_last_lines_of_a_failed_trial_are_its_own(folder: RunFolder) -> None:
    folder.log(1).write_text(
        "trial 0 begins\nof another\ntrial 0: COMPLETE\ntrial 1 begins\nfirst life\ntrial 1 adopted\n"
        + "".join(f"line {n}\n" for n in range(20))
        + "trial 1: FAIL\ntrial 12 begins\nof a third\n"
    )
    attrs = {"lcsearch:error": "ValueError: no", "lcsearch:worker": {"slot": 1}, "lcsearch:retries": 1}
    failed = trial(1, TrialState.FAIL, {}, **attrs)
    lines = told(1, folder, whole(0), failed)
    assert lines[1:4] == [
        "its worker died once; it went on from its start, for no checkpoint is in its folder",
        "error: ValueError: no",
        "the last lines it printed:",
    ]
    assert lines[4:16] == [f"  line {n}" for n in range(8, 20)]
    folder.checkpoints(1).mkdir(parents=True)
    (folder.checkpoints(1) / "reports.jsonl").touch()
    assert told(1, folder, whole(0), failed)[1].endswith("from its start, for no checkpoint is in its folder")
    (folder.checkpoints(1) / "state").touch()
    assert told(1, folder, whole(0), failed)[1] == "its worker died once; it went on from its last checkpoint"


def marked(number: int, target: float) -> FrozenTrial:
    """A trial stopped at epoch 8 with P(beat) 4 % of passing `target`."""
    at = tuple(target - 0.04 + np.array(LEVELS))
    mark = StopRecord(8.0, "BELOW", 0.04, f"trial {number}, step 8: STOP (BELOW)\nP(beat): fake 4 %", at, target)
    line = "step 8: P(beat) 4 %, threshold 5 %, incumbent 1 of trial 0"
    made = trial(number, TrialState.PRUNED, dict.fromkeys(range(1, 9), 3.0), **{"lcsearch:reason": line})
    made.system_attrs = {MARK: mark.to_json()}
    return made


def test_what_a_stop_is_worth_now_is_told_where_that_is_something_else(folder: RunFolder) -> None:
    """The summary names stops by what they are worth now: where the stop itself said another number, a word on it."""
    others = [whole(n) for n in range(3)]
    certificate = [line for line in [CurvePruner(max_steps=10).session.certificate] if line]
    assert told(3, folder, *others, marked(3, 1.5))[2 : 6 + len(certificate)] == [
        "trial 3, step 8: STOP (BELOW)",
        "P(beat): fake 4 %",
        *certificate,
        "as things stand now: P(beat) < 0.01 %, the stop's forecast against today's incumbent and margin",
        LEGEND,
    ]
    # best and margin are what they were: the stop says it all
    assert told(3, folder, *others, marked(3, 1.0))[3 : 5 + len(certificate)] == [
        "P(beat): fake 4 %",
        *certificate,
        LEGEND,
    ]


def optuna_study(*trials: FrozenTrial) -> optuna.Study:
    study = optuna.create_study(pruner=CurvePruner(max_steps=10))
    study.add_trials(trials)
    return study


def test_in_a_study_that_has_lost_a_trial_another_one_s_story_is_its_own(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, study = folder.read().file, optuna_study(whole(0), whole(1), trial(2, TrialState.RUNNING, {1: 3.0}), whole(3))
    left = study.trials[1:]
    monkeypatch.setattr(study, "get_trials", lambda **_: left)
    progress = collect(left, file.target, file.budget.trials, file.space)
    state = StateReader(file, folder).state(progress, study)
    assert "trial 3" not in explain(2, state, study)
    assert "it was not stopped\n" in explain(3, state, study)


def summary(folder: RunFolder, *trials: FrozenTrial, code: int | None = 0) -> list[str]:
    file = folder.read().file
    progress: Progress = collect(trials, file.target, file.budget.trials, file.space)
    return summarize(SweepState(file, folder, progress), 1.0, code).splitlines()


def test_stops_and_failures_stand_in_groups(folder: RunFolder) -> None:
    reasons = dict.fromkeys(range(1, 13), "step 7: P(beat) 1 %, threshold 5 %, incumbent 1 of trial 0")
    reasons |= {13: "step 7: diverged, 3 reports", 14: "stopped by the pruner"}
    stopped = [trial(n, TrialState.PRUNED, {7: 3.0}, **{"lcsearch:reason": text}) for n, text in reasons.items()]
    errors = ("no", "other", "no", "no")
    failed = [trial(15 + n, TrialState.FAIL, {}, **{"lcsearch:error": text}) for n, text in enumerate(errors)]
    lines = summary(folder, whole(0), *stopped, *failed)
    unknown = "1 stop for divergence is not in it: no risk is known for it"
    assert f"risk that some stop lost the winner: not known yet; {unknown}" in lines
    at = lines.index("stopped by P(beat): 12 (trials 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more)")
    assert lines[at + 1 :] == [
        "stopped as diverged: 1 (trial 13)",
        "stopped by the curve pruner: 1 (trial 14)",
        "failed:",
        "  trials 15, 17, 18: no",
        "  trial 16: other",
        "files: runs/toy",
        "next: lcsearch report",
        "      lcsearch explain 15   (failed)",
        "      lcsearch run toy.yaml --resume --retry-failed   (runs the 4 failed trials again, after the mend)",
    ]
    many = [trial(n, TrialState.FAIL, {}, **{"lcsearch:error": f"error {n}"}) for n in range(13)]
    assert "  and 3 other errors" in summary(folder, *many)


def test_an_interrupted_sweep_says_how_to_go_on(folder: RunFolder) -> None:
    waiting = trial(1, TrialState.RUNNING, {1: 3.0}, **{"lcsearch:worker": None})
    assert summary(folder, whole(0), waiting, code=130)[-3:] == [
        "next: lcsearch run toy.yaml --resume",
        "      lcsearch report",
        "      lcsearch explain best",
    ]


def test_what_is_hopeless() -> None:
    now = datetime(2024, 1, 2)

    def failed(n: int, error: str = "ValueError: no", values: dict[int, float] | None = None) -> FrozenTrial:
        made = trial(n, TrialState.FAIL, values or {}, **{"lcsearch:error": error})
        made.datetime_start = now
        return made

    five = [failed(n) for n in range(5)]
    assert systematic_failure(five, now) == (
        "the first 5 trials failed before any report and with the same error, so the sweep was ended: ValueError: no"
    )
    assert systematic_failure(five[:4], now) == ""
    assert systematic_failure([*five, failed(5, "another")], now) == ""
    assert systematic_failure([*five, failed(5, values={1: 1.0})], now) == ""
    assert systematic_failure(five, datetime(2024, 1, 3)) == ""  # an earlier launch's


def test_a_run_in_place_of_a_trial(folder: RunFolder) -> None:
    progress = Progress((), 3, None)
    with pytest.raises(FileProblem) as caught:
        number_of(str(folder.root), progress)
    hint = f"The trial comes first: lcsearch explain best {folder.root}"
    assert str(caught.value) == f"expected the number of a trial, or 'best', got {str(folder.root)!r}. {hint}"
    with pytest.raises(FileProblem, match=r"or 'best', got 'first'\.$"):
        number_of("first", progress)


def test_a_configuration_stands_in_one_line_a_parameter_whatever_it_holds(folder: RunFolder) -> None:
    assert configuration({"lr\nx": "a\nb", "c": "\x1b[31mred", "k": 3}, "  ") == [
        r'  "lr\nx": "a\nb"',
        r'  c: "\u001b[31mred"',
        "  k: 3",
    ]
