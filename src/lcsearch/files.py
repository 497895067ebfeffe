"""Files that somebody may have damaged, swapped or linked elsewhere: read within bounds, and no link written through.

Nothing here waits for a pipe, reads a device that never ends, or loses itself in JSON of any depth.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from lcsearch.errors import EnvironmentProblem

_QUICK = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # a pipe without a writer is opened, not waited for
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)


def loads(text: str | bytes) -> Any:
    """What JSON says.

    Raises:
        ValueError: it is no JSON, or nested deeper than Python can follow; it says which, in a few words.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("JSON that is nested too deep") from None
    except ValueError as error:
        raise ValueError(f"no JSON ({error})") from error


def read(path: Path, most: int) -> bytes:
    """All of a regular file.

    Args:
        most: bytes; a file has no business to be longer.

    Raises:
        OSError: it cannot be read, is no regular file, or is longer; `strerror` says which.
    """
    with _opened(path, os.O_RDONLY) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"more than {most} bytes", str(path))
    return data


def read_text(path: Path, most: int) -> str:
    """All of a regular UTF-8 file, its line ends as Python has them.

    Raises:
        OSError: as :func:`read`.
        UnicodeDecodeError: it is no UTF-8.
    """
    return read(path, most).decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")


def lines(path: Path, begin: int = 0, longest: int = 1 << 20) -> Iterator[tuple[int, bytes]]:
    """The lines of a regular file from byte `begin` on, each with its end, and where the next one begins.

    The last one has no end where its writer was killed over it, or is at it. One of more than `longest` bytes comes
    without what is beyond.

    Raises:
        OSError: as :func:`read`.
    """
    with _opened(path, os.O_RDONLY) as file:
        file.seek(begin)
        while line := file.readline(longest):
            rest = line
            while len(rest) == longest and not rest.endswith(b"\n"):
                rest = file.readline(longest)
            begin = file.tell()
            yield begin, line if rest is line or not rest.endswith(b"\n") else line[:-1] + b"\n"


def append(path: Path) -> BinaryIO:
    """A regular file, made if need be, opened to be written at its end.

    Raises:
        OSError: it cannot be written, is a symbolic link, or no regular file; `strerror` says which.
    """
    return _opened(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def lock_file(path: Path) -> int:
    """The descriptor of a regular file to be locked, made if need be; what it holds is left alone.

    Raises:
        OSError: as :func:`append`.
    """
    return _descriptor(path, os.O_RDWR | os.O_CREAT)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """A block that one at a time of all that lock this file is in, threads and processes; a death frees it.

    Raises:
        OSError: as :func:`append`.
    """
    lock = lock_file(path)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def lives(pid: int) -> bool:
    """Is there a process of this number on this machine?"""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def create(path: Path, *, private: bool = False) -> BinaryIO:
    """A new file in place of whatever file or link stood at `path`, opened to be written.

    Args:
        private: its owner alone can read it.

    Raises:
        OSError: it cannot be made.
    """
    path.unlink(missing_ok=True)
    mode = 0o600 if private else 0o666
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode), "wb")


def write_atomically(path: Path, content: bytes, *, private: bool = False) -> None:
    """Write `content` so that `path` holds the old or the new bytes, never a part, whenever process or machine die.

    A `private` file can be read by its owner alone, at every moment.

    Raises:
        OSError: it cannot be written; what stood there stands.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with create(temporary, private=private) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    with contextlib.suppress(OSError):  # the new name, too, where the file system can
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


class Figure(Protocol):
    """What matplotlib draws."""

    def savefig(self, fname: Path) -> object:
        """Write it."""
        ...


def write_plot(figure: Figure, path: Path) -> None:
    """Write what was drawn for `--plot`, in a folder that is made where there is none.

    Raises:
        EnvironmentProblem: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except OSError as error:
        text = f"{path}: expected a file that can be written, got {error.strerror or error}."
        raise EnvironmentProblem(f"{text} Choose another with --plot.") from error


def _opened(path: Path, flags: int) -> BinaryIO:
    if flags == os.O_RDONLY:
        return open(_descriptor(path, flags), "rb")
    return open(_descriptor(path, flags), "ab")


def _descriptor(path: Path, flags: int) -> int:
    writes = flags != os.O_RDONLY
    try:
        descriptor = os.open(path, flags | _QUICK | (_NO_LINK if writes else 0), 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK) and writes and path.is_symlink():
            raise OSError(errno.ELOOP, "a symbolic link, and no link is written through", str(path)) from None
        if error.errno == errno.ENXIO:  # a pipe that nobody reads, a socket
            raise OSError(errno.ENXIO, "no regular file", str(path)) from None
        raise
    if stat.S_ISREG(mode := os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "a folder", str(path))
    raise OSError(errno.EINVAL, "no regular file", str(path))
