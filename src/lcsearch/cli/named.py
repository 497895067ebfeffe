"""How a run, or a study, is named by every command about one: its argument, or --folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Run = Annotated[Path | None, typer.Argument(help="The run. [default: the latest under runs/]", metavar="[RUN]")]
RunFolderOption = Annotated[Path | None, typer.Option("--folder", help="The run, in place of RUN.")]
FolderInPlace = Annotated[Path | None, typer.Option(help="A run, in place of STUDY, as other commands name it.")]
WhichStudy = Annotated[str | None, typer.Option("--study", help="Which study, where there are several.")]


def run_named(run: Path | None, folder: Path | None) -> Path:
    """The folder of the run that a command is about.

    Raises:
        FileProblem: it was named twice, or not at all where there is none.
    """
    from lcsearch.sweep.store.folder import latest

    return Path(either("RUN", run, folder) or latest(Path("runs"))).resolve()


def study_named(study: str | None, folder: Path | None, command: str) -> str:
    """Where the study lies that a command is asked to read."""
    from lcsearch.sweep.store.folder import latest

    named = either("STUDY", study, folder) or latest(Path("runs"), f"Name a study: lcsearch {command} STUDY.")
    return str(named)


def either(what: str, given: str | Path | None, folder: Path | None) -> str | Path | None:
    """What a command is about, as its argument or --folder names it; None: neither does.

    Raises:
        FileProblem: both do.
    """
    from lcsearch.errors import FileProblem

    if given and folder:
        raise FileProblem(f"expected {what} or --folder, got both: {given} and --folder {folder}.")
    return given or folder
