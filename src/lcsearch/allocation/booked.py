"""What each allocation brought: the change of P(it beats the best value seen) from one forecast of a trial to the next.

After MRT, "Optimizing Test-Time Compute via Meta Reinforcement Finetuning" (Qu et al. 2025): the reward of a block of
steps is P(success) after it less P(success) before it. Of a calibrated forecast its mean is 0, so it is booked, and
nothing is ranked by it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from lcsearch.allocation.receipt import AllocationReceipt


class Booked(NamedTuple):
    """One entry.

    Attributes:
        uid: the trial.
        number: the allocation that gave it the turn between the two forecasts; None where it had none, and only others
            have changed what it has to beat, or what is known.
        before: P(it beats the best value seen) as it was forecast before.
        after: as it is now.
        steps: that it has trained in between.
    """

    uid: str
    number: int | None
    before: float
    after: float
    steps: float

    @property
    def gain(self) -> float:
        """The change of P, in [-1, 1]. A trial's gains add up to its last P less its first."""
        return self.after - self.before


def booked(receipts: Iterable[AllocationReceipt]) -> list[Booked]:
    """The entries of all trials, in the order of the allocations that forecast them again.

    Nothing is asked for it: where an allocator asks nobody, or not about a trial, nothing is booked.

    Args:
        receipts: of one study, in their order.
    """
    last: dict[str, tuple[float, float, int | None]] = {}  # uid -> P, step, the turn since
    found = []
    for receipt in receipts:
        for uid, p in receipt.chances.items():
            stood = receipt.live.get(uid)
            step = 0.0 if stood is None or stood.last is None else max(stood.last, 0.0)
            if uid in last:
                before, at, by = last[uid]
                found.append(Booked(uid, by, before, p, step - at))
            last[uid] = (p, step, None)
        for move in receipt.moves:
            if move.uid is not None and move.uid in last:
                p, step, _ = last[move.uid]
                last[move.uid] = (p, step, receipt.number)
    return found


def told(receipts: Iterable[AllocationReceipt], uid: str, step: str = "step") -> str | None:
    """A trial's entries in one line; None where nothing is booked for it.

    Args:
        receipts: see :func:`booked`.
        uid: the trial.
        step: what a step is called.
    """
    entries = [entry for entry in booked(receipts) if entry.uid == uid]
    if not entries:
        return None
    own = [entry for entry in entries if entry.number is not None]
    steps, gain = sum(entry.steps for entry in own), sum(entry.gain for entry in own)
    text = f"P(it beats the best seen) went from {entries[0].before:.1%} to {entries[-1].after:.1%}"
    turns = f"{len(own)} turn{'s' * (len(own) != 1)}"
    took = f"{steps:g} {step}{'s' * (steps != 1)}"
    return f"{text}: {gain:+.1%} in {turns} of its own ({took}), {_rest(entries):+.1%} while it waited"


def _rest(entries: Iterable[Booked]) -> float:
    return sum(entry.gain for entry in entries if entry.number is None)
