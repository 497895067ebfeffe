"""The sweep file: what is read, and every message a wrong one gives, word for word."""

from __future__ import annotations

import math
from pathlib import Path
from textwrap import dedent

import optuna
import pytest

from lcsearch.errors import FileProblem
from lcsearch.schedulers.optuna import CurvePruner
from lcsearch.sweep.spec.distributions import LogUniform, Uniform
from lcsearch.sweep.spec.load import load
from lcsearch.sweep.spec.pruner import CurvePrunerSpec
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.store.studies import curve_pruner
from lcsearch.yaml_file.document import Problem, parse

GOOD = """\
version: 1
name: toy
objective: {python: "toy:train"}
metric: loss
goal: minimize
max_steps: 10
space:
  lr: {loguniform: [1e-5, 1e-1]}
  width: {logint: [16, 512]}
  opt: {choice: [sgd, no]}
  momentum: 0.9
schedule: {shape: cosine, peak: {param: lr}}
budget: {trials: 4}
"""


def test_the_earlier_name_of_forecasters_is_read(tmp_path: Path) -> None:
    old, new = (
        load(write(tmp_path, f"{GOOD}pruner: {{{key}: [parametric]}}\n")).file for key in ("opinions", "forecasters")
    )
    assert old == new
    assert isinstance(old.pruner, CurvePrunerSpec)
    assert old.pruner.forecasters == ("parametric",)


def write(folder: Path, text: str = GOOD, objective: str = "def train(ctx): ...\n") -> Path:
    (folder / "toy.py").write_text(objective)
    path = folder / "toy.yaml"
    path.write_text(text)
    return path


def problems(folder: Path, text: str = GOOD, objective: str = "def train(ctx): ...\n") -> list[str]:
    """The messages for `text`, without the file's name."""
    path = write(folder, text, objective)
    with pytest.raises(FileProblem) as caught:
        load(path)
    return [line.removeprefix(f"{path}:") for line in str(caught.value).splitlines()]


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


def test_a_good_file_with_its_defaults(tmp_path: Path) -> None:
    file = load(write(tmp_path)).file
    assert file.space["lr"] == LogUniform(loguniform=(1e-5, 1e-1))
    assert file.space["opt"].options == ("sgd", "no")  # type: ignore[union-attr]  # a word, not False
    assert file.space["momentum"] == 0.9
    assert (file.judged, file.step, file.retries, file.seed) == ("best", "step", 2, 0)
    assert file.pruner == CurvePrunerSpec()
    assert (file.backend.workers.n, file.backend.workers.threads) == (2, 1)


def test_bounds_are_the_goals(tmp_path: Path) -> None:
    file = load(write(tmp_path, changed("goal: minimize", "goal: minimize\nbounds: [0, ~]"))).file
    assert file.target.bounds == (0.0, None)
    assert load(write(tmp_path)).file.target.bounds is None
    pruner = curve_pruner(CurvePrunerSpec(), file, RunFolder(tmp_path / "run"))
    assert isinstance(pruner, CurvePruner)
    assert pruner.snapshot(optuna.create_study()).goal.bounds == (0.0, None)


def test_yaml_1_2_scalars() -> None:
    text = "[1e-4, no, yes, on, 010, 0o10, 0x1F, .inf, ~, true, '1', 2020-01-01, 1:30, -1000, +1.5e3, -.INF, 1., .5]"
    value = parse(text).value
    expected = (1e-4, "no", "yes", "on", 10, 8, 31, math.inf, None, True)
    assert value == (*expected, "1", "2020-01-01", "1:30", -1000, 1500.0, -math.inf, 1.0, 0.5)
    assert [type(v) for v in value[:2]] == [float, str]
    assert math.isnan(parse(".NaN").value)
    # numbers of YAML 1.1, or of ruamel.yaml, and words in YAML 1.2
    words = ("1_0", "-1_000", "0b11", "-0x1F", "1_0.5", "1e1_0", "0o9", "0xG", "_1", "-_")
    assert parse(f"[{', '.join(words)}]").value == words


def test_merge_keys_are_none_of_yaml_1_2(tmp_path: Path) -> None:
    text = changed("momentum: 0.9", "<<: {momentum: 0.9}")
    assert problems(tmp_path, text) == [
        "11:3: at $.space: expected no merge key, which YAML 1.2 does not have, got <<. Write its keys out."
    ]
    assert "<<" in parse("'<<': 1").value


def test_aliases_that_multiply_are_refused_at_once(tmp_path: Path) -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    assert problems(tmp_path, "\n".join(lines)) == [
        "1:1: at $: expected at most 100000 values, got more once the aliases (*name) are filled in."
    ]
    assert len(parse(f"[{', '.join(['1'] * 50_000)}]").value) == 50_000


def test_what_is_nested_too_deep_and_a_key_that_is_no_word(tmp_path: Path) -> None:
    assert parse(f"name: {'[' * 33}{']' * 33}").problems == [
        Problem((1, 7 + 32), f"$.name{'[0]' * 32}", "expected at most 32 levels, got more (an alias to itself?).")
    ]
    assert problems(tmp_path, changed("momentum", "[momentum]")) == [
        "11:3: at $.space: expected a plain word as key, got a collection."
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "metric: loss",
            "metrik: loss",
            "4:1: at $.metrik: expected one of version, name, objective, metric, goal, judged, bounds, step, "
            "max_steps, space, schedule, backend, sampler, pruner, pause, allocator, "
            "checkpoints, budget, finish, retries, seed, got 'metrik'. "
            "Did you mean 'metric'?",
        ),
        ("goal: minimize", "goal: minimise", "5:7: at $.goal: expected 'minimize' or 'maximize', got 'minimise'. "
            "Did you mean 'minimize'?"),
        ("max_steps: 10", "max_steps: '10'", "6:12: at $.max_steps: expected a whole number, got '10'."),
        (
            "goal: minimize",
            "goal: minimize\nbounds: [1, 0]",
            "6:9: at $.bounds: expected a lower bound below the upper one, got [1, 0].",
        ),
        (
            "goal: minimize",
            "goal: minimize\nbounds: [0, .nan]",
            "6:13: at $.bounds[1]: expected a finite number, got nan.",
        ),
        ("goal: minimize", "goal: minimize\nbounds: [0]", "6:9: at $.bounds: expected two entries, got [0]."),
        ("max_steps: 10", "max_steps: 0", "6:12: at $.max_steps: expected a number >= 1, got 0."),
        ("[1e-5, 1e-1]", "[0, 1]", "8:21: at $.space.lr.loguniform[0]: expected a number > 0, got 0."),
        (
            "[1e-5, 1e-1]",
            "[1e-1, 1e-5]",
            "8:20: at $.space.lr.loguniform: expected a lower bound below the upper one, got [0.1, 1e-05].",
        ),
        ("[1e-5, 1e-1]", "[1e-5]", "8:20: at $.space.lr.loguniform: expected two entries, got [1e-05]."),
        ("[1e-5, 1e-1]", "[1e-5, .inf]", "8:27: at $.space.lr.loguniform[1]: expected a finite number, got inf."),
        (
            "{logint:",
            "{lognit:",
            "9:10: at $.space.width: expected a distribution (uniform, loguniform, int, logint or choice), "
            "got the keys lognit. Did you mean 'logint'?",
        ),
        (
            "{logint: [16, 512]}",
            "{logint: [16, 512], int: [1, 2]}",
            "9:10: at $.space.width: expected one distribution, got logint and int.",
        ),
        (
            "{logint: [16, 512]}",
            "[16, 512]",
            "9:10: at $.space.width: expected a single value or {uniform, loguniform, int, logint or choice: ...}, "
            "got [16, 512]. Did you mean {choice: ...}?",
        ),
        (
            "{logint: [16, 512]}",
            "{uniform: [0, 1], stp: 0.1}",
            "9:28: at $.space.width.stp: expected one of when, uniform, step, got 'stp'. Did you mean 'step'?",
        ),
        ("[sgd, no]", "[]", "10:17: at $.space.opt.choice: expected at least one entry, got []."),
        ("[sgd, no]", "[sgd, [1]]", "10:23: at $.space.opt.choice[1]: expected a plain value, got [1]."),
        *(
            ("[sgd, no]", options, "10:17: at $.space.opt.choice: expected options that differ (true is equal to 1, "
                f"false to 0, 1 to 1.0), got {options.replace('sgd', repr('sgd'))}.")
            for options in ("[sgd, sgd]", "[1, true]", "[0, false]", "[1, 1.0]", "[true, sgd, 1.0]")
        ),
        ("[sgd, no]", "[sgd, .nan]", "10:23: at $.space.opt.choice[1]: expected a finite number, got nan."),
        ("0.9", ".nan", "11:13: at $.space.momentum: expected a finite number, got nan."),
        ("0.9", "-.inf", "11:13: at $.space.momentum: expected a finite number, got -inf."),
        ("metric: loss", "metric: !!binary aGk=", "4:9: at $.metric: expected a plain value, got 'aGk=' of type "
            "binary."),
        ("0.9", "{uniform: [0, 1], step: 5}", "11:13: at $.space.momentum: expected a step that is no longer than the "
            "range, got {uniform: [0, 1], step: 5}."),
        ("0.9", "{int: [0, 4], step: 5}", "11:13: at $.space.momentum: expected a step that is no longer than the "
            "range, got {int: [0, 4], step: 5}."),
        ("0.9", f"{{int: [0, {10**26}]}}", "11:23: at $.space.momentum.int[1]: expected a number <= 1e+15, got "
            f"{10**26}."),
        ("0.9", f"{{int: [{-10**26}, 1]}}", "11:20: at $.space.momentum.int[0]: expected a number >= -1e+15, got "
            f"{-10**26}."),
        ("0.9", f"{{logint: [1, {10**26}]}}", "11:26: at $.space.momentum.logint[1]: expected a number <= 1e+15, got "
            f"{10**26}."),
        ("max_steps: 10", f"max_steps: {10**30}", f"6:12: at $.max_steps: expected a number <= 1e+15, got {10**30}."),
        ("{trials: 4}", f"{{trials: {10**30}}}", "13:18: at $.budget.trials: expected a number <= 1e+15, got "
            f"{10**30}."),
        *(
            ("budget:", f"backend: {{storage: {url}}}\nbudget:", "13:20: at $.backend.storage: expected a database's "
                "URL, as in sqlite:///FILE, postgresql://USER@HOST/NAME or mysql+pymysql://USER@HOST/NAME (a journal "
                f"file or Redis is none), got {shown}.")
            for url, shown in (
                ("''", "''"), ("study.log", "'study.log'"), ("journal:///s.log", "'journal:///s.log'"),
                ("redis://ann:s3cret@host", "'redis://ann:***@host'"),
            )
        ),
        (
            "{param: lr}",
            "{param: lrr}",
            "12:41: at $.schedule.peak.param: expected a parameter of space (lr, width, opt, momentum), got 'lrr'. "
            "Did you mean 'lr'?",
        ),
        (
            "cosine",
            "{param: opt}",
            "12:19: at $.schedule.shape: expected one of constant, linear, cosine, wsd, step, got 'sgd' "
            "from space.opt.",
        ),
        (
            "peak: {param: lr}",
            "peak: 1, warmup: 2",
            "12:44: at $.schedule.warmup: expected a number in [0, 1), got 2.",
        ),
        ("{trials: 4}", "{trial: 4}", "13:9: at $.budget: expected a key 'trials', got none."),
        ("metric: loss", "name: toy\nmetric: loss", "4:1: at $.name: expected each key once, got it again "
            "(first on line 2)."),
        (
            "budget:",
            "pruner: {kind: curv}\nbudget:",
            "13:16: at $.pruner.kind: expected kind curve, median, hyperband or none, got 'curv'. "
            "Did you mean 'curve'?",
        ),
        (
            "budget:",
            "pruner: {forecasters: [crystal]}\nbudget:",
            "13:23: at $.pruner.forecasters: expected names among network, parametric, rank-gap, got ['crystal'].",
        ),
        (
            "budget:",
            "pruner: {max_wrong_stop: 0.05}\nbudget:",
            "13:9: at $.pruner: expected audit beside max_wrong_stop, which goes by audits, got "
            "{max_wrong_stop: 0.05}.",
        ),
        (
            "budget:",
            "backend: {workers: {devices: [gpu]}}\nbudget:",
            "13:31: at $.backend.workers.devices[0]: expected 'cpu', 'mps', 'cuda' or 'cuda:N', got 'gpu'.",
        ),
        ("toy:train", "toy.train", "3:21: at $.objective.python: expected 'module:function', got 'toy.train'."),
        ("name: toy", "name: a/b", "2:7: at $.name: expected a name of letters, digits, '.', '_' and '-', got 'a/b'."),
    ],
)  # fmt: skip
def test_one_mistake(tmp_path: Path, old: str, new: str, message: str) -> None:
    found = problems(tmp_path, changed(old, new))
    assert message in found
    assert len(found) == 1 + (new in ("metrik: loss", "{trial: 4}"))  # a key is missing then, too


def with_space(extra: str) -> str:
    return changed("  momentum: 0.9", f"  momentum: 0.9\n  flag: true\n  depth: {{int: [1, 4]}}\n  {extra}")


ABOVE = "lr, width, opt, momentum, flag, depth"


@pytest.mark.parametrize(
    ("when", "at", "where", "message"),
    [
        ("{optt: sgd}", "optt", ".optt", f"expected a parameter above it ({ABOVE}), got 'optt'. Did you mean 'opt'?"),
        ("{beta: 1}", "beta", ".beta", f"expected a parameter above it ({ABOVE}), got 'beta'."),
        ("{below: 1}", "below", ".below", f"expected a parameter above it ({ABOVE}), got 'below'."),
        ("{opt: adam}", "adam", ".opt", "expected a value that 'opt' can take ('sgd', 'no'), got 'adam'."),
        ("{opt: [sgd, adam]}", "[", ".opt", "expected a value that 'opt' can take ('sgd', 'no'), got 'adam'."),
        ("{opt: []}", "[", ".opt", "expected at least one entry, got []."),
        ("{opt: [[sgd]]}", "[[", ".opt", "expected a value that 'opt' can take ('sgd', 'no'), got ['sgd']."),
        ("{flag: 1}", "1", ".flag", "expected a value that 'flag' can take (true), got 1."),
        ("{momentum: 0.8}", "0.8", ".momentum", "expected a value that 'momentum' can take (0.9), got 0.8."),
        ("{depth: 5}", "5", ".depth", "expected a value that 'depth' can take (1 to 4), got 5."),
        ("{depth: 1.5}", "1.5", ".depth", "expected a value that 'depth' can take (1 to 4), got 1.5."),
        ("{depth: true}", "true", ".depth", "expected a value that 'depth' can take (1 to 4), got true."),
        ("{lr: 1}", "1", ".lr", "expected a value that 'lr' can take (1e-05 to 0.1), got 1."),
        ("sgd", "sgd", "", "expected a mapping of keys, got 'sgd'."),
    ],
)
def test_conditions(tmp_path: Path, when: str, at: str, where: str, message: str) -> None:
    text = with_space(f"beta: {{uniform: [0, 1], when: {when}}}\n  below: {{uniform: [0, 1]}}")
    assert f"14:{33 + when.index(at)}: at $.space.beta.when{where}: {message}" in problems(tmp_path, text)


def test_conditions_that_are_fine(tmp_path: Path) -> None:
    text = with_space(
        "a: {uniform: [0, 1], when: {opt: [sgd, no], flag: true, depth: [1, 4], lr: 0.01}}\n"
        "  b: {choice: [1, 2], when: {a: 0.5}}"
    )
    space = load(write(tmp_path, text)).file.space
    assert space["a"].when == {"opt": ("sgd", "no"), "flag": (True,), "depth": (1, 4), "lr": (0.01,)}  # type: ignore[union-attr]


def test_a_schedule_needs_what_every_trial_has(tmp_path: Path) -> None:
    text = with_space("peak: {uniform: [0.1, 1], when: {opt: sgd}}").replace("{param: lr}", "{param: peak}")
    assert problems(tmp_path, text) == [
        "15:41: at $.schedule.peak.param: expected a parameter that every trial has, got 'peak'."
    ]


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ("{}", "3:12: at $.objective: expected one of python and command, got {}."),
        ('{python: "toy:train", command: "a b"}', "3:12: at $.objective: expected one of python and command, "
            "got {python: 'toy:train', command: 'a b'}."),
        ("{command: }", "3:12: at $.objective: expected one of python and command, got {command: nothing}."),
        ('{command: "a \'b"}', "3:22: at $.objective.command: expected a command line whose quotes are closed, "
            "got 'a 'b'."),
        ('{command: ""}', "3:22: at $.objective.command: expected a program with its arguments, one line or a list, "
            "got ''."),
        ("{command: []}", "3:22: at $.objective.command: expected a program with its arguments, one line or a list, "
            "got []."),
        ("{command: 5}", "3:22: at $.objective.command: expected a program with its arguments, one line or a list, "
            "got 5."),
        ("{command: [a, '']}", "3:26: at $.objective.command[1]: expected text that is not empty, got ''."),
        ("{command: [a, 5]}", "3:26: at $.objective.command[1]: expected text, got 5."),
        ('{command: "a {lrr}"}', "3:22: at $.objective.command: expected one of lr, width, opt, momentum, max_steps, "
            "seed, number, device, checkpoint_dir, got {lrr}. Did you mean 'lr'?"),
        ('{command: ["a", "{sed}"]}', "3:28: at $.objective.command[1]: expected one of lr, width, opt, momentum, "
            "max_steps, seed, number, device, checkpoint_dir, got {sed}. Did you mean 'seed'?"),
        ('{command: "a {lr:{digits}}"}', "3:22: at $.objective.command: expected one of lr, width, opt, momentum, "
            "max_steps, seed, number, device, checkpoint_dir, got {digits}."),
        ('{command: "a {}"}', "3:22: at $.objective.command: expected one of lr, width, opt, momentum, max_steps, "
            "seed, number, device, checkpoint_dir, got {}."),
        ('{command: "a {lr"}', "3:22: at $.objective.command: expected {name} and, for braces themselves, {{ and }}, "
            "got expected '}' before end of string."),
        ('{command: "a lr}"}', "3:22: at $.objective.command: expected {name} and, for braces themselves, {{ and }}, "
            "got Single '}' encountered in format string."),
        ("{command: [a], grace: -1}", "3:34: at $.objective.grace: expected a number >= 0, got -1."),
    ],
)  # fmt: skip
def test_programs(tmp_path: Path, objective: str, message: str) -> None:
    assert problems(tmp_path, changed('{python: "toy:train"}', objective)) == [message]


def test_a_program_may_not_ask_for_what_some_trials_lack(tmp_path: Path) -> None:
    text = with_space("beta: {uniform: [0, 1], when: {opt: sgd}}").replace(
        '{python: "toy:train"}', '{command: "a {beta}"}'
    )
    assert problems(tmp_path, text) == [
        "3:22: at $.objective.command: expected a parameter that every trial has, got {beta}."
    ]


def test_programs_that_are_fine(tmp_path: Path) -> None:
    text = changed('{python: "toy:train"}', "{command: \"python 'my train.py' --lr={lr:.3g} {{x}}\"}")
    assert load(write(tmp_path, text)).file.objective.command == ("python", "my train.py", "--lr={lr:.3g}", "{{x}}")


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ("{trials: 4, step: 9}", "13:21: at $.budget.step: expected one of trials, steps, seconds, money_per_hour, "
            "money, stop_when, got 'step'. Did you mean 'steps'?"),
        ("{trials: 4, steps: 0}", "13:28: at $.budget.steps: expected a number >= 1, got 0."),
        ("{trials: 4, steps: 1.5}", "13:28: at $.budget.steps: expected a whole number, got 1.5."),
        ("{trials: 4, seconds: 0}", "13:30: at $.budget.seconds: expected a number > 0, got 0."),
        ("{trials: 4, seconds: 1h}", "13:30: at $.budget.seconds: expected a number, got '1h'."),
        ("{trials: 4, seconds: .inf}", "13:30: at $.budget.seconds: expected a finite number, got inf."),
        ("{trials: 4, money_per_hour: -1}", "13:37: at $.budget.money_per_hour: expected a number >= 0, got -1."),
        ("{trials: 4, money: 0, money_per_hour: 1}", "13:28: at $.budget.money: expected a number > 0, got 0."),
        ("{trials: 4, money: 3}", "13:9: at $.budget: expected money_per_hour above 0 beside money, "
            "got {trials: 4, money: 3}."),
        ("{trials: 4, stop_when: {gain: 0, steps: 9}}",
            "13:39: at $.budget.stop_when.gain: expected a number > 0, got 0."),
        ("{trials: 4, stop_when: {gain: 1}}", "13:32: at $.budget.stop_when: expected one of trials, steps and seconds "
            "beside gain, got {gain: 1}."),
        ("{trials: 4, stop_when: {gain: 1, steps: 9, trial: 2}}", "13:52: at $.budget.stop_when.trial: expected one of "
            "gain, trials, steps, seconds, got 'trial'. Did you mean 'trials'?"),
        ("{steps: 4}", "13:9: at $.budget: expected a key 'trials', got none."),
    ],
)  # fmt: skip
def test_budgets(tmp_path: Path, budget: str, message: str) -> None:
    assert problems(tmp_path, changed("{trials: 4}", budget)) == [message]


def test_all_mistakes_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = """\
        version: 2
        name: toy
        objective: {python: "tay:train"}
        goal: minimize
        max_steps: 10
        spcae: {}
        budget: {trials: many}
    """
    found = problems(tmp_path, dedent(text))
    assert found == [
        "1:1: at $: expected a key 'metric', got none.",
        "1:1: at $: expected a key 'space', got none.",
        "1:10: at $.version: expected 1, got 2.",
        f"3:21: at $.objective.python: expected the module file {tmp_path}/tay.py, got no such file. "
        "Did you mean 'toy.py'?",
        "6:1: at $.spcae: expected one of version, name, objective, metric, goal, judged, bounds, step, max_steps, "
        "space, schedule, backend, sampler, pruner, pause, allocator, "
        "checkpoints, budget, finish, retries, seed, got 'spcae'. Did you mean 'space'?",
        "7:18: at $.budget.trials: expected a whole number, got 'many'.",
    ]


def test_a_missing_function_and_one_that_is_imported(tmp_path: Path) -> None:
    found = problems(tmp_path, objective="def trian(ctx): ...\n")
    assert found == [
        f"3:21: at $.objective.python: expected a function 'train' in {tmp_path}/toy.py, got none. "
        "Did you mean 'trian'?"
    ]
    assert load(write(tmp_path, objective="from elsewhere import train\n")).file.name == "toy"


def test_a_module_that_does_not_parse_is_told_and_never_run(tmp_path: Path) -> None:
    assert problems(tmp_path, objective="def train(:\n") == [
        "3:21: at $.objective.python: expected a Python file, got invalid syntax (toy.py, line 1)."
    ]
    load(write(tmp_path, objective="def train(ctx): ...\nraise SystemExit\n"))


def test_no_yaml_no_mapping_no_file(tmp_path: Path) -> None:
    assert problems(tmp_path, "a: [1\nb: 2\n") == [
        "2:2: at $: expected YAML, got while parsing a flow sequence expected ',' or ']', but got ':'."
    ]
    assert problems(tmp_path, "just words\n") == ["1:1: at $: expected a mapping of keys, got 'just words'."]
    assert problems(tmp_path, "") == ["1:1: at $: expected a mapping of keys, got nothing."]
    with pytest.raises(FileProblem, match="expected a sweep file, got no such file"):
        load(tmp_path / "none.yaml")


def test_an_alias_to_itself_ends(tmp_path: Path) -> None:
    assert problems(tmp_path, "a: &x [*x]\n")


def test_overrides_are_checked_like_the_file(tmp_path: Path) -> None:
    sweep = load(write(tmp_path))
    changed = sweep.override(seed=3, trials=7, workers=1, pruner="median").file
    assert (changed.seed, changed.budget.trials, changed.backend.workers.n) == (3, 7, 1)
    assert changed.pruner.kind == "median"
    with pytest.raises(FileProblem) as caught:
        sweep.override(trials=0, pruner="medain")
    assert str(caught.value) == (
        "--trials: expected a number >= 1, got 0.\n"
        "--pruner: expected kind curve, median, hyperband or none, got 'medain'. Did you mean 'median'?"
    )


def test_a_uniform_grid(tmp_path: Path) -> None:
    file = load(write(tmp_path, changed("0.9", "{uniform: [0, 1], step: 0.1}"))).file
    assert file.space["momentum"] == Uniform(uniform=(0.0, 1.0), step=0.1)
