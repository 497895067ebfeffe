from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.builders import props
from safetensors.numpy import load, save

from lcsearch.curves import Curve
from lcsearch.errors import InvalidValue
from lcsearch.forecast.contract import Absent, Forecasts, Query
from lcsearch.goal import Goal
from lcsearch.host import wire
from lcsearch.host.wire import Refused, Request
from lcsearch.schedule import Schedule
from lcsearch.study import FinishedTrials, Status, Trial

GOAL = Goal("loss", "maximize", 20.0)


def trials(n: int) -> list[Trial]:
    made = []
    for i in range(n):
        curve = Curve.of({1 + k: math.nan if (i + k) % 5 == 4 else i + 1 / (k + 1) for k in range(i + 2)})
        plan = Schedule("cosine", 0.1 + i, 20.0) if i % 2 else None
        params = {"lr": 10.0**-i, "opt": "adam", "n": i, "deep": True}
        made.append(Trial(str(i), curve, params, Status.COMPLETE, plan))
    return made


def request(**changes: object) -> Request:
    done = tuple(wire.travelling(trial, GOAL.sign, "s") for trial in trials(3))
    asked = wire.travelling(replace(trials(5)[4], status=Status.RUNNING), GOAL.sign, "s")
    first = wire.first_digest("s", GOAL)
    queries = (Query(asked, "best_by", 20.0), Query(asked, "value", 12.5), Query(asked.cut(2.0), "latent", 20.0))
    made = Request("m-1", "s", 20.0, "best", 5.0, first, wire.digests(first, done)[-1], done, queries, 1.0)
    return replace(made, **changes)  # type: ignore[arg-type]


def same(a: Trial, b: Trial) -> bool:
    return (a.uid, a.curve, dict(a.params), a.status, a.schedule, a.feasible) == (
        b.uid,
        b.curve,
        dict(b.params),
        b.status,
        b.schedule,
        b.feasible,
    )


def test_a_request_comes_back_as_it_was() -> None:
    paused = [wire.travelling(replace(one, status=Status.PAUSED), GOAL.sign, "s") for one in trials(2)]
    made = request(live=tuple(paused))
    found = wire.unpack(wire.pack(made))
    assert all(same(a, b) for a, b in zip(found.trials, made.trials, strict=True))
    assert all(same(a, b) for a, b in zip(found.live, made.live, strict=True))
    assert all(same(a.trial, b.trial) and a[1:] == b[1:] for a, b in zip(found.queries, made.queries, strict=True))
    assert replace(found, trials=(), queries=(), live=()) == replace(made, trials=(), queries=(), live=())
    assert found.queries[0].trial is found.queries[1].trial  # one trial travels once
    assert wire.digests(found.base, found.trials)[-1] == made.bank


def test_values_travel_as_losses_and_parameters_as_numbers_and_words() -> None:
    (trial,) = trials(1)
    found = wire.travelling(trial, -1.0, "s")
    assert found.uid == "s/0"
    np.testing.assert_array_equal(found.curve.values, -trial.curve.values)
    assert found.params == {"lr": 1.0, "opt": "'adam'", "n": 0.0, "deep": "True"}
    assert wire.travelling(replace(trial, returned=math.inf), 1.0).feasible is False
    assert wire.travelling(replace(trial, returned=0.5), 1.0).feasible is True


def test_a_live_trial_is_no_more_than_how_far_it_is_but_where_it_is_context() -> None:
    bank = FinishedTrials(request().goal)
    (ahead,) = request().snapshot(bank).live
    assert (ahead.curve.last_step, len(ahead.curve)) == (5.0, 0)
    paused = wire.travelling(replace(trials(2)[1], status=Status.PAUSED), GOAL.sign, "s")
    assert request(live=(paused,)).snapshot(bank).live[0] is paused
    assert request(ahead=-math.inf).snapshot(bank).live == ()


@pytest.mark.parametrize(
    "change",
    [
        {"uid": "other"},
        {"params": {"lr": 2.0}},
        {"status": Status.STOPPED},
        {"schedule": Schedule("constant", 1.0, 9.0)},
        {"feasible": False},
        {"curve": Curve.of({1: 2.0})},
        {"curve": Curve.of({1: math.nan})},
    ],
)
def test_a_digest_tells_trials_apart(change: dict[str, object]) -> None:
    (trial,) = trials(1)
    one = wire.next_digest("0", wire.travelling(trial, 1.0))
    assert one == wire.next_digest("0", wire.travelling(replace(trial), 1.0))
    assert one != wire.next_digest("0", wire.travelling(replace(trial, **change), 1.0))  # type: ignore[arg-type]
    assert one != wire.next_digest("1", wire.travelling(trial, 1.0))


def test_digests_tell_studies_and_goals_apart() -> None:
    goals = [GOAL, replace(GOAL, horizon=21.0), replace(GOAL, judged="final")]
    assert len({wire.first_digest(name, goal) for name in "ab" for goal in goals}) == 6


def broken(name: str, value: np.ndarray | None) -> bytes:
    arrays = load(wire.pack(request()))
    if value is None:
        del arrays[name]
    else:
        arrays[name] = value
    return save(arrays)


def text(words: str) -> np.ndarray:
    return np.frombuffer(words.encode(), np.uint8)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("head", None, r"body\[head\]: expected uint8"),
        ("head", text("[" * 100_000), r"body\[head\]: expected JSON, got 'RecursionError'"),
        ("head", text(f'{{"wire": {wire.WIRE}}}'), r"body\[head\]\.model: expected str"),
        ("which", np.array([0, 9, 0]), "of trials that came along"),
        ("which", np.zeros(5000, np.int64), "kind|at most 256"),
        ("kind", np.array([0, 3, 0]), "expected kinds from 0 to 2"),
        ("kind", np.array([0.0, 1.0, 0.0]), r"body\[kind\]: expected int64"),
        ("step", np.zeros(2), r"body\[step\]: expected float64 \(3,\), got 'float64 \(2,\)'"),
        ("asked.sizes", np.array([[2**62, 2**62], [2**62, 2**62]]), "expected sizes that add up"),
        ("asked.sizes", np.array([[-1, 0], [1, 0]]), "expected sizes that add up"),
        ("asked.facts", text("[]"), "expected facts of 2 trials"),
        ("asked.facts", text('[["u","running",{"a":[1]},null,true],1]'), "number or word"),
        ("asked.facts", text('[["","running",{},null,true],1]'), "facts"),
        ("asked.facts", text('[["u","walking",{},null,true],1]'), "walking"),
        ("asked.facts", text('[["u","running",{},{"shape":"x"},true],1]'), "Schedule"),
        ("finished.facts", text('[["u","running",{},null,true]]'), "expected facts of 3 trials"),
    ],
)
def test_what_is_no_request_is_refused_in_words(name: str, value: np.ndarray | None, said: str) -> None:
    with pytest.raises(Refused, match=said) as refused:
        wire.unpack(broken(name, value))
    assert refused.value.status == wire.MALFORMED
    assert len(str(refused.value)) <= 500


def test_steps_must_rise_and_losses_be_finite() -> None:
    points = load(wire.pack(request()))["finished.points"]
    for row, value in (
        (0, points[0][::-1]),
        (0, np.full(points.shape[1], np.inf)),
        (1, np.full(points.shape[1], np.nan)),
    ):
        changed = points.copy()
        changed[row] = value
        with pytest.raises(Refused, match=r"rise within each trial|finite losses"):
            wire.unpack(broken("finished.points", changed))


def test_another_version_is_told_apart_from_nonsense() -> None:
    with pytest.raises(Refused, match=f"expected wire version {wire.WIRE}, got 1") as refused:
        wire.unpack(broken("head", text('{"wire": 1}')))
    assert refused.value.status == wire.OTHER_MODEL
    with pytest.raises(Refused, match="safetensors") as refused:
        wire.unpack(b"hello")
    assert refused.value.status == wire.MALFORMED


def test_running_trials_are_not_finished() -> None:
    made = request()
    running = tuple(replace(trial, status=Status.RUNNING) for trial in made.trials)
    with pytest.raises(Refused, match="expected finished trials"):
        wire.unpack(wire.pack(replace(made, trials=running)))


@props
@given(st.binary(max_size=200), st.integers(0, 2000), st.booleans())
def test_no_body_raises_anything_else(noise: bytes, at: int, cut: bool) -> None:
    body = wire.pack(request())
    at %= len(body)
    for one in (noise, body[:at] + noise + body[at + (0 if cut else len(noise)) :], body[:at]):
        with suppress(Refused):  # whatever else it raises fails
            wire.unpack(one)


def test_an_answer_comes_back_in_the_direction_asked() -> None:
    made = Forecasts.of(
        np.array([[0.0, 1.0], [np.nan, np.nan]]),
        np.array([[0.1, 0.9], [np.nan, np.nan]]),
        np.array([[1.0, 2.0], [np.nan, np.nan]]),
        sign=1.0,
        source="network/m-1",
        absent=[None, Absent.UNSUPPORTED],
    )
    found = wire.unpack_answer(wire.pack_answer(made, "m-1", "b"), 2, -1.0, "m-1", "b", made.source)
    assert (found.sign, found.absent, found.source) == (-1.0, made.absent, made.source)
    np.testing.assert_array_equal(found.knots, made.knots)
    for n, model in ((3, "m-1"), (2, "m-2")):
        with pytest.raises(InvalidValue, match=r"body\[knots\]: expected float64 \(3|an answer of m-2"):
            wire.unpack_answer(wire.pack_answer(made, "m-1", "b"), n, 1.0, model)
    with pytest.raises(InvalidValue, match="safetensors"):
        wire.unpack_answer(b"<html>", 2, 1.0, "m-1")


def test_what_is_no_distribution_is_an_absent_answer() -> None:
    lying = Forecasts(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]), np.zeros((1, 2)), 1.0, (None,), "x")
    assert wire.unpack_answer(wire.pack_answer(lying, "m", "b"), 1, 1.0, "m").absent == (Absent.NONFINITE,)


def test_many_trials_travel_in_several_requests() -> None:
    long = wire.travelling(Trial("0", Curve.of(np.arange(30_000.0), np.arange(30_000.0)), status=Status.COMPLETE), 1.0)
    assert len(wire.some([long] * 9)) == 2
    assert len(wire.some([replace(long, curve=Curve.of(np.arange(2e5), np.arange(2e5)))] * 2)) == 1
    assert len(wire.some(trials(9))) == 9


def test_words_count_for_what_one_request_takes() -> None:
    params = {f"p{i}": "w" * 600 for i in range(10)}
    many = [wire.travelling(Trial(str(i), Curve.of({1: 1.0}), params, Status.COMPLETE), 1.0) for i in range(900)]
    made = request(trials=tuple(wire.some(many)), queries=())
    assert 0 < len(made.trials) < 900
    assert len(wire.unpack(wire.pack(made)).trials) == len(made.trials)
