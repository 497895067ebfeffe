"""Sweeps of tasks that the shipped weights never saw, decided by the product's policy, in pieces that are kept."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for what experiments share

import provenance
import research

from lcsearch.data.tables import Table, sources
from lcsearch.data.task import Task
from lcsearch.replay.history import History
from lcsearch.replay.policies import PolicySpec, Shared
from lcsearch.replay.simulator import simulate_all
from lcsearch.stopping.policy import Policy
from lcsearch.weights.shipped import found, package

PARTS = Path(__file__).resolve().parent / "parts"
NAME = ASKED = "network"
"""The weights, and the forecaster that has them."""
THRESHOLDS = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
"""From strict to loose."""
TRIALS = 40
"""Of a sweep, where a task has so many runs."""
FEWEST = 20
"""Runs that reached their task's horizon: a task of fewer is no sweep to be won or lost."""
AT_ONCE = 4
ROOMS = (
    *("*.py", "study/*.py", "forecast/*.py", "forecast/network/*.py", "stopping/*.py", "allocation/**/*.py"),
    *("data/*.py", "weights/weights.json", "host/*.py", "session/*.py", "replay/*.py"),
)
GATES: Mapping[str, Policy] = {
    "product": Policy(),
    "late": Policy(n_startup_trials=5, min_comparisons=4),
    "early": Policy(n_startup_trials=2, min_comparisons=4, min_observations=3),
    "early-loose": Policy(n_startup_trials=2, min_comparisons=4, min_observations=3, few_factor=1.0),
}
"""What passes before P(beat) is asked, by name; each at every one of THRESHOLDS."""


def trained() -> dict[str, frozenset[str]]:
    """Source -> its tasks that the shipped weights were trained on, as the model card says."""
    line = re.search(r"^Tasks: (.*)\.$", (package() / f"{NAME}.md").read_text(), re.MULTILINE)
    if line is None:
        raise SystemExit(f"{NAME}.md: expected a line 'Tasks: SOURCE: TASK, ...; SOURCE: ....', got none")
    said = (part.partition(": ") for part in line[1].split("; "))
    return {source: frozenset(names.split(", ")) for source, _, names in said}


def units(data: Path) -> tuple[list[tuple[str, str]], dict[str, dict[str, str]]]:
    """(source, task) of every unseen task with at least FEWEST known runs; and of the other unseen ones, why not."""
    seen, kept = trained(), []
    left: dict[str, dict[str, str]] = {}
    for source in sources(data):
        table = Table(data / source, research.CAVEATS)
        for name in sorted(set(table.tasks) - seen.get(table.name, frozenset())):
            task = table.task(name)
            whole = 0 if task is None else known(task)
            if whole >= FEWEST:
                kept.append((source, name))
            else:
                left.setdefault(source, {})[name] = f"{whole} runs are known to the task's horizon"
    return kept, left


def known(task: Task) -> int:
    """How many runs ended at the task's own horizon, by themselves."""
    return sum(
        bool(done) and run.steps[-1] >= task.goal.horizon for run, done in zip(task.runs, task.complete, strict=True)
    )


def outcome(history: History) -> dict[str, Any]:
    """What became of one sweep.

    `lost` is the share of the horizon at which the best run was stopped before its best value, None where it was not;
    `as_good`: what was kept is as good to the last digit; `missed`: nothing was kept that is as good within epsilon;
    `stopped`: at which share of the horizon each trial was stopped; `spent`: of the cost of all.
    """
    lost, horizon = history.lost(1), history.task.goal.horizon
    return {
        "lost": round(lost[0].step / horizon, 4) if lost else None,
        "as_good": bool(lost) and not history.missed(0.0),
        "missed": history.missed(),
        "trials": len(history.lives),
        "stopped": [round(life.step / horizon, 4) for life in history.stopped],
        "spent": round(history.spent / history.full_cost, 6),
    }


def play(task: Task, policy: Policy, orders: list[int]) -> list[dict[str, Any]]:
    """Random orders of a task, each at every threshold."""
    spec, shared = PolicySpec(ASKED, tuple(asdict(policy).items()), (ASKED,)), Shared()
    keys = [(order, threshold) for order in orders for threshold in THRESHOLDS]
    searches = [(task.order(order)[:TRIALS], spec.at(threshold).make(task, shared)) for order, threshold in keys]
    rows: dict[int, dict[str, Any]] = {order: {"order": order, "at": {}} for order in orders}
    for (order, threshold), history in zip(keys, simulate_all(task, searches), strict=True):
        rows[order]["at"][f"{threshold:g}"] = outcome(history)
    return list(rows.values())


def part_of(gates: str, source: str) -> Path:
    """Where the sweeps of one source are kept."""
    return PARTS / gates / f"{source}.json"


def knobs(gates: str) -> dict[str, Any]:
    """What a kept sweep depends on beside the code."""
    said = {"policy": asdict(GATES[gates]), "weights": found(NAME)[1], "trials": TRIALS, "thresholds": list(THRESHOLDS)}
    plain: dict[str, Any] = json.loads(json.dumps(said))
    return plain


def kept(gates: str, source: str) -> dict[str, Any]:
    """What there is; nothing where the protocol or the weights have changed."""
    path = part_of(gates, source)
    stored: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return stored if stored.get("knobs") == knobs(gates) else {"knobs": knobs(gates), "tasks": {}}


def keep(gates: str, source: str, stored: dict[str, Any]) -> None:
    """Write whole or not at all."""
    path = part_of(gates, source)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(f".{os.getpid()}")
    new.write_text(json.dumps(stored, separators=(",", ":")))
    os.replace(new, path)


def code() -> str:
    """Fingerprint of the code that plays."""
    return provenance.fingerprint(ROOMS, Path(__file__), research.FILE)


def work(data: Path, gates: str, source: str, name: str, orders: int) -> list[dict[str, Any]]:
    """So many orders of one task; kept ones are not run again."""
    stored, by = kept(gates, source), code()
    rows: list[dict[str, Any]] = stored["tasks"].setdefault(name, [])
    missing = sorted(set(range(orders)) - {row["order"] for row in rows})
    if missing:
        task = Table(data / source, research.CAVEATS).task(name)
        assert task is not None
        for i in range(0, len(missing), AT_ONCE):
            rows += [row | {"by": by} for row in play(task, GATES[gates], missing[i : i + AT_ONCE])]
            keep(gates, source, stored)
    return rows
