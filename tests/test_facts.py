"""Facts pass between processes and modules; our own sentences are for people, and nothing in src/ reads them back.

A sentence of ours can be told by its words. So every pattern that the package matches, and every text that it cuts off
or looks for, may hold no words in a row, but for the readers named here: of what others write, and of what an earlier
lcsearch stored.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

EARLIER = {"src/lcsearch/stopping/earlier.py", "worker_log.py"}
"""Readers of what an earlier lcsearch stored; each has its fixture or its lines in a test."""

FOREIGN = {
    "database is locked": "SQLite's",
    "no such": "SQLite's",
    "GPU ": "nvidia-smi's",
    " at 0x[0-9A-Fa-f]+": "Python's",
    "never padding": "of a data set's meta.json",
    "CC BY": "a licence's name",
    "CC-BY": "a licence's name",
    " or ": "pydantic's",
    "unexpected extra argument": "Click's",
}

_MATCHING = {"compile", "match", "search", "fullmatch", "findall", "finditer", "sub", "split"}
_CUTTING = {"startswith", "endswith", "removeprefix", "removesuffix", "partition", "rpartition", "split", "rsplit",
            "find", "rfind", "index", "rindex", "count", "replace"}  # fmt: skip
_WORDS = re.compile(r"[A-Za-z]{2,}[,:;]? |^ [A-Za-z]{2,}|[A-Z]{3,}: |: $| %|P\(")


def texts(node: ast.AST) -> Iterator[str]:
    """The literal parts of an expression."""
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value


def sought(source: str) -> Iterator[tuple[int, str]]:
    """(line, text) of every literal that is matched, cut off, split at or looked for in another text."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            of_re = isinstance(node.func.value, ast.Name) and node.func.value.id == "re"
            if (of_re and node.func.attr in _MATCHING) or (not of_re and node.func.attr in _CUTTING):
                yield from ((node.lineno, text) for text in texts(node.args[0]))
        elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
            left = node.left if isinstance(node.left, ast.Constant | ast.JoinedStr) else ast.Constant(None)
            yield from ((node.lineno, text) for text in texts(left))


def prose(source: str) -> list[str]:
    """Where words of a sentence are sought."""
    return [f"{line}: {text!r}" for line, text in sought(source) if _WORDS.search(text) and text not in FOREIGN]


def files() -> list[Path]:
    return [path for folder in ("src/lcsearch", "schedulers") for path in sorted((ROOT / folder).rglob("*.py"))]


def test_no_module_reads_our_own_sentences() -> None:
    found = {}
    for path in files():
        name = path.relative_to(ROOT).as_posix()
        if name not in EARLIER and path.name not in EARLIER and (said := prose(path.read_text())):
            found[name] = said
    assert found == {}


@pytest.mark.parametrize(
    "source",
    [
        're.match(r"step ([^:]+): ", note)',
        're.compile(r"trial (\\d+)(?: begins$| adopted$|: [A-Z]+$)")',
        'reason.partition(", incumbent ")',
        'line.startswith("trial ")',
        'reason.endswith(f", threshold {limit}")',
        'text.removeprefix("PROBLEM: ")',
        'note.removeprefix(f"step {n}: ")',
        '"ignored: max_steps is" in printed',
        'exactly(threshold).removesuffix(" %")',
        'line.split(": ", 1)',
        '"P(beat)" in row.note',
        'str(error).replace("Name one with --folder.", "Name a study.")',
    ],
)
def test_what_was_read_once_is_found(source: str) -> None:
    """Each stood in the package before records held facts."""
    assert prose(source)


def test_the_readers_of_earlier_forms_are_there() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in files()} | {path.name for path in files()}
    assert names >= EARLIER
