"""`lcsearch verify` on a sweep, from the command line: what it says, and its exit code."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest
from sweep.kit import Remembering, lcsearch, write_toy

from lcsearch.errors import FileProblem
from lcsearch.sweep import run as launcher
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.views.verify import verified

CURVES = """\
def train(ctx):
    for epoch in range(1, ctx.max_steps + 1):
        ctx.report(ctx.params["a"] + 0.8 ** epoch, epoch)
"""


def test_a_sweep_is_verified_and_a_changed_number_ends_with_1(tmp_path: Path) -> None:
    path = write_toy(tmp_path, CURVES, pruner="curve", trials=12, max_steps=24, workers=2)
    launcher.run(path, folder=tmp_path / "run", view=Remembering())
    done = lcsearch("verify", "run", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    n = sum(len(log.read_text().splitlines()) for log in (tmp_path / "run/decisions").iterdir())
    assert done.stdout == f"{n} looks and 0 allocations made again: each came out as recorded\n"
    folder = RunFolder(tmp_path / "run")
    texts = {log: log.read_text().splitlines() for log in sorted(folder.decisions.iterdir())}
    log, at = next((log, i) for log, of in texts.items() for i, line in enumerate(of[:-1]) if '"STOP"' in line)
    lines = texts[log]
    record = json.loads(lines[at])
    record["now"]["p"] *= 1.01
    record["now"]["p"] += 1e-4
    log.write_text("\n".join([*lines[:at], json.dumps(record), *lines[at + 1 :]]) + "\n")
    done = lcsearch("verify", "run", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout.startswith(f"MISMATCH trial {record['trial']}, step {record['step']:g}: now.p was recorded as ")
    assert "Traceback" not in done.stderr
    log.write_text("\n".join([*lines[:at], *lines[at + 1 :]]) + "\n")
    done = lcsearch("verify", "run", cwd=tmp_path)
    assert done.returncode == 1
    assert f"MISSING from this log: the stop of trial {record['trial']} of the study" in done.stdout


def test_what_is_no_log_is_told(tmp_path: Path) -> None:
    optuna.create_study(storage=f"sqlite:///{tmp_path}/s.db", study_name="s")
    log, storage = tmp_path / "log", f"{tmp_path}/s.db"
    (tmp_path / "t.csv").write_text("trial,step,value\n1,1,1\n")
    for study, text in (
        (None, f"expected a run folder, or a decision log and the study that it is of, got no study. Name it: "
               f"lcsearch verify {log} STUDY"),
        (storage, "expected a decision log, got no such folder. Runs without a curve pruner have none."),
        (f"{tmp_path}/none.db", "got nothing of that name."),
        (f"{tmp_path}/t.csv", "expected an Optuna storage, or the folder of a Ray Tune experiment."),
    ):  # fmt: skip
        with pytest.raises(FileProblem) as caught:
            verified(log, study)
        assert str(caught.value).endswith(text)
    done = lcsearch("verify", "run", "--folder", "run", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "expected LOG or --folder, got both: run and --folder run.\n")
