"""The worker processes of a run on this machine: start, watch, drain, kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass

from lcsearch.sweep.file import Workers
from lcsearch.sweep.folder import RunFolder

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True)
class Death:
    """A worker that ended: which, and how (an exit code >= 0, or minus a signal's number)."""

    slot: int
    pid: int
    code: int

    @property
    def how(self) -> str:
        """ "was killed (SIGKILL)" or "exited with code 1"."""
        if self.code >= 0:
            return f"exited with code {self.code}"
        try:
            return f"was killed ({signal.Signals(-self.code).name})"
        except ValueError:
            return f"was killed (signal {-self.code})"


class Fleet:
    """Slots 0..n-1, each empty or with one process.

    Every worker leads a process group of its own: Ctrl-C in the terminal reaches the launcher alone, and a kill
    takes the objective's children along.
    """

    def __init__(self, folder: RunFolder, workers: Workers, lock: int) -> None:
        self._folder, self._workers, self._lock = folder, workers, lock
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def pids(self) -> dict[int, int]:
        """slot -> pid of the workers that live."""
        return {slot: process.pid for slot, process in self._processes.items()}

    def empty_slots(self) -> list[int]:
        """Slots without a process."""
        return [slot for slot in range(self._workers.n) if slot not in self._processes]

    def start(self, slot: int) -> None:
        """Start a worker in an empty slot."""
        device, environment = self._device(slot)
        environment.update(dict.fromkeys(_THREAD_VARIABLES, str(self._workers.threads)))
        environment["PYTHONUNBUFFERED"] = "1"
        command = [sys.executable, "-m", "lcsearch.sweep.worker", str(self._folder.root)]
        command += ["--slot", str(slot), "--device", device]
        with self._folder.log(slot).open("ab") as log:
            self._processes[slot] = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                pass_fds=(self._lock,),  # the run is held as long as any worker lives
            )

    def _device(self, slot: int) -> tuple[str, dict[str, str]]:
        """The device as the worker sees it, and its environment: one GPU is all a worker is shown."""
        device = self._workers.devices[slot % len(self._workers.devices)]
        environment = dict(os.environ)
        if device.startswith("cuda:"):
            environment["CUDA_VISIBLE_DEVICES"] = device.removeprefix("cuda:")
            device = "cuda:0"
        return device, environment

    def reap(self) -> list[Death]:
        """The workers that ended since the last call."""
        deaths = []
        for slot, process in list(self._processes.items()):
            code = process.poll()
            if code is not None:
                if process.stdin is not None:
                    process.stdin.close()
                del self._processes[slot]
                deaths.append(Death(slot, process.pid, code))
        return deaths

    def drain(self) -> None:
        """Ask every worker to end at its next report."""
        for process in self._processes.values():
            with suppress(BrokenPipeError, ValueError):  # it may be gone already
                assert process.stdin is not None
                process.stdin.write(b"drain\n")
                process.stdin.flush()

    def kill(self) -> None:
        """Kill every worker and what it started, at once."""
        for process in self._processes.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for process in self._processes.values():
            process.wait()
