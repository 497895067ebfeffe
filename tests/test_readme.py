"""README and docs: short enough, links that lead somewhere, code that runs, files and commands that exist."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import typer
from kit.scripts import script
from ruamel.yaml import YAML

import lcsearch.schedulers.optuna
import lcsearch.schedulers.ray_tune
import lcsearch.sweep
from lcsearch.cli import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md")),
    *sorted(ROOT.glob("docs/*.md")),
]
each_page = pytest.mark.parametrize("page", PAGES, ids=[page.relative_to(ROOT).as_posix() for page in PAGES])
COMMANDS: Any = typer.main.get_command(app)
FOLDERS = ("configs", "docs", "examples", "experiments", "benchmarks", "schedulers", "src", "tests", r"\.ci")


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    found: list[tuple[str, str]] = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [block for named, block in found if named == language]


def train_one_epoch(lr: float, epoch: int) -> float:
    """A curve whose limit depends on the learning rate."""
    return abs(math.log10(lr) + 2.5) + 0.8**epoch


def test_the_readme_is_short() -> None:
    assert len(README.encode()) <= 8000


def test_the_optuna_example(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, pausing = blocks(README, "python")
    assert "n_trials=100" in code
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    scope: dict[str, Any] = {"train_one_epoch": train_one_epoch}
    assert "pruner=pruner)" in code
    drawn = "pruner=pruner, sampler=optuna.samplers.TPESampler(seed=0))"  # how many complete is else a matter of luck
    exec(code.replace("n_trials=100", "n_trials=30").replace("pruner=pruner)", drawn), scope)
    states = [trial.state.name for trial in scope["study"].trials]
    assert states.count("COMPLETE") >= 5
    assert states.count("PRUNED") > 5
    assert "trial 17" in capsys.readouterr().out
    scope["study"] = optuna.create_study(pruner=scope["pruner"])
    assert "n_trials=100" in pausing
    exec(pausing.replace("n_trials=100", "n_trials=20"), scope)  # with an objective that never saves
    assert all(trial.state.is_finished() for trial in scope["study"].trials)
    assert "trial 17" in capsys.readouterr().out


def test_the_example_of_pausing(capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = blocks((ROOT / "docs" / "freeze_thaw.md").read_text(), "python")
    assert "n_trials=30" in code
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    scope: dict[str, Any] = {}
    exec(code.replace("n_trials=30", "n_trials=12"), scope)
    trials = scope["study"].trials
    assert all(trial.state.is_finished() for trial in trials)
    assert any("lcsearch:paused" in trial.system_attrs for trial in trials)
    assert "trial 7" in capsys.readouterr().out


@pytest.mark.parametrize(("page", "nth"), [("optuna", 0), ("ray", 1)])
def test_a_page_shows_the_code_of_the_readme(page: str, nth: int) -> None:
    """Which runs in tests, here and on a Ray cluster."""
    assert blocks((ROOT / "docs" / f"{page}.md").read_text(), "python") == [blocks(README, "python")[nth]]


def test_the_two_commands_stand_in_the_first_two_shell_blocks() -> None:
    install, check = blocks(README, "sh")
    assert install == 'pip install -e ".[dev]" && lcsearch run configs/digits.yaml\n'
    assert check == "bash .ci/check\n"


def test_the_sweep_file_is_valid(tmp_path: Path) -> None:
    from lcsearch.sweep.spec.load import load

    (text,) = blocks((ROOT / "docs" / "sweeps.md").read_text(), "yaml")
    (tmp_path / "train.py").write_text("def train(ctx):\n    pass\n")
    (tmp_path / "mine.yaml").write_text(text)
    assert load(tmp_path / "mine.yaml").file.budget.trials == 40


def test_the_table_of_results_is_made_of_the_stored_ones() -> None:
    results = json.loads((ROOT / "experiments" / "e5_digits" / "results.json").read_text())
    assert script("e5_digits/run.py").turns_table(results) in (ROOT / "docs" / "results.md").read_text()
    table = script("e5_digits/run.py").table(results)
    assert table in README
    assert table in (ROOT / "docs" / "results.md").read_text()


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    """Those to other places of this repository; of the site, mkdocs checks them as well."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not target.startswith("https://"):
            path, _, anchor = target.partition("#")
            there = page.parent / path if path else page
            assert there.exists(), target
            heads = re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE) if anchor else []
            assert anchor in {"", *(re.sub(r"[^\w\- ]", "", head).lower().replace(" ", "-") for head in heads)}, target


@each_page
def test_files_that_are_named_are_there(page: Path) -> None:
    for name in re.findall(rf"(?<![\w/.-])(?:{'|'.join(FOLDERS)})/[\w./-]*\w", page.read_text()):
        assert (ROOT / name).exists(), name


def commands(text: str) -> Iterator[list[str]]:
    """What follows `lcsearch`, wherever it is typed: in a line of its own, after a prompt, between backticks."""
    typed = re.findall(r"`(lcsearch [^`]+)`", text)
    for block in blocks(text, "sh") + blocks(text, ""):
        typed += re.findall(r"^(?:\$ |next: |      |.*&& )?(lcsearch .*)$", block, re.MULTILINE)
    for line in typed:
        for part in re.split(r" && |, then |  +", line):
            words = shlex.split(part, comments=True)
            if words[:1] == ["lcsearch"]:
                yield words[1:]


@each_page
def test_commands_and_their_options_exist(page: Path) -> None:
    for name, *rest in commands(page.read_text()):
        assert name in COMMANDS.commands, name
        known = {option for parameter in COMMANDS.commands[name].params for option in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= known, (name, rest)


def test_commands_are_found() -> None:
    found = {name for page in PAGES for name, *_ in commands(page.read_text())}
    assert found == set(COMMANDS.commands)
    assert list(commands("```\n$ lcsearch run x --fresh && lcsearch replay y   # why\n```\n")) == [
        ["run", "x", "--fresh"],
        ["replay", "y"],
    ]


@each_page
def test_python_compiles(page: Path) -> None:
    for code in blocks(page.read_text(), "python"):
        if not code.startswith("--8<--"):
            compile(code, str(page), "exec")


def test_the_api_page_has_every_public_name() -> None:
    """That of `lcsearch` itself is listed by what the module exports."""
    page = (ROOT / "docs" / "api.md").read_text()
    for package in (lcsearch.schedulers.optuna, lcsearch.schedulers.ray_tune, lcsearch.sweep):
        assert {name for name in package.__all__ if not re.search(rf"\b{name}\b", page)} == set()
    assert "\n::: lcsearch\n" in page


def test_the_citation_is_of_this_version() -> None:
    """What the Citation File Format 1.2.0 demands is there."""
    cited = YAML(typ="safe").load((ROOT / "CITATION.cff").read_text())
    assert cited["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(cited)
    assert cited["version"] == lcsearch.__version__
    assert f"Copyright (c) 2026 {cited['authors'][0]['name']}\n" in (ROOT / "LICENSE").read_text()
