"""The cluster of a sweep on Ray, and this process while it is up: what Ray changes in it is put back."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any, TextIO, cast

import ray

from lcsearch import files
from lcsearch.errors import EnvironmentProblem
from lcsearch.sweep.runtime.processes import THREAD_VARIABLES
from lcsearch.sweep.spec.model import SweepFile
from lcsearch.sweep.store.folder import RunFolder

_ENVIRONMENT = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is the launcher's
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the study is the record
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # tracebacks stand in the trial's log
    "RAY_AIR_NEW_OUTPUT": "0",  # the one that verbose=0 silences
    "RAY_USAGE_STATS_ENABLED": "0",
}
_RAYS_OWN = ("RAY_", "TUNE_", "PYTHONBREAKPOINT")  # so begin the variables that Ray sets
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

_PATIENCE_S = 5.0  # for a cluster's first answer


def resources(file: SweepFile) -> dict[str, float]:
    """What one trial takes."""
    workers = file.backend.workers
    return {"cpu": workers.threads, "gpu": float(workers.devices[0] == "cuda")}


def note(folder: RunFolder, text: str) -> None:
    """Add to Ray's own log; there is none before the run folder is made."""
    with contextlib.suppress(OSError), files.append(folder.ray_log) as log:
        log.write(text.encode("utf-8", "replace"))


class _Stdout:
    """Standard output for the thread that made it; what other threads print (Ray's own do) goes to Ray's log."""

    def __init__(self, stream: TextIO, folder: RunFolder) -> None:
        self._stream, self._folder, self._thread = stream, folder, threading.get_ident()

    def write(self, text: str) -> int:
        if threading.get_ident() == self._thread:
            return self._stream.write(text)
        note(self._folder, text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def handlers_kept() -> Iterator[None]:
    """Ray and Tune listen to signals and go on listening; the process's own handlers are back afterwards."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                if handler is not None:  # None: not Python's
                    signal.signal(number, handler)


@contextlib.contextmanager
def _process_kept(folder: RunFolder) -> Iterator[None]:
    """Settings for Ray and Tune; the process's own environment, log levels and standard output afterwards."""
    before = dict(os.environ)
    logs = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.split(".")[0] == "ray"]
    levels = [(log, log.level) for log in logs]
    os.environ.update(_ENVIRONMENT)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(cast(TextIO, _Stdout(sys.stdout, folder))):
            yield
    finally:
        for log, level in levels:
            log.setLevel(level)
        for name in [name for name in {*os.environ, *before} if name.startswith(_RAYS_OWN)]:
            if name in before:
                os.environ[name] = before[name]
            else:
                del os.environ[name]


@contextlib.contextmanager
def cluster(file: SweepFile, folder: RunFolder) -> Iterator[None]:
    """The cluster at the file's address; one of this machine's own ends with the sweep.

    Raises:
        EnvironmentProblem: it does not answer, or no node of it can hold a trial.
    """
    ours = not ray.is_initialized()
    with _process_kept(folder):
        try:
            if ours:
                _start(file)
            _check_nodes(file)
            yield
        finally:
            if ours:
                ray.shutdown()


def _start(file: SweepFile) -> None:
    """Start a cluster, or join the one at the file's address."""
    workers, address = file.backend.workers, file.backend.address
    settings: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": logging.ERROR}
    threads = dict.fromkeys(THREAD_VARIABLES, str(workers.threads))
    settings["runtime_env"] = {"env_vars": threads}
    if address == "local":
        settings |= {"num_cpus": workers.n * workers.threads, "include_dashboard": False}
    try:
        host, _, port = address.rpartition(":")
        if host:  # Ray itself would wait for minutes
            socket.create_connection((host, int(port)), timeout=_PATIENCE_S).close()
        with handlers_kept():
            ray.init(**settings)
    except Exception as error:
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        text = f"backend.address: expected a Ray cluster that answers at {address!r}, got {said}."
        raise EnvironmentProblem(f"{text} Start one with: ray start --head") from error


def _check_nodes(file: SweepFile) -> None:
    """Some node can hold a trial."""
    needed = resources(file)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]  # Ray's own
    if not any(node.get("CPU", 0) >= needed["cpu"] and node.get("GPU", 0) >= needed["gpu"] for node in nodes):
        shown = ", ".join(f"{node.get('CPU', 0):g} CPU + {node.get('GPU', 0):g} GPU" for node in nodes)
        text = f"backend.workers: expected a node with {needed['cpu']} CPU and {needed['gpu']:g} GPU, got {shown}."
        raise EnvironmentProblem(text)
