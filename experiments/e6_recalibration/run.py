"""E6, recalibration: does a map of odds, fitted on other sources, make P(beat) truer? And one fitted inside a study?

    LCSEARCH_DATA=.../data python experiments/e6_recalibration/run.py             # goes on where it was
    python experiments/e6_recalibration/run.py --table                           # table of what is kept

Across sources: E1's questions (CURVES a task, cut at 10, 20 and 40 %, beside ten finished trials), final value and
best. The map of a source is fitted on half a of all the others, each source weighing the same, and scored on half b of
this one (`recalibrated.py`; the network's weights were trained on half a, too). `beat`: fitted to what P(beat) came to;
`values`: to how often the truth lies below LEVELS of the final value's distribution.
A stop below .05 of the mapped P is a stop below another number of the P as it was: so the map is to stops what another
threshold is, and that number stands in the table.

Inside a study: sweeps of TRIALS trials in which nothing is stopped, decided by production's session; a map is fitted
anew when a trial has ended, to the looks of all trials before (each trial weighing the same) with a prior around the
identity, and scored on the next trial's looks. `all`: the ends of all are known, more than any study with stops
knows; `ended`: those of trials that would have been stopped are not; `audits`: AUDIT of these are, and weigh 1 / AUDIT.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for what experiments share
sys.path.append(str(Path(__file__).resolve().parents[1] / "e1_forecast"))

import numpy as np
import provenance
import research
from questions import KINDS, RealCurves, asked, curves_of
from recalibrated import CLIP, Odds, fit
from scores import losses

from lcsearch.curves import Floats
from lcsearch.data.tables import load
from lcsearch.data.task import Task
from lcsearch.forecast.contract import Forecaster
from lcsearch.host.registry import forecaster
from lcsearch.pretrain.real_tables import half_of
from lcsearch.replay.policies import session_for
from lcsearch.replay.prefetching import PrefetchingForecaster
from lcsearch.replay.simulator import World, simulate
from lcsearch.stopping.gates import Event, target_of
from lcsearch.stopping.judge import Judgement
from lcsearch.stopping.policy import Policy
from lcsearch.study import Snapshot

HERE = Path(__file__).resolve().parent
PARTS, RESULTS, TABLE = HERE / "parts", HERE / "results.json", HERE / "table.md"
SOURCES = ("lcbench", "taskset_adam8p", "arlbench", "deepobs_baselines", "lcdb11")
SWEPT = ("lcbench", "taskset_adam8p", "arlbench", "deepobs_baselines")
FORECASTERS = ("network", "parametric", "rank-gap")
CURVES, TRIALS = 60, 24
LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
SDS = (0.1, 0.3, 1.0)
AUDIT = 0.1
THRESHOLD = Policy().threshold


class Rows(NamedTuple):
    """What was said of one task: (N,) P(beat), whether it did, and the level of the truth from both sides (NaN where
    the best was asked about: its distribution ends at what was reached)."""

    p: Floats
    won: Floats
    low: Floats
    high: Floats


def ask(who: Forecaster, task: RealCurves) -> Rows:
    """E1's questions about a task; those without an answer are left out."""
    found = []
    for kind in KINDS:
        for one in asked(task, kind, CURVES):
            said = who.forecast(one.snapshot, one.queries)
            levels = [
                f(one.answers) if kind == "value" else np.full(len(said), math.nan) for f in (said.p_beat, said.cdf)
            ]
            rows = np.stack([said.p_beat(one.target), one.answers < one.target, *levels], 1)
            found.append(rows[~np.isnan(rows[:, 0])])
    return Rows(*np.concatenate(found).T)


def kept(path: Path, make: Any) -> Any:
    """What stands in a part, or what `make` gives, written there."""
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        new = path.with_suffix(f".{os.getpid()}")
        new.write_text(json.dumps(make(), separators=(",", ":")))
        os.replace(new, path)
        print(path.stem, flush=True)
    return json.loads(path.read_text())


def answers(data: Path, who: str, source: str, half: str) -> list[Rows]:
    """Of each task; those without an answer are left out."""

    def make() -> list[Any]:
        method = forecaster(who)
        return [[column.tolist() for column in ask(method, task)] for task in curves_of(source, data, half)[0]]

    found = kept(PARTS / f"{who}--{source}--{half}.json", make)
    return [Rows(*map(np.array, rows)) for rows in found if rows[0]]


def truths(rows: Rows) -> Floats:
    """The levels of the truths; an atom's is drawn between its sides."""
    known = ~np.isnan(rows.low)
    low, high = rows.low[known], rows.high[known]
    return low + (high - low) * np.random.default_rng(0).random(low.size)


def fitted(tasks: Sequence[Rows], by: str) -> tuple[Floats, Floats, Floats]:
    """(p, won, weight) of a source's tasks to fit a map to; the weights sum to 1."""
    if by == "beat":
        p, won = (np.concatenate(column) for column in ([r.p for r in tasks], [r.won for r in tasks]))
    else:
        u = np.concatenate([truths(rows) for rows in tasks])
        p, won = np.repeat(LEVELS, u.size), np.concatenate([u <= level for level in LEVELS]).astype(float)
    return p, won, np.full(p.size, 1 / p.size)


def across(data: Path, who: str) -> dict[str, Any]:
    """Left-out source -> figures of the identity, and of what the others make of P(beat) and of values."""
    known = {source: answers(data, who, source, "a") for source in SOURCES if (data / source).is_dir()}
    found = {}
    for source in known:
        maps = [Odds()]
        for by in ("beat", "values"):
            others = [fitted(tasks, by) for name, tasks in known.items() if name != source]
            maps.append(fit(*(np.concatenate(column) for column in zip(*others, strict=True))))
        found[source] = [figures(answers(data, who, source, "b"), odds) for odds in maps]
    return found


def figures(tasks: Sequence[Rows], odds: Odds) -> dict[str, Any]:
    """One map on one source; differences are paired by task."""
    each = np.array([losses(odds(rows.p), rows.won)[0].mean() for rows in tasks])
    gap = each - np.array([losses(rows.p, rows.won)[0].mean() for rows in tasks])
    p, won = odds(np.concatenate([rows.p for rows in tasks])), np.concatenate([rows.won for rows in tasks])
    low = p < THRESHOLD
    return {
        "slope": odds.slope,
        "shift": odds.shift,
        "as_if": odds.back(THRESHOLD),
        "tasks": len(tasks),
        "log_loss": float(each.mean()),
        "gap": [float(gap.mean()), float(gap.std(ddof=1) / math.sqrt(gap.size))],
        "pit": uneven(odds(np.concatenate([truths(rows) for rows in tasks]))),
        "low": [float(low.mean()), float(won[low].mean()) if low.any() else math.nan],
    }


def uneven(u: Floats) -> float:
    """Largest distance of (N,) levels from even ones; 0 where each level comes true as often as it says."""
    even = np.arange(1, u.size + 1) / u.size
    ranked = np.sort(u)
    return float(np.maximum(even - ranked, ranked - even + 1 / u.size).max())


class Listener:
    """A stopper that stops nothing, and keeps what was forecast at each look."""

    def __init__(self, task: Task, policy: Policy) -> None:
        self.policy, self.said = policy, dict[str, list[tuple[float, bool]]]()
        told = PrefetchingForecaster(forecaster("network"), task, policy=policy)
        self._session = session_for(policy, [told])
        self._judged = {run.uid: float(loss) for run, loss in zip(task.runs, task.judged, strict=True)}

    def check(self, snapshot: Snapshot, event: Event) -> Judgement:
        """As the session decides, at a threshold that nothing is below."""
        judgement = self._session.check(snapshot, event)
        if (look := judgement.decision.now) is not None and look.p is not None:
            won = self._judged[event.trial.uid] < target_of(self.policy, snapshot)
            self.said.setdefault(event.trial.uid, []).append((look.p, bool(won)))
        return judgement


def looks(data: Path, source: str, half: Any) -> list[list[list[tuple[float, bool]]]]:
    """Of each task the trials of one sweep, of each trial (P(beat), whether it did) of its looks."""

    def make() -> list[Any]:
        tasks = {task.name: task for task in load(data / source, caveats=research.CAVEATS)}
        found = []
        for task in (tasks[name] for name in half_of(tasks, half)):
            listener = Listener(task, Policy(threshold=0.0))
            simulate(task, task.order(0)[:TRIALS], listener, World())
            found.append(list(listener.said.values()))
        return found

    found: list[list[list[tuple[float, bool]]]] = kept(PARTS / f"looks--{source}--{half}.json", make)
    return found


def seen(trials: Sequence[Sequence[tuple[float, bool]]], knows: str, rng: np.random.Generator) -> Iterator[list[float]]:
    """[p, won, weight] of the looks that a study may learn from; each trial weighs 1, an audited one 1 / AUDIT.

    A trial would have been stopped where two looks in a row are below the threshold.
    """
    for trial in trials:
        p = np.array([row[0] for row in trial])
        below = np.flatnonzero((p[1:] < THRESHOLD) & (p[:-1] < THRESHOLD))
        weight = 1.0
        if below.size and knows != "all":
            if knows == "ended" or rng.random() >= AUDIT:
                continue
            weight = 1 / AUDIT
        for said, won in trial:
            yield [said, float(won), weight / len(trial)]


def inside(trials: Sequence[Sequence[tuple[float, bool]]], knows: str, sd: float) -> tuple[float, float]:
    """Mean log-loss of a sweep's looks, as they are and by what its earlier trials tell; each trial weighs the same."""
    raw, mapped = [], []
    for n in range(1, len(trials)):
        known = np.array(list(seen(trials[:n], knows, np.random.default_rng(n)))).reshape(-1, 3)
        odds = fit(known[:, 0], known[:, 1], known[:, 2], sd) if len(known) else Odds()
        p, won = np.array(trials[n], np.float64).T
        raw.append(losses(p, won)[0].mean())
        mapped.append(losses(odds(np.clip(p, CLIP, 1 - CLIP)), won)[0].mean())
    return float(np.mean(raw)), float(np.mean(mapped))


def studies(data: Path) -> dict[str, Any]:
    """Half -> what is known -> sd -> source -> (log-loss as it is, by the map less that, its error, tasks)."""
    found: dict[str, Any] = {}
    for half in ("a", "b"):
        for knows in ("all", "ended", "audits"):
            for sd in SDS:
                for source in SWEPT:
                    if (data / source).is_dir():
                        made = [inside(sweep, knows, sd) for sweep in looks(data, source, half) if len(sweep) > 2]
                        at = np.array(made)
                        gap = at[:, 1] - at[:, 0]
                        error = float(gap.std(ddof=1) / math.sqrt(len(gap)))
                        row = [float(at[:, 0].mean()), float(gap.mean()), error, len(gap)]
                        found.setdefault(half, {}).setdefault(knows, {}).setdefault(f"{sd:g}", {})[source] = row
    return found


def table(results: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        f"`{results['command']}` at {results['commit'][:7]}. What it means: `run.py`. Gaps: mean over tasks and its"
    ]
    lines += ["standard error, negative is better. PIT: largest distance from even levels, 0 is best.", ""]
    lines += ["## Across sources: fitted on half a of the others, scored on half b", ""]
    lines += [
        "| forecaster | left out, tasks | fitted to | slope, shift | .05 is as | log-loss of P(beat) | gap "
        "| PIT | P < .05: share, beat |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for who, sources in results["across"].items():
        for source, rows in sources.items():
            for by, row in zip(("-", "beat", "values"), rows, strict=True):
                gap, error = row["gap"]
                lines.append(
                    f"| {who} | {source}, {row['tasks']} | {by} | {row['slope']:.2f}, {row['shift']:+.2f} "
                    f"| {row['as_if']:.3f} | {row['log_loss']:.4f} | {gap:+.4f} +- {error:.4f} "
                    f"| {row['pit']:.2f} | {row['low'][0]:.2f}, {row['low'][1]:.4f} |"
                )
    lines += ["", "## Inside a study: the network's looks, the map fitted to earlier trials", ""]
    lines += ["| half | known | prior sd | " + " | ".join(SWEPT) + " |", "|---|---|---|" + "---|" * len(SWEPT)]
    for half, ways in results["inside"].items():
        for knows, sds in ways.items():
            for sd, sources in sds.items():
                told = [f"{r[0]:.4f} {r[1]:+.4f} +- {r[2]:.4f}" for r in (sources.get(s) for s in SWEPT) if r]
                lines.append(f"| {half} | {knows} | {sd} | " + " | ".join(told) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Ask what is not kept yet, fit, score, and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("LCSEARCH_DATA"))
    parser.add_argument("--forecasters", nargs="+", default=list(FORECASTERS), choices=FORECASTERS)
    parser.add_argument("--table", action="store_true", help="only the table of results.json")
    args = parser.parse_args()
    if not args.table:
        data = Path(args.data)
        found = {
            "command": "LCSEARCH_DATA=.../data python experiments/e6_recalibration/run.py",
            "commit": provenance.commit("experiments/e6_recalibration"),
            "across": {who: across(data, who) for who in args.forecasters},
            "inside": studies(data),
        }
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    TABLE.write_text(table(json.loads(RESULTS.read_text())))
    print(TABLE.read_text(), end="")


if __name__ == "__main__":
    main()
