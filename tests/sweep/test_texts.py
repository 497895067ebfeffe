"""Error texts, word for word; and that no text of the sweep's errors is without a test that holds its words."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sweep.kit import TRAIN, write_toy
from typer.testing import CliRunner

import lcsearch.errors
from lcsearch import checkpoint
from lcsearch.cli import app
from lcsearch.errors import EnvironmentProblem, FileProblem, InvalidValue
from lcsearch.sweep.objective.context import load_objective
from lcsearch.sweep.runtime import preflight
from lcsearch.sweep.spec.load import load
from lcsearch.sweep.spec.space import from_optuna
from lcsearch.sweep.spec.starter import write as write_starter
from lcsearch.sweep.store import studies
from lcsearch.sweep.store.folder import RunFolder

TESTS = Path(__file__).parents[1]
SOURCE = Path(lcsearch.errors.__file__).parent
RAISED = {"FileProblem", "EnvironmentProblem", "InvalidValue", "CommandFailed", "expected"}
LONG = 12


def plain(text: str) -> str:
    return text.strip(" :;,.\n").lower()


def constants(node: ast.AST) -> Iterator[str]:
    """The texts in `node`, f-strings cut where a value stands."""
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value


def raised(path: Path) -> Iterator[str]:
    """What the errors raised in `path` say, the variables their texts are put together in included."""
    for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(function, ast.FunctionDef):
            continue
        for node in ast.walk(function):
            call = node.exc if isinstance(node, ast.Raise) else None
            if not isinstance(call, ast.Call) or getattr(call.func, "id", "") not in RAISED:
                continue
            yield from constants(call)
            names = {part.id for part in ast.walk(call) if isinstance(part, ast.Name)}
            for other in ast.walk(function):
                targets = other.targets if isinstance(other, ast.Assign) else [getattr(other, "target", None)]
                if isinstance(other, ast.Assign | ast.AugAssign) and any(
                    getattr(t, "id", "") in names for t in targets
                ):
                    yield from constants(other.value)


def test_every_text_of_an_error_stands_in_a_test() -> None:
    known = "\n".join(
        plain(text) for path in TESTS.rglob("*.py") for text in constants(ast.parse(path.read_text(encoding="utf-8")))
    )
    beside = ("terminal.py", "secrets_in_urls.py", "pretrain/command.py")
    files = [*(SOURCE / "sweep").rglob("*.py"), *(SOURCE / "yaml_file").rglob("*.py"), *(SOURCE / p for p in beside)]
    files += (SOURCE / "cli").rglob("*.py")
    assert len(files) > 60
    missing = {
        f"{path.name}: {text}"
        for path in files
        for text in map(plain, raised(path))
        if len(text) > LONG and text not in known
    }
    assert missing == set()


def refused(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert (done.exit_code, done.stdout) == (2, "")
    return done.stderr


def test_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    assert refused("validate", str(path)) == f"{path}: expected a sweep file, got no such file.\n"
    assert refused("validate", str(tmp_path)) == f"{tmp_path}: expected a sweep file, got a folder.\n"
    path.write_bytes(b"name: \xff")
    assert refused("validate", str(path)) == (
        f"{path}: expected a readable UTF-8 text file, got 'utf-8' codec can't decode byte 0xff in position 6: "
        "invalid start byte.\n"
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "{n: 1",
            "{n: 1, stall: 5",
            "13:45: at $.backend.workers.stall: expected none with kind ray, got 5.",
        ),
        (
            "{n: 1",
            "{n: 1, devices: ['cuda:1']",
            "13:47: at $.backend.workers.devices: expected [cpu] or [cuda] with kind ray, which deals out GPUs itself, "
            "got ['cuda:1'].",
        ),
        (
            "{kind: none}",
            "{kind: median}",
            "15:16: at $.pruner.kind: expected curve or none with backend kind ray, got 'median'.",
        ),
        (
            "kind: ray",
            "kind: optuna, address: auto",
            "13:34: at $.backend.address: expected no address with kind optuna, got 'auto'.",
        ),
    ],
)
def test_what_does_not_go_together(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = write_toy(tmp_path, kind="ray")
    path.write_text(path.read_text().replace(old, new))
    assert refused("validate", str(path)) == f"{path}:{said}\n"


def test_a_checkpoint_that_is_none_and_state_that_cannot_be_kept(tmp_path: Path) -> None:
    path = tmp_path / checkpoint.FILE
    path.write_bytes(b"garbage")
    with pytest.raises(FileProblem) as caught:
        checkpoint.load(tmp_path)
    said = str(caught.value)
    assert re.sub("got .*?[.] ", "got ... ", said) == f"{path}: expected a checkpoint, got ... Delete it to start over."
    for value, text in (
        (torch.nn.Linear(1, 1), f"{TAKEN}, got 'Linear'. {ELSE}"),
        ({1, 2}, f"{TAKEN}, got 'set'. {ELSE}"),
        ({(1, 2): 3}, "expected keys that are plain values, got (1, 2). Turn them into text."),
        (np.array([1, None]), f"expected arrays of numbers, text or bytes, got 'an array of Python objects'. {ELSE}"),
        (np.ma.array([1], mask=[True]), f"expected arrays of numbers, text or bytes, got 'a masked array'. {ELSE}"),
        (Tabular(), f"{TAKEN}, got 'Tabular'. Make it an array: np.asarray(...)."),
    ):
        with pytest.raises(InvalidValue) as wrong:
            checkpoint.save(tmp_path, {"m": value}, 1)
        assert str(wrong.value) == f"state.m: {text}"
    with pytest.raises(InvalidValue) as wrong:
        checkpoint.save(tmp_path, torch.nn.Linear(1, 1), 1)  # type: ignore[arg-type]
    kept = 'expected a dict of what is to be kept, as in {"weights": weights}'
    assert str(wrong.value) == f"save(state=): {kept}, got 'Linear'. {ELSE}"
    taken: tuple[Any, ...] = (np.zeros(2), b"raw", [1.0])  # but under a name
    for one in taken:
        with pytest.raises(InvalidValue) as wrong:
            checkpoint.save(tmp_path, one, 1)
        named = 'Put it into one, under a name of its own: {"state": ...}.'
        assert str(wrong.value) == f"save(state=): {kept}, got {type(one).__name__!r}. {named}"


TAKEN = "expected tensors, arrays, bytes, numbers, text, None, and dicts, lists and tuples of these"
ELSE = (
    "Save what it can be made from again (its state_dict(), coefficients or raw bytes), "
    "or write it to a file: with saving(step) as folder."
)


class Tabular:
    """What can be made an array, and is none: a JAX array, a data frame."""

    def __array__(self) -> None: ...


def test_objectives_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileProblem) as caught:
        load_objective("toy:train", tmp_path)
    assert str(caught.value) == f"{tmp_path}/toy.py: expected the objective's module, got no such file."
    (tmp_path / "toy.py").write_text("train = 5\n")
    with pytest.raises(FileProblem) as caught:
        load_objective("toy:train", tmp_path)
    assert str(caught.value) == f"{tmp_path}/toy.py: expected a function 'train', got 5."
    path = write_toy(tmp_path, f"import os; os._exit(3)\n{TRAIN}")
    with pytest.raises(FileProblem) as caught:
        preflight.check(load(path))
    assert str(caught.value) == (
        f"{tmp_path}/toy.py: expected a module that imports, got a process that ended with exit code 3; it said last: "
        "nothing"
    )


def test_a_distribution_that_is_not_known() -> None:
    with pytest.raises(InvalidValue) as caught:
        from_optuna(None)  # type: ignore[arg-type]
    assert str(caught.value) == "from_optuna(): expected a float, int or categorical distribution, got None."


def test_a_starter_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    path = tmp_path / "plain" / "s.yaml"
    with pytest.raises(EnvironmentProblem) as caught:
        write_starter(path)
    assert str(caught.value) == (
        f"{path}: expected a folder that can be written, got [Errno 17] File exists: '{tmp_path}/plain'."
    )


@pytest.mark.parametrize(
    ("url", "package"),
    [("mysql://ann:s3cret@h/db", "mysqlclient"), ("mysql+pymysql://h/db", "pymysql"), ("oracle://h/db", "oracledb")],
)
def test_a_database_without_its_driver(tmp_path: Path, url: str, package: str) -> None:
    sweep: Any = SimpleNamespace(backend=SimpleNamespace(storage=url))
    with pytest.raises(EnvironmentProblem) as caught:
        studies.open_storage(sweep, RunFolder(tmp_path))
    assert str(caught.value) == (
        f"{url.replace('s3cret', '***')}: expected the database's driver, got Failed to import DB access module "
        f"for the specified storage URL. Please install appropriate one. Install it: pip install {package}"
    )


def test_a_command_is_one_program(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"

    def validate(command: str) -> tuple[int, str]:
        path.write_text(
            f"version: 1\nname: s\nobjective: {{command: {json.dumps(command)}}}\nmetric: v\ngoal: minimize\n"
            "step: epoch\nmax_steps: 3\nspace: {lr: {uniform: [0, 1]}, wd: {uniform: [0, 1]}}\nbudget: {trials: 2}\n"
        )
        done = CliRunner().invoke(app, ["validate", str(path)])
        return done.exit_code, done.stdout + done.stderr

    assert validate("cd x && python a.py") == (
        2,
        f"{path}:3:22: at $.objective.command: expected one program with its arguments, for no shell reads && (to have "
        "one: bash -c '...'), got 'cd x && python a.py'.\n",
    )
    assert validate("bash -c 'cd x && python a.py --lr={lr} --wd={wd}'")[0] == 0
    assert validate("pythn a.py") == (
        3,
        "objective.command: expected the program 'pythn', got none of that name on PATH.\n",
    )
    code, said = validate("python a.py --lr={lr}")
    assert code == 0
    assert "\n! wd: searched, and the command has no {wd}; does the program read LCSEARCH_PARAMS?\n" in said
