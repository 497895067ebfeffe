"""A driver is killed by SIGKILL in the middle of a run; a second one takes it up and decides as the first would."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kit.sessions import WAIT_S, sweep_up, wait_for
from kit.tune_runner import decay, of_run, restored, run_of
from ray.tune.experiment import Trial

from lcsearch.schedulers.ray_tune import StateCallback
from lcsearch.schedulers.ray_tune._book import Book
from lcsearch.session.decision_log import read_log
from lcsearch.study import Status

TESTS = str(Path(__file__).resolve().parents[2])

STEPS = 15
LIMITS = [0.5, 0.6, 0.7, 0.8, 5.0, 6.0, 0.45, 7.0, 0.1, 8.0]
HOPELESS = {4, 5, 7, 9}
BEST = 8

# One trial after another. In the first driver, trial and step of `halt` wait for the end: what came before is known.
DRIVER = """\
import json, math, sys, tempfile, time
from pathlib import Path

import ray
import scipy.special  # or the first forecast would have to
from ray import tune

sys.path.insert(0, sys.argv[1])
from kit.doubles import NormalAroundBest

from lcsearch.schedulers.ray_tune import CurveScheduler, StateCallback

settings = json.loads(sys.argv[2])
folder = Path(settings["folder"])


def train(config):
    index, start, saved = config["index"], 0, tune.get_checkpoint()
    here, limit = Path(config["folder"]), config["limits"][index]
    if saved is not None:
        with saved.as_directory() as at:
            start = int((Path(at) / "step").read_text())
    with (here / f"lives-{index}").open("a") as file:
        file.write(f"{start}\\n")
    for step in range(start + 1, config["steps"] + 1):
        if [index, step] == config["halt"] and not (here / "halted").exists():
            (here / "halted").touch()
            time.sleep(600)
        time.sleep(0.25 if limit > 1 and step > 7 else 0.15 if index == config["halt"][0] and step > 5 else 0.01)
        with tempfile.TemporaryDirectory() as at:
            (Path(at) / "step").write_text(str(step))
            told = {"epoch": step, "loss": limit + 0.8**step}
            tune.report(told, checkpoint=tune.Checkpoint.from_directory(at))


ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
if settings["restore"]:
    tuner = tune.Tuner.restore(str(folder / "run"), trainable=train, resume_unfinished=True)
else:
    scheduler = CurveScheduler(
        time_attr="epoch", metric="loss", mode="min", max_t=settings["steps"], n_startup_trials=4, guard=0.0,
        forecasters=NormalAroundBest(sd=0.5), look_growth=1, decision_log=folder / "decisions",
    )
    space = {key: settings[key] for key in ("folder", "limits", "steps", "halt")}
    tuner = tune.Tuner(
        train,
        param_space={**space, "index": tune.grid_search(list(range(len(settings["limits"]))))},
        tune_config=tune.TuneConfig(scheduler=scheduler, max_concurrent_trials=1, reuse_actors=True),
        run_config=tune.RunConfig(
            name="run", storage_path=str(folder), verbose=0,
            callbacks=[StateCallback(scheduler)] if settings["state"] else [],
            checkpoint_config=tune.CheckpointConfig(num_to_keep=settings["keep"]),
        ),
    )
results = tuner.fit()
inner = tuner._local_tuner
scheduler = inner._tune_config.scheduler
said = {
    "stopped": scheduler.stopped(),
    "explain": {uid: scheduler.explain(uid) for uid in scheduler.stopped()},
    "same": [one.scheduler is scheduler for one in inner.get_run_config().callbacks or [] if hasattr(one, "scheduler")],
    "errors": results.num_errors,
    "ends": {str(result.config["index"]): [result.metrics["epoch"], result.metrics["loss"]] for result in results},
    "tally": scheduler.debug_string(),
}
(folder / "said.json").write_text(json.dumps(said))
"""


@dataclass
class Run:
    """One experiment and its two drivers."""

    folder: Path
    environment: dict[str, str]
    settings: dict[str, Any]

    @contextmanager
    def driver(self, *, restore: bool) -> Iterator[subprocess.Popen[str]]:
        """A driver in a session of its own; nothing of it is left afterwards."""
        (self.folder / "driver.py").write_text(DRIVER)
        told = json.dumps({**self.settings, "folder": str(self.folder), "restore": restore})
        with (self.folder / f"stderr-{restore:d}").open("w") as stderr:
            process = subprocess.Popen(
                [sys.executable, "driver.py", TESTS, told],
                cwd=self.folder,
                env={**os.environ, **self.environment},
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                text=True,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            sweep_up(process.pid)

    def saved(self) -> Book | None:
        """What the run's folder holds of the scheduler's state; None before it holds any."""
        try:
            (file,) = (self.folder / "run").glob("callback-states-*.pkl")
            (state,) = (one for one in pickle.loads(file.read_bytes()).values() if one and "scheduler" in one)
            return Book.from_record(pickle.loads(state["scheduler"])["book"])
        except (ValueError, EOFError, OSError, pickle.UnpicklingError):  # it is just being written
            return None

    def log(self, pid: int) -> dict[tuple[int, float], dict[str, Any]]:
        """One driver's looks: (trial, step) -> what was decided, receipts left out."""
        looks: dict[tuple[int, float], dict[str, Any]] = {}
        for record in read_log(self.folder / "decisions") if (self.folder / "decisions").exists() else ():
            if record["pid"] == pid:
                key = index(record["trial"]), record["step"]
                assert key not in looks
                looks[key] = {k: v for k, v in record.items() if k not in ("time", "latency", "host", "pid", "line")}
        return looks

    def lives(self) -> list[list[int]]:
        """For every trial, the step from which each of its lives went on."""
        files = [self.folder / f"lives-{i}" for i in range(len(LIMITS))]
        return [[int(line) for line in file.read_text().splitlines()] if file.exists() else [] for file in files]

    def first(self, ready: Callable[[int], bool]) -> int:
        """Run the first driver until it halts and is `ready`, then kill it; its pid."""
        with self.driver(restore=False) as process:
            wait_for((self.folder / "halted").exists, process)
            wait_for(lambda: self.stands(process.pid, ready), process)
            return process.pid  # the kill comes with the end of the block

    def stands(self, pid: int, ready: Callable[[int], bool]) -> bool:
        """Is the frozen driver `ready`, and its state whole? Tune copies files in place: a kill amid that ends all."""
        os.kill(pid, signal.SIGSTOP)
        if self.tune_state() and ready(pid):
            return True
        os.kill(pid, signal.SIGCONT)
        return False

    def tune_state(self) -> dict[int, str]:
        """Tune's own state: trial -> status; empty when it is not whole."""
        try:
            (file,) = (self.folder / "run").glob("experiment_state-*.json")
            told = [json.loads(one[0]) for one in json.loads(file.read_text())["trial_data"]]
            (search,) = (self.folder / "run").glob("basic-variant-state-*.json")
            pickle.loads(search.read_bytes())
        except (ValueError, EOFError, OSError, pickle.UnpicklingError):
            return {}
        return {index(one["trial_id"]): one["status"] for one in told}

    def second(self) -> tuple[int, dict[str, Any]]:
        """Run the second driver to its end; its pid and what it said."""
        with self.driver(restore=True) as process:
            code = process.wait(WAIT_S)
        assert code == 0, self.errors()
        return process.pid, json.loads((self.folder / "said.json").read_text())

    def errors(self) -> str:
        return (self.folder / "stderr-1").read_text()


def index(uid: str) -> int:
    """Which of LIMITS: Tune counts the trials of a grid."""
    return int(uid.rpartition("_")[2])


def prepared(folder: Path, ray_settings: dict[str, str], halt: tuple[int, int], **settings: Any) -> Run:
    # State is saved in every turn of Tune's loop, or (`keep`) only when a trial has saved so many checkpoints.
    keep = settings.get("keep")
    environment = {
        **ray_settings,
        "TUNE_GLOBAL_CHECKPOINT_S": "1000" if keep else "0.2",
        "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    }
    return Run(
        folder, environment, {"limits": LIMITS, "steps": STEPS, "halt": halt, "state": True, "keep": None, **settings}
    )


@pytest.mark.parametrize(
    ("halt", "keep"),
    [
        pytest.param((2, 10), None, id="before-any-look"),
        pytest.param((5, 6), None, id="on-the-way-to-a-stop"),
        pytest.param((6, 9), 3, id="state-older-than-looks"),
    ],
)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    ray_settings: dict[str, str], tmp_path: Path, halt: tuple[int, int], keep: int | None
) -> None:
    run = prepared(tmp_path, ray_settings, halt, keep=keep)
    at, before = halt
    expected = [(at, step) for step in range(6, before)] if at not in HOPELESS and at > 3 else []

    def known() -> dict[int, float]:
        book = run.saved()
        return {} if book is None else {index(uid): entry.last for uid, entry in book.entries.items()}

    def ready(pid: int) -> bool:
        last = known().get(at, 0)
        there = last >= before - 3 if keep else last == before - 1
        return there and run.tune_state().get(at) == "RUNNING" and run.log(pid).keys() >= set(expected)

    killed = run.first(ready)
    book = run.saved()
    assert book is not None
    ended = {index(uid): entry for uid, entry in book.entries.items() if entry.status.finished}
    assert set(ended) == set(range(at))
    since = known()[at]
    resumed, said = run.second()

    assert said["errors"] == 0
    assert said["same"] == [True]
    assert "failed open" not in said["tally"]
    assert "lcsearch" not in run.errors()
    # Who had been stopped stays stopped, in the same words; the others are judged as ever; the best one lives.
    assert {index(uid) for uid in said["stopped"]} == HOPELESS
    for uid, entry in book.entries.items():
        if entry.stop is not None:
            assert said["stopped"][uid] == entry.line
            assert said["explain"][uid] == entry.stop.text
    for i, limit in enumerate(LIMITS):
        epoch, loss = said["ends"][str(i)]
        assert loss == limit + 0.8**epoch
        assert epoch == STEPS if i not in HOPELESS else 6 <= epoch < STEPS
    assert min(said["ends"], key=lambda i: said["ends"][i][1]) == str(BEST)
    # No trial that had ended ran again; the one that was killed went on from its last checkpoint.
    for i, lives in enumerate(run.lives()):
        if i == at:
            assert (lives[0], len(lives)) == (0, 2)
            assert 0 < lives[1] < before
        else:
            assert lives == [0], i
    # A look that both drivers cast had the same history, and came to the same.
    one, two = run.log(killed), run.log(resumed)
    both = one.keys() & two.keys()
    assert both == {look for look in expected if look[1] > since}
    judged = [look for look in both if "SUPERSEDED" not in (one[look]["reason"], two[look]["reason"])]
    assert bool(judged) == bool(keep)
    for look in judged:
        assert one[look] == two[look]
    stops = [look for log in (one, two) for look, record in log.items() if record["verdict"] == "STOP"]
    assert {trial for trial, _ in stops} == HOPELESS
    assert len(stops) == len(HOPELESS)


def test_without_the_callback_the_run_ends_and_says_what_is_lost(ray_settings: dict[str, str], tmp_path: Path) -> None:
    at, before = 5, 6
    run = prepared(tmp_path, ray_settings, (at, before), state=False)

    run.first(lambda pid: run.tune_state().get(at) == "RUNNING")
    resumed, said = run.second()
    assert said["errors"] == 0
    assert said["same"] == []
    lost = [line for line in run.errors().splitlines() if "lcsearch" in line]
    assert len(lost) == 1
    assert "its curves are gone; give the run a StateCallback to keep them" in lost[0]
    assert f"{at} failed open" in said["tally"]
    # The first ones of the second driver run to their end; from then on it stops again.
    assert {index(uid) for uid in said["stopped"]} == {9}
    assert {int(i): end[0] for i, end in said["ends"].items() if int(i) not in (4, 9)} == {
        i: STEPS for i in range(len(LIMITS)) if i not in (4, 9)
    }
    assert {trial for trial, _ in run.log(resumed)} == {9}
    assert [len(lives) for lives in run.lives()] == [2 if i == at else 1 for i in range(len(LIMITS))]


def test_tune_knows_of_ends_that_the_saved_state_does_not() -> None:
    """Tune saves trials and callbacks in two files; a kill between them leaves one older than the other."""
    runner = run_of()
    best, bad, failing = (runner.start(uid) for uid in ("best", "bad", "failing"))
    for trial, curve in ((best, decay(0.01, 40)), (bad, decay(5.0, 4)), (failing, decay(0.2, 4))):
        assert runner.feed(trial, curve) is None
    state = StateCallback(of_run(runner)).get_state()
    runner.feed(best, decay(0.01)[40:], 41)
    runner.feed(bad, decay(5.0)[4:], 5)
    runner.fail(failing)
    assert Trial.RUNNING not in [trial.status for trial in runner.trials]
    of, _ = restored(runner, state)
    book = of.get_state()["book"]
    assert {uid: book.trial(uid).status for uid in ("best", "bad", "failing")} == {
        "best": Status.COMPLETE,
        "bad": Status.STOPPED,
        "failing": Status.FAILED,
    }
    assert book.trial("best").curve.steps.tolist() == [*range(1, 41), 50]
    assert book.snapshot(of.snapshot().goal).live == ()
    assert book.snapshot(of.snapshot().goal).incumbent.uid == "best"
    assert "it carries no record of a decision" in of.explain("bad")


def test_a_stop_under_way_when_the_state_was_saved_is_decided_anew() -> None:
    """Told to stop, but its checkpoint was still being saved: after a restore it runs, and may come to its end."""
    runner = run_of()
    runner.late = True
    trial = runner.start("x")
    for step, value in enumerate(decay(5.0)[:6], 1):
        runner.report(trial, step, value)
    assert of_run(runner).session.wait(10)
    runner.save(trial)
    assert runner.report(trial, 7, 5.0) == "STOP"
    of, twin = restored(runner, StateCallback(of_run(runner)).get_state())
    again = next(one for one in twin.trials if one.trial_id == "x")
    assert twin.step() is again
    assert twin.feed(again, [0.0] * 43, 8) == 50  # it has passed the incumbent
    book = of.get_state()["book"]
    assert (book.trial("x").status, book.trial("x").stop_records) == (Status.COMPLETE, {})
    assert of.stopped() == {}
    assert book.snapshot(of.snapshot().goal).incumbent.uid == "x"
