"""E6, many workers: 64 trials on 64 workers, where nothing has ended when the first stop is due.

    LCSEARCH_DATA=.../data python experiments/e6_rivals/run.py --half a       # where `rivals` is chosen
    LCSEARCH_DATA=.../data python experiments/e6_rivals/run.py --half b       # what it comes to; goes on where it was

All 64 trials of a random order begin at once, in the simulator, decided by production's session with the network that
ships. Without `rivals` nothing is stopped before five trials are COMPLETE, and these end together with all others.
Steps saved are of what the 64 cost whole; lost: the best of the 64 was stopped; missed: the best that was shown is
worse than it by more than 1 % of the table's robust range. In brackets the upper 95 % bound (Clopper and Pearson).
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for what experiments share

import numpy as np
import research
from at_once import AT_ONCE, SOURCES, play

from lcsearch.data.tables import Table
from lcsearch.pretrain.real_tables import half_of
from lcsearch.stopping.calibration import clopper_pearson

HERE = Path(__file__).resolve().parent
PARTS, SHOWN = HERE / "parts", HERE / "table.md"


def bound(hits: int, n: int) -> float:
    """One-sided upper 95 % bound, Clopper and Pearson (1934)."""
    return clopper_pearson(hits, n, 0.9)[1]


def table() -> str:
    """One line for each half, source and number of rivals."""
    lines = ["64 trials on 64 workers: see `run.py`.", "", "| half | source | rivals | tasks, searches | steps saved |"]
    lines[-1] += " lost | missed | stopped | of these before five had ended |"
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for path in sorted(PARTS.glob("*.json")):
        half, source = path.stem.split("--")
        tasks = json.loads(path.read_text())
        rows = [row | {"task": name} for name, some in tasks.items() for row in some]
        for rivals in sorted({row["rivals"] for row in rows}):
            mine = [row for row in rows if row["rivals"] == rivals]
            n, hits, missed = len(mine), sum(r["lost"] for r in mine), sum(r["missed"] for r in mine)
            early = np.mean([min(r["by_rivals"] / max(r["stopped"] * AT_ONCE, 1), 1) for r in mine])
            lines.append(
                f"| {half} | {source} | {rivals} | {len({r['task'] for r in mine})}, {n} "
                f"| {np.mean([r['saved'] for r in mine]):.2f} | {hits / n:.3f} ({bound(hits, n):.3f}) "
                f"| {missed / n:.3f} ({bound(missed, n):.3f}) | {np.mean([r['stopped'] for r in mine]):.2f} "
                f"| {early:.2f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Play what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("LCSEARCH_DATA"))
    parser.add_argument("--half", choices=["a", "b"], default="b")
    parser.add_argument("--sources", nargs="+", choices=SOURCES, default=list(SOURCES))
    parser.add_argument("--rivals", nargs="+", type=int, default=[4])
    parser.add_argument("--orders", type=int, default=5)
    parser.add_argument("--table", action="store_true", help="only the table of what is kept")
    args = parser.parse_args()
    tables = {s: Table(args.data / s, research.CAVEATS) for s in (() if args.table else args.sources)}
    for order in range(args.orders):
        for source, read in tables.items():
            path = PARTS / f"{args.half}--{source}.json"
            kept = json.loads(path.read_text()) if path.exists() else {}
            for name in half_of(read.tasks, args.half):
                rows = kept.setdefault(name, [])
                done = {(row["order"], row["rivals"]) for row in rows}
                for rivals in args.rivals:
                    if (order, rivals) not in done:
                        rows.append(play(read.task(name), order, rivals))
                        path.parent.mkdir(exist_ok=True)
                        path.write_text(json.dumps(kept))
                        print(source, name, rows[-1], flush=True)
    SHOWN.write_text(table())
    print(SHOWN.read_text(), end="")


if __name__ == "__main__":
    main()
