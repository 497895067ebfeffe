"""The screen: what stands where, on terminals of every size, tongue and fate."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from rich.cells import cell_len
from rich.console import Console
from sweep.kit import write_toy
from sweep.views.test_live import FILE, trial

from lcsearch.schedulers.optuna import StudyReport
from lcsearch.stopping.earlier import decision_of
from lcsearch.sweep.monitor import run_record
from lcsearch.sweep.monitor.progress import Best, Progress, Row
from lcsearch.sweep.monitor.state import StateReader, SweepState, time_left
from lcsearch.sweep.spec.load import load
from lcsearch.sweep.spec.model import SweepFile
from lcsearch.sweep.store import studies
from lcsearch.sweep.store.budget import Reading, read_clock
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.store.pace import Pace
from lcsearch.sweep.views import status
from lcsearch.sweep.views.screen import RichView, layout
from lcsearch.terminal import safe

START = datetime(2024, 1, 1, 12)
PACE = Pace(1.0, 9)
WHY = "P(beat) 0.42 % (was 1.2 % at step 5), threshold 5 %, incumbent 0.1 of trial 0"


def row(number: int, state: str, spent: int, *, note: str = "", values: dict[int, float] | None = None) -> Row:
    """One second a step; ended trials one after the other."""
    curve = {step: 1 / step for step in range(1, spent + 1)} if values is None else values
    ended = None if state in ("running", "waiting") else START + timedelta(seconds=number)
    saved = 10 - spent if state == "stopped" else 0
    times = (START, ended, float(spent), PACE)
    return Row(number, state, {"a": 0.5}, curve, spent, saved, note, number % 2, 0, *times, stop=decision_of(note))


def state_with(rows: list[Row], budget: int = 8, price: float | None = None, **numbers: Any) -> SweepState:
    states = [row.state for row in rows]
    best = Best(0.1, 0, 10, {"a": 0.5}, "complete") if rows else None
    counts = {state: states.count(state) for state in states}
    progress = Progress(tuple(rows), budget, best, counts, incumbent=best)
    sweep = FILE.model_copy(update={"budget": FILE.budget.model_copy(update={"money_per_hour": price})})
    return SweepState(sweep, RunFolder(Path()), progress, Reading(75.0, monotonic=1.0), **numbers)


SMALL = state_with(
    [
        row(0, "complete", 10),
        row(1, "stopped", 6, note=f"step 6: {WHY}"),
        row(2, "failed", 1, note="ValueError: no"),
        row(3, "running", 7),
        row(4, "waiting", 2),
        row(5, "running", 0),
    ],
    left=130.0,
    best_age=42.0,
    ledger=StudyReport(0.0123, (), 0, independent=0.0122),
    looks={3: (5.0, 0.25)},
    n_looks=12,
    latency=(0.013, 0.032),
    failed_open={"fake LATE": 1},
    price=3.6,
)


def text(state: SweepState, width: int, height: int | None = None, file: SweepFile | None = None) -> list[str]:
    lines = [
        line.text.rstrip() for line in layout(state if file is None else replace(state, sweep=file), width, height)
    ]
    assert all(cell_len(line) <= width for line in lines)
    assert height is None or len(lines) <= height
    return lines


def test_a_wide_terminal() -> None:
    assert text(SMALL, 118, 30) == [
        "toy  3/8 trials  about 2 min 10 s left  1 complete  1 stopped  1 failed  2 running  1 waiting",
        "best: loss 0.1 (trial 0, epoch 10), 42 s ago",
        "epochs: 26 spent, about 4 saved (13%)  counted to where complete trials ended  wall clock: 1 min 15 s",
        "worker time: 26 s spent, about 4 s saved  money: 0.026 spent, about 0.004 saved",
        "risk that some stop lost the winner: at most 1.2 % (uncalibrated)",
        "looks: 12, p50 13 ms, p99 32 ms, 1 without a forecast",
        "",
        "trial  worker  epoch    last  P(beat)  age  curve",
        "    3       1   7/10  0.1429     25 %    2  ██▅▃▂▂▁",
        "    4       -   2/10     0.5        -    -  █▁ waits for a worker",
        "    5       1      -       -        -    -",
        "",
        "trial     ended  epoch    best  why",
        "    0  complete     10     0.1",
        f"    1   stopped      6  0.1667  {WHY}",
        "    2    failed      1       1  ValueError: no",
    ]


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_a_best_that_is_not_the_incumbent_s_is_told_beside_it_on_any_terminal(width: int) -> None:
    trials = [row(0, "complete", 10), row(1, "stopped", 6)]
    seen = state_with(trials)
    seen = replace(seen, progress=replace(seen.progress, best=Best(0.01, 1, 4, {}, "stopped")))
    told = " ".join(text(seen, width))
    assert "best so far, stopped: loss 0.01" in told
    assert "incumbent, the best complete: 0.1 (trial 0, epoch 10)" in told
    alone = replace(seen, progress=replace(seen.progress, incumbent=None))
    assert "incumbent, the best complete: none yet" in " ".join(text(alone, width))


def test_a_small_terminal() -> None:
    assert text(SMALL, 60, 15) == [
        "toy  3/8 trials  about 2 min 10 s left  1 complete",
        "1 stopped  1 failed  2 running  1 waiting",
        "best: loss 0.1 (trial 0, epoch 10), 42 s ago",
        "epochs: 26 spent, about 4 saved (13%)",
        "wall clock: 1 min 15 s",
        "worker time: 26 s spent, about 4 s saved",
        "money: 0.026 spent, about 0.004 saved",
        "risk of a lost winner: at most 1.2 % (uncalibrated)",
        "looks: 12, p50 13 ms, p99 32 ms, 1 without a forecast",
        "trial  worker  epoch    last  P(beat)  age  curve",
        "    3       1   7/10  0.1429     25 %    2  ██▅▃▂▂▁",
        "    4       -   2/10     0.5        -    -  █▁ waits for a…",
        "    5       1      -       -        -    -",
        "trial   ended  epoch  best  why",
        "    2  failed      1     1  ValueError: no",
    ]


def test_a_sweep_that_is_over_shows_its_best_first() -> None:
    rows = [row(n, "complete", 10, values={1: 0.5, 9: 0.9 - n / 10, 10: 1.0}) for n in range(6)]
    rows += [row(6, "failed", 1, values={1: 0.0}), row(7, "complete", 10, values={10: float("nan")})]
    rows.append(row(8, "stopped", 8, note=f"step 7: {WHY}", values={7: 0.45, 8: 0.47}))
    assert text(state_with(rows), 60)[-8:] == [
        "trial     ended  epoch  best  why",
        "    5  complete     10   0.4",
        "    8   stopped      8  0.45  step 7: P(beat) 0.42 % (was 1…",
        "    0  complete     10   0.5",
        "    1  complete     10   0.5",
        "    2  complete     10   0.5",
        "    3  complete     10   0.5",
        "and 3 more; these are the best",
    ]
    lines = text(state_with(rows[5:8]), 60)
    assert [line.split()[0] for line in lines[-3:]] == ["5", "6", "7"]


def test_nothing_yet() -> None:
    empty = state_with([])
    assert text(empty, 80, 24) == [
        "toy  0/8 trials",
        "best: none yet",
        "epochs: 0 spent, 0 saved  wall clock: 1 min 15 s",
        "worker time: 0 s spent, 0 s saved",
        "risk of a lost winner: not known yet",
    ]


@pytest.mark.parametrize("height", [1, 2, 3, 5, 8, 14, 24, 50, None])
@pytest.mark.parametrize("width", [1, 7, 20, 60, 80, 132, 500])
def test_any_size(width: int, height: int | None) -> None:
    """Hundreds of trials, long and wide names; `text` checks what must hold."""
    long = FILE.model_copy(update={"name": "n" * 90, "metric": "損失" * 30, "step": "gradient_accumulation_step"})
    many = [row(n, "stopped", 6, note="step 6: " + "x" * 300) for n in range(150)]
    many += [row(n, "running", 9) for n in range(150, 400)]
    lines = text(state_with(many, 1000), width, height, long)
    if width >= 60 and height is not None and height >= 14:
        assert any(line.startswith("and ") and line.endswith(" more") for line in lines)
        assert any("stopped" in line and "xxx" in line for line in lines)


def test_a_stalled_trial_says_so() -> None:
    progress = replace(SMALL.progress, silent={3: 200.0})
    assert any(
        line.endswith("stalled: no report for 3 min 20 s") for line in text(replace(SMALL, progress=progress), 118)
    )


def console(stream: io.StringIO, **settings: Any) -> Console:
    return Console(**{"file": stream, "force_terminal": True, "width": 100, "height": 30, "_environ": {}, **settings})


class Ascii(io.StringIO):
    """A terminal in the C locale."""

    encoding = "ascii"

    def write(self, s: str) -> int:
        s.encode(self.encoding)
        return super().write(s)


def test_a_terminal_without_blocks(tmp_path: Path) -> None:
    stream = Ascii()
    view = RichView(FILE, RunFolder(tmp_path), console(stream))
    view.start()
    assert "P(beat): a trial's forecast chance to beat the incumbent by epoch 10; it is " in stream.getvalue()
    trials = [row(0, "running", 7), row(1, "failed", 1, note="naïve " + "é" * 200)]
    view.event("ein Fähnchen")
    view.update(state_with(trials).progress, optuna.create_study())
    view.stop()
    shown = stream.getvalue()
    for said in ("##=:.._", "na\\xefve", "! ein F\\xe4hnchen"):
        assert said in shown


def test_control_characters_never_reach_a_terminal() -> None:
    assert safe("a\x1b[2Jb\rc\td\udcff\ne", "utf-8") == "a?[2Jb?c?d?\ne"
    assert safe("ü▁…", "no such encoding") == "\\xfc_..."


def test_a_resized_terminal_is_drawn_anew(tmp_path: Path) -> None:
    stream = io.StringIO()
    screen = console(stream)
    view = RichView(FILE, RunFolder(tmp_path), screen)
    view.start()
    view.event("worker 0 was killed")
    study, progress = optuna.create_study(), state_with([row(0, "running", 3)]).progress
    view.update(progress, study)
    assert "\x1b[2J" not in stream.getvalue()
    stream.truncate(0)
    screen.width = 60
    view.update(progress, study)
    shown = stream.getvalue()
    assert "\x1b[2J" in shown
    assert "! worker 0 was killed" in shown.split("\x1b[2J")[1]
    view.stop()


class Gone(io.StringIO):
    """A terminal whose window was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.there = True

    def flush(self) -> None:
        if not self.there:
            raise OSError(5, "Input/output error")


@pytest.mark.parametrize("last", [lambda v: v.event("nobody reads this"), lambda v: v.stop(), lambda v: v.start()])
def test_a_terminal_that_goes_away_ends_nothing(tmp_path: Path, last: Callable[[RichView], None]) -> None:
    stream = Gone()
    view = RichView(FILE, RunFolder(tmp_path), console(stream))
    view.start()
    stream.there = False
    study, progress = optuna.create_study(), state_with([row(0, "running", 3)]).progress
    for _ in range(2):
        view.update(progress, study)
    last(view)
    view.stop()


def test_the_risk_follows_a_stop_at_once(tmp_path: Path) -> None:
    """It is worked out when something has changed, and costs a tenth of the time at most."""
    now, asked = [0.0], []

    class Pruner(optuna.pruners.NopPruner):
        def report(self, study: optuna.Study) -> Any:
            asked.append(now[0])
            now[0] += 0.1  # what it takes
            return type("Report", (), {"risk": 0.01 * len(asked)})

    reader = StateReader(FILE, RunFolder(tmp_path), clock=lambda: now[0], wall=lambda: 0.0)
    study = optuna.create_study(pruner=Pruner())
    trials = [row(0, "complete", 10)]

    def risk() -> float | None:
        return reader.state(state_with(trials).progress, study).risk

    assert [risk(), risk()] == [0.01, 0.01]
    trials.append(row(1, "stopped", 6))
    assert risk() == 0.01  # too soon: that took 0.1 s
    now[0] = 2.0
    assert [risk(), risk()] == [0.02, 0.02]
    assert asked == [0.0, 2.0]


def test_the_age_of_the_best_is_that_of_its_report(tmp_path: Path) -> None:
    """Whoever looks, and whenever: the launcher notes it once, a later one does not note it again."""
    study = optuna.create_study()
    best = Best(0.1, 0, 5, {}, "complete")
    progress = replace(state_with([row(0, "complete", 10)]).progress, best=best)
    end = START.timestamp() + 20
    ended = replace(progress.rows[0], ended=START + timedelta(seconds=10))
    progress = replace(progress, rows=(ended,))
    # no note: half of its steps, half of its time
    assert StateReader(FILE, RunFolder(tmp_path), wall=lambda: end).state(progress, study).best_age == 15.0
    run_record.note_best(study, best)
    noted = study.user_attrs[run_record.BEST]
    run_record.note_best(study, best)
    assert study.user_attrs[run_record.BEST] == noted
    late = StateReader(FILE, RunFolder(tmp_path), wall=lambda: noted["time"] + 300.0)
    assert late.state(progress, study).best_age == 300.0
    run_record.note_best(study, replace(best, step=6))
    assert study.user_attrs[run_record.BEST]["step"] == 6


def test_the_time_left() -> None:
    rows = [row(0, "complete", 10), row(1, "stopped", 4), row(2, "failed", 1)]
    file = FILE.model_copy(update={"pruner": FILE.pruner.model_copy(update={"n_startup_trials": 0})})
    workers = file.backend.workers.n
    assert workers == 2
    # 5 steps a trial, a second each; 3 trials to come over two workers
    assert time_left(state_with(rows, 6).progress, file, 15.0) == 7.5
    # one that has passed the average runs half of what it has left, a lone one to its own end
    assert time_left(state_with([*rows, row(3, "running", 8)], 4).progress, file, 15.0) == 1.0
    assert time_left(state_with([*rows, row(3, "running", 1)], 4).progress, file, 15.0) == 4.0
    assert time_left(state_with(rows[:2], 6).progress, file, 15.0) is None
    assert time_left(state_with(rows, 3).progress, file, 15.0) is None
    spent = file.model_copy(update={"budget": file.budget.model_copy(update={"steps": 15})})
    assert time_left(state_with([*rows, row(3, "running", 1)], 9).progress, spent, 15.0) == 4.0
    late = file.model_copy(update={"budget": file.budget.model_copy(update={"seconds": 15.0})})
    assert time_left(state_with([*rows, row(3, "running", 1)], 9).progress, late, 15.0) == 4.0


def test_the_clock_of_all_launches_is_read(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert read_clock(folder).counted is None
    (tmp_path / "clock.json").write_text(json.dumps({"seconds": 90.5, "until": START.isoformat(), "monotonic": 1.0}))
    assert read_clock(folder).counted == 90.5
    reader = StateReader(FILE, folder)
    assert reader.state(state_with([]).progress, optuna.create_study()).wall == 90.5


def test_steps_are_paced_by_the_trials_own_times() -> None:
    from lcsearch.sweep.monitor.progress import collect

    made = [
        trial(0, TrialState.COMPLETE, dict.fromkeys(range(1, 11), 1.0)),
        trial(1, TrialState.PRUNED, {1: 1.0, 2: 1.0}),
    ]
    for one, seconds in zip(made, (20, 6), strict=True):
        one.datetime_start, one.datetime_complete = START, START + timedelta(seconds=seconds)
    # 2 s a step: of the stopped one, which took longer to start up, there is only one gap
    for one, pace, gaps in zip(made, (2.0, 5.0), (9, 1), strict=True):
        one.set_user_attr("lcsearch:took", {"since": "", "seconds": 0.0, "pace": pace, "gaps": gaps})
    owner = {"slot": 0, "since": START.isoformat()}
    running = trial(2, TrialState.RUNNING, {1: 1.0}, **{"lcsearch:worker": owner})
    running.datetime_start = START
    progress = collect([*made, running], FILE.target, 8, FILE.space, now=START + timedelta(seconds=5))
    assert (progress.seconds, progress.seconds_saved) == (31.0, 16.0)


def test_status_says_who_is_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = RunFolder(tmp_path / "run")
    sweep = load(write_toy(tmp_path))
    folder.root.mkdir()
    folder.write(sweep)
    studies.create_study(sweep.file, folder, resume=False)
    status.show(folder)
    assert capsys.readouterr().out.splitlines() == [
        "toy  0/3 trials",
        "best: none yet",
        "epochs: 0 spent, 0 saved  wall clock: 0 s  worker time: 0 s spent, 0 s saved",
        "run: nobody is at work on it; to go on: lcsearch run toy.yaml --resume --folder run",
    ]
    held = folder.hold()
    status.show(folder)
    os.close(held)
    assert capsys.readouterr().out.splitlines()[-1] == "run: going on"
