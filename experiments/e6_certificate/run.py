"""E6: the certificate: how often sweeps lose their best trial on tasks that the shipped weights never saw.

    LCSEARCH_DATA=.../data python experiments/e6_certificate/run.py               # everything; goes on where it was
    LCSEARCH_DATA=.../data python experiments/e6_certificate/run.py --orders 4 --gates product
    LCSEARCH_DATA=.../data python experiments/e6_certificate/run.py --orders 4 --gates late --sources lcbench arlbench
    python experiments/e6_certificate/run.py --table                              # from what is kept
    python experiments/e6_certificate/run.py --table --ship product               # writes it beside the weights

Tasks are the units: a sweep's orders share its curves. They are all tasks of every source that the model card does not
name as trained on, with at least 20 runs known to the task's horizon. A sweep is up to 40 runs of a task in a random
order, one after the other, decided by production's own code with the shipped network alone. Its loss is 1 where its
best trial was stopped before its best value; a task's loss is the mean over its orders.

Each threshold is held to two tests, both along the fixed sequence from strict to loose (Learn-then-Test): `at most`
bounds the mean loss by bets, `tasks at most` the share of tasks that lose anything, by the binomial. `expected` is
conformal risk control's. Whoever stops as many trials at random loses the best in that share of sweeps: `stopped` is
what `lost` is to be compared with. See `certify.py`.

`training` pools the sources in which a step is training; on the others a learner is fitted anew to more data at each.

Limits: sources are few, and some tasks of one are alike (three text classifiers of one data set; learners on 65 tables,
whose steps are sample sizes); pooled lines are averages over them. Runs that nobody followed to the horizon are no
units.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: a process a core, or they slow each other down

import argparse
import json
import math
import re
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for what experiments share

import certify
import numpy as np
import provenance
import sweeps

from lcsearch.weights.certificate import TRAINING, Certificate, Line, record

HERE = Path(__file__).resolve().parent
RESULTS, TABLE = HERE / "results.json", HERE / "table.md"
WEIGHTS = HERE.parents[1] / "src" / "lcsearch" / "weights"
EARLY = (0.2, 0.4, 0.6)
"""Shares of the horizon before which stops are counted apart."""
SIZES = ("lcdb11",)
"""Sources whose steps are sample sizes: a learner is fitted anew at each."""
ALPHAS = (0.02, 0.05, 0.1, 0.2)

Rows = dict[str, list[dict[str, Any]]]
"""By task."""


def mean(tasks: Rows, orders: int, figure: Callable[[dict[str, Any]], float]) -> certify.Floats:
    """(n_tasks, n_thresholds) of a figure of sweeps, the mean over so many orders."""
    kept = [[row["at"] for row in rows if row["order"] < orders] for rows in tasks.values()]
    return np.array([[np.mean([figure(at[f"{t:g}"]) for at in rows]) for t in sweeps.THRESHOLDS] for rows in kept])


def lost(at: dict[str, Any], before: float = math.inf) -> float:
    """1 for a sweep whose best trial was stopped, up to a share of the horizon."""
    return float(at["lost"] is not None and at["lost"] <= before)


def lines(tasks: Rows, orders: int, source: str = "") -> list[Line]:
    """What so many orders of tasks certify at every threshold."""
    losses = mean(tasks, orders, lost)
    figures = [
        losses,
        mean(tasks, orders, lambda at: len(at["stopped"]) / at["trials"]),
        mean(tasks, orders, lambda at: at["missed"]),
        mean(tasks, orders, lambda at: at["spent"]),
        *(mean(tasks, orders, lambda at, share=share: lost(at, share)) for share in EARLY),  # type: ignore[misc]
    ]
    bounds = certify.least(losses, certify.p_betting), certify.least(losses, certify.p_binomial)
    means = np.round([figure.mean(0) for figure in figures], 4).T.tolist()
    at_most, tasks_at_most, expected = np.round([*bounds, certify.conformal(losses)], 4).tolist()
    n_lost = (losses > 0).sum(0).tolist()
    return [
        Line(
            source=source,
            threshold=threshold,
            tasks=len(tasks),
            lost=means[i][0],
            at_most=at_most[i],
            tasks_lost=n_lost[i],
            tasks_at_most=tasks_at_most[i],
            expected=expected[i],
            stopped=means[i][1],
            missed=means[i][2],
            spent=means[i][3],
            early=tuple(zip(EARLY, means[i][4:], strict=True)),
        )
        for i, threshold in enumerate(sweeps.THRESHOLDS)
    ]


def certified(tasks: Rows, orders: int) -> dict[str, dict[str, float | None]]:
    """Test -> alpha -> the loosest threshold that the fixed sequence reaches."""
    losses = mean(tasks, orders, lost)
    found: dict[str, dict[str, float | None]] = {}
    for test, p in (("sweeps", certify.p_betting), ("tasks", certify.p_binomial)):
        for alpha in ALPHAS:
            n = certify.fixed_sequence(losses, alpha, p)
            found.setdefault(test, {})[f"{alpha:g}"] = sweeps.THRESHOLDS[n - 1] if n else None
    return found


def played(gates: str) -> dict[str, Rows]:
    """Source -> its tasks, of what is kept here."""
    return {path.stem: sweeps.kept(gates, path.stem)["tasks"] for path in sorted((sweeps.PARTS / gates).glob("*.json"))}


def lacking(gates: str, results: dict[str, Any]) -> list[str]:
    """Tasks of stored results that the weights have not seen since, where some are kept here and these are not."""
    here, seen = played(gates), sweeps.trained()
    if not any(here.values()):
        return []
    told = results.get("gates", {}).get(gates, {}).get("tasks", {})
    return [
        f"{source} {name}"
        for source, names in told.items()
        for name in names
        if name not in here.get(source, ()) and name not in seen.get(source, ())
    ]


def collect() -> dict[str, Any]:
    """What is kept, as the results that are committed; orders that every task has. Gates of which nothing is kept here,
    or not every task that was there, stay as they were.
    """
    before = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    found: dict[str, Any] = {
        gates: {"commit": before["commit"], **said} for gates, said in before.get("gates", {}).items()
    }
    at = provenance.commit("experiments/e6_certificate")
    codes: set[str] = set(before.get("sweeps_by_code", ()))
    for gates in sweeps.GATES:
        by_source = played(gates)
        pooled = {f"{source} {name}": rows for source, tasks in by_source.items() for name, rows in tasks.items()}
        orders = min((len(rows) for rows in pooled.values()), default=0)
        if not orders:
            continue
        if gone := lacking(gates, before):
            print(f"{gates}: left as it was, for it has {partly(gone)}", file=sys.stderr)
            continue
        codes |= {row["by"] for rows in pooled.values() for row in rows}
        said = lines(pooled, orders)
        trained = {source: tasks for source, tasks in by_source.items() if source not in SIZES}
        if 1 < len(trained) < len(by_source):
            said += lines({f"{s} {n}": rows for s, of in trained.items() for n, rows in of.items()}, orders, TRAINING)
        for source, tasks in by_source.items():
            said += lines(tasks, orders, source)
        knobs = sweeps.knobs(gates)
        found[gates] = {
            "commit": at,
            "weights": knobs["weights"],
            "policy": knobs["policy"],
            "orders": orders,
            "tasks": {source: sorted(tasks) for source, tasks in by_source.items()},
            "certified": certified(pooled, orders),
            "lines": [asdict(line) for line in said],
        }
    left = sweeps.PARTS / "left.json"
    return {
        "command": "LCSEARCH_DATA=.../data python experiments/e6_certificate/run.py",
        "commit": at,
        "sweeps_by_code": sorted(codes),
        "left_out": json.loads(left.read_text()) if left.exists() else before.get("left_out", {}),
        "gates": found,
    }


def partly(gone: list[str]) -> str:
    """For a message: what is there, and not here."""
    return f"{len(gone)} tasks that are not kept here, among them {gone[0]}. Play them, or remove {RESULTS.name}"


def percent(share: float) -> str:
    """For a table."""
    return f"{100 * share:.1f}"


def rows_of(said: list[dict[str, Any]]) -> list[str]:
    """A Markdown table."""
    found = [
        "| tasks | threshold | spent | lost / stopped | missed | at most | tasks lost | tasks at most | expected "
        "| lost before 20 / 40 / 60 % |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for line in said:
        early = " / ".join(percent(share) for _, share in line["early"])
        found.append(
            f"| {line['source'] or 'all'}, {line['tasks']} | {line['threshold']:g} "
            f"| {percent(line['spent'])} | {percent(line['lost'])} / {percent(line['stopped'])} "
            f"| {percent(line['missed'])} | **{percent(line['at_most'])}** | {line['tasks_lost']} "
            f"| {percent(line['tasks_at_most'])} | {percent(line['expected'])} | {early} |"
        )
    return found


def table(results: dict[str, Any]) -> str:
    """All gates, a section each."""
    found = [f"`{results['command']}` at {results['commit'][:7]}. All in %; what they mean: `run.py`."]
    for gates, said in results["gates"].items():
        least = 1 - certify.DELTA ** (1 / said["lines"][0]["tasks"])
        found += ["", f"## {gates}: {said['orders']} orders of up to {sweeps.TRIALS} trials", ""]
        product = {**asdict(sweeps.GATES["product"]), **results["gates"]["product"]["policy"]}
        changed = {k: v for k, v in said["policy"].items() if v != product[k]}
        of = ", ".join(f"{k}={v}" for k, v in changed.items()) or "The product's gates"
        found += [f"{of}, at {said['commit'][:7]}." if "commit" in said else f"{of}.", ""]
        for test, what in (("sweeps", "a sweep loses its best"), ("tasks", "a task loses it in some order")):
            at = said["certified"][test].items()
            of = ", ".join(f"{100 * float(a):g} % {'none' if t is None else f'up to {t:g}'}" for a, t in at)
            found.append(f"Certified with 95 % confidence, '{what} in at most': {of}.")
        found += [f"Without a single loss so many tasks would prove {percent(least)} %.", ""]
        found += rows_of(said["lines"])
    if results["left_out"]:
        found += ["", "Not trained on, and no units, for too few of their runs are known to the horizon: "]
        found[-1] += (
            ", ".join(f"{source} ({len(tasks)})" for source, tasks in sorted(results["left_out"].items())) + "."
        )
    return "\n".join(found) + "\n"


def in_words(said: dict[str, Any]) -> str:
    """The model card's section."""
    n, orders = said["lines"][0]["tasks"], said["orders"]
    of = ", ".join(f"{source} {len(tasks)}" for source, tasks in said["tasks"].items())
    named = ("n_startup_trials", "min_comparisons", "min_observations")
    gates = ", ".join(f"{k} {v}" for k, v in said["policy"].items() if k in named)
    return "\n".join(
        [
            "## Certificate",
            "",
            f"Sweeps of {n} tasks that were not trained on ({of}),",
            f"{orders} random orders each of up to {sweeps.TRIALS} trials one after the other, stopped by these",
            f"weights alone behind the gates of the product ({gates}).",
            "Lost: sweeps whose best trial was stopped before its best value, the mean over tasks; at most: the same",
            "over tasks drawn alike, with 95 % confidence, each line alone; stopped: of all trials (stopping as many",
            "at random loses as often). All in %.",
            "`network.certificate.json` says the same to programs, `experiments/e6_certificate` makes it.",
            "",
            "| tasks | threshold | lost | at most | stopped | lost before 20 / 40 / 60 % of the horizon |",
            "| --- | --- | --- | --- | --- | --- |",
            *(
                f"| {line['source'] or 'all'}, {line['tasks']} | {line['threshold']:g} | {percent(line['lost'])} "
                f"| {percent(line['at_most'])} | {percent(line['stopped'])} "
                f"| {' / '.join(percent(share) for _, share in line['early'])} |"
                for line in said["lines"]
                if line["source"] in ("", TRAINING) or line["threshold"] == 0.05
            ),
            "",
            "It is an average over tasks like those, not a promise for one sweep. Training: all but lcdb11, where a",
            "step is a learner fitted anew to more data. Sweeps of several workers, other gates and other forecasters",
            "are not in it.",
            "",
        ]
    )


def ship(said: dict[str, Any], where: Path = WEIGHTS) -> None:
    """Write the certificate beside the weights, and into their card."""
    gates = {key: value for key, value in said["policy"].items() if key != "threshold"}
    told = tuple(Line(**{**line, "early": tuple((share, of) for share, of in line["early"])}) for line in said["lines"])
    found = Certificate("", gates, 1 - certify.DELTA, sweeps.TRIALS, said["orders"], told)
    text = json.dumps(record(found, said["weights"]), indent=1)
    text = re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda m: "[" + re.sub(r"\s+", " ", m[1]) + "]", text)
    (where / f"{sweeps.NAME}.certificate.json").write_text(text + "\n")
    card = where / f"{sweeps.NAME}.md"
    before, _, after = re.sub(r"## Certificate\n.*?(?=## Limits)", "", card.read_text(), flags=re.S).partition(
        "## Limits"
    )
    card.write_text(f"{before}{in_words(said)}\n## Limits{after}")


def main() -> None:
    """Play what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("LCSEARCH_DATA"))
    parser.add_argument("--orders", type=int, default=20)
    parser.add_argument("--gates", nargs="+", choices=list(sweeps.GATES), default=list(sweeps.GATES))
    parser.add_argument("--sources", nargs="+", help="all, unless some are named")
    parser.add_argument("--table", action="store_true", help="only print the table of what is kept")
    parser.add_argument("--ship", choices=list(sweeps.GATES), help="write these gates' certificate beside the weights")
    args = parser.parse_args()
    if not args.table:
        if args.data is None:
            raise SystemExit("expected the data's folder, got none. Set LCSEARCH_DATA or --data.")
        units, left = sweeps.units(Path(args.data))
        sweeps.PARTS.mkdir(exist_ok=True)
        (sweeps.PARTS / "left.json").write_text(json.dumps(left))
        units = [(source, name) for source, name in units if args.sources is None or source in args.sources]
        for gates in args.gates:
            for n, (source, name) in enumerate(units, 1):
                start = time.monotonic()
                rows = sweeps.work(Path(args.data), gates, source, name, args.orders)
                n_lost = sum(lost(row["at"][f"{sweeps.GATES[gates].threshold:g}"]) for row in rows)
                took = time.monotonic() - start
                said = f"{source} {name}: {n_lost:g} of {len(rows)} sweeps lost their best, {took:.0f} s"
                print(f"{gates} [{n}/{len(units)}] {said}", file=sys.stderr, flush=True)
    if sweeps.PARTS.is_dir():
        RESULTS.write_text(json.dumps(collect(), indent=1) + "\n")
    if not RESULTS.exists():
        raise SystemExit("nothing was run and nothing is stored: set LCSEARCH_DATA or --data")
    results = json.loads(RESULTS.read_text())
    TABLE.write_text(table(results))
    print(TABLE.read_text(), end="")
    if args.ship:
        if gone := lacking(args.ship, results):
            raise SystemExit(f"expected every task of {args.ship} to be kept in {sweeps.PARTS}: it has {partly(gone)}")
        ship(results["gates"][args.ship])


if __name__ == "__main__":
    main()
