"""What is to be minded of tables, as JSON says it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from lcsearch.data.caveats import STATUS_WORDS, Caveat, caveat_of, caveats_in
from lcsearch.errors import FileProblem
from lcsearch.study import Status

ROOT = Path(__file__).parents[2]
NAMES = "nan, after, until, length, gaps, full, short, words, why"
STATUSES = ", ".join(STATUS_WORDS)


def test_every_attribute() -> None:
    said = {"nan": "diverged", "after": 0, "until": 5.5, "length": "n", "gaps": ["a"], "full": "stopped"}
    said |= {"short": "FAILED", "words": {"Fail": "failed"}, "why": "they were trained so"}
    want = Caveat("diverged", 0, 5.5, "n", frozenset("a"), Status.STOPPED, Status.FAILED, {"fail": Status.FAILED})
    assert caveat_of(said, "here") == want
    assert caveat_of({}, "here") == Caveat() == Caveat(None, -math.inf, math.inf, words=STATUS_WORDS)


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ([], f"here: expected an object with some of {NAMES}, got []."),
        ({"until ": 5}, f"here: expected some of {NAMES}, got 'until '."),
        ({"nan": "worst"}, "here: nan: expected 'padding' or 'diverged', got 'worst'."),
        ({"after": "0"}, "here: after: expected a step, got '0'."),
        ({"until": math.nan}, "here: until: expected a step, got nan."),
        ({"after": True}, "here: after: expected a step, got True."),
        ({"length": 3}, "here: length: expected the name of a column, got 3."),
        ({"gaps": "a"}, "here: gaps: expected a list of tasks, got 'a'."),
        ({"gaps": [["a"]]}, "here: gaps: expected a list of tasks, got [['a']]."),
        ({"full": "done"}, f"here: full: expected one of {STATUSES}, got 'done'."),
        ({"short": {}}, f"here: short: expected one of {STATUSES}, got {{}}."),
        ({"words": {"fail": 1}}, f"here: words: expected an object of words, each with one of {STATUSES}, got "),
        ({"why": 1}, "here: why: expected a text, got 1."),
    ],
)
def test_what_is_wrong_is_named(said: Any, problem: str) -> None:
    with pytest.raises(FileProblem) as caught:
        caveat_of(said, "here")
    assert str(caught.value).startswith(problem)


def test_a_file_by_the_names_of_tables(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text('{"one": {"after": 0}, "two": {}}')
    assert caveats_in(path) == {"one": Caveat(after=0), "two": Caveat()}
    want = f"{path}: expected a JSON file of caveats by the tables' names, got "
    for content, got in (
        (b"{", "no JSON (Expecting property"),
        (b"\xff", "'utf-8' codec"),
        (b"[" * 9999, "JSON that is"),
    ):
        path.write_bytes(content)
        with pytest.raises(FileProblem) as caught:
            caveats_in(path)
        assert str(caught.value).startswith(want + got)
        assert "\n" not in str(caught.value)
    path.write_text("[]")
    with pytest.raises(FileProblem, match="expected an object, caveats by the tables' names, got "):
        caveats_in(path)
    path.write_text('{"one": {"after": "a"}}')
    with pytest.raises(FileProblem) as caught:
        caveats_in(path)
    assert str(caught.value) == f"{path}: one: after: expected a step, got 'a'."
    with pytest.raises(FileProblem) as caught:
        caveats_in(tmp_path / "no.json")
    assert str(caught.value).endswith("got No such file or directory.")


def test_the_package_names_no_data_set() -> None:
    names = json.loads((ROOT / "experiments" / "caveats.json").read_text()).keys()
    package = ROOT / "src" / "lcsearch"
    found = {
        (str(path.relative_to(package)), name)
        for path in package.rglob("*.py")
        for name in names
        if name in path.read_text(encoding="utf-8")
    }
    assert names
    assert not found
