"""A run is gone on with as it was or not at all: its study, its record, its lock, its code."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import optuna
import pytest
from sweep.kit import Remembering, lcsearch, write_toy

from lcsearch.errors import EnvironmentProblem, FileProblem
from lcsearch.sweep import run as launcher
from lcsearch.sweep.monitor import open_run
from lcsearch.sweep.spec.load import load
from lcsearch.sweep.spec.model import SweepFile
from lcsearch.sweep.store import studies
from lcsearch.sweep.store.folder import RunFolder


def with_storage(path: Path, url: str) -> Path:
    path.write_text(path.read_text().replace("backend: {", f"backend: {{storage: '{url}', "))
    return path


def test_a_run_whose_study_is_gone_is_not_begun_anew(tmp_path: Path) -> None:
    path, run = write_toy(tmp_path), tmp_path / "run"
    launcher.run(path, folder=run, view=Remembering())
    (run / "study.sqlite3").unlink()
    for resume in (True, False):  # to go on with it, to look at it
        with pytest.raises(FileProblem) as caught:
            launcher.run(path, folder=run, resume=True, trials=4) if resume else open_run.reader(RunFolder(run))
        assert str(caught.value) == (
            f"sqlite:///{run}/study.sqlite3: expected the study 'toy' of the run in {run}, got none. "
            "Bring it back, or start over with --fresh or another --folder."
        )
        assert not (run / "study.sqlite3").exists()
    # an earlier lcsearch did not write down that it had made one
    record = json.loads((run / "run.json").read_text())
    del record["study"]
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(FileProblem, match=r"got none\. Bring it back"):
        launcher.run(path, folder=run, resume=True)


def test_a_study_that_was_deleted_from_a_storage_of_the_users_own_is_told(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/central.sqlite3"
    path, run = with_storage(write_toy(tmp_path), url), tmp_path / "run"
    launcher.run(path, folder=run, view=Remembering())
    optuna.delete_study(study_name="toy", storage=url)
    with pytest.raises(FileProblem) as caught:
        launcher.run(path, folder=run, resume=True, view=Remembering())
    assert str(caught.value) == (
        f"{url}: expected the study 'toy' of the run in {run}, got none. "
        "Bring it back, or start over with --fresh or another --folder."
    )
    assert optuna.get_all_study_names(url) == []


def test_a_run_that_was_killed_before_its_study_was_made_is_resumed(tmp_path: Path) -> None:
    path, run = write_toy(tmp_path), RunFolder(tmp_path / "run")
    run.root.mkdir()
    run.write(load(path))
    assert not run.has_study()
    done = lcsearch("status", "--folder", run.root, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"sqlite:///{run.root}/study.sqlite3: expected the study 'toy' of the run in {run.root}, got none. "
        "It was not made yet: go on with `lcsearch run`, or with its --resume if that was killed.\n"
    )
    assert not (run.root / "study.sqlite3").exists()
    outcome = launcher.run(path, folder=run.root, resume=True, view=Remembering())
    assert (outcome.code, len(outcome.progress.rows)) == (0, 3)
    assert run.has_study()
    run.write(run.read())
    assert run.has_study()


def test_a_relative_sqlite_file_stands_beside_the_sweep_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sweep", "here", "there"):
        (tmp_path / name).mkdir()
    path = with_storage(write_toy(tmp_path / "sweep"), "sqlite:///st.db")
    monkeypatch.chdir(tmp_path / "here")
    first = launcher.run(path, folder=tmp_path / "run", view=Remembering())
    monkeypatch.chdir(tmp_path / "there")
    more = launcher.run(path, folder=tmp_path / "run", resume=True, trials=4, view=Remembering())
    assert [row.values for row in more.progress.rows[:3]] == [row.values for row in first.progress.rows]
    assert len(more.progress.rows) == 4
    assert [file.parent.name for file in tmp_path.rglob("st.db")] == ["sweep"]
    # a run of an earlier lcsearch keeps the path as it was written
    record = json.loads((tmp_path / "run/run.json").read_text())
    record["sweep"]["backend"]["storage"] = "sqlite:///st.db"
    (tmp_path / "run/run.json").write_text(json.dumps(record))
    with pytest.raises(FileProblem, match=r"^sqlite:///st\.db: expected the study 'toy' of the run in .*, got none\."):
        launcher.run(path, folder=tmp_path / "run", resume=True)
    assert lcsearch("status", "--folder", tmp_path / "run", cwd=tmp_path / "there").returncode == 2
    assert [file.parent.name for file in tmp_path.rglob("st.db")] == ["sweep"]


@pytest.mark.parametrize(
    ("url", "placed"),
    [
        (None, None),
        ("sqlite:///a/b.db?x=1", "sqlite:////base/a/b.db?x=1"),
        ("sqlite+pysqlite:///../b.db", "sqlite+pysqlite:////b.db"),
        ("sqlite:////abs/b.db", "sqlite:////abs/b.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("sqlite://", "sqlite://"),
        ("sqlite:///file:b.db?uri=true", "sqlite:///file:b.db?uri=true"),
        ("postgresql://ann:pw@host/db", "postgresql://ann:pw@host/db"),
    ],
)
def test_which_urls_are_anchored(tmp_path: Path, url: str | None, placed: str | None) -> None:
    sweep = load(write_toy(tmp_path))
    whole = sweep.file.model_dump(mode="json", by_alias=True)
    whole["backend"]["storage"] = url
    moved = type(sweep)(SweepFile.model_validate_json(json.dumps(whole)), Path("/base/toy.yaml"), sweep.text)
    assert studies.anchored(moved).file.backend.storage == placed


def test_of_two_that_begin_a_run_at_once_the_second_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, run = write_toy(tmp_path), RunFolder(tmp_path / "run")
    winner, hold = load(path).override(seed=99), RunFolder.hold

    def wait(self: RunFolder, patience_s: float = 15.0) -> int:
        lock = hold(self, patience_s)
        self.write(winner)  # the other one had it until now
        return lock

    monkeypatch.setattr(RunFolder, "hold", wait)
    with pytest.raises(FileProblem) as caught:
        launcher.run(path, folder=run.root, seed=1, view=Remembering())
    assert str(caught.value) == (
        f"{run.root}: expected no run here, got the run of {path}. "
        "Use --resume to go on with it, --fresh to start over, --folder to keep both."
    )
    assert run.read().file.seed == 99


def test_a_resume_does_not_go_on_with_a_run_that_took_the_place_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, run = write_toy(tmp_path, trials=1), RunFolder(tmp_path / "run")
    launcher.run(path, folder=run.root, view=Remembering())
    hold = RunFolder.hold

    def wait(self: RunFolder, patience_s: float = 15.0) -> int:
        self.record.unlink()  # another launcher: --fresh --seed 99
        self.write(load(path).override(seed=99))
        return hold(self, patience_s)

    monkeypatch.setattr(RunFolder, "hold", wait)
    with pytest.raises(FileProblem) as caught:
        launcher.run(path, folder=run.root, resume=True, view=Remembering())
    assert str(caught.value) == (
        f"{run.root}: expected the run that was to be resumed, got one begun in the meantime. "
        "Look at it with `lcsearch status`, then try again."
    )
    assert run.read().file.seed == 99


def test_a_lock_that_was_moved_aside_is_not_the_lock(tmp_path: Path) -> None:
    """--fresh renames the folder while another launcher waits for its lock."""
    run, got = RunFolder(tmp_path / "run"), []
    run.root.mkdir()
    held = run.hold()
    waiter = threading.Thread(target=lambda: got.append(run.hold()))
    waiter.start()
    time.sleep(0.3)
    run.root.rename(tmp_path / "run.old-1")
    run.root.mkdir()
    fresh = run.hold()
    os.close(held)
    time.sleep(0.5)
    assert got == []  # two would be at work in the new folder
    os.close(fresh)
    waiter.join()
    with pytest.raises(EnvironmentProblem):
        run.hold(patience_s=0.0)
    os.close(got[0])


def test_code_that_has_changed_is_told_at_a_resume(tmp_path: Path) -> None:
    path, run = write_toy(tmp_path), tmp_path / "run"
    launcher.run(path, folder=run, trials=1, view=Remembering())
    launcher.run(path, folder=run, resume=True, trials=2, view=(same := Remembering()))
    assert same.events == []
    (tmp_path / "toy.py").write_text((tmp_path / "toy.py").read_text() + "# changed\n")
    launcher.run(path, folder=run, resume=True, trials=3, view=(changed := Remembering()))
    assert changed.events == [f"changed since the last launch: {tmp_path}/toy.py; trials go on with it as it is now"]
    launcher.run(path, folder=run, resume=True, trials=4, view=(again := Remembering()))
    assert again.events == []


def test_the_files_of_a_command_are_looked_at_too(tmp_path: Path) -> None:
    path, run = write_toy(tmp_path), RunFolder(tmp_path / "run")
    path.write_text(path.read_text().replace('python: "toy:train"', "command: 'python toy.py --lr {lr}'"))
    run.root.mkdir()
    run.write(load(path))
    assert run.changed_code(load(path)) == []
    (tmp_path / "toy.py").write_text("print('another')\n")
    assert run.changed_code(load(path)) == [f"{tmp_path}/toy.py"]
