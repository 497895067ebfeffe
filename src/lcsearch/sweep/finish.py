"""`lcsearch finish` and `lcsearch thaw`: what a run's stopped trials would come to, its price first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lcsearch.errors import FileProblem
from lcsearch.schedulers.optuna._finish import planned
from lcsearch.sweep.monitor import run_record
from lcsearch.sweep.monitor.open_run import reader
from lcsearch.sweep.monitor.outcome import Outcome
from lcsearch.sweep.monitor.progress import Progress
from lcsearch.sweep.monitor.view import View
from lcsearch.sweep.run import run
from lcsearch.sweep.spec.model import SweepFile
from lcsearch.sweep.store import thaws
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.views.live import make_view
from lcsearch.sweep.views.phrases import clock
from lcsearch.sweep.views.summary import run_again, unfinished


def finish(
    folder: str | Path,
    *,
    risk: float = 0.02,
    trials: tuple[int, ...] = (),
    workers: int | None = None,
    agreed: Callable[[str], bool] = lambda text: True,
    view: View | Callable[[SweepFile, RunFolder], View] = make_view,
) -> Outcome | None:
    """Train stopped trials of a run that has ended on, until the others have lost the winner with at most `risk`.

    The likeliest to have won goes first, from its checkpoint, or anew where it left none, as a new trial that nothing
    stops again and that counts in the budget in place of the stopped one; `budget.steps` and `budget.seconds` do not
    hold it. Killed or interrupted, it goes on with `lcsearch run FILE --resume`, or by another call.

    Args:
        folder: the run.
        risk: what the P(beat) of all trials that stay stopped may sum to, in [0, 1].
        trials: those to thaw instead, whatever the risk.
        workers: in place of the file's.
        agreed: is told what it comes to and what it costs; False: nothing is begun.
        view: what is shown, or what makes it.

    Returns:
        What came of it; None where nothing was to be done, or not agreed to.

    Raises:
        FileProblem: the folder holds no run, or one that goes on, has not ended, or has another pruner than
            lcsearch's; or a trial of `trials` cannot be thawed.
    """
    where = RunFolder(Path(folder).resolve())
    sweep, study, progress = reader(where)
    now, file = progress(), sweep.file
    if run_record.at_work(where):
        raise FileProblem(f"{where.root}: expected a run that has ended, got one that somebody is at work on.")
    own = [row for row in now.rows if row.thawed is None]
    if unfinished(now, where) and not (_begun(now) and all(row.state in _ENDED for row in own)):
        text = f"{where.root}: expected a run that has ended, got one with trials left."
        raise FileProblem(f"{text} Go on with it: {run_again(where, '--resume')}")
    wish = thaws.Wanted(risk, trials, len(study.get_trials(deepcopy=False)))
    plan, steps, anew = thaws.planned(study, where, wish)
    left = _begun(now)
    seconds = now.seconds_of({now.rows[0].number: steps}) if now.rows else None
    cost = f"about {steps:g} {file.step}s"
    cost += f", {clock(seconds)} of workers' time" if seconds else ""
    cost += f"; {anew} of them begin{'s' * (anew == 1)} anew, for no checkpoint was left" if anew else ""
    text = planned(plan, cost)
    if left:
        text += f"\n{left} thawed trial{'s go' if left > 1 else ' goes'} on that an earlier call has begun"
    if not agreed(text) or not (plan.thaw or left):
        return None
    thaws.want(study, wish)
    return run(sweep.path, folder=where.root, resume=True, workers=workers, view=view)


_ENDED = ("complete", "stopped", "thawed", "failed")


def _begun(progress: Progress) -> int:
    """Thawed trials that an earlier call has left."""
    return sum(row.thawed is not None and row.state in ("running", "waiting") for row in progress.rows)
