"""Read and check a sweep file: every error at once, each with its place; nothing is imported or started."""

from __future__ import annotations

import ast
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from lcsearch.allocation.groups import RUNG
from lcsearch.errors import FileProblem, InvalidValue
from lcsearch.secrets_in_urls import mask
from lcsearch.sweep.spec.distributions import Choice, Int, LogInt, LogUniform, Parameter, Uniform
from lcsearch.sweep.spec.messages import OWN
from lcsearch.sweep.spec.model import SchedulePlan, SweepFile
from lcsearch.sweep.spec.objective import PYTHON_SPEC
from lcsearch.sweep.spec.placeholders import OFFERED, placeholders
from lcsearch.sweep.spec.pruner import PRUNERS, RAY_PRUNERS
from lcsearch.sweep.spec.references import locate
from lcsearch.sweep.spec.space import build_schedule, is_same
from lcsearch.sweep.spec.strict import Model
from lcsearch.yaml_file import messages
from lcsearch.yaml_file.document import Document, parse
from lcsearch.yaml_file.reading import read_model

_SHELLS = {"sh", "bash", "dash", "zsh", "ksh"}  # in which "$1" is the first argument
_PARAMETER: TypeAdapter[Any] = TypeAdapter(Parameter)


@dataclass(frozen=True)
class Sweep:
    """A checked sweep file.

    Attributes:
        file: the sweep file's values, defaults filled in.
        path: where it stands; the objective is resolved beside it.
        text: its text as read.
    """

    file: SweepFile
    path: Path
    text: str

    def override(self, keys: Sequence[str] = (), **options: Any) -> Sweep:
        """The same sweep with values set from the command line.

        Args:
            keys: `key.sub=value`, the value as the file would have it; only keys that the file can hold.
            options: some of `seed`, `trials`, `workers`, `pruner` (a kind); None: as it is.

        Raises:
            FileProblem: a value the file would not take either; one line for each, with the override or option.
        """
        changes = [(f"override '{mask(text)}'", *_split(text)) for text in keys]
        for option, value in options.items():
            if value is not None:
                changes.append((f"--{option}", _OPTIONS.get(option, (option,)), Document(value)))
        data, told = self.file.model_dump(mode="python", by_alias=True), dict[int, str]()
        for i, (label, place, read) in sorted(enumerate(changes), key=lambda change: _turn(*change[1][1:])):
            try:
                if not place:
                    raise FileProblem("expected key=value with the value as in the file, as in budget.trials=20.")
                if read.problems:
                    raise FileProblem(read.problems[0].text)
                changed = _changed(data, place, read.value)
                if place in _EITHER and read.value is not None:
                    changed = _changed(changed, _EITHER[place], None)
                # whole again, the defaults of what the change brought in with it: the next may set one of them
                data = SweepFile.model_validate(changed).model_dump(mode="python", by_alias=True)
            except ValidationError as error:
                if _is_told_with_its_place(item := error.errors()[0]):
                    data = changed
                else:
                    told[i] = f"{label}: {messages.explain(item, changed, SweepFile, OWN)[1]}"
            except FileProblem as error:
                told[i] = f"{label}: {error}"
        whole = Document(value=data)
        _cross_check(whole, self.path.parent)
        blamed = changes[0][0] if len(changes) == 1 else "overrides together"
        problems = [told[i] for i in sorted(told)]
        problems += [f"{blamed}: at {problem.where}: {problem.text}" for problem in whole.problems]
        if problems:
            raise FileProblem("\n".join(problems))
        return replace(self, file=SweepFile.model_validate(data))


_OPTIONS = {"trials": ("budget", "trials"), "workers": ("backend", "workers", "n"), "pruner": ("pruner", "kind")}


_PYTHON, _COMMAND = ("objective", "python"), ("objective", "command")
_EITHER = {_PYTHON: _COMMAND, _COMMAND: _PYTHON}  # one takes the other's place


def _split(text: str) -> tuple[tuple[str, ...], Document]:
    """`("budget", "trials")` and the value of `budget.trials=20`; no place for what is no override."""
    key, equals, raw = text.partition("=")
    place = tuple(key.split(".")) if equals and key else ()
    return _RENAMED.get(place, place), parse(raw)


_RENAMED: dict[tuple[str, ...], tuple[str, ...]] = {("pruner", "opinions"): ("pruner", "forecasters")}
"""Keys as earlier versions called them: files may still say them."""


def _turn(place: tuple[str, ...], read: Document) -> int:
    """Another kind comes first, for it has other knobs; what takes a key away last, for another may take its place."""
    return 0 if place[-1:] == ("kind",) else 1 if read.value is not None else 2


def _changed(data: dict[str, Any], place: tuple[str, ...], value: Any) -> dict[str, Any]:
    """`data` with `value` at `place`.

    Raises:
        FileProblem: there is no such key.
    """
    # a parameter's name may have dots itself: the longest that is a key
    n = next((n for n in range(len(place), 0, -1) if ".".join(place[:n]) in data), 0)
    if not n:
        key = ".".join(place) if any("." in known for known in data) else place[0]
        hint = messages.did_you_mean(key, data)
        raise FileProblem(f"expected one of {', '.join(data)}, got '{key}'.{hint}")
    key, rest = ".".join(place[:n]), place[n:]
    if not rest:
        # another kind of pruner has other knobs; the same kind keeps those of the file
        other = key == "kind" and value != data[key] and "workers" not in data
        return {"kind": value} if other else {**data, key: value}
    if not isinstance(data[key], dict):
        raise FileProblem(
            f"expected no key below '{key}', which is {messages.show(data[key])}, got '{'.'.join(rest)}'."
        )
    return {**data, key: _changed(data[key], rest, value)}


def load(path: str | Path) -> Sweep:
    """Read `path` and check it whole, the objective's file and function included.

    Raises:
        FileProblem: one line for each problem, in the order of the file:
            `file:line:column: at $.space.lr: expected ..., got .... Did you mean ...?`
    """
    path = Path(path)

    def check(document: Document) -> None:
        _cross_check(document, path.parent)

    file, text = read_model(path, "a sweep file", SweepFile, check, _is_reported, OWN)
    return Sweep(file, path.resolve(), text)


class _SpaceFile(Model):
    """What is read of a file for its space alone."""

    model_config = ConfigDict(extra="ignore")

    space: Annotated[dict[str, Parameter], Field(min_length=1)]


def load_space(path: str | Path) -> dict[str, Parameter]:
    """The search space of a sweep file, or of any YAML file that has one under `space:`; the rest of it may be wrong.

    Raises:
        FileProblem: as :func:`load`.
    """
    what = "a sweep file, or another with a `space:`"
    return read_model(Path(path), what, _SpaceFile, _check_conditions, own=OWN)[0].space


def _is_reported(error: ErrorDetails) -> bool:
    """Is there a better word for it already?"""
    if error["type"] == "too_short" and error["input"]:
        return True  # its entries were wrong, each is reported
    return _is_told_with_its_place(error)


def _is_told_with_its_place(error: ErrorDetails) -> bool:
    """Is it the model's own check across keys? :func:`_check_schedule` says it better."""
    return error["type"] == "value_error" and not error["loc"]


def _cross_check(document: Document, folder: Path) -> None:
    """What one key says of another, or of a file."""
    _check_schedule(document)
    _check_conditions(document)
    _check_objective(document, folder)
    _check_command(document)
    value = document.value
    problems = (*_ray_problems(value), *_pause_problems(value), *_finish_problems(value), *_group_problems(value))
    for place, said in problems:
        document.report(place, said)


def _group_problems(value: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Groups are by rung, or by a parameter that there is."""
    spec, space = value.get("allocator"), value.get("space")
    name = spec.get("groups") if isinstance(spec, dict) else None
    if isinstance(name, str) and name != RUNG and isinstance(space, dict) and name not in space:
        hint = messages.did_you_mean(name, space)
        text = f"expected '{RUNG}' or a parameter of space ({', '.join(space)}), got '{name}'.{hint}"
        yield ("allocator", "groups"), text


def _finish_problems(value: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    """A finish needs a risk, which only the curve pruner's stops have, and the checkpoints of all stopped trials."""
    if value.get("finish") is None:
        return
    place = ("finish",)
    pruner, backend = value.get("pruner"), value.get("backend") or {}
    kind = pruner.get("kind", "curve") if isinstance(pruner, dict) else pruner or "curve"
    if kind != "curve":
        yield (
            place,
            f"expected `pruner: {{kind: curve}}` with it, got {kind}: nothing is known of the risk of its stops.",
        )
    if isinstance(backend, dict) and backend.get("storage") is not None:
        text = "expected none for a study that machines may share, got backend.storage."
        yield place, f"{text} Call `lcsearch finish RUN` when all have ended."


def _check_schedule(document: Document) -> None:
    """Every `{param: NAME}` names a parameter, and all it can draw makes a schedule."""
    plan, space = document.value.get("schedule"), document.value.get("space")
    if not isinstance(plan, dict) or not isinstance(space, dict):
        return
    drawn: dict[str, tuple[Any, ...]] = {}  # entry -> the values that matter: ends of a range, all options
    for entry, value in plan.items():
        if entry not in SchedulePlan.model_fields:
            continue  # an unknown key is reported by the model
        if not isinstance(value, dict):
            drawn[entry] = (value,)
        elif isinstance(name := value.get("param"), str) and _conditional(space.get(name)):
            document.report(("schedule", entry, "param"), f"expected a parameter that every trial has, got '{name}'.")
        elif isinstance(name, str) and name in space:
            drawn[entry] = _extremes(space[name])
        elif isinstance(name, str):
            names = ", ".join(space)
            hint = messages.did_you_mean(name, space)
            text = f"expected a parameter of space ({names}), got '{name}'.{hint}"
            document.report(("schedule", entry, "param"), text)
    fine: dict[str, Any] = {"shape": "constant", "peak": 1.0}
    for entry, values in drawn.items():
        for value in values:
            try:
                build_schedule(SchedulePlan.model_construct(**{**fine, entry: value}), {}, 1)
            except InvalidValue as error:
                if isinstance(plan[entry], dict):
                    name = plan[entry]["param"]
                    text = f"expected {error.expected}, got {messages.show(value)} from space.{name}."
                elif isinstance(value, (int, float)) and not isinstance(value, bool):
                    text = f"expected {error.expected}, got {messages.show(value)}."
                else:
                    break  # the model reports the type
                document.report(("schedule", entry), text)
                break
            except TypeError:  # text where a number belongs
                if isinstance(plan[entry], dict):
                    name = plan[entry]["param"]
                    text = f"expected a number, got {messages.show(value)} from space.{name}."
                    document.report(("schedule", entry), text)
                break


def _conditional(parameter: Any) -> bool:
    return isinstance(parameter, Mapping) and bool(parameter.get("when"))


def _check_conditions(document: Document) -> None:
    """Every `when` names parameters above its own, and values that they can take."""
    space = document.value.get("space")
    above: dict[str, Any] = {}
    for name, parameter in space.items() if isinstance(space, dict) else ():
        conditions = parameter.get("when") if isinstance(parameter, Mapping) else None
        for other, wanted in conditions.items() if isinstance(conditions, Mapping) else ():
            place: tuple[str | int, ...] = ("space", name, "when", other)
            if other not in above:
                listed = ", ".join(above) or "none"
                hint = messages.did_you_mean(other, above)
                document.report(place, f"expected a parameter above it ({listed}), got '{other}'.{hint}", key=True)
                continue
            possible = _possible(above[other])
            for value in wanted if isinstance(wanted, tuple) else (wanted,):
                if possible is not None and not possible[1](value):
                    text = f"expected a value that '{other}' can take ({possible[0]}), got {messages.show(value)}."
                    document.report(place, text)
        above[name] = parameter


def _possible(raw: Any) -> tuple[str, Callable[[Any], bool]] | None:
    """What a parameter can draw, in words and as a test; None where the parameter is wrong itself."""
    try:
        parameter = _PARAMETER.validate_python(raw)
    except ValidationError:
        return None
    match parameter:
        case Uniform(bounds=(low, high)) | LogUniform(bounds=(low, high)):
            whole = False
        case Int(bounds=(low, high)) | LogInt(bounds=(low, high)):
            whole = True
        case _:
            options = parameter.options if isinstance(parameter, Choice) else (parameter,)
            return ", ".join(map(messages.show, options)), lambda value: any(is_same(value, p) for p in options)

    def within(value: Any) -> bool:
        kind = int if whole else (int, float)
        return isinstance(value, kind) and not isinstance(value, bool) and low <= value <= high

    return f"{low!r} to {high!r}", within


def _check_command(document: Document) -> None:
    """Every `{name}` of a command is a parameter that all trials have, or one of what is offered."""
    objective, space = document.value.get("objective"), document.value.get("space")
    command = objective.get("command") if isinstance(objective, Mapping) else None
    if isinstance(objective, Mapping) and objective.get("pattern") is not None and command is None:
        document.report(("objective", "pattern"), "expected no pattern without a command, got one.")
    if not isinstance(space, Mapping) or not isinstance(command, (str, tuple)):
        return
    parts = (
        {("objective", "command"): command}
        if isinstance(command, str)
        else {("objective", "command", i): part for i, part in enumerate(command) if isinstance(part, str)}
    )
    known = [*(name for name, parameter in space.items() if not _conditional(parameter)), *OFFERED]
    for place, part in parts.items():
        try:
            names = placeholders(part)
        except ValueError as error:
            document.report(place, f"expected {{name}} and, for braces themselves, {{{{ and }}}}, got {error}.")
            continue
        for name in names:
            if name not in known:
                hint = messages.did_you_mean(name, known)
                text = "a parameter that every trial has" if name in space else f"one of {', '.join(known)}"
                document.report(place, f"expected {text}, got {{{name}}}.{hint}")
    _check_arguments(document, parts, space)


def _check_arguments(document: Document, parts: Mapping[Any, str], space: Mapping[str, Any]) -> None:
    """What no argument can be, and what a shell would read again: `sh -c` takes its script as one argument."""
    command = document.value["objective"]["command"]
    try:
        listed = shlex.split(command) if isinstance(command, str) else [str(part) for part in command]
    except ValueError:
        return  # reported by the model
    shell = os.path.basename(listed[0]) in _SHELLS if listed else False
    flag = next((i for i, part in enumerate(listed) if re.fullmatch(r"-[a-z]*c", part)), None) if shell else None
    script = listed[flag + 1] if flag is not None and flag + 1 < len(listed) else ""
    for place, part in parts.items():
        inside = part if isinstance(command, tuple) else script
        for name, value in ((n, v) for n in _named(part) for v in _texts(space.get(n))):
            if "\0" in value:
                document.report(place, f"expected values that a program can be given, got a NUL in '{name}'.")
            elif inside == script and name in _named(script) and shlex.quote(value) != value:
                text = (
                    f"expected no {{{name}}} within a shell's script, for the shell reads {messages.show(value)} itself"
                )
                document.report(place, f"{text}, got one. Hand it over: {listed[0]} -c 'prog \"$1\"' sh {{{name}}}")
                break


def _named(part: str) -> list[str]:
    try:
        return placeholders(part)
    except ValueError:
        return []


def _texts(raw: Any) -> list[str]:
    """The texts that a parameter can be."""
    options = raw.get("choice", ()) if isinstance(raw, Mapping) else (raw,)
    return [value for value in options if isinstance(value, str)] if isinstance(options, (list, tuple)) else []


def _ray_problems(raw: Mapping[str, Any]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """(path, text) of what does not go together with the backend's kind; the model reports what is wrong by itself."""
    backend, pruner = raw.get("backend"), raw.get("pruner")
    if not isinstance(backend, Mapping):
        return
    if backend.get("kind", "optuna") == "optuna":
        if backend.get("address", "local") != "local":
            yield (
                ("backend", "address"),
                f"expected no address with kind optuna, got {messages.show(backend['address'])}.",
            )
        return
    if backend.get("kind") != "ray":
        return
    kind = pruner.get("kind", "curve") if isinstance(pruner, Mapping) else "curve"
    if kind in PRUNERS and kind not in RAY_PRUNERS:
        yield (
            ("pruner", "kind"),
            f"expected {' or '.join(RAY_PRUNERS)} with backend kind ray, got {messages.show(kind)}.",
        )
    workers = backend.get("workers")
    devices = workers.get("devices") if isinstance(workers, Mapping) else None
    if isinstance(workers, Mapping) and workers.get("stall") is not None:
        yield ("backend", "workers", "stall"), f"expected none with kind ray, got {messages.show(workers['stall'])}."
    if isinstance(devices, (list, tuple)) and (len(devices) > 1 or str(devices[0]).startswith("cuda:")):
        place = ("backend", "workers", "devices")
        yield (
            place,
            f"expected [cpu] or [cuda] with kind ray, which deals out GPUs itself, got {messages.show(devices)}.",
        )


def _pause_problems(raw: Mapping[str, Any]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """(path, text) of what does not go together with pausing, or without it."""
    if raw.get("pause", False) is False:
        for key in ("allocator", "checkpoints"):
            if raw.get(key) is not None:
                text = f"expected none without pausing, got one. Add `pause: true`, or take `{key}` away."
                yield (key,), text
        return
    if raw["pause"] is not True:
        return
    backend, objective = raw.get("backend"), raw.get("objective")
    if isinstance(objective, Mapping) and objective.get("command") is not None:
        text = "expected no pausing of a program, got true: lcsearch cannot tell it yet when to save and end."
        yield ("pause",), f"{text} Give `objective: {{python: ...}}`, or take `pause` away."
    if isinstance(backend, Mapping) and backend.get("kind") == "ray":
        text = "expected no pausing with backend kind ray, got true: sweeps cannot do it there yet."
        yield ("pause",), f"{text} Take `pause` away, or train with `kind: optuna`."


def _extremes(raw: Any) -> tuple[Any, ...]:
    try:
        parameter = _PARAMETER.validate_python(raw)
    except ValidationError:
        return ()  # reported where it stands
    match parameter:
        case Choice(options=options):
            return options
        case Uniform(bounds=bounds) | LogUniform(bounds=bounds) | Int(bounds=bounds) | LogInt(bounds=bounds):
            return bounds
        case _:
            return (parameter,)


def _check_objective(document: Document, folder: Path) -> None:
    """The objective's file is there, parses, and has the function; it is not imported here (that may be slow)."""
    path = ("objective", "python")
    objective = document.value.get("objective")
    spec = objective.get("python") if isinstance(objective, dict) else None
    if not isinstance(spec, str) or not re.fullmatch(PYTHON_SPEC, spec):
        return  # the model reports it
    module, function = locate(spec, folder)
    if not module.is_file():
        near = messages.did_you_mean(module.name, [p.name for p in module.parent.glob("*.py")])
        document.report(path, f"expected the module file {module}, got no such file.{near}")
        return
    try:
        tree = ast.parse(module.read_text(encoding="utf-8"), filename=str(module))
    except (SyntaxError, UnicodeDecodeError, OSError) as error:
        document.report(path, f"expected a Python file, got {error}.")
        return
    names = _top_level_names(tree)
    if function not in names and "*" not in names:
        near = messages.did_you_mean(function, names)
        document.report(path, f"expected a function '{function}' in {module}, got none.{near}")


def _top_level_names(tree: ast.Module) -> set[str]:
    """Names a module binds, branches of `if` and `try` included; '*' after a star import."""
    names: set[str] = set()
    todo: list[ast.stmt] = list(tree.body)
    for node in todo:  # grows while it is read
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names.update((alias.asname or alias.name).partition(".")[0] for alias in aliases)
            case ast.Assign(targets=targets):
                names.update(t.id for target in targets for t in ast.walk(target) if isinstance(t, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
            case ast.If() | ast.Try() | ast.With():
                for block in ("body", "orelse", "finalbody"):
                    todo.extend(getattr(node, block, []))
                for handler in getattr(node, "handlers", []):
                    todo.extend(handler.body)
    return names
