"""What `lcsearch replay` costs, beside the way it went before: one search after another, forecasts of its own for each.

    python benchmarks/replay.py             # both ways in turn, three times, and the ratio of their medians
    python benchmarks/replay.py --quick     # a small study, once
    python benchmarks/replay.py --processes 2 --orders 20    # by the clock, as the command goes on two free cores
    git worktree add ../earlier 00be433 && python benchmarks/replay.py --beside ../earlier    # and that checkout's own

CPU seconds of one process, or seconds on the clock where there are more, on made-up studies of which no policy can stop
much ("late": the ends cannot be foreseen) and of which it can ("power"). Loading torch and the weights is not counted,
except in the processes beside the first one. Both ways come to the same searches but where a P lies within the
network's tolerance of its threshold, for it is asked in other batches: how many saved another share is told. Beyond ten
orders the command searches a policy at its own threshold only. An earlier checkout may make other looks (before 7e3897a
one at every report).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from unittest.mock import patch

from lcsearch.data.synthetic import Kind, synthetic_task
from lcsearch.data.task import Task
from lcsearch.host.in_process import Pretrained
from lcsearch.host.registry import resolve_forecasters
from lcsearch.replay import prefetching
from lcsearch.replay.policies import PolicySpec, policy_spec, session_for
from lcsearch.replay.prefetching import Memo, PrefetchingForecaster
from lcsearch.replay.simulator import simulate
from lcsearch.replay.whatif import THRESHOLDS, replay

POLICIES = ("curve", "median", "asha")
SAME = 0.02
"""Share of the searches that rounding may make differ."""
Saved = dict[tuple[str, float | None], list[float]]


def before(task: Task, entrants: Sequence[PolicySpec], orders: int) -> Saved:
    """One search after another: forecasts of a trial's next cuts in a batch, and no two states of the study alike."""

    def stopper(one: PolicySpec, memos: dict[str, Memo]):  # type: ignore[no-untyped-def]
        if one.policy is None:
            return one.make(task)
        heard = [
            PrefetchingForecaster(resolve_forecasters(name)[0], task, memos.setdefault(name, {}))
            for name in one.forecasters
        ]
        return session_for(one.policy, heard)

    def saved(one: PolicySpec, order: Sequence[int], memos: dict[str, Memo]) -> float:
        found = simulate(task, order, stopper(one, memos))
        return 1.0 - found.spent / found.full_cost

    with patch.dict(prefetching.READS, {Pretrained: lambda snapshot: snapshot.bank}):
        for one in entrants:
            saved(one, range(len(task)), {})
        result: Saved = {}
        for seed in range(orders):
            memos: dict[str, Memo] = {}
            for one in entrants:
                for t in THRESHOLDS if one.policy else (None,):
                    key = one.name, t
                    result.setdefault(key, []).append(saved(one if t is None else one.at(t), task.order(seed), memos))
    return result


def now(task: Task, entrants: Sequence[PolicySpec], orders: int, processes: int = 1) -> Saved:
    """As the command does it."""
    found = replay(task, entrants, orders=orders, processes=processes)
    points = [*found.points, *(point for line in found.frontiers for point in line)]
    return {(point.name, point.threshold): list(point.saved) for point in points}


def elsewhere(checkout: Path, kind: str, runs: int, steps: int, orders: int, clock: str) -> float:
    """Seconds of the replay of another checkout, in a process of its own."""
    script = f"""
import time
from importlib import import_module
def named(*places):  # where it stands, and where it stood before it was renamed
    for module, name in places:
        try:
            return getattr(import_module("lcsearch." + module), name)
        except (ImportError, AttributeError):
            pass
made = named(("data.synthetic", "synthetic_task"), ("data.made", "made"), ("replay.made", "made"))
entrant = named(("replay.policies", "policy_spec"), ("replay.policies", "entrant"))
from lcsearch.replay.whatif import replay
entrants = [entrant(name) for name in {POLICIES}]
replay(made("power", 14, n_steps=14), entrants, orders=1)
start = time.{clock}()
replay(made({kind!r}, {runs}, 1, n_steps={steps}), entrants, orders={orders})
print(time.{clock}() - start)
"""
    env = {**os.environ, "PYTHONPATH": str(checkout.resolve() / "src")}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    """Print a row a study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small study, once")
    parser.add_argument("--orders", type=int, default=5)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--beside", type=Path, help="checkout of an earlier version")
    parser.add_argument("--processes", type=int, default=1)
    settings = parser.parse_args()
    clock = "process_time" if settings.processes == 1 else "perf_counter"
    entrants = [policy_spec(name) for name in POLICIES]
    replay(synthetic_task("power", 14, n_steps=14), entrants, orders=1)  # loads torch and the weights
    studies: list[tuple[Kind, int, int]] = [("late", 25, 20), ("power", 40, 40), ("late", 40, 40)]
    times, orders = (1, 1) if settings.quick else (settings.times, settings.orders)
    if settings.quick:
        studies = [("power", 14, 14)]
    print(f"{'study':>16}  orders  before, s  now, s  ratio")
    for kind, runs, steps in studies:
        task = synthetic_task(kind, runs, 1, n_steps=steps)
        took: dict[str, list[float]] = {"before": [], "now": [], "earlier": []}
        for _ in range(times):
            results = []
            for name, way in (("before", before), ("now", partial(now, processes=settings.processes))):
                start = getattr(time, clock)()
                results.append(way(task, entrants, orders))
                took[name].append(getattr(time, clock)() - start)
            if settings.beside is not None:
                took["earlier"].append(elsewhere(settings.beside, kind, runs, steps, orders, clock))
            # beyond SWEPT orders the command searches no other thresholds than a policy's own
            searches = [
                (x, y) for key, found in results[1].items() for x, y in zip(results[0][key], found, strict=False)
            ]
            differ = sum(x != y for x, y in searches)
            assert differ <= SAME * len(searches), f"{differ} of {len(searches)} searches stopped different trials"
        old, new = (statistics.median(took[name]) for name in ("before", "now"))
        more = ""
        if took["earlier"]:
            earlier = statistics.median(took["earlier"])
            more = f"    {settings.beside.name} {earlier:.2f} s, ratio {earlier / new:.1f}"
        if differ:
            more += f"    {differ} of {len(searches)} searches differ"
        row = f"{kind:>6} {runs:>3} x {steps:<3}  {orders:>6}  {old:9.2f}  {new:6.2f}  {old / new:5.1f}"
        print(row + more, flush=True)


if __name__ == "__main__":
    main()
