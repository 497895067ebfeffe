from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.builders import props
from kit.studies import written
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial
from sweep import postgres

from lcsearch.data.readers import Read, optuna_study, read
from lcsearch.data.readers._assemble import choose
from lcsearch.data.task import Run
from lcsearch.errors import EnvironmentProblem, FileProblem, InvalidValue
from lcsearch.goal import Direction, Goal
from lcsearch.study import Status

NAN, INF = math.nan, math.inf
SPACE = {
    "lr": FloatDistribution(1e-5, 1.0, log=True),
    "units": IntDistribution(1, 512),
    "act": CategoricalDistribution(("relu", None, True)),
}
PARAMS = {"lr": 0.01, "units": 64, "act": True}


def fill(storage: Any, name: str = "digits", *, direction: Direction = "minimize", trials: Any = None) -> None:
    """A study with one trial of every kind, or with `trials`: (state, {step: value})."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(storage=storage, study_name=name, direction=direction)
    kinds = trials or [
        (TrialState.COMPLETE, {0: 0.9, 1: 0.5, 2: 0.3}),
        (TrialState.PRUNED, {0: 0.9, 1: NAN}),
        (TrialState.FAIL, {0: INF, 1: -INF}),
        (TrialState.FAIL, {}),
        (TrialState.COMPLETE, {0: 0.8, 2: 0.4}),
        (TrialState.COMPLETE, {}),
        (TrialState.RUNNING, {0: 0.9}),
    ]
    for state, curve in kinds:
        value = 0.5 if state == TrialState.COMPLETE else None
        study.add_trial(
            create_trial(
                state=state, value=value, params=PARAMS, distributions=dict(SPACE), intermediate_values=dict(curve)
            )
        )
    study.enqueue_trial({"lr": 0.5})


def made_sqlite(path: Path, *names: str, **fields: Any) -> Path:
    """Filled in memory and then written at once: a commit to disk for every report would take seconds."""
    storage = RDBStorage("sqlite://")
    for name in names or ("digits",):
        fill(storage, name, **fields)
    return written(storage, path)


def made_journal(path: Path, *names: str) -> Path:
    for name in names or ("digits",):
        fill(JournalStorage(JournalFileBackend(str(path))), name)
    return path


def state_of(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    """Everything that a reader could have changed in a folder."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_mode)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def reports(run: Run) -> list[tuple[float, float]]:
    steps, values = run.curve.reports()
    return list(zip(steps.tolist(), values.tolist(), strict=True))


def said(error: type[Exception], *arguments: Any, **wish: Any) -> str:
    with pytest.raises(error) as caught:
        read(*arguments, **wish)
    return str(caught.value)


def check(found: Read, source: str) -> None:
    """The study of `fill`."""
    task = found.task
    assert (task.name, task.unit) == ("digits", "steps")
    assert task.goal == Goal("value", "minimize", 2.0, "best")
    assert {run.uid: run.status for run in task.runs} == {
        "0": Status.COMPLETE,
        "1": Status.STOPPED,
        "2": Status.FAILED,
        "4": Status.COMPLETE,
    }
    assert reports(task.runs[0]) == [(0, 0.9), (1, 0.5), (2, 0.3)]
    assert task.runs[1].curve.event_steps.tolist() == [1]
    assert math.isnan(task.runs[1].curve.event_values[0])
    assert reports(task.runs[2]) == [(0, INF), (1, -INF)]
    assert task.runs[3].clock.tolist() == [1, 3], "range(3): three steps were trained"
    assert [dict(run.params) for run in task.runs] == [PARAMS] * 4
    assert isinstance(task.runs[0].params["units"], int)
    assert found.left_out == ("2 trials still running or waiting: left out.", "2 trials without a report: left out.")
    assert found.source == source


# Optuna


def test_a_sqlite_file(tmp_path: Path) -> None:
    path = made_sqlite(tmp_path / "study.db")
    before = state_of(tmp_path)
    check(read(path), f"Optuna study 'digits' in {path}")
    check(read(str(path), study="digits", direction="min"), f"Optuna study 'digits' in {path}")
    check(read(f"sqlite:///{path}"), f"Optuna study 'digits' in {path}")
    assert state_of(tmp_path) == before


def test_a_journal(tmp_path: Path) -> None:
    path = made_journal(tmp_path / "study.log")
    before = state_of(tmp_path)
    check(read(path), f"Optuna study 'digits' in {path}")
    assert state_of(tmp_path) == before


def test_a_journal_being_written(tmp_path: Path) -> None:
    path = made_journal(tmp_path / "study.log")
    path.write_bytes(path.read_bytes() + b'{"op_code":4,"worker')
    check(read(path), f"Optuna study 'digits' in {path}")


def test_a_damaged_journal(tmp_path: Path) -> None:
    path = made_journal(tmp_path / "study.log")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], b"{torn\n", *lines[3:]]))
    assert said(FileProblem, path).startswith(f"{path}: expected a journal of Optuna, got JSONDecodeError: ")


@pytest.mark.parametrize(
    "change",
    [
        {"op_code": 99},
        {"op_code": "x"},
        {"study_id": []},
        {"study_id": {}},
        {"intermediate_values": {"1": "x"}},
        {"intermediate_values": {"x": 0.5}},
        {"intermediate_values": 3},
        {"params": None},
        {"datetime_start": 3},
        {"state": 9},
    ],
)
def test_what_is_none_of_optunas_in_a_journal_is_told(tmp_path: Path, change: dict[str, Any]) -> None:
    path = made_journal(tmp_path / "study.log")
    lines = path.read_text().splitlines(keepends=True)
    first = next(i for i, line in enumerate(lines) if "intermediate_values" in line)
    lines[first] = json.dumps({**json.loads(lines[first]), **change}) + "\n"
    path.write_text("".join(lines))
    assert said(FileProblem, path).startswith(f"{path}: expected a journal of Optuna, got ")
    with pytest.raises(FileProblem, match="expected a journal of Optuna"), optuna_study(path):
        pass


def test_odd_characters_in_the_path(tmp_path: Path) -> None:
    folder = tmp_path / "a study #1?mode=rw %41"
    folder.mkdir()
    path = made_sqlite(tmp_path / "plain.db").rename(folder / "s&p.db")
    check(read(path), f"Optuna study 'digits' in {path}")


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_sqlite(tmp_path / "study.db")
    monkeypatch.chdir(tmp_path)
    check(read("study.db"), "Optuna study 'digits' in study.db")
    check(read("sqlite:///study.db"), "Optuna study 'digits' in study.db")


def wal(path: Path) -> sqlite3.Connection:
    """Put a database in WAL mode and leave the last commits in its log, with the writer alive."""
    writer = sqlite3.connect(path)
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("PRAGMA wal_autocheckpoint=0")
    writer.execute("UPDATE trial_intermediate_values SET intermediate_value = 0.25 WHERE intermediate_value = 0.3")
    writer.commit()
    return writer


def test_a_database_in_wal_mode_while_it_is_written(tmp_path: Path) -> None:
    path = made_sqlite(tmp_path / "study.db")
    with contextlib.closing(wal(path)):
        before = state_of(tmp_path)
        assert {"study.db", "study.db-wal", "study.db-shm"} <= set(before)
        assert reports(read(path).task.runs[0])[-1] == (2, 0.25)  # what stands in the log alone
        assert state_of(tmp_path) == before


def test_a_log_left_behind_by_a_kill(tmp_path: Path) -> None:
    path = made_sqlite(tmp_path / "study.db")
    killed = tmp_path / "killed"
    killed.mkdir()
    with contextlib.closing(wal(path)):
        for name in ("study.db", "study.db-wal"):  # and no index beside them
            shutil.copy(tmp_path / name, killed)
    before = state_of(killed)
    assert reports(read(killed / "study.db").task.runs[0])[-1] == (2, 0.25)
    assert state_of(killed) == before


def test_a_wal_database_at_rest(tmp_path: Path) -> None:
    path = made_sqlite(tmp_path / "study.db")
    wal(path).close()
    before = state_of(tmp_path)
    assert set(before) == {"study.db"}
    assert reports(read(path).task.runs[0])[-1] == (2, 0.25)
    assert state_of(tmp_path) == before


def test_a_transaction_that_a_crash_left_behind(tmp_path: Path) -> None:
    """The database is half overwritten; its journal says how it was, and stays."""
    path = made_sqlite(tmp_path / "study.db")
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    with contextlib.closing(sqlite3.connect(path)) as writer:
        writer.execute("PRAGMA cache_size=1")  # pages go to the file before the transaction ends
        writer.execute("PRAGMA cache_spill=1")
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE trial_intermediate_values SET intermediate_value = 7.0")
        writer.execute("CREATE TABLE ballast (x)")
        writer.executemany("INSERT INTO ballast VALUES (?)", [("x" * 2000,)] * 500)
        for name in ("study.db", "study.db-journal"):
            shutil.copy(tmp_path / name, crashed)
        writer.rollback()
    before = state_of(crashed)
    assert before["study.db"][0] != path.read_bytes()
    check(read(crashed / "study.db"), f"Optuna study 'digits' in {crashed / 'study.db'}")
    assert state_of(crashed) == before


def test_a_writer_in_its_transaction_is_not_disturbed(tmp_path: Path) -> None:
    path = made_sqlite(tmp_path / "study.db")
    with contextlib.closing(sqlite3.connect(path)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE trial_intermediate_values SET intermediate_value = 7.0")
        check(read(path), f"Optuna study 'digits' in {path}")
        writer.commit()
    assert reports(read(path).task.runs[0])[0] == (0, 7.0)


def test_a_folder_that_nobody_may_write_to(tmp_path: Path) -> None:
    """Root may write anywhere, so it gives up its rights first."""
    with tempfile.TemporaryDirectory() if os.getuid() == 0 else contextlib.nullcontext(tmp_path) as name:
        folder = Path(name)
        folder.chmod(0o755)
        if os.getuid() == 0 and not all(parent.stat().st_mode & 0o001 for parent in folder.parents):
            pytest.skip(f"{folder} is closed to other users")
        paths = [folder / "plain" / "study.db", folder / "plain" / "study.log", folder / "wal" / "study.db"]
        for parent in ("plain", "wal"):
            (folder / parent).mkdir()
            made_sqlite(folder / parent / "study.db")
        wal(paths[2]).close()
        made_journal(paths[1])
        for path in paths:
            path.chmod(0o444)
            path.parent.chmod(0o555)
        program = (
            "import os, sys\n"
            "from lcsearch.data.readers import read\n"
            "[read(path) for path in sys.argv[1:]]\n"  # what is imported late
            "if os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"
            "assert not os.access(os.path.dirname(sys.argv[1]), os.W_OK)\n"
            "print([len(read(path).task) for path in sys.argv[1:]])\n"
        )
        before = state_of(folder)
        done = subprocess.run(
            [sys.executable, "-c", program, *map(str, paths)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            timeout=300,
        )
        assert state_of(folder) == before
        for path in paths:
            path.parent.chmod(0o755)
    assert (done.stdout, done.returncode) == ("[4, 4, 4]\n", 0), done.stderr


def test_which_study(tmp_path: Path) -> None:
    for path in (tmp_path / "study.db", tmp_path / "study.log"):
        make = made_sqlite if path.suffix == ".db" else made_journal
        make(path, "digits", "letters")
        assert said(InvalidValue, path) == (
            f"{path}: study: expected the name of one of 2 studies: digits, letters, got None. "
            "Give study= (--study digits)."
        )
        assert said(InvalidValue, path, study="letter") == (
            f"{path}: study: expected one of digits, letters, got 'letter'. Perhaps 'letters' is meant."
        )
        assert read(path, study="letters").task.name == "letters"


def test_names_that_would_break_a_line_are_quoted(tmp_path: Path) -> None:
    path = made_sqlite(tmp_path / "study.db", "dig\nits", "let'\x1bters")
    assert said(InvalidValue, path) == (
        f'{path}: study: expected the name of one of 2 studies: "dig\\nits", "let\'\\u001bters", got None. '
        "Give study= (--study $'dig\\nits')."
    )
    assert read(path, study="dig\nits").task.name == "dig\nits"


def test_no_study(tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    storage = RDBStorage(f"sqlite:///{path}")
    storage.engine.dispose()
    assert said(FileProblem, path) == f"{path}: expected an Optuna study, got a storage without any."


def test_maximize_is_the_studys_own(tmp_path: Path) -> None:
    path = made_sqlite(tmp_path / "study.db", direction="maximize")
    assert read(path).task.goal.direction == "maximize"
    assert read(path).task.judged[0] == -0.9
    assert said(InvalidValue, path, direction="minimize") == (
        f"Optuna study 'digits' in {path}: direction: expected 'maximize', as the study has it, got 'minimize'. "
        "Leave it out."
    )


@pytest.mark.parametrize("kind", ["db", "log"])
def test_several_objectives(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"study.{kind}"
    storage = RDBStorage(f"sqlite:///{path}") if kind == "db" else JournalStorage(JournalFileBackend(str(path)))
    optuna.create_study(storage=storage, study_name="two", directions=["minimize", "maximize"])
    if isinstance(storage, RDBStorage):
        storage.remove_session()
        storage.engine.dispose()
    assert said(FileProblem, path) == (
        f"Optuna study 'two' in {path}: expected one objective, got 2. "
        "Optuna keeps no intermediate values for several: there is no curve to replay."
    )


def test_no_curves(tmp_path: Path) -> None:
    path = made_sqlite(tmp_path / "a.db", trials=[(TrialState.COMPLETE, {0: 0.5})] * 3)
    assert said(FileProblem, path) == (
        f"Optuna study 'digits' in {path}: expected trials with a learning curve, got 3 trials with one report each "
        "(of 4 trials). A replay needs a value at every step, as in Optuna's `trial.report(value, step)`."
    )
    path = made_sqlite(tmp_path / "b.db", trials=[(TrialState.RUNNING, {0: 0.5, 1: 0.4})])
    assert said(FileProblem, path).startswith(
        f"Optuna study 'digits' in {path}: expected finished trials with a learning curve, got none (of 2 trials)."
    )


def test_nothing_complete(tmp_path: Path) -> None:
    path = made_sqlite(tmp_path / "a.db", trials=[(TrialState.PRUNED, {0: 0.5, 1: 0.4, 2: 0.3})])
    assert said(FileProblem, path) == (
        f"Optuna study 'digits' in {path}: expected a complete trial to take the horizon from, got none. "
        "Give max_steps= (--max-steps)."
    )
    assert [run.status for run in read(path, max_steps=10).task.runs] == [Status.STOPPED]
    assert read(path, max_steps=10).task.goal.horizon == 10


def test_a_horizon_that_no_trial_came_to_is_told(tmp_path: Path) -> None:
    """It said "up to step 100; 2 ran to the end" of trials that end at 29, and no more."""
    trials = [(TrialState.COMPLETE, dict.fromkeys(range(n), 1.0)) for n in (20, 30)]
    path = made_sqlite(tmp_path / "a.db", trials=trials)
    assert read(path, max_steps=100).left_out[1:] == (
        "None of 2 trials that ran to the end came to step 100 (max_steps): the last ended at step 29. What is saved "
        "is counted to where each ended.",
    )
    assert read(path, max_steps=30).left_out[1:] == read(path).left_out[1:] == ()


def test_a_shorter_horizon_cuts_curves_and_completes_what_got_there(tmp_path: Path) -> None:
    trials = [
        (TrialState.COMPLETE, {1: 3.0, 2: 2.0, 3: 1.0, 4: 0.5}),
        (TrialState.PRUNED, {1: 3.0, 2: 2.0, 3: 1.0}),
        (TrialState.PRUNED, {1: 3.0, 2: 2.0}),
        (TrialState.FAIL, {1: 3.0, 2: 2.0}),
        (TrialState.PRUNED, {1: 3.0}),
        (TrialState.COMPLETE, {3: 3.0}),
    ]
    found = read(made_sqlite(tmp_path / "a.db", trials=trials), max_steps=2)
    assert {run.uid: (run.steps, run.status.name) for run in found.task.runs} == {
        "0": ([1, 2], "COMPLETE"),
        "1": ([1, 2], "COMPLETE"),
        "2": ([1, 2], "COMPLETE"),
        "3": ([1, 2], "FAILED"),
        "4": ([1], "STOPPED"),
    }
    assert all(run.clock.tolist() == run.steps for run in found.task.runs)
    assert found.left_out == (
        "1 trial still running or waiting: left out.",
        "1 trial without a report up to step 2: left out.",
        "2 trials went beyond step 2: cut there.",
    )
    assert said(InvalidValue, tmp_path / "a.db", max_steps=-1) == (
        "read(max_steps=): expected a finite number > 0, got -1."
    )


def test_tables_of_an_older_optuna(tmp_path: Path) -> None:
    """Before 3.0 a value had no type and NaN was NULL; before 2.4 directions stood elsewhere."""
    path = made_sqlite(tmp_path / "study.db")
    with contextlib.closing(sqlite3.connect(path)) as old:
        old.execute("DELETE FROM trial_intermediate_values WHERE intermediate_value_type LIKE 'INF%'")
        old.execute("ALTER TABLE trial_intermediate_values DROP COLUMN intermediate_value_type")
        old.execute("DELETE FROM version_info")
        old.commit()
    before = state_of(tmp_path)
    runs = read(path).task.runs
    assert [run.uid for run in runs] == ["0", "1", "4"]
    assert math.isnan(runs[1].curve.event_values[0])
    assert state_of(tmp_path) == before
    with contextlib.closing(sqlite3.connect(path)) as old:
        old.execute("DROP TABLE study_directions")
        old.commit()
    assert said(FileProblem, path) == (
        f"{path}: expected the tables of Optuna 2.4 or newer, got no such table: study_directions. "
        "Upgrade a copy of it with: optuna storage upgrade --storage"
    )


@pytest.mark.parametrize(
    "change",
    [
        "trial_intermediate_values SET intermediate_value = 'abc'",
        "trial_intermediate_values SET step = step + 0.5",
        "trials SET state = 'GONE'",
        "trial_params SET distribution_json = '{'",
    ],
)
def test_what_is_none_of_optunas_in_a_study_s_tables_is_told(tmp_path: Path, change: str) -> None:
    path = made_sqlite(tmp_path / "study.db")
    with contextlib.closing(sqlite3.connect(path)) as base:
        assert base.execute(f"UPDATE {change}").rowcount
        base.commit()
    with pytest.raises(FileProblem, match="expected the tables of Optuna, got an entry that cannot be read"):
        read(path)


def test_a_sqlite_file_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE things (x)")
    assert said(FileProblem, path).startswith(f"{path}: expected the tables of Optuna 2.4 or newer, got no such table")
    path.write_bytes(path.read_bytes()[:100] + bytes(3000))
    assert said(FileProblem, path).startswith(f"{path}: expected a SQLite file of Optuna, got ")


def test_storage_urls(tmp_path: Path) -> None:
    missing = tmp_path / "none.db"
    assert said(FileProblem, f"sqlite:///{missing}") == (
        f"sqlite:///{missing}: expected a SQLite file, got none at {missing}."
    )
    assert not missing.exists()
    assert said(InvalidValue, "://x") == ("read(where): expected a storage URL like sqlite:///study.db, got '://x'.")
    text = said(EnvironmentProblem, "postgresql://me:s3cret@127.0.0.1:1/x")
    assert text.startswith("postgresql://me:***@127.0.0.1:1/x: expected ") or "+psycopg" in text
    assert "s3cret" not in text


def test_a_driver_that_is_not_there() -> None:
    text = said(EnvironmentProblem, "mssql+pyodbc://me:s3cret@host/x")
    assert text.startswith("mssql+pyodbc://me:***@host/x: expected a driver for mssql+pyodbc, got none (")
    assert text.endswith("Install it with pip.")


@pytest.mark.skipif(postgres.missing() is not None, reason=str(postgres.missing()))
def test_postgresql() -> None:
    with postgres.server() as server:
        url = server.new_database("postgresql+psycopg")
        storage = RDBStorage(url)
        try:
            fill(storage)
        finally:
            storage.remove_session()
            storage.engine.dispose()
        found = read(url)
        shown = found.source.partition(" in ")[2]
        assert "***" in shown
        check(found, f"Optuna study 'digits' in {shown}")
        with pytest.raises(EnvironmentProblem, match=r"expected tables of Optuna, got ProgrammingError\."):
            read(server.new_database("postgresql"))


# A run of lcsearch


def run_folder(root: Path, **sweep: Any) -> Path:
    root.mkdir()
    made_sqlite(root / "study.sqlite3")
    resolved = {"name": "digits", "metric": "val_loss", "max_steps": 3, "judged": "final", "backend": {"storage": None}}
    (root / "run.json").write_text(json.dumps({"format": 1, "sweep": {**resolved, **sweep}}))
    return root


def test_a_run_folder(tmp_path: Path) -> None:
    root = run_folder(tmp_path / "runs")
    before = state_of(root)
    found = read(root)
    goal = found.task.goal
    assert (goal.metric, goal.direction, goal.horizon, goal.judged) == ("val_loss", "minimize", 3, "final")
    assert [run.status.name for run in found.task.runs] == ["COMPLETE", "STOPPED", "FAILED", "COMPLETE"]
    assert state_of(root) == before
    assert read(root, max_steps=1, judged="best", metric="x").task.goal.horizon == 1


def test_a_run_folder_whose_study_lies_elsewhere(tmp_path: Path) -> None:
    other = made_sqlite(tmp_path / "shared.db")
    root = run_folder(tmp_path / "runs", backend={"storage": f"sqlite:///{other}"})
    assert read(root).source == f"Optuna study 'digits' in {other}"


def test_a_damaged_record(tmp_path: Path) -> None:
    root = run_folder(tmp_path / "runs")
    (root / "run.json").write_text("[]")
    assert said(FileProblem, root) == (
        f"{root / 'run.json'}: expected the record of `lcsearch run`, got TypeError. Bring it back from a copy."
    )


# CSV


def csv_file(folder: Path, text: str, name: str = "curves.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


LONG = """trial,step,value,state,param_lr,param_act
a,1,3,,0.1,relu
a,2,2,COMPLETE,0.1,relu
b,1,nan,,0.2,
b,2,inf,TrialState.PRUNED,,
c,2,1,,1,tanh
c,1,5,fail,1,tanh
d,1,5,running,,
"""


def test_long(tmp_path: Path) -> None:
    path = csv_file(tmp_path, LONG)
    found = read(path, direction="minimize")
    task = found.task
    assert (task.name, task.unit, task.goal.metric, task.goal.horizon) == ("curves", "steps", "value", 2)
    # b was stopped at the horizon itself: its whole curve is known.
    assert {run.uid: run.status.name for run in task.runs} == {"a": "COMPLETE", "b": "COMPLETE", "c": "FAILED"}
    assert [run.steps for run in task.runs] == [[1, 2]] * 3
    assert task.runs[2].curve.values.tolist() == [5, 1]
    assert task.runs[1].curve.event_values.tolist() == pytest.approx([NAN, INF], nan_ok=True)
    assert [dict(run.params) for run in task.runs] == [
        {"lr": 0.1, "act": "relu"},
        {"lr": 0.2},
        {"lr": 1, "act": "tanh"},
    ]
    assert found.left_out == ("1 trial still running or waiting: left out.",)
    assert found.source == f"CSV file {path}"


def test_long_with_times(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "time,value,step,trial\n5,0.5,2,a\n2,0.9,1,a\n\n1.5,0.8,1,b\n")
    found = read(path, direction="maximize")
    assert found.task.unit == "seconds"
    assert {run.uid: run.clock.tolist() for run in found.task.runs} == {"a": [2, 5], "b": [1.5]}
    assert [run.status.name for run in found.task.runs] == ["COMPLETE", "STOPPED"]
    assert found.left_out == (
        "Nothing says how 2 trials ended: taken as complete at step 2, and 1 that ended before as stopped or failed.",
    )


def test_nothing_is_said_of_none_that_ended_before(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "trial,step,value\na,1,3\na,2,2\nb,1,4\nb,2,1\n")
    assert read(path, direction="minimize").left_out == (
        "Nothing says how 2 trials ended: taken as complete at step 2.",
    )


def test_of_those_that_ended_before_only_the_ones_of_unknown_end_are_counted(tmp_path: Path) -> None:
    text = "trial,step,value,state\na,1,3,\na,2,2,\nb,1,4,pruned\nc,1,4,failed\nd,1,5,complete\n"
    whole = "Nothing says how 1 trial ended: taken as complete at step 2."
    assert read(csv_file(tmp_path, text), direction="minimize").left_out == (whole,)
    short = (
        "Nothing says how 2 trials ended: taken as complete at step 2, and 1 that ended before as stopped or failed."
    )
    assert read(csv_file(tmp_path, text + "e,1,3,\n"), direction="minimize").left_out == (short,)


def test_long_with_several_metrics(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "trial,step,loss,acc\na,1,3,0.1\na,2,,0.2\na,3,2,0.3\n")
    assert read(path, direction="min", metric="loss").task.runs[0].steps == [1, 3]
    assert read(path, direction="max", metric="acc").task.goal.metric == "acc"
    assert said(InvalidValue, path, direction="min", metric="los") == (
        f"{path}:1: metric: expected a column, one of loss, acc, got 'los'. Perhaps 'loss' is meant."
    )
    assert said(FileProblem, path, direction="min") == (
        f"{path}:1: expected a column value, got trial, step, loss, acc. Name the column with metric= (--value)."
    )
    one = csv_file(tmp_path, "trial,step,loss\na,1,3\na,2,2\n", "one.csv")
    assert read(one, direction="min").task.goal.metric == "loss"


def test_wide(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "trial,param_lr,0,1,2.5,state\na,0.1,3,2,1,\nb,,3,nan,,\nc,0.3,3,,,pruned\n")
    found = read(path, direction="minimize")
    assert [(run.uid, run.steps, run.status.name) for run in found.task.runs] == [
        ("a", [0, 1, 2.5], "COMPLETE"),
        ("b", [0, 1], "COMPLETE"),  # a report each step of 1: the next would lie at 2, 1.5 before 2.5
        ("c", [0], "STOPPED"),
    ]
    assert found.task.goal.horizon == 2.5
    assert [dict(run.params) for run in found.task.runs] == [{"lr": 0.1}, {}, {"lr": 0.3}]


def test_a_byte_order_mark(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "\ufefftrial,step,value\na,1,3\na,2,2\n")
    assert read(path, direction="min").task.runs[0].steps == [1, 2]


CURVES = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=3),
    st.dictionaries(st.integers(0, 30), st.floats(), min_size=2, max_size=6),
    min_size=1,
    max_size=4,
).filter(lambda curves: any(max(curve) > 0 for curve in curves.values()))


@props
@given(curves=CURVES)
def test_long_and_wide_say_the_same(
    tmp_path_factory: pytest.TempPathFactory, curves: Mapping[str, Mapping[int, float]]
) -> None:
    folder = tmp_path_factory.mktemp("csv")
    steps = sorted({step for curve in curves.values() for step in curve})
    rows = [f"{uid},{step},{value!r}" for uid, curve in curves.items() for step, value in curve.items()]
    long = csv_file(folder, "\n".join(["trial,step,value", *rows]), "x.csv")
    rows = [",".join([uid, *(repr(c[s]) if s in c else "" for s in steps)]) for uid, c in curves.items()]
    wide = csv_file(folder, "\n".join([",".join(["trial", *map(str, steps)]), *rows]), "y.csv")
    one, two = (read(path, direction="minimize").task for path in (long, wide))
    assert [(r.uid, r.status) for r in one.runs] == [(r.uid, r.status) for r in two.runs]
    for a, b in zip(one.runs, two.runs, strict=True):
        np.testing.assert_array_equal(a.curve.reports(), b.curve.reports())
        np.testing.assert_array_equal(a.curve.reports()[1], [v for _, v in sorted(curves[a.uid].items())])


HEADER = (
    "trial,step,value[,time][,state][,param_NAME ...]; "
    "or trial[,state][,param_NAME ...] and then one column a step, named by its number"
)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (
            "a,b\n1,2\n",
            1,
            f"expected {HEADER}; got a, b. Say which columns they are: --trial, --step, --value.",
        ),
        ("trial;step;value\na;1;0,5,5\n", 2, "value: expected a number, got '0,5,5'."),
        ("trial,step,value,value\n", 1, "expected every column once, got 'value' 2 times."),
        ("trial,step,value\na,1\n", 2, "expected 3 cells as in the header, got 2."),
        ("trial,step,value\na,1,2\n\na,x,2\n", 4, "step: expected a number >= 0, got 'x'."),
        ("trial,step,value\na,-1,2\n", 2, "step: expected a number >= 0, got '-1'."),
        ("trial,step,value\na,nan,2\n", 2, "step: expected a number >= 0, got 'nan'."),
        ("trial,step,value\na,,2\n", 2, "step: expected a number >= 0, got nothing."),
        ("trial,step,value\na,1,1_0\n", 2, "value: expected a number, got '1_0'."),
        ("trial,step,value\n,1,2\n", 2, "trial: expected a name or a number, got nothing."),
        ("trial,step,value,param_lr\na,1,2,0.1\na,2,2,0.2\n", 3, "param_lr: expected 0.1 as in line 2, got 0.2."),
        (
            "trial,step,value,time\na,1,2,5\na,2,2,4\n",
            3,
            "time: expected a time that does not fall with the step, got 4 after 5 (line 2).",
        ),
        (
            "trial,step,value,time\na,1,2,1700000000\n",
            2,
            "time: expected seconds since the trial's start, got 1700000000, which looks like a date.",
        ),
        ("trial,step,value,time\na,1,2,\n", 2, "time: expected a number >= 0, got nothing."),
        ("trial,1,2\na,1,2\na,1,2\n", 3, "expected one row a trial, got 'a' again (line 2)."),
        ("trial,1,2\na,1,x\n", 2, "2: expected a number, got 'x'."),
        (
            "trial,1,lr\na,1,2\n",
            1,
            "expected trial[,state][,param_NAME ...] and then one column a step, named by its number; "
            "got the column 'lr'.",
        ),
        ("trial,1,1.0\na,1,2\n", 1, "expected every step once, got 1 twice."),
    ],
)
def test_what_is_wrong_with_a_csv_file(tmp_path: Path, text: str, line: int, message: str) -> None:
    path = csv_file(tmp_path, text)
    assert said(FileProblem, path, direction="minimize") == f"{path}:{line}: {message}"


def test_more_that_is_wrong_with_a_csv_file(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "trial,step,value,state\na,1,2,done\n")
    assert said(FileProblem, path, direction="min").startswith(f"{path}:2: state: expected one of complete, ")
    path = csv_file(tmp_path, "trial,step,value\na,1,2\n")
    assert said(InvalidValue, path) == (
        f"{path}: direction: expected 'minimize' or 'maximize' (the file does not say which way is better), got None. "
        "Give direction= (--direction), and metric= (--metric) where there are several."
    )
    assert said(InvalidValue, path, direction="up") == (
        "read(direction=): expected 'minimize' or 'maximize', got 'up'."
    )
    assert said(InvalidValue, path, direction="min", study="x") == (
        f"{path}: study: expected no study: a CSV file holds one, got 'x'. Leave it out."
    )
    path = csv_file(tmp_path, "\n\n")
    assert said(FileProblem, path, direction="min") == f"{path}: expected a header {HEADER}; got an empty file."
    path.write_bytes(b"trial,step,value\n\xff,1,2\n")
    assert said(FileProblem, path, direction="min").startswith(f"{path}: expected text in UTF-8, got ")
    path = csv_file(tmp_path, 'trial,step,value\n"a,1,2\n')
    assert said(FileProblem, path, direction="min").startswith(f"{path}: expected comma-separated text, got ")


# Which format


WHAT = (
    "expected an Optuna storage (URL, SQLite file or journal file), a run folder of lcsearch, a CSV file, "
    "a folder of TensorBoard event files, of a Ray Tune experiment or of MLflow (mlruns), or one with curves.npz"
)


def test_nothing_to_read(tmp_path: Path) -> None:
    assert said(FileProblem, tmp_path / "no") == f"{tmp_path / 'no'}: {WHAT}; got nothing of that name."
    assert said(FileProblem, tmp_path) == f"{tmp_path}: {WHAT}; got a folder with none."
    path = tmp_path / "weights.bin"
    path.write_bytes(b"\x00\x01")
    assert said(FileProblem, path) == f"{path}: {WHAT}; got a file that begins with b'\\x00\\x01'."
    path.write_bytes(b"")
    assert said(FileProblem, path) == f"{path}: {WHAT}; got an empty file."
    assert said(FileProblem, tmp_path) == f"{tmp_path}: {WHAT}; got a folder with weights.bin."


def test_a_folder_with_a_study_in_it(tmp_path: Path) -> None:
    made_sqlite(tmp_path / "study.db")
    assert said(FileProblem, tmp_path) == (
        f"{tmp_path}: {WHAT}; got a folder with study.db. Name the file: {tmp_path / 'study.db'}"
    )


def test_a_table_of_curves(tmp_path: Path) -> None:
    from data.test_tables import table

    rows = [{"task": name, "config_id": 0, "seed": 0} for name in ("a", "b")]
    folder = table(tmp_path / "t", [[3, 2], [2, 1]], runs=rows)
    found = read(folder, study="b")
    assert (found.task.name, found.task.judged.tolist(), found.left_out) == ("b", [1], ())
    assert found.source == f"task 'b' of the curves in {folder}"
    assert (
        said(InvalidValue, folder)
        == f"{folder}: study: expected the name of one of 2 tasks: a, b, got None. Give study= (--study a)."
    )
    assert said(InvalidValue, folder, study="c") == f"{folder}: study: expected one of a, b, got 'c'."
    assert said(InvalidValue, folder, study="a", direction="max") == (
        f"{folder}: direction: expected 'minimize', as the table has it, got 'maximize'. Leave it out."
    )
    assert said(InvalidValue, folder, study="a", max_steps=7) == (
        f"{folder}: max_steps: expected 2.0, as the table has it, got 7. Leave it out."
    )
    caveats = tmp_path / "caveats.json"
    caveats.write_text('{"own": {"after": 1}}')
    assert read(folder, study="b", caveats=caveats).task.runs[0].steps == [2]
    assert said(InvalidValue, made_sqlite(tmp_path / "study.db"), caveats=caveats) == (
        f"{tmp_path / 'study.db'}: --caveats: expected none: this is no table of curves, got '{caveats}'. Leave it out."
    )


def test_reading_pulls_in_nothing_heavy() -> None:
    program = (
        "import sys, lcsearch.data.readers, lcsearch.data.synthetic\n"
        "print([m for m in ('optuna', 'sqlalchemy', 'torch', 'ray', 'pandas', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=300,
    )
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize(
    "name",
    ["plain", "two words", "a\n'\"; echo PWNED; '", "caf\u00e9\n", "\\' \t", "\u00a0x\x1b[2J", "\u2028$HOME `id`"],
)
def test_the_line_that_one_is_told_to_type_names_the_study(name: str) -> None:
    typed = choose([name]).removeprefix("give study= (--study ").removesuffix(")")
    assert typed.isprintable()
    done = subprocess.run(
        ["bash", "-c", f"printf %s {typed}"], capture_output=True, check=True, env={**os.environ, "LC_ALL": "C.UTF-8"}
    )
    assert done.stdout.decode() == name


@pytest.mark.parametrize("first", [0, 1])
def test_a_first_step_of_zero_was_trained_like_any_other(tmp_path: Path, first: int) -> None:
    path = tmp_path / "curves.csv"
    rows = [f"{trial},{first + epoch},{trial + 1 / (epoch + 1)}" for trial in range(3) for epoch in range(10)]
    path.write_text("\n".join(["trial,step,value", *rows]) + "\n")
    found = read(path, direction="minimize")
    assert [run.clock.tolist() for run in found.task.runs] == [list(range(1, 11))] * 3
