"""E2 on made studies whose curves report the best value so far: plateaus and jumps, as evolutionary searches log them.

    python experiments/e2_stop/records.py             # no data needed; prints the table and writes records.md

`synthetic_task("records")` at 10, 30 and 100 reports, minimized and maximized, 60 trials one after another behind the
product's gates (`run.py`'s setting "product"), every rule as in `run.py`. Wrong: a stopped trial would have beaten the
incumbent it was stopped against. Expected: the mean P(beat) that the forecasts gave the stopped ones; what is wrong
more often is too sure of plateaus. Lost: searches without the best of the 60.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy

import argparse
import importlib
import math
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for what experiments share

import numpy as np

from lcsearch.data.synthetic import synthetic_task
from lcsearch.replay.simulator import World, simulate

e2 = importlib.import_module("run")  # the one beside this file; another experiment has a run.py too
HERE = Path(__file__).resolve().parent
LENGTHS = (10, 30, 100)
RULES = ("median+guard", "parametric+guard", "network+guard")


def play(rule: str, length: int, seeds: int) -> dict[str, Any]:
    """All searches of one rule at one length, both directions."""
    setting, rows = e2.SETTINGS["product"], []
    for seed in range(seeds):
        for direction in ("minimize", "maximize"):
            task = synthetic_task("records", e2.TRIALS, seed, n_steps=length, direction=direction)
            looks = setting.looks(task)
            history = simulate(task, task.order(0), e2.POLICIES[rule](task, setting.policy, looks), World(looks=looks))
            looked = [life.stop.now for life in history.stopped if life.stop is not None]
            given = [look.p for look in looked if look is not None and look.p is not None]
            rows.append(
                (
                    history.spent / history.full_cost,
                    len(history.stopped),
                    len(history.wrong()),
                    sum(given) if len(given) == len(history.stopped) else math.nan,
                    len(history.lost(1)),
                )
            )
    spent, stops, wrong, expected, lost = np.array(rows, np.float64).T
    n = float(stops.sum())
    return {
        "spent": float(spent.mean()),
        "stops": int(n),
        "wrong": float(wrong.sum() / n) if n else math.nan,
        "upper": e2.upper(float(wrong.sum()), n) if n else math.nan,
        "expected": float(expected.sum() / n) if n else math.nan,
        "lost": f"{int(lost.sum())} of {len(rows)}",
    }


def table(rows: dict[tuple[str, int], dict[str, Any]], seeds: int) -> str:
    """Markdown."""
    rules = " ".join(dict.fromkeys(rule for rule, _ in rows))
    lines = [
        f"`python experiments/e2_stop/records.py --seeds {seeds} --rules {rules}`; in brackets the 95 % bound.",
        "",
        "| rule | reports | spent | stops | wrong | expected | best lost |",
        "|---|---|---|---|---|---|---|",
    ]
    for (rule, length), x in rows.items():
        expected = "-" if math.isnan(x["expected"]) else f"{x['expected']:.3f}"
        wrong = "-" if math.isnan(x["wrong"]) else f"{x['wrong']:.3f} ({x['upper']:.3f})"
        lines.append(f"| {rule} | {length} | {x['spent']:.2f} | {x['stops']} | {wrong} | {expected} | {x['lost']} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Play and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rules", nargs="+", default=list(RULES), choices=list(e2.POLICIES), metavar="RULE")
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()
    rows = {}
    for rule in args.rules:
        for length in LENGTHS:
            rows[rule, length] = play(rule, length, args.seeds)
            print(rule, length, rows[rule, length], flush=True)
    (args.out / "records.md").write_text(table(rows, args.seeds))
    print(table(rows, args.seeds))


if __name__ == "__main__":
    main()
