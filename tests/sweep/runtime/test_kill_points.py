"""Thirty kills at random moments, of launchers and of workers: after the resumes the study is as if there were none."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import pytest
from sweep.kit import Remembering, wait_for, write_toy

from lcsearch.sweep import run as launcher
from lcsearch.sweep.monitor import open_run
from lcsearch.sweep.store.folder import RunFolder

KILLS = 30
SEED = int(os.environ.get("LCSEARCH_KILL_SEED", "4"))
TRIALS, EPOCHS = 32, 20
PATIENCE_S = 900.0  # a machine where other tests run beside this one

# Writes down everything it does beside its checkpoint: [what, pid, epoch, when]. Every other trial is a hopeless one.
TRAIN = """\
import json, os, time

def train(ctx):
    folder = ctx.checkpoint_dir
    file = folder / "state.json"
    epoch = json.loads(file.read_text()) if file.exists() else 0
    with (folder / "lives.jsonl").open("a") as lives:
        def note(what, epoch):
            lives.write(json.dumps([what, os.getpid(), epoch, time.monotonic()]) + "\\n")
            lives.flush()
        note("begin", epoch)
        for epoch in range(epoch + 1, ctx.max_steps + 1):
            time.sleep(0.08)
            note("report", epoch)
            ctx.report(value(ctx.params["a"], ctx.number, epoch), epoch)
            (folder / "new").write_text(json.dumps(epoch))
            os.replace(folder / "new", file)
            note("saved", epoch)
            if ctx.checkpoint_due:
                ctx.save({}, epoch)

def value(a, number, epoch):
    return a * 0.1 + (number % 2) * 5 + 1 / epoch
"""

# A launcher costs a second to start: this process imports what it needs once and forks one for each line it reads.
NURSERY = """\
import os, signal, sys
import optuna, sqlalchemy
from lcsearch.sweep.store import studies as backend
from lcsearch.sweep import run as launcher
from lcsearch.sweep.monitor import view
from lcsearch.sweep.views import live

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:
    options = line.split()
    pid = os.fork()
    if not pid:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        code = 70
        try:
            code = launcher.run(options[0], folder=options[1], resume=options[2] == "resume", view=view.Silent()).code
        except BaseException as error:
            print(type(error).__name__, error, file=sys.stderr)
        os._exit(code)
    print(pid, flush=True)
"""


@dataclass
class Campaign:
    """The runs and kills of one sweep, and what is said of them when something is wrong."""

    path: Path
    run: Path
    nursery: subprocess.Popen[str]
    points: list[str] = field(default_factory=list)
    killed: Counter[str] = field(default_factory=Counter)

    def launch(self) -> int:
        """Start or resume; returns the launcher's pid."""
        how = "resume" if (self.run / "run.json").exists() else "new"
        assert self.nursery.stdin is not None
        assert self.nursery.stdout is not None
        self.nursery.stdin.write(f"{self.path} {self.run} {how}\n")
        self.nursery.stdin.flush()
        return int(self.nursery.stdout.readline())

    def kill(self, pid: int, who: str, after: float) -> None:
        """One kill."""
        os.kill(pid, signal.SIGKILL)
        self.killed[who] += 1
        self.points.append(f"{len(self.points) + 1}: {who} {after:.2f} s after the launch")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def workers_of(launcher_pid: int) -> list[int]:
    """Processes that the launcher started, by /proc."""
    try:
        text = Path(f"/proc/{launcher_pid}/task/{launcher_pid}/children").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(pid) for pid in text.split() if alive(int(pid))]


@pytest.fixture
def nursery() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", NURSERY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    for pipe in (process.stdin, process.stdout, process.stderr):
        assert pipe is not None
        pipe.close()
    process.wait()


@pytest.mark.parametrize("pauses", [False, True], ids=["stops", "pauses"])
def test_thirty_kills_lose_nothing(tmp_path: Path, nursery: subprocess.Popen[str], pauses: bool) -> None:
    rng = random.Random(SEED)
    # forecasters that a worker loads at once: what is killed is to be its work, and it has thirty beginnings
    pruner = "none" if pauses else "curve, n_startup_trials: 3, forecasters: [parametric, rank-gap]"
    path = write_toy(tmp_path, TRAIN, trials=TRIALS, max_steps=EPOCHS, workers=2, pruner=pruner, retries=1000)
    if pauses:  # every trial pauses four times, and runs to its end
        path.write_text(path.read_text() + "pause: true\nallocator: {kind: uniform, quantum: 0.2}\n")
    campaign = Campaign(path, tmp_path / "run", nursery)
    deadline = time.monotonic() + PATIENCE_S
    plan = ["launcher"] * (KILLS // 3) + ["worker"] * (KILLS - KILLS // 3)
    rng.shuffle(plan)
    began, pid = time.monotonic(), campaign.launch()
    for who in plan:
        early, wait, before = rng.random() < 0.2, rng.uniform(0.0, 0.6), reports(campaign.run)
        while not early and alive(pid) and reports(campaign.run) == before:
            time.sleep(0.01)  # processes that only start have done nothing that could be lost
            assert time.monotonic() < deadline, report(campaign)
        until = time.monotonic() + wait
        while time.monotonic() < until and alive(pid):
            time.sleep(0.005)
        if not alive(pid):
            text = f"the sweep was over before the last kill: make it longer\n{report(campaign)}"
            assert unfinished(campaign.run), text
            # Three workers in a row were killed before they took a trial: a launcher gives up then, as it should.
            began, pid = time.monotonic(), campaign.launch()
        if who == "worker" and (crew := workers_of(pid)):
            campaign.kill(rng.choice(crew), who, time.monotonic() - began)
        else:
            campaign.kill(pid, "launcher", time.monotonic() - began)
            wait_for(lambda pid=pid: not alive(pid))  # type: ignore[misc]
            began, pid = time.monotonic(), campaign.launch()
    for _ in range(3):
        wait_for(lambda pid=pid: not alive(pid), PATIENCE_S)  # type: ignore[misc]
        if not unfinished(campaign.run):
            break
        pid = campaign.launch()
    assert sum(campaign.killed.values()) == KILLS
    assert min(campaign.killed.values()) >= 5, campaign.killed
    found = problems(campaign, pauses)
    assert not found, "\n".join([*found, report(campaign)])


def reports(run: Path) -> int:
    """Bytes that the trials have written about themselves: it grows when one reports."""
    return sum(file.stat().st_size for file in run.glob("checkpoints/*/lives.jsonl"))


def unfinished(run: Path) -> list[int]:
    study = open_run.reader(RunFolder(run))[1]
    return [t.number for t in study.trials if not t.state.is_finished()] + list(range(len(study.trials), TRIALS))


def report(campaign: Campaign) -> str:
    logs = [f"--- {log.name}\n{log.read_text()[-2000:]}" for log in sorted((campaign.run / "logs").glob("*"))]
    return "\n".join([f"the kills (seed {SEED}):", *campaign.points, *logs])


def problems(campaign: Campaign, pauses: bool) -> list[str]:
    """What is wrong with the study after all kills; empty when it is as if there had been none."""
    study = open_run.reader(RunFolder(campaign.run))[1]
    said = []
    if (left := unfinished(campaign.run)) or len(study.trials) != TRIALS:
        said.append(f"{len(study.trials)} trials of {TRIALS}, not ended: {left}")
    for trial in study.trials:
        expected = {e: trial.params["a"] * 0.1 + (trial.number % 2) * 5 + 1 / e for e in range(1, EPOCHS + 1)}
        got = trial.intermediate_values
        last = max(got, default=0)
        if trial.state.name not in ("COMPLETE", "PRUNED"):
            said.append(f"trial {trial.number} is {trial.state.name}: {trial.user_attrs}")
        if got != {e: expected[e] for e in range(1, last + 1)}:
            said.append(f"trial {trial.number} has other values than an uninterrupted one: {got}")
        if trial.state.name == "COMPLETE" and last != EPOCHS:
            said.append(f"trial {trial.number} is COMPLETE at {last}")
        said += lives(campaign.run, trial, last)
    params = [trial.params for trial in study.trials]
    if params != [row.params for row in uninterrupted(campaign)]:
        said.append("the trials have other parameters than those of an uninterrupted run")
    if pauses:
        if not all(trial.state.name == "COMPLETE" for trial in study.trials):
            said.append("a trial was stopped, though nobody stops any")
        paused = [trial.system_attrs.get("lcsearch:paused", {}).get("pause", 0) for trial in study.trials]
        if sum(paused) < 3 * TRIALS:
            said.append(f"too few pauses that a kill could lose: {paused}")
        return said
    if not any(trial.state.name == "PRUNED" for trial in study.trials):
        said.append("nothing was stopped: the test sees no stop that a kill could lose")
    return said + decisions(campaign.run, study)


def uninterrupted(campaign: Campaign) -> list[Any]:
    """The trials of the same sweep as it should be: two epochs will do, a random sampler asks nothing of the past."""
    folder = campaign.path.parent / "whole"
    folder.mkdir()
    path = write_toy(folder, trials=TRIALS, max_steps=2)
    rows = launcher.run(path, folder=folder / "run", view=Remembering()).progress.rows
    return [type("Row", (), {"params": {k: v for k, v in row.params.items() if k != "k"}}) for row in rows]


def lives(run: Path, trial: optuna.trial.FrozenTrial, last: int) -> list[str]:
    """No trial twice: a life begins at the last checkpoint, after the life before it, and repeats no saved epoch."""
    file = run / f"checkpoints/trial-{trial.number:05d}/lives.jsonl"
    notes = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    said, saved, pid = [], 0, None
    for what, who, epoch, _ in notes:
        if what == "begin":
            # the file is replaced a moment before it is noted
            if epoch not in (saved, saved + 1):
                said.append(f"trial {trial.number} went on from epoch {epoch}, its checkpoint was of {saved}")
            pid, saved = who, epoch
        elif who != pid:
            said.append(f"trial {trial.number} was in two processes at once, {pid} and {who}")
        elif what == "report" and epoch != saved + 1:
            said.append(f"trial {trial.number} reported epoch {epoch} after {saved}")
        elif what == "saved":
            saved = epoch
    if saved > last:
        said.append(f"trial {trial.number} had saved epoch {saved}, the study knows {last}")
    return said


def decisions(run: Path, study: optuna.Study) -> list[str]:
    """Every line parses but torn last ones, and no stop stands against a trial that is COMPLETE."""
    said = []
    latest: dict[tuple[int, float], tuple[float, str]] = {}
    for path in sorted((run / "decisions").glob("*.jsonl")):
        text = path.read_bytes()
        for line in text[: text.rfind(b"\n") + 1].splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                said.append(f"{path.name}: a line that is no JSON: {line!r}")
                continue
            key = (int(record["trial"]), record["step"])
            latest[key] = max(latest.get(key, (0.0, "")), (record["time"], record["verdict"]))
    states = {trial.number: trial for trial in study.trials}
    for (number, step), (_, verdict) in latest.items():
        trial = states[number]
        if verdict == "STOP" and (trial.state.name != "PRUNED" or max(trial.intermediate_values) != step):
            said.append(f"trial {number} was told to stop at {step}, is {trial.state.name}")
    for number, trial in states.items():
        if trial.state.name == "PRUNED":
            last = max(trial.intermediate_values)
            if latest.get((number, last), (0.0, ""))[1] != "STOP":
                said.append(f"trial {number} was stopped at {last}, and the log has no such decision")
    return said
