"""Sweeps on a real PostgreSQL server: workers that are killed, two machines at once, resume, and the password."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sweep import postgres
from sweep.kit import RESUMING, Remembering, command, lcsearch, wait_for, write_toy

from lcsearch.errors import EnvironmentProblem, FileProblem
from lcsearch.sweep import run as launcher
from lcsearch.sweep.monitor import open_run
from lcsearch.sweep.monitor.outcome import Outcome
from lcsearch.sweep.monitor.progress import Progress
from lcsearch.sweep.runtime import launch, peers
from lcsearch.sweep.store import heartbeat
from lcsearch.sweep.store.folder import RunFolder

reason = postgres.missing()
needs_postgres = pytest.mark.skipif(reason is not None, reason=reason or "")


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    with postgres.server() as running:
        yield running


def toy(folder: Path, url: str, **settings: object) -> Path:
    """The toy sweep on the storage `url`."""
    folder.mkdir(exist_ok=True)
    path = write_toy(folder, RESUMING, **settings)
    path.write_text(path.read_text().replace("backend: {", f"backend: {{storage: '{url}', "))
    return path


def lives(run: Path) -> dict[int, list[list[int]]]:
    """trial -> [pid, epoch it began from] of each process it had with the run folder `run`."""
    import json

    files = sorted(run.glob("checkpoints/trial-*/state.json"))
    return {int(file.parent.name.removeprefix("trial-")): json.loads(file.read_text())["lives"] for file in files}


def whole(outcome: Outcome, trials: int, epochs: int) -> None:
    """Every trial is there once, COMPLETE, with the values it should have."""
    assert [row.state for row in outcome.progress.rows] == ["complete"] * trials
    for row in outcome.progress.rows:
        expected = {e: row.params["a"] + 1 / e for e in range(1, epochs + 1)}  # type: ignore[operator]
        assert row.values == pytest.approx(expected)


@needs_postgres
def test_a_worker_is_killed_and_the_password_shows_nowhere(
    tmp_path: Path, server: postgres.Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launch, "_LOOK_S", 0.05)
    path, run = toy(tmp_path, server.new_database(), trials=4, workers=2, max_steps=30), tmp_path / "run"
    killed: list[int] = []

    def look(progress: Progress) -> None:
        known = lives(run)
        if 0 in known and not killed:
            killed.append(known[0][-1][0])
            os.kill(killed[0], signal.SIGKILL)

    view = Remembering(look)
    outcome = launcher.run(path, folder=run, view=view)
    assert outcome.code == 0
    whole(outcome, 4, 30)
    assert [row.retries for row in outcome.progress.rows] == [1, 0, 0, 0]
    assert [start > 0 for _, start in lives(run)[0]] == [False, True]
    for file in (run / "run.json", run / "sweep.yaml"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    holders = {f for f in run.rglob("*") if f.is_file() and b"s3cret" in f.read_bytes()}
    assert holders == {run / "run.json", run / "sweep.yaml"}
    # what goes wrong says so without the password
    with pytest.raises(FileProblem) as caught:
        launcher.run(path, folder=tmp_path / "other", view=Remembering())
    assert "postgresql://sweeper:***@/d" in str(caught.value)
    path.write_text(path.read_text().replace("s3cret", "wrong1"))
    refused = lcsearch("run", path, "--folder", tmp_path / "another", cwd=tmp_path)
    assert refused.returncode == 3
    assert "expected an Optuna storage that answers, got OperationalError" in refused.stderr
    resumed = lcsearch("run", path, "--folder", run, "--resume", cwd=tmp_path)
    assert resumed.returncode == 2
    assert "-backend: {storage: 'postgresql://sweeper:***@" in resumed.stderr
    captured = capfd.readouterr()
    said = [str(caught.value), *view.events, refused.stderr, refused.stdout, resumed.stderr, resumed.stdout]
    for text in [*said, captured.out, captured.err]:
        assert "s3cret" not in text
        assert "wrong1" not in text


@needs_postgres
def test_two_machines_work_on_one_study(tmp_path: Path, server: postgres.Server) -> None:
    """At once, on an empty database: one makes the tables and the study, the other joins."""
    url, trials = server.new_database(), 12
    path = toy(tmp_path, url, trials=trials, workers=2, max_steps=15)
    processes = {}
    for host in ("ann", "bob"):
        processes[host] = subprocess.Popen(
            command("run", path, "--folder", tmp_path / host, "--join"),
            env={**os.environ, "LCSEARCH_MACHINE": host},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    said = {host: process.communicate(timeout=120) for host, process in processes.items()}
    assert {host: process.returncode for host, process in processes.items()} == {"ann": 0, "bob": 0}, said
    study = open_run.reader(RunFolder(tmp_path / "ann"))[1]
    real = [trial for trial in study.trials if "lcsearch:surplus" not in trial.user_attrs]
    assert [trial.number for trial in real] == list(range(trials))
    assert {trial.state.name for trial in real} == {"COMPLETE"}
    hosts = {trial.user_attrs["lcsearch:worker"]["host"] for trial in real}
    assert hosts == {"ann", "bob"}
    mine = {host: lives(tmp_path / host) for host in processes}
    assert not set(mine["ann"]) & set(mine["bob"])  # no trial on both
    assert all(len(processes) == 1 for known in mine.values() for processes in known.values())
    # the same parameters as on one machine
    alone = launcher.run(write_toy(tmp_path, trials=trials), folder=tmp_path / "alone", view=Remembering())
    assert [{**t.params, "k": 3} for t in real] == [dict(row.params) for row in alone.progress.rows]
    # another sweep of that name is not let in
    other = toy(tmp_path / "other", url, trials=trials, max_steps=16)
    with pytest.raises(FileProblem) as caught:
        launcher.run(other, folder=tmp_path / "carl", join=True, view=Remembering())
    assert "to be of this sweep, got one of another:\n    max_steps: 15 there, 16 here\n" in str(caught.value)
    assert not (tmp_path / "carl/run.json").exists()


@needs_postgres
def test_a_killed_machine_is_resumed_or_replaced(
    tmp_path: Path, server: postgres.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "_LOOK_S", 0.1)
    monkeypatch.setattr(peers, "_SETTLE_S", 0.2)
    path = toy(tmp_path, server.new_database(), trials=3, workers=1, max_steps=40)
    ann = tmp_path / "ann"
    process = subprocess.Popen(
        command("run", path, "--folder", ann, "--join"),
        env={**os.environ, "LCSEARCH_MACHINE": "ann"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: 0 in lives(ann))
    process.kill()
    process.wait()
    # another machine: hears nothing of ann, takes over after the silence, from the start
    monkeypatch.setattr(heartbeat, "SILENCE_S", 2.0)
    monkeypatch.setattr(heartbeat, "BEAT_S", 0.2)
    monkeypatch.setenv("LCSEARCH_MACHINE", "bob")
    view = Remembering()
    outcome = launcher.run(path, folder=tmp_path / "bob", join=True, view=view)
    whole(outcome, 3, 40)
    assert view.events == [
        "ann has been silent for 2 s; trial 0 begins anew here: its checkpoints are there (retry 1 of 2)"
    ]
    # ann comes back: nothing is left to do, and nothing of bob's is taken
    monkeypatch.setenv("LCSEARCH_MACHINE", "ann")
    again = launcher.run(path, folder=ann, resume=True, view=(late := Remembering()))
    whole(again, 3, 40)
    assert late.events == []
    more = launcher.run(path, folder=ann, resume=True, trials=4, view=Remembering())
    whole(more, 4, 40)


def test_without_the_driver_its_package_is_named(tmp_path: Path) -> None:
    path = toy(tmp_path, "postgresql://ann:s3cret@localhost/db")
    hide = "import sys; sys.modules['psycopg'] = sys.modules['psycopg2'] = None; "
    hide += "import importlib.util as u; find = u.find_spec; "
    hide += "u.find_spec = lambda name, *a: None if name.startswith('psycopg') else find(name, *a); "
    code = f"{hide}from lcsearch.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "run", str(path), "--folder", str(tmp_path / "run")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("postgresql://ann:***@localhost/db: expected the database's driver, got ")
    assert done.stderr.endswith('Install it: pip install "lcsearch[postgres]"\n')
    assert "s3cret" not in done.stderr


def test_a_server_that_is_not_there_is_told_without_the_password(tmp_path: Path) -> None:
    pytest.importorskip("psycopg", reason='psycopg is not installed here: pip install "lcsearch[postgres]"')
    path = toy(tmp_path, f"postgresql://ann:s3cret@/db?host={tmp_path}")
    with pytest.raises(EnvironmentProblem) as caught:
        launcher.run(path, folder=tmp_path / "run", view=Remembering())
    assert str(caught.value).startswith(f"postgresql://ann:***@/db?host={tmp_path}: expected an Optuna storage that")
    assert "s3cret" not in str(caught.value)
    assert RunFolder(tmp_path / "run").identity() == ""
