"""A sweep whose workers share one process that holds the model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sweep.kit import Remembering, wait_for, write_toy

from lcsearch.errors import FileProblem
from lcsearch.host.link import TOKEN, HostTrouble, HttpLink
from lcsearch.host.registry import HOST
from lcsearch.session.decision_log import read_log
from lcsearch.sweep.monitor.outcome import SUCCESS
from lcsearch.sweep.run import run
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


def test_a_host_that_is_killed_costs_no_trial_and_is_back(tmp_path: Path) -> None:
    path = write_toy(tmp_path, TRAIN, workers=3, trials=24, max_steps=30, pruner="curve")
    killed: list[int] = []

    def kill(_: Any) -> None:
        pid = pid_of(tmp_path / "run")
        if pid is not None and pid not in killed and len(killed) < 3:
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)

    view = Remembering(kill)
    outcome = run(path, folder=tmp_path / "run", view=view)
    assert outcome.code == SUCCESS, outcome.message
    assert len(killed) >= 2
    assert sum("the model's host was killed (SIGKILL); another takes its place" in text for text in view.events) >= 2
    states = [trial.state.name for trial in outcome.study.trials]
    assert len(states) == 24
    assert set(states) == {"COMPLETE", "PRUNED"}
    for look in read_log(tmp_path / "run" / "decisions"):
        if look["verdict"] == "STOP":
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
        assert HttpLink(environment[HOST], environment[TOKEN]).about(10)["device"] == "cpu"
        with pytest.raises(HostTrouble, match="401"):
            HttpLink(environment[HOST], "").about(10)
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
