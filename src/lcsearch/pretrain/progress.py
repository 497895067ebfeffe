"""How training is shown: a bar on a terminal, a plain line every so often elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from lcsearch.pretrain.loop import View, shown
from lcsearch.pretrain.recipe import Recipe


def make_view(say: Callable[[str], None]) -> View:
    """The bar if standard error is a terminal; `say` prints a line elsewhere."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    return Bar(console) if console.is_terminal and not console.is_dumb_terminal else Lines(say)


class _Pace:
    """Studies a second and the time left, over the pieces since `begin`."""

    def __init__(self) -> None:
        self._first, self._begun = 0, 0.0
        self._recipe: Recipe | None = None

    def begin(self, recipe: Recipe, step: int) -> None:
        self._recipe, self._first, self._begun = recipe, step, time.monotonic()

    def text(self, step: int) -> str:
        """ "812 studies/s, 1 h 02 min left"."""
        recipe, passed = self._recipe, time.monotonic() - self._begun
        if recipe is None or step <= self._first or passed <= 0:
            return ""
        pace = (step - self._first) / passed
        return f"{pace * recipe.batch:.3g} studies/s, {duration((recipe.steps - step) / pace)} left"


def opening(recipe: Recipe, step: int, parameters: int, device: str) -> str:
    """The first line."""
    start = f"goes on after step {step} of {recipe.steps}" if step else f"{recipe.steps} steps"
    return f"{recipe.name}: {start} of {recipe.batch} studies, {parameters:,} weights, on {device}"


class Lines:
    """A line at most every `every` seconds, and one for the last step."""

    def __init__(self, say: Callable[[str], None], every: float = 10.0) -> None:
        self._say, self._every, self._pace = say, every, _Pace()
        self._due, self._steps = 0.0, 0

    def begin(self, recipe: Recipe, step: int, parameters: int, device: str) -> None:
        """The opening line."""
        self._pace.begin(recipe, step)
        self._due, self._steps = time.monotonic() + self._every / 4, recipe.steps
        self._say(opening(recipe, step, parameters, device))

    def step(self, step: int, loss: float, smooth: Mapping[str, float]) -> None:
        """A line when it is time for one."""
        now = time.monotonic()
        if now >= self._due or step == self._steps:
            self._due = now + self._every
            self._say(f"step {step}/{self._steps}: {shown(smooth)}; {self._pace.text(step)}")

    def tell(self, text: str) -> None:
        """A line of its own."""
        self._say(text)

    def end(self) -> None:
        """Nothing."""


class Bar:
    """rich's progress bar."""

    def __init__(self, console: Any) -> None:
        self._console, self._pace = console, _Pace()
        self._progress: Any = None
        self._task: Any = None

    def begin(self, recipe: Recipe, step: int, parameters: int, device: str) -> None:
        """Open the bar."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._pace.begin(recipe, step)
        self.tell(opening(recipe, step, parameters, device))
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
        self._progress = Progress(*columns, console=self._console, refresh_per_second=4)
        self._task = self._progress.add_task("", total=recipe.steps, completed=step)
        self._progress.start()

    def step(self, step: int, loss: float, smooth: Mapping[str, float]) -> None:
        """Move it."""
        self._progress.update(self._task, completed=step, description=f"{shown(smooth)}; {self._pace.text(step)}")

    def tell(self, text: str) -> None:
        """A line above the bar."""
        self._console.print(text, markup=False, highlight=False)

    def end(self) -> None:
        """Close it."""
        self._progress.stop()


def duration(seconds: float) -> str:
    """As people say it.

    >>> duration(42), duration(185), duration(3725)
    ('42 s', '3 min', '1 h 02 min')
    """
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
