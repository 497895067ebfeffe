"""E2's forecasters: is likelihood what they should be trained for, and what does a wrong forecast cost?

    LCSEARCH_DATA=.../data python experiments/e2_stop/forecasters.py            # half b; goes on where it was
    LCSEARCH_DATA=.../data python experiments/e2_stop/forecasters.py --tasks 3 --orders 1 --forecasters network rank-gap
    python experiments/e2_stop/forecasters.py --table

Protocol, gates and guard are `run.py`'s, setting "product"; only the forecaster differs. `network~.25` is the network
whose P(beat) is turned into 1 - P for a quarter of the trials, always the same ones (`lcsearch.replay.oracle.Flipped`);
0 is the forecaster itself. Log-loss (P clipped to [1e-4, 1 - 1e-4]) is of the same looks for all: those of a search
over the first HEARD trials of an order in which nothing is stopped, so that no forecaster chooses its questions. Looks
that a forecaster has no answer to are left out of its mean, and their share stands beside it. What E2 makes of the same
forecaster stands beside: regret when the budget is spent, winners lost, compute. Spearman's rank correlation over
forecasters is taken in each task that all of them have played, then averaged; its interval is a bootstrap over tasks.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy

import argparse
import importlib
import json
import math
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

sys.path.append(str(Path(__file__).resolve().parents[1] / "e1_forecast"))  # behind this folder, which has a run.py too

from cheap import CHEAP

from lcsearch.curves import Floats
from lcsearch.data.tables import load
from lcsearch.data.task import Task
from lcsearch.forecast.contract import Forecaster
from lcsearch.host.registry import forecaster
from lcsearch.pretrain.real_tables import half_of
from lcsearch.replay.oracle import Flipped, Oracle
from lcsearch.replay.policies import session_for
from lcsearch.replay.prefetching import PrefetchingForecaster
from lcsearch.replay.simulator import World, simulate
from lcsearch.stopping.gates import Event, target_of
from lcsearch.stopping.judge import Judgement
from lcsearch.stopping.policy import Policy
from lcsearch.study import Snapshot

e2 = importlib.import_module("run")  # the one beside this file
HERE = Path(__file__).resolve().parent
KEPT, SHOWN = HERE / "parts" / "forecasters.json", HERE / "forecasters.md"
HEARD = 24
CLIP = 1e-4
SHARES = (0.25, 0.5, 0.75, 1.0)
HONEST = ("network", "parametric", "rank-gap", *CHEAP)
FLIPPED = {inner: tuple(f"{inner}~{share:g}" for share in SHARES) for inner in ("network", "oracle")}
NAMES = (*HONEST, "oracle", *FLIPPED["oracle"], *FLIPPED["network"])
FIGURES = ("log_loss", "regret", "lost_1", "spent")
DRAWS = 2000


@cache
def made(name: str) -> Forecaster:
    """One for all tasks."""
    return CHEAP[name]() if name in CHEAP else forecaster(name)


def asked_of(name: str, task: Task, policy: Policy) -> Forecaster:
    """A forecaster by the name of its row."""
    inner, _, share = name.partition("~")
    told: Forecaster = Oracle(task) if inner == "oracle" else PrefetchingForecaster(made(inner), task, policy=policy)
    return Flipped(told, float(share), policy=policy) if share else told


class Listener:
    """A stopper that stops nothing and keeps what was forecast at each look, beside what came of it."""

    def __init__(self, name: str, task: Task, policy: Policy) -> None:
        self.policy, self.said = policy, list[tuple[float, bool]]()
        self._session = session_for(policy, [asked_of(name, task, policy)])
        self._judged = {run.uid: float(loss) for run, loss in zip(task.runs, task.judged, strict=True)}

    def check(self, snapshot: Snapshot, event: Event) -> Judgement:
        """As the session decides, at a threshold that nothing is below."""
        judgement = self._session.check(snapshot, event)
        if (look := judgement.decision.now) is not None:
            won = self._judged[event.trial.uid] < target_of(self.policy, snapshot)
            self.said.append((math.nan if look.p is None else look.p, won))
        return judgement


def heard(name: str, task: Task, policy: Policy, order: int) -> tuple[float, float, int]:
    """(log-loss, share of looks without an answer, looks) of the first HEARD trials of an order."""
    listener = Listener(name, task, e2.replace(policy, threshold=0.0))
    simulate(task, task.order(order)[:HEARD], listener, World())
    p, won = np.array(listener.said, np.float64).reshape(-1, 2).T
    known = ~np.isnan(p)
    p, won = np.clip(p[known], CLIP, 1 - CLIP), won[known]
    loss = -(won * np.log(p) + (1 - won) * np.log1p(-p))
    return float(loss.mean()) if loss.size else math.nan, 1 - loss.size / max(known.size, 1), known.size


def play(name: str, task: Task, order: int) -> dict[str, Any]:
    """One order with one forecaster."""

    def make(task: Task, policy: Policy, looks: Any) -> Any:
        return session_for(policy, [asked_of(name, task, policy)])

    setting = e2.SETTINGS["product"]
    row: dict[str, Any] = e2.play(task, setting, make, order)
    row["log_loss"], row["absent"], row["heard"] = heard(name, task, setting.policy, order)
    row["regret"] = row["trace"][-1][1]  # when the budget is spent
    return row


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Rank correlation, ties by their mean rank; NaN where one of them does not vary."""
    a, b = rankdata(x), rankdata(y)
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / math.sqrt((a @ a) * (b @ b))) if (a @ a) * (b @ b) > 0 else math.nan


def means(rows: dict[str, dict[str, list[dict[str, Any]]]], task: str, names: Sequence[str]) -> Floats:
    """(names, 4) FIGURES of a task: means over the orders that all of `names` have."""
    orders = set.intersection(*({row["order"] for row in rows[name][task]} for name in names))
    mine = [[row for row in rows[name][task] if row["order"] in orders] for name in names]
    return np.array([[np.mean([row[figure] for row in found]) for figure in FIGURES] for found in mine])


def correlations(rows: dict[str, dict[str, list[dict[str, Any]]]], names: Sequence[str]) -> list[tuple[float, ...]]:
    """(mean, low, high, tasks) of Spearman's correlation of log-loss with regret, losses and compute."""
    tasks = [task for task in rows[names[0]] if all(rows.get(name, {}).get(task) for name in names)]
    at = [means(rows, task, names) for task in tasks]
    found: list[tuple[float, ...]] = []
    for column in (1, 2, 3):
        each = np.array([spearman(one[:, 0], one[:, column]) for one in at])
        each = each[~np.isnan(each)]
        if not each.size:
            found.append((math.nan, math.nan, math.nan, 0))
            continue
        drawn = np.random.default_rng(0).integers(each.size, size=(DRAWS, each.size))
        low, high = np.quantile(each[drawn].mean(1), [0.025, 0.975])
        found.append((float(each.mean()), float(low), float(high), int(each.size)))
    return found


def table(kept: dict[str, Any], half: str) -> str:
    """Markdown: a table a source, then the correlations."""
    lines = [
        f"`LCSEARCH_DATA=.../data python experiments/e2_stop/forecasters.py`, half {half}. What the figures mean:",
        "`forecasters.py`. Tasks are the unit of every error. `~.5`: P(beat) is turned round for half of the trials.",
    ]
    ends = []
    for source, rows in kept.items():
        tasks = [task for task in rows[NAMES[0]] if all(rows.get(name, {}).get(task) for name in NAMES)]
        if not tasks:
            continue
        at = np.stack([means(rows, task, NAMES) for task in tasks])
        orders = min(len(rows[name][task]) for name in NAMES for task in tasks)
        lines += ["", f"**{source}** ({len(tasks)} tasks, {orders} orders at least)", ""]
        lines += [
            "| forecaster | log-loss of looks | absent | regret, % | best lost | compute |",
            "|---|---|---|---|---|---|",
        ]
        for i, name in enumerate(NAMES):
            gone = np.mean([row["absent"] for task in tasks for row in rows[name][task]])
            loss, end, lost, spent = at[:, i].mean(0)
            error = at[:, i, 1].std(ddof=1) / math.sqrt(len(tasks)) if len(tasks) > 1 else math.nan
            ended = f"{100 * end:.1f} +- {100 * error:.1f}"
            lines.append(f"| {name} | {loss:.3f} | {gone:.2f} | {ended} | {lost:.3f} | {spent:.3f} |")
        for what, names in (("honest", HONEST), ("honest, flipped network", (*HONEST, *FLIPPED["network"]))):
            told = [f"{m:+.2f} [{a:+.2f}, {b:+.2f}], {n}" if n else "-" for m, a, b, n in correlations(rows, names)]
            ends.append(f"| {source} | {what}, {len(names)} | " + " | ".join(told) + " |")
    lines += ["", "**Rank correlation of log-loss over forecasters** (mean [95 %], tasks where both vary)", ""]
    lines += [
        "| source | forecasters | with regret | with winners lost | with compute |",
        "|---|---|---|---|---|",
        *ends,
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Play what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("LCSEARCH_DATA"))
    parser.add_argument("--half", choices=["a", "b"], default="b")
    parser.add_argument("--tasks", type=int, help="of each source, the first so many; all by default")
    parser.add_argument("--orders", type=int, default=2)
    parser.add_argument("--forecasters", nargs="+", default=list(NAMES), choices=NAMES, metavar="NAME")
    parser.add_argument("--table", action="store_true", help="only the table of what is kept")
    args = parser.parse_args()
    kept: dict[str, Any] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    mine = kept.setdefault(args.half, {})
    for order in range(0 if args.table else args.orders):
        for source in e2.SOURCES:
            tasks = {task.name: task for task in load(Path(args.data) / source, caveats=e2.research.CAVEATS)}
            for task in [tasks[name] for name in half_of(tasks, args.half)][: args.tasks]:
                for name in args.forecasters:
                    rows = mine.setdefault(source, {}).setdefault(name, {}).setdefault(task.name, [])
                    if order not in {row["order"] for row in rows}:
                        rows.append(play(name, task, order))
                KEPT.parent.mkdir(exist_ok=True)
                new = KEPT.with_suffix(f".{os.getpid()}")
                new.write_text(json.dumps(kept, separators=(",", ":")))
                os.replace(new, KEPT)
    if not mine:
        raise SystemExit("nothing was run and nothing is stored: set LCSEARCH_DATA or --data")
    SHOWN.write_text(table(mine, args.half))
    print(SHOWN.read_text(), end="")


if __name__ == "__main__":
    main()
