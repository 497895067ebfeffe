"""Every example runs as it stands; Ray's does so on the cluster of tests/schedulers/ray_tune."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from kit.forecasters import ForecasterKit

from lcsearch.forecast.contract import Forecaster

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
ELSEWHERE = "ray_tune.py"
SCRIPTS = {"optuna_sklearn.py": "sklearn", "optuna_pytorch.py": "torch", "optuna_xgboost.py": "xgboost"}
SCRIPTS["own_forecaster.py"] = "numpy"
SWEEPS = ("sweep_function", "sweep_program")


@pytest.mark.parametrize(("name", "package"), SCRIPTS.items())
def test_a_study(name: str, package: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip(package)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study: Any = runpy.run_path(str(EXAMPLES / name), run_name="__main__")["study"]
    states = [trial.state.name for trial in study.trials]
    assert len(states) == 30
    assert states.count("PRUNED") >= 5
    assert states.count("FAIL") == 0
    assert study.pruner.report(study).stops
    assert re.search(r"^trials: \d+ complete, \d+ stopped$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep(name: str, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / name, tmp_path / name)
    command = [sys.executable, "-m", "lcsearch", "run", f"{name}/sweep.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    ended = re.search(r"^\w+: (\d+) complete, (\d+) stopped in ", done.stdout, re.MULTILINE)
    assert ended is not None, done.stdout
    assert int(ended[1]) + int(ended[2]) == 24
    assert int(ended[2]) >= 3


class TestTheForecaster(ForecasterKit):
    def make(self) -> Forecaster:
        from lcsearch.forecast.parametric import ParametricEnsemble
        from lcsearch.forecast.rank_gap import RankAndGap

        sys.modules.setdefault("own_forecaster", module())
        made: Forecaster = sys.modules["own_forecaster"].Average(ParametricEnsemble(), RankAndGap())
        return made


def module() -> Any:
    """The example as a module, which other processes find by name, too."""
    import importlib

    if str(EXAMPLES) not in sys.path:
        sys.path.append(str(EXAMPLES))
    return importlib.import_module("own_forecaster")


def test_every_example_is_run_and_listed() -> None:
    scripts = {path.name for path in EXAMPLES.glob("*.py")}
    assert scripts == {*SCRIPTS, ELSEWHERE}
    assert {path.parent.name for path in EXAMPLES.glob("*/sweep.yaml")} == set(SWEEPS)
    listed = (EXAMPLES / "README.md").read_text()
    assert all(f"| `{name}` |" in listed for name in scripts)
    assert all(f"| `{name}/` |" in listed for name in SWEEPS)
    page = (ROOT / "docs" / "examples.md").read_text()
    files = {
        path.relative_to(ROOT).as_posix() for path in EXAMPLES.rglob("*") if path.suffix in (".py", ".yaml", ".md")
    }
    assert files == set(re.findall(r'^--8<-- "(examples/.*)"$', page, re.MULTILINE))
    assert ELSEWHERE in (ROOT / "tests" / "schedulers" / "ray_tune" / "test_cluster.py").read_text()
