"""The objective that is a program: started once a trial, heard on its standard output."""

from __future__ import annotations

import json
import os
import signal
import string
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Any

from lcsearch.errors import EnvironmentProblem, LcsearchError
from lcsearch.sweep.objective import lines
from lcsearch.sweep.objective.context import Context, Interrupted, Stopped
from lcsearch.sweep.objective.lines import Report
from lcsearch.sweep.spec.model import SweepFile
from lcsearch.sweep.spec.placeholders import OFFERED

Heard = tuple[int, float, float]  # and when, by the monotonic clock: training does not wait for a look

_LAST_WORDS_S = 0.3  # how long a line may come after its program has ended
_LEAVING_S = 0.1  # how long a program that may have said all is given to end by itself before it is stopped
_POLL_S = 0.02
_KILL_S = 5.0  # how long the kernel may take to end what was killed
_LONGEST = 1 << 16  # characters; a longer line is passed on in pieces and holds no report
_PROGRAM = "LCSEARCH_PROGRAM"  # the variable by which all that a trial's program has started is known


class CommandFailed(LcsearchError):
    """The program of a trial ended with an exit code other than 0, or without a report."""


def command_objective(file: SweepFile, folder: Path) -> Callable[[Context], None]:
    """The sweep's program as an objective; it runs in `folder`, where the sweep file stands.

    A program does not wait for looks, so a stop may come too late. What it has printed by then is read to its end, and

    - where it has ended by itself with success, or has printed its last step (`max_steps`), nothing is left to stop:
      all its reports count, and it ends as one that was never stopped does, by its exit code;
    - where it has failed by itself before its last step, the stop stands: it was decided first, on what the program
      had reported, which a failed trial would lose; and whether it failed or was told to end makes no difference.

    A program that ended with success as a sweep drains has ended, too; of any other, all that it printed counts.
    """
    assert file.objective.command is not None
    command, grace = file.objective.command, file.objective.grace
    named = file.step, file.metric, file.objective.pattern

    def train(ctx: Context) -> None:
        known: dict[str, Any] = {name: getattr(ctx, name) for name in OFFERED} | dict(ctx.params)
        arguments = [_Filler().vformat(part, (), known) for part in command]
        mark = _mark(ctx.checkpoint_dir)
        _kill(None, mark)  # a worker that was killed may have left it: two must not share a checkpoint_dir
        with _guard() as watch:
            try:
                process = subprocess.Popen(
                    arguments,
                    cwd=folder,
                    env={**_environment(ctx), _PROGRAM: mark},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    encoding="utf-8",
                    errors="replace",
                    start_new_session=True,
                )
            except OSError as error:
                text = f"objective.command: expected a program that starts, got {error} ({arguments[0]})."
                raise EnvironmentProblem(text) from error
            out, err = _Listener(process.stdout, "stdout", lines.reader(*named)), _Listener(process.stderr, "stderr")
            patience, ended, late = 0.0, None, list[Heard]()
            _RUNNING[process.pid] = mark
            try:
                watch(process.pid)
                try:
                    _hear(process, out, ctx)
                    if process.returncode != 0:
                        ctx.check()  # it may be us who have killed it
                except Stopped as error:
                    ended = error
                    if _is_over(process, out, late, None if isinstance(error, Interrupted) else ctx):
                        ctx.overtake(late)
                        ended = None
                        _hear(process, out, ctx)
                    elif isinstance(error, Interrupted):
                        ctx.keep(late)  # now: a second signal kills us
                        late.clear()
                patience = grace
            except Stopped as error:
                patience, ended = grace, error
            finally:
                # a second signal kills us at any moment: what is printed until the end is kept as it comes
                _end(process, mark, patience, lambda: ctx.keep(out.rest()) if isinstance(ended, Interrupted) else None)
                _RUNNING.pop(process.pid, None)
                out.join(_LAST_WORDS_S)
                err.join(_LAST_WORDS_S)
                late += out.rest()
                for step, _, _ in late:  # training does not wait for a look: this was trained before it could stop
                    ctx.missed(step)
        if ended is not None:
            if isinstance(ended, Interrupted) or not _has_last_step(late, ctx):
                ctx.keep(late)  # its checkpoint may be of a later step, from which it goes on
                raise ended
            ctx.overtake(late)  # it came to its last step all the same; its exit code is of our signal
            return
        how = how_ended(process.returncode) if process.returncode != 0 else ""
        if not how and not ctx.reported:
            how = ctx.all_beyond or f"no report: expected {lines.expected(*named)} on its standard output"
        if how:
            said = (err.last or out.last)[:200] or "nothing"
            raise CommandFailed(f"{arguments[0]} ended with {how}; it said last: {said}")

    return train


_RUNNING: dict[int, str] = {}  # pid -> mark of the programs of this process


def kill_programs() -> None:
    """Kill the programs that this process trains by, at once: what they have printed is still heard."""
    for pid, mark in list(_RUNNING.items()):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        _kill(pid, mark)


def _hear(process: subprocess.Popen[str], out: _Listener, ctx: Context) -> None:
    """Pass on what a program reports, until it has ended."""
    for step, value, at in out.reports(process, ctx.check):
        ctx.take(value, step, at)
    while process.poll() is None:  # it may have closed its standard output long before its end
        ctx.check()
        time.sleep(_POLL_S)


def _is_over(process: subprocess.Popen[str], out: _Listener, late: list[Heard], ctx: Context | None) -> bool:
    """Has the program ended by itself with success, or (of a context) printed its last step? What it has printed goes
    to `late`.

    One that has printed all it has to say needs a moment to end.
    """
    deadline = time.monotonic() + _LEAVING_S
    while process.poll() is None:
        late += out.rest()
        if _has_last_step(late, ctx):
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    out.join(_LAST_WORDS_S)
    late += out.rest()
    return process.returncode == 0 or _has_last_step(late, ctx)


def _has_last_step(late: list[Heard], ctx: Context | None) -> bool:
    """Was the last step reported, or printed since? `range(n)` ends one before n."""
    if ctx is None:
        return False
    return max([*ctx.reported, *(step for step, _, _ in late)], default=-1) >= ctx.max_steps - (0 in ctx.reported)


class _Filler(string.Formatter):
    """Fills in `{name}` and `{name:.3f}`; a name is looked up whole, for a parameter may be called `opt.lr`."""

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> Any:
        return kwargs[field_name], field_name


class _Listener(threading.Thread):
    """Passes on what a program says, on a thread: a full pipe must not keep it from going on, or from ending.

    Attributes:
        last: the last line that was not empty.
    """

    def __init__(
        self, pipe: IO[str] | None, name: str, reading: Callable[[str], Report | None] = lambda _: None
    ) -> None:
        super().__init__(name=f"program's {name}", daemon=True)
        assert pipe is not None
        self._pipe, self._to, self._reading = pipe, name, reading
        self._heard: SimpleQueue[Heard | None] = SimpleQueue()
        self.last = ""
        self.start()

    def run(self) -> None:
        """Until the pipe is closed."""
        whole = True  # the piece before this one ended its line
        with self._pipe:
            while line := self._pipe.readline(_LONGEST):
                print(line, end="", flush=True, file=getattr(sys, self._to))
                self.last = line.strip() or self.last
                begins, whole = whole, line.endswith("\n")
                report = self._reading(line) if begins and (whole or len(line) < _LONGEST) else None
                if report is not None:
                    self._heard.put((*report, time.monotonic()))
        self._heard.put(None)

    def reports(self, process: subprocess.Popen[str], check: Callable[[], None]) -> Iterator[Heard]:
        """(step, value, when) until the end: the pipe's, or the program's where a child of it keeps the pipe open.

        `check` is called now and then while nothing is heard.
        """
        ended = False
        while True:
            try:
                report = self._heard.get(timeout=_LAST_WORDS_S)
            except Empty:
                if ended:
                    return
                ended = process.poll() is not None
                check()
                continue
            if report is None:
                return
            yield report

    def rest(self) -> Iterator[Heard]:
        """What was heard and nobody has asked for, without waiting for more."""
        with suppress(Empty):
            while (report := self._heard.get_nowait()) is not None:
                yield report
            self._heard.put(None)  # for `reports`


def _environment(ctx: Context) -> dict[str, str]:
    """What the program may read instead of arguments: LCSEARCH_PARAMS (JSON), LCSEARCH_SEED, ..."""
    offered = {f"LCSEARCH_{name.upper()}": str(getattr(ctx, name)) for name in OFFERED}
    return {**os.environ, **offered, "LCSEARCH_PARAMS": json.dumps(dict(ctx.params)), "PYTHONUNBUFFERED": "1"}


@contextmanager
def _guard() -> Iterator[Callable[[int], None]]:
    """What is called with a process group sees to it that the group dies with this process, however that is killed.

    A shell waits for the end of a pipe that only this process holds. (PR_SET_PDEATHSIG would have to be set between
    fork and exec, where Python code is not safe beside threads; it is Linux's alone, and spares grandchildren.)
    """
    with subprocess.Popen(
        ["/bin/sh", "-c", 'read -r group && { read -r _; kill -s KILL -- "-$group"; }'],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        text=True,
    ) as shell:
        assert shell.stdin is not None

        def watch(group: int) -> None:
            print(group, file=shell.stdin, flush=True)

        try:
            yield watch
        finally:
            shell.kill()


def _mark(checkpoints: Path) -> str:
    """One for each trial, the same in all its processes: another container may have a folder of the same name."""
    found = checkpoints.stat()
    return f"{found.st_dev}:{found.st_ino}:{checkpoints}"


def _end(process: subprocess.Popen[str], mark: str, grace: float, meanwhile: Callable[[], None]) -> None:
    """SIGTERM to what lives of the program and all it started, SIGKILL to what is left after `grace` seconds; until
    then `meanwhile` is called.
    """
    family = _process_tree(process.pid, mark)
    for pid in family:
        _send(signal.SIGTERM, pid)
    if not family:  # all have ended, or there is no /proc
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace
    try:
        while (process.poll() is None or any(map(_lives, family.items()))) and time.monotonic() < deadline:
            meanwhile()
            time.sleep(_POLL_S)
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        _kill(process.pid, mark)
        process.wait()


def _kill(session: int | None, mark: str) -> None:
    """SIGKILL to the processes of `session` and with `mark`, until there are none; the kernel may need a while."""
    deadline = time.monotonic() + _KILL_S
    while (family := _process_tree(session, mark)) and time.monotonic() < deadline:
        for pid in family:
            _send(signal.SIGKILL, pid)
        time.sleep(_POLL_S)


def _send(number: signal.Signals, pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _process_tree(session: int | None, mark: str) -> dict[int, str]:
    """pid -> when it was born, of the living processes of `session` or with `mark`, where the system tells (Linux)."""
    found: dict[int, str] = {}
    sign = f"{_PROGRAM}={mark}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):
            pid, stat = int(entry.name), _stat(int(entry.name))
            if stat is not None and (int(stat[3]) == session or sign in (entry / "environ").read_bytes().split(b"\0")):
                found[pid] = stat[19]
    found.pop(os.getpid(), None)
    return found


def _lives(entry: tuple[int, str]) -> bool:
    """Is it still the process it was, and not another that was given its number?"""
    return _start_time(entry[0]) == entry[1]


def _start_time(pid: int) -> str | None:
    """The kernel's start time of a living process; None when it is gone or a zombie."""
    stat = _stat(pid)
    return None if stat is None else stat[19]


def _stat(pid: int) -> list[str] | None:
    """What the kernel says of a living process, from its state on; None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields


def how_ended(code: int) -> str:
    """`exit code 1` or `signal 9`, of a process's return code."""
    return f"exit code {code}" if code >= 0 else f"signal {-code}"
