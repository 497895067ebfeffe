"""The import rule of the house: a room imports only rooms below it, and no low room does I/O."""

from __future__ import annotations

import ast
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "lcsearch"

# From the ground up; rooms of one floor may import each other.
FLOORS = (
    ("errors", "curves", "goal", "schedule", "study"),
    ("forecast",),
    ("decide",),
    ("allocate",),
    ("engine",),
    ("files",),
    ("pretrain",),
    ("host",),
    ("decision_log", "panel", "look_queue", "session", "explain", "study_report"),
    ("replay",),
    ("schedulers",),
    ("sweep",),
    ("cli", "__main__"),
)
FLOOR = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
PURE = {room for rooms in FLOORS[: FLOOR["files"]] for room in rooms}

# Not below pretrain/ and host/: frameworks, devices, plots, files, processes, the network, the clock.
IMPURE = {
    *("optuna", "ray", "torch", "sklearn", "matplotlib", "pandas", "plotly", "safetensors", "pydantic", "ruamel"),
    *("os", "io", "pathlib", "shutil", "tempfile", "glob", "sqlite3", "pickle", "mmap", "fcntl", "sys", "logging"),
    *("socket", "ssl", "http", "urllib", "requests", "httpx", "asyncio", "selectors", "xmlrpc", "ftplib", "smtplib"),
    *("subprocess", "multiprocessing", "threading", "concurrent", "signal", "time", "random", "secrets"),
}
# A network is torch; what it and its prior compute touches nothing else.
TENSORS = ("src/lcsearch/forecast/network", "src/lcsearch/forecast/prior")
PRIVATE_OF_OPTUNA = {"_storage", "_trial_id", "_study_id", "_get_trials", "_thread_local", "_cached_frozen_trial"}
PRIVATE_MODULE = "schedulers/optuna/_storage.py"


def imports(source: str, module: str) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of everything imported anywhere in `source`, functions included.

    `module` is the dotted name of the file's package, to resolve relative imports against.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")[: len(module.split(".")) - node.level + 1]
                base = ".".join([*parts, base]).rstrip(".")
            # `from lcsearch import engine` imports a room as much as `import lcsearch.engine` does.
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value


def room_of(dotted: str) -> str | None:
    """The room that an absolute name lies in; None outside lcsearch, "" for lcsearch itself."""
    parts = dotted.split(".")
    if parts[0] != "lcsearch":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in FLOOR else ""


def climbs(source: str, room: str, package: str) -> list[str]:
    """Imports that lead up, or to the front door, from `room`."""
    found = []
    for line, name in imports(source, package):
        there = room_of(name)
        if there is None or there == room:
            continue
        if there == "" and name.removeprefix("lcsearch.") == "__version__":
            continue
        if there == "" or FLOOR[there] > FLOOR[room]:
            found.append(f"{line}: {room} imports {name}")
    return found


def impurities(source: str, package: str, allowed: tuple[str, ...] = ()) -> list[str]:
    """Imports of what touches the world, but those `allowed`, and the built-in open()."""
    banned = IMPURE - set(allowed)
    found = [f"{line}: {name}" for line, name in imports(source, package) if name.split(".")[0] in banned]
    doors = ("open", "input", "print")
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    named = ((call.lineno, call.func.id) for call in calls if isinstance(call.func, ast.Name))
    return found + [f"{line}: {name}()" for line, name in named if name in doors]


def optuna_privates(source: str) -> list[str]:
    """Private attributes of Optuna objects, touched or named for getattr."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in PRIVATE_OF_OPTUNA:
            # An object's own `self._storage` is its own business.
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                found.append(f"{node.lineno}: .{node.attr}")
        elif isinstance(node, ast.Constant) and node.value in PRIVATE_OF_OPTUNA:
            found.append(f"{node.lineno}: {node.value!r}")
    return found


def side_doors(source: str) -> list[str]:
    """Imports of the adapters by the repository's root."""
    return [f"{line}: {name}" for line, name in imports(source, "") if name.split(".")[0] == "schedulers"]


def python_files(*folders: str) -> list[Path]:
    """Every Python file under the folders that exist, as a path in the repository."""
    found = [p for folder in folders for p in (ROOT / folder).rglob("*.py") if "__pycache__" not in p.parts]
    return sorted({p.resolve().relative_to(ROOT) for p in found})


def lcsearch_files() -> list[tuple[Path, str, str]]:
    """(path, room, package) of every file of lcsearch but its front door."""
    found = []
    for path in python_files("src/lcsearch", "schedulers"):
        parts = path.parts[2:] if path.parts[0] == "src" else path.parts
        if parts == ("__init__.py",):
            continue
        found.append((path, Path(parts[0]).stem, ".".join(["lcsearch", *parts[:-1]])))
    return found


def complaints(path: Path, found: list[str]) -> list[str]:
    return [f"{path}:{one}" for one in found]


def test_every_room_has_a_floor() -> None:
    files = lcsearch_files()
    assert {room for _, room, _ in files} <= set(FLOOR)
    assert {"curves", "forecast", "decide", "engine", "session", "schedulers"} <= {room for _, room, _ in files}


def test_a_room_imports_only_rooms_below() -> None:
    found = [c for path, room, package in lcsearch_files() for c in complaints(path, climbs(read(path), room, package))]
    assert found == []


def test_no_io_below_pretrain_and_host() -> None:
    files = [(path, package) for path, room, package in lcsearch_files() if room in PURE]
    assert len(files) > 15
    allowed = {path: ("torch",) if str(path).startswith(TENSORS) else () for path, _ in files}
    found = [c for path, package in files for c in complaints(path, impurities(read(path), package, allowed[path]))]
    assert found == []


def test_one_module_touches_what_optuna_keeps_private() -> None:
    files = python_files("src", "schedulers", "experiments", "configs", "benchmarks")
    assert Path(PRIVATE_MODULE) in files
    others = [path for path in files if path != Path(PRIVATE_MODULE)]
    assert [c for path in others for c in complaints(path, optuna_privates(read(path)))] == []


def test_nobody_uses_the_side_door() -> None:
    files = python_files("src", "schedulers", "experiments", "configs", "benchmarks", "tests")
    assert [c for path in files for c in complaints(path, side_doors(read(path)))] == []


def test_the_link_to_the_adapters_is_committed_and_leads_there() -> None:
    link = PACKAGE / "schedulers"
    assert link.is_symlink()
    assert os.readlink(link) == "../../schedulers"
    assert link.resolve() == ROOT / "schedulers"
    import lcsearch.schedulers.optuna as adapter

    assert adapter.__name__ == "lcsearch.schedulers.optuna"
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout: nothing tells what is committed")
    entry = subprocess.run(
        ["git", "ls-files", "--stage", "src/lcsearch/schedulers"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert entry.startswith("120000 "), "src/lcsearch/schedulers must be committed as a symlink"


def read(path: Path) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


# Every check above fails on a bad example.


@pytest.mark.parametrize(
    ("source", "room", "package"),
    [
        ("from lcsearch.engine.ask import ask", "decide", "lcsearch.decide"),
        ("import lcsearch.session", "engine", "lcsearch.engine"),
        ("from lcsearch import sweep", "schedulers", "lcsearch.schedulers.optuna"),
        ("def f():\n    from lcsearch.decide import risk", "forecast", "lcsearch.forecast"),
        ("from ..engine import judge", "decide", "lcsearch.decide"),
        ("from .. import engine", "decide", "lcsearch.decide"),
        ("from importlib import import_module\nimport_module('lcsearch.cli')", "sweep", "lcsearch.sweep"),
        ("if TYPE_CHECKING:\n    from lcsearch.forecast.contract import Query", "study", "lcsearch"),
        ("from lcsearch import Curve", "decide", "lcsearch.decide"),  # the front door leads to every room
    ],
)
def test_climbing_is_seen(source: str, room: str, package: str) -> None:
    assert len(climbs(source, room, package)) == 1


@pytest.mark.parametrize(
    ("source", "room", "package"),
    [
        ("from lcsearch.curves import Curve\nimport numpy, json", "decide", "lcsearch.decide"),
        ("from lcsearch.engine.policy import Policy", "engine", "lcsearch.engine"),
        ("from . import rules\nfrom ..study import Trial", "decide", "lcsearch.decide"),
        ("from lcsearch.errors import InvalidValue", "curves", "lcsearch"),
        ("from lcsearch import __version__", "cli", "lcsearch"),
    ],
)
def test_going_down_is_fine(source: str, room: str, package: str) -> None:
    assert climbs(source, room, package) == []


@pytest.mark.parametrize(
    "source",
    [
        "import torch",
        "import optuna.trial",
        "from pathlib import Path",
        "def f():\n    import socket",
        "from urllib.request import urlopen",
        "import numpy as np, os",
        "def f(p):\n    with open(p) as file:\n        return file.read()",
        "import time",
    ],
)
def test_io_is_seen(source: str) -> None:
    assert len(impurities(source, "lcsearch.decide")) == 1
    assert impurities("import math, json\nimport numpy as np\nfrom scipy.special import ndtri", "lcsearch.decide") == []


@pytest.mark.parametrize(
    "source",
    ["study._storage.get_trial(3)", "key = trial._trial_id", "getattr(study, '_study_id')", "s.x._get_trials(True)"],
)
def test_touching_privates_is_seen(source: str) -> None:
    assert len(optuna_privates(source)) == 1
    assert optuna_privates("self._storage = 1\nstudy.study_name") == []


@pytest.mark.parametrize("source", ["import schedulers.optuna", "from schedulers import optuna", "import schedulers"])
def test_the_side_door_is_seen(source: str) -> None:
    assert len(side_doors(source)) == 1
    assert side_doors("import lcsearch.schedulers.optuna\nfrom optuna.pruners import BasePruner") == []
