"""The folder of a pretraining run: who holds it, and which recipe it belongs to.

::

    NAME/
        checkpoint.safetensors    everything needed to go on
        log.jsonl                 figures of the steps
        lock                      held by the process at work
        NAME.safetensors, NAME.md the result and its card
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from lcsearch.errors import EnvironmentProblem, FileProblem
from lcsearch.pretrain import checkpoint
from lcsearch.pretrain.recipe import Recipe

LOG = "log.jsonl"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Make the folder and hold it alone; the lock is free when the process is gone.

    Raises:
        EnvironmentProblem: it cannot be written, or somebody is at work there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        text = f"{folder}: expected a folder lcsearch can write to, got {error.strerror or error}."
        raise EnvironmentProblem(f"{text} Choose another with --folder.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = f"{folder}: expected nobody at work here, got a running `lcsearch pretrain`."
            raise EnvironmentProblem(f"{text} Wait for it, or end it, then try again.") from None
        yield


def reopen(folder: Path, recipe: Recipe) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The checkpoint to go on from; None to begin.

    Raises:
        FileProblem: it belongs to another recipe, or cannot be read.
    """
    found = checkpoint.load(folder)
    if found is not None and found[1]["digest"] != recipe.digest:
        lines = "".join(f"\n    {line}" for line in recipe.differences(found[1]["recipe"]))
        text = f"{folder}: expected the recipe that this run was begun with, got a changed one:{lines}"
        raise FileProblem(f"{text}\nUndo the change to go on, or start over with --fresh or another --folder.")
    return found


def move_aside(folder: Path) -> Path | None:
    """Rename what is there to the first free `NAME.old-K`: --fresh starts over, it does not destroy.

    Raises:
        EnvironmentProblem: somebody is at work there.
    """
    if not folder.exists():
        return None
    with held(folder):
        k = 1
        while (kept := folder.with_name(f"{folder.name}.old-{k}")).exists():
            k += 1
        folder.rename(kept)
    return kept
