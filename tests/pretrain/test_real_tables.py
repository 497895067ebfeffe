"""Tables as training data, on tables made here."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lcsearch.data.caveats import Caveat
from lcsearch.pretrain.real_tables import Half, read

NAN = float("nan")


def table(
    folder: Path, values: Any, *, tasks: Sequence[str] = (), configs: Sequence[dict[str, Any]] = (), **meta: Any
) -> None:
    folder.mkdir(parents=True)
    matrix = np.array(values, np.float32)
    n = len(matrix)
    step = meta.pop("step", np.arange(1.0, matrix.shape[1] + 1))
    np.savez_compressed(folder / "curves.npz", Y__loss=matrix, step=step)
    names = tasks or ["a"] * n
    write(folder / "runs.csv.gz", [{"task": names[i], "config_id": i, "seed": 0} for i in range(n)])
    write(folder / "configs.csv.gz", [{"config_id": i, **(configs[i] if configs else {})} for i in range(n)])
    known = {"name": folder.name, "primary": "loss", "metrics": {"loss": {"direction": "min"}}, "licence": "MIT"}
    (folder / "meta.json").write_text(json.dumps({**known, "source": "here", "nan_means": "padding", **meta}))


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with gzip.open(path, "wt", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_halves_take_turns(tmp_path: Path) -> None:
    names = [name for name in ("c", "a", "b") for _ in range(4)]
    table(tmp_path / "one", np.ones((12, 5)), tasks=names)
    halves: dict[Half | None, list[str]] = {"a": ["a", "c"], "b": ["b"], None: ["a", "b", "c"]}
    for half, want in halves.items():
        tasks, origins = read(tmp_path, half)
        assert [task.name for task in tasks] == want
        assert [task.source for task in tasks] == ["one"] * len(want)
        assert [(o.name, o.source, o.licence, list(o.tasks), o.runs) for o in origins] == [
            ("one", "here", "MIT", want, 4 * len(want))
        ]


def test_lower_is_better(tmp_path: Path) -> None:
    table(tmp_path / "one", np.arange(20.0).reshape(4, 5), metrics={"loss": {"direction": "max"}})
    (task,), _ = read(tmp_path)
    assert np.array_equal(task.losses, -np.arange(20.0).reshape(4, 5))


def test_padding_is_not_known_and_divergence_is(tmp_path: Path) -> None:
    values = np.ones((5, 6))
    values[4, 4:] = NAN
    table(tmp_path / "padded", values)
    table(tmp_path / "diverged", values, nan_means="diverged")
    (diverged, padded), _ = read(tmp_path)
    assert padded.length.tolist() == [6, 6, 6, 6, 4]
    assert diverged.length.tolist() == [6] * 5
    assert np.isnan(diverged.losses[4]).tolist() == [False] * 4 + [True] * 2


def test_runs_are_grouped_by_their_steps(tmp_path: Path) -> None:
    step = np.array([[1.0, 2, 3, 4, 5]] * 5 + [[10.0, 20, 30, 40, NAN]] * 4 + [[7.0, 8, 9, 10, 11]] * 2)
    step[4, 3:] = NAN
    values = np.where(np.isnan(step), NAN, 1.0)
    table(tmp_path / "one", values, step=step)
    tasks, _ = read(tmp_path)
    assert [task.name for task in tasks] == ["a", "a#1"]
    assert [task.steps.tolist() for task in tasks] == [[1, 2, 3, 4, 5], [10, 20, 30, 40]]
    assert tasks[0].length.tolist() == [5, 5, 5, 5, 3]  # the first three steps of the same row


def test_configurations_are_scaled(tmp_path: Path) -> None:
    configs = [
        {"lr": lr, "drop": drop, "act": act, "flag": flag, "only": only, "same": 3}
        for lr, drop, act, flag, only in [
            (1e-4, 0.0, "relu", "True", 1),
            (1e-3, 0.1, "tanh", "False", ""),
            (1e-2, 0.2, "relu", "True", 2),
            (1e-1, 0.4, "gelu", "True", 3),
        ]
    ]
    table(tmp_path / "one", np.ones((4, 5)), configs=configs, hp=[{"name": "drop", "log": False}])
    (task,), _ = read(tmp_path)
    assert task.kinds.tolist() == [1, 1, 2, 2, 1]
    assert task.params[:, 0] == pytest.approx([0, 1 / 3, 2 / 3, 1])  # a wide range: on a logarithm
    assert task.params[:, 1] == pytest.approx([0, 0.25, 0.5, 1])
    assert task.params[:, 2].tolist() == [1, 2, 1, 0]
    assert task.params[:, 3].tolist() == [1, 0, 1, 1]
    assert np.array_equal(task.params[:, 4], [0, NAN, 0.5, 1], equal_nan=True)


def test_caveats_are_minded(tmp_path: Path) -> None:
    table(tmp_path / "one", np.arange(24.0).reshape(4, 6))
    (task,), _ = read(tmp_path, caveats={"one": Caveat(after=1, until=5)})
    assert task.steps.tolist() == [2, 3, 4, 5]
