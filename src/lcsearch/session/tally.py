"""What a process counts of the looks at its studies."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Hashable
from dataclasses import dataclass, field

from lcsearch.stopping.verdict import Reason


@dataclass
class Tally:
    """What a process counts of a study's looks.

    Attributes:
        reasons: looks by what held or decided them.
        failed: forecasts and records that failed, so that the trial went on, by what failed.
        disobeyed: looks that came to a stop after which the trial reported on.
    """

    reasons: Counter[Reason] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    disobeyed: int = 0


class Tallies:
    """The tally of each study, by what a process remembers it by; None: of no study alone. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tallies: defaultdict[Hashable, Tally] = defaultdict(Tally)

    def count(self, reason: Reason, whose: Hashable) -> None:
        """A look that this held or decided."""
        with self._lock:
            self._tallies[whose].reasons[reason] += 1

    def count_failed(self, what: str, whose: Hashable = None) -> None:
        """A failure after which a trial went on."""
        with self._lock:
            self._tallies[whose].failed[what] += 1

    def count_disobeyed(self, whose: Hashable) -> None:
        """A trial that reported on after a look that had come to a stop."""
        with self._lock:
            self._tallies[whose].disobeyed += 1

    def of(self, whose: Hashable) -> Tally:
        """What was counted of a study, and failures of none; all that was counted where `whose` is None."""
        found = Tally()
        with self._lock:
            for study, tally in self._tallies.items():
                if whose is None or study == whose:
                    found.reasons += tally.reasons
                    found.disobeyed += tally.disobeyed
                if whose is None or study in (whose, None):
                    found.failed += tally.failed
        return found
