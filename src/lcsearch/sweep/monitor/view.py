"""What a sweep is shown by, as the launcher knows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from lcsearch.sweep.monitor.progress import Progress

if TYPE_CHECKING:
    import optuna


class View(Protocol):
    """Shows a sweep; called by the launcher only."""

    def start(self) -> None:
        """Open."""
        ...

    def update(self, progress: Progress, study: optuna.Study) -> None:
        """Show the sweep as it stands; once a second."""
        ...

    def event(self, text: str, **facts: object) -> None:
        """Something a person should know; `facts` say the same to a program (see views/json_lines.py)."""
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

    def event(self, text: str, **facts: object) -> None:
        """Nothing."""

    def stop(self) -> None:
        """Nothing."""
