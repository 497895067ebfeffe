"""The command line. Everything heavy is imported inside a command: `lcsearch --help` answers at once.

Exit codes: 0 done, 1 the sweep failed, 2 a file (or option) is wrong or an extra is missing, 3 the machine is
not as needed, 130 interrupted.
"""

from __future__ import annotations

from typing import Annotated

import typer

from lcsearch.cli import network, run, study, sweep_file

app = typer.Typer(
    name="lcsearch",
    help="Hyperparameter sweeps that stop hopeless trials, and say why.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich costs a tenth of a second; help does without
)


def main() -> None:
    """The `lcsearch` command."""
    app(prog_name="lcsearch")


def _version(asked: bool) -> None:
    if asked:
        from lcsearch import __version__

        print(f"lcsearch {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    pass


# In the order in which --help names them.
for _command in (
    *(sweep_file.init, sweep_file.validate, sweep_file.plan, sweep_file.run),
    *(run.finish, run.thaw, run.status, run.explain, run.report, run.calibration, run.verify),
    *(study.replay, study.forecast),
    *(network.prior, network.pretrain, network.serve),
    sweep_file.schema,
):
    app.command()(_command)
