"""YAML 1.2 text -> plain values that remember where in the text they stood.

ruamel.yaml does the parsing; the values are built here from its node tree, because only the nodes keep the place
of every key and scalar, and because plain Python values (not ruamel's subclasses) should leave this module.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

Path = tuple[str | int, ...]
Mark = tuple[int, int]  # line and column, both from 1

_MAX_DEPTH = 32
_MAX_NODES = 100_000  # aliases may make a text of a few lines as large as one likes
_TAG = "tag:yaml.org,2002:"
_TRUE = ("true", "True", "TRUE")
# what YAML 1.2 has for numbers; ruamel.yaml takes 1_0 and 0b11 too, which are words
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(frozen=True, order=True)
class Problem:
    """One thing wrong with a file; sorts by place.

    Attributes:
        mark: (line, column), from 1.
        where: path into the document, as in `$.space.lr`.
        text: "expected ..., got ..." with its advice, ending in a full stop.
    """

    mark: Mark
    where: str
    text: str

    def render(self, file: str) -> str:
        """`file:line:column: at $.path: expected ..., got ...`."""
        return f"{file}:{self.mark[0]}:{self.mark[1]}: at {self.where}: {self.text}"


def dotted(path: Path) -> str:
    """`("space", "lr", 0)` as `$.space.lr[0]`."""
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)


@dataclass
class Document:
    """A parsed file.

    Attributes:
        value: dicts (text keys), tuples and scalars; None for an empty file.
        values: path -> where the value starts.
        keys: path -> where the key of that path starts.
        problems: what could not be read; the rest of the document stands all the same.
    """

    value: Any = None
    values: dict[Path, Mark] = field(default_factory=dict)
    keys: dict[Path, Mark] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def mark(self, path: Path, *, key: bool = False) -> Mark:
        """The place of `path`, or of the nearest thing above it that stands in the text."""
        if key and path in self.keys:
            return self.keys[path]
        while path and path not in self.values:
            path = path[:-1]
        return self.values.get(path, (1, 1))

    def report(self, path: Path, text: str, *, key: bool = False) -> None:
        """Add a problem at `path`."""
        self.problems.append(Problem(self.mark(path, key=key), dotted(path), text))


def parse(text: str) -> Document:
    """Read one YAML document; never raises: what is wrong stands in `problems`."""
    document = Document()
    try:
        node = YAML(typ="rt", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        said = " ".join(str(part).strip() for part in (error.context, error.problem) if part)
        document.problems.append(Problem(place, "$", f"expected YAML, got {said}."))
        return document
    except YAMLError as error:
        said = str(error).strip().splitlines()[0]
        document.problems.append(Problem((1, 1), "$", f"expected YAML, got {said}."))
        return document
    except RecursionError:
        document.problems.append(Problem((1, 1), "$", f"expected at most {_MAX_DEPTH} levels, got far more."))
        return document
    if node is not None:
        document.value = _build(node, (), document)
    if len(document.values) > _MAX_NODES:
        text = f"expected at most {_MAX_NODES} values, got more once the aliases (*name) are filled in."
        return Document(problems=[Problem((1, 1), "$", text)])
    return document


def _place(node: Node) -> Mark:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _build(node: Node, path: Path, document: Document) -> Any:
    if len(document.values) > _MAX_NODES:
        return None
    document.values[path] = _place(node)
    if len(path) > _MAX_DEPTH:
        document.report(path, f"expected at most {_MAX_DEPTH} levels, got more (an alias to itself?).")
        return None
    if isinstance(node, MappingNode):
        return _mapping(node, path, document)
    if isinstance(node, SequenceNode):
        return tuple(_build(item, (*path, i), document) for i, item in enumerate(node.value))
    return _scalar(node, path, document)


def _mapping(node: MappingNode, path: Path, document: Document) -> dict[str, Any]:
    built: dict[str, Any] = {}
    for key_node, value_node in node.value:
        place = _place(key_node)
        if not isinstance(key_node, ScalarNode):
            document.problems.append(Problem(place, dotted(path), "expected a plain word as key, got a collection."))
            continue
        key = str(key_node.value)
        here: Path = (*path, key)
        if key_node.tag == f"{_TAG}merge":
            text = "expected no merge key, which YAML 1.2 does not have, got <<. Write its keys out."
            document.problems.append(Problem(place, dotted(path), text))
            continue
        if key in built:
            first = document.keys[here][0]
            document.problems.append(
                Problem(place, dotted(here), f"expected each key once, got it again (first on line {first}).")
            )
            continue
        document.keys[here] = place
        built[key] = _build(value_node, here, document)
    return built


def _scalar(node: Node, path: Path, document: Document) -> Any:
    tag, text = str(node.tag), str(node.value)
    short = tag.removeprefix(_TAG)
    try:
        match short:
            case "null":
                return None
            case "bool":
                return text in _TRUE
            case "int":
                return _integer(text) if _INT.fullmatch(text) else text
            case "float":
                return _float(text) if _FLOAT.fullmatch(text) else text
            case "str" | "timestamp":  # a date is a word here: no sweep key takes one
                return text
    except ValueError:
        pass
    document.report(path, f"expected a plain value, got {text!r} of type {short}.")
    return None


def _integer(text: str) -> int:
    # YAML 1.2: 010 is ten, 0o10 is eight
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


def _float(text: str) -> float:
    return float(re.sub(r"\.(?=[a-z])", "", text.lower()))  # `.inf`, `.nan`
