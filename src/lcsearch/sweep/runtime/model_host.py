"""One process that holds the model for all workers of this machine: begun by the launcher, begun anew where it dies.

Started as `python -m lcsearch.sweep.runtime.model_host ADDRESS READY_FILE --device D`, with its token in the
environment; the end of its standard input means that the launcher is gone, and ends it.
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from lcsearch import files
from lcsearch.errors import LcsearchError
from lcsearch.extras import SERVE, are_there
from lcsearch.host.device import LOADING_S
from lcsearch.host.link import TOKEN
from lcsearch.host.registry import HOST
from lcsearch.sweep.runtime.processes import allowed_gpus, count_gpus, how_ended, visible_gpu
from lcsearch.sweep.spec.model import SweepFile
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.store.studies import asks_network

START_S = 30.0
"""Seconds that workers wait for the model at first; it takes two or three. A GPU may take LOADING_S of its own."""
MOST_STARTS = 5
"""So many starts in a row of which none answered, and there is no other."""
_AGAIN_S = 1.0  # between two starts; twice as long after every one that did not answer
_END_S = 5.0


class ModelHost:
    """The host of a run's model.

    Args:
        folder: of the run; its log and its address lie there.
        file: of the sweep.
        tell: takes what has happened, in words.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        folder: RunFolder,
        file: SweepFile,
        tell: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ready, self._log, self._tell = folder.root / "host.json", folder.logs / "host.log", tell
        self._clock = clock
        self._device, self._gpu = free_device(file)
        self._token, self._url = secrets.token_urlsafe(), ""
        self._began, self._again = 0.0, 0.0
        self._answered = self._buried = False  # the process that was begun last
        self._failed, self._told = 0, ""  # starts in a row that did not answer, and what was told of the last death
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, ending: Callable[[], bool]) -> None:
        """Begin it, and wait until it answers, it dies, time is up, or `ending()`."""
        self._begin()
        end = self._clock() + START_S + (LOADING_S if self._device != "cpu" else 0)
        while not self._url and not ending() and self._clock() < end and self._lives():
            with suppress(OSError, ValueError, LcsearchError):
                self._url = str(files.loads(files.read(self._ready, 4096))["url"])
            time.sleep(0.05)
        if not self._url and not ending():
            self._tell(f"the model's host does not answer: every worker holds the model; see {self._log}")
            self.end()

    @property
    def environment(self) -> dict[str, str]:
        """What tells a worker where the model is."""
        return {HOST: self._url, TOKEN: self._token} if self._url else {}

    def look(self) -> None:
        """Begin it anew where it has died; workers hold the model themselves until it is back."""
        if not self._url or self._process is None:
            return
        lives = self._lives()
        self._answered = self._answered or self._ready.exists()  # the file outlives one that is killed
        if lives:
            return
        if not self._buried:
            self._bury(how_ended(self._process.returncode))
        if self._url and self._clock() >= self._again:
            self._begin()

    def end(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._close()
        self._process = None
        self._ready.unlink(missing_ok=True)

    def _bury(self, how: str) -> None:
        """Say how it ended, unless the one before it ended so, too, and when there is another."""
        self._close()
        self._buried = True
        if self._answered:
            self._failed, self._again = 0, self._began + _AGAIN_S
            said = f"the model's host {how}; another takes its place"
        else:
            self._failed += 1
            self._again = self._clock() + _AGAIN_S * 2 ** (self._failed - 1)
            said = f"the model's host {how} before it answered; it is begun anew"
        if self._failed == MOST_STARTS:
            self._url = ""  # workers that begin now look for none
            said = f"the model's host {how} before it answered, {MOST_STARTS} times in a row: it is given up, and "
            said += f"every worker holds the model itself; {self._log} says why"
        if self._answered or said != self._told:
            self._tell(said)
        self._told = said

    def _begin(self) -> None:
        self._began, self._answered, self._buried = self._clock(), False, False
        where = self._url.removeprefix("http://") or "127.0.0.1:0"  # workers know the address that it had
        self._ready.unlink(missing_ok=True)
        command = [sys.executable, "-m", "lcsearch.sweep.runtime.model_host", where, str(self._ready)]
        environment = {**os.environ, TOKEN: self._token, "OMP_NUM_THREADS": "1"}
        if self._gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = self._gpu
        with files.append(self._log) as log:
            self._process = subprocess.Popen(
                [*command, "--device", self._device],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    def _lives(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _close(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()


def pays(file: SweepFile) -> bool:
    """Whether one process for the model is better than one in every worker: for more than two, or where a GPU is free
    for it. Not where the file, the environment or the packages have it otherwise.
    """
    if file.backend.host != "auto" or HOST in os.environ or not asks_network(file) or not are_there(SERVE):
        return False
    return file.backend.workers.n > 2 or free_device(file)[0] != "cpu"


def free_device(file: SweepFile) -> tuple[str, str | None]:
    """Where the host computes: on the last GPU of this machine that no worker is given, else on the CPU; and what
    CUDA_VISIBLE_DEVICES says then."""
    named = {device for device in file.backend.workers.devices if device.startswith("cuda")}
    if not named or "cuda" in named:
        return "cpu", None  # workers that compute on the CPU choose a GPU themselves, or have all there are
    taken = {int(device.removeprefix("cuda:")) for device in named}
    allowed = allowed_gpus()
    n = (count_gpus() or 0) if allowed is None else len(allowed)
    free = [index for index in range(n) if index not in taken]
    return ("cuda", visible_gpu(free[-1])) if free else ("cpu", None)


def main() -> int:
    """The process's entry."""
    parser = argparse.ArgumentParser(prog="lcsearch.sweep.runtime.model_host", description="The model of a sweep.")
    parser.add_argument("address")
    parser.add_argument("ready", type=Path)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()

    def listen() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_END_S)
        os._exit(0)

    threading.Thread(target=listen, name="launcher", daemon=True).start()
    from lcsearch.host import command  # not where the launcher reads this

    try:
        command.serve(options.address, options.device, ready_file=options.ready)
    except LcsearchError as error:
        print(error, file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
