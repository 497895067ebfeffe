"""What was answered, in pieces: one file a source, forecaster, kind and task; and results.json, made of them."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import provenance
from cheap import CHEAP
from entrants import PEERS, RECALIBRATED, PolicySpec
from questions import CUTS, GROUP, KINDS, NOTHING, OTHERS, SEED, RealCurves, ask
from scores import CAP, CLIP, LEAST, SCORES, WINDOW, beat_figures, value_figures

from lcsearch.curves import Floats
from lcsearch.errors import LcsearchError
from lcsearch.forecast.contract import Kind

HERE = Path(__file__).resolve().parent
REFERENCES = ("parametric", "rank-gap")
ROOMS = ("*.py", "study/*.py", "forecast/*.py", "forecast/network/*.py", "forecast/parametric/*.py")
SCRIPTS = (
    *sorted(path for path in HERE.glob("*.py") if not path.name.startswith("begun")),
    HERE.parent / "caveats.json",
    *sorted(HERE.parents[1].glob("benchmarks/peers/*.py")),
)


class _Row(Protocol):
    @property
    def label(self) -> str: ...


Named = TypeVar("Named", bound=_Row)


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


def keep_piece(path: Path, rows: Floats, about: dict[str, Any]) -> None:
    """Write what :func:`read_piece` reads; a kill leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(f".{os.getpid()}")
    with new.open("wb") as file:
        np.savez_compressed(file, rows=rows, about=np.array(json.dumps(about)))
    os.replace(new, path)


def work(out: Path, who: PolicySpec, task: RealCurves, curves: int, stamp: dict[str, str]) -> str:
    """Ask what is not kept yet."""
    knobs, took = knobs_of(curves), ""
    for kind in KINDS:
        path = piece_of(out, curves, who.label, kind, task)
        if read_piece(path, knobs, who.version, task.digest) is not None:
            continue
        rows, seconds = ask(who, kind, task, curves)
        about = {"knobs": knobs, "version": who.version, "data": task.digest, "seconds": seconds, **stamp}
        keep_piece(path, rows, about)
        took += f" {kind} {seconds:.1f} s"
    return took or " kept"


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
    return f"{half_told(half)}, {curves} curves a task"


def half_told(half: str) -> str:
    """Which tasks, for people."""
    return "all tasks" if half == "all" else f"half {half}"


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
        order = [*REFERENCES, *CHEAP, "mcmc", *sorted((*PEERS, *RECALIBRATED))]
        rows = dict(sorted(rows.items(), key=lambda row: (order.index(row[0]) if row[0] in order else 99, row[0])))
        mine_skipped = [line for line in skipped if line.startswith(f"{source} ")]
        sources[source] = {"tasks": names, "skipped": mine_skipped, "forecasters": rows}
    results["sections"][section_of(half, curves)] = {"knobs": knobs_of(curves), "sources": sources}
    keep_results(path, results)


def keep_results(path: Path, results: dict[str, Any]) -> None:
    """Write them; a kill leaves the old ones."""
    new = path.with_suffix(f".{os.getpid()}")
    new.write_text(compact(results) + "\n")
    os.replace(new, path)


def stamp(command: str, rooms: Sequence[str], scripts: Sequence[Path]) -> dict[str, str]:
    """What was run: the command with its arguments, without where files lie, its commit, its code."""
    said = [re.sub(r"=.*/", "=.../", word) for word in sys.argv[1:]]  # where files lie is nobody's business
    return {
        "command": " ".join([command, *map(shlex.quote, said)]),
        "commit": provenance.commit("experiments/e1_forecast/*.py", "experiments/provenance.py"),
        "code": provenance.fingerprint(rooms, *scripts),
    }


def entered(make: Callable[[str], Named], specs: Sequence[str]) -> list[Named]:
    """Who is asked, by the names of their rows.

    Raises:
        SystemExit: there is no such row, it cannot be read, or two have one name.
    """
    try:
        found = [make(spec) for spec in specs]
    except LcsearchError as error:
        raise SystemExit(str(error)) from error
    if len({who.label for who in found}) < len(found):
        raise SystemExit("--forecasters: two rows of one name; call them network@NAME=PATH")
    return found


def clean(x: Any) -> Any:
    """For JSON: six digits, NaN as null."""
    if isinstance(x, dict):
        return {key: clean(value) for key, value in x.items()}
    if isinstance(x, list):
        return [clean(value) for value in x]
    if isinstance(x, float):
        return float(f"{x:.6g}") if math.isfinite(x) else None
    return x


def compact(x: Any, depth: int = 0) -> str:
    """JSON with a line for each figure of a row; what lies deeper stands on it, without blanks."""
    if not (isinstance(x, dict) and x) or depth == 7:
        return json.dumps(x, separators=(",", ":"), allow_nan=False)
    pad = " " * depth
    inner = ",\n".join(f"{pad} {json.dumps(key)}: {compact(value, depth + 1)}" for key, value in x.items())
    return f"{{\n{inner}\n{pad}}}"
