"""E2's knobs: threshold, guard, strictness on short curves and epsilon, on tasks that the weights never saw.

    LCSEARCH_DATA=.../data python experiments/e2_stop/knobs.py --weights synthetic=PATH            # chosen here: half a
    LCSEARCH_DATA=.../data python experiments/e2_stop/knobs.py --weights synthetic=PATH shipped --half b --knobs ""

Half a trained the weights that ship, so knobs are chosen with those that saw no real curve (`cpu_synthetic_on.yaml`),
and scored on half b (`run.py`). Protocol and gates are `run.py`'s, setting "product"; every line changes what it names
and nothing else. Searches that are kept in parts/ are not played again.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: a process a core, or they slow each other down

import argparse
import importlib
import json
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from lcsearch.data.tables import Table, load
from lcsearch.pretrain.real_tables import Half, half_of

e2 = importlib.import_module("run")  # the one beside this file; another experiment has a run.py too
HERE = Path(__file__).resolve().parent
KEPT, SHOWN = HERE / "parts" / "knobs.json", HERE / "knobs.md"
KNOBS = ("", "threshold=0.02", "threshold=0.1", "guard=0.05", "few_factor=1.0", "epsilon=0.005", "epsilon=0.02")
FIELDS = ("order", "trace", "spent", "lost_1", "lost_5", "stops", "wrong", "looks", "seconds")
BESIDE = ("none", "median", "oracle+guard")


def play(data: Path, source: str, name: str, who: str, knobs: str, orders: list[int]) -> list[dict[str, Any]]:
    """Orders of one task under a rule of `run.py`, or the network with weights of a file (`network=PATH`)."""
    (task,) = load(data / source, tasks=[name], caveats=e2.research.CAVEATS)
    changed = {key: float(value) for key, _, value in (item.partition("=") for item in knobs.split(",") if item)}
    setting = e2.SETTINGS["product"]
    setting = replace(setting, policy=replace(setting.policy, **changed))
    make = e2.POLICIES[who] if who in BESIDE else e2.asked(who, guard=True)
    return [{field: row[field] for field in FIELDS} for row in (e2.play(task, setting, make, o) for o in orders)]


def table(kept: dict[str, Any]) -> str:
    """A section for each half and source."""
    lines = [
        "Knobs of the product's gates: see `knobs.py`. Speed-up, regret and losses as in `table.md`; synthetic: the",
        "network with weights that saw no real curve; no knob named: the defaults.",
    ]
    for half, sources in sorted(kept.items()):
        for source, rows in sources.items():
            orders = max(len(row) for row in rows["none"].values())
            lines += ["", f"## half {half}, {source}: {len(rows['none'])} tasks, {orders} orders", ""]
            lines += ["| rule | speed-up | steps | regret | best lost | best five lost |", "|---|---|---|---|---|---|"]
            for rule, mine in rows.items():
                found = e2.figures(mine, rows["none"])
                speed = e2.geometric(list(found["speed_up"].values()))
                lines.append(
                    f"| {rule} | {speed:.2f} | {found['spent'][0]:.3f} | {100 * found['regret'][0]:.1f} "
                    f"| {found['lost_1'][0]:.3f} +- {found['lost_1'][1]:.3f} | {found['lost_5'][0] / 5:.3f} |"
                )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Play what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("LCSEARCH_DATA"), required="LCSEARCH_DATA" not in os.environ
    )
    parser.add_argument("--weights", nargs="+", default=["shipped"], metavar="NAME=PATH", help="or shipped")
    parser.add_argument("--half", choices=["a", "b"], default="a")
    parser.add_argument("--orders", type=int, default=10)
    parser.add_argument("--knobs", nargs="+", default=list(KNOBS), metavar="KEY=VALUE,...")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    args = parser.parse_args()
    kept: dict[str, Any] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    todo = []
    rules = {name: (name, "") for name in BESIDE}
    for named in args.weights:
        label, _, path = named.partition("=")
        who = f"network={Path(path).resolve()}" if path else "network"
        rules |= {f"{label} {knobs}".strip(): (who, knobs) for knobs in args.knobs}
    for source in e2.SOURCES:
        names = half_of(Table(Path(args.data) / source).tasks, cast("Half", args.half))
        for rule, (who, knobs) in rules.items():
            mine = kept.setdefault(args.half, {}).setdefault(source, {}).setdefault(rule, {})
            for name in names:
                rows = mine.setdefault(name, [])
                missing = [order for order in range(args.orders) if order not in {row["order"] for row in rows}]
                todo += [(rows, (Path(args.data), source, name, who, knobs, missing))] if missing else []
    with ProcessPoolExecutor(args.processes) as pool:
        running = {pool.submit(play, *job): (rows, job) for rows, job in todo}
        for n, done in enumerate(as_completed(running), 1):
            rows, (_, source, name, who, knobs, _) = running[done]
            rows += done.result()
            KEPT.parent.mkdir(exist_ok=True)
            KEPT.write_text(json.dumps(kept, separators=(",", ":")) + "\n")
            if sys.stderr.isatty():
                print(f"[{n}/{len(todo)}] {source} {name} {who} {knobs}", file=sys.stderr)
    SHOWN.write_text(table(kept))
    print(SHOWN.read_text(), end="")


if __name__ == "__main__":
    main()
