from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "experiments" / "provenance.py"


@pytest.fixture
def provenance() -> Any:
    spec = importlib.util.spec_from_file_location("provenance", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_changed_script_is_other_code(provenance: Any, tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text("1")
    first = provenance.fingerprint(("*.py",), script)
    assert provenance.fingerprint(("*.py",), script) == first != provenance.fingerprint(("goal.py",), script)
    script.write_text("2")
    assert provenance.fingerprint(("*.py",), script) != first


def test_a_plus_where_the_code_differs_from_the_commit(provenance: Any, tmp_path: Path) -> None:
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
