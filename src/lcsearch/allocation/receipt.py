"""The receipt of an allocation: who got the slots, against whom and why, so that it can be made again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from lcsearch.allocation.ask import AllocationAsk, ask
from lcsearch.allocation.contract import Abilities, Account, Allocation, Allocator, Move, Resources, Slots, Wait
from lcsearch.allocation.named import knobs_of
from lcsearch.curves import Curve
from lcsearch.errors import InvalidValue
from lcsearch.goal import Goal
from lcsearch.study import FinishedTrials, Snapshot, Status, Trial, uid_sort_key

_MOST = 10**7  # trials of one range: a damaged record must not fill the memory
AGAINST = 5
"""Waiting trials that a receipt names, the nearest to a slot first."""
_LETTERS = {Status.RUNNING: "R", Status.PAUSED: "P"}
_STATUSES = {letter: status for status, letter in _LETTERS.items()}


class Stood(NamedTuple):
    """How far a trial had come that had not ended.

    Attributes:
        status: RUNNING or PAUSED.
        n: its reports.
        last: the largest step of them; None without one, and in receipts of earlier versions.
        first: the smallest, where all of them are evenly spaced, so that the three tell every step; else None.
    """

    status: Status
    n: int
    last: float | None = None
    first: float | None = None

    @classmethod
    def of(cls, trial: Trial) -> Stood:
        """The trial as it stands."""
        steps = trial.curve.reports()[0]
        if not steps.size:
            return cls(trial.status, 0)
        first, last = float(steps[0]), float(steps[-1])
        even = np.array_equal(steps, np.linspace(first, last, steps.size))
        return cls(trial.status, steps.size, last, first if even else None)

    def again(self, trial: Trial) -> Trial:
        """The trial as it stood, from what it has reported by now.

        Raises:
            InvalidValue: that does not tell: reports of earlier steps came later, or some are gone.
        """
        steps, values = trial.curve.reports()
        if not self.n or (self.last is None and self.n <= steps.size):
            curve = trial.curve.cut(float(steps[self.n - 1]) if self.n else -math.inf)
        else:
            curve = trial.curve.cut(math.inf if self.last is None else self.last)
        if curve.n_reports != self.n and self.first is not None and self.last is not None:
            then = np.isin(steps, np.linspace(self.first, self.last, self.n))
            curve = Curve.of(steps[then], values[then])
        if curve.n_reports != self.n:
            to = "" if self.last is None else f" up to step {self.last:g}"
            expected = f"the {self.n} report{'s' * (self.n != 1)}{to} that trial {trial.uid} had then"
            what = "Reports of earlier steps came later, or some are gone: this allocation cannot be made again"
            raise InvalidValue(expected, curve.n_reports, "asked(trials=)", what)
        return replace(trial, curve=curve, status=self.status)

    def to_text(self) -> str:
        """In a few letters: "P9@1:9", or "P9@9" where steps are not evenly spaced."""
        text = f"{_LETTERS[self.status]}{self.n}"
        if self.last is None:
            return text
        return (
            f"{text}@{_short(self.last)}" if self.first is None else f"{text}@{_short(self.first)}:{_short(self.last)}"
        )

    @classmethod
    def from_text(cls, text: str) -> Stood:
        """Read :meth:`to_text` back.

        Raises:
            KeyError, IndexError, ValueError: it is none.
        """
        n, _, steps = text[1:].partition("@")
        first, _, last = steps.rpartition(":")
        return cls(_STATUSES[text[0]], int(n), float(last) if last else None, float(first) if first else None)


def _short(step: float) -> str:
    """A step with all its digits."""
    return str(int(step)) if step.is_integer() else repr(step)


@dataclass(frozen=True)
class AllocationReceipt:
    """One allocation. Equal histories give equal receipts.

    Attributes:
        study: name of the study.
        allocator: who gave the slots away.
        knobs: what it was made with.
        key: the allocation's seed; its last number counts the study's allocations.
        state: the allocator's before it.
        slots: what was free, and the account.
        pauses: could trials be paused?
        finished: uids of the finished trials, in the order in which they were known.
        live: the other trials, uid -> how far they had come.
        moves, stops: what came of it.
        against: the first of those that got nothing, and `n_waiting` of them in all.
        failed: why the slots went to RunToEnd instead; "" when they did not.
    """

    study: str
    allocator: str
    knobs: Mapping[str, Any]
    key: tuple[int, ...]
    state: Any
    slots: Slots
    pauses: bool
    finished: tuple[str, ...]
    live: Mapping[str, Stood]
    moves: tuple[Move, ...]
    stops: tuple[tuple[str, str], ...]
    against: tuple[Wait, ...]
    n_waiting: int
    failed: str = ""

    @classmethod
    def of(cls, asked: AllocationAsk, made: Allocation, failed: str = "") -> AllocationReceipt:
        """The receipt of what came of an ask."""
        seen = asked.snapshot
        live = {t.uid: Stood.of(t) for t in sorted(seen.live, key=lambda t: uid_sort_key(t.uid))}
        return cls(
            seen.study,
            asked.allocator.name,
            knobs_of(asked.allocator),
            asked.key,
            asked.state,
            asked.slots,
            asked.abilities.pause,
            tuple(trial.uid for trial in seen.bank),
            live,
            made.moves,
            made.stops,
            made.waits[:AGAINST],
            len(made.waits),
            failed,
        )

    @property
    def number(self) -> int:
        """Which of the study's allocations it was, from 0."""
        return self.key[-1]

    def to_record(self) -> dict[str, Any]:
        """Plain values for one JSON line."""
        return {
            "allocation": self.number,
            "study": self.study,
            "allocator": {"kind": self.allocator, **self.knobs},
            "key": list(self.key),
            "state": self.state,
            "free": self.slots.free,
            "n_new_allowed": self.slots.n_new_allowed,
            "account": self.slots.account._asdict(),
            **({} if self.slots.here is None else {"here": self.slots.here}),
            "pauses": self.pauses,
            "finished": _packed(self.finished),
            "live": {uid: stood.to_text() for uid, stood in self.live.items()},
            "moves": [_move_record(move) for move in self.moves],
            "stops": [list(stop) for stop in self.stops],
            "against": [list(wait) for wait in self.against],
            "n_waiting": self.n_waiting,
            **({"failed": self.failed} if self.failed else {}),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> AllocationReceipt:
        """Read :meth:`to_record` back; what else stands in the record is passed over.

        Raises:
            InvalidValue: it is the record of no allocation.
        """
        try:
            kind = dict(record["allocator"])
            return cls(
                str(record["study"]),
                str(kind.pop("kind")),
                kind,
                tuple(int(part) for part in record["key"]),
                record["state"],
                Slots(
                    int(record["free"]),
                    int(record["n_new_allowed"]),
                    Account(**record["account"]),
                    None if (here := record.get("here")) is None else str(here),
                ),
                bool(record["pauses"]),
                tuple(uid for part in record["finished"] for uid in _unpacked(part)),
                {str(uid): Stood.from_text(text) for uid, text in record["live"].items()},
                tuple(_move_of(move) for move in record["moves"]),
                tuple((str(uid), str(why)) for uid, why in record["stops"]),
                tuple(
                    Wait(str(u), int(rank), int(of), str(by), str(needs))
                    for u, rank, of, by, needs in record["against"]
                ),
                int(record["n_waiting"]),
                str(record.get("failed", "")),
            )
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise InvalidValue("the record of an allocation", record, "AllocationReceipt.from_record") from error

    def asked(self, allocator: Allocator, goal: Goal, trials: Mapping[str, Trial]) -> AllocationAsk:
        """The ask as it was, from what the trials have reported since: put its queries to the same forecasters and
        :func:`~lcsearch.allocation.judge.judge` it, and the same moves come of it.

        Args:
            allocator: made with the receipt's knobs.
            goal: the study's.
            trials: uid -> trial as it stands now or later.

        Raises:
            InvalidValue: a trial that the receipt names is not there, or its reports of then cannot be told.
        """

        def then(uid: str) -> Trial:
            if uid not in trials:
                raise InvalidValue("every trial that the receipt names", f"no trial {uid!r}", "asked(trials=)")
            return trials[uid]

        bank = FinishedTrials(goal).extend(then(uid) for uid in self.finished)
        live = tuple(stood.again(then(uid)) for uid, stood in self.live.items())
        snapshot = Snapshot(self.study, goal, bank, live)
        return ask(allocator, self.state, snapshot, Abilities(pause=self.pauses), self.slots, self.key)

    def story(self, uid: str) -> str | None:
        """What this allocation meant for a trial, in one line; None when it says nothing of it."""
        n = f"allocation {self.number} ({self.allocator})"
        for move in self.moves:
            if move.uid == uid:
                return f"{n}: got a slot until step {move.pause_at:g}: {move.why}{self._beside}"
        for stopped, why in self.stops:
            if stopped == uid:
                return f"{n}: cut: {why}"
        for wait in self.against:
            if wait.uid == uid:
                return f"{n}: {wait}"
        return None

    @property
    def _beside(self) -> str:
        if not self.against:
            return ""
        first = self.against[0]
        return f" (before {self.n_waiting} others, the nearest trial {first.uid}: rank {first.rank} of {first.of})"

    @property
    def lines(self) -> list[str]:
        """Who got the slots and who was cut, a line each; those that were cut for one reason in one."""
        return self.told()

    def told(self, step: str = "step", *, cuts: bool = True) -> list[str]:
        """The lines; `step` is what a step is called."""
        found = []
        for move in self.moves:
            who = "a new configuration" if move.uid is None else f"trial {move.uid}"
            why = "" if move.uid is None and move.why == who else f": {move.why}"
            found.append(f"{who} until {step} {move.pause_at:g}{why}")
        reasons: dict[str, list[str]] = {}
        for uid, why in self.stops if cuts else ():
            reasons.setdefault(why, []).append(uid)
        for why, uids in reasons.items():
            more = f" and {len(uids) - AGAINST} more" if len(uids) > AGAINST else ""
            who = f"trials {', '.join(uids[:AGAINST])}{more} are" if len(uids) > 1 else f"trial {uids[0]} is"
            found.append(f"{who} cut: {why}")
        return found


def _packed(uids: Sequence[str]) -> list[str]:
    """Uids in their order; numbers that follow each other as one range, "3-17", for a study may have thousands."""
    found: list[list[str]] = []
    for uid in uids:
        last = found[-1][-1] if found else ""
        if last.isdecimal() and str(int(last)) == last and str(int(last) + 1) == uid:
            found[-1][1:] = [uid]
        else:
            found.append([uid])
    return ["-".join(part) if len(part) > 1 else _alone(part[0]) for part in found]


def _alone(uid: str) -> str:
    """A uid that no range is taken for."""
    return f"{uid}-" if "-" in uid else uid


def _unpacked(part: str) -> Iterator[str]:
    """The uids of one entry of :func:`_packed`."""
    first, dash, last = part.partition("-")
    if dash and first.isdecimal() and last.isdecimal():
        if int(last) - int(first) > _MOST:
            raise ValueError(part)
        yield from map(str, range(int(first), int(last) + 1))
    else:
        yield part.removesuffix("-") if dash else part


def _move_record(move: Move) -> dict[str, Any]:
    record: dict[str, Any] = {"uid": move.uid, "pause_at": move.pause_at, "score": move.score, "why": move.why}
    if move.propensity != 1.0:
        record["propensity"] = move.propensity
    if move.proposal is not None:
        record["proposal"] = dict(move.proposal)
    if move.resources is not None:
        record["resources"] = list(move.resources)
    return record


def _move_of(record: Mapping[str, Any]) -> Move:
    resources, uid = record.get("resources"), record["uid"]
    return Move(
        None if uid is None else str(uid),
        float(record["pause_at"]),
        float(record["score"]),
        str(record["why"]),
        float(record.get("propensity", 1.0)),
        record.get("proposal"),
        None if resources is None else Resources(*map(float, resources)),
    )
