"""Commands about a sweep file: begun, checked, planned, run."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from lcsearch.cli.errors import complain, told_plainly

File = Annotated[Path, typer.Argument(help="The sweep file.", metavar="FILE")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="In place of the file's: key.sub=value ...", metavar="[KEY=VALUE]...")
]
Seed = Annotated[int | None, typer.Option(help="In place of the file's.")]
Trials = Annotated[int | None, typer.Option(help="In place of the file's.")]
Workers = Annotated[int | None, typer.Option(help="In place of the file's.")]
Pruner = Annotated[str | None, typer.Option(help="curve, none, median or hyperband.")]


def init(
    file: Annotated[Path, typer.Argument(help="Where to write it.", metavar="FILE")] = Path("sweep.yaml"),
) -> None:
    """Write a sweep file to start from.

    Its comments explain it, and the objective beside it trains something small.
    """
    with told_plainly():
        import shlex

        from lcsearch.sweep.spec.starter import write
        from lcsearch.terminal import say

        for path in write(file):
            say(f"wrote {path}")
        say(f"next: lcsearch plan {shlex.quote(str(file))}, then lcsearch run {shlex.quote(str(file))}")


def validate(
    file: File,
    overrides: Overrides = None,
    seed: Seed = None,
    trials: Trials = None,
    workers: Workers = None,
    pruner: Pruner = None,
) -> None:
    """Check a sweep file; starts nothing.

    Every error is told at once.
    """
    with told_plainly():
        from lcsearch.sweep.runtime.preflight import check_program
        from lcsearch.sweep.spec.load import load
        from lcsearch.sweep.spec.strict import is_plain
        from lcsearch.terminal import say

        options = {"seed": seed, "trials": trials, "workers": workers, "pruner": pruner}
        loaded = load(file).override(overrides or (), **options)
        sweep, command = loaded.file, loaded.file.objective.command
        if command is not None and sweep.backend.address == "local":
            check_program(command[0], loaded.path.parent)
        searched = [k for k, p in sweep.space.items() if not is_plain(p)]
        n, text = len(searched), f"{sweep.budget.trials} trials of {sweep.max_steps} {sweep.step}s"
        say(f"{file}: fine: {text} over {n} parameter{'s' * (n != 1)}")
        unused = [name for name in searched if command and not any(f"{{{name}}}" in part for part in command)]
        if unused:
            text = f"{', '.join(unused)}: searched, and the command has no {{{unused[0]}}}"
            say(f"! {text}; does the program read LCSEARCH_PARAMS?")
        if sweep.budget.idle_stop_when:
            say(f"! {sweep.budget.idle_stop_when}")
        words = _typed(file, overrides, options)
        say(f"next: lcsearch plan {words}, then lcsearch run {words}")


def plan(
    file: File,
    overrides: Overrides = None,
    folder: Annotated[Path | None, typer.Option(help="Where an earlier run may lie. [default: runs/NAME]")] = None,
    seed: Seed = None,
    trials: Trials = None,
    workers: Workers = None,
    pruner: Pruner = None,
) -> None:
    """Say what a sweep would cost; starts nothing.

    The resolved file, least and most compute, and what holds a stop.
    """
    with told_plainly():
        from lcsearch.sweep.spec.load import load
        from lcsearch.sweep.store.folder import RunFolder
        from lcsearch.sweep.views.plan import describe
        from lcsearch.terminal import say

        options = {"seed": seed, "trials": trials, "workers": workers, "pruner": pruner}
        sweep = load(file).override(overrides or (), **options)
        say(describe(sweep, RunFolder((folder or Path("runs") / sweep.file.name).resolve())))
        say(f"next: lcsearch run {_typed(file, overrides, {**options, 'folder': folder})}")


def _typed(file: Path, overrides: Sequence[str] | None, options: Mapping[str, object]) -> str:
    """What the next command takes as this one did."""
    import shlex

    given = [word for name, value in options.items() if value is not None for word in (f"--{name}", str(value))]
    return shlex.join([str(file), *(overrides or ()), *given])


def run(
    file: File,
    overrides: Overrides = None,
    folder: Annotated[Path | None, typer.Option(help="Where the run lies. [default: runs/NAME]")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over; the old run is kept aside.")] = False,
    join: Annotated[bool, typer.Option("--join", help="Work along with other machines on one study.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="With --resume: run the failed trials again, after a mend.")
    ] = False,
    seed: Seed = None,
    trials: Trials = None,
    workers: Workers = None,
    pruner: Pruner = None,
    events: Annotated[bool, typer.Option("--json", help="Tell programs: one JSON object a line.")] = False,
) -> None:
    """Train a sweep, stopping hopeless trials.

    Ctrl-C once ends the workers at their next report (go on with --resume), twice kills them.
    """
    with told_plainly(), ExitStack() as stack:
        from lcsearch.sweep.monitor.state import StateReader
        from lcsearch.sweep.monitor.view import View
        from lcsearch.sweep.run import run as launch
        from lcsearch.sweep.spec.model import SweepFile
        from lcsearch.sweep.store.folder import RunFolder
        from lcsearch.sweep.views.json_lines import JsonView, standard_output
        from lcsearch.sweep.views.live import make_view
        from lcsearch.sweep.views.summary import summarize
        from lcsearch.terminal import say

        lines = stack.enter_context(standard_output()) if events else None
        told: list[JsonView] = []

        def make(sweep: SweepFile, where: RunFolder) -> View:
            if lines is None:
                return make_view(sweep, where)
            told.append(JsonView(sweep, where, lines, resumed=resume))
            return told[0]

        outcome = launch(
            file,
            folder=folder,
            resume=resume,
            fresh=fresh,
            join=join,
            retry_failed=retry_failed,
            seed=seed,
            trials=trials,
            workers=workers,
            pruner=pruner,
            overrides=overrides or (),
            view=make,
        )
        where = RunFolder(outcome.folder)
        sweep = where.read().file
        state = StateReader(sweep, where).state(outcome.progress, outcome.study)
        if outcome.progress.rows or not outcome.message:
            text = summarize(state, outcome.seconds, outcome.code)
            say("\n" + text, sys.stderr if events else None)
        if outcome.message:
            complain(f"{sweep.name}: {outcome.message}")
        for view in told:
            view.end(outcome, state)
    raise typer.Exit(outcome.code)


def schema() -> None:
    """Print the sweep file's JSON Schema."""
    import json

    from lcsearch.sweep.spec.model import SweepFile

    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    print(json.dumps(dialect | SweepFile.model_json_schema(by_alias=True), indent=2))
