"""What a worker tells: facts beside its log, and none of them is what somebody printed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from sweep.kit import TRAIN, Remembering, write_toy

from lcsearch.sweep import run as launcher
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.store.worker_log import Teller, last_lines, told

LIVES = """\
import sys
from pathlib import Path
from lcsearch.sweep.store.worker_log import Teller

tell = Teller(Path(sys.argv[1]))
print("an import")
for trial, adopted, lines, state in (
    (0, False, ["of another"], "COMPLETE"), (1, False, ["first life"], None),
    (1, True, ["trial 0 begins", "trial 1: FAIL"], "FAIL"), (12, False, ["of a third"], "COMPLETE"),
):
    tell.begins(trial, adopted=adopted)
    print("\\n".join(lines), end="")
    if state:
        tell.ended(trial, state)
"""


@pytest.fixture
def lives(tmp_path: Path) -> tuple[Path, Path]:
    """A log, and what its worker told."""
    log, records = tmp_path / "worker-0.log", tmp_path / "worker-0.jsonl"
    with log.open("wb") as file:
        subprocess.run([sys.executable, "-c", LIVES, str(records)], stdout=file, check=True)
    return log, records


def test_the_last_lines_are_those_of_a_trials_last_life(lives: tuple[Path, Path]) -> None:
    """Whatever it printed: once a line that looked like the worker's own was taken for one."""
    assert last_lines(*lives, 1, 5) == ["trial 0 begins", "trial 1: FAIL"]
    assert last_lines(*lives, 1, 1) == ["trial 1: FAIL"]
    assert last_lines(*lives, 12, 5) == ["of a third"]
    assert last_lines(*lives, 3, 5) == []


def test_records_that_are_torn_or_none_are_passed_over(lives: tuple[Path, Path]) -> None:
    _, records = lives
    n, size = len(list(told(records))), records.stat().st_size
    with records.open("ab") as file:
        file.write(b'[1]\n{"event": "problem"}\n{"event": 3}\n\xff\n{"event": "ended", "tri')
    assert [record["trial"] for record in told(records)] == [0, 0, 1, 1, 1, 12, 12]
    assert (n, list(told(records, size))) == (7, [])
    assert list(told(records.with_name("none"))) == []


def test_a_worker_that_cannot_write_them_works_all_the_same(tmp_path: Path) -> None:
    Teller(tmp_path).problem("the records' place is a folder")
    Teller(tmp_path / "no" / "folder").begins(1, adopted=False)


def test_an_objective_can_print_what_it_likes(tmp_path: Path) -> None:
    """A line of its own was once told as the worker's problem, where it then left with a worker's exit code."""
    leaving = 'import os\ndef train(ctx):\n    print("PROBLEM: so says the objective", flush=True)\n    os._exit(2)\n'
    path = write_toy(tmp_path, leaving, trials=1, retries=0)
    view = Remembering()
    outcome = launcher.run(path, folder=tmp_path / "run", view=view)
    assert "so says the objective" not in outcome.message
    assert view.events == ["worker 0 exited with code 2; trial 0 is marked failed after 0 retries"]


def test_what_a_sweep_s_worker_told(tmp_path: Path) -> None:
    launcher.run(write_toy(tmp_path, TRAIN, trials=2), folder=tmp_path / "run", view=Remembering())
    folder = RunFolder(tmp_path / "run")
    records = [json.loads(line) for line in folder.told(0).read_text().splitlines()]
    assert [(r["event"], r["trial"], r.get("state"), r.get("adopted")) for r in records] == [
        ("begins", 0, None, False),
        ("ended", 0, "COMPLETE", None),
        ("begins", 1, None, False),
        ("ended", 1, "COMPLETE", None),
    ]
