from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lcsearch.errors import EnvironmentProblem, InvalidValue
from lcsearch.weights import shipped
from lcsearch.weights import store as weights

ABOUT: dict[str, Any] = {"size": {"bins": 3}, "recipe": "toy", "seed": 4, "step": 12}
ANOTHER = "Name a file that `lcsearch pretrain` wrote."
REINSTALL = "Install lcsearch again, or name a file of your own."


def tensors() -> dict[str, torch.Tensor]:
    chance = torch.Generator().manual_seed(0)
    matrix = torch.randn(3, 4, generator=chance)
    return {"a": matrix, "b": torch.randn(4, generator=chance), "n": torch.tensor(7), "tied": matrix}


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    digest = weights.save(tmp_path / "w.safetensors", tensors(), **ABOUT, storage="float32")
    found = weights.load(tmp_path / "w.safetensors", digest)
    assert (found.size, found.recipe, found.seed, found.step, found.sha256) == ({"bins": 3}, "toy", 4, 12, digest)
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in tensors().items())
    assert digest == weights.save(tmp_path / "again.safetensors", tensors(), **ABOUT, storage="float32")


def test_float16_is_for_matrices(tmp_path: Path) -> None:
    weights.save(tmp_path / "w.safetensors", tensors(), **ABOUT)
    found = weights.load(tmp_path / "w.safetensors").tensors
    assert torch.equal(found["a"], tensors()["a"].half().float())
    assert torch.equal(found["b"], tensors()["b"])
    assert found["n"] == 7
    with pytest.raises(InvalidValue) as caught:
        weights.save(tmp_path / "w.safetensors", {"a": torch.full((2, 2), 1e5)}, **ABOUT)
    assert str(caught.value) == "a: expected finite weights that float16 can hold, got 100000.0. Store float32."


def test_what_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"

    def said(sha256: str | None = None) -> str:
        with pytest.raises(EnvironmentProblem) as caught:
            weights.load(path, sha256)
        return str(caught.value)

    assert said() == f"{path}: expected a file of weights, got No such file or directory. {ANOTHER}"
    digest = weights.save(path, tensors(), **ABOUT)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert said(digest).startswith(f"{path}: expected weights with the SHA-256 {digest[:12]}..., got ")
    assert said(digest).endswith(f"...: the file is damaged. {REINSTALL}")
    assert said().startswith(f"{path}: expected a file of weights, got one that cannot be read (")
    path.write_bytes(b"")
    assert said().startswith(f"{path}: expected a file of weights, got one that cannot be read (")
    begin = whole.index(b'\\"size\\": {')
    end = whole.index(b"}", begin) + 1
    path.write_bytes(whole[:begin] + b'\\"size\\": 3'.ljust(end - begin) + whole[end:])
    assert said() == (
        f"{path}: expected a file of weights, got one that cannot be read (no size of a network: 3). {ANOTHER}"
    )
    path.write_bytes(whole.replace(b'\\"format\\": 1', b'\\"format\\": 2'))
    assert said() == (
        f"{path}: expected weights of format 1, got format 2. Install the lcsearch that they were made for."
    )


def test_what_ships_is_listed_with_its_hash(tmp_path: Path) -> None:
    where = tmp_path / "weights"
    weights.save(tmp_path / "w.safetensors", tensors(), **ABOUT)
    assert shipped.names(tmp_path) == ()
    weights.ship(tmp_path / "w.safetensors", "# one\n", "one", where)
    weights.ship(tmp_path / "w.safetensors", "# two\n", "two", where)
    assert shipped.names(where) == ("one", "two")
    found = weights.shipped("one", where)
    assert json.loads((where / "weights.json").read_text())["one"] == found.sha256
    assert (where / "two.md").read_text() == "# two\n"
    with pytest.raises(EnvironmentProblem) as caught:
        weights.shipped("three", where)
    assert str(caught.value) == f"{where}: expected the weights 'three', got one, two. {REINSTALL}"


def test_all_that_ships_can_be_loaded() -> None:
    for name in shipped.names():
        assert weights.shipped(name).tensors
        assert (shipped.package() / f"{name}.md").is_file()
