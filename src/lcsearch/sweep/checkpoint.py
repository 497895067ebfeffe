"""Checkpoints: nested state of tensors and plain values in one safetensors file, replaced atomically.

The file holds every tensor under a running number; the nesting and the plain values stand beside them as JSON in
the file's metadata. No pickle anywhere, so a checkpoint can be loaded from a stranger.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lcsearch.errors import FileProblem, InvalidValue

FILE = "checkpoint.safetensors"
UNFINISHED = f".{FILE}.*.tmp"
"""What a process writes first, with its pid for the star; one that is killed over it leaves it."""


@dataclass(frozen=True)
class Checkpoint:
    """What :func:`load` found.

    Attributes:
        step: the last step that was done when it was saved.
        state: what was handed to :func:`save`, tensors on the CPU.
    """

    step: int
    state: dict[str, Any]


def write_atomically(path: Path, content: bytes, *, private: bool = False) -> None:
    """Write `content` so that `path` holds the old or the new bytes, never a part, whenever the process dies.

    A `private` file can be read by its owner alone, at every moment.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def save(folder: Path, state: Mapping[str, Any], step: int) -> None:
    """Keep `state` (nested dicts, lists and tuples of tensors, numbers, text, None) as the checkpoint of `folder`.

    Raises:
        InvalidValue: something in `state` is neither a tensor nor a plain value.
    """
    from safetensors.torch import save as to_bytes

    tensors: dict[str, Any] = {}
    tree = _take_apart(dict(state), tensors, "state")
    metadata = {"lcsearch": json.dumps({"version": 1, "step": int(step), "tree": tree})}
    _tidy(folder)
    write_atomically(folder / FILE, to_bytes(tensors, metadata))


def load(folder: Path) -> Checkpoint | None:
    """The checkpoint of `folder`, or None when there is none yet.

    Raises:
        FileProblem: there is a file, but it is not one of ours.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / FILE
    _tidy(folder)
    if not path.exists():
        return None
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = json.loads(file.metadata()["lcsearch"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise FileProblem(f"{path}: expected a checkpoint, got {error}. Delete it to start over.") from error
    return Checkpoint(metadata["step"], _put_together(metadata["tree"], tensors))


def _tidy(folder: Path) -> None:
    """Remove what processes that are gone have left of a checkpoint."""
    for path in folder.glob(UNFINISHED):
        with suppress(OSError, ValueError):
            try:
                os.kill(int(path.name.split(".")[-2]), 0)
            except ProcessLookupError:
                path.unlink()


def _take_apart(value: Any, tensors: dict[str, Any], where: str) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        # a clone: safetensors refuses tensors that share memory, and views would drag their base along
        tensors[name] = value.detach().to("cpu").contiguous().clone()
        return {"tensor": name}
    if isinstance(value, Mapping):
        # pairs, not a JSON object: optimizers key their state by whole numbers
        for key in value:
            if not (key is None or isinstance(key, (bool, int, float, str))):
                raise InvalidValue("keys that are plain values", key, where, "turn them into text")
        return {"dict": [[k, _take_apart(v, tensors, f"{where}.{k}")] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_take_apart(v, tensors, f"{where}[{i}]") for i, v in enumerate(value)]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"plain": value}
    raise InvalidValue("a tensor or a plain value", type(value).__name__, where, "save its state_dict()")


def _put_together(node: Any, tensors: Mapping[str, Any]) -> Any:
    ((kind, body),) = node.items()
    match kind:
        case "tensor":
            return tensors[body]
        case "dict":
            return {key: _put_together(value, tensors) for key, value in body}
        case "list":
            return [_put_together(value, tensors) for value in body]
        case "tuple":
            return tuple(_put_together(value, tensors) for value in body)
        case _:
            return body
