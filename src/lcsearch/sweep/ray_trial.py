"""One trial of a sweep on Ray: what runs in a process of the cluster."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import tune

from lcsearch.errors import EnvironmentProblem, LcsearchError
from lcsearch.sweep.folder import RunFolder
from lcsearch.sweep.objective import Context
from lcsearch.sweep.space import planned_schedule
from lcsearch.sweep.worker import ENVIRONMENT, FILE, NO_REPORT, describe, load_any

TRIAL = "lcsearch:trial"
"""The key of a Tune trial's config that holds the trial's number in the study."""
VALUE, STEP, ERROR, PROBLEM, CODE = "value", "step", "error", "problem", "code"
"""The keys of a result; an ERROR is the trial's own, a PROBLEM is one that no other trial would escape."""
_REPORTS = "reports.jsonl"


class _Reporter:
    """A trial's reports to Tune, kept beside its checkpoint once Tune has them.

    Attributes:
        stopped: Tune has ended the trial, and waits for this thread to end.
        known: step -> value, reports of earlier processes included.
    """

    def __init__(self, folder: Path) -> None:
        self.stopped = False
        self._file = folder / _REPORTS
        self.known: dict[int, float] = {}
        for line in self._file.read_text().splitlines() if self._file.exists() else ():
            with contextlib.suppress(ValueError):  # a torn line: its writer was killed, the step is reported again
                step, value = json.loads(line)
                self.known[step] = value

    def report(self, value: float, step: int) -> None:
        try:
            tune.report({VALUE: value, STEP: step})
        except SystemExit:
            self.stopped = True
            return
        with self._file.open("a") as file:
            file.write(json.dumps([step, value]) + "\n")

    def should_prune(self) -> bool:
        return self.stopped


def train(root: str, config: Mapping[str, Any]) -> None:
    """Train the trial of `config` as the run in the folder `root` wants it; what it prints goes to its log there."""
    folder, number = RunFolder(Path(root)), int(config[TRIAL])
    try:
        sweep = folder.read()
        objective = load_any(sweep)
        checkpoints = folder.checkpoints(number)
        checkpoints.mkdir(parents=True, exist_ok=True)
        reporter = _Reporter(checkpoints)
        log = folder.trial_log(number).open("a", buffering=1)
    except (LcsearchError, OSError) as error:
        code = ENVIRONMENT if isinstance(error, EnvironmentProblem | OSError) else FILE
        tune.report({VALUE: math.nan, STEP: math.nan, PROBLEM: str(error), CODE: code})
        return
    file, raised = sweep.file, None
    params = {name: config[name] for name in file.space if name in config}
    device = file.backend.workers.devices[0]
    with log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        try:
            context = Context(
                reporter,
                params=params,
                number=number,
                goal=file.target,
                seed=file.seed,
                checkpoint_dir=checkpoints,
                device="cuda:0" if device == "cuda" else device,  # Ray shows a trial its own GPU alone
                schedule=planned_schedule(file, params),
                reported=reporter.known,
            )
            objective(context)
            if not context.reported:
                raised = NO_REPORT  # Tune itself breaks off a run over a trial that ends without a result
        except (Exception, SystemExit) as error:
            if not reporter.stopped:
                traceback.print_exc()
                raised = describe(error, sweep.path.parent)
    if reporter.stopped:
        sys.exit(0)  # what Tune had raised in our report
    if raised is not None:
        tune.report({VALUE: math.nan, STEP: math.nan, ERROR: raised})
