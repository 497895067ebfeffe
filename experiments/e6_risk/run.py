"""E6, risk: is the winner lost as rarely as the risk says? Replayed sweeps of real curves, counted.

    LCSEARCH_DATA=.../data python experiments/e6_risk/run.py             # all; goes on where it was
    LCSEARCH_DATA=.../data python experiments/e6_risk/run.py --orders 4 --sources lcbench
    python experiments/e6_risk/run.py --table                            # table from what is kept

A sweep is the first TRIALS runs of a task in a random order, one after the other, decided by production's session with
the defaults (the network that ships) and a `risk` limit: none, .10, .05 and .02, on the same orders. Its winner is lost
when a stopped run would have beaten the incumbent that the sweep ended with, by its margin (1 % of the study's robust
range): the event that the risk is said to bound. Stated is the risk at the end of the sweep, as the summary shows it:
the sum of the P(beat) of all stops, each re-read against that incumbent, and beside it the product. A run counts whose
end is on record. Half b of the tasks is what the weights never saw. Sweeps of one task share its curves, so the upper
95 % bound is the larger of a bootstrap over tasks and Clopper and Pearson's over sweeps.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for what experiments share

import numpy as np
import provenance
import research

from lcsearch.data.tables import Table
from lcsearch.data.task import Task
from lcsearch.pretrain.real_tables import half_of
from lcsearch.replay.history import History
from lcsearch.replay.policies import PolicySpec, Shared
from lcsearch.replay.simulator import simulate_all
from lcsearch.stopping.calibration import clopper_pearson
from lcsearch.stopping.gates import target_of
from lcsearch.stopping.judge import independent_risk_now, risk_now
from lcsearch.stopping.policy import Policy
from lcsearch.stopping.risk import StopRecord
from lcsearch.study import FinishedTrials, Snapshot, Status, Trial

HERE = Path(__file__).resolve().parent
PARTS, RESULTS, TABLE = HERE / "parts", HERE / "results.json", HERE / "table.md"
SOURCES = ("lcbench", "taskset_adam8p", "deepobs_baselines", "lcdb11", "arlbench")
LIMITS = (None, 0.1, 0.05, 0.02)
TRIALS = 40
ORDERS = {"lcbench": 25, "taskset_adam8p": 60, "deepobs_baselines": 40, "lcdb11": 4, "arlbench": 16}
"""Sweeps of each task, about 1000 in all, so that no source is left with few."""
ROUNDS = 10


class Kept:
    """A stopper that keeps the records of the stops it came to: what production stores with the trials."""

    def __init__(self, spec: PolicySpec, task: Task, shared: Shared) -> None:
        self._session, self.records = spec.make(task, shared), dict[str, StopRecord]()

    def check(self, snapshot: Snapshot, event: Any) -> Any:
        """As the session decides."""
        judgement = self._session.check(snapshot, event)
        if judgement.record is not None:
            self.records[event.trial.uid] = judgement.record
        return judgement


def ended(task: Task, history: History, records: dict[str, StopRecord]) -> Snapshot:
    """The study as the sweep has left it."""
    bank = FinishedTrials(task.goal)
    for life in history.lives:
        run, stop = task.runs[life.row], records.get(life.uid)
        mark = {"stop": stop} if life.status is Status.STOPPED and stop is not None else {}
        curve = run.curve.cut(life.step) if life.status is Status.STOPPED else run.curve
        bank = bank.extend([Trial(run.uid, curve, run.params, life.status, run.schedule, stop_records=mark)])
    return Snapshot(task.name, task.goal, bank, ())


def figures(task: Task, limit: float | None, order: int, history: History, kept: Kept) -> dict[str, Any]:
    """One sweep: what it stated, and what was true."""
    policy, shown = Policy(risk=limit), ended(task, history, kept.records)
    target = target_of(policy, shown)
    stopped = [life for life in history.stopped if history.known(life)]
    judged = [float(task.judged[life.row]) for life in stopped]
    return {
        "order": order,
        "limit": limit,
        "stated": risk_now(policy, shown),
        "independent": independent_risk_now(policy, shown),
        "lost": any(loss < target for loss in judged),
        "strictly": bool(history.lost(1)),
        "stops": len(history.stopped),
        "trials": len(history.lives),
        "spent": history.spent / history.full_cost,
        "held": sum(n for reason, n in history.reasons.items() if reason.name == "RISK_LIMIT"),
    }


def play(task: Task, orders: list[int]) -> Iterator[dict[str, Any]]:
    """Some orders of a task, under every limit, side by side."""
    shared, asked, searches = Shared(), [], []
    for order in orders:
        rows = task.order(order)[:TRIALS]
        for limit in LIMITS:
            knobs = {} if limit is None else {"risk": limit}
            kept = Kept(PolicySpec("curve", tuple(knobs.items()), ("network",)), task, shared)
            asked.append((limit, order, kept))
            searches.append((rows, kept))
    for (limit, order, kept), history in zip(asked, simulate_all(task, searches), strict=True):
        yield figures(task, limit, order, history, kept)


def work(table: Table, source: str, orders: int, together: int) -> None:
    """The sweeps of one source that are missing; kept as they are made, a few of a task at a time."""
    path = PARTS / f"{source}.json"
    kept: dict[str, list[dict[str, Any]]] = json.loads(path.read_text()) if path.exists() else {}
    start = time.monotonic()
    for name in half_of(table.tasks, "b"):
        rows = kept.setdefault(name, [])
        missing = sorted(set(range(orders)) - {row["order"] for row in rows})
        task = table.task(name) if missing else None
        if task is None or int(task.complete.sum()) <= Policy().n_startup_trials:
            continue
        for first in range(0, len(missing), together):
            rows += play(task, missing[first : first + together])
            path.parent.mkdir(exist_ok=True)
            new = path.with_suffix(".new")
            new.write_text(json.dumps(kept))
            os.replace(new, path)
        print(f"{source} {name}: {len(rows) // len(LIMITS)} sweeps, {time.monotonic() - start:.0f} s", flush=True)


def bound(tasks: list[list[bool]]) -> tuple[float, float, int]:
    """(rate, one-sided upper 95 % bound, sweeps) of an event over the sweeps of each task."""
    hits, n = sum(map(sum, tasks)), sum(map(len, tasks))
    exact = clopper_pearson(hits, n, 0.9)[1]
    rng, at = np.random.default_rng(0), np.array([[sum(one), len(one)] for one in tasks], float)
    drawn = at[rng.integers(len(at), size=(4000, len(at)))].sum(1)
    return hits / n, max(exact, float(np.quantile(drawn[:, 0] / drawn[:, 1], 0.95))), n


def collect() -> dict[str, Any]:
    """Of all that is kept, by source and pooled, and by limit."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for path in sorted(PARTS.glob("*.json")):
        found[path.stem] = {name: rows for name, rows in json.loads(path.read_text()).items() if rows}
    found["all"] = {f"{source} {name}": rows for source, tasks in found.items() for name, rows in tasks.items()}
    out: dict[str, Any] = {"commit": provenance.commit("experiments/e6_risk/run.py")}
    for source, tasks in found.items():
        for limit in LIMITS:
            mine = [[row for row in rows if row["limit"] == limit] for rows in tasks.values()]
            mine = [rows for rows in mine if rows]
            if not mine:
                continue
            flat = [row for rows in mine for row in rows]
            lost = bound([[row["lost"] for row in rows] for rows in mine])
            strictly = bound([[row["strictly"] for row in rows] for rows in mine])
            means = {name: float(np.mean([row[name] for row in flat])) for name in ("stated", "independent", "spent")}
            shares = [row["stops"] / row["trials"] for row in flat]
            out.setdefault(source, {})["none" if limit is None else f"{limit:g}"] = {
                "tasks": len(mine), "sweeps": lost[2], "lost": lost[:2], "strictly": strictly[:2], **means,
                "most_stated": max(row["stated"] for row in flat), "stopped": float(np.mean(shares)),
            }  # fmt: skip
    return out


def table(results: dict[str, Any]) -> str:
    """One line for each source and limit."""
    lines = [
        "Was the winner lost as rarely as the risk says? See `run.py`. Lost: a stopped run would have beaten the",
        "sweep's incumbent by the margin; in brackets the upper 95 % bound. Strictly: the very best run of those begun",
        "was stopped, by whatever margin. Stated: mean of the bound (sum), and of the product, at the sweeps' ends.",
        "",
        "| source | tasks, sweeps | limit | lost | stated: sum | product | strictly | stopped | lost / that | steps |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for source, limits in results.items():
        if source == "commit":
            continue
        for limit, row in limits.items():
            share = row["lost"][0] / row["stopped"] if row["stopped"] else 0.0
            lines.append(
                f"| {source} | {row['tasks']}, {row['sweeps']} | {limit} | {row['lost'][0]:.3f} ({row['lost'][1]:.3f}) "
                f"| {row['stated']:.3f} | {row['independent']:.3f} | {row['strictly'][0]:.3f} "
                f"({row['strictly'][1]:.3f}) | {row['stopped']:.2f} | {share:.3f} | {row['spent']:.2f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Play what is missing, then write results and table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("LCSEARCH_DATA"))
    parser.add_argument("--sources", nargs="+", choices=SOURCES, default=list(SOURCES))
    parser.add_argument("--orders", type=int, help="of each task; as many as ORDERS says unless given")
    parser.add_argument("--together", type=int, default=2, help="orders that are played side by side")
    parser.add_argument("--table", action="store_true", help="only the table of what is kept")
    args = parser.parse_args()
    tables: dict[str, Table] = {}
    for source in () if args.table else args.sources:
        if args.data is None or not (args.data / source).is_dir():
            print(f"{source}: skipped, not found (set LCSEARCH_DATA or --data)")
        else:
            tables[source] = Table(args.data / source, research.CAVEATS)
    for part in range(1, ROUNDS + 1):  # so that what is kept is of all sources, whenever it is broken off
        for source, read in tables.items():
            work(read, source, math.ceil((args.orders or ORDERS[source]) * part / ROUNDS), args.together)
    if PARTS.is_dir():
        RESULTS.write_text(json.dumps(collect(), indent=1) + "\n")
    TABLE.write_text(table(json.loads(RESULTS.read_text())))
    print(TABLE.read_text(), end="")


if __name__ == "__main__":
    main()
