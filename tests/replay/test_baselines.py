"""Rules of the field: by hand on five trials, and look for look beside the originals."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import numpy as np
import optuna
import pytest
from kit.builders import goal as goal_of
from kit.builders import mirrored, mirrored_trial, snapshot, trial
from kit.tune_runner import Runner
from optuna.pruners import BasePruner
from optuna.trial import TrialState
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import ASHAScheduler

from lcsearch.curves import Curve
from lcsearch.errors import InvalidValue
from lcsearch.goal import Direction, Goal
from lcsearch.replay.baselines import Asha, Gated, Hyperband, Median, Never, Patience, Rule, SuccessiveHalving
from lcsearch.replay.stopper import Stopper
from lcsearch.stopping.gates import Event
from lcsearch.stopping.policy import Policy
from lcsearch.stopping.verdict import Reason, Verdict
from lcsearch.study import FinishedTrials, Snapshot, Status, Trial

NAN, INF = math.nan, math.inf
DIRECTIONS: tuple[Direction, ...] = ("minimize", "maximize")

# By hand: three trials that ran to their end, one stopped at step 2, and a fifth that is looked at.


def four(horizon: float = 4) -> Snapshot:
    done = [
        trial("0", [5, 4, 3, 2], first=1),
        trial("1", [6, 5, 4, 3], first=1),
        trial("2", [4, 4, 5, 1], first=1),
        trial("3", [7, 7], Status.STOPPED, first=1),
    ]
    return snapshot(goal_of(horizon=horizon), done)


def said(of: Stopper, values: Sequence[float], seen: Snapshot | None = None, first: float = 1) -> str:
    """STOP or CONTINUE for a fifth trial with these values, the same when everything is mirrored; why in words."""
    seen = seen or four()
    fifth = trial("4", values, Status.RUNNING, first=first)
    look = Event(fifth, fifth.curve.last_step)
    decision, mark = of.check(seen, look)
    up = of.check(mirrored(seen), Event(mirrored_trial(fifth), look.step)).decision
    assert (up.verdict, up.reason) == (decision.verdict, decision.reason)
    assert (mark is not None) == (decision.verdict is Verdict.STOP)
    if mark is not None:
        assert (mark.p, mark.reason, mark.text) == (None, decision.reason.name, decision.text)
        assert decision.detail in mark.text
    return f"{decision.verdict.name} {decision.detail}"


@pytest.mark.parametrize(
    ("of", "values", "expected"),
    [
        (Never(), [9, 9, 9, 9], "CONTINUE never: nothing is stopped"),
        # Patience
        (Patience(0), [5], "CONTINUE patience-0: 0 reports without improvement"),
        (Patience(0), [5, 4], "CONTINUE patience-0: 0 reports without improvement"),
        (Patience(0), [5, 5], "STOP patience-0: 1 reports without improvement"),
        (Patience(1), [5, 5], "CONTINUE patience-1: 1 reports without improvement"),
        (Patience(1), [5, 6, NAN], "STOP patience-1: 2 reports without improvement"),
        (Patience(1), [5, 6, 4], "CONTINUE patience-1: 0 reports without improvement"),
        (Patience(1), [NAN], "CONTINUE patience-1: 1 reports without improvement"),
        (Patience(1), [NAN, NAN], "STOP patience-1: 2 reports without improvement"),
        (Patience(1), [NAN, 9], "CONTINUE patience-1: 0 reports without improvement"),
        # Median: 5 4 4 is worse than none of its own step but 4
        (Median(3), [6], "STOP median: best 6, median 5 of 3"),
        (Median(3), [5], "CONTINUE median: best 5, median 5 of 3"),
        (Median(3), [6, 4], "CONTINUE median: best 4, median 4 of 3"),
        (Median(3), [4, 9], "CONTINUE median: best 4, median 4 of 3"),
        (Median(3), [4, 9, NAN, 3], "STOP median: best 3, median 2 of 3"),
        (Median(3), [NAN], "STOP median: nothing but NaN"),
        (Median(4), [9], "CONTINUE median: 3 trials have finished"),
        (Median(3, n_min_trials=4), [9], "CONTINUE median: 3 values at this step"),
        (Median(3, 2), [9], "CONTINUE median: below the warm-up"),
        (Median(3, 1, 2), [9, 9], "CONTINUE median: this interval had its look"),
        (Median(3, 1, 2), [9, 9, 9], "STOP median: best 9, median 4 of 3"),
        # Successive halving, rungs at 1, 2, 4: the second best of five goes on
        (SuccessiveHalving(1, 2), [6], "STOP sha: 6 at the rung of step 1, 5 goes on, 5 records"),
        (SuccessiveHalving(1, 2), [5], "CONTINUE sha: 5 at the rung of step 1, 5 goes on, 5 records"),
        (SuccessiveHalving(1, 2), [5, 5], "STOP sha: 5 at the rung of step 2, 4 goes on, 5 records"),
        (SuccessiveHalving(1, 2), [5, 4], "CONTINUE sha: 4 at the rung of step 2, 4 goes on, 5 records"),
        (SuccessiveHalving(1, 2), [5, 4, 9], "CONTINUE sha: between rungs"),
        # The one that was stopped at 2 has no record at 4.
        (SuccessiveHalving(1, 2), [5, 4, 9, 3], "STOP sha: 3 at the rung of step 4, 2 goes on, 4 records"),
        (SuccessiveHalving(1, 2), [5, NAN], "STOP sha: NaN at the rung of step 2"),
        (SuccessiveHalving(1, 9), [4], "CONTINUE sha: 4 at the rung of step 1, 4 goes on, 5 records"),
        (SuccessiveHalving(1, 9), [4.5], "STOP sha: 4.5 at the rung of step 1, 4 goes on, 5 records"),
        (SuccessiveHalving(1, 2, 1), [9], "CONTINUE sha: between rungs"),
        (SuccessiveHalving(1, 2, 0, 5), [1], "STOP sha: 1 at the rung of step 1, too few to compare, 5 records"),
        # Asha, rungs at 1, 2, 4 of which the last is the end
        (Asha(4, 1, 2), [6], "STOP asha: 6 at the rung of step 1, cutoff 5.5 of 4 records"),
        (Asha(4, 1, 2), [5.5], "CONTINUE asha: 5.5 at the rung of step 1, cutoff 5.5 of 4 records"),
        (Asha(4, 1, 2), [5, 4.6], "STOP asha: 4.6 at the rung of step 2, cutoff 4.5 of 4 records"),
        (Asha(4, 1, 2), [5, 4, 9], "CONTINUE asha: between rungs"),
        (Asha(4, 1, 2), [5, 4, 9, 9], "CONTINUE asha: max_t is reached"),
        (Asha(9, 1, 2), [5, 4, 9, 9], "STOP asha: 9 at the rung of step 4, cutoff 2 of 3 records"),
        (Asha(4, 1, 2), [NAN], "CONTINUE asha: nan at the rung of step 1, cutoff 5.5 of 4 records"),
    ],
)  # fmt: skip
def test_by_hand(of: Stopper, values: list[float], expected: str) -> None:
    # Mirrored, the numbers in the words change their signs; the verdict does not.
    assert said(of, values) == expected


def test_nothing_before_anything_has_finished() -> None:
    nothing = snapshot(goal_of(horizon=4), [])
    for of in (Never(), Median(0), SuccessiveHalving(1, 2), Hyperband(4), Asha(4)):
        assert said(of, [5], nothing).startswith("CONTINUE")


def test_the_bracket_decides_who_competes() -> None:
    of = Hyperband(4, 1, 2)
    assert of.shares == (4, 3, 3)
    assert [rule.rungs(8) for rule in of.brackets] == [[1, 2, 4, 8], [2, 4, 8], [4, 8]]
    # crc32("b_0"), ..., modulo 10: 7 3 5 3 0
    assert [of.bracket("b", str(i)) for i in range(5)] == [2, 0, 1, 0, 0]
    done = [trial(uid, [5, 4 + int(uid), 3, 2], first=1) for uid in "0123"]
    seen = snapshot(goal_of(horizon=4), done, study="b")
    # Of the first four, 1 and 3 share the bracket of 4, whose rungs are 1, 2, 4.
    assert said(of, [9], seen) == "STOP hyperband: bracket 0, 9 at the rung of step 1, 5 goes on, 3 records"
    assert said(of, [5, 6.1], seen) == "STOP hyperband: bracket 0, 6.1 at the rung of step 2, 5 goes on, 3 records"
    assert said(of, [5, 5], seen) == "CONTINUE hyperband: bracket 0, 5 at the rung of step 2, 5 goes on, 3 records"
    # With another name the fifth is alone at its rungs.
    assert said(of, [9, 9, 9, 9], snapshot(goal_of(horizon=4), four().bank)) == (
        "CONTINUE hyperband: bracket 2, 9 at the rung of step 4, 9 goes on, 1 records"
    )


def test_what_runs_beside_competes_too_and_the_trial_itself_does_not() -> None:
    fifth = trial("4", [6], Status.RUNNING, first=1)
    seen = snapshot(goal_of(horizon=4), [], [trial("0", [5], Status.RUNNING, first=1), fifth])
    for of in (SuccessiveHalving(1, 2), Asha(4, 1, 2)):
        assert of.check(seen, Event(fifth, 1)).decision.verdict is Verdict.STOP
        alone = snapshot(goal_of(horizon=4), [], [fifth])
        assert of.check(alone, Event(fifth, 1)).decision.verdict is Verdict.CONTINUE


def test_a_look_sees_no_later_report() -> None:
    whole = trial("4", [5, 4, 9, 9], first=1)
    for step in (1, 2, 3, 4):
        for of in (Patience(0), Median(3), SuccessiveHalving(1, 2), Asha(9, 1, 2)):
            cut = of.check(four(), Event(whole.cut(step), step))
            assert of.check(four(), Event(whole, step)) == cut


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Patience(-1), "Patience.patience: expected a whole number >= 0, got -1."),
        (lambda: Median(interval_steps=0), "Median.interval_steps: expected a whole number >= 1, got 0."),
        (lambda: SuccessiveHalving(reduction_factor=1), "reduction_factor: expected a whole number >= 2, got 1."),
        (lambda: SuccessiveHalving("auto"), "SuccessiveHalving.min_resource: expected a whole number >= 1, got 'auto'"),  # type: ignore[arg-type]
        (lambda: Hyperband(3, 9), "Hyperband.max_resource: expected a whole number >= 9, got 3."),
        (lambda: Asha(9, 0), "expected 0 < grace_period <= max_t and reduction_factor > 1, got"),
        (lambda: Asha(9, 1, 1), "expected 0 < grace_period <= max_t and reduction_factor > 1, got"),
    ],
)  # fmt: skip
def test_wrong_knobs(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidValue) as error:
        make()
    assert message in str(error.value)


# Beside the originals

N_TRIALS, LENGTH = 30, 30


def random_curves(seed: int, *, gaps: bool, nan: float = 0.04, digits: int = 1) -> list[dict[int, float]]:
    """Coarse values, so that many tie; some NaN and infinities; steps from 0 or 1, with gaps or without."""
    rng = np.random.default_rng(seed)
    curves = []
    for _ in range(N_TRIALS):
        n = int(rng.integers(1, LENGTH + 1)) if rng.random() < 0.2 else LENGTH
        steps = np.arange(n) + int(rng.integers(2))
        if gaps:
            steps = np.cumsum(rng.integers(1, 9, n // 3 + 1))
        limit, gain = rng.uniform(0, 1), rng.uniform(0, 3)
        values = np.round(limit + gain / (steps + 1.0) + 0.1 * rng.standard_normal(steps.size), digits)
        odd = rng.random(steps.size)
        values = np.where(odd < nan, NAN, np.where(odd > 1 - nan / 8, INF, np.where(odd > 1 - nan / 4, -INF, values)))
        curves.append(dict(zip(steps.tolist(), values.tolist(), strict=True)))
    return curves


def turns(
    curves: Sequence[dict[int, float]], seed: int, workers: int
) -> Generator[tuple[int, int | None], bool | None, None]:
    """(trial, step) in an order in which `workers` run side by side; step None: it ends. Trials stopped are skipped by
    whoever sends True.
    """
    rng = np.random.default_rng(seed)
    waiting = list(range(len(curves)))[::-1]
    running: dict[int, Iterator[int]] = {}
    while waiting or running:
        while waiting and len(running) < workers:
            i = waiting.pop()
            running[i] = iter(curves[i])
        i = int(rng.choice(list(running)))
        step = next(running[i], None)
        stopped = yield i, step
        if step is None or stopped:
            del running[i]


class Beside:
    """Plays curves to a rule and counts; `original(trial, step, value)` is what the other side says."""

    def __init__(self, rule: Stopper, goal: Goal, study: str = "s") -> None:
        self.rule, self.goal, self.study = rule, goal, study
        self.bank, self.live = FinishedTrials(goal), dict[int, Trial]()
        self.looks = self.stops = 0

    def look(self, i: int, step: int, value: float) -> bool:
        """A report; whether the rule stops the trial."""
        known = self.live.get(i, Trial(str(i)))
        curve = Curve.of(*(np.append(a, b) for a, b in zip(known.curve.reports(), (step, value), strict=True)))
        self.live[i] = Trial(str(i), curve)
        seen = Snapshot(self.study, self.goal, self.bank, tuple(self.live.values()))
        decision = self.rule.check(seen, Event(self.live[i], step)).decision
        assert decision.reason is Reason.RULE
        stop = decision.verdict is Verdict.STOP
        self.looks, self.stops = self.looks + 1, self.stops + stop
        return stop

    def end(self, i: int, status: Status) -> None:
        one = self.live.pop(i)
        self.bank = self.bank.extend([Trial(one.uid, one.curve, status=status)])


def beside_optuna(
    rule: Stopper, pruner: BasePruner, direction: Direction, curves: Sequence[dict[int, float]], seed: int, workers: int
) -> Beside:
    """Both say the same at every look; a trial that Optuna prunes ends. Every eleventh trial fails."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(study_name=f"s{seed}", direction=direction, pruner=pruner)
    sign = 1.0 if direction == "minimize" else -1.0
    mine = Beside(rule, Goal("m", direction, 2 * LENGTH), study.study_name)
    theirs: dict[int, optuna.trial.Trial] = {}
    order = turns(curves, seed, workers)
    stopped: bool | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy in Optuna, on NaN and infinities
        while True:
            try:
                i, step = order.send(stopped)
            except StopIteration:
                return mine
            if i not in theirs:
                theirs[i] = study.ask()
            number, stopped = theirs[i].number, False
            if step is None:
                failed = i % 11 == 10
                study.tell(theirs[i], None if failed else 0.0, TrialState.FAIL if failed else None)
                mine.end(number, Status.FAILED if failed else Status.COMPLETE)
                continue
            theirs[i].report(sign * curves[i][step], step)
            stopped = bool(theirs[i].should_prune())
            assert mine.look(number, step, sign * curves[i][step]) is stopped, (i, step, curves[i], rule)
            if stopped:
                study.tell(theirs[i], state=TrialState.PRUNED)
                mine.end(number, Status.STOPPED)


SETTINGS = [(direction, seed, workers) for direction in DIRECTIONS for seed in range(4) for workers in (1, 5)]


@pytest.mark.parametrize(("direction", "seed", "workers"), SETTINGS)
@pytest.mark.parametrize("knobs", [(5, 0, 1, 1), (0, 3, 4, 1), (2, 0, 1, 3)], ids=str)
def test_median_beside_optuna(direction: Direction, seed: int, workers: int, knobs: tuple[int, int, int, int]) -> None:
    startup, warmup, interval, least = knobs
    theirs = optuna.pruners.MedianPruner(startup, warmup, interval, n_min_trials=least)
    curves = random_curves(seed, gaps=bool(seed % 2), nan=0.3 if seed == 2 else 0.04, digits=1 if seed else 9)
    found = beside_optuna(Median(startup, warmup, interval, least), theirs, direction, curves, seed, workers)
    assert found.stops >= 4
    assert found.looks - found.stops > 10


@pytest.mark.parametrize(("direction", "seed", "workers"), SETTINGS)
@pytest.mark.parametrize("knobs", [(1, 2, 0, 0), (2, 3, 0, 0), (1, 4, 1, 0), (3, 2, 0, 3)], ids=str)
def test_halving_beside_optuna(direction: Direction, seed: int, workers: int, knobs: tuple[int, int, int, int]) -> None:
    # Reports that pass two rungs at once: only with one worker, as the class says.
    curves = random_curves(seed, gaps=workers == 1 and bool(seed % 2))
    theirs = optuna.pruners.SuccessiveHalvingPruner(*knobs)
    found = beside_optuna(SuccessiveHalving(*knobs), theirs, direction, curves, seed, workers)
    assert found.stops > 10
    assert found.looks - found.stops > 10


@pytest.mark.parametrize(("direction", "seed", "workers"), SETTINGS)
@pytest.mark.parametrize("knobs", [(1, 30, 3, 0), (1, 27, 3, 0), (2, 30, 2, 2)], ids=str)
def test_hyperband_beside_optuna(
    direction: Direction, seed: int, workers: int, knobs: tuple[int, int, int, int]
) -> None:
    least, most, eta, bootstrap = knobs
    curves = random_curves(seed, gaps=workers == 1 and bool(seed % 2))
    theirs = optuna.pruners.HyperbandPruner(least, most, eta, bootstrap)
    found = beside_optuna(Hyperband(most, least, eta, bootstrap), theirs, direction, curves, seed, workers)
    assert found.stops > 5
    assert found.looks - found.stops > 10


@pytest.mark.parametrize("patience", [0, 1, 5, 10])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_patience_beside_optuna(direction: Direction, patience: int) -> None:
    curves = random_curves(7, gaps=False, nan=0.0, digits=12)  # ties and NaN are another matter
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        theirs = optuna.pruners.PatientPruner(None, patience)
    found = beside_optuna(Patience(patience), theirs, direction, curves, 7, 3)
    assert found.stops > 2


@pytest.mark.parametrize(("direction", "seed", "workers"), SETTINGS)
@pytest.mark.parametrize("knobs", [(30, 1, 2), (25, 2, 3), (16, 1, 4), (60, 1, 1.5)], ids=str)
def test_asha_beside_ray(direction: Direction, seed: int, workers: int, knobs: tuple[float, float, float]) -> None:
    max_t, grace, eta = knobs
    curves = random_curves(seed, gaps=bool(seed % 2), nan=0.1 if seed == 2 else 0.04)
    sign = 1.0 if direction == "minimize" else -1.0
    theirs = Runner(ASHAScheduler("training_iteration", "loss", direction[:3], max_t, grace, eta))  # type: ignore[arg-type]
    mine = Beside(Asha(max_t, grace, eta), Goal("loss", direction, max_t))
    trials: dict[int, TuneTrial] = {}
    order = turns(curves, seed, workers)
    stopped: bool | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy in Ray, on NaN and infinities
        while True:
            try:
                i, step = order.send(stopped)
            except StopIteration:
                break
            if i not in trials:
                trials[i] = theirs.start(str(i))
            stopped = False
            if step is None:
                failed = i % 11 == 10
                theirs.fail(trials[i]) if failed else theirs.end(trials[i])
                mine.end(i, Status.FAILED if failed else Status.COMPLETE)
                continue
            value = sign * curves[i][step]
            seen = mine.look(i, step, value)
            stopped = theirs.report(trials[i], step, value) == "STOP"
            if step >= max_t:
                assert not seen
                assert stopped
            else:
                assert seen is stopped, (i, step, curves[i])
            if stopped:
                mine.end(i, Status.COMPLETE if step >= max_t else Status.STOPPED)
    assert mine.stops > 5
    assert mine.looks - mine.stops > 10


# Gates


def grown(n: int = 6, length: int = 20) -> Snapshot:
    """`n` COMPLETE trials that fall to 0.1, 0.2, ..."""
    done = [trial(str(i), [0.1 * (i + 1) + 0.8**t for t in range(length)], first=1) for i in range(n)]
    return snapshot(goal_of(horizon=length), done)


def first_stop(of: Stopper, values: Sequence[float], seen: Snapshot) -> tuple[int | None, list[Reason]]:
    reasons = []
    for n in range(1, len(values) + 1):
        fifth = trial("new", values[:n], Status.RUNNING, first=1)
        decision = of.check(seen, Event(fifth, n)).decision
        reasons.append(decision.reason)
        if decision.verdict is Verdict.STOP:
            return n, reasons
    return None, reasons


class Always:
    """Stops at every look."""

    name = "always"

    def __init__(self) -> None:
        self.asked: list[tuple[float, float]] = []

    def says(self, snapshot: Snapshot, trial: Trial, since: float) -> Any:
        self.asked.append((since, trial.curve.last_step))
        return True, "whatever comes"


def test_gates_hold_as_in_production() -> None:
    bad = [5 + 0.8**t for t in range(20)]
    at, reasons = first_stop(Gated(Always(), Policy()), bad, grown())
    assert (at, reasons) == (6, [Reason.SHORT] * 5 + [Reason.RULE])
    assert first_stop(Gated(Always(), Policy()), bad, grown(1))[0] is None
    assert first_stop(Gated(Always(), Policy(n_warmup_steps=9)), bad, grown())[0] == 9
    assert first_stop(Gated(Always(), Policy(interval_steps=10)), bad, grown())[0] == 10
    decision, mark = Gated(Always(), Policy()).check(grown(), Event(trial("new", bad[:6], first=1), 6))
    assert decision.detail == "always: whatever comes"
    assert decision.incumbent == grown().incumbent
    assert decision.standing is not None
    assert (decision.standing.rank, decision.standing.n) == (7, 7)
    assert mark is not None
    assert mark.text == decision.text


def test_the_rank_guard_and_the_leader() -> None:
    good = [0.05 + 0.8**t for t in range(20)]  # leads at every step, passes the incumbent near the end
    at, reasons = first_stop(Gated(Always(), Policy()), good, grown())
    assert at is None
    assert {Reason.GUARD, Reason.INCUMBENT, Reason.HORIZON} < set(reasons)
    bare = Policy(guard=0, min_comparisons=0)
    assert first_stop(Gated(Always(), bare), good, grown())[0] == 6
    passed = [*good[:5], 0.01, 0.01]
    assert first_stop(Gated(Always(), bare), passed, grown())[1][-2:] == [Reason.INCUMBENT] * 2


def test_a_diverged_trial_is_stopped_as_in_production() -> None:
    lost = [5, 4, NAN, NAN, NAN]
    assert first_stop(Gated(Never(), Policy()), lost, grown()) == (5, [Reason.SHORT] * 4 + [Reason.DIVERGED])
    assert first_stop(Gated(Never(), Policy(divergence_reports=10**9)), lost, grown())[0] is None


def test_what_a_gate_of_the_trial_put_off_is_judged_at_the_next_look() -> None:
    bad = [5 + 0.8**t for t in range(20)]
    of = Always()
    first_stop(Gated(of, Policy()), bad, grown())
    assert of.asked == [(-INF, 6)]

    class Watch(Always):
        def says(self, snapshot: Snapshot, trial: Trial, since: float) -> Any:
            return False, str(super().says(snapshot, trial, since))

    for policy, looks in (
        (Policy(), [-INF, *range(6, 20)]),
        (Policy(n_warmup_steps=4, interval_steps=5), [-INF, 9, 14, 19]),
        (Policy(min_observations=1), [-INF, *range(2, 20)]),  # a first look is held by FIRST_LOOK
    ):
        of = Watch()
        first_stop(Gated(of, policy), bad, grown())
        # The look at the horizon is held.
        assert of.asked == list(itertools.pairwise(looks))
    # Rungs at 1, 2, 4 were passed before six observations: they are judged with the first look, one at 8 at its own.
    assert first_stop(Gated(SuccessiveHalving(1, 2), Policy()), bad, grown())[0] == 6
    assert first_stop(Gated(SuccessiveHalving(8, 2), Policy()), bad, grown())[0] == 8
    assert first_stop(Gated(SuccessiveHalving(8, 2), Policy(interval_steps=5)), bad, grown())[0] == 10
    assert first_stop(Gated(Asha(20, 8, 2), Policy(interval_steps=5)), bad, grown())[0] == 10


def test_names() -> None:
    rules: list[Rule] = [Never(), Patience(5), Median(), SuccessiveHalving(), Hyperband(9), Asha(9)]
    names = [rule.name for rule in rules]
    assert names == ["never", "patience-5", "median", "sha", "hyperband", "asha"]
    assert Gated(Median(), Policy()).name == "median, gated"


def test_median_looks_at_every_report_where_steps_are_fractions() -> None:
    steps = [0.1, 0.2, 0.3, 0.4]
    done = [trial(str(i), [5, 4, 3, 2 + i], steps=steps) for i in range(3)]
    live = trial("9", [9, 9, 9], Status.RUNNING, steps=steps[:3])
    look = Event(live, 0.3)
    assert Median(n_startup_trials=0).check(snapshot(goal_of(horizon=0.4), done), look).decision.verdict is Verdict.STOP
