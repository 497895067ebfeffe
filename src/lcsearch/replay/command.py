"""`lcsearch replay`: read a study, replay it, say what came of it, draw the plots. Only the plots are written."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lcsearch.errors import EnvironmentProblem, InvalidValue
from lcsearch.replay.policies import entrant
from lcsearch.replay.readers import read
from lcsearch.replay.whatif import ORDERS, Replay, replay, usual_orders
from lcsearch.replay.words import compared, summary


def show(
    where: str,
    policies: Sequence[str],
    wish: Mapping[str, Any],
    *,
    orders: int | None = None,
    workers: int = 1,
    out: Path | None = None,
) -> Iterator[str]:
    """Replay a study; yields paragraphs as they are ready.

    Args:
        where: see :func:`~lcsearch.replay.readers.read`.
        policies: see :func:`~lcsearch.replay.policies.entrant`.
        wish: further arguments of the reader.
        orders: random orders of the trials; None: see :func:`~lcsearch.replay.whatif.usual_orders`.
        workers: trials at once.
        out: folder for the plots, never in the study; None: replay/ and the name of the study's folder, or its own.

    Raises:
        LcsearchError: an argument, the study or the folder is not as needed; told before anything is searched.
    """
    for name, value, high in (("--orders", orders, None), ("--workers", workers, 64)):
        if value is not None and (value < 1 or (high is not None and value > high)):
            raise InvalidValue("a number >= 1" if high is None else f"1 to {high}", value, name)
    entrants = [entrant(text) for text in policies]
    twice = next((text for text in policies if policies.count(text) > 1), None)
    if twice is not None:
        raise InvalidValue("every policy once", twice, "--policy")
    found = read(where, **wish)
    for one in entrants:
        one.make(found.task)  # what does not fit is told before anything runs
    local = "://" not in where and Path(where).is_dir()
    name = re.sub(r"[^\w.-]+", "-", Path(where).resolve().name if local else found.task.name).strip(".") or "study"
    folder = _folder(out or Path("replay") / name, where)
    yield "\n".join([f"read {found.source}", *found.left_out])
    n = usual_orders(found.task) if orders is None else orders
    counter = _Counter() if sys.stderr.isatty() else None
    try:
        played = replay(found.task, entrants, orders=n, workers=workers, progress=counter)
    finally:
        if counter is not None:
            counter.clear()
    yield "\n" + summary(played)
    if orders is None and n < ORDERS[1]:
        yield f"Only {n} orders, for the study is large; --orders {ORDERS[1]} takes {ORDERS[1] / n:.2g} times as long."
    if text := compared(played):
        yield "\n" + text
    made = draw(played, folder)
    yield "\n" + ("\n".join(f"wrote {path}" for path in made) or "No plot: there is nothing to show.")


def _folder(path: Path, where: str) -> Path:
    """The folder, made.

    Raises:
        InvalidValue: it lies in the study.
        EnvironmentProblem: it cannot be made.
    """
    if "://" not in where and Path(where).is_dir() and path.resolve().is_relative_to(Path(where).resolve()):
        raise InvalidValue("a folder outside the study, which is only read", str(path), "--out")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from error
    return path


def _unwritable(path: Path, error: OSError) -> EnvironmentProblem:
    text = f"{path}: expected a folder that can be written, got {error.strerror or error}."
    return EnvironmentProblem(f"{text} Choose another with --out.")


def draw(found: Replay, folder: Path) -> list[Path]:
    """Write the plots there are: no frontier where nobody knows the best, no curves where no policies differ.

    Raises:
        EnvironmentProblem: the folder cannot be written.
    """
    from lcsearch.replay import plots

    made = []
    try:
        for name, figure in (("frontier", plots.frontier(found)), ("disagreement", plots.disagreement(found))):
            path = folder / f"{name}.png"
            if figure is None:
                path.unlink(missing_ok=True)  # one of an earlier replay would be taken for this one's
            else:
                figure.savefig(path)
                made.append(path)
    except OSError as error:
        raise _unwritable(folder, error) from error
    return made


class _Counter:
    """A line on standard error that counts up."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        left = (time.monotonic() - self._start) / done * (total - done)
        text = f"{done} of {total} searches, about {left:.0f} s left"
        print(f"\r{text:50}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Take the line away."""
        print("\r" + " " * 50 + "\r", end="", file=sys.stderr, flush=True)
