"""The model card: what weights are, what they were made from, by which command, and how well they do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lcsearch.pretrain.recipe import Recipe

Table = Sequence[Mapping[str, Any]]
"""Rows; the first row's keys are the columns."""


@dataclass(frozen=True)
class Origin:
    """Real curves that were trained on.

    Attributes:
        name: of the table.
        source, licence: as its meta.json says.
        tasks: names of those used.
        runs: how many were used.
    """

    name: str
    source: str
    licence: str
    tasks: tuple[str, ...]
    runs: int

    @property
    def attribution(self) -> str:
        """What its licence asks to be said, if it asks for anything beyond naming it; else ""."""
        if "CC BY" not in self.licence.upper().replace("CC-BY", "CC BY"):
            return ""
        return f"Contains information from {self.name} ({self.source}), used under {self.licence}; curves were changed."


def write(
    recipe: Recipe,
    *,
    name: str,
    sha256: str,
    step: int,
    parameters: int,
    command: str,
    origins: Sequence[Origin] = (),
    scores: Mapping[str, Table] | None = None,
    seconds: float | None = None,
    device: str = "",
) -> str:
    """The card as Markdown.

    Args:
        name: of the weights.
        sha256: of their file.
        step: optimizer steps done.
        parameters: numbers in the network.
        command: what makes them again.
        origins: real curves that were trained on; none for weights from made curves alone.
        scores: title -> table.
        seconds, device: what training took, and where.
    """
    size = ", ".join(f"{key} {value}" for key, value in recipe.size.model_dump().items())
    took = f"{seconds / 3600:.2f} hours{f' on {device}' if device else ''}" if seconds is not None else "not recorded"
    unfinished = "" if step >= recipe.steps else f" (unfinished: the recipe has {recipe.steps})"
    facts = {
        "File": f"`{name}.safetensors`",
        "SHA-256": f"`{sha256}`",
        "Recipe": f"`{recipe.name}`, digest `{recipe.digest[:12]}`, seed {recipe.seed}",
        "Network": f"{parameters:,} weights ({size})",
        "Training": f"{step:,} steps of {recipe.batch} studies{unfinished}, {took}",
        **({"Start": f"weights of SHA-256 `{recipe.start}`"} if recipe.start else {}),
        "Data": _data(recipe, origins),
    }
    parts = [
        f"# {name}",
        "Forecasts learning curves of hyperparameter trials: the distribution of a trial's future values, given its "
        "own reports, its configuration and the other trials of its study.",
        _table([{"": key, " ": value} for key, value in facts.items()]),
        "## Made by",
        f"```sh\n{command}\n```",
    ]
    if origins:
        rows = [
            {"table": o.name, "source": o.source, "licence": o.licence, "tasks": len(o.tasks), "runs": o.runs}
            for o in origins
        ]
        parts += ["## Real curves", _table(rows)]
        parts += [said for o in origins if (said := o.attribution)]
        parts += ["Tasks: " + "; ".join(f"{o.name}: {', '.join(o.tasks)}" for o in origins) + "."]
    parts += ["## Scores"]
    for title, table in (scores or {}).items():
        parts += [f"### {title}", _table(table)]
    if not scores:
        parts += ["None were measured."]
    parts += [
        "## Limits",
        "It knows curves of at most a few hundred reports and studies of a few dozen trials; longer and larger ones "
        "are thinned to that, and it is not said how much is lost. Its probabilities are of trials that run on as "
        "planned: a restart or a change of data is none.",
    ]
    return "\n\n".join(parts) + "\n"


def _data(recipe: Recipe, origins: Sequence[Origin]) -> str:
    if not origins:
        return "curves made by lcsearch's prior; no real curve was used"
    return f"{100 * recipe.real:.0f} % of the batches are real curves, the others made by lcsearch's prior"


def _table(rows: Table) -> str:
    """A Markdown table."""
    if not rows:
        return "No rows."
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns), *([_cell(row.get(column)) for column in columns] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str("" if value is None else value)
    return text.replace("|", "\\|").replace("\n", " ")
