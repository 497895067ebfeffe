"""P(beat the best of ten) on real curves: the table of field/forecast.md, for the forecasters at hand.

    LCSEARCH_DATA=.../data python experiments/e1_forecast/table.py [--curves 300] [--forecasters parametric rank-gap]

Protocol: finite curves of each task, incumbent = best judged value of ten others, cut-offs at 10, 20 and 40 % of the
run, P clipped to [1e-4, 1 - 1e-4], ECE over ten equal-width bins. What matters is the observed beat rate among P < .05.
Sources that are not there are skipped with a line that says so.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lcsearch.curves import Curve, Floats
from lcsearch.forecast.contract import Forecaster, Kind, Query
from lcsearch.goal import Goal
from lcsearch.host.registry import NAMES, forecaster
from lcsearch.study import Bank, Snapshot, Status, Trial

#: Source -> columns of its curves that were reported during training (both keep one value from before it).
SOURCES = {"lcbench": slice(1, 51), "taskset_adam8p": slice(1, 51)}
CUTS = (0.1, 0.2, 0.4)
GROUP = 15  # curves that share their ten others, and one batch


def tasks(folder: Path, columns: slice) -> Iterator[tuple[Floats, Floats]]:
    """(steps (S,), finite curves (R, S)) of each task."""
    meta = json.loads((folder / "meta.json").read_text())
    with np.load(folder / "curves.npz") as arrays:
        values = np.asarray(arrays[f"Y__{meta['primary']}"], np.float64)[:, columns]
        steps = np.asarray(arrays["step"], np.float64)[columns]
    with gzip.open(folder / "runs.csv.gz", "rt") as file:
        task = np.array([row["task"] for row in csv.DictReader(file)])
    for name in dict.fromkeys(task.tolist()):
        mine = values[task == name]
        yield steps, mine[np.isfinite(mine).all(1)]


def ask_task(method: Forecaster, kind: Kind, steps: Floats, curves: Floats, rng: np.random.Generator) -> list[Floats]:
    """For each cut: rows (p, beaten) of every curve; p is NaN where the forecaster said nothing."""
    end = float(steps[-1])
    goal = Goal("loss", "minimize", end, "final" if kind == "value" else "best")
    judged = curves[:, -1] if kind == "value" else curves.min(1)
    found: list[list[Floats]] = [[] for _ in CUTS]
    for group in np.array_split(rng.permutation(len(curves)), max(1, len(curves) // GROUP)):
        others = rng.choice(np.setdiff1d(np.arange(len(curves)), group), 10, replace=False)
        done = [Trial(f"done-{i}", Curve.of(steps, curves[i]), status=Status.COMPLETE) for i in others]
        snapshot = Snapshot("e1", goal, Bank(goal).extend(done))
        target = judged[others].min()
        for at, cut in enumerate(CUTS):
            n = round(cut * steps.size)
            queries = [Query(Trial(f"live-{i}", Curve.of(steps[:n], curves[i, :n])), kind, end) for i in group]
            p = method.forecast(snapshot, queries).p_beat(target)
            found[at].append(np.stack([p, judged[group] < target], 1))
    return [np.concatenate(rows) for rows in found]


def summary(rows: Floats) -> str:
    """Log-loss, ECE, AUC, and the beat rate among P < .05."""
    known = np.isfinite(rows[:, 0])
    p, won = np.clip(rows[known, 0], 1e-4, 1 - 1e-4), rows[known, 1]
    loss = -np.mean(won * np.log(p) + (1 - won) * np.log(1 - p))
    which = np.minimum((p * 10).astype(int), 9)
    gaps = [abs((won - p)[which == b].sum()) for b in range(10)]
    ordered = np.sort(p[won == 0])
    wins = p[won == 1]
    below = 0.5 * (np.searchsorted(ordered, wins) + np.searchsorted(ordered, wins, side="right"))
    auc = below.mean() / max(ordered.size, 1) if wins.size else np.nan
    low = p < 0.05
    rate = won[low].mean() if low.any() else np.nan
    return (
        f"{loss:.3f}/{sum(gaps) / p.size:.3f}/{auc:.3f}  beat {rate:.4f} of {low.sum()} ({low.mean():.2f})"
        f"  absent {1 - known.mean():.3f}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("LCSEARCH_DATA"))
    parser.add_argument("--curves", type=int, default=300, help="curves a task")
    parser.add_argument("--forecasters", nargs="+", default=list(NAMES))
    args = parser.parse_args()
    print("log-loss/ECE/AUC, observed beat rate among P < .05 with its count and share")
    for source, columns in SOURCES.items():
        if args.data is None or not (Path(args.data) / source).is_dir():
            print(f"{source}: skipped, not found (set LCSEARCH_DATA or --data)")
            continue
        for name in args.forecasters:
            kinds: tuple[Kind, ...] = ("value", "best_by")
            for kind in kinds:
                rows: list[list[Floats]] = [[] for _ in CUTS]
                for i, (steps, curves) in enumerate(tasks(Path(args.data) / source, columns)):
                    rng = np.random.default_rng([0, i])
                    picked = curves[rng.permutation(len(curves))[: args.curves]]
                    for at, found in enumerate(ask_task(forecaster(name), kind, steps, picked, rng)):
                        rows[at].append(found)
                for cut, found_at in zip(CUTS, rows, strict=True):
                    print(
                        f"{source:15s} {name:10s} {kind:7s} {cut:.0%}  {summary(np.concatenate(found_at))}", flush=True
                    )


if __name__ == "__main__":
    main()
