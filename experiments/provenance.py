"""Which code made a result."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterable
from pathlib import Path

import lcsearch

ROOT = Path(__file__).resolve().parents[1]


def fingerprint(rooms: Iterable[str], *scripts: Path) -> str:
    """Of the package's files that match `rooms` and of an experiment's own: 12 hex digits."""
    package = Path(lcsearch.__file__).parent
    found = {room: list(package.glob(room)) for room in rooms}
    if missing := [room for room, paths in found.items() if not paths]:
        raise SystemExit(f"fingerprint: expected files of lcsearch that match {', '.join(missing)}, got none")
    files = [*sorted(path for paths in found.values() for path in paths), *scripts]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]


def commit(*paths: str, root: Path = ROOT) -> str:
    """HEAD, with a + where `src` or one of these paths differs from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False).stdout.strip()

    return git("rev-parse", "HEAD") + "+" * bool(git("status", "--porcelain", "--", "src", *paths))
