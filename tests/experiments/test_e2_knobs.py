"""E2's knobs: searches side by side are those of `run.py`, and the rule by which gates are chosen, by hand."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from kit.scripts import neighbour, script

from lcsearch.data.synthetic import synthetic_task
from lcsearch.replay.score import trace_of
from lcsearch.replay.simulator import World, simulate


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script, beside E2's own."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    for beside in ("ax_rule", "top_k"):
        neighbour("e2_stop", beside)
    run = script("e2_stop/run.py")
    monkeypatch.setattr(run, "TRIALS", 16)
    monkeypatch.setattr(run, "RUNS", 8)
    monkeypatch.setitem(sys.modules, "run", run)  # other experiments have one, too
    return script("e2_stop/knobs.py")


def test_searches_side_by_side_are_those_that_go_alone(module: Any) -> None:
    task, e2 = synthetic_task("crossing", 40, 2, n_steps=20), module.e2
    asked = [module.Asked(who, "", order) for who in ("none", "median", "oracle+guard") for order in (0, 1)]
    asked += [module.Asked("rank-gap", knobs, 0) for knobs in ("", "n_startup_trials=2,min_comparisons=2")]
    rows = e2.play_all(task, [one.search for one in asked])
    for one, row in zip(asked, rows, strict=True):
        setting, make, order = one.search
        cost, order_of = task.runs[task.order(order)[0]].cost, task.order(order)
        first = simulate(task, order_of[: e2.TRIALS], make(task, setting.policy, None), World())
        longer = simulate(task, order_of, make(task, setting.policy, None), World(budget=e2.RUNS * cost))
        assert row["spent"] == pytest.approx(first.spent / first.full_cost, rel=1e-12)
        assert row["trace"] == [(round(c, 6), round(r, 9)) for c, r in trace_of(longer, cost)]
        counts = len(first.lost(1)), len(first.lost(5)), len(first.stopped), len(first.wrong())
        assert tuple(row[name] for name in ("lost_1", "lost_5", "stops", "wrong")) == counts
        assert row["looks"] == sum(first.reasons.values())  # of the first trials alone, not of the longer search
    spent = [row["spent"] for row in rows]
    assert spent[-1] < spent[-2] < 1  # two startup trials instead of five


def rows(spent: float, *lost: int) -> list[dict[str, Any]]:
    return [{"order": order, "spent": spent, "lost_1": one} for order, one in enumerate(lost)]


def test_knobs_are_compared_in_pairs(module: Any) -> None:
    base = {"x": rows(0.4, 0, 1, 0), "y": rows(0.8, 0, 0, 0)}
    mine = {"x": rows(0.2, 0, 0), "y": rows(0.4, 1, 0, 0), "z": rows(0.1, 1)}
    steps, most, rise, highest, n = module.compared(mine, base)
    assert (steps, most, n) == (pytest.approx(0.5), pytest.approx(0.5), 2)
    assert rise == pytest.approx((-1 / 2 + 1 / 3) / 2)  # the two orders of x that both have played
    assert rise < highest <= 1
    assert module.compared(base, base) == (1, 1, 0, 0, 2)


def test_the_fewest_steps_of_those_that_lose_no_more(module: Any) -> None:
    found = {
        "net as good": (0.9, 0.95, 0.0, 0.01, 9),
        "net faster": (0.8, 0.85, -0.01, 0.05, 9),
        "net loses": (0.5, 0.55, 0.001, 0.01, 9),
        "net unsure": (0.5, 0.55, 0.0, 0.06, 9),
        "net slower": (1.1, 1.2, -0.1, 0.0, 9),
    }
    assert module.choice(found, "a") == "net faster"
    assert module.choice(found, "b") == "net as good"
    assert module.choice({"net slower": found["net slower"]}, "a") is None


def test_a_table_names_what_a_half_takes_and_rules_of_fewer_orders(
    module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.e2, "DRAWS", 20)
    rules = {"none": ("none", ""), "shipped": ("rank-gap", ""), "shipped few_factor=1": ("rank-gap", "few_factor=1")}
    kept: dict[str, Any] = {rule: {} for rule in rules}
    for seed in (2, 3):
        task = synthetic_task("crossing", 40, seed, n_steps=20)
        asked = [(rule, module.Asked(*of, order)) for rule, of in rules.items() for order in (0, 1)][:-1]
        for (rule, _), row in zip(asked, module.e2.play_all(task, [one.search for _, one in asked]), strict=True):
            kept[rule].setdefault(task.name, []).append(row)
    text = module.table({"a": {"made": kept}})
    assert "## half a, made: 2 tasks, 2 orders" in text
    assert "| shipped few_factor=1 (1 orders) | " in text
    assert "## half a, beside the defaults of shipped: 2 tasks" in text
    steps, *_, n = module.compared(kept["shipped few_factor=1"], kept["shipped"])
    assert n == 2
    assert f"| few_factor=1 | 1 | {steps:.3f} (" in text
    assert text.splitlines()[-1].startswith("By the rule of `knobs.py` (bound at most 0.05) this half takes ")
    module.LATER = ("few_factor=1",)
    told = " `few_factor=1` came to the list after the others had been seen on this half, before\n"
    assert module.table({"a": {"made": kept}}) == text.removesuffix("\n") + told + "any had been on half b.\n"
    assert "came to the list" not in module.table({"b": {"made": kept}})
