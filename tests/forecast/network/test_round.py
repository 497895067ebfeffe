from __future__ import annotations

import numpy as np
import pytest
from kit.networks import forecaster
from numpy.linalg import LinAlgError

from lcsearch.curves import Curve
from lcsearch.forecast.contract import Absent, Query
from lcsearch.forecast.network import round as module
from lcsearch.forecast.network.round import Round
from lcsearch.goal import Goal
from lcsearch.study import FinishedTrials, Snapshot, Status, Trial

GOAL = Goal("acc", "maximize", 20.0)


def begun(i: int, n: int, status: Status) -> Trial:
    rng = np.random.default_rng(i)
    steps = np.arange(1.0, n + 1.0)
    values = rng.uniform(0.5, 0.9) - 0.4 * steps ** -rng.uniform(0.3, 1.0)
    return Trial(f"t{i}", Curve.of(steps, values), {"lr": float(rng.random()), "opt": "ab"[i % 2]}, status)


def snapshot(n: int = 12, finished: int = 2) -> Snapshot:
    done = [begun(100 + i, 20, Status.COMPLETE) for i in range(finished)]
    live = tuple(begun(i, 1 + i % 5, Status.PAUSED) for i in range(n))
    return Snapshot("s", GOAL, FinishedTrials(GOAL).extend(done), live)


def unbegun(i: int) -> Trial:
    return Trial(f"u{i}", params={"lr": i / 8, "opt": "ab"[i % 2]})


def test_begun_and_unbegun_trials_are_answered_in_the_order_they_came() -> None:
    of = snapshot()
    queries = [Query(unbegun(0), "best_by", 20.0), *(Query(t, "best_by", 20.0) for t in of.live)]
    queries += [Query(unbegun(1), "value", 10.0), Query(unbegun(2), "best_by", 20.0)]
    found = forecaster().forecast(of, queries)
    assert set(found.absent) == {None}
    alone = forecaster().forecast(of, queries[1:13])
    np.testing.assert_allclose(found.quantile(0.5)[1:13], alone.quantile(0.5), rtol=1e-4)
    one = forecaster().forecast(of, queries[:1])
    np.testing.assert_allclose(found.quantile(0.5)[0], one.quantile(0.5)[0], rtol=1e-3)


def test_a_context_trial_is_asked_once() -> None:
    of = snapshot()
    own = [Query(t, "best_by", 20.0) for t in of.live]
    found = Round.of(of, [*own, Query(unbegun(0), "best_by", 20.0), Query(unbegun(1), "best_by", 20.0)])
    assert len(found.asked) == len(own) + 2 + len(of.bank), "the complete ones, at their end, are all that is new"
    assert Round.of(of, own).asked is own


def test_neither_curve_nor_configuration_is_nothing_to_forecast_from() -> None:
    of = snapshot()
    queries = [Query(Trial("x"), "best_by", 20.0), Query(unbegun(0), "best_by", float("nan"))]
    assert forecaster().forecast(of, queries).absent == (Absent.NONFINITE,) * 2


@pytest.mark.parametrize("n", [0, 1, 2])
def test_where_hardly_any_trial_is_begun_nothing_is_said(n: int) -> None:
    of = snapshot(n, 0)
    assert forecaster().forecast(of, [Query(unbegun(0), "best_by", 20.0)]).absent == (Absent.UNSUPPORTED,)


@pytest.mark.parametrize("error", [LinAlgError("not positive definite"), ValueError("array must not contain infs")])
def test_what_fails_over_a_configuration_takes_no_begun_trial_along(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(module, "unseen", fail)
    of = snapshot()
    found = forecaster().forecast(of, [Query(of.live[4], "best_by", 20.0), Query(unbegun(0), "best_by", 20.0)])
    assert found.absent == (None, Absent.UNSUPPORTED)


def test_many_studies_at_once_say_what_each_says_alone() -> None:
    asks = [(of, [Query(unbegun(0), "best_by", 20.0)]) for of in (snapshot(8), snapshot(12), snapshot(6, 0))]
    together = forecaster().forecast_many(asks)
    for (of, queries), one in zip(asks, together, strict=True):
        alone = forecaster().forecast(of, queries)
        assert one.absent == alone.absent == (None,)
        np.testing.assert_allclose(one.quantile([0.5]), alone.quantile([0.5]), rtol=1e-3)
