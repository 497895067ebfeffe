"""How commands end where something expected goes wrong: one message, and its exit code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from lcsearch.errors import EnvironmentProblem, LcsearchError
from lcsearch.extras import MissingExtra


@contextmanager
def told_plainly() -> Iterator[None]:
    """Expected errors end in one message and their exit code, never in a traceback."""
    try:
        yield
    except LcsearchError as error:
        complain(error)
        missing = isinstance(error, EnvironmentProblem) and not isinstance(error, MissingExtra)
        raise typer.Exit(3 if missing else 2) from None
    except OSError as error:  # a disk that is full, a file that is somebody else's
        said = f"expected files that lcsearch can read and write, got {error.strerror or error}."
        complain(f"{error.filename}: {said}" if error.filename else said)
        raise typer.Exit(3) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def complain(text: object) -> None:
    """Say what went wrong."""
    from lcsearch.terminal import say

    say(str(text), sys.stderr)
