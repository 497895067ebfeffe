"""The README's Python runs as it stands, with a toy in place of 'your training'."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import optuna
import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()


def train_one_epoch(lr: float, epoch: int) -> float:
    """A curve whose limit depends on the learning rate."""
    return abs(math.log10(lr) + 2.5) + 0.8**epoch


def test_the_optuna_example(capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert "n_trials=100" in code
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    scope: dict[str, Any] = {"train_one_epoch": train_one_epoch}
    exec(code.replace("n_trials=100", "n_trials=30"), scope)
    states = [trial.state.name for trial in scope["study"].trials]
    assert states.count("COMPLETE") >= 5
    assert states.count("PRUNED") > 5
    assert "trial 17" in capsys.readouterr().out


def test_the_two_commands_stand_in_the_first_two_shell_blocks() -> None:
    install, check = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)[:2]
    assert install == 'pip install -e ".[dev]" && lcsearch run configs/digits.yaml\n'
    assert check == "bash .ci/check\n"


def test_the_sweep_file_is_valid(tmp_path: Path) -> None:
    from lcsearch.sweep.spec.load import load

    (text,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "train.py").write_text("def train(ctx):\n    pass\n")
    (tmp_path / "mine.yaml").write_text(text)
    assert load(tmp_path / "mine.yaml").file.budget.trials == 40
