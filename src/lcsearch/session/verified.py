"""What making the decisions of a log again came to, for programs and in lines for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Mismatch:
    """A decision that comes out otherwise than it was recorded.

    Attributes:
        what: "trial 7, step 12", or "allocation 3".
        field: which of its numbers or words.
        recorded, found: as the log, or the study, has it; as it comes out.
    """

    what: str
    field: str
    recorded: object
    found: object

    def __str__(self) -> str:
        """One line."""
        return (
            f"{self.what}: {self.field} was recorded as {_shown(self.recorded)} and comes out as {_shown(self.found)}"
        )


@dataclass(frozen=True)
class Verified:
    """What came of it.

    Attributes:
        looks, allocations: how many were made again and came out as recorded.
        not_made_again: why some could not be -> how many.
        mismatch: the first that came out otherwise; None: there is none.
        missing: trials that the study has as stopped by a look of which the log says nothing.
        unlogged: such trials whose stop's record in the study is whole, where no line of the log is seen to be gone:
            uid -> step.
        cut: trials that the study has as cut by an allocator, in no allocation of the log.
        gone: lines that those behind them tell of.
        unread: places that are no record.
        notes: what else must be said.
    """

    looks: int = 0
    allocations: int = 0
    not_made_again: Mapping[str, int] = field(default_factory=dict)
    mismatch: Mismatch | None = None
    missing: tuple[str, ...] = ()
    unlogged: Mapping[str, float] = field(default_factory=dict)
    cut: tuple[str, ...] = ()
    gone: int = 0
    unread: int = 0
    notes: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        """Does nothing contradict the log, and is it all there? What could not be made again contradicts nothing."""
        return self.mismatch is None and not (self.missing or self.unlogged or self.cut or self.gone or self.unread)

    @property
    def lines(self) -> list[str]:
        """For people."""
        told = [f"! {note}" for note in self.notes]
        made = f"{self.looks} look{'s' * (self.looks != 1)} and {self.allocations} "
        made += f"allocation{'s' * (self.allocations != 1)} made again"
        if self.mismatch is not None:
            return [*told, f"MISMATCH {self.mismatch}", f"{made} before it, as recorded"]
        if n := len(self.missing):
            told.append(f"MISSING from this log: the stop{'s' * (n > 1)} of {_trials(self.missing)} of the study")
        if n := len(self.cut):
            told.append(
                f"MISSING from this log: the allocation{'s' * (n > 1)} that cut {_trials(self.cut)} of the study"
            )
        if n := self.gone:
            what = f"{n} lines are" if n > 1 else "a line is"
            told.append(f"GONE from this log: {what} missing before others, taken out or never written")
        if n := len(self.unlogged):
            steps = [f"{uid} (step {step:g})" for uid, step in self.unlogged.items()]
            text = f"NOT IN THIS LOG: the look{'s' * (n > 1)} that stopped {_trials(steps)}, whose record"
            text += f"{'s' * (n > 1)} the study holds whole. A process that is killed between the two leaves this; so "
            told.append(f"{text}does a log that lost its last lines, or a file")
        told.append(f"{made}{': each came out as recorded' * (self.looks + self.allocations > 0)}")
        told += [f"cannot be recomputed: {n} {why}" for why, n in self.not_made_again.items()]
        if not self.looks + self.allocations:
            told.append("nothing was verified")
        return told


def _trials(uids: Sequence[str]) -> str:
    """ "trial 7", or "trials 1, 2, 3, 4, 5 and 3 more"."""
    more = f" and {len(uids) - 5} more" if len(uids) > 5 else ""
    return f"trial{'s' * (len(uids) > 1)} {', '.join(uids[:5])}{more}"


def _shown(value: object) -> str:
    return f"{value:.9g}" if isinstance(value, float) else str(value)
