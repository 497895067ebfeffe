"""E3 and E4: where the next report's compute goes, on tables of real curves, own policies and the peers' own code.

    LCSEARCH_DATA=.../data python experiments/e3_freeze_thaw/run.py                  # goes on where it was
    LCSEARCH_DATA=.../data python experiments/e3_freeze_thaw/run.py --only asha going-rate --workers 1 --seeds 2
    LCSEARCH_DATA=.../data python experiments/e3_freeze_thaw/run.py --minutes 50     # begins nothing more after that
    LCSEARCH_DATA=.../data python experiments/e3_freeze_thaw/run.py --export         # tasks as .npz, for peers/
    LCSEARCH_DATA=.../data python experiments/e3_freeze_thaw/run.py --flipped        # wrong forecasts, one worker
    python experiments/e3_freeze_thaw/run.py --table                           # results.md and plot of what is kept

The protocol stands in README.md beside this file. Searches are played seed by seed, one worker and free checkpoints
first, so that whatever was reached when the time ran out can be compared.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for what experiments share
sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
import provenance
import research
from one_epoch import OneEpoch
from searches import PARTS, RUNS, WORLDS, Piece, Table, Where, row_of, write_table
from summary import CURRICULA, FLIPPED, LEASHED, OURS, SHARES, write

from lcsearch.allocation.arms import Around
from lcsearch.allocation.contract import Abilities, Allocation, Allocator, Key, Slots
from lcsearch.allocation.named import allocator
from lcsearch.data import tables
from lcsearch.data.task import Task
from lcsearch.forecast.contract import Absent, Answers, Forecaster, Forecasts, Query
from lcsearch.host.registry import resolve_forecasters
from lcsearch.pretrain.real_tables import half_of, logarithmic, scaled
from lcsearch.proposal import ByForecast, ByProgress, Proposer
from lcsearch.replay.baselines import Never
from lcsearch.replay.oracle import Flipped, Oracle
from lcsearch.replay.simulator import World, simulate
from lcsearch.study import Snapshot

HERE = Path(__file__).resolve().parent
SOURCES = ("lcbench", "taskset_adam8p", "arlbench")
SEEDS = 5
ROOMS = (
    *("*.py", "study/*.py", "forecast/*.py", "forecast/network/*.py", "stopping/*.py", "allocation/**/*.py"),
    *("data/*.py", "weights/*.py", "weights/weights.json", "pretrain/real_tables.py", "replay/*.py"),
)


class Own(NamedTuple):
    """A policy of ours: its allocator, made for one report as a share of the horizon, who forecasts, and who chooses
    configurations.
    """

    make: Callable[[float], Allocator]
    forecasts: Callable[[Task], Sequence[Forecaster]] = lambda task: ()
    proposer: Proposer | None = None


def rungs(name: str) -> Callable[[float], Allocator]:
    """An allocator with rungs, the lowest at the first report."""
    return lambda report: allocator(name, first=report)


def network(task: Task) -> Sequence[Forecaster]:
    """The weights that are shipped."""
    return resolve_forecasters("network")


@dataclass(frozen=True, eq=False)
class Unbegun:
    """Another forecaster, for trials without a report only: beside the oracle, who knows no others."""

    inner: Forecaster

    @property
    def name(self) -> str:
        return f"{self.inner.name}-unbegun"

    @property
    def version(self) -> str:
        return self.inner.version

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        told = self.inner.forecast(snapshot, queries)
        begun = np.array([query.trial.curve.n_reports > 0 for query in queries], np.bool_)
        absent = tuple(Absent.UNSUPPORTED if b else why for b, why in zip(begun, told.absent, strict=True))
        knots, levels, tails = (np.where(begun[:, None], np.nan, a) for a in (told.knots, told.levels, told.tails))
        return Forecasts(knots, levels, tails, told.sign, absent, f"{self.name}/{self.version}")


def wrong(share: float) -> Callable[[Task], Sequence[Forecaster]]:
    """The network, whose P(beat) is turned into 1 - P(beat) for a share of the trials."""
    return lambda task: tuple(Flipped(one, share, seen=True) for one in network(task))


POLICIES = {
    "asha": Own(rungs("asha")),
    "going-rate": Own(rungs("going-rate"), network),
    "going-rate, oracle": Own(rungs("going-rate"), lambda task: (Oracle(task),)),
    "asha, proposals": Own(rungs("asha"), network, ByForecast()),
    "asha, alp-gmm": Own(rungs("asha"), network, ByProgress()),
    "going-rate, proposals": Own(rungs("going-rate"), network, ByForecast()),
    "going-rate, oracle, proposals": Own(
        rungs("going-rate"), lambda task: (Oracle(task), *map(Unbegun, network(task))), ByForecast()
    ),
    "random, proposals": Own(lambda report: allocator("run-to-end"), network, ByForecast()),
    "run-to-end": Own(lambda report: allocator("run-to-end")),
    "uniform": Own(lambda report: allocator("uniform", quantum=report, n_arms=2 * RUNS)),
    "one-epoch": Own(OneEpoch),
    "hyperband": Own(rungs("hyperband")),
    "halving": Own(rungs("halving")),
    "greedy": Own(lambda report: allocator("greedy", quantum=report), network),
    **{name: Own(rungs(name), network) for name in CURRICULA},
    **{f"{name}, oracle": Own(rungs(name), lambda task: (Oracle(task),)) for name in LEASHED},
    **{f"{name}, proposals": Own(rungs(name), network, ByForecast()) for name in LEASHED},
    **{f"{OURS}, flipped {share:g}": Own(rungs("asha"), wrong(share), ByForecast()) for share in SHARES},
    **{f"{name}, flipped {share:g}": Own(rungs(name), wrong(share)) for name in LEASHED for share in SHARES},
}
SLOW = ("greedy",)
"""Forecasts every paused trial at every report: on the first seed only, after everything else in its world."""


def one_of_each(task: Task) -> Task:
    """The task with one run, drawn at random, of each configuration: arlbench ran each with ten seeds."""
    seen: dict[Any, int] = {}
    for row in task.order(0):
        seen.setdefault(tuple(sorted((name, str(v)) for name, v in task.runs[row].params.items())), row)
    return task if len(seen) == len(task) else task.pick(sorted(seen.values()))


def report_of(task: Task) -> float:
    """The first report, as a share of the horizon."""
    return min(run.steps[0] for run in task.runs if run.steps) / task.goal.horizon


def whole_run(task: Task) -> float:
    """What a run to the horizon costs."""
    return max(run.cost for run in task.runs)


def play(task: Task, where: Where, own: Own, seed: int, by: str) -> dict[str, Any]:
    """One search."""
    run, report = whole_run(task), report_of(task)
    price = where.price * report * run
    world = World(where.workers, RUNS * run, checkpoint=price, resume=price, seed=seed)
    heard = own.forecasts(task)
    start = time.process_time()
    allocator = Timed(own.make(report))
    found = simulate(task, task.order(seed), Never(), world, allocator, heard, own.proposer)
    took = time.process_time() - start
    trace = [(cost / run, loss) for _, cost, loss in found.trace]
    row: dict[str, Any] = row_of(seed, trace, len(found.lives), sum(life.shown for life in found.lives), took, by)
    return row | {"decision": [round(1e3 * float(q), 2) for q in np.quantile(allocator.took, [0.5, 0.99])]}


@dataclass
class Timed(Around):
    """Another allocator, and the seconds of processor time of each decision, its forecasts included."""

    allocator: Allocator
    took: list[float] = field(default_factory=list)
    start: float = 0.0

    def questions(self, state: Any, snapshot: Snapshot, slots: Slots) -> tuple[Query, ...]:
        self.start = time.process_time()
        return super().questions(state, snapshot, slots)

    def allocate(
        self, state: Any, snapshot: Snapshot, forecasts: Answers, abilities: Abilities, slots: Slots, key: Key
    ) -> Allocation:
        made = super().allocate(state, snapshot, forecasts, abilities, slots, key)
        self.took.append(time.process_time() - self.start)
        return made


def load(data: Path, source: str) -> Iterator[Task]:
    """Half b of a source."""
    table = tables.Table(data / source, research.CAVEATS)
    for name in half_of(table.tasks, "b"):
        if (task := table.task(name)) is not None:
            yield one_of_each(task)


def jobs(names: Sequence[str], worlds: Sequence[Where], seeds: int) -> Iterator[tuple[Where, str, int]]:
    """What is to be played: seed by seed, free checkpoints and one worker first."""
    for where in worlds:
        for seed in range(seeds):
            yield from ((where, name, seed) for name in names if name not in SLOW)
        yield from ((where, name, 0) for name in names if name in SLOW)


def as_table(source: str, task: Task, logs: Any) -> Table:
    """For the peers. Of runs without their first reports, columns count from the task's first step."""
    longest = max(task.runs, key=lambda run: len(run.steps)).steps
    column = {step: i for i, step in enumerate(longest)}
    losses = np.full((len(task), len(longest)), np.nan)
    for row, run in zip(losses, task.runs, strict=True):
        for step, value in zip(run.steps, run.values, strict=True):
            row[column[step]] = task.goal.sign * value
    params, kinds = scaled([run.params for run in task.runs], logs)
    return Table(source, task.name, losses, params, kinds)


def export(data: Path, sources: Sequence[str]) -> None:
    """The tasks as the peers read them, and what regrets are normalised by."""
    for source in sources:
        logs = logarithmic(tables.Table(data / source))
        for task in load(data, source):
            write_table(PARTS / "tables" / f"{source}--{task.name}.npz", as_table(source, task, logs))


def run(data: Path, args: argparse.Namespace) -> None:
    """Play what is not kept."""
    by = provenance.fingerprint(ROOMS, Path(__file__), HERE / "one_epoch.py", research.FILE)
    worlds = [where for where in WORLDS if where.workers in args.workers and where.price in args.prices]
    todo = list(jobs(args.only or [name for name in POLICIES if name not in FLIPPED], worlds, args.seeds))
    tasks = {source: list(load(data, source)) for source in args.sources}
    begun, done, n_all = time.monotonic(), 0, len(todo) * len(tasks)
    for n, (where, name, seed) in enumerate(todo):
        for source, members in tasks.items():
            piece, start = Piece(where, name, source), time.monotonic()
            missing = [task for task in members if not piece.has(task.name, seed)]
            for task in missing:
                if args.minutes is not None and time.monotonic() - begun > 60 * args.minutes:
                    print(f"{args.minutes:g} minutes are over; the same command goes on", flush=True)
                    return
                piece.add(task.name, play(task, where, POLICIES[name], seed, by))
            if missing:
                done += 1
                now = time.monotonic()
                left = (now - begun) / done * (n_all - len(tasks) * n - list(tasks).index(source) - 1) / 60
                said = f"{len(missing)} searches, {now - start:.0f} s; about {left:.0f} min to go at most"
                print(f"{where} {name} seed {seed} {source}: {said}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("LCSEARCH_DATA"))
    parser.add_argument("--only", nargs="+", choices=list(POLICIES), metavar="POLICY")
    parser.add_argument("--sources", nargs="+", choices=SOURCES, default=list(SOURCES))
    parser.add_argument("--workers", nargs="+", type=int, choices=(1, 4, 16), default=[1, 4, 16])
    parser.add_argument("--prices", nargs="+", type=int, choices=(0, 1), default=[0, 1])
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--minutes", type=float, help="begin no search after so many")
    parser.add_argument("--export", action="store_true", help="write the tasks as .npz for the peers' runners")
    parser.add_argument("--flipped", action="store_true", help="only the policies with wrong forecasts, one worker")
    parser.add_argument("--table", action="store_true", help="only results.md and plot, of what is kept")
    args = parser.parse_args()
    if args.flipped:
        args.only, args.workers, args.prices = ["asha", *FLIPPED], [1], [0]
    if not args.table:
        if args.data is None:
            raise SystemExit("expected the data's folder, got none. Set LCSEARCH_DATA or --data.")
        data = Path(args.data)
        for source in [source for source in args.sources if not (data / source).is_dir()]:
            print(f"{source}: skipped, not found in {data}")
            args.sources.remove(source)
        if args.export:
            export(data, args.sources)
            return
        run(data, args)
    write(PARTS, HERE)


if __name__ == "__main__":
    main()
