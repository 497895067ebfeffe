"""The shipped objective: real training that resumes to the very same curve."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lcsearch.schedule import Schedule
from lcsearch.sweep.objective.context import Context, Stopped, load_objective
from lcsearch.sweep.spec.load import load

CONFIGS = Path(__file__).parents[3] / "configs"
PARAMS = {
    "lr": 0.1, "shape": "cosine", "warmup": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "width": 32, "depth": 1,
    "dropout": 0.2, "batch_size": 128, "label_smoothing": 0.05,
}  # fmt: skip


class Quiet:
    """Takes reports; stops the trial after `last`."""

    def __init__(self, last: int = 100) -> None:
        self.last, self.step = last, 0

    def report(self, value: float, step: int) -> None:
        self.step = step

    def should_prune(self) -> bool:
        return self.step >= self.last


def curve(folder: Path, last: int = 100, **changed: Any) -> dict[int, float]:
    file = load(CONFIGS / "digits.yaml").file.model_copy(update={"max_steps": 8})
    assert file.objective.python is not None
    train = load_objective(file.objective.python, CONFIGS)
    params = {**PARAMS, **changed}
    folder.mkdir(exist_ok=True)
    schedule = Schedule(params["shape"], params["lr"], 8.0, warmup=params["warmup"])
    ctx = Context(
        Quiet(last), params=params, number=4, goal=file.target, seed=0, checkpoint_dir=folder, schedule=schedule
    )
    with suppress(Stopped):
        train(ctx)
    return dict(ctx.reported)


def test_it_learns_is_deterministic_and_resumes_to_the_identical_curve(tmp_path: Path) -> None:
    whole = curve(tmp_path / "a")
    assert list(whole) == list(range(1, 9))
    assert whole[8] < 0.6 < whole[1]
    begun = curve(tmp_path / "b", last=6)
    assert list(begun) == [1, 2, 3, 4, 5, 6]
    rest = curve(tmp_path / "b")
    assert list(rest) == [6, 7, 8]  # from the checkpoint of epoch 5
    assert {**begun, **rest} == whole
    assert begun[6] == rest[6]


def test_no_momentum_at_all(tmp_path: Path) -> None:
    assert len(curve(tmp_path / "d", last=1, momentum=0.0)) == 1


@pytest.mark.parametrize("lr", [1000.0])
def test_a_rate_that_is_far_too_large_is_reported_not_raised(tmp_path: Path, lr: float) -> None:
    values = list(curve(tmp_path / "c", lr=lr, shape="constant", warmup=0.0).values())
    assert len(values) == 8
    assert not values[-1] < math.log(10)
