from __future__ import annotations

import math
from typing import Any

import pytest

from lcsearch.errors import InvalidValue
from lcsearch.goal import Goal


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
        ({"horizon": None}, "Goal.horizon: expected a finite number > 0, got None."),
    ],
)
def test_errors_word_for_word(changed: dict[str, Any], message: str) -> None:
    fields: dict[str, Any] = {"metric": "loss", "direction": "minimize", "horizon": 10, **changed}
    with pytest.raises(InvalidValue) as error:
        Goal(**fields)
    assert str(error.value) == message
