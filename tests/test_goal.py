from __future__ import annotations

import math
from typing import Any

import pytest

from lcsearch.errors import InvalidValue
from lcsearch.goal import Direction, Goal


def test_sign_makes_losses() -> None:
    assert Goal("loss", "minimize", 10).sign == 1.0
    assert Goal("accuracy", "maximize", 10).sign == -1.0
    assert Goal("loss", "minimize", 10).judged == "best"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"direction": "min"}, "Goal.direction: expected 'minimize' or 'maximize', got 'min'."),
        ({"judged": "last"}, "Goal.judged: expected 'best' or 'final', got 'last'."),
        ({"horizon": 0}, "Goal.horizon: expected a finite number > 0, got 0."),
        ({"horizon": -1.5}, "Goal.horizon: expected a finite number > 0, got -1.5."),
        ({"horizon": math.inf}, "Goal.horizon: expected a finite number > 0, got inf."),
        ({"horizon": math.nan}, "Goal.horizon: expected a finite number > 0, got nan."),
        ({"horizon": "50"}, "Goal.horizon: expected a finite number > 0, got '50'."),
        *[
            (
                {"bounds": bounds},
                f"Goal.bounds: expected (low, high), low < high, either may be None, got {bounds!r}. Give the least "
                "and the largest value that the metric can have, as in (0, 1) or (0, None).",
            )
            for bounds in ((1, 0), (0, 0), (math.nan, 1), (0, math.inf), (0,), (0, 1, 2), "01", 1, (False, True))
        ],
        ({"horizon": None}, "Goal.horizon: expected a finite number > 0, got None."),
    ],
)
def test_errors_word_for_word(changed: dict[str, Any], message: str) -> None:
    fields: dict[str, Any] = {"metric": "loss", "direction": "minimize", "horizon": 10, **changed}
    with pytest.raises(InvalidValue) as error:
        Goal(**fields)
    assert str(error.value) == message


def test_bounds_are_losses_by_the_direction() -> None:
    def least(direction: Direction, *bounds: float | None) -> float:
        return Goal("m", direction, 10, bounds=bounds or None).least  # type: ignore[arg-type]

    assert least("minimize", 0, 1) == 0.0
    assert least("maximize", 0, 1) == -1.0
    assert (least("minimize", None, 1), least("maximize", 0, None), least("minimize")) == (-math.inf,) * 3
    assert Goal("m", "minimize", 10, bounds=[0, 1]) == Goal("m", "minimize", 10, bounds=(0.0, 1.0))  # type: ignore[arg-type]


def test_what_passes_a_bound() -> None:
    share = Goal("m", "maximize", 10, bounds=(0, 1))
    assert share.broken(0.0, 1.0 + 1e-7) is None
    assert share.broken(0.0, 1.1) == ("high", 1.0, 1.1)
    assert share.broken(-0.1, 1.1) == ("low", 0.0, -0.1)
    assert Goal("m", "maximize", 10, bounds=(None, 1)).broken(-9.0, 1.0) is None
