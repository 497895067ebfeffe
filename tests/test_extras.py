"""`pip install lcsearch` alone: the pruner decides; what needs the extra `sweep` says so in one sentence."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import lcsearch
from lcsearch.extras import RAY, SERVE, SWEEP, MissingExtra, need_sweep

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BLOCKER = f"""
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {{one.split(".")[0] for one in {(*SWEEP, *RAY, *SERVE)!r}}}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refuse())
"""
SENTENCE = (
    "{}: expected the packages of the extra 'sweep', got no typer, no rich, no pydantic, no ruamel.yaml, "
    "no matplotlib, no sklearn. Install them: pip install 'lcsearch[sweep]'"
)
STUDY = """
import lcsearch, optuna
from lcsearch.schedulers.optuna import CurvePruner

def objective(trial):
    limit = trial.suggest_float("limit", 0, 1)
    for step in range(30):
        trial.report(limit + 0.8**step, step)
        if trial.should_prune():
            raise optuna.TrialPruned
    return limit + 0.8**29

optuna.logging.set_verbosity(optuna.logging.ERROR)
pruner = CurvePruner(max_steps=30)
study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), pruner=pruner)
study.optimize(objective, n_trials=20)
stopped = [t.number for t in study.trials if t.state.name == "PRUNED"]
print(len(study.trials), len(stopped) > 5, "network" in pruner.explain(stopped[-1]))
print(pruner.report(study))
"""


def without_sweep(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`code`, run where no package of the extra can be imported."""
    environment = {**os.environ, "PYTHONPATH": str(Path(lcsearch.__file__).parents[1])}
    command = [sys.executable, "-W", "error", "-c", BLOCKER + code, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def test_a_study_with_the_network_needs_none_of_it() -> None:
    done = without_sweep(STUDY)
    # a loaded machine may take so long over torch that it is told
    assert [line for line in done.stderr.splitlines() if "is still being loaded" not in line] == []
    assert done.stdout.startswith("20 True True\n")


def test_the_command_line_says_what_to_install() -> None:
    done = without_sweep("from lcsearch.__main__ import main\nmain()", "run", "digits.yaml")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", SENTENCE.format("lcsearch") + "\n")
    assert PROJECT["scripts"] == {"lcsearch": "lcsearch.__main__:main"}


@pytest.mark.parametrize("part", ["lcsearch.sweep", "lcsearch.pretrain", "lcsearch.replay.plots"])
def test_a_part_that_needs_it_says_what_to_install(part: str) -> None:
    done = without_sweep(f"import {part}")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"lcsearch.extras.MissingExtra: {SENTENCE.format(part)}"


def test_the_scheduler_without_ray_says_what_to_install() -> None:
    """It was a bare ModuleNotFoundError of a private module."""
    done = without_sweep("import lcsearch.schedulers.ray_tune")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "lcsearch.extras.MissingExtra: lcsearch.schedulers.ray_tune: expected the packages of the extra 'ray', got no "
        "ray. Install them: pip install 'lcsearch[ray]'"
    )


def test_serving_without_its_packages_says_what_to_install() -> None:
    done = without_sweep("import lcsearch.host.serving")
    assert done.stderr.splitlines()[-1] == (
        "lcsearch.extras.MissingExtra: lcsearch serve: expected the packages of the extra 'serve', got no starlette, "
        "no uvicorn, no httptools. Install them: pip install 'lcsearch[serve]'"
    )


def test_where_all_is_there_nothing_is_said() -> None:
    need_sweep("anything")
    assert issubclass(MissingExtra, ImportError)


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=]", one)[0] for one in requirements}


def test_what_is_looked_for_is_what_the_extra_brings() -> None:
    assert names(PROJECT["optional-dependencies"]["sweep"]) == {*SWEEP, "scikit-learn"} - {"sklearn"}
    assert names(PROJECT["optional-dependencies"]["serve"]) == set(SERVE)
    assert PROJECT["optional-dependencies"]["dev"][0] == "lcsearch[sweep,ray,serve,postgres,docs]"


EXTRA = (
    "cli",
    "sweep",
    "pretrain",
    "yaml_file",
    "replay/plots.py",
    "outlook/plots.py",
    "host/endpoint.py",
    "host/serving.py",
)
"""What the extras `sweep` and `serve` are for; Ray has its own."""


def foreign(path: Path) -> Iterator[str]:
    """Packages that are neither lcsearch's nor Python's, which the file imports when it is imported itself."""
    left: list[ast.AST] = [ast.parse(path.read_text())]
    while left:
        node = left.pop()
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found = [node.module or ""]
        else:
            found = []
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                continue
            left += ast.iter_child_nodes(node)
        yield from {name.split(".")[0] for name in found} - sys.stdlib_module_names - {"lcsearch"}


def test_all_else_imports_what_pip_brings() -> None:
    package = ROOT / "src" / "lcsearch"
    used: dict[str, set[str]] = {}
    for path in [*package.rglob("*.py"), *(ROOT / "schedulers").rglob("*.py")]:
        inside = path.relative_to(package if path.is_relative_to(package) else ROOT).as_posix()
        if not inside.startswith((*EXTRA, "schedulers/ray_tune", "host/ray_actor.py")):
            for name in foreign(path):
                used.setdefault(name, set()).add(inside)
    assert set(used) <= names(PROJECT["dependencies"]), used
    assert {"numpy", "scipy", "torch", "optuna"} <= set(used)
