"""The other machines of a study, as a launcher sees them: which trials they have, and which of them are gone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import optuna
from optuna.trial import FrozenTrial

from lcsearch.sweep.store import heartbeat, ownership
from lcsearch.sweep.store.folder import RunFolder

_SETTLE_S = 1.0  # other machines that want the same trial have said so by then


class Peers:
    """Listens to the other machines, and takes over the trials of those that are gone."""

    def __init__(
        self, study: optuna.Study, folder: RunFolder, retries: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._study, self._folder, self._retries, self._clock = study, folder, retries, clock
        self._run = folder.identity()
        self._ear = heartbeat.PeerMonitor(clock)
        self._wanted: dict[int, float] = {}  # trial of a silent machine -> when this run said that it wants it

    def trials(self, trials: list[FrozenTrial]) -> list[ownership.RemoteTrial]:
        """The running trials of other machines."""
        return list(ownership.foreign(trials, self._run))

    def uncertain(self, trials: list[FrozenTrial]) -> bool:
        """Do trials run on machines that may be gone? One that is heard of looks after its own."""
        return any(not self._ear.lives(other.run) for other in self.trials(trials))

    def reclaim_orphans(self, trials: list[FrozenTrial]) -> Iterator[str]:
        """Take over what machines that are gone have left; says what was done. To be called again and again."""
        self._ear.listen(self._study.user_attrs)
        others = {other.number: other for other in self.trials(trials)}
        self._wanted = {number: since for number, since in self._wanted.items() if number in others}
        for number, other in others.items():
            if self._ear.silence(other.run) < heartbeat.SILENCE_S:
                self._wanted.pop(number, None)
            elif number not in self._wanted:
                if not self._rival(other):
                    ownership.request_takeover(self._study, self._folder, number)
                    self._wanted[number] = self._clock()
            elif self._clock() - self._wanted[number] >= _SETTLE_S:
                del self._wanted[number]
                given = ownership.take_over(self._study, self._folder, other, self._retries)
                if given is not None:
                    yield self._words(other, given)

    def _rival(self, other: ownership.RemoteTrial) -> bool:
        """Has another machine that lives said that it wants the trial?"""
        who = other.claimant
        return who is not None and who not in (other.run, self._run) and self._ear.silence(who) < heartbeat.SILENCE_S

    def _words(self, other: ownership.RemoteTrial, given: ownership.RequeuedTrial) -> str:
        head = f"{other.host} has been silent for {heartbeat.SILENCE_S:g} s; trial {given.number}"
        if given.given_up:
            return f"{head} is marked failed after {given.retry - 1} retries"
        return f"{head} begins anew here: its checkpoints are there (retry {given.retry} of {self._retries})"
