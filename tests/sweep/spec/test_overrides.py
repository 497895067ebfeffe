"""`key.sub=value` on the command line: exact keys only, checked as the file is, told word for word."""

from __future__ import annotations

from pathlib import Path

import pytest
from sweep.kit import Remembering, write_toy
from sweep.spec.test_model import GOOD, write
from typer.testing import CliRunner

from lcsearch.cli import app
from lcsearch.errors import FileProblem
from lcsearch.sweep import run as launcher
from lcsearch.sweep.spec.distributions import LogUniform, Uniform
from lcsearch.sweep.spec.load import Sweep, load
from lcsearch.sweep.spec.pruner import HyperbandPrunerSpec, MedianPrunerSpec

TOP = (
    "version, name, objective, metric, goal, judged, bounds, step, max_steps, space, schedule, backend, sampler, "
    "pruner, pause, allocator, checkpoints, budget, finish, retries, seed"
)


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return load(write(tmp_path))


def test_values_are_read_as_the_file_reads_them(sweep: Sweep) -> None:
    file = sweep.override(
        [
            "max_steps=5",
            "space.lr.loguniform=[1e-4, 1e-2]",
            "space.momentum=no",
            "space.width={choice: [16, 32]}",
            "backend.workers.devices=[cpu, 'cuda:1']",
            "budget={trials: 9, steps: 30}",
            "schedule.warmup=0.1",
            "objective.grace=0",
        ]
    ).file
    assert (file.max_steps, file.space["lr"]) == (5, LogUniform(loguniform=(1e-4, 1e-2)))
    assert file.space["momentum"] == "no"
    assert file.space["width"].options == (16, 32)  # type: ignore[union-attr]
    assert file.backend.workers.devices == ("cpu", "cuda:1")
    assert (file.budget.trials, file.budget.steps, file.budget.seconds) == (9, 30, None)
    assert file.plan is not None
    assert (file.plan.warmup, file.objective.grace) == (0.1, 0.0)


def test_another_pruner_comes_with_its_own_knobs_in_any_order(sweep: Sweep) -> None:
    first = sweep.override(["pruner.threshold=0.1"])
    assert first.override(["pruner.kind=curve"]).file.pruner.threshold == 0.1  # type: ignore[union-attr]
    for keys in (
        ["pruner.kind=median", "pruner.n_startup_trials=2"],
        ["pruner.n_startup_trials=2", "pruner.kind=median"],
    ):
        assert first.override(keys).file.pruner == MedianPrunerSpec(kind="median", n_startup_trials=2)
    named = first.override(["pruner.min_resource=3"], pruner="hyperband").file.pruner
    assert named == HyperbandPrunerSpec(kind="hyperband", min_resource=3)
    assert first.override(["backend.workers.n=3", "backend.kind=ray"]).file.backend.workers.n == 3


@pytest.mark.parametrize(
    "keys",
    [
        ["objective.command=prog {lr}"],
        ["objective.python=", "objective.command=prog {lr}"],
        ["objective.command=prog {lr}", "objective.python="],
        ["objective.command=prog {lr}", "objective.grace=3"],
    ],
)
def test_a_program_in_place_of_a_function_and_back(sweep: Sweep, keys: list[str]) -> None:
    changed = sweep.override(keys)
    assert (changed.file.objective.python, changed.file.objective.command) == (None, ("prog", "{lr}"))
    back = changed.override(["objective.python=toy:train"]).file.objective
    assert (back.python, back.command, back.grace) == ("toy:train", None, changed.file.objective.grace)


def test_names_with_dots(tmp_path: Path) -> None:
    text = GOOD.replace("momentum: 0.9", "opt.lr: {uniform: [0, 1]}\n  opt.lr.low: 3\n  space: 4")
    dotted = load(write(tmp_path, text))
    file = dotted.override(["space.opt.lr.uniform=[0, 2]", "space.opt.lr.low=5", "space.space=6"]).file
    assert file.space["opt.lr"] == Uniform(uniform=(0.0, 2.0))
    assert (file.space["opt.lr.low"], file.space["space"]) == (5, 6)
    with pytest.raises(FileProblem) as caught:
        dotted.override(["space.optt.lr=5"])
    assert str(caught.value) == (
        "override 'space.optt.lr=5': expected one of lr, width, opt, opt.lr, opt.lr.low, space, got 'optt.lr'. "
        "Did you mean 'opt.lr'?"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_step=3", f"expected one of {TOP}, got 'max_step'. Did you mean 'max_steps'?"),
        ("budget.trial=3", "expected one of trials, steps, seconds, money_per_hour, money, stop_when, got 'trial'. "
            "Did you mean 'trials'?"),
        (
            "backend.workers.thread=3",
            "expected one of n, threads, devices, stall, got 'thread'. Did you mean 'threads'?",
        ),
        ("space.lrr=3", "expected one of lr, width, opt, momentum, got 'lrr'. Did you mean 'lr'?"),
        ("space.lr.uniform=[0, 1]", "expected one of when, loguniform, got 'uniform'. Did you mean 'loguniform'?"),
        ("pruner.min_resource=3", "expected one of n_startup_trials, n_warmup_steps, interval_steps, n_min_trials, "
            "kind, threshold, guard, risk, rivals, look_growth, audit, max_wrong_stop, forecasters, got "
            "'min_resource'."),
        ("max_steps=ten", "expected a whole number, got 'ten'."),
        ("max_steps='10'", "expected a whole number, got '10'."),
        ("max_steps=", "expected a whole number, got nothing."),
        ("budget.trials=0", "expected a number >= 1, got 0."),
        ("budget.trials=[1, 2]", "expected a whole number, got [1, 2]."),
        ("goal=minimise", "expected 'minimize' or 'maximize', got 'minimise'. Did you mean 'minimize'?"),
        ("pruner.kind=medain", "expected kind curve, median, hyperband or none, got 'medain'. Did you mean 'median'?"),
        ("space.momentum=[1, 2]", "expected a single value or {uniform, loguniform, int, logint or choice: ...}, "
            "got [1, 2]. Did you mean {choice: ...}?"),
        ("max_steps", "expected key=value with the value as in the file, as in budget.trials=20."),
        ("=3", "expected key=value with the value as in the file, as in budget.trials=20."),
        ("max_steps=[1", "expected YAML, got while parsing a flow sequence expected ',' or ']', but got "
            "'<stream end>'."),
        ("name=@foo", "expected YAML, got while scanning for the next token found character '@' that cannot start any "
            "token."),
        ("objective.python=", "expected one of python and command, got {python: nothing, command: nothing, "
            "grace: 10.0, pattern:...."),
        ("max_steps.most=3", "expected no key below 'max_steps', which is 10, got 'most'."),
        ("space.momentum.uniform=[0, 1]", "expected no key below 'momentum', which is 0.9, got 'uniform'."),
        ("backend.storage.url=x", "expected no key below 'storage', which is nothing, got 'url'."),
        ("schedule.peak.param=momentun", "at $.schedule.peak.param: expected a parameter of space (lr, width, opt, "
            "momentum), got 'momentun'. Did you mean 'momentum'?"),
    ],
)  # fmt: skip
def test_one_mistake(sweep: Sweep, text: str, message: str) -> None:
    with pytest.raises(FileProblem) as caught:
        sweep.override([text])
    assert str(caught.value) == f"override '{text}': {message}"


def test_all_mistakes_at_once(sweep: Sweep) -> None:
    with pytest.raises(FileProblem) as caught:
        sweep.override(["max_steps=0", "seeed=1"], workers=0)
    assert str(caught.value).splitlines() == [
        "override 'max_steps=0': expected a number >= 1, got 0.",
        f"override 'seeed=1': expected one of {TOP}, got 'seeed'. Did you mean 'seed'?",
        "--workers: expected a number >= 1, got 0.",
    ]


def test_two_that_are_wrong_only_together(sweep: Sweep) -> None:
    sweep.override(["backend.kind=ray"])
    sweep.override(["pruner.kind=median"])
    with pytest.raises(FileProblem) as caught:
        sweep.override(["backend.kind=ray", "pruner.kind=median"])
    assert str(caught.value) == (
        "overrides together: at $.pruner.kind: expected curve or none with backend kind ray, got 'median'."
    )


def test_a_wrong_override_exits_with_2_and_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_toy(tmp_path)
    monkeypatch.chdir(tmp_path)
    for command in ("run", "plan", "validate"):
        done = CliRunner().invoke(app, [command, str(path), "max_steps=0"])
        assert (done.exit_code, done.stdout) == (2, "")
        assert done.stderr == "override 'max_steps=0': expected a number >= 1, got 0.\n"
    assert not (tmp_path / "runs").exists()


def test_a_resume_takes_budget_and_workers_only(tmp_path: Path) -> None:
    path = write_toy(tmp_path, trials=2)
    launcher.run(path, folder=tmp_path / "run", overrides=["max_steps=4"], view=Remembering())
    for text in ("max_steps=8", "budget={trials: 3}", "backend.kind=ray"):
        with pytest.raises(FileProblem) as caught:
            launcher.run(path, folder=tmp_path / "run", resume=True, overrides=[text])
        assert str(caught.value) == (
            f"override '{text}': expected a value that this run was started with, or a key below budget or "
            "backend.workers, or backend.host. Leave it out, or start over with --fresh or another --folder."
        )
    with pytest.raises(FileProblem, match=r"^override 'budgets\.trials=3': expected one of version, "):
        launcher.run(path, folder=tmp_path / "run", resume=True, overrides=["budgets.trials=3"])
    more = ["budget.trials=3", "backend.workers.n=2"]
    outcome = launcher.run(path, folder=tmp_path / "run", resume=True, overrides=more, view=Remembering())
    assert [row.spent for row in outcome.progress.rows] == [4, 4, 4]  # max_steps as the first launch had it


def test_a_resume_takes_the_overrides_that_the_run_was_begun_with(tmp_path: Path) -> None:
    """The command line of the run, with --resume at its end."""
    path = write_toy(tmp_path, trials=2)
    own = [
        "max_steps=4",
        "pruner.kind=median",
        "pruner.n_startup_trials=9",
        f"backend.storage=sqlite:///{tmp_path.name}.db",  # it stands beside the file
        "seed=3",
        "space.k=4",
        "budget.trials=2",
    ]
    launcher.run(path, folder=tmp_path / "run", overrides=own, view=Remembering())
    outcome = launcher.run(
        path, folder=tmp_path / "run", resume=True, overrides=own, trials=3, seed=3, pruner="median", view=Remembering()
    )
    assert [row.spent for row in outcome.progress.rows] == [4, 4, 4]
    assert [row.params["k"] for row in outcome.progress.rows] == [4, 4, 4]
    for text in ("space.k=3", "pruner.n_startup_trials=8", "seed=4", "backend.storage=sqlite:///other.db"):
        with pytest.raises(FileProblem, match="expected a value that this run was started with"):
            launcher.run(path, folder=tmp_path / "run", resume=True, overrides=[*own, text])


def test_plan_and_validate_take_what_run_takes(tmp_path: Path) -> None:
    path = write_toy(tmp_path, pruner="curve")
    known = [str(path), "max_steps=9", "--seed", "3", "--trials", "30", "--workers", "2", "--pruner", "hyperband"]
    said = CliRunner().invoke(app, ["plan", *known]).stdout
    assert "\ntoy: 30 trials of 9 epochs, 270 epochs if none is stopped\n" in said
    assert "  rungs: nothing is stopped before epoch 1\n" in said
    assert said.endswith(f"next: lcsearch run {' '.join(known)}\n")
    said = CliRunner().invoke(app, ["validate", *known]).stdout
    assert said == (
        f"{path}: fine: 30 trials of 9 epochs over 2 parameters\n"
        f"next: lcsearch plan {' '.join(known)}, then lcsearch run {' '.join(known)}\n"
    )
    wrong = CliRunner().invoke(app, ["validate", str(path), "max_steps=0", "--pruner", "hyperbnad"])
    assert wrong.exit_code == 2
    assert wrong.stderr == (
        "override 'max_steps=0': expected a number >= 1, got 0.\n"
        "--pruner: expected kind curve, median, hyperband or none, got 'hyperbnad'. Did you mean 'hyperband'?\n"
    )


@pytest.mark.parametrize("key", ["pruner.forecasters", "pruner.opinions"])
def test_a_key_that_files_may_still_say_is_one_here_too(sweep: Sweep, key: str) -> None:
    """`pruner.opinions=` was refused: "expected one of kind, threshold, ..."."""
    assert sweep.override([f"{key}=[parametric]"]).file.pruner.forecasters == ("parametric",)  # type: ignore[union-attr]
    with pytest.raises(FileProblem, match=rf"override '{key}=\[oracle\]': expected names among network, "):
        sweep.override([f"{key}=[oracle]"])
