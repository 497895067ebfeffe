"""What a worker tells of itself, one JSON object a line, beside the log that it and its trials print for people.

======= =============================================================================
event   keys beside `event`
======= =============================================================================
begins  `trial` (its number), `adopted`, `at`: bytes of the log before what it prints
ended   `trial`, `state` (of the trial, as Optuna calls it), `at`: bytes of the log by then
problem `text`: why the worker cannot work, for people; it exits with a code of its own
======= =============================================================================
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lcsearch import files

BEGINS, ENDED, PROBLEM = "begins", "ended", "problem"


class Teller:
    """Appends records to the file at `path`; where that cannot be written, the worker works all the same."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def begins(self, trial: int, *, adopted: bool) -> None:
        """The worker has taken a trial."""
        print(f"trial {trial} {'adopted' if adopted else 'begins'}", flush=True)
        self._write(BEGINS, trial=trial, adopted=adopted, at=_printed())

    def ended(self, trial: int, state: str) -> None:
        """The trial is over, or left to be adopted."""
        self._write(ENDED, trial=trial, state=state, at=_printed())
        print(f"trial {trial}: {state}", flush=True)

    def problem(self, text: str) -> None:
        """The worker cannot work."""
        print(f"PROBLEM: {text}", flush=True)
        self._write(PROBLEM, text=text)

    def _write(self, event: str, **facts: object) -> None:
        with contextlib.suppress(OSError), files.append(self._path) as file:
            file.write((json.dumps({"event": event, **facts}) + "\n").encode())


def _printed() -> int | None:
    """Bytes of the log so far; None where this process prints to no file."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        known = os.fstat(1)
        if stat.S_ISREG(known.st_mode):
            return known.st_size
    return None


def told(path: Path, begin: int = 0) -> Iterator[dict[str, Any]]:
    """The records from byte `begin` on, as far as they can be read."""
    with contextlib.suppress(OSError):
        for _, line in files.lines(path, begin):
            with contextlib.suppress(ValueError):  # torn: its writer was killed over it
                record = files.loads(line)
                if isinstance(record, dict) and _is_whole(record):
                    yield record


def _is_whole(record: dict[str, Any]) -> bool:
    return record.get("event") in (BEGINS, ENDED) or (record.get("event") == PROBLEM and "text" in record)


def last_lines(log: Path, records: Path, trial: int, most: int) -> list[str]:
    """The end of what a trial printed in its last life.

    Args:
        log: what its worker and all its trials printed.
        records: what the worker told.
        trial: its number.
        most: lines.

    Raises:
        OSError: the log cannot be read.
    """
    begin: int | None = None
    end: int | None = None
    for record in told(records):
        at = record.get("at")
        if record.get("event") == BEGINS and record.get("trial") == trial and isinstance(at, int):
            begin, end = at, None
        elif begin is not None and end is None and isinstance(at, int):
            end = at
    if begin is None:
        return _of_earlier(log, trial, most)
    return tail(log, most, begin, end)


def tail(log: Path, most: int, begin: int = 0, end: int | None = None) -> list[str]:
    """The last lines of a log, of those between two bytes of it.

    Raises:
        OSError: it cannot be read.
    """
    found = deque[str](maxlen=most)
    for after, line in files.lines(log, begin):
        if end is not None and after > end:  # a last line without an end
            found.extend([_text(line[: end - after])] * (len(line) > after - end))
            break
        found.append(_text(line))
    return list(found)


_SAID = re.compile(r"trial (\d{1,9})(?: begins$| adopted$|: [A-Z]+$)")


def _of_earlier(log: Path, trial: int, most: int) -> list[str]:
    """An earlier lcsearch told of its trials in the log alone."""
    mine, found = False, deque[str](maxlen=most)
    for _, raw in files.lines(log):
        line = _text(raw)
        if said := _SAID.match(line):
            mine = int(said[1]) == trial and ":" not in said[0]
            if mine:
                found.clear()
        elif mine:
            found.append(line)
    return list(found)


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace").rstrip()
