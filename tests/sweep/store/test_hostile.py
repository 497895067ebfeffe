"""Names and words of others reach terminal and page as text: nothing that steers a terminal, and no script."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from sweep.kit import lcsearch
from sweep.report.test_report import Reader
from typer.testing import CliRunner

from lcsearch.cli import app
from lcsearch.terminal import tame

EVIL = "\x1b]0;owned\x07\x1b[31m\x9b2J\u202egpj\u2066<script>alert('$1')</script>&\"$x_{$"
"""Sets a terminal's title, its colour, clears it, turns letters around; a script; broken mathematics."""

SWEEP = {
    "version": 1,
    "name": "toy",
    "objective": {"python": "toy:train"},
    "metric": f"m{EVIL}",
    "goal": "minimize",
    "step": f"s{EVIL}",
    "max_steps": 8,
    "space": {"a": {"uniform": [0, 1]}, f"p{EVIL}": {"choice": [f"v{EVIL}", "plain"]}, f"c{EVIL}": EVIL},
    "sampler": {"kind": "random"},
    "pruner": {"kind": "median", "n_startup_trials": 2},
    "budget": {"trials": 9},
}
TRAIN = f"""
import math

EVIL = {EVIL!r}

def train(ctx):
    print("hello", EVIL)
    if ctx.number == 3:
        raise ValueError(EVIL)
    for epoch in range(1, ctx.max_steps + 1):
        ctx.report(math.nan if ctx.number == 4 else ctx.params["a"] + 1 / epoch, epoch)
"""


def assert_tame(text: str) -> None:
    steering = {letter for letter in text if letter != "\n" and not letter.isprintable()}
    assert steering == set()


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A finished run of it, and what the launcher said in words and in JSON."""
    folder = tmp_path_factory.mktemp("evil")
    (folder / "toy.py").write_text(TRAIN)
    (folder / "sweep.yaml").write_text(json.dumps(SWEEP))
    # the fixture that gives every test's workers its lcsearch is not there yet
    with pytest.MonkeyPatch.context() as patch:
        known = os.environ.get("PYTHONPATH", "")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[3] / "src"), known]))
        told = [lcsearch("run", "sweep.yaml", *more, cwd=folder) for more in ([], ["--folder", "again", "--json"])]
    assert [run.returncode for run in told] == [0, 0], told[0].stderr
    return folder, [text for run in told for text in (run.stdout, run.stderr)]


def test_what_is_said_while_it_runs(done: tuple[Path, list[str]]) -> None:
    for text in done[1]:
        assert_tame(text)
    assert any("ValueError" in text for text in done[1])


@pytest.mark.parametrize(
    "command",
    [["status"], *(["explain", str(n)] for n in range(9)), ["explain", "best"], ["report"], ["explain", EVIL]],
)
def test_what_is_said_of_it_afterwards(
    done: tuple[Path, list[str]], command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    told = CliRunner().invoke(app, [*command, "--folder", str(done[0] / "runs" / "toy")])
    assert told.exit_code == (2 if EVIL in command else 0), told.output
    assert_tame(told.output)


@pytest.mark.parametrize("command", ["validate", "plan"])
@pytest.mark.parametrize("change", [[], [f"space.x{EVIL}=1"], [f"{EVIL}=1"], [f"metric=m2{EVIL}"], [f"goal={EVIL}"]])
def test_what_is_said_of_its_file(
    done: tuple[Path, list[str]], command: str, change: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    told = CliRunner().invoke(app, [command, str(done[0] / "sweep.yaml"), *change])
    assert told.exit_code in (0, 2), told.output
    assert_tame(told.output)


def test_a_file_of_such_a_name(tmp_path: Path) -> None:
    path = tmp_path / f"{EVIL.replace('/', '')}.yaml"
    (tmp_path / "toy.py").write_text(TRAIN)
    path.write_text(json.dumps(SWEEP))
    for command in ("validate", "plan"):
        told = CliRunner().invoke(app, [command, str(path)])
        assert told.exit_code == 0, told.output
        assert_tame(told.output)


def test_the_page_holds_it_as_text(done: tuple[Path, list[str]]) -> None:
    page = (done[0] / "runs" / "toy").joinpath("report", "report.html")
    if not page.exists():
        assert CliRunner().invoke(app, ["report", "--folder", str(page.parents[1])]).exit_code == 0
    text = page.read_text(encoding="utf-8")
    assert_tame(text)
    read = Reader(text)  # every tag is closed
    assert "script" not in read.tags
    assert not any(name.startswith("on") for name, _ in read.attributes)
    assert read.text.count("<script>alert('$1')</script>") > 3


def test_what_steers_a_terminal_is_taken_out() -> None:
    assert tame(EVIL).startswith("?]0;owned??[31m?2J?gpj?<script>")
    assert tame("two\nlines\tof 東京 naïve ▁▄█") == "two\nlines\tof 東京 naïve ▁▄█"
