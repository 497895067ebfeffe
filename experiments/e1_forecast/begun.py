"""E1 for allocation: of a task's configurations some are begun; where do these and the unseen ones end?

    LCSEARCH_DATA=.../data python experiments/e1_forecast/begun.py             # half b; goes on where it was
    LCSEARCH_DATA=.../data python experiments/e1_forecast/begun.py --half a --forecasters network@NAME=PATH forest
    python experiments/e1_forecast/begun.py --table                            # table and plot from begun.json
    python experiments/e1_forecast/begun.py --quick                            # made curves, seconds, nothing is kept

Rows: nothing (the begun trials' losses, the same of every trial), value (the last value of a begun trial), forest and
extra-trees and gp (scikit-learn: configuration -> standing of the begun trials), tpe (a ratio of densities of
configurations), `network`, `network=PATH` and `network@NAME=PATH` as in `run.py`, but always shown configurations, and
`forest+network...`: the forest on that network's median forecasts of the begun trials. If asked for, `lkgp`: BoTorch's
latent Kronecker Gaussian process (`begun_lkgp.py`: an environment of its own, seconds a round), told of the tasks that
it was asked about.

Protocol: of each task and seed a random order of its finite curves of full length, one of each configuration; the first
10, 30 and 100 are begun (where at least 20 others are left), up to 500 of those after them are unseen. Contexts: all
begun trials at 1, 3 or 10 reports (where a run is more than twice as long), "rungs": as asynchronous successive halving
leaves them (eta 3, from one report), "complete": all of them at their ends. Trials at their ends are COMPLETE, the
others PAUSED with the reports that they made. Asked is the final value of the unseen trials, and of the begun ones that
are not COMPLETE. P(beat): against the best final value of the COMPLETE ones, else the best value a begun one has shown.

Scores, of each round (task, seed, number begun, context), unseen and begun trials apart, then means over seeds, then
over tasks: Spearman of the median forecast (forests, GP and ratio: of the mean prediction) and the final value; top: of
the ten best predicted, the share in the true best 5 % (ties share); place: their mean percentile among all that is
asked about, 50 by chance (both where at least 40 are asked about); log-loss of P(beat); CRPS in the range of the task
(`scores.py`); PIT: mean of P(a loss at most the final one), .5 if levels are honest, above it if they are too
optimistic; share of final values inside the central 50, 80, 95 %. What is absent counts as `nothing` in log-loss and
CRPS (with P one in the trials behind the target and one), stands last in top and place, and is left out of the others.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: processes that share cores slow each other down

import argparse
import json
import math
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for what experiments share

import numpy as np
from begun_questions import BEGUN, CONTEXTS, ETA, FEWEST_UNSEEN, PROTOCOL, QUESTIONS, UNSEEN, digest, rounds
from begun_report import COMMAND, draw, table
from begun_rows import Row, row
from begun_scores import METRICS, figures
from pieces import HERE, ROOMS, clean, entered, half_told, keep_piece, keep_results, read_piece, stamp
from questions import RealCurves, curves_of
from scores import CAP, CLIP

from lcsearch.curves import Floats

SOURCES = ("lcbench", "taskset_adam8p", "arlbench", "deepobs_baselines")
ROWS = ("nothing", "value", "forest", "extra-trees", "gp", "tpe", "forest+network", "network")
SLOW = ("lkgp",)
"""Rows that are told of some tasks, too, and say of how many: others have figures of all of a source, or none."""
SCRIPTS = (
    *sorted(HERE.glob("begun*.py")),
    *(HERE / f"{name}.py" for name in ("entrants", "pieces", "questions", "scores")),
    HERE.parent / "caveats.json",
)
CELLS = [(question, context, n) for question in QUESTIONS for context in CONTEXTS for n in BEGUN]


def main() -> None:
    """Run what is not there yet, then print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("LCSEARCH_DATA"))
    parser.add_argument("--half", choices=("a", "b", "all"), default="b")
    parser.add_argument("--sources", nargs="+", default=list(SOURCES))
    parser.add_argument("--tasks", nargs="+", help="some tasks, by name: they are kept, and no table is made")
    parser.add_argument("--seeds", type=int, default=3, help="orders a task")
    parser.add_argument("--forecasters", nargs="+", default=list(ROWS))
    parser.add_argument("--out", type=Path, default=HERE, help="where parts, results and table go")
    parser.add_argument("--table", action="store_true", help="only table and plot of begun.json")
    parser.add_argument("--quick", action="store_true", help="made curves, one order a task, nothing is kept")
    args = parser.parse_args()
    if args.seeds < 1:
        raise SystemExit(f"--seeds: expected at least 1, got {args.seeds}")
    if args.quick:
        with tempfile.TemporaryDirectory() as folder:
            args.out, args.sources, args.half, args.seeds = Path(folder), ["made"], "all", 1
            run(args)
    else:
        run(args)


def run(args: argparse.Namespace) -> None:
    """What main does with its arguments."""
    if not args.table:
        stamped = stamp(COMMAND, ROOMS, SCRIPTS)
        rows = entered(row, args.forecasters)
        found, skipped = {}, []
        for source in args.sources:
            tasks, lines = curves_of(source, None if args.data is None else Path(args.data), args.half)
            skipped += lines
            print("\n".join(lines) + "\n" * bool(lines), end="", flush=True)
            found[source] = [task for task in tasks if not args.tasks or task.name in args.tasks]
            for who in rows:
                for task in found[source]:
                    print(
                        f"{source} {task.name} {who.label}: {work(args.out, who, task, args.seeds, stamped)}",
                        flush=True,
                    )
        if args.tasks:
            return
        if any(found.values()):
            collect(args.out, found, args.half, args.seeds, skipped)
    if not (args.out / "begun.json").exists():
        raise SystemExit("nothing was run and nothing is stored: set LCSEARCH_DATA or --data")
    results = json.loads((args.out / "begun.json").read_text())
    (args.out / "begun.md").write_text(table(results))
    draw(results, args.out / "begun.png")
    print(table(results))


def knobs_of(seeds: int) -> dict[str, Any]:
    """What must be the same for rows to stand side by side."""
    return {
        "protocol": PROTOCOL,
        "seeds": seeds,
        "begun": list(BEGUN),
        "contexts": list(CONTEXTS),
        "unseen": [FEWEST_UNSEEN, UNSEEN],
        "eta": ETA,
        "metrics": list(METRICS),
        "clip": CLIP,
        "cap": CAP,
    }


def work(out: Path, who: Row, task: RealCurves, seeds: int, stamp: dict[str, str]) -> str:
    """Ask what is not kept yet."""
    path = _piece(out, seeds, who.label, task)
    if read_piece(path, knobs_of(seeds), who.version, digest(task)) is not None:
        return "kept"
    found = np.full((len(CELLS), seeds, len(METRICS)), np.nan)
    cost: dict[str, list[float]] = {}
    for seed in range(seeds):
        for n, asked in rounds(task, seed):
            start = time.process_time()
            said = who.say(asked)
            cost.setdefault(str(n), []).append(1e3 * (time.process_time() - start))
            for question, which in zip(QUESTIONS, (slice(asked.unseen), slice(asked.unseen, None)), strict=True):
                if len(asked.finals[which]):
                    at = CELLS.index((question, asked.context, n))
                    found[at, seed] = figures(asked, said, task.unit, which)
    about = {"knobs": knobs_of(seeds), "version": who.version, "data": digest(task), "ms": cost, **stamp}
    keep_piece(path, found, about)
    return f"{sum(map(sum, cost.values())) / 1e3:.1f} s"


def _piece(out: Path, seeds: int, label: str, task: RealCurves) -> Path:
    return out / "parts" / f"begun-{seeds}" / task.source / label / (re.sub(r"[^\w.+-]", "-", task.name) + ".npz")


def _row(out: Path, tasks: Sequence[RealCurves], seeds: int, label: str) -> dict[str, Any] | None:
    """All figures of one row on one source; None while a task is missing, or some are of other weights or code."""
    knobs = knobs_of(seeds)
    read = [read_piece(_piece(out, seeds, label, task), knobs, None, digest(task)) for task in tasks]
    there = [piece for piece in read if piece is not None]
    if len(there) < len(tasks) or len({about["version"] for _, about in there}) > 1:
        return None
    about: dict[str, Any] = {
        name: sorted({about[name] for _, about in there}) for name in ("command", "commit", "code", "version")
    }
    about["ms"] = {str(n): _mean([x for _, one in there for x in one["ms"].get(str(n), [])]) for n in BEGUN}
    cells: dict[str, Any] = {}
    for at, (question, context, n) in enumerate(CELLS):
        by_task = {name: [_mean(rows[at, :, i]) for rows, _ in there] for i, name in enumerate(METRICS)}
        if any(math.isfinite(x) for x in by_task["absent"]):
            kept = {name: [round(x, 4) for x in by_task[name]] for name in ("spearman", "log_loss", "crps")}
            cells[f"{question}, {context}, {n} begun"] = {
                **{name: _mean(each) for name, each in by_task.items()},
                "by_task": {name: each for name, each in kept.items() if not all(map(math.isnan, each))},
            }
    return {"about": about, **cells}


def _mean(x: Sequence[float] | Floats) -> float:
    """Of what is there; NaN of nothing."""
    there = np.asarray(x, np.float64)
    there = there[np.isfinite(there)]
    return float(there.mean()) if there.size else math.nan


def collect(out: Path, found: dict[str, list[RealCurves]], half: str, seeds: int, skipped: Sequence[str]) -> None:
    """Write begun.json: what is kept in pieces, and rows that stand there already of the same protocol and tasks."""
    path = out / "begun.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"sections": {}}
    section = f"{half_told(half)}, {seeds} orders a task"
    old = results["sections"].get(section, {})
    sources = dict(old["sources"]) if old.get("knobs") == knobs_of(seeds) else {}
    for source, tasks in found.items():
        if not tasks:
            continue
        names = {task.name: f"{len(task.losses)}, {digest(task)}" for task in tasks}
        before = sources.get(source, {})
        rows = dict(before["rows"]) if before.get("tasks") == names else {}
        for label in sorted(p.name for p in (out / "parts" / f"begun-{seeds}" / source).glob("*") if p.is_dir()):
            rows = {name: row for name, row in rows.items() if not name.startswith(f"{label} (")}
            if (mine := _row(out, tasks, seeds, label)) is not None:
                rows[label] = clean(mine)
            elif label in SLOW and (some := [task for task in tasks if _row(out, [task], seeds, label) is not None]):
                rows[f"{label} ({len(some)} of {len(tasks)} tasks)"] = clean(_row(out, some, seeds, label))
            else:
                print(f"{source} {label}: not whole yet, no row", flush=True)
        order = [name for name in ROWS if "network" not in name]
        rows = dict(sorted(rows.items(), key=lambda one: (order.index(one[0]) if one[0] in order else 99, one[0])))
        mine_skipped = [line for line in skipped if line.startswith(f"{source} ")]
        sources[source] = {"tasks": names, "skipped": mine_skipped, "rows": rows}
    results["sections"][section] = {"knobs": knobs_of(seeds), "sources": sources}
    keep_results(path, results)


if __name__ == "__main__":
    main()
