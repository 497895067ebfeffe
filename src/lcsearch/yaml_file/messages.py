"""pydantic's errors in the house's words: expected, got, where, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from lcsearch.secrets_in_urls import mask
from lcsearch.yaml_file.document import Path

_PATTERNS = {
    "python": "'module:function'",
    "name": "a name of letters, digits, '.', '_' and '-'",
    "address": "'local', 'auto' or 'host:port'",
    "host": "auto, local, ray, or the URL http://NAME:PORT of `lcsearch serve`",
    "devices": "'cpu', 'mps', 'cuda' or 'cuda:N'",
    "storage": "a database's URL, as in sqlite:///FILE, postgresql://USER@HOST/NAME or mysql+pymysql://USER@HOST/NAME "
    "(a journal file or Redis is none)",
}


@dataclass(frozen=True)
class Own:
    """What one kind of file says of its own mistakes.

    Attributes:
        parts: key or union tag -> model of what stands there, where the field's type does not name it.
        untagged: (path, text, whether the mistake is the key itself) of a part that is none of the kinds it may be;
            None where there is nothing particular to say.
    """

    parts: Mapping[str, type[BaseModel]] = field(default_factory=dict)
    untagged: Callable[[Path, Any], tuple[Path, str, bool] | None] = lambda path, got: None


PLAIN = Own()
"""A file without particulars."""


def explain(error: ErrorDetails, root: Any, model: type[BaseModel], own: Own = PLAIN) -> tuple[Path, str, bool]:
    """(path, text, whether the mistake is the key itself) of one pydantic error of `model` against the raw `root`."""
    path = _path(error["loc"], root)
    got, kind, context = error["input"], error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        key = str(path[-1])
        known = _siblings(error["loc"], model, own.parts)
        hint = did_you_mean(key, known)
        return path, f"expected one of {', '.join(known)}, got '{key}'.{hint}", True
    if kind == "missing" and isinstance(path[-1], int):
        return path[:-1], f"expected two entries, got {show(got)}.", False
    if kind == "missing":
        return path[:-1], f"expected a key '{path[-1]}', got none.", False
    if kind == "union_tag_not_found" and (told := own.untagged(path, got)) is not None:
        return told
    return path, _plain(kind, context, path, got), False


def _plain(kind: str, context: Mapping[str, Any], path: Path, got: Any) -> str:
    hint = ""
    match kind:
        case "literal_error":
            what = str(context["expected"])
            hint = did_you_mean(got, [word.strip("'") for word in what.replace(" or ", ", ").split(", ")])
        case "greater_than":
            what = f"a number > {context['gt']:g}"
        case "greater_than_equal":
            what = f"a number >= {context['ge']:g}"
        case "less_than":
            what = f"a number < {context['lt']:g}"
        case "less_than_equal":
            what = f"a number <= {context['le']:g}"
        case "int_type" | "int_from_float" | "int_parsing":
            what = "a whole number"
        case "float_type" | "float_parsing":
            what = "a number"
        case "finite_number":
            what = "a finite number"
        case "string_type":
            what = "text"
        case "string_too_short":
            what = "text that is not empty"
        case "string_pattern_mismatch":
            words = [part for part in path if isinstance(part, str)]
            what = _PATTERNS.get(words[-1], context["pattern"])
        case "dict_type" | "model_type" | "model_attributes_type":
            what = "a mapping of keys"
        case "tuple_type":
            what = "a list"
        case "too_short":
            what = "at least one entry"
        case "too_long":
            what = "two entries"
        case "lcsearch":
            what = str(context["expected"])
        case "bool_type":
            what = "true or false"
        case "none_required":
            what = "a plain value"
        case _:
            what = f"something else ({kind})"
    return f"expected {what}, got {show(got)}.{hint}"


def _path(location: tuple[str | int, ...], root: Any) -> Path:
    """The location without union tags and the like: only what can be walked in the file, and one step more."""
    path: list[str | int] = []
    value = root
    for part in location:
        if isinstance(part, str) and part.startswith("<") and part.endswith(">"):
            continue
        if isinstance(value, Mapping) and isinstance(part, str):
            path.append(part)
            value = value.get(part)
        elif isinstance(value, (list, tuple)) and isinstance(part, int):
            path.append(part)
            value = value[part] if part < len(value) else None
        else:
            break  # inside a union of scalars: ('options', 0, 'bool')
    return tuple(path)


def _siblings(
    location: tuple[str | int, ...], root: type[BaseModel], parts: Mapping[str, type[BaseModel]]
) -> list[str]:
    """The keys that may stand where an unknown one was found."""
    model: Any = root
    for part in location[:-1]:
        model = _child(model, part, parts)
    return [field.alias or name for name, field in model.model_fields.items()]


def _child(model: Any, part: str | int, parts: Mapping[str, type[BaseModel]]) -> Any:
    if isinstance(part, str) and part in parts:
        return parts[part]
    field = model.model_fields.get(part)
    inner = None if field is None else field.annotation
    return inner if isinstance(inner, type) and issubclass(inner, BaseModel) else model


def either(names: Iterable[str]) -> str:
    """ "a, b or c"."""
    *most, last = names
    return f"{', '.join(most)} or {last}"


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """ " Did you mean 'max_steps'?" or ""."""
    close = difflib.get_close_matches(str(word), [k for k in known if k != word], n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""


def show(value: Any) -> str:
    """A value as the file would write it, cut to 60 characters."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case Mapping():
            text = "{" + ", ".join(f"{k}: {show(v)}" for k, v in value.items()) + "}"
        case list() | tuple():
            text = "[" + ", ".join(map(show, value)) + "]"
        case str():
            text = f"'{mask(value)}'"
        case _:
            text = f"{value!r}"
    return text if len(text) <= 60 else text[:57] + "..."
