"""A sweep whose workers share one process that holds the model."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from kit.doubles import Clock
from sweep.kit import Remembering, wait_for, write_toy

from lcsearch.errors import FileProblem
from lcsearch.host.device import LOADING_S
from lcsearch.host.link import TOKEN, HostTrouble, HttpLink
from lcsearch.host.registry import HOST
from lcsearch.session.decision_log import read_log
from lcsearch.sweep.monitor.outcome import SUCCESS
from lcsearch.sweep.run import run
from lcsearch.sweep.runtime import model_host
from lcsearch.sweep.runtime.model_host import ModelHost, free_device, pays
from lcsearch.sweep.spec.load import load
from lcsearch.sweep.store.folder import RunFolder

# Says at its end whether the worker has loaded torch.
TRAIN = """\
import sys, time

def train(ctx):
    for epoch in range(1, ctx.max_steps + 1):
        time.sleep(0.02)
        ctx.report(ctx.params["a"] + (ctx.number % 3 > 0) + 0.5 ** epoch, epoch)
    (ctx.checkpoint_dir / "torch").write_text(str("torch" in sys.modules))
"""


@pytest.fixture(autouse=True)
def _by_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(HOST, raising=False)


def pid_of(folder: Path) -> int | None:
    with suppress(OSError, ValueError):
        return int(json.loads((folder / "host.json").read_bytes())["pid"])
    return None


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_workers_share_one_model_and_hold_none(tmp_path: Path) -> None:
    path = write_toy(tmp_path, TRAIN, workers=3, trials=14, max_steps=16, pruner="curve")
    seen: set[int | None] = set()
    outcome = run(path, folder=tmp_path / "run", view=Remembering(lambda _: seen.add(pid_of(tmp_path / "run"))))
    assert outcome.code == SUCCESS, outcome.message
    (pid,) = seen - {None}
    assert pid is not None
    assert gone(pid)
    assert not (tmp_path / "run" / "host.json").exists()
    told = [file.read_text() for file in (tmp_path / "run" / "checkpoints").rglob("torch")]
    assert set(told) == {"False"}
    looks = list(read_log(tmp_path / "run" / "decisions"))
    assert any(look["reason"] == "BELOW" for look in looks), {look["reason"] for look in looks}
    assert not any(look.get("errors") for look in looks)


# Takes its time until the third host has been seen at work.
UNTIL_ENOUGH = """\
import time
from pathlib import Path

def train(ctx):
    enough = Path(__file__).parent / "enough"
    for epoch in range(1, ctx.max_steps + 1):
        time.sleep(0.02 if enough.exists() or ctx.number < 6 else 0.3)
        ctx.report(ctx.params["a"] + (ctx.number % 3 > 0) + 0.5 ** epoch, epoch)
"""


def queries_of(folder: Path, token: str) -> int:
    """How many the present host has answered."""
    with suppress(OSError, ValueError, HTTPException):
        where = urlsplit(json.loads((folder / "host.json").read_bytes())["url"]).netloc
        with closing(HTTPConnection(where, timeout=5)) as connection:
            connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {token}"})
            found = re.search(r"^lcsearch_host_queries_total (\d+)", connection.getresponse().read().decode(), re.M)
            return int(found[1]) if found else 0
    return 0


def test_a_host_that_is_killed_costs_no_trial_and_is_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secrets.token_urlsafe", lambda: "known-to-this-test-alone")
    path = write_toy(tmp_path, UNTIL_ENOUGH, workers=3, trials=24, max_steps=30, pruner="curve")
    asked: list[int] = []

    def kill(_: Any) -> None:
        pid = pid_of(tmp_path / "run")
        if pid is None or pid in asked or not queries_of(tmp_path / "run", "known-to-this-test-alone"):
            return
        asked.append(pid)
        if len(asked) < 3:
            os.kill(pid, signal.SIGKILL)
        else:
            (tmp_path / "enough").touch()

    view = Remembering(kill)
    outcome = run(path, folder=tmp_path / "run", view=view)
    assert outcome.code == SUCCESS, outcome.message
    assert len(asked) == 3, "each that was begun has forecast"
    assert sum("the model's host was killed (SIGKILL); another takes its place" in text for text in view.events) == 2
    states = [trial.state.name for trial in outcome.study.trials]
    assert len(states) == 24
    assert set(states) == {"COMPLETE", "PRUNED"}
    stops = [look for look in read_log(tmp_path / "run" / "decisions") if look["verdict"] == "STOP"]
    assert stops
    for look in stops:
        assert look["now"]["p"] is not None
        assert look["before"]["p"] is not None


def test_it_ends_with_a_launcher_that_is_killed(tmp_path: Path) -> None:
    path = write_toy(tmp_path, TRAIN, workers=3, trials=400, max_steps=50, pruner="curve")
    command = [sys.executable, "-m", "lcsearch", "run", str(path), "--folder", str(tmp_path / "run")]
    launcher = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_for(lambda: pid_of(tmp_path / "run") is not None)
        pid = pid_of(tmp_path / "run")
        assert pid is not None
    finally:
        launcher.kill()
        launcher.wait()
    wait_for(lambda: gone(pid))


def test_strangers_are_not_answered(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    told: list[str] = []
    folder.logs.mkdir(parents=True)
    host = ModelHost(folder, load(write_toy(tmp_path, workers=3)).file, told.append)
    try:
        host.start(lambda: False)
        environment = host.environment
        assert HttpLink(environment[HOST], environment[TOKEN]).about(60)["device"] == "cpu"
        with pytest.raises(HostTrouble, match="401"):
            HttpLink(environment[HOST], "").about(60)
    finally:
        host.end()
    assert told == []


def test_one_that_does_not_start_is_told_and_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path / "run")
    told: list[str] = []
    folder.logs.mkdir(parents=True)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    host = ModelHost(folder, load(write_toy(tmp_path, workers=3)).file, told.append)
    host.start(lambda: False)
    assert host.environment == {}
    host.look()
    host.end()
    assert told == [f"the model's host does not answer: every worker holds the model; see {folder.logs / 'host.log'}"]


class Begun:
    """A process in name only."""

    stdin = None

    def __init__(self, code: int | None) -> None:
        self.returncode = code

    def poll(self) -> int | None:
        return self.returncode

    def terminate(self) -> None:
        self.returncode = 0

    def wait(self, timeout: float | None = None) -> int | None:
        return self.returncode


class Begins:
    """Begins them: each is `ready` at once, hangs, or has ended at once with `code`."""

    def __init__(self, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at: list[float] = []
        self.ready, self._clock = True, clock
        self.code: int | None = None
        monkeypatch.setattr(subprocess, "Popen", self)

    def __call__(self, command: list[str], **_: object) -> Begun:
        self.at.append(self._clock.now)
        if self.ready:
            Path(command[4]).write_text(json.dumps({"url": "http://127.0.0.1:1", "pid": 1}))
        self.last = Begun(None if self.ready else self.code)
        return self.last


def host_of(tmp_path: Path, told: list[str], clock: Callable[[], float]) -> ModelHost:
    folder = RunFolder(tmp_path / "run")
    folder.logs.mkdir(parents=True)
    return ModelHost(folder, load(write_toy(tmp_path, workers=3)).file, told.append, clock)


def test_one_that_cannot_begin_again_is_tried_ever_later_and_then_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where its port was taken meanwhile: the same exit, each time."""
    told: list[str] = []
    clock = Clock()
    host = host_of(tmp_path, told, clock)
    begins = Begins(clock, monkeypatch)
    host.start(lambda: False)
    assert host.environment[HOST] == "http://127.0.0.1:1"
    begins.ready, begins.code, begins.last.returncode = False, 3, -9
    for at in range(220, 600):
        clock.now = at / 2
        host.look()
    assert begins.at == [100, 110, 111.5, 114, 118.5, 127]
    assert told == [
        "the model's host was killed (SIGKILL); another takes its place",
        "the model's host exited with code 3 before it answered; it is begun anew",
        "the model's host exited with code 3 before it answered, 5 times in a row: it is given up, and every worker "
        f"holds the model itself; {tmp_path / 'run' / 'logs' / 'host.log'} says why",
    ]
    assert host.environment == {}, "workers that begin now do not look for it"


def test_one_that_had_answered_is_back_after_a_second_however_often_it_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    clock = Clock()
    host = host_of(tmp_path, told, clock)
    begins = Begins(clock, monkeypatch)
    host.start(lambda: False)
    for _ in range(3):
        begins.ready, begins.code, begins.last.returncode = False, 3, -9
        for _ in range(4):  # after which it could not begin
            clock.now += 20
            host.look()
        begins.ready = True
        clock.now += 20
        host.look()
        for life in (0.3, 7.0):
            clock.now += 0.1
            host.look()
            began, clock.now = clock.now - 0.1, clock.now - 0.1 + life
            begins.last.returncode = -9
            host.look()
            clock.now = max(clock.now, began + 1)
            host.look()
            assert begins.at[-2:] == [began, clock.now]
    assert host.environment
    assert [text for text in told if "given up" in text] == []
    assert len([text for text in told if "was killed (SIGKILL); another takes its place" in text]) == 9
    host.end()


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_device_that_hangs_is_waited_for_until_the_host_takes_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    clock = Clock()

    def later() -> float:
        clock.now += 5
        return clock.now

    monkeypatch.setattr(model_host, "free_device", lambda _: (device, None))
    told: list[str] = []
    host = host_of(tmp_path, told, later)
    begins = Begins(clock, monkeypatch)
    begins.ready, begins.code = False, None
    host.start(lambda: False)
    waited = clock.now - begins.at[0]
    assert (waited > LOADING_S + 10) == (device == "cuda")
    assert waited < LOADING_S + 60
    assert len(told) == 1


@pytest.mark.parametrize(
    ("workers", "backend", "wanted"),
    [
        ("n: 3", "", True),
        ("n: 2", "", False),
        ("n: 3", ", host: local", False),
        ("n: 3", ", host: 'http://gpu:8642'", False),
        ("n: 2, devices: ['cuda:0']", "", True),
        ("n: 2, devices: ['cuda:0', 'cuda:1']", "", False),
        ("n: 2, devices: [cuda]", "", False),
    ],
)
def test_when_a_host_pays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: str, backend: str, wanted: bool
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    path = write_toy(tmp_path, pruner="curve", max_steps=30, trials=20)
    path.write_text(path.read_text().replace("workers: {n: 1}", f"workers: {{{workers}}}{backend}"))
    file = load(path).file
    assert pays(file) is wanted
    assert free_device(file) == (("cuda", "5") if "cuda:0" in workers and wanted else ("cpu", None))
    monkeypatch.setenv(HOST, "local")
    assert not pays(file)


def test_no_host_where_the_network_is_not_asked(tmp_path: Path) -> None:
    for text in ("none", "median", "curve, forecasters: [parametric, rank-gap]"):
        assert not pays(load(write_toy(tmp_path, pruner=text, workers=3, max_steps=30, trials=20)).file)


@pytest.mark.parametrize(
    "host", ["gpu", "http://h:99999", "http://h:1?x=2", "http://h:1#x", "http://:1", "https://[::"]
)
def test_hosts_that_cannot_be(tmp_path: Path, host: str) -> None:
    path = write_toy(tmp_path)
    path.write_text(path.read_text().replace("workers:", f"host: '{host}', workers:"))
    with pytest.raises(FileProblem, match=r"backend\.host: expected .*http://NAME:PORT"):
        load(path)
