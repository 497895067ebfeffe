"""`lcsearch status`: the screen once, of a run that goes on in another process or has ended. Reads only."""

from __future__ import annotations

import sys
from dataclasses import replace

from lcsearch.sweep.monitor import run_record
from lcsearch.sweep.monitor.open_run import read_state
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.views.screen import draw
from lcsearch.sweep.views.summary import at, run_again, shown, unfinished
from lcsearch.terminal import say

_WIDE = 120  # columns where there is no terminal to ask


def show(folder: RunFolder) -> None:
    """Print the run as it stands, whole: however many lines that takes.

    Raises:
        FileProblem: `folder` holds no run.
    """
    from rich.console import Console

    _, state = read_state(folder)
    progress, going_on = state.progress, run_record.at_work(folder)
    if going_on:
        last = "going on"
    elif progress.of("failed") and not progress.of("complete", "stopped"):
        last = f"ended, and no trial ran to its end; after the mend: {run_again(folder, '--fresh')}"
    elif unfinished(progress, folder):
        last = f"nobody is at work on it; to go on: {run_again(folder, '--resume')}"
    else:
        last = f"ended; next: lcsearch report{at(folder)}, or lcsearch explain TRIAL{at(folder)}"
    if not going_on:
        state = replace(state, left=None)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)
    try:
        console.print(draw(state, console, None))
    except (OSError, SystemExit):
        return
    for text in state.damage:
        say(f"! {text}")
    say(f"{shown(folder.root)}: {last}")
