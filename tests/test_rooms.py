"""The import rule of the house: at every depth a room imports only rooms below it, and no low room does I/O."""

from __future__ import annotations

import ast
import os
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "lcsearch"

# From the ground up, for every package that holds packages: its modules and packages, floor by floor. What stands on
# one floor imports nothing of that floor, so that there is no circle.
HOUSE: dict[str, tuple[tuple[str, ...], ...]] = {
    "lcsearch": (
        ("errors",),
        ("curves", "goal"),
        ("schedule",),
        ("study",),
        ("forecast",),
        ("stopping",),
        ("allocation",),
        ("proposal",),
        ("extras", "files", "in_time", "terminal", "secrets_in_urls"),
        ("data", "packing", "weights", "yaml_file"),
        ("checkpoint", "host", "pretrain"),
        ("session",),
        ("replay", "schedulers"),
        ("sweep",),
        ("outlook",),
        ("cli",),
        ("__main__",),
    ),
    "lcsearch.forecast": (("contract",), ("network", "rank_gap"), ("parametric", "prior")),
    "lcsearch.allocation": (
        ("contract",),
        ("arms", "gain", "mixture", "next_trials", "paces", "resources", "turns"),
        ("in_reach",),
        ("ask", "bounded", "rungs"),
        ("judge",),
        ("curriculum", "groups"),
        ("bandit",),
        ("allocators",),
        ("named",),
        ("receipt",),
        ("booked",),
    ),
    "lcsearch.data": (("caveats", "task"), ("synthetic", "tables"), ("readers", "real_curves")),
    "lcsearch.replay": (
        ("baselines", "history", "processes", "stopper"),
        ("oracle", "prefetching", "score"),
        ("policies", "simulator"),
        ("whatif",),
        ("text",),
        ("plots",),
        ("command",),
    ),
    "lcsearch.schedulers": (("optuna",), ("ray_tune",)),
    "lcsearch.sweep": (
        ("spec",),
        ("objective", "store"),
        ("monitor",),
        ("runtime", "views"),
        ("on_ray", "report"),
        ("run",),
        ("finish",),
    ),
}
FLOOR = {
    f"{package}.{room}": level
    for package, floors in HOUSE.items()
    for level, rooms in enumerate(floors)
    for room in rooms
}
PURE = {room for rooms in HOUSE["lcsearch"][: FLOOR["lcsearch.files"]] for room in rooms}

# Not below pretrain/ and host/: frameworks, devices, plots, files, processes, the network, the clock.
IMPURE = {
    *("optuna", "ray", "torch", "sklearn", "matplotlib", "pandas", "plotly", "safetensors", "pydantic", "ruamel"),
    *("os", "io", "pathlib", "shutil", "tempfile", "glob", "sqlite3", "pickle", "mmap", "fcntl", "sys", "logging"),
    *("socket", "ssl", "http", "urllib", "requests", "httpx", "asyncio", "selectors", "xmlrpc", "ftplib", "smtplib"),
    *("subprocess", "multiprocessing", "threading", "concurrent", "signal", "time", "random", "secrets"),
}
# A network is torch; what it and its prior compute touches nothing else.
MIXTURE = "src/lcsearch/allocation/mixture.py"
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
            # `from lcsearch import stopping` imports a room as much as `import lcsearch.stopping` does.
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value


def climbs(source: str, here: str, package: str) -> list[str]:
    """Imports that lead up or to a room of the same floor, or to a door that `here` lies behind.

    `here` is the dotted name of the module, `package` that of its package. Where its name and the imported one part,
    one room imports another.
    """
    found = []
    for line, name in imports(source, package):
        if name.split(".")[0] != "lcsearch" or name == "lcsearch.__version__":
            continue
        mine, theirs = here.split("."), name.split(".")
        depth = next((i for i, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), None)
        if depth is None:  # one lies behind the other; a package may import what is in it
            if len(theirs) < len(mine):
                found.append(f"{line}: {here} imports {name}, a door that it lies behind")
            continue
        parent = ".".join(mine[:depth])
        own, other = (FLOOR.get(f"{parent}.{parts[depth]}") for parts in (mine, theirs))
        if parent not in HOUSE:  # a package without packages: see the test of circles
            if f"{parent}.{theirs[depth]}" not in MODULES:
                found.append(f"{line}: {here} imports {name}, by a door that it lies behind")
        elif other is None or own is None or other >= own:
            found.append(f"{line}: {here} imports {name}")
    return found


def circles(edges: Iterable[tuple[str, str]]) -> list[str]:
    """The names that lead back to themselves."""
    after: dict[str, set[str]] = {}
    for one, other in edges:
        after.setdefault(one, set()).add(other)
    found = []
    for name in sorted(after):
        seen, left = set[str](), [name]
        while left:
            for other in after.get(left.pop(), set()) - seen:
                seen.add(other)
                left.append(other)
        if name in seen:
            found.append(name)
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
    """(path, module, package) of every file of lcsearch but its front door."""
    found = []
    for path in python_files("src/lcsearch", "schedulers"):
        parts = path.parts[2:] if path.parts[0] == "src" else path.parts
        if parts == ("__init__.py",):
            continue
        package = ".".join(["lcsearch", *parts[:-1]])
        found.append((path, package if path.stem == "__init__" else f"{package}.{path.stem}", package))
    return found


def complaints(path: Path, found: list[str]) -> list[str]:
    return [f"{path}:{one}" for one in found]


MODULES = {module for _, module, _ in lcsearch_files()}
PACKAGES = {module for path, module, _ in lcsearch_files() if path.stem == "__init__"} | {"lcsearch"}


def test_every_room_has_a_floor() -> None:
    """At every depth: a package is forgotten nowhere, and what is listed is there."""
    assert {package for package in PACKAGES if any(other.startswith(f"{package}.") for other in PACKAGES)} == set(HOUSE)
    for package in HOUSE:
        there = {module for module in MODULES if module.rpartition(".")[0] == package}
        listed = [name for name in FLOOR if name.rpartition(".")[0] == package]
        assert sorted(listed) == sorted(there), package


def test_a_room_imports_only_rooms_below() -> None:
    found = [c for path, here, package in lcsearch_files() for c in complaints(path, climbs(read(path), here, package))]
    assert found == []


def test_no_circle_at_any_depth() -> None:
    """Among the modules and packages of each package, whoever stands in them."""
    edges: dict[str, set[tuple[str, str]]] = {}
    for path, here, package in lcsearch_files():
        for _, name in imports(read(path), package):
            mine, theirs = here.split("."), name.split(".")
            depth = next((i for i, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), 0)
            if depth and ".".join(theirs[: depth + 1]) in MODULES:
                edges.setdefault(".".join(mine[:depth]), set()).add((mine[depth], theirs[depth]))
    assert {"lcsearch", "lcsearch.sweep", "lcsearch.sweep.views", "lcsearch.stopping"} <= set(edges)
    assert {package: circles(of) for package, of in edges.items() if circles(of)} == {}


def test_no_io_below_pretrain_and_host() -> None:
    files = [(path, package) for path, here, package in lcsearch_files() if here.split(".")[1] in PURE]
    assert len(files) > 15
    torch, mixture = ("torch",), {MIXTURE: ("sklearn",)}
    allowed = {p: torch if str(p).startswith(TENSORS) else mixture.get(str(p), ()) for p, _ in files}
    found = [c for path, package in files for c in complaints(path, impurities(read(path), package, allowed[path]))]
    assert found == []


LAUNCHING = ("lcsearch.sweep.runtime", "lcsearch.sweep.on_ray", "lcsearch.sweep.run", "lcsearch.sweep.finish")


def reached(first: str) -> set[str]:
    """The modules of lcsearch that the module or package `first` imports, and those that these import, and so on."""
    own = {here: (path, package) for path, here, package in lcsearch_files()}
    left, seen = [name for name in own if name == first or name.startswith(f"{first}.")], set[str]()
    while left:
        here = left.pop()
        seen.add(here)
        path, package = own[here]
        for _, name in imports(read(path), package):
            parts = name.split(".")
            around = (".".join(parts[:n]) for n in range(2, len(parts) + 1))  # the packages, too
            left += [one for one in around if one in own and one not in seen]
    return seen


READING = ("lcsearch.sweep.views", "lcsearch.sweep.report", "lcsearch.sweep.monitor", "lcsearch.outlook")


@pytest.mark.parametrize("reader", READING)
def test_who_reads_a_run_imports_nothing_that_launches_one(reader: str) -> None:
    assert [name for name in sorted(reached(reader)) if name.startswith(LAUNCHING)] == []


def test_the_network_is_served_without_what_trains_it() -> None:
    assert [name for name in reached("lcsearch.host") if name.startswith("lcsearch.pretrain")] == []
    assert "lcsearch.weights.store" in reached("lcsearch.host")


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
    ("source", "here"),
    [
        ("from lcsearch.allocation.judge import check", "lcsearch.stopping.rules"),
        ("import lcsearch.session", "lcsearch.stopping.rules"),
        ("from lcsearch import sweep", "lcsearch.schedulers.optuna._pruner"),
        ("def f():\n    from lcsearch.stopping import risk", "lcsearch.forecast.contract"),
        ("from ..allocation import judge", "lcsearch.stopping.rules"),
        ("from .. import allocation", "lcsearch.stopping.rules"),
        ("from importlib import import_module\nimport_module('lcsearch.cli')", "lcsearch.sweep.run"),
        ("if TYPE_CHECKING:\n    from lcsearch.forecast.contract import Query", "lcsearch.study.bank"),
        ("from lcsearch import Curve", "lcsearch.stopping.rules"),  # the front door leads to every room
        ("from lcsearch.study import FinishedTrials", "lcsearch.study.trial"),  # as a room's own door does
        ("from lcsearch.sweep import Context", "lcsearch.sweep.views.live"),
        ("from lcsearch.replay import policies", "lcsearch.schedulers.optuna._pruner"),  # of one floor
        ("from lcsearch.sweep.views.live import make_view", "lcsearch.sweep.runtime.launch"),
        ("from lcsearch.sweep.runtime import exits", "lcsearch.sweep.views.status"),
        ("from lcsearch.sweep.monitor.state import StateReader", "lcsearch.sweep.store.budget"),
        ("from lcsearch.forecast.prior import draw", "lcsearch.forecast.network.model"),
        ("from lcsearch.nowhere import thing", "lcsearch.sweep.run"),
    ],
)
def test_climbing_is_seen(source: str, here: str) -> None:
    assert len(climbs(source, here, here.rpartition(".")[0])) == 1


@pytest.mark.parametrize(
    ("source", "here"),
    [
        ("from lcsearch.curves import Curve\nimport numpy, json", "lcsearch.stopping.rules"),
        ("from lcsearch.stopping.policy import Policy", "lcsearch.stopping.judge"),
        ("from . import rules\nfrom ..study import Trial", "lcsearch.stopping.judge"),
        ("from lcsearch.errors import InvalidValue", "lcsearch.curves"),
        ("from lcsearch import __version__", "lcsearch.cli"),
        ("from lcsearch.sweep.monitor.state import StateReader", "lcsearch.sweep.views.live"),
    ],
)
def test_going_down_is_fine(source: str, here: str) -> None:
    assert climbs(source, here, here.rpartition(".")[0]) == []


def test_circles_are_seen() -> None:
    assert circles([("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")]) == ["b", "c"]
    assert circles([("a", "b"), ("b", "c"), ("a", "c")]) == []


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
    assert len(impurities(source, "lcsearch.stopping")) == 1
    assert (
        impurities("import math, json\nimport numpy as np\nfrom scipy.special import ndtri", "lcsearch.stopping") == []
    )


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
