"""`lcsearch plan`: what it expects against what was measured, and that it starts nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState
from sweep.kit import Remembering, write_toy
from sweep.spec.test_space import SWEEP
from sweep.views.test_live import trial
from typer.testing import CliRunner

from lcsearch.cli import app
from lcsearch.curves import Curve
from lcsearch.stopping.gates import report_before, study_gates, trial_gates
from lcsearch.stopping.policy import Policy
from lcsearch.sweep import run as launcher
from lcsearch.sweep.monitor.progress import collect
from lcsearch.sweep.spec.load import load
from lcsearch.sweep.spec.model import SweepFile
from lcsearch.sweep.store.attributes import WORKER
from lcsearch.sweep.store.budget import TOOK
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.views.phrases import clock
from lcsearch.sweep.views.plan import (
    MEASURED,
    Earlier,
    as_yaml,
    compute,
    compute_lines,
    describe,
    earlier_run,
    gates,
    shares,
    witness,
)

ROOT = Path(__file__).parents[3]
RUNS = json.loads((ROOT / "experiments/e5_digits/results.json").read_text())["runs"]
SEEDS = range(5)


def digits(pruner: str) -> SweepFile:
    """As it was run: the default then was 5."""
    then = ["pruner.n_startup_trials=5"] if pruner == "curve" else []
    return load(ROOT / "configs/digits.yaml").override([f"pruner.kind={pruner}", *then]).file


def stops(pruner: str, seeds: Any) -> list[int]:
    runs = [RUNS[f"{seed}/{pruner}"] for seed in seeds]
    return [t["steps"] for run in runs for t in run["trials"] if t["state"] == "PRUNED"]


@pytest.mark.parametrize("pruner", sorted(MEASURED))
def test_the_constants_are_those_of_the_experiment(pruner: str) -> None:
    found = gates(digits(pruner))
    assert found.first is not None
    free = len(SEEDS) * (40 - found.whole)
    again = shares(stops(pruner, SEEDS), free, found.first, 40, "")
    assert (again.stopped, again.beyond) == pytest.approx((MEASURED[pruner].stopped, MEASURED[pruner].beyond), abs=6e-4)


@pytest.mark.parametrize("pruner", ["curve", "none", "median", "hyperband"])
@pytest.mark.parametrize("seed", SEEDS)
def test_expected_is_within_a_factor_of_what_digits_used(pruner: str, seed: int) -> None:
    used, plan = RUNS[f"{seed}/{pruner}"]["steps"], compute(digits(pruner))
    assert 1 / 1.5 < plan.expected / used < 1.5
    assert plan.least <= used <= plan.most


@pytest.mark.parametrize("seed", SEEDS)
def test_and_so_it_is_for_a_seed_that_the_rule_has_not_seen(seed: int) -> None:
    others = [s for s in SEEDS if s != seed]
    rule = shares(stops("curve", others), 4 * 35, 6, 40, "the other seeds")
    plan = compute(digits("curve"), Earlier(rule, None, (), ""))
    assert plan.source == "the other seeds"
    assert 1 / 1.5 < plan.expected / RUNS[f"{seed}/curve"]["steps"] < 1.5


@given(st.integers(0, 25), st.integers(1, 12), st.integers(1, 40))
def test_the_first_stop_is_where_the_engines_gates_open(warmup: int, interval: int, horizon: int) -> None:
    policy = Policy(n_warmup_steps=warmup, interval_steps=interval)

    def is_open(step: int) -> bool:
        steps = [float(s) for s in range(1, step + 1)]
        early = trial_gates(policy, steps, step, horizon) or study_gates(policy, 99, len(steps), 1.0)
        return early is None and report_before(policy, steps, step) is not None

    spec = {"kind": "curve", "n_warmup_steps": warmup, "interval_steps": interval}
    file = SweepFile.model_validate({**SWEEP, "max_steps": horizon, "pruner": spec, "budget": {"trials": 9}})
    assert gates(file).first == next((s for s in range(1, horizon) if is_open(s)), None)


def test_budgets_bound_the_plan() -> None:
    def plan(earlier: Earlier | None = None, **budget: Any) -> tuple[int, int, int]:
        spec = {**SWEEP, "max_steps": 40, "budget": {"trials": 40, **budget}}
        found = compute(SweepFile.model_validate(spec), earlier)
        return found.least, found.expected, found.most

    assert plan() == (308, 668, 1600)
    assert plan(steps=5000) == (308, 668, 1600)
    assert plan(steps=500) == (308, 500, 560)  # two workers: twelve trials whole, and two that were young
    assert plan(steps=1) == (1, 1, 80)
    assert plan(seconds=10) == (308, 668, 1600)  # nobody knows the pace
    assert plan(Earlier(None, 0.05, (), ""), seconds=10) == (308, 400, 440)


def test_gates_that_never_open() -> None:
    def of(pruner: dict[str, Any], trials: int = 9, max_steps: int = 10) -> tuple[int, int | None]:
        spec = {**SWEEP, "max_steps": max_steps, "pruner": pruner, "budget": {"trials": trials}}
        found = gates(SweepFile.model_validate(spec))
        return found.whole, found.first

    assert of({}) == (2, 6)
    assert of({}, trials=2) == (2, None)
    assert of({"n_startup_trials": 5}) == (5, 6)
    assert of({}, max_steps=6) == (9, None)
    assert of({"n_startup_trials": 0}) == (1, 6)
    assert of({"rivals": 1}) == (1, 6)  # two workers: a trial and its rival need one that has ended to be ranked
    assert of({"rivals": 2}) == (2, 6)  # three never run at once
    assert of({"n_warmup_steps": 8}) == (2, 8)
    assert of({"kind": "median", "n_warmup_steps": 3}) == (5, 3)
    assert of({"kind": "hyperband", "min_resource": 2}) == (0, 2)
    assert of({"kind": "none"}) == (9, None)


@pytest.mark.parametrize("name", ["digits.yaml", "digits_ray.yaml"])
def test_the_resolved_file_is_one_that_can_be_run(tmp_path: Path, name: str) -> None:
    sweep = load(ROOT / "configs" / name).override(["budget.steps=99", "budget.money_per_hour=1e-5"])
    (tmp_path / "digits.py").write_text("def train(ctx): ...\n")
    (tmp_path / name).write_text(as_yaml(sweep.file))
    assert load(tmp_path / name).file == sweep.file


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()
)


@given(st.lists(scalars, min_size=1, max_size=4, unique=True), scalars)
def test_every_value_comes_back_from_the_yaml(options: list[Any], constant: Any) -> None:
    space = {"c": {"choice": tuple(options)}, "k": constant, "n": {"int": (1, 2), "when": {"c": options[0]}}}
    file = SweepFile.model_validate({**SWEEP, "space": space, "schedule": None})
    from lcsearch.yaml_file.document import parse

    document = parse(as_yaml(file))
    assert document.problems == []
    assert SweepFile.model_validate(document.value) == file


def test_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_toy(tmp_path, trials=20, max_steps=20, pruner="curve", workers=8)
    arguments = ["plan", str(path), "budget.money_per_hour=3", "budget.seconds=60", "pruner.risk=0.2"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    head, _, rest = done.stdout.partition("\n\n")
    assert head.startswith("# toy.yaml, resolved\nversion: 1\nname: toy\n")
    assert "budget: {trials: 20, seconds: 60.0, money_per_hour: 3.0}\n" in head
    assert rest.splitlines() == [
        "toy: 20 trials of 20 epochs, 400 epochs if none is stopped",
        "least: 148 epochs (37%)",
        "expected: 279 epochs (70%)",
        "most: 400 epochs (100%)",
        "  expected by a rule of thumb: the digits sweep, five seeds, experiments/e5_digits; other tasks differ",
        "  time and money: not known before a first run",
        "  budget.seconds: no trial is begun after 1 min 00 s; those that run go on (not counted above: the pace is "
        "not known)",
        "checkpoints: one folder a trial, kept; their size is not known before a first run that saves",
        "what holds a stop:",
        "  startup: nothing is stopped before 2 trials have run to the end",
        "  short curves: nothing is stopped before 6 reports (n_warmup_steps 0, interval_steps 1)",
        "  looks: at 6, 7, 8, 9, 10, 11, 13, 15 ... reports of a trial (look_growth 1.1; 1 looks at every report)",
        "  guard: the best 0.1 of all at their own epoch are not stopped, nor where fewer than 2 others can be "
        "compared",
        "  threshold: P(beat) must be below 0.05 at a report and at the one before (0.01 below 8 reports)",
        "  risk: no stop may take the bound of the risk that the winner was lost above 0.2",
        "  not held: a metric that is not finite 3 times in a row stops as diverged where a finished trial has a value;"
        " twice that before its first one, or where it ranked among the best",
        "  so 18 of 20 trials can be stopped, from epoch 6 of 20 on",
        "  8 workers start 8 trials at once: expect those to run nearly whole (pruner.rivals=1 compares them with each "
        "other)",
        "nothing was started",
        f"next: lcsearch run {path} budget.money_per_hour=3 budget.seconds=60 pruner.risk=0.2",
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["toy.py", "toy.yaml"]
    rivals = CliRunner().invoke(app, ["plan", str(path), "pruner.rivals=1"]).stdout.splitlines()
    startup = (
        "  startup: before 2 trials have run to the end, one is stopped only as unlikely to beat the running one that"
    )
    assert f"{startup} stands best" in rivals
    assert rivals[-3] == "  so 20 of 20 trials can be stopped, from epoch 6 of 20 on"
    none = CliRunner().invoke(app, ["plan", str(path), "pruner.kind=none"]).stdout.splitlines()
    assert none[-3:] == [
        "  no pruner: every trial runs to the end",
        "nothing was started",
        f"next: lcsearch run {path} pruner.kind=none",
    ]
    short = CliRunner().invoke(app, ["plan", str(path), "max_steps=6"]).stdout.splitlines()
    assert short[-3] == "  so no trial can be stopped: the gates open after 20 trials or epoch 6"


SAVES = """\
import time
def train(ctx):
    for epoch in range(1, ctx.max_steps + 1):
        time.sleep(0.005)
        ctx.report(ctx.params["a"] + 1 / epoch, epoch)
    (ctx.checkpoint_dir / "model").write_bytes(b"x" * 1500)
    (ctx.checkpoint_dir / ".checkpoint.safetensors.17.tmp").write_bytes(b"x" * 999)  # of a save that was killed
"""


def test_an_earlier_run_knows_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_toy(tmp_path, SAVES, trials=20, max_steps=20, pruner="median")
    folder = RunFolder(tmp_path / "runs/toy")
    assert earlier_run(load(path), folder) is None
    outcome = launcher.run(path, view=Remembering())
    before = sorted((p, p.stat().st_mtime_ns) for p in folder.root.rglob("*") if "sqlite" not in p.name)
    found = earlier_run(load(path), folder)
    assert isinstance(found, Earlier)
    assert found.shares is not None
    assert found.seconds_per_step is not None
    assert 0.005 < found.seconds_per_step < outcome.seconds / 20, "of a step, not of a trial"
    assert set(found.checkpoints) == {1500}
    used, plan = outcome.progress.spent, compute(load(path).file, found)
    assert plan.expected == pytest.approx(used, rel=0.05)
    text = describe(load(path).override(["budget.money_per_hour=1"]), folder)
    assert "  expected by the run in runs/toy, 20 trials\n" in text
    assert f"  time by the run in runs/toy: {found.seconds_per_step:.3g} s of a worker for an epoch, " in text
    assert " s for a trial to start and end\n" in text
    assert "checkpoints: one folder a trial, kept; 30 kB for 20 trials, 30 kB at most (by the run in runs/toy: " in text
    assert ", money " in text
    # another pruner: its pace counts, its stops do not
    other = earlier_run(load(path).override(["pruner.kind=hyperband"]), folder)
    assert isinstance(other, Earlier)
    assert other.shares is None
    # another space: nothing does
    changed = load(path).override(["space.a.uniform=[0, 2]"])
    assert earlier_run(changed, folder) == "the run in runs/toy is of another space, so it says nothing here"
    assert "note: the run in runs/toy is of another space, so it says nothing here\n" in describe(changed, folder)
    assert sorted((p, p.stat().st_mtime_ns) for p in folder.root.rglob("*") if "sqlite" not in p.name) == before
    folder.record.write_text("{")
    assert str(earlier_run(load(path), folder)).startswith("the run in runs/toy cannot be read: ")


def test_what_an_earlier_run_took_to_start_up_is_no_pace() -> None:
    """Two seconds a trial beside half a second a step; and trials that ended at 15 and 25 of 50 epochs."""
    file = digits("none")
    sweep = SweepFile.model_validate({**file.model_dump(by_alias=True), "max_steps": 50})
    frozen = []
    for number, n in enumerate((15, 25)):
        took = {"since": None, "seconds": 2.0 + 0.5 * n, "pace": 0.5, "gaps": n - 1}
        frozen.append(trial(number, TrialState.COMPLETE, dict.fromkeys(range(1, n + 1), 1.0), **{TOOK: took}))
        frozen[-1].set_user_attr(WORKER, {"slot": 0})
    found = witness(sweep, sweep, collect(frozen, sweep.target, 2, sweep.space), RunFolder(Path("nowhere")))
    assert (found.seconds_per_step, found.start, found.length) == (0.5, 2.0, 20.0)
    plan, n = compute(sweep, found), sweep.budget.trials
    assert (plan.least, plan.expected, plan.most) == (20 * n, 20 * n, 50 * n)
    assert plan.source == "every trial runs to its own end, epoch 20 in the run in nowhere"
    seconds = 20 * n * 0.5 + n * 2.0
    assert f", {clock(seconds / sweep.backend.workers.n)} of wall clock on " in compute_lines(sweep, plan, found)[1]


def test_curves_are_counted_from_one() -> None:
    """The assumption that the plan's gates make, written down: six epochs are six observations."""
    assert len(Curve(np.arange(1.0, 7.0), np.ones(6))) == 6


def test_turns_that_steps_pay_for(tmp_path: Path) -> None:
    """A sweep that pauses keeps to its steps, and was said to need up to a trial a worker more."""
    path = write_toy(tmp_path, trials=20, max_steps=20, workers=2)
    arguments = ["plan", str(path), "pause=true", "budget.steps=110"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "\nmost: 110 epochs (28%)\n" in done.stdout
    told = "  budget.steps: none is begun or resumed whose turn would end beyond 110 epochs in all"
    assert f"{told}, where trials save as they are asked to\n" in done.stdout
    plain = CliRunner().invoke(app, [*arguments[:2], "budget.steps=110"]).stdout
    assert "\nmost: 140 epochs (35%)\n" in plain
    assert "  budget.steps: no trial is begun after 110 epochs; those that run go on\n" in plain
