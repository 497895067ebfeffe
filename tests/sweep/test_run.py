"""Whole sweeps through the real launcher with real worker processes: what ends how, and what the user sees."""

from __future__ import annotations

import math
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from sweep.kit import PATIENCE_S, TRAIN, Remembering, command, lcsearch, state_of, write_toy

from lcsearch.errors import EnvironmentProblem, FileProblem
from lcsearch.session.decision_log import read_log
from lcsearch.sweep import run as launcher
from lcsearch.sweep.monitor import open_run
from lcsearch.sweep.runtime import preflight
from lcsearch.sweep.runtime.processes import Fleet, check_devices, count_gpus
from lcsearch.sweep.spec.load import load
from lcsearch.sweep.spec.model import Workers
from lcsearch.sweep.store import attributes, ownership
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.views.explain import explain
from lcsearch.sweep.views.summary import summarize
from lcsearch.sweep.views.verify import verified

ODD = """\
import json

def train(ctx):
    for epoch in range(1, ctx.max_steps + 1):
        ctx.report(float("nan") if ctx.number == 1 else ctx.params["a"], epoch)
        if ctx.number == 0:
            json.loads("no luck")  # raises deep in the library
    if ctx.number == 2:
        raise SystemExit(1)
"""


def test_two_workers_use_the_budget_and_no_more(tmp_path: Path) -> None:
    path = write_toy(tmp_path, workers=2, trials=9, pruner="median")
    outcome = launcher.run(path, folder=tmp_path / "run", view=Remembering())
    progress = outcome.progress
    assert outcome.code == 0
    assert len(progress.rows) == 9
    assert {row.state for row in progress.rows} <= {"complete", "stopped"}
    stopped = progress.of("stopped")
    assert all(row.note.startswith(f"median pruner at epoch {row.spent}: ") for row in stopped)
    assert progress.spent + progress.saved == 9 * 6
    trial = outcome.study.trials[0]
    assert trial.user_attrs["lcsearch:schedule"] == {
        "shape": "cosine", "peak": trial.params["lr"], "horizon": 6.0, "warmup": 0.0, "decay": 0.2, "floor": 0.0,
    }  # fmt: skip
    assert trial.user_attrs["lcsearch:worker"]["slot"] in (0, 1)
    best = progress.best
    assert best is not None
    assert best.value == min(v for row in progress.rows for v in row.values.values())
    # the same configurations from one worker without a pruner
    alone = launcher.run(path, folder=tmp_path / "alone", workers=1, pruner="none", view=Remembering())
    assert [row.params for row in alone.progress.rows] == [row.params for row in progress.rows]
    # a second run does not touch the first
    with pytest.raises(FileProblem) as caught:
        launcher.run(path, folder=tmp_path / "run")
    assert str(caught.value) == (
        f"{tmp_path}/run: expected no run here, got the run of {path}. "
        "Use --resume to go on with it, --fresh to start over, --folder to keep both."
    )
    # a resume may raise the budget; nothing that was done is done again
    more = launcher.run(path, folder=tmp_path / "run", resume=True, trials=10, view=Remembering())
    assert [row.values for row in more.progress.rows[:9]] == [row.values for row in progress.rows]
    assert len(more.progress.rows) == 10
    with pytest.raises(FileProblem, match="--seed: expected 0, as this run was started with, got 1"):
        launcher.run(path, folder=tmp_path / "run", resume=True, seed=1)
    path.write_text(path.read_text().replace("[0, 1]", "[0, 2]"))
    with pytest.raises(FileProblem) as caught:
        launcher.run(path, folder=tmp_path / "run", resume=True)
    assert "    -  a: {uniform: [0, 1]}\n    +  a: {uniform: [0, 2]}\n" in str(caught.value)


def test_raising_nan_and_exiting_objectives(tmp_path: Path) -> None:
    outcome = launcher.run(write_toy(tmp_path, ODD, trials=4), folder=tmp_path / "run", view=Remembering())
    assert outcome.code == 0
    raised, nan, exited, fine = outcome.progress.rows
    assert (raised.state, raised.note) == (
        "failed",
        "JSONDecodeError: Expecting value: line 1 column 1 (char 0) (toy.py:7)",
    )
    assert (nan.state, exited.state, fine.state) == ("complete", "failed", "complete")
    assert outcome.study.trials[1].value == math.inf
    assert all(math.isnan(v) for v in nan.values.values())
    assert "JSONDecodeError: Expecting value" in RunFolder(tmp_path / "run").log(0).read_text()
    assert outcome.progress.best is not None
    assert outcome.progress.best.number == 3
    text = summarize(state := state_of(outcome))
    assert "  trial 0: JSONDecodeError: Expecting value: line 1 column 1 (char 0) (toy.py:7)\n" in text
    assert text.splitlines()[0] == "toy: 2 complete, 2 failed"
    story = explain(1, state, outcome.study)
    assert "loss over epoch 1..6: !!!!!!\n  first nan, last nan; 6 reports were no finite number" in story
    assert "error: JSONDecodeError: Expecting value: line 1 column 1 (char 0) (toy.py:7)" in explain(
        0, state, outcome.study
    )
    with pytest.raises(FileProblem, match=r"expected the number of a trial \(0 to 3\), got 4"):
        explain(4, state, outcome.study)


def test_a_sweep_that_only_fails_is_ended(tmp_path: Path) -> None:
    """At the very first trials, where none has ever reported and all say the same."""
    path = write_toy(tmp_path, "def train(ctx):\n    print('see here')\n    1 / 0\n", trials=1000)
    done = lcsearch("run", path.name, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        "toy: the first 5 trials failed before any report and with the same error, so the sweep was ended: "
        f"ZeroDivisionError: division by zero (toy.py:3)\nTracebacks: {tmp_path}/runs/toy/logs\n"
    )
    lines = done.stdout.splitlines()
    assert lines[5:8] == ["[5/1000] trial 4 failed; ZeroDivisionError: division by zero (toy.py:3)", "", lines[7]]
    assert lines[8] == "best: none"
    assert lines[-5:] == [
        "failed:",
        "  trials 0, 1, 2, 3, 4: ZeroDivisionError: division by zero (toy.py:3)",
        "files: runs/toy",
        "next: lcsearch run toy.yaml --fresh   (after the mend)",
        "      lcsearch explain 0   (failed)",
    ]
    story = lcsearch("explain", "0", cwd=tmp_path).stdout
    assert "\nthe last lines it printed:\n  see here\n  Traceback (most recent call last):\n" in story
    assert "\n  ZeroDivisionError: division by zero\nprinted" not in story
    assert "\n  ZeroDivisionError: division by zero\ncheckpoints: runs/toy/checkpoints/trial-00000\n" in story
    (tmp_path / "toy.py").write_text(TRAIN)
    again = lcsearch("run", path.name, "--resume", "--trials", "7", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "\ntoy: 2 complete, 5 failed in " in again.stdout


def test_a_sweep_that_fails_in_a_row_after_reports_is_ended(tmp_path: Path) -> None:
    train = "import time\ndef train(ctx):\n    time.sleep(0.05)\n    ctx.report(1.0, 1)\n    1 / 0\n"
    outcome = launcher.run(write_toy(tmp_path, train, trials=1000), folder=tmp_path / "run", view=Remembering())
    assert outcome.code == 1
    assert "trials failed in a row, so the sweep was ended. The last said: ZeroDivisionError: division by zero" in (
        outcome.message
    )
    assert len(outcome.progress.rows) < 200


SHORT = """\
def train(ctx):
    for epoch in range(1, 3 + ctx.number):
        ctx.report(ctx.params["a"] + 1 / epoch, epoch)
"""


def test_trials_that_end_early_count_as_long_as_they_ran(tmp_path: Path) -> None:
    done = lcsearch("run", write_toy(tmp_path, SHORT), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"\[1/3\] trial 0 complete at epoch 2 of 6: loss \S+, new best", lines[1])
    assert "epochs: 9 spent, 0 saved (0% of 9)" in lines
    assert lines[-4:] == [
        "! 3 of 3 complete trials ended before epoch 6, the longest of these at epoch 4: if they stop early by "
        "themselves, "
        "nothing is to be done; if they are meant to train 6 epochs, the objective gets that number as ctx.max_steps",
        "files: runs/toy",
        "next: lcsearch report",
        "      lcsearch explain best",
    ]
    assert lcsearch("explain", "1", cwd=tmp_path).stdout.startswith("trial 1: complete, 3 of 6 epochs\n")
    status = lcsearch("status", cwd=tmp_path).stdout
    assert "epochs: 9 spent, 0 saved (0%)" in status


def test_reports_beyond_max_steps_are_told_once_and_those_from_0_are_fine(tmp_path: Path) -> None:
    beyond = SHORT.replace("3 + ctx.number", "ctx.max_steps + 3")
    done = lcsearch("run", write_toy(tmp_path, beyond), cwd=tmp_path)
    text = "! reports after epoch 6 were ignored: set max_steps to the objective's own length, or let it end there\n"
    assert done.stdout.count(text) == 1
    assert "epochs: 18 spent, 0 saved" in done.stdout
    (tmp_path / "toy.py").write_text(SHORT.replace("1, 3 + ctx.number", "ctx.max_steps").replace("/ epoch", "/ 7"))
    done = lcsearch("run", tmp_path / "toy.yaml", "--fresh", cwd=tmp_path)
    assert "epochs: 18 spent, 0 saved" in done.stdout
    assert done.stdout.count("! ") == 1  # the earlier run was kept


def test_a_sweep_without_a_finite_value_failed(tmp_path: Path) -> None:
    path = write_toy(tmp_path, SHORT.replace("3 + ctx.number", "7").replace('ctx.params["a"]', 'float("nan")'))
    done = lcsearch("run", path, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "toy: no trial reported a finite loss (3 complete)\n"
    assert "\nbest: none\n" in done.stdout
    assert "next: " not in done.stdout
    told = lcsearch("explain", "best", cwd=tmp_path)
    assert (told.returncode, told.stderr) == (
        2,
        "expected the number of a trial, got 'best': no trial has reached a finite value.\n",
    )
    told = lcsearch("explain", "worst", cwd=tmp_path)
    assert (told.returncode, told.stderr) == (2, "expected the number of a trial, or 'best', got 'worst'.\n")
    final = lcsearch("run", path, "judged=final", "--folder", "final run", cwd=tmp_path)
    assert final.stderr == "toy: no trial ended at a finite loss (3 complete)\n"


def test_commands_name_the_folder_where_it_is_not_the_one_taken(tmp_path: Path) -> None:
    done = lcsearch("run", write_toy(tmp_path), "--folder", "a run", cwd=tmp_path)
    assert done.stdout.splitlines()[-2:] == [
        "next: lcsearch report --folder 'a run'",
        "      lcsearch explain best --folder 'a run'",
    ]
    status = lcsearch("status", "--folder", "a run", cwd=tmp_path).stdout.splitlines()
    assert status[-1] == (
        "a run: ended; next: lcsearch report --folder 'a run', or lcsearch explain TRIAL --folder 'a run'"
    )


def test_an_objective_that_does_not_import(tmp_path: Path) -> None:
    """It is found before anything is made, so that the mended one can be run."""
    path = write_toy(tmp_path, "print('so far')\nimport no_such_thing\n" + TRAIN)
    done = lcsearch("run", path, cwd=tmp_path)
    said = "ModuleNotFoundError: No module named 'no_such_thing'"
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"{tmp_path}/toy.py: expected a module that imports, got {said}.\n"
        "Traceback (most recent call last):\n"
        f'  File "{tmp_path}/toy.py", line 2, in <module>\n'
        f"    import no_such_thing\n{said}\n"
    )
    assert not (tmp_path / "runs").exists()
    done = lcsearch("run", write_toy(tmp_path), cwd=tmp_path)
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("start", "got"),
    [
        ("import os; os.kill(os.getpid(), 11)", "a process that ended with signal 11; it said last: nothing"),
        ("import os; print('oh', flush=True); os._exit(3)", "a process that ended with exit code 3; it said last: oh"),
        ("raise SystemExit('usage: toy')", "SystemExit: usage: toy.\n"),
    ],
)
def test_an_import_that_ends_its_process(tmp_path: Path, start: str, got: str) -> None:
    with pytest.raises(FileProblem) as caught:
        launcher.run(write_toy(tmp_path, f"{start}\n{TRAIN}"), folder=tmp_path / "run")
    assert str(caught.value).startswith(f"{tmp_path}/toy.py: expected a module that imports, got {got}")
    assert not (tmp_path / "run").exists()


def test_an_import_that_fails_in_the_worker_only(tmp_path: Path) -> None:
    path = write_toy(tmp_path, "import sys\nif '--slot' in sys.argv:\n    import no_such_thing\n" + TRAIN)
    done = lcsearch("run", path, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        f"toy: {tmp_path}/toy.py: expected a module that imports, got ModuleNotFoundError: "
        "No module named 'no_such_thing'.\n"
    )


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """Under a regular file: chmod would not bind root, who may run this."""
    (tmp_path / "plain").write_text("")
    done = lcsearch("run", write_toy(tmp_path), "--folder", tmp_path / "plain" / "run", cwd=tmp_path)
    assert done.returncode == 3
    assert done.stderr == (
        f"{tmp_path}/plain/run: expected a folder lcsearch can write to, got Not a directory. "
        "Choose another with --folder.\n"
    )
    assert done.stdout == ""


def test_a_read_only_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for a folder that is there; the refusal is faked, see above."""

    def refuse(self: Path, data: bytes) -> int:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(EnvironmentProblem, match="expected a folder lcsearch can write to, got Permission denied"):
        launcher.run(write_toy(tmp_path), folder=tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def test_a_storage_that_does_not_answer(tmp_path: Path) -> None:
    path = write_toy(tmp_path)
    path.write_text(path.read_text().replace("backend: {", "backend: {storage: 'sqlite:////nowhere/at/all.db', "))
    with pytest.raises(EnvironmentProblem, match="expected an Optuna storage that answers, got OperationalError"):
        launcher.run(path, folder=tmp_path / "run")


def test_fresh_keeps_the_earlier_run_aside(tmp_path: Path) -> None:
    path = write_toy(tmp_path, trials=1)
    RunFolder(tmp_path / "run").root.mkdir()
    RunFolder(tmp_path / "run").write(load(path))
    view = Remembering()
    outcome = launcher.run(path, folder=tmp_path / "run", fresh=True, seed=5, view=view)
    assert view.events == [f"the earlier run was kept as {tmp_path}/run.old-1"]
    assert len(outcome.progress.rows) == 1
    assert RunFolder(tmp_path / "run.old-1").read().file.seed == 0


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    path = write_toy(tmp_path)
    with pytest.raises(FileProblem, match="expected a new or empty folder, got one with other files in it"):
        launcher.run(path, folder=tmp_path)
    with pytest.raises(FileProblem, match="expected a run to resume, got none"):
        launcher.run(path, folder=tmp_path / "run", resume=True)


def test_two_launchers_do_not_share_a_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    held = folder.hold()
    with pytest.raises(EnvironmentProblem, match="expected nobody at work here"):
        folder.hold(patience_s=0.0)
    os.close(held)
    os.close(folder.hold(patience_s=0.0))


def test_the_curve_pruner_stops_and_explains(tmp_path: Path) -> None:
    path = write_toy(tmp_path, trials=12, max_steps=20, pruner="curve")
    done = lcsearch("run", path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "toy: 12 trials of 20 epochs, minimize loss, 1 worker, random sampler, curve pruner"
    assert "\x1b" not in done.stdout
    stopped = [line for line in lines if " stopped at epoch " in line]
    assert stopped
    assert all("P(beat)" in line for line in stopped)
    assert any(line.startswith("risk that some stop lost the winner: ") for line in lines)
    assert not any(", incumbent " in line for line in lines)
    at = lines.index("  by the forecasts alone: no stopped trial was trained on to check them")
    assert lines[at + 1] == "  no limit was set; to set one: pruner: {kind: curve, risk: 0.1}"
    named = re.fullmatch(r"  likeliest to have won, as things stand now: trial (\d+) \((.*? %)\).*", lines[-4])
    assert named is not None
    assert lines[-5].startswith(f"stopped by P(beat): {len(stopped)} (trials ")
    assert lines[-3:] == [
        "files: runs/toy",
        "next: lcsearch report",
        f"      lcsearch explain {named[1]}   (stopped, with {named[2]} the likeliest of the stopped to have won)",
    ]
    told = lcsearch("explain", named[1], cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    assert "STOP (BELOW)" in told.stdout
    assert f"\n{lines[1]}\n" in told.stdout
    assert told.stdout.endswith("\nnext: lcsearch report\n")
    told = lcsearch("explain", "best", "--folder", "runs/toy", cwd=tmp_path)
    assert "\nit was not stopped\n" in told.stdout
    assert "\nit is the best trial\n" in told.stdout
    assert re.search(
        r"\n(nearest to a stop: P\(beat\) .* % at epoch \d+, threshold \d %, the lowest of \d+ in runs/toy/decisions"
        r"|its looks made again just now, beside the trials that had ended when it did, are all held:)\n",
        told.stdout,
    )
    assert list((tmp_path / "runs/toy/decisions").glob("*.jsonl"))


SIDE_BY_SIDE = """\
import time
from pathlib import Path

HERE = Path(__file__).parent

def say(name, number):
    (HERE / f"{name}-{number}").touch()

def wait(name, n):
    deadline = time.monotonic() + 250
    while len(list(HERE.glob(f"{name}-*"))) < n:
        assert time.monotonic() < deadline
        time.sleep(0.05)

def train(ctx):
    leads = ctx.number < 4
    say("begun", ctx.number)
    wait("begun", 7)
    try:
        for epoch in range(1, ctx.max_steps + 1):
            if leads and epoch == ctx.max_steps:
                wait("left", 3)  # until those behind are stopped
            elif not leads and epoch == 4:
                wait("ahead", 4)
            ctx.report((0 if leads else ctx.number) + 0.8 ** epoch, epoch)
            if leads and epoch == ctx.max_steps - 2:
                say("ahead", ctx.number)
    finally:
        if not leads:
            say("left", ctx.number)
"""


def test_many_workers_at_once_stop_those_behind_before_any_has_ended(tmp_path: Path) -> None:
    pruner = "curve, rivals: 1, forecasters: [parametric]"
    path = write_toy(tmp_path, SIDE_BY_SIDE, trials=7, workers=7, max_steps=20, pruner=pruner)
    outcome = launcher.run(path, folder=tmp_path / "run", view=Remembering())
    assert outcome.code == 0, outcome.message
    stopped = outcome.progress.of("stopped")
    assert [row.number for row in stopped] == [4, 5, 6]
    assert all("against running trials " in row.note for row in stopped)
    text = explain(4, state_of(outcome), outcome.study)
    assert "STOP (RIVALS)" in text
    assert "by what they are forecast to reach" in text
    again = verified(tmp_path / "run")
    assert again.mismatch is None, str(again.mismatch)
    assert again.looks == len(list(read_log(tmp_path / "run/decisions")))


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("begun", [False, True])
def test_a_study_in_a_storage_of_the_users_own_is_never_deleted(tmp_path: Path, fresh: bool, begun: bool) -> None:
    url = f"sqlite:///{tmp_path}/central.sqlite3"
    optuna.create_study(storage=url, study_name="toy").enqueue_trial({"a": 0.5})
    path = write_toy(tmp_path)
    path.write_text(path.read_text().replace("backend: {", f"backend: {{storage: '{url}', "))
    run = RunFolder(tmp_path / "run")
    if begun:
        run.root.mkdir()
        run.write(load(path))
    with pytest.raises(FileProblem) as caught:
        launcher.run(path, folder=run.root, fresh=fresh, view=Remembering())
    if fresh or not begun:
        assert str(caught.value) == (
            f"{url}: expected no study 'toy', got one. Choose another `name`, or delete the study yourself: "
            f"optuna delete-study --study-name toy --storage {url}\n"
            "If another machine runs this very sweep there, work along with it: --join"
        )
    assert len(optuna.load_study(storage=url, study_name="toy").trials) == 1
    assert run.record.exists() is begun
    assert not (tmp_path / "run.old-1").exists()


LEAVING = """\
import os

def train(ctx):
    ctx.report(1.0, 1)
    if ctx.number == 1 and not (ctx.checkpoint_dir / "seen").exists():
        (ctx.checkpoint_dir / "seen").touch()
        os._exit({code})
    ctx.report(1.0, ctx.max_steps)
"""


def test_a_worker_that_exits_with_0_within_a_trial_gives_it_back(tmp_path: Path) -> None:
    view = Remembering()
    outcome = launcher.run(write_toy(tmp_path, LEAVING.format(code=0)), folder=tmp_path / "run", view=view)
    assert [row.state for row in outcome.progress.rows] == ["complete"] * 3
    assert [row.retries for row in outcome.progress.rows] == [0, 1, 0]
    assert view.events == [
        "worker 0 exited with code 0; trial 1 goes on from its last checkpoint (it had reported epoch 1) "
        "in another worker (retry 1 of 2)"
    ]


def test_workers_that_exit_with_0_and_take_nothing_end_the_sweep(tmp_path: Path) -> None:
    path = write_toy(tmp_path, "import os\nos._exit(0)\n" + TRAIN)
    outcome = launcher.run(path, folder=tmp_path / "run", view=Remembering())
    assert (outcome.code, outcome.progress.rows) == (1, ())
    assert outcome.message.startswith("expected workers that start, got 3 that died at once. See ")


def test_only_what_the_last_worker_said_ends_a_sweep(tmp_path: Path) -> None:
    path = write_toy(tmp_path, LEAVING.format(code=2), trials=1)
    assert launcher.run(path, folder=tmp_path / "run", view=Remembering()).code == 0
    with RunFolder(tmp_path / "run").told(0).open("a") as told:
        told.write('{"event": "problem", "text": "solved long ago"}\n')
    outcome = launcher.run(path, folder=tmp_path / "run", resume=True, trials=2, view=Remembering())
    assert (outcome.code, outcome.message) == (0, "")
    assert [row.retries for row in outcome.progress.rows] == [0, 1]


def test_a_folder_left_by_a_kill_before_its_record_was_written_is_used(tmp_path: Path) -> None:
    path, run = write_toy(tmp_path, trials=1), tmp_path / "run"
    for name in ("decisions", "logs", "checkpoints"):
        (run / name).mkdir(parents=True)
    for name in ("run.lock", ".probe-17", ".sweep.yaml.17.tmp", ".run.json.17.tmp"):
        (run / name).touch()
    (run / "sweep.yaml").write_text(path.read_text())
    (run / "logs/theirs.log").touch()
    with pytest.raises(FileProblem, match="expected a new or empty folder"):
        launcher.run(path, folder=run, view=Remembering())
    (run / "logs/theirs.log").unlink()
    assert launcher.run(path, folder=run, view=Remembering()).code == 0


def test_gpus_are_counted_within_the_allocation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet(RunFolder(tmp_path), Workers(n=3, devices=("cuda:0", "cuda:1", "cpu")), 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-5")
    seen = [fleet._device(slot) for slot in range(3)]  # noqa: SLF001
    assert [(device, env["CUDA_VISIBLE_DEVICES"]) for device, env in seen] == [
        ("cuda:0", "4"), ("cuda:0", "GPU-5"), ("cpu", "4,GPU-5"),
    ]  # fmt: skip
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert fleet._device(1)[1]["CUDA_VISIBLE_DEVICES"] == "1"  # noqa: SLF001
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4")
    path = write_toy(tmp_path)
    path.write_text(path.read_text().replace("workers: {", "workers: {devices: ['cuda:1'], "))
    with pytest.raises(EnvironmentProblem) as caught:
        launcher.run(path, folder=tmp_path / "run")
    assert str(caught.value) == (
        "backend.workers.devices: expected cuda:1 among CUDA_VISIBLE_DEVICES, got '4'. cuda:N counts within it, from 0."
    )


@pytest.mark.parametrize(
    ("device", "listed", "got"),
    [
        ("cuda:7", None, ", got no GPUs on this machine."),
        ("cuda", "", ", got no GPUs on this machine."),
        (
            "cuda:1",
            "GPU 0: H100 (UUID: GPU-1)\n  MIG 1g.10gb Device 0: (UUID: MIG-1)\n",
            ", got 1 GPU on this machine.",
        ),
        ("cuda:0", "GPU 0: H100\n", None),
        ("mps", None, f" on a Mac, got {sys.platform}."),
    ],
)
def test_devices_that_are_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, listed: str | None, got: str | None
) -> None:
    if sys.platform == "darwin" or count_gpus() != 0:
        pytest.skip("this machine has GPUs of its own")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if listed is not None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\ncat <<'END'\n{listed}END\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    path = write_toy(tmp_path)
    path.write_text(path.read_text().replace("workers: {", f"workers: {{devices: ['{device}'], "))
    if got is None:
        preflight.check(load(path))
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1,GPU-2")
        check_devices(Workers(devices=("cuda:1",)))
        return
    with pytest.raises(EnvironmentProblem) as caught:
        launcher.run(path, folder=tmp_path / "run")
    assert str(caught.value) == f"backend.workers.devices: expected {device}{got}"
    assert not (tmp_path / "run").exists()


def test_trials_of_other_machines_are_left_alone(tmp_path: Path) -> None:
    study, folder = optuna.create_study(), RunFolder(tmp_path)
    owners: list[Any] = [
        {"slot": 0, "pid": 1, "host": "elsewhere"},
        {"slot": 0, "pid": 1, "host": socket.gethostname()},
        {"slot": 0, "pid": 2, "host": socket.gethostname()},
        {"slot": 0, "pid": 2, "host": "elsewhere"},
    ]
    for owner in owners:
        study.ask().set_user_attr(attributes.WORKER, owner)
    study.ask()  # its worker died before it could sign
    assert [given.number for given in ownership.release(study, folder, [2], 2)] == [1, 4]
    theirs = list(ownership.foreign(study.trials, folder.identity()))
    assert [(other.number, other.host) for other in theirs] == [(0, "elsewhere"), (3, "elsewhere")]
    # the same machine may go by another name when it comes back
    assert [given.number for given in ownership.release(study, folder, (), 2, anywhere=True)] == [0, 2, 3]


def test_a_closed_pipe_does_not_end_a_sweep(tmp_path: Path) -> None:
    path = write_toy(tmp_path, "import time\n" + TRAIN.replace("ctx.report", "time.sleep(0.05); ctx.report"), trials=8)
    process = subprocess.Popen(
        command("run", path, "--folder", tmp_path / "run"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith("toy: 8 trials")
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(PATIENCE_S) == 0
    process.stderr.close()
    assert len(open_run.reader(RunFolder(tmp_path / "run"))[2]().of("complete")) == 8
