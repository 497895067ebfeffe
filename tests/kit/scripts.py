"""Experiments as modules."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def neighbour(folder: str, name: str) -> Any:
    """`experiments/<folder>/<name>.py`, or what experiments share, under its own name, as scripts find each other."""
    if name in sys.modules:
        return sys.modules[name]
    path = EXPERIMENTS / folder / f"{name}.py"
    return _module(name, path if path.is_file() else EXPERIMENTS / f"{name}.py")


def script(path: str) -> Any:
    """`experiments/<path>`, read anew: what a test changes in it is of that test only."""
    return _module(path.removesuffix(".py").replace("/", "_"), EXPERIMENTS / path)


def _module(name: str, path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)  # dataclasses look there
    spec.loader.exec_module(module)
    return module
