"""Stalled trials: what a launcher finds in the pulses of its workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lcsearch.sweep.runtime import liveness
from lcsearch.sweep.store.folder import RunFolder

_DEAF_S = 10.0  # a pulse this old is told


@dataclass(frozen=True)
class Stall:
    """A trial that is overdue. `text`: what to say, the first time; `kill`: its worker is to be killed."""

    slot: int
    trial: int
    seconds: float
    text: str
    kill: bool


class Stalls:
    """Reads the workers' pulses and finds trials that have been silent for much longer than is their way."""

    def __init__(
        self, folder: RunFolder, kill_after: float | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder, self._kill_after, self._clock = folder, kill_after, clock
        self._paces: dict[int, float] = {}  # trial -> median seconds between its reports
        self._told: set[tuple[int, float]] = set()

    def look(self, pids: Mapping[int, int]) -> list[Stall]:
        """What is overdue now; `pids`: slot -> worker."""
        found = []
        for slot, pid in pids.items():
            vital = liveness.read(self._folder.pulse(slot))
            if vital is None or vital.pid != pid or vital.trial is None:
                continue
            if vital.gap is not None:
                self._paces[vital.trial] = vital.gap
            others = [pace for trial, pace in self._paces.items() if trial != vital.trial]
            now = self._clock()
            # a process that answers has said how long it is; one that does not may have reported since it last spoke
            seconds = max(vital.at - vital.since, now - vital.since - liveness.LATE_S)
            limit = liveness.patience(vital, others)
            kill = self._kill_after is not None and seconds > self._kill_after
            if seconds <= limit and not kill:
                continue
            key = (pid, vital.since)
            text = "" if key in self._told else self._words(slot, vital, seconds)
            self._told.add(key)
            if kill:
                text = f"{text or self._words(slot, vital, seconds)}; killed after {self._kill_after:g} s"
            found.append(Stall(slot, vital.trial, seconds, text, kill))
        return found

    def _words(self, slot: int, vital: liveness.Heartbeat, seconds: float) -> str:
        text = f"trial {vital.trial} in worker {slot} has not reported for {seconds:.0f} s"
        if vital.gap is not None:
            text += f", it used to every {vital.gap:.2g} s"
        if (deaf := self._clock() - vital.at) > _DEAF_S:
            text += f"; its process has not answered for {deaf:.0f} s"
        return f"{text} (see {self._folder.log(slot)})"
