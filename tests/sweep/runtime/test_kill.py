"""Kills: a worker, the launcher, a Ctrl-C. Every trial goes on as itself from its checkpoint."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from sweep.kit import PATIENCE_S, RESUMING, Remembering, command, held, interrupt, launched, wait_for, write_toy

from lcsearch.schedulers.optuna import as_trial
from lcsearch.study.moment import BEGAN_ANEW
from lcsearch.sweep import run as launcher
from lcsearch.sweep.monitor.progress import Progress
from lcsearch.sweep.runtime import launch
from lcsearch.sweep.spec.load import load
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.views.notices import notices

EPOCHS = 40


def state(run: Path, number: int = 0) -> dict[str, list[list[int]]]:
    """What RESUMING saved; empty before it did."""
    try:
        saved: dict[str, list[list[int]]] = json.loads((run / f"checkpoints/trial-{number:05d}/state.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return saved


def killer(run: Path, kills: int) -> Remembering:
    """A view that kills the worker of trial 0 (a `held` one) once it has saved, in each of its first lives."""
    done: set[int] = set()

    def look(progress: Progress) -> None:
        lives = state(run).get("lives", [])
        if lives and len(done) < kills and lives[-1][0] not in done and not progress.of("complete"):
            done.add(lives[-1][0])
            os.kill(lives[-1][0], signal.SIGKILL)
            (run.parent / "go").touch()

    return Remembering(look)


def test_a_killed_workers_trial_goes_on_as_the_same_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_LOOK_S", 0.05)
    path = write_toy(tmp_path, held(RESUMING), trials=2, max_steps=EPOCHS)
    view = killer(tmp_path / "run", 1)
    outcome = launcher.run(path, folder=tmp_path / "run", view=view)
    assert outcome.code == 0
    assert [row.state for row in outcome.progress.rows] == ["complete", "complete"]
    first = outcome.progress.rows[0]
    assert list(first.values) == list(range(1, EPOCHS + 1))
    assert first.values == pytest.approx({e: first.params["a"] + 1 / e for e in range(1, EPOCHS + 1)})  # type: ignore[operator]
    (_, start), (_, again) = state(tmp_path / "run")["lives"]
    assert (start, first.retries) == (0, 1)
    assert again > 0  # from its checkpoint, not from the start
    (event,) = view.events
    assert event.startswith(
        "worker 0 was killed (SIGKILL); trial 0 goes on from its last checkpoint (it had reported epoch"
    )
    assert event.endswith("in another worker (retry 1 of 2)")


def test_retries_run_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_LOOK_S", 0.05)
    path = write_toy(tmp_path, held(RESUMING), trials=2, max_steps=EPOCHS, retries=0)
    view = killer(tmp_path / "run", 1)
    outcome = launcher.run(path, folder=tmp_path / "run", view=view)
    assert [row.state for row in outcome.progress.rows] == ["failed", "complete"]
    assert outcome.progress.rows[0].note == "its worker died once; retries: 0"
    assert view.events == ["worker 0 was killed (SIGKILL); trial 0 is marked failed after 0 retries"]


def test_a_killed_launcher_leaves_no_workers_and_is_resumed(tmp_path: Path) -> None:
    path = write_toy(tmp_path, held(RESUMING), trials=3, max_steps=EPOCHS, workers=2)
    run = tmp_path / "run"
    with launched(command("run", path, "--folder", run)) as process:
        wait_for(lambda: bool(state(run, 0) and state(run, 1)))
        process.kill()
    pids = [state(run, number)["lives"][0][0] for number in (0, 1)]
    wait_for(lambda: not any(alive(pid) for pid in pids))
    study = optuna.load_study(study_name="toy", storage=f"sqlite:///{run}/study.sqlite3")
    before = {t.number: t.intermediate_values for t in study.trials}
    assert [t.state.name for t in study.trials[:2]] == ["RUNNING", "RUNNING"]
    (tmp_path / "go").touch()
    view = Remembering()
    outcome = launcher.run(path, folder=run, resume=True, view=view)
    assert outcome.code == 0
    assert [row.state for row in outcome.progress.rows] == ["complete"] * 3
    assert [row.retries for row in outcome.progress.rows] == [0, 0, 0]  # no fault of theirs
    assert len(view.events) == 2
    for number in (0, 1):
        row = outcome.progress.rows[number]
        assert list(row.values) == list(range(1, EPOCHS + 1))
        assert before[number].items() <= row.values.items()
        assert [start > 0 for _, start in state(run, number)["lives"]] == [False, True]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_ctrl_c_drains_and_the_run_can_be_resumed(tmp_path: Path, number: signal.Signals) -> None:
    """So does a terminal that closes, unless the sweep is to outlive it (nohup, which these tests may run under)."""
    path = write_toy(tmp_path, held(RESUMING), trials=2, max_steps=EPOCHS)
    run = tmp_path / "run"
    with launched(["env", "--default-signal=HUP", *command("run", path, "--folder", run)]) as process:
        wait_for(lambda: bool(state(run)))
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert err == "toy: interrupted; go on with --resume\n"
    assert "! draining: workers end at their next report, trials can be resumed. Again to kill them\n" in out
    (tmp_path / "go").touch()
    outcome = launcher.run(path, folder=run, resume=True, view=Remembering())
    assert [row.state for row in outcome.progress.rows] == ["complete", "complete"]
    assert [start > 0 for _, start in state(run)["lives"]] == [False, True]
    # the report at which the first worker ended was trained again: its checkpoint was of the epoch before
    assert [row.noted for row in outcome.progress.rows] == [{"replayed": (1.0,)}, {}]
    (text,) = notices(outcome.progress, load(path).file)
    assert text == (
        "1 epoch was reported a second time by trials that were taken up again (trial 0): epochs spent count each "
        "once, worker time counts both; save checkpoints more often where that is much"
    )


def test_ctrl_c_twice_kills_an_objective_that_never_reports(tmp_path: Path) -> None:
    stuck = "import time\ndef train(ctx):\n    (ctx.checkpoint_dir / 'here').touch()\n    time.sleep(600)\n"
    run = tmp_path / "run"
    with launched(command("run", write_toy(tmp_path, stuck), "--folder", run)) as process:
        wait_for((run / "checkpoints/trial-00000/here").exists)
        interrupt(process)
        time.sleep(0.5)
        assert process.poll() is None, "once is not enough"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (130, "toy: interrupted; go on with --resume\n")


def alive(pid: int) -> bool:
    """Does the process exist and run? (A zombie waits for its parent; it does nothing.)"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


ORPHAN = """\
import os, sys, time
from lcsearch.sweep.runtime import worker

worker._GRACE_S = 0.1
worker.hold_run_lock(int(sys.argv[1]))
line = worker.LauncherLink()
child = os.fork()  # as a DataLoader does
if child:
    print(child, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("leader", [True, False])
def test_an_orphan_takes_its_children_along_and_they_never_hold_the_run(tmp_path: Path, leader: bool) -> None:
    folder = RunFolder(tmp_path)
    lock = folder.hold()
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", ORPHAN, str(lock)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=leader,
        pass_fds=(lock,),
    )
    os.close(lock)
    assert process.stdin is not None
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.stdin.close()
    try:
        assert process.wait(PATIENCE_S) == (-signal.SIGKILL if leader else 75)
        os.close(folder.hold(patience_s=0.0))
        wait_for(lambda: alive(child) is not leader)
    finally:
        process.stdout.close()
        if alive(child):
            os.kill(child, signal.SIGKILL)


ANEW = """
import os
import signal

from lcsearch.sweep import Context


def train(ctx: Context) -> None:
    first = ctx.params["a"] < 0.5 and not os.path.exists("died")
    for epoch in range(1, {own} + 1 if os.path.exists("died") else 7):
        ctx.report({dead} if first else ctx.params["a"] + abs(epoch - 2), epoch)
        if first and epoch == 4:
            open("died", "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("dead", "own"), [(9.0, 6), (-9.0, 6), (-9.0, 3)])
def test_a_trial_that_begins_anew_is_judged_by_its_own_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead: float, own: int
) -> None:
    """A dead attempt's best was the incumbent for ever, and its bad values hid a winner."""
    monkeypatch.chdir(tmp_path)
    path = write_toy(tmp_path, ANEW.format(dead=dead, own=own), trials=4)
    outcome = launcher.run(path, folder=tmp_path / "run", view=Remembering())
    (again,) = [row for row in outcome.progress.rows if row.retries]
    a = {row.number: float(str(row.params["a"])) for row in outcome.progress.rows}
    trained = {epoch: a[again.number] + abs(epoch - 2) for epoch in range(1, own + 1)}
    assert again.values == trained
    stored = outcome.study.trials[again.number].intermediate_values
    assert stored == {**trained, **({4: trained[3]} if own == 3 else {})}, "Optuna's own know of no attempts"
    assert outcome.progress.best is not None
    assert outcome.progress.best.value == min(a.values())


AMID = """
import os
import signal
import time

from lcsearch.sweep import Context


def train(ctx: Context) -> None:
    for epoch in range(1, 7):
        ctx.report(1.0 if ctx.number or os.path.exists("died") else -9.0, epoch)
        if not ctx.number and epoch == 4 and not os.path.exists("died"):
            open("died", "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        for _ in range(6000 if not ctx.number and epoch == 2 and os.path.exists("died") else 0):
            if os.path.exists("go"):
                break
            time.sleep(0.05)
"""


@pytest.mark.parametrize("pruner", ["curve", "none"])
def test_while_a_trial_trains_anew_what_it_had_lost_counts_for_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pruner: str
) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[tuple[dict[int, float], float]] = []

    def look(progress: Progress) -> None:
        for row in progress.rows[:1]:
            if row.retries and row.values.get(2) == 1.0 and progress.best is not None:
                seen.append((dict(row.values), progress.best.value))
                (tmp_path / "go").touch()

    path = write_toy(tmp_path, AMID, trials=2, pruner=pruner)
    outcome = launcher.run(path, folder=tmp_path / "run", view=Remembering(look))
    assert seen[0] == ({1: 1.0, 2: 1.0}, 1.0)
    frozen = outcome.study.trials[0]
    assert as_trial(frozen).curve.n_reports == 6
    assert [BEGAN_ANEW in as_trial(one).stop_records for one in outcome.study.trials] == [True, False]
    assert set(frozen.intermediate_values.values()) == {1.0}
