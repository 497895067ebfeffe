"""A storage that is away: for a while it is waited for, for good it ends the sweep in plain words."""

from __future__ import annotations

import json
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import optuna
import pytest
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from sweep import postgres
from sweep.kit import PATIENCE_S, RESUMING, Remembering, command, held, interrupt, launched, wait_for, write_toy
from sweep.runtime.test_kill import alive

from lcsearch.errors import EnvironmentProblem
from lcsearch.sweep import run as launcher
from lcsearch.sweep.monitor import open_run
from lcsearch.sweep.monitor.progress import Progress
from lcsearch.sweep.runtime import launch
from lcsearch.sweep.spec.load import load
from lcsearch.sweep.store import ownership, storage, studies
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.store.storage import Patience

reason = postgres.missing()
CURVE = "curve, forecasters: [parametric, rank-gap]"  # loaded at once


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Nobody else reads or writes the sqlite file."""
    connection = sqlite3.connect(file, isolation_level=None, timeout=30, check_same_thread=False)
    connection.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


def lock_for(file: Path, seconds: float) -> threading.Thread:
    """Lock it now, and let it go after a while."""
    ready = threading.Event()

    def hold() -> None:
        with locked(file):
            ready.set()
            time.sleep(seconds)

    thread = threading.Thread(target=hold)
    thread.start()
    assert ready.wait(PATIENCE_S)
    return thread


def away(run: Path, seconds: float) -> str:
    """What is said of a locked study."""
    return (
        f"sqlite:///{run}/study.sqlite3: expected the study's storage to answer within {seconds:g} s, "
        "got OperationalError: (sqlite3.OperationalError) database is locked. "
        "See that it runs and can be written to; a run goes on with --resume."
    )


def made(tmp_path: Path) -> tuple[RunFolder, optuna.Study, Patience]:
    folder, patience = RunFolder(tmp_path / "run"), Patience()
    folder.root.mkdir()
    folder.write(load(write_toy(tmp_path)))
    return folder, studies.create_study(folder.read().file, folder, resume=False, patience=patience), patience


def test_every_call_waits_for_a_storage_that_is_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_BUSY_S", 0.05)
    folder, study, _ = made(tmp_path)
    file, sweep = folder.root / "study.sqlite3", folder.read().file
    lock = lock_for(file, 0.5)
    taken = ownership.take(study, folder, 0, sweep)
    lock.join()
    assert taken is not None
    for call in (
        lambda: taken.trial.suggest_float("a", 0, 1),
        lambda: taken.trial.report(1.0, 1),
        lambda: taken.trial.set_user_attr("x", 1),
        lambda: taken.end(1.0),
    ):
        lock = lock_for(file, 0.3)
        call()
        lock.join()
    assert [(t.state.name, t.intermediate_values) for t in study.trials] == [("COMPLETE", {1: 1.0})]
    lock = lock_for(file, 0.5)
    assert len(studies.open_study(sweep, folder).trials) == 1  # to open it, too
    lock.join()


def test_patience_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "PATIENCE_S", 0.5)
    monkeypatch.setattr(storage, "_BUSY_S", 0.05)
    folder, study, patience = made(tmp_path)
    with locked(folder.root / "study.sqlite3"):
        with pytest.raises(EnvironmentProblem) as caught:
            study.ask()
        assert str(caught.value) == away(folder.root, 0.5)
        assert patience.seconds == 0
        with monkeypatch.context() as patch:  # it is asked once more, and not waited for
            patch.setattr(time, "sleep", lambda _: pytest.fail("it waits again"))
            with pytest.raises(EnvironmentProblem):
                study.ask()
        with pytest.raises(EnvironmentProblem) as caught:
            studies.open_study(folder.read().file, folder)
        assert str(caught.value) == (
            f"sqlite:///{folder.root}/study.sqlite3: expected an Optuna storage that answers, got OperationalError: "
            "(sqlite3.OperationalError) database is locked. See that the URL is right and that it runs."
        )
    study.ask()
    assert len(study.trials) == 1


def test_an_end_whose_answer_was_lost_is_no_error() -> None:
    class Double:
        url, _patience, tries = "sqlite://", Patience(), 0

    def set_trial_state_values(self: Double) -> bool:
        self.tries += 1
        raise StorageInternalError("cut off") if self.tries == 1 else UpdateFinishedTrialError

    double = Double()
    assert storage._patiently(set_trial_state_values)(double) is True  # noqa: SLF001
    with pytest.raises(UpdateFinishedTrialError):
        storage._patiently(set_trial_state_values)(double)  # at the first try it is one  # noqa: SLF001


def test_a_storage_that_stays_away_ends_the_sweep_in_plain_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "PATIENCE_S", 1.0)
    monkeypatch.setattr(storage, "_BUSY_S", 0.05)
    monkeypatch.setattr(launch, "_LOOK_S", 0.05)
    path = write_toy(tmp_path, held(RESUMING, "ctx.number > 0"), trials=3, max_steps=30)
    run, lock = tmp_path / "run", ExitStack()

    def look(progress: Progress) -> None:
        if progress.of("complete") and not (tmp_path / "go").exists():
            (tmp_path / "go").touch()
            lock.enter_context(locked(run / "study.sqlite3"))

    with lock:
        outcome = launcher.run(path, folder=run, view=Remembering(look))
    assert outcome.code == 3
    assert outcome.message == away(run, 1.0)
    assert len(outcome.progress.of("complete")) == 1  # what was seen last
    rest = launcher.run(path, folder=run, resume=True, view=Remembering())
    assert [row.state for row in rest.progress.rows] == ["complete"] * 3
    assert [row.retries for row in rest.progress.rows] == [0] * 3


def test_the_command_line_says_so_too(tmp_path: Path) -> None:
    path, run = write_toy(tmp_path, held(RESUMING), trials=2, max_steps=200, pruner=CURVE), tmp_path / "run"
    told = tmp_path / "told"
    code = "from lcsearch.sweep.store import storage as s; s.PATIENCE_S, s._BUSY_S = 1.0, 0.05; "
    code += "from lcsearch.cli import main; main()"
    words = [sys.executable, "-c", code, "run", str(path), "--folder", str(run), "--json"]
    with told.open("w") as to, launched(words, to) as process:
        wait_for(lambda: '"began"' in told.read_text())  # the launcher has seen a trial
        with locked(run / "study.sqlite3"):
            _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 3
    assert "Traceback" not in err
    assert "toy: 1 running" in err
    assert err.endswith(f"toy: {away(run, 1.0)}\n")
    last = json.loads(told.read_text().splitlines()[-1])
    assert (last["event"], last["exit_code"], last["counts"]) == ("end", 3, {"running": 1})
    assert last["message"] == away(run, 1.0)


def test_ctrl_c_twice_kills_while_the_storage_does_not_answer(tmp_path: Path) -> None:
    path, run = write_toy(tmp_path, held(RESUMING), trials=2, max_steps=300, pruner=CURVE), tmp_path / "run"
    code = "from lcsearch.sweep.store import storage as s; s.PATIENCE_S = 3600.0; from lcsearch.cli import main; main()"
    with launched([sys.executable, "-c", code, "run", str(path), "--folder", str(run)]) as process:
        state = run / "checkpoints/trial-00000/state.json"
        wait_for(state.exists)
        pid = json.loads(state.read_text())["lives"][0][0]
        time.sleep(1.5)
        with locked(run / "study.sqlite3"):
            time.sleep(2.0)  # launcher and worker wait for it
            interrupt(process)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=PATIENCE_S)  # for the storage it would have waited longer
            wait_for(lambda: not alive(pid))
    assert (process.returncode, err) == (130, "toy: interrupted; go on with --resume\n")
    (tmp_path / "go").touch()
    outcome = launcher.run(path, folder=run, resume=True, trials=1, view=Remembering())
    assert [(row.state, row.retries) for row in outcome.progress.rows] == [("complete", 0)]


@pytest.mark.skipif(reason is not None, reason=reason or "")
def test_a_server_that_is_down_for_some_seconds_costs_nothing(tmp_path: Path) -> None:
    with postgres.server() as server:
        path = write_toy(tmp_path, RESUMING, trials=4, workers=2, max_steps=60)
        url = server.new_database()
        path.write_text(path.read_text().replace("backend: {", f"backend: {{storage: '{url}', "))
        with launched(command("run", path, "--folder", tmp_path / "run")) as process:
            wait_for((tmp_path / "run/checkpoints/trial-00000/state.json").exists)
            server.stop()
            time.sleep(4)
            server.start()
            out, err = process.communicate(timeout=120)
        assert (process.returncode, err) == (0, ""), out
        rows = open_run.reader(RunFolder(tmp_path / "run"))[2]().rows
        assert [(row.state, row.retries) for row in rows] == [("complete", 0)] * 4
        assert all(list(row.values) == list(range(1, 61)) for row in rows)
