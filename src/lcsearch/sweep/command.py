"""The objective that is a program: started once a trial, heard on its standard output."""

from __future__ import annotations

import json
import os
import re
import signal
import string
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from lcsearch.errors import EnvironmentProblem
from lcsearch.sweep.file import SweepFile
from lcsearch.sweep.objective import Context, Stopped

OFFERED = ("max_steps", "seed", "number", "device", "checkpoint_dir")
"""What a placeholder may name besides a parameter; a parameter of that name comes first."""


class CommandFailed(Exception):
    """The program of a trial ended with an exit code other than 0."""


def placeholders(text: str) -> list[str]:
    """The names in `{...}`; `{{` and `}}` are braces.

    Raises:
        ValueError: the braces do not match.
    """
    return [name for _, name, _, _ in string.Formatter().parse(text) if name is not None]


def command_objective(file: SweepFile, folder: Path) -> Callable[[Context], None]:
    """The sweep's program as an objective; it runs in `folder`, where the sweep file stands."""
    assert file.objective.command is not None
    command, grace = file.objective.command, file.objective.grace
    reading = _reader(file.step, file.metric)

    def train(ctx: Context) -> None:
        known: dict[str, Any] = {name: getattr(ctx, name) for name in OFFERED} | dict(ctx.params)
        arguments = [part.format_map(known) for part in command]
        try:
            process = subprocess.Popen(
                arguments,
                cwd=folder,
                env=_environment(ctx),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                text=True,
            )
        except OSError as error:
            text = f"objective.command: expected a program that starts, got {error} ({arguments[0]})."
            raise EnvironmentProblem(text) from error
        assert process.stdout is not None
        last = ""
        try:
            for line in process.stdout:
                print(line, end="", flush=True)
                last = line.strip() or last
                report = reading(line)
                if report is not None:
                    ctx.report(report[1], report[0])
        except Stopped:
            _end(process, grace)
            raise
        except BaseException:
            _end(process, 0.0)
            raise
        if process.wait() != 0:
            raise CommandFailed(f"{arguments[0]} ended with {_how(process.returncode)}; it said last: {last[:200]}")

    return train


def _reader(step: str, metric: str) -> Callable[[str], tuple[int, float] | None]:
    """(step, value) of a line that holds both, as in `epoch=3 val_loss=0.52`; None for any other line."""
    patterns = [re.compile(rf"(?<![\w.]){re.escape(name)}\s*[=:]\s*([^\s,;]+)") for name in (step, metric)]

    def read(line: str) -> tuple[int, float] | None:
        found = [pattern.search(line) for pattern in patterns]
        if found[0] is None or found[1] is None:
            return None
        with suppress(ValueError):
            return int(found[0][1]), float(found[1][1])
        return None

    return read


def _environment(ctx: Context) -> dict[str, str]:
    """What the program may read instead of arguments: LCSEARCH_PARAMS (JSON), LCSEARCH_SEED, ..."""
    offered = {f"LCSEARCH_{name.upper()}": str(getattr(ctx, name)) for name in OFFERED}
    return {**os.environ, **offered, "LCSEARCH_PARAMS": json.dumps(dict(ctx.params)), "PYTHONUNBUFFERED": "1"}


def _end(process: subprocess.Popen[str], grace: float) -> None:
    """SIGTERM to the program and all it started, SIGKILL to what is left after `grace` seconds."""
    family = [process.pid, *_descendants(process.pid)]
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in family:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=grace)  # reads on: a full pipe must not keep it from ending
        if process.poll() is not None and number == signal.SIGTERM:
            family = [pid for pid in family if pid != process.pid]
    process.wait()


def _descendants(pid: int) -> Iterator[int]:
    """Children and children's children, where the system tells (Linux)."""
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in listing.read_text().split():
                yield int(child)
                yield from _descendants(int(child))


def _how(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code}"
