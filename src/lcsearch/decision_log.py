"""The decision log: a folder with one append-only JSONL file per writer, merged on read."""

from __future__ import annotations

import json
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from lcsearch.decide.decision import Receipt


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
        self._pid = -1

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
        line = json.dumps(record, separators=(",", ":"), default=str) + "\n"
        with self._lock:
            if self._path is None or self._pid != os.getpid():
                self.folder.mkdir(parents=True, exist_ok=True)
                self._pid = os.getpid()
                name = f"{socket.gethostname()}-{self._pid}-{uuid.uuid4().hex[:8]}.jsonl"
                self._path = self.folder / name
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line)


def read_log(folder: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """Records of all writers in time order. A torn last line (a writer was killed) is passed over.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    records: list[dict[str, Any]] = []
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"expected a decision log folder, got {str(root)!r}, which is no folder")
    for path in sorted(root.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                continue
    yield from sorted(records, key=lambda record: float(record.get("time", 0.0)))
