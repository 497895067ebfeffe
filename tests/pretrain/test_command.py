"""`lcsearch pretrain`, with the real network and prior."""

from __future__ import annotations

from pathlib import Path

import pytest
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
    from lcsearch.pretrain import weights

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
