"""`lcsearch replay` as people run it: on a study of plain Optuna, which stays as it is to the byte."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import optuna
import pytest
from kit.studies import written
from optuna.trial import TrialState, create_trial
from typer.testing import CliRunner

import lcsearch.errors
from lcsearch.cli import app
from lcsearch.data.readers import read
from lcsearch.goal import Direction

ROOT = Path(lcsearch.errors.__file__).parents[1]


def plain_study(path: Path, *, direction: Direction = "minimize", trials: int = 12, epochs: int = 10) -> Path:
    """Gradient descent on a quadratic under plain Optuna and its MedianPruner, no lcsearch in it."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.RDBStorage("sqlite://")
    pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=4)
    sampler = optuna.samplers.RandomSampler(seed=3)
    study = optuna.create_study(
        storage=storage, study_name="plain", direction=direction, pruner=pruner, sampler=sampler
    )
    sign = 1.0 if direction == "minimize" else -1.0

    def train(trial: optuna.Trial) -> float:
        lr, w = trial.suggest_float("lr", 1e-3, 0.9, log=True), 1.0
        for epoch in range(epochs):
            w -= lr * w
            trial.report(sign * w * w, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return sign * w * w

    study.optimize(train, n_trials=trials)
    return written(storage, path)


def state_of(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns, p.stat().st_mode) for p in folder.iterdir() if p.is_file()}


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "lcsearch", "replay", *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_a_study_of_plain_optuna_is_replayed_and_left_as_it_was(tmp_path: Path, direction: Direction) -> None:
    study = tmp_path / "study"
    study.mkdir()
    path = plain_study(study / "optuna.db", direction=direction)
    before = state_of(study)
    arguments = command(path, "--orders", "2", "--out", tmp_path / "out")
    done = subprocess.run(arguments, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")  # quiet where nobody watches
    assert state_of(study) == before
    lines = done.stdout.splitlines()
    assert lines[0] == f"read Optuna study 'plain' in {path}"
    assert lines[2].startswith(f"plain: 12 trials, {direction} value, judged by the best value up to step 9; ")
    assert [line.split(":")[0] for line in lines if line.startswith("  ") and "trials stopped" in line] == [
        "  curve",
        "  median",
        "  asha",
    ]
    assert "Over 2 random orders of the trials, * its own threshold:" in lines
    assert lines[-2:] == [f"wrote {tmp_path / 'out' / name}.png" for name in ("frontier", "disagreement")]
    assert "\r" not in done.stdout
    for name in ("frontier", "disagreement"):
        assert (tmp_path / "out" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "study"]


def test_a_study_that_may_not_be_written_is_read_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = tmp_path / "study"
    study.mkdir()
    path = plain_study(study / "optuna.db")
    path.chmod(0o444)
    study.chmod(0o555)
    monkeypatch.chdir(tmp_path)
    try:
        done = CliRunner().invoke(app, ["replay", str(path), "--policy", "median", "--orders", "1", "--workers", "4"])
    finally:
        study.chmod(0o755)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "replay" / "plain" / "frontier.png").is_file()
    assert [p.name for p in study.iterdir()] == ["optuna.db"]


ONE = "trial,step,value\n0,1,0.5\n1,1,0.4\n"
LONG = "trial,step,value\n" + "".join(f"{t},{s},{1 / (s + t)}\n" for t in range(1, 7) for s in range(1, 5))
NAMES = "curve, oracle, none, patience, median, sha, hyperband, asha"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["none.db"], 2, None),
        ([], 2, "runs: expected a run in this folder, got none. Name a study: lcsearch replay STUDY."),
        (["long.csv", "--direction", "minimize", "--orders", "0"], 2, "--orders: expected a number >= 1, got 0."),
        (["long.csv", "--direction", "minimize", "--workers", "0"], 2, "--workers: expected 1 to 64, got 0."),
        (
            ["long.csv", "--direction", "minimize", "--policy", "medain"],
            2,
            f"policy: expected one of {NAMES}, got 'medain'. Perhaps 'median' is meant.",
        ),
        (
            ["long.csv", "--direction", "minimize", "--policy", "asha", "--policy", "asha"],
            2,
            "--policy: expected every policy once, got 'asha'.",
        ),
        (
            ["long.csv", "--direction", "minimize", "--out", "long.csv/plots"],
            3,
            "long.csv/plots: expected a folder that can be written, got Not a directory. Choose another with --out.",
        ),
        (
            ["one.csv", "--direction", "minimize"],
            2,
            "CSV file one.csv: expected trials with a learning curve, got 2 trials with one report each (of 2 trials). "
            "A replay needs a value at every step, as in Optuna's `trial.report(value, step)`.",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str | None
) -> None:
    (tmp_path / "one.csv").write_text(ONE)
    (tmp_path / "long.csv").write_text(LONG)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["replay", *arguments])
    assert done.exit_code == code
    assert done.stdout == ""
    if message is None:
        assert done.stderr.startswith("none.db: expected an Optuna storage")
        assert done.stderr.endswith("; got nothing of that name.\n")
    else:
        assert done.stderr == message + "\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["long.csv", "one.csv"]


def test_plots_do_not_go_into_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "curves"
    folder.mkdir()
    np.savez(folder / "curves.npz", x=0)
    monkeypatch.chdir(folder)
    monkeypatch.setattr("lcsearch.replay.command.read", lambda where, **wish: read(tmp_path / "long.csv", **wish))
    (tmp_path / "long.csv").write_text(LONG)
    done = CliRunner().invoke(app, ["replay", ".", "--direction", "minimize"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "--out: expected a folder outside the study, which is only read, got 'replay/curves'.\n"
    assert [path.name for path in folder.iterdir()] == ["curves.npz"]


def test_ctrl_c_ends_it_at_once(tmp_path: Path) -> None:
    rows = (f"{t},{s},{1 / s + 0.01 * (t * 7 % 13)}\n" for t in range(400) for s in range(1, 51))
    (tmp_path / "large.csv").write_text("trial,step,value\n" + "".join(rows))
    arguments = command("large.csv", "--direction", "minimize")
    process = subprocess.Popen(
        arguments, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "read CSV file large.csv\n"
        time.sleep(0.5)
        for _ in range(20):  # one that falls into the import of somebody's C code may be lost there
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)
                break
        _, errors = process.communicate(timeout=300)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, errors) == (130, "")


def test_of_several_studies_the_advice_names_one_that_has_curves(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    for n in range(14):
        optuna.create_study(storage=storage, study_name=f"try {n}")
    names = ", ".join(f"try {n}" for n in range(14))
    text = f"{path}: study: expected the name of one of 14 studies: {names}, got None. Give study= (--study "
    done = CliRunner().invoke(app, ["replay", str(path)])
    assert (done.exit_code, done.stderr) == (2, f"{text}'try 0'); none of them has curves.\n")
    trial = optuna.load_study(storage=storage, study_name="try 5").ask()
    trial.report(0.5, 1)
    done = CliRunner().invoke(app, ["replay", str(path)])
    assert (done.exit_code, done.stderr) == (2, f"{text}'try 5').\n")
    other = CliRunner().invoke(app, ["replay", str(path), "--study", "try 3"])
    assert other.exit_code == 2
    assert "Optuna study 'try 3'" in other.stderr


def test_columns_steps_and_what_is_judged_are_named_on_the_command_line(tmp_path: Path) -> None:
    rows = "".join(f"{t};{s};{s};{1 / (s + t):.4f}".replace(".", ",") + "\n" for t in range(6) for s in range(1, 5))
    (tmp_path / "runs.csv").write_text("run;epoch;time;val_loss\n" + rows)
    columns = ["--trial", "run", "--step", "epoch", "--value", "val_loss", "--direction", "min"]
    more = ["--judged", "final", "--steps", "--policy", "median", "--orders", "1", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, ["replay", str(tmp_path / "runs.csv"), *columns, *more])
    assert done.exit_code == 0, done.output
    assert "runs: 6 trials, minimize val_loss, judged by the final value up to step 4" in done.stdout
    assert "% of the steps saved" in done.stdout


def test_a_trial_that_another_one_goes_on_with_is_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = optuna.create_study(storage=f"sqlite:///{tmp_path / 'study.db'}", study_name="s")
    for n in range(3):
        values = {step: 1.0 / (1 + step) + n for step in range(6)}
        if n == 1:
            begun = {step: values[step] for step in range(3)}
            study.add_trial(create_trial(state=TrialState.FAIL, intermediate_values=begun))
        attempts = {"retry_history": [1]} if n == 1 else {}
        study.add_trial(create_trial(value=n, intermediate_values=values, system_attrs=attempts))
    done = CliRunner().invoke(app, ["replay", "study.db", "--policy", "none", "--orders", "1"])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[1] == "1 trial that others go on with: left out, for those have their reports."
    assert any(line.startswith("s: 3 trials, minimize value") for line in lines)
