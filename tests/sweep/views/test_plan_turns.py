"""What `plan` says of pausing: when trials are asked again, what that costs, and how many can be paused."""

from __future__ import annotations

from pathlib import Path

import pytest
from sweep.runtime.test_pause import pausing_toy

from lcsearch.sweep.spec.load import load
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.views.plan import Earlier, asked_at, compute, describe, turn_lines


@pytest.mark.parametrize(
    ("allocator", "steps"),
    [
        ("kind: going-rate, first: 0.02", [2, 6, 9, 12, 18, 26, 36, 54, 77, 100]),
        ("kind: asha, first: 0.02", [2, 6, 18, 54, 100]),
        ("kind: uniform, quantum: 0.25", [25, 50, 75, 100]),
        ("kind: greedy, quantum: 0.333", [34, 68, 100]),
        ("kind: asha, first: 1", [100]),
    ],
)
def test_the_steps_at_which_a_turn_may_end(tmp_path: Path, allocator: str, steps: list[int]) -> None:
    path = pausing_toy(tmp_path, max_steps=100)
    path.write_text(path.read_text().replace("kind: asha, first: 0.04", allocator))
    assert asked_at(load(path).file) == steps


def test_the_plan_of_a_sweep_that_pauses(tmp_path: Path) -> None:
    sweep = load(pausing_toy(tmp_path, more="checkpoints: {keep: 5}\n"))
    lines = [
        "turns: given by asha; a trial that is paused keeps a checkpoint and waits for its next one",
        "  a trial is asked again at epoch 1 (4%), epoch 3 (12%), epoch 9 (36%)",
        "  one checkpoint wherever it is paused: 3 at most, 36 for 12 trials",
        "  5 trials can be paused at once, for no more checkpoints are kept (checkpoints.keep 5)",
        "  the objective must save where ctx.checkpoint_due; a trial that never does runs to epoch 25",
        "  what is expected above is without pausing, which ends trials early, too",
    ]
    assert turn_lines(sweep.file) == lines
    assert "\n".join(lines) in describe(sweep, RunFolder(tmp_path / "none"))
    assert compute(sweep.file).least == 12 * 1 + 24
    known = turn_lines(sweep.file, Earlier(None, 1.0, (2000, 4000), "the run in x"))
    assert known[3].endswith("(checkpoints.keep 5): 15 kB by the run in x")


def test_what_the_end_of_a_budget_means(tmp_path: Path) -> None:
    path = pausing_toy(tmp_path)
    path.write_text(path.read_text().replace("{trials: 12}", "{trials: 12, steps: 40}"))
    assert "  when the budget is used up, paused trials are ended as stopped" in turn_lines(load(path).file)


def test_nothing_is_said_where_nothing_pauses(tmp_path: Path) -> None:
    path = pausing_toy(tmp_path)
    path.write_text(path.read_text().partition("pause:")[0])
    assert turn_lines(load(path).file) == []
    assert asked_at(load(path).file) == [25]
