"""Checkpoints of trials in an artifact store of Optuna: any process or machine that reaches it can go on with a trial.

One artifact a trial, a tar file of what `lcsearch.checkpoint` has written; its id, and the step, stand in a user
attribute. A new one is written whole before the attribute names it, and the one before is removed after that.
"""

from __future__ import annotations

import shutil
import tarfile
import tempfile
import uuid
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.artifacts import FileSystemArtifactStore

from lcsearch import checkpoint
from lcsearch.checkpoint import Checkpoint
from lcsearch.errors import EnvironmentProblem, FileProblem, InvalidValue, in_words
from lcsearch.schedulers.optuna._storage import file_of, is_in_memory, stored

if TYPE_CHECKING:
    from optuna import Study
    from optuna.artifacts._protocol import ArtifactStore
    from optuna.trial import FrozenTrial, Trial

CHECKPOINT = "lcsearch:checkpoint"
"""The user attribute that says which artifact is a trial's checkpoint: {"artifact": id, "step": step}."""

_temporary: weakref.WeakKeyDictionary[Study, str] = weakref.WeakKeyDictionary()


LOCK = ".lock"
"""The file beside a study's checkpoints that its workers lock."""


def folder_for(study: Study) -> Path:
    """Where a study's checkpoints lie when nobody says it: beside the storage's file.

    Those of a study in memory lie in a temporary folder, which goes when the study does.

    Raises:
        InvalidValue: the storage is no file.
    """
    file = file_of(study)
    if file is not None:
        return file.with_name(f"{file.name}.checkpoints")
    if not is_in_memory(study):
        expected = "a folder, or an artifact store, that all workers reach"
        advice = "the study's storage is on a server, so there is no place beside it"
        raise InvalidValue(expected, None, "FreezeThaw(artifact_store=)", advice)
    if study not in _temporary:
        _temporary[study] = made = tempfile.mkdtemp(prefix="lcsearch-checkpoints-")
        weakref.finalize(study, shutil.rmtree, made, ignore_errors=True)
    return Path(_temporary[study])


def store_in(folder: Path) -> FileSystemArtifactStore:
    """An artifact store in a folder, which is made.

    Raises:
        EnvironmentProblem: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        text = f"{folder}: expected a folder for checkpoints that can be written, got {error.strerror or error}."
        raise EnvironmentProblem(text) from error
    return FileSystemArtifactStore(folder)


class TrialCheckpoints:
    """The checkpoints of one trial, for as long as a worker has it: what is loaded lies in a folder of its own.

    Args:
        store: where they are kept.
        study: whose trial.
        trial: which.
    """

    def __init__(self, store: ArtifactStore, study: Study, trial: Trial) -> None:
        self._store, self._study, self._trial = store, study, trial
        self._place = tempfile.TemporaryDirectory(prefix=f"lcsearch-trial-{trial.number}-")

    @property
    def _folder(self) -> Path:
        return Path(self._place.name)

    def save(self, state: Mapping[str, Any], step: int) -> None:
        """Keep `state` as of `step`; see `lcsearch.checkpoint.save` for what it may be."""
        checkpoint.save(self._folder, state, step)
        self.send(step)

    @contextmanager
    def filling(self, step: int, state: Mapping[str, Any]) -> Iterator[Path]:
        """An empty folder to be filled; `send` keeps it, with `state`."""
        with checkpoint.saving(self._folder, state, step) as files:
            yield files

    def send(self, step: int) -> None:
        """Put what was saved on this machine into the store."""
        before, name = artifact_of(stored(self._study, self._trial)), uuid.uuid4().hex
        with tempfile.TemporaryFile() as packed:
            with tarfile.open(fileobj=packed, mode="w") as tar:
                tar.add(self._folder, arcname=".")
            packed.seek(0)
            self._store.write(name, packed)
        self._trial.set_user_attr(CHECKPOINT, {"artifact": name, "step": step})
        remove(self._store, before)

    def load(self) -> Checkpoint | None:
        """What was kept last, by whichever worker; None where there is nothing yet.

        Raises:
            FileProblem: it is damaged.
            ArtifactNotFound: it is gone.
        """
        name = artifact_of(stored(self._study, self._trial))
        if name is None:
            return None
        try:
            with self._store.open_reader(name) as kept, tarfile.open(fileobj=kept, mode="r|") as tar:
                _unpack(tar, self._folder)
        except tarfile.TarError as error:
            raise FileProblem(f"artifact {name}: expected a checkpoint, got {in_words(error)}") from error
        return checkpoint.load(self._folder)

    def close(self) -> None:
        """Leave nothing on this machine but what the store keeps."""
        self._place.cleanup()


def _unpack(tar: tarfile.TarFile, folder: Path) -> None:
    """Files and folders, nothing outside of `folder`; tarfile's own filter does so from Python 3.11.4 on.

    Raises:
        TarError: it holds something else.
    """
    if hasattr(tarfile, "data_filter"):
        tar.extractall(folder, filter="data")
        return
    for member in tar:
        at = Path(member.name)
        if not (member.isreg() or member.isdir()) or at.is_absolute() or ".." in at.parts:
            raise tarfile.TarError(f"{member.name!r}, which is no file or folder in it")
        tar.extract(member, folder)


def artifact_of(frozen: FrozenTrial) -> str | None:
    """The id of a trial's checkpoint."""
    kept = frozen.user_attrs.get(CHECKPOINT)
    name = kept.get("artifact") if isinstance(kept, dict) else None
    return name if isinstance(name, str) else None


def remove(store: ArtifactStore, name: str | None) -> None:
    """Remove an artifact that no trial needs any more; one that cannot be removed stays."""
    if name is not None:
        with suppress(Exception):
            store.remove(name)
