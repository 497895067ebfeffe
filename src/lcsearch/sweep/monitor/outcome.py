"""How a launch of a sweep ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import optuna

from lcsearch.sweep.monitor.progress import Progress

SUCCESS, FAILED, INTERRUPTED = 0, 1, 130


@dataclass(frozen=True)
class Outcome:
    """How a sweep ended.

    Attributes:
        code: 0 when the budget is used, a trial is COMPLETE and there is a best value, 1 when the sweep failed, 130
            when it was interrupted.
        message: why, unless all went well.
        seconds: wall clock of this launch, as the run's clock has it.
    """

    folder: Path
    progress: Progress
    study: optuna.Study
    code: int
    message: str
    seconds: float
