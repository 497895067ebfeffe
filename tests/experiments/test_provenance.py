from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from kit.scripts import script

provenance = script("provenance.py")


def test_a_changed_script_is_other_code(tmp_path: Path) -> None:
    run = tmp_path / "run.py"
    run.write_text("1")
    first = provenance.fingerprint(("*.py",), run)
    assert provenance.fingerprint(("*.py",), run) == first != provenance.fingerprint(("goal.py",), run)
    run.write_text("2")
    assert provenance.fingerprint(("*.py",), run) != first


def test_a_room_that_has_moved_away_is_no_silent_nothing(tmp_path: Path) -> None:
    with pytest.raises(
        SystemExit, match=r"^fingerprint: expected files of lcsearch that match engine/\*\.py, got none$"
    ):
        provenance.fingerprint(("*.py", "engine/*.py"))


def test_a_plus_where_the_code_differs_from_the_commit(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        command = ["git", "-c", "user.name=n", "-c", "user.email=n@example.org", *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()

    for name in ("run.py", "notes.md"):
        (tmp_path / name).write_text("1")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    head = git("rev-parse", "HEAD")
    (tmp_path / "notes.md").write_text("2")
    assert provenance.commit("run.py", root=tmp_path) == head
    (tmp_path / "run.py").write_text("2")
    assert provenance.commit("run.py", root=tmp_path) == head + "+"
