"""Weight files: safetensors with what they are in the metadata; those that ship lie in `lcsearch/weights/`.

`weights.json` beside the shipped files names each with its SHA-256: what is loaded is what was released.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lcsearch.errors import EnvironmentProblem, InvalidValue
from lcsearch.pretrain.checkpoint import write_atomically

FORMAT = 1
INDEX = "weights.json"

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
    about = {"format": FORMAT, "size": dict(size), "recipe": recipe, "seed": seed, "step": step}
    content = to_bytes(stored, {"lcsearch": json.dumps(about, sort_keys=True)})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    return hashlib.sha256(content).hexdigest()


def load(path: Path | Traversable, sha256: str | None = None) -> Weights:
    """Read a weight file.

    Args:
        sha256: what it must be; None: anything readable.

    Raises:
        EnvironmentProblem: it is missing, damaged, or of another format.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        text = f"{path}: expected a file of weights, got {error.strerror or error}."
        raise EnvironmentProblem(f"{text} {REINSTALL}") from error
    return _read(content, str(path), sha256)


REINSTALL = "Install lcsearch again, or name a file of your own."


def _read(content: bytes, where: str, sha256: str | None) -> Weights:
    from safetensors import SafetensorError
    from safetensors.torch import load as from_bytes

    digest = hashlib.sha256(content).hexdigest()
    if sha256 is not None and digest != sha256:
        text = (
            f"{where}: expected weights with the SHA-256 {sha256[:12]}..., got {digest[:12]}...: the file is damaged."
        )
        raise EnvironmentProblem(f"{text} {REINSTALL}")
    try:
        length = int.from_bytes(content[:8], "little")
        about = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["lcsearch"])
        if about["format"] != FORMAT:
            text = f"{where}: expected weights of format {FORMAT}, got format {about['format']}."
            raise EnvironmentProblem(f"{text} Install the lcsearch that they were made for.")
        tensors = {n: t.float() if t.is_floating_point() else t for n, t in from_bytes(content).items()}
        return Weights(tensors, about["size"], about["recipe"], about["seed"], about["step"], digest)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        said = (str(error) or type(error).__name__).partition("\n")[0].rstrip(".")
        text = f"{where}: expected a file of weights, got one that cannot be read ({said})."
        raise EnvironmentProblem(f"{text} {REINSTALL}") from error


def package() -> Traversable:
    """Where the shipped files lie."""
    return files("lcsearch") / "weights"


def names(where: Traversable | None = None) -> tuple[str, ...]:
    """Names of the weights that ship, sorted."""
    return tuple(sorted(_index(where or package())))


def shipped(name: str, where: Traversable | None = None) -> Weights:
    """The weights that ship as `name`.

    Args:
        where: a folder in place of the package's.

    Raises:
        EnvironmentProblem: there are none of that name, or they are damaged or of another format.
    """
    where = where or package()
    known = _index(where)
    if name not in known:
        text = f"{where}: expected the weights {name!r}, got {', '.join(sorted(known)) or 'none'}."
        raise EnvironmentProblem(f"{text} {REINSTALL}")
    return load(where / f"{name}.safetensors", known[name])


def ship(path: Path, card: str, name: str, where: Path) -> None:
    """Copy a weight file, its model card and its hash into `where` (a checkout's `src/lcsearch/weights`).

    Raises:
        EnvironmentProblem: `path` cannot be read.
    """
    content = path.read_bytes() if path.exists() else b""
    digest = _read(content, str(path), None).sha256
    where.mkdir(parents=True, exist_ok=True)
    write_atomically(where / f"{name}.safetensors", content)
    write_atomically(where / f"{name}.md", card.encode())
    index = {**_index(where), name: digest}
    write_atomically(where / INDEX, (json.dumps(index, indent=2, sort_keys=True) + "\n").encode())


def _index(where: Traversable) -> dict[str, str]:
    try:
        index = json.loads((where / INDEX).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        text = f"{where / INDEX}: expected the names and hashes of the weights, got {error}."
        raise EnvironmentProblem(f"{text} {REINSTALL}") from error
    return dict(index)
