"""Both frameworks ask one host at once, and decide as with weights of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from kit.endpoints import command, fetch
from kit.hosts import Recorded, recorded
from ray import cloudpickle, tune

from lcsearch.forecast.contract import Forecaster, Forecasts, Query
from lcsearch.host.hosted import Hosted
from lcsearch.host.in_process import Pretrained
from lcsearch.host.registry import resolve_forecasters
from lcsearch.schedulers.ray_tune import CurveScheduler
from lcsearch.session import Session
from lcsearch.stopping.decision import Decision
from lcsearch.stopping.gates import Event
from lcsearch.stopping.policy import Policy
from lcsearch.stopping.verdict import Verdict
from lcsearch.study import Snapshot

STEPS, WORKERS, TRIALS = 20, 8, 64
TESTS = Path(__file__).parents[1]

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # type: ignore[no-untyped-call]

WORKER = """
import sys
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from kit.hosts import Recorded
from lcsearch.host.registry import resolve_forecasters
from lcsearch.schedulers.optuna import CurvePruner

folder, url, steps, trials, seed = Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:])
(hosted,) = resolve_forecasters(None, url)
hosted.deadline = 120.0  # eight processes begin at once on a small machine
pruner = CurvePruner(max_steps=steps, look_growth=1, forecasters=Recorded(hosted, folder))
storage = JournalStorage(JournalFileBackend(str(folder / "journal")))
sampler = optuna.samplers.RandomSampler(seed=seed)
study = optuna.create_study(storage=storage, study_name="shared", sampler=sampler, pruner=pruner, load_if_exists=True)

def objective(trial):
    limit = trial.suggest_float("limit", 0.1, 1)
    for step in range(1, steps + 1):
        trial.report(limit + 0.8**step, step)
        if trial.should_prune():
            raise optuna.TrialPruned
    return limit + 0.8**steps

optuna.logging.set_verbosity(optuna.logging.ERROR)
study.optimize(objective, callbacks=[optuna.study.MaxTrialsCallback(trials, states=None)])
assert "torch" not in sys.modules, "the host did not answer"
"""


@pytest.fixture
def one_cpu(ray_settings: dict[str, str]) -> Iterator[None]:
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()


def train(config: dict[str, Any]) -> None:
    for step in range(1, STEPS + 1):
        tune.report({"epoch": step, "loss": config["limit"] + 0.8**step})


class Says:
    """A forecaster that has one answer."""

    name = version = "network"

    def __init__(self, answer: Forecasts) -> None:
        self._answer = answer

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        return self._answer


def decided(forecaster: Forecaster, snapshot: Snapshot, queries: Sequence[Query]) -> Decision:
    """What comes of the look that asked."""
    trial = queries[0].trial
    policy = Policy(n_warmup_steps=1, look_growth=1)  # looks are not spaced: this one was made
    return Session(policy, [forecaster]).check(snapshot, Event(trial, trial.curve.last_step)).decision


def test_an_optuna_study_of_eight_workers_and_a_tune_run_at_once(one_cpu: None, tmp_path: Path) -> None:
    path = os.pathsep.join([str(TESTS), *(p for p in sys.path if p)])
    with command(tmp_path / "host") as host:
        script = [sys.executable, "-c", WORKER, str(tmp_path), host.url, str(STEPS), str(TRIALS)]
        env = {**os.environ, "PYTHONPATH": path}
        workers = [subprocess.Popen([*script, str(seed)], env=env) for seed in range(WORKERS)]
        try:
            (hosted,) = resolve_forecasters(None, host.url)
            assert isinstance(hosted, Hosted)
            hosted.deadline = 120.0
            of = CurveScheduler("epoch", "loss", "min", STEPS, look_growth=1, forecasters=Recorded(hosted, tmp_path))
            tune.Tuner(
                train,
                param_space={"limit": tune.grid_search(np.random.default_rng(0).uniform(0.1, 1, 10).tolist())},
                tune_config=tune.TuneConfig(scheduler=of, reuse_actors=True, time_budget_s=600),
                run_config=tune.RunConfig(name="run", storage_path=str(tmp_path), verbose=0),
            ).fit()
            assert [worker.wait(600) for worker in workers] == [0] * WORKERS
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
        metrics = fetch(host.url, "/metrics").body.decode()
    asked, local = recorded(tmp_path), Pretrained()
    assert str(os.getpid()) in asked
    assert len(asked) > WORKERS // 2, "of the study's workers, too"
    looks = [look for looks in asked.values() for look in looks]
    assert hosted.unanswered == 0
    (answered,) = (line.split()[1] for line in metrics.splitlines() if 'replies_total{status="200"}' in line)
    assert int(answered) >= len(looks) > 50, "every answer was the host's"
    stops = 0
    for snapshot, queries, said in looks:
        mine = local.forecast(snapshot, queries)
        np.testing.assert_allclose(said.levels, mine.levels, rtol=0, atol=1e-5)
        one, other = decided(Says(said), snapshot, queries), decided(Says(mine), snapshot, queries)
        assert (one.verdict, one.reason) == (other.verdict, other.reason)
        stops += one.verdict is Verdict.STOP
    assert len(of.stopped()) >= 2
    assert stops >= len(of.stopped()) + 5
