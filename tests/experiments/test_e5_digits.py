"""The table of E5 counts what it says it counts: a hand-made study of six trials and two seeds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import optuna
from kit.scripts import script

e5 = script("e5_digits/run.py")


def run(pruned: dict[int, int], wall: float) -> dict[str, Any]:
    """Six trials whose best values are 0.0, 0.1 ... 0.5 in order of number; `pruned`: number -> its last step."""
    trials: list[dict[str, Any]] = [
        {"state": "PRUNED" if i in pruned else "COMPLETE", "steps": pruned.get(i, 10), "best": i / 10} for i in range(6)
    ]
    steps = sum(t["steps"] for t in trials)
    return {"trials": trials, "steps": steps, "wall_s": wall, "look_p50_ms": 1.0, "look_p99_ms": 2.0}


def test_the_table_by_hand() -> None:
    runs = {f"{seed}/{pruner}": run({}, 100.0) for seed in (0, 1) for pruner in e5.PRUNERS}
    runs["0/curve"] = run({0: 2, 5: 4}, 50.0)  # the winner is lost
    runs["1/curve"] = run({4: 5, 5: 5}, 70.0)
    rows = e5.table({"runs": runs}).splitlines()
    assert rows[2].startswith("| none | 60 | 1.00 | 0.0000 | 0 of 2 | 100 s (1.00) |")
    # steps 46 and 50 of 60: 0.767 and 0.833; best COMPLETE 0.1 and 0.0
    assert rows[5].startswith("| curve | 48 | 0.80 +- 0.05 | 0.0500 | 1 of 2 | 60 s (0.60) |")


def test_a_seed_that_is_not_complete_is_left_out() -> None:
    runs = {f"0/{pruner}": run({}, 100.0) for pruner in e5.PRUNERS}
    runs["1/none"] = run({}, 100.0)
    assert e5.table({"runs": runs}).splitlines()[2].endswith("| 1.00 / 2.0 ms |")
    assert "0 of 1" in e5.table({"runs": runs})
    assert e5.table({"runs": {}}) == "no seed has been run with every pruner yet"


def test_the_sweep_it_runs_is_the_readmes(tmp_path: Path) -> None:
    made = e5.prepare(tmp_path).read_text().splitlines()
    shipped = (e5.ROOT / "configs" / "digits.yaml").read_text().splitlines()
    different = [(old, new) for old, new in zip(shipped, made, strict=True) if old != new]
    assert len(different) == 1
    assert "timed:train" in different[0][1]


def test_the_table_of_allocators_by_hand() -> None:
    """Seed 0 keeps the winner at step 8 of 10, seed 1 cuts it; a seed that was not run unpruned says nothing."""
    runs = {"0/none": run({}, 100.0), "1/none": run({}, 100.0)}
    runs |= {"0/asha": run({4: 5, 5: 1}, 50.0), "1/asha": run({0: 2}, 50.0), "2/asha": run({}, 50.0)}
    rows = e5.turns_table({"runs": runs}).splitlines()
    # steps 46 and 52 of 60; best COMPLETE 0.0 and 0.1
    assert rows[2:] == ["| asha | 2 | 49 | 0.82 | 0.0500 | 0.0000 | 1 of 2 |"]


def test_best_so_far_is_kept_where_a_report_of_any_trial_beats_all_before_it(tmp_path: Path) -> None:
    """Two trials that report in turn: 3 and 2 by the first, then inf, NaN, 2 again, 1.5 by the other."""
    storage = f"sqlite:///{tmp_path / 'study.sqlite3'}"
    study = optuna.create_study(storage=storage)
    one, other = study.ask(), study.ask()
    for trial, value, step in (
        (one, 3.0, 1),
        (other, math.inf, 1),
        (other, math.nan, 2),
        (one, 2.0, 2),
        (other, 2.0, 3),
        (other, 1.5, 4),
        (one, 1.7, 3),
    ):
        trial.report(value, step)
    assert e5.improvements(e5.in_order(tmp_path / "study.sqlite3")) == [(1, 3.0), (4, 2.0), (6, 1.5)]


def test_a_run_made_again_for_its_order_leaves_the_counts_as_they_were() -> None:
    first = run({}, 1.0) | {"commit": "a"}
    again = run({0: 4}, 9.0) | {"commit": "b", "best_so_far": [[1, 0.5]]}
    both = {**first, **e5.later(again)}
    assert {**both, **first} == both
    assert both["best_so_far"] == [[1, 0.5]]
    assert e5.played(both) == {"steps": 54, "commit": "b"}
    assert e5.played(first) == first


def test_the_plot_has_the_rows_whose_order_is_known(tmp_path: Path) -> None:
    known = run({}, 1.0) | {"best_so_far": [[1, 0.5], [3, 0.1]]}
    runs = {"0/none": known, "1/none": known, "0/curve": run({}, 1.0), "1/curve": known}
    assert e5.draw({"runs": runs}, tmp_path / "a.png") == ["median", "hyperband", "asha", "going-rate", "uniform"]
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
