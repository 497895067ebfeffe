"""E2's knobs: threshold, guard, epsilon, the gates of young studies and short curves, chosen on one half of the tasks.

    LCSEARCH_DATA=.../data python experiments/e2_stop/knobs.py --weights synthetic=PATH            # chosen here: half a
    LCSEARCH_DATA=.../data python experiments/e2_stop/knobs.py --weights synthetic=PATH shipped --half b --knobs ""
    LCSEARCH_DATA=.../data python experiments/e2_stop/knobs.py --name gates --knobs gates          # likewise, of GATES
    LCSEARCH_DATA=.../data python experiments/e2_stop/knobs.py --name gates --half b --orders 20 --knobs "" KNOBS

Half a trained the weights that ship, so knobs are chosen with those that saw no real curve (`cpu_synthetic_on.yaml`),
and scored on half b (`run.py`). Where those are not at hand, what ships has seen the curves that it is chosen on, which
flatters knobs that trust it more; half b has the last word. Protocol and gates are `run.py`'s, setting "product"; every
line changes what it names and nothing else. Searches of one task go side by side, so that their forecasts are made
together. Searches that are kept in parts/ are not played again.

Set beforehand, for gates: chosen on half a is what spends the fewest steps among the knobs that lose the best trial no
more often than the defaults, on the mean over tasks, the rise's upper 95 % bound at most RISE["a"]. It is taken where
half b says the same of it: fewer steps, no more lost, the bound at most RISE["b"]. Bounds are paired: tasks are drawn
with replacement, then the orders that both have played.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: a process a core, or they slow each other down

import argparse
import importlib
import itertools
import json
import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from lcsearch.data.tables import Table, load
from lcsearch.pretrain.real_tables import Half, half_of

e2 = importlib.import_module("run")  # the one beside this file; another experiment has a run.py too
HERE = Path(__file__).resolve().parent
KNOBS = ("", "threshold=0.02", "threshold=0.1", "guard=0.05", "few_factor=1.0", "epsilon=0.005", "epsilon=0.02")
GATES = (
    *("", "n_startup_trials=3", "n_startup_trials=2", "min_observations=4", "min_observations=3"),
    *("few_factor=0.5", "few_factor=1", "min_comparisons=2"),
    *("n_startup_trials=2,min_comparisons=2", "n_startup_trials=2,min_observations=5,min_comparisons=2"),
    *("n_startup_trials=3,min_observations=4", "n_startup_trials=2,min_observations=3"),
    *("n_startup_trials=2,min_observations=4,min_comparisons=2", "n_startup_trials=2,min_observations=3,few_factor=1"),
    "n_startup_trials=2,min_observations=3,min_comparisons=2",
    "n_startup_trials=2,min_observations=3,few_factor=1,min_comparisons=2",
)
LATER = ("n_startup_trials=2,min_comparisons=2", "n_startup_trials=2,min_observations=5,min_comparisons=2")
"""Of GATES: added after the others had been seen on half a, before any had been on half b."""
RISE = {"a": 0.05, "b": 0.02}
FIELDS = ("order", "trace", "spent", "lost_1", "lost_5", "stops", "wrong", "looks", "seconds")
BESIDE = ("none", "median", "oracle+guard")
JUDGED = """
## What the certificate says of the choice

`product` in `experiments/e6_certificate/table.md`, 91 tasks, 4 orders: at threshold .05 at most 15.2 % of the sweeps
lost, for 39.0 % of the cost (`late`: 16.5 %, for 43.1 %); 10 % are certified up to .02 and 20 % up to .05, as
before, 5 % up to .005 (before: .01).
"""
"""Of the gates that half b has taken."""
THEN: Mapping[str, Any] = {"n_startup_trials": 5, "min_comparisons": 4}
"""The defaults when these knobs were chosen: what stands where no knob is named."""
AT_ONCE = 80
"""Searches of one task."""
DRAWS = 2000

Rows = dict[str, list[dict[str, Any]]]
"""By task."""


class Asked(NamedTuple):
    """A search: who decides, a rule of `run.py` or the network with weights of a file (`network=PATH`), and how."""

    who: str
    knobs: str
    order: int

    @property
    def search(self) -> Any:
        """For `run.py`."""
        changed = dict(item.split("=") for item in self.knobs.split(",") if item)
        setting = e2.SETTINGS["product"]
        policy = replace(setting.policy, **{**THEN, **{key: json.loads(value) for key, value in changed.items()}})
        make = e2.POLICIES[self.who] if self.who in BESIDE else e2.asked(self.who, guard=True)
        return e2.Search(replace(setting, policy=policy), make, self.order)


def work(data: Path, source: str, name: str, asked: list[Asked]) -> list[dict[str, Any]]:
    """Searches of one task, side by side."""
    (task,) = load(data / source, tasks=[name], caveats=e2.research.CAVEATS)
    return [{field: row[field] for field in FIELDS} for row in e2.play_all(task, [one.search for one in asked])]


def compared(mine: Rows, base: Rows) -> tuple[float, float, float, float, float]:
    """(steps, upper bound, rise of the best lost, upper bound, tasks) of one rule beside another.

    Steps are a ratio, the geometric mean over tasks. Bounds are one-sided, 95 %.
    """
    pairs = []
    for task, rows in mine.items():
        twins = {row["order"]: row for row in base.get(task, ())}
        both = [(row, twins[row["order"]]) for row in rows if row["order"] in twins]
        if both:
            pairs.append(np.array([(a["spent"], b["spent"], a["lost_1"] - b["lost_1"]) for a, b in both]))

    def figures(some: list[Any]) -> tuple[float, float]:
        means = np.array([one.mean(0) for one in some])
        return float(np.exp(np.log(means[:, 0] / means[:, 1]).mean())), float(means[:, 2].mean())

    samples = e2.resamples([len(one) for one in pairs], DRAWS, np.random.default_rng(0))
    drawn = [figures([pairs[i][rows] for i, rows in some]) for some in samples]
    (steps, rise), (most, highest) = figures(pairs), np.quantile(drawn, 0.95, axis=0)
    return steps, float(most), rise, float(highest), len(pairs)


def pooled(sources: dict[str, dict[str, Rows]], rule: str) -> Rows:
    """The rows of all sources."""
    return {f"{source} {task}": rows for source, of in sources.items() for task, rows in of.get(rule, {}).items()}


def choice(found: dict[str, tuple[float, float, float, float, float]], half: str) -> str | None:
    """The rule that spends the fewest steps among those that pass; None: none spends fewer than the defaults."""
    passing = [
        rule for rule, (steps, _, rise, most, _) in found.items() if steps < 1 and rise <= 0 and most <= RISE[half]
    ]
    return min(passing, key=lambda rule: found[rule][0], default=None)


def table(kept: dict[str, Any]) -> str:
    """A section for each half and source, and one of each half."""
    lines = [
        "Knobs of the product's gates: see `knobs.py`. Speed-up, regret and losses as in `table.md`; synthetic: the",
        "network with weights that saw no real curve; shipped: with those that half a has trained; no knob named: the",
        "defaults then, five startup trials and four comparisons.",
    ]
    for half, sources in sorted(kept.items()):
        for source, rows in sources.items():
            orders = max(len(row) for row in rows["none"].values())
            lines += ["", f"## half {half}, {source}: {len(rows['none'])} tasks, {orders} orders", ""]
            lines += ["| rule | speed-up | steps | regret | best lost | best five lost |", "|---|---|---|---|---|---|"]
            for rule, mine in rows.items():
                found = e2.figures(mine, rows["none"])
                speed = e2.geometric(list(found["speed_up"].values()))
                few = min(map(len, mine.values()))
                of = "" if few == orders else f" ({few} orders)"
                lines.append(
                    f"| {rule}{of} | {speed:.2f} | {found['spent'][0]:.3f} | {100 * found['regret'][0]:.1f} "
                    f"| {found['lost_1'][0]:.3f} +- {found['lost_1'][1]:.3f} | {found['lost_5'][0] / 5:.3f} |"
                )
        rules = dict.fromkeys(rule for of in sources.values() for rule in of if rule not in BESIDE)
        for label in dict.fromkeys(rule.partition(" ")[0] for rule in rules):
            base = pooled(sources, label)
            beside = {
                rule: compared(pooled(sources, rule), base) for rule in rules if rule.startswith(f"{label} ") and base
            }
            if not beside:
                continue
            lines += ["", f"## half {half}, beside the defaults of {label}: {len(base)} tasks", ""]
            lines += ["| knobs | orders | steps (95 %) | best lost more often by (95 %) |", "|---|---|---|---|"]
            for rule, (steps, most, rise, highest, n_tasks) in beside.items():
                of = "" if n_tasks == len(base) else f" ({n_tasks} tasks)"
                orders = min(map(len, pooled(sources, rule).values()))
                said = f"{steps:.3f} ({most:.3f}) | {rise:+.3f} ({highest:+.3f})"
                lines.append(f"| {rule.partition(' ')[2]}{of} | {orders} | {said} |")
            taken = choice(beside, half)
            said = "none: the defaults" if taken is None else f"`{taken.partition(' ')[2]}`"
            lines += ["", f"By the rule of `knobs.py` (bound at most {RISE[half]:g}) this half takes {said}."]
            if half == "a" and (later := [f"`{some}`" for some in LATER if f"{label} {some}" in beside]):
                lines[-1] += (
                    f" {' and '.join(later)} came to the list after the others had been seen on this half, before"
                )
                lines += ["any had been on half b."]
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
    parser.add_argument("--knobs", nargs="+", default=list(KNOBS), metavar="KEY=VALUE,...", help="or gates")
    parser.add_argument("--beside", nargs="*", choices=BESIDE, default=list(BESIDE), metavar="RULE")
    parser.add_argument("--name", default="knobs", help="of the table and of what is kept")
    parser.add_argument("--table", action="store_true", help="only write the table of what is kept")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    args = parser.parse_args()
    shown, stored = HERE / f"{args.name}.md", HERE / "parts" / f"{args.name}.json"
    kept: dict[str, Any] = json.loads(stored.read_text()) if stored.exists() else {}
    knobs = list(itertools.chain.from_iterable(GATES if some == "gates" else [some] for some in args.knobs))
    rules = {name: (name, "") for name in args.beside}
    for named in args.weights:
        label, _, path = named.partition("=")
        who = f"network={Path(path).resolve()}" if path else "network"
        rules |= {f"{label} {some}".strip(): (who, some) for some in knobs}
    todo: list[tuple[str, str, list[tuple[str, Asked]]]] = []
    for source in () if args.table else e2.SOURCES:
        for name in half_of(Table(Path(args.data) / source).tasks, cast("Half", args.half)):
            missing = []
            for order, (rule, (who, some)) in itertools.product(range(args.orders), rules.items()):
                rows = kept.setdefault(args.half, {}).setdefault(source, {}).setdefault(rule, {}).setdefault(name, [])
                if order not in {row["order"] for row in rows}:
                    missing.append((rule, Asked(who, some, order)))
            todo += [(source, name, missing[i : i + AT_ONCE]) for i in range(0, len(missing), AT_ONCE)]
    with ProcessPoolExecutor(args.processes) as pool:
        running = {
            pool.submit(work, Path(args.data), source, name, [one for _, one in asked]): (source, name, asked)
            for source, name, asked in todo
        }
        for n, done in enumerate(as_completed(running), 1):
            source, name, asked = running[done]
            for (rule, _), row in zip(asked, done.result(), strict=True):
                kept[args.half][source][rule][name].append(row)
            stored.parent.mkdir(exist_ok=True)
            new = stored.with_suffix(".new")
            new.write_text(json.dumps(kept, separators=(",", ":")) + "\n")
            os.replace(new, stored)
            print(f"[{n}/{len(todo)}] {source} {name}", file=sys.stderr, flush=True)
    shown.write_text(table(kept) + JUDGED * (args.name == "gates"))
    print(shown.read_text(), end="")


if __name__ == "__main__":
    main()
