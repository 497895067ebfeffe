from __future__ import annotations

import enum
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcsearch.forecast.network.columns import MOST, Columns, plain


class Colour(enum.Enum):
    RED = 1


class Nameless:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class Plainly:
    pass


ODD: list[Any] = [
    True, None, "relu", np.float32(0.5), np.int64(3), np.str_("relu"), np.bool_(True), 10**400, -(10**6000), math.nan,
    math.inf, [1, 2], {"a": 1}, Colour.RED, Nameless(), Plainly(), b"x", 1 + 2j, np.arange(3), 5e-324, 1.7e308,
    -1.7e308, 0, 0.0, -1, [10**6000],
]  # fmt: skip


def rows(*params: dict[Any, Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    trials = [plain(one) for one in params]
    return Columns.of(trials).encode(trials)


@given(st.lists(st.dictionaries(st.sampled_from(["a", "b", 3]), st.integers(0, len(ODD) - 1)), max_size=6))
def test_any_values_become_numbers(params: list[dict[Any, int]]) -> None:
    trials = [plain({name: ODD[i] for name, i in one.items()}) for one in params]
    columns = Columns.of(trials)
    for one in (columns.encode(trials), columns.encode([plain({"a": v, "b": v}) for v in ODD])):
        assert one.shape[1] == len(columns.columns) == len(columns.kinds)
        assert not np.isinf(one).any()


def test_numbers_are_scaled_over_their_range_and_after_a_logarithm_where_it_is_wide() -> None:
    got = rows({"x": 1, "y": 1e-4}, {"x": 3.0, "y": 1e-2}, {"x": np.float32(2.0), "y": 1.0})
    np.testing.assert_allclose(got, [[0.0, 0.0], [1.0, 0.5], [0.5, 1.0]])


def test_a_number_beyond_the_range_stays_near() -> None:
    columns = Columns.of([plain({"x": 0.0}), plain({"x": 1.0})])
    np.testing.assert_allclose(columns.encode([plain({"x": 9.0}), plain({"x": -0.1})]).ravel(), [1.25, -0.1])


def test_words_are_categories_and_a_new_word_is_none_of_them() -> None:
    columns = Columns.of([plain({"x": "b"}), plain({"x": "a"}), plain({"x": None}), plain({"x": True})])
    assert columns.kinds == [2]
    got = columns.encode([plain({"x": v}) for v in ("b", np.str_("b"), "a", None, True, np.bool_(True), "new", 7)])
    assert len(set(got.ravel().tolist())) == 5
    assert got[0] == got[1]
    assert got[4] == got[5]
    assert got[6] == got[7] == 4.0


def test_what_is_missing_or_no_number_is_nan() -> None:
    got = rows({"x": 1.0}, {"x": 2.0}, {}, {"x": math.nan}, {"x": 10**400})
    np.testing.assert_array_equal(np.isnan(got.ravel()), [False, False, True, True, True])


def test_what_is_the_same_everywhere_tells_nothing() -> None:
    assert rows({"x": 1, "y": "a", "z": None}, {"x": 1.0, "y": "a", "z": None}).shape == (2, 0)


def test_where_an_object_lies_in_memory_is_not_seen() -> None:
    assert plain({"x": Plainly()}) == plain({"x": Plainly()})


def test_parameters_are_at_most_so_many() -> None:
    got = rows(*({f"p{k:03}": float(i) for k in range(100)} for i in range(3)))
    assert got.shape == (3, MOST)


@pytest.mark.parametrize("value", ODD, ids=range(len(ODD)))
def test_one_value_alone_is_nothing(value: Any) -> None:
    assert rows({"x": value}).shape == (1, 0)
