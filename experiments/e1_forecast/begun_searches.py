"""E1 in searches: levels and ranks of forecasts at the moments at which an allocator decides.

    LCSEARCH_DATA=.../data python experiments/e1_forecast/begun_searches.py
    python experiments/e1_forecast/begun_searches.py --quick         # made curves, seconds, nothing is kept

The contexts of `begun.py` are made by hand; these are what the default allocator (asynchronous successive halving by
promotion, its lowest rung at 2 % of the horizon) leaves behind: one worker, a budget of 20 whole runs, random order of
one finite curve of full length a configuration. It asks no forecaster, so all rows are asked in the same contexts: at
its first decision after 5, 10, 25, 50 and 95 % of the budget were spent. Asked is the final value of every begun trial
that is not COMPLETE, and of the next 200 configurations of the order, of which nothing was trained.

Rows and scores are those of `begun.py`, on half b. PIT: .5 is honest, above it forecasts are too optimistic. Figures
are means over seeds, then over tasks.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: processes that share cores slow each other down

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for what experiments share

import numpy as np
from begun_questions import QUESTIONS, Round, encoded, unlike
from begun_rows import Row, row
from begun_scores import METRICS, figures
from pieces import HERE, ROOMS, clean, entered, half_told, keep_results, stamp
from questions import RealCurves, curves_of
from report import show

from lcsearch.allocation.arms import Around
from lcsearch.allocation.contract import Allocator, Slots
from lcsearch.allocation.named import allocator
from lcsearch.curves import Curve, Floats
from lcsearch.data.task import Run, Task
from lcsearch.forecast.contract import Query
from lcsearch.goal import Goal
from lcsearch.replay.baselines import Never
from lcsearch.replay.simulator import World, simulate
from lcsearch.study import Snapshot, Status, Trial

COMMAND = "LCSEARCH_DATA=.../data python experiments/e1_forecast/begun_searches.py"
SOURCES = ("lcbench", "taskset_adam8p", "arlbench", "deepobs_baselines")
ROWS = ("nothing", "value", "forest", "extra-trees", "gp", "network")
TRIED = """\
On half a, at 95 % of the budget, Spearman of unseen trials and of begun ones. 4 tasks of LCBench and 1 of TaskSet: 256
trials in the context in place of 128 .695, .504 and .528, .655 for .649, .490 and .533, .648, for twice the time. Not
kept. The spread, once 5 trials are COMPLETE, as the geometric mean of theirs and that of all begun trials, for theirs
alone, two orders each: LCBench .745, .714 and .776, .666 for .739, .702 and .769, .663; TaskSet .560, .741 and .598,
.735 for .566, .740 and .443, .581; ARLBench .394, .302 and .485, .615 for .414, .357 and .487, .614; CRPS fell by 9 to
17 % on LCBench and hardly changed elsewhere. Kept. The spread of all: as good on TaskSet, log-loss somewhat worse.
"""
RUNS, SHARES, UNSEEN = 20, (0.05, 0.1, 0.25, 0.5, 0.95), 200
SCRIPTS = (
    *(HERE / f"{name}.py" for name in ("begun_searches", "begun_questions", "begun_rows", "begun_scores")),
    *(HERE / f"{name}.py" for name in ("entrants", "questions", "scores")),
)
COLUMNS = {"PIT": ("pit", 2), "in 50 %": ("in_50", 2), "in 80 %": ("in_80", 2), "in 95 %": ("in_95", 2)} | {
    "Spearman": ("spearman", 3),
    "log-loss": ("log_loss", 3),
    "CRPS": ("crps", 3),
    "absent": ("absent", 2),
}


@dataclass
class Watched(Around):
    """Another allocator, and the study as it stood at its first decision after each of SHARES was spent."""

    allocator: Allocator
    seen: list[Snapshot] = field(default_factory=list)

    def questions(self, state: Any, snapshot: Snapshot, slots: Slots) -> tuple[Query, ...]:
        spent, total = slots.account.spent, slots.account.total
        while total is not None and len(self.seen) < len(SHARES) and spent >= SHARES[len(self.seen)] * total:
            self.seen.append(snapshot)
        return super().questions(state, snapshot, slots)


def searches(task: RealCurves, seed: int) -> Iterator[tuple[int, Round]]:
    """(index into SHARES, what is asked then) of one search."""
    order = unlike(task, seed)
    runs = tuple(
        Run(f"t{i}", Curve.of(task.steps, task.losses[i]), task.steps - min(task.steps[0] - 1.0, 0.0), task.params[i])
        for i in order.tolist()
    )
    goal = Goal("loss", "minimize", float(task.steps[-1]), "final")
    whole = Task(task.name, goal, runs)
    watched = Watched(allocator(first=max(0.02, float(task.steps[0]) / goal.horizon)))
    world = World(1, RUNS * runs[0].cost, seed=seed)
    simulate(whole, range(len(runs)), Never(), world, watched)
    features = encoded([run.params for run in runs])
    finals = {run.uid: float(run.curve.values[-1]) for run in runs}
    place = {run.uid: i for i, run in enumerate(runs)}
    for at, snapshot in enumerate(watched.seen):
        yield at, _round(snapshot, runs, features, finals, place)


def _round(
    snapshot: Snapshot, runs: Sequence[Run], features: Floats, finals: dict[str, float], place: dict[str, int]
) -> Round:
    live = tuple(trial for trial in snapshot.live if trial.curve.n_reports)
    begun = (*snapshot.bank, *live)
    done = [trial for trial in snapshot.bank if trial.status is Status.COMPLETE]
    first = 1 + max(place[trial.uid] for trial in (*begun, *snapshot.live))
    pool = [Trial(run.uid, params=run.params) for run in runs[first : first + UNSEEN]]
    asked = [*pool, *live]
    shown = np.array([trial.curve.values[-1] for trial in begun])
    standing = np.empty(len(begun), np.int64)
    standing[np.lexsort((shown, [-trial.curve.last_step for trial in begun]))] = np.arange(len(begun))
    ends = [finals[trial.uid] for trial in done]
    return Round(
        "search",
        snapshot,
        begun,
        shown,
        standing,
        [Query(trial, "value", snapshot.goal.horizon) for trial in asked],
        len(pool),
        np.array([finals[trial.uid] for trial in asked]),
        min(ends) if ends else min(float(trial.curve.values.min()) for trial in begun),
        1.0 / (1 + (len(done) or len(begun))),
        (features[[place[trial.uid] for trial in begun]], features[[place[trial.uid] for trial in asked]]),
    )


def play(task: RealCurves, rows: Sequence[Row], seeds: int) -> dict[str, Any]:
    """Means over seeds: how many are begun and COMPLETE, and of every row METRICS of both questions, at each share."""
    counts = np.full((seeds, len(SHARES), 2), np.nan)
    found = {who.label: np.full((seeds, len(SHARES), 2, len(METRICS)), np.nan) for who in rows}
    for seed in range(seeds):
        for at, asked in searches(task, seed):
            counts[seed, at] = len(asked.begun), asked.snapshot.bank.n_complete
            for who in rows:
                said = who.say(asked)
                for q, which in enumerate((slice(asked.unseen), slice(asked.unseen, None))):
                    if len(asked.finals[which]):
                        found[who.label][seed, at, q] = figures(asked, said, task.unit, which)
    return {"counts": _mean(counts), **{label: _mean(x) for label, x in found.items()}}


def _mean(x: Floats) -> Floats:
    """Over the first axis, of what is there."""
    there = np.isfinite(x)
    with np.errstate(invalid="ignore"):
        mean: Floats = np.where(there, x, 0.0).sum(0) / there.sum(0)
    return mean


def table(results: dict[str, Any]) -> str:
    """Markdown."""
    shares = " / ".join(f"{share:.0%}" for share in SHARES)
    lines = [
        f"`{COMMAND}`. What is asked and what the figures are: `begun_searches.py`; shares of the budget: {shares}."
    ]
    lines += ["", *TRIED.splitlines()]
    for section, content in results["sections"].items():
        for source, found in content["sources"].items():
            counts = [" / ".join(show(x, 0) for x in one) for one in zip(*found["counts"], strict=True)]
            lines += [
                "",
                f"## {section}: {source} ({len(found['tasks'])} tasks), begun {counts[0]}, COMPLETE {counts[1]}",
            ]
            for question in QUESTIONS:
                head = [question, *COLUMNS]
                lines += ["", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
                for label, cells in found["rows"].items():
                    values = ["/".join(show(x, d) for x in cells[question][name]) for name, d in COLUMNS.values()]
                    lines.append(f"| {' | '.join([label, *values])} |")
    return "\n".join(lines) + "\n"


def run(args: argparse.Namespace) -> None:
    """What main does with its arguments."""
    path = args.out / "begun_searches.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"sections": {}}
    section = f"{half_told(args.half)}, {args.seeds} orders a task"
    if not args.table:
        stamped, rows = stamp(COMMAND, ROOMS, SCRIPTS), entered(row, args.forecasters)
        sources = results["sections"].setdefault(section, {"sources": {}})["sources"]
        for source in args.sources:
            tasks, lines = curves_of(source, None if args.data is None else Path(args.data), args.half)
            print("\n".join(lines) + "\n" * bool(lines), end="", flush=True)
            played = []
            for task in tasks:
                played.append(play(task, rows, args.seeds))
                print(f"{source} {task.name}: played", flush=True)
            if played:
                sources[source] = clean(_section(tasks, played, rows) | {"about": stamped})
        keep_results(path, results)
    (args.out / "begun_searches.md").write_text(table(results))
    print(table(results))


def _section(tasks: Sequence[RealCurves], played: Sequence[dict[str, Any]], rows: Sequence[Row]) -> dict[str, Any]:
    means = {name: _mean(np.stack([one[name] for one in played])) for name in played[0]}
    return {
        "tasks": [task.name for task in tasks],
        "counts": means["counts"].tolist(),
        "rows": {
            who.label: {
                question: {name: means[who.label][:, q, i].tolist() for i, name in enumerate(METRICS)}
                for q, question in enumerate(QUESTIONS)
            }
            for who in rows
        },
        "versions": {who.label: who.version for who in rows},
    }


def main() -> None:
    """Play, then print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("LCSEARCH_DATA"))
    parser.add_argument("--half", choices=("a", "b", "all"), default="b")
    parser.add_argument("--sources", nargs="+", default=list(SOURCES))
    parser.add_argument("--seeds", type=int, default=1, help="searches a task")
    parser.add_argument("--forecasters", nargs="+", default=list(ROWS))
    parser.add_argument("--out", type=Path, default=HERE, help="where results and table go")
    parser.add_argument("--table", action="store_true", help="only the table of begun_searches.json")
    parser.add_argument("--quick", action="store_true", help="made curves, one search a task, nothing is kept")
    args = parser.parse_args()
    if args.quick:
        with tempfile.TemporaryDirectory() as folder:
            args.out, args.sources, args.half, args.seeds = Path(folder), ["made"], "all", 1
            run(args)
    else:
        run(args)


if __name__ == "__main__":
    main()
