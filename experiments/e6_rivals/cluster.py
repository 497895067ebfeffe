"""E6, many workers, on a Ray cluster: 64 trials of real curves in 64 processes on four nodes of this machine.

    LCSEARCH_DATA=.../data python experiments/e6_rivals/cluster.py            # goes on where it was, a task in minutes

What `run.py` plays in the simulator, in Ray Tune: the first order of a task, `CurveScheduler(rivals=1)`, the network
that ships. Every trial is a process that reports one known curve, a step at a time; none reports before all 64 are
there. Columns as there; simulated: the steps that the simulator saves of the same 64.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
os.environ |= {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "TUNE_MAX_PENDING_TRIALS_PG": "64"}

import argparse
import json
import logging
import math
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for what experiments share

import provenance
import ray
import research
from at_once import AT_ONCE, SOURCES, figures, play
from ray import cloudpickle, tune
from ray.cluster_utils import Cluster
from ray.tune.search.basic_variant import BasicVariantGenerator

from lcsearch.data.tables import Table
from lcsearch.data.task import Run, Task
from lcsearch.pretrain.real_tables import half_of
from lcsearch.replay.history import History, RunOutcome
from lcsearch.schedulers.ray_tune import CurveScheduler
from lcsearch.stopping.risk import StopRecord
from lcsearch.study import Status, Trial

HERE = Path(__file__).resolve().parent
KEPT, SHOWN = HERE / "cluster.json", HERE / "cluster.md"
NODES = 4
BUDGET_S = 3600

# Workers cannot import this script; what it defines travels whole. Ray is untyped, here and below.
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # type: ignore[no-untyped-call]


class Known(tune.Trainable):
    """One curve, a report a step; the first one only when all are there."""

    # `tune.with_parameters` gives `setup` more than Tune's own class declares
    def setup(self, config: dict[str, Any], runs: list[Any], gate: str, pause: float) -> None:  # type: ignore[override]
        self.left = next(reports for params, reports in runs if params == config)
        self.gate, self.pause, self.n, self.at = Path(gate), pause, len(runs), 0
        (self.gate / self.trial_id).touch()

    def step(self) -> dict[str, Any]:
        while not self.at and len(list(self.gate.iterdir())) < self.n:
            time.sleep(0.5)
        time.sleep(self.pause)
        step, value = self.left[self.at]
        self.at += 1
        return {"at": step, "value": value, "done": self.at == len(self.left)}

    def save_checkpoint(self, checkpoint_dir: str) -> None: ...


def trained(task: Task, pause: float) -> dict[str, Any]:
    """One run of 64 trials at once.

    Args:
        task: whose first order is begun.
        pause: seconds that a step takes at least.
    """
    rows, goal = task.order(0)[:AT_ONCE], task.goal
    mode = "min" if goal.direction == "minimize" else "max"
    of = CurveScheduler(
        "at", "value", mode, goal.horizon, judged=goal.judged, rivals=1, forecasters="network", bounds=goal.bounds
    )
    of.prepare()
    runs = [task.runs[row] for row in rows]
    known = [(dict(one.params), list(zip(one.steps, one.values, strict=True))) for one in runs]
    space = {name: tune.choice([params[name] for params, _ in known]) for name in known[0][0]}
    search = BasicVariantGenerator(points_to_evaluate=[params for params, _ in known], max_concurrent=AT_ONCE)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        gate = Path(folder) / "gate"
        gate.mkdir()
        tune.Tuner(
            tune.with_parameters(Known, runs=known, gate=str(gate), pause=pause),
            param_space=space,
            tune_config=tune.TuneConfig(scheduler=of, search_alg=search, num_samples=AT_ONCE, time_budget_s=BUDGET_S),
            run_config=tune.RunConfig(name="run", storage_path=folder, verbose=0),
        ).fit()
    seen = of.snapshot()
    ends = {named(trial.params): trial for trial in (*seen.bank, *seen.live)}
    lives = [outcome(row, task.runs[row], ends[named(task.runs[row].params)]) for row in rows]
    reasons = Counter(life.stop.reason for life in lives if life.stop is not None)
    history = History(task, tuple(lives), (), sum(life.cost for life in lives), 0.0, reasons)
    if under_way := [life.uid for life in lives if not life.status.finished]:
        raise SystemExit(f"{task.name}: expected all trials to end in {BUDGET_S} s, still live: {under_way}")
    looks, failed = of.session.tally()
    return {
        "commit": provenance.commit("experiments/e6_rivals"),
        "pause": pause,
        **figures(history),
        "looks": sum(n for _, n in looks),
        "failed": sum(n for _, n in failed),
        "seconds": time.monotonic() - start,
    }


def named(params: Mapping[str, Any]) -> str:
    """A configuration as a key."""
    return json.dumps(dict(params), sort_keys=True)


def outcome(row: int, known: Run, trial: Trial) -> RunOutcome:
    """What became of a run."""
    n, stop = trial.curve.n_reports, trial.stop_records.get("stop")
    cost, step = (float(known.clock[n - 1]), known.steps[n - 1]) if n else (0.0, -math.inf)
    made = stop.decision if isinstance(stop, StopRecord) and trial.status is Status.STOPPED else None
    return RunOutcome(known.uid, row, trial.status, n, step, cost, 0.0, None, made)


def table(kept: Mapping[str, Any]) -> str:
    """A line a run."""
    lines = ["64 trials in 64 processes of a Ray cluster: see `cluster.py`.", ""]
    lines += ["| source | task | steps saved | simulated | lost | missed | stopped | by rivals | looks | failed open |"]
    lines[-1] += " seconds |"
    lines += ["|" + "---|" * 11]
    for name, row in kept.items():
        source, task = name.split("/", 1)
        stopped = round(row["stopped"] * AT_ONCE)
        cells = [source, task, f"{row['saved']:.2f}", f"{row['simulated']['saved']:.2f}", int(row["lost"])]
        cells += [int(row["missed"]), stopped, row["by_rivals"], row["looks"], row["failed"], f"{row['seconds']:.0f}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Play what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("LCSEARCH_DATA"))
    parser.add_argument("--sources", nargs="+", choices=SOURCES, default=["lcbench", "taskset_adam8p"])
    parser.add_argument("--tasks", type=int, default=2, help="of half b, of each source")
    parser.add_argument(
        "--pause", type=float, default=0.5, help="seconds that a step takes at least, of what is missing"
    )
    args = parser.parse_args()
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": AT_ONCE // NODES, "include_dashboard": False})
    try:
        for _ in range(NODES - 1):
            made.add_node(num_cpus=AT_ONCE // NODES)
        ray.init(address=made.address, log_to_driver=False, logging_level=logging.ERROR)
        for source in args.sources:
            read = Table(args.data / source, research.CAVEATS)
            for name in half_of(read.tasks, "b")[: args.tasks]:
                task = read.task(name)
                if task is not None and f"{source}/{name}" not in kept:
                    kept[f"{source}/{name}"] = row = trained(task, args.pause)
                    row["simulated"] = play(task, 0, 1)
                    KEPT.write_text(json.dumps(kept, indent=1) + "\n")
                    print(source, name, row, flush=True)
    finally:
        ray.shutdown()
        made.shutdown()  # type: ignore[no-untyped-call]
    SHOWN.write_text(table(kept))
    print(SHOWN.read_text(), end="")


if __name__ == "__main__":
    main()
