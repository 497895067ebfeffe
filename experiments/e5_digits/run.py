"""E5: the digits sweep with no pruning, Median, Hyperband, CurvePruner and three allocators, same seeds, for real.

    python experiments/e5_digits/run.py                 # 5 seeds x 7 ways, under an hour on two cores
    python experiments/e5_digits/run.py --order         # also the best value over epochs of what was stored without it
    python experiments/e5_digits/run.py --table         # the tables and anytime.png from the stored results

The sampler is `random` and both configuration and training of trial k follow from (seed, k) alone, so every pruner
meets the very same curves, and whether the unpruned sweep's winner was stopped is a fact, not an estimate. What was
run already is kept: the experiment can be interrupted and goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import mean, stdev
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for what experiments share

import numpy as np
import optuna
import provenance
from anytime import draw_line, improvements

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RESULTS = HERE / "results.json"
OBJECTIVE, SAMPLER = "digits:train", "sampler: {kind: random}"
MADE_BY = ("schedulers", "configs", "experiments/e5_digits/*.py")
PRUNERS = ("none", "median", "hyperband", "curve")
ALLOCATORS = {"asha": "none", "going-rate": "curve", "uniform": "none"}
"""Ways to pause: the pruner beside the allocator. `uniform`, which would train everything, gets what `curve` spent."""


def prepare(work: Path) -> Path:
    """The README's sweep with timed looks; all else is as users run it."""
    work.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "configs" / "digits.py", work / "digits.py")
    shutil.copy(HERE / "timed.py", work / "timed.py")
    text = (ROOT / "configs" / "digits.yaml").read_text()
    if text.count(OBJECTIVE) != 1 or SAMPLER not in text:
        raise SystemExit(f"configs/digits.yaml: expected {OBJECTIVE!r} and {SAMPLER!r}, each once")
    sweep = work / "digits.yaml"
    sweep.write_text(text.replace(OBJECTIVE, "timed:train"))
    return sweep


def run_one(sweep: Path, work: Path, seed: int, pruner: str, budget: int | None) -> dict[str, Any]:
    """One sweep by the command users type; its counts, values and the seconds of its looks.

    Args:
        sweep: its file.
        work: where its folder lies while it runs.
        seed: of the sweep.
        pruner: or allocator.
        budget: how many steps it may spend; None: as many as it takes.
    """
    folder = work / f"seed-{seed}-{pruner}"
    command = ["-m", "lcsearch", "run", str(sweep), "--folder", str(folder), "--fresh"]
    command += ["--seed", str(seed), "--pruner", ALLOCATORS.get(pruner, pruner)]
    if pruner in ALLOCATORS:
        command += ["pause=true", f"allocator={{kind: {pruner}}}"]
    if budget is not None:
        command.append(f"budget.steps={budget}")
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    wall = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"seed {seed}, {pruner}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
    storage = f"sqlite:///{folder / 'study.sqlite3'}"
    study = optuna.load_study(study_name=None, storage=storage)
    looks: list[float] = []
    trials = []
    for trial in study.get_trials():
        looks += json.loads((folder / "checkpoints" / f"trial-{trial.number:05d}" / "looks.json").read_text())
        values = list(trial.intermediate_values.values())
        finite = [v for v in values if np.isfinite(v)]
        trials.append({"state": trial.state.name, "steps": len(values), "best": min(finite, default=None)})
    best_so_far = improvements(in_order(folder / "study.sqlite3"))
    shutil.rmtree(folder)
    return {
        "wall_s": round(wall, 1),
        "steps": sum(t["steps"] for t in trials),
        "looks": len(looks),
        "look_p50_ms": round(1e3 * float(np.quantile(looks, 0.5)), 3),
        "look_p99_ms": round(1e3 * float(np.quantile(looks, 0.99)), 3),
        "look_total_s": round(sum(looks), 2),
        "trials": trials,
        "best_so_far": best_so_far,
    }


def in_order(study: Path) -> list[float]:
    """The values of every report of a sweep, of all its trials together, in the order in which they were stored."""
    with closing(sqlite3.connect(study)) as db:
        rows = db.execute(
            "SELECT intermediate_value, intermediate_value_type FROM trial_intermediate_values"
            " ORDER BY trial_intermediate_value_id"
        )
        return [value if kind == "FINITE" else float("nan") for value, kind in rows]


def best_complete(result: dict[str, Any]) -> float:
    """What the sweep hands to its user: the best value of a COMPLETE trial; of any, where none got to its end."""
    known = [t for t in result["trials"] if t["best"] is not None]
    return min(float(t["best"]) for t in [t for t in known if t["state"] == "COMPLETE"] or known)


def table(results: dict[str, Any]) -> str:
    """Markdown, one row a pruner or allocator: means over seeds, ranges where they say more."""
    runs: dict[str, dict[str, Any]] = results["runs"]
    seeds = sorted({int(key.split("/")[0]) for key in runs})
    seeds = [seed for seed in seeds if all(f"{seed}/{pruner}" in runs for pruner in PRUNERS)]
    head = (
        "| pruner | steps spent | of no pruning | best val_loss | winner lost | wall clock |"
        " a look, p50 / p99 |\n|---|---|---|---|---|---|---|"
    )
    if not seeds:
        return "no seed has been run with every pruner yet"
    lines = [head]
    for pruner in PRUNERS:
        of = [runs[f"{seed}/{pruner}"] for seed in seeds]
        full = [runs[f"{seed}/none"] for seed in seeds]
        lost = 0
        for result, reference in zip(of, full, strict=True):
            winner = int(np.argmin([t["best"] if t["best"] is not None else np.inf for t in reference["trials"]]))
            lost += result["trials"][winner]["state"] == "PRUNED"
        share = [r["steps"] / f["steps"] for r, f in zip(of, full, strict=True)]
        wall = [r["wall_s"] / f["wall_s"] for r, f in zip(of, full, strict=True)]
        column: Callable[[str], list[float]] = lambda name, of=of: [r[name] for r in of]  # type: ignore[misc] # noqa: E731
        spread = f" +- {stdev(share):.2f}" if len(share) > 1 and pruner != "none" else ""
        lines.append(
            f"| {pruner} | {mean(column('steps')):.0f} | {mean(share):.2f}{spread} | "
            f"{mean(best_complete(r) for r in of):.4f} | {lost} of {len(seeds)} | "
            f"{mean(column('wall_s')):.0f} s ({mean(wall):.2f}) | "
            f"{mean(column('look_p50_ms')):.2f} / {mean(column('look_p99_ms')):.1f} ms |"
        )
    return "\n".join(lines)


def turns_table(results: dict[str, Any]) -> str:
    """Markdown, one row an allocator: means over the seeds that were run with it, beside the same seeds unpruned."""
    runs: dict[str, dict[str, Any]] = results["runs"]
    lines = [
        "| allocator | seeds | steps spent | of no pruning | best val_loss | of no pruning | winner cut |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in ALLOCATORS:
        seeds = [key.split("/")[0] for key in runs if key.endswith(f"/{name}")]
        pairs = [(runs[f"{seed}/{name}"], runs[f"{seed}/none"]) for seed in seeds if f"{seed}/none" in runs]
        if not pairs:
            continue
        lost = 0
        for result, full in pairs:
            winner = int(np.argmin([t["best"] if t["best"] is not None else np.inf for t in full["trials"]]))
            lost += result["trials"][winner]["state"] == "PRUNED"
        lines.append(
            f"| {name} | {len(pairs)} | {mean(one['steps'] for one, _ in pairs):.0f} | "
            f"{mean(one['steps'] / full['steps'] for one, full in pairs):.2f} | "
            f"{mean(best_complete(one) for one, _ in pairs):.4f} | "
            f"{mean(best_complete(full) for _, full in pairs):.4f} | {lost} of {len(pairs)} |"
        )
    return "\n".join(lines)


def later(run: dict[str, Any]) -> dict[str, Any]:
    """What a run brings to an earlier one of the same seed, which counted and timed but did not keep the order."""
    return {"best_so_far": run["best_so_far"], "again": {"steps": run["steps"], "commit": run["commit"]}}


def played(run: dict[str, Any]) -> dict[str, Any]:
    """The run that `best_so_far` is of: its steps and its commit."""
    return dict(run.get("again", run))


def draw(results: dict[str, Any], path: Path) -> list[str]:
    """Best value over steps spent, a line a row: median over seeds, the band from the best to the worst of them.

    Runs that were stored without the order of their reports are left out.

    Returns:
        The rows that have no line for it.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(9, 5.5), layout="constrained")
    left_out = []
    for i, name in enumerate((*PRUNERS, *ALLOCATORS)):
        of = [run for key, run in results["runs"].items() if key.partition("/")[2] == name]
        if not (of := [run for run in of if "best_so_far" in run]):
            left_out.append(name)
            continue
        ends = [played(run)["steps"] for run in of]
        ls = "--" if name in PRUNERS else "-"
        draw_line(ax, [run["best_so_far"] for run in of], ends, name, color=f"C{i}", ls=ls)
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="epochs spent by all trials together",
        ylabel="best val_loss so far",
        xlim=(5, None),
    )
    if ax.get_legend_handles_labels()[0]:
        ax.legend()
    figure.savefig(path, dpi=90)
    plt.close(figure)
    return left_out


def main() -> None:
    """Run what is missing, then print the tables and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0 to N - 1")
    parser.add_argument("--pruners", nargs="+", default=[*PRUNERS, *ALLOCATORS], choices=[*PRUNERS, *ALLOCATORS])
    parser.add_argument("--again", action="store_true", help="run these seeds and pruners again")
    parser.add_argument(
        "--order", action="store_true", help="run what was stored without the order of reports for that"
    )
    parser.add_argument("--work", type=Path, default=Path("runs/e5_digits"), help="scratch folder")
    parser.add_argument("--table", action="store_true", help="only the tables and the plot of what is stored")
    options = parser.parse_args()
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"runs": {}}
    if not options.table:
        sweep = prepare(options.work.resolve())
        for seed in range(options.seeds):
            for pruner in options.pruners:
                key = f"{seed}/{pruner}"
                known = results["runs"].get(key)
                in_order_only = known is not None and options.order and "best_so_far" not in known and not options.again
                if known is not None and not options.again and not in_order_only:
                    continue
                budget = played(results["runs"].get(f"{seed}/curve", {})).get("steps") if pruner == "uniform" else None
                if pruner == "uniform" and budget is None:
                    raise SystemExit(
                        f"seed {seed}: expected the steps that `curve` spent, for uniform; run curve first"
                    )
                print(f"seed {seed}, {pruner}: training ...", file=sys.stderr, flush=True)
                result = run_one(sweep, options.work.resolve(), seed, pruner, budget)
                run = {**result, "commit": provenance.commit(*MADE_BY)}
                results["runs"][key] = {**known, **later(run)} if in_order_only else run
                results["command"] = "python experiments/e5_digits/run.py"
                results["machine"] = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
                scratch = RESULTS.with_suffix(".tmp")
                scratch.write_text(json.dumps(results).replace('"wall_s"', '\n"wall_s"') + "\n")
                scratch.replace(RESULTS)
                print(f"  {result['steps']} steps, {result['wall_s']} s", file=sys.stderr, flush=True)
    print(table(results))
    print(turns_table(results))
    if left_out := draw(results, HERE / "anytime.png"):
        print(f"anytime.png: without {', '.join(left_out)}: not run, or stored without the order of reports")


if __name__ == "__main__":
    main()
