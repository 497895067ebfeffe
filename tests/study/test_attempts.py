"""What a trial's attempts reported together, as far as it counts."""

from __future__ import annotations

import math

import pytest

from lcsearch.study.attempts import Attempts

DEAD = {1: 0.5, 2: math.nan, 3: 0.3, 4: 0.1}


@pytest.mark.parametrize(
    ("reports", "values", "gone"),
    [
        ([(1, 0.6)], {1: 0.6}, {2, 3, 4}),
        ([(1, 0.5), (2, math.nan), (3, 0.4)], {1: 0.5, 2: math.nan, 3: 0.4}, {4}),
        ([(1, 0.5)], DEAD, set()),  # so far it only repeats
        ([(3, 0.9)], {1: 0.5, 2: math.nan, 3: 0.9}, {4}),  # from a checkpoint
        ([(3, 0.9), (4, 0.8), (5, 0.7)], {1: 0.5, 2: math.nan, 3: 0.9, 4: 0.8, 5: 0.7}, {4}),
        ([(5, 0.7)], {**DEAD, 5: 0.7}, set()),
        ([(0, 0.7)], {0: 0.7}, {1, 2, 3, 4}),  # other steps than the dead one's
        ([(3, 0.9), (3, 0.1), (2, 0.1)], {1: 0.5, 2: 0.1, 3: 0.9}, {4}),  # within one the first counts, in any order
    ],
)
def test_what_counts(reports: list[tuple[int, float]], values: dict[int, float], gone: set[int]) -> None:
    attempts, cut = Attempts(DEAD), set[int]()
    for step, value in reports:
        cut |= attempts.cuts(step, value)
        attempts.take(step, value)
    assert repr(dict(sorted(attempts.values.items()))) == repr(values)
    assert cut == gone


def test_the_end_of_an_attempt() -> None:
    attempts = Attempts(DEAD)
    attempts.end()
    assert list(attempts.values) == [1, 2, 3, 4]  # it had found all done
    attempts.take(1, 0.5)
    attempts.end()
    assert attempts.values == {1: 0.5}


def test_a_third_attempt() -> None:
    attempts = Attempts(DEAD)
    attempts.take(1, 0.6)
    attempts.take(2, 0.5)
    attempts.begin()
    attempts.take(1, 0.7)
    assert attempts.values == {1: 0.7}
