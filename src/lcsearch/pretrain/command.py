"""`lcsearch pretrain`: from a recipe file to a folder with weights and their card."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from lcsearch.data.caveats import caveats_in
from lcsearch.errors import FileProblem
from lcsearch.pretrain import card
from lcsearch.pretrain.batches import Source
from lcsearch.pretrain.components import Censored, Prior, evaluation, make_network, objective, source_of
from lcsearch.pretrain.loop import Outcome, device_of, shown, train
from lcsearch.pretrain.progress import duration, make_view
from lcsearch.pretrain.real import RealTask
from lcsearch.pretrain.recipe import Recipe
from lcsearch.terminal import say
from lcsearch.weights import store as weights
from lcsearch.yaml_file.reading import read_model


def load(file: Path) -> Recipe:
    """Read and check a recipe.

    Raises:
        FileProblem: one line for each problem: `file:line:column: at $.size.bins: expected ..., got ...`
    """
    return read_model(file, "a recipe", Recipe)[0]


def pretrain(
    file: Path,
    *,
    folder: Path | None = None,
    data: Path | None = None,
    caveats: Path | None = None,
    minutes: float | None = None,
    fresh: bool,
) -> int:
    """Train what the recipe says, or go on with it. Returns the exit code: 0, or 130 when interrupted.

    Args:
        folder: where the run lies; None: runs/pretrain/NAME.
        data: a folder of curve tables: every other task of each is trained on as the recipe's `real` share says, the
            others are looked at in evaluations.
        caveats: a file of what is to be minded of those tables, see :mod:`~lcsearch.data.caveats`; None: what their
            meta.json says.
        minutes: end after that time, with a checkpoint.
        fresh: start over.

    Raises:
        FileProblem: the recipe or the file of caveats is wrong; it starts from weights of another size, or asks for
            real curves and there is no `data`.
        EnvironmentProblem: device or folder are not as needed, or the weights to start from cannot be read.
        Diverged: the loss stayed non-finite.
    """
    recipe = load(file)
    start = None
    if recipe.start is not None:
        held = weights.load(file.parent / recipe.start)
        if held.size != recipe.size.model_dump():
            text = f"{file}: start: expected weights of the recipe's size, {recipe.size.model_dump()}, got {held.size}."
            raise FileProblem(f"{text} Write that size, or start from other weights.")
        recipe, start = recipe.model_copy(update={"start": held.sha256}), held.tensors
    where = folder or Path("runs") / "pretrain" / recipe.name
    tasks, held_out, origins = _real(recipe, file, data, caveats)
    sources: dict[str, Source] = {"prior": Prior()}
    if held_out:
        sources["real"] = Censored(held_out)
    outcome = train(
        recipe,
        where,
        make_network=make_network,
        objective=objective,
        source=source_of(recipe, tasks),
        view=make_view(lambda text: say(text, sys.stderr)),
        evaluate=evaluation(objective, sources, recipe.batch),
        start=start,
        minutes=minutes,
        fresh=fresh,
    )
    again = ["lcsearch", "pretrain", str(file)]
    again += ["--folder", str(folder)] if folder else []
    again += ["--data", str(data)] if data else []
    again += ["--caveats", str(caveats)] if caveats else []
    command = shlex.join(again)
    if not outcome.done:
        say(f"{recipe.name}: step {outcome.step} of {recipe.steps} after {duration(outcome.seconds)}; saved in {where}")
        say(f"next: {command}")
        return 130 if outcome.interrupted else 0
    _write(recipe, where, outcome, origins if recipe.real else [], command)
    say(f"{recipe.name}: done after {duration(outcome.seconds)}: {shown(outcome.scores or outcome.smooth)}")
    if outcome.skipped:
        say(f"! {outcome.skipped} steps were skipped: their loss was not finite")
    say(f"wrote {where / f'{recipe.name}.safetensors'} and {recipe.name}.md beside it")
    return 0


def _real(
    recipe: Recipe, file: Path, data: Path | None, caveats: Path | None
) -> tuple[list[RealTask], list[RealTask], list[card.Origin]]:
    """Tasks to train on, tasks to look at, and where the first come from."""
    if data is None:
        if recipe.real:
            text = f"{file}: expected --data with a folder of curve tables, for `real` is {recipe.real:g}, got none."
            raise FileProblem(f"{text} Name one, or set `real: 0`.")
        return [], [], []
    from lcsearch.pretrain.real_tables import read

    minded = None if caveats is None else caveats_in(caveats)
    tasks, origins = read(data, "a", minded) if recipe.real else ([], [])
    return tasks, read(data, "b", minded)[0], origins


def _write(recipe: Recipe, where: Path, outcome: Outcome, origins: list[card.Origin], command: str) -> None:
    """The result and its card."""
    path = where / f"{recipe.name}.safetensors"
    size, name, seed = recipe.size.model_dump(), recipe.name, recipe.seed
    digest = weights.save(
        path, outcome.weights, size=size, recipe=name, seed=seed, step=outcome.step, storage="float16"
    )
    figures = [{"figure": name, "value": value} for name, value in outcome.scores.items()]
    text = card.write(
        recipe,
        name=recipe.name,
        sha256=digest,
        step=outcome.step,
        parameters=sum(p.numel() for p in make_network(recipe.size).parameters()),
        command=command,
        origins=origins,
        scores={"Mean figures of batches that were not trained on": figures} if figures else None,
        seconds=outcome.seconds,
        device=str(device_of(recipe)),
    )
    path.with_suffix(".md").write_text(text, encoding="utf-8")
