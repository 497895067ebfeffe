"""E2: stopping rules on real curves, replayed under the same gates, with the oracle as the ceiling.

    LCSEARCH_DATA=.../data python experiments/e2_stop/run.py            # everything; goes on where it was
    LCSEARCH_DATA=.../data python experiments/e2_stop/run.py --policies median oracle --settings fine
    python experiments/e2_stop/run.py --table                           # table and plots from the stored results

Protocol: LC-PFN (Adriaensen et al. 2023), section 4.3. Trials are begun one after the other in a random order of the
task's runs, none is resumed, 20 whole runs' worth of cost may be spent; the best value judges. Speed-up is the cost at
which no stopping has the mean regret it ends with, over the cost at which the rule has it. What was lost is counted
among the first 60 trials of every order. Every rule sees the same looks and passes the same gates. Sources that are
not there are skipped with a line that says so.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lcsearch.curves import Floats
from lcsearch.engine.policy import Policy
from lcsearch.forecast.contract import Forecaster
from lcsearch.forecast.registry import forecasters
from lcsearch.replay import baselines
from lcsearch.replay.ahead import Ahead
from lcsearch.replay.oracle import Oracle
from lcsearch.replay.policies import session_for
from lcsearch.replay.score import geometric, regrets, speed_up, trace_of
from lcsearch.replay.simulator import World, simulate
from lcsearch.replay.stopper import Stopper
from lcsearch.replay.tables import load
from lcsearch.replay.task import Task

HERE = Path(__file__).resolve().parent
PARTS, RESULTS = HERE / "parts", HERE / "results.json"
SOURCES = ("lcbench", "taskset_adam8p")
RUNS, TRIALS = 20, 60
DEFAULT = Policy().threshold
THRESHOLDS = (0.01, 0.02, 0.1, 0.2)
SWEPT_ORDERS = 4


@dataclass(frozen=True)
class Setting:
    """The gates every rule passes, and where it looks."""

    name: str
    policy: Policy
    shares: tuple[float, ...] | None
    """Looks at these shares of a run, rounded up; None: at every report."""

    def looks(self, task: Task) -> frozenset[float] | None:
        """Steps of the looks."""
        if self.shares is None:
            return None
        steps = task.runs[0].steps
        return frozenset(steps[math.ceil(share * len(steps)) - 1] for share in self.shares)


SETTINGS = {
    setting.name: setting
    for setting in (
        Setting("coarse", Policy(n_startup_trials=5, min_observations=3), (0.1, 0.2)),
        Setting("fine", Policy(n_startup_trials=1, min_observations=3), None),
        Setting("product", Policy(), None),
    )
}


def first_step(task: Task) -> int:
    """One report, on the task's own axis: where rungs begin."""
    return round(task.runs[0].steps[0])


Make = Callable[[Task, Policy, frozenset[float] | None], Stopper]


def asked(*names: str, guard: bool, threshold: float | None = None) -> Make:
    """Production's session with forecasters of these names; "oracle" knows every final."""

    def make(task: Task, policy: Policy, looks: frozenset[float] | None) -> Stopper:
        heard: list[Forecaster] = [
            Oracle(task) if name == "oracle" else Ahead(forecasters(name)[0], task) for name in names
        ]
        if not guard:
            policy = replace(policy, guard=0.0, min_comparisons=0)
        if threshold is not None:
            policy = replace(policy, threshold=threshold)
        return session_for(policy, heard)

    return make


def rule(make: Callable[[Task], baselines.Rule], guard: bool = False) -> Make:
    """A rule of the field behind the setting's gates."""

    def gated(task: Task, policy: Policy, looks: frozenset[float] | None) -> Stopper:
        if not guard:
            policy = replace(policy, guard=0.0, min_comparisons=0)
        return baselines.Gated(make(task), policy, looks)

    return gated


POLICIES: dict[str, Make] = {
    "none": lambda task, policy, looks: baselines.Never(),
    **{f"patience-{p}": rule(lambda task, p=p: baselines.Patience(p)) for p in (0, 1, 5, 10, 20, 50)},  # type: ignore[misc]
    "median": rule(lambda task: baselines.Median(n_startup_trials=0)),
    "median+guard": rule(lambda task: baselines.Median(n_startup_trials=0), guard=True),
    "sha": rule(lambda task: baselines.SuccessiveHalving(first_step(task))),
    "hyperband": rule(lambda task: baselines.Hyperband(round(task.goal.horizon), first_step(task))),
    "asha": rule(lambda task: baselines.Asha(task.goal.horizon, first_step(task))),
    **{
        name + ("+guard" if guard else ""): asked(name, guard=guard)
        for name in ("rank-gap", "parametric", "oracle")
        for guard in (False, True)
    },
    "parametric&rank-gap+guard": asked("parametric", "rank-gap", guard=True),
}
SWEPT: dict[str, Make] = {
    f"{name}+guard@{threshold:g}": asked(name, guard=True, threshold=threshold)
    for name in ("parametric", "rank-gap")
    for threshold in THRESHOLDS
}


def play(task: Task, setting: Setting, make: Make, order: int) -> dict[str, Any]:
    """One order under one rule: the trace of the budgeted search, and what was lost among the first TRIALS trials."""
    rows = task.order(order)
    cost = task.runs[rows[0]].cost
    looks = setting.looks(task)
    start = time.perf_counter()
    history = simulate(task, rows[:TRIALS], make(task, setting.policy, looks), World(looks=looks))
    seconds = time.perf_counter() - start
    # A search in sequence begins the same however long it goes on, so one that reached the budget needs no second run.
    longer = history
    if history.spent < RUNS * cost and len(rows) > TRIALS:
        longer = simulate(task, rows, make(task, setting.policy, looks), World(looks=looks, budget=RUNS * cost))
    return {
        "order": order,
        "trace": [(round(c, 6), round(r, 9)) for c, r in trace_of(longer, cost) if c <= RUNS],
        "spent": history.spent / history.full_cost,
        "lost_1": len(history.lost(1)),
        "lost_5": len(history.lost(5)),
        "regret": trace_of(history)[-1][1],
        "stops": len(history.stopped),
        "wrong": len(history.wrong()),
        "looks": sum(history.reasons.values()),
        "seconds": seconds,
    }


def part_of(setting: str, policy: str, source: str) -> Path:
    """Where the searches of one rule on one source are kept."""
    return PARTS / setting / f"{policy}--{source}.json"


def work(data: Path, setting: str, policy: str, source: str, orders: int) -> tuple[str, float]:
    """All orders of all tasks of a source under one rule; kept orders are not run again."""
    path = part_of(setting, policy, source)
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"tasks": {}}
    knobs = {
        "policy": asdict(SETTINGS[setting].policy),
        "looks": SETTINGS[setting].shares,
        "trials": TRIALS,
        "runs": RUNS,
    }
    knobs = json.loads(json.dumps(knobs))
    if kept.get("knobs", knobs) != knobs:
        kept = {"tasks": {}}  # the protocol has changed
    kept["knobs"] = knobs
    orders = min(orders, SWEPT_ORDERS) if policy in SWEPT else orders
    start = time.perf_counter()
    for task in load(data / source):
        rows = kept["tasks"].setdefault(task.name, [])
        done = {row["order"] for row in rows}
        make = {**POLICIES, **SWEPT}[policy]
        rows += [play(task, SETTINGS[setting], make, order) for order in range(orders) if order not in done]
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        new.write_text(json.dumps(kept))
        os.replace(new, path)
    return f"{setting} {policy} {source}", time.perf_counter() - start


def jobs(args: argparse.Namespace) -> Iterator[tuple[str, str, str]]:
    """What is to be run: every rule in every setting, the thresholds in the product's own."""
    for setting in args.settings:
        for policy in args.policies or [*POLICIES, *(SWEPT if setting == "product" else ())]:
            for source in SOURCES:
                if args.data is None or not (args.data / source).is_dir():
                    print(f"{source}: skipped, not found (set LCSEARCH_DATA or --data)")
                else:
                    yield setting, policy, source


def grid() -> Floats:
    """Costs at which regrets are compared, in whole runs."""
    return np.arange(1, RUNS * 50 + 1) / 50


def figures(mine: dict[str, list[Any]], none: dict[str, list[Any]]) -> dict[str, Any]:
    """One rule on one source: orders are averaged first, tasks are the unit of every error bar."""
    speed, last, rows = {}, [], []
    for task, orders in mine.items():
        traces, drawn = [row["trace"] for row in orders], {row["order"] for row in orders}
        speed[task] = speed_up(traces, [row["trace"] for row in none[task] if row["order"] in drawn], grid())
        last.append(float(np.mean([regrets(trace, grid())[-1] for trace in traces])))
        stops, wrong = (sum(row[name] for row in orders) for name in ("stops", "wrong"))
        means = [float(np.mean([row[name] for row in orders])) for name in ("spent", "lost_1", "lost_5")]
        rows.append([*means, stops, wrong, sum(r["seconds"] for r in orders), sum(r["looks"] for r in orders)])
    at = np.array(rows)
    rng = np.random.default_rng(0)
    again = at[rng.integers(len(at), size=(2000, len(at)))].sum(1)
    n = math.sqrt(len(at))
    return {
        "tasks": len(at),
        "orders": min(map(len, mine.values())),
        "speed_up": speed,
        "regret": [float(np.mean(last)), float(np.std(last, ddof=1) / n)],
        **{
            name: [float(at[:, i].mean()), float(at[:, i].std(ddof=1) / n)]
            for i, name in enumerate(("spent", "lost_1", "lost_5"))
        },
        "stops": int(at[:, 3].sum()),
        "wrong": int(at[:, 4].sum()),
        "wrong_upper": float(np.quantile(again[:, 4] / np.maximum(again[:, 3], 1), 0.95)),
        "ms_a_look": float(1e3 * at[:, 5].sum() / max(at[:, 6].sum(), 1)),
    }


def collect(orders: int) -> dict[str, Any]:
    """Everything that is kept, as the results that are committed."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True, check=False)
    found: dict[str, Any] = {}
    knobs = {}
    for name in SETTINGS:
        for source in SOURCES:
            if not (base := part_of(name, "none", source)).exists():
                continue
            none = json.loads(base.read_text())
            knobs[name] = none["knobs"]
            for policy in (*POLICIES, *SWEPT):
                if (path := part_of(name, policy, source)).exists():
                    mine = json.loads(path.read_text())["tasks"]
                    found.setdefault(name, {}).setdefault(source, {})[policy] = figures(mine, none["tasks"])
    return {
        "command": f"python experiments/e2_stop/run.py --orders {orders}",
        "commit": commit.stdout.strip(),
        "knobs": knobs,
        "results": found,
    }


def ceiling(policy: str) -> str:
    """The oracle that passes the same gates."""
    return "oracle+guard" if "+guard" in policy else "oracle"


def share_of(mine: dict[str, Any], oracle: dict[str, Any]) -> float:
    """Geometric mean of speed-up over the oracle's, over the tasks where both arrive."""
    pairs = [(v, oracle["speed_up"][task]) for task, v in mine["speed_up"].items()]
    return geometric([a / b for a, b in pairs if a is not None and b is not None])


def table(results: dict[str, Any]) -> str:
    """Markdown, one table a setting and source."""
    lines = [f"`{results['command']}` at {results['commit'][:7]}"]
    for setting, sources in results["results"].items():
        for source, rows in sources.items():
            one = next(iter(rows.values()))
            lines += ["", f"**{setting}, {source}** ({one['tasks']} tasks, {one['orders']} orders)", ""]
            lines += [
                "| rule | speed-up (missed) | of the oracle | regret, % | compute | lost, top 1 | of top 5 "
                "| wrong stops (95 %) | ms a look |",
                "|---|---|---|---|---|---|---|---|---|",
            ]
            for policy, row in rows.items():
                if "@" in policy:
                    continue
                arrived = [v for v in row["speed_up"].values() if v is not None]
                missed = len(row["speed_up"]) - len(arrived)
                share = share_of(row, rows[ceiling(policy)]) if ceiling(policy) in rows else math.nan
                wrong = row["wrong"] / row["stops"] if row["stops"] else math.nan
                lines.append(
                    f"| {policy} | {geometric(arrived):.2f} ({missed}) | {share:.2f} | {100 * row['regret'][0]:.1f} "
                    f"+- {100 * row['regret'][1]:.1f} | {row['spent'][0]:.2f} | {row['lost_1'][0]:.3f} +- "
                    f"{row['lost_1'][1]:.3f} | {row['lost_5'][0] / 5:.3f} | {wrong:.4f} ({row['wrong_upper']:.4f}) "
                    f"| {row['ms_a_look']:.2f} |"
                )
    return "\n".join(lines) + "\n"


def draw(results: dict[str, Any]) -> None:
    """The headline: compute saved against winners lost, thresholds swept, every rule a point."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    sources = results["results"].get("product", {})
    figure, axes = plt.subplots(2, max(len(sources), 1), figsize=(11, 9), squeeze=False, layout="constrained")
    for column, (source, rows) in enumerate(sources.items()):
        for line, (name, top) in enumerate((("lost_1", 1), ("lost_5", 5))):
            ax = axes[line][column]
            for policy, row in rows.items():
                if "@" not in policy:
                    oracle = policy.startswith("oracle")
                    where = 100 * row[name][0] / top, 100 * (1 - row["spent"][0])
                    ax.plot(*where, "*" if oracle else "o", color="black" if oracle else "0.6", ms=9 if oracle else 5)
                    ax.annotate(policy, where, xytext=(4, 2), textcoords="offset points", fontsize=7)
            for family in dict.fromkeys(policy.partition("@")[0] for policy in rows if "@" in policy):
                swept = {float(p.partition("@")[2]): row for p, row in rows.items() if p.startswith(f"{family}@")}
                swept[DEFAULT] = rows[family]
                line_of = [swept[threshold] for threshold in sorted(swept)]
                x, y = ([100 * r[name][0] / top for r in line_of], [100 * (1 - r["spent"][0]) for r in line_of])
                ax.plot(x, y, "-o", ms=3, label=f"{family}, threshold {min(swept):g} to {max(swept):g}")
            ax.set(xlabel=f"of the top {top} stopped, %", ylabel="compute saved, %", title=f"{source}, top {top}")
            if ax.get_legend_handles_labels()[0]:
                ax.legend(fontsize=7, loc="lower right")
    figure.savefig(HERE / "headline.png", dpi=110)
    plt.close(figure)


def main() -> None:
    """Run what is not there yet, then print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("LCSEARCH_DATA"))
    parser.add_argument("--orders", type=int, default=10)
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--policies", nargs="+", choices=[*POLICIES, *SWEPT], metavar="RULE")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--table", action="store_true", help="only print the stored table and draw the plots")
    args = parser.parse_args()
    if not args.table:
        todo = list(dict.fromkeys(jobs(args)))
        with ProcessPoolExecutor(args.processes) as pool:
            running = [pool.submit(work, args.data, *job, args.orders) for job in todo]
            for n, done in enumerate(as_completed(running), 1):
                what, took = done.result()
                print(f"[{n}/{len(todo)}] {what}: {took:.0f} s", flush=True)
        if todo:
            RESULTS.write_text(json.dumps(collect(args.orders), indent=1) + "\n")
    results = json.loads(RESULTS.read_text())
    (HERE / "table.md").write_text(table(results))
    draw(results)
    print(table(results))


if __name__ == "__main__":
    main()
