"""Weight files: safetensors with what they are in the metadata; those that ship lie beside this file.

`weights.json` beside the shipped files names each with its SHA-256: what is loaded is what was released.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lcsearch.errors import EnvironmentProblem, InvalidValue
from lcsearch.files import write_atomically
from lcsearch.weights.shipped import ANOTHER, FORMAT, INDEX, about, content, found, index

Storage = Literal["float16", "float32"]


@dataclass(frozen=True, eq=False)
class Weights:
    """What a weight file holds.

    Attributes:
        tensors: name -> tensor; floating point ones in float32, however they were stored.
        size: of the network, as in the recipe.
        recipe: its name.
        seed: of the run.
        step: optimizer steps done.
        sha256: of the file.
    """

    tensors: dict[str, Tensor]
    size: dict[str, Any]
    recipe: str
    seed: int
    step: int
    sha256: str


def save(
    path: Path,
    tensors: Mapping[str, Tensor],
    *,
    size: Mapping[str, Any],
    recipe: str,
    seed: int,
    step: int,
    storage: Storage = "float16",
) -> str:
    """Write a weight file atomically. Returns its SHA-256.

    The same arguments give the same bytes. `float16` is for matrices; vectors (norms, borders of bins) are few and
    stay float32.

    Raises:
        InvalidValue: a weight is not finite, or too large for the storage.
    """
    from safetensors.torch import save as to_bytes

    stored = {}
    for name, tensor in tensors.items():
        kept = tensor.detach().to("cpu", copy=True).contiguous()
        if kept.is_floating_point():
            kept = kept.to(torch.float16 if storage == "float16" and kept.ndim > 1 else torch.float32)
            if not torch.isfinite(kept).all():
                worst = float(tensor.detach().abs().max())
                raise InvalidValue(f"finite weights that {storage} can hold", worst, name, "store float32")
        stored[name] = kept
    described = {"format": FORMAT, "size": dict(size), "recipe": recipe, "seed": seed, "step": step}
    data = to_bytes(stored, {"lcsearch": json.dumps(described, sort_keys=True)})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, data)
    return hashlib.sha256(data).hexdigest()


def load(path: Path | Traversable, sha256: str | None = None) -> Weights:
    """Read a weight file.

    Args:
        sha256: what it must be; None: anything readable.

    Raises:
        EnvironmentProblem: it is missing, damaged, or of another format.
    """
    return _read(*content(path, sha256), str(path))


def _read(data: bytes, digest: str, where: str) -> Weights:
    from safetensors import SafetensorError
    from safetensors.torch import load as from_bytes

    found = about(data, where)
    try:
        tensors = {n: t.float() if t.is_floating_point() else t for n, t in from_bytes(data).items()}
        return Weights(tensors, found["size"], found["recipe"], found["seed"], found["step"], digest)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        said = (str(error) or type(error).__name__).partition("\n")[0].rstrip(".")
        text = f"{where}: expected a file of weights, got one that cannot be read ({said})."
        raise EnvironmentProblem(f"{text} {ANOTHER}") from error


def shipped(name: str, where: Traversable | None = None) -> Weights:
    """The weights that ship as `name`.

    Args:
        where: a folder in place of the package's.

    Raises:
        EnvironmentProblem: there are none of that name, or they are damaged or of another format.
    """
    return load(*found(name, where))


def ship(path: Path, card: str, name: str, where: Path) -> None:
    """Copy a weight file, its model card and its hash into `where` (a checkout's `src/lcsearch/weights`).

    Raises:
        EnvironmentProblem: `path` cannot be read.
    """
    data, digest = content(path, None)
    _read(data, digest, str(path))
    where.mkdir(parents=True, exist_ok=True)
    write_atomically(where / f"{name}.safetensors", data)
    write_atomically(where / f"{name}.md", card.encode())
    known = {**index(where), name: digest}
    write_atomically(where / INDEX, (json.dumps(known, indent=2, sort_keys=True) + "\n").encode())
