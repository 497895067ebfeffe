"""From a YAML file to a checked model: every error at once, each with its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from lcsearch import files
from lcsearch.errors import FileProblem
from lcsearch.yaml_file import messages
from lcsearch.yaml_file.document import Document, dotted, parse

M = TypeVar("M", bound=BaseModel)

MOST = 1 << 20
"""Bytes of a file that somebody writes by hand."""


def read_model(
    path: Path,
    what: str,
    model: type[M],
    check: Callable[[Document], None] = lambda document: None,
    is_reported: Callable[[ErrorDetails], bool] = lambda error: False,
    own: messages.Own = messages.PLAIN,
) -> tuple[M, str]:
    """The file as `model`, and its text.

    Args:
        what: "a sweep file": for messages.
        check: reports what the model does not see, given a mapping.
        is_reported: is this error of the model told by another, or by `check`?
        own: what this kind of file says of its own mistakes.

    Raises:
        FileProblem: one line for each problem, in the order of the file:
            `file:line:column: at $.space.lr: expected ..., got .... Did you mean ...?`
    """
    try:
        text = files.read_text(path, MOST)
    except FileNotFoundError:
        raise FileProblem(f"{path}: expected {what}, got no such file.") from None
    except IsADirectoryError:
        raise FileProblem(f"{path}: expected {what}, got a folder.") from None
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise FileProblem(f"{path}: expected a readable UTF-8 text file, got {said}.") from error
    document = parse(text)
    unreadable = document.problems and document.value is None
    found = None if unreadable else _checked(document, model, check, is_reported, own)
    if found is None or document.problems:
        raise FileProblem("\n".join(problem.render(str(path)) for problem in sorted(set(document.problems))))
    return found, text


def _checked(
    document: Document,
    model: type[M],
    check: Callable[[Document], None],
    is_reported: Callable[[ErrorDetails], bool],
    own: messages.Own,
) -> M | None:
    """The model, None where it does not hold; all that is wrong lands in `document.problems`."""
    if not isinstance(document.value, dict):
        document.report((), f"expected a mapping of keys, got {messages.show(document.value)}.")
        return None
    unread = {problem.where for problem in document.problems}
    check(document)
    try:
        return model.model_validate(document.value)
    except ValidationError as error:
        for item in error.errors():
            if is_reported(item):
                continue
            path, said, at_key = messages.explain(item, document.value, model, own)
            if dotted(path) not in unread:  # nothing stands there, because it could not be read
                document.report(path, said, key=at_key)
        return None
