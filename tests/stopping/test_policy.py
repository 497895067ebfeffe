from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from lcsearch.errors import InvalidValue
from lcsearch.stopping.policy import Policy


@pytest.mark.parametrize("name", ["threshold", "guard", "risk", "few_factor", "epsilon"])
@pytest.mark.parametrize("value", [-0.01, 1.01, math.nan, math.inf, "0.1", True])
def test_shares(name: str, value: Any) -> None:
    with pytest.raises(InvalidValue) as error:
        Policy(**{name: value})
    assert str(error.value) == f"{name}: expected a number in [0, 1], got {value!r}."


@pytest.mark.parametrize(
    ("name", "low"),
    [
        ("n_startup_trials", 0),
        ("n_warmup_steps", 0),
        ("interval_steps", 1),
        ("n_min_trials", 1),
        ("min_comparisons", 0),
        ("min_observations", 1),
        ("few", 0),
        ("divergence_reports", 1),
    ],
)
@pytest.mark.parametrize("value", [None, math.nan, math.inf, "3", True, -1])
def test_counts(name: str, low: int, value: Any) -> None:
    with pytest.raises(InvalidValue) as error:
        Policy(**{name: value})
    assert str(error.value) == f"{name}: expected a number >= {low}, got {value!r}."
    assert getattr(Policy(**{name: low}), name) == low


def test_the_ends_of_the_ranges_and_numpy_numbers() -> None:
    share: Any
    for share in (0, 1, 0.5, np.float32(0.5)):
        assert Policy(threshold=share, guard=share, risk=share).guard == share
    assert Policy(n_startup_trials=np.int64(3), interval_steps=np.int32(2)).interval_steps == 2  # type: ignore[arg-type]
    assert Policy().risk is None


def test_stops_begin_once_two_trials_have_ended_and_two_can_be_compared() -> None:
    """The one place that holds these defaults, which the certificate is of: `experiments/e2_stop/gates.md`."""
    assert (Policy().n_startup_trials, Policy().min_comparisons) == (2, 2)


def test_six_observations_before_a_stop() -> None:
    """The one place that holds the default: every lost winner of the development studies went at 4 or 5 points."""
    assert Policy().min_observations == 6
