"""What is shown while a sweep runs: a screen on a terminal, one plain line an event elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from lcsearch.allocation.receipt import AllocationReceipt
from lcsearch.sweep.monitor.decision_tail import DecisionLogTail
from lcsearch.sweep.monitor.progress import Progress, Row
from lcsearch.sweep.monitor.state import ENDED
from lcsearch.sweep.monitor.view import View
from lcsearch.sweep.spec.model import SweepFile
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.views.phrases import finished_line, legend
from lcsearch.terminal import say

if TYPE_CHECKING:
    import optuna


def make_view(sweep: SweepFile, folder: RunFolder) -> View:
    """The screen on a terminal, plain lines elsewhere."""
    from rich.console import Console

    console = Console(highlight=False)  # honours NO_COLOR and TERM=dumb
    if console.is_terminal and not console.is_dumb_terminal:
        from lcsearch.sweep.views.screen import RichView

        return RichView(sweep, folder, console)
    return PlainView(sweep, folder=folder)


class PlainView:
    """Short lines, in the order things happen; never a control character.

    Args:
        folder: whose decision log tells of turns, where the sweep pauses trials; None: they are not told.
    """

    def __init__(self, sweep: SweepFile, stream: TextIO | None = None, *, folder: RunFolder | None = None) -> None:
        self._sweep, self._stream = sweep, stream
        self._resumed: list[tuple[int, list[str]]] = []  # allocations that are to be told: their numbers, and lines
        told = None if folder is None or not sweep.pause else folder.decisions
        self._turns = None if told is None else DecisionLogTail(told, heard=self._hear)
        self._said: set[int] = set()
        self._best: float | None = None
        self._first = True

    def start(self) -> None:
        """The opening line."""
        s = self._sweep
        n = s.backend.workers.n
        turns = "" if s.turns is None else f", {s.turns.kind} allocator"
        if self._turns is not None:
            self._turns.latest()
            self._resumed.clear()  # those of earlier launches
        text = f"{s.name}: {s.budget.trials} trials of {s.max_steps} {s.step}s, {s.goal} {s.metric}, "
        self._print(f"{text}{n} worker{'s' * (n != 1)}, {s.sampler.kind} sampler, {s.pruner.kind} pruner{turns}")
        if explained := legend(s):
            self._print(explained)

    def update(self, progress: Progress, study: optuna.Study) -> None:
        """A line for each trial that ended or got a turn since the last call; after a resume, not for those before."""
        self._tell_turns()
        ended = [row for row in progress.of(*ENDED, "thawed") if row.number not in self._said]
        ended.sort(key=lambda row: (row.ended is not None, row.ended, row.number))
        before, self._first = self._first, False
        for row in ended:
            self._said.add(row.number)
            new = self._new(row, progress)
            if not before:
                line = finished_line(row, self._sweep, new=new)
                self._print(f"[{self._counted(row, progress)}] {line}")
        if before and ended:
            again = sum(row.again is not None for row in ended)
            n, failed = len(ended) - again, f", {again} more that failed {'is' if again == 1 else 'are'} run again"
            self._print(f"{n} trial{'s' * (n != 1)} had ended before{failed * (again > 0)}")

    def _counted(self, row: Row, progress: Progress) -> str:
        """How many trials have ended; of thawed ones, which stand in the place of others, how many of these."""
        if row.thawed is not None:
            return f"thawed {sum(other.thawed is not None for other in progress.rows if other.number in self._said)}"
        n = sum(other.done for other in progress.rows if other.number in self._said)
        return f"{n}/{progress.budget}"

    def _tell_turns(self) -> None:
        """Which paused trials were given a turn, and why; new ones are not told: they come one after the other."""
        if self._turns is None:
            return
        self._turns.latest()
        for _, lines in sorted(self._resumed, key=lambda one: one[0]):
            for line in lines:
                self._print(f"turn: {line}")
        self._resumed.clear()

    def _hear(self, made: AllocationReceipt) -> None:
        if any(move.uid is not None for move in made.moves):
            self._resumed.append((made.number, made.told(self._sweep.step, cuts=False)))

    def _new(self, row: Row, progress: Progress) -> str:
        """ "best" where it is the best of the complete trials, "incumbent" where a stopped one was better still."""
        goal = self._sweep.target
        reached = row.reached(goal) if row.state == "complete" else None
        if reached is None or (self._best is not None and goal.sign * reached[0] >= goal.sign * self._best):
            return ""
        self._best = reached[0]
        others = [other.reached(goal) for other in progress.of("stopped")] if goal.judged == "best" else []
        beaten = any(other is not None and goal.sign * other[0] < goal.sign * reached[0] for other in others)
        return "incumbent" if beaten else "best"

    def event(self, text: str, **facts: object) -> None:
        """Something a person should know: a worker died, the sweep drains."""
        self._print(f"! {text}")

    def stop(self) -> None:
        """Nothing."""

    def _print(self, text: str) -> None:
        say(text, self._stream)
