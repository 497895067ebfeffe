"""`lcsearch replay`: read a study, replay it, say what came of it, draw the plots. Only the plots are written."""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from lcsearch.data.readers import read
from lcsearch.errors import EnvironmentProblem, InvalidValue
from lcsearch.replay.policies import policy_spec
from lcsearch.replay.processes import cores
from lcsearch.replay.text import compared, summary
from lcsearch.replay.whatif import ROUND, Replay, rounds

MOST, SECONDS = 20, 60.0
"""Random orders, unless somebody says otherwise: so many, or as many as fit into so many seconds."""
REFRESH_S = 0.2


def show(
    where: str,
    policies: Sequence[str],
    wish: Mapping[str, Any],
    *,
    orders: int | None = None,
    workers: int = 1,
    processes: int | None = None,
    out: Path | None = None,
) -> Iterator[str]:
    """Replay a study; yields paragraphs as they are ready.

    Args:
        where: see :func:`~lcsearch.data.readers.read`.
        policies: see :func:`~lcsearch.replay.policies.policy_spec`.
        wish: further arguments of the reader.
        orders: random orders of the trials; None: MOST, or as many as SECONDS allow.
        workers: trials at once.
        processes: that search at most; None: one a processor. What comes out is the same.
        out: folder for the plots, never in the study; None: replay/ and the name of the study's folder, or its own.

    Raises:
        LcsearchError: an argument, the study or the folder is not as needed; told before anything is searched.
        KeyboardInterrupt: interrupted; after what was searched by then has been shown, if that is one round at least.
    """
    for name, value, high in (("--orders", orders, None), ("--workers", workers, 64), ("--processes", processes, None)):
        if value is not None and (value < 1 or (high is not None and value > high)):
            raise InvalidValue("a number >= 1" if high is None else f"1 to {high}", value, name)
    entrants = [policy_spec(text) for text in policies]
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
    most = MOST if orders is None else orders
    counter = _Counter(most) if sys.stderr.isatty() else None
    by = processes or cores()
    searched = rounds(found.task, entrants, orders=most, workers=workers, progress=counter, processes=by)
    with closing(searched):
        played, cut_short, interrupted = _as_time_allows(searched, None if orders else SECONDS, most, by)
    if counter is not None:
        counter.clear()
    yield "\n" + summary(played)
    if cut_short:
        yield cut_short
    if text := compared(played):
        yield "\n" + text
    made = draw(played, folder)
    yield "\n" + ("\n".join(f"wrote {path}" for path in made) or "No plot: there is nothing to show.")
    if interrupted:
        raise KeyboardInterrupt


def _as_time_allows(
    found: Iterator[Replay], seconds: float | None, most: int, processes: int
) -> tuple[Replay, str, bool]:
    """The last replay that could be made, in words why it was not that of all orders ("" when it was), and whether an
    interrupt was why.

    Another round is begun when it should end within `seconds`; None: whatever it takes. An interrupt ends it when there
    is something to show, else it goes through.
    """
    start, last = time.monotonic(), None
    try:
        for last in found:
            took, n = time.monotonic() - start, last.points[0].orders

            def expected(orders: int, took: float = took, n: int = n, last: Replay = last) -> float:
                ways = [min(processes, math.ceil(k / ROUND)) for k in (n, orders)]
                return max(took * last.searches(orders) / last.searches(n) * ways[0] / ways[1], took)

            if n < most and seconds is not None and expected(2 * n) > seconds:
                left = f"--orders {most} takes about {expected(most):.0f} s"
                return last, f"Only {n} orders, for they took {took:.0f} s; {left}.", False
    except KeyboardInterrupt:
        if last is None:
            raise
        return last, f"Interrupted after {last.points[0].orders} of {most} random orders.", True
    assert last is not None
    return last, "", False


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

    def __init__(self, most: int) -> None:
        self._start = self._told = time.monotonic()
        self._most, self._width = most, 0
        self._print(f"searching {most} random orders; Ctrl-C shows what there is by then")

    def __call__(self, done: int, total: int, end: int) -> None:
        now = time.monotonic()
        if now - self._told < REFRESH_S or not done:
            return
        self._told = now
        left = (now - self._start) * (total / done - 1.0)
        more = f", then up to {self._most}" if end < self._most else ""
        self._print(f"random orders up to {end}{more}: {100 * done // total} %, about {left:.0f} s left")

    def _print(self, text: str) -> None:
        print(f"\r{text:{self._width}}", end="", file=sys.stderr, flush=True)
        self._width = len(text)

    def clear(self) -> None:
        """Take the line away."""
        print("\r" + " " * self._width + "\r", end="", file=sys.stderr, flush=True)
