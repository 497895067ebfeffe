"""What a forecast by the network costs, beside the other forecasters and the published transformers in the same run.

    python benchmarks/network.py              # seven minutes on a busy core; prints a table
    python benchmarks/network.py --quick --json speed.json

Rows: one trial; 100 trials and 1000 trials in one batch (24 of 50 reports each, 100 finished trials beside them); a
decision, which is one new report and two queries (both cuts), in studies of 10 to 10 000 finished trials; and the
first decision after a trial has finished, when the network reads the context anew. A round of an allocated search of
200 or 1000 begun trials, none of them complete: after one of them has made a report all of these are asked about, and
64 configurations that are not begun; beside it a look (two queries about that trial) in the same study. Reading the
study is no part of any: snapshots are made before the clock starts. Every trial has four parameters; no call repeats a
curve.

Beside it: the parametric ensemble; the field's MCMC (`benchmarks/peers/mcmc.py`); and transformers of the published
sizes of LC-PFN (100 tokens a curve, as it is trained; 100 curves at a time) and FT-PFN (a context of 1000 tokens, then
the queries, in one sequence), made of plain torch.nn modules with random weights: speed depends on sizes only. They are
no reimplementations and forecast nothing. What they and the MCMC cost does not depend on the size of the study
(FT-PFN takes 1000 reports at most), so they answer one decision only.

Each row is measured in a process of its own, forked before torch has computed anything: medians after warm-up, wall
clock and CPU time of all threads. "memory" is how far the process's peak (getrusage) rose above what it was before
the model was made: weights, activations, what torch sets up at first, and what a study is remembered by.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

sys.path.append(str(Path(__file__).resolve().parent / "peers"))  # for mcmc

import numpy as np
import torch
from mcmc import EnsembleMCMC
from torch import Tensor, nn

from lcsearch import Curve, FinishedTrials, Goal, Query, Snapshot, Status, Trial, __version__
from lcsearch.curves import Floats
from lcsearch.forecast.contract import Forecaster
from lcsearch.forecast.network.forecaster import NetworkForecaster
from lcsearch.forecast.network.model import CurveNetwork
from lcsearch.forecast.network.size import Size
from lcsearch.forecast.parametric import ParametricEnsemble
from lcsearch.weights import shipped
from lcsearch.weights import store as weights

STEPS, SEEN = 50, 24
SLOW = 5.0  # seconds: of a row whose first call takes longer, one more is measured
NEW = 64  # configurations in a round
RUNGS = (1, 3, 9, 27)  # reports at which trials are paused
POOL = 16  # running trials that decisions take turns on

Call = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """One kind of question.

    Attributes:
        name: for the table.
        trials: asked about in one batch.
        finished: trials in the study.
        cuts: of each trial that are asked about.
        renewed: one more trial has finished since the last call.
        begun: paused trials; one has made a report since the last call.
        new: configurations that are not begun and asked about, beside all that are; 0: only the one that reported is.
    """

    name: str
    trials: int
    finished: int = 100
    cuts: int = 1
    renewed: bool = False
    begun: int = 0
    new: int = 0


def cases(sizes: Sequence[int], batches: Sequence[int], begun: Sequence[int]) -> list[Case]:
    """All rows' questions."""
    some = [Case("1 trial" if n == 1 else f"{n} trials", n) for n in batches]
    some += [Case(f"decision, {n} finished", 1, n, 2) for n in sizes]
    some += [Case(f"first after a finish, {n}", 1, n, 2, True) for n in sizes if n in (min(sizes), max(sizes))]
    for n in begun:
        some += [
            Case(f"round, {n} begun + {NEW}", n + NEW, 0, begun=n, new=NEW),
            Case(f"look, {n} begun", 1, 0, 2, begun=n),
        ]
    return some


@dataclass(frozen=True)
class Row:
    """What was measured: milliseconds a call, megabytes."""

    case: str
    method: str
    trials: int
    finished: int
    queries: int
    calls: int
    wall_ms: float
    wall_p90_ms: float
    cpu_ms: float
    memory_mb: float
    parameters: int


def curves(n: int, rng: np.random.Generator) -> Floats:
    """(n, STEPS) saturating losses with noise."""
    limit, rate = rng.uniform(0, 1, (n, 1)), rng.uniform(0.05, 0.4, (n, 1))
    return np.asarray(limit + np.exp(-rate * np.arange(STEPS)) + 0.005 * rng.standard_normal((n, STEPS)))


def trials_of(losses: Floats, word: str, rng: np.random.Generator, status: Status = Status.RUNNING) -> list[Trial]:
    """Trials with four parameters each."""
    made = []
    for i, row in enumerate(losses):
        rate, decay, depth = float(10 ** rng.uniform(-5, -1)), float(rng.uniform(0, 0.1)), int(rng.integers(1, 9))
        params = {"rate": rate, "decay": decay, "depth": depth, "optimizer": "adam" if rng.random() < 0.5 else "sgd"}
        made.append(Trial(f"{word}{i}", Curve.of(np.arange(row.size), row), params, status))
    return made


def questions(case: Case) -> Callable[[], tuple[Snapshot, list[Query]]]:
    """Gives what the next call is asked; never timed."""
    rng = np.random.default_rng(0)
    goal = Goal("loss", "minimize", STEPS - 1)
    bank = FinishedTrials(goal).extend(trials_of(curves(case.finished, rng), "done-", rng, Status.COMPLETE))
    live = trials_of(curves(max(case.trials, POOL), rng)[:, :SEEN], "live-", rng)
    count = 0

    def ask() -> tuple[Snapshot, list[Query]]:
        nonlocal bank, count
        count += 1
        if case.renewed:
            bank = bank.extend(trials_of(curves(1, rng), f"new-{count}-", rng, Status.COMPLETE))
        asked = live if case.trials > 1 else [live[count % POOL]]
        # a curve nobody has seen: its last report comes out otherwise every time
        asked = [Trial(t.uid, Curve.of(t.curve.steps, _moved(t.curve.values, rng)), t.params) for t in asked]
        cuts = [trial.cut(SEEN - 1 - back) for trial in asked for back in range(case.cuts)]
        return Snapshot("benchmark", goal, bank, tuple(asked)), [Query(t, "best_by", STEPS - 1) for t in cuts]

    return ask


def searches(case: Case) -> Callable[[], tuple[Snapshot, list[Query]]]:
    """The same of an allocated search."""
    rng = np.random.default_rng(0)
    goal = Goal("loss", "minimize", STEPS - 1)
    whole = trials_of(curves(case.begun, rng), "begun-", rng, Status.PAUSED)
    new = [replace(trial, curve=Curve()) for trial in trials_of(curves(case.new, rng), "new-", rng)]
    reports = rng.choice(RUNGS, case.begun)
    live = [replace(trial, curve=trial.curve.cut(n - 1)) for trial, n in zip(whole, reports.tolist(), strict=True)]
    turns = itertools.count()

    def ask() -> tuple[Snapshot, list[Query]]:
        i = next(turns) % case.begun
        reports[i] = 1 + reports[i] % (STEPS - 2)
        at = int(reports[i]) - 1
        values = whole[i].curve.values[: at + 1].copy()
        values[-1:] += 0.005 * rng.standard_normal(1)
        live[i] = replace(live[i], curve=Curve.of(whole[i].curve.steps[: at + 1], values))
        shown, running = list(live), replace(live[i], status=Status.RUNNING)
        if not case.new:
            shown[i] = running
        asked = [*shown, *new] if case.new else [running.cut(at - back) for back in range(case.cuts)]
        of = Snapshot("benchmark", goal, FinishedTrials(goal), tuple(shown))
        return of, [Query(trial, "best_by", STEPS - 1) for trial in asked]

    return ask


def _moved(values: Floats, rng: np.random.Generator) -> Floats:
    moved = values.copy()
    moved[-2:] += 0.005 * rng.standard_normal(2)
    return moved


class Published(nn.Module):
    """A transformer encoder of a published size; the first `context` tokens are seen by all, the rest by nobody."""

    def __init__(self, layers: int, inputs: int, context: int | None) -> None:
        super().__init__()
        self.context = context
        self.token = nn.Linear(inputs, 512)
        layer = nn.TransformerEncoderLayer(512, 4, 1024, activation="gelu", batch_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.Linear(512, 1024), nn.GELU(), nn.Linear(1024, 1000))

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.zeros(x.shape[1], x.shape[1])
        if self.context is not None:
            hidden[:, self.context :] = -torch.inf
            hidden.fill_diagonal_(0.0)
        states = self.layers(self.token(x), mask=None if self.context is None else hidden)
        out: Tensor = self.head(states[:, -1:] if self.context is None else states[:, self.context :])
        return out


@dataclass(frozen=True)
class Plan:
    """What the command line says."""

    weights: str | None
    threads: int | None
    seconds: float
    quick: bool


def make(method: str, case: Case, plan: Plan) -> tuple[Callable[[], Call], Callable[[], int]]:
    """What gives the next call to time, and what counts the model's parameters; the model is made at the first call."""
    if method in ("lc-pfn's size", "ft-pfn's size"):
        return _published(method, case)
    ask, kept = (searches if case.begun else questions)(case), list[Forecaster]()

    def following() -> Call:
        if not kept:
            kept.append(_forecaster(method, plan))
        snapshot, queries = ask()
        return lambda: kept[0].forecast(snapshot, queries)

    return following, lambda: _size(kept[0]._network) if isinstance(kept[0], NetworkForecaster) else 0  # noqa: SLF001


def _forecaster(method: str, plan: Plan) -> Forecaster:
    if method == "parametric":
        return ParametricEnsemble()
    if method == "mcmc":
        return _mcmc(plan)
    found = _weights(plan.weights)
    torch.manual_seed(0)
    network = CurveNetwork(Size() if found is None else Size(**found.size))
    if found is not None:
        network.load_state_dict(found.tensors)
    return NetworkForecaster(network, "random" if found is None else found.sha256[:12])


def _mcmc(plan: Plan) -> EnsembleMCMC:
    return EnsembleMCMC(26, 40, 20, 52) if plan.quick else EnsembleMCMC()


def _weights(name: str | None) -> weights.Weights | None:
    """Those at a path, of a name, or the first that ship; None: there are none."""
    if name is not None:
        return weights.load(Path(name)) if Path(name).exists() else weights.shipped(name)
    names = shipped.names()
    return weights.shipped(names[0]) if names else None


def _published(method: str, case: Case) -> tuple[Callable[[], Call], Callable[[], int]]:
    queries, kept = case.trials * case.cuts, list[Published]()
    batches = [torch.empty(0)]

    def following() -> Call:
        if not kept:
            torch.manual_seed(0)
            if method == "lc-pfn's size":
                kept.append(Published(12, 2, None).eval())
                batches[:] = [torch.rand(min(100, queries - i), 100, 2) for i in range(0, queries, 100)]
            else:
                kept.append(Published(6, 12, 1000).eval())
                batches[:] = [torch.rand(1, 1000 + queries, 12)]
        return lambda: [kept[0](batch) for batch in batches]

    return following, lambda: _size(kept[0])


def _size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


METHODS = ("network", "parametric", "mcmc", "lc-pfn's size", "ft-pfn's size")


def wanted(method: str, case: Case) -> bool:
    """What the others cost does not depend on the study; an MCMC of 1000 curves would take minutes."""
    if method == "network" or case.new:  # nobody else says anything of trials that have not begun
        return method == "network"
    if method == "parametric":
        return True
    return case.finished == 100 and not case.renewed and not (method == "mcmc" and case.trials > 100)


def measure(method: str, case: Case, plan: Plan) -> Row:
    """Time one row; in a process of its own."""
    if plan.threads is not None:
        torch.set_num_threads(plan.threads)
    following, parameters = make(method, case, plan)
    before = _peak()
    with torch.inference_mode():
        start = time.perf_counter()
        following()()
        first = time.perf_counter() - start
        calls, least = (1, 1) if plan.quick or first > SLOW else (200, 3)
        if case.renewed:  # a study that grows much is another one
            calls = min(calls, 5 + case.finished // 10)
        for _ in range(0 if plan.quick or first > SLOW / 10 else 2):
            following()()
        wall, cpu = list[float](), list[float]()
        begin = time.perf_counter()
        while len(wall) < least or (len(wall) < calls and time.perf_counter() - begin < plan.seconds):
            call = following()
            start, used = time.perf_counter(), time.process_time()
            call()
            cpu.append(time.process_time() - used)
            wall.append(time.perf_counter() - start)
    ms = 1e3 * np.array([np.median(wall), np.quantile(wall, 0.9), np.median(cpu)])
    median, p90, busy = (float(x) for x in ms)
    queries = case.trials * case.cuts
    rise = _peak() - before
    return Row(case.name, method, case.trials, case.finished, queries, len(wall), median, p90, busy, rise, parameters())


def _peak() -> float:
    """MB this process has held at most."""
    unit = 1e-6 if sys.platform == "darwin" else 1024e-6  # bytes there, kilobytes here
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


T = TypeVar("T")


def _child(pipe: Connection, work: Callable[[], object]) -> None:
    pipe.send(work())


def apart(work: Callable[[], T], what: str) -> T:
    """Done in a forked process; this one must never compute with torch, whose threads do not outlive a fork."""
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(theirs, work))
    process.start()
    theirs.close()
    try:
        found: T = mine.recv()
    except EOFError:
        raise SystemExit(f"{what}: the process that was to do it failed (see above)") from None
    finally:
        process.join()
    return found


def _words(name: str | None) -> str:
    found = _weights(name)
    return "random: speed does not depend on them" if found is None else f"{found.recipe} {found.sha256[:12]}"


def about(plan: Plan) -> dict[str, Any]:
    """What the figures were measured with."""
    cpuinfo = Path("/proc/cpuinfo")
    models = [line for line in cpuinfo.read_text().splitlines() if "model name" in line] if cpuinfo.exists() else []
    return {
        "lcsearch": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "processor": models[0].partition(": ")[2] if models else platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "torch threads": plan.threads or torch.get_num_threads(),
        "load before": round(os.getloadavg()[0], 2),
        "nice": os.nice(0),
        "weights": apart(partial(_words, plan.weights), "reading the weights"),
        "mcmc": asdict(_mcmc(plan)),
    }


def ratios(rows: Sequence[Row]) -> dict[str, float]:
    """How a decision's cost grows with the study: the largest one over one of 100 finished trials."""
    found = {}
    for method in ("network", "parametric"):
        by_size = {r.finished: r for r in rows if r.method == method and r.case.startswith("decision")}
        if 100 in by_size and (most := max(by_size)) > 100:
            for name in ("wall_ms", "cpu_ms"):
                ratio = getattr(by_size[most], name) / getattr(by_size[100], name)
                found[f"{method}, decision with {most} finished / with 100, {name}"] = round(ratio, 3)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--weights", help="a file, or a name of weights that ship (default: the first, else random)")
    parser.add_argument("--threads", type=int, help="of torch (default: as torch has it)")
    parser.add_argument("--seconds", type=float, default=3.0, help="a row, about")
    parser.add_argument("--json", type=Path, help="write the rows there, too")
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--quick", action="store_true", help="few rows and calls, a short MCMC: shows that it works")
    args = parser.parse_args()
    plan = Plan(args.weights, args.threads, 0.05 if args.quick else args.seconds, args.quick)
    facts = about(plan)
    print("\n".join(f"{name}: {value}" for name, value in facts.items()), end="\n\n")
    print(
        f"{'':32s}{'method':15s}{'wall ms':>10s}{'p90':>10s}{'CPU ms':>10s}{'x network':>11s}{'memory MB':>11s}  calls"
    )
    rows = []
    chosen = (
        cases((10, 100, 300), (1,), (30,))
        if args.quick
        else cases((10, 100, 1000, 10_000), (1, 100, 1000), (200, 1000))
    )
    for case in chosen:
        base = float("nan")
        for method in (m for m in METHODS if m in args.only and wanted(m, case)):
            row = apart(partial(measure, method, case, plan), f"{method}, {case.name}")
            base = row.wall_ms if method == "network" else base
            rows.append(row)
            times = f"{row.wall_ms:10.2f}{row.wall_p90_ms:10.2f}{row.cpu_ms:10.2f}{row.wall_ms / base:11.2f}"
            print(f"{row.case:32s}{method:15s}{times}{row.memory_mb:11.1f}  {row.calls}", flush=True)
    sizes = {row.method: row.parameters for row in rows if row.parameters}
    print("\n" + "\n".join(f"{method}: {n / 1e6:.2f} M parameters" for method, n in sizes.items()))
    grown = ratios(rows)
    print("\n".join(f"{name}: {ratio}" for name, ratio in grown.items()))
    if args.json is not None:
        found = {"about": facts, "rows": [asdict(row) for row in rows], "ratios": grown}
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
