"""One trial at a time on a real cluster: the same stops twice, once beside busy processes."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from kit.load import busy
from ray import cloudpickle, tune

from lcsearch.schedulers.ray_tune import CurveScheduler
from lcsearch.session.decision_log import read_log

STEPS = 20
RATES = [10 ** (-4 + 4 * ((0.618 * i) % 1)) for i in range(12)]

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # type: ignore[no-untyped-call]


class Decay(tune.Trainable):
    """A noisy decay to a limit that the learning rate sets."""

    def setup(self, config: dict[str, Any]) -> None:
        self.lr, self.at = config["lr"], 0

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        self.at += 1
        time.sleep(0.001)
        limit = 0.1 + abs(math.log10(self.lr) + 2) / 4
        noise = 0.01 * math.sin(1e4 * self.lr * self.at)
        return {"loss": limit + (1 - limit) * self.at**-0.8 + noise, "done": self.at >= STEPS}

    def save_checkpoint(self, checkpoint_dir: str) -> None: ...


@pytest.fixture(scope="module")
def one_cpu(ray_settings: dict[str, str]) -> Iterator[None]:
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def fitted(folder: Path) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """(each trial's last step, last value and whose stop it was, the looks that reached the network), in order."""
    of = CurveScheduler(metric="loss", mode="min", max_t=STEPS, decision_log=folder / "decisions")
    config = tune.TuneConfig(scheduler=of, max_concurrent_trials=1, reuse_actors=True, time_budget_s=600)
    grid = tune.Tuner(
        Decay,
        param_space={"lr": tune.grid_search(RATES)},
        tune_config=config,
        run_config=tune.RunConfig(name="run", storage_path=str(folder), verbose=0),
    ).fit()
    ends, rates = [], {}
    for result in (grid[i] for i in range(len(grid))):
        assert result.metrics is not None
        assert result.config is not None
        uid, lr = str(result.metrics["trial_id"]), result.config["lr"]
        rates[uid] = lr
        reason = (of.reason(uid) or "").replace(uid.partition("_")[0], "run")  # ids begin with a run's own letters
        ends.append((lr, result.metrics["training_iteration"], result.metrics["loss"], reason))
    assert "failed open" not in of.debug_string()
    looks = [
        (rates[record["trial"]], record["step"], record["verdict"], record["now"], record["before"])
        for record in read_log(folder / "decisions")
    ]
    return ends, looks


def test_the_same_stops_beside_busy_processes(one_cpu: None, tmp_path: Path) -> None:
    """What a look came to was once carried out when the driver got to it: results later on a busy machine."""
    ends, looks = fitted(tmp_path / "quiet")
    assert sum(bool(reason) for *_, reason in ends) >= 3
    with busy():
        assert fitted(tmp_path / "busy") == (ends, looks)
