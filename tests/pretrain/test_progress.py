from __future__ import annotations

import io
import re

from kit import pretraining as toy
from rich.console import Console

from lcsearch.pretrain.progress import Bar, Lines


def test_lines_come_now_and_then_and_at_the_end() -> None:
    said: list[str] = []
    view = Lines(said.append, every=3600.0)
    view.begin(toy.recipe(), 0, 1234, "cpu")
    for step in range(1, 13):
        view.step(step, 0.5, {"loss": 0.25})
    view.tell("something")
    view.end()
    assert said[0] == "toy: 12 steps of 3 studies, 1,234 weights, on cpu"
    assert re.fullmatch(r"step 12/12: loss 0\.25; \S+ studies/s, 0 s left", said[1])
    assert said[2:] == ["something"]
    view.begin(toy.recipe(), 7, 1234, "cpu")
    assert said[3] == "toy: goes on after step 7 of 12 of 3 studies, 1,234 weights, on cpu"


def test_a_terminal_has_a_bar() -> None:
    stream = io.StringIO()
    view = Bar(Console(file=stream, force_terminal=True, width=100, highlight=False))
    view.begin(toy.recipe(), 3, 1234, "cpu")
    view.step(4, 0.5, {"loss": 0.25})
    view.tell("[odd] something")
    view.end()
    assert " 4/12" in stream.getvalue()
    assert "[odd] something" in stream.getvalue()
