"""Packages that `pip install lcsearch` does not bring: where they are missing, one sentence says so."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from lcsearch.errors import EnvironmentProblem

SWEEP = ("typer", "rich", "pydantic", "ruamel.yaml", "matplotlib", "sklearn")
"""What the command line, sweep files, reports and training recipes are made with: the extra `sweep`."""
RAY = ("ray",)
"""What the scheduler for Ray Tune is made with: the extra `ray`. (A Ray without Tune's own packages says so itself.)"""

SERVE = ("starlette", "uvicorn", "httptools")
"""What the host of the model is reached by over HTTP: the extra `serve`."""


class MissingExtra(EnvironmentProblem, ImportError):
    """A part of lcsearch was imported whose packages are not installed; the command line exits with 2."""


def need_sweep(part: str) -> None:
    """Nothing, where the packages of the extra `sweep` are there.

    Args:
        part: what needs them, for the message.

    Raises:
        MissingExtra: one is not.
    """
    _need(part, "sweep", SWEEP)


def need_ray(part: str) -> None:
    """As :func:`need_sweep`, of the extra `ray`."""
    _need(part, "ray", RAY)


def need_serve(part: str) -> None:
    """As :func:`need_sweep`, of the extra `serve`."""
    _need(part, "serve", SERVE)


def are_there(packages: Sequence[str]) -> bool:
    """Whether all of them are installed."""
    return all(map(_is_there, packages))


def _need(part: str, extra: str, packages: Sequence[str]) -> None:
    missing = [name for name in packages if not _is_there(name)]
    if missing:
        text = f"{part}: expected the packages of the extra '{extra}', got no {', no '.join(missing)}."
        raise MissingExtra(f"{text} Install them: pip install 'lcsearch[{extra}]'")


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):  # its parent is missing, or refused
        return False
