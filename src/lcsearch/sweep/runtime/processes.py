"""The worker processes of a run on this machine: start, watch, drain, kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lcsearch import files
from lcsearch.errors import EnvironmentProblem
from lcsearch.sweep.spec.model import Workers
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.store.worker_log import told

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True)
class Death:
    """A worker that ended: which, and how (an exit code >= 0, or minus a signal's number)."""

    slot: int
    pid: int
    code: int

    @property
    def how(self) -> str:
        """See :func:`how_ended`."""
        return how_ended(self.code)


def how_ended(code: int) -> str:
    """ "was killed (SIGKILL)" or "exited with code 1"."""
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was killed ({signal.Signals(-code).name})"
    except ValueError:
        return f"was killed (signal {-code})"


def allowed_gpus() -> list[str] | None:
    """The names in `CUDA_VISIBLE_DEVICES`; None: any GPU may be used."""
    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    return None if said is None else [name.strip() for name in said.split(",") if name.strip()]


def visible_gpu(index: int) -> str:
    """GPU `index` of those this process may use, as `CUDA_VISIBLE_DEVICES` names it: in an allocation `4,5`, 0 is 4.

    Raises:
        EnvironmentProblem: there are not so many.
    """
    names = allowed_gpus()
    if names is None:
        return str(index)
    if index >= len(names):
        said = os.environ["CUDA_VISIBLE_DEVICES"]
        text = f"backend.workers.devices: expected cuda:{index} among CUDA_VISIBLE_DEVICES, got {said!r}."
        raise EnvironmentProblem(f"{text} cuda:N counts within it, from 0.")
    return names[index]


def check_devices(workers: Workers) -> None:
    """Every device that `workers` name is there to be used, as far as can be seen without torch.

    Raises:
        EnvironmentProblem: one is not.
    """
    for device in workers.devices:
        kind, _, index = device.partition(":")
        where = f"backend.workers.devices: expected {device}"
        if kind == "mps" and sys.platform != "darwin":
            raise EnvironmentProblem(f"{where} on a Mac, got {sys.platform}.")
        if kind == "cuda":
            visible_gpu(int(index or 0))
            # which GPUs an allocation's names stand for is not looked at, but there must be one
            needed = 1 if "CUDA_VISIBLE_DEVICES" in os.environ else int(index or 0) + 1
            found = count_gpus()
            if found is not None and found < needed:
                raise EnvironmentProblem(f"{where}, got {found or 'no'} GPU{'s' * (found != 1)} on this machine.")


def count_gpus() -> int | None:
    """How many GPUs `nvidia-smi` lists, or the kernel where that is missing; None: they are of another kind."""
    if any(Path("/dev", name).exists() for name in ("kfd", "dxg", "nvhost-gpu", "nvmap")):
        return None  # AMD, WSL, Jetson
    with suppress(OSError, subprocess.TimeoutExpired):
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, errors="replace", timeout=60)
        return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


class Fleet:
    """Slots 0..n-1, each empty or with one process.

    Every worker leads a process group of its own: Ctrl-C in the terminal reaches the launcher alone, and a kill
    takes the objective's children along.
    """

    def __init__(self, folder: RunFolder, workers: Workers, lock: int) -> None:
        self._folder, self._workers, self._lock = folder, workers, lock
        self.environment: dict[str, str] = {}  # of workers that are started from now on, beside the launcher's
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._told_before: dict[int, int] = {}  # slot -> bytes that it had told when its last worker was started

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
        environment.update(dict.fromkeys(THREAD_VARIABLES, str(self._workers.threads)))
        environment["PYTHONUNBUFFERED"] = "1"
        environment.update(self.environment)
        command = [sys.executable, "-m", "lcsearch.sweep.runtime.worker", str(self._folder.root)]
        command += ["--slot", str(slot), "--device", device, "--lock", str(self._lock)]
        with files.append(self._folder.log(slot)) as log:
            self._told_before[slot] = self._size(slot)
            self._processes[slot] = subprocess.Popen(
                command,
                bufsize=0,  # what a worker that is gone was not told is not told again as its pipe is closed
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
            environment["CUDA_VISIBLE_DEVICES"] = visible_gpu(int(device.removeprefix("cuda:")))
            device = "cuda:0"
        return device, environment

    def told(self, slot: int) -> list[dict[str, Any]]:
        """What the last worker of `slot` told of its trials and itself, see :mod:`lcsearch.sweep.store.worker_log`."""
        return list(told(self._folder.told(slot), self._told_before[slot]))

    def _size(self, slot: int) -> int:
        try:
            return self._folder.told(slot).stat().st_size
        except OSError:
            return 0

    def reap(self) -> list[Death]:
        """The workers that ended since the last call."""
        deaths = []
        for slot, process in list(self._processes.items()):
            code = process.poll()
            if code is not None:
                if process.stdin is not None:
                    process.stdin.close()
                with suppress(ProcessLookupError, PermissionError):  # its children must not go on with its trial
                    os.killpg(process.pid, signal.SIGKILL)
                del self._processes[slot]
                deaths.append(Death(slot, process.pid, code))
        return deaths

    def kill_one(self, slot: int) -> None:
        """Kill the worker of `slot` and what it started; `reap` tells of its death."""
        with suppress(ProcessLookupError):
            os.killpg(self._processes[slot].pid, signal.SIGKILL)

    def drain(self) -> None:
        """Ask every worker to end at its next report."""
        self._tell(b"drain\n")

    def hurry(self) -> None:
        """Ask every worker to kill its program and to end when it has kept what that printed; does not wait."""
        self._tell(b"hurry\n")

    def _tell(self, line: bytes) -> None:
        for process in list(self._processes.values()):
            with suppress(BrokenPipeError, ValueError):  # it may be gone already
                assert process.stdin is not None
                process.stdin.write(line)

    def wait(self, seconds: float) -> None:
        """Until every worker has ended, for so long at most."""
        deadline = time.monotonic() + seconds
        for process in self._processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))

    def kill_nowait(self) -> None:
        """Kill every worker and what it started, at once and without waiting: a signal's handler may do it."""
        for process in list(self._processes.values()):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)

    def kill(self) -> None:
        """Kill every worker and what it started, and wait for their ends."""
        self.kill_nowait()
        for process in self._processes.values():
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
