"""The weights that ship in the package: their names, hashes and bytes. Needs no torch, so that a look costs nothing."""

from __future__ import annotations

import hashlib
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from lcsearch import files
from lcsearch.errors import EnvironmentProblem
from lcsearch.files import loads

INDEX = "weights.json"
REINSTALL = "Install lcsearch again, or name a file of your own."
ANOTHER = "Name a file that `lcsearch pretrain` wrote."
FORMAT = 1
MOST = 1 << 32
"""Bytes of a file of weights."""


def package() -> Traversable:
    """Where the shipped files lie."""
    return resources.files("lcsearch") / "weights"


def index(where: Traversable | None = None) -> dict[str, str]:
    """Name of each of the weights -> SHA-256 of its file.

    Raises:
        EnvironmentProblem: the list cannot be read.
    """
    where = where or package()
    try:
        known = loads((where / INDEX).read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        text = f"{where / INDEX}: expected the names and hashes of the weights, got {error}."
        raise EnvironmentProblem(f"{text} {REINSTALL}") from error
    if not isinstance(known, dict) or not all(isinstance(digest, str) for digest in known.values()):
        text = f"{where / INDEX}: expected the names and hashes of the weights, got {str(known)[:40]}."
        raise EnvironmentProblem(f"{text} {REINSTALL}")
    return known


def names(where: Traversable | None = None) -> tuple[str, ...]:
    """Names of the weights that ship, sorted."""
    return tuple(sorted(index(where)))


def found(name: str, where: Traversable | None = None) -> tuple[Traversable, str]:
    """The file of the weights `name` and the SHA-256 it must have.

    Raises:
        EnvironmentProblem: there are none of that name.
    """
    where = where or package()
    known = index(where)
    if name not in known:
        text = f"{where}: expected the weights {name!r}, got {', '.join(sorted(known)) or 'none'}."
        raise EnvironmentProblem(f"{text} {REINSTALL}")
    return where / f"{name}.safetensors", known[name]


def content(path: Path | Traversable, sha256: str | None) -> tuple[bytes, str]:
    """The bytes of a weight file and their SHA-256.

    Raises:
        EnvironmentProblem: it is missing, or not the one with that hash.
    """
    try:
        data = files.read(path, MOST) if isinstance(path, Path) else path.read_bytes()
    except OSError as error:
        text = f"{path}: expected a file of weights, got {error.strerror or error}."
        raise EnvironmentProblem(f"{text} {ANOTHER if sha256 is None else REINSTALL}") from error
    digest = hashlib.sha256(data).hexdigest()
    if sha256 is not None and digest != sha256:
        text = f"{path}: expected weights with the SHA-256 {sha256[:12]}..., got {digest[:12]}...: the file is damaged."
        raise EnvironmentProblem(f"{text} {REINSTALL}")
    return data, digest


def about(data: bytes, where: str) -> dict[str, Any]:
    """What the header of a weight file says of it: recipe, seed, step and the size of the network.

    Raises:
        EnvironmentProblem: it is no weight file, or one of another format.
    """
    try:
        length = int.from_bytes(data[:8], "little")
        found: dict[str, Any] = loads(loads(data[8 : 8 + length])["__metadata__"]["lcsearch"])
        version = found["format"]
        if version == FORMAT and not isinstance(found["size"], dict):
            raise ValueError(f"no size of a network: {found['size']!r:.40}")
    except (ValueError, KeyError, TypeError) as error:
        said = (str(error) or type(error).__name__).partition("\n")[0].rstrip(".")
        text = f"{where}: expected a file of weights, got one that cannot be read ({said})."
        raise EnvironmentProblem(f"{text} {ANOTHER}") from error
    if version != FORMAT:
        text = f"{where}: expected weights of format {FORMAT}, got format {version}."
        raise EnvironmentProblem(f"{text} Install the lcsearch that they were made for.")
    return found
