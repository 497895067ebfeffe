"""A budget in seconds, steps that differ a hundredfold: ASHA that is told what steps cost, beside ASHA that is not.

    LCSEARCH_DATA=.../data python experiments/e3_freeze_thaw/made_clock.py --seeds 5     # goes on where it was
    python experiments/e3_freeze_thaw/made_clock.py --table                              # of what is kept
    LCSEARCH_DATA=.../data python experiments/e3_freeze_thaw/made_clock.py --proposals --half a  # prints

The tables have no clocks, so one is made: seconds of an epoch by the configuration, see `seconds_of`. Curves are the
real ones, and half b's, one worker, free checkpoints. What counts is the best COMPLETE run when the budget is over, for
that is what a study returns; each budget is a search of its own, in mean whole runs' worth of seconds.

`--proposals`: ASHA that is told, with configurations at random and chosen by the network, their gain divided by a power
of the pace that is predicted for them: 0, 1/2 (the product's) and 1; 500 configurations of each table.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for what experiments share

import numpy as np
import research
from resample import resamples

from lcsearch.allocation.named import allocator
from lcsearch.data import tables
from lcsearch.data.task import Task
from lcsearch.host.registry import resolve_forecasters
from lcsearch.pretrain.real_tables import half_of
from lcsearch.proposal import ByForecast, Proposal
from lcsearch.replay.baselines import Never
from lcsearch.replay.simulator import World, simulate
from lcsearch.study import Status

SOURCE = "lcbench"
BUDGETS = (1, 2, 5, 10)
POWERS = (0.0, 0.5, 1.0)
RUNS = 500
DRAWS = 2000
KEPT = Path(__file__).with_suffix(".json")
FAR = 0.9
"""Quantile of the runs at which regret is 1, as it is where no run is COMPLETE."""


def seconds_of(params: Mapping[str, Any], noise: float) -> float:
    """Of an epoch of 2^14 rows through a multilayer perceptron, made up: 2 ms a batch, and .2 ns a multiplication."""
    batch, layers, units = (float(params[name]) for name in ("batch_size", "num_layers", "max_units"))
    return float(2**14 * (2e-3 / batch + 2e-10 * layers * units**2) * np.exp(0.1 * noise))


def with_clock(task: Task) -> Task:
    """The task, its runs timed."""
    noise = np.random.default_rng([0, *task.name.encode()]).normal(size=len(task))
    paces = [seconds_of(run.params, float(x)) for run, x in zip(task.runs, noise, strict=True)]
    runs = (replace(run, clock=np.array(run.steps) * pace) for run, pace in zip(task.runs, paces, strict=True))
    return Task(task.name, task.goal, tuple(runs), "seconds")


@dataclass(frozen=True)
class Power(ByForecast):
    """Divides gain by another power of the pace than the root."""

    power: float = 0.5

    def choose(
        self, snapshot: Any, candidates: Any, forecasts: Any, key: Any, paces: Sequence[float] | None = None
    ) -> Proposal:
        """The root of the square of the power is the power."""
        paces = None if paces is None else [pace ** (2.0 * self.power) for pace in paces]
        return super().choose(snapshot, candidates, forecasts, key, paces)


def play(
    task: Task, seed: int, budget: float, timed: bool, runs_of: int | None = None, power: float | None = None
) -> dict[str, Any]:
    """One search: regret of the best COMPLETE run, and how many there were."""
    chosen = () if power is None else (resolve_forecasters("network"), Power(power=power))
    order = task.order(seed)[:runs_of]
    whole = float(np.mean([run.cost for run in task.runs]))
    world = World(budget=budget * whole, seed=seed, timed=timed)
    first = min(run.steps[0] for run in task.runs) / task.goal.horizon
    found = simulate(task, order, Never(), world, allocator("asha", first=first), *chosen)
    ends = [float(task.judged[life.row]) for life in found.lives if life.status is Status.COMPLETE]
    runs = task.judged[np.isfinite(task.judged)]
    best, far = float(runs.min()), float(np.quantile(runs, FAR))
    regret = float(np.clip((min(ends, default=np.inf) - best) / (far - best), 0.0, 1.0))
    key = {"task": task.name, "seed": seed, "budget": budget, "timed": timed}
    return {**key, "regret": regret, "complete": len(ends), "begun": len(found.lives)}


def interval(rows: list[dict[str, Any]]) -> tuple[float, float]:
    """95 % of the mean difference of regret, told less not told: tasks are drawn first, then their seeds."""
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        of = found.setdefault(row["task"], {})
        of[row["seed"]] = of.get(row["seed"], 0.0) + (row["regret"] if row["timed"] else -row["regret"])
    tasks = [np.array(list(of.values())) for of in found.values()]
    samples = resamples([len(one) for one in tasks], DRAWS, np.random.default_rng(0))
    means = [np.mean([tasks[i][seeds].mean() for i, seeds in some]) for some in samples]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def table(rows: list[dict[str, Any]]) -> str:
    """Means over tasks and seeds, not told -> told."""
    lines = [
        "| whole runs' worth | regret | difference | no COMPLETE run | COMPLETE | begun |",
        "|---|---|---|---|---|---|",
    ]
    for budget in sorted({row["budget"] for row in rows}):
        here = [{**row, "none": row["complete"] == 0} for row in rows if row["budget"] == budget]

        def both(name: str, digits: int, here: list[dict[str, Any]] = here) -> str:
            means = (np.mean([row[name] for row in here if row["timed"] is timed]) for timed in (False, True))
            return " -> ".join(f"{mean:.{digits}f}" for mean in means)

        low, high = interval(here)
        cells = [f"{budget:g}", both("regret", 2), f"[{low:.2f}, {high:.2f}]", both("none", 2), both("complete", 1)]
        lines.append(f"| {' | '.join([*cells, both('begun', 1)])} |")
    n_seeds = len({row["seed"] for row in rows})
    return "\n".join([*lines, f"{len({row['task'] for row in rows})} tasks, {n_seeds} seeds; not told -> told"])


def proposals(tasks: list[Task], seeds: int) -> str:
    """Mean regrets of searches with chosen configurations."""
    lines = ["| whole runs' worth | searches | random | " + " | ".join(f"power {p:g}" for p in POWERS) + " |"]
    lines.append("|---|---|---|" + "---|" * len(POWERS))
    for budget in BUDGETS[1:]:
        ways = (None, *POWERS)
        found = [
            [play(task, seed, budget, True, RUNS, power)["regret"] for power in ways]
            for task in tasks
            for seed in range(seeds)
        ]
        cells = [f"{budget:g}", str(len(found)), *(f"{mean:.3f}" for mean in np.mean(found, 0))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("LCSEARCH_DATA"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--proposals", action="store_true")
    parser.add_argument("--half", choices=("a", "b"), default="b", help="with --proposals")
    args = parser.parse_args()
    rows = json.loads(KEPT.read_text()) if KEPT.exists() else []
    if not args.table:
        if args.data is None:
            raise SystemExit("expected the data's folder, got none. Set LCSEARCH_DATA or --data.")
        source = tables.Table(Path(args.data) / SOURCE, research.CAVEATS)
        names = half_of(source.tasks, args.half if args.proposals else "b")
        tasks = [with_clock(task) for name in names if (task := source.task(name)) is not None]
        if args.proposals:
            print(proposals(tasks, args.seeds))
            return
        for seed in range(args.seeds):
            if any(row["seed"] == seed for row in rows):
                continue
            rows += [play(t, seed, b, timed) for t in tasks for b in BUDGETS for timed in (False, True)]
            KEPT.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
    print(table(rows))


if __name__ == "__main__":
    main()
