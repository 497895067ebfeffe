"""Reading a pretraining recipe: as a sweep file is read, every error at once and each with its place."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from lcsearch.errors import FileProblem
from lcsearch.pretrain.recipe import Recipe
from lcsearch.sweep import words
from lcsearch.sweep.document import Document, dotted, parse


def load(path: Path) -> Recipe:
    """Read and check a recipe.

    Raises:
        FileProblem: one line for each problem: `file:line:column: at $.size.bins: expected ..., got ...`
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FileProblem(f"{path}: expected a recipe, got no such file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise FileProblem(f"{path}: expected a readable UTF-8 text file, got {error}.") from error
    document = parse(text)
    unreadable = document.problems and document.value is None
    recipe = None if unreadable else _checked(document)
    if recipe is None or document.problems:
        raise FileProblem("\n".join(problem.render(str(path)) for problem in sorted(set(document.problems))))
    return recipe


def _checked(document: Document) -> Recipe | None:
    if not isinstance(document.value, dict):
        document.report((), f"expected a mapping of keys, got {words.show(document.value)}.")
        return None
    unread = {problem.where for problem in document.problems}
    try:
        return Recipe.model_validate(document.value)
    except ValidationError as error:
        for item in error.errors():
            path, said, at_key = words.explain(item, document.value, Recipe)
            if dotted(path) not in unread:
                document.report(path, said, key=at_key)
        return None
