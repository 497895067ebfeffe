"""Objectives that are programs: real ones, started by real workers, that talk, resist, crash and are killed."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sweep.kit import PATIENCE_S, Remembering, interrupt, launched, lcsearch, wait_for, write_toy

from lcsearch.errors import EnvironmentProblem, FileProblem
from lcsearch.goal import Goal
from lcsearch.session.decision_log import read_log
from lcsearch.sweep import run as launcher
from lcsearch.sweep.monitor.open_run import read_state, reader
from lcsearch.sweep.objective import lines
from lcsearch.sweep.objective import program as command
from lcsearch.sweep.objective.context import Context, Interrupted, Stopped
from lcsearch.sweep.objective.program import CommandFailed, command_objective
from lcsearch.sweep.runtime import launch, preflight
from lcsearch.sweep.spec.load import load
from lcsearch.sweep.spec.model import SweepFile
from lcsearch.sweep.spec.placeholders import placeholders
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.views.notices import notices
from lcsearch.sweep.views.phrases import finished_line

SWEEP = """\
version: 1
name: toy
objective: {{command: [{python}, "-u", prog.py, "--a={{a}}"], grace: {grace}}}
metric: loss
goal: minimize
step: epoch
max_steps: {max_steps}
space: {{a: {{uniform: [0, 1]}}}}
backend: {{workers: {{n: 1}}}}
sampler: {{kind: random}}
pruner: {{kind: {pruner}}}
budget: {{trials: {trials}}}
retries: {retries}
"""

COUNTS = """\
import sys
a = float(sys.argv[1].partition("=")[2])
for epoch in range(1, 7):
    print(f"epoch={epoch} loss={a + 1 / epoch}")
"""


def sweep_of(folder: Path, program: str, **settings: Any) -> Path:
    """A sweep file whose program is `program`."""
    known = {"max_steps": 6, "pruner": "none", "trials": 1, "retries": 2, "grace": 5, **settings}
    (folder / "prog.py").write_text(program)
    path = folder / "toy.yaml"
    path.write_text(SWEEP.format(python=sys.executable, **known))
    return path


class Told:
    """Takes reports; stops after `last` of them."""

    def __init__(self, last: int) -> None:
        self.last, self.n = last, 0

    def report(self, value: float, step: int) -> None:
        self.n += 1

    def should_prune(self) -> bool:
        return self.n >= self.last


def context(
    folder: Path,
    program: str,
    *,
    step: str = "epoch",
    metric: str = "loss",
    last: int = 1000,
    grace: float = 5.0,
    params: dict[str, Any] | None = None,
    arguments: tuple[str, ...] = (),
    pattern: str | None = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> tuple[Context, Callable[[Context], None]]:
    """A context as a worker makes it, and the program as an objective."""
    (folder / "prog.py").write_text(program)
    file = SweepFile.model_validate(
        {
            "version": 1,
            "name": "toy",
            "objective": {"command": (sys.executable, "-u", "prog.py", *arguments), "grace": grace, "pattern": pattern},
            "metric": metric,
            "goal": "minimize",
            "step": step,
            "max_steps": 9,
            "space": {"a": {"uniform": (0.0, 1.0)}},
            "budget": {"trials": 1},
        }
    )
    (folder / "ckpt").mkdir(exist_ok=True)
    ctx = Context(
        Told(last),
        params={"a": 0.5} if params is None else params,
        number=3,
        goal=Goal(metric, "minimize", 9.0),
        seed=7,
        checkpoint_dir=folder / "ckpt",
        interrupted=interrupted,
    )
    return ctx, command_objective(file, folder)


def reported(folder: Path, program: str, **settings: Any) -> dict[int, float]:
    """What a program that runs to its end has reported."""
    ctx, train = context(folder, program, **settings)
    train(ctx)
    return dict(ctx.reported)


def gone(pid: int) -> bool:
    """No such process, or a zombie that nobody has fetched yet."""
    return command._start_time(pid) is None  # noqa: SLF001


def number_in(file: Path) -> int:
    """A pid that a program wrote."""
    wait_for(lambda: file.exists() and file.read_text().endswith("\n"))
    return int(file.read_text())


def test_a_sweep_of_programs(tmp_path: Path) -> None:
    outcome = launcher.run(sweep_of(tmp_path, COUNTS, trials=2), folder=tmp_path / "run", view=Remembering())
    assert (outcome.code, [row.state for row in outcome.progress.rows]) == (0, ["complete", "complete"])
    for row in outcome.progress.rows:
        assert row.values == {e: row.params["a"] + 1 / e for e in range(1, 7)}  # type: ignore[operator]
    assert "epoch=6 loss=" in (tmp_path / "run/logs/worker-0.log").read_text()


def test_lines_with_other_text_in_any_order(tmp_path: Path) -> None:
    lines = [
        "starting up: epoch of wonders, loss of words",
        "loss=0.9, lr=0.1, epoch=1",
        "[12:30:01] INFO epoch: 2 | loss: 8e-1; acc=0.5",
        '{"epoch": 3, "loss": 0.7}',
        "epoch=4",
        "loss=0.6",
        "my_epoch=9 val.loss=9 val/loss=9 val-loss=9 xloss=9 epoch=5 loss=0.5",
        "epoch=six loss=0.4",
        "epoch=7 loss=low",
        "epoch=8 \u00fc\u20ac loss=0.2",
    ]
    program = f"import sys\nsys.stdout.reconfigure(encoding='utf-8')\nfor line in {lines!r}:\n    print(line)\n"
    assert reported(tmp_path, program) == {1: 0.9, 2: 0.8, 3: 0.7, 5: 0.5, 8: 0.2}


def test_bytes_that_are_no_text_are_no_matter(tmp_path: Path) -> None:
    program = "import sys\nsys.stdout.buffer.write(b'\\xff\\xfe epoch=1 loss=1\\r epoch=2 loss=2\\n')\n"
    assert reported(tmp_path, program) == {1: 1.0, 2: 2.0}


def test_nan_inf_and_a_step_said_twice(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines = ["epoch=1 loss=nan", "epoch=2 loss=-inf", "epoch=3 loss=1", "epoch=3 loss=2", "epoch=99 loss=0"]
    found = reported(tmp_path, f"for line in {lines!r}:\n    print(line)\n")
    assert math.isnan(found.pop(1))
    assert found == {2: -math.inf, 3: 1.0}
    err = capfd.readouterr().err
    assert "report at step 3 ignored: it was reported before" in err
    assert "report at step 99 ignored: max_steps is 9" in err


@pytest.mark.parametrize(
    ("step", "metric", "line"),
    [
        ("epoch", "val.loss", "epoch=1 valxloss=9 val.loss=0.5"),
        ("train step", "validation loss", "train step=1 validation loss=0.5"),
        ("n(+)", "f1 [macro]", "n(+)=1 f1 [macro]=0.5"),
        ("epoch", "val/loss", "epoch=1 val/loss=0.5"),
    ],
)
def test_names_with_dots_spaces_and_signs(tmp_path: Path, step: str, metric: str, line: str) -> None:
    assert reported(tmp_path, f"print({line!r})\n", step=step, metric=metric) == {1: 0.5}


@pytest.mark.parametrize(
    ("line", "report"),
    [
        ("Epoch 3: val_loss: 0.05", (3, 0.05)),
        ("Epoch 3/50 - val_loss: 5e-2 - val_acc: 0.9", (3, 0.05)),
        ("Epoch [3/50], val_loss 0.05.", (3, 0.05)),
        ("EPOCH #3 (val_loss=.05)", (3, 0.05)),
        ("{'val_loss': 0.05, 'epoch': 3.0}", (3, 0.05)),
        ("val_loss=0.9 Epoch 7 epoch=3 val_loss 1", (3, 0.9)),
        ("epoch=3 val_loss=12%", (3, 12)),
        ("epoch=3.5 val_loss=1", None),
        ("epoch 3.5: val_loss: 1", None),
        ("Epoch 3: Val_Loss: 1", None),
        ("Epoch 3: val_loss: 1.2.3", None),
        ("Epoch 3: val_loss: 1e", None),
        ("epochs 3: val_loss: 1", None),
        ("Epoch 3: best_val_loss: 1", None),
        (f"epoch={'9' * 5000} val_loss=1", None),
        ('{"epoch": 3, "said": "val_loss=9", "val_loss": 0.05}', (3, 0.05)),
        ('{"epoch": 3.0, "val_loss": "5e-2"}', (3, 0.05)),
        ('  {"epoch": 3, "scores": {"epoch": 9, "val_loss": 0.05}}', (3, 0.05)),
        ('{"epoch": 3, "val_loss": Infinity}', (3, math.inf)),
        ('{"epoch": 3, "val_loss": null}', None),
        ('{"epoch": 3, "val_loss": true}', None),
        ('{"epoch": 3.5, "val_loss": 1}', None),
        ('{"epoch": 3, "said": "val_loss=9"}', None),
        ('{"epoch": 1e999, "val_loss": 1}', None),
        ('{"a":' * 9999, None),
        ('INFO {"epoch": 3, "val_loss": 0.05}', (3, 0.05)),
        ("\x1b[32mepoch=3\x1b[0m val_loss=\x1b[1;31m0.05\x1b[0m", (3, 0.05)),
        ("epoch=3 val_loss=0,52", None),  # neither 0 nor 52
        ("epoch=3 val_loss=1,234.5", None),
        ("epoch=1,200 val_loss=0.5", None),
        ("epoch=3,val_loss=0.05,1", (3, 0.05)),
        ("epoch: 3, val_loss: 1, acc: 2", (3, 1)),
        ("3 is the epoch: 3. val_loss 1.", (3, 1)),
    ],
)
def test_lines_that_people_and_loggers_write(line: str, report: tuple[int, float] | None) -> None:
    assert lines.reader("epoch", "val_loss")(line + "\n") == report


def test_json_names_that_json_writes_otherwise(tmp_path: Path) -> None:
    program = """import json\nprint(json.dumps({"schritt \\"1\\"": 2, "gütemaß": 0.5}))\n"""
    assert reported(tmp_path, program, step='schritt "1"', metric="gütemaß") == {2: 0.5}


@pytest.mark.parametrize(
    ("pattern", "said", "expected"),
    [
        (
            r"^\[it (?P<step>\d+)\] err (?P<value>\S+)$",
            ["[it 1] err 0.5", "x [it 2] err 1", "[it 3] err nil"],
            {1: 0.5},
        ),
        (r"(?P<value>[\d.]+) after (?P<step>\d+)", ["0.5 after 1", "epoch=2 loss=2"], {1: 0.5}),
        # Keras: the step on one line, the values on the next
        (
            r"Epoch (?P<step>\d+)/|val_loss: (?P<value>\S+)",
            ["val_loss: 9", "Epoch 1/9", "10/10 - loss: 2 - val_loss: 0.5", "val_loss: 8", "Epoch 2/9", "val_loss: .4"],
            {1: 0.5, 2: 0.4},
        ),
        (r"(?P<step>\S+) (?P<value>\S+)", ["one 1", "1.5 1", "inf 1", "2.0 1e-1"], {2: 0.1}),
    ],
)
def test_a_pattern_of_ones_own(tmp_path: Path, pattern: str, said: list[str], expected: dict[int, float]) -> None:
    program = f"for line in {said!r}:\n    print(line)\n"
    ctx, train = context(tmp_path, program, pattern=pattern)
    train(ctx)
    assert dict(ctx.reported) == expected


def test_a_pattern_that_no_line_matches(tmp_path: Path) -> None:
    ctx, train = context(tmp_path, "print('epoch=1 loss=1')\n", pattern="(?P<step>a)(?P<value>b)")
    with pytest.raises(CommandFailed) as caught:
        train(ctx)
    assert str(caught.value) == (
        f"{sys.executable} ended with no report: expected lines that match objective.pattern '(?P<step>a)(?P<value>b)' "
        "on its standard output; it said last: epoch=1 loss=1"
    )


def test_a_pattern_in_a_sweep_file(tmp_path: Path) -> None:
    path = sweep_of(tmp_path, "for i in range(1, 7):\n    print(f'[it {i}] err {1 / i}')\n")
    path.write_text(path.read_text().replace("grace: 5", r"pattern: 'it (?P<step>\d+)\] err (?P<value>\S+)'"))
    outcome = launcher.run(path, folder=tmp_path / "run", view=Remembering())
    assert outcome.progress.rows[0].values == {i: 1 / i for i in range(1, 7)}
    text, good = path.read_text(), r"'it (?P<step>\d+)\] err (?P<value>\S+)'"
    for wrong, said in (
        (
            "'it (?P<step>'",
            "expected a regular expression (missing ), unterminated subpattern at position 3), got 'it (?P",
        ),
        (
            "'it (?P<step>.)'",
            "expected a regular expression with the groups (?P<step>...) and (?P<value>...), got 'it ",
        ),
        ("''", "expected text that is not empty, got ''."),
    ):
        path.write_text(text.replace(good, wrong))
        assert f"at $.objective.pattern: {said}" in refused(path)
    (tmp_path / "toy.py").write_text("def train(ctx): ...\n")
    path.write_text(re.sub(r"command: \[.*?\]", "python: 'toy:train'", text))
    assert "at $.objective.pattern: expected no pattern without a command, got one." in refused(path)


def refused(path: Path) -> str:
    with pytest.raises(FileProblem) as caught:
        load(path)
    return str(caught.value)


AWKWARD = [
    "two words",
    "it's",
    'say "hi"',
    "$(touch hacked)",
    "`touch hacked`",
    "; touch hacked",
    "a\nb",
    "\n",
    "",
    " ",
    "--help",
    "-",
    "*",
    "~",
    "$HOME",
    "\\",
    "{a}",
    "{{a}}",
    "%s",
    "#no comment",
    "gr\u00fc\u00dfe",
]


def test_a_parameter_is_one_argument_whatever_it_contains(tmp_path: Path) -> None:
    """Through a real sweep, from a command line and from a list, alone and as a part of an argument."""
    program = (
        "import json, os, sys\n"
        "with open('said', 'a') as file:\n"
        "    print(json.dumps([sys.argv[1:], json.loads(os.environ['LCSEARCH_PARAMS'])]), file=file)\n"
        "print('epoch=1 loss=1')\n"
    )
    (tmp_path / "prog.py").write_text(program)
    names = [f"v{i}" for i in range(20)]  # a trial draws many, for a start takes longer than they do
    listed = [sys.executable, "prog.py"]
    for v in names:
        listed += [f"{{{v}}}", f"--v={{{v}}}", f"a{{{v}}}b", "--", f"{{{v}}}"]
    for command_ in (listed, " ".join(listed)):
        path = tmp_path / "toy.yaml"
        values = {
            "version": 1,
            "name": "toy",
            "objective": {"command": command_},
            "metric": "loss",
            "goal": "minimize",
            "step": "epoch",
            "max_steps": 1,
            "space": {"a": {"uniform": [0, 1]}, **{v: {"choice": AWKWARD} for v in names}},
            "pruner": {"kind": "none"},
            "sampler": {"kind": "random"},
            "backend": {"workers": {"n": 1}},
            "budget": {"trials": 3},
        }
        path.write_text(json.dumps(values))
        outcome = launcher.run(path, folder=tmp_path / f"run-{type(command_).__name__}", view=Remembering())
        assert [row.state for row in outcome.progress.rows] == ["complete"] * 3
        told = [json.loads(line) for line in (tmp_path / "said").read_text().splitlines()]
        drawn = [[params[v] for v in names] for _, params in told]
        assert drawn == [[row.params[v] for v in names] for row in outcome.progress.rows]
        assert len({v for some in drawn for v in some}) > 15
        for (arguments, _), some in zip(told, drawn, strict=True):
            assert arguments == [said for v in some for said in (v, f"--v={v}", f"a{v}b", "--", v)]
        (tmp_path / "said").unlink()
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("value", AWKWARD)
def test_every_awkward_value_reaches_the_program(tmp_path: Path, value: str) -> None:
    program = "import json, sys\njson.dump(sys.argv[1:], open('said', 'w'))\nprint('epoch=1 loss=1')\n"
    ctx, train = context(tmp_path, program, params={"a": 0.5, "v": value}, arguments=("{v}", "--v={v}"))
    train(ctx)
    assert json.loads((tmp_path / "said").read_text()) == [value, f"--v={value}"]


@pytest.mark.parametrize(
    ("command_", "said"),
    [
        (
            "bash -c 'prog --v={v} > log'",
            "expected no {v} within a shell's script, for the shell reads '$(touch hacked)' itself, got one. "
            "Hand it over: bash -c 'prog \"$1\"' sh {v}",
        ),
        (["/bin/sh", "-ec", "prog {v}"], "Hand it over: /bin/sh -c 'prog \"$1\"' sh {v}"),
        ("prog --v={nul}", "expected values that a program can be given, got a NUL in 'nul'."),
        (["prog", "{nul}"], "expected values that a program can be given, got a NUL in 'nul'."),
        ("bash -c 'prog \"$1\" {a} {w}' sh {v}", ""),
        ("prog -c {v}", ""),
    ],
)
def test_what_a_shell_would_read_again_and_what_no_argument_can_be(
    tmp_path: Path, command_: str | list[str], said: str
) -> None:
    path = sweep_of(tmp_path, COUNTS)
    space = {"a": {"uniform": [0, 1]}, "v": {"choice": ["fine", "$(touch hacked)"]}, "w": {"choice": ["x", "y-1"]}}
    text = path.read_text().partition("objective:")
    rest = re.sub(
        "space: .*\n", lambda _: f"space: {json.dumps(space | {'nul': chr(0)})}\n", text[2].partition("\n")[2]
    )
    path.write_text(f"{text[0]}objective: {json.dumps({'command': command_})}\n{rest}")
    if said:
        assert said in refused(path)
    else:
        load(path)


def test_a_shell_that_is_handed_its_values_reads_them_as_they_are(tmp_path: Path) -> None:
    """As the message advises."""
    program = "import sys\nopen('said', 'a').write(sys.argv[1] + '|')\nprint('epoch=1 loss=1')\n"
    path = sweep_of(tmp_path, program, trials=4)
    text = path.read_text()
    shell = f"""bash -c '{sys.executable} prog.py "$1" | cat' sh {{v}}"""
    text = re.sub("objective: .*", lambda _: f"objective: {json.dumps({'command': shell})}", text)
    path.write_text(text.replace("space: {", "space: {v: '$(touch hacked) it''s', "))
    outcome = launcher.run(path, folder=tmp_path / "run", view=Remembering())
    assert outcome.code == 0, [row.note for row in outcome.progress.rows]
    assert (tmp_path / "said").read_text() == "$(touch hacked) it's|" * 4
    assert not (tmp_path / "hacked").exists()


def test_placeholders(tmp_path: Path) -> None:
    program = "import json, sys\njson.dump(sys.argv[1:], open('said', 'w'))\nprint('epoch=1 loss=1')\n"
    arguments = ("{a:.3f}", "{opt.lr}", "{{x}}", "{max_steps}-{number}", "{seed}", "{device}", "{checkpoint_dir}")
    ctx, train = context(tmp_path, program, params={"a": 0.5, "opt.lr": 2, "seed": "own"}, arguments=arguments)
    train(ctx)
    said = json.loads((tmp_path / "said").read_text())
    assert said == ["0.500", "2", "{x}", "9-3", "own", "cpu", str(tmp_path / "ckpt")]
    assert placeholders("{a} {{b}} {c:{d}}") == ["a", "c", "d"]
    with pytest.raises(ValueError, match="expected '}'"):
        placeholders("{a")


def test_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LCSEARCH_HOST", raising=False)
    program = (
        "import json, os\n"
        "json.dump({k: v for k, v in os.environ.items() if k.startswith('LCSEARCH_')}, open('said', 'w'))\n"
        "print('epoch=1 loss=1')\n"
    )
    ctx, train = context(tmp_path, program, params={"a": 0.5, "opt": "sgd", "none": None})
    train(ctx)
    said = json.loads((tmp_path / "said").read_text())
    assert json.loads(said.pop("LCSEARCH_PARAMS")) == {"a": 0.5, "opt": "sgd", "none": None}
    assert said.pop("LCSEARCH_PROGRAM").endswith(f":{tmp_path}/ckpt")
    assert said == {
        "LCSEARCH_MAX_STEPS": "9",
        "LCSEARCH_SEED": str(ctx.seed),
        "LCSEARCH_NUMBER": "3",
        "LCSEARCH_DEVICE": "cpu",
        "LCSEARCH_CHECKPOINT_DIR": str(tmp_path / "ckpt"),
    }


POLITE = """\
import signal, sys, time
def leave(number, frame):
    print("tidying up")
    open("tidy", "w").close()
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
for epoch in range(1, 7):
    print(f"epoch={epoch} loss=1")
    time.sleep(0.05)
time.sleep(60)
"""


def test_a_stopped_program_gets_sigterm_and_may_clean_up(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ctx, train = context(tmp_path, POLITE, last=2)
    with pytest.raises(Stopped):
        train(ctx)
    assert list(ctx.reported) == [1, 2]
    assert (tmp_path / "tidy").exists()
    assert "tidying up" in capfd.readouterr().out


HASTY = """\
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
for epoch in range({first}, {end}):
    print(f"epoch={{epoch}} loss={{1 / (1 + epoch)}}")
open("there", "w").close()
{then}
"""


def hasty(folder: Path, first: int, end: int, then: str, **settings: Any) -> tuple[Context, Callable[[Context], None]]:
    """A program whose stop, at its second report, is decided when it has printed all it prints."""
    ctx, train = context(folder, HASTY.format(first=first, end=end, then=then), last=2, **settings)
    told, there = ctx._reporter, folder / "there"  # noqa: SLF001

    def should_prune() -> bool:
        if told.should_prune():
            wait_for(there.exists)
        return told.should_prune()

    ctx._reporter = SimpleNamespace(report=told.report, should_prune=should_prune)  # noqa: SLF001
    return ctx, train


def test_what_a_program_had_trained_when_its_stop_came_is_told(tmp_path: Path) -> None:
    ctx, train = hasty(tmp_path, 1, 8, "time.sleep(60)")
    with pytest.raises(Stopped):
        train(ctx)
    assert (list(ctx.reported), ctx.ahead, ctx.overtaken) == ([1, 2], 7, False)
    ctx, train = context(tmp_path, COUNTS, arguments=("--a=1",))
    train(ctx)
    assert (len(ctx.reported), ctx.ahead) == (6, None)


@pytest.mark.parametrize(
    ("first", "end", "then"),
    [
        (1, 8, ""),  # it ended by itself, early
        (1, 3, ""),  # at the very report whose look came to a stop
        (1, 10, ""),
        (1, 10, "time.sleep(0.3); open('saved', 'w').close()"),  # its last step was printed; it saves what it trained
        (0, 9, "time.sleep(0.3); open('saved', 'w').close()"),
    ],
)
def test_a_program_that_had_come_to_its_end_is_not_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int, end: int, then: str
) -> None:
    monkeypatch.setattr(command, "_LEAVING_S", PATIENCE_S)  # or a busy machine's interpreter may be too slow to leave
    ctx, train = hasty(tmp_path, first, end, then)
    train(ctx)
    assert list(ctx.reported) == list(range(first, end))
    assert (ctx.ended, ctx.overtaken, ctx.ahead) == (None, True, None)
    assert ctx.judged() == 1 / end
    assert (tmp_path / "saved").exists() == bool(then)


def test_a_last_step_that_was_printed_as_the_stop_came_is_an_end(tmp_path: Path) -> None:
    then = "signal.signal(15, lambda *_: (print('epoch=9 loss=0.1'), sys.exit(3)))\ntime.sleep(60)"
    ctx, train = hasty(tmp_path, 1, 9, then)
    train(ctx)
    assert (list(ctx.reported), ctx.ended, ctx.overtaken) == (list(range(1, 10)), None, True)


def test_a_stop_of_a_program_that_had_failed_stands_but_for_one_that_had_printed_its_last_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which of the two came first makes no difference."""
    monkeypatch.setattr(command, "_LEAVING_S", PATIENCE_S)
    ctx, train = hasty(tmp_path, 1, 8, "sys.exit(1)")
    with pytest.raises(Stopped):
        train(ctx)
    assert (list(ctx.reported), ctx.ahead, ctx.overtaken) == ([1, 2], 7, False)
    for then in ("sys.exit(1)", "time.sleep(0.3); sys.exit(1)"):
        (tmp_path / "there").unlink()
        ctx, train = hasty(tmp_path, 1, 10, then)
        with pytest.raises(CommandFailed, match="exit code 1"):
            train(ctx)
        assert (len(ctx.reported), ctx.ended) == (9, None)


LAST_OF_RANGE = """\
import time
for epoch in range(9):
    print(f"epoch={epoch} loss=1")
    time.sleep(0.02)
time.sleep(0.5)
open("saved", "w").close()
"""


def test_a_stop_at_the_last_report_of_a_range_kills_nothing(tmp_path: Path) -> None:
    """A stop at the report before was too late; one at the last report killed the program as it saved its model."""
    ctx, train = context(tmp_path, LAST_OF_RANGE, last=9)
    train(ctx)
    assert (list(ctx.reported), ctx.overtaken) == (list(range(9)), True)
    assert (tmp_path / "saved").exists()


def test_a_program_that_had_ended_is_complete_as_the_sweep_drains(tmp_path: Path) -> None:
    ctx, train = context(tmp_path, COUNTS, arguments=("--a=1",), interrupted=lambda: bool(ctx.reported))
    train(ctx)
    assert (list(ctx.reported), ctx.ended, ctx.overtaken) == ([1, 2, 3, 4, 5, 6], None, False)


def test_a_sweep_that_drains_ends_its_program(tmp_path: Path) -> None:
    ctx, train = context(tmp_path, POLITE, interrupted=lambda: bool(ctx.reported))
    with pytest.raises(Interrupted):
        train(ctx)
    assert (tmp_path / "tidy").exists()


def test_what_a_program_prints_until_a_sweep_that_drains_has_ended_it_is_kept(tmp_path: Path) -> None:
    """It goes on from a checkpoint of the last of these steps, and never prints them again."""
    program = """\
import signal, time
def last(*_):
    print("epoch=4 loss=0.4", flush=True)
    raise SystemExit(1)
signal.signal(signal.SIGTERM, last)
print("epoch=1 loss=0.1\\nepoch=2 loss=0.2\\nepoch=3 loss=0.3", flush=True)
time.sleep(900)
"""
    ctx, train = context(tmp_path, program, interrupted=lambda: bool(ctx.reported))
    with pytest.raises(Interrupted):
        train(ctx)
    assert ctx.reported == {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4}
    assert isinstance(ctx.ended, Interrupted)


SLOW_TO_LEAVE = """\
import os, signal, time
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(1))
print("epoch=1 loss=1", flush=True)
while not told:
    time.sleep(0.01)
for epoch in range(2, 7):
    print(f"epoch={epoch} loss={1 / epoch}", flush=True)
open("said", "w").close()
while not os.path.exists("go"):
    time.sleep(0.01)
"""


def test_what_a_program_prints_while_it_leaves_is_kept_at_once(tmp_path: Path) -> None:
    """A second interrupt kills the worker at any moment, and what it had only heard went with it."""
    ctx, train = context(tmp_path, SLOW_TO_LEAVE, grace=PATIENCE_S, interrupted=lambda: bool(ctx.reported))

    def leave() -> None:
        with suppress(Interrupted):
            train(ctx)

    thread = threading.Thread(target=leave)
    thread.start()
    try:
        wait_for(lambda: 6 in ctx.reported)
        assert thread.is_alive()
    finally:
        (tmp_path / "go").touch()
        thread.join()
    assert list(ctx.reported) == [1, 2, 3, 4, 5, 6]


def test_a_second_interrupt_loses_nothing_that_a_program_has_printed(tmp_path: Path) -> None:
    path = sweep_of(tmp_path, SLOW_TO_LEAVE, grace=PATIENCE_S)
    said = tmp_path / "terminal"
    with (
        said.open("w") as to,
        launched(["env", "-C", str(tmp_path), sys.executable, "-m", "lcsearch", "run", path.name], to) as process,
    ):
        wait_for(lambda: "epoch=1" in "".join(log.read_text() for log in tmp_path.glob("runs/toy/logs/worker-0.log")))
        interrupt(process)
        wait_for((tmp_path / "said").exists)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130
    _, state = read_state(RunFolder(tmp_path / "runs/toy"))
    assert list(state.progress.rows[0].values) == [1, 2, 3, 4, 5, 6]


def test_a_program_that_is_killed_as_the_worker_is_to_hurry_has_not_failed(tmp_path: Path) -> None:
    program = 'import time\nprint("epoch=1 loss=1\\nepoch=2 loss=2", flush=True)\ntime.sleep(900)\n'
    hurried: list[bool] = []
    ctx, train = context(tmp_path, program, grace=PATIENCE_S, interrupted=lambda: bool(hurried))

    def hurry() -> None:
        wait_for(lambda: 2 in ctx.reported)
        hurried.append(True)
        command.kill_programs()

    thread = threading.Thread(target=hurry)
    thread.start()
    with pytest.raises(Interrupted):
        train(ctx)
    thread.join()
    assert list(ctx.reported) == [1, 2]


@pytest.mark.parametrize("closing", ["", "os.close(1); os.close(2)"])
def test_a_sweep_that_drains_does_not_wait_for_a_report(tmp_path: Path, closing: str) -> None:
    """Nor for the end of a program that has closed its standard output."""
    program = f"import os, time\nprint('epoch=1 loss=1')\n{closing}\nopen('there', 'w').close()\ntime.sleep(900)\n"
    ctx, train = context(tmp_path, program, interrupted=(tmp_path / "there").exists)
    began = time.monotonic()
    with pytest.raises(Interrupted) as caught:
        train(ctx)
    assert time.monotonic() - began < 300
    assert str(caught.value) == "the sweep is draining; left at step 1"
    assert isinstance(ctx.ended, Interrupted)


STUBBORN = """\
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(900)"],
    stdout=subprocess.PIPE)
child.stdout.readline()
with open("pids", "w") as file:
    print(os.getpid(), child.pid, file=file)
print("epoch=1 loss=1")
time.sleep({sleep})
"""


def test_one_that_ignores_it_is_killed_after_the_grace_time_and_so_are_its_children(tmp_path: Path) -> None:
    ctx, train = context(tmp_path, STUBBORN.format(sleep=900), last=1, grace=0.5)
    began = time.monotonic()
    with pytest.raises(Stopped):
        train(ctx)
    assert 0.5 <= time.monotonic() - began < 300
    wait_for(lambda: all(gone(int(pid)) for pid in (tmp_path / "pids").read_text().split()))


def test_a_child_that_outlives_its_program_holds_nothing_up(tmp_path: Path) -> None:
    """It keeps the pipe open that the program had."""
    program = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(900)'])\n"
        "print(child.pid, file=open('pid', 'w'))\n"
        "print('epoch=1 loss=1')\n"
    )
    began = time.monotonic()
    assert reported(tmp_path, program) == {1: 1.0}
    assert time.monotonic() - began < 300
    assert gone(number_in(tmp_path / "pid"))


@pytest.mark.parametrize("end", ["", "sys.exit(1)"])
@pytest.mark.parametrize("more", ["", ", start_new_session=True", ", env={}"])
def test_nothing_a_program_started_outlives_it(tmp_path: Path, end: str, more: str) -> None:
    program = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']{more})\n"
        "print(child.pid, file=open('pid', 'w'))\n"
        f"print('epoch=1 loss=1')\n{end}\n"
    )
    ctx, train = context(tmp_path, program, grace=0.5)
    with pytest.raises(CommandFailed) if end else nullcontext():
        train(ctx)
    assert gone(number_in(tmp_path / "pid"))


def test_a_line_without_an_end_is_heard_in_pieces(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """So that it takes no memory; a number that was cut in two is none."""
    program = (
        "import sys\nfor _ in range(300):\n    sys.stdout.write('epoch=2 loss=2 ' + 'x' * 100_000)\n"
        "print()\nprint('epoch=1 loss=1')\n"
    )
    tracemalloc.start()
    assert reported(tmp_path, program) == {1: 1.0}
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 10e6
    assert len(capfd.readouterr().out) > 30e6


@pytest.mark.parametrize(
    ("end", "text"),
    [
        ("sys.exit('no more disk')", "ended with exit code 1; it said last: no more disk"),
        ("sys.exit(7)", "ended with exit code 7; it said last: epoch=1 loss=1"),
        ("os.kill(os.getpid(), 9)", "ended with signal 9; it said last: epoch=1 loss=1"),
        ("1 / 0", "ended with exit code 1; it said last: ZeroDivisionError: division by zero"),
    ],
)
def test_a_program_that_fails(tmp_path: Path, end: str, text: str) -> None:
    ctx, train = context(tmp_path, f"import os, sys\nprint('epoch=1 loss=1', flush=True)\n{end}\n")
    with pytest.raises(CommandFailed) as caught:
        train(ctx)
    assert str(caught.value) == f"{sys.executable} {text}"


def test_a_failed_program_is_a_failed_trial(tmp_path: Path) -> None:
    path = sweep_of(tmp_path, "print('epoch=1 loss=1')\nraise SystemExit('no more disk')\n")
    outcome = launcher.run(path, folder=tmp_path / "run", view=Remembering())
    (row,) = outcome.progress.rows
    assert (outcome.code, row.state) == (1, "failed")
    assert row.note == (f"{sys.executable} ended with exit code 1; it said last: no more disk")
    told = lcsearch("explain", "0", "--folder", tmp_path / "run", cwd=tmp_path).stdout
    assert f"\nerror: {row.note}\nthe last lines it printed:\n" in told
    assert "Traceback" not in told  # of lcsearch's own
    said = told.partition("the last lines it printed:\n")[2].splitlines()
    assert sorted(said[:2]) == ["  epoch=1 loss=1", "  no more disk"]  # two pipes
    assert not said[2].startswith(" ")


def test_a_program_that_says_nothing(tmp_path: Path) -> None:
    outcome = launcher.run(sweep_of(tmp_path, "print('hello')\n"), folder=tmp_path / "run", view=Remembering())
    assert outcome.progress.rows[0].note == (
        f"{sys.executable} ended with no report: expected lines like epoch=1 loss=0.5 (as the file's step and "
        "metric name them, or of an objective.pattern) on its standard output; "
        "it said last: hello"
    )


def test_a_program_that_counts_on_is_told_of_the_steps_that_it_reported(tmp_path: Path) -> None:
    """A global counter: every report was heard, and none was of a step that counts."""
    program = "for n in range(100, 1300, 100):\n    print(f'epoch={n} loss=0.5')\n"
    outcome = launcher.run(sweep_of(tmp_path, program), folder=tmp_path / "run", view=Remembering())
    end = outcome.progress.rows[0].note
    assert end == (
        f"{sys.executable} ended with no report up to step 6 (max_steps), the first was of step 100: count from the "
        "trial's begin, or set max_steps to where it ends; it said last: epoch=1200 loss=0.5"
    )


def test_a_program_that_is_not_there_ends_the_sweep_at_once(tmp_path: Path) -> None:
    path = sweep_of(tmp_path, COUNTS, trials=100)
    path.write_text(path.read_text().replace(sys.executable, "./no-such-program"))
    done = lcsearch("run", path, cwd=tmp_path)
    head = "objective.command: expected the program './no-such-program', got "
    assert (done.returncode, done.stderr) == (3, f"{head}no such file ({tmp_path}/no-such-program).\n")
    (tmp_path / "no-such-program").write_text("no program")
    done = lcsearch("run", path, cwd=tmp_path)
    assert done.returncode == 3
    assert done.stderr == f"{head}a file that may not be executed ({tmp_path}/no-such-program).\n"
    assert not (tmp_path / "runs").exists()
    (tmp_path / "no-such-program").chmod(0o755)
    done = lcsearch("run", path, cwd=tmp_path)
    assert done.returncode == 3
    assert done.stderr == (
        "toy: objective.command: expected a program that starts, got [Errno 8] Exec format error: "
        "'./no-such-program' (./no-such-program).\n"
    )


def test_a_program_is_looked_for_on_the_path(tmp_path: Path) -> None:
    path = sweep_of(tmp_path, COUNTS)
    path.write_text(path.read_text().replace(sys.executable, "no-such-program"))
    with pytest.raises(EnvironmentProblem) as caught:
        launcher.run(path, folder=tmp_path / "run")
    text = "objective.command: expected the program 'no-such-program', got none of that name on PATH."
    assert str(caught.value) == text
    assert not (tmp_path / "run").exists()
    path.write_text(path.read_text().replace("no-such-program", "'python{a:.0f}'"))
    preflight.check(load(path))
    path.write_text(path.read_text().replace("python{a:.0f}", "sh"))
    preflight.check(load(path))


SAVING = """\
import os, pathlib, time
folder = pathlib.Path(os.environ["LCSEARCH_CHECKPOINT_DIR"])
with (folder / "lives").open("a") as file:
    print(os.getpid(), os.getppid(), file=file)
done = int((folder / "epoch").read_text()) if (folder / "epoch").exists() else 0
for epoch in range(done + 1, 31):
    go = epoch < 4 or os.path.exists("go")
    time.sleep(0.05 if go else 1.0)  # slow until it was killed
    print(f"epoch={epoch} loss={1 / epoch}")
    (folder / "new").write_text(str(epoch))
    os.replace(folder / "new", folder / "epoch")
"""


def lives(run: Path) -> list[list[int]]:
    """(pid, parent's pid) of every process the trial had."""
    file = run / "checkpoints/trial-00000/lives"
    return [[int(n) for n in line.split()] for line in file.read_text().splitlines()] if file.exists() else []


def test_a_killed_workers_program_does_not_go_on_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_LOOK_S", 0.05)
    run, killed = tmp_path / "run", list[int]()

    def look(progress: Any) -> None:
        if not killed and any(len(row.values) >= 3 for row in progress.rows):
            killed.append(lives(run)[0][1])
            os.kill(killed[0], signal.SIGKILL)
            (tmp_path / "go").touch()

    outcome = launcher.run(sweep_of(tmp_path, SAVING, max_steps=30), folder=run, view=Remembering(look))
    (row,) = outcome.progress.rows
    assert (row.state, row.retries) == ("complete", 1)
    # what was on its way to the worker when that was killed is lost
    assert len(row.values) >= 28
    (first, parent), (second, _) = lives(run)  # the second had the same checkpoint_dir
    assert parent == killed[0]
    assert first != second
    assert gone(first)


def test_a_killed_launcher_takes_the_program_along_and_a_resume_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    path = sweep_of(tmp_path, SAVING, max_steps=30)
    process = subprocess.Popen(
        [sys.executable, "-m", "lcsearch", "run", str(path), "--folder", str(run)], stdout=subprocess.DEVNULL
    )
    epoch = run / "checkpoints/trial-00000/epoch"
    wait_for(lambda: epoch.exists() and len(reader(RunFolder(run))[2]().rows[0].values) >= 3)
    process.kill()
    process.wait()
    (pid, _) = lives(run)[0]
    wait_for(lambda: gone(pid))
    (tmp_path / "go").touch()
    outcome = launcher.run(path, folder=run, resume=True, view=Remembering())
    (row,) = outcome.progress.rows
    assert row.state == "complete"
    assert len(row.values) >= 28
    assert len(lives(run)) == 2


RARELY = """\
import os, pathlib, subprocess, sys, time
folder = pathlib.Path(os.environ["LCSEARCH_CHECKPOINT_DIR"])
if (folder / "pids").exists():
    (folder / "again").touch()
    print("epoch=6 loss=1")
    sys.exit()
sleep = [sys.executable, "-c", "import time; time.sleep(120)"]
children = [subprocess.Popen(sleep), subprocess.Popen(sleep, start_new_session=True)]
print(os.getppid(), os.getpid(), *(child.pid for child in children), file=(folder / "pids").open("w"))
time.sleep(120)
"""


def test_a_program_dies_with_launcher_and_worker_and_its_trial_is_not_run_twice(tmp_path: Path) -> None:
    run = tmp_path / "run"
    path = sweep_of(tmp_path, RARELY)
    process = subprocess.Popen(
        [sys.executable, "-m", "lcsearch", "run", str(path), "--folder", str(run)], stdout=subprocess.DEVNULL
    )
    file = run / "checkpoints/trial-00000/pids"
    wait_for(lambda: file.exists() and file.read_text().endswith("\n"))
    worker, program, child, away = map(int, file.read_text().split())
    process.kill()
    os.kill(worker, signal.SIGKILL)
    process.wait()
    wait_for(lambda: gone(program) and gone(child))
    assert not gone(away)  # it has left the program's session; it goes before its trial begins again
    outcome = launcher.run(path, folder=run, resume=True, view=Remembering())
    assert outcome.progress.rows[0].state == "complete"
    assert (file.parent / "again").exists()
    assert gone(away)


# Prints all it has to say in one piece, so that nothing hangs on how soon somebody reads the first line.
LATER = """\
import os, time
number = int(os.environ["LCSEARCH_NUMBER"])
last = {last} if number >= 5 else {max_steps}
said = [f"epoch={{epoch}} loss={{(number >= 5) + 0.01 * number + 1 / epoch}}\\n" for epoch in range(1, last + 1)]
os.write(1, "".join(said).encode())
if number >= 5:
    {then}
"""


def test_a_pruned_program(tmp_path: Path) -> None:
    program = LATER.format(max_steps=6, last=3, then="time.sleep(60)")
    path = sweep_of(tmp_path, program, trials=7, pruner="median")
    progress = launcher.run(path, folder=tmp_path / "run", view=Remembering()).progress
    stopped = progress.of("stopped")
    assert [row.number for row in stopped] == [5, 6]
    assert {(len(row.values), row.spent, row.saved) for row in stopped} == {(1, 3, 3)}  # what was trained is spent
    for row in stopped:
        text = f"stopped at epoch {len(row.values)} (its program had trained to epoch 3), about 3 saved: loss "
        assert text in finished_line(row, load(path).file)


@pytest.mark.parametrize("last", [30, 12])
@pytest.mark.parametrize("pruner", ["median", "curve, n_startup_trials: 5, forecasters: [parametric, rank-gap]"])
def test_a_program_that_was_faster_than_its_stop_is_complete_and_nothing_is_saved(
    tmp_path: Path, pruner: str, last: int
) -> None:
    program = LATER.format(max_steps=30, last=last, then="os._exit(0)")
    path = sweep_of(tmp_path, program, trials=7, max_steps=30, pruner=pruner)
    outcome = launcher.run(path, folder=tmp_path / "run", view=Remembering())
    progress = outcome.progress
    assert [row.state for row in progress.rows] == ["complete"] * 7
    assert [len(row.values) for row in progress.rows] == [30] * 5 + [last] * 2
    assert progress.saved == 0
    assert [row.overtaken for row in progress.rows] == [False] * 5 + [True] * 2
    (late, *_) = notices(progress, load(path).file)
    assert late.startswith("2 stops came too late to save anything (trials 5, 6): a program does not wait for a look")
    if pruner == "median":
        return
    told = lcsearch("explain", "6", "--folder", tmp_path / "run", cwd=tmp_path).stdout
    line = r"^it was not stopped, although a look at epoch \d+ came to a stop: by then it was too late to carry it out$"
    assert re.search(line, told, re.MULTILINE), told
    final = [r for r in read_log(tmp_path / "run/decisions") if r.get("trial") == "6"][-1]
    assert (final["verdict"], final["reason"]) == ("CONTINUE", "SUPERSEDED")
    _, study, _ = reader(RunFolder(tmp_path / "run"))
    assert [t.user_attrs["lcsearch:reason"] for t in study.trials[5:]] == ["", ""]
    assert study.pruner.report(study).stops == ()  # type: ignore[attr-defined]


WATCHED = """\
import json, sys
def train(ctx):
    with open("loaded.jsonl", "a") as log:
        print(json.dumps([ctx.number, "torch" in sys.modules]), file=log)
    ctx.report(1.0, 1)
"""


@pytest.mark.parametrize(
    ("settings", "loaded"),
    [
        ({"trials": 6, "max_steps": 7}, True),
        ({"trials": 5, "max_steps": 7}, False),
        ({"trials": 6, "max_steps": 6}, False),
        ({"trials": 6, "max_steps": 7, "pruner": "none"}, False),
    ],
)
def test_the_forecaster_is_loaded_before_the_first_trial(
    tmp_path: Path, settings: dict[str, Any], loaded: bool
) -> None:
    """A first look stood for seconds, over which a program trained on: 'stopped at epoch 6, 24 saved' of 30 printed."""
    path = write_toy(tmp_path, WATCHED, **{"pruner": "curve, n_startup_trials: 5", **settings})
    assert lcsearch("run", path.name, cwd=tmp_path).returncode == 0
    told = [json.loads(line) for line in (tmp_path / "loaded.jsonl").read_text().splitlines()]
    assert told == [[number, loaded] for number in range(settings["trials"])]


def run_with_torch(folder: Path, torch: str) -> list[str]:
    """The command of a sweep of seven epochs, where `import torch` runs this."""
    (folder / "torch").mkdir()
    (folder / "torch/__init__.py").write_text(torch)
    path = write_toy(folder, WATCHED, pruner="curve, n_startup_trials: 5", trials=6, max_steps=7)
    env = f"PYTHONPATH={os.pathsep.join([str(folder), os.environ['PYTHONPATH']])}"
    return ["env", "-C", str(folder), env, sys.executable, "-m", "lcsearch", "run", path.name]


def test_a_forecaster_that_does_not_load_is_told_once_and_stops_nothing(tmp_path: Path) -> None:
    words = run_with_torch(tmp_path, "raise OSError('libtorch is broken')")
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    log = (tmp_path / "runs/toy/logs/worker-0.log").read_text()
    assert log.count("forecasts are made by parametric and rank-gap, without 'network'") == 1
    assert log.index("without 'network'") < log.index("trial 0 begins")


@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupt_while_the_forecaster_is_loaded(tmp_path: Path, times: int) -> None:
    """Once: nothing is begun. Twice: nobody waits for the load."""
    loads = "import os, time\nopen('loading', 'w').close()\n"
    loads += "while not os.path.exists('go'):\n    time.sleep(0.02)\ntime.sleep(1)\nraise OSError\n"
    words, said = run_with_torch(tmp_path, loads), tmp_path / "said"
    with said.open("w") as to, launched(words, to) as process:
        wait_for((tmp_path / "loading").exists)
        interrupt(process)
        if times == 2:
            process.send_signal(signal.SIGINT)
        else:
            wait_for(lambda: "draining" in said.read_text())
            (tmp_path / "go").touch()
        assert process.wait(PATIENCE_S) == 130
    assert not (tmp_path / "loaded.jsonl").exists()
