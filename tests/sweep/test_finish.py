"""`lcsearch finish` and `thaw`: stopped trials of a run trained on, by real processes, killed over it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from kit.doubles import NormalAroundBest
from kit.studies import decay, pruner, stop_one, study_of
from sweep.kit import PATIENCE_S, RESUMING, Remembering, command, held, launched, lcsearch, wait_for, write_toy
from sweep.spec.test_space import SWEEP

from lcsearch.errors import FileProblem
from lcsearch.sweep import run as launcher
from lcsearch.sweep.finish import finish
from lcsearch.sweep.monitor import run_record
from lcsearch.sweep.monitor.open_run import read_state
from lcsearch.sweep.monitor.progress import collect
from lcsearch.sweep.monitor.state import SweepState
from lcsearch.sweep.spec.model import SweepFile
from lcsearch.sweep.store import thaws
from lcsearch.sweep.store.budget import limit_now, used
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.store.turns import asked_at
from lcsearch.sweep.views import explain
from lcsearch.sweep.views.summary import limit_reached, summarize

EPOCHS = 20
SETTINGS: dict[str, Any] = {"pruner": "curve", "trials": 14, "max_steps": EPOCHS}


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sweep that has ended, some of its trials stopped."""
    folder = tmp_path_factory.mktemp("ended")
    path = write_toy(folder, RESUMING.replace("time.sleep(0.02)", "pass"), **SETTINGS)
    outcome = launcher.run(path, folder=folder / "run", view=Remembering())
    assert len(outcome.progress.of("stopped")) >= 3
    return folder


@pytest.fixture
def folder(ended: Path, tmp_path: Path) -> Path:
    """A copy of it, where it may be finished."""
    shutil.copytree(ended, tmp_path / "copy")
    for name in ("run.json",):
        file = tmp_path / "copy/run" / name
        file.write_text(file.read_text().replace(str(ended), str(tmp_path / "copy")))
    return tmp_path / "copy"


def state(folder: Path) -> SweepState:
    return read_state(RunFolder((folder / "run").resolve()))[1]


def agreeing(asked: list[str]) -> Callable[[str], bool]:
    """Agrees to everything, and keeps what it was told."""

    def agreed(text: str) -> bool:
        asked.append(text)
        return True

    return agreed


def lives(folder: Path, number: int) -> list[list[int]]:
    """What the objective signed in a trial's checkpoint folder: (pid, epoch it went on from)."""
    try:
        kept: dict[str, list[list[int]]] = json.loads(
            (folder / f"run/checkpoints/trial-{number:05d}/state.json").read_text()
        )
    except (FileNotFoundError, json.JSONDecodeError):
        return []
    return kept["lives"]


def test_the_price_is_said_and_nothing_is_done(folder: Path) -> None:
    before = state(folder)
    done = lcsearch("finish", folder / "run", "--risk", "0", "--dry-run", cwd=folder)
    assert done.returncode == 0, done.stderr
    stopped = before.progress.of("stopped")
    assert before.ledger is not None
    n = sum(stop.p_now > 0 for stop in before.ledger.stops)
    said = re.search(
        r"to at most 0 %, (\d+) stopped trials? (?:are|is) thawed, .* That takes about (\d+) epochs", done.stdout
    )
    assert said is not None
    assert int(said[1]) == n
    assert int(said[2]) == sum(
        row.saved for row in stopped if any(s.trial == row.number and s.p_now > 0 for s in before.ledger.stops)
    )
    assert state(folder).progress.counts == before.progress.counts


def test_stopped_trials_go_on_from_their_checkpoints_and_every_account_is_right(folder: Path) -> None:
    before = state(folder)
    asked: list[str] = []
    outcome = finish(folder / "run", risk=0.0, agreed=agreeing(asked), view=Remembering())
    assert outcome is not None
    assert outcome.code == 0, outcome.message
    assert "thawed, the likeliest to have won first" in asked[0]
    p = state(folder).progress
    thaws = {row.thawed.stopped: row for row in p.rows if row.thawed is not None}
    assert thaws
    assert {row.state for row in thaws.values()} == {"complete"}
    assert [row.number for row in p.of("thawed")] == sorted(thaws)
    assert p.counted == 14
    given_back = sum(before.progress.numbered[n].saved for n in thaws)
    assert (p.spent, p.saved) == (before.progress.spent + given_back, before.progress.saved - given_back)
    for number, row in thaws.items():
        old = p.numbered[number]
        assert list(row.values) == list(range(1, EPOCHS + 1))
        assert row.params == old.params
        assert old.values.items() <= row.values.items()
        assert lives(folder, row.number)[-1][1] == old.spent - 1  # a stop comes before the save
        told = explain.explain(number, state(folder), read_state(RunFolder(folder / "run"))[0])
        assert f"it was thawed as trial {row.number}, which is complete" in told
        assert "P(beat) is below the threshold" in told  # the stop as it was
        told = explain.explain(row.number, state(folder), read_state(RunFolder(folder / "run"))[0])
        assert f"it is trial {number}, stopped at step {old.spent} with P(beat)" in told
    seen = state(folder)
    assert seen.risk == 0.0
    text = summarize(seen)
    assert f"{len(thaws)} thawed" in text
    assert f"thawed: {len(thaws)} stopped trial" in text
    assert "none of those that ended beat the winner" in text
    assert "lcsearch finish" not in text
    assert finish(folder / "run", risk=0.0, view=Remembering()) is None


def test_a_finish_that_is_killed_goes_on(folder: Path) -> None:
    """The launcher and its worker at once, in the middle of a thawed trial, then a worker alone."""
    (folder / "toy.py").write_text(held(RESUMING, f"epoch == {EPOCHS} - 1"))
    with launched(command("finish", folder / "run", "--risk", "0", "--yes")) as process:
        wait_for(lambda: any(at >= EPOCHS - 3 for at in _reached(folder)))
        process.kill()
    pids = {pid for pid, _ in lives(folder, 14)}
    assert pids
    study = optuna.load_study(study_name="toy", storage=f"sqlite:///{folder}/run/study.sqlite3")
    assert [t.state.name for t in study.trials[14:]] == ["RUNNING"]
    (folder / "go").touch()
    wait_for(lambda: not run_record.at_work(RunFolder(folder / "run")))  # the worker notices that it is alone
    asked: list[str] = []
    outcome = finish(folder / "run", risk=0.0, agreed=agreeing(asked), view=Remembering())
    assert outcome is not None
    assert outcome.code == 0, outcome.message
    assert asked[0].endswith("1 thawed trial goes on that an earlier call has begun")
    seen = state(folder)
    assert seen.risk == 0.0
    assert {row.state for row in seen.progress.rows if row.thawed} == {"complete"}
    first = seen.progress.numbered[14]
    assert list(first.values) == list(range(1, EPOCHS + 1))
    assert lives(folder, 14)[-1][1] > seen.progress.numbered[first.thawed.stopped].spent  # type: ignore[union-attr]


def _reached(folder: Path) -> list[int]:
    """Epochs that the first thawed trial has saved."""
    try:
        return [json.loads((folder / "run/checkpoints/trial-00014/state.json").read_text())["epoch"]]
    except (FileNotFoundError, json.JSONDecodeError):
        return []


def test_one_trial_anew_where_its_checkpoint_is_gone(folder: Path) -> None:
    before = state(folder)
    row = before.progress.of("stopped")[0]
    for file in (folder / f"run/checkpoints/trial-{row.number:05d}").iterdir():
        file.unlink()
    done = lcsearch("thaw", str(row.number), "--folder", folder / "run", "--yes", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "1 of them begins anew, for no checkpoint was left" in done.stdout
    p = state(folder).progress
    (new,) = [one for one in p.rows if one.thawed is not None]
    assert (new.state, new.thawed is not None and new.thawed.anew) == ("complete", True)
    assert p.spent == before.progress.spent + EPOCHS  # what the stopped one had trained was spent, too
    assert p.saved == before.progress.saved - row.saved
    assert [r.number for r in p.of("thawed")] == [row.number]
    again = lcsearch("thaw", str(row.number), "--folder", folder / "run", "--yes", cwd=folder)
    assert again.returncode == 2
    assert again.stderr.startswith("lcsearch thaw: expected the number of a trial that a look stopped and that is not")


def test_after_a_sweep_whose_leftover_steps_pay_for_no_turn(tmp_path: Path) -> None:
    """`lcsearch finish` took it for ended, the workers did not: nothing was thawed, and nobody said so."""
    study = study_of(pruner(forecasters=[NormalAroundBest(2.0)], threshold=0.5))
    numbers = [stop_one(study, decay(5.0 - i)) for i in range(3)]

    def file_of(**more: Any) -> SweepFile:
        fields = {"pruner": {"kind": "curve"}, "finish": {"risk": 0.0}, "max_steps": 50, "pause": True}
        return SweepFile.model_validate({**SWEEP, **fields, "checkpoints": {"save_cost": 5}, **more})

    spent = used(file_of(), study.trials)
    first = asked_at(file_of())[0]
    folder = RunFolder(tmp_path)
    for left, due in ((first + 4, numbers[::-1]), (first + 5, [])):
        file = file_of(budget={"trials": 20, "steps": int(spent + left)})
        assert limit_now(file, folder, study.trials) is None
        assert [int(one.uid) for one in thaws.due(study, folder, file, study.trials)] == due
        assert (limit_reached(collect(study.trials, file.target, 20, file.space), file, 0.0) is None) == (not due)


def test_a_finish_that_thaws_nothing_says_so(folder: Path) -> None:
    study = optuna.load_study(study_name="toy", storage=f"sqlite:///{folder}/run/study.sqlite3")
    thaws.want(study, thaws.Wanted(1.0, (), len(study.trials)))
    for told in (["the finish that was asked for has thawed no trial"], []):
        view = Remembering()
        assert launcher.run(folder / "toy.yaml", folder=folder / "run", resume=True, view=view).code == 0
        assert [text for text in view.events if "thawed" in text] == told


def test_at_the_end_of_a_sweep(tmp_path: Path) -> None:
    path = write_toy(tmp_path, RESUMING.replace("time.sleep(0.02)", "pass"), **{**SETTINGS, "workers": 2})
    path.write_text(path.read_text() + "finish: {risk: 0}\n")
    outcome = launcher.run(path, folder=tmp_path / "run", view=Remembering())
    assert outcome.code == 0, outcome.message
    assert state(tmp_path).risk == 0.0
    p = outcome.progress
    assert p.counts["thawed"] == sum(row.thawed is not None for row in p.rows) > 0
    assert p.counted == 14


def test_a_finish_needs_a_risk(tmp_path: Path) -> None:
    path = write_toy(tmp_path, pruner="median")
    path.write_text(path.read_text() + "finish: {risk: 0.02}\n")
    done = lcsearch("validate", path, cwd=tmp_path)
    assert done.returncode == 2
    assert ": at $.finish: expected `pruner: {kind: curve}` with it, got median" in done.stderr


def test_whose_stops_have_a_risk(tmp_path: Path) -> None:
    path = write_toy(tmp_path, trials=1)
    launcher.run(path, folder=tmp_path / "run", view=Remembering())
    with pytest.raises(FileProblem) as error:
        finish(tmp_path / "run")
    text = "expected a run with `pruner: {kind: curve}`, got another: no risk is known of its stops."
    assert str(error.value) == text


def test_a_run_that_has_not_ended(tmp_path: Path) -> None:
    path = write_toy(tmp_path, held(RESUMING), **SETTINGS)
    with launched(command("run", path, "--folder", tmp_path / "run")) as process:
        wait_for(lambda: bool(lives(tmp_path, 0)))
        with pytest.raises(FileProblem, match="expected a run that has ended, got one that somebody is at work on"):
            finish(tmp_path / "run")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_S)
    with pytest.raises(FileProblem, match="expected a run that has ended, got one with trials left"):
        finish(tmp_path / "run")
    assert os.path.isdir(tmp_path / "run")
