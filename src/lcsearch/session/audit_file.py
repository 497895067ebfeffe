"""The audits of many studies in one small file, JSON, written whole; LCSEARCH_AUDIT says where it lies.

What is damaged is moved aside under another name and told, never written over.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from pathlib import Path

from lcsearch import files
from lcsearch.errors import InvalidValue
from lcsearch.stopping.audit import Audit

PLACE = "LCSEARCH_AUDIT"
"""Environment variable: the file in which audits of all studies are kept; unset: none but a study's own are known."""
VERSION = 1
_MOST = 1 << 24  # bytes


def place() -> Path | None:
    """The file that the environment names."""
    said = os.environ.get(PLACE)
    return Path(said).expanduser() if said else None


def load(path: Path) -> tuple[tuple[Audit, ...], str]:
    """The audits that a file holds, in the order in which they became known, and what is wrong with it, "" for nothing.

    Of a damaged file nothing is used: an audit that is missing would make a promise look better than it is.
    """
    try:
        return _read(path)
    except OSError as error:
        return (), f"{path}: expected the audits of earlier studies, got {error.strerror or error}"


def _read(path: Path) -> tuple[tuple[Audit, ...], str]:
    """As :func:`load`.

    Raises:
        OSError: the file is there, and cannot be read now.
    """
    try:
        data = files.read(path, _MOST)
    except FileNotFoundError:
        return (), ""
    try:
        kept = files.loads(data)
        if isinstance(kept, dict) and isinstance(version := kept.get("version"), int) and version > VERSION:
            raise OSError(errno.EPERM, f"version {version} of a later lcsearch, of which this one adds nothing")
        if not isinstance(kept, dict) or kept.get("version") != VERSION or not isinstance(kept.get("audits"), list):
            raise InvalidValue(f"audits of version {VERSION}", str(kept)[:80], str(path))
        return tuple(Audit.from_record(record) for record in kept["audits"]), ""
    except ValueError as error:  # InvalidValue is one
        return (), f"{path}: expected the audits of earlier studies, got a damaged file ({error})"


def keep(path: Path, audits: Sequence[Audit]) -> str:
    """Add audits that the file does not hold yet; what is to be told, "" for nothing. One process at a time.

    Raises:
        OSError: it cannot be read or written now, or a later lcsearch wrote it; what stood there stands.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.locked(path.with_name(f"{path.name}.lock")):
        known, wrong = _read(path)
        if wrong:
            aside = _aside(path)
            path.rename(aside)
            wrong = f"{wrong}; it lies in {aside} now, and a new file is begun"
        have = {one[:3] for one in known}  # a study's name may come again, with other forecasts
        new = [one for one in audits if one[:3] not in have]
        if new or wrong:
            records = [one._asdict() for one in (*known, *new)]
            text = json.dumps({"version": VERSION, "audits": records}, indent=0) + "\n"
            files.write_atomically(path, text.encode())
    return wrong


def _aside(path: Path) -> Path:
    n = 1
    while (found := path.with_name(f"{path.name}.damaged-{n}")).exists():
        n += 1
    return found
