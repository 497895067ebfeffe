"""E7: one training function for every way, one budget, and a table that counts what it says."""

from __future__ import annotations

import json
import math
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from kit.scripts import script

from lcsearch.sweep.objective.context import Context, Stopped
from lcsearch.sweep.spec.allocator import AshaSpec
from lcsearch.sweep.spec.load import load
from lcsearch.sweep.spec.space import planned_schedule

e7 = script("e7_training/run.py")
rivals = script("e7_training/rivals.py")

CNN: dict[str, Any] = {
    "lr": 0.1, "shape": "cosine", "warmup": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "channels": 4, "blocks": 1,
    "norm": "batch", "dropout": 0.1, "batch_size": 128,
}  # fmt: skip


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A prepared folder, whose logged.py this process may import."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "logged", raising=False)
    sweep: Path = e7.prepare(tmp_path / "made", "digits_cnn", 3, {})
    yaml = sweep.read_text()
    sweep.write_text(yaml.replace("max_steps: 30", "max_steps: 3"))
    return sweep.parent


def epochs(folder: Path) -> list[list[float]]:
    return [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]


class Taken:
    """A reporter that stops nothing."""

    def report(self, value: float, step: int) -> None:
        pass

    def should_prune(self) -> bool:
        return False


@pytest.mark.parametrize("task", e7.SIZES)
def test_the_sweep_is_the_shipped_one_but_for_its_objective(task: str, tmp_path: Path) -> None:
    made = e7.prepare(tmp_path / "made", task, 0, {}).read_text().splitlines()
    shipped = (e7.ROOT / "configs" / f"{task}.yaml").read_text().splitlines()
    assert [new for old, new in zip(shipped, made, strict=True) if old != new] == [
        next(line for line in shipped if f'"{task}:train"' in line).replace(task, "logged", 1)
    ]


def test_what_is_typed_is_the_first_line_with_one_worker_and_the_budget(made: Path) -> None:
    typed = e7.command(made / "sweep.yaml", "curve", 3, 450)
    file = load(made / "sweep.yaml").override(typed[typed.index("backend.workers.n=1") :]).file
    assert (file.pause, file.sampler.kind, file.pruner.kind, file.turns) == (True, "curve", "curve", AshaSpec())
    assert (file.backend.workers.n, file.budget.steps) == (1, 450)


def test_a_curve_hangs_on_neither_the_trials_number_nor_a_pause(made: Path) -> None:
    train = rivals.objective(made)
    file = load(made / "sweep.yaml").file
    for number, pause_at in ((1, math.inf), (2, 1.0), (2, math.inf)):
        ctx = Context(
            Taken(),
            params=CNN,
            number=number,
            goal=file.target,
            seed=number,
            checkpoint_dir=made / f"{number}",
            schedule=planned_schedule(file, CNN),
            pause_at=pause_at,
        )
        (made / f"{number}").mkdir(exist_ok=True)
        with suppress(Stopped):
            train(ctx)
    found = [(number, step, value) for number, step, value, *_ in epochs(made)]
    assert [(number, step) for number, step, _ in found] == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)]
    assert [value for _, _, value in found[:3]] == [value for _, _, value in found[3:]]
    assert all(seconds > 0 for *_, seconds, _ in epochs(made))


@pytest.mark.parametrize("way", ["tpe-hyperband", "random"])
def test_optunas_searches_end_with_the_budget_in_the_middle_of_a_trial(made: Path, way: str) -> None:
    rivals.by_optuna(made, way, 5)
    found = epochs(made)
    assert len(found) == 5
    if way == "random":
        assert [(number, step) for number, step, *_ in found] == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2)]


def test_the_account_of_two_trials_by_hand() -> None:
    """Started at 100; trial 7 trains 2 and 1 seconds, trial 9 diverges within 1; decisions take half a second each."""
    rows = [[7, 1, 0.5, 2.0, 103.0], [7, 2, 0.4, 1.0, 104.5], [9, 1, math.nan, 1.0, 106.0]]
    found = e7.account(rows, 100.0, 107.0)
    assert (found["epochs"], found["wall_s"], found["training_s"]) == (3, 7.0, 4.0)
    assert (found["start_and_end_s"], found["deciding_s"]) == (2.0, 1.0)
    assert found["trials"] == {"7": [2, 0.4], "9": [1, None]}
    assert found["best_so_far"] == [(1, 0.5), (2, 0.4)]


def run(*best: tuple[int, float]) -> dict[str, Any]:
    """Trials of 30 and 10 epochs."""
    clocks = {"wall_s": 10.0, "training_s": 7.0, "start_and_end_s": 2.0, "deciding_s": 1.0}
    return {**clocks, "epochs": 40, "trials": {"0": [30, 0.1], "1": [10, 0.3]}, "best_so_far": best, "decisions": 5}


def test_the_table_by_hand(tmp_path: Path) -> None:
    sizes = {"epochs": 40, "constants": e7.SIZES}
    runs = {
        "digits_cnn/0/curve": run((1, 0.5), (9, 0.2), (40, 0.1)),
        "digits_cnn/1/curve": run((1, 0.7), (21, 0.4)),
        "digits_cnn/0/tpe-hyperband": run((1, 0.6), (30, 0.2)),
        "digits_cnn/0/asha-optuna": run((1, 0.5), (41, 0.01)),  # beyond the budget: not counted
        "digits_cnn/1/tpe-hyperband": run((1, 0.6), (30, 0.3)),
        "digits_cnn/1/asha-optuna": run((1, 0.5)),
    }
    rows = e7.table({"sizes": sizes, "runs": runs}).splitlines()
    heads = [at for at, line in enumerate(rows) if line.startswith("|---")]
    assert len(heads) == 3
    assert all(rows[at - 1].count("|") == rows[at].count("|") for at in heads)
    assert rows[3].count("|") == rows[4].count("|")
    # the best rivals end with 0.2 and 0.3
    assert rows[4] == "| curve | 2 | 0.4500 | 0.4500 | 0.3000 | 0.2500 | 0.4000 to 0.1000 | 9, - | 2 | 1 |"
    # for a rival it is the other one: 0.5 and 0.5
    assert rows[5].endswith("| 0.3000 to 0.2000 | 30, 30 | 2 | 1 |")
    assert "| digits_cnn | curve | 10 | 7 | 2 | 1 | 25 |" in rows
    e7.draw({"sizes": sizes, "runs": runs}, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
