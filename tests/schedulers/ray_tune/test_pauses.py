"""Pauses and resumes on a real Ray cluster: nothing is trained twice or lost, every run ends, a killed one goes on."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit.allocators import Recorded
from kit.doubles import NormalAroundBest
from kit.sessions import sweep_up, wait_for
from kit.tune_runner import searched_study
from optuna.samplers import RandomSampler
from ray import cloudpickle, tune
from ray.tune.search.optuna import OptunaSearch

from lcsearch.allocation.allocators.uniform import Uniform
from lcsearch.allocation.named import allocator
from lcsearch.allocation.receipt import ALLOCATED
from lcsearch.curves import Curve
from lcsearch.data.task import Run, Task
from lcsearch.goal import Goal
from lcsearch.replay.baselines.never_patience import Never
from lcsearch.replay.simulator import World, simulate
from lcsearch.schedulers.ray_tune import CurveScheduler, PrunedSearch, StateCallback
from lcsearch.session.decision_log import read_allocations
from lcsearch.study import Status

STEPS = 9
LIMITS = [0.5, 0.1, 0.9, 0.3, 0.7, 0.2]
BUDGET_S = 600
TESTS = str(Path(__file__).resolve().parents[2])

# Workers cannot import this module; what it defines travels whole.
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # type: ignore[no-untyped-call]


def loss(limit: float, step: int) -> float:
    return float(limit + 0.8**step)


def train(config: dict[str, Any], before: Callable[[int], None] = lambda step: None) -> None:
    """A decay to `limit` that saves at every `every`-th report; 0: never. Writes down from where each life went on.

    Args:
        before: called with a step before it is trained.
    """
    start, saved, limit = 0, tune.get_checkpoint(), config["limit"]
    if saved is not None:
        with saved.as_directory() as at:
            start = int((Path(at) / "step").read_text())
    with (Path(config["folder"]) / f"lives-{limit}").open("a") as file:
        file.write(f"{start}\n")
    for step in range(start + 1, STEPS + 1):
        before(step)
        told = {"epoch": step, "loss": loss(limit, step)}
        if config["every"] and step % config["every"] == 0:
            with tempfile.TemporaryDirectory() as at:
                (Path(at) / "step").write_text(str(step))
                tune.report(told, checkpoint=tune.Checkpoint.from_directory(at))
        else:
            tune.report(told)


class Decay(tune.Trainable):
    """The same as a class."""

    def setup(self, config: dict[str, Any]) -> None:
        self.limit, self.at = config["limit"], 0
        self.lives = Path(config["folder"]) / f"lives-{self.limit}"

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        self.at += 1
        return {"epoch": self.at, "loss": loss(self.limit, self.at)}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        (Path(checkpoint_dir) / "step").write_text(str(self.at))

    def load_checkpoint(self, checkpoint_dir: Any) -> None:
        self.at = int((Path(checkpoint_dir) / "step").read_text())
        with self.lives.open("a") as file:
            file.write(f"{self.at}\n")


def scheduler(folder: Path, **fields: Any) -> CurveScheduler:
    known = {"allocator": "asha", "n_startup_trials": 1000, "decision_log": folder / "decisions"}
    known |= {"forecasters": NormalAroundBest(sd=0.5), "max_t": STEPS}
    return CurveScheduler("epoch", "loss", "min", **{**known, **fields})


def fit(
    of: CurveScheduler,
    folder: Path,
    trainable: Any = train,
    *,
    every: int = 1,
    search: Any = None,
    failures: int = 0,
    errors: int = 0,
    stop: Any = None,
    **settings: Any,
) -> None:
    """Run one trial a limit; fails when the run does not end by itself, or with another number of errors."""
    limits = {} if search is not None else {"limit": tune.grid_search(LIMITS)}
    tuner = tune.Tuner(
        trainable,
        param_space={**limits, "folder": str(folder), "every": every},
        tune_config=tune.TuneConfig(
            **{"scheduler": of, "search_alg": search, "reuse_actors": True, "time_budget_s": BUDGET_S, **settings}
        ),
        run_config=tune.RunConfig(
            name="run",
            storage_path=str(folder),
            verbose=0,
            stop=stop,
            callbacks=[StateCallback(of)],
            failure_config=tune.FailureConfig(max_failures=failures),
        ),
    )
    start = time.monotonic()
    grid = tuner.fit()
    assert time.monotonic() - start < BUDGET_S, "the run did not end by itself"
    assert sum(grid[i].error is not None for i in range(len(grid))) == errors


def ends(of: CurveScheduler) -> dict[float, tuple[Status, int]]:
    """Limit -> status and last step; every curve is whole up to there."""
    found = {}
    for trial in of.snapshot().bank:
        limit = float(trial.params["limit"])
        steps, values = trial.curve.reports()
        assert steps.tolist() == list(range(1, len(steps) + 1))
        assert values.tolist() == [loss(limit, step) for step in range(1, len(steps) + 1)]
        found[limit] = trial.status, len(steps)
    assert of.snapshot().live == ()
    assert "failed open" not in of.debug_string()
    return found


def lives(folder: Path, limit: float) -> list[int]:
    return [int(line) for line in (folder / f"lives-{limit}").read_text().split()]


@pytest.mark.parametrize("reuse", [True, False])
@pytest.mark.parametrize("trainable", [train, Decay])
def test_paused_trials_go_on_where_they_stood(cluster: Any, tmp_path: Path, trainable: Any, reuse: bool) -> None:
    # where every report comes in the best order nobody has to wait: then another run tells
    assert any(resumed(tmp_path / str(i), trainable, reuse) for i in range(3))


def resumed(folder: Path, trainable: Any, reuse: bool) -> int:
    """How often a trial of one run was resumed, none of it trained twice."""
    folder.mkdir()
    of = scheduler(folder)
    fit(of, folder, trainable, reuse_actors=reuse)
    found = ends(of)
    assert set(found) == set(LIMITS)
    assert (Status.COMPLETE, STEPS) in found.values()
    assert Status.STOPPED in {status for status, _ in found.values()}
    assert set(of.stopped().values()) == {"its rung is closed"}
    n = 0
    for limit, (_, last) in found.items():
        begun = [0] if trainable is Decay else []
        starts = begun + (lives(folder, limit) if (folder / f"lives-{limit}").exists() else [])
        assert starts == sorted(set(starts)), "nothing is trained twice"
        assert all(start < last for start in starts)
        n += len(starts) - 1
    return n


def test_trials_that_never_save_run_to_their_end(
    cluster: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    of = scheduler(tmp_path)
    fit(of, tmp_path, every=0)
    assert ends(of) == dict.fromkeys(LIMITS, (Status.COMPLETE, STEPS))
    assert all(lives(tmp_path, limit) == [0] for limit in LIMITS)
    assert sum("carries no checkpoint" in record.message for record in caplog.records) == 1


def test_trials_that_save_now_and_then_pause_where_they_saved(cluster: Any, tmp_path: Path) -> None:
    of = scheduler(tmp_path)
    fit(of, tmp_path, every=2)
    found = ends(of)
    assert {last for status, last in found.values() if status is Status.STOPPED} <= {2, 4, 6, 8}
    assert all(start % 2 == 0 for limit in LIMITS for start in lives(tmp_path, limit))


@pytest.mark.parametrize("retries", [0, 1])
def test_trials_that_fail_or_lose_their_worker_leave_the_others_their_turns(
    cluster: Any, tmp_path: Path, retries: int
) -> None:
    def faulty(config: dict[str, Any]) -> None:
        """Two trials break down in their second turn, one of them with its process; once."""
        mark = Path(config["folder"]) / f"broken-{config['limit']}"

        def breaks(step: int) -> None:  # whether it was paused before: where nobody waits yet, it is not
            if config["limit"] in (0.1, 0.2) and step > 3 and not mark.exists():
                mark.touch()
                if config["limit"] == 0.1:
                    os.kill(os.getpid(), signal.SIGKILL)
                raise RuntimeError("the trial's own trouble")

        train(config, breaks)

    of = scheduler(tmp_path, allocator=Uniform(quantum=1 / 3))
    fit(of, tmp_path, faulty, failures=retries, errors=0 if retries else 2)
    assert ends(of) == {
        limit: (Status.FAILED, 3) if limit in (0.1, 0.2) and not retries else (Status.COMPLETE, STEPS)
        for limit in LIMITS
    }
    assert len(list(tmp_path.glob("broken-*"))) == 2


@pytest.mark.parametrize("limit", [None, 2])
def test_the_searcher_hears_of_cut_trials_as_pruned(cluster: Any, tmp_path: Path, limit: int | None) -> None:
    """A ConcurrencyLimiter counts paused trials: with two the run still ends."""
    of = scheduler(tmp_path)
    inner = OptunaSearch(
        {"limit": tune.uniform(0, 1)},
        metric="loss",
        mode="min",
        sampler=RandomSampler(seed=1),
        points_to_evaluate=[{"limit": limit} for limit in LIMITS],
    )
    fit(of, tmp_path, search=PrunedSearch(inner, of), num_samples=len(LIMITS), max_concurrent_trials=limit)
    found = ends(of)
    assert set(found) == set(LIMITS)
    told = {trial.params["limit"]: trial for trial in searched_study(inner).trials}
    for one, (status, last) in found.items():
        assert told[one].state.name == ("COMPLETE" if status is Status.COMPLETE else "PRUNED")
        assert len(told[one].intermediate_values) == last
    assert Counter(trial.state.name for trial in told.values())["PRUNED"] > 0


def test_trials_that_wait_when_the_time_is_up_are_told_as_pruned(cluster: Any, tmp_path: Path) -> None:
    """Tune tells a searcher nothing of the trials there are when its time is up."""

    def stuck(config: dict[str, Any]) -> None:
        """Three slots: all five have a turn of one step, then three of them hang in a later one."""
        if tune.get_checkpoint() is not None and len(list(tmp_path.glob("lives-*"))) == 5:
            (tmp_path / f"stuck-{config['limit']}").touch()
            time.sleep(900)
        train(config)

    class UntilAllAreStuck(tune.Stopper):
        """As Tune's own of a time budget, which ends a run by the same call."""

        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            return False

        def stop_all(self) -> bool:
            return len(list(tmp_path.glob("stuck-*"))) == 3

    of = scheduler(tmp_path, allocator=Uniform(quantum=1 / STEPS))
    inner = OptunaSearch({"limit": tune.uniform(0, 1)}, metric="loss", mode="min", sampler=RandomSampler(seed=1))
    fit(of, tmp_path, stuck, search=PrunedSearch(inner, of), num_samples=5, stop=UntilAllAreStuck())
    waited = [trial.uid for trial in of.snapshot().bank]
    assert len(waited) == 2
    assert all("the run ended while it waited" in of.explain(uid) for uid in waited)
    assert all(ALLOCATED not in trial.stop_records for trial in of.snapshot().bank)  # no allocation cut them
    told = searched_study(inner).trials
    assert Counter(trial.state.name for trial in told) == {"PRUNED": 2, "RUNNING": 3}
    assert all(trial.intermediate_values for trial in told if trial.state.name == "PRUNED")


HALT = 5  # the last trial

# One slot. In the first driver, trial and step of `halt` wait for the end.
DRIVER = """\
import json, sys, tempfile, time
from pathlib import Path

import ray
from ray import tune

sys.path.insert(0, sys.argv[1])
from kit.doubles import NormalAroundBest

from lcsearch.schedulers.ray_tune import CurveScheduler, StateCallback

told = json.loads(sys.argv[2])
folder = Path(told["folder"])


def train(config):
    start, saved, index = 0, tune.get_checkpoint(), config["index"]
    if saved is not None:
        with saved.as_directory() as at:
            start = int((Path(at) / "step").read_text())
    with (Path(config["folder"]) / f"lives-{index}").open("a") as file:
        file.write(f"{start}\\n")
    for step in range(start + 1, 10):
        halted = Path(config["folder"]) / "halted"
        if [index, step] == config["halt"] and not halted.exists():
            halted.touch()
            time.sleep(600)
        with tempfile.TemporaryDirectory() as at:
            (Path(at) / "step").write_text(str(step))
            told = {"epoch": step, "loss": config["limits"][index] + 0.8**step}
            tune.report(told, checkpoint=tune.Checkpoint.from_directory(at))


ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
if told["restore"]:
    tuner = tune.Tuner.restore(str(folder / "run"), trainable=train, resume_unfinished=True)
else:
    scheduler = CurveScheduler(
        "epoch", "loss", "min", 9, allocator=told["allocator"], n_startup_trials=1000,
        forecasters=NormalAroundBest(), decision_log=folder / "decisions",
    )
    space = {key: told[key] for key in ("folder", "limits", "halt")}
    tuner = tune.Tuner(
        train,
        param_space={**space, "index": tune.grid_search(list(range(len(told["limits"]))))},
        tune_config=tune.TuneConfig(scheduler=scheduler, reuse_actors=True, time_budget_s=600),
        run_config=tune.RunConfig(
            name="run", storage_path=str(folder), verbose=0, callbacks=[StateCallback(scheduler)]
        ),
    )
tuner.fit()
scheduler = tuner._local_tuner._tune_config.scheduler
ends = {uid: [entry.status.name, entry.last] for uid, entry in scheduler._book.entries.items()}
(folder / "said.json").write_text(json.dumps({"ends": ends, "tally": scheduler.debug_string()}))
"""


@contextmanager
def driven(folder: Path, environment: dict[str, str], told: dict[str, Any]) -> Iterator[subprocess.Popen[bytes]]:
    """A driver in a session of its own; nothing of it is left afterwards."""
    (folder / "driver.py").write_text(DRIVER)
    with (folder / f"stderr-{told['restore']}").open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "driver.py", TESTS, json.dumps(told)],
            cwd=folder,
            env={**os.environ, **environment},
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        sweep_up(process.pid)


def whole(folder: Path) -> bool:
    """Are Tune's state and ours whole, and do they know that the last trial runs?

    Tune copies files in place: a kill amid that ends all.
    """
    try:
        (tune_state,) = (folder / "run").glob("experiment_state-*.json")
        for pattern in ("callback-states-*.pkl", "basic-variant-state-*.json"):  # pickles both
            (kept,) = (folder / "run").glob(pattern)
            pickle.loads(kept.read_bytes())
        trials = [json.loads(one[0]) for one in json.loads(tune_state.read_text())["trial_data"]]
    except (ValueError, EOFError, OSError, pickle.UnpicklingError):
        return False
    return any(one["trial_id"].endswith(f"_{HALT:05}") and one["status"] == "RUNNING" for one in trials)


def frozen(process: subprocess.Popen[bytes], folder: Path) -> bool:
    """Freeze the driver where its state is whole."""
    os.kill(process.pid, signal.SIGSTOP)
    if whole(folder):
        return True
    os.kill(process.pid, signal.SIGCONT)
    return False


@pytest.mark.parametrize("name", ["asha", "uniform"])
def test_a_killed_run_with_one_slot_moves_as_the_simulator_does(
    ray_settings: dict[str, str], tmp_path: Path, name: str
) -> None:
    """Paused trials stay paused over a SIGKILL; all in all the moves are those of a simulated search."""
    environment = {
        **ray_settings,
        "TUNE_GLOBAL_CHECKPOINT_S": "0.2",
        "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    }
    told = {"folder": str(tmp_path), "limits": LIMITS, "halt": [HALT, 1], "allocator": name, "restore": False}
    with driven(tmp_path, environment, told) as process:
        wait_for((tmp_path / "halted").exists, process)
        wait_for(lambda: frozen(process, tmp_path), process)
    with driven(tmp_path, environment, {**told, "restore": True}) as process:
        assert process.wait(300) == 0, (tmp_path / "stderr-True").read_text()
    said = json.loads((tmp_path / "said.json").read_text())

    curves = [[loss(limit, step) for step in range(1, STEPS + 1)] for limit in LIMITS]
    clock = np.arange(1.0, STEPS + 1)
    runs = [Run(str(i), Curve.of(range(1, STEPS + 1), curve), clock) for i, curve in enumerate(curves)]
    recorded = Recorded(allocator(name))
    task = Task("same", Goal("loss", "minimize", STEPS), tuple(runs))
    found = simulate(task, range(len(LIMITS)), Never(), World(), recorded, [NormalAroundBest()])

    def index(uid: str | None) -> str | None:
        return None if uid is None else str(int(uid.rpartition("_")[2]))

    assert {index(uid): tuple(end) for uid, end in said["ends"].items()} == {
        life.uid: (life.status.name, life.step) for life in found.lives
    }
    assert "failed open" not in said["tally"]
    receipts = {one.number: one for one in read_allocations(tmp_path / "decisions")}
    expected = {
        key[1]: ([(move.uid, move.pause_at) for move in moves], [uid for uid, _ in stops])
        for _, key, moves, stops in recorded.said
        if moves or stops
    }
    got = {
        number: (
            [(index(move.uid), move.pause_at) for move in one.moves],
            [index(uid) for uid, _ in one.stops],
        )
        for number, one in receipts.items()
    }
    assert got == expected
    for i in range(len(LIMITS)):  # the one that was killed had reported nothing
        starts = [int(line) for line in (tmp_path / f"lives-{i}").read_text().split()]
        assert starts == sorted(starts)
        assert len(starts) == len(set(starts)) + (i == HALT)
