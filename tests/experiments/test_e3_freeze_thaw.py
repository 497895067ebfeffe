"""E3 counts what it says it counts, goes on where it was, and walks a peer through a table as our simulator would."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from kit.scripts import EXPERIMENTS, script

from lcsearch.data.synthetic import synthetic_task
from lcsearch.data.task import Task
from lcsearch.forecast.contract import Query
from lcsearch.replay.baselines import Never
from lcsearch.replay.simulator import World, simulate
from lcsearch.study import FinishedTrials, Snapshot, Status, Trial

TASK = synthetic_task("power", 150, 1, n_steps=10)


@pytest.fixture
def e3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The script, on a small task that the project makes itself."""
    folder = EXPERIMENTS / "e3_freeze_thaw"
    monkeypatch.setattr(sys, "path", [str(folder), str(folder / "peers"), *sys.path])
    module = script("e3_freeze_thaw/run.py")

    def load(data: Path, source: str) -> Iterator[Task]:
        yield TASK

    monkeypatch.setattr(module, "load", load)
    monkeypatch.setattr(sys.modules["searches"], "KEPT", tmp_path / "searches.json")
    return module


def args(**knobs: Any) -> SimpleNamespace:
    some = {"only": ["asha", "run-to-end"], "workers": [1], "prices": [0], "sources": ["made"]}
    return SimpleNamespace(**{**some, "seeds": 1, "minutes": None, **knobs})


def test_it_goes_on_where_it_was(e3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searches = sys.modules["searches"]
    monkeypatch.setattr(searches, "PARTS", tmp_path)
    e3.run(tmp_path, args(minutes=0.0))
    assert not list(tmp_path.glob("*/*.json"))
    e3.run(tmp_path, args())
    first = json.loads((tmp_path / "w1-p0" / "asha--made.json").read_text())
    e3.run(tmp_path, args(seeds=2))
    second = json.loads((tmp_path / "w1-p0" / "asha--made.json").read_text())
    assert second[TASK.name][:1] == first[TASK.name]  # the seconds too: nothing was played again
    assert [row["seed"] for row in second[TASK.name]] == [0, 1]


def test_a_world_with_all_seeds_comes_before_the_next_and_slow_policies_last(e3: Any) -> None:
    a, b = e3.WORLDS[:2]
    found = list(e3.jobs(["greedy", "asha"], [a, b], 2))
    assert found == [(w, n, s) for w in (a, b) for n, s in (("asha", 0), ("asha", 1), ("greedy", 0))]


@pytest.mark.parametrize(
    "name", ["asha", "going-rate, oracle", "robust, oracle", "uniform", "one-epoch", "hyperband", "halving"]
)
@pytest.mark.parametrize("world", [(1, 0), (4, 1)])
def test_every_policy_plays(e3: Any, name: str, world: tuple[int, int]) -> None:
    found = e3.play(TASK, e3.Where(*world), e3.POLICIES[name], 0, "test")
    assert found["trace"][-1][0] <= e3.RUNS
    assert 0 < found["reports"] <= 10 * e3.RUNS
    assert found["trace"] == sorted(found["trace"], key=lambda point: (point[0], -point[1]))
    p50, p99 = found["decision"]
    assert 0 <= p50 <= p99


def test_wrong_forecasts_are_asked_for_by_name_and_told_by_share(e3: Any) -> None:
    summary = sys.modules["summary"]
    assert len(summary.FLIPPED) == 12
    assert set(summary.FLIPPED) <= set(e3.POLICIES)
    (half,) = e3.POLICIES["robust, flipped 0.5"].forecasts(TASK)
    assert (half.share, half.seen, half.inner.name) == (0.5, True, "network")
    assert summary.NAMES["robust, flipped 0.5"] == "Pandora's index on a leash, 50% of forecasts wrong"
    rows = [{"decision": [1.0, 3.0]}, {}, {"decision": [2.0, 5.0]}]
    assert summary.decisions(rows) == [1.5, 4.0]
    assert summary.decisions(rows[1:2]) == []


def test_the_oracle_answers_for_begun_trials_and_the_network_for_the_others(e3: Any) -> None:
    oracle, network = e3.POLICIES["going-rate, oracle, proposals"].forecasts(TASK)
    done = [Trial(run.uid, run.curve, params=run.params, status=Status.COMPLETE) for run in TASK.runs[1:11]]
    snapshot = Snapshot("s", TASK.goal, FinishedTrials(TASK.goal).extend(done))
    run = TASK.runs[0]
    trials = Trial(run.uid, run.curve.cut(run.steps[3]), params=run.params), Trial("new", params=TASK.runs[20].params)
    queries = [Query(trial, "best_by", TASK.goal.horizon) for trial in trials]
    assert [why is None for why in oracle.forecast(snapshot, queries).absent] == [True, False]
    told = network.forecast(snapshot, queries)
    assert [why is None for why in told.absent] == [False, True]
    assert np.isfinite(told.quantile(0.5)).tolist() == [False, True]


def test_one_epoch_each_then_the_best_to_their_end(e3: Any) -> None:
    world = World(budget=60.0)
    found = simulate(TASK, TASK.order(0), Never(), world, e3.OneEpoch(0.1))
    shown = sorted((life.shown for life in found.lives), reverse=True)
    assert shown[:4] == [10, 10, 10, 1]  # 30 first reports, then (60 - 30) // 9 whole runs
    assert len(shown) == 30
    firsts = sorted((TASK.goal.sign * TASK.runs[life.row].values[0], life.shown) for life in found.lives)
    assert [n for _, n in firsts[:3]] == [10, 10, 10]


def test_half_of_the_budget_goes_into_first_reports_whatever_a_checkpoint_costs(e3: Any) -> None:
    world = World(workers=4, budget=60.0, checkpoint=1.0, resume=1.0)
    found = simulate(TASK, TASK.order(0), Never(), world, e3.OneEpoch(0.1))
    assert sorted((life.shown for life in found.lives), reverse=True)[:4] == [10, 10, 10, 1]  # (60 - 15 x 2) // (9 + 1)
    assert len(found.lives) == 15


def test_one_run_of_each_configuration(e3: Any) -> None:
    runs = TASK.runs[:5]
    twice = Task(TASK.name, TASK.goal, (*runs, *(replace(run, uid=f"{run.uid}/2") for run in runs)))
    found = e3.one_of_each(twice)
    assert len(found) == 5
    assert {run.uid.removesuffix("/2") for run in found.runs} == {run.uid for run in TASK.runs[:5]}


class Asha:
    """ASHA's promotion told as a peer: new configurations in a given order, rungs at reports 1, 3 and 9 of 10."""

    def __init__(self, order: list[int]) -> None:
        self.order, self.rungs = order, (1, 3, 9, 10)
        self.got: list[dict[int, float]] = [{} for _ in self.rungs]
        self.until: list[int] = []
        self.best: dict[int, float] = {}

    def next(self) -> tuple[int, int]:
        for k in reversed(range(3)):
            ranked = sorted(self.got[k], key=lambda trial: (self.got[k][trial], trial))
            for trial in ranked[: len(ranked) // 3]:
                if self.until[trial] == self.rungs[k]:
                    self.until[trial] = self.rungs[k + 1]
                    return trial, self.order[trial]
        self.until.append(1)
        return len(self.until) - 1, self.order[len(self.until) - 1]

    def report(self, trial: int, step: int, loss: float) -> bool:
        self.best[trial] = min(loss, self.best.get(trial, math.inf))
        if step in self.rungs:
            self.got[self.rungs.index(step)][trial] = self.best[trial]
        return step < self.until[trial]


@pytest.mark.parametrize("price", [0, 1])
def test_a_peers_search_is_our_simulators(e3: Any, tmp_path: Path, price: int) -> None:
    """The same rule through both ends in the same trace, report by report, but for the budget's end."""
    table_search, searches = script("e3_freeze_thaw/peers/table_search.py"), sys.modules["searches"]
    searches.write_table(tmp_path / "made.npz", e3.as_table("made", TASK, {}))
    (table,) = searches.tables(tmp_path)
    assert table.losses.shape == (150, 10)
    theirs = table_search.search(table, Asha(TASK.order(3)), searches.Where(1, price))
    ours = e3.play(TASK, searches.Where(1, price), e3.POLICIES["asha"], 3, "test")
    until = 0.7 * searches.RUNS
    mine = [(cost, pytest.approx(loss)) for cost, loss in ours["trace"] if cost < until]
    assert mine
    assert [(round(cost, 6), loss) for cost, loss in theirs[0] if cost < until] == mine


def test_peers_are_told_no_monsters(e3: Any) -> None:
    table_search, searches = script("e3_freeze_thaw/peers/table_search.py"), sys.modules["searches"]
    losses = np.arange(100.0).reshape(10, 10)
    losses[9, 9], losses[3, 3] = 1e34, math.nan
    table = searches.Table("made", "t", losses, np.array([[0.5, 1.0]] * 9 + [[0.75, math.nan]]), np.array([1, 2]))
    told = table_search.told_losses(table)
    assert told.max() < 100
    assert told[3, 3] == told[9, 9] == told.max()
    space = table_search.Space(table)
    assert space.row({"x0": 0.5, "c1": "1"}) == 0
    assert space.row({"x0": 0.7, "c1": "-1"}) == 9  # the nearest


def test_the_figures_by_hand(e3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searches, summary = sys.modules["searches"], sys.modules["summary"]
    table = searches.Table("s", "t", np.array([[2.0, 1.0], [3.0, 2.0], [5.0, 5.0]]), np.zeros((3, 1)), np.ones(1))
    searches.write_table(tmp_path / "tables" / "s--t.npz", table)
    monkeypatch.setattr(summary, "WORST", 1.0)
    assert summary.facts_of(tmp_path) == {"s": {"t": [1.0, 2.0, 5.0]}}
    trace = [(1.0, 3.0), (5.0, 1.0)]
    found = summary.regret_at(trace, (0.5, 1, 4.9, 5, 20), (1.0, 2.0, 5.0))
    assert found.tolist() == [1.0, 0.5, 0.5, 0.00025, 0.00025]  # .1 % of the way to the median counts as none
    where = searches.WORLDS[0]
    for name, losses in {"asha": (3.0, 2.0), "asha, proposals": (1.5,), "uniform": (2.0,), "NePS ASHA": (2.0,)}.items():
        piece = searches.Piece(where, name, "s", tmp_path)
        for seed, loss in enumerate(losses):
            piece.add("t", searches.row_of(seed, [(0.1, loss)], 4, 10, 0.5, "test"))
    summary.write(tmp_path, tmp_path)
    rows = json.loads((tmp_path / "results.json").read_text())["worlds"]["w1-p0"]
    assert rows["uniform"]["all"] == 0.5  # seed 0 alone has a twin: (2 - 1) / (3 - 1)
    assert rows["uniform"]["interval"] == [0.5, 0.5]
    assert rows["NePS ASHA"]["all"] == 0.6667  # a peer's seed is no twin: over the mean of 2 and 1
    assert rows["NePS ASHA"]["interval"] == [0.5, 1.0]
    assert rows["uniform"]["ms_a_report"] == 50.0
    text = (tmp_path / "results.md").read_text()
    assert (
        "| uniform, 40 configurations | 1 x 1 | 0.50 | 0.50 | 0.50 | 0.50 | 0.50 | 0.50 | **0.50** [0.50, 0.50] |"
        in text
    )
    assert "Not run here: going rate, network; " in text
    ours = rows["NePS ASHA"]["ours"]["s"]
    assert ours == {"ratio": 0.5, "interval": [0.5, 0.5], "seeds": [[1, 1], [1, 1]], "reached": summary.GRID[0] / 20}
    assert "| NePS ASHA | 0.50 [0.50, 0.50], 1 and 1, 0.01 |" in text
    ranks = {"asha": 4.0, "asha, proposals": 1.0, "uniform": 2.5, "NePS ASHA": 2.5}  # regrets .375, .25, .125, .25
    assert {name: of.tolist() for name, of in summary.mean_ranks(summary.by_task(rows, "s", ["t"])).items()} == {
        name: [rank] * 6 for name, rank in ranks.items()
    }
    assert "| uniform, 40 configurations | 2.5 / 2.5 / 2.5 / 2.5 |" in text
    assert summary.beside(ours | {"reached": None}).endswith(", 1 and 1, not reached")
    assert (tmp_path / "regret.png").exists()
    assert (tmp_path / "profiles.png").exists()


def test_ranks_go_by_the_tasks_names_and_by_those_who_know_no_end(e3: Any) -> None:
    summary = sys.modules["summary"]
    good, poor = [0.1] * 6, [0.2] * 6
    rows = {
        "asha": {"tasks": {"s": {"a": good, "b": poor}}},
        "uniform": {"tasks": {"s": {"b": poor, "a": good}}},
        "going-rate, oracle": {"tasks": {"s": {"a": good, "b": good}}},
        "halving": {"tasks": {"s": {"a": good}}},  # of before there was a second task
        "hyperband": {"commit": "f00"},
    }
    field = summary.by_task(rows, "s", ["a", "b"])
    assert {name: of.tolist() for name, of in field.items()} == {"asha": [good, poor], "uniform": [good, poor]}
    assert [of.tolist() for of in summary.mean_ranks(field).values()] == [[1.5] * 6] * 2
    assert summary.rank_lines({"hyperband": {"commit": "f00"}}, {"s": {"a": [], "b": []}}) == []


def test_a_kept_trace_tells_the_same_regrets(e3: Any) -> None:
    searches, summary = sys.modules["searches"], sys.modules["summary"]
    found = e3.play(TASK, searches.Where(), e3.POLICIES["asha"], 0, "test")["trace"]
    some = searches.thinned(found, (1, 2, 5, 20))
    assert len(some) <= 4 < len(found)
    facts = found[-1][1], found[2][1], found[0][1]
    one, other = (summary.regret_at(trace, (1, 2, 5, 20), facts).tolist() for trace in (found, some))
    assert one == other
    assert searches.thinned([], (1, 2)) == []


def test_what_is_kept_is_added_to_where_the_pieces_are_gone(
    e3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fresh checkout has no `parts/`: no search is played again, and rows of searches that were lost stay."""
    searches, summary = sys.modules["searches"], sys.modules["summary"]
    table = searches.Table("s", "t", np.array([[2.0, 1.0], [3.0, 2.0], [5.0, 5.0]]), np.zeros((3, 1)), np.ones(1))
    where, first, second = searches.WORLDS[0], tmp_path / "first", tmp_path / "second"
    searches.write_table(first / "tables" / "s--t.npz", table)

    def add(root: Path, name: str, seed: int, loss: float) -> None:
        searches.Piece(where, name, "s", root).add("t", searches.row_of(seed, [(0.1, loss)], 4, 10, 0.5, "test"))

    for seed, loss in enumerate((3.0, 2.0)):
        add(first, "asha", seed, loss)
        add(first, "uniform", seed, 2.0)
        add(first, "hyperband", seed, loss)
    summary.write(first, tmp_path)
    before = json.loads((tmp_path / "results.json").read_text())
    lost = json.loads(searches.KEPT.read_text())
    del lost[str(where)]["uniform--s"]
    searches.KEPT.write_text(json.dumps(lost))
    assert searches.Piece(where, "asha", "s", second).has("t", 1)
    add(second, "hyperband", 2, 2.0)  # ASHA has no such seed: no pair
    add(second, "asha", 2, 3.0)
    add(second, "uniform", 2, 3.0)  # one search, where the row has two
    summary.write(second, tmp_path)
    rows = json.loads((tmp_path / "results.json").read_text())["worlds"][str(where)]
    assert rows["asha"]["count"]["s"]["seeds"] == [3, 3]
    assert rows["hyperband"]["all"] == 0.8  # (2 + 1 + 1) / (2 + 1 + 2)
    uniform = before["worlds"][str(where)]["uniform"]
    assert rows["uniform"] == {"commit": before["commit"], **uniform}
    assert f"uniform, 40 configurations, at {before['commit'][:8]} |" in (tmp_path / "results.md").read_text()
    summary.write(second, tmp_path)
    assert json.loads((tmp_path / "results.json").read_text())["worlds"][str(where)]["uniform"] == rows["uniform"]


def test_a_made_clock_times_every_run_and_the_table_has_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(EXPERIMENTS / "e3_freeze_thaw"), *sys.path])
    made = script("e3_freeze_thaw/made_clock.py")
    sizes = [{"batch_size": 16 << i % 6, "num_layers": 1 + i % 5, "max_units": 64 << i % 5} for i in range(len(TASK))]
    task = made.with_clock(
        replace(TASK, runs=tuple(replace(r, params=p) for r, p in zip(TASK.runs, sizes, strict=True)))
    )
    costs = [run.cost for run in task.runs]
    assert task.unit == "seconds"
    assert max(costs) > 20 * min(costs)
    rows = [made.play(task, 0, budget, timed) for budget in made.BUDGETS for timed in (False, True)]
    assert all(row["regret"] == 1.0 for row in rows if not row["complete"])
    told = [row for row in rows if row["timed"]]
    assert all(row["complete"] for row in told[1:])
    assert made.table(rows).count(" -> ") == 4 * len(made.BUDGETS) + 1
