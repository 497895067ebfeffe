"""A bug of the objective, mended: what failed runs again, counts once, and is counted right."""

from __future__ import annotations

import json
import re
from pathlib import Path

import optuna
import pytest
from sweep.kit import TRAIN, Remembering, lcsearch, write_toy

from lcsearch.sweep import run as launcher
from lcsearch.sweep.monitor import open_run
from lcsearch.sweep.spec.load import load
from lcsearch.sweep.store import ownership
from lcsearch.sweep.store.budget import AGAIN
from lcsearch.sweep.store.folder import RunFolder

# fails where a is large, after two reports
BUGGY = """\
def train(ctx):
    for epoch in range(1, ctx.max_steps + 1):
        if epoch == 3 and ctx.params["a"] > 0.5:
            raise ValueError("the bug")
        ctx.report(ctx.params["a"] + 1 / epoch, epoch)
"""

FAILS = "import time\ndef train(ctx):\n    ctx.report(1.0, 1)\n    time.sleep(0.05)\n    1 / 0\n"


@pytest.mark.parametrize("kind", ["optuna", "ray"])
def test_failed_trials_run_again_after_the_mend(tmp_path: Path, kind: str) -> None:
    if kind == "ray":
        pytest.importorskip("ray")
    path, run = write_toy(tmp_path, BUGGY, trials=8, kind=kind), tmp_path / "run"
    first = launcher.run(path, folder=run, view=Remembering())
    failed = {row.number: row for row in first.progress.of("failed")}
    assert 1 < len(failed) < 8
    (tmp_path / "toy.py").write_text(TRAIN)

    view = Remembering()
    launcher.run(path, folder=run, resume=True, view=view)
    n = len(failed)
    text = f"{n} trials failed in earlier launches and count in the budget; --retry-failed runs them again"
    assert text in view.events

    view = Remembering()
    outcome = launcher.run(path, folder=run, resume=True, retry_failed=True, view=view)
    assert outcome.code == 0, outcome.message
    again = {row.number: row.again for row in outcome.progress.rows if row.again is not None}
    assert again == dict(zip(failed, range(8, 8 + n), strict=True))
    assert "failed trials are run again: " + ", ".join(f"{a} as {b}" for a, b in again.items()) in view.events
    rows = outcome.progress.numbered
    assert (len(rows), outcome.progress.counted) == (8 + n, 8)
    for number, by in again.items():
        assert rows[number].values == failed[number].values  # nothing is lost
        assert rows[by].params == failed[number].params
        assert (rows[by].state, list(rows[by].values)) == ("complete", [1, 2, 3, 4, 5, 6])

    view = Remembering()
    more = launcher.run(path, folder=run, resume=True, retry_failed=True, trials=9, view=view)
    assert view.events == ["no trial has failed: there is nothing to run again"]
    assert (len(more.progress.rows), more.progress.counted) == (9 + n, 9)


def test_what_the_commands_say_of_them(tmp_path: Path) -> None:
    path = write_toy(tmp_path, BUGGY, trials=6)
    done = lcsearch("run", path.name, cwd=tmp_path)
    n = int(re.findall(r"(\d+) failed in ", done.stdout)[0])
    assert n > 1
    line = f"lcsearch run toy.yaml --resume --retry-failed   (runs the {n} failed trials again, after the mend)"
    assert line in done.stdout
    (tmp_path / "toy.py").write_text(TRAIN)
    again = lcsearch("run", path.name, "--resume", "--retry-failed", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert f"\ntoy: 6 complete, {n} failed in " in again.stdout
    assert "[6/6] trial " in again.stdout
    known = re.search(r"\n(\d+) trials? had ended before, (\d+) more that failed (?:is|are) run again\n", again.stdout)
    assert known is not None
    assert (int(known[1]), int(known[2])) == (6 - n, n)
    assert f"\n[{6 - n + 1}/6] trial " in again.stdout
    assert "[7/6]" not in again.stdout
    assert "--retry-failed" not in again.stdout.partition("next: ")[2]
    study = optuna.load_study(study_name="toy", storage=f"sqlite:///{tmp_path}/runs/toy/study.sqlite3")
    (first, by) = next((t.user_attrs[AGAIN], t.number) for t in study.trials if AGAIN in t.user_attrs)
    assert f"  run again: trials {first} as {by}, " in again.stdout
    told = lcsearch("explain", str(first), cwd=tmp_path).stdout
    assert f"\nit is run again as trial {by}\n" in told
    assert f"\nit runs trial {first} again, which failed\n" in lcsearch("explain", str(by), cwd=tmp_path).stdout
    assert "6/6 trials" in lcsearch("status", cwd=tmp_path).stdout
    assert "Not finished" not in lcsearch("report", cwd=tmp_path).stdout


def test_a_kill_between_the_list_and_the_trials_loses_none(tmp_path: Path) -> None:
    path, run = write_toy(tmp_path, BUGGY, trials=6), RunFolder(tmp_path / "run")
    launcher.run(path, folder=run.root, view=Remembering())
    (tmp_path / "toy.py").write_text(TRAIN)
    study = optuna.load_study(study_name="toy", storage=run.default_storage)
    again = ownership.retry_failed(study, run)  # and here the launcher is killed
    assert len(again) > 1
    assert ownership.retry_failed(study, run) == {}
    assert ownership.work_left(study.trials, run, load(path).file) == len(again)
    outcome = launcher.run(path, folder=run.root, resume=True, view=Remembering())
    assert (outcome.progress.counted, len(outcome.progress.of("complete"))) == (6, 6)


def test_one_that_fails_again_may_be_run_again(tmp_path: Path) -> None:
    path, run = write_toy(tmp_path, FAILS, trials=2), tmp_path / "run"
    launcher.run(path, folder=run, view=Remembering())
    outcome = launcher.run(path, folder=run, resume=True, retry_failed=True, view=Remembering())
    assert [row.again for row in outcome.progress.rows] == [2, 3, None, None]
    (tmp_path / "toy.py").write_text(TRAIN)
    outcome = launcher.run(path, folder=run, resume=True, retry_failed=True, view=Remembering())
    assert [row.again for row in outcome.progress.rows] == [2, 3, 4, 5, None, None]
    assert [row.state for row in outcome.progress.rows] == ["failed"] * 4 + ["complete"] * 2


@pytest.mark.parametrize("workers", [1, 3])
def test_the_count_in_failed_in_a_row_is_that_of_this_launch_and_of_its_end(tmp_path: Path, workers: int) -> None:
    path, run = write_toy(tmp_path, FAILS, trials=1000, workers=workers), tmp_path / "run"
    before = 0
    for launch in range(2):
        outcome = launcher.run(path, folder=run, resume=launch > 0, view=Remembering())
        n = len(outcome.progress.of("failed"))
        assert outcome.message.startswith(
            f"{n - before} trials failed in a row, so the sweep was ended. The last said: Z"
        )
        before = n
        (tmp_path / "toy.py").write_text(FAILS + "# not mended\n")


def test_the_count_of_trials_that_fail_before_any_report(tmp_path: Path) -> None:
    path, run = write_toy(tmp_path, "def train(ctx):\n    1 / 0\n", trials=1000, workers=2), tmp_path / "run"
    outcome = launcher.run(path, folder=run, view=Remembering())
    n = len(outcome.progress.of("failed"))
    text = "failed before any report and with the same error, so the sweep was ended: ZeroDivisionError"
    assert outcome.message.startswith(f"the first {n} trials {text}")
    again = launcher.run(path, folder=run, resume=True, view=Remembering())
    more = len(again.progress.of("failed")) - n
    assert again.message.startswith(f"the first {more} trials of this launch {text}")


def test_five_failures_end_a_later_launch_too_where_nothing_has_succeeded(tmp_path: Path) -> None:
    """One second is enough for hundreds: the sixth failure of a launch waits until the launch is ended."""
    waits = "import time\ndef train(ctx):\n    ctx.report(1.0, 1)\n    step = 1\n    while ctx.number >= {n}:\n"
    waits += "        time.sleep(0.05)\n        step += 1\n        ctx.report(1.0, step)\n    1 / 0\n"
    path, run = write_toy(tmp_path, waits.format(n=5), trials=1000, max_steps=10**6), tmp_path / "run"
    launcher.run(path, folder=run, view=Remembering())
    (tmp_path / "toy.py").write_text(waits.format(n=10))
    launcher.run(path, folder=run, resume=True, view=Remembering())
    states = [row.state for row in open_run.reader(RunFolder(run))[2]().rows]
    assert states[:10] == ["failed"] * 10
    assert states[10:] in (["running"], ["waiting"], [])


def test_the_json_lines_tell_of_them(tmp_path: Path) -> None:
    path = write_toy(tmp_path, BUGGY, trials=6)
    lcsearch("run", path.name, cwd=tmp_path)
    (tmp_path / "toy.py").write_text(TRAIN)
    done = lcsearch("run", path.name, "--resume", "--retry-failed", "--json", cwd=tmp_path)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    notices = [entry["text"] for entry in told if entry["event"] == "notice"]
    assert any(text.startswith("failed trials are run again: ") for text in notices)
    began = [entry["trial"] for entry in told if entry["event"] == "trial" and entry["state"] == "began"]
    assert min(began) == 6
