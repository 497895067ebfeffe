"""E7: small networks trained for real, lcsearch's first line against Optuna's TPE with Hyperband and Ray's ASHA.

    python experiments/e7_training/run.py               # 2 tasks x 3 seeds x 5 ways, 40 minutes of one core
    python experiments/e7_training/run.py --table       # table.md and anytime.png from the stored results

Every way has one worker, the same number of epochs for all its trials together, and the same training function: what
becomes of a configuration follows from it and from the search's seed, whoever proposes it, and whenever it is paused.
The sizes are those of `configs/` but for what SIZES says. What was run already is kept: the experiment can be
interrupted and goes on where it was.

The ways:
- curve: `lcsearch run` with `pause: true`, `sampler: {kind: curve}`, `pruner: {kind: curve}` and every default;
- tpe-curve: `lcsearch run` with the defaults of a file that says nothing of them, TPE and `curve`; nothing pauses;
- tpe-hyperband, random: Optuna; asha-optuna: Ray Tune; see rivals.py;
- on request, to see what lost where `curve` did: ABLATIONS.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean, median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for what experiments share

import numpy as np
import provenance
from anytime import best_at, draw_line, improvements

from lcsearch.files import write_atomically

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RESULTS, TABLE, PLOT = HERE / "results.json", HERE / "table.md", HERE / "anytime.png"
MADE_BY = ("schedulers", "configs", "experiments/anytime.py", "experiments/e7_training/*.py")
SIZES: dict[str, dict[str, int]] = {"digits_cnn": {}, "char_lm": {"CHARACTERS": 4096, "HELD_WINDOWS": 64}}
"""task -> constants of its module in `configs/` that are other here."""
FIRST = ("pause=true", "sampler={kind: curve}")
ABLATIONS = {
    "curve-random": ("pause=true", "sampler={kind: random}"),
    "curve-late": (*FIRST, "allocator={kind: asha, first: 0.3}"),
    "curve-bounds": (*FIRST, "bounds=[0, null]"),
}
"""`curve` with one thing changed: who proposes; no rung within the longest warm-up; no loss lies below 0."""
OURS = {"curve": FIRST, "tpe-curve": ("sampler={kind: tpe}",), **ABLATIONS}
"""What stands in the file beside the curve pruner."""
RIVALS = ("tpe-hyperband", "asha-optuna")
WAYS = ("curve", *RIVALS, "random", "tpe-curve", *ABLATIONS)
SHARES = (0.25, 0.5, 0.75, 1.0)


def prepare(folder: Path, task: str, seed: int, constants: dict[str, int]) -> Path:
    """A folder with the task's sweep, whose every epoch is written down; returns its sweep file."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in (*(ROOT / "configs").glob("*.py"), HERE / "logged.py"):
        shutil.copy(path, folder / path.name)
    settings = {"task": task, "constants": constants, "seed": seed}
    (folder / "settings.json").write_text(json.dumps(settings))
    text, objective = (ROOT / "configs" / f"{task}.yaml").read_text(), f'"{task}:train"'
    if text.count(objective) != 1:
        raise SystemExit(f"configs/{task}.yaml: expected {objective} once")
    sweep = folder / "sweep.yaml"
    sweep.write_text(text.replace(objective, '"logged:train"'))
    return sweep


def command(sweep: Path, way: str, seed: int, steps: int) -> list[str]:
    """What is typed."""
    if way not in OURS:
        return [str(HERE / "rivals.py"), str(sweep.parent), way, str(steps)]
    typed = ["-m", "lcsearch", "run", str(sweep), "--folder", str(sweep.parent / "run"), "--seed", str(seed)]
    return [*typed, "backend.workers.n=1", f"budget.trials={steps}", f"budget.steps={steps}", *OURS[way]]


def run_one(folder: Path, task: str, seed: int, way: str, sizes: dict[str, Any]) -> dict[str, Any]:
    """One search in a process of its own, so that each pays for its own start."""
    steps = sizes["epochs"]
    sweep = prepare(folder, task, seed, sizes["constants"][task])
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    start = time.time()
    with (folder / "output.txt").open("w") as output:
        words = [sys.executable, *command(sweep, way, seed, steps)]
        done = subprocess.run(words, stdout=output, stderr=subprocess.STDOUT, env=environment, check=False)
    end = time.time()
    if done.returncode:
        told = (folder / "output.txt").read_text()[-4000:]
        raise SystemExit(f"{task}, seed {seed}, {way}: exit code {done.returncode}\n{told}")
    epochs = [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]
    decided = [len(log.read_text().splitlines()) for log in (folder / "run" / "decisions").glob("*.jsonl")]
    return {**account(epochs, start, end), "decisions": sum(decided)}


def account(epochs: list[list[float]], start: float, end: float) -> dict[str, Any]:
    """What a search has come to.

    Args:
        epochs: a row for each, in order: trial, epoch, value, seconds of its training, time.
        start: of its process.
        end: likewise.

    Returns:
        The wall clock, and what of it went before the first epoch began and after the last one was reported, went into
        training, and is left: looks, turns, checkpoints, proposals. `trials`: number -> epochs, best value.
    """
    trials: dict[str, list[float]] = {}
    for number, _, value, *_ in epochs:
        so_far = trials.setdefault(str(int(number)), [0, float("inf")])
        so_far[0] += 1
        so_far[1] = min(so_far[1], value) if np.isfinite(value) else so_far[1]
    wall, training = end - start, sum(row[3] for row in epochs)
    around = epochs[0][4] - epochs[0][3] - start + end - epochs[-1][4]
    return {
        "epochs": len(epochs),
        "wall_s": round(wall, 2),
        "training_s": round(training, 2),
        "start_and_end_s": round(around, 2),
        "deciding_s": round(wall - training - around, 2),
        "trials": {number: [n, best if np.isfinite(best) else None] for number, (n, best) in trials.items()},
        "best_so_far": improvements(row[2] for row in epochs),
    }


def first_at(run: dict[str, Any], value: float) -> int | None:
    """The epochs after which a search knew a value as good as this one; None: it never did."""
    return next((int(spent) for spent, best in run["best_so_far"] if best <= value), None)


def runs_of(results: dict[str, Any], task: str, way: str) -> dict[str, dict[str, Any]]:
    """seed -> run."""
    found = {key.split("/")[1]: run for key, run in results["runs"].items() if key.split("/")[::2] == [task, way]}
    return dict(sorted(found.items()))


def to_rival(results: dict[str, Any], task: str, way: str) -> list[int | None]:
    """A seed each: the epochs to what the best rival, one of others', ended with."""
    limit = results["sizes"]["epochs"]
    found = []
    for seed, run in runs_of(results, task, way).items():
        rivals = [runs_of(results, task, rival).get(seed) for rival in RIVALS if rival != way]
        if all(rival is not None for rival in rivals):
            ends = [float(best_at(rival["best_so_far"], np.array([limit]))[0]) for rival in rivals if rival]
            found.append(first_at(run, min(ends)))
    return found


def table(results: dict[str, Any]) -> str:
    """Markdown: for each task a row a way."""
    lines: list[str] = []
    steps = results["sizes"]["epochs"]
    for task in SIZES:
        constants = results["sizes"]["constants"][task]
        changed = ", ".join(f"{name} {value}" for name, value in constants.items())
        lines += [f"## {task}: {steps} epochs for each search{f' ({changed})' if changed else ''}", ""]
        shares = " | ".join(f"{share:.0%}" for share in SHARES)
        lines.append(f"| way | seeds | {shares} | worst to best | epochs to the best rival's end | trials | complete |")
        lines.append("|---" * (6 + len(SHARES)) + "|")
        for way in WAYS:
            if not (runs := list(runs_of(results, task, way).values())):
                continue
            grid = np.array([round(share * steps) for share in SHARES])
            best = np.stack([best_at(run["best_so_far"], grid) for run in runs])
            reached = [f"{n}" if n is not None else "-" for n in to_rival(results, task, way)]
            horizon = max(n for run in runs for n, _ in run["trials"].values())
            complete = [sum(n >= horizon for n, _ in run["trials"].values()) for run in runs]
            row = [way, str(len(runs)), *(f"{value:.4f}" for value in best.mean(axis=0))]
            row += [f"{best[:, -1].max():.4f} to {best[:, -1].min():.4f}", ", ".join(reached) or "?"]
            row += [f"{mean(len(run['trials']) for run in runs):.0f}", f"{mean(complete):.0f}"]
            lines.append("| " + " | ".join(row) + " |")
        lines.append("")
    return "\n".join([*lines, seconds(results)])


def seconds(results: dict[str, Any]) -> str:
    """Markdown: what the wall clock went into, medians over seeds, a row for each task and way."""
    lines = ["## Seconds", "", "| task | way | wall clock | training | start and end | the rest | ms an epoch |"]
    lines.append("|---" * 7 + "|")
    names = ("wall_s", "training_s", "start_and_end_s", "deciding_s")
    for task in SIZES:
        for way in WAYS:
            if runs := list(runs_of(results, task, way).values()):
                told = [f"{median(run[name] for run in runs):.0f}" for name in names]
                each = median(1e3 * run["deciding_s"] / run["epochs"] for run in runs)
                lines.append(f"| {task} | {way} | {' | '.join(told)} | {each:.0f} |")
    return "\n".join([*lines, ""])


def draw(results: dict[str, Any], path: Path) -> None:
    """Best value over epochs, a panel a task, a line a way."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(SIZES), figsize=(11, 4.2), layout="constrained")
    for ax, task in zip(axes, SIZES, strict=True):
        for i, way in enumerate(WAYS):
            if runs := list(runs_of(results, task, way).values()):
                ends = [min(run["epochs"], results["sizes"]["epochs"]) for run in runs]
                ls = "-" if way in OURS else "--"
                draw_line(ax, [run["best_so_far"] for run in runs], ends, way, color=f"C{i}", ls=ls)
        ax.set(title=task, xlabel="epochs spent by all trials together", yscale="log", xlim=(10, None))
        if ax.get_legend_handles_labels()[0]:
            ax.legend()
    axes[0].set_ylabel("best val_loss so far")
    figure.savefig(path, dpi=80)
    plt.close(figure)


def main() -> None:
    """Run what is missing, then write the tables and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 to N - 1")
    parser.add_argument("--ways", nargs="+", default=WAYS[:5], choices=WAYS, help="the five by themselves")
    parser.add_argument("--tasks", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--epochs", type=int, default=300, help="of all trials of a search together: ten whole trials")
    parser.add_argument("--characters", type=int, default=4096, help="that char_lm trains between two evaluations")
    parser.add_argument("--results", type=Path, default=RESULTS, help="other sizes need another file")
    parser.add_argument("--work", type=Path, default=Path("runs/e7_training"), help="scratch folder; logs stay there")
    parser.add_argument("--table", action="store_true", help="only the tables and the plot of what is stored")
    options = parser.parse_args()
    constants = {**SIZES, "char_lm": {**SIZES["char_lm"], "CHARACTERS": options.characters}}
    sizes = {"epochs": options.epochs, "constants": constants}
    results: dict[str, Any] = {"sizes": sizes, "runs": {}}
    if options.results.exists():
        results = json.loads(options.results.read_text())
    if not options.table:
        if results["sizes"] != sizes:
            raise SystemExit(
                f"{options.results}: expected runs of {sizes}, got {results['sizes']}; name other --results"
            )
        wanted = [(t, seed, way) for seed in range(options.seeds) for way in options.ways for t in options.tasks]
        for task, seed, way in sorted(wanted, key=lambda run: (run[2] not in ("curve", *RIVALS), run[1])):
            key = f"{task}/{seed}/{way}"
            if key in results["runs"]:
                continue
            print(f"{key}: training ...", file=sys.stderr, flush=True)
            run = run_one(options.work.resolve() / key, task, seed, way, sizes)
            results["runs"][key] = {**run, "commit": provenance.commit(*MADE_BY)}
            results["command"] = "python experiments/e7_training/run.py"
            results["machine"] = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
            text = json.dumps(results).replace('"epochs": ', '\n"epochs": ')
            write_atomically(options.results, f"{text}\n".encode())
            print(f"  {run['epochs']} epochs, {run['wall_s']} s", file=sys.stderr, flush=True)
    text = table(results)
    options.results.with_name(TABLE.name).write_text(text)
    draw(results, options.results.with_name(PLOT.name))
    print(text)


if __name__ == "__main__":
    main()
