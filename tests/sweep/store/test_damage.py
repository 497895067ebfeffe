"""Whatever becomes of a run folder: no command ends in a traceback, each says in a sentence what it met."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from itertools import product
from pathlib import Path

import pytest
from sweep.kit import Remembering, write_toy
from typer.testing import CliRunner, Result

from lcsearch.cli import app
from lcsearch.sweep import run as launcher
from lcsearch.sweep.monitor.open_run import read_state
from lcsearch.sweep.store.folder import RunFolder

OBJECTIVE = """\
def train(ctx):
    (ctx.checkpoint_dir / "mine").write_text("kept")
    if ctx.number == 7:
        raise ValueError("on purpose")
    for epoch in range(1, ctx.max_steps + 1):
        ctx.report(ctx.params["a"] + 0.8 ** epoch, epoch)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep file and, beside it, its finished run, with stops, completions and a failure."""
    root = tmp_path_factory.mktemp("whole")
    path = write_toy(root, OBJECTIVE, max_steps=20, trials=16, pruner="curve")
    launcher.run(path, folder=root / "run", view=Remembering())
    assert any((root / "run" / "decisions").glob("*.jsonl"))
    return root


@pytest.fixture
def run(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to be damaged."""
    monkeypatch.setenv("NO_COLOR", "1")
    shutil.copytree(made / "run", tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take a second, and are drawn from what was checked before."""
    monkeypatch.setattr("lcsearch.sweep.report.figures.draw", lambda report: [])


FILES = {
    "record": "run.json",
    "sweep": "sweep.yaml",
    "study": "study.sqlite3",
    "clock": "clock.json",
    "log": "decisions/*.jsonl",
    "decisions": "decisions",
    "printed": "logs/worker-0.log",
    "logs": "logs",
    "pulse": "pulses/worker-0.json",
    "pulses": "pulses",
    "checkpoint": "checkpoints/trial-00000/mine",
    "checkpoints": "checkpoints",
    "lock": "run.lock",
    "claim": "claim.lock",
    "report": "report/report.html",
}


def gone(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def truncated(path: Path) -> None:
    if path.is_file():
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])


def holding(data: bytes) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        gone(path)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)

    return damage


def a_folder(path: Path) -> None:
    gone(path)
    (path / "inside").mkdir(parents=True)


def a_pipe(path: Path) -> None:
    gone(path)
    path.parent.mkdir(exist_ok=True)
    os.mkfifo(path)


def linked_to(target: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        gone(path)
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(target)

    return damage


def unreadable(path: Path) -> None:
    if path.exists():
        path.chmod(0)


WRONG = (
    b'{"format": 1, "trial": "many", "time": "noon", "now": 3, "before": [], '
    b'"seconds": "long", "until": 7, "step": {}}\n'
)
DAMAGE = {
    "gone": gone,
    "truncated": truncated,
    "empty": holding(b""),
    "binary": holding(bytes(range(256)) * 20),
    "folder": a_folder,
    "deep": holding(b"[" * 100_000 + b"\n"),
    "deep keys": holding(b'{"a":' * 100_000 + b"\n"),
    "types": holding(WRONG * 3),
    "scalar": holding(b"3\n"),
    "pipe": a_pipe,
    "endless": linked_to("/dev/zero"),
    "loop": linked_to("loop"),
    "dangling": linked_to("/nowhere/at/all"),
    "unreadable": unreadable,
}
COMMANDS = ("status", "explain", "report", "resume")


def call(command: str, made: Path, run: Path) -> Result:
    arguments = {
        "status": ["status", "--folder", str(run)],
        "explain": ["explain", "3", "--folder", str(run)],
        "report": ["report", "--folder", str(run)],
        "calibration": ["calibration", str(run)],
        "resume": ["run", str(made / "toy.yaml"), "--folder", str(run), "--resume"],
    }[command]
    return CliRunner().invoke(app, arguments)


READ = ("record", "study", "clock", "log", "decisions", "printed")
"""What every command reads; the rest matters to a resume, and is met by `status` on its way."""
TELLING = ("truncated", "folder", "deep", "types", "pipe", "endless")
CASES = [
    (name, damage, command)
    for name, damage, command in product(FILES, DAMAGE, COMMANDS)
    if "LCSEARCH_NIGHTLY" in os.environ
    or (damage in TELLING and (name in READ or command == "resume" or (name, command) == ("lock", "status")))
]


@pytest.mark.parametrize(("name", "damage", "command"), CASES)
def test_no_damage_ends_in_a_traceback(made: Path, run: Path, name: str, damage: str, command: str) -> None:
    for path in sorted(run.glob(FILES[name])) or [run / FILES[name]]:
        DAMAGE[damage](path)
    done = call(command, made, run)
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    if done.exit_code == 0:
        return
    assert done.exit_code in (2, 3), done.output
    if "got a changed one" not in done.stderr:  # that shows what has changed
        assert done.stderr.count("\n") == 1, done.stderr
    assert "expected" in done.stderr


def put(path: Path, text: str) -> None:
    path.write_text(text)


def set_attribute(run: Path, trial: int, key: str, value: str) -> None:
    """As nobody should: past Optuna, `value` as it stands in the database."""
    with closing(sqlite3.connect(run / "study.sqlite3")) as base, base:
        of = "trial_id = (SELECT trial_id FROM trials WHERE number = ?) AND key = ?"
        base.execute(f"DELETE FROM trial_user_attributes WHERE {of}", (trial, key))
        insert = "INSERT INTO trial_user_attributes (trial_id, key, value_json) SELECT trial_id, ?, ? FROM trials"
        base.execute(f"{insert} WHERE number = ?", (key, value, trial))


def told(done: Result) -> list[str]:
    assert done.exit_code == 0, done.output
    return [line for line in done.output.splitlines() if line.startswith("! ")]


def test_what_is_left_out_of_the_decision_log_is_counted_with_its_place(made: Path, run: Path) -> None:
    (log,) = (run / "decisions").glob("*.jsonl")
    whole = log.read_text().splitlines()
    looks = len(whole)
    for at, line in ((1, '{"trial": "3", "now": {"step": "ten", "p": 0.5, "threshold": 0.05}}'), (3, "[" * 5000)):
        whole.insert(at, line)
    log.write_text("\n".join([*whole, '{"trial": "3"']))  # and a line that a killed writer has left
    said = f"! 2 places of the decision log are no record of a look and left out, the first: {log}:2"
    for command in ("status", "explain", "report", "resume"):
        done = call(command, made, run)
        assert done.exit_code == 0, done.output
        page = run / "report" / "report.html"
        assert said in (f"! {page.read_text()}" if command == "report" else done.output) or command == "report"
        if command == "report":
            assert said.removeprefix("! ") in page.read_text()
    assert f"looks: {looks}" in call("status", made, run).output or looks
    a_folder(log)
    assert told(call("status", made, run)) == [
        f"! a place of the decision log is no record of a look and left out, the first: {log}"
    ]
    gone(run / "decisions")
    put(run / "decisions", "")
    text = f"! {run}/decisions: expected the folder of the decision log, got none: no look is known"
    assert told(call("status", made, run)) == [text]
    gone(run / "decisions")
    (run / "decisions").mkdir()
    put(run / "decisions" / log.name, "")
    (emptied,) = told(call("status", made, run))
    gone(run / "decisions" / log.name)
    assert [emptied] == told(call("status", made, run))
    gone(run / "decisions")
    text = f"! {run}/decisions: trials were stopped by looks, and there is no decision log: it was deleted, or made on "
    text += "another machine; what is known of stops comes from the study"
    assert told(call("status", made, run)) == told(call("explain", made, run)) == [text] == [emptied], "nobody said it"


def test_a_decision_log_that_has_lost_lines_is_told_once(made: Path, run: Path) -> None:
    (log,) = (run / "decisions").glob("*.jsonl")
    whole = log.read_bytes().splitlines(keepends=True)
    assert [json.loads(line)["line"] for line in whole] == list(range(1, len(whole) + 1))
    _, state = read_state(RunFolder(run))
    stops = [row.number for row in state.progress.rows if row.stop is not None]
    assert len(stops) > 1
    begin = f"! {run}/decisions: the decision log is not whole: "
    end = "; what stood there is not known, stops are known from the study"

    def said(*parts: str) -> None:
        text = f"{begin}{', '.join(parts)}{end}"
        for command in ("status", "explain", "calibration"):
            assert told(call(command, made, run)) == [text], command
        assert [line for line in told(call("resume", made, run)) if "decision" in line] == [text], "the summary"
        assert call("report", made, run).exit_code == 0
        page = html.unescape((run / "report" / "report.html").read_text())
        assert page.count(text.removeprefix("! ")) == 1

    looks = [line for line in whole if json.loads(line)["verdict"] != "STOP"]
    at = whole.index(looks[0])
    log.write_bytes(b"".join(whole[:at] + whole[at + 1 :]))
    said(f"a line is missing in {log.name}")
    half = len(whole) // 2
    known = {int(look["trial"]) for look in map(json.loads, whole[:half]) if look["verdict"] == "STOP"}
    lost = [number for number in stops if number not in known]
    log.write_bytes(b"".join(whole[:half]))
    told_of = f"{len(lost)} of {len(stops)} stops have no line in it, the first that of trial {lost[0]}"
    said(told_of)
    log.write_bytes(b"".join(whole[:half]) + whole[half][:30])
    said(f"the last line of {log.name} has no end", told_of)
    log.write_bytes(b"".join(whole))
    for command in ("status", "explain"):
        assert told(call(command, made, run)) == [], command


def test_stops_of_another_machine_are_not_missed_in_this_one_s_log(made: Path, run: Path) -> None:
    (log,) = (run / "decisions").glob("*.jsonl")
    whole = log.read_text().splitlines(keepends=True)
    _, state = read_state(RunFolder(run))
    stops = [row.number for row in state.progress.rows if row.stop is not None]
    half = whole[: len(whole) // 2]
    known = {int(look["trial"]) for look in map(json.loads, half) if look["verdict"] == "STOP"}
    theirs = [number for number in stops if number not in known]
    put(log, "".join(half))
    assert len(theirs) > 1
    for number in theirs[1:]:
        set_attribute(run, number, "lcsearch:worker", '{"host": "bob", "run": "bob\'s"}')
    n = len(stops) - len(theirs) + 1
    said = f"the decision log is not whole: 1 of {n} stops have no line in it, the first that of trial {theirs[0]}"
    (line,) = told(call("status", made, run))
    assert said in line
    for number in stops:
        set_attribute(run, number, "lcsearch:worker", '{"host": "bob", "run": "bob\'s"}')
    assert told(call("status", made, run)) == []
    gone(log)
    assert told(call("status", made, run)) == []


def test_a_clock_that_cannot_be_read_is_told(made: Path, run: Path) -> None:
    put(run / "clock.json", '{"seconds": "long", "until": "noon", "monotonic": 3}')
    said = "expected the run's wall clock, got what cannot be read: what earlier launches took is not known"
    assert told(call("status", made, run)) == [f"! {run}/clock.json: {said}"]


DAMAGED_ATTRIBUTES = {
    "lcsearch:retries": ['"many"', "-1", "1e300", "[]", "null", "true", "99999999999999999999"],
    "lcsearch:seconds": ['"long"', "-5", "NaN", "{}"],
    "lcsearch:worker": ['"me"', '{"pid": "one"}', '{"since": "noon"}', '{"slot": [], "pid": {}}', '{"run": 7}', "3"],
    "lcsearch:took": ['"long"', '{"seconds": "x"}', '{"since": 3, "seconds": 1}', "[]", "null"],
    "lcsearch:again": ['"that"', "-3", "{}"],
    "lcsearch:error": ["3", "[]", "null"],
    "lcsearch:reason": ["3", "[]", "null"],
    "lcsearch:surplus": ["[]"],
    "lcsearch:noted": ["3", '{"a": [1e999, null]}', '{"a": [' + "9" * 400 + "]}", '{"descending": ["x"]}'],
    "lcsearch:schedule": ["3", '{"shape": []}', '"["'],
}


@pytest.mark.parametrize("key", DAMAGED_ATTRIBUTES)
def test_attributes_of_trials_that_are_not_as_they_were_written(made: Path, run: Path, key: str) -> None:
    values = DAMAGED_ATTRIBUTES[key]
    for trial, value in enumerate(values):
        set_attribute(run, trial, key, value)
    for command in COMMANDS:
        done = call(command, made, run)
        assert done.exit_code == 0, (command, done.output, done.exception)
        if command == "status" and key in ("lcsearch:retries", "lcsearch:seconds", "lcsearch:took", "lcsearch:worker"):
            head = (
                f"! {len(values)} attributes of trials in the study cannot be read and count as not there, the first: "
            )
            assert [f"{head}{key} of trial 0"] == told(done)


def test_attributes_of_the_study_that_are_not_as_they_were_written(made: Path, run: Path) -> None:
    with closing(sqlite3.connect(run / "study.sqlite3")) as base, base:
        for value in ('"then"', '{"trial": 0, "step": 3, "time": "noon"}', "[]", "3"):
            base.execute("UPDATE study_user_attributes SET value_json = ? WHERE key = 'lcsearch:best'", (value,))
            base.commit()
            for command in COMMANDS:
                assert call(command, made, run).exit_code == 0
        base.execute("UPDATE study_user_attributes SET value_json = ? WHERE key = 'lcsearch:best'", ("[" * 9000,))
    done = call("status", made, run)
    assert done.exit_code in (0, 3)
    if done.exit_code:
        assert done.stderr.startswith(
            f"sqlite:///{run}/study.sqlite3: expected a database that Optuna can read, got an entry that cannot be "
            "read (RecursionError: "
        )
        assert done.stderr.endswith("Bring it back from a copy, or start over with --fresh or another --folder.\n")


def test_a_database_that_is_none_any_more_is_told_at_once(made: Path, run: Path) -> None:
    put(run / "study.sqlite3", "no database, but long enough to look like one " * 100)
    assert call("status", made, run).stderr == (
        f"sqlite:///{run}/study.sqlite3: expected a database that Optuna can read, got DatabaseError: "
        "(sqlite3.DatabaseError) file is not a database. Bring it back from a copy, or start over with --fresh or "
        "another --folder.\n"
    )


def test_what_is_read_in_place_of_a_record(made: Path, run: Path) -> None:
    head = f"{run}/run.json: expected the record of a run, got"
    mend = "Bring it back from a copy, or start over with --fresh or another --folder.\n"
    for text, got in (
        ("3", "3"),
        ("{}", "none with 'format'"),
        ("[" * 9000, "JSON that is nested too deep"),
        ("no", "no JSON (Expecting value: line 1 column 1 (char 0))"),
    ):
        put(run / "run.json", text)
        assert call("status", made, run).stderr == f"{head} {got}. {mend}"
    a_pipe(run / "run.json")
    assert call("status", made, run).stderr == f"{head} no regular file. {mend}"


def test_the_key_of_a_record_that_does_not_hold_is_named(made: Path, run: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    put(run / "run.json", json.dumps(record | {"sweep": record["sweep"] | {"retries": "many"}}))
    assert call("status", made, run).stderr == (
        f"{run}/run.json: expected the record of a run, got $.retries that does not hold (Input should be a valid "
        "integer). Bring it back from a copy, or start over with --fresh or another --folder.\n"
    )


@pytest.mark.parametrize(
    ("change", "got"),
    [
        ("trial_intermediate_values SET intermediate_value = 'abc' WHERE step = 7", "'abc' for a number of trial "),
        ("trial_intermediate_values SET intermediate_value = NULL WHERE step = 7", "an entry that cannot be read ("),
        ("trial_values SET value = 'abc'", "'abc' for a number of trial "),
        ("trial_values SET value = NULL", "an entry that cannot be read ("),
        ("trials SET state = 'GONE'", "an entry that cannot be read ("),
    ],
)
def test_no_number_where_one_belongs_in_the_database(made: Path, run: Path, change: str, got: str) -> None:
    with closing(sqlite3.connect(run / "study.sqlite3")) as base:
        assert base.execute(f"UPDATE {change}").rowcount
        base.commit()
    for command in (*COMMANDS, "calibration"):
        done = call(command, made, run)
        assert (done.exit_code, done.stdout) == (3, "")
        head = f"sqlite:///{run}/study.sqlite3: expected a database that Optuna can read, got {got}"
        assert done.stderr.startswith(head), command
        assert done.stderr.endswith("Bring it back from a copy, or start over with --fresh or another --folder.\n")


def test_the_risk_says_that_a_stop_with_a_damaged_record_is_not_in_it(made: Path, run: Path) -> None:
    with closing(sqlite3.connect(run / "study.sqlite3")) as base:
        stopped = "SELECT MIN(trial_id) FROM trials WHERE state = 'PRUNED'"
        mark = f"key = 'lcsearch:mark' AND trial_id = ({stopped})"
        assert base.execute(f"UPDATE trial_system_attributes SET value_json = '3' WHERE {mark}").rowcount == 1
        base.commit()
    said = " ".join(call("status", made, run).stdout.split())
    risk = r"at most [\d.]+ % \(weights certified\)( [\d.]+ % if stops err independently)?"
    apart = "1 stop whose record cannot be read is not in it: no risk is known for it"
    assert re.search(f"risk that some stop lost the winner: {risk} {apart}", said)


def test_without_the_sweep_file_s_copy_nobody_resumes_and_all_else_goes_on(made: Path, run: Path) -> None:
    gone(run / "sweep.yaml")
    assert [call(command, made, run).exit_code for command in ("status", "explain", "report")] == [0, 0, 0]
    assert call("resume", made, run).stderr == (
        f"{run}/sweep.yaml: expected the sweep file as the run was started with it, got No such file or directory. "
        "Bring it back from a copy, or start over with --fresh or another --folder.\n"
    )
    put(run / "sweep.yaml", "x" * 5000 + "\n- a" * 100)
    lines = call("resume", made, run).stderr.splitlines()
    assert len(lines) < 50
    assert max(map(len, lines)) < 300


@pytest.mark.parametrize("name", ["pulses/mine", "pulses/mine.json", "logs/mine", "decisions/mine"])
def test_a_folder_of_somebody_else_s_is_in_nobody_s_way(made: Path, run: Path, name: str) -> None:
    (run / name).mkdir()
    done = CliRunner().invoke(app, ["run", str(made / "toy.yaml"), "--folder", str(run), "--resume"])
    assert done.exit_code == 0, done.output


LINKED = ("run.lock", "claim.lock", "run.json", "sweep.yaml", "clock.json", "study.sqlite3", "logs/worker-0.log",
          "pulses/worker-0.json", "decisions/mine.jsonl", "logs", "pulses", "decisions")  # fmt: skip


@pytest.mark.parametrize("name", LINKED)
def test_no_link_in_a_run_folder_is_written_through(made: Path, run: Path, tmp_path: Path, name: str) -> None:
    """`log -> victim` was appended to, `claim.lock -> victim` cut to nothing."""
    path, victim = run / name, tmp_path / "victim"
    if path.is_dir():
        path.rename(victim)
    elif path.exists():
        victim.write_bytes(path.read_bytes())
        path.unlink()
    else:
        victim.write_text("mine\n")
    before = sorted(victim.iterdir()) if victim.is_dir() else victim.read_bytes()
    path.symlink_to(victim)
    done = CliRunner().invoke(app, ["run", str(made / "toy.yaml"), "--folder", str(run), "--resume", "--trials", "18"])
    kind = "folder" if victim.is_dir() else "file"
    assert done.exit_code == 3
    if name == "run.lock":
        said = "a file lcsearch can write to, got a symbolic link, and no link is written through"
    else:
        said = f"a {kind} of lcsearch's own, got a symbolic link, and lcsearch writes through none"
    assert done.stderr == f"{path}: expected {said}. Move it away, then try again.\n"
    assert (sorted(victim.iterdir()) if victim.is_dir() else victim.read_bytes()) == before


def test_a_report_goes_into_a_folder_of_its_own(made: Path, run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (run / "report").symlink_to(tmp_path / "mine")
    assert call("report", made, run).stderr == (
        f"{run}/report: expected a folder of lcsearch's own, got a symbolic link, and lcsearch writes through none. "
        "Move it away, or name the folder with --out.\n"
    )
    assert list((tmp_path / "mine").iterdir()) == []


def test_the_study_s_own_file_is_no_link(made: Path, run: Path, tmp_path: Path) -> None:
    (run / "study.sqlite3").rename(tmp_path / "elsewhere")
    (run / "study.sqlite3").symlink_to(tmp_path / "elsewhere")
    assert call("status", made, run).stderr == (
        f"{run}/study.sqlite3: expected the file of the study's database, got a symbolic link. Bring it back, or name "
        "a database that lies elsewhere: backend.storage in the sweep file.\n"
    )


@pytest.mark.parametrize(
    ("make", "got"),
    [
        (lambda path: put(path, "space: " + "[" * 2000), "expected at most 32 levels, got far more."),
        (lambda path: put(path, "a: " + "{b: " * 2000), "expected at most 32 levels, got far more."),
        (lambda path: put(path, "x" * (1 << 20) + "y"), "more than 1048576 bytes"),
        (os.mkfifo, "no regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "no regular file"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
        (Path.mkdir, "got a folder."),
    ],
)
@pytest.mark.parametrize("command", ["validate", "plan", "run"])
def test_sweep_files_that_are_none(tmp_path: Path, make: Callable[[Path], None], got: str, command: str) -> None:
    """Deep ones were tracebacks, a pipe was waited for, /dev/zero read until the memory was full."""
    make(path := tmp_path / "sweep.yaml")
    done = CliRunner().invoke(app, [command, str(path)])
    assert done.exit_code == 2
    assert done.stderr.startswith(str(path))
    assert got in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_override_that_is_deep(made: Path) -> None:
    done = CliRunner().invoke(app, ["plan", str(made / "toy.yaml"), "space=" + "[" * 3000])
    assert done.exit_code == 2
    assert done.stderr.endswith("expected at most 32 levels, got far more.\n")


def test_a_file_that_turns_bad_while_a_command_runs(made: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody foresaw is an error of the machine, not a traceback."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", str(run / "clock.json"))

    monkeypatch.setattr("lcsearch.sweep.store.budget.write_atomically", full)
    done = call("resume", made, run)
    assert done.exit_code == 3
    said = "expected files that lcsearch can read and write, got No space left on device."
    assert done.stderr.endswith(f"{run}/clock.json: {said}\n")


def test_the_number_of_a_trial_is_a_number_of_sane_length(made: Path, run: Path) -> None:
    done = CliRunner().invoke(app, ["explain", "9" * 5000, "--folder", str(run)])
    assert done.exit_code == 2
    assert done.stderr.startswith("expected the number of a trial, or 'best', got '999")
