"""Tiny sweeps for the end-to-end tests: objectives of milliseconds, and a view that remembers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from lcsearch.sweep.monitor.outcome import Outcome
from lcsearch.sweep.monitor.progress import Progress
from lcsearch.sweep.monitor.state import StateReader, SweepState
from lcsearch.sweep.store.folder import RunFolder

PATIENCE_S = 300.0
"""For a machine ten times slower than this one, and busy; nothing here takes that long."""

TOY = """\
version: 1
name: toy
objective: {{python: "toy:train"}}
metric: loss
goal: minimize
step: epoch
max_steps: {max_steps}
space:
  a: {{uniform: [0, 1]}}
  lr: {{loguniform: [1e-5, 1e-1]}}
  k: 3
schedule: {{shape: cosine, peak: {{param: lr}}}}
backend: {{kind: {kind}, workers: {{n: {workers}}}}}
sampler: {{kind: random}}
pruner: {{kind: {pruner}}}
budget: {{trials: {trials}}}
retries: {retries}
"""

TRAIN = """\
def train(ctx):
    for epoch in range(1, ctx.max_steps + 1):
        ctx.report(ctx.params["a"] + 1 / epoch, epoch)
"""

# Sleeps a little, saves a file of its own after every report, goes on from it, and signs every process it had.
RESUMING = """\
import json, os, time

def train(ctx):
    file = ctx.checkpoint_dir / "state.json"
    state = json.loads(file.read_text()) if file.exists() else {"epoch": 0, "lives": []}
    state["lives"].append([os.getpid(), state["epoch"]])
    for epoch in range(state["epoch"] + 1, ctx.max_steps + 1):
        time.sleep(0.02)
        ctx.report(ctx.params["a"] + 1 / epoch, epoch)
        state["epoch"] = epoch
        (ctx.checkpoint_dir / "new").write_text(json.dumps(state))
        os.replace(ctx.checkpoint_dir / "new", file)
"""


def held(objective: str, where: str = "True") -> str:
    """An objective like RESUMING that takes a second for each epoch after its third until there is a file `go` beside
    it: whatever is to happen to it has half a minute and more to happen in, on a machine of any speed.

    Args:
        where: a Python expression of `ctx`: which trials are held.
    """
    go = "os.path.exists(os.path.join(os.path.dirname(__file__), 'go'))"
    assert "time.sleep(0.02)" in objective
    return objective.replace("time.sleep(0.02)", f"time.sleep(1.0 if epoch > 3 and {where} and not {go} else 0.02)")


def write_toy(folder: Path, objective: str = TRAIN, **settings: Any) -> Path:
    """A sweep file and its objective in `folder`; returns the file."""
    known = {"max_steps": 6, "workers": 1, "pruner": "none", "trials": 3, "retries": 2, "kind": "optuna", **settings}
    (folder / "toy.py").write_text(objective)
    path = folder / "toy.yaml"
    path.write_text(TOY.format(**known))
    return path


class Remembering:
    """A view for tests: keeps the events, and calls `on_update` with every look at the study."""

    def __init__(self, on_update: Callable[[Progress], None] = lambda _: None) -> None:
        self.events: list[str] = []
        self.on_update = on_update

    def start(self) -> None: ...

    def update(self, progress: Progress, study: Any) -> None:
        self.on_update(progress)

    def event(self, text: str, **facts: object) -> None:
        self.events.append(text)

    def stop(self) -> None: ...


def command(*arguments: str | Path) -> list[str]:
    """The command line in this interpreter."""
    return [sys.executable, "-m", "lcsearch", *map(str, arguments)]


def lcsearch(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "100"}
    return subprocess.run(
        command(*arguments), cwd=cwd, env=environment, capture_output=True, text=True, timeout=PATIENCE_S
    )


@contextmanager
def launched(command: Sequence[str], stdout: IO[str] | int = subprocess.PIPE) -> Iterator[subprocess.Popen[str]]:
    """A process beside the test; when the test leaves it running, it is killed, and its workers end with it."""
    with subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def interrupt(process: subprocess.Popen[str], number: signal.Signals = signal.SIGINT) -> None:
    """Send a signal, and wait until it was delivered: of two that wait at a process the kernel makes one."""
    process.send_signal(number)

    def pending() -> bool:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except FileNotFoundError:
            return False
        masks = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigPnd", "ShdPnd"))]
        return any(mask >> (number - 1) & 1 for mask in masks)

    wait_for(lambda: process.poll() is not None or not pending())


def wait_for(condition: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
    """Poll until `condition` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def state_of(outcome: Outcome) -> SweepState:
    """As the command line reads it when a launch has ended."""
    folder = RunFolder(outcome.folder)
    return StateReader(folder.read().file, folder).state(outcome.progress, outcome.study)
