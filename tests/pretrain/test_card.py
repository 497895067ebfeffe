from __future__ import annotations

from kit import pretraining as toy

from lcsearch.pretrain import card
from lcsearch.pretrain.card import Origin

LCDB = Origin("lcdb11", "github.com/x/LCDB-1.1", "CC BY 4.0 (README)", ("a", "b"), 28)
FREE = Origin("lcbench", "github.com/y/z", "Apache-2.0", ("c",), 2000)


def made(origins: tuple[Origin, ...] = (), **changes: object) -> str:
    return card.write(
        toy.recipe(**changes),
        name="small",
        sha256="0123abcd",
        step=12,
        parameters=1234567,
        command="lcsearch pretrain toy.yaml",
        origins=origins,
        scores={"E1": [{"source": "a|b", "crps": 0.123456}, {"source": "c"}]},
        seconds=5400.0,
        device="cpu",
    )


def test_a_card_from_made_curves() -> None:
    text = made()
    assert text.startswith("# small\n")
    assert "| SHA-256 | `0123abcd` |" in text
    assert "| Training | 12 steps of 3 studies, 1.50 hours on cpu |" in text
    assert "| Data | curves made by lcsearch's prior; no real curve was used |" in text
    assert "```sh\nlcsearch pretrain toy.yaml\n```" in text
    assert "### E1\n\n| source | crps |\n| --- | --- |\n| a\\|b | 0.1235 |\n| c |  |\n" in text
    assert "Real curves" not in text
    assert "12 steps of 3 studies (unfinished: the recipe has 50), " in made(steps=50)


def test_real_curves_are_attributed() -> None:
    text = made((LCDB, FREE), real=0.3)
    assert "| lcdb11 | github.com/x/LCDB-1.1 | CC BY 4.0 (README) | 2 | 28 |" in text
    assert (
        "Contains information from lcdb11 (github.com/x/LCDB-1.1), used under CC BY 4.0 (README); curves were changed."
    ) in text
    assert "from lcbench" not in text
    assert "Tasks: lcdb11: a, b; lcbench: c." in text
    assert "| Data | 30 % of the batches are real curves, the others made by lcsearch's prior |" in text
