"""The memo answers as the forecaster alone does, to the bit, over whole replays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.doubles import chances

from lcsearch.data.synthetic import KINDS, Kind, synthetic_task
from lcsearch.forecast.contract import Absent, Forecasts, Query
from lcsearch.host.in_process import Pretrained
from lcsearch.host.registry import forecaster
from lcsearch.replay import prefetching
from lcsearch.replay.history import History
from lcsearch.replay.policies import Shared, policy_spec, session_for
from lcsearch.replay.prefetching import Memo, Missing, PrefetchingForecaster
from lcsearch.replay.simulator import World, simulate, simulate_all
from lcsearch.stopping.policy import Policy
from lcsearch.stopping.verdict import Reason
from lcsearch.study import FinishedTrials, Snapshot, Trial

JUDGED = {Reason.ABOVE, Reason.ABOVE_BEFORE, Reason.BELOW, Reason.RISK_LIMIT}


def parts(found: History) -> tuple[Any, ...]:
    """All of a history; lives hold every stop's decision, numbers included."""
    return found.lives, found.trace, found.spent, found.time, found.reasons


@settings(max_examples=12, deadline=None, derandomize=True, database=None)
@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 99),
    name=st.sampled_from(["parametric", "rank-gap"]),
    judged=st.sampled_from(["best", "final"]),
    direction=st.sampled_from(["minimize", "maximize"]),
    workers=st.sampled_from([1, 3]),
)
def test_bit_for_bit(kind: Kind, seed: int, name: str, judged: Any, direction: Any, workers: int) -> None:
    task = synthetic_task(kind, 12, seed, n_steps=14, judged=judged, direction=direction)
    memo: Memo = {}
    for threshold in (0.2, 0.05):  # the second finds what the first has left
        policy = Policy(threshold=threshold, n_startup_trials=3, min_observations=3, few=0)
        world = World(workers=workers)
        plain = simulate(task, task.order(seed), session_for(policy, [forecaster(name)]), world)
        for heard in (
            PrefetchingForecaster(forecaster(name), task),
            PrefetchingForecaster(forecaster(name), task, memo),
        ):
            assert parts(simulate(task, task.order(seed), session_for(policy, [heard]), world)) == parts(plain)


@pytest.mark.parametrize("name", ["parametric", "rank-gap", "network"])
@pytest.mark.parametrize("kind", ["power", "late"])
def test_searches_side_by_side_come_to_what_each_comes_to_alone(name: str, kind: Kind) -> None:
    """Orders and thresholds, forecast together and alone: the same stops at the same steps for the same reasons."""
    task = synthetic_task(kind, 14, 2, n_steps=14)
    shared, orders = Shared(), [task.order(seed) for seed in range(3)]
    one = policy_spec(f"curve:forecasters={name},n_startup_trials=4,min_observations=3,few=0")
    searches = [(order, one.at(t)) for order in orders for t in (0.02, 0.3)]
    together = simulate_all(task, [(order, each.make(task, shared)) for order, each in searches], World(workers=2))
    assert any(found.stopped for found in together)
    for (order, each), found in zip(searches, together, strict=True):
        alone = simulate(task, order, each.make(task, ahead=False), World(workers=2))
        assert [(x.uid, x.shown, x.status) for x in found.lives] == [(x.uid, x.shown, x.status) for x in alone.lives]
        assert (found.trace, found.spent, found.reasons) == (alone.trace, alone.spent, alone.reasons)
        if name != "network":  # whose answers depend on what else is asked, by rounding in float32
            assert parts(found) == parts(alone)


def test_searches_side_by_side_ask_in_few_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve searches over 20 trials of 20 reports: not the two to three thousand calls of one search after another."""
    calls: list[int] = []
    inner = Pretrained.forecast_each

    def spy(self: Pretrained, asks: Any) -> Any:
        calls.append(sum(len(queries) for _, queries in asks))
        return inner(self, asks)

    monkeypatch.setattr(Pretrained, "forecast_each", spy)
    task, shared = synthetic_task("late", 20, 1, n_steps=20), Shared()
    searches = [(task.order(seed), policy_spec(f"curve:threshold={t}")) for seed in range(4) for t in (0.01, 0.05, 0.4)]
    found = simulate_all(task, [(order, one.make(task, shared)) for order, one in searches])
    looks = sum(n for history in found for reason, n in history.reasons.items() if reason in JUDGED)
    assert looks > 10 * len(calls)
    assert len(shared.of("network")[1]) > 100  # states of the study that forecasts were made for


def test_who_fails_over_a_batch_is_asked_by_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(prefetching.READS, Failing, lambda snapshot: tuple(trial.uid for trial in snapshot.bank))
    task, memo, teller = synthetic_task("power", 20, 1, n_steps=20), {}, Failing()  # type: ignore[var-annotated]
    orders = [task.order(seed) for seed in range(3)]
    told = [(o, session_for(POLICY, [PrefetchingForecaster(teller, task, memo, waits=True)])) for o in orders]
    for found, order in zip(simulate_all(task, told), orders, strict=True):
        plain = simulate(task, order, session_for(POLICY, [Failing()]))
        assert plain.reasons[Reason.ABSENT]
        assert parts(found) == parts(plain)


def test_of_cuts_to_come_those_are_asked_about_that_looks_will_be() -> None:
    """Looks at 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 21 and 24 values, each with the report before."""
    asked: list[int] = []

    class Told:
        name, version = "network", "1"

        def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
            asked.extend(query.trial.curve.n_reports for query in queries)
            return forecaster("rank-gap").forecast(snapshot, queries)

    task = synthetic_task("power", 3)
    bank = FinishedTrials(task.goal).extend([Trial(run.uid, run.curve, status=run.status) for run in task.runs[:2]])
    trial = Trial(task.runs[2].uid, task.runs[2].curve.cut(15))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(prefetching.READS, Told, lambda snapshot: 0)
        patch.setattr(prefetching, "FIRST", 4)
        one = PrefetchingForecaster(Told(), task, waits=True, policy=Policy())
        with pytest.raises(Missing) as missing:
            one.forecast(Snapshot("s", task.goal, bank, (trial,)), [Query(trial, "best_by", 50.0)])
        prefetching.answer([missing.value.wanted])
    assert asked == [15, 16, 17, 18, 19]


def test_a_memo_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetching, "KEPT", 2)
    memo: Memo = {}
    task = synthetic_task("power", 12, n_steps=14)
    policy = Policy(n_startup_trials=3)
    kept = simulate(task, range(12), session_for(policy, [PrefetchingForecaster(forecaster("parametric"), task, memo)]))
    assert 1 <= len(memo) <= 2
    assert parts(kept) == parts(simulate(task, range(12), session_for(policy, [forecaster("parametric")])))


def test_it_says_who_answers() -> None:
    inner = forecaster("parametric")
    told = PrefetchingForecaster(inner, synthetic_task("power", 3))
    assert (told.name, told.version) == (inner.name, inner.version)


class Failing:
    """Rank and gap, which fails at curves of 15 reports and more; or which reads what nobody told the memo of."""

    name, version = "parametric", "1"

    def __init__(self, *, reads_cost: bool = False) -> None:
        self.inner, self.reads_cost = forecaster("rank-gap"), reads_cost
        self.asked: list[int] = []

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        self.asked += [query.trial.curve.n_reports for query in queries]
        if self.reads_cost:
            costs = [query.trial.cost or 0.0 for query in queries] + [trial.cost or 0.0 for trial in snapshot.live]
            return Forecasts.none([Absent.UNSUPPORTED if sum(costs) % 3 else Absent.FAILED] * len(queries))
        if any(query.trial.curve.n_reports >= 15 for query in queries):
            raise RuntimeError("too long")
        return self.inner.forecast(snapshot, queries)


POLICY = Policy(threshold=0.3, n_startup_trials=3, min_observations=3, few=0, guard=0.0, min_comparisons=0)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_a_failure_to_come_is_no_failure_now(kind: Kind, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(prefetching.READS, Failing, lambda snapshot: snapshot.bank)
    task, world = synthetic_task(kind, 20, 1, n_steps=20), World(workers=workers)
    plain = simulate(task, task.order(0), session_for(POLICY, [Failing()]), world)
    assert plain.reasons[Reason.ABSENT]
    assert parts(
        simulate(task, task.order(0), session_for(POLICY, [PrefetchingForecaster(Failing(), task)]), world)
    ) == parts(plain)


@pytest.mark.parametrize("reads_cost", [False, True])
def test_a_forecaster_it_does_not_know_is_asked_directly(reads_cost: bool) -> None:
    task, world = synthetic_task("power", 20, 1, n_steps=20), World(workers=3)
    plain, asked = Failing(reads_cost=reads_cost), Failing(reads_cost=reads_cost)
    want = simulate(task, task.order(0), session_for(POLICY, [plain]), world)
    assert parts(
        simulate(task, task.order(0), session_for(POLICY, [PrefetchingForecaster(asked, task)]), world)
    ) == parts(want)
    assert asked.asked == plain.asked


def test_cuts_to_come_carry_what_the_trial_would_carry(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, float | None]] = []

    class Told(Failing):
        def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
            seen.extend((query.trial.curve.n_reports, query.trial.cost) for query in queries)
            return self.inner.forecast(snapshot, queries)

    monkeypatch.setitem(prefetching.READS, Told, lambda snapshot: snapshot.bank)
    task = synthetic_task("power", 3)
    run = task.runs[0]
    trial = Trial(run.uid, run.curve.cut(5), cost=5.0)
    snapshot = Snapshot("s", task.goal, FinishedTrials(task.goal), (trial,))
    PrefetchingForecaster(Told(), task).forecast(snapshot, [Query(trial, "best_by", 50.0)])
    assert seen == [(5, 5.0), (6, 6.0), (7, 7.0)]


def test_what_is_known_is_handed_out_as_it_is() -> None:
    """A row's P(beat) is remembered with it; a copy would be worked out again at every search."""
    row = prefetching._kept(chances([0.3]), 0)  # noqa: SLF001
    assert prefetching._joined([row, row], 1.0).row(1) is row  # noqa: SLF001
