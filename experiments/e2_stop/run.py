"""E2: stopping rules on real curves, replayed under the same gates, with the oracle as the ceiling.

    LCSEARCH_DATA=.../data python experiments/e2_stop/run.py            # everything; goes on where it was
    LCSEARCH_DATA=.../data python experiments/e2_stop/run.py --policies median oracle --settings fine
    LCSEARCH_DATA=.../data python experiments/e2_stop/run.py --orders 4 --settings product --name field --policies ...
    python experiments/e2_stop/run.py --table                           # table and plot from what is kept
    python experiments/e2_stop/run.py --verify 40                       # replays 40 stored orders: are they equal?

Protocol: LC-PFN (Adriaensen et al. 2023), section 4.3. Trials are begun one after the other in a random order of the
task's runs, none is resumed, 20 whole runs' worth of cost may be spent; the best value judges. Speed-up is the cost at
which no stopping has the mean regret it ends with, over the cost at which the rule has it; a rule that never has it
within the budget counts with the largest speed-up it could have, and is marked <=. What was lost is counted among the
first 60 trials of every order. Every rule sees the same looks and passes the same gates ("gates": these alone, with
the stop of diverged trials). The oracle is production's rule with a perfect forecaster behind the same gates, epsilon
included: what misses by less than 1 % of the study's range it stops, and a rule that is luckier there can pass it.
ax is Ax's default rule behind these gates, ax-alone as it comes (`ax_rule.py`); one-epoch-K has none (`top_k.py`).
The strictness on short curves (threshold .01 below 8 reports) is the product's in every setting. A look's previous look
is the report before it. Half b of the tasks (every other one by name) is what the network's weights never saw: tables
and results are of that half unless --half says otherwise. Sources that are not there are skipped with a line that says
so.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: a process a core, or they slow each other down

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for what experiments share

import numpy as np
import provenance
import research
from ax_rule import AxDefault
from resample import resamples
from scipy.stats import beta
from top_k import TopK

from lcsearch.curves import Floats
from lcsearch.data.tables import load
from lcsearch.data.task import Task
from lcsearch.pretrain.real_tables import Half, half_of
from lcsearch.replay import baselines
from lcsearch.replay.history import History
from lcsearch.replay.policies import PolicySpec, Shared
from lcsearch.replay.score import geometric, regrets, speed_up, trace_of
from lcsearch.replay.simulator import World, simulate_all
from lcsearch.replay.stopper import Stopper
from lcsearch.stopping.policy import Policy
from lcsearch.study import Status

HERE = Path(__file__).resolve().parent
PARTS = HERE / "parts"
SOURCES = ("lcbench", "taskset_adam8p", "arlbench")
RUNS, TRIALS = 20, 60
DEFAULT = Policy().threshold
DRAWS = 400
ROOMS = (
    *("*.py", "study/*.py", "forecast/*.py", "forecast/network/*.py", "forecast/parametric/*.py", "stopping/*.py"),
    *("allocation/**/*.py", "data/*.py", "weights/*.py", "weights/weights.json", "host/*.py", "session/*.py"),
    *("pretrain/real_tables.py", "replay/*.py", "replay/baselines/*.py"),
)
THRESHOLDS = (0.01, 0.02, 0.1, 0.2)
ELSEWHERE = (
    "Played since, and not here: Ax's default rule, behind the product's gates and as it comes, and one epoch for all,",
    "then the best K (`field.md`, two orders; the latter two pass no gates, so they are the same in every setting);",
    "forecasts that are turned round (`forecasters.md`); the product's gates, one by one (`gates.md`); the",
    "gates that are the defaults since, two startup trials and two comparisons (`gated.md`; here five and four).",
)
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
        Setting("coarse", Policy(n_startup_trials=5, min_comparisons=4, min_observations=3), (0.1, 0.2)),
        Setting("fine", Policy(n_startup_trials=1, min_comparisons=4, min_observations=3), None),
        Setting("product", Policy(), None),
    )
}


def first_step(task: Task) -> int:
    """One report, on the task's own axis: where rungs begin."""
    return round(task.runs[0].steps[0])


Make = Callable[[Task, Policy, frozenset[float] | None], Stopper]


def guarded(policy: Policy, guard: bool) -> Policy:
    """A setting's gates, the guard of the leaders among them or not."""
    return policy if guard else replace(policy, guard=0.0, min_comparisons=0)


@dataclass(frozen=True)
class Asked:
    """Production's session with forecasters of these names; "oracle" knows every final."""

    names: tuple[str, ...]
    guard: bool
    threshold: float | None = None

    def __call__(
        self, task: Task, policy: Policy, looks: frozenset[float] | None, shared: Shared | None = None
    ) -> Stopper:
        """A fresh one; with `shared` for searches side by side."""
        policy = guarded(policy, self.guard)
        if self.threshold is not None:
            policy = replace(policy, threshold=self.threshold)
        return PolicySpec("&".join(self.names), tuple(asdict(policy).items()), self.names).make(task, shared)


def asked(*names: str, guard: bool, threshold: float | None = None) -> Make:
    """See :class:`Asked`."""
    return Asked(names, guard, threshold)


def rule(make: Callable[[Task], baselines.Rule], guard: bool = False) -> Make:
    """A rule of the field behind the setting's gates."""

    def gated(task: Task, policy: Policy, looks: frozenset[float] | None) -> Stopper:
        return baselines.Gated(make(task), guarded(policy, guard), looks)

    return gated


def patience(reports: int) -> Make:
    """No improvement for so many reports."""
    return rule(lambda task: baselines.Patience(reports))


POLICIES: dict[str, Make | TopK] = {
    "none": lambda task, policy, looks: baselines.Never(),
    **{f"patience-{p}": patience(p) for p in (0, 1, 5, 10, 20, 50)},
    "gates": rule(lambda task: baselines.Never()),
    "median": rule(lambda task: baselines.Median(n_startup_trials=0)),
    "median+guard": rule(lambda task: baselines.Median(n_startup_trials=0), guard=True),
    "sha": rule(lambda task: baselines.SuccessiveHalving(first_step(task))),
    "hyperband": rule(lambda task: baselines.Hyperband(round(task.goal.horizon), first_step(task))),
    "asha": rule(lambda task: baselines.Asha(task.goal.horizon, first_step(task))),
    "ax": rule(lambda task: AxDefault()),
    "ax-alone": lambda task, policy, looks: AxDefault(),
    **{f"one-epoch-{k}": TopK(k) for k in (3, 10, 15)},
    **{
        name + ("+guard" if guard else ""): asked(name, guard=guard)
        for name in ("rank-gap", "parametric", "network", "oracle")
        for guard in (False, True)
    },
    "parametric&rank-gap+guard": asked("parametric", "rank-gap", guard=True),
    "network&parametric+guard": asked("network", "parametric", guard=True),
}
SWEPT: dict[str, Make] = {
    f"{name}+guard@{threshold:g}": asked(name, guard=True, threshold=threshold)
    for name in ("parametric", "rank-gap", "network")
    for threshold in THRESHOLDS
}


def play(task: Task, setting: Setting, make: Make | TopK, order: int) -> dict[str, Any]:
    """One order under one rule: the trace of the budgeted search, and what was lost among the first TRIALS trials."""
    return play_all(task, [Search(setting, make, order)])[0]


class Search(NamedTuple):
    """One order under one rule."""

    setting: Setting
    make: Make | TopK
    order: int


def play_all(task: Task, searches: Sequence[Search]) -> list[dict[str, Any]]:
    """:func:`play` of each, side by side: what they wait for is forecast together, which is several times faster."""
    start, shared, n_looks = time.perf_counter(), Shared(), 0
    rows_of = [task.order(one.order) for one in searches]
    costs = [task.runs[rows[0]].cost for rows in rows_of]

    def simulated(at: Sequence[int], *, budgeted: bool) -> dict[int, History]:
        nonlocal n_looks
        worlds: dict[World, list[int]] = {}
        for i in at:
            budget = RUNS * costs[i] if budgeted else None
            worlds.setdefault(World(looks=searches[i].setting.looks(task), budget=budget), []).append(i)
        histories: dict[int, History] = {}
        for world, some in worlds.items():
            made = [(rows_of[i][: None if budgeted else TRIALS], stopper(searches[i])) for i in some]
            histories.update(zip(some, simulate_all(task, made, world), strict=True))
        n_looks += sum(sum(history.reasons.values()) for history in histories.values())
        return histories

    def stopper(one: Search) -> Stopper:
        make, policy, looks = one.make, one.setting.policy, one.setting.looks(task)
        assert not isinstance(make, TopK)
        return make(task, policy, looks, shared) if isinstance(make, Asked) else make(task, policy, looks)

    ruled = [i for i, one in enumerate(searches) if not isinstance(one.make, TopK)]
    longer = simulated(ruled, budgeted=True)
    first = {i: some for i, history in longer.items() if (some := first_of(history)) is not None}
    whole = simulated([i for i in ruled if i not in first], budgeted=False)
    first, longer = {**first, **whole}, {**longer, **whole}
    rows: list[dict[str, Any]] = []
    for i, one in enumerate(searches):
        if isinstance(one.make, TopK):
            rows.append({"order": one.order, **one.make.row(task, rows_of[i], TRIALS, RUNS)})
            continue
        rows.append(
            {
                "order": one.order,
                "trace": [(round(c, 6), round(r, 9)) for c, r in trace_of(longer[i], costs[i]) if c <= RUNS],
                "spent": first[i].spent / first[i].full_cost,
                "lost_1": len(first[i].lost(1)),
                "lost_5": len(first[i].lost(5)),
                "stops": len(first[i].stopped),
                "wrong": len(first[i].wrong()),
                "looks": looked(first[i], one.setting.looks(task)),
            }
        )
    n_looks += sum(rows[i]["looks"] for i, one in enumerate(searches) if isinstance(one.make, TopK))
    a_look = (time.perf_counter() - start) / max(n_looks, 1)  # those of longer searches took their time, too
    return [{**row, "seconds": a_look * row["looks"]} for row in rows]


def looked(history: History, looks: frozenset[float] | None) -> int:
    """Looks of a search in which every trial has ended: one at every report, but for the last of a run that no one had
    stopped.
    """
    n = 0
    for life in history.lives:
        run = history.task.runs[life.row]
        last = life.shown == len(run.steps) and run.status is not Status.STOPPED
        n += sum(looks is None or step in looks for step in run.steps[: life.shown - last])
    return n


def first_of(history: History) -> History | None:
    """What became of the first TRIALS trials of a search in sequence, which are the same however long it goes on; None
    where the budget was spent before they had ended.
    """
    lives = history.lives[:TRIALS]
    if len(lives) < min(TRIALS, len(history.task.runs)) or any(life.status is Status.RUNNING for life in lives):
        return None
    return replace(history, lives=lives, spent=sum(life.cost for life in lives))


def part_of(setting: str, policy: str, source: str) -> Path:
    """Where the searches of one rule on one source are kept."""
    return PARTS / setting / f"{policy}--{source}.json"


def code() -> str:
    """Fingerprint of the code that plays: the package's Python and this file."""
    rules = (HERE / name for name in ("ax_rule.py", "top_k.py"))
    return provenance.fingerprint(ROOMS, Path(__file__), *rules, research.FILE)


def work(
    data: Path, setting: str, policy: str, source: str, orders: int, half: Half | None = None
) -> tuple[str, float]:
    """All orders of a half's tasks (None: of all) of a source under one rule; kept orders are not run again."""
    path = part_of(setting, policy, source)
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"tasks": {}}
    gates = SETTINGS[setting]
    knobs = json.loads(
        json.dumps({"policy": asdict(gates.policy), "looks": gates.shares, "trials": TRIALS, "runs": RUNS})
    )
    if kept.get("knobs", knobs) != knobs:
        kept = {"tasks": {}}  # the protocol has changed
    kept["knobs"] = knobs
    by = code()
    orders = min(orders, SWEPT_ORDERS) if policy in SWEPT else orders
    start = time.perf_counter()
    tasks = {task.name: task for task in load(data / source, caveats=research.CAVEATS)}
    kept["of"] = sorted(tasks)  # halves are of these, whichever have been played
    for task in (tasks[name] for name in half_of(tasks, half)):
        rows = kept["tasks"].setdefault(task.name, [])
        done = {row["order"] for row in rows}
        make = {**POLICIES, **SWEPT}[policy]
        missing = [order for order in range(orders) if order not in done]
        rows += [row | {"by": by} for row in play_all(task, [Search(gates, make, order) for order in missing])]
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(f".{os.getpid()}")
        new.write_text(json.dumps(kept))
        os.replace(new, path)
    return f"{setting} {policy} {source}", time.perf_counter() - start


def verify(data: Path, n: int) -> dict[str, Any]:
    """Play stored orders again, drawn at random, by the present code, and count those that come out the same."""
    stored = []
    for path in sorted(PARTS.glob("*/*.json")):
        policy, _, source = path.stem.partition("--")
        for task, rows in json.loads(path.read_text())["tasks"].items():
            stored += [(path.parent.name, policy, source, task, row) for row in rows]
    if not stored:
        raise SystemExit("expected stored searches, got none. Run the experiment first.")
    equal, differ = 0, []
    drawn = random.Random(0).sample(stored, min(n, len(stored)))
    for setting, policy, source, name, row in drawn:
        (task,) = load(data / source, tasks=[name], caveats=research.CAVEATS)
        again = json.loads(json.dumps(play(task, SETTINGS[setting], {**POLICIES, **SWEPT}[policy], row["order"])))
        same = all(again[key] == row[key] for key in again if key != "seconds")
        equal += same
        if not same:
            differ.append(f"{setting} {policy} {name} order {row['order']}")
    found = {"commit": commit(), "code": code(), "replayed": len(drawn), "equal": equal, "differ": differ}
    (PARTS / "verified.json").write_text(json.dumps(found))
    return found


def commit() -> str:
    """HEAD, with a + where the code differs from it."""
    return provenance.commit("experiments/e2_stop/run.py", "experiments/provenance.py")


def jobs(args: argparse.Namespace, data: Path | None) -> Iterator[tuple[Path, str, str, str]]:
    """What is to be run: every rule in every setting, the thresholds in the product's own."""
    for setting in args.settings:
        for policy in args.policies or [*POLICIES, *(SWEPT if setting == "product" else ())]:
            for source in SOURCES:
                if data is None or not (data / source).is_dir():
                    print(f"{source}: skipped, not found (set LCSEARCH_DATA or --data)")
                else:
                    yield data, setting, policy, source


def grid() -> Floats:
    """Costs at which regrets are compared, in whole runs."""
    return np.arange(1, RUNS * 50 + 1) / 50


def upper(hits: float, n: float) -> float:
    """One-sided 95 % bound of a rate, Clopper and Pearson (1934)."""
    return 1.0 if hits >= n else float(beta.ppf(0.95, hits + 1, n - hits))


def figures(mine: dict[str, list[Any]], none: dict[str, list[Any]]) -> dict[str, Any]:
    """One rule on one source: orders are averaged first, tasks are the unit of every error bar.

    Speed-ups have a paired bootstrap interval (tasks drawn first, then orders). Orders of one task share its curves, so
    the bound of the rate of wrong stops counts them as one: the larger of a bootstrap over tasks and the exact bound.
    """
    speed, missed, last, rows, pairs = {}, [], [], [], []
    for task, orders in mine.items():
        twins = {row["order"]: row for row in none.get(task, ())}
        orders = [row for row in orders if row["order"] in twins]
        if not orders:
            continue
        a = np.array([regrets(row["trace"], grid()) for row in orders])
        b = np.array([regrets(twins[row["order"]]["trace"], grid()) for row in orders])
        pairs.append((a, b))
        speed[task], arrived = speed_up(a, b, grid())
        missed += [] if arrived else [task]
        last.append(float(a[:, -1].mean()))
        sums = [sum(row[name] for row in orders) / len(orders) for name in ("stops", "wrong")]
        means = [float(np.mean([row[name] for row in orders])) for name in ("spent", "lost_1", "lost_5")]
        rows.append([*means, *sums, sum(r["seconds"] for r in orders), sum(r["looks"] for r in orders)])
    at, rng = np.array(rows), np.random.default_rng(0)
    draws = [
        geometric([speed_up(pairs[i][0][order], pairs[i][1][order], grid())[0] for i, order in some])
        for some in resamples([len(a) for a, _ in pairs], DRAWS, rng)
    ]
    again = at[rng.integers(len(at), size=(2000, len(at)))].sum(1)
    stops, wrong = float(at[:, 3].sum()), float(at[:, 4].sum())
    spread = at.std(0, ddof=1) / math.sqrt(len(at)) if len(at) > 1 else np.full(at.shape[1], math.nan)
    bounds = (float(np.quantile(again[:, 4] / np.maximum(again[:, 3], 1), 0.95)), upper(wrong, stops))
    return {
        "tasks": len(at),
        "orders": sorted({len(a) for a, _ in pairs}),
        "speed_up": speed,
        "missed": missed,
        "speed_up_interval": [float(q) for q in np.quantile(draws, [0.025, 0.975])],
        "regret": [float(np.mean(last)), float(np.std(last, ddof=1) / math.sqrt(len(last))) if len(last) > 1 else None],
        **{name: [float(at[:, i].mean()), float(spread[i])] for i, name in enumerate(("spent", "lost_1", "lost_5"))},
        "stops_an_order": stops,
        "wrong_an_order": wrong,
        "wrong_upper": max(bounds) if stops else None,
        "ms_a_look": float(1e3 * at[:, 5].sum() / max(at[:, 6].sum(), 1)),
    }


def collect(
    half: Half | None = None,
    settings: Iterable[str] = SETTINGS,
    policies: Iterable[str] = (*POLICIES, *SWEPT),
    orders: int | None = None,
) -> dict[str, Any]:
    """What is kept of a half (None: of all tasks), as the results that are committed; only the first so many orders."""
    found: dict[str, Any] = {}
    knobs, codes = {}, set()
    policies = tuple(policies)
    for name in settings:
        for source in SOURCES:
            if not (base := part_of(name, "none", source)).exists():
                continue  # nothing to compare with
            none = json.loads(base.read_text())
            knobs[name] = none["knobs"]
            among = half_of(none.get("of", none["tasks"]), half)
            for policy in policies:
                if (path := part_of(name, policy, source)).exists():
                    stored = json.loads(path.read_text())["tasks"]
                    mine = {
                        task: [row for row in stored[task] if orders is None or row["order"] < orders]
                        for task in among
                        if task in stored
                    }
                    if not mine:
                        continue
                    codes |= {row.get("by", "not noted") for rows in mine.values() for row in rows}
                    found.setdefault(name, {}).setdefault(source, {})[policy] = figures(mine, none["tasks"])
    verified = PARTS / "verified.json"
    return {
        "command": "LCSEARCH_DATA=.../data python experiments/e2_stop/run.py",
        "commit": commit(),
        "code": code(),
        "half": half or "all",
        "searches_by_code": sorted(codes),
        "verified": json.loads(verified.read_text()) if verified.exists() else None,
        "knobs": knobs,
        "results": found,
    }


def ceiling(policy: str) -> str:
    """The oracle that passes the same gates."""
    return "oracle+guard" if "+guard" in policy else "oracle"


def table(results: dict[str, Any]) -> str:
    """Markdown, one table a setting and source."""
    lines = [f"`{results['command']}` at {results['commit'][:7]}"]
    if (seen := results["verified"]) is not None:
        lines.append(f"{seen['equal']} of {seen['replayed']} stored searches, drawn at random and played again at ")
        lines[-1] += f"{seen['commit'][:7]}, came out the same."
    if "--name" not in results["command"]:
        lines += ["", *ELSEWHERE]
    for setting, sources in results["results"].items():
        for source, rows in sources.items():
            one = next(iter(rows.values()))
            orders = " to ".join(str(n) for n in sorted({one["orders"][0], one["orders"][-1]}))
            of = "" if results.get("half", "all") == "all" else f", half {results['half']}"
            lines += ["", f"**{setting}, {source}{of}** ({one['tasks']} tasks, {orders} orders)", ""]
            lines += [
                "| rule | speed-up (95 %), missed | of the oracle | regret, % | compute | lost, top 1 | of top 5 "
                "| wrong stops (95 %) |",
                "|---|---|---|---|---|---|---|---|",
            ]
            lines += [line(policy, row, rows) for policy, row in rows.items() if "@" not in policy]
    return "\n".join(lines) + "\n"


def line(policy: str, row: dict[str, Any], rows: dict[str, Any]) -> str:
    """One row of the table."""
    n_missed, oracle = len(row["missed"]), rows.get(ceiling(policy))
    low, high = row["speed_up_interval"]
    speed = (
        f"{'<= ' * bool(n_missed)}{geometric(list(row['speed_up'].values())):.2f} [{low:.2f}, {high:.2f}], {n_missed}"
    )
    whole = next(iter(rows.values()), row)
    if (row["tasks"], row["orders"]) != (whole["tasks"], whole["orders"]):
        policy += f" (so far {row['tasks']} tasks, {row['orders'][0]} orders)"
    share = "-"
    if oracle is not None and set(oracle["speed_up"]) == set(row["speed_up"]):
        share = f"{geometric([v / oracle['speed_up'][task] for task, v in row['speed_up'].items()]):.2f}"
    wrong = "-"
    if row["stops_an_order"]:
        wrong = f"{row['wrong_an_order'] / row['stops_an_order']:.4f} ({row['wrong_upper']:.4f})"
    return (
        f"| {policy} | {speed} | {share} | {100 * row['regret'][0]:.1f} +- {100 * (row['regret'][1] or 0):.1f} "
        f"| {row['spent'][0]:.2f} | {row['lost_1'][0]:.3f} +- {row['lost_1'][1]:.3f} | {row['lost_5'][0] / 5:.3f} "
        f"| {wrong} |"
    )


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
                swept |= {DEFAULT: rows[family]} if family in rows else {}
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
    parser.add_argument("--half", choices=["a", "b", "all"], default="b", help="of the tasks; b is new to the weights")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--table", action="store_true", help="only print the table and draw the plot of what is kept")
    parser.add_argument("--name", default="", help="of table and results; else table.md, results.json and the plot")
    parser.add_argument("--verify", type=int, metavar="N", help="play N stored orders again and compare")
    args = parser.parse_args()
    data = None if args.data is None else Path(args.data)
    half: Half | None = None if args.half == "all" else args.half
    failed = []
    if args.verify is not None:
        if data is None:
            raise SystemExit("expected the data's folder, got none. Set LCSEARCH_DATA or --data.")
        print(json.dumps(verify(data, args.verify), indent=1))
    elif not args.table:
        todo = list(dict.fromkeys(jobs(args, data)))
        with ProcessPoolExecutor(args.processes) as pool:
            running = {pool.submit(work, *job, args.orders, half): job[1:] for job in todo}
            for n, done in enumerate(as_completed(running), 1):
                if (error := done.exception()) is not None:
                    failed.append(f"{' '.join(running[done])}: {type(error).__name__}: {error}")
                    print(f"[{n}/{len(todo)}] {failed[-1]}", file=sys.stderr, flush=True)
                    continue
                what, took = done.result()
                print(f"[{n}/{len(todo)}] {what}: {took:.0f} s", flush=True)
    stored, shown = (HERE / name for name in (f"{args.name or 'results'}.json", f"{args.name or 'table'}.md"))
    if PARTS.is_dir():
        known = args.policies or [*POLICIES, *SWEPT]
        found = collect(half, args.settings, known, args.orders) if args.name else collect(half)
        if args.name:
            words = (f"--orders {args.orders}", "--settings", *args.settings, f"--name {args.name} --policies")
            found["command"] = " ".join((found["command"], *words, *(args.policies or ())))
        stored.write_text(json.dumps(found, indent=1) + "\n")
    if not stored.exists():
        raise SystemExit("nothing was run and nothing is stored: set LCSEARCH_DATA or --data")
    results = json.loads(stored.read_text())
    shown.write_text(table(results))
    if not args.name:
        draw(results)
    print(table(results))
    if failed:
        raise SystemExit(f"{len(failed)} failed, the first: {failed[0]}")


if __name__ == "__main__":
    main()
