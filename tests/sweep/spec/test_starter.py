"""`lcsearch init` and `lcsearch schema`: what a newcomer and an editor are given holds."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from sweep.kit import lcsearch
from typer.testing import CliRunner

from lcsearch.cli import app
from lcsearch.sweep.spec.load import load
from lcsearch.yaml_file.document import parse

ROOT = Path(__file__).parents[3]


def init(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["init", *arguments])


def test_from_init_to_a_finished_sweep(tmp_path: Path) -> None:
    done = lcsearch("init", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "wrote sweep.yaml",
        "wrote sweep_objective.py",
        "next: lcsearch plan sweep.yaml, then lcsearch run sweep.yaml",
    ]
    limit = "  # risk: 0.1               # and no more once the chance that some stop lost the winner would pass this"
    text = (tmp_path / "sweep.yaml").read_text()
    assert limit in text.splitlines()
    (tmp_path / "limited.yaml").write_text(text.replace("# risk: 0.1 ", "risk: 0.1"))
    assert load(tmp_path / "limited.yaml").file.pruner.model_dump()["risk"] == 0.1
    done = lcsearch("validate", "sweep.yaml", cwd=tmp_path)
    assert done.stdout.splitlines() == [
        "sweep.yaml: fine: 20 trials of 30 epochs over 5 parameters",
        "next: lcsearch plan sweep.yaml, then lcsearch run sweep.yaml",
    ]
    done = lcsearch("run", "sweep.yaml", "budget.trials=6", "max_steps=8", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\nbest: loss " in done.stdout
    assert "failed" not in done.stdout


def test_nothing_is_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for mine in ("a.yaml", "b_objective.py"):
        Path(mine).write_text("mine")
        done = init(f"{mine[0]}.yaml")
        assert (done.exit_code, done.stdout) == (2, "")
        assert done.stderr == (
            f"{mine}: expected no such file, got one. Choose another name: lcsearch init NAME.yaml\n"
        )
        assert Path(mine).read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.yaml", "b_objective.py"]


@pytest.mark.parametrize(
    ("file", "name", "module"),
    [
        ("my sweep.yaml", "my-sweep", "my_sweep_objective"),
        ("3d.yml", "3d", "_3d_objective"),
        ("größe.yaml", "gr--e", "gr__e_objective"),
        ("_x.v2.yaml", "x.v2", "_x_v2_objective"),
        ("'\"\\N{x}.yaml", "N-x-", "___N_x__objective"),
        ("new/deep/s.yaml", "s", "s_objective"),
        ("---.yaml", "sweep", "____objective"),
        ("true.yaml", "true", "true_objective"),
        ("12.yaml", "12", "_12_objective"),
    ],
)
def test_odd_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, name: str, module: str) -> None:
    monkeypatch.chdir(tmp_path)
    done = init("--", file)
    assert done.exit_code == 0, done.output
    assert (Path(file).parent / f"{module}.py").is_file()
    compile((Path(file).parent / f"{module}.py").read_text(), module, "exec")
    sweep = load(file).file
    assert sweep.objective.python == f"{module}:train"
    assert sweep.name == name


def test_names_that_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for file, message in (
        ("sweep.json", "sweep.json: expected a name that ends in .yaml, got 'sweep.json'.\n"),
        ("a\nb.yaml", "'a\\nb.yaml': expected a name that can be printed on one line.\n"),
    ):
        done = init(file)
        assert (done.exit_code, done.stderr) == (2, message)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    done = init(str(tmp_path / "plain" / "s.yaml"))
    assert (done.exit_code, done.stdout) == (3, "")
    assert done.stderr.startswith(f"{tmp_path}/plain/s.yaml: expected a folder that can be written, got ")


def schema() -> dict[str, Any]:
    done = CliRunner().invoke(app, ["schema"])
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def listed(value: Any) -> Any:
    """Tuples as JSON has them."""
    if isinstance(value, dict):
        return {key: listed(v) for key, v in value.items()}
    return [listed(v) for v in value] if isinstance(value, tuple) else value


def test_the_schemas_structure() -> None:
    found = schema()
    assert found["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert found["required"] == ["version", "name", "objective", "metric", "goal", "max_steps", "space", "budget"]
    models = [found, *(d for d in found["$defs"].values() if d["type"] == "object")]
    assert all(model["additionalProperties"] is False for model in models)
    assert all(model.get("description") for model in models)


def test_the_schema_takes_what_load_takes_and_refuses_what_it_refuses(tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    found = schema()
    validator = jsonschema.Draft202012Validator(found)
    validator.check_schema(found)
    init(str(tmp_path / "s.yaml"))
    files = [*(ROOT / "configs").glob("*.yaml"), tmp_path / "s.yaml"]
    for path in files:
        assert [error.message for error in validator.iter_errors(listed(parse(path.read_text()).value))] == [], path
    good: dict[str, Any] = listed(parse((tmp_path / "s.yaml").read_text()).value)
    for objective in ({"command": "a b", "pattern": "(?P<step>.)(?P<value>.)"}, {"command": ["a", "b"], "grace": 1}):
        assert validator.is_valid(good | {"objective": objective})
    for space in ({"a": None}, {"a": {"choice": [1, None]}}, {"a": 1, "b": {"int": [1, 2], "when": {"a": [1, 2]}}}):
        assert validator.is_valid(good | {"space": space})
    assert validator.is_valid(good | {"pruner": {}, "budget": {"trials": 1, "steps": 9, "seconds": 0.5}})
    for path_, value in (
        (("metrik",), 1),
        (("goal",), "down"),
        (("max_steps",), 0),
        (("space", "lr"), {"lognormal": [0, 1]}),
        (("space", "lr"), {"loguniform": [1]}),
        (("space", "nesterov", "when"), "cosine"),
        (("objective",), {"command": []}),
        (("budget", "steps"), 0),
        (("max_steps",), 10**30),
        (("backend", "storage"), "study.log"),
        (("pruner", "kind"), "curv"),
    ):
        bad = copy.deepcopy(good)
        *above, last = path_
        at = bad
        for key in above:
            at = at[key]
        at[last] = value
        assert not validator.is_valid(bad), path_
