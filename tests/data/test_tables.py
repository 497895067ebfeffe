from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lcsearch.data.caveats import Caveat, caveats_in
from lcsearch.data.tables import Table, load, plain, sources
from lcsearch.data.task import Run, Task
from lcsearch.errors import EnvironmentProblem, FileProblem, InvalidValue
from lcsearch.goal import Goal
from lcsearch.study import Status

NAN, INF = float("nan"), float("inf")
RESEARCH = caveats_in(Path(__file__).parents[2] / "experiments" / "caveats.json")
META: Mapping[str, Any] = {
    "name": "own",
    "primary": "loss",
    "metrics": {"loss": {"direction": "min"}},
    "tasks": [{"task": "a"}],
    "step_unit": "epoch (0 = before training)",
    "nan_means": "padding",
}


def table(
    folder: Path,
    values: Any,
    *,
    steps: Any = None,
    runs: Sequence[Mapping[str, Any]] | None = None,
    configs: Sequence[Mapping[str, Any]] | None = None,
    arrays: Mapping[str, Any] | None = None,
    **meta: Any,
) -> Path:
    """A folder in the layout; by default one task, a run a configuration, steps 1, 2, ..."""
    folder.mkdir(exist_ok=True)
    matrix = np.array(values, np.float32)
    at = np.arange(1.0, matrix.shape[1] + 1) if steps is None else np.array(steps, np.float64)
    metric = {**META, **meta}["primary"]
    np.savez_compressed(folder / "curves.npz", **{f"Y__{metric}": matrix, "step": at, **(arrays or {})})
    n = len(matrix)
    write(folder / "runs.csv.gz", runs or [{"row": i, "task": "a", "config_id": i, "seed": 0} for i in range(n)])
    write(folder / "configs.csv.gz", configs or [{"config_id": i, "lr": 0.1 * (i + 1), "act": ""} for i in range(n)])
    (folder / "meta.json").write_text(json.dumps({**META, **meta}))
    return folder


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with gzip.open(path, "wt", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def only(folder: Path, **wish: Any) -> Task:
    (task,) = load(folder, **wish)
    return task


def reports(run: Run) -> list[tuple[float, float]]:
    steps, values = run.curve.reports()
    return list(zip(steps.tolist(), np.round(values, 6).tolist(), strict=True))


def test_a_table_becomes_a_task(tmp_path: Path) -> None:
    rows = [{"task": "a", "config_id": i, "seed": 0} for i in (1, 0)]
    configs = [
        {"config_id": 0, "lr": "0.001", "units": "64", "act": "relu", "nesterov": "False", "beta": ""},
        {"config_id": 1, "lr": "1e-2", "units": "32", "act": "", "nesterov": "True", "beta": "0.9"},
    ]
    task = only(table(tmp_path, [[3, 2, 1], [3, 2.5, 2]], runs=rows, configs=configs))
    assert (task.name, task.unit) == ("a", "epoch")
    assert task.goal == Goal("loss", "minimize", 3.0, "best")
    assert [run.uid for run in task.runs] == ["1", "0"]
    assert task.runs[0].params == {"lr": 0.01, "units": 32, "nesterov": True, "beta": 0.9}
    assert task.runs[1].params == {"lr": 0.001, "units": 64, "act": "relu", "nesterov": False}
    assert reports(task.runs[0]) == [(1, 3), (2, 2), (3, 1)]
    assert task.runs[0].clock.tolist() == [1, 2, 3]
    assert task.complete.all()
    assert task.judged.tolist() == [1, 2]


def test_numbers_in_cells() -> None:
    assert [plain(text) for text in ("3", "3.0", "1e-4", "True", "false", "1_000", "nesterov")] == [
        *(3, 3.0, 1e-4, True, False),
        *("1_000", "nesterov"),
    ]
    assert isinstance(plain("3"), int)


def test_tasks_keep_their_order_and_are_built_one_by_one(tmp_path: Path) -> None:
    rows = [{"task": name, "config_id": 0, "seed": 0} for name in ("b", "a", "c")]
    folder = table(tmp_path, [[1, 1], [2, 2], [3, 3]], runs=rows)
    assert [task.name for task in load(folder)] == ["b", "a", "c"]
    assert [task.name for task in load(folder, tasks=["c", "b"])] == ["c", "b"]
    assert next(load(folder)).judged.tolist() == [1]


def test_uids_name_the_seed_only_when_there_are_several(tmp_path: Path) -> None:
    rows = [{"task": "a", "config_id": 0, "seed": seed} for seed in (0, 1)]
    assert [run.uid for run in only(table(tmp_path / "x", [[1], [2]], runs=rows)).runs] == ["0/0", "0/1"]
    same = [{"task": "a", "config_id": 0, "seed": 0}] * 2
    assert [run.uid for run in only(table(tmp_path / "y", [[1], [2]], runs=same)).runs] == ["row 0", "row 1"]


def test_direction_of_the_task_where_the_metric_has_none(tmp_path: Path) -> None:
    rows = [{"task": name, "config_id": 0, "seed": 0} for name in ("a", "b")]
    per_task: dict[str, Any] = {
        "metrics": {"loss": {"direction": "per task"}},
        "tasks": [{"task": "a", "direction": "max"}, {"task": "b", "direction": "min"}],
    }
    folder = table(tmp_path, [[1, 2], [1, 2]], runs=rows, **per_task)
    assert [(t.goal.direction, t.judged.tolist()) for t in load(folder)] == [("maximize", [-2]), ("minimize", [1])]


def test_judged_final(tmp_path: Path) -> None:
    assert only(table(tmp_path, [[3, 1, 2]]), judged="final").judged.tolist() == [2]


def test_another_metric(tmp_path: Path) -> None:
    both = {"loss": {"direction": "min"}, "acc": {"direction": "max"}}
    folder = table(tmp_path, [[3, 1]], metrics=both, arrays={"Y__acc": np.array([[0.5, 0.7]])})
    task = only(folder, metric="acc")
    assert (task.goal.metric, task.goal.direction, reports(task.runs[0])) == ("acc", "maximize", [(1, 0.5), (2, 0.7)])


# What NaN means


def test_padding_is_no_report_and_a_shorter_run_is_censored(tmp_path: Path) -> None:
    task = only(table(tmp_path, [[3, 2, 1], [3, NAN, NAN], [NAN, 2, 1], [3, INF, 1], [NAN, NAN, NAN]]))
    assert [reports(run) for run in task.runs] == [
        [(1, 3), (2, 2), (3, 1)],
        [(1, 3)],
        [(2, 2), (3, 1)],
        [(1, 3), (2, INF), (3, 1)],
    ]
    assert [run.status for run in task.runs] == [Status.COMPLETE, Status.STOPPED, Status.COMPLETE, Status.COMPLETE]
    assert [run.uid for run in task.runs] == ["0", "1", "2", "3"]


@pytest.mark.parametrize("words", ["NaN = run diverged (never padding)", "failed evaluation"])
def test_diverged_runs_report_nan_to_the_horizon(tmp_path: Path, words: str) -> None:
    values = [[3, 2, 1], [3, NAN, NAN], [NAN, 2, NAN], [NAN, NAN, NAN], [3, NAN, 1]]
    task = only(table(tmp_path, values, nan_means=words))
    assert [run.curve.values.tolist() for run in task.runs] == [[3, 2, 1], [3], [2], [], [3, 1]]
    assert [run.curve.event_steps.tolist() for run in task.runs] == [[], [2, 3], [3], [1, 2, 3], [2]]
    assert task.complete.all()
    assert task.judged.tolist() == [1, 3, 2, INF, 1]


def test_nothing_is_clipped(tmp_path: Path) -> None:
    task = only(table(tmp_path, [[1e34, -3e21]]))
    assert task.runs[0].curve.values == pytest.approx([1e34, -3e21], rel=1e-6)


def test_lcbench_before_training_and_after_the_last_epoch(tmp_path: Path) -> None:
    values = np.arange(52.0)[None] + 10
    task = only(table(tmp_path, values, steps=np.arange(52.0), name="lcbench", nan_means="no NaN"), caveats=RESEARCH)
    assert task.runs[0].steps == list(range(1, 51))
    assert task.runs[0].curve.values.tolist() == [11.0 + i for i in range(50)]
    assert (task.goal.horizon, task.complete.tolist()) == (50, [True])


def test_taskset_diverged_and_blown_up(tmp_path: Path) -> None:
    values = [[0.7, 0.6, NAN, NAN], [0.7, 1e34, 2e34, 3e34], [0.7, NAN, NAN, NAN]]
    task = only(table(tmp_path, values, steps=[0, 200, 400, 600], name="taskset_adam8p"), caveats=RESEARCH)
    assert [run.steps for run in task.runs] == [[200, 400, 600]] * 3
    assert [len(run.curve) for run in task.runs] == [1, 3, 0]
    assert task.complete.all()


def test_deepobs_diverged_before_its_length_and_padding_after(tmp_path: Path) -> None:
    rows = [
        {"task": task, "config_id": 0, "seed": seed, "n_points": n}
        for task, seed, n in (("a", 0, 3), ("a", 1, 3), ("b", 0, 5))
    ]
    values = [[9, NAN, INF, NAN, NAN], [9, 8, 7, NAN, NAN], [9, 8, 7, 6, NAN]]
    a, b = load(table(tmp_path, values, steps=[0, 1, 2, 3, 4], runs=rows, name="deepobs_baselines"), caveats=RESEARCH)
    assert [run.steps for run in a.runs] == [[1, 2], [1, 2]]
    # NaN before the first value of all (the mini-batch loss of epoch 0) is no report; a run without any diverged.
    assert a.runs[0].curve.event_steps.tolist() == [1, 2]
    assert (a.goal.horizon, b.goal.horizon) == (2, 4)
    assert (b.runs[0].curve.values.tolist(), b.runs[0].curve.event_steps.tolist()) == ([8, 7, 6], [4])
    assert a.complete.all()
    assert b.complete.all()


def test_arlbench_failures_and_the_walker_without_early_points(tmp_path: Path) -> None:
    rows = [
        {"task": task, "config_id": 0, "seed": 0} for task in ("sac_brax_humanoid", "ppo_box2d_bipedal_walker", "dqn")
    ]
    values = [[1, NAN, 3, NAN], [1, NAN, 3, NAN], [NAN, 2, 3, 4]]
    brax, walker, dqn = load(table(tmp_path, values, runs=rows, name="arlbench"), caveats=RESEARCH)
    assert brax.runs[0].curve.event_steps.tolist() == [2, 4]
    assert walker.runs[0].curve.event_steps.tolist() == [4]
    assert dqn.runs[0].curve.event_steps.tolist() == []


def test_mlperf_runs_are_censored_at_their_target(tmp_path: Path) -> None:
    rows = [{"task": "a", "config_id": i, "seed": 0, "status": s} for i, s in enumerate(("success", "aborted", "fail"))]
    steps = [[1, 2, 3], [4, 8, NAN], [1, 2, NAN]]
    values = [[0.1, 0.2, 0.3], [0.1, 0.2, NAN], [0.1, 0.2, NAN]]
    task = only(table(tmp_path, values, steps=steps, runs=rows, name="mlperf_training"), caveats=RESEARCH)
    assert [run.status for run in task.runs] == [Status.STOPPED, Status.STOPPED, Status.FAILED]
    assert task.goal.horizon == 8


def test_a_failed_learner_of_lcdb(tmp_path: Path) -> None:
    task = only(
        table(tmp_path, [[0.5, 0.4, 0.3], [0.5, 0.4, NAN]], name="lcdb11", steps=[16, 18, 20]), caveats=RESEARCH
    )
    assert [run.status for run in task.runs] == [Status.COMPLETE, Status.FAILED]


@pytest.mark.parametrize("name", ["lm_lr_schedules", "rl_zoo_sb3", "olmo_ladder", "modded_nanogpt"])
def test_runs_planned_for_their_own_length_are_complete(tmp_path: Path, name: str) -> None:
    task = only(
        table(tmp_path, [[3, 2, 1], [3, 2, NAN]], steps=[[10, 20, 30], [1, 2, NAN]], name=name), caveats=RESEARCH
    )
    assert task.complete.all()
    assert task.goal.horizon == 30


# A user's own folder


def test_own_meta_says_what_is_to_be_minded_and_who_reads_may_say_otherwise(tmp_path: Path) -> None:
    said = {"nan": "diverged", "after": 0, "until": 2, "short": "Complete", "why": "3 is a test"}
    folder = table(tmp_path, [[3, 2, NAN, 9], [3, NAN, NAN, NAN]], steps=[0, 1, 2, 3], caveat=said)
    task = only(folder)
    assert [run.curve.event_steps.tolist() for run in task.runs] == [[2], [1, 2]]
    assert task.goal.horizon == 2
    task = only(folder, caveats={"own": Caveat(), "another": Caveat(until=1)})
    assert [run.steps for run in task.runs] == [[0, 1, 3], [0]]
    assert task.complete.tolist() == [True, False]
    (folder / "meta.json").write_text(json.dumps({**META, "caveat": {"afer": 0}}))
    with pytest.raises(FileProblem) as caught:
        only(folder)
    names = "nan, after, until, length, gaps, full, short, words, why"
    assert str(caught.value) == f"{folder / 'meta.json'}: caveat: expected some of {names}, got 'afer'."


def test_own_runs_by_what_their_status_says(tmp_path: Path) -> None:
    words = ("COMPLETE", "pruned", "FAIL", "running", "")
    rows = [{"task": "a", "config_id": i, "seed": 0, "status": word} for i, word in enumerate(words)]
    task = only(table(tmp_path, [[1, 2], [1, 2], [1, 2], [1, NAN], [1, NAN]], runs=rows))
    assert [run.uid for run in task.runs] == ["0", "1", "2", "4"]
    assert [run.status for run in task.runs] == [Status.COMPLETE, Status.STOPPED, Status.FAILED, Status.STOPPED]


def test_own_steps_from_zero_are_kept(tmp_path: Path) -> None:
    assert only(table(tmp_path, [[3, 2, 1]], steps=[0, 1, 2])).runs[0].steps == [0, 1, 2]


def test_own_steps_per_run_that_end_within_a_report_of_the_horizon(tmp_path: Path) -> None:
    steps = [[10, 20, 30], [9, 18, 27], [1, 2, 3]]
    task = only(table(tmp_path, [[3, 2, 1]] * 3, steps=steps))
    assert task.complete.tolist() == [True, True, False]


def test_a_measured_clock(tmp_path: Path) -> None:
    times = [[5.0, 9.0], [5.0, 4.0], [NAN, 4.0]]
    folder = table(tmp_path, [[3, 2]] * 3, arrays={"T__wall_s": np.array(times)})
    task = only(folder, clock="wall_s")
    assert task.unit == "seconds"
    assert [(run.uid, run.clock.tolist()) for run in task.runs] == [("0", [5, 9])]
    assert Table(folder).clocks == ("wall_s",)
    with pytest.raises(InvalidValue) as caught:
        only(folder, clock="wall")
    assert str(caught.value) == f"{folder}: clock: expected one of wall_s, got 'wall'. Perhaps 'wall_s' is meant."


def test_a_task_without_the_metric_is_left_out_unless_asked_for(tmp_path: Path) -> None:
    rows = [{"task": name, "config_id": 0, "seed": 0} for name in ("a", "vae")]
    folder = table(tmp_path, [[1, 2], [NAN, NAN]], runs=rows, nan_means="diverged")
    assert [task.name for task in load(folder)] == ["a"]
    with pytest.raises(InvalidValue) as caught:
        list(load(folder, tasks=["vae"]))
    assert str(caught.value) == f"{folder}: tasks: expected a task with reports of 'loss', got 'vae'."


# What is wrong, word for word


def test_unknown_names(tmp_path: Path) -> None:
    folder = table(tmp_path, [[1, 2]])
    with pytest.raises(InvalidValue) as caught:
        list(load(folder, metric="los"))
    assert str(caught.value) == f"{folder}: metric: expected one of loss, got 'los'. Perhaps 'loss' is meant."
    with pytest.raises(InvalidValue) as caught:
        list(load(folder, tasks=["zzz"]))
    assert str(caught.value) == f"{folder}: tasks: expected one of a, got 'zzz'."


@pytest.mark.parametrize("name", ["curves.npz", "runs.csv.gz", "configs.csv.gz", "meta.json"])
def test_a_missing_file(tmp_path: Path, name: str) -> None:
    folder = table(tmp_path, [[1, 2]])
    (folder / name).unlink()
    with pytest.raises(FileProblem) as caught:
        list(load(folder))
    files = "curves.npz, runs.csv.gz, configs.csv.gz and meta.json"
    assert str(caught.value) == f"{folder / name}: expected {files}, got a folder without it."


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileProblem, match=r"got no folder without it|got no folder"):
        list(load(tmp_path / "nowhere"))


@pytest.mark.parametrize("name", ["curves.npz", "runs.csv.gz", "configs.csv.gz", "meta.json"])
@pytest.mark.parametrize("content", [b"", b"\x1f\x8b\x08 not what it says", b"PK\x03\x04 torn"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    folder = table(tmp_path, [[1, 2]])
    (folder / name).write_bytes(content)
    with pytest.raises(FileProblem) as caught:
        list(load(folder))
    assert str(caught.value).startswith(f"{folder / name}: expected ")
    assert "\n" not in str(caught.value)


def test_a_truncated_archive_is_named(tmp_path: Path) -> None:
    folder = table(tmp_path, np.random.default_rng(0).normal(size=(50, 50)))
    whole = (folder / "curves.npz").read_bytes()
    (folder / "curves.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileProblem, match=r"curves\.npz: expected a file of numpy\.savez, got "):
        list(load(folder))


def test_wrong_shapes(tmp_path: Path) -> None:
    folder = table(tmp_path, [[1, 2]], steps=[1, 2, 3])
    with pytest.raises(FileProblem) as caught:
        list(load(folder))
    where = f"{folder / 'curves.npz'}"
    assert str(caught.value) == f"{where}: Y__loss: expected the shape (1, 3) (runs, steps), got (1, 2)."
    table(tmp_path, [[1, 2]], steps=[[1, 2], [1, 2]])
    with pytest.raises(FileProblem) as caught:
        list(load(folder))
    assert str(caught.value) == f"{where}: step: expected the shape (steps,) or (1, steps), got (2, 2)."


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([1, 1], "step[1]: expected steps that rise, padding last, got 1."),
        ([2, 1], "step[1]: expected steps that rise, padding last, got 1."),
        ([[1, 2], [NAN, 2]], "step[1, 1]: expected steps that rise, padding last, got 2."),
    ],
)
def test_steps_must_rise(tmp_path: Path, steps: Any, said: str) -> None:
    folder = table(tmp_path, [[1, 2]] * 2, steps=steps)
    with pytest.raises(FileProblem) as caught:
        list(load(folder))
    assert str(caught.value) == f"{folder / 'curves.npz'}: {said}"


def test_arrays_of_objects_are_not_unpickled(tmp_path: Path) -> None:
    folder = table(tmp_path, [[1, 2]], arrays={"Y__loss": np.array([[{}, {}]], object)})
    with pytest.raises(FileProblem, match=r"Y__loss: expected an array of numbers, got Object arrays cannot be loaded"):
        list(load(folder))


def test_other_wrong_content(tmp_path: Path) -> None:
    folder = table(tmp_path, [[1, 2]], metrics={"loss": {"direction": "down"}})
    with pytest.raises(FileProblem) as caught:
        list(load(folder))
    assert str(caught.value) == (
        f"{folder / 'meta.json'}: metrics.loss.direction: "
        "expected min or max, there or at the task 'a' in tasks, got 'down'."
    )
    table(tmp_path, [[1, 2]], runs=[{"task": "a", "config_id": 7}])
    with pytest.raises(FileProblem) as caught:
        list(load(folder))
    assert str(caught.value) == f"{folder / 'runs.csv.gz'}:2: config_id: expected one of configs.csv.gz, got '7'."
    table(tmp_path, [[1, 2]], runs=[{"job": "a", "config_id": 7}])
    with pytest.raises(FileProblem) as caught:
        list(load(folder))
    assert str(caught.value) == f"{folder / 'runs.csv.gz'}: expected the column task, got job, config_id."
    table(tmp_path, [[1, 2]], runs=[{"task": "a", "config_id": 0, "status": "meh"}])
    with pytest.raises(FileProblem, match=r"runs\.csv\.gz:2: status: expected one of complete, .*, got 'meh'\."):
        list(load(folder))
    table(tmp_path, [[1, 2]], steps=[-1, 0])
    with pytest.raises(FileProblem, match="step: expected steps above 0 in task 'a'"):
        list(load(folder))
    (folder / "meta.json").write_text(json.dumps({**META, "primary": "acc"}))
    with pytest.raises(FileProblem) as caught:
        list(load(folder))
    assert str(caught.value) == f"{folder / 'meta.json'}: primary: expected one of loss, got 'acc'."


def test_sources(tmp_path: Path) -> None:
    for name in ("b", "a"):
        table(tmp_path / name, [[1, 2]])
    (tmp_path / "c").mkdir()
    assert sources(tmp_path) == ("a", "b")
    with pytest.raises(EnvironmentProblem, match="expected a folder of curve tables, got none"):
        sources(tmp_path / "nowhere")
