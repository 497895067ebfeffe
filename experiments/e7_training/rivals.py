"""One search by a rival, in the folder that run.py made: python rivals.py FOLDER WAY STEPS

`tpe-hyperband` and `random` are Optuna's `study.optimize`, `asha-optuna` is Ray Tune's ASHAScheduler with
OptunaSearch, one trial at a time; rungs at 1, 3, 9, 27 epochs. A search is over when STEPS epochs are trained, in the
middle of a trial if need be.
"""

from __future__ import annotations

import importlib
import json
import logging
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from lcsearch.sweep import Context
from lcsearch.sweep.objective.context import Reporter
from lcsearch.sweep.spec.load import load
from lcsearch.sweep.spec.model import SweepFile
from lcsearch.sweep.spec.space import planned_schedule, suggest


def objective(folder: Path) -> Callable[[Context], None]:
    """`train` of the logged.py in the folder, whose neighbours it imports."""
    sys.path.insert(0, str(folder))
    train: Callable[[Context], None] = importlib.import_module("logged").train
    return train


def context(file: SweepFile, folder: Path, reporter: Reporter, params: dict[str, Any], number: int) -> Context:
    """What `lcsearch run` would hand to the objective, for another who decides."""
    place = folder / "checkpoints" / str(number)
    place.mkdir(parents=True, exist_ok=True)
    schedule = planned_schedule(file, params)
    return Context(
        reporter, params=params, number=number, goal=file.target, seed=0, checkpoint_dir=place, schedule=schedule
    )


class Over(Exception):
    """The last epoch is trained."""


class Reports:
    """An Optuna trial that reports until `left` is used up."""

    def __init__(self, trial: optuna.Trial, left: list[int]) -> None:
        self._trial, self._left = trial, left

    def report(self, value: float, step: int) -> None:
        self._trial.report(value, step)
        self._left[0] -= 1

    def should_prune(self) -> bool:
        if self._left[0] <= 0:
            raise Over
        return self._trial.should_prune()


def by_optuna(folder: Path, way: str, steps: int) -> None:
    """Optuna's TPE with Hyperband, or random search that stops nothing."""
    file, seed = load(folder / "sweep.yaml").file, json.loads((folder / "settings.json").read_text())["seed"]
    train, left = objective(folder), [steps]
    if way == "random":
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed), pruner=optuna.pruners.NopPruner())
    else:
        hyperband = optuna.pruners.HyperbandPruner(1, file.max_steps, 3)
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed), pruner=hyperband)

    def one(trial: optuna.Trial) -> float:
        ctx = context(file, folder, Reports(trial, left), suggest(trial, file.space), trial.number)
        try:
            train(ctx)
        except Over:
            study.stop()
            raise optuna.TrialPruned from None
        except Exception:
            if ctx.ended is None:
                raise
            raise optuna.TrialPruned from None
        if left[0] <= 0:
            study.stop()
        best = ctx.judged()
        return math.inf if best is None else best

    study.optimize(one)


class RayReports:
    """Hands reports to Ray, which stops the trial in its own way."""

    def __init__(self, metric: str) -> None:
        self._metric = metric

    def report(self, value: float, step: int) -> None:
        from ray import tune

        tune.report({self._metric: value, "epoch": step})

    def should_prune(self) -> bool:
        return False


@dataclass(frozen=True)
class Suggest:
    """Makes the file's suggestions in Ray's searcher, and returns its constants; Ray pickles it."""

    file: SweepFile

    def __call__(self, trial: optuna.Trial) -> dict[str, Any]:
        params = suggest(trial, self.file.space)
        return {name: value for name, value in params.items() if name not in trial.params}


def by_ray(folder: Path, steps: int) -> None:
    """Ray's ASHA with its searcher around Optuna's TPE."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_AIR_NEW_OUTPUT": "0"}
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch
    from ray.tune.stopper import Stopper

    file, seed = load(folder / "sweep.yaml").file, json.loads((folder / "settings.json").read_text())["seed"]

    class Enough(Stopper):
        """So many results of all trials."""

        def __init__(self) -> None:
            self.left = steps

        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            self.left -= 1
            return self.left <= 0

        def stop_all(self) -> bool:
            return self.left <= 0

    def trainable(config: dict[str, Any]) -> None:
        import torch

        torch.set_num_threads(1)
        number = int(tune.get_context().get_trial_id(), 16)
        objective(folder)(context(file, folder, RayReports(file.metric), config, number))

    ray.init(
        address="local",
        num_cpus=1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}},
    )
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    metric, mode = file.metric, file.goal[:3]
    tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            num_samples=steps,
            max_concurrent_trials=1,
            reuse_actors=True,  # a process for each trial would import torch a hundred times
            search_alg=OptunaSearch(Suggest(file), metric=metric, mode=mode, seed=seed),
            scheduler=ASHAScheduler("epoch", metric, mode, max_t=file.max_steps, grace_period=1, reduction_factor=3),
        ),
        run_config=tune.RunConfig(name="tune", storage_path=str(folder / "ray"), stop=Enough(), verbose=0),
    ).fit()
    ray.shutdown()


def main() -> None:
    """As the module says."""
    folder, way, steps = Path(sys.argv[1]).resolve(), sys.argv[2], int(sys.argv[3])
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    import torch

    torch.set_num_threads(1)  # as lcsearch's workers have
    if way == "asha-optuna":
        by_ray(folder, steps)
    else:
        by_optuna(folder, way, steps)


if __name__ == "__main__":
    main()
