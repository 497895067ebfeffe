"""Read and check a sweep file: every error at once, each with its place; nothing is imported or started."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from lcsearch.errors import FileProblem, InvalidValue
from lcsearch.sweep import words
from lcsearch.sweep.document import Document, parse
from lcsearch.sweep.file import (
    PRUNERS,
    PYTHON_SPEC,
    RAY_PRUNERS,
    Choice,
    Int,
    LogInt,
    LogUniform,
    Parameter,
    SchedulePlan,
    SweepFile,
    Uniform,
)
from lcsearch.sweep.objective import locate
from lcsearch.sweep.space import build_schedule

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

    def override(self, **overrides: Any) -> Sweep:
        """The same sweep with some of `seed`, `trials`, `workers`, `pruner` (a kind) set from the command line.

        Raises:
            FileProblem: a value the file would not take either; the message names the option.
        """
        data = self.file.model_dump(mode="python", by_alias=True)
        problems = []
        for option, value in overrides.items():
            if value is None:
                continue
            changed = {**data}
            match option:
                case "trials":
                    changed["budget"] = {**data["budget"], "trials": value}
                case "workers":
                    workers = {**data["backend"]["workers"], "n": value}
                    changed["backend"] = {**data["backend"], "workers": workers}
                case "pruner":
                    # the same kind keeps the file's knobs
                    changed["pruner"] = data["pruner"] if data["pruner"]["kind"] == value else {"kind": value}
                case _:
                    changed[option] = value
            try:
                SweepFile.model_validate(changed)
                data = changed
            except ValidationError as error:
                _, text, _ = words.explain(error.errors()[0], changed)
                problems.append(f"--{option}: {text}")
        problems += [f"--pruner: {text}" for path, text in _ray_problems(data) if path[0] == "pruner"]
        if problems:
            raise FileProblem("\n".join(problems))
        return replace(self, file=SweepFile.model_validate(data))


def load(path: str | Path) -> Sweep:
    """Read `path` and check it whole, the objective's file and function included.

    Raises:
        FileProblem: one line for each problem, in the order of the file:
            `file:line:column: at $.space.lr: expected ..., got .... Did you mean ...?`
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FileProblem(f"{path}: expected a sweep file, got no such file.") from None
    except IsADirectoryError:
        raise FileProblem(f"{path}: expected a sweep file, got a folder.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise FileProblem(f"{path}: expected a readable UTF-8 text file, got {error}.") from error
    document = parse(text)
    unreadable = document.problems and document.value is None
    file = None if unreadable else _validate(document, path.parent)
    if file is None or document.problems:
        raise FileProblem("\n".join(problem.render(str(path)) for problem in sorted(set(document.problems))))
    return Sweep(file, path.resolve(), text)


def _validate(document: Document, folder: Path) -> SweepFile | None:
    """Model errors, then the checks across keys; all land in `document.problems`."""
    if not isinstance(document.value, dict):
        document.report((), f"expected a mapping of keys, got {words.show(document.value)}.")
        return None
    _check_schedule(document)
    _check_objective(document, folder)
    for place, said in _ray_problems(document.value):
        document.report(place, said)
    try:
        return SweepFile.model_validate(document.value)
    except ValidationError as error:
        for item in error.errors():
            if item["type"] == "value_error" and not item["loc"]:
                continue  # the model's own cross-check; _check_schedule says it with its place
            if item["type"] == "too_short" and item["input"]:
                continue  # its entries were wrong, each is reported
            path, text, at_key = words.explain(item, document.value)
            document.report(path, text, key=at_key)
        return None


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
        elif isinstance(name := value.get("param"), str) and name in space:
            drawn[entry] = _extremes(space[name])
        elif isinstance(name, str):
            names = ", ".join(space)
            hint = words.did_you_mean(name, space)
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
                    text = f"expected {error.expected}, got {words.show(value)} from space.{name}."
                elif isinstance(value, (int, float)) and not isinstance(value, bool):
                    text = f"expected {error.expected}, got {words.show(value)}."
                else:
                    break  # the model reports the type
                document.report(("schedule", entry), text)
                break
            except TypeError:  # text where a number belongs
                if isinstance(plan[entry], dict):
                    name = plan[entry]["param"]
                    text = f"expected a number, got {words.show(value)} from space.{name}."
                    document.report(("schedule", entry), text)
                break


def _ray_problems(raw: Mapping[str, Any]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """(path, text) of what does not go together with the backend's kind; the model reports what is wrong by itself."""
    backend, pruner = raw.get("backend"), raw.get("pruner")
    if not isinstance(backend, Mapping):
        return
    if backend.get("kind", "optuna") == "optuna":
        if backend.get("address", "local") != "local":
            yield ("backend", "address"), f"expected no address with kind optuna, got {words.show(backend['address'])}."
        return
    if backend.get("kind") != "ray":
        return
    kind = pruner.get("kind", "curve") if isinstance(pruner, Mapping) else "curve"
    if kind in PRUNERS and kind not in RAY_PRUNERS:
        yield ("pruner", "kind"), f"expected {' or '.join(RAY_PRUNERS)} with backend kind ray, got {words.show(kind)}."
    workers = backend.get("workers")
    devices = workers.get("devices") if isinstance(workers, Mapping) else None
    if isinstance(workers, Mapping) and workers.get("stall") is not None:
        yield ("backend", "workers", "stall"), f"expected none with kind ray, got {words.show(workers['stall'])}."
    if isinstance(devices, (list, tuple)) and (len(devices) > 1 or str(devices[0]).startswith("cuda:")):
        place = ("backend", "workers", "devices")
        yield place, f"expected [cpu] or [cuda] with kind ray, which deals out GPUs itself, got {words.show(devices)}."


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
        near = words.did_you_mean(module.name, [p.name for p in module.parent.glob("*.py")])
        document.report(path, f"expected the module file {module}, got no such file.{near}")
        return
    try:
        tree = ast.parse(module.read_text(encoding="utf-8"), filename=str(module))
    except (SyntaxError, UnicodeDecodeError, OSError) as error:
        document.report(path, f"expected a Python file, got {error}.")
        return
    names = _top_level_names(tree)
    if function not in names and "*" not in names:
        near = words.did_you_mean(function, names)
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
