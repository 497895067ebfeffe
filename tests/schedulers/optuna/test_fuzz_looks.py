"""Whatever users report, through CurvePruner with real forecasters: no exception, no fault, no stop unrecorded."""

from __future__ import annotations

import math
import os
import warnings
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from lcsearch.decide.risk import Mark
from lcsearch.schedulers.optuna import CurvePruner
from lcsearch.session import Session

Rng = np.random.Generator
NAN, INF = math.nan, math.inf
LEAGUE = ("network", "network", "network", "parametric", "rank-gap", ["network", "rank-gap"])


def steps_of(rng: Rng, kind: int, n: int) -> list[int]:
    """Steps as loops have them, and as they should not."""
    start = int(rng.integers(2))
    return [
        [start + i for i in range(n)],
        [10 * i for i in range(n)],
        sorted({int(2**i) for i in np.linspace(0, 14, n)}),
        [1_700_000_000 + 37 * i + int(rng.integers(9)) for i in range(n)],
        [n - i for i in range(n)],
        [0] * n,
        [int(rng.integers(max(n, 2))) for _ in range(n)],
    ][kind]


def values_of(rng: Rng, kind: int, n: int, scale: float) -> list[float]:
    """Curves as they are, and as they should not be."""
    t = np.arange(1, n + 1)
    limit, rate = rng.uniform(0.1, 1.0), rng.uniform(0.2, 1.5)
    curve = limit + t**-rate + rng.choice([0.0, 0.003, 0.1]) * rng.standard_normal(n)
    with np.errstate(all="ignore"):
        shaped = [
            curve,
            np.full(n, rng.choice([0.1, 1.0, limit])),
            np.round(curve, 1),
            np.where(t % 5 == 0, curve, NAN),
            np.where(rng.random(n) < 0.2, rng.choice([NAN, INF, -INF], n), curve),
            np.where(t > n * rng.random(), NAN, curve),
            np.minimum.accumulate(curve),
            curve + 10.0 ** rng.uniform(0, 300) * (rng.random(n) < 0.05),
            1.0 - np.minimum(1.0, t / (n * rng.uniform(0.2, 2))),
            np.exp(rng.uniform(-3, 3) * t / 10),
            rng.choice([0.0, -0.0, 1.0, 1e308, -1e308, 5e-324], n),
        ][kind]
        return [float(v) for v in scale * shaped]


def params_of(rng: Rng) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters and their distributions; some trials lack some."""
    given = {
        "lr": (float(10 ** rng.uniform(-5, 0)), FloatDistribution(1e-5, 1.0, log=True)),
        "n": (int(rng.integers(1, 2**60)), IntDistribution(1, 2**60)),
        "opt": (rng.choice(["adam", "sgd"]).item(), CategoricalDistribution(["adam", "sgd"])),
        "odd": ([None, True, 3.5][rng.integers(3)], CategoricalDistribution([None, True, 3.5])),
    }
    kept = {name: pair for name, pair in given.items() if rng.random() < 0.8}
    return {name: value for name, (value, _) in kept.items()}, {name: how for name, (_, how) in kept.items()}


def pruner_of(rng: Rng, longest: int) -> CurvePruner:
    return CurvePruner(
        max_steps=(longest, "auto", max(longest // 10, 1), 20 * longest)[rng.integers(4)],
        threshold=float(rng.choice([0.05, 0.3, 0.9])),
        guard=float(rng.choice([0.0, 0.1, 0.5])),
        risk=[None, 0.1][rng.integers(2)],
        n_startup_trials=int(rng.integers(4)),
        n_warmup_steps=int(rng.choice([0, 0, 3])),
        interval_steps=int(rng.choice([1, 1, 3])),
        judged=("best", "final")[rng.integers(2)],
        look_growth=float(rng.choice([1.0, 1.1])),
        opinions=LEAGUE[rng.integers(len(LEAGUE))],
    )


def play(seed: int) -> int:
    """One study; how many looks it had."""
    rng = np.random.default_rng(seed)
    longest = int(rng.choice([5, 12, 30, 100, 300], p=[0.1, 0.3, 0.4, 0.15, 0.05]))
    of = pruner_of(rng, longest)
    study = optuna.create_study(direction=optuna.study.StudyDirection(1 + int(rng.integers(2))), pruner=of)
    scale = float(10.0 ** rng.choice([0, 0, 0, -12, 9, -300, 300]))
    axis = int(rng.choice(7, p=[0.55, 0.1, 0.1, 0.1, 0.05, 0.05, 0.05]))
    odd = float(rng.choice([0.0, 0.3, 1.0]))  # share of trials that are not plain curves
    looks = 0
    for _ in range(14):
        n = longest if rng.random() < 0.6 else int(rng.integers(1, longest + 1))
        values = values_of(rng, int(rng.integers(11)) if rng.random() < odd else 0, n, scale)
        steps = steps_of(rng, axis, n)
        params, how = params_of(rng)
        if rng.random() < 0.1:  # somebody else's, or of another study
            known = {step: value for step, value in zip(steps, values, strict=False) if not math.isnan(value)}
            state = TrialState.COMPLETE if math.isfinite(values[-1]) else TrialState.FAIL
            last = values[-1] if state is TrialState.COMPLETE else None
            study.add_trial(
                create_trial(state=state, value=last, params=params, distributions=how, intermediate_values=known)
            )
            continue
        study.enqueue_trial(params)
        trial = study.ask(how)
        if rng.random() < 0.2:
            shape = {"kind": "cosine", "peak": 0.1, "total": longest}
            trial.set_user_attr("lcsearch:schedule", shape if rng.random() < 0.5 else "no schedule")
        ended = None
        for step, value in zip(steps, values, strict=False):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Optuna's, of steps that come twice
                trial.report(value, step)
            looks += 1
            stop = trial.should_prune()
            assert type(stop) is bool
            if stop:
                held(study, trial.number, seed)
                ended = TrialState.PRUNED
                break
        if ended is None and rng.random() < 0.1:
            ended = [TrialState.FAIL, None][rng.integers(2)]  # failed, or left running
            if ended is None:
                continue
        finite = [value for value in values if math.isfinite(value)]
        if ended is None and not finite:
            ended = TrialState.FAIL
        if ended is None:
            study.tell(trial, finite[-1])
        else:
            study.tell(trial, state=ended)
    _, failed = of._session.tally()
    assert {what for what, _ in failed} <= {"opinion"}, (seed, failed)
    for frozen in study.trials:
        assert of.explain(frozen, study)
    assert of.why_not(study)
    assert str(of.report(study))
    assert isinstance(of._session, Session)
    return looks


def held(study: optuna.Study, number: int, seed: int) -> None:
    """A stop has its record, and the record is of a stop."""
    (frozen,) = [t for t in study.get_trials(deepcopy=False) if t.number == number]
    mark = Mark.from_json(frozen.system_attrs["lcsearch:mark"])
    assert isinstance(study.pruner, CurvePruner)
    decision = study.pruner._session.latest[next(reversed(study.pruner._session.latest))]
    assert decision.verdict.name == "STOP", seed
    if decision.now is not None:
        for look in (decision.now, decision.before):
            assert look is not None
            assert look.p is not None
            assert look.p < look.threshold, seed
        assert mark.p == decision.now.p, seed
        if decision.standing is not None and study.pruner._session.policy.guard:
            assert decision.standing.rank > 1 or decision.standing.n == 1, seed
    assert decision.incumbent is None or decision.incumbent.uid != str(number), seed


def test_a_thousand_looks() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    looks, seed = 0, 0
    while looks < 1000 or seed < 12:
        looks += play(seed)
        seed += 1


@pytest.mark.skipif("LCSEARCH_NIGHTLY" not in os.environ, reason="a hundred thousand looks: LCSEARCH_NIGHTLY=1")
def test_a_hundred_thousand_looks() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    looks, seed = 0, 1000
    while looks < 100_000:
        looks += play(seed)
        seed += 1
