"""Where a sweep file's `module:function` stands."""

from __future__ import annotations

from pathlib import Path


def locate(spec: str, folder: Path) -> tuple[Path, str]:
    """`"pkg.module:function"` -> (folder/pkg/module.py, "function")."""
    module, _, function = spec.partition(":")
    return folder.joinpath(*module.split(".")).with_suffix(".py"), function
