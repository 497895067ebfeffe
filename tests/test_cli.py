"""The command line: what it imports, its exit codes, and no traceback for what can be expected."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import lcsearch.errors
from lcsearch.cli import app

ROOT = Path(lcsearch.errors.__file__).parents[1]
HEAVY = ("torch", "optuna", "ray", "matplotlib", "pydantic", "scipy", "numpy", "rich")
GOOD = """\
version: 1
name: toy
objective: {python: "toy:train"}
metric: loss
goal: minimize
max_steps: 10
space: {lr: {loguniform: [1e-5, 1e-1]}, width: 8}
budget: {trials: 4}
"""


def test_nothing_heavy_is_imported_for_help() -> None:
    """What `--help` costs is what it imports; a timed test would measure the machine."""
    code = f"import lcsearch.cli, sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_help_names_the_commands() -> None:
    done = CliRunner().invoke(app, ["--help"])
    assert done.exit_code == 0
    assert done.output.partition("Commands:\n")[2].splitlines() == [
        "  init         Write a sweep file to start from.",
        "  validate     Check a sweep file; starts nothing.",
        "  plan         Say what a sweep would cost; starts nothing.",
        "  run          Train a sweep, stopping hopeless trials.",
        "  finish       Train stopped trials on until the risk is low.",
        "  thaw         Train one stopped trial on, to its end.",
        "  status       Show how far a run is; reads only.",
        "  explain      Tell why a trial was stopped, or was not.",
        "  report       Write a run as one page to hand on.",
        "  calibration  Hold forecasts to what became of their trials.",
        "  verify       Make every decision again, from log and study.",
        "  replay       Say what policies would have saved on a study.",
        "  forecast     Say what the model thinks of a study's trials.",
        "  prior        Show what the forecasting network is trained on.",
        "  pretrain     Train the network's weights from a recipe.",
        "  serve        Hold the network and answer forecasts.",
        "  schema       Print the sweep file's JSON Schema.",
    ]


def test_validate(tmp_path: Path) -> None:
    (tmp_path / "toy.py").write_text("def train(ctx): ...\n")
    path = tmp_path / "toy.yaml"
    path.write_text(GOOD)
    done = CliRunner().invoke(app, ["validate", str(path)])
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{path}: fine: 4 trials of 10 steps over 1 parameter\n" + (
        f"next: lcsearch plan {path}, then lcsearch run {path}\n"
    )
    path.write_text(GOOD.replace("goal", "gaol"))
    done = CliRunner().invoke(app, ["validate", str(path)])
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        f"{path}:1:1: at $: expected a key 'goal', got none.",
        f"{path}:5:1: at $.gaol: expected one of version, name, objective, metric, goal, judged, bounds, step, "
        "max_steps, space, schedule, backend, sampler, pruner, pause, allocator, "
        "checkpoints, budget, finish, retries, seed, got 'gaol'. Did you mean 'goal'?",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["validate", "none.yaml"], "none.yaml: expected a sweep file, got no such file."),
        (["run", "none.yaml"], "none.yaml: expected a sweep file, got no such file."),
        (["run", "toy.yaml", "--resume", "--fresh"], "expected --resume or --fresh, got both."),
        (["run", "toy.yaml", "--trials", "0"], "--trials: expected a number >= 1, got 0."),
        (["explain", "0"], "runs: expected a run in this folder, got none. Name one with --folder."),
        (
            ["explain", "0", "--folder", "."],
            "{here}: expected a run folder, got no run.json in it. Curves of other tools are for `lcsearch replay`.",
        ),
        (["report"], "runs: expected a run in this folder, got none. Name one with --folder."),
        (
            ["report", "--folder", "."],
            "{here}: expected a run folder, got no run.json in it. Curves of other tools are for `lcsearch replay`.",
        ),
        (["replay", "a.csv", "--folder", "runs/a"], "expected STUDY or --folder, got both: a.csv and --folder runs/a."),
    ],
)
def test_wrong_files_and_options_exit_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    (tmp_path / "toy.py").write_text("def train(ctx): ...\n")
    (tmp_path / "toy.yaml").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, arguments)
    assert (done.exit_code, done.stderr) == (2, message.format(here=tmp_path) + "\n")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("words", ["status", "explain 3", "report", "calibration", "thaw 3", "finish"])
def test_a_run_is_named_as_an_argument_or_as_an_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    """Some commands took it as an argument only, others as an option only."""
    monkeypatch.chdir(tmp_path)
    for named in (["runs/bug"], ["--folder", "runs/bug"]):
        done = CliRunner().invoke(app, [*words.split(), *named])
        assert (done.exit_code, done.stderr.partition("\n")[0]) == (
            2,
            f"{tmp_path}/runs/bug: expected a run folder, got no run.json in it. "
            "Curves of other tools are for `lcsearch replay`.",
        )
    done = CliRunner().invoke(app, [*words.split(), "runs/a", "--folder", "runs/b"])
    assert (done.exit_code, done.stderr) == (2, "expected RUN or --folder, got both: runs/a and --folder runs/b.\n")


def test_a_run_in_the_place_of_a_trial_is_told_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs/bug").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["explain", "runs/bug", "3"])
    said = "expected the number of a trial, or 'best', got 'runs/bug'."
    assert done.stderr == f"{said} The trial comes first: lcsearch explain best runs/bug\n"


def test_the_shipped_sweep_is_fine() -> None:
    shipped = Path(__file__).parents[1] / "configs" / "digits.yaml"
    done = CliRunner().invoke(app, ["validate", str(shipped)])
    assert done.exit_code == 0, done.output
    assert "fine: 40 trials of 40 epochs over 10 parameters\n" in done.stdout


@pytest.mark.parametrize(
    "command", ["status", "explain", "report", "calibration", "thaw", "replay", "forecast", "plan", "run"]
)
def test_every_command_about_a_run_takes_its_folder_as_an_option(command: str) -> None:
    """`replay` alone took it as an argument."""
    assert " --folder " in CliRunner().invoke(app, [command, "--help"]).stdout


def test_replay_reads_the_run_that_the_option_names(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def show(where: str, *_: object, **__: object) -> tuple[str, ...]:
        read.append(where)
        return ()

    monkeypatch.setattr("lcsearch.replay.command.show", show)
    for words in (["--folder", "runs/a"], ["runs/a"]):
        assert CliRunner().invoke(app, ["replay", *words]).exit_code == 0
    assert read == ["runs/a", "runs/a"]
