"""What lcsearch keeps with a trial and with its study, read back.

Storages are merged, edited by hand and damaged: what is not as it was written counts as not there, and
:func:`unreadable` tells of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from optuna.trial import FrozenTrial

from lcsearch.errors import is_finite_number

Attributes = Mapping[str, Any]

WORKER = "lcsearch:worker"
"""Who has a trial, or had it last, see :func:`signature`."""


def count(attributes: Attributes, key: str) -> int:
    """How often something happened; 0 where nothing says so."""
    return int(attributes[key]) if _is_count(attributes.get(key)) else 0


def number(attributes: Attributes, key: str) -> int | None:
    """The number of a trial; None where nothing says so."""
    return int(attributes[key]) if _is_count(attributes.get(key)) else None


def seconds(attributes: Attributes, key: str) -> float:
    """Seconds; 0 where nothing says so."""
    return float(attributes[key]) if _is_seconds(attributes.get(key)) else 0.0


def signature(attributes: Attributes, key: str) -> dict[str, Any]:
    """Who signed: some of `pid`, `slot`, `host`, `run` and `since`, an ISO time; empty where nobody did."""
    value = attributes.get(key)
    return dict(value) if isinstance(value, dict) and _is_signature(value) else {}


def took(attributes: Attributes, key: str) -> dict[str, Any] | None:
    """What a worker measured: `seconds` since `since`, and more; None where none did."""
    value = attributes.get(key)
    return dict(value) if isinstance(value, dict) and _is_took(value) else None


def noted(attributes: Attributes, key: str) -> dict[str, tuple[float, ...]]:
    """What was odd about a trial's reports, kind -> numbers; what is no number there is left out."""
    found, stored = {}, attributes.get(key)
    for kind, numbers in stored.items() if isinstance(stored, Mapping) else ():
        if isinstance(numbers, list) and numbers and all(isinstance(n, int | float) for n in numbers):
            with suppress(OverflowError):  # an int beyond every float
                found[str(kind)] = tuple(map(float, numbers))
    return found


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31


def _is_seconds(value: object) -> bool:
    return is_finite_number(value) and float(value) >= 0  # type: ignore[arg-type]  # it is a number


def _is_signature(value: object) -> bool:
    if value is None:  # by an earlier lcsearch: its worker is gone
        return True
    if not isinstance(value, dict):
        return False
    numbers = all(value.get(name) is None or _is_count(value[name]) for name in ("pid", "slot"))
    return numbers and all(isinstance(value.get(name, ""), str) for name in ("host", "run")) and _is_since(value)


def _is_since(value: Mapping[str, Any]) -> bool:
    since = value.get("since")
    try:
        return since is None or datetime.fromisoformat(since) is not None
    except (ValueError, TypeError):
        return False


def _is_took(value: object) -> bool:
    return isinstance(value, dict) and _is_seconds(value.get("seconds")) and _is_since(value)


KINDS: Mapping[str, Callable[[object], bool]] = {
    WORKER: _is_signature,
    "lcsearch:retries": _is_count,
    "lcsearch:again": _is_count,
    "lcsearch:trained": _is_count,
    "lcsearch:overtaken": _is_count,
    "lcsearch:seconds": _is_seconds,
    "lcsearch:took": _is_took,
}
"""Attribute of a trial -> is it as it was written?"""


def unreadable(trials: Iterable[FrozenTrial]) -> list[str]:
    """Every attribute of `trials` that is not as it was written, as `KEY of trial N`."""
    return [
        f"{key} of trial {trial.number}"
        for trial in trials
        for key, fine in KINDS.items()
        if key in trial.user_attrs and not fine(trial.user_attrs[key])
    ]
