"""One trial of a sweep on Ray: what runs in a process of the cluster."""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import math
import operator
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ray import tune
from ray.tune.trainable import Trainable, wrap_function

from lcsearch import files
from lcsearch.errors import EnvironmentProblem, LcsearchError
from lcsearch.files import loads
from lcsearch.study.attempts import Attempts
from lcsearch.sweep.objective.context import Context
from lcsearch.sweep.runtime.exits import ENVIRONMENT, FILE, NO_REPORT
from lcsearch.sweep.runtime.trial import describe, load_any, print_place
from lcsearch.sweep.spec.space import planned_schedule
from lcsearch.sweep.store.folder import REPORTS, RunFolder
from lcsearch.sweep.store.ownership import REPLAYED

TRIAL = "lcsearch:trial"
"""The key of a Tune trial's config that holds the trial's number in the study."""
SEEDED_AS = "lcsearch:seeded_as"
"""The key under which the number stands whose seed it has; its own where there is none."""
VALUE, STEP, AT, ERROR, PROBLEM, CODE = "value", "step", "at", "error", "problem", "code"
"""The keys of a result; AT is when it came, by its process's monotonic clock; an ERROR is the trial's own, a PROBLEM is
one that no other trial would escape."""
LEFT = "left"
"""The key of a note: what a process had to say of its trial's last reports when that was over."""
PATIENCE_S = 10.0  # for the end of a trial that was stopped, beyond a program's own grace

_idle = threading.Event()  # no trial is under way in this process
_idle.set()


class _Reporter:
    """A trial's reports to Tune, kept beside its checkpoint once Tune has them.

    Attributes:
        stopped: Tune has ended the trial, and waits for this thread to end.
        known: step -> value, reports of earlier processes included.
        sent: Tune has heard of this trial from this process.
        late: step -> value, what was reported as Tune ended the trial, or later.
        noted: what is odd about the reports, as it stands.
    """

    noted: Mapping[str, list[float]] = MappingProxyType({})

    def __init__(self, folder: Path) -> None:
        self.stopped = self.sent = False
        self.late: dict[int, float] = {}
        self._file = folder / REPORTS
        self._at = math.nan
        self._told: dict[str, list[float]] = {}  # what of `noted` is written
        told = Attempts()
        for _, line in files.lines(self._file) if self._file.exists() else ():
            with contextlib.suppress(ValueError, TypeError):  # a torn line: its writer was killed over it
                entry = loads(line)
                if isinstance(entry, list):
                    step, value = entry
                    told.take(operator.index(step), float(value))
                elif isinstance(entry, dict) and entry.get(LEFT, entry) is None:
                    told.begin()
        self.known = told.values

    def came(self, step: int, at: float) -> None:
        self._at = at

    def report(self, value: float, step: int) -> None:
        self.sent = True
        if not self.stopped:
            self.note()  # once Tune has ended the trial, the launcher asks no more
            try:
                tune.report({VALUE: value, STEP: step, AT: self._at})
            except SystemExit:
                self.stopped = True
        if self.stopped:  # Tune may not have it, and a resume must not take it for filed
            self.late[step] = value
            return
        with files.append(self._file) as file:
            file.write((json.dumps([step, value]) + "\n").encode())

    def should_prune(self) -> bool:
        return self.stopped

    def leave(self, context: Context | None, failed: str | None) -> None:
        """The trial is over in this process: tell the launcher, where that waits to hear what became of a stop.

        Args:
            context: what the trial was trained with.
            failed: how it failed after a stop that was taken back.
        """
        overtaken = context is not None and context.overtaken
        ahead = context.ahead if context is not None else None
        steps = max([*self.late, *([] if ahead is None else [ahead])], default=None)
        self._write(
            {LEFT: {"overtaken": overtaken, "late": list(self.late.items()), "trained": steps, "failed": failed}}
        )

    def begin(self) -> None:
        """What an earlier process told when it left is over."""
        self._write({LEFT: None})

    def note(self) -> None:
        """Tell the launcher what was odd about the reports and is not told yet, see :func:`noted`."""
        new = {kind: numbers for kind, numbers in self.noted.items() if numbers != self._told.get(kind)}
        if not new:
            return
        told = self._told.get(REPLAYED, [0])[0]
        self._told |= new
        self._write(new | ({REPLAYED: [new[REPLAYED][0] - told]} if REPLAYED in new else {}))

    def _write(self, entry: dict[str, Any]) -> None:
        with contextlib.suppress(OSError), files.append(self._file) as file:
            file.write((json.dumps(entry) + "\n").encode())


def noted(folder: Path) -> dict[str, Any]:
    """What was odd about the reports of a trial whose checkpoints lie in `folder`."""
    found: dict[str, Any] = {}
    with contextlib.suppress(OSError):
        for _, line in files.lines(folder / REPORTS):
            with contextlib.suppress(ValueError, TypeError):
                entry = loads(line)
                if isinstance(entry, dict):  # of this process or an earlier one
                    before = [*found.get(REPLAYED, ()), *entry.get(REPLAYED, ())]
                    found |= entry | ({REPLAYED: [sum(before)]} if before else {})
    return found


def hand_on(reports: Mapping[int, float], folder: Path) -> None:
    """In a checkpoint folder copied from a stopped trial's, keep what was reported by the study, and no note.

    The folder itself never has the report at which the trial was stopped.
    """
    lines = [json.dumps([step, value]) for step, value in sorted(reports.items())]
    files.write_atomically(folder / REPORTS, "".join(f"{line}\n" for line in lines).encode())


def trainable(root: str, cwd: str, grace: float) -> type[Trainable]:
    """What Tune runs for the run in the folder `root`, whose launcher works in `cwd`.

    Tune ends a process, or gives it the next trial, as soon as a stopped trial has been told. Here both wait until the
    trial has ended: its program has `grace` seconds for that.
    """

    def trial(config: dict[str, Any]) -> None:
        train(root, cwd, config)

    class SweepTrial(wrap_function(trial)):  # type: ignore[misc]  # a base made at run time
        def cleanup(self) -> None:
            try:
                super().cleanup()
            finally:
                _wait(grace)

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            if super().reset_config(new_config):
                return True
            _wait(grace)
            if not super().reset_config(new_config):
                os._exit(1)  # Tune would drop the next trial; of a lost worker it knows what to do
            return True

    return SweepTrial


def _wait(grace: float) -> None:
    """Until the trial of this process has ended. (A class made in a function travels by value and can hold no lock.)"""
    _idle.wait(grace + PATIENCE_S)


def train(root: str, cwd: str, config: Mapping[str, Any]) -> None:
    """Train the trial of `config` as the run in the folder `root` wants it; what it prints goes to its log there."""
    _idle.clear()
    try:
        _train(RunFolder(Path(root)), Path(cwd), config)
    finally:
        _idle.set()


def _train(folder: RunFolder, cwd: Path, config: Mapping[str, Any]) -> None:
    number, raised = int(config[TRIAL]), None
    with contextlib.ExitStack() as stack:
        try:
            sweep = folder.read()
            stack.enter_context(_printing_to(folder.trial_log(number)))
            _work_in(cwd)
            objective = load_any(sweep)
            checkpoints = folder.checkpoints(number)
            checkpoints.mkdir(parents=True, exist_ok=True)
            reporter = _Reporter(checkpoints)
            reporter.begin()
        except (LcsearchError, OSError) as error:
            code = ENVIRONMENT if isinstance(error, EnvironmentProblem | OSError) else FILE
            tune.report({VALUE: math.nan, STEP: math.nan, PROBLEM: str(error), CODE: code})
            return
        file, context = sweep.file, None
        params = {name: config[name] for name in file.space if name in config}
        device = file.backend.workers.devices[0]
        try:
            context = Context(
                reporter,
                params=params,
                number=number,
                seeded_as=config.get(SEEDED_AS),
                goal=file.target,
                seed=file.seed,
                checkpoint_dir=checkpoints,
                device="cuda:0" if device == "cuda" else device,  # Ray shows a trial its own GPU alone
                schedule=planned_schedule(file, params),
                reported=reporter.known,
                heard=reporter.came,
            )
            reporter.noted = context.noted
            context.returned(objective(context))
            if not context.reported:
                raised = context.all_beyond or NO_REPORT
        except (Exception, SystemExit) as error:
            if not reporter.stopped or (context is not None and context.overtaken):
                print_place(error)
                raised = describe(error, sweep.path.parent)
        reporter.note()
        reporter.leave(context, raised)
    if reporter.stopped:
        sys.exit(0)  # what Tune had raised in our report
    if raised is not None:
        tune.report({VALUE: math.nan, STEP: math.nan, ERROR: raised})
    elif not reporter.sent and context is not None:
        # An earlier process had reported it all, or up to where this one ended, and Tune breaks off a run over a trial
        # without a result.
        last = max(context.reported)
        tune.report({VALUE: context.reported[last], STEP: last})


@contextlib.contextmanager
def _printing_to(path: Path) -> Iterator[None]:
    """What this process, its children and its C code print goes to the end of `path`."""
    with io.TextIOWrapper(files.append(path), line_buffering=True) as log:
        kept = [(number, os.dup(number)) for number in (1, 2)]
        try:
            for number, _ in kept:
                os.dup2(log.fileno(), number)
            with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
                yield
        finally:
            with contextlib.suppress(OSError, AttributeError):
                ctypes.CDLL(None).fflush(None)  # C keeps what it prints to a file for a while
            for number, copy in kept:
                os.dup2(copy, number)
                os.close(copy)


def _work_in(cwd: Path) -> None:
    """Where the launcher works, if this machine has that folder."""
    try:
        os.chdir(cwd)
    except OSError as error:
        print(f"the launcher's working directory is not to be had here ({error}): this is {os.getcwd()}")
