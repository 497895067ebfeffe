"""The decision log: a folder with one append-only JSONL file per writer, merged on read.

A line is checked when it is read (:func:`record_of`), and nowhere else: what is no record is left out, and its place
is noted. Each has its number in its file, so that lines which are missing are known by those that follow
(:func:`lines_missing`).
"""

from __future__ import annotations

import json
import os
import socket
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from lcsearch import files
from lcsearch.allocation.receipt import AllocationReceipt
from lcsearch.errors import InvalidValue, is_finite_number
from lcsearch.stopping.decision import Receipt

_LINE = "line"  # of a record: its number in its file, from 1
_MANY = 10**12  # lines: no file has more


class Sink(Protocol):
    """Takes receipts; may raise, the session counts that and goes on."""

    def write(self, receipt: Receipt) -> None:
        """Keep one receipt."""
        ...


class DecisionLog:
    """Appends receipts to `folder/<host>-<pid>-<random>.jsonl`, one line each, written whole and flushed.

    The file is opened at the first receipt and again after a fork or an unpickling, so that no two processes ever
    share a writer.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._lock = threading.Lock()
        self._path: Path | None = None
        self._pid, self._written = -1, 0

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"])  # type: ignore[misc]  # a fresh lock and file in the new process

    def write(self, receipt: Receipt) -> None:
        """Append one line.

        Raises:
            OSError: the folder cannot be made or written.
        """
        self.append(receipt.to_record())

    def append(self, record: dict[str, Any]) -> None:
        """Append one line that stands as a record already."""
        with self._lock:
            if self._path is None or self._pid != os.getpid():
                self.folder.mkdir(parents=True, exist_ok=True)
                self._pid, self._written = os.getpid(), 0
                name = f"{socket.gethostname()}-{self._pid}-{uuid.uuid4().hex[:8]}.jsonl"
                self._path = self.folder / name
            self._written += 1  # also where it cannot be written: then it is missing
            line = json.dumps({**record, _LINE: self._written}, separators=(",", ":"), default=str) + "\n"
            with files.append(self._path) as file:
                file.write(line.encode())


def read_log(folder: str | os.PathLike[str], left_out: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Records of all writers in time order. A torn last line (a writer was killed) is passed over.

    Args:
        folder: the decision log.
        left_out: takes the place (`FILE:LINE`, or `FILE`) of everything that could not be read.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    yield from (found for found in _read(folder, left_out) if not isinstance(found, AllocationReceipt))


def read_allocations(folder: str | os.PathLike[str], left_out: list[str] | None = None) -> Iterator[AllocationReceipt]:
    """Receipts of allocations by all writers in time order; arguments and errors as of :func:`read_log`."""
    yield from (found for found in _read(folder, left_out) if isinstance(found, AllocationReceipt))


def _read(folder: str | os.PathLike[str], left_out: list[str] | None) -> Iterator[dict[str, Any] | AllocationReceipt]:
    yield from (record if receipt is None else receipt for record, receipt in read_entries(folder, left_out))


def read_entries(
    folder: str | os.PathLike[str], left_out: list[str] | None = None
) -> Iterator[tuple[dict[str, Any], AllocationReceipt | None]]:
    """Every line of all writers in time order, of an allocation with its receipt; arguments and errors as of
    :func:`read_log`."""
    found: list[tuple[float, dict[str, Any], AllocationReceipt | None]] = []
    left_out = [] if left_out is None else left_out
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"expected a decision log folder, got {str(root)!r}, which is no folder")
    for path in sorted(root.glob("*.jsonl")):
        try:
            for number, (_, line) in enumerate(files.lines(path), start=1):
                entry = _entry(line)
                if entry is not None:
                    found.append(entry)
                elif line.endswith(b"\n") and line.strip():
                    left_out.append(f"{path}:{number}")
        except OSError:
            left_out.append(str(path))
    yield from (entry[1:] for entry in sorted(found, key=lambda one: one[0]))


def left_out_words(places: Sequence[str]) -> str:
    """What to say of places that could not be read."""
    n = len(places)
    what = f"{n} places of the decision log are" if n > 1 else "a place of the decision log is"
    return f"{what} no record of a look and left out, the first: {places[0]}"


def lines_missing(line: bytes, number: int) -> int:
    """How many lines are missing in a file before `line`, its `number`-th now; 0 where that is not known."""
    try:
        written = files.loads(line)[_LINE]
    except (ValueError, TypeError, KeyError):
        return 0
    return max(0, written - number) if isinstance(written, int) and written < _MANY else 0


def lines_gone(folder: str | os.PathLike[str]) -> int:
    """How many lines of a log are seen to be gone, taken out or never written; its last ones, or a whole file, may be,
    and nobody sees it. Files that cannot be read are passed over.
    """
    gone = 0
    for path in Path(folder).glob("*.jsonl"):
        last, number = b"", 0
        with suppress(OSError):
            for number, (_, line) in enumerate(files.lines(path), start=1):
                if not line.endswith(b"\n"):
                    number -= 1
                    break
                last = line
            gone += lines_missing(last, number)
    return gone


def entry_of(line: bytes) -> tuple[float, dict[str, Any] | AllocationReceipt] | None:
    """When a line was written, and the record of a look or the receipt of an allocation; None: it is neither."""
    entry = _entry(line)
    return None if entry is None else (entry[0], entry[1] if entry[2] is None else entry[2])


def _entry(line: bytes) -> tuple[float, dict[str, Any], AllocationReceipt | None] | None:
    try:
        record = files.loads(line)
    except ValueError:
        return None
    if not isinstance(record, dict):
        return None
    if "allocation" in record:
        try:
            return float(record.get("time") or 0.0), record, AllocationReceipt.from_record(record)
        except (InvalidValue, TypeError, ValueError):
            return None
    found = _look_record(record)
    return None if found is None else (float(found.get("time") or 0.0), found, None)


def record_of(line: bytes) -> dict[str, Any] | None:
    """One line as :meth:`Receipt.to_record` has it for a look; None: it is none."""
    entry = entry_of(line)
    return None if entry is None or isinstance(entry[1], AllocationReceipt) else entry[1]


def _look_record(record: dict[str, Any]) -> dict[str, Any] | None:
    """The record, when its entries are of the kinds that readers rely on."""
    if not isinstance(record.get("trial"), str | int):
        return None
    fine = _numbers(record, "step", "time", "latency") and _texts(record, "study", "verdict", "reason", "detail")
    fine = fine and (record.get("latency") or 0) >= 0
    looks = (record.get(name) for name in ("now", "before"))
    fine = fine and all(look is None or _is_look(look) for look in looks)
    for name, numbers in (("incumbent", ("value", "step")), ("standing", ("rank", "n"))):
        entry = record.get(name)
        fine = fine and (entry is None or (isinstance(entry, dict) and _numbers(entry, *numbers, needed=True)))
    return record if fine else None


def _is_look(look: object) -> bool:
    if not isinstance(look, dict) or not _numbers(look, "step", needed=True) or not _numbers(look, "p", "threshold"):
        return False
    if not all(0 <= (look.get(name) or 0) <= 1 for name in ("p", "threshold")):
        return False
    interval = look.get("interval")
    inside = interval is None or (isinstance(interval, list) and len(interval) == 3 and all(map(_is_float, interval)))
    return inside and isinstance(look.get("heard", {}), dict)


def _numbers(entries: Mapping[str, Any], *names: str, needed: bool = False) -> bool:
    """Are these finite numbers, as far as they are there?"""
    told = (entries.get(name) for name in names)
    return all(is_finite_number(value) or (value is None and not needed) for value in told)


def _is_float(value: object) -> bool:
    """A number, or infinity: a forecast may have no end."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _texts(entries: Mapping[str, Any], *names: str) -> bool:
    return all(isinstance(entries.get(name, ""), str) for name in names)
