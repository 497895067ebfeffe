"""Studies of every sort, made from a seed and played through CurvePruner with real forecasters, each look examined."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from kit.doubles import Liar
from kit.studies import id_of
from lcsearch.forecast.contract import Forecaster
from lcsearch.host.registry import resolve_forecasters
from lcsearch.schedulers.optuna import CurvePruner
from lcsearch.schedulers.optuna._record import MARK, REASON, Record, retried
from lcsearch.stopping.decision import Decision
from lcsearch.stopping.verdict import Reason, Verdict

Rng = np.random.Generator
NAN, INF = math.nan, math.inf
JUNK = ("", "{", "[1, 2]", '{"step": "x"}', '{"version": 99}', 7, None, "[" * 50_000, '{"p": NaN, "step": Infinity}')
LEAGUE = tuple(
    resolve_forecasters(names)
    for names in ("network", "network", "network", "network", "parametric", "rank-gap", ("network", "rank-gap"))
)
"""The network in most studies; shared, as nothing but weights is kept in them."""


def steps_of(rng: Rng, kind: int, n: int) -> list[int]:
    """Steps as loops have them, and as they should not."""
    start = int(rng.integers(2))
    kinds: list[list[int]] = [
        [start + i for i in range(n)],
        [10 * i for i in range(n)],
        sorted({int(2**i) for i in np.linspace(0, 14, n)}),
        [1_700_000_000 + 37 * i + int(rng.integers(9)) for i in range(n)],
        [n - i for i in range(n)],
        [0] * n,
        [int(rng.integers(max(n, 2))) for _ in range(n)],
        [2**53 + 2 * i for i in range(n)],
        [i // 2 for i in range(n)],
        np.cumsum(rng.choice([1, 1, 1, 50], n)).tolist(),
    ]
    return kinds[kind]


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
            np.where(t < n / 2, curve[0], curve),  # stands still, then moves
            1.0 + curve * 1e-16,  # differences of the last bit
            curve.astype(np.float16).astype(float),
            np.where(rng.random(n) < 0.5, INF, -INF) * np.where(t < 3, 0.0, 1.0),
        ][kind]
        return [float(v) for v in scale * shaped]


SHAPES, AXES = 15, 10


def params_of(rng: Rng) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    """Parameters and their distributions; some stand under a condition, and some trials lack some."""
    odd: tuple[Any, ...] = (None, True, 3.5, NAN, INF, "", "ünï\n", 10**18, -1)
    given: dict[str, tuple[Any, BaseDistribution]] = {
        "lr": (float(10 ** rng.uniform(-5, 0)), FloatDistribution(1e-5, 1.0, log=True)),
        "n": (int(rng.integers(1, 2**60)), IntDistribution(1, 2**60)),
        "opt": (rng.choice(["adam", "sgd"]).item(), CategoricalDistribution(["adam", "sgd"])),
        "odd": (odd[rng.integers(len(odd))], CategoricalDistribution(odd)),
        "one": (1.0, FloatDistribution(1.0, 1.0)),
        "huge": (float(rng.uniform(-1, 1)) * 1e307, FloatDistribution(-1e307, 1e307)),
    }
    kept = {name: pair for name, pair in given.items() if rng.random() < 0.8}
    if "opt" in kept and kept["opt"][0] == "sgd":
        kept["momentum"] = float(rng.uniform(0, 1)), FloatDistribution(0.0, 1.0)
    return {name: value for name, (value, _) in kept.items()}, {name: how for name, (_, how) in kept.items()}


def knobs_of(rng: Rng, longest: int) -> dict[str, Any]:
    """What CurvePruner is made with."""
    forecasters: tuple[Forecaster, ...] = LEAGUE[rng.integers(len(LEAGUE))]
    return {
        "max_steps": (longest, longest, "auto", max(longest // 10, 1), 20 * longest)[rng.integers(5)],
        "threshold": float(rng.choice([0.0, 0.05, 0.3, 0.9, 1.0])),
        "guard": float(rng.choice([0.0, 0.1, 0.5])),
        "risk": [None, None, 0.1, 0.0][rng.integers(4)],
        "n_startup_trials": int(rng.integers(4)),
        "n_warmup_steps": int(rng.choice([0, 0, 3])),
        "interval_steps": int(rng.choice([1, 1, 3])),
        "n_min_trials": int(rng.choice([1, 1, 3])),
        "judged": ("best", "final")[rng.integers(2)],
        "look_growth": float(rng.choice([1.0, 1.1, 2.0])),
        "forecasters": forecasters,
    }


@dataclass
class Run:
    """A trial under way: what it will report."""

    trial: optuna.Trial
    reports: Iterator[tuple[int, float]]
    values: list[float]
    deaf: bool  # an objective that does not ask, or does not obey
    said: list[tuple[int, float]] = field(default_factory=list)


@dataclass
class Play:
    """One study.

    Attributes:
        looks: how many there were.
        stops: how many of them came to a stop.
        forecasts: how many reached a forecaster.
    """

    seed: int
    looks: int = 0
    stops: int = 0
    forecasts: int = 0

    def __post_init__(self) -> None:
        rng = self.rng = np.random.default_rng(self.seed)
        self.longest = int(rng.choice([1, 5, 12, 30, 100, 300], p=[0.03, 0.07, 0.3, 0.4, 0.15, 0.05]))
        self.knobs = knobs_of(rng, self.longest)
        if self.seed % 4 == 3:  # what protects a trial must do so whatever is forecast
            self.knobs |= {"forecasters": Liar(), "guard": float(rng.choice([0.0, 0.1, 0.5])), "threshold": 0.3}
        self.pruner = CurvePruner(**self.knobs)
        self.maximize = bool(rng.integers(2))
        self.study = optuna.create_study(
            direction="maximize" if self.maximize else "minimize",
            pruner=self.pruner,
            sampler=optuna.samplers.RandomSampler(seed=self.seed),
            storage="sqlite://" if self.longest <= 12 and rng.random() < 0.1 else None,
        )
        self.scale = float(10.0 ** rng.choice([0, 0, 0, -12, 9, -300, 300])) * (1 if rng.random() < 0.8 else -1)
        self.axis = int(rng.choice(AXES, p=[0.5, 0.1, 0.1, 0.05, 0.05, 0.02, 0.05, 0.03, 0.05, 0.05]))
        self.odd = float(rng.choice([0.0, 0.3, 1.0]))  # share of trials that are not plain curves
        self.constrained = rng.random() < 0.15

    def play(self) -> Play:
        """From the first trial to the last question."""
        rng, waiting = self.rng, int(self.rng.choice([8, 14, 20]))
        workers, running = int(rng.choice([1, 1, 3])), list[Run]()
        while waiting or running:
            while waiting and len(running) < workers:
                waiting -= 1
                if rng.random() < 0.15:
                    self.copy()
                else:
                    running.append(self.begin())
            if running:
                at = int(rng.integers(len(running)))
                if not self.go_on(running[at]):
                    self.end(running.pop(at))
        self.ask_all()
        return self

    def curve(self) -> tuple[list[int], list[float]]:
        rng = self.rng
        n = self.longest if rng.random() < 0.6 else int(rng.integers(1, self.longest + 1))
        values = values_of(rng, int(rng.integers(SHAPES)) if rng.random() < self.odd else 0, n, self.scale)
        return steps_of(rng, self.axis, n), values

    def copy(self) -> None:
        """Trials of elsewhere: finished ones made by hand, ones of this study under another number, retries."""
        rng, known = self.rng, self.study.get_trials(deepcopy=True)
        kind = int(rng.integers(4))
        if kind == 0 and known:
            one = known[rng.integers(len(known))]
            self.study.add_trial(one)
            return
        if kind == 1 and (failed := [t for t in known if t.state == TrialState.FAIL]):
            dead = failed[rng.integers(len(failed))]
            self.study.add_trial(
                create_trial(
                    state=TrialState.WAITING,
                    params=dead.params,
                    distributions=dead.distributions,
                    user_attrs=dead.user_attrs,
                    system_attrs={"failed_trial": dead.number, "retry_history": [dead.number], **dead.system_attrs},
                    intermediate_values=dead.intermediate_values if rng.random() < 0.5 else None,
                )
            )
            return
        steps, values = self.curve()
        params, how = params_of(rng)
        reports = {step: value for step, value in zip(steps, values, strict=False) if not math.isnan(value)}
        state = TrialState.COMPLETE if math.isfinite(values[-1]) else TrialState.FAIL
        junk = {MARK: JUNK[rng.integers(len(JUNK))]} if kind == 2 else {}
        self.study.add_trial(
            create_trial(
                state=[state, TrialState.PRUNED][int(bool(reports) and rng.random() < 0.2)],
                value=values[-1] if math.isfinite(values[-1]) else None,
                params=params,
                distributions=how,
                intermediate_values=reports,
                system_attrs=junk,
                user_attrs={REASON: "stopped, they say"} if junk and rng.random() < 0.5 else {},
            )
        )

    def begin(self) -> Run:
        rng = self.rng
        params, how = params_of(rng)
        if not any(t.state == TrialState.WAITING for t in self.study.get_trials(deepcopy=False)):
            self.study.enqueue_trial(params)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna's, of a parameter outside its range
            trial = self.study.ask(how)
        if rng.random() < 0.2:
            shapes: list[Any] = [
                {"kind": "cosine", "peak": 0.1, "total": self.longest},
                "no schedule",
                [1],
                {"kind": 3},
            ]
            trial.set_user_attr("lcsearch:schedule", shapes[rng.integers(len(shapes))])
        steps, values = self.curve()
        return Run(trial, zip(steps, values, strict=False), values, deaf=rng.random() < 0.1)

    def go_on(self, run: Run) -> bool:
        """One report and one look; False at the trial's end."""
        report = next(run.reports, None)
        if report is None:
            return False
        step, value = report
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna's, of steps that come twice
            run.trial.report(value, step)
        self.looks += 1
        before = self.pruner.session.reasons.total()
        other = CurvePruner(**self.knobs) if self.rng.random() < 0.03 else None
        stop = run.trial.should_prune()
        assert type(stop) is bool, self.seed
        assert self.pruner.session.reasons.total() == before + 1, self.seed
        if stop:
            self.stops += 1
            self.examine(run.trial.number)
            other = CurvePruner(**self.knobs)
        if other is not None:
            (frozen,) = (t for t in self.study.get_trials(deepcopy=True) if t.number == run.trial.number)
            assert retried(frozen) or other.prune(self.study, frozen) is stop, (self.seed, frozen.number, step)
        if self.rng.random() < 0.01:
            self.ask_all()
        return not stop or run.deaf

    def end(self, run: Run) -> None:
        rng, state = self.rng, TrialState.COMPLETE
        (frozen,) = (t for t in self.study.get_trials(deepcopy=False) if t.number == run.trial.number)
        if self.constrained:
            run.trial.storage.set_trial_system_attr(id_of(run.trial), "constraints", [float(rng.normal())])
        if frozen.user_attrs.get(REASON) and rng.random() < 0.8:
            state = TrialState.PRUNED
        elif rng.random() < 0.1:
            state = TrialState.FAIL
            if rng.random() < 0.5:
                return  # left running
        finite = [value for value in run.values if math.isfinite(value)]
        worth: float | None = finite[-1] if finite else None
        if rng.random() < 0.1:
            worth = float(rng.choice([0.0, 1e300, -1e300, 0.5]))
        if state is TrialState.COMPLETE and worth is not None:
            self.study.tell(run.trial, worth)
        else:
            self.study.tell(run.trial, state=TrialState.FAIL if state is TrialState.COMPLETE else state)

    def examine(self, number: int) -> None:
        """A stop has its record, which reads back; both looks were below the threshold; whoever leads goes on."""
        frozen = next(t for t in self.study.get_trials(deepcopy=False) if t.number == number)
        record = Record.read(frozen)
        assert record is not None, self.seed
        assert frozen.user_attrs[REASON], self.seed
        json.dumps(frozen.user_attrs)
        decision = self.decision(number)
        assert decision.verdict is Verdict.STOP, self.seed
        assert record.stop.p == (None if decision.now is None else decision.now.p), self.seed
        assert (decision.now is None) == (decision.reason is Reason.DIVERGED), self.seed
        policy = self.pruner.session.policy
        for look in (decision.now, decision.before):
            if look is not None:
                assert look.p is not None, self.seed
                few = look.n_observations < 8  # strict on short curves
                assert look.p < look.threshold, self.seed
                assert look.threshold == self.knobs["threshold"] * (0.2 if few else 1.0), self.seed
                assert record.stop.text.count("\n") < 20, self.seed
        assert decision.incumbent is None or decision.incumbent.uid != str(number), self.seed
        if (rank := decision.standing) is not None:  # not among the best share, of those here and of all
            assert rank.n > policy.min_comparisons, self.seed
            assert rank.rank > math.ceil(self.knobs["guard"] * rank.n), self.seed
            everyone = rank.n + rank.ended
            assert rank.rank + rank.ended_ahead > math.ceil(self.knobs["guard"] * everyone), self.seed
        if policy.risk is not None and decision.now is not None:
            assert decision.risk is not None, self.seed
            assert decision.risk <= policy.risk, self.seed
        assert not self.leads(frozen, decision), self.seed
        assert record.stop.text in self.pruner.explain(number, self.study), self.seed

    def decision(self, number: int) -> Decision:
        latest = self.pruner.session.latest
        return next(latest[key] for key in reversed(latest) if key[1] == str(number))

    def leads(self, frozen: FrozenTrial, decision: Decision) -> bool:
        """Has it passed what it must beat? Worked out here from Optuna's own."""
        if self.knobs["judged"] != "best" or decision.incumbent is None:
            return False
        sign = -1.0 if self.maximize else 1.0
        own = [sign * value for value in frozen.intermediate_values.values() if math.isfinite(value)]
        return bool(own) and min(own) < sign * decision.incumbent.value

    def ask_all(self) -> None:
        """Every question, of the pruner that looked and of one that did not: none raises, nothing has failed."""
        study, trials = self.study, self.study.get_trials(deepcopy=False)
        for pruner in (self.pruner, CurvePruner(**self.knobs)):
            for at in self.rng.permutation(len(trials))[:2]:
                assert pruner.explain(trials[at], study), self.seed
            assert pruner.why_not(study), self.seed
            told = pruner.report(study)
            assert str(told), self.seed
            assert told.risk is None or 0 <= told.risk <= 1, (self.seed, told.risk)
            assert told.saved >= 0, self.seed
        reasons, failed = self.pruner.session.tally()
        assert {what for what, _ in failed} <= {"forecast"}, (self.seed, failed)
        assert sum(n for _, n in failed) == dict(reasons).get(Reason.ABSENT, 0), (self.seed, failed)
        self.forecasts = sum(n for reason, n in reasons if reason in (Reason.BELOW, Reason.ABOVE, Reason.ABOVE_BEFORE))
