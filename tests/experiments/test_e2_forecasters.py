"""E2's forecasters: log-loss of looks that none of them chose, flipped ones, and rank correlations by hand."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kit.scripts import neighbour, script

from lcsearch.data.synthetic import synthetic_task
from lcsearch.data.task import Task
from lcsearch.stopping.policy import Policy


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script, beside E2's own."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    for folder, beside in (("e2_stop", "ax_rule"), ("e2_stop", "top_k"), ("e1_forecast", "cheap")):
        neighbour(folder, beside)
    run = script("e2_stop/run.py")
    monkeypatch.setattr(run, "TRIALS", 20)
    monkeypatch.setattr(run, "RUNS", 8)
    monkeypatch.setitem(sys.modules, "run", run)  # other experiments have one, too
    return script("e2_stop/forecasters.py")


@pytest.fixture
def task() -> Task:
    return synthetic_task("crossing", 40, 2, n_steps=12)


def test_log_loss_of_who_knows_and_of_who_is_turned_round(module: Any, task: Task) -> None:
    found = {name: module.heard(name, task, Policy(), 0) for name in ("oracle", "oracle~0.5", "oracle~1")}
    assert found["oracle"][0] == pytest.approx(-math.log(1 - module.CLIP))
    assert found["oracle~1"][0] == pytest.approx(-math.log(module.CLIP))
    assert found["oracle"][0] < found["oracle~0.5"][0] < found["oracle~1"][0]
    assert len({(absent, n) for _, absent, n in found.values()}) == 1  # the same looks, whatever is said
    assert found["oracle"][1:] == (0.0, found["oracle"][2])
    assert found["oracle"][2] > 20


def test_a_row_has_both(module: Any, task: Task) -> None:
    flipped = module.play("oracle~1", task, 0)
    knowing = module.play("oracle", task, 0)
    assert flipped["log_loss"] > 1 > knowing["log_loss"]
    assert knowing["regret"] == knowing["trace"][-1][1]
    assert knowing["spent"] < 1
    assert not knowing["wrong"]


def test_rank_correlation(module: Any) -> None:
    assert module.spearman([1, 2, 3], [10, 20, 30]) == pytest.approx(1)
    assert module.spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert module.spearman([1, 2, 3, 4], [1, 1, 2, 2]) == pytest.approx(4 / math.sqrt(5 * 4))
    assert math.isnan(module.spearman([1, 2], [1, 1]))


def test_correlations_are_of_orders_that_all_have_and_tasks_where_both_vary(module: Any) -> None:
    def row(order: int, loss: float, regret: float, lost: float = 0) -> dict[str, float]:
        return {"order": order, "log_loss": loss, "regret": regret, "lost_1": lost, "spent": -regret, "absent": 0}

    rows = {
        "a": {"s": [row(0, 1, 1), row(1, 99, 0)], "t": [row(0, 1, 5)], "u": [row(0, 0, 0)]},
        "b": {"s": [row(0, 2, 2)], "t": [row(0, 2, 3)], "u": []},
        "c": {"s": [row(0, 3, 3)], "t": [row(0, 3, 4, 1)], "u": [row(0, 0, 0)]},
    }
    regret, lost, spent = module.correlations(rows, ["a", "b", "c"])
    assert (regret[0], regret[3]) == (pytest.approx((1 - 0.5) / 2), 2)  # by task 1 and -1/2; nothing of u, b lacks it
    assert lost[0] == pytest.approx(math.sqrt(3) / 2)
    assert lost[3] == 1
    assert spent[0] == -regret[0]


def test_it_goes_on_where_it_was(
    module: Any, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(folder: Path, **_: Any) -> Iterator[Task]:
        yield from (task, synthetic_task("power", 40, 1, n_steps=12))

    names = ("rank-gap", "last-value", "oracle", "oracle~1")
    for name, value in {
        "load": load, "NAMES": names, "HONEST": names[:2], "FLIPPED": {"network": ("oracle~1",)},
        "KEPT": tmp_path / "parts" / "kept.json", "SHOWN": tmp_path / "shown.md",
    }.items():  # fmt: skip
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(module.e2, "SOURCES", ("made",))
    monkeypatch.setattr(sys, "argv", ["forecasters.py", "--data", "nowhere", "--half", "a", "--orders", "1"])
    module.main()
    first = module.KEPT.read_text()
    module.main()
    assert module.KEPT.read_text() == first  # the seconds too: nothing was played again
    told = capsys.readouterr().out
    assert "**made** (1 tasks, 1 orders at least)" in told  # half a of two
    assert "| oracle~1 | 9.210 | 0.00 |" in told
    assert "| made | honest, flipped network, 3 |" in told
