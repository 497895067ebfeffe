"""Commands about a run: trained on, shown, explained, verified."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from lcsearch.cli.errors import complain, told_plainly
from lcsearch.cli.named import Run, RunFolderOption, either, run_named
from lcsearch.cli.sweep_file import Workers

Risk = Annotated[float, typer.Option(help="What the P(beat) of all that stay stopped may sum to.", min=0.0, max=1.0)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what it would cost; train nothing.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def finish(
    run: Run = None,
    risk: Risk = 0.02,
    folder: RunFolderOption = None,
    workers: Workers = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Train stopped trials on until the risk is low.

    The likeliest to have won first, from their checkpoints. Says what it costs, and asks.
    """
    _finish(run, folder, risk, (), workers, dry_run, yes)


def thaw(
    trial: Annotated[int, typer.Argument(help="The trial's number.", metavar="TRIAL", min=0)],
    run: Run = None,
    folder: RunFolderOption = None,
    workers: Workers = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Train one stopped trial on, to its end."""
    _finish(run, folder, 0.0, (trial,), workers, dry_run, yes)


def _finish(
    run: Path | None,
    folder: Path | None,
    risk: float,
    trials: tuple[int, ...],
    workers: int | None,
    dry_run: bool,
    yes: bool,
) -> None:
    with told_plainly():
        from lcsearch.sweep.finish import finish as thawed
        from lcsearch.sweep.monitor.state import StateReader
        from lcsearch.sweep.store.folder import RunFolder
        from lcsearch.sweep.views.summary import summarize
        from lcsearch.terminal import say

        def agreed(text: str) -> bool:
            say(text)
            if dry_run or yes or not sys.stdin.isatty():
                return not dry_run
            return typer.confirm("go on?")

        outcome = thawed(run_named(run, folder), risk=risk, trials=trials, workers=workers, agreed=agreed)
        if outcome is None:
            return
        where = RunFolder(outcome.folder)
        state = StateReader(where.read().file, where).state(outcome.progress, outcome.study)
        say("\n" + summarize(state, outcome.seconds, outcome.code))
        if outcome.message:
            complain(f"{where.read().file.name}: {outcome.message}")
    raise typer.Exit(outcome.code)


def status(
    run: Run = None,
    folder: RunFolderOption = None,
) -> None:
    """Show how far a run is; reads only."""
    with told_plainly():
        from lcsearch.sweep.store.folder import RunFolder
        from lcsearch.sweep.views.status import show

        show(RunFolder(run_named(run, folder)))


def explain(
    trial: Annotated[str, typer.Argument(help="The trial's number, or best.", metavar="TRIAL")],
    run: Run = None,
    folder: RunFolderOption = None,
) -> None:
    """Tell why a trial was stopped, or was not."""
    with told_plainly():
        from lcsearch.sweep.monitor.open_run import read_state
        from lcsearch.sweep.store.folder import RunFolder
        from lcsearch.sweep.views import explain as story
        from lcsearch.terminal import say

        story.check_word(trial)
        study, state = read_state(RunFolder(run_named(run, folder)))
        say(story.explain(story.number_of(trial, state.progress), state, study))


def report(
    run: Run = None,
    folder: RunFolderOption = None,
    out: Annotated[Path | None, typer.Option(help="Where the report goes. [default: RUN/report]")] = None,
) -> None:
    """Write a run as one page to hand on.

    It can be read offline, its figures lie beside it; works while the run goes on.
    """
    with told_plainly():
        from lcsearch.sweep.report.write import write
        from lcsearch.sweep.store.folder import RunFolder
        from lcsearch.sweep.views.summary import shown
        from lcsearch.terminal import say

        where = RunFolder(run_named(run, folder))
        say(shown(write(where, None if out is None else out.resolve())))


def calibration(
    run: Run = None,
    folder: RunFolderOption = None,
    plot: Annotated[Path | None, typer.Option(help="Where a plot goes: a .png file.")] = None,
) -> None:
    """Hold forecasts to what became of their trials.

    Those of trials that ran to their end, with 95 % bands, and what so many can prove.
    """
    with told_plainly():
        from lcsearch.sweep.report.calibration import show
        from lcsearch.sweep.store.folder import RunFolder
        from lcsearch.terminal import say

        for text in show(RunFolder(run_named(run, folder)), plot):
            say(text)


def verify(
    log: Annotated[
        Path | None, typer.Argument(help="A run folder, or a decision log. [default: the latest run]", metavar="[LOG]")
    ] = None,
    study: Annotated[
        str | None,
        typer.Argument(help="Of a decision log: Optuna storage, or folder of a Tune experiment.", metavar="[STUDY]"),
    ] = None,
    folder: Annotated[Path | None, typer.Option(help="A run, in place of LOG, as other commands name it.")] = None,
    name: Annotated[str | None, typer.Option("--study", help="Which study, where there are several.")] = None,
) -> None:
    """Make every decision again, from log and study.

    Ends with 1 at the first that comes out otherwise than it was recorded, and where stops are missing from the log.
    """
    code = 0
    with told_plainly():
        from lcsearch.sweep.store.folder import latest
        from lcsearch.sweep.views.verify import verified
        from lcsearch.terminal import say

        where = either("LOG", log, folder) or latest(Path("runs"), "Name one: lcsearch verify LOG STUDY.")
        found = verified(Path(where), study, name)
        say("\n".join(found.lines))
        code = int(not found.sound)
    raise typer.Exit(code)
