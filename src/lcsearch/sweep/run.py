"""Run a sweep: make the folder, start the workers, watch them, and sum up.

Ctrl-C once drains: every worker ends at its trial's next report and the trials stay RUNNING, to be continued from
their checkpoints by `--resume`. (Waiting for whole trials to finish could take hours; nothing beyond the last
checkpoint is lost this way.) Ctrl-C twice kills the workers; what they had checkpointed is kept.

Several machines may work on one study in a storage they all reach, each with a run folder of its own (`--join`). The
study counts the budget; checkpoints, logs and decisions stay in the folder of the machine that made them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from lcsearch.errors import EnvironmentProblem, FileProblem
from lcsearch.secrets_in_urls import mask
from lcsearch.sweep.monitor.outcome import Outcome
from lcsearch.sweep.monitor.view import View
from lcsearch.sweep.runtime import preflight
from lcsearch.sweep.runtime.local import FleetWatch
from lcsearch.sweep.spec.load import Sweep, load
from lcsearch.sweep.spec.model import SweepFile
from lcsearch.sweep.store import studies
from lcsearch.sweep.store.folder import RunFolder, prepare
from lcsearch.sweep.store.storage import Patience
from lcsearch.sweep.views.live import make_view


def run(
    path: str | Path,
    *,
    folder: str | Path | None = None,
    resume: bool = False,
    fresh: bool = False,
    join: bool = False,
    retry_failed: bool = False,
    seed: int | None = None,
    trials: int | None = None,
    workers: int | None = None,
    pruner: str | None = None,
    overrides: Sequence[str] = (),
    view: View | Callable[[SweepFile, RunFolder], View] = make_view,
) -> Outcome:
    """Run the sweep file at `path` to its end.

    Args:
        folder: where the run lies; `runs/NAME` when None.
        resume: go on with the run in `folder`, whose file must not have changed. `trials` and `workers` may be
            given anew, `seed` and `pruner` are as they were.
        fresh: start over; an earlier run in `folder` is kept as `NAME.old-K`.
        join: work along with other machines on the study of this very sweep in the file's storage, with a run folder
            of this machine's own; the first one makes the study.
        retry_failed: on a resume, run the failed trials again, from their start and with their parameters; each counts
            in the budget in place of the failed one.
        seed, trials, workers, pruner: as in the file, in place of the file's.
        overrides: `key.sub=value` in place of the file's; on a resume those that the run was begun with, and any below
            `budget` and `backend.workers`, and `backend.host`.
        view: what is shown, or what makes it when all is ready; left out, the terminal chooses.

    Raises:
        FileProblem: file, objective or folder are wrong. EnvironmentProblem: the machine is. Nothing was started.
    """
    if resume and fresh:
        raise FileProblem("expected --resume or --fresh, got both.")
    if resume and join:
        text = "expected --resume or --join, got both. --resume goes on with this folder's run, a joined one too."
        raise FileProblem(text)
    if retry_failed and not resume:
        raise FileProblem("--retry-failed: expected --resume with it, got none. It runs failed trials of a run again.")
    sweep = load(path)
    where = RunFolder(Path(folder or Path("runs") / sweep.file.name).resolve())
    options = {"seed": seed, "trials": trials, "workers": workers, "pruner": pruner}
    if resume:
        chosen = _as_before(sweep, where, overrides, options)
    else:
        chosen = studies.anchored(sweep.override(overrides, **options))
    preflight.check(chosen, resume=resume)
    on_ray = _import_ray() if chosen.file.backend.kind == "ray" else None
    studies.quiet_optuna()

    with ExitStack() as stack:

        def check() -> None:
            if join:
                studies.check_joins(chosen.file, where)
            elif not resume:
                studies.check_free(chosen.file, where)
            if on_ray is not None:
                stack.enter_context(on_ray.cluster(chosen.file, where))

        ready, lock, notice = prepare(chosen, where, resume=resume, fresh=fresh, check=check)
        stack.callback(os.close, lock)
        patience = Patience()
        study = studies.create_study(ready.file, where, resume=resume, join=join, patience=patience)
        shown = view(ready.file, where) if callable(view) else view
        for text in filter(None, (notice, ready.file.budget.idle_stop_when)):
            shown.event(text)
        watch = on_ray.RayWatch if on_ray is not None else partial(FleetWatch, lock=lock)
        outcome: Outcome = watch(ready, where, study, shown, patience).run(resume, retry_failed=retry_failed)
        return outcome


def _import_ray() -> ModuleType:
    """The launcher's part for Ray, which is an extra, and slow to import.

    Raises:
        EnvironmentProblem: Ray is not installed.
    """
    try:
        from lcsearch.sweep.on_ray import loop
    except ImportError as error:
        text = f"backend.kind: expected Ray, got {error}. Install it: pip install 'lcsearch[ray]'"
        raise EnvironmentProblem(text) from error
    return loop


def _as_before(sweep: Sweep, where: RunFolder, overrides: Sequence[str], options: dict[str, Any]) -> Sweep:
    """The resolved sweep of the run that is resumed, with the overrides that may change."""
    if not where.record.exists():
        return sweep  # prepare() says that there is nothing to resume
    before = where.read().file
    for option, had in (("seed", before.seed), ("pruner", before.pruner.kind)):
        if options[option] not in (None, had):
            text = f"--{option}: expected {had}, as this run was started with, got {options[option]}."
            raise FileProblem(f"{text} Leave it out, or start over with --fresh or another --folder.")
    same, may = Sweep(before, sweep.path, sweep.text), ("budget.", "backend.workers.", "backend.host=")
    for text in overrides:
        if not text.startswith(may) and studies.anchored(same.override([text])).file != before:
            told = "expected a value that this run was started with, or a key below budget or backend.workers, or"
            how = "Leave it out, or start over with --fresh or another --folder."
            raise FileProblem(f"override '{mask(text)}': {told} backend.host. {how}")
    changes = [text for text in overrides if text.startswith(may)]
    return same.override(changes, trials=options["trials"], workers=options["workers"])
