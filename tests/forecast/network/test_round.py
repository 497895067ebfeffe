from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kit.networks import forecaster
from numpy.linalg import LinAlgError

from lcsearch.curves import Curve
from lcsearch.forecast.contract import Absent, Query
from lcsearch.forecast.network.forecaster import NetworkForecaster
from lcsearch.forecast.network.unseen import Unseen
from lcsearch.goal import Goal
from lcsearch.host import registry
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


def spied(by: NetworkForecaster, patch: pytest.MonkeyPatch) -> list[list[str]]:
    """Whom each pass of the network is asked about, from here on."""
    asked: list[list[str]] = []
    plain = by._answer  # noqa: SLF001  # the one way to the network

    def spy(rows: Any, *args: Any, **more: Any) -> Any:
        asked.append([one.trial.uid for one in rows])
        return plain(rows, *args, **more)

    patch.setattr(by, "_answer", spy)
    return asked


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


def test_a_context_trial_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    of, by = snapshot(), forecaster()
    own, asked = [Query(t, "best_by", 20.0) for t in of.live], spied(by, monkeypatch)
    by.forecast(of, [*own, Query(unbegun(0), "best_by", 20.0), Query(unbegun(1), "best_by", 20.0)])
    assert asked == [[t.uid for t in of.live]], "the complete ones are certain at their end"
    by.forecast(of, [Query(unbegun(0), "best_by", 20.0), own[3]])
    assert len(asked) == 1, "of the same study nobody is asked again"


@pytest.mark.parametrize(
    ("status", "step", "binds"),
    [(Status.STOPPED, 1.0, True), (Status.STOPPED, 2.0, False), (Status.FAILED, 1.0, False)],
)
def test_where_none_stands_where_it_began_nobody_else_is_asked_about(
    status: Status, step: float, binds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial that broke down after its first report had each look there ask about all that were stopped."""
    done = [begun(100 + i, 20, Status.COMPLETE) for i in range(6)]
    done += [begun(i, 4, Status.STOPPED) for i in range(9)]
    other = Trial("t50", Curve.of([step], [0.5]), {"lr": 0.5}, status)
    of = Snapshot("s", GOAL, FinishedTrials(GOAL).extend([*done, other]), ())
    by = forecaster()
    asked = spied(by, monkeypatch)
    by.forecast(of, [Query(begun(60, 2, Status.RUNNING).cut(1.0), "best_by", 20.0)])
    assert [len(uids) for uids in asked] == [10] * binds + [1]


def test_what_is_kept_changes_no_bit() -> None:
    of, by = snapshot(), forecaster()
    queries = [Query(unbegun(0), "best_by", 20.0), Query(of.live[3], "best_by", 20.0), Query(of.live[4], "value", 9.0)]
    for i in range(4):
        live = list(of.live)
        live[i] = begun(i, 1 + i % 5 + (i > 0), Status.PAUSED)
        of = Snapshot("s", GOAL, of.bank, tuple(live))
        asked = [*queries, Query(live[i], "best_by", 20.0)]
        by.forecast(of, asked[2:])
        again, anew = by.forecast(of, asked), forecaster().forecast(of, asked)
        for name in ("knots", "levels", "tails"):
            np.testing.assert_array_equal(getattr(again, name), getattr(anew, name))
        assert again.absent == anew.absent


def test_of_unbegun_trials_the_same_is_said_whoever_else_is_asked_about() -> None:
    of = snapshot()
    own = [Query(t, "best_by", 20.0) for t in of.live]
    alone = forecaster().forecast(of, [Query(unbegun(0), "best_by", 20.0)])
    beside = forecaster().forecast(of, [*own, Query(unbegun(0), "best_by", 20.0)])
    np.testing.assert_array_equal(beside.knots[-1], alone.knots[0])


def test_neither_curve_nor_configuration_is_nothing_to_forecast_from() -> None:
    of = snapshot()
    queries = [Query(Trial("x"), "best_by", 20.0), Query(unbegun(0), "best_by", float("nan"))]
    assert forecaster().forecast(of, queries).absent == (Absent.NONFINITE,) * 2


@pytest.mark.parametrize("n", [0, 1, 2])
def test_where_hardly_any_trial_is_begun_nothing_is_said(n: int) -> None:
    of = snapshot(n, 0)
    assert forecaster().forecast(of, [Query(unbegun(0), "best_by", 20.0)]).absent == (Absent.UNSUPPORTED,)


@pytest.mark.parametrize("error", [LinAlgError("not positive definite"), ValueError("array must not contain infs")])
@pytest.mark.parametrize("where", ["of", "answers"])
def test_what_fails_over_a_configuration_takes_no_begun_trial_along(
    where: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Unseen, where, fail)
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


def test_a_first_report_far_above_all_others_promises_no_more_than_theirs() -> None:
    """Of the real study whose values these are the three behind ended where they began."""
    firsts = [32.8, 37.3, 41.7, 50.2, 52.1, 53.01, 53.02, 53.03, 53.04, 53.05, 53.1, 53.2, 53.3, 90.6, 96.2, 115.8]
    goal = Goal("loss", "minimize", 50.0)
    live = tuple(
        Trial(f"t{i}", Curve.of(np.array([1.0]), np.array([x])), status=Status.PAUSED) for i, x in enumerate(firsts)
    )
    of = Snapshot("s", goal, FinishedTrials(goal), live)
    queries, by = [Query(t, "value", 50.0) for t in live], registry.forecaster("network")
    found = by.forecast(of, queries)
    chances = found.p_beat(32.8)
    assert max(chances[-3:]) <= max(chances[5:13]), chances
    alone = by.forecast(of, queries[-1:])
    np.testing.assert_array_equal(alone.quantile(0.5), found.quantile(0.5)[-1:])
    another = Trial("t99", Curve.of(np.array([1.0]), np.array([92.0])), status=Status.PAUSED)
    assert by.forecast(of, [Query(another, "value", 50.0)]).p_beat(32.8) <= max(chances[5:13]), "beside the context"
