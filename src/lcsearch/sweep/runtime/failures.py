"""When a sweep has nothing to show, or nothing to hope for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from optuna.trial import FrozenTrial

from lcsearch.sweep.monitor.progress import Progress
from lcsearch.sweep.spec.model import SweepFile
from lcsearch.sweep.store.ownership import ERROR, counted

_SAME_FAILURES = 5  # of trials that never reported: the next will fail too


def no_result(progress: Progress, sweep: SweepFile) -> str:
    """Why a sweep that has ended has nothing to show; empty when it has."""
    n = len(progress.of("complete"))
    if not n and sweep.pause and progress.best is not None:
        return ""  # its budget was spent on turns
    if not n:
        return "no trial ran to its end"
    if progress.best is None:
        how = "reported a finite" if sweep.judged == "best" else "ended at a finite"
        return f"no trial {how} {sweep.metric} ({n} complete)"
    return ""


def systematic_failure(trials: Sequence[FrozenTrial], since: datetime) -> str:
    """Why no further trial is worth a try: the first few begun after `since` failed alike, and none ever reported."""
    if any(trial.intermediate_values for trial in trials):
        return ""
    finished = [t for t in counted(trials) if t.state.is_finished()]
    ended = [t for t in finished if (t.datetime_start or since) >= since]
    errors = {str(trial.user_attrs.get(ERROR, "")) for trial in ended}
    if len(ended) < _SAME_FAILURES or len(errors) > 1:
        return ""
    of = " of this launch" * (len(ended) < len(finished))
    text = f"the first {len(ended)} trials{of} failed before any report and with the same error"
    return f"{text}, so the sweep was ended: {errors.pop()}"
