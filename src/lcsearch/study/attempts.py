"""A trial's reports over all its attempts: what one says otherwise than a dead one did takes the place of that, and of
all that came after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_NOTHING: Mapping[int, float] = MappingProxyType({})


class Attempts:
    """What a trial has reported, as far as it counts.

    An attempt that goes on from a checkpoint begins with a later step, and what lies before it stays; one that begins
    at its start, and comes to the same values, only repeats them.

    Attributes:
        values: step -> value, what counts.
    """

    def __init__(self, values: Mapping[int, float] = _NOTHING) -> None:
        self.values: dict[int, float] = dict(sorted(values.items()))
        self.begin()

    def begin(self) -> None:
        """Another attempt begins: the last one is dead."""
        self._here: set[int] = set()
        self._top = max(self.values, default=-1)  # the last step that dead ones had reached

    def repeats(self, step: int, value: float) -> bool:
        """Is a report nothing new? Within one attempt the first report of a step counts."""
        known = self.values.get(step)
        same = known is not None and (known == value or (known != known and value != value))
        return same or step in self._here

    def cuts(self, step: int, value: float) -> set[int]:
        """The later steps that would count no more with a report."""
        return set() if self.repeats(step, value) else self._dead(step) - {step}

    def take(self, step: int, value: float) -> None:
        """Take in a report of the attempt that runs; what it :meth:`cuts` counts no more."""
        if not self.repeats(step, value):
            self._cut(step)
        if step not in self._here:
            self.values.setdefault(step, value)
        self._here.add(step)

    def end(self) -> None:
        """The attempt has come to its end. One that reported nothing had found all done."""
        if self._here:
            self._cut(max(self._here) + 1)

    def _dead(self, first: int) -> set[int]:
        """What only dead attempts have reported from a step on."""
        return {step for step in self.values if step >= first} - self._here if first <= self._top else set()

    def _cut(self, first: int) -> None:
        for step in self._dead(first):
            del self.values[step]
        self._top = min(self._top, first - 1)
