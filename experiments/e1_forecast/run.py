"""E1: forecasts of real curves, every forecaster on the same questions: P(beat the best of ten), and the final value.

    LCSEARCH_DATA=.../data python experiments/e1_forecast/run.py               # half b; goes on where it was
    LCSEARCH_DATA=.../data python experiments/e1_forecast/run.py --forecasters network network=PATH.safetensors
    LCSEARCH_DATA=.../data python experiments/e1_forecast/run.py --curves 30 --forecasters parametric network mcmc
    python experiments/e1_forecast/run.py --table                              # table and plot from results.json
    python experiments/e1_forecast/run.py --quick                              # made curves, seconds, nothing is kept

Forecasters: parametric, rank-gap, last-value, nearest, power-law, mcmc (where it is installed); `network` for the
weights that ship, `network=PATH` for a file's, `network@NAME=PATH` to name the row; `network+configs...` is shown the
trials' configurations as well (no other forecaster looks at them).
The field's small networks, once `train_peers.py` has trained them: lc-pfn-recipe and wide; with P(beat) recalibrated on
half a of the other source: lc-pfn-recipe-recal, wide-recal, wide-recal+rank-gap, and rank-gap-recal without a network.
mcmc costs half a second a forecast: `--curves 30`, with the others beside it on the same 30 curves a task, is a section
of its own.

Protocol: 300 finite curves of each task, in groups of 15 that share ten others, which are finished; the incumbent is
the best judged value of these ten; cut-offs at 10, 20 and 40 % of the run. Asked is P(beat) for the final value (kind
value) and for the best (kind best_by), and the distribution of the final value. `--half` is the half of every source's
tasks that pretraining uses: a trains, b is scored. P is clipped to [1e-4, 1 - 1e-4], ECE is over ten equal-width bins.
Rows of results.json that were not run again stay, when they are of the same protocol and tasks.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: processes that share cores slow each other down

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for what experiments share
sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks" / "peers"))  # for mcmc

from cheap import CHEAP
from entrants import entrant
from pieces import HERE, REFERENCES, ROOMS, SCRIPTS, collect, entered, stamp, work
from questions import FEWEST_CURVES, SOURCES, curves_of
from report import COMMAND, draw, table


def main() -> None:
    """Run what is not there yet, then print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("LCSEARCH_DATA"))
    parser.add_argument("--half", choices=("a", "b", "all"), default="b")
    parser.add_argument("--sources", nargs="+", default=list(SOURCES))
    parser.add_argument("--curves", type=int, default=300, help="curves a task")
    parser.add_argument("--forecasters", nargs="+", default=[*REFERENCES, *CHEAP, "network"])
    parser.add_argument("--out", type=Path, default=HERE, help="where parts, results and table go")
    parser.add_argument("--table", action="store_true", help="only table and plot of results.json")
    parser.add_argument("--quick", action="store_true", help="45 made curves a task, nothing is kept")
    args = parser.parse_args()
    if args.curves < FEWEST_CURVES:
        raise SystemExit(f"--curves: expected at least {FEWEST_CURVES}, got {args.curves}")
    if args.quick:
        with tempfile.TemporaryDirectory() as folder:
            args.out, args.sources, args.half, args.curves = Path(folder), ["made"], "all", 45
            run(args)
    else:
        run(args)


def run(args: argparse.Namespace) -> None:
    """What main does with its arguments."""
    if not args.table:
        data = None if args.data is None else Path(args.data)
        stamped = stamp(COMMAND, ROOMS, SCRIPTS)
        entrants = entered(entrant, args.forecasters)
        found, skipped = {}, []
        for source in args.sources:
            found[source], lines = curves_of(source, data, args.half)
            skipped += lines
            print("\n".join(lines) + "\n" * bool(lines), end="", flush=True)
            for who in entrants:
                for task in found[source]:
                    print(
                        f"{source} {task.name} {who.label}:{work(args.out, who, task, args.curves, stamped)}",
                        flush=True,
                    )
        if any(found.values()):
            collect(args.out, found, args.half, args.curves, skipped)
    if not (args.out / "results.json").exists():
        raise SystemExit("nothing was run and nothing is stored: set LCSEARCH_DATA or --data")
    results = json.loads((args.out / "results.json").read_text())
    (args.out / "table.md").write_text(table(results))
    draw(results, args.out / "forecast.png")
    print(table(results))


if __name__ == "__main__":
    main()
