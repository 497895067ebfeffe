"""A private PostgreSQL server in a folder of its own, reached by a unix socket."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

USER, PASSWORD = "sweeper", "s3cret/word"
URL_PASSWORD = "s3cret%2Fword"


def missing() -> str | None:
    """Why there can be no server here; None when there can."""
    if _binaries() is None:
        return "PostgreSQL is not installed here: apt-get install postgresql (.ci/postgres does it)"
    if importlib.util.find_spec("psycopg") is None:
        return 'psycopg is not installed here: pip install "lcsearch[postgres]"'
    if os.getuid() == 0 and shutil.which("runuser") is None:
        return "PostgreSQL does not run as root, and there is no runuser"
    return None


def _binaries() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    here = shutil.which("initdb")
    return found[-1].parent if found else Path(here).parent if here else None


class Server:
    """A running server; `new_database()` is an empty one's URL."""

    def __init__(self, root: Path, binaries: Path) -> None:
        self._root, self._binaries = root, binaries

    def run(self, program: str, *arguments: str, **environment: str) -> None:
        """One of PostgreSQL's programs, as a user that it accepts."""
        as_other = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        done = subprocess.run(
            [*as_other, str(self._binaries / program), *arguments],
            cwd=self._root,
            env={**os.environ, "LC_ALL": "C", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # the server inherits it: a pipe would never end
            stderr=subprocess.DEVNULL,
            timeout=120,
        )
        assert done.returncode == 0, f"{program}: exit code {done.returncode}"

    def start(self) -> None:
        """Start it."""
        options = f"-c listen_addresses='' -k {self._root} -c fsync=off -c max_connections=50"
        data, log = str(self._root / "data"), str(self._root / "log")
        self.run("pg_ctl", "-D", data, "-w", "-l", log, "-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop it; its clients are cut off."""
        self.run("pg_ctl", "-D", str(self._root / "data"), "-m", mode, "-w", "stop")

    def new_database(self, scheme: str = "postgresql") -> str:
        """The URL of an empty database."""
        name = f"d{uuid.uuid4().hex[:12]}"
        self.run("createdb", "-h", str(self._root), "-U", USER, name, PGPASSWORD=PASSWORD)
        return f"{scheme}://{USER}:{URL_PASSWORD}@/{name}?host={self._root}"


@contextmanager
def server() -> Iterator[Server]:
    """Start one, and leave nothing of it."""
    binaries = _binaries()
    assert binaries is not None
    root = Path(tempfile.mkdtemp(prefix="lcsearch-pg-", dir="/tmp"))  # a socket's path must be short
    try:
        password = root / "password"
        password.write_text(PASSWORD + "\n")
        if os.getuid() == 0:
            for path in (root, password):
                shutil.chown(path, "postgres")
        made = Server(root, binaries)
        data = str(root / "data")
        made.run("initdb", "-D", data, "-U", USER, "-A", "scram-sha-256", f"--pwfile={password}", "-N", "-E", "UTF8")
        made.start()
        try:
            yield made
        finally:
            made.stop("immediate")
    finally:
        shutil.rmtree(root, ignore_errors=True)
