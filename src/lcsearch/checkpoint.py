"""Checkpoints: nested state and files of any kind, kept with a step, replaced atomically.

The state lies in one safetensors file (packing.py). No pickle anywhere, so a checkpoint can be loaded from a stranger.

Files that the objective itself writes lie in a folder beside it, `files-STEP.PID.K`, which the metadata names: writing
the safetensors file anew changes step, state and files in one move. A folder that it does not name is left over.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lcsearch import files, packing
from lcsearch.errors import EnvironmentProblem, FileProblem
from lcsearch.files import write_atomically

FILE = "checkpoint.safetensors"
UNFINISHED = f".{FILE}.*.tmp"
"""What a process writes first, with its pid for the star; one that is killed over it leaves it."""

_FILES = re.compile(r"files-\d+\.(\d+)\.\d+")

_under_way: set[Path] = set()  # folders that this process is filling


@dataclass(frozen=True)
class Checkpoint:
    """What `load` found.

    Attributes:
        step: the last step that was done when it was saved.
        state: what was handed to `save`, tensors on the CPU.
        files: the folder that was filled in `saving`; None where it was saved without one.
    """

    step: int
    state: dict[str, Any]
    files: Path | None = None


def save(folder: Path, state: Mapping[str, Any], step: int, *, files: str | None = None) -> None:
    """Keep `state` (nested dicts, lists and tuples of tensors, arrays, bytes, numbers, text, None) for `folder`.

    Args:
        files: the name of the folder in `folder` that belongs to it.

    Raises:
        InvalidValue: something in `state` is none of these.
        EnvironmentProblem: the folder cannot be written.
    """
    content = packing.to_bytes(state, {"step": int(step), "files": files})
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _tidy(folder)
        write_atomically(folder / FILE, content)
        _remove_files(folder, but=files)
    except OSError as error:
        raise EnvironmentProblem(_unwritable(folder, error)) from error


@contextmanager
def saving(folder: Path, state: Mapping[str, Any], step: int) -> Iterator[Path]:
    """An empty folder to be filled; it becomes the checkpoint of `folder` together with `state` when the block ends.

    Nothing is kept of a block that raises.

    Raises:
        InvalidValue: as `save`, before the block.
        EnvironmentProblem: the folder cannot be written.
    """
    packing.to_bytes(state, {})
    files = _new_files(folder, step)
    _under_way.add(files)
    try:
        yield files
        try:
            _sync(files)
        except OSError as error:
            raise EnvironmentProblem(_unwritable(files, error)) from error
    except BaseException:
        shutil.rmtree(files, ignore_errors=True)
        raise
    finally:
        _under_way.discard(files)
    save(folder, state, step, files=files.name)


def load(folder: Path) -> Checkpoint | None:
    """The checkpoint of `folder`, or None when there is none yet.

    Raises:
        FileProblem: there is a file, but it is not one of ours, or what belongs to it is gone.
    """
    path = folder / FILE
    _tidy(folder)
    if not path.exists():
        _remove_files(folder, but=None)
        return None
    state, about = packing.from_file(path)
    files = about.get("files")
    if files is not None and not _FILES.fullmatch(str(files)):
        text = f"{path}: expected a checkpoint, got one whose files are in {files!r}. Delete it to start over."
        raise FileProblem(text)
    found = Checkpoint(about["step"], state, None if files is None else folder / files)
    if found.files is not None and not found.files.is_dir():
        raise FileProblem(f"{found.files}: expected the files of {FILE}, got none. Delete that to start over.")
    _remove_files(folder, but=files)
    return found


def _unwritable(folder: Path, error: OSError) -> str:
    return f"{folder}: expected a folder for checkpoints that can be written, got {error.strerror or error}."


def _new_files(folder: Path, step: int) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for k in itertools.count():
            files = folder / f"files-{step}.{os.getpid()}.{k}"
            with suppress(FileExistsError):
                files.mkdir()
                break
    except OSError as error:
        raise EnvironmentProblem(_unwritable(folder, error)) from error
    return files


def _sync(folder: Path) -> None:
    """See that all in `folder` is on the disk."""
    for place, _, names in os.walk(folder):
        for path in (*(Path(place) / name for name in names), Path(place)):
            if path.is_symlink():
                continue
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _tidy(folder: Path) -> None:
    """Remove what processes that are gone have left of a checkpoint."""
    for path in folder.glob(UNFINISHED):
        with suppress(OSError, ValueError):
            if not files.lives(int(path.name.split(".")[-2])):
                path.unlink()


def _remove_files(folder: Path, *, but: str | None) -> None:
    """Remove the folders of earlier checkpoints, and those that processes that are gone have left half-filled."""
    for path in folder.glob("files-*"):
        named = _FILES.fullmatch(path.name)
        if named is None or path.name == but or path in _under_way:
            continue
        pid = int(named[1])
        if pid == os.getpid() or not files.lives(pid):
            shutil.rmtree(path, ignore_errors=True)
