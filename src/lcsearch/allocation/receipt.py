"""The receipt of an allocation: who got the slots, against whom and why, so that it can be made again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lcsearch.allocation.ask import AllocationAsk, ask
from lcsearch.allocation.contract import Abilities, Account, Allocation, Allocator, Move, Resources, Slots, Time, Wait
from lcsearch.allocation.curriculum import chances, together
from lcsearch.allocation.named import knobs_of
from lcsearch.allocation.rungs import best_seen
from lcsearch.errors import InvalidValue
from lcsearch.forecast.contract import Answers, judged_kind
from lcsearch.goal import Goal
from lcsearch.study import Status, Trial, uid_sort_key
from lcsearch.study.moment import Moment
from lcsearch.study.stood import Stood, packed, unpacked

_DIGITS = 6  # of a probability
ALLOCATED = "allocated"
"""Of a trial's stop records: an allocation cut it, whose receipt names it; others ended where they were paused."""
AGAINST = 5
"""Waiting trials that a receipt names, the nearest to a slot first."""


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
        goal: the study's then; None in receipts of earlier versions, as the two below.
        ended: "STOPPED" and "FAILED" -> the uids of `finished` that had ended so.
        digest: of all curves, see :func:`lcsearch.study.moment.digest_of`.
        chances: P(it beats the best value seen, by the horizon) of the trials that were forecast for this allocation,
            uid -> P, see :func:`lcsearch.allocation.booked.booked`.
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
    goal: Goal | None = None
    ended: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    digest: str = ""
    chances: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls, asked: AllocationAsk, made: Allocation, failed: str = "", answers: Answers | None = None
    ) -> AllocationReceipt:
        """The receipt of what came of an ask, and of the answers to its questions."""
        seen = asked.snapshot
        moment = Moment.of(seen)
        return cls(
            seen.study,
            asked.allocator.name,
            knobs_of(asked.allocator),
            asked.key,
            asked.state,
            asked.slots,
            asked.abilities.pause,
            moment.finished,
            moment.live,
            made.moves,
            made.stops,
            made.waits[:AGAINST],
            len(made.waits),
            failed,
            moment.goal,
            moment.ended,
            moment.digest,
            _chances(asked, answers or {}),
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
            "account": _account_record(self.slots.account),
            **({} if self.slots.here is None else {"here": self.slots.here}),
            "pauses": self.pauses,
            **self._moment_record(),
            "moves": [_move_record(move) for move in self.moves],
            "stops": [list(stop) for stop in self.stops],
            "against": [list(wait) for wait in self.against],
            "n_waiting": self.n_waiting,
            **({"failed": self.failed} if self.failed else {}),
            **({"chances": dict(self.chances)} if self.chances else {}),
        }

    def _moment_record(self) -> dict[str, Any]:
        if self.goal is not None:
            return self.moment(self.goal).to_record()
        return {"finished": packed(self.finished), "live": {uid: one.to_text() for uid, one in self.live.items()}}

    def moment(self, goal: Goal) -> Moment:
        """The study as it was then; `goal` is its goal."""
        return Moment(goal, self.finished, self.ended, self.live, digest=self.digest)

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
                    _account_of(record["account"]),
                    None if (here := record.get("here")) is None else str(here),
                ),
                bool(record["pauses"]),
                tuple(uid for part in record["finished"] for uid in unpacked(part)),
                {str(uid): Stood.from_text(text) for uid, text in record["live"].items()},
                tuple(_move_of(move) for move in record["moves"]),
                tuple((str(uid), str(why)) for uid, why in record["stops"]),
                tuple(
                    Wait(str(u), int(rank), int(of), str(by), str(needs))
                    for u, rank, of, by, needs in record["against"]
                ),
                int(record["n_waiting"]),
                str(record.get("failed", "")),
                **_since(record),
                chances={str(uid): float(p) for uid, p in record.get("chances", {}).items()},
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
        ended = self.ended
        if self.goal is None:  # an earlier version did not say
            known = [(uid, trials[uid].status) for uid in self.finished if uid in trials]
            ended = {s.name: tuple(u for u, status in known if status is s) for s in (Status.STOPPED, Status.FAILED)}
        snapshot = replace(self, ended=ended).moment(goal).again(self.study, trials)
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
            why = "" if move.uid is None and move.why == who else f": {move.why.removeprefix(f'{who}; ')}"
            found.append(f"{who} until {step} {move.pause_at:g}{why}")
        reasons: dict[str, list[str]] = {}
        for uid, why in self.stops if cuts else ():
            reasons.setdefault(why, []).append(uid)
        for why, uids in reasons.items():
            more = f" and {len(uids) - AGAINST} more" if len(uids) > AGAINST else ""
            who = f"trials {', '.join(uids[:AGAINST])}{more} are" if len(uids) > 1 else f"trial {uids[0]} is"
            found.append(f"{who} cut: {why}")
        return found


def _account_record(account: Account) -> dict[str, Any]:
    record, time = account._asdict(), account.time
    del record["time"]
    if time is None:
        return record
    uids: dict[float, list[str]] = {}  # paces are rounded: many are one
    for uid in sorted(time.paces, key=uid_sort_key):
        uids.setdefault(time.paces[uid], []).append(uid)
    return {**record, "time": [time.left, time.usual, [[pace, packed(those)] for pace, those in sorted(uids.items())]]}


def _account_of(record: Mapping[str, Any]) -> Account:
    account = Account(**record)
    if "time" not in record:
        return account
    left, usual, known = record["time"]
    paces = {uid: float(pace) for pace, parts in known for part in parts for uid in unpacked(part)}
    return account._replace(time=Time(float(left), float(usual), paces))


def _since(record: Mapping[str, Any]) -> dict[str, Any]:
    """What receipts of earlier versions do not have."""
    if "goal" not in record:
        return {}
    moment = Moment.from_record(record)
    return {"goal": moment.goal, "ended": moment.ended, "digest": moment.digest}


def _chances(asked: AllocationAsk, answers: Answers) -> dict[str, float]:
    """P(it beats the best value seen) of the trials whose judged value was asked for."""
    queries, best = asked.queries, best_seen(asked.snapshot)
    if not queries or not answers or not math.isfinite(best):
        return {}
    goal = asked.snapshot.goal
    with np.errstate(all="ignore"):
        found = chances(together(answers, len(queries)), best).tolist()
    return {
        query.trial.uid: round(p, _DIGITS)
        for query, p in zip(queries, found, strict=True)
        if math.isfinite(p) and (query.kind, query.step) == (judged_kind(goal), asked.snapshot.horizon)
    }


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
