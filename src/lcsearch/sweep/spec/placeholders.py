"""What a command may name in braces."""

from __future__ import annotations

import string

OFFERED = ("max_steps", "seed", "number", "device", "checkpoint_dir")
"""What a placeholder may name besides a parameter; a parameter of that name comes first."""


def placeholders(text: str) -> list[str]:
    """The names in `{...}`; `{{` and `}}` are braces.

    Raises:
        ValueError: the braces do not match.
    """
    found: list[str] = []
    for _, name, spec, _ in string.Formatter().parse(text):
        if name is not None:
            found += [name, *placeholders(spec or "")]  # `{lr:.{digits}f}` has two
    return found
