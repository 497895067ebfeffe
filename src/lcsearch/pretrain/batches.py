"""Batches of studies in the order of the steps, drawn between the steps or ahead of them by other processes."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import numpy as np
import torch

from lcsearch.errors import EnvironmentProblem
from lcsearch.forecast.network.studies import Studies
from lcsearch.pretrain.randomness import generator_of

Source = Callable[[torch.Generator, int], Studies]
"""(generator, n) -> n studies. It must draw from the generator alone."""

AHEAD = 3
"""Batches that every process has in hand."""


def batch_of(source: Source, seed: int, step: int, n: int) -> Studies:
    """The studies of one step: a function of seed and step alone, drawn on the CPU whatever trains on them."""
    return source(generator_of(seed, step, "data"), n)


def mix(prior: Source, real: Source, share: float) -> Source:
    """Whole batches from `real` with probability `share`, from `prior` otherwise."""
    return _Mixed(prior, real, share)


class _Mixed:
    """A class, not a closure: processes that draw ahead are sent it."""

    def __init__(self, prior: Source, real: Source, share: float) -> None:
        self._prior, self._real, self._share = prior, real, share

    def __call__(self, generator: torch.Generator, n: int) -> Studies:
        real = bool(torch.rand((), generator=generator) < self._share)
        return (self._real if real else self._prior)(generator, n)


@contextmanager
def feed(source: Source, *, seed: int, n: int, first: int, last: int, workers: int) -> Iterator[Iterator[Studies]]:
    """Batches of the steps `first` to `last` (included), the same ones for any number of `workers`.

    Args:
        workers: processes; a source that is sent to them can be pickled. 0: drawn when asked for.

    Raises:
        EnvironmentProblem: (from the iterator) a process died.
    """
    if not workers:
        yield (batch_of(source, seed, step, n) for step in range(first, last + 1))
        return
    # spawn: a forked child of a process with a GPU context cannot be trusted
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin, (source,)) as pool:
        try:
            yield _ahead(pool, seed, n, first, last, workers)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _ahead(pool: ProcessPoolExecutor, seed: int, n: int, first: int, last: int, workers: int) -> Iterator[Studies]:
    waiting: deque[Future[dict[str, Any]]] = deque()
    steps = iter(range(first, last + 1))
    try:
        while True:
            while len(waiting) < AHEAD * workers and (step := next(steps, None)) is not None:
                waiting.append(pool.submit(_draw, seed, step, n))
            if not waiting:
                return
            arrays = waiting.popleft().result()
            yield Studies(**{name: torch.from_numpy(array) for name, array in arrays.items()})
    except BrokenProcessPool as error:
        text = "expected the processes that draw batches to live, got one that died (out of memory?)."
        raise EnvironmentProblem(f"{text} Try again with fewer `workers` in the recipe.") from error


_SOURCE: list[Source] = []  # of the process that draws ahead; the pool's initializer cannot return anything


def _begin(source: Source) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent ends us
    torch.set_num_threads(1)
    _SOURCE[:] = [source]


def _draw(seed: int, step: int, n: int) -> dict[str, np.ndarray[Any, Any]]:
    # Arrays: torch would send every tensor through a file descriptor of its own.
    studies = batch_of(_SOURCE[0], seed, step, n)
    return {field.name: getattr(studies, field.name).numpy() for field in fields(studies)}
