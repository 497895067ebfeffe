"""What a run says when it cannot go on: whole texts, word for word."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from sweep.kit import Remembering, write_toy
from sweep.runtime.test_machines import machine, shared_toy, stopping

import lcsearch.sweep.on_ray
from lcsearch.errors import EnvironmentProblem, FileProblem, LcsearchError
from lcsearch.sweep import run as launcher
from lcsearch.sweep.monitor import open_run
from lcsearch.sweep.monitor.progress import Progress, collect
from lcsearch.sweep.monitor.state import SweepState
from lcsearch.sweep.objective.context import Lost
from lcsearch.sweep.runtime import launch, trial
from lcsearch.sweep.runtime.trial import StudyReporter
from lcsearch.sweep.spec.load import load
from lcsearch.sweep.store import attributes, studies
from lcsearch.sweep.store.folder import RunFolder, latest
from lcsearch.sweep.views import explain


def refused(call: Callable[[], Any]) -> str:
    with pytest.raises(LcsearchError) as caught:
        call()
    kind = {FileProblem: "file", EnvironmentProblem: "machine"}[type(caught.value)]
    return f"{kind}: {caught.value}"


def begun(tmp_path: Path, **settings: Any) -> tuple[Path, RunFolder]:
    """A sweep file and a run folder of it, nothing trained."""
    path, run = write_toy(tmp_path, **settings), RunFolder(tmp_path / "run")
    run.root.mkdir()
    run.write(load(path))
    return path, run


def test_options_that_do_not_go_together(tmp_path: Path) -> None:
    path, run = begun(tmp_path)
    assert refused(lambda: launcher.run(path, folder=run.root, resume=True, fresh=True)) == (
        "file: expected --resume or --fresh, got both."
    )
    assert refused(lambda: launcher.run(path, folder=run.root, resume=True, join=True)) == (
        "file: expected --resume or --join, got both. --resume goes on with this folder's run, a joined one too."
    )
    assert refused(lambda: launcher.run(path, folder=run.root, retry_failed=True)) == (
        "file: --retry-failed: expected --resume with it, got none. It runs failed trials of a run again."
    )
    assert refused(lambda: launcher.run(path, folder=run.root, resume=True, seed=1)) == (
        "file: --seed: expected 0, as this run was started with, got 1. "
        "Leave it out, or start over with --fresh or another --folder."
    )
    assert refused(lambda: launcher.run(path, folder=run.root, resume=True, pruner="curve")) == (
        "file: --pruner: expected none, as this run was started with, got curve. "
        "Leave it out, or start over with --fresh or another --folder."
    )
    assert refused(lambda: launcher.run(path, folder=run.root, resume=True, overrides=["seed=1"])) == (
        "file: override 'seed=1': expected a value that this run was started with, or a key below budget or "
        "backend.workers, or backend.host. Leave it out, or start over with --fresh or another --folder."
    )


def test_joining(tmp_path: Path) -> None:
    path = write_toy(tmp_path)
    assert refused(lambda: launcher.run(path, folder=tmp_path / "run", join=True)) == (
        "file: --join: expected a storage that all machines reach, got none. Name one in the file: backend.storage"
    )
    ray, folder = load(write_toy(tmp_path, kind="ray")).file, RunFolder(tmp_path / "run")
    assert refused(lambda: studies.check_joins(ray, folder)) == "file: --join: expected backend kind optuna, got ray."
    url = f"sqlite:///{tmp_path}/mine.sqlite3"
    optuna.create_study(storage=url, study_name="toy")
    theirs = shared_toy(tmp_path / "a", url=url)
    assert refused(lambda: launcher.run(theirs, folder=tmp_path / "run", join=True)) == (
        f"file: {url}: expected the study 'toy' to be of this sweep, got one that lcsearch has not made. "
        "Choose another `name`."
    )


def test_a_study_that_is_there_already(tmp_path: Path) -> None:
    """Also in the run folder's own storage, which has no URL in the file."""
    path, run = begun(tmp_path)
    sweep = load(path).file
    studies.create_study(sweep, run, resume=False)
    url = f"sqlite:///{run.root}/study.sqlite3"
    assert refused(lambda: studies.create_study(sweep, run, resume=False)) == (
        f"file: {url}: expected no study 'toy', got one. Choose another `name`, or delete the study yourself: "
        f"optuna delete-study --study-name toy --storage {url}\n"
        "If another machine runs this very sweep there, work along with it: --join"
    )


def test_folders(tmp_path: Path) -> None:
    path, run = begun(tmp_path)
    assert refused(lambda: launcher.run(path, folder=run.root)) == (
        f"file: {run.root}: expected no run here, got the run of {path}. "
        "Use --resume to go on with it, --fresh to start over, --folder to keep both."
    )
    assert refused(lambda: launcher.run(path, folder=tmp_path / "no", resume=True)) == (
        f"file: {tmp_path}/no: expected a run to resume, got none. Leave --resume out to start one."
    )
    assert refused(lambda: launcher.run(path, folder=tmp_path)) == (
        f"file: {tmp_path}: expected a new or empty folder, got one with other files in it. "
        "Choose another with --folder."
    )
    assert refused(lambda: open_run.reader(RunFolder(tmp_path))) == (
        f"file: {tmp_path}: expected a run folder, got no run.json in it. "
        "Curves of other tools are for `lcsearch replay`."
    )
    assert refused(lambda: latest(tmp_path / "runs")) == (
        f"file: {tmp_path}/runs: expected a run in this folder, got none. Name one with --folder."
    )
    held = run.hold()
    assert refused(lambda: run.hold(patience_s=0.0)) == (
        f"machine: {run.root}: expected nobody at work here, got a running `lcsearch run`. "
        "Wait for it, or end it, then try again."
    )
    os.close(held)


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **settings: Any) -> int:
        raise PermissionError(13, "Permission denied")

    path = write_toy(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", refuse)
        assert refused(lambda: launcher.run(path, folder=tmp_path / "run")) == (
            f"machine: {tmp_path}/run: expected a folder lcsearch can write to, got Permission denied. "
            "Choose another with --folder."
        )
    monkeypatch.setattr(RunFolder, "write", refuse)
    assert refused(lambda: launcher.run(path, folder=tmp_path / "run")) == (
        f"machine: {tmp_path}/run: expected a folder lcsearch can write to, got Permission denied. "
        "Choose another with --folder."
    )


def test_records_that_cannot_be_read(tmp_path: Path) -> None:
    _, run = begun(tmp_path)
    record = json.loads(run.record.read_text())
    run.record.write_text(json.dumps({**record, "format": 2}))
    assert refused(run.read) == f"file: {run.record}: expected format 1, got 2. Update lcsearch."
    run.record.write_text("{")
    assert refused(run.read) == (
        f"file: {run.record}: expected the record of a run, got "
        "no JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1)). "
        "Bring it back from a copy, or start over with --fresh or another --folder."
    )


def test_a_sweep_file_that_has_changed(tmp_path: Path) -> None:
    path, run = begun(tmp_path)
    path.write_text(path.read_text().replace("[0, 1]", "[0, 2]"))
    assert refused(lambda: launcher.run(path, folder=run.root, resume=True)) == (
        f"file: {path}: expected the file this run was started with, got a changed one:\n"
        "    --- as it was run\n"
        f"    +++ {path}\n"
        "    @@ -9 +9 @@\n"
        "    -  a: {uniform: [0, 1]}\n"
        "    +  a: {uniform: [0, 2]}\n"
        "Undo the change to resume, or start over with --fresh or another --folder."
    )


def test_ray_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "lcsearch.sweep.on_ray.loop", raising=False)
    monkeypatch.delattr(lcsearch.sweep.on_ray, "loop", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert refused(lambda: launcher.run(write_toy(tmp_path, kind="ray"), folder=tmp_path / "run")) == (
        "machine: backend.kind: expected Ray, got import of ray halted; None in sys.modules. "
        "Install it: pip install 'lcsearch[ray]'"
    )


def test_nodes_that_are_too_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray_cluster = pytest.importorskip(
        "lcsearch.sweep.on_ray.cluster", reason="Ray is an extra: pip install lcsearch[ray]"
    )
    nodes = [{"Alive": True, "Resources": {"CPU": 2.0}}, {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 1.0}}]
    monkeypatch.setattr(ray_cluster.ray, "nodes", lambda: nodes)
    path = write_toy(tmp_path, kind="ray")
    path.write_text(path.read_text().replace("{n: 1", "{n: 1, threads: 64"))
    assert refused(lambda: ray_cluster._check_nodes(load(path).file)) == (  # noqa: SLF001
        "machine: backend.workers: expected a node with 64 CPU and 0 GPU, got 2 CPU + 0 GPU, 8 CPU + 1 GPU."
    )


def test_a_trial_that_is_not_there(tmp_path: Path) -> None:
    path, run = begun(tmp_path)
    file, study = load(path).file, optuna.create_study()

    def ask(progress: Progress) -> str:
        return refused(lambda: explain.explain(4, SweepState(file, run, progress), study))

    assert ask(Progress((), 3, None)) == f"file: {run.root}: expected the number of a trial (none yet), got 4."
    study.ask()
    study.ask()
    assert ask(collect(study.trials, file.target, 3, file.space)) == (
        f"file: {run.root}: expected the number of a trial (0 to 1), got 4."
    )


# What is told while a run goes on.


def test_a_trial_of_another_machine_is_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, run = shared_toy(tmp_path / "a", trials=2), tmp_path / "run"
    launcher.run(path, folder=run, trials=1, view=Remembering())
    study = open_run.reader(RunFolder(run))[1]
    theirs = study.ask()
    theirs.set_user_attr(attributes.WORKER, {"slot": 0, "pid": 1, "host": "bob", "run": "bob's"})
    beats: list[int] = []

    def live(progress: Progress) -> None:
        beats.append(len(beats))
        if len(beats) > 20 and theirs.study.trials[1].state.name == "RUNNING":
            theirs.study.tell(1, 1.0)
        theirs.study.set_user_attr("lcsearch:run:bob's", {"host": "bob", "beat": len(beats)})

    monkeypatch.setattr(launch, "_LOOK_S", 0.05)
    outcome = launcher.run(path, folder=run, resume=True, trials=2, view=(view := Remembering(live)))
    assert outcome.code == 0
    assert view.events == [
        "trial 1 is left to the worker on bob that has it",
        "nothing is left to do here; trials still run on bob: 1",
    ]


def test_a_trial_that_was_taken_by_another_machine() -> None:
    study = optuna.create_study()
    with pytest.raises(Lost) as caught:
        StudyReporter(study.ask(), held=lambda: False).report(1.0, 7)
    assert str(caught.value) == "another machine has taken the trial; left at step 7"


def test_a_stop_that_is_withdrawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = machine(tmp_path, "ann")
    _, taken = stopping(folder, monkeypatch, again=False)
    folder.decisions.mkdir()
    stop = {"study": "toy", "trial": "0", "step": 1.0, "verdict": "STOP", "reason": "BELOW", "time": time.time()}
    (folder.decisions / "dead.jsonl").write_text(json.dumps(stop) + "\n")
    trial.run_trial(taken, folder.read(), folder, lambda ctx: None, "cpu", lambda: False)
    (written,) = [f for f in folder.decisions.glob("*.jsonl") if f.name != "dead.jsonl"]
    assert json.loads(written.read_text())["detail"] == (
        "the worker died before the stop was carried out, and a look at the resumed trial let it go on"
    )
