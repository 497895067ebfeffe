"""The screen of a running sweep: its state laid out for the terminal's width, height and letters, redrawn in place."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lcsearch.session.study_report import COUNTED, about
from lcsearch.stopping.decision import percent
from lcsearch.sweep.monitor.progress import Progress, Row
from lcsearch.sweep.monitor.state import ENDED, StateReader, SweepState
from lcsearch.sweep.spec.model import SweepFile
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.views.phrases import (
    clock,
    gain_told,
    latency_told,
    legend,
    money,
    place,
    risk_told,
    turns_told,
    worker_time,
)
from lcsearch.sweep.views.sparkline import spark
from lcsearch.terminal import fit, safe

if TYPE_CHECKING:
    import optuna
    from rich.console import Console, RenderableType

_TURNS = 3  # the latest ones that are named
_RECENT = 6  # trials that ended, on the screen
_ROOMY = 100  # columns from which on a line is spared for what the summary says too
_LABEL = 14  # columns of a table's heading at most
_CURVE = 60  # columns of a sparkline at most
_GAP = "  "
_ORDER = ("complete", "stopped", "thawed", "failed", "running", "paused", "waiting")
_STYLES = {"complete": "green", "stopped": "dim", "failed": "red"}


@dataclass(frozen=True)
class ScreenLine:
    """One line of the screen and its style."""

    text: str
    style: str = ""


def layout(state: SweepState, width: int, height: int | None) -> list[ScreenLine]:
    """The state in lines of at most `width` columns, at most `height` of them (None: as many as there are)."""
    sweep, width = state.sweep, max(width, 1)
    head = _head(state, width)
    if height is not None:
        height = max(height, 1)
        head = head[: max(1, height - 3)] if state.progress.rows else head[:height]
    room = None if height is None else height - len(head)
    running = state.progress.of("running", "waiting")
    ended = state.progress.of(*ENDED)
    # the latest last while it goes on, the best first when all is over
    ended.sort(key=lambda row: (row.ended is not None, row.ended, row.number))
    over = room is None and not running
    if over:
        ended.sort(key=lambda row: _place(row, sweep), reverse=True)
    if room is None:
        n_running, n_ended, air = len(running), min(_RECENT, len(ended)), 1
    else:
        air = int(room >= 8)
        n_running, n_ended = _shares(room - 2 * air, len(running), len(ended))
    lines = list(head)
    shown = ended[len(ended) - n_ended :]
    below = _ended(shown[::-1] if over else shown, sweep)
    if over and len(ended) > n_ended:
        these = "; these are the best" if any(row.state != "failed" for row in ended) else ""
        below.append(ScreenLine(f"and {len(ended) - n_ended} more{these}", "dim"))
    for table in (_running(running, n_running, state, width), below):
        cut = [ScreenLine(fit(line.text, width), line.style) for line in table]
        lines += [ScreenLine("")] * air + cut if cut else []
    return lines if height is None else lines[:height]


def _place(row: Row, sweep: SweepFile) -> tuple[bool, float, int]:
    """By the judged value; what failed counts for nothing."""
    reached = row.reached(sweep.target)
    if row.state == "failed" or reached is None:
        return True, 0.0, row.number
    return False, sweep.target.sign * reached[0], row.number


def _shares(room: int, running: int, ended: int) -> tuple[int, int]:
    """How many running trials and ended ones are shown in `room` lines, each table with its heading."""
    least = 0 if not ended or room < 4 else min(ended, 3 if room >= 10 else 1)
    for_running = min(running + 1, room - (least + 1 if least else 0)) if running else 0
    n_running = for_running - 1 if for_running >= 2 else 0
    rest = room - (n_running + 1 if n_running else 0)
    return n_running, max(0, min(_RECENT, ended, rest - 1))


def _head(state: SweepState, width: int) -> list[ScreenLine]:
    p, sweep = state.progress, state.sweep
    done = sum(row.done for row in p.rows)
    first = [sweep.name, f"{done}/{p.budget} trials"]
    if state.left is not None:
        first.append(f"about {clock(state.left)} left")
    counts = [f"{p.counts[fate]} {fate}" for fate in _ORDER if p.counts.get(fate)]
    best = ["best: none yet"]
    if p.best is not None:
        short = fit(sweep.metric, max(_LABEL, width // 3))
        age = "" if state.best_age is None else f", {clock(state.best_age)} ago"
        best = [f"best: {short} {p.best.value:.6g}", f"{place(p.best, sweep)}{age}"]
        if p.incumbent is None or p.incumbent.number != p.best.number:  # short: a line that is cut loses its number
            best[0] = f"best so far, {p.best.state}{best[0].removeprefix('best')}"
            told = "none yet" if p.incumbent is None else f"{p.incumbent.value:.6g} {place(p.incumbent, sweep)}"
            best.append(f"incumbent, the best complete: {told}")
    share = "" if state.share_saved is None else f" ({state.share_saved:.0%})"
    of = f" of {sweep.budget.steps}" if sweep.budget.steps is not None else ""
    paid = f" and {p.paid:g} paid for pauses" if p.paid else ""
    spent = [f"{sweep.step}s: {p.spent}{of} spent{paid}, {about(p.saved, str(p.saved))} saved{share}"]
    spent += [COUNTED] if p.saved and width >= _ROOMY else []
    spent += [f"wall clock: {clock(state.wall or 0.0)}", worker_time(p)]
    if state.money is not None:
        saved = state.money[1]
        told = f", {about(saved, money(saved))} saved" if saved is not None else ""
        spent.append(f"money: {money(state.money[0])} spent{told}")
    spent += [told] if (told := gain_told(p, sweep)) else []
    lines = [*_flow(first + counts, width, "bold"), *_flow(best, width, "green", " "), *_flow(spent, width)]
    if sweep.pruner.kind == "curve":
        what = "risk that some stop lost the winner" if width >= _ROOMY else "risk of a lost winner"
        said = f"{what}: {risk_told(state)}".split("; ")
        if state.latency is not None:
            told = f"{latency_told(state.latency)}, {state.n_failed_open} without a forecast"
            said.append(f"looks: {state.n_looks}, {told}")
        lines += _flow(said, width)
    lines += [ScreenLine(fit(text, width)) for text in turns_told(state, _TURNS)]
    return lines


def _flow(pieces: Sequence[str], width: int, style: str = "", gap: str = _GAP) -> list[ScreenLine]:
    """Pieces side by side, as many to a line as fit."""
    from rich.cells import cell_len

    lines: list[str] = []
    for piece in pieces:
        if lines and cell_len(lines[-1]) + len(gap) + cell_len(piece) <= width:
            lines[-1] += gap + piece
        else:
            lines.append(piece)
    return [ScreenLine(fit(line, width), style) for line in lines]


def _running(rows: Sequence[Row], n: int, state: SweepState, width: int) -> list[ScreenLine]:
    """A line for each of the first `n` trials, and what was left out."""
    if not n:
        return []
    left_out = len(rows) - n
    if left_out:
        n, left_out = n - 1, left_out + 1
    looks, sweep = state.looks, state.sweep
    cells = [["trial", "worker", sweep.step, "last", "P(beat)", "age", "curve"]]
    for row in rows[:n]:
        step, value = row.last or (None, 0.0)
        look = looks.get(row.number)
        age = "-" if look is None else f"{max(0.0, (step or 0) - look[0]):g}"
        slot = "-" if row.slot is None or row.state == "waiting" else str(row.slot)
        shown = ("-", "-") if step is None else (f"{step}/{sweep.max_steps}", f"{value:.4g}")
        cells.append([str(row.number), slot, *shown, "-" if look is None else percent(look[1]), age, ""])
    lines = _columns(cells)
    from rich.cells import cell_len

    curve = min(_CURVE, width - cell_len(lines[1])) if len(lines) > 1 else 0
    for at, row in enumerate(rows[:n], start=1):
        lines[at] += spark(list(row.values.values()), curve) if curve > 3 and row.values else ""
        if row.number in state.progress.silent:
            lines[at] += f" stalled: no report for {clock(state.progress.silent[row.number])}"
        elif row.state == "waiting":
            lines[at] += " waits for a worker"
    table = [ScreenLine(lines[0], "dim"), *(ScreenLine(line) for line in lines[1:])]
    return [*table, ScreenLine(f"and {left_out} more", "dim")] if left_out else table


def _ended(rows: Sequence[Row], sweep: SweepFile) -> list[ScreenLine]:
    """The latest ends, each with its reason."""
    if not rows:
        return []
    best = sweep.judged == "best"
    cells = [["trial", "ended", sweep.step, "best" if best else "last", "why"]]
    for row in rows:
        reached = row.reached(sweep.target) if best else row.last and (row.last[1], row.last[0])
        value = f"{reached[0]:.4g}" if reached else "-"
        at_last = row.stop is not None and row.last is not None and row.stop.step == row.last[0]
        why = row.stop.why if row.stop is not None and at_last else row.note
        cells.append([str(row.number), row.state, str(row.spent), value, why])
    lines = _columns(cells)
    return [
        ScreenLine(lines[0], "dim"),
        *(ScreenLine(text, _STYLES[row.state]) for text, row in zip(lines[1:], rows, strict=True)),
    ]


def _columns(cells: Sequence[Sequence[str]]) -> list[str]:
    """Cells under headings, numbers flush right, the last column as it is."""
    from rich.cells import cell_len

    heads = [fit(head, _LABEL) for head in cells[0]]
    table = [heads, *cells[1:]]
    widths = [max(cell_len(row[column]) for row in table) for column in range(len(heads) - 1)]
    return [
        "".join(" " * (wide - cell_len(cell)) + cell + _GAP for cell, wide in zip(row, widths, strict=False)) + row[-1]
        for row in table
    ]


def draw(state: SweepState, console: Console, height: int | None) -> RenderableType:
    """What rich prints."""
    from rich.console import Group
    from rich.text import Text

    lines = layout(state, console.width, height)
    texts = [Text(safe(line.text, console.encoding), style=line.style, no_wrap=True) for line in lines]
    for text in texts:
        text.truncate(console.width)  # escapes and dots are longer than what they stand for
    return Group(*texts)


class RichView:
    """A screen that is redrawn in place. What a person should know stays above it."""

    _NOTICES = 10  # shown again on a screen that was cleared

    def __init__(self, sweep: SweepFile, folder: RunFolder, console: Console) -> None:
        from rich.live import Live

        self._sweep, self._console = sweep, console
        self._reader = StateReader(sweep, folder)
        # sys.stdout is left alone: on Ray the launcher keeps it apart from what Ray prints
        self._live = Live(
            console=console, auto_refresh=False, transient=True, vertical_overflow="crop", redirect_stdout=False
        )
        self._notices: deque[str] = deque(maxlen=self._NOTICES)
        self._size = console.size
        self._gone = False

    def start(self) -> None:
        """Open the screen."""
        self._guarded(self._open)

    def update(self, progress: Progress, study: optuna.Study) -> None:
        """Redraw."""
        if not self._gone:
            state = self._reader.state(progress, study)
            self._guarded(lambda: self._redraw(state))

    def event(self, text: str, **facts: object) -> None:
        """A line above the screen, which stays."""
        self._notices.append(text)
        self._guarded(lambda: self._print(text))

    def stop(self) -> None:
        """Close the screen; the summary follows."""
        self._guarded(self._live.stop)

    def _open(self) -> None:
        if explained := legend(self._sweep):
            self._console.print(safe(explained, self._console.encoding), style="dim", markup=False, highlight=False)
        self._live.start()

    def _print(self, text: str) -> None:
        self._console.print(safe(f"! {text}", self._console.encoding), style="yellow", markup=False, highlight=False)

    def _redraw(self, state: SweepState) -> None:
        size = self._console.size
        resized, self._size = size != self._size, size
        if resized:  # the old frame was folded by the terminal: nobody knows where its lines are now
            self._live.update("", refresh=True)
            self._console.clear()
            for text in self._notices:
                self._print(text)
        self._live.update(draw(state, self._console, size.height - 1), refresh=True)

    def _guarded(self, write: Callable[[], object]) -> None:
        """A terminal that goes away takes the view with it, not the sweep."""
        if self._gone:
            return
        try:
            write()
        except (OSError, ValueError, SystemExit):  # rich leaves with SystemExit when a pipe breaks
            self._gone = True
