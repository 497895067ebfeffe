"""Paces: its own where a trial has one, else by its configuration, else the median."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.builders import props

from lcsearch.allocation.paces import FEW, of_new, predicted, rounded

SECONDS = st.floats(1e-3, 1e5)
CONFIGURATIONS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "size": st.integers(1, 4096),
            "rate": st.floats(allow_nan=True, allow_infinity=True),
            "kind": st.sampled_from(["cnn", "mlp", None, 3]),
        },
    ),
    min_size=1,
    max_size=14,
)


def numbered(some: list[Any]) -> dict[str, Any]:
    return {str(i): one for i, one in enumerate(some)}


@props
@given(st.floats(1e-5, 1e7))
def test_rounding_goes_down_by_a_fifth_at_most(seconds: float) -> None:
    found = rounded(seconds)
    assert seconds / 1.25 < found <= seconds
    assert rounded(found) == found
    assert math.frexp(found)[0] * 8 in (4, 5, 6, 7)


@pytest.mark.parametrize("seconds", [0.0, 1e-9])
def test_steps_that_take_no_time_have_a_pace(seconds: float) -> None:
    assert 0 < rounded(seconds) <= 1e-6


@props
@given(CONFIGURATIONS, st.lists(SECONDS, min_size=1, max_size=14), st.randoms())
def test_every_trial_has_a_pace_near_the_measured_ones(
    params: list[dict[str, Any]], seconds: list[float], chance: Any
) -> None:
    known = dict(zip(numbered(params), seconds, strict=False))
    found = predicted(numbered(params), known)
    assert list(found) == list(numbered(params))
    assert all(found[uid] == rounded(pace) for uid, pace in known.items())
    assert all(min(known.values()) / 3 <= pace <= 3 * max(known.values()) for pace in found.values())
    mixed = list(numbered(params).items())
    chance.shuffle(mixed)
    assert predicted(dict(mixed), dict(reversed(known.items()))) == found, "in any order"


@props
@given(CONFIGURATIONS, st.lists(SECONDS, min_size=1, max_size=14))
def test_a_machine_of_half_the_speed(params: list[dict[str, Any]], seconds: list[float]) -> None:
    known = dict(zip(numbered(params), seconds, strict=False))
    found, slow = (predicted(numbered(params), {uid: f * s for uid, s in known.items()}) for f in (1.0, 2.0))
    # beside a step of the rounding, where a prediction stands just at one
    assert all(0.79 <= slow[uid] / (2 * pace) <= 1.26 for uid, pace in found.items())


def test_few_measured_ones_say_their_median() -> None:
    params = {str(size): {"size": size} for size in range(1, 30)}
    known = {str(size): float(size) for size in range(1, FEW)}
    assert {predicted(params, known)[str(size)] for size in range(FEW, 30)} == {2.5}


def test_a_power_law_is_found_and_what_has_no_say_is_left() -> None:
    rng = np.random.default_rng(0)
    sizes, rates = 2.0 ** rng.uniform(0, 10, 60), rng.uniform(0, 1, 60)
    params = numbered([{"size": float(s), "rate": float(r)} for s, r in zip(sizes, rates, strict=True)])
    paces = numbered((0.01 * sizes**1.5 * np.exp(rng.normal(0, 0.1, 60))).tolist())
    found = predicted(params, {uid: paces[uid] for uid in list(params)[:15]})
    off = np.log2([found[uid] / paces[uid] for uid in list(params)[15:]])
    assert np.abs(off).max() < 1.0, "of a range of 15 octaves"
    by_chance = numbered(rng.permutation(list(paces.values())).tolist())
    blind = predicted(params, {uid: by_chance[uid] for uid in list(params)[:15]})
    middle = np.median(list(by_chance.values())[:15])
    assert np.median(np.abs(np.log2([blind[uid] / middle for uid in list(params)[15:]]))) < 1.0


def test_a_category_has_a_pace() -> None:
    params = numbered([{"kind": kind} for kind in ["tree", "net"] * 5 + ["forest"]])
    found = predicted(params, {str(i): [1.0, 100.0][i % 2] for i in range(8)})
    assert found["8"] < 2.0 < 64.0 < found["9"]
    assert 2.0 < found["10"] < 64.0, "one that nobody has measured lies between"


def test_what_a_whole_trial_took_bounds_its_step() -> None:
    params = numbered([{}] * 3)
    assert predicted(params, {"0": 8.0}, {"0": 0.5, "1": 2.0}) == {"0": 8.0, "1": 2.0, "2": 8.0}


def test_what_a_step_of_a_configuration_that_is_not_begun_takes() -> None:
    params = {str(size): {"size": size} for size in (1, 2, 4, 8, 16, 32)}
    measured = {uid: float(uid) for uid in params}
    assert of_new([{"size": 3}, {"size": 24}, {"size": 32}], params, measured) == [3.0, 20.0, 28.0]
    assert of_new([{"size": 3}, {}], params, {"4": 4.0}) == [4.0, 4.0], "too few to tell them apart"
    assert of_new([], params, measured) == []
