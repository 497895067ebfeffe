from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kit.builders import goal, snapshot, trial
from kit.curricula import NINTH, asked, even

from lcsearch.allocation.allocators.alp_gmm import ProgressMixture
from lcsearch.errors import InvalidValue
from lcsearch.study import Snapshot, Status

WHO = ProgressMixture(NINTH, floor=0.0, refit=20)


def spread(n: int = 41) -> Snapshot:
    """Trials 0 to n - 1 at the first rung, evenly over x in [0, 1]; the first has the best value, 1."""
    live = [
        trial(str(i), [1.0 + i], Status.PAUSED, first=1, params={"x": i / (n - 1), "same": 3}) for i in range(n)
    ]  # fmt: skip
    return snapshot(goal(horizon=9), [], live)


def jagged(n: int = 41) -> dict[str, Any]:
    """P is alike over the lower half, and .1 or .9 by turns over the upper one."""
    chance = [0.5 if i < n // 2 else 0.1 + 0.8 * (i % 2) for i in range(n)]
    points = [[str(i), 0.0 if i <= n // 2 else 0.8] for i in range(n)]
    return {"p": {str(i): [1, p] for i, p in enumerate(chance)}, "points": points}


def test_a_point_is_how_much_p_differs_from_the_nearest_configuration_before() -> None:
    """Of 6 trials that are asked about at once the first five have too few before them; then the nearest counts."""
    few = spread(6)
    p = [0.1, 0.2, 0.3, 0.4, 0.5, 0.9]
    answers = [even(1 - q, 2 - q) for q in p]  # P(L < 1)
    made = asked(WHO, *answers, at=few)
    assert made.state["p"] == {str(i): [1, pytest.approx(q)] for i, q in enumerate(p)}
    assert made.state["points"] == [["5", pytest.approx(0.4)]]  # 4 is the nearest
    assert [move.uid for move in made.moves][:1] == ["0"], "ASHA until there are points"


def test_slots_go_where_neighbours_differ() -> None:
    at, upper, uniform = spread(), 0, 0
    for n in range(60):
        made = asked(WHO, at=at, state=jagged(), free=1, n_new=1, key=(0, n))
        (move,) = made.moves
        assert 0 < move.propensity <= 1
        upper += move.uid is not None and int(move.uid) >= 20
        alike = asked(ProgressMixture(NINTH, floor=0.0, uniform=1.0), at=at, state=jagged(), free=1, key=(0, n))
        uniform += alike.moves[0].uid is None or int(alike.moves[0].uid) < 20
    assert upper > 30, "but for the new ones' share, and the uniform one"
    assert 5 < uniform < 55


def test_odds_by_hand() -> None:
    np.testing.assert_allclose(ProgressMixture(uniform=0.2).odds(np.array([3.0, 1.0])), [0.7, 0.3])
    assert ProgressMixture().odds(np.array([0.0, 0.0])).tolist() == [0.5, 0.5]


def test_without_parameters_it_is_asha() -> None:
    bare = snapshot(goal(horizon=9), [], [trial(str(i), [1.0 + i], Status.PAUSED, first=1) for i in range(41)])
    assert asked(WHO, at=bare, state=jagged(), free=1).moves[0].why == "rank 1 of 41 at step 1"


def test_what_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidValue, match=r"^ProgressMixture.uniform: expected a share in \[0, 1\], got 2.$"):
        ProgressMixture(uniform=2)
    with pytest.raises(InvalidValue, match=r"^ProgressMixture.refit: expected an integer in \[10, 120\], got 1.$"):
        ProgressMixture(refit=1)
    monkeypatch.setattr("lcsearch.allocation.mixture.find_spec", lambda name: None)
    with pytest.raises(InvalidValue, match=r"^ProgressMixture: expected the package scikit-learn, got 'none'. Install"):
        ProgressMixture()
