from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.builders import props

from lcsearch.curves import Curve
from lcsearch.errors import InvalidValue

NAN, INF = math.nan, math.inf


def test_unsorted_duplicate_and_non_finite_reports_are_sorted_out() -> None:
    curve = Curve.of([3, 1, 2, 1, 0, 4], [0.3, NAN, 0.2, 0.1, -INF, INF])
    assert curve.steps.tolist() == [2, 3]
    assert curve.values.tolist() == [0.2, 0.3]
    assert curve.event_steps.tolist() == [0, 1, 4]  # the NaN at 1 came first: it counts, as in Optuna
    np.testing.assert_array_equal(curve.event_values, [-INF, NAN, INF])
    assert (len(curve), curve.n_reports, curve.last_step, curve.n_trailing_events) == (2, 5, 4.0, 1)


def test_the_first_of_many_duplicates_counts() -> None:
    assert Curve.of([5] * 40 + [1], [*range(40), 9]).values.tolist() == [9, 0]


def test_a_mapping_is_a_curve() -> None:
    assert Curve.of({2: 0.2, 0: 0.5}) == Curve.of([0, 2], [0.5, 0.2])
    assert Curve.of({}) == Curve.of([]) == Curve()


def test_empty() -> None:
    curve = Curve()
    assert (len(curve), curve.n_reports, curve.n_trailing_events) == (0, 0, 0)
    assert curve.last_step == -INF
    assert curve.cut(3) == curve
    assert [a.tolist() for a in curve.losses(-1.0)] == [[], []]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (([1, 2, 3], [0.1]), "Curve.of(values=): expected 3 values, one a step, got 1."),
        (([1, 2],), "Curve.of(values=): expected 2 values, one a step, got 0."),
        (({1: 0.1}, [0.1]), "Curve.of(values=): expected no values beside a mapping, got 'list'."),
        (([0, NAN], [1, 2]), "Curve.of(steps=)[1]: expected a finite step, got nan. Drop that report."),
        (([INF], [1]), "Curve.of(steps=)[0]: expected a finite step, got inf. Drop that report."),
    ],
)
def test_errors_word_for_word(args: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InvalidValue) as error:
        Curve.of(*args)
    assert str(error.value) == message
    assert isinstance(error.value, ValueError)


def test_a_curve_does_not_change_with_the_arrays_it_came_from() -> None:
    steps, values = np.array([0.0, 1.0, 2.0]), np.array([3.0, 2.0, 1.0])
    curve = Curve.of(steps, values)
    values[0] = 99.0  # the user's arrays stay the user's: still writable, and no part of the curve
    steps[0] = -1.0
    assert curve.values.tolist() == [3, 2, 1]
    assert curve.steps.tolist() == [0, 1, 2]


@pytest.mark.parametrize("curve", [Curve.of([0, 1, 2], [1, NAN, 3]), Curve.of([0, 1], [1, 2]), Curve()])
def test_arrays_are_read_only(curve: Curve) -> None:
    for array in (curve.steps, curve.values, curve.event_steps, curve.event_values, curve.cut(1).values):
        assert not array.flags.writeable


def test_equality_hash_and_pickle() -> None:
    a, b = Curve.of([1, 0], [2, NAN]), Curve.of([0, 1], [NAN, 2])
    assert a == b
    assert hash(a) == hash(b)
    assert a != Curve.of([0, 1], [INF, 2])
    assert a != "a curve"
    assert pickle.loads(pickle.dumps(a)) == a


def test_losses_turn_the_sign_and_put_events_at_plus_infinity_in_both_directions() -> None:
    curve = Curve.of([0, 1, 2, 3], [1, NAN, -INF, 4])
    assert curve.losses(1.0)[1].tolist() == [1, INF, INF, 4]
    assert curve.losses(-1.0)[1].tolist() == [-1, INF, INF, -4]
    assert curve.losses(-1.0)[0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("values", "n"),
    [([], 0), ([1], 0), ([NAN], 1), ([NAN, INF, NAN], 3), ([1, NAN, -INF], 2), ([NAN, NAN, 1], 0), ([NAN, 1, NAN], 1)],
)
def test_trailing_events(values: list[float], n: int) -> None:
    assert Curve.of(range(len(values)), values).n_trailing_events == n


reports = st.lists(
    st.tuples(st.integers(-5, 20), st.floats(-1e6, 1e6) | st.sampled_from([NAN, INF, -INF])), max_size=25
)


@props
@given(reports, st.floats(-7, 22))
def test_a_curve_against_a_dictionary(pairs: list[tuple[int, float]], step: float) -> None:
    first: dict[int, float] = {}
    for s, v in pairs:
        first.setdefault(s, v)
    curve = Curve.of([s for s, _ in pairs], [v for _, v in pairs])
    order = sorted(first)
    assert curve.steps.tolist() == [s for s in order if math.isfinite(first[s])]
    assert curve.event_steps.tolist() == [s for s in order if not math.isfinite(first[s])]
    steps, values = curve.reports()
    assert steps.tolist() == order
    np.testing.assert_array_equal(values, [first[s] for s in order])
    assert curve == Curve.of(first)
    cut = curve.cut(step)
    assert cut == Curve.of({s: v for s, v in first.items() if s <= step})
    assert cut.cut(step + 1) == cut
    trailing = 0
    while trailing < len(order) and not math.isfinite(first[order[-1 - trailing]]):
        trailing += 1
    assert curve.n_trailing_events == trailing


@pytest.mark.parametrize(
    ("values", "moved", "n_moving", "still"),
    [
        ([], INF, 0, False),
        ([NAN, NAN], INF, 0, False),
        ([2.0], INF, 1, False),
        ([2.0, 2.0], INF, 2, True),
        ([2.0, NAN, 2.0 + 1e-13, 2.0], INF, 3, True),
        ([2.0, 3.0, 2.0], 1, 3, False),
        ([2.0, 2.0, NAN, 2.0, 3.0], 4, 2, False),
        ([0.0, 0.0, 1e-300], 2, 2, False),
        ([1e308, -1e308], 1, 2, False),
    ],
)
def test_where_a_curve_begins_to_move(values: list[float], moved: float, n_moving: int, still: bool) -> None:
    curve = Curve.of(range(len(values)), values)
    assert (curve.moved, curve.n_moving, curve.still) == (moved, n_moving, still)


@pytest.mark.parametrize(
    ("values", "moved_on"),
    [([], INF), ([2.0], INF), ([2.0, 3.0, 3.0], INF), ([2.0, 3.0, 3.0, 2.0], 3), ([2.0, NAN, 3.0, 4.0], 3)],
)
def test_where_a_curve_leaves_its_second_value(values: list[float], moved_on: float) -> None:
    assert Curve.of(range(len(values)), values).moved_on == moved_on


@pytest.mark.parametrize(
    ("values", "gaps"),
    [([], []), ([1.0, 2.0], [0, 0]), ([NAN, NAN, 1.0, NAN, 2.0, 3.0, NAN], [2, 1, 0]), ([NAN], [])],
)
def test_runs_of_reports_that_are_no_values(values: list[float], gaps: list[int]) -> None:
    curve = Curve.of(range(len(values)), values)
    assert curve.gaps.tolist() == gaps
    assert curve.to_last_value().n_trailing_events == (0 if len(curve) else len(values))


def test_a_curve_stands_at_its_last_value() -> None:
    curve = Curve.of(range(5), [NAN, 3.0, 1.0, 2.0, INF])
    assert curve.standings(1.0, False) == ([0, 1, 2, 3, 4], [INF, 3, 1, 2, 2])
    assert curve.standings(1.0, True) == ([0, 1, 2, 3, 4], [INF, 3, 1, 1, 1])
