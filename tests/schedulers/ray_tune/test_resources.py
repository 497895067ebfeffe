"""Trials that grow and shrink: without a cluster, and on three nodes with fake GPUs."""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from kit.doubles import NormalAroundBest
from kit.tune_runner import Proposals, Runner, copy_of, scheduler
from ray import cloudpickle, tune
from ray.cluster_utils import Cluster
from ray.tune.experiment import Trial
from ray.tune.result import SHOULD_CHECKPOINT

from lcsearch.allocation.allocators.uniform import Uniform
from lcsearch.errors import InvalidValue
from lcsearch.schedulers.ray_tune import CurveScheduler, ResourceBounds, Resources, StateCallback, _room
from lcsearch.study import Status

STEPS = 9
BUDGET_S = 600

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # type: ignore[no-untyped-call]


def grown(runner: Runner) -> dict[str, float]:
    """CPUs that trials run on."""
    return {t.trial_id: _room.request(t).cpus for t in runner.trials if t.status == Trial.RUNNING}


def report(runner: Runner, uid: str) -> str:
    trial = next(one for one in runner.trials if one.trial_id == uid)
    at = int((trial.last_result or {}).get("training_iteration", 0)) + 1
    return runner.result(trial, {"training_iteration": at, "loss": 1.0 / at, SHOULD_CHECKPOINT: True})


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Runner:
    """Four CPUs, two trials, turns of a third of the horizon."""
    monkeypatch.setattr(_room, "largest_node", lambda least: Resources(8))
    bounds = ResourceBounds(Resources(1), Resources(3))
    of = scheduler(max_t=STEPS, n_startup_trials=1000, allocator=Uniform(quantum=1 / 3), resources=bounds)
    return Runner(of, slots=4, search_alg=Proposals(["t0", "t1"]))


def test_a_trial_grows_while_it_is_paused_and_shrinks_for_others(runner: Runner) -> None:
    for _ in range(3):
        runner.step()
    assert grown(runner) == {"t0": 3, "t1": 1}  # four CPUs, two trials, the first of equals has what is spare
    for _ in range(3):
        report(runner, "t1")
    runner.add("t2")
    runner.add("t3")
    for _ in range(4):
        runner.step()
    assert sum(grown(runner).values()) <= 4
    assert [report(runner, "t0") for _ in range(3)][-1] == "PAUSE"  # three wait, and it has three slots
    for _ in range(6):
        runner.step()
    assert set(grown(runner).values()) == {1}
    assert len(grown(runner)) == 4


def test_nobody_is_paused_for_the_size_it_has(runner: Runner) -> None:
    for _ in range(3):
        runner.step()
    assert [report(runner, "t0") for _ in range(3)] == ["CONTINUE"] * 3
    assert grown(runner) == {"t0": 3, "t1": 1}


def test_no_slot_is_given_away_while_a_grown_trial_has_no_place(runner: Runner) -> None:
    for _ in range(3):
        runner.step()
    for _ in range(3):
        report(runner, "t1")
    large = next(one for one in runner.trials if one.trial_id == "t0")
    large.status = Trial.PENDING  # as Tune has it until a node has room
    runner.add("t2")
    for _ in range(5):
        assert runner.step() is None
    assert [report(runner, "t1") for _ in range(3)][-1] == "PAUSE"
    assert runner.step() is None
    large.status = Trial.RUNNING
    runner.step()
    assert len(grown(runner)) == 2


def test_sizes_come_back_over_a_restore(runner: Runner) -> None:
    for _ in range(3):
        runner.step()
    bounds = ResourceBounds(Resources(1), Resources(3))
    of = scheduler(max_t=STEPS, n_startup_trials=1000, allocator=Uniform(quantum=1 / 3), resources=bounds)
    StateCallback(of).set_state(copy_of(StateCallback(runner.scheduler).get_state()))
    twin = runner.fork(of)
    for trial in twin.trials:
        trial.status = Trial.PENDING
        of.on_trial_add(twin, trial)  # type: ignore[arg-type]
    assert {trial.trial_id: _room.request(trial).cpus for trial in twin.trials} == {"t0": 3, "t1": 1}


def test_arguments_are_checked() -> None:
    with pytest.raises(InvalidValue):
        scheduler(resources=ResourceBounds(Resources(1), Resources(2)))
    with pytest.raises(InvalidValue):
        scheduler(allocator="asha", resources={"cpu": 1})


def train(config: dict[str, Any]) -> None:
    """Writes down what each of its lives trains on."""
    start, saved = 0, tune.get_checkpoint()
    if saved is not None:
        with saved.as_directory() as at:
            start = int((Path(at) / "step").read_text())
    told = tune.get_context().get_trial_resources().required_resources
    seen = [one for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one]
    with (Path(config["folder"]) / f"lives-{config['limit']}").open("a") as file:
        file.write(json.dumps([start, told["CPU"], told["GPU"], len(seen)]) + "\n")
    for step in range(start + 1, STEPS + 1):
        time.sleep(0.1)
        with tempfile.TemporaryDirectory() as at:
            (Path(at) / "step").write_text(str(step))
            result = {"epoch": step, "loss": config["limit"] + 0.8**step}
            tune.report(result, checkpoint=tune.Checkpoint.from_directory(at))


@pytest.fixture
def gpus(ray_settings: dict[str, str]) -> Iterator[None]:
    """Three nodes, two of them with two fake GPUs each."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        for _ in range(2):
            made.add_node(num_cpus=2, num_gpus=2)
        ray.init(address=made.address, log_to_driver=False, logging_level=logging.ERROR)
        yield
    finally:
        ray.shutdown()
        made.shutdown()  # type: ignore[no-untyped-call]


def test_the_last_trial_of_a_run_has_the_gpus_that_are_left(gpus: None, tmp_path: Path) -> None:
    limits = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    of = CurveScheduler(
        "epoch",
        "loss",
        "min",
        STEPS,
        allocator="asha",
        n_startup_trials=1000,
        forecasters=NormalAroundBest(),
        resources=ResourceBounds(Resources(1, 1), Resources(2, 2)),
    )
    tuner = tune.Tuner(
        train,
        param_space={"limit": tune.grid_search(limits), "folder": str(tmp_path)},
        tune_config=tune.TuneConfig(scheduler=of, reuse_actors=True, time_budget_s=BUDGET_S),
        run_config=tune.RunConfig(name="run", storage_path=str(tmp_path), verbose=0, callbacks=[StateCallback(of)]),
    )
    start = time.monotonic()
    tuner.fit()
    assert time.monotonic() - start < BUDGET_S, "the run did not end by itself"
    told = [json.loads(line) for limit in limits for line in (tmp_path / f"lives-{limit}").read_text().splitlines()]
    assert all(asked == seen for _, _, asked, seen in told), "what Ray gives is what is asked for"
    assert {(cpus, gpus) for _, cpus, gpus, _ in told} == {(1, 1), (2, 2)}
    # The last one to go on is alone.
    (best,) = (trial for trial in of.snapshot().bank if trial.status is Status.COMPLETE)
    last = json.loads((tmp_path / f"lives-{best.params['limit']}").read_text().splitlines()[-1])
    assert last[0] > 0
    assert last[1:] == [2, 2, 2]
    assert of.snapshot().bank.n_complete == 1
    assert "failed open" not in of.debug_string()
