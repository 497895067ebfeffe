from __future__ import annotations

import math

import pytest

from lcsearch.allocation.allocators.asha import AshaPromotion
from lcsearch.allocation.allocators.uniform import Uniform
from lcsearch.allocation.contract import Abilities, Allocator, Slots
from lcsearch.allocation.named import DEFAULT, KINDS, allocator, knobs_of
from lcsearch.curves import Curve
from lcsearch.errors import InvalidValue
from lcsearch.goal import Goal
from lcsearch.study import FinishedTrials, Snapshot, Status, Trial


@pytest.mark.parametrize("name", KINDS)
def test_every_name_makes_its_allocator(name: str) -> None:
    made = allocator(name)
    assert isinstance(made, Allocator)
    assert made.name == name
    assert allocator(name, **knobs_of(made)) == made


def test_the_default_and_ones_of_your_own() -> None:
    assert allocator() == AshaPromotion()
    assert DEFAULT == "asha"
    mine = Uniform(3)
    assert allocator(mine) is mine
    assert allocator("uniform", n_arms=3) == mine


def test_what_cannot_be() -> None:
    names = "asha, going-rate, hyperband, halving, uniform, greedy, sec, dump, alp-gmm, "
    names += "uncertain, top-two, mfpi, pandora, robust, run-to-end"
    with pytest.raises(InvalidValue, match=rf"^allocator: expected one of {names}, got 'asa'\.$"):
        allocator("asa")
    with pytest.raises(InvalidValue, match=r"^allocator: expected a knob of 'asha': first, eta, got 'min_steps'\.$"):
        allocator("asha", min_steps=1)
    with pytest.raises(InvalidValue, match=r"^allocator: expected an Allocator without knobs, or one of "):
        allocator(object())  # type: ignore[arg-type]


def test_bounds_cut_the_lowest_ranks_and_lengthen_turns() -> None:
    goal = Goal("loss", "minimize", 10)
    live = tuple(
        Trial(uid, Curve.of([1, 2], [1.0, loss]), status=Status.PAUSED)
        for uid, loss in (("0", 0.3), ("1", 0.1), ("2", 0.4), ("3", 0.2))
    )
    study = Snapshot("s", goal, FinishedTrials(goal), live)
    bounded = allocator("uniform", max_paused=2, min_slice=3.0)
    assert knobs_of(bounded) == {"n_arms": None, "quantum": 0.1, "max_paused": 2, "min_slice": 3.0, "max_slice": None}
    made = bounded.allocate(bounded.init(), study, {}, Abilities(pause=True), Slots(1, 0), (0, 0))
    ranked = [wait.uid for wait in made.waits]
    (move,) = made.moves
    assert (move.uid, move.pause_at) == ("0", 5.0)
    assert [uid for uid, _ in made.stops] == [uid for uid in ("1", "2", "3") if uid not in ranked]
    assert made.stops[0][1] == "3 trials would wait, 2 may (max_paused), and its rank is the lowest"
    best = Trial("9", Curve.of([1, 3], [0.5, 0.01]), status=Status.PAUSED)  # alone at its rung: rank 1 of 1
    led = Snapshot("s", goal, FinishedTrials(goal), (*live, best))
    made = allocator("asha", first=0.1, max_paused=2).allocate(
        None, led, {}, Abilities(pause=True), Slots(1, 5), (0, 0)
    )
    assert made.stops
    assert "9" not in {uid for uid, _ in made.stops}, "the leader keeps its place"
    for bounds in ({"max_paused": 0}, {"min_slice": -1.0}, {"max_slice": 0.0}, {"max_slice": math.inf}):
        with pytest.raises(InvalidValue):
            allocator("uniform", **bounds)
    with pytest.raises(
        InvalidValue, match=r"^max_slice: expected a finite number of steps >= min_slice=3, or None, got 2"
    ):
        allocator("uniform", min_slice=3.0, max_slice=2.0)


def test_a_trial_is_preempted_within_its_turn_where_a_better_one_waits() -> None:
    """Trial 0 was promoted from 3 to 9 as the best of three, and has come to 5; by then two better ones stand at 3."""
    goal, asha = Goal("loss", "minimize", 27), allocator("asha", first=1 / 27, max_slice=2.0)
    assert knobs_of(asha)["max_slice"] == 2.0

    def moved(*losses: float) -> tuple[str | None, float]:
        first = Trial("0", Curve.of(range(1, 6), [0.5] * 5), status=Status.PAUSED)
        others = [
            Trial(str(i), Curve.of(range(1, 4), [loss] * 3), status=Status.PAUSED) for i, loss in enumerate(losses, 1)
        ]
        study = Snapshot("s", goal, FinishedTrials(goal), (first, *others))
        made = asha.allocate(asha.init(), study, {}, Abilities(pause=True), Slots(1, 9, here="0"), (0, 0))
        assert not made.stops
        return made.moves[0].uid, made.moves[0].pause_at

    assert moved(0.6, 0.7) == ("0", 7.0), "it is still the best, and goes on where it stands"
    assert moved(0.4, 0.3) == ("2", 5.0)
