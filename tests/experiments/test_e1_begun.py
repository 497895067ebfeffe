"""E1 for allocation shows begun trials as they stood, asks about others, scores by the book, goes on where it was."""

from __future__ import annotations

import argparse
import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit.scripts import neighbour

from lcsearch.study import Status

FOLDER = Path(__file__).parents[2] / "experiments" / "e1_forecast"


script = partial(neighbour, "e1_forecast")


for shared in ("scores", "calibration", "cheap", "research", "provenance", "entrants", "questions", "pieces", "report"):
    script(shared)
asking, rows, scores = (script(f"begun_{name}") for name in ("questions", "rows", "scores"))
script("begun_report")
begun = script("begun")
searched = script("begun_searches")


def test_begun_trials_stand_as_they_stood_and_nobody_sees_an_end() -> None:
    (task, _), _ = script("questions").curves_of("made", None, "all")
    seen = []
    for n, asked in asking.rounds(task, 0):
        seen.append((n, asked.context))
        assert len(asked.begun) == n == len(asked.snapshot.bank) + len(asked.snapshot.live)
        assert all(trial.status is Status.PAUSED for trial in asked.snapshot.live)
        assert all(trial.status is Status.COMPLETE for trial in asked.snapshot.bank)
        unseen, own = asked.queries[: asked.unseen], asked.queries[asked.unseen :]
        assert [q.trial for q in own] == list(asked.snapshot.live)
        assert all(not len(q.trial.curve) and q.trial.params for q in unseen)
        assert {q.step for q in asked.queries} == {50.0}
        assert not {q.trial.uid.partition("-")[2] for q in unseen} & {t.uid.partition("-")[2] for t in asked.begun}
        lengths = {len(trial.curve) for trial in asked.snapshot.live}
        fixed = asking.FIXED.get(asked.context)
        assert lengths == ({fixed} if fixed else set()) or (asked.context == "rungs" and lengths <= {1, 3, 9, 27})
        ends = [trial.curve.values[-1] for trial in asked.snapshot.bank]
        assert asked.target == (min(ends) if ends else min(t.curve.values.min() for t in asked.begun))
        assert asked.nothing == 1 / (1 + (len(ends) or n))
    assert seen == [(n, context) for n in (10, 30) for context in asking.CONTEXTS]  # 60 curves: never 100 begun


def test_halving_promotes_a_third() -> None:
    losses = np.tile(np.arange(9.0)[:, None], (1, 10))  # the best begins first
    assert asking.halving(losses).tolist() == [9, 3, 3, 1, 1, 1, 1, 1, 1]
    late = asking.halving(losses[::-1])  # each new one is the best so far: promoted as soon as there are three
    assert late[-1] == 10
    assert (late == 1).sum() < 6
    assert asking.reports_of("10 reports", np.zeros((3, 20))) is None
    assert asking.reports_of("10 reports", np.zeros((3, 21))).tolist() == [10] * 3
    assert asking.reports_of("complete", np.zeros((2, 20))).tolist() == [20] * 2


def test_configurations_in_columns() -> None:
    x = asking.encoded([{"a": 2.0, "b": "c1"}, {"a": 4.0, "b": "c0"}, {"a": 3.0}])
    assert x.tolist() == [[0, 0, 1, 0], [1, 1, 0, 0], [0.5, 0, 0, 1]]


def test_ties_share_places_and_what_is_absent_stands_last() -> None:
    assert scores.first(np.array([3.0, 1.0, np.nan, 1.0, 1.0]), 2).tolist() == pytest.approx(
        [0, 2 / 3, 0, 2 / 3, 2 / 3]
    )
    assert scores.first(np.array([np.nan, 1.0, np.nan]), 2).tolist() == [0.5, 1, 0.5]
    finals = np.arange(6.0)
    assert scores.correlation(-finals, finals) == pytest.approx(-1)
    assert scores.correlation(np.zeros(6), finals) == 0
    assert math.isnan(scores.correlation(finals, np.zeros(6)))
    assert math.isnan(scores.correlation(np.full(6, np.nan), finals))


def test_scores_are_read_as_losses() -> None:
    scale = rows.Scale.of(np.array([5.0, 1.0, 3.0]))
    assert scale.read(scale.scores).tolist() == [1, 3, 5]
    assert scale.read(scale.scores[:1] - 1.0)[0] == pytest.approx(1 - scale.steep)
    assert scale.read(np.array([9.0]))[0] == 5
    assert rows.normal_scores(np.array([2, 0, 1])).tolist() == pytest.approx(scale.scores[[2, 0, 1]].tolist())


@pytest.mark.parametrize("learner", [*rows.LEARNERS, "tpe"])
def test_learners_find_the_better_half(learner: str) -> None:
    x = np.random.default_rng(0).random((60, 3))
    standing = np.argsort(np.argsort(x[:, 0]))
    at = np.array([[0.05, 0.5, 0.5], [0.95, 0.5, 0.5]])
    if learner == "tpe":
        low, high = rows.ratio(x, standing, at)
    else:
        (low, high), quantiles, levels = rows.LEARNERS[learner](x, rows.normal_scores(standing), at)
        assert quantiles.shape == (2, levels.size)
        assert (np.diff(quantiles, axis=1) >= 0).all()
    assert low < high


def arguments(out: Path, *forecasters: str) -> argparse.Namespace:
    fixed = {"data": None, "half": "all", "sources": ["made"], "seeds": 1, "table": False, "tasks": None}
    return argparse.Namespace(**fixed, out=out, forecasters=list(forecasters))


def test_it_goes_on_where_it_was_and_keeps_other_rows(tmp_path: Path, capsys: Any) -> None:
    begun.run(arguments(tmp_path, "nothing", "value", "network"))
    section = "all tasks, 1 orders a task"
    found = json.loads((tmp_path / "begun.json").read_text())["sections"][section]["sources"]["made"]["rows"]
    assert list(found) == ["nothing", "value", "network"]
    assert found["value"]["unseen, 3 reports, 30 begun"]["absent"] == 1
    assert found["value"]["unseen, 3 reports, 30 begun"]["crps"] is None
    assert found["nothing"]["begun, 3 reports, 30 begun"]["spearman"] == 0
    assert 0 < found["network"]["begun, 10 reports, 30 begun"]["pit"] < 1
    assert "begun, complete, 30 begun" not in found["nothing"]
    assert "unseen, 3 reports, 100 begun" not in found["nothing"]
    assert (tmp_path / "begun.png").exists()
    assert "## all tasks, 1 orders a task: made (2 tasks)" in (tmp_path / "begun.md").read_text()
    capsys.readouterr()
    begun.run(arguments(tmp_path, "nothing", "tpe"))
    assert "made power nothing: kept" in capsys.readouterr().out
    again = json.loads((tmp_path / "begun.json").read_text())["sections"][section]["sources"]["made"]["rows"]
    assert list(again) == ["nothing", "value", "tpe", "network"]
    assert again["network"] == found["network"]
    with pytest.raises(SystemExit, match="two rows of one name"):
        begun.run(arguments(tmp_path, "tpe", "tpe"))


def test_a_slow_row_says_of_how_many_tasks_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(begun, "SLOW", ("tpe",))
    some = arguments(tmp_path, "tpe", "value")
    some.tasks = ["power"]
    begun.run(some)
    begun.run(arguments(tmp_path, "nothing"))
    found = json.loads((tmp_path / "begun.json").read_text())["sections"]["all tasks, 1 orders a task"]["sources"]
    assert list(found["made"]["rows"]) == ["nothing", "tpe (1 of 2 tasks)"]
    begun.run(arguments(tmp_path, "tpe"))
    again = json.loads((tmp_path / "begun.json").read_text())["sections"]["all tasks, 1 orders a task"]["sources"]
    assert list(again["made"]["rows"]) == ["nothing", "tpe"]


def test_searches_ask_about_what_an_allocator_left_behind(tmp_path: Path) -> None:
    (task, _), _ = script("questions").curves_of("made", None, "all")
    seen = list(searched.searches(task, 0))
    assert [at for at, _ in seen] == list(range(len(seen)))
    lengths: list[int] = []
    for _, asked in seen:
        unseen, own = asked.queries[: asked.unseen], asked.queries[asked.unseen :]
        assert {q.trial.uid for q in own} == {t.uid for t in asked.begun if t.status is not Status.COMPLETE}
        assert not {q.trial.uid for q in unseen} & {t.uid for t in asked.begun}
        assert all(not q.trial.curve.n_reports for q in unseen)
        finals = {f"t{i}": losses[-1] for i, losses in enumerate(task.losses)}
        assert asked.finals.tolist() == [finals[q.trial.uid] for q in asked.queries]
        assert sorted(asked.standing.tolist()) == list(range(len(asked.begun)))
        lengths.append(sum(len(t.curve) for t in asked.begun))
    assert lengths == sorted(set(lengths)), "a later moment has more reports"
    options = arguments(tmp_path, "nothing", "value")
    searched.run(options)
    found = json.loads((tmp_path / "begun_searches.json").read_text())["sections"]["all tasks, 1 orders a task"]
    made = found["sources"]["made"]
    assert made["counts"][0][0] >= 10
    assert made["rows"]["value"]["unseen"]["absent"][0] == 1
    assert made["rows"]["nothing"]["begun"]["pit"][0] > 0
    assert "| nothing | " in (tmp_path / "begun_searches.md").read_text()
