"""Several machines, one study: what each is called, and how one knows that another still lives.

Every launcher on a storage that others can reach counts up a number in the study, every `BEAT_S` seconds, from a
thread. The others watch whether the number changes, each by its own clock, so no two clocks need agree. A launcher
knows its own workers by their processes, and they end within seconds when it is gone: one that has been silent for
`SILENCE_S` has none, and its trials may be taken over.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import optuna

BEAT_S = 5.0
SILENCE_S = 60.0
"""A machine that has been silent for this long loses its trials."""

_NAME = "LCSEARCH_MACHINE"
_RUN = "lcsearch:run:"


def here() -> str:
    """This machine's name; the environment variable LCSEARCH_MACHINE gives it another."""
    return os.environ.get(_NAME) or socket.gethostname()


class PeerHeartbeat:
    """Counts up in the study until :meth:`stop`."""

    def __init__(self, study: optuna.Study, run: str) -> None:
        self._study, self._key = study, _RUN + run
        self._stop = threading.Event()
        self._count = time.time_ns()  # a run that is resumed does not begin with a number it had before
        self._beat()
        self._thread = threading.Thread(target=self._go_on, name="heartbeat", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        self._count += 1
        self._study.set_user_attr(self._key, {"host": here(), "beat": self._count})

    def _go_on(self) -> None:
        while not self._stop.wait(BEAT_S):
            with suppress(Exception):  # a storage that does not answer now may at the next beat
                self._beat()

    def stop(self) -> None:
        """Fall silent."""
        self._stop.set()
        self._thread.join()


class PeerMonitor:
    """Knows for how long each run of a study has been silent, as far as one has listened."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heard: dict[str, tuple[object, float, bool]] = {}  # run -> (last number, since when, did it ever change)

    def listen(self, attributes: Mapping[str, Any]) -> None:
        """Take in the user attributes of the study."""
        for key, value in attributes.items():
            if key.startswith(_RUN) and isinstance(value, Mapping):
                self._note(key.removeprefix(_RUN), value.get("beat"))

    def _note(self, run: str, beat: object) -> None:
        before = self._heard.get(run)
        if before is None or before[0] != beat:
            self._heard[run] = (beat, self._clock(), before is not None)

    def silence(self, run: str) -> float:
        """Seconds since `run` was heard last, or since it was first asked for."""
        if run not in self._heard:
            self._note(run, None)
        return self._clock() - self._heard[run][1]

    def lives(self, run: str) -> bool:
        """Was `run` heard while one listened, and lately?"""
        return self.silence(run) < 3 * BEAT_S and self._heard[run][2]
