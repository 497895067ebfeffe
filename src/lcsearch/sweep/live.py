"""What is shown while a sweep runs: a rich view on a terminal, one plain line an event elsewhere."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from lcsearch.sweep.file import SweepFile
from lcsearch.sweep.folder import RunFolder
from lcsearch.sweep.looks import LookTail
from lcsearch.sweep.progress import Best, Progress, Row, spark

if TYPE_CHECKING:
    import optuna
    from rich.console import Console, RenderableType

_RISK_EVERY_S = 5.0  # the risk is re-read at most this often
_RECENT = 6  # finished trials on the screen


class View(Protocol):
    """Shows a sweep; called by the launcher only."""

    def start(self) -> None:
        """Open."""
        ...

    def update(self, progress: Progress, study: optuna.Study) -> None:
        """Show the sweep as it stands; once a second."""
        ...

    def event(self, text: str) -> None:
        """Something a person should know."""
        ...

    def stop(self) -> None:
        """Close."""
        ...


class Silent:
    """Shows nothing; for experiments and tests."""

    def start(self) -> None:
        """Nothing."""

    def update(self, progress: Progress, study: optuna.Study) -> None:
        """Nothing."""

    def event(self, text: str) -> None:
        """Nothing."""

    def stop(self) -> None:
        """Nothing."""


def make_view(sweep: SweepFile, folder: RunFolder) -> View:
    """The rich view on a terminal, plain lines elsewhere."""
    from rich.console import Console

    console = Console(highlight=False)  # honours NO_COLOR and TERM=dumb
    if console.is_terminal and not console.is_dumb_terminal:
        return RichView(sweep, folder, console)
    return PlainView(sweep)


def finished_line(row: Row, sweep: SweepFile) -> str:
    """One line for a trial that ended, with its reason.

    `trial 12 stopped at epoch 9, 31 saved: val_loss 0.83; step 9: P(beat) 0.4 %...`
    """
    line = f"trial {row.number} {row.state}"
    if row.state == "stopped":
        line += f" at {sweep.step} {row.spent}, {row.saved} saved"
    if row.last is not None and row.state != "failed":
        line += f": {sweep.metric} {row.last[1]:.4g}"
    return f"{line}; {row.note}" if row.note else line


def say(text: str) -> None:
    """Print a line; whoever has closed the pipe (`lcsearch run ... | head`) misses the rest, and nothing more."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # the rest goes nowhere, the flush at the interpreter's end included
        with suppress(OSError), open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), sys.stdout.fileno())


class PlainView:
    """Short lines, in the order things happen; never a control character."""

    def __init__(self, sweep: SweepFile) -> None:
        self._sweep = sweep
        self._said: set[int] = set()
        self._best: float | None = None
        self._first = True

    def start(self) -> None:
        """The opening line."""
        s = self._sweep
        n = s.backend.workers.n
        text = f"{s.name}: {s.budget.trials} trials of {s.max_steps} {s.step}s, {s.goal} {s.metric}, "
        self._print(f"{text}{n} worker{'s' * (n != 1)}, {s.sampler.kind} sampler, {s.pruner.kind} pruner")

    def update(self, progress: Progress, study: optuna.Study) -> None:
        """A line for each trial that ended since the last call; after a resume, not for those before."""
        ended = [row for row in progress.of("complete", "stopped", "failed") if row.number not in self._said]
        if self._first:
            self._first = False
            if ended:
                self._said.update(row.number for row in ended)
                self._print(f"{len(ended)} trials had ended before")
                return
        ended.sort(key=lambda row: (row.ended is not None, row.ended, row.number))
        for row in ended:
            self._said.add(row.number)
            best = progress.best
            mark = ""
            if best is not None and best.number == row.number and best.value != self._best:
                self._best = best.value
                mark = f" (best so far: {best.value:.4g})"
            self._print(f"[{len(self._said)}/{progress.budget}] {finished_line(row, self._sweep)}{mark}")

    def event(self, text: str) -> None:
        """Something a person should know: a worker died, the sweep drains."""
        self._print(f"! {text}")

    def stop(self) -> None:
        """Nothing."""

    def _print(self, text: str) -> None:
        say(text)


class RichView:
    """A screen that is redrawn in place: best, counts, steps, risk, the running trials, the latest ends."""

    def __init__(self, sweep: SweepFile, folder: RunFolder, console: Console) -> None:
        from rich.live import Live

        self._sweep, self._console = sweep, console
        self._looks = LookTail(folder.decisions)
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._began = time.monotonic()
        self._best: tuple[float, float] | None = None  # (value, when this view first saw it)
        self._risk: float | None = None
        self._risk_at = -_RISK_EVERY_S

    def start(self) -> None:
        """Open the screen."""
        self._live.start()

    def update(self, progress: Progress, study: optuna.Study) -> None:
        """Redraw."""
        now = time.monotonic()
        if progress.best is not None and (self._best is None or self._best[0] != progress.best.value):
            self._best = (progress.best.value, now)
        if now - self._risk_at >= _RISK_EVERY_S:
            self._risk, self._risk_at = risk_now(study), now
        self._live.update(self._draw(progress, now), refresh=True)

    def event(self, text: str) -> None:
        """A line above the screen, which stays."""
        self._console.print(f"! {text}", style="yellow", markup=False)

    def stop(self) -> None:
        """Close the screen; the summary follows."""
        self._live.stop()

    def _draw(self, progress: Progress, now: float) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        s, counts = self._sweep, progress.counts
        done = sum(counts.get(state, 0) for state in ("complete", "stopped", "failed"))
        head = f"{s.name}  {done}/{progress.budget} trials  {clock(now - self._began)}  "
        head += "  ".join(f"{n} {state}" for state, n in sorted(counts.items()))
        steps = f"{s.step}s: {progress.spent} spent, {progress.saved} saved"
        if progress.spent + progress.saved:
            steps += f" ({progress.saved / (progress.spent + progress.saved):.0%})"
        if self._risk is not None:
            steps += f"   risk that a stop lost the winner: {self._risk:.1%} (uncalibrated)"
        best = "best: none yet"
        if progress.best is not None and self._best is not None:
            best = f"best: {best_line(progress.best, s)}, {clock(now - self._best[1])} ago"
        lines = [Text(head, style="bold"), Text(best, style="green"), Text(steps)]
        looks = self._looks.line()
        if looks is not None:
            lines.append(Text(looks, style="dim"))
        return Group(*lines, self._running(progress), *self._recent(progress))

    def _running(self, progress: Progress) -> RenderableType:
        from rich.table import Table

        looks = self._looks.latest()
        table = Table(box=None, pad_edge=False, header_style="dim")
        for title in ("trial", "worker", self._sweep.step, self._sweep.metric, "P(beat)", "curve"):
            table.add_column(title, justify="left" if title == "curve" else "right")
        for row in progress.of("running", "waiting"):
            step, value = row.last or ("-", float("nan"))
            p = f"{looks[row.number][1]:.1%}" if row.number in looks else "-"
            slot = "-" if row.slot is None or row.state == "waiting" else str(row.slot)
            shown = f"{value:.4g}" if row.last else "-"
            curve = spark(list(row.values.values()))
            if row.number in progress.silent:
                curve += f" stalled: no report for {clock(progress.silent[row.number])}"
            table.add_row(str(row.number), slot, str(step), shown, p, curve)
        return table

    def _recent(self, progress: Progress) -> list[Any]:
        from rich.text import Text

        ended = progress.of("complete", "stopped", "failed")
        ended.sort(key=lambda row: (row.ended is not None, row.ended, row.number))
        styles = {"complete": "green", "stopped": "dim", "failed": "red"}
        return [
            Text(finished_line(row, self._sweep), style=styles[row.state], overflow="ellipsis", no_wrap=True)
            for row in ended[-_RECENT:]
        ]


def best_line(best: Best, sweep: SweepFile) -> str:
    """`val_loss 0.0712 (trial 12, epoch 38)`."""
    return f"{sweep.metric} {best.value:.6g} (trial {best.number}, {sweep.step} {best.step})"


def risk_now(study: optuna.Study) -> float | None:
    """The risk by the curve pruner's ledger; None for other pruners, or when it cannot be worked out now."""
    report = getattr(study.pruner, "report", None)
    if report is None:
        return None
    try:
        risk = report(study).risk
        return None if risk is None else float(risk)
    except Exception:  # a number on a screen must not end a sweep; the summary says when it is missing
        return None


def clock(seconds: float) -> str:
    """`7 s`, `3 min 07 s`, `2 h 05 min`."""
    s = int(seconds)
    if s < 60:
        return f"{s} s"
    return f"{s // 60} min {s % 60:02d} s" if s < 3600 else f"{s // 3600} h {s % 3600 // 60:02d} min"
