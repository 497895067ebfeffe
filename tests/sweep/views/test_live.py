"""What is drawn from a study: pure readings, both views, the log's tail."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial
from rich.console import Console
from sweep.spec.test_space import SWEEP

from lcsearch.allocation.allocators.run_to_end import RunToEnd
from lcsearch.allocation.ask import ask
from lcsearch.allocation.contract import Abilities, Slots
from lcsearch.allocation.judge import judge
from lcsearch.allocation.receipt import AllocationReceipt
from lcsearch.goal import Goal
from lcsearch.schedulers.optuna._record import THAW, Thawed
from lcsearch.study import FinishedTrials, Snapshot
from lcsearch.sweep.monitor.decision_tail import DecisionLogTail
from lcsearch.sweep.monitor.progress import Progress, collect
from lcsearch.sweep.monitor.state import StateReader
from lcsearch.sweep.spec.model import SweepFile
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.views.live import PlainView
from lcsearch.sweep.views.phrases import clock, finished_line, looks_told, standing
from lcsearch.sweep.views.screen import RichView
from lcsearch.sweep.views.sparkline import spark

STOPPED = "step 2: P(beat) 0.1 %, threshold 5 %, incumbent 0.1 of trial 0"
FILE = SweepFile.model_validate(
    {**SWEEP, "space": {"a": {"uniform": (0.0, 1.0)}, "k": 3}, "schedule": None, "step": "epoch"}
)
A: dict[str, optuna.distributions.BaseDistribution] = {"a": optuna.distributions.FloatDistribution(0.0, 1.0)}


def trial(number: int, state: TrialState, values: dict[int, float], **attrs: Any) -> FrozenTrial:
    value = 0.0 if state == TrialState.COMPLETE else None
    made = create_trial(
        state=state,
        params={"a": min(number / 10, 1.0)},
        distributions=A,
        intermediate_values=values,
        user_attrs=attrs,
        value=value,
    )
    made.number = number
    made.datetime_complete = datetime(2024, 1, 1, 0, 0, number) if state.is_finished() else None
    return made


def progress(judged: str = "best") -> Progress:
    file = FILE.model_copy(update={"judged": judged})
    trials = [
        trial(0, TrialState.COMPLETE, {e: 1 / e for e in range(1, 11)}),
        trial(1, TrialState.PRUNED, {1: 2.0, 2: 1.5}, **{"lcsearch:reason": STOPPED}),
        trial(2, TrialState.FAIL, {1: -5.0}, **{"lcsearch:error": "ValueError: no"}),
        trial(3, TrialState.RUNNING, {1: 0.5, 2: 0.05}, **{"lcsearch:worker": {"slot": 1}}),
        trial(4, TrialState.RUNNING, {}, **{"lcsearch:worker": None}),
        trial(5, TrialState.COMPLETE, dict.fromkeys(range(10), math.nan)),
    ]
    return collect(trials, file.target, 8, file.space)


def test_steps_spent_and_saved() -> None:
    rows = progress().rows
    assert [row.state for row in rows] == ["complete", "stopped", "failed", "running", "waiting", "complete"]
    assert [row.spent for row in rows] == [10, 2, 1, 2, 0, 10]
    assert [row.saved for row in rows] == [0, 8, 0, 0, 0, 0]
    assert rows[0].params == {"a": 0.0, "k": 3}


def test_the_incumbent() -> None:
    """Under "best" a running trial may hold it, a failed one never; under "final" a trial must be complete."""
    best, final = progress().best, progress("final").best
    assert best is not None
    assert (best.number, best.value, best.step, best.state) == (3, 0.05, 2, "running")
    assert final is not None
    assert (final.number, final.value) == (0, 0.1)


def test_whose_the_best_value_is_where_it_is_not_the_incumbent_s() -> None:
    """Issue: best, incumbent, what is returned and what is judged were four things under one name."""
    found = progress()
    assert found.incumbent is not None
    assert (found.incumbent.number, found.incumbent.value, found.incumbent.state) == (0, 0.1, "complete")
    assert standing(found, FILE) == (
        "trial 3 is running, not complete; the incumbent, which others must beat, is the best complete one: loss 0.1 "
        "(trial 0, epoch 10)"
    )
    assert standing(progress("final"), FILE) == ""
    alone = collect([trial(0, TrialState.RUNNING, {1: 1.0})], FILE.target, 8, FILE.space)
    assert (
        standing(alone, FILE) == "trial 0 is running, not complete; the incumbent, which others must beat, is none yet"
    )
    said = io.StringIO()
    shown = PlainView(FILE, said)
    shown.update(collect([], FILE.target, 8, FILE.space), optuna.create_study())
    ended = [
        trial(0, TrialState.PRUNED, {1: 0.1, 2: 0.5}),
        trial(1, TrialState.COMPLETE, dict.fromkeys(range(10), 0.2)),
    ]
    shown.update(collect(ended, FILE.target, 8, FILE.space), optuna.create_study())
    assert said.getvalue().splitlines()[-1] == "[2/8] trial 1 complete: loss 0.2, new incumbent"


def test_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    view = PlainView(FILE)
    study = optuna.create_study()
    view.start()
    view.update(collect([], FILE.target, 8, FILE.space), study)
    view.update(progress(), study)
    view.update(progress(), study)
    view.event("worker 0 was killed")
    assert capsys.readouterr().out.splitlines() == [
        "toy: 4 trials of 10 epochs, minimize loss, 2 workers, tpe sampler, curve pruner",
        "P(beat): a trial's forecast chance to beat the incumbent by epoch 10; it is stopped where this report and the "
        "one before are below 5 % (1 % below 8 observations)",
        "[1/8] trial 0 complete: loss 0.1, new best",
        "[2/8] trial 1 stopped at epoch 2, about 8 saved: loss 1.5; P(beat) 0.1 %, threshold 5 %",
        "[3/8] trial 2 failed; ValueError: no",
        "[4/8] trial 5 complete: loss nan",
        "! worker 0 was killed",
    ]


@pytest.mark.parametrize(
    ("state", "values", "reason", "line"),
    [
        (TrialState.COMPLETE, {9: 0.3, 10: 0.2}, "", "trial 4 complete: loss 0.2"),
        (TrialState.COMPLETE, {9: 0.31231, 10: 0.3597}, "",
         "trial 4 complete: best loss 0.3123 at epoch 9 (last 0.3597)"),
        (TrialState.COMPLETE, {9: 0.20001, 10: 0.20002}, "", "trial 4 complete: loss 0.2"),
        (TrialState.COMPLETE, {1: 0.3, 2: math.nan}, "",
         "trial 4 complete at epoch 2 of 10: best loss 0.3 at epoch 1 (last nan)"),
        (TrialState.PRUNED, {7: 0.3, 8: 0.4},
         "step 8: P(beat) 4 % (was 3 % at step 7), threshold 5 %, incumbent 0.1 of trial 0, rank 6 of 7 at this step",
         "trial 4 stopped at epoch 8, about 2 saved: best loss 0.3 at epoch 7 (last 0.4); P(beat) 4 % "
         "(was 3 % at step 7), threshold 5 %"),
        (TrialState.PRUNED, {6: 0.3}, "step 6: P(beat) 0.4 %, threshold 1 %, incumbent 0.1 of trial 0",
         "trial 4 stopped at epoch 6, about 4 saved: loss 0.3; P(beat) 0.4 %, threshold 1 % "
         "(strict below 8 observations)"),
        (TrialState.PRUNED, {8: 0.3, 9: 0.4}, "step 8: P(beat) 4 %, threshold 5 %, incumbent 0.1 of trial 0",
         "trial 4 stopped at epoch 9 (1 report after the look at epoch 8), about 1 saved: "
         "best loss 0.3 at epoch 8 (last 0.4); P(beat) 4 %, "
         "threshold 5 %"),
        (TrialState.PRUNED, {8: math.nan, 9: math.nan}, "step 8: diverged, 3 reports in a row are not finite",
         "trial 4 stopped at epoch 9 (1 report after the look at epoch 8), about 1 saved: loss nan; diverged, 3 "
         "reports "
         "in a row are not finite"),
    ],
)  # fmt: skip
def test_the_line_of_an_end(state: TrialState, values: dict[int, float], reason: str, line: str) -> None:
    made = trial(4, state, values, **({"lcsearch:reason": reason} if reason else {}))
    whole = trial(0, TrialState.COMPLETE, dict.fromkeys(range(1, 11), 1.0))  # how long a trial is
    row = collect([whole, made], FILE.target, 8, FILE.space).rows[-1]
    assert finished_line(row, FILE) == line
    assert finished_line(row, FILE, new="best") == f"{line}, new best"


def test_the_count_of_what_has_ended_never_falls_while_stopped_trials_are_trained_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = trial(0, TrialState.COMPLETE, {10: 0.5})
    stopped = [trial(n, TrialState.PRUNED, {2: 1.5}) for n in (1, 2)]
    thawed = []
    for by, one in ((3, 2), (4, 1)):
        thawed.append(trial(by, TrialState.RUNNING, {2: 1.5}, **{"lcsearch:worker": {"slot": 1}}))
        thawed[-1].system_attrs = {THAW: Thawed(one, 2.0, 0.01, 0.02, False)._asdict()}
    view, screens = PlainView(FILE), []
    for state in (TrialState.RUNNING, TrialState.COMPLETE):
        for made in thawed:
            made.state = state
            made.datetime_complete = None if state == TrialState.RUNNING else datetime(2024, 1, 1, 0, 1, made.number)
            made.value = None if state == TrialState.RUNNING else 1.0
            found = collect([whole, *stopped, *thawed], FILE.target, 3, FILE.space)
            view.update(found, optuna.create_study())
            screens.append(sum(row.done for row in found.rows))
    assert screens == [3] * 4
    assert [line.partition(" complete")[0] for line in capsys.readouterr().out.splitlines()] == [
        "3 trials had ended before",
        "[thawed 1] trial 3",
        "[thawed 2] trial 4",
    ]


def test_a_new_best_is_better_than_all_that_ended(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever a running trial has reached; and after a resume than those of before."""
    ended = [trial(n, TrialState.COMPLETE, {10: value}) for n, value in enumerate((0.5, 0.6, 0.4, 0.4))]
    running = trial(4, TrialState.RUNNING, {1: 0.1}, **{"lcsearch:worker": {"slot": 1}})
    fresh, resumed = PlainView(FILE), PlainView(FILE)
    for view, before in ((fresh, 0), (resumed, 1)):
        for shown in (ended[:before], [*ended, running]):
            view.update(collect(shown, FILE.target, 8, FILE.space), optuna.create_study())
    assert capsys.readouterr().out.splitlines() == [
        "[1/8] trial 0 complete: loss 0.5, new best",
        "[2/8] trial 1 complete: loss 0.6",
        "[3/8] trial 2 complete: loss 0.4, new best",
        "[4/8] trial 3 complete: loss 0.4",
        "1 trial had ended before",
        "[2/8] trial 1 complete: loss 0.6",
        "[3/8] trial 2 complete: loss 0.4, new best",
        "[4/8] trial 3 complete: loss 0.4",
    ]


@pytest.mark.parametrize(
    ("steps", "spent"),
    [
        (range(1, 11), 10), (range(10), 10), (range(11), 10), (range(1, 4), 3), (range(3), 3), ([1], 1), ([0], 1),
        ([10], 10), ((3, 6, 9), 10), ((2, 4, 6, 8), 8), ((0, 5), 10), ((1, 2, 4, 8), 10), (range(1, 10), 9),
        (range(9), 9),
    ],
)  # fmt: skip
def test_a_complete_trial_counts_as_long_as_it_ran(steps: Iterable[int], spent: int) -> None:
    """Whole where no further report was owed: (3, 6, 9) of 10 is, (2, 4, 6, 8) is not."""
    made = [trial(0, TrialState.COMPLETE, dict.fromkeys(steps, 1.0))]
    (row,) = collect(made, FILE.target, 8, FILE.space).rows
    assert (row.spent, row.saved) == (spent, 0)


@pytest.mark.parametrize("no_color", [True, False])
def test_the_screen(tmp_path: Path, no_color: bool) -> None:
    log = {"trial": "3", "reason": "ABOVE", "latency": 0.01, "now": {"step": 2.0, "p": 0.25}}
    folder = RunFolder(tmp_path)
    folder.decisions.mkdir()
    (folder.decisions / "w.jsonl").write_text(json.dumps(log) + "\n")
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100, no_color=no_color, color_system="standard")
    view = RichView(FILE, folder, console)
    view.start()
    view.update(progress(), optuna.create_study())
    shown = stream.getvalue()
    view.stop()
    for text in (
        "4/8 trials",
        "best so far, running: loss 0.05 (trial 3, epoch 2)",
        "25 spent, about 8 saved (24%)",
        "25 %",
        "█▁",
    ):
        assert text in shown
    assert ("\x1b[32m" in shown) is not no_color


def test_the_tail_of_the_log_waits_for_whole_lines(tmp_path: Path) -> None:
    tail = DecisionLogTail(tmp_path)
    assert tail.latest() == {}
    file = tmp_path / "w.jsonl"
    line = json.dumps({"trial": "7", "reason": "ABOVE", "latency": 0.01, "now": {"step": 3.0, "p": 0.5}})
    file.write_text(f'{{"trial": "1", "verdict": "CONTINUE"}}\n{line}\n{line[:9]}')
    assert tail.latest() == {7: (3.0, 0.5)}
    file.write_text(f'{{"trial": "1", "verdict": "CONTINUE"}}\n{line}\n{line.replace("0.5", "0.1")}\n')
    assert tail.latest() == {7: (3.0, 0.1)}


def test_the_tail_counts_looks_and_failed_open_ones(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.decisions.mkdir()
    before = StateReader(FILE, folder).state(collect([], FILE.target, 8, FILE.space), optuna.create_study())
    assert looks_told(before) is None
    look = {"step": 3.0, "p": 0.5, "heard": {"parametric": 0.5}}
    records = [
        {"trial": "7", "reason": "ABOVE", "now": look, "before": look, "latency": 0.010},
        {"trial": "7", "reason": "ABSENT", "now": {**look, "p": None, "heard": {"parametric": "UNSUPPORTED"}},
         "before": look, "latency": 0.030},
        {"trial": "8", "reason": "ABSENT", "now": {**look, "p": None, "heard": {"network": "LATE"}},
         "before": {**look, "p": None, "heard": {"network": "LATE"}}, "latency": 31.0},
    ]  # fmt: skip
    (folder.decisions / "w.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    expected = "looks: 3 forecasts, p50 30 ms, p99 31000 ms; no forecast, so the trial went on: "
    state = StateReader(FILE, folder).state(collect([], FILE.target, 8, FILE.space), optuna.create_study())
    assert looks_told(state) == f"{expected}parametric UNSUPPORTED 1, network LATE 1"


def test_the_tail_keeps_the_latest_receipts_of_allocations_and_counts_all(tmp_path: Path) -> None:
    """Each names all trials: thousands of them would fill the memory."""
    seen = Snapshot("s", Goal("loss", "minimize", 9), FinishedTrials(Goal("loss", "minimize", 9)), ())
    told: list[int] = []
    tail = DecisionLogTail(tmp_path, heard=lambda one: told.append(one.number))
    for writer in (1, 0):  # the file that is read last has the earlier ones
        lines = []
        for n in range(100 * writer, 100 * writer + 100):
            asked = ask(RunToEnd(), None, seen, Abilities(pause=True), Slots(2, 2), (0, n))
            record = AllocationReceipt.of(asked, judge(asked, {})).to_record()
            lines.append(json.dumps({**record, "time": 0.0}) + "\n")
        (tmp_path / f"{1 - writer}.jsonl").write_text("".join(lines))
    tail.latest()
    assert tail.left_out == []
    assert [one.number for one in tail.allocations] == list(range(180, 200))
    assert tail.n_turns == 400
    assert len(told) == 200


def test_sparks_and_clocks() -> None:
    assert spark([1.0, 1.0]) == "▁▁"
    assert spark([math.nan, math.inf]) == "!!"
    assert len(spark(list(range(100)), 24)) == 24
    assert spark([1e9, 4, 3, 2, 1]) == "^█▆▃▁"
    assert [clock(s) for s in (7.9, 187, 7500)] == ["7 s", "3 min 07 s", "2 h 05 min"]


_CURVES = {
    "a loss": [2.3 * 0.8**i + 0.05 for i in range(24)],
    "over twelve decades": [1e3 * 0.3**i for i in range(24)],
    "an accuracy": [1 - 0.9 * 0.8**i for i in range(24)],
    "a reward": [-3 * 0.8**i for i in range(24)],
    "around zero": [0.8**i - 0.5 for i in range(24)],
}


@pytest.mark.parametrize("curve", _CURVES)
@pytest.mark.parametrize(
    ("value", "mark"), [(1e30, "^"), (-1e30, "v"), (1.7e308, "^"), (-1.7e308, "v"), (math.inf, "!"), (math.nan, "!")]
)
@pytest.mark.parametrize("at", [0, 9, 23])
def test_one_blow_up_does_not_flatten_a_curve(curve: str, value: float, mark: str, at: int) -> None:
    values = _CURVES[curve]
    rest = [*values[:at], *values[at + 1 :]]
    drawn = spark([*values[:at], value, *values[at + 1 :]])
    assert drawn == spark(rest)[:at] + mark + spark(rest)[at:]
    assert {"▁", "█"} < set(spark(rest))
    assert len(set(spark(rest))) > 5


def test_sparks_of_curves_that_are_all_blow_ups() -> None:
    assert spark([1.7e308, -1.7e308] * 6) == "^v" * 6
    assert spark([1.0, 1e120, -1e120]) == "▁^v"
    assert spark([3.0, 1e30, 2.5, 2.0]) == "█^▅▁"
    assert spark([0.0] * 8 + [1.0]) == "▁▁▁▁▁▁▁▁█"
    assert spark([2.3, *[0.1] * 20]) == "█" + "▁" * 20  # a steep start is none


def test_a_closed_pipe_is_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed:
        monkeypatch.setattr("sys.stdout", closed)
        for _ in range(2):
            PlainView(FILE).event("nobody reads this")
