from __future__ import annotations

import math
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from kit.forecasters import KINDS, ask, assert_valid, laws, study
from kit.networks import forecaster

from lcsearch.curves import Curve, Floats
from lcsearch.forecast.contract import Absent, Forecasts, Query
from lcsearch.forecast.network import forecaster as module
from lcsearch.goal import Goal
from lcsearch.schedule import Schedule
from lcsearch.study import FinishedTrials, Snapshot, Status, Trial, robust_range

H = 40
pytestmark = pytest.mark.filterwarnings("error")


def params(i: int) -> dict[str, Any]:
    rng = np.random.default_rng(1000 + i)
    return {"lr": float(10 ** rng.uniform(-5, -1)), "opt": "adam" if rng.random() < 0.5 else "sgd"}


def snapshot(
    n: int, *, start: float = 1.0, gap: float = 1.0, scale: float = 1.0, shift: float = 0.0, live: int = 6
) -> Snapshot:
    """n finished trials (every third stopped early) and some live ones, steps and values in any units."""
    goal = Goal("loss", "minimize", start + gap * (H - 1))

    def trial(uid: str, row: Floats, status: Status, i: int) -> Trial:
        steps = start + gap * np.arange(float(row.size))
        return Trial(uid, Curve.of(steps, scale * row + shift), params(i), status)

    done = []
    for i, row in enumerate(laws(n)):
        stopped = i % 3 == 2
        status = Status.STOPPED if stopped else Status.COMPLETE
        done.append(trial(f"done-{i}", row[: 3 + i % 20] if stopped else row, status, i))
    looks = [row[:k] for row, k in zip(laws(live, seed=1), (1, 2, 5, 12, 25, 39), strict=False)]
    running = tuple(trial(f"live-{i}", row, Status.RUNNING, -i) for i, row in enumerate(looks))
    return Snapshot("s", goal, FinishedTrials(goal).extend(done), running)


def queries(of: Snapshot) -> list[Query]:
    return [Query(trial, kind, of.horizon) for trial in of.live for kind in KINDS]


def p_beat(of: Snapshot, asked: list[Query] | None = None, by: Any = None) -> Floats:
    assert of.incumbent is not None
    answers: Forecasts = (by or forecaster()).forecast(of, asked or queries(of))
    return answers.p_beat(of.incumbent.value)


def one(values: Any, of: Snapshot, kind: Any = "best_by", step: float = H, steps: Any = None, uid: str = "x") -> Any:
    steps = np.arange(1.0, len(values) + 1.0) if steps is None else steps
    return forecaster().forecast(of, [Query(Trial(uid, Curve.of(steps, values)), kind, step)])


@pytest.mark.parametrize("n", [0, 1, 2, 3, 5, 40, 130, 1000])
def test_any_number_of_finished_trials(n: int) -> None:
    of = snapshot(n)
    answers = forecaster().forecast(of, queries(of))
    assert_valid(answers, 3 * len(of.live))
    assert set(answers.absent) == {None}
    alone = snapshot(n, live=1)
    known = {reason is None for reason in forecaster().forecast(alone, queries(alone)).absent}
    assert known == {robust_range(alone.bank.judged) > 0}, (
        "one report has a scale where the others, begun or finished, give one"
    )


def test_only_stopped_and_failed_trials() -> None:
    of = snapshot(12)
    bad = [replace(t, status=Status.FAILED if i % 2 else Status.STOPPED) for i, t in enumerate(of.bank)]
    of = replace(of, bank=FinishedTrials(of.goal).extend(bad))
    assert of.incumbent is None
    answers = forecaster().forecast(of, queries(of))
    assert_valid(answers, len(queries(of)))
    assert set(answers.absent) == {None}


def test_reasons_for_saying_nothing() -> None:
    none, some = snapshot(0, live=0), snapshot(12)
    for values in ([], [math.nan], [math.inf, math.inf]):
        assert one(values, some).absent == (Absent.NONFINITE,)
    assert one([0.5, 0.4], some, step=math.nan).absent == (Absent.NONFINITE,)
    assert one([0.5, 0.4], some, step=0.5).absent == (Absent.NONFINITE,), "nothing had been reported"
    for values in ([0.5], [0.7] * 9, [0.0] * 9, [1e34] * 3):
        assert one(values, none).absent == (Absent.UNSUPPORTED,)
        assert one(values, some).absent == (None,)
        assert one(values, none, step=1.0).absent == (None,), "what is reported is certain all the same"
    assert one([0.5, math.nan, 0.4], none).absent == (None,)


def test_a_spread_gives_a_constant_curve_a_scale_in_any_units() -> None:
    for scale in (2.0**-600, 2.0**-40, 2.0**60, 2.0**600):
        of = snapshot(12, scale=scale)
        assert one([0.7 * scale] * 9, of).absent == (None,)


def tied(scale: float) -> Snapshot:
    """Twelve finished trials whose best values tie, and two that never moved."""
    rows = np.maximum(laws(12), 0.7)
    finished = [*rows, *np.full((2, rows.shape[1]), 1.5)]
    steps = np.arange(1.0, rows.shape[1] + 1.0)
    goal = Goal("loss", "minimize", H)
    trials = [Trial(str(i), Curve.of(steps, scale * row), status=Status.COMPLETE) for i, row in enumerate(finished)]
    return Snapshot("tied", goal, FinishedTrials(goal).extend(trials))


def test_a_constant_curve_has_a_forecast_where_the_best_values_tie() -> None:
    """The spread is 0 then; each of its looks failed open."""
    assert tied(1.0).robust_range == 0.0
    p = [one([1.5 * scale] * 9, tied(scale)).p_beat(0.7 * scale)[0] for scale in (1.0, 2.0**-600, 2.0**600)]
    assert np.isfinite(p).all()
    np.testing.assert_allclose(p, p[0], atol=1e-6)
    assert one([1.5], tied(1.0)).absent == (Absent.UNSUPPORTED,), "a single report has no scale yet"


@pytest.mark.parametrize("kind", ["value", "best_by"])
@pytest.mark.parametrize("step", [1.0, 1.5, 2.0, 3.0, 5.0, 6.0])
def test_what_is_reported_is_certain(kind: Any, step: float) -> None:
    values = [0.5, 0.3, math.nan, 0.9, 0.2, 0.4]
    got = one(values, snapshot(12), kind, step)
    finite = [x for x in values[: int(step)] if x == x]
    sure = min(finite) if kind == "best_by" else finite[-1]
    assert got.mean()[0] == sure
    assert got.p_beat(sure)[0] == 0.0
    assert got.cdf(sure)[0] == 1.0
    assert got.quantile(0.3)[0] == sure


def test_a_latent_value_that_was_passed_is_asked_of_the_curve_as_it_stood() -> None:
    of, values = snapshot(12), laws(1, seed=7)[0, :20]
    passed = one(values, of, "latent", 12.0)
    np.testing.assert_array_equal(passed.knots, one(values[:12], of, "latent", 12.0).knots)
    np.testing.assert_array_equal(passed.knots, one(values[:12], of, "latent", 13.0).knots)
    assert passed.absent == (None,)


def test_nothing_is_worse_than_the_best_so_far() -> None:
    of = snapshot(30)
    asked = [q for q in queries(of) if q.kind == "best_by"]
    answers = forecaster().forecast(of, asked)
    best = np.array([q.trial.curve.values.min() for q in asked])
    np.testing.assert_array_equal(answers.cdf(best), 1.0)
    np.testing.assert_array_equal(answers.quantile(1.0), best)
    assert (answers.p_beat(best) < 1.0).all()
    free = forecaster().forecast(of, [q._replace(kind="value") for q in asked])
    assert (free.quantile(0.999) > best).all()


def test_a_trial_that_has_beaten_the_incumbent_has_beaten_it() -> None:
    of = snapshot(12)
    assert of.incumbent is not None
    values = [of.incumbent.value + 0.3, of.incumbent.value - 0.01, of.incumbent.value + 0.2]
    assert one(values, of).p_beat(of.incumbent.value)[0] == 1.0
    equal = one([of.incumbent.value + 0.3, of.incumbent.value], of)
    assert 0.0 < equal.p_beat(of.incumbent.value)[0] < 1.0


def test_a_finished_trial_of_the_same_uid_is_not_its_own_context() -> None:
    of = snapshot(20)
    own, other = of.bank[4], of.bank[7]
    at = own.curve.cut(12.0)
    f = forecaster()
    asked = [Query(Trial(uid, at), "best_by", H) for uid in (own.uid, other.uid, "new")]
    a, b, c = p_beat(of, asked, f)
    assert len({a, b, c}) == 3
    # what it did later is not seen: it is neither the best nor the latest
    changed = replace(own, curve=Curve.of(own.curve.steps, np.r_[own.curve.values[:12], own.curve.values[12:] + 1e-4]))
    trials = [changed if t is own else t for t in of.bank]
    there = replace(of, bank=FinishedTrials(of.goal).extend(trials))
    assert there.robust_range == pytest.approx(of.robust_range, rel=1e-2)
    again = p_beat(there, asked, forecaster())
    assert abs(again[0] - a) < abs(again[2] - c) + 1e-4


ODD = [True, None, "x", np.float32(0.5), np.int64(3), np.str_("x"), np.bool_(True), 10**400, math.nan, [1], object()]


def test_parameters_of_any_type() -> None:
    of = snapshot(30)
    rng = np.random.default_rng(0)

    def odd(trial: Trial) -> Trial:
        some: dict[Any, Any] = {f"p{k}": ODD[int(rng.integers(len(ODD)))] for k in range(6) if rng.random() < 0.7}
        some["mixed"] = ODD[int(rng.integers(3))]
        some[3] = 1.0
        return replace(trial, params=some)

    of = replace(
        of, bank=FinishedTrials(of.goal).extend([odd(t) for t in of.bank]), live=tuple(odd(t) for t in of.live)
    )
    answers = forecaster().forecast(of, queries(of))
    assert_valid(answers, len(queries(of)))
    assert set(answers.absent) == {None}


def test_parameters_matter_and_their_order_does_not() -> None:
    of = snapshot(20)
    trial = of.live[3]
    turned = replace(trial, params={name: trial.params[name] for name in sorted(trial.params, reverse=True)})
    other = replace(trial, params={"lr": 1.0, "opt": "sgd"})
    a, b, c = p_beat(of, [Query(t, "best_by", H) for t in (trial, turned, other)])
    assert a == pytest.approx(b, abs=1e-6)
    assert a != c


@pytest.mark.parametrize("exponent", [-400, -40, -3, 1, 30, 400])
def test_a_power_of_two_changes_no_bit(exponent: int) -> None:
    np.testing.assert_array_equal(p_beat(snapshot(20, scale=2.0**exponent)), p_beat(snapshot(20)))


@pytest.mark.parametrize(("scale", "shift"), [(17.0, 3.0), (1e-3, 0.0), (0.3, -50.0), (1.0, 1e4)])
def test_other_units_of_the_metric_change_little(scale: float, shift: float) -> None:
    np.testing.assert_allclose(p_beat(snapshot(20, scale=scale, shift=shift)), p_beat(snapshot(20)), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("start", "gap"), [(0.0, 1.0), (10.0, 10.0), (1e-3, 1e-3), (391.0, 391.0), (6.0, 1.0)])
def test_other_units_of_steps_change_little(start: float, gap: float) -> None:
    np.testing.assert_allclose(p_beat(snapshot(20, start=start, gap=gap)), p_beat(snapshot(20)), rtol=0, atol=1e-4)


def test_steps_times_a_power_of_two_change_no_bit() -> None:
    np.testing.assert_array_equal(p_beat(snapshot(20, start=64.0, gap=64.0)), p_beat(snapshot(20)))


def test_a_mirrored_study_gives_the_same_bits() -> None:
    looks = [(f"live-{n}", row[:n]) for row, n in zip(laws(5, seed=2), (2, 6, 17, 25, 39), strict=True)]
    down, up = (study(laws(15), looks, direction=d) for d in ("minimize", "maximize"))
    f = forecaster()  # the same one, and studies of one name
    a, b = f.forecast(down, ask(down)), f.forecast(up, ask(up))
    np.testing.assert_array_equal(a.knots, b.knots)
    np.testing.assert_array_equal(a.mean(), -b.mean())


def strange() -> dict[str, Floats]:
    t = np.arange(1.0, 31.0)
    smooth = 0.3 + t**-0.7
    put = {i: smooth.copy() for i in range(6)}
    put[0][12], put[1][10:], put[2][[0, 1, 7]], put[3][3:29:2] = 1e34, 1e34, np.nan, np.nan
    put[4][5], put[5][:3] = -1e34, 1e34
    return {
        "spike": put[0], "blown": put[1], "events": put[2], "half": put[3], "dip": put[4], "start": put[5],
        "small": 1e-300 * smooth, "large": 1e300 * smooth, "largest": 8e307 * np.linspace(-1, 1, 30),
        "offset": 1e8 + 1e-9 * smooth, "flat": np.full(30, 0.7), "steps": np.repeat([3.0, 2.0, 1.0], 10),
        "subnormal": 5e-324 * np.arange(30.0), "long": 0.3 + np.arange(1.0, 5001.0) ** -0.5,
    }  # fmt: skip


@pytest.mark.parametrize("name", list(strange()))
@pytest.mark.parametrize("finished", [0, 1, 12])
@pytest.mark.parametrize("in_bank", [False, True])
def test_strange_curves(name: str, finished: int, in_bank: bool) -> None:
    row = strange()[name]
    steps = np.linspace(0.0, H - 1.0, row.size)
    trial = Trial("odd", Curve.of(steps, row), status=Status.COMPLETE if in_bank else Status.RUNNING)
    of = snapshot(finished)
    if in_bank:
        of = replace(of, bank=of.bank.extend([trial, replace(trial, uid="odd2", status=Status.STOPPED)]))
    else:
        of = replace(of, live=(*of.live, trial))
    answers = forecaster().forecast(of, queries(of))
    assert_valid(answers, len(queries(of)))
    assert set(answers.absent) <= {None, Absent.UNSUPPORTED}
    if of.incumbent is not None:
        p = answers.p_beat(of.incumbent.value)
        assert ((p >= 0) & (p <= 1))[[reason is None for reason in answers.absent]].all()


def test_irregular_steps_and_lengths_that_differ() -> None:
    rng = np.random.default_rng(0)
    goal = Goal("loss", "minimize", 100.0)

    def trial(i: int, n: int, status: Status) -> Trial:
        return Trial(f"t{i}", Curve.of(np.sort(rng.uniform(0.0, 100.0, n)), laws(1, seed=i)[0, :n]), status=status)

    done = [trial(i, 5 + 3 * i, Status.COMPLETE) for i in range(10)]
    live = tuple(trial(100 + i, 1 + 4 * i, Status.RUNNING) for i in range(8))
    of = Snapshot("s", goal, FinishedTrials(goal).extend(done), live)
    answers = forecaster().forecast(of, queries(of))
    assert_valid(answers, len(queries(of)))
    assert set(answers.absent) == {None}


def same(a: Forecasts, b: Forecasts) -> None:
    np.testing.assert_array_equal(a.knots, b.knots)
    np.testing.assert_array_equal(a.levels, b.levels)
    np.testing.assert_array_equal(a.tails, b.tails)
    assert a.absent == b.absent


@pytest.mark.parametrize("n", [0, 3, 140])
def test_a_memo_changes_no_bit(n: int) -> None:
    f, of = forecaster(), snapshot(n)
    more = [Trial(f"new-{i}", t.curve, t.params, t.status) for i, t in enumerate(snapshot(9).bank)]
    for i in range(len(more) + 1):
        now = replace(of, bank=of.bank.extend(more[:i]))
        answers = f.forecast(now, queries(now))
        same(f.forecast(now, queries(now)), answers)
    rebuilt = replace(now, bank=FinishedTrials(now.goal).extend([replace(t) for t in now.bank]))
    for other, seen in ((f, rebuilt), (forecaster(), now), (pickle.loads(pickle.dumps(f)), now)):
        same(other.forecast(seen, queries(seen)), answers)
    same(f.forecast(of, queries(of)), forecaster().forecast(of, queries(of)))


def test_one_more_finished_trial_is_one_more_trial_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    f, of = forecaster(), snapshot(400)
    f.forecast(of, queries(of))
    sizes: list[int] = []
    whole = f._network.encode_ends  # noqa: SLF001

    def spy(tokens: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        sizes.append(len(tokens))
        return whole(tokens, ends)

    monkeypatch.setattr(f._network, "encode_ends", spy)  # noqa: SLF001
    f.forecast(of, queries(of))
    assert sizes == [len(of.live)], "each live trial once, whatever is asked about it"
    old = of.bank[0].curve
    best = Curve.of(old.steps, old.values - of.goal.sign * 100.0)  # is context for certain
    f.forecast(replace(of, bank=of.bank.extend([Trial("new", best, status=Status.COMPLETE)])), queries(of))
    assert sizes[1:-1] in ([1], [1, 1], [1, 1, 1])


def test_studies_of_many_names_do_not_mix() -> None:
    f = forecaster()
    studies = [replace(snapshot(3 + i), study=f"s{i}") for i in range(12)]
    for _ in range(2):
        for of in studies:
            same(f.forecast(of, queries(of)), forecaster().forecast(of, queries(of)))
    assert len(f._contexts) <= 8  # noqa: SLF001


def test_what_is_kept_of_many_studies_is_bounded_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """By number alone, 512 studies of any length and 16384 trials of any length were kept."""
    monkeypatch.setattr(module, "_HEAVIEST", 20_000)
    f, plain = forecaster(), forecaster()
    for i in range(40):
        of = replace(snapshot(12), study=f"s{i}")
        (found,) = f.forecast_many([(of, queries(of))])
        np.testing.assert_allclose(found.p_beat(0.5), plain.forecast(of, queries(of)).p_beat(0.5), rtol=0, atol=1e-5)
        banks = [one.bank for one in f._searches.values()]  # noqa: SLF001  # a memo shows in nothing but memory
        assert sum(100 * len(bank) + 5 * bank.steps.size for bank in banks) <= 20_000
        assert f._known_weigh <= 20_000 + 12 * 500  # noqa: SLF001  # likewise
        assert len(f._states._kept) <= 20_000 / 100 + len(queries(of))  # noqa: SLF001  # likewise
    assert len(banks) > 1


def test_what_else_is_asked_changes_less_than_stated() -> None:
    of, f = snapshot(60), forecaster()
    asked = queries(of)
    whole = p_beat(of, asked, f)
    alone = np.array([p_beat(of, [q], f)[0] for q in asked])
    np.testing.assert_allclose(alone, whole, rtol=0, atol=1e-5)
    many = [*asked, *(q for _ in range(9) for q in asked)]  # more pairs than are worked on at once
    np.testing.assert_allclose(p_beat(of, many, f)[: len(asked)], whole, rtol=0, atol=1e-5)


def test_many_studies_in_one_pass_are_answered_as_each_alone() -> None:
    """Contexts of any size, none among them; other steps, schedules, parameters and values; asked twice in one pass."""
    plan = Schedule("cosine", 0.3, 40.0, warmup=0.1)
    bare = snapshot(9)
    planned = replace(
        bare,
        bank=FinishedTrials(bare.goal).extend([replace(trial, schedule=plan) for trial in bare.bank]),
        live=tuple(replace(trial, schedule=plan) for trial in bare.live),
    )
    unlike = replace(bare, bank=FinishedTrials(bare.goal).extend([replace(trial, params={}) for trial in bare.bank]))
    gone = Trial("gone", Curve.of([1, 2, 3], [math.nan] * 3), status=Status.FAILED)
    odd = replace(bare, bank=bare.bank.extend([gone]), live=(*bare.live, Trial("dead", Curve.of([1, 2], [0.7, 0.7]))))
    itself = replace(bare, live=tuple(bare.bank)[:4])  # finished trials asked about: no context of their own
    studies = [snapshot(n) for n in (0, 1, 3, 20, 140)] + [planned, unlike, odd, itself, bare]
    asks = [(of, queries(of)) for of in studies]
    f = forecaster()
    for answers in (f.forecast_each(asks), f.forecast_each(asks[::-1])[::-1]):
        for (of, asked), found in zip(asks, answers, strict=True):
            alone = forecaster().forecast(of, asked)
            assert found.absent == alone.absent
            for share in (0.02, 0.5, 0.98):
                where = alone.quantile(share)
                np.testing.assert_allclose(found.cdf(where), alone.cdf(where), rtol=0, atol=2e-5)
            if of.incumbent is not None:
                target = of.incumbent.value
                np.testing.assert_allclose(found.p_beat(target), alone.p_beat(target), rtol=0, atol=1e-5)
    assert f.forecast_each([]) == []


def test_a_state_is_kept_for_one_curve_only() -> None:
    """Searches may give one uid to other curves; what was kept of the first is no answer for the second."""
    of, f = snapshot(20), forecaster()
    other = replace(of, live=tuple(replace(t, curve=Curve.of(t.curve.steps, t.curve.values[::-1])) for t in of.live))
    f.forecast_each([(of, queries(of)), (of, queries(of))])
    found = f.forecast_each([(other, queries(other)), (of, queries(of))])[0]
    assert of.incumbent is not None
    np.testing.assert_allclose(found.p_beat(of.incumbent.value), p_beat(other), rtol=0, atol=1e-5)


def test_torch_is_left_as_it_was() -> None:
    state, threads, grad = torch.random.get_rng_state(), torch.get_num_threads(), torch.is_grad_enabled()
    of = snapshot(5)
    forecaster().forecast(of, queries(of))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (torch.get_num_threads(), torch.is_grad_enabled()) == (threads, grad)


def test_weights_that_say_nothing_finite_are_no_answer() -> None:
    f, of = forecaster(), snapshot(12)
    with torch.no_grad():
        f._network.head[2].bias.fill_(math.nan)  # type: ignore[operator]  # noqa: SLF001
    asked = [*queries(of), Query(of.live[3], "value", 2.0)]
    answers = f.forecast(of, asked)
    assert set(answers.absent[:-1]) == {Absent.NONFINITE}
    assert answers.absent[-1] is None


def test_a_horizon_that_a_live_trial_moves_is_read_anew() -> None:
    """The bank is the same object, and where trials end another: a new process answered otherwise."""
    goal, of = Goal("loss", "minimize", 400.0), snapshot(12)
    of = Snapshot("s", goal, FinishedTrials(goal).extend(of.bank), of.live)
    ahead = Trial(
        "far", Curve.of(np.arange(1.0, 3 * H + 1), np.repeat(laws(1, seed=2)[0][:H], 3)), status=Status.RUNNING
    )
    further = replace(of, live=(*of.live, ahead))
    assert further.horizon > of.horizon
    asked = [Query(of.live[3], "best_by", further.horizon)]
    used = forecaster()
    used.forecast(of, asked)
    assert used.forecast(further, asked).p_beat(0.5) == forecaster().forecast(further, asked).p_beat(0.5)
