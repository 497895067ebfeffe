"""What the figures hold: points, panels, marks of the censored; never pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from lcsearch.curves import Curve
from lcsearch.data.synthetic import synthetic_task
from lcsearch.data.task import Run, Task
from lcsearch.replay.command import draw
from lcsearch.replay.plots import PANELS, disagreement, frontier
from lcsearch.replay.policies import policy_spec
from lcsearch.replay.whatif import THRESHOLDS, Point, Replay, differences, replay
from lcsearch.study import Status

TASK = synthetic_task("power", 24, n_steps=12)
POLICIES = [policy_spec(name) for name in ("curve:n_startup_trials=3", "median", "asha", "oracle")]


def censored(task: Task, every: int) -> Task:
    """The task, every so many runs stopped at step 5."""
    runs = [
        Run(run.uid, run.curve.cut(5), run.clock[:5], status=Status.STOPPED) if i % every == 1 else run
        for i, run in enumerate(task.runs)
    ]
    return Task(task.name, task.goal, tuple(runs))


def drawn(figure: Figure | None) -> Figure:
    assert figure is not None
    figure.draw_without_rendering()
    return figure


def where(point: Point) -> Any:
    return pytest.approx([100 * point.lost / 2, 50 * sum(point.saved)])


def test_the_frontier_holds_every_point() -> None:
    found = replay(TASK, POLICIES, orders=2)
    figure = drawn(frontier(found))
    (axes,) = figure.axes
    line, own, *rest = axes.lines
    points = found.frontiers[0]
    assert len(points) == len(THRESHOLDS)
    assert np.asarray(line.get_xydata(), float).tolist() == [where(p) for p in points]
    assert np.asarray(own.get_xydata(), float).tolist() == [where(found.points[0])]
    assert [mark.get_label() for mark in rest] == ["median", "asha", "oracle"]
    assert axes.get_xlabel() == "orders in which the best was lost (nothing as good found), % of 2"
    assert axes.get_ylabel() == "steps saved, %"
    low, high = axes.get_xlim()
    assert all(low < 50 * p.lost < high for p in found.points)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [e.name for e in POLICIES]
    labels = [text.get_text() for text in axes.texts]
    assert "5 %" in labels  # its own threshold comes first
    boxes = [text.get_window_extent() for text in axes.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_the_frontier_says_of_how_many_orders_shares_are() -> None:
    found = replay(TASK, POLICIES, orders=11)
    (axes,) = drawn(frontier(found)).axes
    assert axes.get_xlabel().endswith("% of 11, at other thresholds of 10")


def test_there_is_no_frontier_without_a_known_best() -> None:
    runs = tuple(Run(r.uid, r.curve, r.clock, status=Status.STOPPED) for r in TASK.runs)
    assert frontier(Replay(Task("t", TASK.goal, runs), (), (), ())) is None


def test_a_panel_a_difference_and_censored_curves_end_openly() -> None:
    found = replay(censored(TASK, 4), POLICIES[:2], orders=1)
    apart = differences(found.played[0][1], found.played[1][1])
    assert {d.rank is None for d in apart} == {True, False}
    figure = drawn(disagreement(found))
    shown = [axes for axes in figure.axes if axes.axison]
    assert len(shown) == min(len(apart), PANELS)
    for axes, difference in zip(shown, apart, strict=False):
        curve, *marks = axes.lines
        place = "censored" if difference.rank is None else f"rank {difference.rank}"
        assert axes.get_title() == f"trial {difference.uid}, {place}"
        assert (curve.get_linestyle(), curve.get_marker()) == (
            ("--", "o") if difference.rank is None else ("-", "None")
        )
        if difference.rank is None:
            assert curve.get_markevery() == [-1]
        stops = [mark.get_xdata() for mark in marks if mark.get_marker() in ("v", "^")]
        assert stops == [[life.step] for life in difference.lives if life.stop is not None]
        assert axes.get_xlim()[1] > TASK.goal.horizon
        low, high = axes.get_ylim()
        for mark in marks:
            assert all(low < y < high for y in np.asarray(mark.get_ydata(), float))


def test_curves_that_blow_up_or_never_report_a_number_can_be_drawn(tmp_path: Path) -> None:
    task = synthetic_task("diverging", 24, 3, n_steps=12)
    bad = Run("nan", Curve.of(range(1, 13), [np.nan] * 12), np.arange(1.0, 13))
    task = Task("bad", task.goal, (*task.runs, bad))
    found = replay(task, POLICIES[1::-1], orders=1)
    assert [path.name for path in draw(found, tmp_path)] == ["frontier.png", "disagreement.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())


def test_no_panels_where_nobody_disagrees() -> None:
    assert disagreement(replay(TASK, [policy_spec("none")], orders=1)) is None
    assert disagreement(replay(TASK, [policy_spec("none"), policy_spec("patience:patience=99")], orders=1)) is None
