"""The command line. Everything heavy is imported inside a command: `lcsearch --help` answers at once.

Exit codes: 0 done, 1 the sweep failed, 2 a file (or option) is wrong, 3 the machine is, 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from lcsearch.errors import EnvironmentProblem, LcsearchError

app = typer.Typer(
    name="lcsearch",
    help="Hyperparameter sweeps that stop hopeless trials, and say why.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich costs a tenth of a second; help does without
)

File = Annotated[Path, typer.Argument(help="The sweep file.", metavar="FILE")]


@contextmanager
def _told_plainly() -> Iterator[None]:
    """Expected errors end in one message and their exit code, never in a traceback."""
    try:
        yield
    except LcsearchError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(3 if isinstance(error, EnvironmentProblem) else 2) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def main() -> None:
    """The `lcsearch` command."""
    app(prog_name="lcsearch")


@app.command()
def run(
    file: File,
    folder: Annotated[Path | None, typer.Option(help="Where the run lies. [default: runs/NAME]")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over; the old run is kept aside.")] = False,
    join: Annotated[bool, typer.Option("--join", help="Work along with other machines on one study.")] = False,
    seed: Annotated[int | None, typer.Option(help="In place of the file's.")] = None,
    trials: Annotated[int | None, typer.Option(help="In place of the file's.")] = None,
    workers: Annotated[int | None, typer.Option(help="In place of the file's.")] = None,
    pruner: Annotated[str | None, typer.Option(help="curve, none, median or hyperband.")] = None,
) -> None:
    """Train a sweep to its end, stopping hopeless trials.

    Ctrl-C once ends the workers at their next report (go on with --resume), twice kills them.
    """
    with _told_plainly():
        from lcsearch.sweep.folder import RunFolder
        from lcsearch.sweep.launcher import run as launch
        from lcsearch.sweep.live import say
        from lcsearch.sweep.summary import summarize

        outcome = launch(
            file,
            folder=folder,
            resume=resume,
            fresh=fresh,
            join=join,
            seed=seed,
            trials=trials,
            workers=workers,
            pruner=pruner,
        )
        sweep = RunFolder(outcome.folder).read().file
        say("\n" + summarize(outcome.progress, sweep, outcome.study, outcome.folder, outcome.seconds))
        if outcome.message:
            print(f"{sweep.name}: {outcome.message}", file=sys.stderr)
    raise typer.Exit(outcome.code)


@app.command()
def explain(
    trial: Annotated[int, typer.Argument(help="The trial's number.", metavar="TRIAL")],
    folder: Annotated[Path | None, typer.Option(help="The run. [default: the latest under runs/]")] = None,
) -> None:
    """Tell the story of one trial: what it was, how it went, why it was stopped or not."""
    with _told_plainly():
        from lcsearch.sweep import summary
        from lcsearch.sweep.folder import RunFolder, latest
        from lcsearch.sweep.launcher import reader

        where = RunFolder((folder or latest(Path("runs"))).resolve())
        sweep, study, progress = reader(where)
        print(summary.explain(trial, progress(), sweep.file, study, where))


@app.command()
def validate(file: File) -> None:
    """Check a sweep file whole: every error at once, nothing is started."""
    with _told_plainly():
        from lcsearch.sweep.load import load

        sweep = load(file).file
        n = sum(not (p is None or isinstance(p, bool | int | float | str)) for p in sweep.space.values())
        text = f"{sweep.budget.trials} trials of {sweep.max_steps} {sweep.step}s"
        print(f"{file}: fine: {text} over {n} parameter{'s' * (n != 1)}")
