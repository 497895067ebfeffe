from __future__ import annotations

from pathlib import Path

import pytest
from kit import pretraining as toy

from lcsearch.errors import FileProblem
from lcsearch.pretrain.command import load

CONFIGS = Path(__file__).parents[2] / "configs" / "pretrain"


@pytest.mark.parametrize("name", ["smoke", "cpu", "cpu_synthetic", "gpu"])
def test_the_shipped_recipes_are_valid(name: str) -> None:
    recipe = load(CONFIGS / f"{name}.yaml")
    assert recipe.name == name
    assert recipe.real == {"cpu": 0.5, "gpu": 0.5}.get(name, 0.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("steps: 3", "stepz: 3"), "1:1: at $: expected a key 'steps', got none."),
        (("steps: 3", "steps: 0"), "2:8: at $.steps: expected a number >= 1, got 0."),
        (("batch: 2", "batch: two"), "3:8: at $.batch: expected a whole number, got 'two'."),
        (("1e-3", "-1.0"), "4:16: at $.learning_rate: expected a number > 0, got -1.0."),
        (("1e-3", "1e-3\nreal: 1.5"), "5:7: at $.real: expected a number <= 1, got 1.5."),
        (
            ("1e-3", "1e-3\nprecision: float16"),
            "5:12: at $.precision: expected 'float32' or 'bfloat16', got 'float16'. Did you mean 'bfloat16'?",
        ),
        (
            ("bins: 8", "bin: 8"),
            "6:51: at $.size.bin: expected one of curve_width, curve_layers, curve_heads, study_width, study_layers, "
            "study_heads, pair_width, bins, got 'bin'. Did you mean 'bins'?",
        ),
        (("bins: 8", "bins: -8"), "6:57: at $.size.bins: expected a number >= 1, got -8."),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(toy.YAML.replace(*change))
    with pytest.raises(FileProblem) as caught:
        load(path)
    assert f"{path}:{said}" in str(caught.value).splitlines()


def test_heads_divide_widths(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(toy.YAML.replace("curve_heads: 2", "curve_heads: 3"))
    with pytest.raises(FileProblem) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}:5:7: at $.size: expected widths that their heads divide, got {{")


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileProblem) as caught:
        load(tmp_path / "r.yaml")
    assert str(caught.value) == f"{tmp_path}/r.yaml: expected a recipe, got no such file."
    with pytest.raises(FileProblem) as caught:
        load(tmp_path)
    assert str(caught.value) == f"{tmp_path}: expected a recipe, got a folder."


def test_how_it_is_handled_is_no_part_of_its_meaning() -> None:
    one, other = toy.recipe(), toy.recipe(workers=3, checkpoint_seconds=1.0, evaluate_every=7, log_every=2)
    assert one.digest == other.digest != toy.recipe(seed=1).digest
    before = {**one.meaning(), "gone": 1}
    assert toy.recipe(seed=1).differences(before) == ["seed: 0, now 1", "gone: 1, now absent"]
