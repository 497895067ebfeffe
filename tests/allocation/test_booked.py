"""Gains are booked for every allocation and telescope, whoever allocates, in the simulator and in the decision log."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import dataclass, field

import pytest
from kit.builders import goal, snapshot, trial
from kit.curricula import ACCOUNT, NINTH, even, paused, study
from kit.doubles import NormalAroundBest, Random

from lcsearch.allocation.allocators.uncertain import FundTheUncertain
from lcsearch.allocation.arms import Around
from lcsearch.allocation.ask import AllocationAsk, ask
from lcsearch.allocation.booked import Booked, booked, told
from lcsearch.allocation.contract import Abilities, Allocation, Allocator, Key, Slots
from lcsearch.allocation.judge import judge
from lcsearch.allocation.named import KINDS, allocator
from lcsearch.allocation.receipt import AllocationReceipt
from lcsearch.data.synthetic import synthetic_task
from lcsearch.forecast.contract import Absent, Answers
from lcsearch.replay.baselines import Never
from lcsearch.replay.simulator import World, simulate
from lcsearch.study import Snapshot, Status


@dataclass(frozen=True)
class Booking(Around):
    """Another allocator, and the receipts of what it says, as they are read back from a log."""

    allocator: Allocator
    receipts: list[AllocationReceipt] = field(default_factory=list, compare=False)

    def allocate(
        self, state: object, seen: Snapshot, forecasts: Answers, abilities: Abilities, slots: Slots, key: Key
    ) -> Allocation:
        made = super().allocate(state, seen, forecasts, abilities, slots, key)
        asked = AllocationAsk(
            self.allocator, state, seen, abilities, slots, key, self.questions(state, seen, slots)
        )  # fmt: skip
        record = AllocationReceipt.of(asked, made, answers=forecasts).to_record()
        self.receipts.append(AllocationReceipt.from_record(json.loads(json.dumps(record))))
        return made


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("workers", [1, 3])
def test_gains_of_every_arm_add_up_to_its_last_chance_less_its_first(kind: str, workers: int) -> None:
    task = synthetic_task("power", 40, 3, n_steps=20)
    book = Booking(allocator(kind))
    simulate(task, task.order(0), Never(), World(workers, 240.0), book, (NormalAroundBest(), Random()))
    asks = any(receipt.chances for receipt in book.receipts)
    assert asks == (kind not in ("asha", "hyperband", "halving", "uniform", "run-to-end")), "nobody is asked for it"
    gains: dict[str, list[Booked]] = defaultdict(list)
    for entry in booked(book.receipts):
        gains[entry.uid].append(entry)
    chances: dict[str, list[float]] = defaultdict(list)
    for receipt in book.receipts:
        for uid, p in receipt.chances.items():
            assert 0 <= p <= 1
            chances[uid].append(p)
    for uid, seen in chances.items():
        assert math.fsum(entry.gain for entry in gains[uid]) == pytest.approx(seen[-1] - seen[0], abs=1e-12)
        assert len(gains[uid]) == len(seen) - 1
    given = {(receipt.number, move.uid) for receipt in book.receipts for move in receipt.moves}
    own = [entry for entries in gains.values() for entry in entries if entry.number is not None]
    assert all((entry.number, entry.uid) in given and entry.steps > 0 for entry in own)
    assert all(entry.steps == 0 for entries in gains.values() for entry in entries if entry.number is None)
    if kind in ("sec", "dump", "greedy", "pandora"):
        assert own


def receipt(number: int, at: Snapshot, answers: Answers) -> AllocationReceipt:
    asked = ask(FundTheUncertain(NINTH, floor=0.0), None, at, Abilities(pause=True), Slots(1, 1, ACCOUNT), (0, number))
    return AllocationReceipt.of(asked, judge(asked, answers), answers=answers)


def test_by_hand() -> None:
    """6 (1/4) and 5 (1/2) are forecast, then 5 (3/8) alone is heard of, its turn to step 3 over; then 6 (1/10)."""
    first = receipt(0, study(), {"a": [even(0, 4), even(0.5, 1.5)]})
    assert first.chances == {"6": 0.25, "5": 0.5}
    moved = first.moves[0]
    assert moved.uid is None
    second = receipt(1, study(), {"a": [even(0, 2), even(0.5, 1.5)]})
    assert booked([first, second]) == [Booked("6", None, 0.25, 0.5, 0.0), Booked("5", None, 0.5, 0.5, 0.0)]
    given = AllocationReceipt.from_record(
        {**second.to_record(), "moves": [{"uid": "5", "pause_at": 3.0, "score": 1.0, "why": "its turn"}]}
    )
    back = snapshot(goal(horizon=9), [], [paused("5", 3, 2.0), paused("6", 3, 1.0)])
    third = receipt(2, back, {"a": [even(0, 4), even(0.625, 1.625)]})
    entries = booked([first, given, third])
    assert entries[2:] == [Booked("6", None, 0.5, 0.25, 0.0), Booked("5", 1, 0.5, 0.375, 2.0)]
    said = "P(it beats the best seen) went from 50.0% to 37.5%: -12.5% in 1 turn of its own (2 epochs), "
    assert told([first, given, third], "5", "epoch") == said + "+0.0% while it waited"
    assert told([first], "5") is None


def test_what_is_not_about_the_end_or_not_answered_is_not_booked() -> None:
    assert receipt(0, study(), {"a": [Absent.LATE, even(0.5, 1.5)]}).chances == {"5": 0.5}
    asked = ask(
        allocator("mfpi", first=NINTH),
        {"h": 0.2, "tau": -1.0},
        study(),
        Abilities(pause=True),
        Slots(1, 1, ACCOUNT),
        (0,),
    )
    answers: Answers = {"a": [even(0, 4), even(0.5, 1.5)]}
    assert AllocationReceipt.of(asked, judge(asked, answers), answers=answers).chances == {}
    assert "chances" not in receipt(0, snapshot(goal(), [], [trial("0", [1.0], Status.RUNNING)]), {}).to_record()
