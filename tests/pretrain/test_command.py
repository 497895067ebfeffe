"""`lcsearch pretrain`, with the real network and prior."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from kit import pretraining as toy
from typer.testing import CliRunner

from lcsearch.cli import app


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tiny.yaml"
    path.write_text(toy.YAML)
    return path


def test_in_pieces_to_weights_and_card(recipe: Path) -> None:
    from lcsearch.weights import store as weights

    first = CliRunner().invoke(app, ["pretrain", "tiny.yaml", "--minutes", "0"])
    assert first.exit_code == 0, first.output
    said, then = first.stdout.splitlines()
    assert said.startswith("tiny: step 1 of 3 after ")
    assert said.endswith("; saved in runs/pretrain/tiny")
    assert then == "next: lcsearch pretrain tiny.yaml"
    second = CliRunner().invoke(app, ["pretrain", "tiny.yaml"])
    assert second.exit_code == 0, second.output
    assert "tiny: goes on after step 1 of 3 of 2 studies, " in second.stderr
    found = weights.load(recipe.parent / "runs/pretrain/tiny/tiny.safetensors")
    assert (found.recipe, found.step, found.size["bins"]) == ("tiny", 3, 8)
    card = (recipe.parent / "runs/pretrain/tiny/tiny.md").read_text()
    assert found.sha256 in card
    assert "| prior.nll |" in card


def test_real_curves_must_be_there(recipe: Path) -> None:
    recipe.write_text(toy.YAML + "real: 0.3\n")
    done = CliRunner().invoke(app, ["pretrain", "tiny.yaml"])
    assert done.exit_code == 2
    assert done.stderr == (
        "tiny.yaml: expected --data with a folder of curve tables, for `real` is 0.3, got none. "
        "Name one, or set `real: 0`.\n"
    )
    done = CliRunner().invoke(app, ["pretrain", "tiny.yaml", "--data", "nowhere"])
    assert done.exit_code == 3
    assert done.stderr == "nowhere: expected a folder of curve tables, got none.\n"
    done = CliRunner().invoke(app, ["pretrain", "tiny.yaml", "--data", "nowhere", "--caveats", "no.json"])
    assert done.exit_code == 2
    assert done.stderr.startswith("no.json: expected a JSON file of caveats by the tables' names, got No such file")


def test_a_changed_recipe_is_refused(recipe: Path) -> None:
    CliRunner().invoke(app, ["pretrain", "tiny.yaml", "--minutes", "0"])
    recipe.write_text(toy.YAML.replace("1e-3", "2e-3"))
    done = CliRunner().invoke(app, ["pretrain", "tiny.yaml"])
    assert done.exit_code == 2
    assert done.stderr == (
        "runs/pretrain/tiny: expected the recipe that this run was begun with, got a changed one:\n"
        "    learning_rate: 0.001, now 0.002\n"
        "Undo the change to go on, or start over with --fresh or another --folder.\n"
    )
    done = CliRunner().invoke(app, ["pretrain", "tiny.yaml", "--fresh"])
    assert done.exit_code == 0, done.output
    assert "the earlier run was kept as runs/pretrain/tiny.old-1" in done.stderr


def test_going_on_from_weights(recipe: Path) -> None:
    from lcsearch.weights import store as weights

    again, home = recipe.with_name("again.yaml"), recipe.parent / "runs/pretrain"
    slow = toy.YAML.replace("tiny", "again").replace("1e-3", "1e-9")
    again.write_text(slow + "start: runs/pretrain/tiny/tiny.safetensors\n")
    done = CliRunner().invoke(app, ["pretrain", "again.yaml"])
    assert done.exit_code == 3
    assert done.stderr.startswith("runs/pretrain/tiny/tiny.safetensors: expected ")
    CliRunner().invoke(app, ["pretrain", "tiny.yaml"])
    begun = weights.load(home / "tiny/tiny.safetensors")
    done = CliRunner().invoke(app, ["pretrain", "again.yaml"])
    assert done.exit_code == 0, done.output
    found = weights.load(home / "again/again.safetensors")
    for name, tensor in found.tensors.items():  # at such a rate nothing moves
        torch.testing.assert_close(tensor, begun.tensors[name], rtol=0.0, atol=1e-5)
    assert begun.sha256 in (home / "again/again.md").read_text()

    # The run depends on what the file holds, not on where it lies.
    recipe.write_text(toy.YAML.replace("1e-3", "2e-3"))
    CliRunner().invoke(app, ["pretrain", "tiny.yaml", "--fresh"])
    done = CliRunner().invoke(app, ["pretrain", "again.yaml"])
    assert done.exit_code == 2
    assert f'    start: "{begun.sha256}", now "' in done.stderr

    again.write_text(again.read_text().replace("bins: 8", "bins: 9"))
    done = CliRunner().invoke(app, ["pretrain", "again.yaml", "--fresh"])
    assert done.exit_code == 2
    assert done.stderr.startswith("again.yaml: start: expected weights of the recipe's size, {'curve_width': 8, ")
    assert done.stderr.endswith("Write that size, or start from other weights.\n")
    assert not (home / "again.old-1").exists()
