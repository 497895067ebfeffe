"""E2 counts what it says it counts, goes on where it was, and notices searches that would come out otherwise."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kit.scripts import neighbour, script

from lcsearch.data.synthetic import synthetic_task
from lcsearch.data.task import Task


@pytest.fixture
def e2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script, on two small tasks that the project makes itself."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    for beside in ("ax_rule", "top_k"):
        neighbour("e2_stop", beside)
    module = script("e2_stop/run.py")
    tasks = {
        task.name: task
        for task in (synthetic_task("power", 30, 1, n_steps=12), synthetic_task("crossing", 30, 2, n_steps=12))
    }

    def load(folder: Path, tasks_: Any = None, **only: Any) -> Iterator[Task]:
        yield from (task for name, task in tasks.items() if name in only.get("tasks", tasks))

    monkeypatch.setattr(module, "load", load)
    for name, value in {"TRIALS": 12, "RUNS": 4, "DRAWS": 20, "SOURCES": ("made",)}.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(module, "PARTS", tmp_path / "parts")
    return module


def row(order: int, trace: list[tuple[float, float]], **counts: float) -> dict[str, Any]:
    zero = {"spent": 1.0, "lost_1": 0, "lost_5": 0, "stops": 0, "wrong": 0, "seconds": 0.1, "looks": 10}
    return {"order": order, "trace": trace, **zero, **counts}


def test_the_figures_by_hand(e2: Any) -> None:
    # No stopping has regret .5 from cost 4 on; the rule has it at cost 2 on the first task, and never on the second.
    none = {"a": [row(0, [(1, 1.0), (4, 0.5)])], "b": [row(0, [(1, 1.0), (3, 0.5)])]}
    mine = {
        "a": [row(0, [(1, 1.0), (2, 0.5)], spent=0.5, stops=10, wrong=1, lost_1=1, lost_5=2), row(7, [(1, 0.0)])],
        "b": [row(0, [(1, 1.0)], spent=0.25, stops=30, wrong=0)],
    }
    found = e2.figures(mine, none)
    assert found["speed_up"] == {"a": 2.0, "b": pytest.approx(0.75)}  # the largest it could have: 3 of the 4 runs
    assert found["missed"] == ["b"]
    assert found["orders"] == [1]  # order 7 has no twin
    assert found["spent"][0] == 0.375
    assert found["lost_1"][0] == 0.5
    assert found["regret"][0] == 0.75
    assert (found["stops_an_order"], found["wrong_an_order"]) == (40, 1)
    assert found["wrong_upper"] >= e2.upper(1, 40) > 1 / 40
    text = e2.line("rule", found, {"oracle": e2.figures(none, none)})
    assert text.startswith(f"| rule | <= {(2 * 0.75) ** 0.5:.2f} [")
    assert "| 1.22 | 75.0 +- 25.0 | 0.38 |" in text


def test_zero_wrong_stops_are_no_proof(e2: Any) -> None:
    found = e2.figures({"a": [row(0, [(1, 0.0)], stops=20)]}, {"a": [row(0, [(1, 0.0)])]})
    assert found["wrong_upper"] == pytest.approx(1 - 0.05 ** (1 / 20))
    assert e2.figures({"a": [row(0, [(1, 0.0)])]}, {"a": [row(0, [(1, 0.0)])]})["wrong_upper"] is None


def test_it_goes_on_where_it_was_and_verifies(e2: Any, tmp_path: Path) -> None:
    for policy in ("none", "oracle+guard", "one-epoch-3"):
        e2.work(tmp_path, "fine", policy, "made", 1)
    path = e2.part_of("fine", "oracle+guard", "made")
    first = json.loads(path.read_text())
    e2.work(tmp_path, "fine", "oracle+guard", "made", 2)
    second = json.loads(path.read_text())
    for name, rows in first["tasks"].items():
        assert second["tasks"][name][:1] == rows  # the seconds too: nothing was played again
        assert [r["order"] for r in second["tasks"][name]] == [0, 1]
        assert second["tasks"][name][0]["by"] == e2.code()
    assert e2.verify(tmp_path, 3)["equal"] == 3
    name = next(iter(second["tasks"]))
    second["tasks"][name][0]["stops"] += 1
    path.write_text(json.dumps(second))
    found = e2.verify(tmp_path, 99)
    assert found["equal"] == found["replayed"] - 1
    assert found["differ"] == [f"fine oracle+guard {name} order 0"]
    results = e2.collect()
    assert set(results["results"]["fine"]["made"]) == {"none", "oracle+guard", "one-epoch-3"}
    assert set(e2.collect(None, ["fine"], ["none", "one-epoch-3"])["results"]["fine"]["made"]) == {
        "none",
        "one-epoch-3",
    }
    one = e2.collect(None, ["fine"], ["none", "oracle+guard"], 1)["results"]["fine"]["made"]
    assert [row["orders"] for row in one.values()] == [[1], [1]]
    text = e2.table(results)
    assert "| none | 1.00 [1.00, 1.00], 0 |" in text
    assert f"{found['equal']} of {found['replayed']} stored searches" in text


def test_some_rules_alone_leave_the_others_in_the_table(
    e2: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for policy in ("none", "one-epoch-3"):
        e2.work(tmp_path, "fine", policy, "made", 1)
    monkeypatch.setattr(e2, "HERE", tmp_path)
    for name, given in (("code", lambda: "as it is"), ("draw", lambda results: None)):
        monkeypatch.setattr(e2, name, given)
    found = {}
    for name in ("", "some"):
        words = ["run.py", "--table", "--half", "all", "--policies", "none", *(["--name", name] if name else [])]
        monkeypatch.setattr(sys, "argv", words)
        e2.main()
        found[name] = set(json.loads((tmp_path / f"{name or 'results'}.json").read_text())["results"]["fine"]["made"])
    assert found == {"": {"none", "one-epoch-3"}, "some": {"none"}}


@pytest.mark.parametrize(
    "policy", ["gates", "median", "asha", "sha", "hyperband", "patience-5", "rank-gap+guard", "ax"]
)
def test_every_rule_plays(e2: Any, policy: str) -> None:
    (task, _) = e2.load(Path())
    found = e2.play(task, e2.SETTINGS["coarse"], e2.POLICIES[policy], 0)
    assert 0 < found["spent"] <= 1
    assert found["trace"]
    if policy == "gates":
        assert found["stops"] == 0  # nothing diverges here


def test_made_records_are_played_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    for beside in ("ax_rule", "top_k"):
        neighbour("e2_stop", beside)
    monkeypatch.setitem(sys.modules, "run", script("e2_stop/run.py"))
    records = script("e2_stop/records.py")
    monkeypatch.setattr(records.e2, "TRIALS", 16)
    found = records.play("rank-gap+guard", 10, 1)
    assert found["lost"].endswith("of 2")
    assert found["stops"] > 0
    assert 0 <= found["wrong"] <= found["upper"] <= 1
    assert 0 < found["expected"] < 0.05
    assert "| rank-gap+guard | 10 | " in records.table({("rank-gap+guard", 10): found}, 1)


@pytest.mark.parametrize("half", ["a", "b"])
def test_a_half_that_was_played_alone_is_collected_whole(e2: Any, tmp_path: Path, half: str) -> None:
    e2.work(tmp_path, "fine", "none", "made", 1, half)
    assert e2.collect(half)["results"]["fine"]["made"]["none"]["tasks"] == 1
