"""E1: forecasts of real curves, every forecaster on the same questions: P(beat the best of ten), and the final value.

    LCSEARCH_DATA=.../data python experiments/e1_forecast/run.py               # half b; goes on where it was
    LCSEARCH_DATA=.../data python experiments/e1_forecast/run.py --forecasters network network=PATH.safetensors
    python experiments/e1_forecast/run.py --table                              # table and plot from results.json
    python experiments/e1_forecast/run.py --quick                              # made curves, seconds, nothing is kept

Forecasters: parametric, rank-gap, last-value, nearest, power-law, mcmc (where it is installed); `network` for the
weights that ship, `network=PATH` for a file's, `network@NAME=PATH` to name the row; `network+configs...` is shown the
trials' configurations as well (no other forecaster looks at them).

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
import hashlib
import importlib
import json
import math
import re
import shlex
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from cheap import CHEAP
from numpy.typing import NDArray
from scipy.stats import rankdata
from scores import CAP, CLIP, LEAST, SCORES, WINDOW, Unit, beat_figures, paired, value_figures, value_scores

import lcsearch
from lcsearch.curves import Curve, Floats
from lcsearch.errors import LcsearchError
from lcsearch.forecast.contract import Forecaster, Kind, Query
from lcsearch.goal import Goal
from lcsearch.host.registry import NAMES, forecaster
from lcsearch.replay.made import made
from lcsearch.replay.real_tasks import half_of, of_task
from lcsearch.replay.tables import Table
from lcsearch.study import Bank, Snapshot, Status, Trial

HERE = Path(__file__).resolve().parent
SOURCES = ("lcbench", "taskset_adam8p")
KINDS: tuple[Kind, ...] = ("value", "best_by")
CUTS = (0.1, 0.2, 0.4)
GROUP = 15  # curves that share their ten others, and one batch
OTHERS = 10
NOTHING = 1 / (OTHERS + 1)
"""P(beat) of who knows nothing: any of the eleven may be the best."""
SEED = 0
FEWEST_CURVES, FEWEST_REPORTS = 2 * OTHERS, 10
REFERENCES = ("parametric", "rank-gap")
COMMAND = "LCSEARCH_DATA=.../data python experiments/e1_forecast/run.py"
ROOMS = ("*.py", "forecast/*.py", "forecast/network/*.py")
COLUMNS = ("p", "beaten", "in_50", "in_80", "in_95", "crps", "ll", "square")
NETWORK = re.compile(r"network(?P<configs>\+configs)?(@(?P<name>[\w.+-]+))?(=(?P<path>.+))?")


@dataclass(frozen=True, eq=False)
class RealCurves:
    """A task's finite curves of full length, as losses.

    Attributes:
        seed: of the draws, the task's place in its table.
        steps: (S,).
        losses: (R, S).
        params: R configurations.
    """

    source: str
    name: str
    seed: tuple[int, ...]
    steps: Floats
    losses: Floats
    params: tuple[dict[str, Any], ...]

    @cached_property
    def digest(self) -> str:
        """Of what is asked about."""
        return hashlib.sha256(self.steps.tobytes() + self.losses.tobytes()).hexdigest()[:12]

    @cached_property
    def unit(self) -> Unit:
        """The range of its final values."""
        goal = Goal("loss", "minimize", float(self.steps[-1]), "final")
        return Unit.of([self.trial(f"all-{i}", i, done=True) for i in range(len(self.losses))], goal)

    def trial(self, uid: str, row: int, n: int | None = None, *, done: bool = False, configs: bool = False) -> Trial:
        """One run up to its n-th report."""
        status = Status.COMPLETE if done else Status.RUNNING
        params = self.params[row] if configs else {}
        return Trial(uid, Curve.of(self.steps[:n], self.losses[row, :n]), params, status)


def curves_of(source: str, data: Path | None, half: str) -> tuple[list[RealCurves], list[str]]:
    """The tasks of a source that have enough curves, and a line on each that has not."""
    if source == "made":
        return [_made(kind, i) for i, kind in enumerate(("power", "crossing"))], []
    if data is None or not (data / source).is_dir():
        return [], [f"{source}: skipped, not found (set LCSEARCH_DATA or --data)"]
    table = Table(data / source)
    found, skipped = [], []
    for name in half_of(table.tasks, None if half == "all" else "a" if half == "a" else "b"):
        task = table.task(name)
        groups = [] if task is None else list(of_task(task, table))
        if not groups:
            skipped.append(f"{source} {name}: skipped, no runs that report at the same steps")
        for k, real in enumerate(groups):
            whole = np.isfinite(real.losses).all(1) & (real.length == real.steps.size)
            if whole.sum() < FEWEST_CURVES or real.steps.size < FEWEST_REPORTS:
                what = f"{whole.sum()} finite curves of {real.steps.size} reports"
                skipped.append(f"{source} {real.name}: skipped, {what} (needed: {FEWEST_CURVES} of {FEWEST_REPORTS})")
                continue
            configs = [_config(row, real.kinds) for row in real.params[whole]]
            seed = (SEED, table.tasks.index(name), *((k,) if k else ()))
            found.append(RealCurves(source, real.name, seed, real.steps, real.losses[whole], tuple(configs)))
    return found, skipped


def _config(row: Floats, kinds: NDArray[np.int64]) -> dict[str, Any]:
    """A scaled configuration as a trial has it; what it lacks is left out."""
    known = [(i, float(x)) for i, x in enumerate(row) if math.isfinite(x)]
    return {f"p{i}": f"c{int(x)}" if kinds[i] == 2 else x for i, x in known}


def _made(kind: Any, seed: int) -> RealCurves:
    """Curves the project makes itself."""
    task = made(kind, 60, seed, n_steps=50)
    losses = np.array([task.goal.sign * run.curve.values for run in task.runs])
    params = tuple(dict(run.params) for run in task.runs)
    return RealCurves("made", kind, (SEED, seed), task.runs[0].curve.steps, losses, params)


@dataclass(frozen=True, eq=False)
class Entrant:
    """A forecaster under the name of its row; `configs`: it is shown the trials' configurations."""

    label: str
    method: Forecaster
    configs: bool = False


def entrant(spec: str) -> Entrant:
    """See the module.

    Raises:
        LcsearchError: the weights cannot be read.
        SystemExit: there is no such forecaster.
    """
    if spec in NAMES:
        return Entrant(spec, forecaster(spec))
    if spec in CHEAP:
        return Entrant(spec, CHEAP[spec]())
    if spec == "mcmc":
        return Entrant(spec, _of_module("lcsearch.forecast.mcmc"))
    asked = NETWORK.fullmatch(spec)
    if asked is None:
        known = ", ".join((*NAMES, *CHEAP, "mcmc", "network[+configs][@NAME][=PATH]"))
        raise SystemExit(f"--forecasters: expected some of {known}, got {spec!r}")
    path, name = asked["path"], asked["name"]
    name = name or (Path(path).stem if path else None)
    label = "network" + (asked["configs"] or "") + (f"@{name}" if name else "")
    return Entrant(label, _network(path, name), bool(asked["configs"]))


def _of_module(name: str) -> Forecaster:
    """A new one of the only forecaster that a module defines."""
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise SystemExit(f"{name}: there is none here ({error})") from error
    found = [c for c in vars(module).values() if isinstance(c, type) and c.__module__ == name and "forecast" in vars(c)]
    if len(found) != 1:
        raise SystemExit(f"{name}: expected one class with `forecast`, got {[c.__name__ for c in found]}")
    method: Forecaster = found[0]()
    return method


def _network(path: str | None, name: str | None) -> Forecaster:
    """The network with the weights of a file, or with those that ship."""
    from lcsearch.forecast.network.forecaster import NetworkForecaster
    from lcsearch.forecast.network.model import CurveNetwork, Size
    from lcsearch.pretrain import shipped, weights

    if path is not None:
        read = weights.load(Path(path))
    else:
        known = shipped.names()
        if name is None and len(known) != 1:
            raise SystemExit(f"network: expected one set of weights that ships, got {', '.join(known) or 'none'}")
        read = weights.shipped(name or known[0])
    network = CurveNetwork(Size(**read.size))
    network.load_state_dict(read.tensors)
    return NetworkForecaster(network, read.sha256[:12])


def ask(who: Entrant, kind: Kind, task: RealCurves, most: int) -> tuple[Floats, float]:
    """(C, N, 8) COLUMNS of every curve at each cut, NaN where nothing was said, and CPU seconds of the forecasts."""
    rng = np.random.default_rng(task.seed)
    picked = rng.permutation(len(task.losses))[:most]
    end = float(task.steps[-1])
    goal = Goal("loss", "minimize", end, "final" if kind == "value" else "best")
    judged = task.losses[:, -1] if kind == "value" else task.losses.min(1)
    found: list[list[Floats]] = [[] for _ in CUTS]
    seconds = 0.0
    # two groups at least: the others come from outside
    for group in np.array_split(rng.permutation(len(picked)), max(2, len(picked) // GROUP)):
        others = picked[rng.choice(np.setdiff1d(np.arange(len(picked)), group), OTHERS, replace=False)]
        rows = picked[group]
        done = [task.trial(f"done-{i}", i, done=True, configs=who.configs) for i in others]
        snapshot = Snapshot("e1", goal, Bank(goal).extend(done))
        target = judged[others].min()
        for at, cut in enumerate(CUTS):
            n = round(cut * task.steps.size)
            queries = [Query(task.trial(f"live-{i}", i, n, configs=who.configs), kind, end) for i in rows]
            start = time.process_time()
            said = who.method.forecast(snapshot, queries)
            seconds += time.process_time() - start
            p = np.where([reason is None for reason in said.absent], said.p_beat(target), np.nan)
            scores = np.full((len(rows), 6), np.nan)
            if kind == "value":
                scores = np.where(np.isnan(p)[:, None], np.nan, value_scores(said, judged[rows], task.unit))
            found[at].append(np.column_stack([p, judged[rows] < target, scores]))
    return np.stack([np.concatenate(rows) for rows in found]), seconds


# Pieces: one file a source, forecaster, kind and task


def knobs_of(curves: int) -> dict[str, Any]:
    """What must be the same for rows to stand side by side."""
    return {
        "curves": curves,
        "group": GROUP,
        "others": OTHERS,
        "cuts": list(CUTS),
        "seed": SEED,
        "clip": CLIP,
        "cap": CAP,
        "window": WINDOW,
        "least_mass": LEAST,
        "scores": SCORES,
    }


def piece_of(out: Path, curves: int, label: str, kind: Kind, task: RealCurves) -> Path:
    """Where the answers of one forecaster on one task are kept."""
    name = re.sub(r"[^\w.+-]", "-", f"{task.name}--{kind}")
    return out / "parts" / f"{curves}" / task.source / label / f"{name}.npz"


def read_piece(
    path: Path, knobs: dict[str, Any], version: str | None, data: str
) -> tuple[Floats, dict[str, Any]] | None:
    """The rows and what they are, when they are of this protocol, forecaster (None: any) and data."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            rows, about = np.asarray(arrays["rows"], np.float64), json.loads(str(arrays["about"]))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
    same = about["knobs"] == knobs and about["data"] == data and about["version"] == (version or about["version"])
    return (rows, about) if same else None


def work(out: Path, who: Entrant, task: RealCurves, curves: int, stamp: dict[str, str]) -> str:
    """Ask what is not kept yet."""
    knobs, took = knobs_of(curves), ""
    for kind in KINDS:
        path = piece_of(out, curves, who.label, kind, task)
        if read_piece(path, knobs, who.method.version, task.digest) is not None:
            continue
        rows, seconds = ask(who, kind, task, curves)
        about = {"knobs": knobs, "version": who.method.version, "data": task.digest, "seconds": seconds, **stamp}
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(f".{os.getpid()}")
        with new.open("wb") as file:
            np.savez_compressed(file, rows=rows, about=np.array(json.dumps(about)))
        os.replace(new, path)
        took += f" {kind} {seconds:.1f} s"
    return took or " kept"


def fingerprint() -> str:
    """Of the code that answers: the package's Python and this folder's."""
    package = Path(lcsearch.__file__).parent
    files = [*sorted(path for room in ROOMS for path in package.glob(room)), *sorted(HERE.glob("*.py"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]


def commit() -> str:
    """HEAD, with a + where the code differs from it."""

    def git(*words: str) -> str:
        command = ["git", *words]
        return subprocess.run(command, cwd=HERE.parents[1], capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--", "src", "experiments/e1_forecast/*.py")
    return git("rev-parse", "HEAD") + "+" * bool(changed)


# Results


def figures(out: Path, tasks: Sequence[RealCurves], curves: int, label: str) -> dict[str, Any] | None:
    """All figures of one forecaster on one source; None while a task is missing."""
    kinds: dict[str, Any] = {}
    stamps: dict[str, set[str]] = {"command": set(), "commit": set(), "code": set(), "version": set()}
    seconds, n = 0.0, 0
    for kind in KINDS:
        read = [read_piece(piece_of(out, curves, label, kind, t), knobs_of(curves), None, t.digest) for t in tasks]
        there = [piece for piece in read if piece is not None]
        if len(there) < len(tasks):
            return None
        for rows, about in there:
            seconds, n = seconds + about["seconds"], n + rows.shape[0] * rows.shape[1]
            for name, seen in stamps.items():
                seen.add(about[name])
        kinds[kind] = {}
        for at, cut in enumerate(CUTS):
            mine = [rows[at] for rows, _ in there]
            kinds[kind][f"{cut:.0%}"] = beat_figures([rows[:, :2] for rows in mine], NOTHING)
            if kind == "value":
                kinds[kind][f"{cut:.0%}"]["value"] = value_figures([rows[:, 2:] for rows in mine])
        every = beat_figures([np.concatenate(list(rows))[:, :2] for rows, _ in there], NOTHING)
        kinds[kind]["all"] = {name: every[name] for name in ("n", "absent", "low", "bins")}
    if len(stamps["version"]) > 1:
        return None  # some tasks by other weights: not whole
    return {
        **{name: sorted(seen) for name, seen in stamps.items()},
        "seconds": seconds,
        "ms_a_forecast": 1e3 * seconds / max(n, 1),
        "kinds": kinds,
    }


def section_of(half: str, curves: int) -> str:
    """Name of what may be compared."""
    what = "all tasks" if half == "all" else f"half {half}"
    return f"{what}, {curves} curves a task"


def collect(out: Path, found: dict[str, list[RealCurves]], half: str, curves: int, skipped: Sequence[str]) -> None:
    """Write results.json: what is kept in pieces, and rows that stand there already of the same protocol and tasks."""
    path = out / "results.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"sections": {}}
    old = results["sections"].get(section_of(half, curves), {})
    same = old.get("knobs") == knobs_of(curves)
    sources = dict(old["sources"]) if same else {}
    for source, tasks in found.items():
        if not tasks:
            continue
        names = {task.name: f"{min(len(task.losses), curves)} of {len(task.losses)}, {task.digest}" for task in tasks}
        before = sources.get(source, {})
        rows = dict(before["forecasters"]) if before.get("tasks") == names else {}
        kept = out / "parts" / f"{curves}" / source
        for label in sorted(folder.name for folder in kept.glob("*") if folder.is_dir()):
            if (mine := figures(out, tasks, curves, label)) is not None:
                rows[label] = clean(mine)
            else:
                print(f"{source} {label}: not whole yet, no row", flush=True)
        order = [*REFERENCES, *CHEAP, "mcmc"]
        rows = dict(sorted(rows.items(), key=lambda row: (order.index(row[0]) if row[0] in order else 99, row[0])))
        mine_skipped = [line for line in skipped if line.startswith(f"{source} ")]
        sources[source] = {"tasks": names, "skipped": mine_skipped, "forecasters": rows}
    results["sections"][section_of(half, curves)] = {"knobs": knobs_of(curves), "sources": sources}
    new = path.with_suffix(f".{os.getpid()}")
    new.write_text(compact(results) + "\n")
    os.replace(new, path)


def clean(x: Any) -> Any:
    """For JSON: six digits, NaN as null."""
    if isinstance(x, dict):
        return {key: clean(value) for key, value in x.items()}
    if isinstance(x, list):
        return [clean(value) for value in x]
    if isinstance(x, float):
        return float(f"{x:.6g}") if math.isfinite(x) else None
    return x


def compact(x: Any) -> str:
    """JSON with lists of numbers on one line."""
    text = json.dumps(x, indent=1, allow_nan=False)
    return re.sub(r"\[\s+([^\[\]{}\"]*?)\s+\]", lambda m: "[" + re.sub(r"\s+", " ", m[1]) + "]", text)


def show(x: float | None, digits: int = 3) -> str:
    """A number, or a dash."""
    return "-" if x is None or not math.isfinite(x) else f"{x:.{digits}f}"


def table(results: dict[str, Any]) -> str:
    """Markdown: five tables a section and source."""
    lines = [f"`{COMMAND}`. What the figures mean: `run.py`, `scores.py`; of every row its command and commit:"]
    lines.append(
        "`results.json`. Figures are of the answers given, the share of absent ones stands beside. Bounds: one-sided"
    )
    lines.append(
        "95 %, the larger of a bootstrap over tasks and Clopper-Pearson's. Value: in the task's range (see `Unit`),"
    )
    lines.append(
        f"clipped to {CAP:g} ranges on either side; density over a window of {WINDOW:g} ranges. ms: CPU time of one"
    )
    lines.append(f"forecast, asked {GROUP} at once.")
    for section, content in results["sections"].items():
        for source, found in content["sources"].items():
            if found["forecasters"]:
                lines += _source_tables(section, source, found)
    return "\n".join(lines) + "\n"


def _source_tables(section: str, source: str, found: dict[str, Any]) -> Iterator[str]:
    rows, cuts = found["forecasters"], [f"{cut:.0%}" for cut in CUTS]
    heads = [cut.replace("%", " %") for cut in cuts]
    yield from ("", f"## {section}: {source} ({len(found['tasks'])} tasks)", "")
    yield f"P(beats the best of ten): log-loss / ECE / AUC / Brier ({found_beaten(rows)})"
    for kind in KINDS:
        yield from ("", f"| {kind} | {' | '.join(heads)} | absent | ms |", "|---" * (len(cuts) + 3) + "|")
        for label, row in rows.items():
            cells = []
            for cut in cuts:
                x = row["kinds"][kind][cut]
                cells.append("/".join(show(x[name]) for name in ("log_loss", "ece", "auc", "brier")))
            absent = row["kinds"][kind]["all"]["absent"]
            yield f"| {label} | {' | '.join(cells)} | {show(absent)} | {row['ms_a_forecast']:.2f} |"
    yield from ("", "Observed beat rate among low P (bound), share of the questions that are so")
    for level in next(iter(rows.values()))["kinds"]["value"]["all"]["low"]:
        for kind in KINDS:
            yield from ("", f"| {kind}, P < {level} | {' | '.join(heads)} | all |", "|---" * (len(cuts) + 2) + "|")
            for label, row in rows.items():
                cells = [_low(row["kinds"][kind][cut], level) for cut in (*cuts, "all")]
                yield f"| {label} | {' | '.join(cells)} |"
    yield from ("", "Final value, at each cut: CRPS; mean and median log-likelihood; MSE of the median; coverage")
    columns = [
        *(f"CRPS {head}" for head in heads),
        *(f"LL {head}" for head in heads),
        *(f"MSE {head}" for head in heads),
        *(f"50/80/95 % at {head}" for head in heads),
        "rank",
    ]
    yield from ("", f"| value | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|")
    ranks = average_ranks(rows, cuts)
    for label, row in rows.items():
        at = [row["kinds"]["value"][cut]["value"] for cut in cuts]
        cells = [show(x["crps"], 4) for x in at]
        cells += [f"{show(x['ll_mean'], 2)} / {show(x['ll_median'], 2)}" for x in at]
        cells += [show(x["mse"], 4) for x in at]
        cells += ["/".join(show(share, 2) for share in x["coverage"].values()) for x in at]
        yield f"| {label} | {' | '.join(cells)} | {show(ranks[label], 2)} |"
    yield from ("", "rank: by mean log-likelihood, averaged over (task, cut-off); 1 is best.")
    yield from (
        "",
        "Paired differences over tasks, +- standard error: log-loss of P(beat), an absent answer being 1/11",
    )
    yield from ("", f"| first - second | {' | '.join(f'{k} {h}' for k in KINDS for h in heads)} |")
    yield "|---" * (len(KINDS) * len(heads) + 1) + "|"
    for first, second in pairs(list(rows)):
        a, b = rows[first]["kinds"], rows[second]["kinds"]
        yield _gaps(first, second, [[x[k][cut]["by_task"]["log_loss"] for x in (a, b)] for k in KINDS for cut in cuts])
    yield from ("", "The same of the final value: CRPS (below 0, the first is better), mean log-likelihood (above 0)")
    yield from ("", f"| first - second | {' | '.join(f'{name} {h}' for name in ('CRPS', 'LL') for h in heads)} |")
    yield "|---" * (2 * len(heads) + 1) + "|"
    for first, second in pairs(list(rows)):
        value = [[rows[x]["kinds"]["value"][cut]["value"]["by_task"] for x in (first, second)] for cut in cuts]
        yield _gaps(first, second, [[x[name] for x in both] for name in ("crps", "ll_mean") for both in value])


def _gaps(first: str, second: str, columns: Sequence[Sequence[Sequence[float | None]]]) -> str:
    gaps = [paired(a, b) for a, b in columns]
    return f"| {first} - {second} | {' | '.join(f'{show(m)} +- {show(e)}' if n else '-' for m, e, n in gaps)} |"


def found_beaten(rows: dict[str, Any]) -> str:
    """How many questions, and how often the answer is yes."""
    one = next(iter(rows.values()))["kinds"]
    shares = ", ".join(f"{kind} {show(one[kind][f'{CUTS[0]:.0%}']['beaten'])}" for kind in KINDS)
    return f"{one['value'][f'{CUTS[0]:.0%}']['n']} curves, beaten: {shares}"


def _low(x: dict[str, Any], level: str) -> str:
    low = x["low"][level]
    return f"{show(low['rate'], 4)} ({show(low['upper'], 4)}), {low['n'] / x['n']:.2f}"


def pairs(labels: Sequence[str]) -> list[tuple[str, str]]:
    """Every forecaster against the references, and against the first network."""
    against = [*(name for name in REFERENCES if name in labels), *[x for x in labels if x.startswith("network")][:1]]
    found = [(label, other) for other in against for label in labels if label != other]
    return [pair for i, pair in enumerate(found) if pair[::-1] not in found[:i]]


def average_ranks(rows: dict[str, Any], cuts: Sequence[str]) -> dict[str, float]:
    """By mean log-likelihood of the final value, over (task, cut-off); no answer is the last."""
    each = [
        [x for cut in cuts for x in row["kinds"]["value"][cut]["value"]["by_task"]["ll_mean"]] for row in rows.values()
    ]
    scores = np.array([[-math.inf if x is None else x for x in row] for row in each])
    return dict(zip(rows, rankdata(-scores, axis=0).mean(1).tolist(), strict=True))


def draw(results: dict[str, Any], path: Path) -> None:
    """Of the first section: reliability of P(beat) for both kinds, all cuts together, and log-loss per cut-off."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    section, content = next(iter(results["sections"].items()))
    sources = {name: found["forecasters"] for name, found in content["sources"].items() if found["forecasters"]}
    figure, axes = plt.subplots(max(len(sources), 1), 4, figsize=(17, 4 * max(len(sources), 1)), squeeze=False)
    for line, (source, rows) in enumerate(sources.items()):
        for column, kind in enumerate(KINDS):
            ax, loss = axes[line][column], axes[line][column + 2]
            ax.plot([0, 1], [0, 1], color="0.7", lw=1)
            for label, row in rows.items():
                count, p, won = np.array(row["kinds"][kind]["all"]["bins"]).T
                there = count >= 10  # a handful says nothing
                ax.plot(p[there] / count[there], won[there] / count[there], "-o", ms=3, lw=1, label=label)
                at = [row["kinds"][kind][f"{cut:.0%}"]["log_loss"] for cut in CUTS]
                loss.plot([100 * cut for cut in CUTS], [math.nan if x is None else x for x in at], "-o", ms=3, lw=1)
            ax.set(xlabel="P(beat)", ylabel="observed", title=f"{source}, {kind}")
            loss.set(xlabel="cut-off, % of the run", ylabel="log-loss", title=f"{source}, {kind}", yscale="log")
        axes[line][0].legend(fontsize=7)
    figure.suptitle(section)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main() -> None:
    """Run what is not there yet, then print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("LCSEARCH_DATA"))
    parser.add_argument("--half", choices=("a", "b", "all"), default="b")
    parser.add_argument("--sources", nargs="+", default=list(SOURCES))
    parser.add_argument("--curves", type=int, default=300, help="curves a task")
    parser.add_argument("--forecasters", nargs="+", default=[*REFERENCES, *CHEAP])
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
        stamp = {"command": " ".join([COMMAND, *map(shlex.quote, sys.argv[1:])]), "commit": commit()}
        stamp["code"] = fingerprint()
        try:
            entrants = [entrant(spec) for spec in args.forecasters]
        except LcsearchError as error:
            raise SystemExit(str(error)) from error
        if len({who.label for who in entrants}) < len(entrants):
            raise SystemExit("--forecasters: two rows of one name; call them network@NAME=PATH")
        found, skipped = {}, []
        for source in args.sources:
            found[source], lines = curves_of(source, data, args.half)
            skipped += lines
            print("\n".join(lines) + "\n" * bool(lines), end="", flush=True)
            for who in entrants:
                for task in found[source]:
                    print(
                        f"{source} {task.name} {who.label}:{work(args.out, who, task, args.curves, stamp)}", flush=True
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
