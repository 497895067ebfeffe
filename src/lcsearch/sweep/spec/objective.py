"""`objective:` of a sweep file, what is trained."""

from __future__ import annotations

import re
import shlex
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, field_validator, model_validator

from lcsearch.sweep.spec.strict import Model, expected

SHELL = ("&&", "||", ";", "|", ">", ">>", "<", "2>", "2>&1", "&")
PYTHON_SPEC = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"


def _words(command: Any) -> Any:
    try:
        parts = shlex.split(command) if isinstance(command, str) else command
    except ValueError as error:
        raise expected("a command line whose quotes are closed") from error
    if isinstance(command, str) and (shell := [part for part in parts or () if part in SHELL]):
        raise expected(f"one program with its arguments, for no shell reads {shell[0]} (to have one: bash -c '...')")
    if parts is None or (isinstance(parts, (list, tuple)) and parts):
        return parts if parts is None else tuple(parts)
    raise expected("a program with its arguments, one line or a list")


# For editors: what the validators before the types let in.
_WORDS_SCHEMA = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
        {"type": "null"},
    ],
    "default": None,
}


class Objective(Model):
    """What is trained: a Python function, or a program.

    `python: "module:function"` stands beside the sweep file. `command:` is a program with its arguments, a list or one
    line; `{lr}` in it becomes the trial's value of `lr`, `{max_steps}`, `{seed}`, `{number}`, `{device}` and
    `{checkpoint_dir}` what they say; they stand in LCSEARCH_MAX_STEPS and so on as well, all parameters as JSON in
    LCSEARCH_PARAMS. No shell reads them: a value is the argument, or the part of one, that it stands for, whatever it
    contains. The program reports by printing lines on its standard output, with the file's own names of step and
    metric: `epoch=3 val_loss=0.52`, `Epoch 3: val_loss: 0.52`, or JSON, `{"epoch": 3, "val_loss": 0.52}`. `pattern`
    takes other lines, a regular expression with the groups `step` and `value`, as in
    `'it (?P<step>\\d+) err (?P<value>\\S+)'`; a line with the step alone counts for the next one with a value.

    To end the program early, because its trial is stopped or the sweep interrupted, it is sent SIGTERM, and SIGKILL
    after `grace` seconds; so is what it has started and left behind, whenever it ends.
    """

    python: Annotated[str, Field(pattern=PYTHON_SPEC)] | None = None
    command: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...] | None, BeforeValidator(_words), WithJsonSchema(_WORDS_SCHEMA)
    ] = None
    grace: Annotated[float, Field(ge=0)] = 10.0
    pattern: Annotated[str, Field(min_length=1)] | None = None

    @field_validator("pattern")
    @classmethod
    def _finds_both(cls, pattern: str | None) -> str | None:
        try:
            named = set() if pattern is None else set(re.compile(pattern).groupindex)
        except (re.error, RecursionError, OverflowError) as error:
            raise expected(f"a regular expression ({error})") from error
        if pattern is not None and not {"step", "value"} <= named:
            raise expected("a regular expression with the groups (?P<step>...) and (?P<value>...)")
        return pattern

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.python is None) == (self.command is None):
            raise expected("one of python and command")
        return self
