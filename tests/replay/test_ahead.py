"""The memo answers as the forecaster alone does, to the bit, over whole replays."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcsearch.engine.policy import Policy
from lcsearch.forecast.registry import forecaster
from lcsearch.replay import ahead
from lcsearch.replay.ahead import Ahead, Memo
from lcsearch.replay.history import History
from lcsearch.replay.made import KINDS, Kind, made
from lcsearch.replay.policies import session_for
from lcsearch.replay.simulator import World, simulate


def parts(found: History) -> tuple[Any, ...]:
    """All of a history; lives hold every stop's decision, numbers included."""
    return found.lives, found.trace, found.spent, found.time, found.reasons


@settings(max_examples=12, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 99),
    name=st.sampled_from(["parametric", "rank-gap"]),
    judged=st.sampled_from(["best", "final"]),
    direction=st.sampled_from(["minimize", "maximize"]),
    workers=st.sampled_from([1, 3]),
)
def test_bit_for_bit(kind: Kind, seed: int, name: str, judged: Any, direction: Any, workers: int) -> None:
    task = made(kind, 12, seed, n_steps=14, judged=judged, direction=direction)
    memo: Memo = {}
    for threshold in (0.2, 0.05):  # the second finds what the first has left
        policy = Policy(threshold=threshold, n_startup_trials=3, min_observations=3, few=0)
        world = World(workers=workers)
        plain = simulate(task, task.order(seed), session_for(policy, [forecaster(name)]), world)
        for heard in (Ahead(forecaster(name), task), Ahead(forecaster(name), task, memo)):
            assert parts(simulate(task, task.order(seed), session_for(policy, [heard]), world)) == parts(plain)


def test_a_memo_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "KEPT", 2)
    memo: Memo = {}
    task = made("power", 12, n_steps=14)
    policy = Policy(n_startup_trials=3)
    kept = simulate(task, range(12), session_for(policy, [Ahead(forecaster("parametric"), task, memo)]))
    assert 1 <= len(memo) <= 2
    assert parts(kept) == parts(simulate(task, range(12), session_for(policy, [forecaster("parametric")])))


def test_it_says_who_answers() -> None:
    inner = forecaster("parametric")
    told = Ahead(inner, made("power", 3))
    assert (told.name, told.version) == (inner.name, inner.version)
