"""Wall clock and worker time: one definition each, and the same on screen, in the summary and in the report."""

from __future__ import annotations

import json
import re
from datetime import UTC, timedelta
from pathlib import Path

import pytest
from optuna.trial import TrialState
from sweep.kit import Remembering, state_of, write_toy
from sweep.report.test_report import BEGAN, falling, folder_of, paper, trial

from lcsearch.sweep import run as launcher
from lcsearch.sweep.report.collect import axis_of, collect
from lcsearch.sweep.report.figures import LIGHT, timeline
from lcsearch.sweep.report.page import duration
from lcsearch.sweep.store.budget import Clock, Launch, Reading, read_clock
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.views import status
from lcsearch.sweep.views.phrases import clock
from lcsearch.sweep.views.summary import summarize

ZERO = BEGAN.astimezone(UTC)


def paused(tmp_path: Path) -> RunFolder:
    """Two launches of 40 and 30 s with a night between; trial 2 was under way in both, trial 3 in the second."""
    trials = [trial(n, falling(n)) for n in range(4)]
    night = timedelta(hours=10)
    trials[2].datetime_complete = BEGAN + night + timedelta(seconds=5)
    trials[3].datetime_start = BEGAN + night + timedelta(seconds=10)
    trials[3].datetime_complete = BEGAN + night + timedelta(seconds=30)
    folder = folder_of(tmp_path, trials)
    launches = [[ZERO.isoformat(), 40.0], [(ZERO + night).isoformat(), 30.0]]
    until = (ZERO + night + timedelta(seconds=30)).isoformat()
    record = {"seconds": 70.0, "until": until, "monotonic": 1.0, "launches": launches}
    folder.clock.write_text(json.dumps(record))
    return folder


def test_a_pause_between_launches_is_no_work(tmp_path: Path) -> None:
    """Issue: it was drawn as work, and counted as wall clock in the report alone."""
    report = collect(paused(tmp_path))
    assert report.state.wall == 70.0
    axis, rows = report.axis, report.progress.rows
    assert axis is not None
    assert (axis.end, axis.breaks, axis.counted) == (70.0, (40.0,), True)
    spans = [axis.span(row.began, row.ended) for row in rows if row.began is not None]
    assert spans == [(0.0, 15.0), (10.0, 25.0), (20.0, 45.0), (50.0, 70.0)]
    figure = timeline(report, LIGHT)
    assert figure is not None
    (axes,) = figure.axes
    assert axes.get_xlim() == (0.0, 70.0)
    assert axes.get_xlabel() == "wall clock, s"


def test_status_summary_and_report_say_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_toy(tmp_path, trials=2)
    launcher.run(path, folder=tmp_path / "run", view=Remembering())
    outcome = launcher.run(path, folder=tmp_path / "run", resume=True, trials=3, view=Remembering())
    folder = RunFolder(tmp_path / "run")
    reading = read_clock(folder)
    assert len(reading.launches) == 2
    assert reading.seconds == pytest.approx(sum(launch.seconds for launch in reading.launches))
    assert outcome.seconds == reading.launches[1].seconds
    said = summarize(state_of(outcome), outcome.seconds).splitlines()
    total = f"{clock(reading.seconds)} of wall clock"
    assert said[0] == f"toy: 3 complete in {total} ({clock(outcome.seconds)} in this launch)"
    status.show(folder)
    shown = capsys.readouterr().out
    assert f"wall clock: {clock(reading.seconds)}" in shown
    (worker,) = (line for line in said if line.startswith("worker time: "))
    assert worker in shown
    text = re.sub(r" +", " ", paper(folder).text)
    assert f"wall clock {duration(reading.seconds)}" in text
    assert f"Worker time {duration(outcome.progress.seconds)} spent" in text


def test_a_run_of_an_earlier_lcsearch(tmp_path: Path) -> None:
    """It counted seconds and no launches, or nothing at all."""
    folder = folder_of(tmp_path, [trial(n, falling(n)) for n in range(3)])
    report = collect(folder)
    assert report.state.wall == 35.0
    assert report.axis is not None
    assert (report.axis.end, report.axis.counted) == (35.0, False)
    folder.clock.write_text(json.dumps({"seconds": 50.0, "until": ZERO.isoformat(), "monotonic": 1.0}))
    report = collect(folder)
    assert report.state.wall == 50.0
    assert report.axis is not None
    assert not report.axis.counted
    Clock(folder).tick()  # goes on with it
    later = read_clock(folder)
    assert (later.at(BEGAN), len(later.launches)) == (None, 1)


def test_where_a_moment_stands() -> None:
    reading = Reading(70.0, ZERO, 1.0, (Launch(ZERO, 40.0), Launch(ZERO + timedelta(hours=1), 30.0)))
    seconds = (0.0, 39.0, 45.0, 100.0, 3595.0, 3610.0, 3630.0, 3700.0, -60.0)
    at = [reading.at(ZERO + timedelta(seconds=s)) for s in seconds]
    # what comes shortly after a launch was killed, or before one, is of it; the rest is another machine's
    assert at == [0.0, 39.0, 40.0, None, 40.0, 50.0, 70.0, None, None]
    assert reading.at(BEGAN) == 0.0


def test_a_trial_that_has_not_ended_ends_with_the_last_launch(tmp_path: Path) -> None:
    running = trial(0, falling(0, 3), TrialState.RUNNING)
    folder = folder_of(tmp_path, [running])
    reading = Reading(20.0, ZERO, 1.0, (Launch(ZERO, 20.0),))
    axis = axis_of(collect(folder).progress.rows, reading)
    assert axis is not None
    assert axis.span(BEGAN, None) == (0.0, 20.0)
