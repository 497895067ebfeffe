"""What a launch needs, looked at before anything is made: devices, the program, an objective that imports."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from lcsearch.errors import EnvironmentProblem, FileProblem
from lcsearch.sweep.objective import context
from lcsearch.sweep.objective.context import load_objective
from lcsearch.sweep.spec.references import locate

if TYPE_CHECKING:
    from lcsearch.sweep.spec.load import Sweep


def check(sweep: Sweep, *, resume: bool = False) -> None:
    """Look at what can be seen from here; what other machines of a cluster have, cannot.

    Raises:
        EnvironmentProblem: a device or the program is missing.
        FileProblem: the objective does not import; not looked at on a resume, where nothing is made.
    """
    from lcsearch.sweep.runtime.processes import check_devices

    file, folder = sweep.file, sweep.path.parent
    if file.backend.kind == "optuna":
        check_devices(file.backend.workers)
    if file.backend.address != "local":
        return
    if file.objective.command is not None:
        check_program(file.objective.command[0], folder)
    elif file.objective.python is not None and not resume:
        _check_import(file.objective.python, folder)


def check_program(name: str, folder: Path) -> None:
    """Is there such a program here, on PATH or from the sweep file's folder?

    Raises:
        EnvironmentProblem: there is none.
    """
    if "{" in name:
        return  # which one it is depends on the trial
    path = folder / name
    if os.sep not in name:
        got = None if shutil.which(name) else "none of that name on PATH"
    elif not path.is_file():
        got = f"no such file ({path})"
    else:
        got = None if os.access(path, os.X_OK) else f"a file that may not be executed ({path})"
    if got is not None:
        raise EnvironmentProblem(f"objective.command: expected the program '{name}', got {got}.")


def _check_import(spec: str, folder: Path) -> None:
    """In a process of its own: an import may start threads, take a GPU, or crash."""
    from lcsearch.sweep.objective.program import how_ended

    with (
        tempfile.TemporaryDirectory() as at,
        tempfile.TemporaryFile("w+", errors="replace") as said,  # no pipe: what the import has started may keep it
    ):
        problem = Path(at, "problem")
        run = "from lcsearch.sweep.runtime.preflight import try_import; "
        run += f"try_import({spec!r}, {str(folder)!r}, {str(problem)!r})"
        code = subprocess.run(
            [sys.executable, "-c", run], stdin=subprocess.DEVNULL, stdout=said, stderr=said
        ).returncode
        if code == 0:
            return
        said.seek(0)
        printed = said.read()
        text = problem.read_text("utf-8", errors="replace") if problem.exists() else ""
    if not text:
        last = (printed.strip().splitlines() or ["nothing"])[-1]
        how = f"{how_ended(code)}; it said last: {last[:200]}"
        text = f"{locate(spec, folder)[0]}: expected a module that imports, got a process that ended with {how}"
    raise FileProblem(text)


def try_import(spec: str, folder: str, problem: str) -> None:
    """Import the objective and end this process; what went wrong is written to the file `problem`, with the user's
    part of the traceback.
    """
    code = 0
    try:
        load_objective(spec, Path(folder))
    except FileProblem as error:
        code, text, cause = 2, str(error), error.__cause__
        if cause is not None:
            trace = cause.__traceback__
            while trace is not None and _is_machinery(trace.tb_frame.f_code.co_filename):
                trace = trace.tb_next
            text += "\n" + "".join(traceback.format_exception(cause.with_traceback(trace))).rstrip()
        Path(problem).write_text(text, "utf-8", errors="replace")
    os._exit(code)  # threads of the import may never end


def _is_machinery(file: str) -> bool:
    return file in (context.__file__, __file__) or "importlib" in file
