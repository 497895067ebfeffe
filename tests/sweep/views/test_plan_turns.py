"""What `plan` says of pausing: when trials are asked again, what that costs, and how many can be paused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sweep.runtime.test_pause import pausing_toy, swept

from lcsearch.sweep.spec.load import load
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.store.turns import asked_at
from lcsearch.sweep.views.plan import compute, describe, witness
from lcsearch.sweep.views.plan_turns import climbed, turn_lines, warming

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("allocator", "steps"),
    [
        ("kind: going-rate, first: 0.02", [2, 6, 9, 12, 18, 26, 36, 54, 77, 100]),
        ("kind: asha, first: 0.02", [2, 6, 18, 54, 100]),
        ("kind: uniform, quantum: 0.25", [25, 50, 75, 100]),
        ("kind: greedy, quantum: 0.333", [34, 68, 100]),
        ("kind: sec, first: 0.02", [2, 6, 18, 54, 100]),
        ("kind: asha, first: 1", [100]),
    ],
)
def test_the_steps_at_which_a_turn_may_end(tmp_path: Path, allocator: str, steps: list[int]) -> None:
    path = pausing_toy(tmp_path, max_steps=100)
    path.write_text(path.read_text().replace("kind: asha, first: 0.04", allocator))
    assert asked_at(load(path).file) == steps


def test_rungs_within_the_warm_up_are_told(tmp_path: Path) -> None:
    """A warm-up of up to 0.3 of 25 epochs, rungs at 1, 3, 9 and 25; none within 0.04, none without rungs, and none
    where all trials warm up alike.
    """

    def told(old: str = "", new: str = "") -> str:
        path = pausing_toy(tmp_path)
        text = path.read_text().replace("space:\n", "space:\n  w: {uniform: [0, 0.3]}\n")
        text = text.replace("peak: {param: lr}}", "peak: {param: lr}, warmup: {param: w}}")
        path.write_text(text.replace(old, new))
        return warming(load(path).file)

    assert told() == (
        "trials may warm up until epoch 8 (schedule.warmup), and turns go by ranks at epoch 1, 3, which favour those "
        "that do not. Where that misleads, set allocator.first to 0.3"
    )
    assert told("first: 0.04", "first: 0.3") == ""
    assert told("uniform: [0, 0.3]", "uniform: [0, 0.04]") == ""
    assert told("{uniform: [0, 0.3]}", "{choice: [0, 0.3]}") == told()
    assert told("{uniform: [0, 0.3]}", "0.3") == told("{uniform: [0, 0.3]}", "{choice: [0.3]}") == ""
    assert told("warmup: {param: w}", "warmup: 0.3") == ""
    assert told("kind: asha, first: 0.04", "kind: uniform") == ""


def test_the_plan_of_a_sweep_that_pauses(tmp_path: Path) -> None:
    sweep = load(pausing_toy(tmp_path, more="checkpoints: {keep: 5}\n"))
    lines = [
        "turns: given by asha; a trial that is paused keeps a checkpoint and waits for its next one",
        "  a trial is asked again at epoch 1 (4%), epoch 3 (12%), epoch 9 (36%)",
        "  of 12 trials come about 12 to epoch 1, 4 to epoch 3, 1 to epoch 9, 1 to epoch 25; the others are cut and "
        "end as stopped: when their rung can grow no more",
        "  one checkpoint wherever it is paused: 3 at most, 36 for 12 trials",
        "  5 trials can be paused at once, for no more checkpoints are kept (checkpoints.keep 5)",
        "  the objective must save where ctx.checkpoint_due; a trial that never does runs to epoch 25",
    ]
    assert turn_lines(sweep.file) == lines
    assert "\n".join(lines) in describe(sweep, RunFolder(tmp_path / "none"))
    plan = compute(sweep.file)
    assert (plan.least, plan.expected) == (12 * 1 + 24, round(1.3 * (12 * 1 + 4 * 2 + 6 + 16)))
    assert plan.source == (
        "the rungs of asha, below, and 1.3 times that for promotions that come before a rung is full (a rule of thumb)"
    )
    known = turn_lines(sweep.file, 3000.0, "the run in x")
    assert known[4].endswith("(checkpoints.keep 5): 15 kB by the run in x")


@pytest.mark.parametrize(
    ("allocator", "come"),
    [
        ("kind: asha, first: 0.04", {1: 12, 3: 4, 9: 1, 25: 1}),
        ("kind: halving, first: 0.04, n_arms: 9", {1: 9, 3: 3, 9: 1, 25: 1}),
        ("kind: hyperband, first: 0.04", {1: 12, 3: 8, 9: 4, 25: 1}),  # brackets of 6, 3, 2 and 1
        ("kind: uniform, quantum: 0.25", {}),
    ],
)
def test_who_comes_how_far_by_the_allocator_alone(tmp_path: Path, allocator: str, come: dict[float, int]) -> None:
    path = pausing_toy(tmp_path)
    path.write_text(path.read_text().replace("kind: asha, first: 0.04", allocator))
    file = load(path).file
    assert climbed(file) == come
    without = "  what is expected above is without pausing, which ends trials early, too"
    assert (without in turn_lines(file)) == (not come)


RUNS = json.loads((ROOT / "experiments/e5_digits/results.json").read_text())["runs"]


@pytest.mark.parametrize("run", sorted(name for name in RUNS if name.endswith(("/asha", "/going-rate"))))
def test_expected_is_within_a_factor_of_what_digits_used(run: str) -> None:
    """And the trials that ran to the end are as few as it says, or one more."""
    pruner = ["pruner.kind=none" if run.endswith("asha") else "pruner.n_startup_trials=5"]  # its default then
    file = load(ROOT / "configs/digits_freeze_thaw.yaml").override([f"allocator={{kind: {run[2:]}}}", *pruner]).file
    plan = compute(file)
    assert 1 / 1.5 < plan.expected / RUNS[run]["steps"] < 1.5
    assert plan.least <= RUNS[run]["steps"] <= plan.most
    assert 0 <= sum(trial["state"] == "COMPLETE" for trial in RUNS[run]["trials"]) - climbed(file)[40] <= 1


@pytest.mark.parametrize(
    ("pruner", "allocator", "last"),
    [
        (
            "curve",
            "kind: asha, first: 0.04",
            "so stops hardly begin: by asha about 1 of 12 trials runs to the end, and startup waits for 2. Leave it to "
            "asha, or lower pruner.n_startup_trials",
        ),
        (
            "curve, n_startup_trials: 1, n_min_trials: 3",
            "kind: asha, first: 0.04",
            "so stops hardly begin: by asha about 1 of 12 trials runs to the end, and startup waits for 3. Leave it to "
            "asha, or lower pruner.n_min_trials",
        ),
        (
            "curve, n_startup_trials: 1",
            "kind: asha, first: 0.04",
            "so stops can end those sooner that come to epoch 6, about 1 of 12 once 1 have run to the end",
        ),
        (
            "median",
            "kind: uniform",
            "so stops begin once 5 trials have run to the end, when with turns for all alike the others nearly have",
        ),
        ("curve", "kind: greedy", "so stops begin once 2 trials have run to the end"),
        ("none", "kind: asha, first: 0.04", "no pruner: asha alone ends trials early"),
        ("hyperband", "kind: asha, first: 0.04", "so stops can end those sooner that come to epoch 1, about 12 of 12"),
    ],
)
def test_what_stops_add(tmp_path: Path, pruner: str, allocator: str, last: str) -> None:
    path = pausing_toy(tmp_path, pruner=pruner)
    path.write_text(path.read_text().replace("kind: asha, first: 0.04", allocator))
    said = describe(load(path), RunFolder(tmp_path / "none")).splitlines()
    assert said[-2] == f"  {last}"
    assert not any("can be stopped" in line or "runs to the end" in line for line in said if line != f"  {last}")
    assert "what holds a stop, which goes before a pause:" in said
    assert "toy: 12 trials of 25 epochs, 300 epochs if none is cut or stopped" in said


def test_an_earlier_run_is_a_witness_for_the_same_allocator_only(tmp_path: Path) -> None:
    path = pausing_toy(tmp_path, pruner="curve, forecasters: [parametric]")
    outcome, now = swept(path), load(path).file
    seen = witness(now, now, outcome.progress, RunFolder(outcome.folder))
    assert seen.paused_after == outcome.progress.spent / 12
    plan = compute(now, seen)
    assert (plan.expected, plan.source) == (outcome.progress.spent, seen.note)
    assert seen.shares is None  # what an allocator cut is no stop of the pruner's
    other = load(path).override(["pause=false", "allocator="]).file
    alone = witness(other, now, outcome.progress, RunFolder(outcome.folder))
    assert (alone.shares, alone.paused_after) == (None, None)


def test_prices_are_told(tmp_path: Path) -> None:
    path = pausing_toy(tmp_path, more="checkpoints: {save_cost: 0.5, resume_cost: 2}\n")
    told = "  a pause costs 0.5 epochs, to go on 2, as the file has it"
    assert told in turn_lines(load(path).file)
    path.write_text(path.read_text().replace("{trials: 12}", "{trials: 12, steps: 40}"))
    assert f"{told}: they come out of budget.steps" in turn_lines(load(path).file)


def test_what_the_end_of_a_budget_means(tmp_path: Path) -> None:
    path = pausing_toy(tmp_path)
    path.write_text(path.read_text().replace("{trials: 12}", "{trials: 12, steps: 40}"))
    assert "  when the budget is used up, paused trials are ended as stopped" in turn_lines(load(path).file)


def test_nothing_is_said_where_nothing_pauses(tmp_path: Path) -> None:
    path = pausing_toy(tmp_path)
    path.write_text(path.read_text().partition("pause:")[0])
    assert turn_lines(load(path).file) == []
    assert asked_at(load(path).file) == [25]
