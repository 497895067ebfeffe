"""Real curves as training data: studies drawn from tables of runs, each made into many by what it leaves unchanged.

What is predicted does not depend on the unit of the values or the steps, on the order of parameters, or on what a
metric is called. So a study may be cut at an earlier horizon, thinned, bent by a rising function, and shown without its
configurations, and remains a study that somebody could have run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from lcsearch.errors import InvalidValue
from lcsearch.forecast.network.studies import Studies

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FEWEST_RUNS, MOST_RUNS = 4, 100
TYPICAL_TRIALS = 24
FEWEST_REPORTS = 4
ENOUGH_RUNS = 1000
USEFUL_REPORTS = 10
MOST_PARAMS = 16
KEPT_BEST = 0.1
"""Share of the studies whose curves report the best value so far, as some loggers do."""
CONFIGURED = 0.7
"""Share of the studies that show their configurations."""
BEYOND = 1e30
"""Scaled values are clipped to this; float32 goes to 3e38."""
CONSTANT = 1e-12
"""A robust range below this share of the median's size is rounding."""


@dataclass(frozen=True, eq=False)
class RealTask:
    """Runs of one objective, reported at the same steps.

    Attributes:
        name: of the task.
        source: name of the table it comes from.
        steps: (S,) rising steps; they may begin at 0.
        losses: (R, S) lower is better; NaN (or infinite) is a report that was not finite.
        length: (R,) reports known of each run: how it would have gone on is not, where that is fewer than S.
        params: (R, D) as in `Studies`.
        kinds: (D,) as in `Studies`.

    Raises:
        InvalidValue: shapes that do not fit, too little to make a study of, or steps that do not rise.
    """

    name: str
    source: str
    steps: Floats
    losses: Floats
    length: Ints
    params: Floats
    kinds: Ints

    def __post_init__(self) -> None:
        where, (r, s) = f"RealTask({self.source}/{self.name})", self.losses.shape
        shapes = (self.steps.shape, self.length.shape, self.params.shape, self.kinds.shape)
        if shapes != ((s,), (r,), (r, self.params.shape[-1]), (self.params.shape[-1],)):
            raise InvalidValue(f"steps ({s},), length ({r},), params ({r}, D), kinds (D,)", shapes, where)
        if not (np.isfinite(self.steps).all() and (np.diff(self.steps) > 0).all() and self.steps[0] >= 0):
            raise InvalidValue("finite steps >= 0 that rise", self.steps.tolist(), f"{where}.steps")
        if self.natural < FEWEST_REPORTS:
            text = f"at least {FEWEST_RUNS} runs of {FEWEST_REPORTS} reports"
            raise InvalidValue(text, f"{r} runs of {sorted(self.length.tolist())[-6:]}", where, "leave the task out")

    @cached_property
    def natural(self) -> int:
        """The largest number of reports that at least `FEWEST_RUNS` runs have; 0 for none."""
        if len(self.length) < FEWEST_RUNS:
            return 0
        return int(np.sort(self.length)[-FEWEST_RUNS])


@dataclass(frozen=True, eq=False)
class _Study:
    """One drawn study, in numpy: c trials of n reports."""

    steps: Floats
    loss: Floats
    params: Floats
    kinds: Ints


class RealCurves:
    """Draws batches of studies from real tasks.

    A batch has one class of lengths (up to 8, 16, 32, ... reports), so that little of it is padding; its first study's
    source decides which. Sources are equally likely, however many runs they have, but for those of fewer than
    `ENOUGH_RUNS` runs, which are drawn in proportion: they would be learned by heart.

    Args:
        tasks: at least one.
        longest: largest number of reports of a study; longer ones are thinned.

    Raises:
        InvalidValue: no task.
    """

    def __init__(self, tasks: Sequence[RealTask], longest: int = 256) -> None:
        if not tasks:
            raise InvalidValue("at least one task", 0, "RealCurves(tasks=)", "name a folder with tables of curves")
        self._tasks, self._longest = tuple(tasks), longest
        self._sources: dict[str, list[RealTask]] = {}
        for task in self._tasks:
            self._sources.setdefault(task.source, []).append(task)

    def draw(self, generator: torch.Generator, n: int) -> Studies:
        """About `n` studies of `TYPICAL_TRIALS`: more small ones, fewer large ones.

        `latent` and `rate` are NaN: nobody knows them; `reported` is the whole length.

        Args:
            generator: all randomness comes from it.
        """
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        chance = np.random.default_rng(seed)
        first = self._task(chance, FEWEST_REPORTS)
        wanted = self._length(chance, first)
        size = _class_of(wanted)
        trials = int(np.exp(chance.uniform(np.log(2 * FEWEST_RUNS), np.log(MOST_RUNS + 1))))
        least = min(size // 2 + 1, wanted)
        drawn = []
        with np.errstate(over="ignore"):  # a blow-up in units of a tiny range
            for k in range(balanced(n, trials)):
                task = self._task(chance, least) if k else first
                length = int(chance.integers(least, min(size, task.natural) + 1))
                drawn.append(_study(chance, task, length, trials))
        return _batch(drawn)

    __call__ = draw

    def _task(self, chance: np.random.Generator, least: int) -> RealTask:
        """One of those with `least` reports: first its source, then the task."""
        able = {s: fit for s, tasks in self._sources.items() if (fit := [t for t in tasks if t.natural >= least])}
        names = sorted(able)
        weights = np.array([min(sum(len(t.length) for t in self._sources[name]), ENOUGH_RUNS) for name in names])
        tasks = able[names[int(chance.choice(len(names), p=weights / weights.sum()))]]
        return tasks[int(chance.integers(len(tasks)))]

    def _length(self, chance: np.random.Generator, task: RealTask) -> int:
        """A number of reports that suits the task: most of its own, few of them when it is thinned."""
        every = 1 if chance.random() < 0.7 else int(chance.integers(2, 6))
        length = int(task.natural * chance.uniform(0.3, 1) / every)
        return int(np.clip(length, min(task.natural, USEFUL_REPORTS), self._longest))


def balanced(n: int, trials: int) -> int:
    """How many studies of so many trials cost about what `n` of `TYPICAL_TRIALS` do."""
    return min(max(round(n * TYPICAL_TRIALS / trials), 1), 2 * n)


def _class_of(length: int) -> int:
    """The power of two, at least 8, that a length is padded to."""
    return int(max(8, 2 ** int(np.ceil(np.log2(length)))))


def _study(chance: np.random.Generator, task: RealTask, length: int, trials: int) -> _Study:
    """`length` reports of at most `trials` runs, made strange."""
    # The horizon lies at 30 to 100 % of the task's reports where it can: every k-th report of so many.
    fewest = int(np.ceil(0.3 * task.natural / length))
    every = int(chance.integers(fewest, task.natural // length + 1)) if fewest * length <= task.natural else 1
    kept = every * np.arange(1, length + 1) - 1
    able = np.flatnonzero(task.length > kept[-1])
    order = chance.permutation(able)
    # Some run has a finite report: a study of which nothing can be said teaches nothing.
    alive = np.isfinite(task.losses[order][:, kept]).any(axis=1)
    rows = np.concatenate([order[alive][:1], np.delete(order, np.flatnonzero(alive)[:1])])[:trials]
    rows = chance.permutation(rows)
    loss = task.losses[np.ix_(rows, kept)]
    if chance.random() < KEPT_BEST:
        loss = np.fmin.accumulate(np.where(np.isfinite(loss), loss, np.nan), axis=1)
    loss = _bent(chance, loss)
    params, kinds = _configured(chance, task.params[rows], task.kinds)
    return _Study(_steps(chance, task.steps, kept), loss, params, kinds)


def _steps(chance: np.random.Generator, steps: Floats, kept: Ints) -> Floats:
    """Steps > 0; sometimes counted in another unit."""
    if steps[0] <= 0:
        steps = steps + (steps[1] - steps[0])  # an evaluation before training is the first step
    unit = chance.choice([1.0, 10.0, 100.0, 1000.0, float(chance.integers(2, 2000))]) if chance.random() < 0.3 else 1.0
    found: Floats = steps[kept] * unit
    return found if (np.diff(found.astype(np.float32)) > 0).all() else np.arange(1.0, kept.size + 1)


def _bent(chance: np.random.Generator, loss: Floats) -> Floats:
    """Values under a random rising function, centred and scaled; noise on some."""
    loss = np.where(np.isfinite(loss), loss, np.nan)
    scaled = _standard(loss)
    if chance.random() < 0.7:
        scaled = _standard(_warp(chance, scaled))
    if chance.random() < 0.2:
        scaled = scaled + 10 ** chance.uniform(-4, -1.5) * chance.standard_normal(scaled.shape)
    return np.clip(scaled, -BEYOND, BEYOND)


def _standard(loss: Floats) -> Floats:
    """Centred by the median of the last finite values of the runs, in units of their robust range.

    In float64: what differs by 1e-5 of the range still does in float32 afterwards.
    """
    finite = np.isfinite(loss)
    if not finite.any():
        return loss
    last = loss.shape[1] - 1 - np.argmax(finite[:, ::-1], axis=1)
    ends = loss[np.arange(len(loss)), last][finite.any(axis=1)]
    middle = float(np.median(ends))
    for values, low, high in ((ends, 0.1, 0.75), (ends, 0.0, 1.0), (loss[finite], 0.1, 0.9), (loss[finite], 0.0, 1.0)):
        width = float(np.quantile(values, high) - np.quantile(values, low))
        if width > CONSTANT * max(abs(middle), 1e-300) and np.isfinite(width):
            return (loss - middle) / width
    return loss - middle


def _warp(chance: np.random.Generator, loss: Floats) -> Floats:
    """A mixture of rising functions and the identity; no two different values become one."""
    values = loss[np.isfinite(loss)]
    if not values.size:
        return loss
    low = float(values.min())
    width = max(float(np.quantile(values, 0.75)) - low, 1e-9)
    above = np.minimum((loss - low) / width, BEYOND)  # >= 0, most of it up to 1
    edge = 10 ** chance.uniform(-3, 1)  # below it, the logarithm is a line
    sharp = 10 ** chance.uniform(-1, 1)
    centre = float(chance.choice(values))
    shapes = (
        np.log1p(above / edge) / np.log1p(1 / edge),
        above ** chance.uniform(0.4, 1.0),
        np.minimum(above, 1e6) ** chance.uniform(1.0, 2.0) + 1e-3 * above,
        np.arcsinh(sharp * np.clip((loss - centre) / width, -BEYOND, BEYOND)) / np.arcsinh(sharp),
    )
    weights = chance.dirichlet(np.full(len(shapes), 0.4))
    # The identity's share keeps differences that a flat stretch of the others would lose.
    return np.asarray(0.02 * above + sum(w * shape for w, shape in zip(weights, shapes, strict=True)))


def _configured(chance: np.random.Generator, params: Floats, kinds: Ints) -> tuple[Floats, Ints]:
    """At times no configuration; else some of its columns in any order, categories numbered anew."""
    columns = chance.permutation(kinds.size)[:MOST_PARAMS]
    if chance.random() >= CONFIGURED or not columns.size:
        return np.zeros((len(params), 0)), np.zeros(0, np.int64)
    params, kinds = params[:, columns].copy(), kinds[columns]
    for column in np.flatnonzero(kinds == 2):
        known = np.isfinite(params[:, column])
        old, index = np.unique(params[known, column], return_inverse=True)
        params[known, column] = chance.permutation(old.size)[index]
    for column in np.flatnonzero(kinds == 1):
        if chance.random() < 0.5:  # whether more of it is called more is a convention
            params[:, column] = 1 - params[:, column]
    return params, kinds


def _batch(drawn: Sequence[_Study]) -> Studies:
    """Padded to the largest, as `Studies` asks for it."""
    b, c, s = len(drawn), max(len(study.loss) for study in drawn), max(study.steps.size for study in drawn)
    d = max(1, max(study.kinds.size for study in drawn))
    steps, length = np.ones((b, s), np.float32), np.zeros(b, np.int64)
    loss, params = np.full((b, c, s), np.nan, np.float32), np.full((b, c, d), np.nan, np.float32)
    kinds, present = np.zeros((b, d), np.int64), np.zeros((b, c), bool)
    for i, study in enumerate(drawn):
        rows, n = study.loss.shape
        steps[i, :n], steps[i, n:], length[i] = study.steps, study.steps[-1], n
        loss[i, :rows, :n], present[i, :rows] = study.loss, True
        params[i, :rows, : study.kinds.size], kinds[i, : study.kinds.size] = study.params, study.kinds
    unknown = torch.full((b, c, s), torch.nan)
    there = torch.from_numpy(present)
    return Studies(
        steps=torch.from_numpy(steps),
        length=torch.from_numpy(length),
        loss=torch.from_numpy(loss),
        latent=unknown,
        reported=torch.from_numpy(length)[:, None] * there,
        present=there,
        rate=unknown.clone(),
        params=torch.from_numpy(params),
        kinds=torch.from_numpy(kinds),
    )
