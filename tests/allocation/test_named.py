from __future__ import annotations

import pytest

from lcsearch.allocation.allocators.going_rate import GoingRateAsha
from lcsearch.allocation.allocators.uniform import Uniform
from lcsearch.allocation.contract import Allocator
from lcsearch.allocation.named import DEFAULT, KINDS, allocator, knobs_of
from lcsearch.errors import InvalidValue


@pytest.mark.parametrize("name", KINDS)
def test_every_name_makes_its_allocator(name: str) -> None:
    made = allocator(name)
    assert isinstance(made, Allocator)
    assert made.name == name
    assert allocator(name, **knobs_of(made)) == made


def test_the_default_and_ones_of_your_own() -> None:
    assert allocator() == GoingRateAsha()
    assert DEFAULT == "going-rate"
    mine = Uniform(3)
    assert allocator(mine) is mine
    assert allocator("uniform", n_arms=3) == mine


def test_what_cannot_be() -> None:
    names = "going-rate, asha, hyperband, halving, uniform, greedy, run-to-end"
    with pytest.raises(InvalidValue, match=rf"^allocator: expected one of {names}, got 'asa'\.$"):
        allocator("asa")
    with pytest.raises(InvalidValue, match=r"^allocator: expected a knob of 'asha': first, eta, got 'min_steps'\.$"):
        allocator("asha", min_steps=1)
    with pytest.raises(InvalidValue, match=r"^allocator: expected an Allocator without knobs, or one of "):
        allocator(object())  # type: ignore[arg-type]
